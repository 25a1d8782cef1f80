"""Decoding serialised ROS messages many at a time.

`walk` reads one message by its definition and notes where everything lies: a `Layout`. Messages of
the same length whose variable parts (array lengths and strings) hold the same bytes have the same
layout, so their numbers are columns of one byte matrix. `LayoutDecoder` learns layouts as it meets
them and splits a block of messages into groups that share one; a message like no other is a group
of its own. Covers CDR (XCDR1, both endiannesses) and ROS 1 serialisation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype

from mmdata.streams import Ragged, rows_at

Bytes: TypeAlias = NDArray[np.uint8]

_SIZES = {
    "bool": "u1", "byte": "i1", "char": "u1", "octet": "u1", "int8": "i1", "uint8": "u1",
    "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_MAX_NODES = 20_000
#: The field rosbags and ROS 2 put into messages that have none.
_EMPTY = "structure_needs_at_least_one_member"
#: Above this size messages are sliced one by one; gathering them into a matrix would copy them.
_GATHER_BYTES = 16 << 10
_LAYOUTS_PER_LENGTH = 8
_MAX_LENGTHS = 256


class DecodeError(Exception):
    """A message does not fit its definition, or its definition is beyond what is read here."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number, or `count` of them (None: a single one), at a byte offset."""

    dtype: str
    offset: int
    count: int | None = None
    sequence: bool = False

    @property
    def nbytes(self) -> int:
        return np.dtype(self.dtype).itemsize * (1 if self.count is None else self.count)


@dataclass(frozen=True, slots=True)
class Text:
    """A string; its value is part of the layout."""

    value: str


@dataclass(frozen=True, slots=True)
class Texts:
    """An array of strings."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A nested message."""

    type: str
    fields: Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Structs:
    """An array of nested messages; sequence says whether its length is free."""

    type: str
    items: tuple[Struct, ...]
    sequence: bool


Node: TypeAlias = Number | Text | Texts | Struct | Structs


@dataclass(slots=True)
class Layout:
    """Where everything lies in a message of `length` bytes; `used` of them are accounted for.

    marks: positions of the bytes that must repeat for a message to have this layout.
    """

    root: Struct
    length: int
    used: int
    marks: NDArray[np.int64]
    expected: Bytes

    @property
    def tail(self) -> Number | None:
        """The last field, or the last before single bytes (PointCloud2's `is_dense`), where it is
        an array of bytes of free length."""
        for last in reversed(list(self.root.fields.values())):
            if isinstance(last, Number) and last.sequence and last.dtype == "u1":
                return last
            if not (isinstance(last, Number) and last.count is None and last.nbytes == 1):
                break
        return None


@dataclass(frozen=True)
class Group:
    """Messages of one layout: rows (m,) of the block, and their numbers.

    tail: where the messages differ in the length of one array only (`Layout.tail`), its bytes per
    message; the matrix then holds what comes before it.
    """

    rows: NDArray[np.int64]
    layout: Layout
    matrix: Bytes
    tail: Sequence[Bytes] | None = None

    @property
    def root(self) -> Struct:
        return self.layout.root

    def numbers(self, node: Number) -> NDArray[Any]:
        """(m,) or (m, count) little-endian values of one node. A view for big single messages."""
        raw = self.matrix[:, node.offset : node.offset + node.nbytes]
        dtype = np.dtype(node.dtype)
        if raw.shape[1] == 0:
            return np.empty((len(raw), 0), dtype.newbyteorder("="))
        if len(raw) > 1 or raw.base is None:
            raw = np.ascontiguousarray(raw)
        values = raw.view(dtype)
        if not dtype.isnative:
            values = values.astype(dtype.newbyteorder("="))
        return values[:, 0] if node.count is None else values

    def serialised(self) -> Ragged:
        """The messages themselves, byte for byte."""
        m, length = self.matrix.shape
        return Ragged(self.matrix.reshape(-1), np.arange(m + 1, dtype=np.int64) * length)


class LayoutDecoder:
    """Splits blocks of serialised messages of one type into groups of equal layout.

    tails: give messages that end in an array of bytes, and perhaps single bytes after it, as groups
    with a `tail`.
    """

    def __init__(
        self, definitions: Mapping[str, Any], message_type: str, ros1: bool, tails: bool = False
    ) -> None:
        self._definitions = definitions
        self._type = message_type
        self._ros1 = ros1
        self._tails = tails
        self._layouts: dict[int, list[Layout]] = {}
        self._tailed: list[Layout] = []

    def decode(
        self, buffer: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Iterator[Group | tuple[int, DecodeError]]:
        """Groups of the messages at starts (n,), lengths (n,) of a buffer; every row comes once.

        A message that cannot be decoded comes as (row, error).
        """
        rest = np.arange(len(starts))
        if self._tails:
            for group in self._by_tail(buffer, starts, lengths):
                rest = np.setdiff1d(rest, group.rows, assume_unique=True)
                yield group
        for rows in _by_length(rest, lengths):
            length = int(lengths[rows[0]])
            if (np.diff(starts[rows]) == length).all():
                first = int(starts[rows[0]])
                matrix = buffer[first : first + length * len(rows)].reshape(len(rows), length)
                yield from self._split(rows, matrix)
            elif length > _GATHER_BYTES:
                for row in rows:
                    start = int(starts[row])
                    matrix = buffer[start : start + length].reshape(1, length)
                    yield from self._split(np.array([row]), matrix)
            else:
                matrix = rows_at(buffer, starts[rows], length)
                yield from self._split(rows, matrix)

    def _by_tail(
        self, buffer: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Iterator[Group]:
        """Groups of the messages that differ from a known one in the length of their tail only."""
        if not self._tailed and len(starts):
            self._learn_tail(buffer[int(starts[0]) : int(starts[0] + lengths[0])])
        rows = np.arange(len(starts))
        for layout in self._tailed:
            tail = layout.tail
            assert tail is not None
            rows = rows[lengths[rows] >= tail.offset]
            heads = rows_at(buffer, starts[rows], tail.offset)
            # The last four marks are the length of the tail itself.
            same = (heads[:, layout.marks[:-4]] == layout.expected[:-4]).all(axis=1)
            order = "<" if self._ros1 or not len(layout.expected) or layout.expected[1] else ">"
            counts = np.ascontiguousarray(heads[:, -4:]).view(f"{order}u4")[:, 0].astype(np.int64)
            after = layout.used - tail.offset - tail.nbytes
            spare = lengths[rows] - tail.offset - counts - after
            same &= (spare >= 0) & (spare <= (0 if self._ros1 else 3))
            here = rows[same]
            begins = (starts[here] + tail.offset).tolist()
            sizes = counts[same].tolist()
            if len(here):
                pieces = [buffer[a : a + n] for a, n in zip(begins, sizes, strict=True)]
                yield Group(here, layout, heads[same], pieces)
            rows = rows[~same]

    def _learn_tail(self, message: Bytes) -> None:
        try:
            layout = walk(self._definitions, self._type, message, self._ros1)
        except DecodeError:
            return
        tail = layout.tail
        if tail is not None and layout.marks[-1] == tail.offset - 1:
            self._tailed.append(layout)

    def _split(
        self, rows: NDArray[np.int64], matrix: Bytes
    ) -> Iterator[Group | tuple[int, DecodeError]]:
        length = matrix.shape[1]
        if length not in self._layouts and len(self._layouts) >= _MAX_LENGTHS:
            self._layouts.clear()
        known = self._layouts.setdefault(length, [])
        for layout in list(known):
            same = _matches(layout, matrix)
            if same.all():
                yield Group(rows, layout, matrix)
                return
            if same.any():
                yield Group(rows[same], layout, matrix[same])
                rows, matrix = rows[~same], matrix[~same]
        while len(rows):
            try:
                layout = walk(self._definitions, self._type, matrix[0], self._ros1)
            except DecodeError as error:
                yield int(rows[0]), error
                rows, matrix = rows[1:], matrix[1:]
                continue
            known.insert(0, layout)
            del known[_LAYOUTS_PER_LENGTH:]
            same = _matches(layout, matrix)
            yield Group(rows[same], layout, matrix[same] if not same.all() else matrix)
            rows, matrix = rows[~same], matrix[~same]


def _by_length(rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows split into runs of equal length, each in order."""
    if not len(rows):
        return
    sizes = lengths[rows]
    if (sizes == sizes[0]).all():
        yield rows
        return
    order = np.argsort(sizes, kind="stable")
    yield from np.split(rows[order], np.flatnonzero(np.diff(sizes[order])) + 1)


def _matches(layout: Layout, matrix: Bytes) -> NDArray[np.bool_]:
    if not len(layout.marks):
        return np.ones(len(matrix), np.bool_)
    found: NDArray[np.bool_] = (matrix[:, layout.marks] == layout.expected).all(axis=1)
    return found


@dataclass
class _Cursor:
    data: bytes | memoryview
    order: str
    align: bool
    base: int
    at: int
    marks: list[tuple[int, int]] = field(default_factory=list)
    nodes: int = 0

    def number(self, dtype: str, count: int | None, sequence: bool = False) -> Number:
        size = int(dtype[1])
        n = 1 if count is None else count
        if self.align and n:
            self.at += -(self.at - self.base) % size
        node = Number(self.order + dtype if size > 1 else dtype, self.at, count, sequence)
        self.skip(size * n)
        return node

    def length(self) -> int:
        if self.align:
            self.at += -(self.at - self.base) % 4
        at = self.at
        self.skip(4)
        self.marks.append((at, 4))
        (value,) = struct.unpack_from(self.order + "I", self.data, at)
        return int(value)

    def text(self) -> str:
        size = self.length()
        at = self.at
        self.skip(size)
        self.marks.append((at, size))
        raw = bytes(self.data[at : at + size])
        if self.align and raw.endswith(b"\0"):
            raw = raw[:-1]
        return raw.decode("utf-8", errors="replace")

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise DecodeError(
                f"it ends at byte {len(self.data)}, its fields need {self.at} or more"
            )


def walk(definitions: Mapping[str, Any], message_type: str, message: Bytes, ros1: bool) -> Layout:
    """The layout of one message (L,) u1. Raises DecodeError."""
    data = np.ascontiguousarray(message).data
    if ros1:
        cursor = _Cursor(data, "<", False, 0, 0)
    else:
        if len(data) < 4:
            raise DecodeError("it is shorter than a CDR header")
        if data[0] != 0 or data[1] not in (0, 1):
            raise DecodeError(f"its encapsulation {bytes(data[:2]).hex()} is not plain CDR")
        cursor = _Cursor(data, "<" if data[1] else ">", True, 4, 4, [(0, 4)])
    root = _struct(definitions, message_type, cursor)
    marks = np.concatenate([np.arange(a, a + n) for a, n in cursor.marks] or [np.empty(0, int)])
    marks = marks.astype(np.int64)
    return Layout(root, len(data), cursor.at, marks, np.array(message[marks]))


def _struct(definitions: Mapping[str, Any], name: str, cursor: _Cursor) -> Struct:
    if name not in definitions:
        raise DecodeError(f"its definition lacks the type {name}")
    fields: dict[str, Node] = {}
    for field_name, description in definitions[name][1]:
        if field_name != _EMPTY:
            fields[field_name] = _node(definitions, description, cursor)
    if not fields and cursor.align:
        cursor.number("u1", None)  # an empty message carries one unused byte in CDR
    return Struct(name, fields)


def _node(definitions: Mapping[str, Any], description: Any, cursor: _Cursor) -> Node:
    cursor.nodes += 1
    if cursor.nodes > _MAX_NODES:
        raise DecodeError("it has too many elements to lay out as fields")
    kind, detail = description
    if kind == Nodetype.BASE:
        if detail[0] == "string":
            return Text(cursor.text())
        return cursor.number(_dtype(detail[0]), None)
    if kind == Nodetype.NAME:
        return _struct(definitions, detail, cursor)
    element, count = detail
    sequence = kind == Nodetype.SEQUENCE
    if sequence:
        count = cursor.length()
    if element[0] == Nodetype.BASE:
        if element[1][0] == "string":
            if count > len(cursor.data):
                raise DecodeError(f"it claims {count} strings")
            return Texts(tuple(cursor.text() for _ in range(count)))
        return cursor.number(_dtype(element[1][0]), count, sequence)
    if count > _MAX_NODES:
        raise DecodeError("it has too many elements to lay out as fields")
    items = tuple(_struct(definitions, element[1], cursor) for _ in range(count))
    return Structs(element[1], items, sequence)


def _dtype(name: str) -> str:
    try:
        return _SIZES[name]
    except KeyError:
        raise DecodeError(f"the primitive type {name} is not supported") from None
