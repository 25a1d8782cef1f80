"""`mmdata inspect` and `mmdata convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmdata.cli.common import (
    FINDINGS,
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
    logs: list[str] = typer.Argument(..., help="Logs, folders or globs."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder the episodes go to."),
    config: Path = typer.Option(
        None, "--config", "-c", help="YAML; `mmdata config init LOG` writes one."
    ),
    format: str = typer.Option(None, "--format", help="Format, when it is not recognised."),
    split_topic: str = typer.Option(None, help="Start an episode at each message of this topic."),
    split_gap: float = typer.Option(None, help="Start an episode after a pause of SECONDS."),
    clip: float = typer.Option(None, help="Cut into clips of SECONDS."),
    rate: float = typer.Option(None, help="Rate of the aligned view in Hz."),
    stamps: str = typer.Option(
        None, help="auto | header | receive: which stamps are the time base."
    ),
    profile: str = typer.Option(
        None, help="default (Blosc) | interchange (only filters that ship with h5py)."
    ),
    overwrite: bool = typer.Option(False, help="Replace episodes that exist."),
    json: bool = JsonOption,
) -> None:
    """Convert logs into episodes; bad logs are quarantined with a reason, the rest goes on.

    Examples:
      mmdata convert drive.mcap -o episodes
      mmdata convert logs/ -o episodes --split-gap 2
    """
    with one_line_errors():
        from mmdata.conversion.job import try_convert
        from mmdata.conversion.sources import find_sources

        settings = _settings(config, split_topic, split_gap, clip, rate, stamps, profile)
        found = find_sources(logs, format)
        out.mkdir(parents=True, exist_ok=True)
        results: list[JobResult] = []
        with ProgressLines(quiet=json) as progress:
            for source in found.sources:
                results.append(
                    try_convert(
                        source,
                        out,
                        settings,
                        overwrite=overwrite,
                        progress=lambda done, total, name=source.episode_id: progress.update(  # type: ignore[misc]
                            name, done, total
                        ),
                    )
                )
                progress.finish(source.episode_id)
                if not json:
                    _print_result(results[-1])
        _report(found, results, json)


def _settings(
    config: Path | None,
    split_topic: str | None,
    split_gap: float | None,
    clip: float | None,
    rate: float | None,
    stamps: str | None,
    profile: str | None,
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
    for name, value in (("stamps", stamps), ("profile", profile)):
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
            f"{episode.path}  {len(episode.streams)} streams, {count:,} samples, "
            f"{human_bytes(episode.bytes_in)} -> {human_bytes(episode.bytes_out)}, "
            f"{episode.seconds:.2f} s"
        )
    for dropped in result.dropped:
        typer.echo(f"  not converted: {dropped.count:,} of {dropped.topic}: {dropped.reason}")
    for problem in result.problems:
        typer.echo(f"  note: {problem}")


def _report(found: Found, results: list[JobResult], as_json: bool) -> None:
    quarantined = [
        *({"source": str(u.path), "reason": u.reason} for u in found.unreadable),
        *({"source": r.source.label, "reason": r.reason} for r in results if r.reason is not None),
    ]
    if as_json:
        print_json(
            {
                "episodes": [
                    {
                        "path": str(e.path), "episode_id": e.episode_id, "source": e.source,
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
            }
        )  # fmt: skip
    else:
        for unreadable in found.unreadable:
            warn(f"quarantined {unreadable.path}: {unreadable.reason}")
        written = sum(len(r.episodes) for r in results)
        ignored = f", {len(found.ignored)} files that are no logs ignored" if found.ignored else ""
        typer.echo(f"{written} episodes, {len(quarantined)} quarantined{ignored}")
    if not results and not found.unreadable:
        raise typer.Exit(USAGE)
    if quarantined:
        raise typer.Exit(FINDINGS)
