"""Changing a finished episode: on a copy that then replaces it, so that no reader and no crash
ever meets a half-changed file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmdata.episode import Timeline
from mmdata.errors import FormatError
from mmdata.store import layout
from mmdata.store.finalize import publish, stream_hash, write_json, write_timeline_group
from mmdata.store.handle import FileHandle, load_filters
from mmdata.store.reader import check_format, read_text


@contextmanager
def edit_episode(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A copy of the episode open for writing; it replaces the original when the block succeeds.

    Raises FormatError when the file is no finished episode.
    """
    path = Path(path)
    load_filters()
    handle = FileHandle(path)
    try:
        check_format(handle.file(), path)
    finally:
        handle.close()
    partial = path.with_name(path.name + ".edit.partial")
    try:
        shutil.copyfile(path, partial)
        with h5py.File(partial, "r+") as file:
            yield file
        publish(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_timeline(path: str | os.PathLike[str], *timelines: Timeline) -> None:
    """Add timelines to an episode, replacing those of the same name."""
    with edit_episode(path) as file:
        for timeline in timelines:
            write_timeline_group(file, timeline)


def write_sync(path: str | os.PathLike[str], ledger: Mapping[str, Any]) -> None:
    """Write the synchronisation ledger (JSON-like) under /sync, replacing an earlier one."""
    with edit_episode(path) as file:
        write_json(file, f"{layout.SYNC}/{layout.LEDGER}", json.dumps(ledger, sort_keys=True))


def write_annotations(path: str | os.PathLike[str], layers: Mapping[str, str]) -> None:
    """Embed annotation layers (JSON documents by layer name), replacing those of the same name."""
    with edit_episode(path) as file:
        for layer, document in layers.items():
            write_json(file, f"{layout.ANNOTATIONS}/{layer}", document)


def shift_stream(path: str | os.PathLike[str], stream: str, by_ns: int, reason: str) -> None:
    """Move one stream in time: its `stamp_ns` by by_ns; source stamps and payload stay.

    The shift is added to the stream's `shifts` attribute, so that it can be seen and undone (by
    shifting back). Timelines are not touched: align again.

    Raises FormatError when there is no such stream.
    """
    with edit_episode(path) as file:
        group = file.get(f"{layout.STREAMS}/{stream}")
        if group is None:
            have = ", ".join(file.get(layout.STREAMS, ()))
            raise FormatError(f"{path}: no stream {stream!r}; there are: {have}")
        stamps = group["stamp_ns"][:] + np.int64(by_ns)
        group["stamp_ns"][:] = stamps
        shifts = layout.from_attr(group.attrs.get("shifts")) or []
        group.attrs["shifts"] = json.dumps([*shifts, {"by_ns": by_ns, "reason": reason}])
        _update_hash(file, stream, stamps)
        everything = [file[layout.STREAMS][name]["stamp_ns"] for name in file[layout.STREAMS]]
        ends = [(int(s[0]), int(s[-1])) for s in everything if len(s)]
        file.attrs["start_ns"] = min(start for start, _ in ends)
        file.attrs["end_ns"] = max(end for _, end in ends)


def _update_hash(file: h5py.File, stream: str, stamps: np.ndarray[Any, Any]) -> None:
    provenance = json.loads(read_text(file, layout.PROVENANCE) or "{}")
    entry = provenance.get("streams", {}).get(stream)
    if entry is None:
        return
    entry["columns"]["stamp_ns"] = hashlib.sha256(stamps.tobytes()).hexdigest()
    entry["sha256"] = stream_hash(entry["columns"])
    write_json(file, layout.PROVENANCE, json.dumps(provenance, sort_keys=True))
