"""Names and attributes of the episode file (docs/format.md), and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmdata.streams import FieldInfo, Kind, StreamInfo

FORMAT = "mmdata-episode"
FORMAT_VERSION = "1.1"
#: Structures of HDF5 1.8 and later: those before it refuse attributes above 64 KiB (the names of a
#: few thousand channels).
LIBVER = ("v108", "latest")
STREAMS = "streams"
ALIGNED = "aligned"
RIG = "rig"
CLOCKS = "clocks"
METADATA = "metadata"
SYNC = "sync"
ANNOTATIONS = "annotations"
PROVENANCE = "provenance"
LEDGER = "ledger"

_OPTIONAL_ATTRS = (
    "clock", "frame_id", "sensor", "nominal_rate_hz", "source_topic", "source_type",
    "stamp_source", "encoding",
)  # fmt: skip
_RESERVED = {"kind", "fields", "stamp_meaning", *_OPTIONAL_ATTRS}


def to_attr(value: Any) -> Any:
    """A value as an HDF5 attribute: scalars, strings, numeric lists as such, the rest as JSON."""
    if isinstance(value, bool | int | float | str | np.generic | np.ndarray):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(v, int | float) for v in value):
        return np.asarray(value)
    return json.dumps(value, sort_keys=True)


def from_attr(value: Any) -> Any:
    """The inverse of `to_attr`; arrays become lists."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def stream_attrs(info: StreamInfo) -> dict[str, Any]:
    """Attributes of /streams/<name>."""
    attrs: dict[str, Any] = {"kind": str(info.kind), "fields": json.dumps(list(info.fields))}
    for name in _OPTIONAL_ATTRS:
        value = getattr(info, name)
        if value is not None:
            attrs[name] = value
    attrs["stamp_meaning"] = info.stamp_meaning
    for name, value in info.attrs.items():
        attrs[name if name not in _RESERVED else f"{name}_"] = to_attr(value)
    return attrs


def field_attrs(info: StreamInfo, name: str) -> dict[str, Any]:
    """Attributes of one payload dataset."""
    field = info.fields[name]
    attrs: dict[str, Any] = {}
    if info.kind is Kind.SWEEP and not field.ragged:
        attrs["per"] = "sweep"
    if field.unit is not None:
        attrs["unit"] = field.unit
    if field.channels is not None:
        attrs["channels"] = json.dumps(list(field.channels))
    return attrs


def parse_stream(
    name: str, attrs: Mapping[str, Any], fields: Mapping[str, FieldInfo]
) -> StreamInfo:
    """StreamInfo from the attributes of /streams/<name> and its parsed fields."""
    plain = {key: from_attr(value) for key, value in attrs.items()}
    return StreamInfo(
        name=name,
        kind=Kind(plain["kind"]),
        fields=fields,
        stamp_meaning=plain.get("stamp_meaning", "unknown"),
        attrs={k: v for k, v in plain.items() if k not in _RESERVED},
        **{k: plain.get(k) for k in _OPTIONAL_ATTRS},
    )


def info_to_json(info: StreamInfo) -> dict[str, Any]:
    """StreamInfo as JSON-compatible data (the journal keeps it this way)."""
    return {
        "name": info.name,
        "kind": str(info.kind),
        "fields": {
            n: [f.dtype, list(f.shape), f.ragged, f.unit, f.channels and list(f.channels)]
            for n, f in info.fields.items()
        },
        "stamp_meaning": info.stamp_meaning,
        "attrs": dict(info.attrs),
        **{k: getattr(info, k) for k in _OPTIONAL_ATTRS},
    }


def info_from_json(data: Mapping[str, Any]) -> StreamInfo:
    """The inverse of `info_to_json`."""
    fields = {
        n: FieldInfo(d, tuple(s), r, u, tuple(c) if c is not None else None)
        for n, (d, s, r, u, c) in data["fields"].items()
    }
    rest = {k: v for k, v in data.items() if k not in ("fields", "kind")}
    return StreamInfo(kind=Kind(data["kind"]), fields=fields, **rest)
