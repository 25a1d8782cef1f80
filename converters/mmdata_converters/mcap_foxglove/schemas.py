"""Foxglove's schemas, decoded to dicts, as samples of streams.

Definitions: the schemas' documentation. A protobuf and a JSON message come in alike: times as
nanoseconds, bytes as bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError
from mmdata.media import PIXEL_FORMATS, sniff_image
from mmdata.streams import Kind

_VIDEO = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "vp9": "vp9", "av1": "av1"}
#: Numeric types of a packed point field.
_NUMERIC = {1: "u1", 2: "i1", 3: "<u2", 4: "<i2", 5: "<u4", 6: "<i4", 7: "<f4", 8: "<f8"}
_NUMERIC_NAMES = {"UINT8": 1, "INT8": 2, "UINT16": 3, "INT16": 4, "UINT32": 5, "INT32": 6,
                  "FLOAT32": 7, "FLOAT64": 8}  # fmt: skip
_MAX_FIELDS = 512


@dataclass
class Sample:
    """One message as one sample. key tells the streams of one topic apart; left_out names what of
    the message is not in it.
    """

    kind: Kind
    fields: dict[str, Any]
    stamp_ns: int | None = None
    frame_id: str | None = None
    encoding: str | None = None
    key: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


def time_ns(value: Any) -> int | None:
    """Nanoseconds of a Timestamp {seconds, nanos} or {sec, nsec}; None where it is none."""
    if isinstance(value, Mapping):
        for whole, part in (("seconds", "nanos"), ("sec", "nsec"), ("sec", "nanosec")):
            if whole in value and isinstance(value[whole], int | float):
                return int(value[whole]) * 1_000_000_000 + int(value.get(part) or 0)
    return None


def message_stamp(message: Mapping[str, Any]) -> int | None:
    """The stamp a message carries itself, where schemas keep it."""
    for key in ("timestamp", "stamp"):
        found = time_ns(message.get(key))
        if found is not None:
            return found
    header = message.get("header")
    if isinstance(header, Mapping):
        return time_ns(header.get("stamp")) or time_ns(header.get("timestamp"))
    return None


def decode(schema: str, message: dict[str, Any]) -> Sample | None:
    """A message of a known schema, or of any other as its numbers; None where it has none.

    Raises ConversionError when it is not what its schema says.
    """
    short = schema.rsplit("/", 1)[-1].rsplit(".", 1)[-1]
    adapter = ADAPTERS.get(short) if "foxglove" in schema.lower() else None
    sample = adapter(message) if adapter is not None else generic(message)
    if sample is not None:
        if sample.stamp_ns is None:
            sample.stamp_ns = message_stamp(message)
        sample.frame_id = sample.frame_id or str(message.get("frame_id") or "") or None
    return sample


# -- schemas -----------------------------------------------------------------------------------


def _compressed_image(message: Mapping[str, Any]) -> Sample:
    data = data_of(message)
    encoding = sniff_image(data)
    if encoding is None:
        raise ConversionError("no JPEG, PNG or WebP")
    return Sample(Kind.IMAGE, {"data": data}, encoding=encoding)


def _compressed_video(message: Mapping[str, Any]) -> Sample:
    encoding = _VIDEO.get(str(message.get("format", "")).lower())
    if encoding is None:
        raise ConversionError(f"video in the format {message.get('format')!r}")
    return Sample(Kind.IMAGE, {"data": data_of(message)}, encoding=encoding)


def _raw_image(message: Mapping[str, Any]) -> Sample:
    encoding = str(message.get("encoding", ""))
    height, width = int(message.get("height", 0)), int(message.get("width", 0))
    known = PIXEL_FORMATS.get(encoding)
    if known is None or height < 1 or width < 1:
        raise ConversionError(f"an image of {width}x{height} in the encoding {encoding!r}")
    dtype = np.dtype(known[0])
    channels = known[1]
    row = width * channels * dtype.itemsize
    step = int(message.get("step") or row)
    data = np.frombuffer(data_of(message), np.uint8)
    if step < row or len(data) < step * (height - 1) + row:
        raise ConversionError(f"{len(data)} bytes for an image of {width}x{height}")
    padded = np.zeros(step * height, np.uint8)
    padded[: min(len(data), step * height)] = data[: step * height]
    rows = np.ascontiguousarray(padded.reshape(height, step)[:, :row])
    pixels = rows.view(dtype).reshape(height, width, channels)
    if encoding in ("16UC1", "32FC1"):
        return Sample(Kind.DEPTH, {"data": pixels[..., 0]})
    attrs = {"pixel_format": encoding}
    return Sample(Kind.IMAGE, {"data": pixels}, encoding="raw", attrs=attrs)


def _point_cloud(message: Mapping[str, Any]) -> Sample:
    stride = int(message.get("point_stride", 0))
    data = data_of(message)
    names, formats, offsets = [], [], []
    for entry in message.get("fields") or []:
        kind = entry.get("type", 0)
        kind = _NUMERIC_NAMES.get(kind, 0) if isinstance(kind, str) else int(kind)
        if kind in _NUMERIC:
            names.append(str(entry.get("name")))
            formats.append(_NUMERIC[kind])
            offsets.append(int(entry.get("offset", 0)))
    if stride < 1 or not names or len(data) % stride:
        raise ConversionError(f"{len(data)} bytes for points of {stride} bytes")
    layout = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": stride})
    points = np.frombuffer(data, layout)
    return Sample(Kind.SWEEP, {n: np.ascontiguousarray(points[n]) for n in names},
                  attrs=_pose_attrs(message))  # fmt: skip


def _laser_scan(message: Mapping[str, Any]) -> Sample:
    ranges = np.asarray(message.get("ranges") or [], np.float64)
    first, last = float(message.get("start_angle", 0)), float(message.get("end_angle", 0))
    angles = np.linspace(first, last, len(ranges))
    fields: dict[str, Any] = {
        "x": ranges * np.cos(angles), "y": ranges * np.sin(angles), "z": np.zeros(len(ranges)),
        "range": ranges,
    }  # fmt: skip
    intensity = np.asarray(message.get("intensities") or [], np.float64)
    fields["intensity"] = (
        intensity if len(intensity) == len(ranges) else np.full_like(ranges, np.nan)
    )
    return Sample(Kind.SWEEP, fields, attrs=_pose_attrs(message))


def _pose(message: Mapping[str, Any]) -> Sample:
    pose = message.get("pose") or {}
    return Sample(Kind.SIGNAL, {"position": _xyz(pose.get("position")),
                                "orientation": _wxyz(pose.get("orientation"))})  # fmt: skip


def _transform(message: Mapping[str, Any]) -> Sample:
    child = str(message.get("child_frame_id") or "")
    return Sample(
        Kind.SIGNAL,
        {"position": _xyz(message.get("translation")),
         "orientation": _wxyz(message.get("rotation"))},
        frame_id=str(message.get("parent_frame_id") or "") or None, key=child,
        attrs={"child_frame_id": child},
    )  # fmt: skip


def _location(message: Mapping[str, Any]) -> Sample:
    names = ("latitude", "longitude", "altitude")
    return Sample(Kind.SIGNAL, {n: np.float64(message.get(n) or 0) for n in names})


def _log(message: Mapping[str, Any]) -> Sample:
    return Sample(Kind.TEXT, {"data": str(message.get("message", "")).encode()})


def _audio(message: Mapping[str, Any]) -> Sample:
    if str(message.get("format", "pcm-s16")).lower() not in ("pcm-s16", "pcm_s16", "s16"):
        raise ConversionError(f"audio in the format {message.get('format')!r}")
    channels = max(1, int(message.get("number_of_channels") or 1))
    data = np.frombuffer(data_of(message), "<i2")
    attrs = {"sample_rate_hz": int(message.get("sample_rate") or 0)}
    block = data[: len(data) // channels * channels].reshape(-1, channels)
    return Sample(Kind.AUDIO, {"samples": block}, attrs=attrs)


ADAPTERS: dict[str, Callable[[Mapping[str, Any]], Sample]] = {
    "CompressedImage": _compressed_image, "CompressedVideo": _compressed_video,
    "RawImage": _raw_image, "PointCloud": _point_cloud, "LaserScan": _laser_scan,
    "PoseInFrame": _pose, "FrameTransform": _transform, "LocationFix": _location, "Log": _log,
    "RawAudio": _audio,
}  # fmt: skip


def generic(message: Mapping[str, Any]) -> Sample | None:
    """Numbers of a message of any other schema: one field per leaf, named by its path."""
    fields: dict[str, Any] = {}
    left_out: set[str] = set()
    _leaves(message, "", fields, left_out)
    return Sample(Kind.SIGNAL, fields, left_out=left_out) if fields else None


def _leaves(value: Any, path: str, out: dict[str, Any], left_out: set[str]) -> None:
    if len(out) > _MAX_FIELDS:
        raise ConversionError(f"more than {_MAX_FIELDS} numbers in a message")
    if isinstance(value, Mapping):
        if path and time_ns(value) is not None and set(value) <= {
            "seconds", "nanos", "sec", "nsec", "nanosec",
        }:  # fmt: skip
            if path not in ("timestamp", "stamp", "header.stamp"):
                out[f"{path}_ns"] = np.int64(time_ns(value) or 0)
            return
        for key, inner in value.items():
            _leaves(inner, f"{path}.{key}" if path else str(key), out, left_out)
    elif isinstance(value, bool | int | float):
        out[path] = np.float64(value) if isinstance(value, float) else np.float64(int(value))
    elif isinstance(value, list) and value and all(isinstance(v, int | float) for v in value):
        out[path] = np.asarray(value, np.float64)
    elif value not in (None, "", b"", []) and path.rsplit(".", 1)[-1] != "frame_id":
        left_out.add(path)


# -- parts -------------------------------------------------------------------------------------


def data_of(message: Mapping[str, Any]) -> bytes:
    """The `data` of a message: bytes, or base64 in JSON."""
    data = message.get("data", b"")
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ConversionError(f"data that is no base64: {error}") from error
    return bytes(data)


def _xyz(value: Any) -> NDArray[np.float64]:
    value = value or {}
    return np.array([float(value.get(k) or 0) for k in "xyz"])


def _wxyz(value: Any) -> NDArray[np.float64]:
    """qw, qx, qy, qz; messages name them, so their order does not matter."""
    value = value or {}
    found = np.array([float(value.get(k) or 0) for k in "wxyz"])
    if not np.any(found):
        raise ConversionError("a rotation whose quaternion is zero")
    return found


def _pose_attrs(message: Mapping[str, Any]) -> dict[str, Any]:
    """Where a cloud has a pose of its own within its frame."""
    pose = message.get("pose")
    if not isinstance(pose, Mapping):
        return {}
    try:
        numbers = [*_xyz(pose.get("position")), *_wxyz(pose.get("orientation"))]
    except ConversionError:
        return {}
    return {} if numbers == [0, 0, 0, 1, 0, 0, 0] else {"pose_xyz_qwxyz": list(map(float, numbers))}


def boxes_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cubes of a SceneUpdate as boxes: {stamp_ns, frame_id, object_id, label, ...}."""
    out = []
    for entity in message.get("entities") or []:
        facts = {str(m.get("key")): str(m.get("value")) for m in entity.get("metadata") or []}
        named = [facts[k] for k in ("label", "category", "class", "type") if facts.get(k)]
        for number, cube in enumerate(entity.get("cubes") or []):
            pose, size = cube.get("pose") or {}, cube.get("size") or {}
            ident = re.sub(r"\s+", "_", str(entity.get("id") or ""))
            out.append({
                "stamp_ns": time_ns(entity.get("timestamp")),
                "frame_id": str(entity.get("frame_id") or "unknown"),
                "object_id": f"{ident}_{number}" if number else ident,
                "label": named[0] if named else "object",
                "center_m": tuple(_xyz(pose.get("position")).tolist()),
                "quaternion_wxyz": tuple(_wxyz(pose.get("orientation")).tolist()),
                "size_lwh_m": tuple(float(size.get(k) or 0) for k in "xyz"),
                "attributes": dict(facts),
            })  # fmt: skip
    return out
