"""Protobuf messages decoded by the descriptors an MCAP file carries; no generated code.

Format: protobuf's encoding guide and descriptor.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmdata.errors import ConversionError

_REPEATED = 3
_STRUCTS: dict[int, tuple[str, int]] = {
    1: ("<d", 8), 2: ("<f", 4), 6: ("<Q", 8), 7: ("<I", 4), 15: ("<i", 4), 16: ("<q", 8),
}  # fmt: skip
_MESSAGE, _STRING, _BYTES, _BOOL, _ENUM = 11, 9, 12, 8, 14
_SIGNED, _ZIGZAG = (3, 5), (17, 18)
_DEPTH = 32


@dataclass(frozen=True)
class _Field:
    name: str
    kind: int
    repeated: bool
    type_name: str


@dataclass
class _Type:
    fields: dict[int, _Field] = field(default_factory=dict)
    map_entry: bool = False


class ProtobufDecoder:
    """Decoder of one message type. Raises ConversionError when the descriptors lack it."""

    def __init__(self, descriptors: bytes, name: str) -> None:
        self._types: dict[str, _Type] = {}
        try:
            for number, file in _split(descriptors):
                if number == 1:
                    self._file(file)
        except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            raise ConversionError(f"descriptors of {name} cannot be read: {error}") from error
        self._name = f".{name}"
        if self._name not in self._types:
            raise ConversionError(f"the descriptors do not hold {name}")

    def decode(self, data: bytes) -> dict[str, Any]:
        """A message as a dict: absent scalars at their default, absent messages None, bytes as
        memoryviews. Raises ConversionError.
        """
        try:
            return self._message(self._types[self._name], memoryview(data), 0)
        except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            raise ConversionError(f"no {self._name[1:]}: {error}") from error

    # -- descriptors ---------------------------------------------------------------------------

    def _file(self, data: Any) -> None:
        parts = list(_split(data))
        package = next((bytes(v).decode() for n, v in parts if n == 2), "")
        for number, value in parts:
            if number == 4:
                self._add(value, f".{package}" if package else "")

    def _add(self, data: Any, scope: str) -> None:
        parts = list(_split(data))
        name = f"{scope}.{bytes(next(v for n, v in parts if n == 1)).decode()}"
        found = _Type()
        for number, value in parts:
            if number == 2:
                facts = dict(_split(value))
                found.fields[int(facts[3])] = _Field(
                    bytes(facts[1]).decode(), int(facts[5]), facts.get(4) == _REPEATED,
                    bytes(facts.get(6, b"")).decode(),
                )  # fmt: skip
            elif number == 3:
                self._add(value, name)
            elif number == 7:
                found.map_entry = dict(_split(value)).get(7) == 1
        self._types[name] = found

    # -- messages ------------------------------------------------------------------------------

    def _message(self, kind: _Type, data: Any, depth: int) -> dict[str, Any]:
        if depth > _DEPTH:
            raise ValueError("messages nested too deeply")
        out: dict[str, Any] = {f.name: _default(f) for f in kind.fields.values()}
        for number, value in _split(data):
            known = kind.fields.get(number)
            if known is None:
                continue
            if known.repeated and isinstance(value, memoryview) and known.kind not in (
                _MESSAGE, _STRING, _BYTES,
            ):  # fmt: skip
                out[known.name].extend(_packed(known.kind, value))
                continue
            found = self._value(known, value, depth)
            if known.repeated:
                out[known.name].append(found)
            else:
                out[known.name] = found
        return out

    def _value(self, known: _Field, value: Any, depth: int) -> Any:
        if known.kind == _MESSAGE:
            return self._message(self._types[known.type_name], value, depth + 1)
        if known.kind == _STRING:
            return bytes(value).decode("utf-8", errors="replace")
        if known.kind == _BYTES:
            return value
        return _scalar(known.kind)(value)


def _default(known: _Field) -> Any:
    if known.repeated:
        return []
    if known.kind == _MESSAGE:
        return None
    if known.kind == _STRING:
        return ""
    if known.kind == _BYTES:
        return memoryview(b"")
    return 0.0 if known.kind in (1, 2) else 0


def _scalar(kind: int) -> Callable[[Any], Any]:
    """How a value comes out of a varint or of fixed bytes."""
    if kind in _STRUCTS:
        form = _STRUCTS[kind][0]
        return lambda value: struct.unpack(form, value)[0]
    if kind in _SIGNED or kind == _ENUM:
        return lambda value: value - (1 << 64) if value >> 63 else value
    if kind in _ZIGZAG:
        return lambda value: (value >> 1) ^ -(value & 1)
    return int


def _packed(kind: int, data: memoryview) -> list[Any]:
    if kind in _STRUCTS:
        form, width = _STRUCTS[kind]
        count = len(data) // width
        return list(struct.unpack(f"<{count}{form[1]}", data[: count * width]))
    convert = _scalar(kind)
    out, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        out.append(convert(value))
    return out


def _varint(data: Any, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _split(data: Any) -> list[tuple[int, Any]]:
    """(field number, value): numbers for varints, memoryviews for the rest."""
    view = memoryview(data)
    out: list[tuple[int, Any]] = []
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(view, at)
            out.append((key >> 3, value))
            continue
        if kind == 2:
            length, at = _varint(view, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(view):
            raise ValueError("a field that is longer than its message")
        out.append((key >> 3, view[at : at + length]))
        at += length
    return out
