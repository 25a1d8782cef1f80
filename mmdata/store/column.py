"""Append-only datasets: rows in, encoded chunks out, in bounded memory.

A `Column` collects rows into one chunk-sized buffer. Full buffers, and rows that need not be
copied, go to the `ChunkSink`, which encodes them on worker threads and writes them from one thread,
in the order they were submitted, so that two runs over the same rows give the same file.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmdata.cores import usable_cores
from mmdata.digest import bytes_of, new_hasher
from mmdata.store.codecs import Pipeline
from mmdata.store.journal import JournalWriter
from mmdata.store.libhdf5 import write_chunk

_IN_FLIGHT_BYTES = 32 << 20
#: Threads that encode: one per core beyond the first, at most so many.
_MOST_ENCODERS = 4
#: Rows are handed to the threads in runs of about this size: waking one costs as much as a chunk.
_RUN_BYTES = 2 << 20
#: How much of a chunk is read back to be sure where it lies.
_PROBE_BYTES = 64
_SYNC_FILE_RANGE_WRITE = 2


def _find_sync_file_range() -> Any:
    """Linux's call of that name, or None elsewhere."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None) if os.name == "posix" else None
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call


_sync_file_range = _find_sync_file_range()


@dataclass(slots=True)
class _Span:
    """Rows of whole chunks on their way; `used` of them are data, the rest padding."""

    column: Column
    first_row: int
    rows: NDArray[Any]
    used: int
    encoded: list[bytes] = field(default_factory=list)

    def encode(self) -> None:
        # Fields of structured rows arrive strided; taking them apart here keeps it off the caller.
        self.rows = np.ascontiguousarray(self.rows)
        encode, step = self.column.pipeline.encode, self.column.chunk_rows
        self.encoded = [encode(self.rows[k : k + step]) for k in range(0, len(self.rows), step)]


class ChunkSink:
    """Encodes, hashes and writes chunks of all columns of one file; tells the journal."""

    def __init__(self, file: h5py.File, journal: JournalWriter) -> None:
        self.file = file
        self.journal = journal
        self.descriptor = int(file.id.get_vfd_handle())
        encoders = min(max(1, usable_cores() - 1), _MOST_ENCODERS)
        self._encoders = ThreadPoolExecutor(encoders, thread_name_prefix="mmdata-encode")
        # One thread, so that rows are hashed and chunks lie in the file in the order they came.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mmdata-write")
        self._run: list[_Span] = []
        self._run_bytes = 0
        self._queue: deque[tuple[Future[None], int]] = deque()
        self._in_flight = 0
        self._failure: BaseException | None = None

    def submit(self, column: Column, first_row: int, rows: NDArray[Any], used: int) -> None:
        """Queue rows of whole chunks; the first `used` of them are data, the rest padding.

        Blocks while more than a fixed number of bytes is under way.
        """
        self._run.append(_Span(column, first_row, rows, used))
        self._run_bytes += rows.nbytes
        if self._run_bytes >= _RUN_BYTES:
            self._dispatch()
        while self._in_flight > _IN_FLIGHT_BYTES:
            self._await_oldest()

    def commit(
        self, tails: Sequence[tuple[int, int, bytes]], counts: dict[int, int]
    ) -> Future[None]:
        """Have the journal commit everything queued so far, and these rows that are in no chunk.

        tails: column number, first row, raw rows. counts: rows per column. The result is there when
        it is done. Raises what went wrong at an earlier chunk, at once or there.
        """
        self._dispatch()
        return self._writer.submit(self._commit, tails, counts)

    def drain(self) -> None:
        """Wait until everything queued is written. Raises what went wrong at an earlier chunk."""
        self._dispatch()
        while self._queue:
            self._await_oldest()

    def start_writeback(self) -> None:
        """Have the system begin to write to the disk what it holds of the file, without waiting.

        The final fsync would else wait for all of it at once.
        """
        if _sync_file_range is not None:
            _sync_file_range(self.descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)

    def close(self) -> None:
        """Stop the worker threads; queued chunks that were not drained are given up."""
        self._run.clear()
        self._queue.clear()
        self._encoders.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)

    def _dispatch(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._run:
            return
        run, size = self._run, self._run_bytes
        self._run, self._run_bytes = [], 0
        encoded = self._encoders.submit(_encode, run)
        self._queue.append((self._writer.submit(self._write, run, encoded), size))
        self._in_flight += size

    def _await_oldest(self) -> None:
        written, size = self._queue.popleft()
        self._in_flight -= size
        written.result()

    def _write(self, run: list[_Span], encoded: Future[None]) -> None:
        if self._failure is not None:
            # A chunk was lost (a full disk, say): this file must never look complete.
            raise self._failure
        try:
            encoded.result()
            while run:  # the memory of each is free once it is written
                self._write_span(run.pop(0))
        except BaseException as error:
            self._failure = error
            raise

    def _write_span(self, span: _Span) -> None:
        column = span.column
        column.hash_rows(span.rows[: span.used])
        offsets = column.write_chunks(self.file, span.first_row, span.used, span.encoded)
        first_rows = range(span.first_row, span.first_row + len(span.rows), column.chunk_rows)
        lengths = map(len, span.encoded)
        self.journal.chunks(column.number, zip(first_rows, offsets, lengths, strict=True))

    def _commit(self, tails: Sequence[tuple[int, int, bytes]], counts: dict[int, int]) -> None:
        if self._failure is not None:
            raise self._failure
        for tail in tails:
            self.journal.rows(*tail)
        self.journal.commit(counts)


def _encode(run: list[_Span]) -> None:
    for span in run:
        span.encode()


class Column:
    """One growing dataset of rows with a fixed dtype and shape."""

    def __init__(
        self,
        sink: ChunkSink,
        number: int,
        path: str,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        chunk_rows: int,
        pipeline: Pipeline,
    ) -> None:
        self.sink = sink
        self.number = number
        self.path = path
        self.dtype = dtype
        self.row_shape = row_shape
        self._row_bytes = dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        self.chunk_rows = max(1, chunk_rows)
        self.pipeline = pipeline
        self._span_chunks = max(1, _RUN_BYTES // max(1, self.chunk_rows * self._row_bytes))
        self.rows = 0
        self.dataset: h5py.h5d.DatasetID | None = None
        self._extent = 0
        self._buffer: NDArray[Any] | None = None
        self._filled = 0
        self._journaled = 0
        self._submitted = 0
        self._hash = new_hasher()

    def append(self, values: NDArray[Any], copy: bool = True) -> None:
        """Add rows (n, *row_shape). copy False: the caller promises never to change them."""
        self.rows += len(values)
        as_they_are = not copy and values.dtype == self.dtype
        while len(values):
            if as_they_are and not self._filled and len(values) >= self.chunk_rows:
                whole = min(len(values) // self.chunk_rows, self._span_chunks) * self.chunk_rows
                self._submit(values[:whole], whole)
                values = values[whole:]
                continue
            if self._buffer is None:
                self._buffer = np.empty((self.chunk_rows, *self.row_shape), self.dtype)
            take = min(len(values), self.chunk_rows - self._filled)
            self._buffer[self._filled : self._filled + take] = values[:take]
            self._filled += take
            values = values[take:]
            if self._filled == self.chunk_rows:
                self._submit_buffer(self._buffer)

    def take_tail(self) -> tuple[int, int, bytes] | None:
        """The rows that are in no chunk yet and that were not taken so before: number of the
        column, first row, raw rows."""
        if self._buffer is None or self._filled == self._journaled:
            return None
        fresh = self._buffer[self._journaled : self._filled]
        first = self._submitted + self._journaled
        self._journaled = self._filled
        return self.number, first, fresh.tobytes()

    def finish(self) -> None:
        """Write what is left. A column that never filled a chunk gets one of exactly its size."""
        if not self.rows:
            self.chunk_rows = 1
        if self._buffer is None or not self._filled:
            return
        chunk = self._buffer
        if not self._submitted:
            self.chunk_rows = self.rows
            chunk = chunk[: self.rows]
        else:
            chunk[self._filled :] = np.zeros((), self.dtype)
        self._submit_buffer(chunk)

    def hash_rows(self, rows: NDArray[Any]) -> None:
        """Feed contiguous rows to the running content hash (called in row order)."""
        self._hash.update(bytes_of(rows))

    @property
    def digest(self) -> str:
        """Hash of the raw little-endian bytes of all rows written."""
        return self._hash.hexdigest()

    def create(self, file: h5py.File) -> h5py.h5d.DatasetID:
        """The dataset, created when first needed."""
        if self.dataset is not None:
            return self.dataset
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((self.chunk_rows, *self.row_shape))
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        creation.set_obj_track_times(False)
        self.pipeline.apply(creation, self.chunk_rows * self._row_bytes)
        space = h5py.h5s.create_simple((0, *self.row_shape), (h5py.h5s.UNLIMITED, *self.row_shape))
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        kind = h5py.h5t.py_create(self.dtype, logical=True)
        self.dataset = h5py.h5d.create(
            file.id, self.path.encode(), kind, space, creation, lcpl=links
        )
        return self.dataset

    def write_chunks(
        self, file: h5py.File, first_row: int, used: int, encoded: Sequence[bytes]
    ) -> list[int]:
        """Write encoded chunks with `used` rows; returns where they lie in the file."""
        dataset = self.create(file)
        if first_row + used > self._extent:
            self._extent = first_row + used
            dataset.set_extent((self._extent, *self.row_shape))
        where = [first_row] + [0] * len(self.row_shape)
        offsets = []
        end = file.id.get_filesize()
        for data in encoded:
            write_chunk(dataset, where, data)
            begin, end = end, file.id.get_filesize()
            # HDF5 appends a chunk unless it finds a hole for it. Asking it where the chunk is takes
            # a walk over the index of all chunks before, so it is only asked when that is not so.
            appended = end - begin == len(data) and (
                os.pread(self.sink.descriptor, _PROBE_BYTES, begin)[: len(data)]
                == data[:_PROBE_BYTES]
            )
            if not appended:
                begin = dataset.get_chunk_info_by_coord(tuple(where)).byte_offset
            offsets.append(int(begin))
            where[0] += self.chunk_rows
        return offsets

    def _submit_buffer(self, chunk: NDArray[Any]) -> None:
        used = self._filled
        self._buffer, self._filled, self._journaled = None, 0, 0
        self._submit(chunk, used)

    def _submit(self, rows: NDArray[Any], used: int) -> None:
        first = self._submitted
        self._submitted += used
        self.sink.submit(self, first, rows, used)
