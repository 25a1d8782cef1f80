"""One layer as a file beside its episode: atomic, durable, and refused when it is stale."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmdata_schema
from mmdata.errors import MmdataError, SchemaError
from mmdata_schema import Layer


class RevisionConflictError(MmdataError):
    """Somebody else saved the layer since it was read: `expected` is not the `found` revision."""

    def __init__(self, path: Path, expected: int, found: int) -> None:
        super().__init__(
            f"{path}: this edit started from revision {expected}, but revision {found} is there"
            f"{' (the layer does not exist)' if found == 0 else ''}; read it again and merge "
            "(`mmdata annotations merge`)"
        )
        self.path, self.expected, self.found = path, expected, found


def parse_layer(document: str | bytes, where: str) -> Layer:
    """The layer of a document; :class:`mmdata.errors.SchemaError` names `where` it came from."""
    try:
        return mmdata_schema.read_layer(document)
    except mmdata_schema.SchemaError as error:
        raise SchemaError(f"{where}: {error}") from error


def format_layer(layer: Layer) -> str:
    """Canonical JSON; :class:`mmdata.errors.SchemaError` when it cannot be written."""
    try:
        return mmdata_schema.write_layer(layer)
    except mmdata_schema.SchemaError as error:
        raise SchemaError(str(error)) from error


def read_layer_file(path: str | os.PathLike[str]) -> Layer:
    """The layer in a file. SchemaError when it is not a valid one, OSError when unreadable."""
    path = Path(path)
    return parse_layer(path.read_bytes(), str(path))


def write_layer_file(path: str | os.PathLike[str], layer: Layer, expected_revision: int) -> Layer:
    """Save a layer in the place of `expected_revision` (0: the file must not exist yet).

    The saved layer is returned: its revision is one higher, its `base_revision` the expected one.
    The file is replaced atomically and has reached the disk when this returns. Writers of one
    episode wait for each other, also across processes.

    Raises RevisionConflictError when another revision is there, SchemaError when the layer, or
    what is there now, cannot be written or read, the file's name is not the layer's, or the
    layer is embedded in the episode.
    """
    path = Path(path)
    if path.name != file_name(layer.episode_id, layer.name):
        raise SchemaError(
            f"{path}: layer {layer.name!r} of episode {layer.episode_id!r} belongs into "
            f"{file_name(layer.episode_id, layer.name)}"
        )
    with episode_lock(path.parent, layer.episode_id):
        there = path.exists()
        if not there:
            _refuse_embedded(path, layer)
        found = read_layer_file(path).revision if there else 0
        if found != expected_revision:
            raise RevisionConflictError(path, expected_revision, found)
        saved = layer.model_copy(update={"revision": found + 1, "base_revision": found})
        write_durably(path, format_layer(saved).encode())
    return saved


def _refuse_embedded(path: Path, layer: Layer) -> None:
    """A layer lives in one place: no sidecar for one that is embedded in the episode."""
    episode = path.with_name(f"{layer.episode_id}.h5")
    if not episode.exists():
        return
    from mmdata.store import open_episode

    with open_episode(episode) as opened:
        if layer.name in opened.annotations:
            raise SchemaError(
                f"layer {layer.name!r} is embedded in {episode}; take it out first "
                f"(`mmdata annotations publish --undo {episode} {layer.name}`)"
            )


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old content or the new, never a part."""
    # "x" and the default mode: a new file with the permissions any other file would get.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def episode_lock(folder: Path, episode_id: str) -> Iterator[None]:
    """Exclusive access to the layers of one episode, across threads and processes.

    The lock is the kernel's: it ends with the process that holds it. Its empty file stays, since
    removing it would let two writers each lock a file of their own.
    """
    with (folder / f".{episode_id}.annotations.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_name(episode_id: str, layer: str) -> str:
    """Name of a layer's sidecar."""
    return f"{episode_id}.{layer}.json"
