"""From what a caller hands over to columns of rows: one canonical form per kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmdata import media
from mmdata.clocks import Stamps
from mmdata.errors import FormatError
from mmdata.streams import (
    STAMP_NAMES,
    VIDEO_ENCODINGS,
    FieldInfo,
    Kind,
    Ragged,
    StreamInfo,
    offsets_name,
)

Values: TypeAlias = NDArray[Any] | Ragged
Samples: TypeAlias = Mapping[str, Any] | NDArray[Any] | Sequence[Any] | Ragged


def normalise(info: StreamInfo, samples: Samples) -> tuple[dict[str, Values], StreamInfo]:
    """Fields of a batch in canonical form, and the stream's description completed by them.

    Raises FormatError when the batch does not fit a schema that is already known.
    """
    batch = _fields(info, samples)
    if info.kind is Kind.IMAGE and info.encoding is None:
        info = replace(info, encoding=_image_encoding(info, batch))
    if not info.fields:
        fields = {name: FieldInfo.of(values) for name, values in batch.items()}
        info = replace(info, fields=fields)
    batch = {name: _conform(info, name, values) for name, values in batch.items()}
    missing = [name for name in info.fields if name not in batch]
    if missing:
        raise FormatError(f"stream {info.name!r}: a batch without the fields {', '.join(missing)}")
    if info.kind is Kind.IMAGE and info.encoding in VIDEO_ENCODINGS:
        packets = batch["data"]
        assert isinstance(packets, Ragged)
        flags = [
            media.is_keyframe(packets[i].tobytes(), info.encoding) for i in range(len(packets))
        ]
        batch["keyframe"] = np.array(flags, np.uint8)
    return batch, info


def columns_of(
    info: StreamInfo, batch: Mapping[str, Values], rows_of: Callable[[str], int]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """(column name, rows) of a batch. rows_of(field): rows that the field's column has so far."""
    emitted: set[str] = set()
    for name, values in batch.items():
        if isinstance(values, Ragged):
            offsets = offsets_name(info.kind, name)
            if offsets not in emitted:
                emitted.add(offsets)
                base, first = rows_of(name), rows_of(offsets) == 0
                relative = values.offsets - values.offsets[0]
                yield offsets, (relative if first else relative[1:]) + base
            yield name, values.data
        else:
            yield name, values


def named_stamps(
    stream: str, stamps: Stamps | None, receive_ns: Stamps | None, publish_ns: Stamps | None
) -> dict[str, Stamps]:
    """The stamps given for a batch, (n,) i8 by column name. Raises FormatError."""
    given = {"source_ns": stamps, "receive_ns": receive_ns, "publish_ns": publish_ns}
    columns: dict[str, Stamps] = {}
    for name, values in given.items():
        if values is None:
            continue
        array = np.atleast_1d(np.asarray(values))
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise FormatError(
                f"stream {stream!r}: {name} must be integers (nanoseconds), not {array.dtype} "
                f"of shape {array.shape}"
            )
        columns[name] = array.astype(np.int64, copy=False)
    if "source_ns" not in columns and "receive_ns" not in columns:
        raise FormatError(f"stream {stream!r}: a batch without sensor and without receive stamps")
    if len({len(c) for c in columns.values()}) > 1:
        raise FormatError(
            f"stream {stream!r}: stamp counts differ: "
            + ", ".join(f"{len(c)} {n}" for n, c in columns.items())
        )
    return columns


def _fields(info: StreamInfo, samples: Samples) -> dict[str, Values]:
    kind = info.kind
    if isinstance(samples, Mapping):
        return {_safe(name): _values(values) for name, values in samples.items()}
    if kind is Kind.TEXT and not isinstance(samples, Ragged):
        return {"data": Ragged.from_rows([str(s).encode() for s in samples])}
    if kind in (Kind.OPAQUE, Kind.IMAGE) and not isinstance(samples, np.ndarray | Ragged):
        return {"data": Ragged.from_rows([bytes(s) for s in samples])}
    if kind is Kind.AUDIO:
        blocks = samples if isinstance(samples, Ragged) else Ragged.from_rows(list(samples))
        if blocks.data.ndim == 1:
            blocks = Ragged(blocks.data[:, None], blocks.offsets)
        return {"samples": blocks}
    return {"data": _values(samples)}


def _safe(name: str) -> str:
    """Field names that would clash with the file's own dataset names get a trailing underscore."""
    name = name.replace("/", ".")
    clash = name in STAMP_NAMES or name in ("offsets", "keyframe", "block_start")
    return f"{name}_" if clash or name.endswith("_offsets") else name


def _values(values: Any) -> Values:
    if isinstance(values, Ragged):
        return values
    array = np.asarray(values)
    if array.dtype == np.bool_:
        array = array.view(np.uint8) if array.flags.c_contiguous else array.astype(np.uint8)
    if array.dtype.kind not in "iuf" or array.ndim == 0:
        raise FormatError(f"cannot store values of dtype {array.dtype} and shape {array.shape}")
    return array


def _conform(info: StreamInfo, name: str, values: Values) -> Values:
    expected = info.fields.get(name)
    if expected is None:
        raise FormatError(
            f"stream {info.name!r}: a batch with the new field {name!r}; it has "
            f"{', '.join(info.fields)}"
        )
    data = values.data if isinstance(values, Ragged) else values
    dtype = np.dtype(expected.dtype)
    if (
        expected.ragged != isinstance(values, Ragged)
        or tuple(data.shape[1:]) != expected.shape
        or not np.can_cast(data.dtype, dtype, "same_kind")
    ):
        raise FormatError(
            f"stream {info.name!r}: field {name!r} is {expected.dtype} of shape "
            f"{expected.shape}{', ragged' if expected.ragged else ''}; this batch has {data.dtype} "
            f"of shape {tuple(data.shape[1:])}{', ragged' if isinstance(values, Ragged) else ''}"
        )
    if data.dtype == dtype:
        return values
    data = data.astype(dtype)
    return Ragged(data, values.offsets) if isinstance(values, Ragged) else data


def _image_encoding(info: StreamInfo, batch: Mapping[str, Values]) -> str:
    data = batch["data"]
    if not isinstance(data, Ragged):
        return "raw"
    encoding = media.sniff_image(data[0].tobytes()) if len(data) else None
    if encoding is None:
        raise FormatError(
            f"stream {info.name!r}: cannot tell the encoding of its images; declare it"
        )
    return encoding
