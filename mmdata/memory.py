"""Arrays whose memory is used again: fresh pages cost as much time as copying into them."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FROM_BYTES = 128 << 10


class ReusedMemory:
    """Gives out arrays like `np.empty`. The memory of big ones comes back when nobody holds them.

    limit_bytes: of memory kept for later. Safe to share between threads.
    """

    def __init__(self, limit_bytes: int = 256 << 20) -> None:
        self.limit_bytes = limit_bytes
        self.kept_bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self._lock = threading.RLock()  # a finaliser may run while this thread holds it
        self._pid = os.getpid()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array of undefined content."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if count * kind.itemsize < _FROM_BYTES:
            return np.empty(shape, kind)
        nbytes = _rounded(count * kind.itemsize)
        with self._lock:
            free = self._free.get(nbytes)
            memory = free.pop() if free else None
            if memory is not None:
                self.kept_bytes -= nbytes
        if memory is None:
            memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # All arrays over the memory hold this object; when the last is gone, the memory is free.
        lease = (ctypes.c_char * nbytes).from_buffer(memory)
        weakref.finalize(lease, self._take_back, memory, nbytes).atexit = False
        whole = np.frombuffer(memoryview(lease), np.uint8)
        array: NDArray[Any] = whole[: count * kind.itemsize].view(kind).reshape(shape)
        return array

    def _take_back(self, memory: mmap.mmap, nbytes: int) -> None:
        with self._lock:
            if self._pid == os.getpid() and self.kept_bytes + nbytes <= self.limit_bytes:
                self._free.setdefault(nbytes, []).append(memory)
                self.kept_bytes += nbytes


def _rounded(nbytes: int) -> int:
    """The next larger size of a few per power of two, so that arrays of about one size share."""
    step = 1 << max(12, nbytes.bit_length() - 4)
    return -(-nbytes // step) * step
