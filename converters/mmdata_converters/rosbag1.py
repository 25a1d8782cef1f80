"""ROS 1 bags (format 2.0).

The bag is read chunk by chunk along its records, not through its index section, so that a bag whose
index is malformed or that ends early gives what its bytes hold. Chunk contents are found through
the per-chunk index records, and by scanning where those are missing or wrong.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

import lz4.frame
import numpy as np
from numpy.typing import NDArray

from mmdata.digest import FileHash
from mmdata.errors import ConversionError
from mmdata.recording import Converter, Recording
from mmdata.streams import rows_at
from mmdata_converters._ros.channels import (
    Block,
    Channel,
    ChannelSummary,
    ChannelTable,
    Stamps,
    Tally,
    normal_type,
)
from mmdata_converters._ros.recording import RosRecording

_MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_INDEX_DTYPE = np.dtype([("sec", "<u4"), ("nsec", "<u4"), ("offset", "<u4")])
_MAX_HEADER = 1 << 20


class RosBag1Converter(Converter):
    """ROS 1 .bag files, also truncated ones."""

    name: ClassVar[str] = "rosbag1"
    summary: ClassVar[str] = "ROS 1 bag"
    reads: ClassVar[str] = "all topics, by their own message definitions; none/bz2/lz4 chunks"
    cannot: ClassVar[str] = "format 1.2 and encrypted bags"
    labels: ClassVar[str] = ""
    calibration: ClassVar[str] = "CameraInfo, static transforms"
    time: ClassVar[str] = "header and receive stamps"

    @classmethod
    def sniff(cls, path: Path) -> bool:
        try:
            if not path.is_file():
                return False
            with path.open("rb") as file:
                return file.read(8) == _MAGIC[:8]
        except OSError:
            return False

    @classmethod
    def open(cls, path: Path, part: str = "") -> Recording:
        return RosRecording(RosBag1Log(path), [path])


@dataclass
class _Chunk:
    """One chunk: where its data lies, and its index per connection (n,) of `_INDEX_DTYPE`."""

    position: int
    length: int
    compression: str
    index: dict[int, NDArray[np.void]] = field(default_factory=dict)
    start_ns: int = 0

    def times(self, connection: int) -> Stamps:
        entries = self.index[connection]
        stamps: Stamps = entries["sec"].astype(np.int64) * 1_000_000_000 + entries["nsec"]
        return stamps


class RosBag1Log:
    """Raw reading of one bag."""

    format = "rosbag1"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[str] = []
        self.lost: list[tuple[str, int, str]] = []
        self._table = ChannelTable()
        self._channels: dict[int, Channel] = {}
        self._chunks: list[_Chunk] = []
        self._hash: FileHash | None = None
        self._file: BinaryIO = path.open("rb")
        try:
            self._scan()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def channels(self) -> Sequence[ChannelSummary]:
        tally = Tally.empty()
        for chunk in self._chunks:
            for connection in chunk.index:
                times = chunk.times(connection)
                if len(times) and connection in self._channels:
                    tally.add(
                        self._channels[connection].number, len(times),
                        int(times.min()), int(times.max()),
                    )  # fmt: skip
        unique = {c.number: c for c in self._channels.values()}
        return tally.summaries(unique.values())

    def receive_stamps(self, topic: str | None) -> Iterator[Stamps]:
        for chunk in self._chunks:
            wanted = [
                chunk.times(c)
                for c in chunk.index
                if topic is None or (c in self._channels and self._channels[c].topic == topic)
            ]
            if wanted:
                yield np.concatenate(wanted)

    def hash_while_reading(self) -> Mapping[Path, FileHash]:
        self._hash = FileHash(self._path)
        return {self._path: self._hash}

    def blocks(self, topics: frozenset[str] | None) -> Iterator[Block]:
        starts = np.array([c.start_ns for c in self._chunks], np.int64)
        for order in np.argsort(starts, kind="stable"):
            chunk = self._chunks[order]
            merged: dict[int, list[int]] = {}
            for connection in chunk.index:
                channel = self._channels.get(connection)
                if channel is None:
                    reason = "its connection record is missing"
                    self.lost.append(
                        (f"connection {connection}", len(chunk.index[connection]), reason)
                    )
                elif topics is None or channel.topic in topics:
                    merged.setdefault(channel.number, []).append(connection)
            if not merged:
                continue
            try:
                data = self._read_chunk(chunk)
            except (OSError, RuntimeError, EOFError, ValueError) as error:
                for connections in merged.values():
                    for connection in connections:
                        self.lost.append(
                            (self._channels[connection].topic, len(chunk.index[connection]),
                             f"the chunk at byte {chunk.position} cannot be decompressed: {error}")
                        )  # fmt: skip
                continue
            for connections in merged.values():
                yield self._block(chunk, connections, data)

    # -- the file ----------------------------------------------------------------------------

    def _scan(self) -> None:
        """Walk the records of the file, noting chunks, their indices and connections."""
        file = self._file
        head = file.read(len(_MAGIC))
        size = file.seek(0, 2)
        if head != _MAGIC:
            raise ConversionError(f"{self._path} is not a ROS 1 bag of format 2.0")
        file.seek(len(_MAGIC))
        index_position = 0
        while (at := file.tell()) < size:
            record = self._next_record(size)
            if record is None:
                self._tolerate(at, size)
                break
            header, position, length = record
            kind = header.get("op", b"\0")[0]
            if kind == _HEADER:
                index_position = int.from_bytes(header.get("index_pos", b""), "little")
            elif kind == _CHUNK:
                compression = header.get("compression", b"none").decode(errors="replace")
                self._chunks.append(_Chunk(position, length, compression))
            elif kind == _INDEX and self._chunks:
                connection = int.from_bytes(header.get("conn", b""), "little")
                count = int.from_bytes(header.get("count", b""), "little")
                if count * _INDEX_DTYPE.itemsize != length:
                    self.problems.append(
                        f"the index at byte {at} states {length} bytes for {count} entries; "
                        "its count is believed"
                    )
                    length = min(length, count * _INDEX_DTYPE.itemsize)
                raw = file.read(length)
                self._chunks[-1].index[connection] = np.frombuffer(
                    raw[: len(raw) // _INDEX_DTYPE.itemsize * _INDEX_DTYPE.itemsize], _INDEX_DTYPE
                )
            elif kind == _CONNECTION:
                self._connection(header, file.read(length))
            file.seek(position + length)
        if index_position == 0 and self._chunks:
            self.problems.append("the bag was not closed (no index); read along its chunks")
        self._complete()

    def _next_record(self, size: int) -> tuple[dict[str, bytes], int, int] | None:
        """Header fields, data position and length of the record here; None when it is cut off."""
        file = self._file
        raw = file.read(4)
        if len(raw) < 4:
            return None
        (header_length,) = struct.unpack("<I", raw)
        if header_length > _MAX_HEADER:
            return None
        header = _fields(file.read(header_length))
        raw = file.read(4)
        if header is None or len(raw) < 4 or "op" not in header:
            return None
        (length,) = struct.unpack("<I", raw)
        position = file.tell()
        if position + length > size:
            return None
        return header, position, length

    def _tolerate(self, at: int, size: int) -> None:
        if not self._chunks:
            raise ConversionError(
                f"{self._path}: nothing readable, its records break off at byte {at} of {size}"
            )
        self.problems.append(
            f"records are malformed or cut off at byte {at} of {size}; everything before is read"
        )

    def _connection(self, header: dict[str, bytes], data: bytes) -> None:
        facts = _fields(data) or {}
        connection = int.from_bytes(header.get("conn", b""), "little")
        topic = header.get("topic", b"").decode(errors="replace")
        message_type = facts.get("type", b"unknown").decode(errors="replace")
        definition = facts.get("message_definition", b"").decode(errors="replace")
        if connection not in self._channels:
            self._channels[connection] = self._table.add(
                topic, normal_type(message_type), definition, ros1=True
            )

    def _complete(self) -> None:
        """Find what the per-chunk indices and connection records leave open, by scanning chunks."""
        unindexed = 0
        kept: list[_Chunk] = []
        for chunk in self._chunks:
            known = all(c in self._channels for c in chunk.index)
            if not chunk.index or not known:
                unindexed += not chunk.index
                try:
                    self._scan_chunk(chunk, self._read_chunk(chunk))
                except (OSError, RuntimeError, EOFError, ValueError) as error:
                    self.problems.append(
                        f"the chunk at byte {chunk.position} cannot be decompressed: {error}"
                    )
                    continue
            stamps = [chunk.times(c) for c in chunk.index if len(chunk.index[c])]
            if stamps:
                chunk.start_ns = min(int(s.min()) for s in stamps)
                kept.append(chunk)
        if unindexed:
            self.problems.append(f"{unindexed} chunks have no index; their records were scanned")
        self._chunks = kept

    def _read_chunk(self, chunk: _Chunk) -> bytes:
        self._file.seek(chunk.position)
        raw = self._file.read(chunk.length)
        if self._hash is not None:
            self._hash.saw(chunk.position, raw)
        if chunk.compression == "none":
            return raw
        if chunk.compression == "bz2":
            return bz2.decompress(raw)
        if chunk.compression == "lz4":
            data: bytes = lz4.frame.decompress(raw)
            return data
        raise ValueError(f"unknown compression {chunk.compression!r}")

    # -- inside a chunk ----------------------------------------------------------------------

    def _scan_chunk(self, chunk: _Chunk, data: bytes) -> None:
        """Rebuild the index of a chunk, and take the connections it holds."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        at = 0
        while at + 8 <= len(data):
            (header_length,) = struct.unpack_from("<I", data, at)
            header = _fields(data[at + 4 : at + 4 + header_length])
            end = at + 4 + header_length
            if header is None or end + 4 > len(data) or "op" not in header:
                self.problems.append(f"records break off inside the chunk at byte {chunk.position}")
                break
            (length,) = struct.unpack_from("<I", data, end)
            if header["op"][0] == _CONNECTION:
                self._connection(header, data[end + 4 : end + 4 + length])
            elif header["op"][0] == _MESSAGE and end + 4 + length <= len(data):
                connection = int.from_bytes(header["conn"], "little")
                sec, nsec = struct.unpack("<II", header["time"])
                found.setdefault(connection, []).append((sec, nsec, at))
            at = end + 4 + length
        if not chunk.index:
            chunk.index = {c: np.array(rows, _INDEX_DTYPE) for c, rows in found.items()}

    def _block(self, chunk: _Chunk, connections: list[int], data: bytes) -> Block:
        buffer = np.frombuffer(data, np.uint8)
        offsets = np.concatenate([chunk.index[c]["offset"] for c in connections]).astype(np.int64)
        times = np.concatenate([chunk.times(c) for c in connections])
        # Recording order is the order of the bytes; several publishers of a topic are merged.
        order = np.argsort(offsets, kind="stable")
        offsets, times = offsets[order], times[order]
        fits = offsets + 8 <= len(buffer)
        header = _u32(buffer, np.where(fits, offsets, 0))
        ends = np.where(fits, offsets + 4 + header, 0)
        fits &= ends + 4 <= len(buffer)
        lengths = _u32(buffer, np.where(fits, ends, 0))
        fits &= ends + 4 + lengths <= len(buffer)
        channel = self._channels[connections[0]]
        if not fits.all():
            self.lost.append(
                (channel.topic, int((~fits).sum()), "its index points outside its chunk")
            )
        return Block(
            channel, buffer, (ends + 4)[fits], lengths[fits], times[fits], None, chunk.start_ns
        )


def _u32(buffer: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Little-endian u4 values at byte positions (n,)."""
    if len(buffer) < 4:
        return np.zeros(len(at), np.int64)  # nothing fits in it, as the caller knows
    return rows_at(buffer, at, 4).view("<u4")[:, 0].astype(np.int64)


def _fields(raw: bytes) -> dict[str, bytes] | None:
    """Record header fields; None when they are malformed."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            return None
        (size,) = struct.unpack_from("<I", raw, at)
        name, separator, value = raw[at + 4 : at + 4 + size].partition(b"=")
        if not separator or at + 4 + size > len(raw):
            return None
        found[name.decode(errors="replace")] = value
        at += 4 + size
    return found
