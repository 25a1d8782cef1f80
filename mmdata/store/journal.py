"""The write-ahead journal of an episode being written: `<name>.h5.partial.journal`.

HDF5 keeps the index of its chunks in memory until it flushes, and a flush is not atomic, so a
killed writer can leave a file nobody can open. The journal holds what is needed to do without:
declarations (JSON), where in the `.partial` file each finished chunk lies, and the rows not yet
in a finished chunk. Frames are only ever appended; each carries a CRC-32, and everything up to the
last COMMIT frame is recoverable, whatever state the HDF5 file is in.

Frame: type u1, length u4, CRC-32 of type + payload u4, payload. Little-endian.
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from mmdata.errors import FormatError

MAGIC = b"mmdata-journal-1\n"
_HEAD = struct.Struct("<BII")
_CHUNK = struct.Struct("<IQQQ")
_ROWS = struct.Struct("<IQ")


class Frame(IntEnum):
    """Frame types."""

    DECLARE = 1
    CHUNK = 2
    ROWS = 3
    COMMIT = 4


def journal_path(partial: Path) -> Path:
    """Where the journal of a `.partial` file lies."""
    return partial.with_name(partial.name + ".journal")


class JournalWriter:
    """Appends frames; `commit` makes everything before it recoverable. Threads may share it."""

    def __init__(self, partial: Path) -> None:
        self.path = journal_path(partial)
        self._file: BinaryIO = self.path.open("wb", buffering=0)
        self._pending = bytearray(MAGIC)
        self._failure: OSError | None = None
        self._lock = threading.Lock()

    def declare(self, what: str, data: Any) -> None:
        """A JSON declaration: a column, a stream, the rig, ..."""
        self._frame(Frame.DECLARE, json.dumps([what, data]).encode())

    def chunks(self, column: int, places: Iterable[tuple[int, int, int]]) -> None:
        """Finished chunks of a column lie in the `.partial` file: first row, file offset, length
        of each."""
        self._frames(Frame.CHUNK, [_CHUNK.pack(column, *place) for place in places])

    def rows(self, column: int, first_row: int, data: bytes) -> None:
        """Raw rows of a column that are in no finished chunk yet."""
        self._frame(Frame.ROWS, _ROWS.pack(column, first_row) + data)

    def commit(self, counts: dict[int, int]) -> None:
        """counts: rows per column that a recovery may use."""
        self._frame(Frame.COMMIT, json.dumps(list(counts.items())).encode())
        with self._lock:
            self._write_pending()

    def close(self) -> None:
        self._file.close()

    def _frame(self, kind: Frame, payload: bytes) -> None:
        self._frames(kind, [payload])

    def _frames(self, kind: Frame, payloads: Iterable[bytes]) -> None:
        begin = zlib.crc32(bytes([kind]))
        with self._lock:
            for payload in payloads:
                self._pending += _HEAD.pack(kind, len(payload), zlib.crc32(payload, begin))
                self._pending += payload
            if len(self._pending) > 1 << 20:
                self._write_pending()

    def _write_pending(self) -> None:
        if self._failure is not None:
            raise self._failure
        view, self._pending = memoryview(self._pending), bytearray()
        try:
            while len(view):
                view = view[self._file.write(view) :]
        except OSError as error:
            # A torn frame ends what can be read: nothing after it may be called committed.
            self._failure = error
            raise


@dataclass(frozen=True)
class ChunkRef:
    """A finished chunk: rows from first_row, at file_offset of the `.partial` file."""

    first_row: int
    file_offset: int
    length: int


@dataclass(frozen=True)
class RowsRef:
    """Raw rows in the journal file itself."""

    first_row: int
    file_offset: int
    length: int


@dataclass
class Journal:
    """What a journal says as of its last commit."""

    declarations: list[tuple[str, Any]]
    chunks: dict[int, list[ChunkRef]]
    rows: dict[int, list[RowsRef]]
    counts: dict[int, int]


def read_journal(partial: Path) -> Journal:
    """Read a journal up to its last intact COMMIT. Raises FormatError when there is none."""
    path = journal_path(partial)
    if not path.exists():
        raise FormatError(
            f"{partial}: its journal {path.name} is missing, nothing can be recovered"
        )
    journal = Journal([], {}, {}, {})
    uncommitted: list[tuple[Frame, int, bytes, int]] = []
    committed = False
    for frame in _frames(path):
        uncommitted.append(frame)
        if frame[0] is Frame.COMMIT:
            for entry in uncommitted:
                _apply(journal, *entry)
            uncommitted.clear()
            committed = True
    if not committed:
        raise FormatError(f"{partial}: killed before its first flush, nothing can be recovered")
    return journal


def _frames(path: Path) -> Iterator[tuple[Frame, int, bytes, int]]:
    """(type, file offset of payload, payload or its head for ROWS, payload length)."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, length, crc = _HEAD.unpack(head)
            at = file.tell()
            payload = file.read(length)
            if len(payload) < length or kind not in Frame._value2member_map_:
                return
            if zlib.crc32(payload, zlib.crc32(bytes([kind]))) != crc:
                return
            keep = payload[: _ROWS.size] if kind == Frame.ROWS else payload
            yield Frame(kind), at, keep, length


def _apply(journal: Journal, kind: Frame, at: int, payload: bytes, length: int) -> None:
    if kind is Frame.DECLARE:
        what, data = json.loads(payload)
        journal.declarations.append((what, data))
    elif kind is Frame.CHUNK:
        column, first_row, offset, size = _CHUNK.unpack(payload)
        journal.chunks.setdefault(column, []).append(ChunkRef(first_row, offset, size))
    elif kind is Frame.ROWS:
        column, first_row = _ROWS.unpack(payload)
        reference = RowsRef(first_row, at + _ROWS.size, length - _ROWS.size)
        journal.rows.setdefault(column, []).append(reference)
    else:
        journal.counts = {int(c): int(n) for c, n in json.loads(payload)}
