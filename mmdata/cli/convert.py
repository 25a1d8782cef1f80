"""`mmdata inspect` and `mmdata convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmdata.cli.common import (
    FINDINGS,
    INTERRUPTED,
    USAGE,
    JsonOption,
    ProgressLines,
    fail,
    human_bytes,
    one_line_errors,
    print_json,
    print_table,
    table,
    warn,
)

if TYPE_CHECKING:
    from mmdata.config import ConvertConfig
    from mmdata.conversion.batch import BatchPlan
    from mmdata.conversion.job import JobResult
    from mmdata.conversion.sources import Found


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(inspect)
    app.command()(convert)


def inspect(
    log: Path = typer.Argument(..., help="A log: file or folder."),
    format: str = typer.Option(None, "--format", help="Format, when it is not recognised."),
    json: bool = JsonOption,
) -> None:
    """Show what is in a log: topics, types, counts, rates, problems.

    Example: mmdata inspect drive.mcap
    """
    with one_line_errors():
        from mmdata import registry
        from mmdata.conversion.sources import find_sources

        found = find_sources([log], format)
        if not found.sources:
            reasons = "; ".join(u.reason for u in found.unreadable)
            fail(f"{log}: {reasons or 'not a log of a known format'}")
        source = found.sources[0]
        with registry.converter(source.format).open(source.path, source.part) as recording:
            summary = recording.inspect()
        problems = [*summary.problems]
        if len(found.sources) > 1:
            problems.append(
                f"{len(found.sources)} recordings in it; this is the first, {source.label}"
            )
        document = {
            "format": summary.format,
            "start_ns": summary.start_ns,
            "end_ns": summary.end_ns,
            "streams": [
                {
                    "topic": t.topic, "type": t.type, "kind": t.kind and str(t.kind),
                    "count": t.count, "rate_hz": t.rate_hz,
                    "first_ns": t.first_ns, "last_ns": t.last_ns,
                }
                for t in summary.topics
            ],
            "problems": problems,
        }  # fmt: skip
        if json:
            print_json(document)
        else:
            _print_summary(source.label, document)


def _print_summary(label: str, document: dict[str, Any]) -> None:
    start, end = document["start_ns"], document["end_ns"]
    seconds = (end - start) / 1e9 if start is not None else 0.0
    total = sum(s["count"] for s in document["streams"])
    typer.echo(
        f"{label}: {document['format']}, {seconds:.3f} s, {total:,} messages on "
        f"{len(document['streams'])} topics"
    )
    made = table("topic", "kind", "count", "rate (Hz)", "type", right=("count", "rate (Hz)"))
    for s in document["streams"]:
        rate = "" if s["rate_hz"] is None else f"{s['rate_hz']:.4g}"
        made.add_row(s["topic"], s["kind"] or "", f"{s['count']:,}", rate, s["type"])
    print_table(made)
    for problem in document["problems"]:
        typer.echo(f"note: {problem}")


def convert(
    logs: list[str] = typer.Argument(..., help="Logs, folders, globs or s3:// URIs."),
    out: str = typer.Option(..., "--out", "-o", help="Folder the episodes go to, or s3:// URI."),
    config: Path = typer.Option(
        None, "--config", "-c", help="YAML; `mmdata config init LOG` writes one."
    ),
    format: str = typer.Option(None, "--format", help="Format, when it is not recognised."),
    jobs: int = typer.Option(1, "--jobs", "-j", min=1, help="Logs converted at a time."),
    split_topic: str = typer.Option(None, help="Start an episode at each message of this topic."),
    split_gap: float = typer.Option(None, help="Start an episode after a pause of SECONDS."),
    clip: float = typer.Option(None, help="Cut into clips of SECONDS."),
    rate: float = typer.Option(None, help="Rate of the aligned view in Hz."),
    stamps: str = typer.Option(
        None, help="auto | header | receive: which stamps are the time base."
    ),
    clock: str = typer.Option(None, help="keep | fit: map header clocks to the receive clock."),
    images: str = typer.Option(
        None, help="keep (raw 8-bit frames become H.264) | h264 | jpeg | lossless."
    ),
    profile: str = typer.Option(
        None, help="default (Blosc) | interchange (only filters that ship with h5py)."
    ),
    task: str = typer.Option(None, help="What is done in the episodes, kept in their metadata."),
    overwrite: bool = typer.Option(False, help="Convert all again, replacing what exists."),
    retry: bool = typer.Option(False, help="Try logs again that were quarantined."),
    dry_run: bool = typer.Option(False, help="Only say what would be done."),
    engine: str = typer.Option("local", help="local | ray."),
    address: str = typer.Option(None, help="Address of a running Ray cluster."),
    json: bool = JsonOption,
) -> None:
    """Convert logs into episodes; bad logs are quarantined with a reason, the rest goes on.

    What is done and unchanged is skipped when run again (see ledger.jsonl in the output folder).

    \b
    Examples:
      mmdata convert drive.mcap -o episodes
      mmdata convert logs/ -o episodes -j 4 --split-gap 2
    """
    with one_line_errors():
        import signal

        from mmdata.conversion.batch import plan_batch, run_batch
        from mmdata.conversion.sources import find_sources

        if engine not in ("local", "ray"):
            fail(f"--engine is local or ray, not {engine!r}", USAGE)
        settings = _settings(
            config, split_topic, split_gap, clip, rate, stamps, profile, images, clock, task
        )
        found = find_sources(logs, format)
        plan = plan_batch(found.sources, out, settings, retry=retry, overwrite=overwrite)
        if dry_run:
            _print_plan(found, plan, json)
            return
        # What a scheduler sends when the time is up stops as cleanly as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        results: list[JobResult] = []
        with ProgressLines(quiet=json) as progress:
            batch = run_batch(
                plan, out, settings, jobs=jobs, engine="ray" if engine == "ray" else "local",
                address=address, overwrite=overwrite, progress=progress.update,
            )  # fmt: skip
            try:
                for result in batch:
                    results.append(result)
                    progress.finish(result.source.episode_id)
                    progress.overall(len(results), len(plan.todo))
                    if not json:
                        _print_result(result)
            except KeyboardInterrupt:
                batch.close()
                warn(
                    f"stopped: {len(results)} of {len(plan.todo)} logs are done; "
                    "run the same command to go on"
                )
                raise typer.Exit(INTERRUPTED) from None
        _report(found, plan, results, json)


def _print_plan(found: Found, plan: BatchPlan, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "todo": [
                    {"source": s.label, "format": s.format, "episode_id": s.episode_id}
                    for s in plan.todo
                ],
                "settled": [
                    {"source": s.label, "status": e.status, "reason": e.reason}
                    for s, e in plan.settled
                ],
                "quarantined": [
                    {"source": str(u.path), "reason": u.reason} for u in found.unreadable
                ],
                "ignored": [str(path) for path in found.ignored],
            }
        )
        return
    for source in plan.todo:
        typer.echo(
            f"convert  {source.label}  ({source.format or 'a log by its name'})"
            f" -> {source.episode_id}.h5"
        )
    for source, entry in plan.settled:
        typer.echo(f"skip     {source.label}  ({entry.reason or entry.status})")
    for unreadable in found.unreadable:
        typer.echo(f"refuse   {unreadable.path}  ({unreadable.reason})")


def _settings(
    config: Path | None,
    split_topic: str | None,
    split_gap: float | None,
    clip: float | None,
    rate: float | None,
    stamps: str | None,
    profile: str | None,
    images: str | None,
    clock: str | None,
    task: str | None,
) -> ConvertConfig:
    from mmdata.config import ConvertConfig, read_config
    from mmdata.errors import ConfigError

    settings = read_config(config, ConvertConfig) if config else ConvertConfig.model_validate({})
    given: dict[str, Any] = settings.model_dump(exclude_unset=True)
    split = {"topic": split_topic, "gap_s": split_gap, "clip_s": clip}
    changed = {k: v for k, v in split.items() if v is not None}
    if changed:
        given["split"] = {**given.get("split", {}), **changed}
    if rate is not None:
        given["timelines"] = [*(given.get("timelines") or []), {"rate_hz": rate}]
    if task is not None:
        given["metadata"] = {**given.get("metadata", {}), "task": task}
    for name, value in (
        ("stamps", stamps),
        ("profile", profile),
        ("images", images),
        ("clock", clock),
    ):
        if value is not None:
            given[name] = value
    try:
        return ConvertConfig.model_validate(given)
    except ValueError as error:
        first: list[Any] = getattr(error, "errors", list)()
        where = ".".join(map(str, first[0]["loc"])) if first else ""
        message = first[0]["msg"] if first else str(error)
        raise ConfigError(f"{where}: {message}") from error


def _print_result(result: JobResult) -> None:
    if result.reason is not None:
        warn(f"quarantined {result.source.label}: {result.reason}")
        return
    for episode in result.episodes:
        count = sum(s["count"] for s in episode.streams.values())
        typer.echo(
            f"{episode.location}  {len(episode.streams)} streams, {count:,} samples, "
            f"{human_bytes(episode.bytes_in)} -> {human_bytes(episode.bytes_out)}, "
            f"{episode.seconds:.2f} s"
        )
    for dropped in result.dropped:
        typer.echo(f"  not converted: {dropped.count:,} of {dropped.topic}: {dropped.reason}")
    for problem in result.problems:
        typer.echo(f"  note: {problem}")


def _report(found: Found, plan: BatchPlan, results: list[JobResult], as_json: bool) -> None:
    quarantined = [
        *({"source": str(u.path), "reason": u.reason} for u in found.unreadable),
        *({"source": r.source.label, "reason": r.reason} for r in results if r.reason is not None),
        *(
            {"source": s.label, "reason": e.reason}
            for s, e in plan.settled
            if e.status == "quarantined"
        ),
    ]
    skipped = [s.label for s, e in plan.settled if e.status == "done"]
    if as_json:
        print_json(
            {
                "episodes": [
                    {
                        "path": e.location, "episode_id": e.episode_id, "source": e.source,
                        "streams": e.streams, "bytes_in": e.bytes_in, "bytes_out": e.bytes_out,
                        "seconds": round(e.seconds, 4),
                    }
                    for r in results
                    for e in r.episodes
                ],
                "quarantined": quarantined,
                "dropped": [
                    {
                        "source": r.source.label, "topic": d.topic, "count": d.count,
                        "reason": d.reason,
                    }
                    for r in results
                    for d in r.dropped
                ],
                "notes": [
                    {"source": r.source.label, "note": note} for r in results for note in r.problems
                ],
                "topics": {r.source.label: r.topics for r in results if r.reason is None},
                "ignored": [str(path) for path in found.ignored],
                "skipped": skipped,
            }
        )  # fmt: skip
    else:
        for unreadable in found.unreadable:
            warn(f"quarantined {unreadable.path}: {unreadable.reason}")
        written = sum(len(r.episodes) for r in results)
        ignored = f", {len(found.ignored)} files that are no logs ignored" if found.ignored else ""
        done = f", {len(skipped)} done before" if skipped else ""
        typer.echo(f"{written} episodes, {len(quarantined)} quarantined{done}{ignored}")
        retry = [e for _, e in plan.settled if e.status == "quarantined"]
        if retry:
            typer.echo(f"{len(retry)} logs were quarantined before and not tried; --retry does")
    if not found.sources and not found.unreadable:
        raise typer.Exit(USAGE)
    if quarantined:
        raise typer.Exit(FINDINGS)
