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
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmdata.digest import FileHash
from mmdata.errors import ConversionError
from mmdata.memory import ReusedMemory
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
from mmdata_converters.rosbag2.chunks import (
    INDEX_DTYPE,
    MESSAGE_HEAD,
    Chunk,
    Index,
    content,
    index_entries,
)

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = 3, 4, 5, 6, 7, 8
_DATA_END, _FOOTER = 15, 2
_RECORD = struct.Struct("<BQ")
#: Unchunked messages, and chunks that lie one after the other, are handled in runs of about this
#: size: a run costs the same Python time however much it holds.
_RUN_BYTES = 1 << 20
_CHUNKS_BYTES = 16 << 20
#: The same for compressed chunks, which have to be copied together.
_COPIED_BYTES = 4 << 20
_FAR = np.uint64(1 << 62)


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
        self._chunks: list[Chunk] = []
        self._counts: dict[int, tuple[int, int, int]] = {}
        self._hash: FileHash | None = None
        self._memory = ReusedMemory(4 * _CHUNKS_BYTES)
        self._file: BufferedReader = path.open("rb")
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

    def hash_while_reading(self) -> Mapping[Path, FileHash]:
        self._hash = FileHash(self._path)
        return {self._path: self._hash}

    def blocks(self, topics: frozenset[str] | None) -> Iterator[Block]:
        for run in self._runs():
            indexed = [(c, self._wanted(self._index(c), topics)) for c in run]
            indexed = [(c, wanted) for c, wanted in indexed if wanted]
            if not indexed:
                continue
            data, places = self._contents([c for c, _ in indexed])
            # Per channel: place of each message (m,), and the end of the chunk it is in.
            found: dict[int, list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]] = {}
            for (_, wanted), (begin, end, problem) in zip(indexed, places, strict=True):
                for number, offsets in wanted.items():
                    channel = self._channels[number]
                    if problem is not None:
                        self.lost.append((channel.topic, len(offsets), problem))
                        continue
                    ends = np.full(len(offsets), end)
                    found.setdefault(channel.number, []).append((number, offsets + begin, ends))
            for parts in found.values():
                yield self._block(parts, data, run[0].start_ns)

    def _runs(self) -> Iterator[list[Chunk]]:
        """Chunks in order of their first stamp, small ones together."""
        run: list[Chunk] = []
        size = 0
        for chunk in sorted(self._chunks, key=lambda c: c.start_ns):
            if run and size + chunk.size > (_COPIED_BYTES if chunk.compression else _CHUNKS_BYTES):
                yield run
                run, size = [], 0
            run.append(chunk)
            size += chunk.size
        if run:
            yield run

    def _wanted(self, index: Index, topics: frozenset[str] | None) -> dict[int, NDArray[np.int64]]:
        """Per channel id of the topics: where in its chunk each message is."""
        wanted = {}
        for number, entries in index.items():
            channel = self._channels.get(number)
            if channel is None:
                self.lost.append(
                    (f"channel {number}", len(entries), "its channel record is missing")
                )
            elif topics is None or channel.topic in topics:
                # What is too large to be an offset must not come out negative.
                wanted[number] = np.minimum(entries["offset"], _FAR).astype(np.int64)
        return wanted

    # -- the file ----------------------------------------------------------------------------

    def _scan(self) -> None:
        """Walk the records of the file; skip over payload."""
        file = self._file
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(len(MAGIC)) != MAGIC:
            raise ConversionError(f"{self._path} is not an MCAP file")
        run: Chunk | None = None
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
        self._chunks.append(Chunk(at, compressed, compression, size, crc, start, end))

    def _add_index(self, start: int, end: int, raw: bytes) -> None:
        number, entries = index_entries(raw)
        if not self._chunks or not len(entries):
            return
        chunk = self._chunks[-1]
        chunk.indexed = (chunk.indexed[0] if chunk.indexed else start, end)
        self._count(number, entries)

    def _index(self, chunk: Chunk) -> Index:
        """The message index of a chunk; empty when it has none."""
        if chunk.indexed is None:
            return chunk.scanned or {}
        start, end = chunk.indexed
        self._file.seek(start)
        raw = self._file.read(end - start)
        index: Index = {}
        at = 0
        while at < len(raw):
            op, length = _RECORD.unpack_from(raw, at)
            at += _RECORD.size
            if op == _MESSAGE_INDEX:
                number, entries = index_entries(raw[at : at + length])
                if len(entries):
                    index[number] = entries
            at += length
        return index

    def _count(self, number: int, entries: NDArray[np.void], sign: int = 1) -> None:
        log = entries["log"].view(np.int64)
        first, last = int(np.minimum.reduce(log)), int(np.maximum.reduce(log))
        count, earliest, latest = self._counts.get(number, (0, first, last))
        self._counts[number] = (
            count + sign * len(log), min(earliest, first), max(latest, last)
        )  # fmt: skip

    def _add_message(self, run: Chunk | None, at: int, length: int, head: bytes) -> Chunk:
        _, _, log, _ = struct.unpack("<HIQQ", head)
        end = at + _RECORD.size + length
        if run is None or run.position + run.length != at or run.length > _RUN_BYTES:
            run = Chunk(at, 0, None, 0, 0, log, log)
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
            data, problem = content(chunk, self._raw(chunk))
            if problem is not None:
                self.problems.append(problem)
                self._drop(chunk)
                continue
            self._scan_chunk(chunk, data)
            if not chunk.indexed and not chunk.scanned:
                self._chunks.remove(chunk)

    def _drop(self, chunk: Chunk) -> None:
        for number, entries in self._index(chunk).items():
            self._count(number, entries, -1)
        self._chunks.remove(chunk)

    def _contents(
        self, chunks: Sequence[Chunk]
    ) -> tuple[NDArray[np.uint8], list[tuple[int, int, str | None]]]:
        """Decompressed chunks in one buffer; for each begin, end, and what is wrong with it."""
        first, last = chunks[0], chunks[-1]
        span = last.position + last.length - first.position
        positions = [c.position for c in chunks]
        places = []
        if (
            not any(c.compression for c in chunks)
            and positions == sorted(positions)
            and 2 * sum(c.length for c in chunks) > span
        ):
            # As they lie in the file, with their message indices between them: no copy.
            whole = self._memory.empty((span,), np.uint8)
            self._file.seek(first.position)
            buffer = whole[: self._file.readinto(whole.data)]
            self._show(first.position, buffer.data)
            for chunk in chunks:
                begin = chunk.position - first.position
                data, problem = content(chunk, buffer.data[begin : begin + chunk.length])
                places.append((begin, begin + len(data), problem))
            return buffer, places
        pieces: list[bytes] = []
        base = 0
        for chunk in chunks:
            data, problem = content(chunk, self._raw(chunk))
            places.append((base, base + len(data), problem))
            pieces.append(data)
            base += len(data)
        joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return np.frombuffer(joined, np.uint8), places

    def _raw(self, chunk: Chunk) -> bytes:
        self._file.seek(chunk.position)
        raw = self._file.read(chunk.length)
        self._show(chunk.position, raw)
        return raw

    def _show(self, position: int, data: memoryview | bytes) -> None:
        if self._hash is not None:
            self._hash.saw(position, data)

    # -- inside a chunk ----------------------------------------------------------------------

    def _scan_chunk(self, chunk: Chunk, data: bytes) -> None:
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
            chunk.scanned = {n: np.array(rows, INDEX_DTYPE) for n, rows in found.items()}
            for number, entries in chunk.scanned.items():
                self._count(number, entries)

    def _block(
        self,
        parts: Sequence[tuple[int, NDArray[np.int64], NDArray[np.int64]]],
        buffer: NDArray[np.uint8],
        start_ns: int,
    ) -> Block:
        """Messages of one channel. parts: channel id, where its messages are in the
        buffer, and where the chunk of each ends."""
        ids, offsets, ends = (np.concatenate(columns) for columns in zip(
            *[(np.full(len(at), number), at, end) for number, at, end in parts], strict=True
        ))  # fmt: skip
        if (offsets[1:] < offsets[:-1]).any():
            # Recording order is the order of the bytes; several publishers of a topic are merged.
            order = np.argsort(offsets)
            ids, offsets, ends = ids[order], offsets[order], ends[order]
        count = len(offsets)
        at = offsets + MESSAGE_HEAD.itemsize
        if (at > ends).any():
            fits = at <= ends
            ids, offsets, ends, at = ids[fits], offsets[fits], ends[fits], at[fits]
        raw = rows_at(buffer, offsets, MESSAGE_HEAD.itemsize)
        head = raw.reshape(-1).view(MESSAGE_HEAD)
        lengths = head["length"].astype(np.int64) - 22
        good = (
            (head["channel"] == ids) & (head["op"] == _MESSAGE)
            & (lengths >= 0) & (at + lengths <= ends)
        )  # fmt: skip
        channel = self._channels[parts[0][0]]
        wrong = count - int(good.sum())
        if wrong:
            self.lost.append((channel.topic, wrong, "its message index points to no message"))
            at, lengths, head = at[good], lengths[good], head[good]
        log, publish = (head[name].astype(np.int64) for name in ("log", "publish"))
        return Block(channel, buffer, at, lengths, log, publish, start_ns)


def _string(raw: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", raw, at)
    end = at + 4 + size
    return raw[at + 4 : end].decode(errors="replace"), end
