"""File handles for reading: opened on first use, per process, shared by threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmdata.errors import FormatError, MissingDependencyError
from mmdata.store.codecs import BLOSC_FILTER


def load_filters() -> None:
    """Register the HDF5 filters of the default profile. Raises MissingDependencyError."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        if not h5py.h5z.filter_avail(BLOSC_FILTER):
            raise MissingDependencyError(
                "hdf5plugin", purpose="reading Blosc-compressed streams"
            ) from None


class FileHandle:
    """An episode file open for reading. After a fork the child opens its own handles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._pid = -1
        self._file: h5py.File | None = None
        self._fd = -1

    def file(self) -> h5py.File:
        """The HDF5 file. Raises FormatError when it is none, OSError when it cannot be opened."""
        if self._pid != os.getpid() or self._file is None:
            with self._lock:
                if self._pid != os.getpid() or self._file is None:
                    self._open()
        return self._file

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the file, without HDF5 and without its lock."""
        self.file()
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
                os.close(self._fd)
            self._file, self._pid = None, -1

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def _open(self) -> None:
        load_filters()
        # Another process's handle, inherited by fork, is left alone: closing it would flush.
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            os.close(self._fd)
            raise FormatError(f"{self.path} is not a readable HDF5 file: {error}") from error
        self._pid = os.getpid()


class DiskArray:
    """A dataset that is read when indexed (`mmdata.streams.LazyArray`)."""

    def __init__(self, handle: FileHandle, path: str) -> None:
        self._handle = handle
        self._path = path
        self._dataset: Any = None
        self._pid = -1

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._open().shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._open().dtype
        return dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._open()[key]
        except OSError as error:
            raise FormatError(
                f"{self._handle.path}: {self._path} is damaged ({error}); `mmdata verify` says more"
            ) from error

    def __getstate__(self) -> tuple[FileHandle, str]:
        return self._handle, self._path

    def __setstate__(self, state: tuple[FileHandle, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def _open(self) -> Any:
        if self._pid != os.getpid() or not self._dataset:
            self._dataset = self._handle.file()[self._path]
            self._pid = os.getpid()
        return self._dataset


class ByteArray(DiskArray):
    """Encoded payload `data (B,) u1` whose chunks are not compressed.

    Contiguous ranges are read straight from the file at their known place, which is far faster
    than through chunk reads and needs no lock. Checksums are then not looked at: `mmdata verify`
    does that.
    """

    _chunks: NDArray[np.int64] | None = None
    _chunk_rows = 0

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice) or key.step not in (None, 1):
            return super().__getitem__(key)
        start, stop, _ = key.indices(len(self))
        if self._chunks is None:
            self._index()
        if self._chunks is None or stop <= start:
            return super().__getitem__(slice(start, max(start, stop)))
        parts = []
        while start < stop:
            chunk, within = divmod(start, self._chunk_rows)
            length = min(stop - start, self._chunk_rows - within)
            data = self._handle.read_at(int(self._chunks[chunk]) + within, length)
            if len(data) < length:
                raise FormatError(f"{self._handle.path} is truncated: {self._path} ends early")
            parts.append(data)
            start += length
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)

    def _index(self) -> None:
        dataset = self._open()
        creation = dataset.id.get_create_plist()
        only_checksum = creation.get_nfilters() == 1 and (
            creation.get_filter(0)[0] == h5py.h5z.FILTER_FLETCHER32
        )
        if not dataset.chunks or not only_checksum:
            return
        self._chunk_rows = dataset.chunks[0]
        offsets = np.full(-(-len(dataset) // self._chunk_rows), -1, np.int64)

        def note(info: Any) -> None:
            offsets[info.chunk_offset[0] // self._chunk_rows] = info.byte_offset

        dataset.id.chunk_iter(note)
        if (offsets >= 0).all():
            self._chunks = offsets
