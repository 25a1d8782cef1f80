"""Where the bytes of an episode come from: a local file, or anything that gives ranges of bytes."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from mmdata.errors import FormatError

T = TypeVar("T")
_MAX_OPEN_FILES = 128
_BLOCK_BYTES = 16 << 10
_MOST_BLOCKS = 64
_KEPT_BLOCKS = 1024


class ByteSource(Protocol):
    """Ranges of bytes of one file or object. Threads may share it, and so may forks."""

    @property
    def name(self) -> str:
        """Path or URL, for messages."""
        ...

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to length bytes from offset on."""
        ...


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
    Raises FormatError where the file was replaced by another one since this object was made:
    places known from the old one mean nothing in the new one.
    """

    _open: ClassVar[OrderedDict[tuple[str, int], _Descriptor]] = OrderedDict()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        status = Path(self.name).stat()
        self.size = status.st_size
        self._inode = status.st_ino

    def read_at(self, offset: int, length: int) -> bytes:
        descriptor = self._descriptor()  # held here, so it is not closed while it is read
        return os.pread(descriptor.number, length, offset)

    def _descriptor(self) -> _Descriptor:
        key = (self.name, self._inode)
        with FileBytes._lock:
            descriptors = FileBytes._open
            if key not in descriptors:
                opened = _Descriptor(self.name)
                if os.fstat(opened.number).st_ino != self._inode:
                    raise FormatError(f"{self.name} was replaced while it was in use; open it anew")
                while len(descriptors) >= _MAX_OPEN_FILES:
                    descriptors.popitem(last=False)
                descriptors[key] = opened
            descriptors.move_to_end(key)
            return descriptors[key]


def _fresh_lock() -> None:
    FileBytes._lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock)


class _NotResidentError(Exception):
    """HDF5 asked for bytes that are not in memory."""


class Resident(io.RawIOBase):
    """The part of a source that is in memory, as the file object HDF5 reads.

    HDF5 reads with its global lock held, and a fetch may need other threads, which may need that
    lock (to let go of HDF5 objects). So nothing is fetched here: a read of anything that is not in
    memory fails, and `run` fetches it when no lock is held and lets the operation start again.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.size = source.size
        self.pid = os.getpid()
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._missed = threading.local()

    def run(self, operation: Callable[[], T]) -> T:
        """The result of an operation on the HDF5 file, which may run several times."""
        blocks, after = 1, -1
        while True:
            self._missed.block = None
            try:
                result = operation()
            except Exception:  # a missing read makes HDF5 fail in whatever way it likes
                if self._missed.block is None:
                    raise
            else:
                # HDF5 may take a failed read for "there is none", so success is not enough.
                if self._missed.block is None:
                    self._trim()
                    return result
            first = self._missed.block
            blocks = min(2 * blocks, _MOST_BLOCKS) if first == after else 1  # a run: read ahead
            self._fetch(first, blocks)
            after = first + blocks

    def _fetch(self, first: int, blocks: int) -> None:
        data = self.source.read_at(first * _BLOCK_BYTES, blocks * _BLOCK_BYTES)
        if not data:
            raise FormatError(f"{self.source.name} is truncated")
        for k in range(-(-len(data) // _BLOCK_BYTES)):
            self._blocks[first + k] = data[k * _BLOCK_BYTES : (k + 1) * _BLOCK_BYTES]

    def _trim(self) -> None:
        while len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)

    # -- what HDF5 calls, with its lock held -------------------------------------------------

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self.size)
        done = 0
        while self._at + done < stop:
            number, within = divmod(self._at + done, _BLOCK_BYTES)
            block = self._blocks.get(number)
            if block is None:
                self._missed.block = number
                raise _NotResidentError
            part = block[within : within + stop - self._at - done]
            view[done : done + len(part)] = part
            done += len(part)
        self._at += done
        return done

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
