"""``mmdata view`` and ``mmdata render``: the viewer, reached through its entry points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmdata.cli.common import one_line_errors, print_json, warn

GROUP = "mmdata.viewer"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("view")(view)
    app.command("render")(render)


def view(
    path: Annotated[Path, typer.Argument(help="An episode, or a folder of them.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; off this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    no_browser: Annotated[bool, typer.Option(help="Do not open a browser.")] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of the annotation journal [default: PATH/.mmdata-viewer]."),
    ] = None,
    desktop: Annotated[
        bool, typer.Option(help="A desktop window of Open3D (pip install 'mmdata[open3d]').")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """See every stream of an episode on one clock in the browser, and label it."""
    with one_line_errors():
        if desktop:
            _viewer("desktop")(path)
            return
        announce = _announce_json if as_json else _announce
        _viewer("serve")(
            path, host=host, port=port, open_browser=not no_browser, state=state, announce=announce
        )


def render(
    episode: Annotated[Path, typer.Argument(help="The episode.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .png or .mp4 file.")],
    time: Annotated[
        float,
        typer.Option(
            help="Seconds since the episode's start: the picture, or where an mp4 begins."
        ),
    ] = 0.0,
    end: Annotated[
        float | None, typer.Option(help="Where an mp4 ends [default: with the episode].")
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames per second of an mp4.")] = 15.0,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 1280,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layers to draw [default: all]; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written.")] = False,
) -> None:
    """Draw an episode at one instant (png) or over time (mp4), without a browser or a display."""
    with one_line_errors():
        written = _viewer("render")(
            episode, output, time_s=time, end_s=end, fps=fps, width=width, layers=layer
        )
    if as_json:
        print_json(written)
    else:
        warn(
            f"wrote {output} ({written['width']} x {written['height']}, {written['frames']} frames)"
        )


def _viewer(name: str) -> Any:
    """One function of the viewer package. MissingDependencyError where it is not installed."""
    from importlib.metadata import entry_points

    from mmdata.errors import MissingDependencyError

    for entry in entry_points(group=GROUP):
        if entry.name == name:
            try:
                return entry.load()
            except ModuleNotFoundError as error:
                raise MissingDependencyError(error.name or "?", "viewer", "the viewer") from error
    raise MissingDependencyError("mmdata[viewer]", "viewer", "the viewer")


def _announce(url: str) -> None:
    warn(f"{url}  (Ctrl+C ends)")


def _announce_json(url: str) -> None:
    import sys

    print_json({"url": url})
    sys.stdout.flush()
