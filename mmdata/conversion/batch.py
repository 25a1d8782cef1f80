"""Many recordings: what is to be done by the ledger, done by an engine, entered in the ledger."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmdata.config import ConvertConfig
from mmdata.conversion import engines
from mmdata.conversion.engines import Progress, Task
from mmdata.conversion.job import JobResult, config_hash
from mmdata.conversion.ledger import LEDGER, Entry, Ledger, fingerprint, out_folder
from mmdata.conversion.sources import Source

Engine = Literal["local", "ray"]


@dataclass
class BatchPlan:
    """What is to be done and what is settled already."""

    todo: list[Source] = field(default_factory=list)
    settled: list[tuple[Source, Entry]] = field(default_factory=list)


def plan_batch(
    sources: list[Source], out: str | Path, config: ConvertConfig, *, retry: bool, overwrite: bool
) -> BatchPlan:
    """Compare the sources with the ledger in `out`; overwrite makes everything to do."""
    ledger, key = Ledger(out_folder(out)), config_hash(config)
    plan = BatchPlan()
    for source in sources:
        entry = None if overwrite else ledger.settled(source, key, retry)
        if entry is None:
            plan.todo.append(source)
        else:
            plan.settled.append((source, entry))
    return plan


def run_batch(
    plan: BatchPlan,
    out: str | Path,
    config: ConvertConfig,
    *,
    jobs: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Generator[JobResult, None, None]:
    """Convert what is to do; yields results as they come, each entered in the ledger before.

    out: a folder, or a URI (`s3://bucket/episodes`). Closing the iterator (or KeyboardInterrupt)
    stops cleanly: what runs is given up, and nothing of it stays under a final name.

    Raises ConversionError when another batch is writing to the folder, MissingDependencyError
    without Ray or fsspec where they are needed.
    """
    folder, key = out_folder(out), config_hash(config)
    with folder.claimed():
        ledger = Ledger(folder)
        # Marks of before, so that a log that changes meanwhile is converted again by the next run.
        marks = {s.label: _mark(s) for s in plan.todo}
        before = {s.label: ledger.made_of(s) for s in plan.todo}
        todo = [Task(s, out, config, overwrite, before[s.label]) for s in plan.todo]
        if engine == "ray" and todo:
            results = engines.run_ray(todo, jobs, address)
        elif jobs > 1 and len(todo) > 1:
            results = engines.run_pool(todo, jobs, progress)
        else:
            results = engines.run_here(todo, progress)
        try:
            for result, started in results:
                known = ledger.entries.get(result.source.label)
                ledger.append(_entry(result, started, key, marks, known))
                made = {e.path.name for e in result.episodes}
                if result.reason is None:  # split otherwise, it may have had more
                    folder.remove(before[result.source.label] - made)
                yield result
        finally:
            folder.sync(LEDGER)


def _mark(source: Source) -> str:
    try:
        return fingerprint(source)
    except OSError:
        return ""  # it is gone; converting it says so


def _entry(
    result: JobResult, started: float, key: str, marks: dict[str, str], known: Entry | None
) -> Entry:
    episodes = {e.path.name: e.bytes_out for e in result.episodes}
    if result.reason is not None and known is not None:
        episodes = dict(known.episodes)  # a failure leaves earlier ones where they are
    return Entry(
        source=result.source.label,
        status="done" if result.reason is None else "quarantined",
        fingerprint=marks[result.source.label],
        config=key,
        episodes=episodes,
        blake3=result.digest,
        reason=result.reason,
        started_unix_s=round(started, 3),
        seconds=round(result.seconds, 4),
    )
