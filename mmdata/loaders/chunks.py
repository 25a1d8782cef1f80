"""Rows of a dataset straight from the file: no HDF5 call, no HDF5 lock.

Where the chunks lie is asked of HDF5 once; from then on rows come by positioned reads and are
decompressed by the reading thread.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import FormatError
from mmdata.store.codecs import BLOSC_FILTER, Pipeline

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_PIPELINES = {
    (_FLETCHER32,): "none",
    (BLOSC_FILTER, _FLETCHER32): "blosc",
    (_SHUFFLE, _DEFLATE, _FLETCHER32): "gzip",
}
_MAX_OPEN_FILES = 128


class ByteSource(Protocol):
    """Positioned reads of one file."""

    def read_at(self, offset: int, length: int) -> bytes: ...


class _Descriptor:
    """An open file, closed when nobody uses it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class FileBytes:
    """A local file; a bounded number of them is open at a time, per process.

    Positioned reads share no file offset, so descriptors inherited by a fork are safe to use.
    """

    _open: ClassVar[OrderedDict[str, _Descriptor]] = OrderedDict()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to length bytes from offset on."""
        descriptor = self._descriptor()  # held here, so it is not closed while it is read
        return os.pread(descriptor.number, length, offset)

    def _descriptor(self) -> _Descriptor:
        with FileBytes._lock:
            descriptors = FileBytes._open
            if self.path not in descriptors:
                while len(descriptors) >= _MAX_OPEN_FILES:
                    descriptors.popitem(last=False)
                descriptors[self.path] = _Descriptor(self.path)
            descriptors.move_to_end(self.path)
            return descriptors[self.path]


def _fresh_lock() -> None:
    FileBytes._lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock)


class ChunkTable:
    """Chunks of one dataset that is chunked along its first axis.

    offset, size (C,) i8: place and stored length of each chunk, all of them `rows` rows long.
    """

    def __init__(self, dataset: Any) -> None:
        """dataset: an open h5py dataset. Raises ValueError when it is laid out in another way."""
        self.path = str(dataset.name)
        self.dtype: np.dtype[Any] = dataset.dtype
        self.row_shape = tuple(dataset.shape[1:])
        self.n = int(dataset.shape[0])
        creation = dataset.id.get_create_plist()
        filters = tuple(creation.get_filter(i)[0] for i in range(creation.get_nfilters()))
        chunks = dataset.chunks
        if chunks is None or tuple(chunks[1:]) != self.row_shape or filters not in _PIPELINES:
            raise ValueError(f"{self.path} is not chunked by rows with filters known here")
        self.rows = int(chunks[0])
        self.plain = _PIPELINES[filters] == "none"
        self.pipeline = Pipeline(_PIPELINES[filters], self.dtype.itemsize)  # type: ignore[arg-type]
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        count = -(-self.n // self.rows)
        self.offset = np.full(count, -1, np.int64)
        self.size = np.zeros(count, np.int64)
        skipped = []

        def note(info: Any) -> None:
            chunk = info.chunk_offset[0] // self.rows
            if chunk < count:
                self.offset[chunk], self.size[chunk] = info.byte_offset, info.size
                skipped.append(info.filter_mask)

        if count:
            dataset.id.chunk_iter(note)
        if (self.offset < 0).any() or any(skipped):
            raise ValueError(f"{self.path} has chunks that were never written or not filtered")

    @property
    def nbytes(self) -> int:
        """Memory this table takes."""
        return self.offset.nbytes + self.size.nbytes + 200

    def read(self, source: ByteSource, start: int, stop: int) -> NDArray[Any]:
        """Rows start:stop, (n, ...). Raises FormatError where the file is damaged."""
        parts = []
        while start < stop:
            chunk, within = divmod(start, self.rows)
            rows = min(stop - start, self.rows - within)
            parts.append(self._part(source, chunk, within, rows))
            start += rows
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return np.frombuffer(data, self.dtype).reshape((-1, *self.row_shape))

    def _part(self, source: ByteSource, chunk: int, within: int, rows: int) -> bytes:
        first, length = within * self.row_bytes, rows * self.row_bytes
        offset, size = int(self.offset[chunk]), int(self.size[chunk])
        if self.plain:
            # Checksums cover whole chunks; encoded frames are read without them, as `mmdata.Stream`
            # does. A damaged frame does not decode; `mmdata verify` says more.
            data = source.read_at(offset + first, length)
            if len(data) < length:
                raise FormatError(f"the file is truncated: {self.path} ends early")
            return data
        stored = source.read_at(offset, size)
        try:
            return self.pipeline.decode(stored)[first : first + length]
        except (RuntimeError, ValueError) as error:
            raise FormatError(
                f"{self.path} is damaged ({error}); `mmdata verify` says more"
            ) from error
