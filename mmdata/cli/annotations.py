"""`mmdata annotations`: layers of an episode, other tools' formats, agreement and review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli import label_gold, label_qa
from mmdata.cli.common import (
    FINDINGS,
    JsonOption,
    one_line_errors,
    print_json,
    print_table,
    table,
    warn,
)

if TYPE_CHECKING:
    from mmdata.annotations import Loss, Scene
    from mmdata_schema import Layer

_FORMATS = (
    "pandaset, cvat, coco, kitti, kitti-tracking, kitti-tracklets, nuscenes, label-studio, elan, "
    "csv"
)
EpisodeArgument = Annotated[Path, typer.Argument(help="An episode file.")]
FormatOption = Annotated[str, typer.Option("--format", "-f", help=f"One of: {_FORMATS}.")]
StreamOption = Annotated[
    str | None, typer.Option(help="Stream the labels were made on, e.g. camera_front.")
]
FrameOption = Annotated[str | None, typer.Option(help="Frame of 3D boxes.")]
OriginOption = Annotated[
    int | None,
    typer.Option(
        help="Stamp (ns) of the format's time zero; else the stream's or episode's start."
    ),
]
LayerReference = "A layer file, or EPISODE.h5:LAYER."


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        name="annotations", no_args_is_help=True, rich_markup_mode=None,
        help="Layers of labels: import, export, list, diff, merge, publish, agreement, review.",
    )  # fmt: skip
    group.command("import")(import_)
    group.command("export")(export)
    group.command("list")(list_)
    group.command("diff")(diff)
    group.command("merge")(merge)
    group.command("publish")(publish)
    label_qa.register(group)
    label_gold.register(group)
    app.add_typer(group)


def import_(
    episode: EpisodeArgument,
    source: Annotated[Path, typer.Argument(help="File or folder to read.")],
    format: FormatOption,
    layer: Annotated[str, typer.Option(help="Name of the layer to make.")],
    stream: StreamOption = None,
    frame_id: FrameOption = None,
    origin_ns: OriginOption = None,
    author: Annotated[
        str | None, typer.Option(help="Who made the labels, if the file does not say.")
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="Label Studio time series: s, ms, us or ns.")
    ] = None,
    scene_name: Annotated[
        str | None, typer.Option(help="nuScenes: which scene, by name or token.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a layer of that name.")
    ] = False,
    json: bool = JsonOption,
) -> None:
    """Read another tool's labels into a layer beside the episode.

    What cannot be held is listed. Example: mmdata annotations import drive.h5 boxes.json -f
    pandaset --layer gt
    """
    with one_line_errors():
        from mmdata.annotations import layer_path, read_format, read_layer_file, write_layer_file
        from mmdata.errors import ConfigError

        extra = {"time_unit": time_unit, "scene_name": scene_name}
        imported = read_format(
            format, source, _scene(episode, stream, frame_id, origin_ns, author), layer=layer,
            **{k: v for k, v in extra.items() if v is not None},
        )  # fmt: skip
        if not imported.layers:
            warn(f"{source} holds no labels of this episode")
        written: list[dict[str, Any]] = []
        for made in imported.layers:
            path = layer_path(episode, made.name)
            revision = 0
            if path.exists():
                if not replace:
                    raise ConfigError(f"{path} exists; --replace replaces it")
                revision = read_layer_file(path).revision
            saved = write_layer_file(path, made, revision)
            written.append(
                {"layer": saved.name, "path": str(path), "revision": saved.revision,
                 "counts": _counts(saved)}
            )  # fmt: skip
        if json:
            print_json({"layers": written, "losses": _losses(imported.losses)})
            return
        for row in written:
            counts = ", ".join(f"{n} {name}" for name, n in row["counts"].items()) or "empty"
            typer.echo(f"{row['path']} (revision {row['revision']}): {counts}")
        _print_losses(imported.losses)


def export(
    episode: EpisodeArgument,
    layer: Annotated[str, typer.Argument(help="Name of the layer.")],
    target: Annotated[Path, typer.Argument(help="File or folder to write.")],
    format: FormatOption,
    stream: StreamOption = None,
    frame_id: FrameOption = None,
    origin_ns: OriginOption = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Tracks at the samples of --stream, in --frame-id."),
    ] = False,
    json: bool = JsonOption,
) -> None:
    """Write a layer for another tool; what its format cannot hold is listed."""
    with one_line_errors():
        from mmdata.annotations import read_episode_layer, write_format

        made = read_episode_layer(episode, layer)
        exported = write_format(
            format, target, made, _scene(episode, stream, frame_id, origin_ns, None),
            resample=resample,
        )  # fmt: skip
        if json:
            files = [str(path) for path in exported.files]
            print_json({"files": files, "losses": _losses(exported.losses)})
            return
        typer.echo(f"{target}: {len(exported.files)} file{'s' * (len(exported.files) != 1)}")
        _print_losses(exported.losses)


def list_(episode: EpisodeArgument, json: bool = JsonOption) -> None:
    """List the layers of an episode and where each lives."""
    with one_line_errors():
        from mmdata.annotations import list_layers

        entries = list_layers(episode)
        if json:
            print_json([entry.to_dict() for entry in entries])
        elif not entries:
            typer.echo("no layers")
        else:
            shown = table("layer", "place", "revision", "author", "review", "annotations")
            for e in entries:
                counts = ", ".join(f"{n} {name}" for name, n in (e.counts or {}).items())
                shown.add_row(
                    e.name, e.place, "" if e.revision is None else str(e.revision),
                    e.author or "", e.review_state or "", e.problem or counts or "empty",
                )  # fmt: skip
            print_table(shown)
        if any(entry.problem for entry in entries):
            raise typer.Exit(FINDINGS)


def diff(
    before: Annotated[str, typer.Argument(help=LayerReference)],
    after: Annotated[str, typer.Argument(help=LayerReference)],
    json: bool = JsonOption,
) -> None:
    """Show what changed between two layers; exit code 1 when something did."""
    with one_line_errors():
        from mmdata.annotations import diff_layers

        found = diff_layers(_read(before), _read(after))
        if json:
            print_json(found.to_dict())
        else:
            for id, collection in found.removed.items():
                typer.echo(f"- {collection} {id}")
            for id, collection in found.added.items():
                typer.echo(f"+ {collection} {id}")
            for id, (collection, changes) in found.changed.items():
                for c in changes:
                    path = ".".join(c.path)
                    typer.echo(f"~ {collection} {id} {path}: {c.before} -> {c.after}")
            for c in found.header:
                typer.echo(f"~ layer {'.'.join(c.path)}: {c.before} -> {c.after}")
        if found:
            raise typer.Exit(FINDINGS)


def merge(
    ours: Annotated[Path, typer.Argument(help="The layer file that takes the changes.")],
    theirs: Annotated[str, typer.Argument(help=LayerReference)],
    base: Annotated[
        str | None, typer.Option(help="What both started from; without it nothing is removed.")
    ] = None,
    keep_ours: Annotated[
        bool, typer.Option("--keep-ours", help="Save in spite of conflicts, with ours.")
    ] = False,
    json: bool = JsonOption,
) -> None:
    """Merge another layer into a layer file; on conflicts nothing is saved and exit code is 1."""
    with one_line_errors():
        from mmdata.annotations import merge_layers, read_layer_file, write_layer_file

        mine = read_layer_file(ours)
        merged = merge_layers(_read(base) if base else None, mine, _read(theirs))
        save = keep_ours or not merged.conflicts
        saved = write_layer_file(ours, merged.layer, mine.revision) if save else None
        revision = saved.revision if saved else None
        if json:
            conflicts = [c.to_dict() for c in merged.conflicts]
            print_json({"saved_revision": revision, "conflicts": conflicts})
        else:
            for c in merged.conflicts:
                typer.echo(f"conflict: {c.collection} {c.id} {'.'.join(c.path)}: {c.reason} "
                           f"(base {c.base}, ours {c.ours}, theirs {c.theirs})")  # fmt: skip
            typer.echo(f"{ours}: saved as revision {revision}" if saved else "nothing saved")
        if merged.conflicts:
            raise typer.Exit(FINDINGS)


def publish(
    episode: EpisodeArgument,
    layers: Annotated[
        list[str] | None, typer.Argument(help="Layers; all beside the episode by default.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take embedded layers out again, for editing.")
    ] = False,
    json: bool = JsonOption,
) -> None:
    """Embed layers in the episode; each lives in one place, so their files beside it go."""
    with one_line_errors():
        from mmdata.annotations import publish as embed
        from mmdata.annotations import withdraw
        from mmdata.errors import ConfigError

        if undo:
            if not layers:
                raise ConfigError("name the layers to take out")
            done = [str(path) for path in withdraw(episode, layers)]
        else:
            done = embed(episode, layers or ())
        if json:
            print_json({"withdrawn" if undo else "published": done})
        else:
            typer.echo("\n".join(done) or "nothing to publish")


def _read(reference: str) -> Layer:
    """A layer by file, or by EPISODE.h5:LAYER."""
    from mmdata.annotations import read_episode_layer, read_layer_file

    episode, colon, name = reference.rpartition(":")
    if colon and episode.endswith(".h5"):
        return read_episode_layer(episode, name)
    return read_layer_file(reference)


def _scene(
    episode: Path, stream: str | None, frame_id: str | None, origin_ns: int | None,
    author: str | None,
) -> Scene:  # fmt: skip
    from mmdata import open_episode
    from mmdata.annotations import Scene

    with open_episode(episode) as opened:
        return Scene.of(
            opened, stream=stream, frame_id=frame_id, origin_ns=origin_ns, author=author
        )


def _counts(layer: Layer) -> dict[str, int]:
    from mmdata_schema import COLLECTIONS

    return {name: len(getattr(layer, name)) for name in COLLECTIONS if getattr(layer, name)}


def _losses(losses: tuple[Loss, ...]) -> list[dict[str, Any]]:
    return [{"what": x.what, "count": x.count, "example": x.example} for x in losses]


def _print_losses(losses: tuple[Loss, ...]) -> None:
    for loss in losses:
        warn(f"not carried over: {loss}")
