"""TFRecord files and tf.train.Example, read without TensorFlow.

TFRecord: u64 length, u32 masked CRC-32C of it, data, u32 masked CRC-32C of the data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError

_LANES = 2048


def record_offsets(path: Path) -> tuple[list[tuple[int, int]], str | None]:
    """(offset, length) of the data of each record, and what is wrong with the rest of the file."""
    size = path.stat().st_size
    records: list[tuple[int, int]] = []
    with path.open("rb") as file:
        at = 0
        while at < size:
            head = file.read(12)
            if len(head) < 12:
                return records, "ends within a record"
            length, crc = struct.unpack("<QI", head)
            if _masked(crc32c(head[:8])) != crc:
                return records, f"damaged record header at byte {at}"
            if at + 16 + length > size:
                return records, "ends within a record"
            records.append((at + 12, length))
            at += 16 + length
            file.seek(at)
    return records, None


def read_record(path: Path, offset: int, length: int) -> bytes:
    """Data of a record. Raises ConversionError when its checksum does not match."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
        crc = file.read(4)
    if len(data) < length or len(crc) < 4 or _masked(crc32c(data)) != struct.unpack("<I", crc)[0]:
        raise ConversionError(f"{path.name}: the record at byte {offset} is damaged (checksum)")
    return data


def parse_example(data: bytes) -> dict[str, list[bytes] | NDArray[Any]]:
    """Features of a tf.train.Example: lists of bytes, or f4 / i8 arrays. Raises ConversionError."""
    try:
        features: dict[str, list[bytes] | NDArray[Any]] = {}
        view = memoryview(data)
        for number, body in _fields(view):
            if number != 1:
                continue
            for entry_number, entry in _fields(body):
                if entry_number == 1:
                    pair = dict(_fields(entry))
                    features[bytes(pair[1]).decode()] = _feature(pair.get(2, memoryview(b"")))
        return features
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ConversionError(f"no tf.train.Example: {error}") from error


def crc32c(data: bytes) -> int:
    """CRC-32C. Long data is cut into lanes that NumPy advances together, then joined."""
    table = _table()
    crc = 0xFFFFFFFF
    width = len(data) // _LANES
    if width >= 64:
        block = np.frombuffer(data, np.uint8, _LANES * width).reshape(_LANES, width)
        lanes = np.zeros(_LANES, np.uint32)
        lanes[0] = crc
        for column in np.ascontiguousarray(block.T):
            lanes = table[(lanes ^ column) & 0xFF] ^ (lanes >> 8)
        shift = _shift(width)
        crc = int(lanes[0])
        for lane in lanes[1:].tolist():
            crc = (
                shift[0][crc & 255] ^ shift[1][crc >> 8 & 255]
                ^ shift[2][crc >> 16 & 255] ^ shift[3][crc >> 24] ^ lane
            )  # fmt: skip
        data = data[_LANES * width :]
    plain = table.tolist()
    for byte in data:
        crc = plain[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


# -- internals ---------------------------------------------------------------------------------


@lru_cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


@lru_cache
def _shift(width: int) -> list[list[int]]:
    """What `width` zero bytes do to a CRC, as a table per byte of it."""
    table = _table()
    state = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(width):
        state = table[state & 0xFF] ^ (state >> np.uint32(8))
    columns = state.tolist()
    tables = []
    for byte in range(4):
        entries = [0] * 256
        for value in range(1, 256):
            low = value & -value
            entries[value] = entries[value ^ low] ^ columns[8 * byte + low.bit_length() - 1]
        tables.append(entries)
    return tables


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, body) of the length-delimited fields of a message."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == 2:
            length, at = _varint(view, at)
            if at + length > len(view):
                raise ValueError("a field that is longer than its message")
            yield key >> 3, view[at : at + length]
            at += length
        elif kind == 0:
            start = at
            _, at = _varint(view, at)
            yield key >> 3, view[start:at]
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            yield key >> 3, view[at : at + width]
            at += width
        else:
            raise ValueError(f"wire type {kind}")


def _feature(body: memoryview) -> list[bytes] | NDArray[Any]:
    for number, values in _fields(body):
        if number == 1:
            return [bytes(item) for _, item in _fields(values)]
        if number == 2:
            parts = [np.frombuffer(item, "<f4") for _, item in _fields(values)]
            return np.concatenate(parts) if parts else np.empty(0, np.float32)
        if number == 3:
            parts = [_varints(item) for _, item in _fields(values)]
            return np.concatenate(parts) if parts else np.empty(0, np.int64)
    return []


def _varints(view: memoryview) -> NDArray[np.int64]:
    """Packed varints (n,) i8."""
    data = np.frombuffer(view, np.uint8)
    if not len(data):
        return np.empty(0, np.int64)
    ends = np.flatnonzero(data < 0x80)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise ValueError("a packed list that ends within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    values = np.zeros(len(ends), np.uint64)
    longest = int((ends - starts).max()) + 1
    if longest > 10:
        raise ValueError("a varint of more than ten bytes")
    for i in range(longest):
        rows = np.flatnonzero(starts + i <= ends)
        part = (data[starts[rows] + i] & 0x7F).astype(np.uint64)
        values[rows] |= part << np.uint64(7 * i)
    return values.view(np.int64)
