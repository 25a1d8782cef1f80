"""File handles for reading: opened on first use, per process, shared by threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mmdata.errors import FormatError, MissingDependencyError
from mmdata.store.chunks import ChunkTable
from mmdata.store.codecs import BLOSC_FILTER
from mmdata.store.sources import ByteSource, Resident

T = TypeVar("T")


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
    """An episode open for reading. After a fork the child opens its own handles.

    source: a local file, or whatever gives ranges of its bytes.
    """

    def __init__(self, source: Path | ByteSource) -> None:
        self.source = source
        self.name = str(source) if isinstance(source, Path) else source.name
        self._lock = threading.Lock()
        self._pid = -1
        self._file: h5py.File | None = None
        self._fd = -1
        self._resident: Resident | None = None

    @property
    def path(self) -> Path:
        """The file; of another source its last name."""
        return self.source if isinstance(self.source, Path) else Path(self.name.rsplit("/", 1)[-1])

    def file(self) -> h5py.File:
        """The HDF5 file; of a source that is not local, within `run` only.

        Raises FormatError when it is none, OSError when it cannot be opened.
        """
        if self._pid != os.getpid() or self._file is None:
            with self._lock:
                if self._pid != os.getpid() or self._file is None:
                    self._open()
        return self._file

    def run(self, operation: Callable[[h5py.File], T]) -> T:
        """The result of a reading operation, which may run several times: see `Resident`."""
        if isinstance(self.source, Path):
            return operation(self.file())
        with self._lock:
            if self._resident is None or self._resident.pid != os.getpid():
                self._resident = Resident(self.source)
            resident = self._resident
        return resident.run(lambda: operation(self.file()))

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the file, without HDF5 and without its lock."""
        if not isinstance(self.source, Path):
            return self.source.read_at(offset, length)
        self.file()
        return os.pread(self._fd, length, offset)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.source.stat().st_size if isinstance(self.source, Path) else self.source.size

    def close(self) -> None:
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
                if self._fd >= 0:
                    os.close(self._fd)
            self._file, self._resident, self._fd, self._pid = None, None, -1, -1

    def __getstate__(self) -> Path | ByteSource:
        return self.source

    def __setstate__(self, source: Path | ByteSource) -> None:
        self.__init__(source)  # type: ignore[misc]

    def _open(self) -> None:
        load_filters()
        # Another process's handle, inherited by fork, is left alone: closing it would flush.
        local = isinstance(self.source, Path)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC) if local else -1
        try:
            self._file = h5py.File(self.source if local else self._resident, "r")
        except OSError as error:
            if local:
                os.close(self._fd)
            raise FormatError(f"{self.name} is not a readable HDF5 file: {error}") from error
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
        shape: tuple[int, ...] = self._handle.run(lambda _: self._open().shape)
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._handle.run(lambda _: self._open().dtype)
        return dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> Any:
        return self._handle.run(lambda _: self._read(key))

    def chunks(self) -> ChunkTable:
        """Where its rows lie in the file. Raises ValueError when it is laid out in another way."""
        return self._handle.run(lambda _: ChunkTable(self._open()))

    def __getstate__(self) -> tuple[FileHandle, str]:
        return self._handle, self._path

    def __setstate__(self, state: tuple[FileHandle, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def _read(self, key: Any) -> Any:
        try:
            return self._open()[key]
        except OSError as error:
            raise FormatError(
                f"{self._handle.name}: {self._path} is damaged ({error}); `mmdata verify` says more"
            ) from error

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

    _table: ChunkTable | None = None
    _known = False

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice) or key.step not in (None, 1):
            return super().__getitem__(key)
        if not self._known:
            self._table, self._known = self._plain(), True
        if self._table is None:
            return super().__getitem__(key)
        start, stop, _ = key.indices(self._table.n)
        return self._table.read(self._handle, start, max(start, stop))

    def _plain(self) -> ChunkTable | None:
        try:
            table = self.chunks()
        except ValueError:
            return None  # laid out by somebody else
        return table if table.plain else None
