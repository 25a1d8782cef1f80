"""`mmdata demo`: a simulated log, converted and verified, needing nothing but the package."""

from __future__ import annotations

from pathlib import Path

import typer

from mmdata.cli.common import (
    FINDINGS,
    JsonOption,
    human_bytes,
    one_line_errors,
    print_json,
    print_table,
    table,
)

#: What is done in the demo, kept in its episode as `mmdata convert --task` would.
TASK = "pick up the cube and place it"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    out: Path = typer.Option(Path("mmdata-demo"), "--out", "-o", help="Folder to write to."),
    seed: int = typer.Option(0, help="Another seed, another episode."),
    json: bool = JsonOption,
) -> None:
    """Simulate a pick-and-place, write it as a ROS 2 log, convert and verify it. Under a minute.

    Two cameras, a LiDAR, joints, gripper, wrench, tactile and audio, all mutually consistent; what
    is true is written beside the log.
    """
    with one_line_errors():
        import shutil

        from mmdata import open_episode
        from mmdata.config import ConvertConfig
        from mmdata.conversion.job import convert_source
        from mmdata.conversion.sources import find_sources
        from mmdata.simulate import pick_place, write_mcap, write_truth
        from mmdata.store import verify_episode

        def say(text: str) -> None:
            if not json:
                typer.echo(text)

        out.mkdir(parents=True, exist_ok=True)
        log = out / f"pick_place_{seed:03d}"
        say(f"simulating a pick-and-place (seed {seed}) ...")
        simulated = pick_place(seed=seed)
        shutil.rmtree(log, ignore_errors=True)
        write_mcap(log, simulated)
        truth = out / f"{log.name}.truth.json"
        write_truth(truth, simulated)
        size = sum(f.stat().st_size for f in log.iterdir())
        say(f"wrote the log {log} ({human_bytes(size)}), its truth {truth.name}")
        config = ConvertConfig.model_validate({"metadata": {"task": TASK}})
        result = convert_source(find_sources([log]).sources[0], out, config, overwrite=True)
        episode = result.episodes[0]
        say(f"converted in {result.seconds:.2f} s")
        verified = verify_episode(episode.path)
        with open_episode(episode.path) as ep:
            rows = [
                (
                    name, str(s.kind), f"{len(s):,}",
                    "" if s.rate_hz is None else f"{s.rate_hz:.4g}",
                    s.info.encoding or ", ".join(s.fields),
                )
                for name, s in ep.streams.items()
            ]  # fmt: skip
            view = ep.aligned()
            duration = ep.duration_s
        if json:
            print_json(
                {
                    "episode": str(episode.path), "log": str(log), "truth": str(truth),
                    "ok": verified.ok, "problems": verified.problems,
                    "streams": episode.streams, "timeline": view.name, "ticks": len(view),
                    "seconds": round(result.seconds, 3),
                }
            )  # fmt: skip
        else:
            made = table("stream", "kind", "samples", "rate (Hz)", "holds",
                         right=("samples", "rate (Hz)"))  # fmt: skip
            for row in rows:
                made.add_row(*row)
            print_table(made)
            typer.echo(f"aligned view {view.name!r}: {len(view):,} ticks over {duration:.2f} s")
            for problem in verified.problems:
                typer.echo(f"DAMAGED: {problem}")
            state = "verified" if verified.ok else "damaged"
            typer.echo(f"{state} episode: {episode.path} ({human_bytes(episode.bytes_out)})")
            typer.echo(f"next: mmdata info {episode.path}")
        if not verified.ok:
            raise typer.Exit(FINDINGS)
