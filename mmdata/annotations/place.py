"""Which layers an episode has, and moving them between sidecar and episode."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mmdata.annotations.sidecar import (
    episode_lock,
    file_name,
    format_layer,
    parse_layer,
    read_layer_file,
    sync_folder,
    write_durably,
)
from mmdata.errors import ConfigError, FormatError, SchemaError
from mmdata.store import edit_episode, layout, open_episode, write_annotations
from mmdata_schema import COLLECTIONS, Layer

EpisodePath = str | os.PathLike[str]


@dataclass(frozen=True)
class LayerEntry:
    """One layer of an episode as a list shows it.

    place: "sidecar" or "embedded"; "both" where a publish was interrupted before it removed the
    sidecar, or somebody put a second copy there (the embedded one counts; `problem` says if they
    differ). problem: why it cannot be used; then the facts below it are None.
    """

    name: str
    place: Literal["sidecar", "embedded", "both"]
    path: Path
    revision: int | None = None
    author: str | None = None
    review_state: str | None = None
    counts: dict[str, int] | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "path": str(self.path)}


def layer_path(episode: EpisodePath, name: str) -> Path:
    """Where the sidecar of a layer belongs; `episode` is the path of the episode file."""
    with open_episode(Path(episode)) as opened:
        return Path(episode).with_name(file_name(opened.episode_id, name))


def read_episode_layer(episode: EpisodePath, name: str) -> Layer:
    """A layer from wherever it lives. ConfigError names the layers there are when it is none."""
    with open_episode(Path(episode)) as opened:
        embedded = opened.annotations.get(name)
        path = Path(episode).with_name(file_name(opened.episode_id, name))
    if embedded is not None:
        return parse_layer(embedded, f"{episode}: embedded layer {name!r}")
    if path.exists():
        return read_layer_file(path)
    have = ", ".join(entry.name for entry in list_layers(episode)) or "none"
    raise ConfigError(f"{episode} has no layer {name!r}; there are: {have}")


def list_layers(episode: EpisodePath) -> list[LayerEntry]:
    """Layers of an episode by name: embedded ones and the sidecars beside it.

    JSON files that follow the naming but are no layers (`truth.json` of a simulator) are left
    out when they do not claim to be one; damaged layers are listed with their problem.
    """
    path = Path(episode)
    with open_episode(path) as opened:
        embedded, episode_id = dict(opened.annotations), opened.episode_id
    sidecars = _sidecars(path, episode_id)
    found = []
    for name in sorted({*embedded, *sidecars}):
        if name not in embedded:
            entry = _entry(name, "sidecar", sidecars[name], sidecars[name].read_bytes())
            if entry is not None:
                found.append(entry)
            continue
        place: Literal["embedded", "both"] = "both" if name in sidecars else "embedded"
        entry = _entry(name, place, path, embedded[name].encode(), keep=True)
        if entry is not None:
            if place == "both" and sidecars[name].read_bytes() != embedded[name].encode():
                entry = LayerEntry(
                    name, place, path, problem=f"{sidecars[name]} differs from the embedded layer"
                )
            found.append(entry)
    return found


def _sidecars(path: Path, episode_id: str) -> dict[str, Path]:
    prefix = f"{episode_id}."
    found = {}
    for file in sorted(path.parent.iterdir()):
        name = file.name.removeprefix(prefix).removesuffix(".json")
        # A layer's name has no dot; one that has belongs to an episode with a longer id.
        if file.name == file_name(episode_id, name) and name and "." not in name:
            found[name] = file
    return found


def _entry(
    name: str,
    place: Literal["sidecar", "embedded", "both"],
    path: Path,
    document: bytes,
    keep: bool = False,
) -> LayerEntry | None:
    try:
        layer = parse_layer(document, str(path))
    except SchemaError as error:
        # Older drafts have a version too, so this separates layers from other JSON.
        if keep or b'"schema_version"' in document:
            return LayerEntry(name, place, path, problem=str(error))
        return None
    counts = {c: len(getattr(layer, c)) for c in COLLECTIONS if getattr(layer, c)}
    who = layer.provenance
    author = who.author or getattr(who.model or who.tool, "name", None)
    problem = None
    if layer.name != name:
        problem = f"the document says it is layer {layer.name!r}"
    return LayerEntry(
        name, place, path, layer.revision, author, str(layer.review_state), counts, problem
    )


def publish(episode: EpisodePath, names: Sequence[str] = ()) -> list[str]:
    """Embed layers (all sidecars when none are named) and remove their sidecars.

    The episode is replaced atomically with the layers inside, then the sidecars go: a crash
    between leaves equal copies, which the next publish clears. Returns the names published.

    Raises ConfigError when a name has no sidecar, FormatError when an embedded layer of that
    name exists with other content (withdraw it first), SchemaError when a layer is not valid or
    belongs to another episode.
    """
    path = Path(episode)
    with open_episode(path) as opened:
        episode_id = opened.episode_id
    with episode_lock(path.parent, episode_id):
        with open_episode(path) as opened:
            embedded = dict(opened.annotations)
        sidecars = _sidecars(path, episode_id)
        if not names:
            entries = {e.name: e for e in list_layers(path)}
            names = [name for name in sidecars if name in entries]
        documents: dict[str, str] = {}
        for name in names:
            if name not in sidecars:
                where = "is embedded already" if name in embedded else "has no sidecar"
                raise ConfigError(f"{path}: layer {name!r} {where}")
            layer = read_layer_file(sidecars[name])
            if (layer.episode_id, layer.name) != (episode_id, name):
                raise SchemaError(
                    f"{sidecars[name]} says it is layer {layer.name!r} of {layer.episode_id!r}"
                )
            document = format_layer(layer)
            if name in embedded and embedded[name] != document:
                raise FormatError(
                    f"{path} has another version of layer {name!r} embedded; withdraw it "
                    "(`mmdata annotations publish --undo`) and merge first"
                )
            documents[name] = document
        if any(name not in embedded for name in documents):
            write_annotations(path, documents)
        for name in documents:
            sidecars[name].unlink()
        sync_folder(path.parent)
    return sorted(documents)


def withdraw(episode: EpisodePath, names: Sequence[str]) -> list[Path]:
    """The way back: embedded layers become sidecars, so that they can be edited again.

    Raises ConfigError when a layer is not embedded, FormatError when a sidecar with other
    content is there.
    """
    path = Path(episode)
    with open_episode(path) as opened:
        episode_id = opened.episode_id
    with episode_lock(path.parent, episode_id):
        with open_episode(path) as opened:
            embedded = dict(opened.annotations)
        paths = {name: path.with_name(file_name(episode_id, name)) for name in names}
        for name, sidecar in paths.items():
            if name not in embedded:
                raise ConfigError(f"{path}: layer {name!r} is not embedded")
            document = embedded[name].encode()
            if sidecar.exists() and sidecar.read_bytes() != document:
                raise FormatError(f"{sidecar} exists and differs from the embedded layer")
            write_durably(sidecar, document)
        with edit_episode(path) as file:
            for name in paths:
                del file[f"{layout.ANNOTATIONS}/{name}"]
    return list(paths.values())
