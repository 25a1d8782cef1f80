"""MCAP files, read chunk by chunk.

Messages are found through each chunk's message index, many at once, and by scanning where there is
none. The index is read again for each chunk when its turn comes, so that memory does not grow with
the length of a log. A file without a summary (its recorder was killed) is read along its records as
far as they go. Unlike rosbags' reader this keeps publish times and the order in which messages were
recorded.
Format: https://mcap.dev/spec
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

from mmdata.errors import ConversionError
from mmdata_converters._ros.channels import (
    Block,
    Channel,
    ChannelSummary,
    ChannelTable,
    Stamps,
    Tally,
    normal_type,
)

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = 3, 4, 5, 6, 7, 8
_DATA_END, _FOOTER = 15, 2
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = np.dtype(
    {
        "names": ["op", "length", "channel", "log", "publish"],
        "formats": ["u1", "<u8", "<u2", "<u8", "<u8"],
        "offsets": [0, 1, 9, 15, 23],
        "itemsize": 31,
    }
)
_INDEX_DTYPE = np.dtype([("log", "<u8"), ("offset", "<u8")])
#: Unchunked messages are handled in runs of about this size.
_RUN_BYTES = 1 << 20


_Index = dict[int, NDArray[np.void]]


@dataclass(slots=True)
class _Chunk:
    """A chunk record, or (compression None) a run of records outside of chunks.

    position and length are those of its (compressed) content. indexed: where the file's message
    index records of this chunk begin and end; scanned: what takes their place where there are none.
    Either way the index is, per channel id, (n,) of `_INDEX_DTYPE`.
    """

    position: int
    length: int
    compression: str | None
    size: int
    crc: int
    start_ns: int
    end_ns: int
    indexed: tuple[int, int] | None = None
    scanned: _Index | None = None


class McapLog:
    """Raw reading of one MCAP file with CDR messages."""

    format = "rosbag2"

    def __init__(
        self, path: Path, table: ChannelTable | None = None, distribution: str | None = None
    ) -> None:
        self._path = path
        self._table = table if table is not None else ChannelTable()
        self._distribution = distribution
        self.problems: list[str] = []
        self.lost: list[tuple[str, int, str]] = []
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks: list[_Chunk] = []
        self._counts: dict[int, tuple[int, int, int]] = {}
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
        for number, (count, first, last) in self._counts.items():
            if number in self._channels:
                tally.add(self._channels[number].number, count, first, last)
        return tally.summaries({c.number: c for c in self._channels.values()}.values())

    def receive_stamps(self, topic: str | None) -> Iterator[Stamps]:
        for chunk in self._chunks:
            for number, entries in self._index(chunk).items():
                channel = self._channels.get(number)
                if channel is not None and (topic is None or channel.topic == topic):
                    yield entries["log"].astype(np.int64)

    def blocks(self, topics: frozenset[str] | None) -> Iterator[Block]:
        order = np.argsort([c.start_ns for c in self._chunks], kind="stable")
        for position in order:
            chunk = self._chunks[position]
            index = self._index(chunk)
            merged: dict[int, list[int]] = {}
            for number in index:
                channel = self._channels.get(number)
                if channel is None:
                    count = len(index[number])
                    self.lost.append((f"channel {number}", count, "its channel record is missing"))
                elif topics is None or channel.topic in topics:
                    merged.setdefault(channel.number, []).append(number)
            if not merged:
                continue
            data, problem = self._content(chunk)
            if problem is not None:
                for numbers in merged.values():
                    for number in numbers:
                        topic, count = self._channels[number].topic, len(index[number])
                        self.lost.append((topic, count, problem))
                continue
            for numbers in merged.values():
                yield self._block(chunk, index, numbers, data)

    # -- the file ----------------------------------------------------------------------------

    def _scan(self) -> None:
        """Walk the records of the file; skip over payload."""
        file = self._file
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(len(MAGIC)) != MAGIC:
            raise ConversionError(f"{self._path} is not an MCAP file")
        run: _Chunk | None = None
        complete = False
        while (at := file.tell()) < size:
            head = file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                break
            op, length = _RECORD.unpack(head)
            position = at + _RECORD.size
            if op == 0 or position + length > size:
                break
            if op == _CHUNK:
                self._add_chunk(position, length)
            elif op == _MESSAGE_INDEX:
                self._add_index(at, position + length, file.read(length))
            elif op in (_SCHEMA, _CHANNEL):
                self._add_definition(op, file.read(length))
            elif op == _MESSAGE:
                run = self._add_message(run, at, length, file.read(22))
            elif op == _DATA_END:
                complete = True
                break  # what follows is a summary of what was read
            file.seek(position + length)
        if not complete:
            at = file.tell() if size == 0 else at
            self.problems.append(
                f"the file breaks off at byte {at} of {size} (recorder killed, or copy cut short); "
                "everything before is read"
            )
            if self._chunks and self._chunks[-1].indexed:
                for number, entries in self._index(self._chunks[-1]).items():
                    self._count(number, entries, -1)
                self._chunks[-1].indexed = None  # it may be cut off: scan the chunk
            self._salvage_last_chunk(at, size)
        self._complete()
        if not self._channels:
            raise ConversionError(f"{self._path}: no message can be read from it")

    def _add_chunk(self, position: int, length: int) -> None:
        head = self._file.read(min(length, 32 + 64))
        start, end, size, crc, name = struct.unpack_from("<QQQII", head)
        compression = head[32 : 32 + name].decode(errors="replace")
        (compressed,) = struct.unpack_from("<Q", head, 32 + name)
        at = position + 40 + name
        compressed = min(compressed, position + length - at)
        self._chunks.append(_Chunk(at, compressed, compression, size, crc, start, end))

    def _add_index(self, start: int, end: int, raw: bytes) -> None:
        number, entries = _index_entries(raw)
        if not self._chunks or not len(entries):
            return
        chunk = self._chunks[-1]
        chunk.indexed = (chunk.indexed[0] if chunk.indexed else start, end)
        self._count(number, entries)

    def _index(self, chunk: _Chunk) -> _Index:
        """The message index of a chunk; empty when it has none."""
        if chunk.indexed is None:
            return chunk.scanned or {}
        start, end = chunk.indexed
        self._file.seek(start)
        raw = self._file.read(end - start)
        index: _Index = {}
        at = 0
        while at < len(raw):
            op, length = _RECORD.unpack_from(raw, at)
            at += _RECORD.size
            if op == _MESSAGE_INDEX:
                number, entries = _index_entries(raw[at : at + length])
                if len(entries):
                    index[number] = entries
            at += length
        return index

    def _count(self, number: int, entries: NDArray[np.void], sign: int = 1) -> None:
        log = entries["log"].astype(np.int64)
        first, last = int(log.min()), int(log.max())
        count, earliest, latest = self._counts.get(number, (0, first, last))
        self._counts[number] = (
            count + sign * len(log), min(earliest, first), max(latest, last)
        )  # fmt: skip

    def _add_message(self, run: _Chunk | None, at: int, length: int, head: bytes) -> _Chunk:
        _, _, log, _ = struct.unpack("<HIQQ", head)
        end = at + _RECORD.size + length
        if run is None or run.position + run.length != at or run.length > _RUN_BYTES:
            run = _Chunk(at, 0, None, 0, 0, log, log)
            self._chunks.append(run)
        run.length = run.size = end - run.position
        run.start_ns, run.end_ns = min(run.start_ns, log), max(run.end_ns, log)
        return run

    def _add_definition(self, op: int, raw: bytes) -> None:
        if op == _SCHEMA:
            (number,) = struct.unpack_from("<H", raw)
            name, at = _string(raw, 2)
            encoding, at = _string(raw, at)
            text, _ = _string(raw, at)
            self._schemas[number] = (name, encoding, text)
            return
        number, schema = struct.unpack_from("<HH", raw)
        topic, at = _string(raw, 4)
        encoding, _ = _string(raw, at)
        name, form, text = self._schemas.get(schema, ("unknown", "", ""))
        if encoding != "cdr":
            problem = f"{topic}: encoding {encoding!r} is not CDR, kept as opaque bytes"
            if problem not in self.problems:
                self.problems.append(problem)
            name, text = f"{encoding}:{name}", ""
        self._channels[number] = self._table.add(
            topic,
            normal_type(name),
            text,
            idl=form == "ros2idl",
            distribution=self._distribution,
        )

    def _salvage_last_chunk(self, at: int, size: int) -> None:
        """The compressed beginning of a chunk that was being written when the file broke off."""
        self._file.seek(at)
        head = self._file.read(_RECORD.size)
        if len(head) == _RECORD.size and head[0] == _CHUNK and size - at > 64:
            self._add_chunk(at + _RECORD.size, size - at - _RECORD.size)
            self._chunks[-1].crc = 0

    def _complete(self) -> None:
        """Index, by scanning, what has no message index; take definitions inside chunks."""
        for chunk in list(self._chunks):
            unknown = self._counts.keys() - self._channels.keys()
            if chunk.indexed and not (unknown and unknown & self._index(chunk).keys()):
                continue
            data, problem = self._content(chunk)
            if problem is not None:
                self.problems.append(problem)
                self._drop(chunk)
                continue
            self._scan_chunk(chunk, data)
            if not chunk.indexed and not chunk.scanned:
                self._chunks.remove(chunk)

    def _drop(self, chunk: _Chunk) -> None:
        for number, entries in self._index(chunk).items():
            self._count(number, entries, -1)
        self._chunks.remove(chunk)

    def _content(self, chunk: _Chunk) -> tuple[bytes, str | None]:
        """Decompressed content of a chunk, or why it cannot be had."""
        self._file.seek(chunk.position)
        raw = self._file.read(chunk.length)
        where = f"the chunk at byte {chunk.position}"
        try:
            if not chunk.compression:
                data = raw
            elif chunk.compression == "zstd":
                data = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
            elif chunk.compression == "lz4":
                data = lz4.frame.LZ4FrameDecompressor().decompress(raw)
            else:
                return b"", f"{where} has the unknown compression {chunk.compression!r}"
        except (zstandard.ZstdError, RuntimeError) as error:
            return b"", f"{where} cannot be decompressed: {error}"
        if chunk.crc and zlib.crc32(data) != chunk.crc:
            return b"", f"{where} is damaged: its checksum does not match"
        return data, None

    # -- inside a chunk ----------------------------------------------------------------------

    def _scan_chunk(self, chunk: _Chunk, data: bytes) -> None:
        found: dict[int, list[tuple[int, int]]] = {}
        at = 0
        while at + _RECORD.size <= len(data):
            op, length = _RECORD.unpack_from(data, at)
            end = at + _RECORD.size + length
            if end > len(data):
                break
            if op in (_SCHEMA, _CHANNEL):
                self._add_definition(op, data[at + _RECORD.size : end])
            elif op == _MESSAGE:
                number, _, log = struct.unpack_from("<HIQ", data, at + _RECORD.size)
                found.setdefault(number, []).append((log, at))
            at = end
        if not chunk.indexed:
            chunk.scanned = {n: np.array(rows, _INDEX_DTYPE) for n, rows in found.items()}
            for number, entries in chunk.scanned.items():
                self._count(number, entries)

    def _block(self, chunk: _Chunk, index: _Index, numbers: list[int], data: bytes) -> Block:
        buffer = np.frombuffer(data, np.uint8)
        offsets = np.concatenate([index[n]["offset"] for n in numbers]).astype(np.int64)
        # Recording order is the order of the bytes; several publishers of a topic are merged.
        offsets.sort()
        fits = offsets + _MESSAGE_HEAD.itemsize <= len(buffer)
        at = offsets if fits.all() else offsets[fits]
        raw = buffer[at[:, None] + np.arange(_MESSAGE_HEAD.itemsize)]
        head = raw.reshape(-1).view(_MESSAGE_HEAD)
        lengths = head["length"].astype(np.int64) - 22
        at += _MESSAGE_HEAD.itemsize
        ours = head["channel"] == numbers[0]
        for number in numbers[1:]:
            ours |= head["channel"] == number
        good = (
            ours & (head["op"] == _MESSAGE) & (lengths >= 0) & (at + lengths <= len(buffer))
        )  # fmt: skip
        channel = self._channels[numbers[0]]
        wrong = len(offsets) - int(good.sum())
        if wrong:
            self.lost.append((channel.topic, wrong, "its message index points to no message"))
            at, lengths, head = at[good], lengths[good], head[good]
        log, publish = (head[name].astype(np.int64) for name in ("log", "publish"))
        return Block(channel, buffer, at, lengths, log, publish, chunk.start_ns)


def _index_entries(raw: bytes) -> tuple[int, NDArray[np.void]]:
    """Channel id and entries of the content of one message index record."""
    number, size = struct.unpack_from("<HI", raw)
    return number, np.frombuffer(raw[6 : 6 + size // 16 * 16], _INDEX_DTYPE)


def _string(raw: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", raw, at)
    end = at + 4 + size
    return raw[at + 4 : end].decode(errors="replace"), end
