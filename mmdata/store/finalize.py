"""Turning finished columns into a complete episode file under its final name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mmdata import __version__
from mmdata.clocks import EpisodeClocks
from mmdata.digest import ALGORITHM, hash_text
from mmdata.episode import Timeline
from mmdata.store import layout
from mmdata.store.column import Column
from mmdata.streams import Stream, StreamInfo

if TYPE_CHECKING:
    from mmdata.geometry import Rig
    from mmdata.store.writer import EpisodeWriter, Timelines

StreamParts = tuple[StreamInfo, Mapping[str, Column], tuple[str, ...] | None]


def write_episode(
    file: h5py.File,
    writer: EpisodeWriter,
    streams: Mapping[str, StreamParts],
    clocks: EpisodeClocks,
    timelines: Timelines | None,
) -> None:
    """Write everything but the columns' rows, which are in the file already."""
    starts, ends = [], []
    hashes: dict[str, Any] = {}
    finished: dict[str, Stream] = {}
    for name, (info, columns, _) in streams.items():
        placement = clocks.placements[name]
        info = replace(info, clock=placement.clock, stamp_source=placement.stamp_source)
        group = file.require_group(f"{layout.STREAMS}/{name}")
        group.attrs.update(layout.stream_attrs(info))
        for column_name, column in columns.items():
            column.create(file)
            if column_name in info.fields:
                file[column.path].attrs.update(layout.field_attrs(info, column_name))
        if not columns:
            _write_array(group, "stamp_ns", np.empty(0, np.int64))
        elif group["stamp_ns"].shape[0]:
            starts.append(int(group["stamp_ns"][0]))
            ends.append(int(group["stamp_ns"][-1]))
        finished[name] = Stream(info, {column: group[column] for column in group})
        digests = {n: c.digest for n, c in columns.items()}
        hashes[name] = {ALGORITHM: stream_hash(digests), "columns": digests}
    write_rig(file, writer.rig)
    _attrs_group(file, layout.METADATA, writer.metadata)
    for name, clock in clocks.clocks.items():
        facts = {k: v for k, v in asdict(clock).items() if k != "name" and v is not None}
        _attrs_group(file, f"{layout.CLOCKS}/{name}", facts)
    for layer, document in writer.annotations.items():
        write_json(file, f"{layout.ANNOTATIONS}/{layer}", document)
    provenance = {**writer.provenance, "streams": hashes}
    if clocks.notes:
        provenance["clock_notes"] = list(clocks.notes)
    write_json(file, layout.PROVENANCE, json.dumps(provenance, sort_keys=True))
    file.attrs["format_version"] = layout.FORMAT_VERSION
    file.attrs["episode_id"] = writer.episode_id
    file.attrs["created_by"] = f"mmdata {__version__}"
    file.attrs["reference_clock"] = clocks.reference
    if starts:
        file.attrs["start_ns"] = min(starts)
        file.attrs["end_ns"] = max(ends)
    if timelines is not None:
        for timeline in timelines(dict(sorted(finished.items()))):
            write_timeline_group(file, timeline)
    file.attrs["status"] = writer.status


def publish(partial: Path, path: Path) -> None:
    """fsync, rename, fsync the folder: after this the episode exists, before it does not."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def stream_hash(columns: Mapping[str, str], algorithm: str = ALGORITHM) -> str:
    """Content hash of a stream: over the names and hashes of its columns, in name order."""
    text = "".join(f"{name}:{digest}\n" for name, digest in sorted(columns.items()))
    return hash_text(text, algorithm)


def write_timeline_group(file: h5py.File, timeline: Timeline) -> None:
    """Write /aligned/<timeline>, replacing one of the same name."""
    path = f"{layout.ALIGNED}/{timeline.name}"
    if path in file:
        del file[path]
    group = file.create_group(path)
    if timeline.rate_hz is not None:
        group.attrs["rate_hz"] = timeline.rate_hz
    if timeline.reference_stream is not None:
        group.attrs["reference_stream"] = timeline.reference_stream
    _write_array(group, "tick_ns", timeline.tick_ns)
    for name, aligned in timeline.streams.items():
        stream = group.create_group(name)
        stream.attrs["policy"] = aligned.policy
        if aligned.tolerance_ns is not None:
            stream.attrs["tolerance_ns"] = aligned.tolerance_ns
        _write_array(stream, "index", aligned.index)
        _write_array(stream, "residual_ns", aligned.residual_ns)


def write_rig(file: h5py.File, rig: Rig) -> None:
    """Write /rig: one group per sensor, what is unknown is absent."""
    for name, sensor in rig.items():
        group = file.require_group(f"{layout.RIG}/{name.replace('/', '|')}")
        group.attrs["name"] = name
        group.attrs["frame_id"] = sensor.frame_id
        if sensor.parent is not None:
            group.attrs["parent"] = sensor.parent
        if sensor.parent_SE3_sensor is not None:
            group.create_dataset("parent_SE3_sensor", data=sensor.parent_SE3_sensor.to_xyz_qwxyz())
        camera = sensor.camera
        if camera is not None:
            group.attrs["model"] = str(camera.model)
            group.attrs["width"], group.attrs["height"] = camera.width, camera.height
            group.create_dataset("K", data=camera.K)
            group.create_dataset("distortion", data=np.asarray(camera.distortion, np.float64))


def write_json(file: h5py.File, path: str, document: str) -> None:
    """A UTF-8 document as a fixed-length byte dataset."""
    if path in file:
        del file[path]
    data = np.frombuffer(document.encode(), np.uint8)
    file.create_dataset(
        path, data=data, chunks=(max(1, len(data)),), fletcher32=True, shuffle=False
    )


def _write_array(group: h5py.Group, name: str, values: np.ndarray[Any, Any]) -> None:
    group.create_dataset(
        name, data=values, chunks=(min(max(1, len(values)), 16384),), fletcher32=True,
        shuffle=True, compression="gzip", compression_opts=4, maxshape=(None,),
    )  # fmt: skip


def _attrs_group(file: h5py.File, path: str, facts: Mapping[str, Any]) -> None:
    group = file.require_group(path)
    for name, value in facts.items():
        group.attrs[name] = layout.to_attr(value)
