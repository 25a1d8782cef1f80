"""Changing a finished episode: on a copy that then replaces it, so that no reader and no crash
ever meets a half-changed file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmdata.clocks import Stamps
from mmdata.digest import bytes_of, find_hash, new_hasher
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
        with h5py.File(partial, "r+", libver=layout.LIBVER) as file:
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
    shifting back). Timelines are not touched: `mmdata.align.realign` does that.

    Raises FormatError when there is no such stream.
    """
    with edit_episode(path) as file:
        group = _stream_group(file, path, stream)
        _restamp(file, stream, group["stamp_ns"][:] + np.int64(by_ns))
        shifts = layout.from_attr(group.attrs.get("shifts")) or []
        group.attrs["shifts"] = json.dumps([*shifts, {"by_ns": by_ns, "reason": reason}])
        _update_span(file)


def restamp_streams(
    path: str | os.PathLike[str],
    stamps: Mapping[str, Stamps],
    clocks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give streams new `stamp_ns` (N,) i8, mapped by clocks that are written under /clocks.

    stamps and clocks have the stream's name as key; the clock is named after the stream. Timelines
    are not touched. Raises FormatError when a stream is missing or its new stamps do not ascend.
    """
    with edit_episode(path) as file:
        for stream, mapped in stamps.items():
            group = _stream_group(file, path, stream)
            if len(mapped) != group["stamp_ns"].shape[0] or (np.diff(mapped) < 0).any():
                raise FormatError(f"{path}: the new stamps of {stream!r} do not ascend")
            _restamp(file, stream, mapped)
            group.attrs["clock"] = stream
            clock = file.require_group(f"{layout.CLOCKS}/{stream}")
            for name, value in clocks[stream].items():
                clock.attrs[name] = layout.to_attr(value)
        _update_span(file)


def _stream_group(file: h5py.File, path: str | os.PathLike[str], stream: str) -> h5py.Group:
    group = file.get(f"{layout.STREAMS}/{stream}")
    if group is None:
        have = ", ".join(file.get(layout.STREAMS, ()))
        raise FormatError(f"{path}: no stream {stream!r}; there are: {have}")
    return group


def _restamp(file: h5py.File, stream: str, stamps: Stamps) -> None:
    file[f"{layout.STREAMS}/{stream}/stamp_ns"][:] = stamps
    _update_hash(file, stream, stamps)


def _update_span(file: h5py.File) -> None:
    everything = [file[layout.STREAMS][name]["stamp_ns"] for name in file[layout.STREAMS]]
    ends = [(int(s[0]), int(s[-1])) for s in everything if len(s)]
    if ends:
        file.attrs["start_ns"] = min(start for start, _ in ends)
        file.attrs["end_ns"] = max(end for _, end in ends)


def _update_hash(file: h5py.File, stream: str, stamps: np.ndarray[Any, Any]) -> None:
    provenance = json.loads(read_text(file, layout.PROVENANCE) or "{}")
    entry = provenance.get("streams", {}).get(stream)
    known = find_hash(entry or {})
    if known is None:
        return
    algorithm = known[0]
    hasher = new_hasher(algorithm)
    hasher.update(bytes_of(stamps))
    entry["columns"]["stamp_ns"] = hasher.hexdigest()
    entry[algorithm] = stream_hash(entry["columns"], algorithm)
    write_json(file, layout.PROVENANCE, json.dumps(provenance, sort_keys=True))
