"""`mmdata info`, `align`, `verify` and `recover`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from mmdata.cli.common import (
    FINDINGS,
    JsonOption,
    fail,
    human_bytes,
    one_line_errors,
    print_json,
    print_table,
    table,
    warn,
)

if TYPE_CHECKING:
    from mmdata.episode import Policy


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(info)
    app.command()(align)
    app.command()(verify)
    app.command()(recover)


def info(
    episode: Path = typer.Argument(..., help="An episode file."), json: bool = JsonOption
) -> None:
    """Show what is in an episode: streams, timelines, rig, metadata, provenance.

    Example: mmdata info episodes/pick_place.h5
    """
    with one_line_errors():
        from mmdata import open_episode

        with open_episode(episode) as ep:
            streams: dict[str, dict[str, Any]] = {
                name: {
                    "kind": str(s.kind), "count": len(s), "rate_hz": s.rate_hz,
                    "start_ns": s.start_ns, "end_ns": s.end_ns, "fields": list(s.fields),
                    "encoding": s.info.encoding, "topic": s.info.source_topic,
                    "stamp_source": s.info.stamp_source, "clock": s.info.clock,
                    "stamp_meaning": s.info.stamp_meaning,
                }
                for name, s in ep.streams.items()
            }  # fmt: skip
            timelines = {}
            for name in ep.timelines:
                view = ep.aligned(name)
                timelines[name] = {
                    "ticks": len(view),
                    "rate_hz": view.timeline.rate_hz,
                    "reference_stream": view.timeline.reference_stream,
                }
            document = {
                "episode_id": ep.episode_id, "path": str(episode), "status": ep.status,
                "start_ns": ep.start_ns, "end_ns": ep.end_ns, "duration_s": ep.duration_s,
                "reference_clock": ep.reference_clock, "bytes": episode.stat().st_size,
                "streams": streams, "timelines": timelines, "rig": ep.rig.to_dict(),
                "metadata": dict(ep.metadata), "annotations": list(ep.annotations),
                "provenance": dict(ep.provenance),
            }  # fmt: skip
        if json:
            print_json(document)
            return
        typer.echo(
            f"{ep.episode_id}: {ep.duration_s:.3f} s, {len(streams)} streams, "
            f"{human_bytes(episode.stat().st_size)}, {ep.status}"
        )
        made = table(
            "stream", "kind", "samples", "rate (Hz)", "fields", "stamps",
            right=("samples", "rate (Hz)"),
        )  # fmt: skip
        for name, s in streams.items():
            rate = "" if s["rate_hz"] is None else f"{s['rate_hz']:.4g}"
            what = s["encoding"] or ", ".join(s["fields"])
            made.add_row(
                name,
                s["kind"],
                f"{s['count']:,}",
                rate,
                what,
                f"{s['stamp_source']} ({s['clock']})",
            )
        print_table(made)
        for name, t in timelines.items():
            typer.echo(f"timeline {name}: {t['ticks']:,} ticks")
        sensors = ", ".join(ep.rig) or "nothing known"
        typer.echo(f"rig: {sensors}")
        for key, value in ep.metadata.items():
            typer.echo(f"{key}: {value}")
        for source in ep.provenance.get("sources", []):
            typer.echo(f"source: {source['name']} ({human_bytes(source['bytes'])})")


def align(
    episodes: list[Path] = typer.Argument(..., help="Episode files."),
    rate: float = typer.Option(None, help="Ticks per second."),
    reference: str = typer.Option(None, help="Stream whose stamps are the ticks."),
    name: str = typer.Option(None, help="Name of the timeline (default: '20hz', or the stream)."),
    policy: list[str] = typer.Option(
        [], help="STREAM=POLICY: previous, nearest, linear or slerp. Repeatable."
    ),
    tolerance: list[str] = typer.Option([], help="STREAM=MILLISECONDS. Repeatable."),
    lookahead: bool = typer.Option(
        False, help="Interpolate signals and take nearest frames (not causal)."
    ),
    json: bool = JsonOption,
) -> None:
    """Add a time-aligned view to episodes.

    Example: mmdata align episodes/pick_place.h5 --rate 20
    """
    with one_line_errors():
        from mmdata import open_episode
        from mmdata.align import build_timeline
        from mmdata.store import write_timeline

        policies = cast("dict[str, Policy]", dict(_pairs(policy, "--policy")))
        tolerances = {
            stream: round(_milliseconds(value) * 1e6)
            for stream, value in _pairs(tolerance, "--tolerance")
        }
        done = []
        for path in episodes:
            with open_episode(path) as ep:
                timeline = build_timeline(
                    ep.streams, rate_hz=rate, reference_stream=reference, name=name,
                    policies=policies, tolerances_ns=tolerances, lookahead=lookahead,
                )  # fmt: skip
            write_timeline(path, timeline)
            residuals = {
                stream: _residual_summary(a.index, a.residual_ns)
                for stream, a in timeline.streams.items()
            }
            done.append(
                {
                    "path": str(path), "timeline": timeline.name, "ticks": len(timeline),
                    "streams": residuals,
                }
            )  # fmt: skip
            if not json:
                typer.echo(f"{path}: timeline {timeline.name}, {len(timeline):,} ticks")
                made = table(
                    "stream", "policy", "ticks with a sample", "|residual| p50", "p95", "max"
                )
                for stream, r in residuals.items():
                    cells = [
                        f"{r[k]:.1f} ms" if k in r else "" for k in ("p50_ms", "p95_ms", "max_ms")
                    ]
                    made.add_row(stream, timeline.streams[stream].policy, f"{r['found']:,}", *cells)
                print_table(made)
        if json:
            print_json({"episodes": done})


def _residual_summary(index: object, residual_ns: object) -> dict[str, float]:
    import numpy as np

    found = np.abs(np.asarray(residual_ns)[np.asarray(index) >= 0]) / 1e6
    if not len(found):
        return {"found": 0}
    p50, p95 = (float(p) for p in np.percentile(found, [50, 95]))
    return {"found": len(found), "p50_ms": p50, "p95_ms": p95, "max_ms": float(found.max())}


def _pairs(values: list[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        stream, separator, what = value.partition("=")
        if not separator:
            fail(f"{option} takes STREAM=VALUE, not {value!r}", 2)
        pairs.append((stream, what))
    return pairs


def _milliseconds(text: str) -> float:
    try:
        return float(text.removesuffix("ms"))
    except ValueError:
        fail(f"{text!r} is no number of milliseconds", 2)


def verify(
    episodes: list[Path] = typer.Argument(..., help="Episode files."),
    decode: bool = typer.Option(True, help="Also decode every image."),
    json: bool = JsonOption,
) -> None:
    """Read every byte of episodes and compare them with what they say of themselves.

    Example: mmdata verify episodes/*.h5
    """
    with one_line_errors():
        from mmdata.store import verify_episode

        results = []
        for path in episodes:
            result = verify_episode(path, decode=decode)
            results.append(result)
            if json:
                continue
            if result.ok:
                typer.echo(
                    f"ok       {path}  {result.streams} streams, {result.samples:,} samples, "
                    f"content {(result.content_hash or '')[:23]}"
                )
            for problem in result.problems:
                typer.echo(f"DAMAGED  {path}  {problem}")
        if json:
            print_json(
                {
                    "episodes": [
                        {
                            "path": str(r.path), "ok": r.ok, "problems": r.problems,
                            "streams": r.streams, "samples": r.samples,
                            "content_hash": r.content_hash,
                        }
                        for r in results
                    ]
                }
            )  # fmt: skip
        if not all(r.ok for r in results):
            raise typer.Exit(FINDINGS)


def recover(
    partials: list[Path] = typer.Argument(..., help="FILE.h5.partial left by a killed writer."),
    overwrite: bool = typer.Option(False, help="Replace an episode of the same name."),
    json: bool = JsonOption,
) -> None:
    """Make valid episodes of what killed writers left, up to their last flush.

    Example: mmdata recover episodes/run_042.h5.partial
    """
    with one_line_errors():
        from mmdata.align import default_timelines
        from mmdata.errors import MmdataError
        from mmdata.store import open_episode
        from mmdata.store import recover as recover_partial

        recovered, failed = [], []
        for partial in partials:
            try:
                path = recover_partial(partial, default_timelines, overwrite=overwrite)
            except (MmdataError, OSError) as error:
                failed.append({"path": str(partial), "reason": str(error)})
                if not json:
                    warn(f"not recovered: {error}")
                continue
            with open_episode(path) as ep:
                counts = {name: len(s) for name, s in ep.streams.items()}
            recovered.append({"path": str(path), "streams": counts})
            if not json:
                typer.echo(f"{path}  {len(counts)} streams, {sum(counts.values()):,} samples")
        if json:
            print_json({"recovered": recovered, "failed": failed})
        if failed:
            raise typer.Exit(FINDINGS)
