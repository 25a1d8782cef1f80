"""Batches handed from a loader's worker to the trainer without a copy, in memory used again.

A worker fills arrays in segments of memory that both processes map. The trainer's process keeps a
segment mapped, and marks it free when nobody there holds its array any more; the worker then fills
it anew. So no page is faulted in twice, and the limits of /dev/shm do not apply.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FROM_BYTES = 128 << 10
#: A segment's first byte says whether it is lent; its array starts here.
_HEAD = 64
_FREE, _LENT = 0, 1


@dataclass(frozen=True)
class Place:
    """Where an array lies: in segment `number` of pool `token`, mapped from `path`."""

    token: str
    number: int
    pid: int
    path: str
    shape: tuple[int, ...]
    dtype: str


class _Segment:
    def __init__(self, number: int, nbytes: int) -> None:
        self.number, self.nbytes = number, nbytes
        self.descriptor = os.memfd_create(f"mmdata-{number}")
        os.ftruncate(self.descriptor, _HEAD + nbytes)
        self.memory = mmap.mmap(self.descriptor, _HEAD + nbytes)


class SharedPool:
    """Segments of one worker process. For one thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._token = secrets.token_hex(8)
        self._segments: list[_Segment] = []
        self._filling: dict[int, _Segment] = {}

    @property
    def nbytes(self) -> int:
        """Memory of all segments."""
        return sum(segment.nbytes for segment in self._segments)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array of undefined content; small ones, which travel as they are, on the heap."""
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if nbytes < _FROM_BYTES or not hasattr(os, "memfd_create"):
            return np.empty(shape, kind)
        fitting = [s for s in self._segments if s.nbytes >= nbytes and s.memory[0] == _FREE]
        if fitting:
            segment = min(fitting, key=lambda s: s.nbytes)
        else:
            segment = _Segment(len(self._segments), nbytes)
            self._segments.append(segment)
        segment.memory[0] = _LENT
        count = nbytes // kind.itemsize
        array: NDArray[Any] = np.frombuffer(segment.memory, kind, count, _HEAD)
        self._filling[array.__array_interface__["data"][0]] = segment
        return array.reshape(shape)

    def places(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with a `Place` for each array that lies in a segment: what is sent.

        Segments filled for anything else are free again.
        """
        sent: dict[str, Any] = {}
        for name, value in batch.items():
            segment = None
            if isinstance(value, np.ndarray):
                segment = self._filling.pop(value.__array_interface__["data"][0], None)
            if segment is None:
                sent[name] = value
                continue
            path = f"/proc/{self.pid}/fd/{segment.descriptor}"
            sent[name] = Place(
                self._token, segment.number, self.pid, path, value.shape, value.dtype.str
            )
        self.forget()
        return sent

    def forget(self) -> None:
        """Free what was filled and not sent."""
        for segment in self._filling.values():
            segment.memory[0] = _FREE
        self._filling = {}


_mapped: dict[tuple[str, int], tuple[int, mmap.mmap]] = {}
_mapping = threading.Lock()


def received(sent: dict[str, Any]) -> dict[str, Any]:
    """The batch of `SharedPool.places` in the process it was sent to."""
    return {n: _array(v) if isinstance(v, Place) else v for n, v in sent.items()}


def _array(place: Place) -> NDArray[Any]:
    with _mapping:
        key = (place.token, place.number)
        if key not in _mapped:
            # Segments of workers that have ended are of no more use.
            for old in [k for k, (pid, _) in _mapped.items() if not Path(f"/proc/{pid}").exists()]:
                del _mapped[old]
            descriptor = os.open(place.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                _mapped[key] = (place.pid, mmap.mmap(descriptor, 0))
            finally:
                os.close(descriptor)
        memory = _mapped[key][1]
    kind = np.dtype(place.dtype)
    nbytes = int(np.prod(place.shape, dtype=np.int64)) * kind.itemsize
    # All arrays over the segment hold this object; when the last is gone, the segment is free.
    lease: Any = (ctypes.c_char * nbytes).from_buffer(memory, _HEAD)
    weakref.finalize(lease, _give_back, memory, os.getpid()).atexit = False
    array: NDArray[Any] = np.frombuffer(lease, kind).reshape(place.shape)
    return array


def _give_back(memory: mmap.mmap, pid: int) -> None:
    if os.getpid() == pid:  # a forked child that lets go of its copy says nothing of its parent's
        memory[0] = _FREE
