"""Append-only datasets: rows in, encoded chunks out, in bounded memory.

A `Column` collects rows into one chunk-sized buffer. Full buffers go to the `ChunkSink`, which
encodes them on worker threads and writes them from one thread, in the order they were submitted,
so that two runs over the same rows give the same file.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmdata.digest import bytes_of, new_hasher
from mmdata.store.codecs import Pipeline
from mmdata.store.journal import JournalWriter

_IN_FLIGHT_BYTES = 32 << 20
_ENCODERS = 2
#: Chunks are handed to the threads in runs of about this size: waking one costs as much as a chunk.
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
class _Chunk:
    """One chunk on its way: rows until they are encoded and hashed, encoded bytes after that."""

    column: Column
    first_row: int
    rows: NDArray[Any]
    used: int
    encoded: bytes = b""

    def encode(self) -> None:
        # Fields of structured rows arrive strided; taking them apart here keeps it off the caller.
        self.rows = np.ascontiguousarray(self.rows)
        self.encoded = self.column.pipeline.encode(self.rows)


class ChunkSink:
    """Encodes, hashes and writes chunks of all columns of one file; tells the journal."""

    def __init__(self, file: h5py.File, journal: JournalWriter) -> None:
        self.file = file
        self.journal = journal
        self.descriptor = int(file.id.get_vfd_handle())
        self._encoders = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="mmdata-encode")
        # One thread, so that rows are hashed and chunks lie in the file in the order they came.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mmdata-write")
        self._run: list[_Chunk] = []
        self._run_bytes = 0
        self._queue: deque[tuple[Future[None], int]] = deque()
        self._in_flight = 0
        self._failure: BaseException | None = None

    def submit(self, column: Column, first_row: int, chunk: NDArray[Any], used: int) -> None:
        """Queue one chunk; the first `used` rows of it are data, the rest padding.

        Blocks while more than a fixed number of bytes is under way.
        """
        self._run.append(_Chunk(column, first_row, chunk, used))
        self._run_bytes += chunk.nbytes
        if self._run_bytes >= _RUN_BYTES:
            self._dispatch()
        while self._in_flight > _IN_FLIGHT_BYTES:
            self._await_oldest()

    def drain(self) -> None:
        """Wait until everything queued is written. Raises what went wrong at an earlier chunk."""
        if self._failure is not None:
            raise self._failure
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

    def _write(self, run: list[_Chunk], encoded: Future[None]) -> None:
        if self._failure is not None:
            # A chunk was lost (a full disk, say): this file must never look complete.
            raise self._failure
        try:
            encoded.result()
            while run:  # each chunk's memory is free once it is written
                self._write_chunk(run.pop(0))
        except BaseException as error:
            self._failure = error
            raise

    def _write_chunk(self, chunk: _Chunk) -> None:
        column, data = chunk.column, chunk.encoded
        column.hash_rows(chunk.rows[: chunk.used])
        offset = column.write_chunk(self.file, chunk.first_row, chunk.used, data)
        self.journal.chunk(column.number, chunk.first_row, offset, len(data))


def _encode(run: list[_Chunk]) -> None:
    for chunk in run:
        chunk.encode()


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
        self.chunk_rows = max(1, chunk_rows)
        self.pipeline = pipeline
        self.rows = 0
        self.dataset: h5py.h5d.DatasetID | None = None
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
                self._submit(values[: self.chunk_rows], self.chunk_rows)
                values = values[self.chunk_rows :]
                continue
            if self._buffer is None:
                self._buffer = np.empty((self.chunk_rows, *self.row_shape), self.dtype)
            take = min(len(values), self.chunk_rows - self._filled)
            self._buffer[self._filled : self._filled + take] = values[:take]
            self._filled += take
            values = values[take:]
            if self._filled == self.chunk_rows:
                self._submit_buffer(self._buffer)

    def journal_tail(self) -> None:
        """Give the journal the rows that are in no chunk yet and that it does not have."""
        if self._buffer is None or self._filled == self._journaled:
            return
        fresh = self._buffer[self._journaled : self._filled]
        first = self._submitted + self._journaled
        self.sink.journal.rows(self.number, first, fresh.tobytes())
        self._journaled = self._filled

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
        self.pipeline.apply(
            creation, self.chunk_rows * self.dtype.itemsize * int(np.prod(self.row_shape))
        )
        space = h5py.h5s.create_simple((0, *self.row_shape), (h5py.h5s.UNLIMITED, *self.row_shape))
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        kind = h5py.h5t.py_create(self.dtype, logical=True)
        self.dataset = h5py.h5d.create(
            file.id, self.path.encode(), kind, space, creation, lcpl=links
        )
        return self.dataset

    def write_chunk(self, file: h5py.File, first_row: int, used: int, data: bytes) -> int:
        """Write an encoded chunk with `used` rows; returns where it lies in the file."""
        dataset = self.create(file)
        rows = first_row + used
        if rows > dataset.shape[0]:
            dataset.set_extent((rows, *self.row_shape))
        where = (first_row, *([0] * len(self.row_shape)))
        end = file.id.get_filesize()
        dataset.write_direct_chunk(where, data)
        # HDF5 appends a chunk unless it finds a hole for it. Asking it where the chunk is takes a
        # walk over the index of all chunks before, so it is only asked when that is not so.
        if file.id.get_filesize() - end == len(data):
            probe = os.pread(self.sink.descriptor, min(len(data), _PROBE_BYTES), end)
            if probe == data[:_PROBE_BYTES]:
                return int(end)
        return int(dataset.get_chunk_info_by_coord(where).byte_offset)

    def _submit_buffer(self, chunk: NDArray[Any]) -> None:
        used = self._filled
        self._buffer, self._filled, self._journaled = None, 0, 0
        self._submit(chunk, used)

    def _submit(self, chunk: NDArray[Any], used: int) -> None:
        first = self._submitted
        self._submitted += used
        self.sink.submit(self, first, chunk, used)
