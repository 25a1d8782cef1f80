"""Opening episodes: lazy, safe across forks, threads and processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmdata.clocks import Clock, Stamps
from mmdata.episode import AlignedStream, Episode, Timeline
from mmdata.errors import FormatError
from mmdata.geometry import SE3, CameraModel, Rig, Sensor
from mmdata.store import layout
from mmdata.store.handle import ByteArray, DiskArray, FileHandle
from mmdata.store.sources import ByteSource
from mmdata.streams import (
    STAMP_NAMES,
    FieldInfo,
    Kind,
    LazyArray,
    Stream,
    StreamInfo,
    offsets_name,
)


@dataclass(frozen=True)
class Summary:
    """What an index wants to know. stamp_ns: (N,) i8 per stream; ticks: per timeline."""

    episode_id: str
    stamp_ns: Mapping[str, Stamps]
    ticks: Mapping[str, int]
    metadata: Mapping[str, Any]
    provenance: Mapping[str, Any]


def open_episode(source: str | os.PathLike[str] | ByteSource) -> Episode:
    """Open an episode for reading: a path, or a source of its bytes.

    Raises FileNotFoundError, and FormatError when the file is no episode, is unfinished, or was
    written in a newer major version of the format.
    """
    handle = FileHandle(Path(source) if isinstance(source, str | os.PathLike) else source)
    try:
        return handle.run(lambda file: _episode(handle, file))
    except BaseException:
        handle.close()
        raise


def _episode(handle: FileHandle, file: h5py.File) -> Episode:
    check_format(file, handle.name)
    attrs = {key: layout.from_attr(value) for key, value in file.attrs.items()}
    names = list(file.get(layout.STREAMS, ()))
    timelines = list(file.get(layout.ALIGNED, ()))
    return Episode(
        episode_id=str(attrs.get("episode_id", handle.path.stem)),
        path=handle.source if isinstance(handle.source, Path) else None,
        start_ns=attrs.get("start_ns"),
        end_ns=attrs.get("end_ns"),
        status=str(attrs["status"]),
        reference_clock=str(attrs.get("reference_clock", "header")),
        streams=LazyMapping(names, lambda name: open_stream(handle, name)),
        timelines={name: _timeline_reader(handle, name) for name in timelines},
        rig=read_rig(file),
        metadata=_read_attrs(file, layout.METADATA),
        clocks={name: _read_clock(file, name) for name in file.get(layout.CLOCKS, ())},
        sync=json.loads(read_text(file, f"{layout.SYNC}/{layout.LEDGER}") or "{}"),
        annotations={
            name: read_text(file, f"{layout.ANNOTATIONS}/{name}") or ""
            for name in file.get(layout.ANNOTATIONS, ())
        },
        provenance=json.loads(read_text(file, layout.PROVENANCE) or "{}"),
        closer=handle.close,
    )


def read_summary(source: str | os.PathLike[str] | ByteSource) -> Summary:
    """Stamps, timelines and metadata of an episode, without opening its streams.

    Raises what `open_episode` raises.
    """
    handle = FileHandle(Path(source) if isinstance(source, str | os.PathLike) else source)
    try:
        return handle.run(lambda file: _summary(handle, file))
    finally:
        handle.close()


def _summary(handle: FileHandle, file: h5py.File) -> Summary:
    check_format(file, handle.name)
    streams, aligned = file.get(layout.STREAMS, {}), file.get(layout.ALIGNED, {})
    return Summary(
        str(layout.from_attr(file.attrs.get("episode_id", handle.path.stem))),
        {name: streams[f"{name}/stamp_ns"][:] for name in streams},
        {name: len(aligned[f"{name}/tick_ns"]) for name in aligned},
        _read_attrs(file, layout.METADATA),
        json.loads(read_text(file, layout.PROVENANCE) or "{}"),
    )


def check_format(file: h5py.File, path: str | Path) -> None:
    """Raise FormatError unless this is a finished episode this version can read."""
    try:
        form = layout.from_attr(file.attrs.get("format"))
    except (KeyError, OSError, RuntimeError) as error:
        # What a killed writer leaves may lack even the root group's header.
        raise FormatError(
            f"{path} is damaged, or its writer was killed: `mmdata recover {path}` ({error})"
        ) from error
    if form != layout.FORMAT:
        raise FormatError(f"{path} is an HDF5 file but not an mmdata episode (no format attribute)")
    if layout.from_attr(file.attrs.get("status")) == "recording":
        raise FormatError(
            f"{path} is still being written, or its writer was killed: `mmdata recover {path}`"
        )
    version = str(layout.from_attr(file.attrs.get("format_version", "")))
    major = version.split(".")[0]
    if not major.isdigit():
        raise FormatError(f"{path}: unreadable format version {version!r}")
    if int(major) > int(layout.FORMAT_VERSION.split(".")[0]):
        raise FormatError(
            f"{path} is in format {version}, this mmdata reads {layout.FORMAT_VERSION}: "
            "upgrade with `pip install -U mmdata`"
        )


class LazyMapping(Mapping[str, Stream]):
    """Streams opened when looked up."""

    def __init__(self, names: list[str], opener: Callable[[str], Stream]) -> None:
        self._names = dict.fromkeys(names)
        self._opener = opener
        self._open: dict[str, Stream] = {}

    def __getitem__(self, name: str) -> Stream:
        if name not in self._names:
            raise KeyError(f"no stream {name!r}; there are: {', '.join(self._names)}")
        if name not in self._open:
            self._open[name] = self._opener(name)
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def open_stream(handle: FileHandle, name: str) -> Stream:
    """One stream of an open episode."""

    def describe(file: h5py.File) -> tuple[StreamInfo, list[str]]:
        group = file[f"{layout.STREAMS}/{name}"]
        return read_info(group, name), list(group)

    info, datasets = handle.run(describe)

    def array(dataset: str) -> LazyArray:
        path = f"/{layout.STREAMS}/{name}/{dataset}"
        if info.kind is Kind.IMAGE and dataset == "data" and info.encoding != "raw":
            return ByteArray(handle, path)
        return DiskArray(handle, path)

    return Stream(info, {dataset: array(dataset) for dataset in datasets})


def read_info(group: h5py.Group, name: str) -> StreamInfo:
    """Description of a stream from its group."""
    kind = Kind(layout.from_attr(group.attrs["kind"]))
    fields: dict[str, FieldInfo] = {}
    declared = layout.from_attr(group.attrs.get("fields", ""))
    for field in declared or filter(_is_field, group):
        if field not in group:
            continue
        dataset = group[field]
        channels = layout.from_attr(dataset.attrs.get("channels"))
        fields[field] = FieldInfo(
            dataset.dtype.str,
            tuple(dataset.shape[1:]),
            offsets_name(kind, field) in group and _is_ragged(group, kind, field),
            layout.from_attr(dataset.attrs.get("unit")),
            tuple(channels) if channels is not None else None,
        )
    return layout.parse_stream(name, group.attrs, fields)


def _is_field(name: str) -> bool:
    reserved = (*STAMP_NAMES, "offsets", "keyframe", "block_start")
    return name not in reserved and not name.endswith("_offsets")


def _is_ragged(group: h5py.Group, kind: Kind, field: str) -> bool:
    """In a sweep, per-sweep values lie beside point fields that share the offsets."""
    if kind is not Kind.SWEEP:
        return True
    return bool(group[field].attrs.get("per", "point") == "point")


def read_rig(file: h5py.File) -> Rig:
    """The rig; empty when nothing is known."""
    sensors = []
    for key in file.get(layout.RIG, ()):
        group = file[layout.RIG][key]
        camera = None
        if "model" in group.attrs:
            camera = CameraModel(
                layout.from_attr(group.attrs["model"]),
                group["K"][:],
                group["distortion"][:],
                int(group.attrs["width"]),
                int(group.attrs["height"]),
            )
        pose = group["parent_SE3_sensor"][:] if "parent_SE3_sensor" in group else None
        name = str(layout.from_attr(group.attrs.get("name", key)))
        sensors.append(
            Sensor(
                name,
                str(layout.from_attr(group.attrs.get("frame_id", name))),
                layout.from_attr(group.attrs.get("parent")),
                None if pose is None else SE3.from_xyz_qwxyz(pose),
                camera,
            )
        )
    return Rig(sensors)


def read_text(file: h5py.File, path: str) -> str | None:
    """A UTF-8 document, or None where there is none."""
    if path not in file:
        return None
    data = file[path][()]
    return data.tobytes().decode() if isinstance(data, np.ndarray) else layout.from_attr(data)


def read_timeline(file: h5py.File, name: str) -> Timeline:
    """/aligned/<name> in full."""
    group = file[f"{layout.ALIGNED}/{name}"]
    attrs = {key: layout.from_attr(value) for key, value in group.attrs.items()}
    streams = {}
    for stream in group:
        if stream == "tick_ns":
            continue
        facts = {key: layout.from_attr(value) for key, value in group[stream].attrs.items()}
        streams[stream] = AlignedStream(
            facts["policy"],
            facts.get("tolerance_ns"),
            group[stream]["index"][:],
            group[stream]["residual_ns"][:],
        )
    return Timeline(
        name, group["tick_ns"][:], streams, attrs.get("rate_hz"), attrs.get("reference_stream")
    )


def _timeline_reader(handle: FileHandle, name: str) -> Callable[[], Timeline]:
    cached: list[Timeline] = []

    def read() -> Timeline:
        if not cached:
            cached.append(handle.run(lambda file: read_timeline(file, name)))
        return cached[0]

    return read


def _read_attrs(file: h5py.File, path: str) -> dict[str, Any]:
    if path not in file:
        return {}
    return {key: layout.from_attr(value) for key, value in file[path].attrs.items()}


def _read_clock(file: h5py.File, name: str) -> Clock:
    facts = _read_attrs(file, f"{layout.CLOCKS}/{name}")
    known = {k: v for k, v in facts.items() if k in Clock.__dataclass_fields__}
    return Clock(name=name, **{"epoch": "arbitrary", **known})
