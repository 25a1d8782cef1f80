"""Many recordings: resumable by the ledger, in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, Literal

from mmdata.config import ConvertConfig
from mmdata.conversion.job import JobResult, config_hash, try_convert
from mmdata.conversion.ledger import Entry, Ledger, fingerprint
from mmdata.conversion.sources import Source
from mmdata.errors import ConversionError, MissingDependencyError

Engine = Literal["local", "ray"]
Progress = Callable[[str, int, int], None]
_REPORT_EVERY_S = 0.2


@dataclass
class BatchPlan:
    """What is to be done and what is settled already."""

    todo: list[Source] = field(default_factory=list)
    settled: list[tuple[Source, Entry]] = field(default_factory=list)


def plan_batch(
    sources: list[Source], out: Path, config: ConvertConfig, *, retry: bool, overwrite: bool
) -> BatchPlan:
    """Compare the sources with the ledger in `out`; overwrite makes everything to do."""
    ledger, key = Ledger(out), config_hash(config)
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
    out: Path,
    config: ConvertConfig,
    *,
    jobs: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Generator[JobResult, None, None]:
    """Convert what is to do; yields results as they come, each recorded in the ledger before.

    Closing the iterator (or KeyboardInterrupt) stops cleanly: what runs is given up, and nothing of
    it stays under a final name.
    """
    out.mkdir(parents=True, exist_ok=True)
    ledger, key = Ledger(out), config_hash(config)
    if engine == "ray":
        results = _run_ray(plan.todo, out, config, overwrite, jobs, address)
    elif jobs > 1 and len(plan.todo) > 1:
        results = _run_pool(plan.todo, out, config, overwrite, jobs, progress)
    else:
        results = _run_here(plan.todo, out, config, overwrite, progress)
    for result, started in results:
        ledger.append(_entry(result, started, key))
        yield result


def _entry(result: JobResult, started: float, key: str) -> Entry:
    try:
        mark = fingerprint(result.source.path)
    except OSError:
        mark = ""
    return Entry(
        source=result.source.label,
        status="done" if result.reason is None else "quarantined",
        fingerprint=mark,
        config=key,
        episodes={e.path.name: e.bytes_out for e in result.episodes},
        sha256=result.sha256,
        reason=result.reason,
        started_unix_s=round(started, 3),
        seconds=round(result.seconds, 4),
    )


def _run_here(
    todo: list[Source],
    out: Path,
    config: ConvertConfig,
    overwrite: bool,
    progress: Progress | None,
) -> Iterator[tuple[JobResult, float]]:
    for source in todo:
        started = time.time()
        report = None
        if progress is not None:
            report = _Throttled(lambda done, total, s=source: progress(s.episode_id, done, total))  # type: ignore[misc]
        result = try_convert(
            source, out, config, overwrite=overwrite, resuming=True, progress=report
        )
        yield result, started


class _Throttled:
    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - self._last > _REPORT_EVERY_S:
            self._last = now
            self._report(done, total)


# -- local processes ---------------------------------------------------------------------------

_reports: Any = None


def _start_worker(reports: Any, parent: int) -> None:
    """A worker ignores Ctrl-C (its parent stops it) and dies with its parent."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)  # the parent was killed: stop writing at once, its next run starts over

    threading.Thread(target=watch, daemon=True).start()


def _work(
    source: Source, out: Path, config: ConvertConfig, overwrite: bool
) -> tuple[JobResult, float]:
    started = time.time()
    report = None
    if _reports is not None:
        report = _Throttled(lambda done, total: _reports.put((source.episode_id, done, total)))
    result = try_convert(source, out, config, overwrite=overwrite, resuming=True, progress=report)
    return result, started


def _run_pool(
    todo: list[Source],
    out: Path,
    config: ConvertConfig,
    overwrite: bool,
    jobs: int,
    progress: Progress | None,
) -> Iterator[tuple[JobResult, float]]:
    context = multiprocessing.get_context("spawn")
    reports: Any = context.Queue() if progress is not None else None
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_start_worker, initargs=(reports, os.getpid())
    )
    waiting = iter(todo)
    running: dict[Future[tuple[JobResult, float]], Source] = {}
    try:
        while True:
            # No more is handed out than can run, so that stopping has little to give up.
            while len(running) < jobs and (source := next(waiting, None)) is not None:
                running[pool.submit(_work, source, out, config, overwrite)] = source
            if not running:
                break
            done, _ = wait(running, timeout=_REPORT_EVERY_S, return_when=FIRST_COMPLETED)
            _pass_on(reports, progress)
            for future in done:
                source = running.pop(future)
                try:
                    yield future.result()
                except Exception as error:  # a worker was killed, by the system for its memory say
                    raise ConversionError(
                        f"a worker process died while converting {source.label} "
                        f"({type(error).__name__}); run again to go on"
                    ) from error
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        for source in running.values():
            _clean(out, source)


def _pass_on(reports: Any, progress: Progress | None) -> None:
    if reports is None or progress is None:
        return
    while True:
        try:
            progress(*reports.get_nowait())
        except Empty:
            return


def _clean(out: Path, source: Source) -> None:
    """Remove what a stopped worker left of a source."""
    for pattern in (".h5.partial", ".h5.partial.journal", ".h5.rewrite.partial*"):
        for path in out.glob(f"{source.episode_id}*{pattern}"):
            path.unlink(missing_ok=True)


# -- Ray ---------------------------------------------------------------------------------------


def _run_ray(
    todo: list[Source],
    out: Path,
    config: ConvertConfig,
    overwrite: bool,
    jobs: int,
    address: str | None,
) -> Iterator[tuple[JobResult, float]]:
    """The same job function as Ray tasks; `out` must be a path every node sees, or a URI."""
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", "--engine ray") from None
    started_here = not ray.is_initialized()
    if started_here:
        options: dict[str, Any] = {"address": address} if address else {"num_cpus": max(1, jobs)}
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False, **options)
    task = ray.remote(num_cpus=1, max_retries=2)(_work)
    try:
        running = {task.remote(source, out, config, overwrite): source for source in todo}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            source = running.pop(done[0])
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayError as error:
                reason = f"its Ray task failed: {str(error).splitlines()[0]}"
                yield JobResult(source, reason=reason), time.time()
    finally:
        if started_here:
            ray.shutdown()
