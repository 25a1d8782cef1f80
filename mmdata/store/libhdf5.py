"""Calls of the HDF5 library itself, made without Python's interpreter lock.

h5py holds that lock for the whole of each call, and other threads wait. What is called here is in
the very library h5py has loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
from h5py._objects import phil
from numcodecs.fletcher32 import Fletcher32
from numpy.typing import NDArray


def fletcher32(data: bytes | NDArray[Any]) -> int:
    """HDF5's Fletcher-32 checksum of the bytes of a contiguous buffer."""
    if not len(data):
        return 0
    if isinstance(data, bytes):
        return int(_fletcher32(data, len(data)))
    return int(_fletcher32(data.ctypes.data, data.nbytes))


def write_chunk(dataset: h5py.h5d.DatasetID, where: Sequence[int], data: bytes) -> None:
    """Write one encoded chunk. where: its first element, per dimension.

    Raises what h5py raises, an OSError where the disk is full.
    """
    if _write_chunk is not None:
        with phil:
            place = (ctypes.c_uint64 * len(where))(*where)
            if _write_chunk(dataset.id, 0, 0, place, len(data), data) >= 0:
                return
    dataset.write_direct_chunk(tuple(where), data)


def _find_write_chunk() -> Any:
    """H5Dwrite_chunk, or None."""
    try:
        found: Any = ctypes.CDLL(h5py.h5d.__file__).H5Dwrite_chunk
    except (OSError, AttributeError):
        return None
    found.argtypes = (
        ctypes.c_int64, ctypes.c_int64, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint64),
        ctypes.c_size_t, ctypes.c_char_p,
    )  # fmt: skip
    found.restype = ctypes.c_int
    return found


def _find_fletcher32() -> Callable[[Any, int], int]:
    """HDF5's own function; it is not part of its interface, so it has to show that it is right."""
    try:
        found: Any = ctypes.CDLL(h5py.h5d.__file__).H5_checksum_fletcher32
    except (OSError, AttributeError):
        return _portable
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint32
    sample = np.arange(3001, dtype=np.uint32).view(np.uint8)[:-1]
    alike = all(
        found(sample.ctypes.data, n) == _portable(sample.ctypes.data, n) for n in (1, 2, 720, 12003)
    )
    return found if alike else _portable


def _portable(address: Any, size: int) -> int:
    """The same at a third of the speed, and with the interpreter lock."""
    data = ctypes.string_at(address, size)
    return int.from_bytes(Fletcher32().encode(data)[-4:], "little")


_fletcher32 = _find_fletcher32()
_write_chunk = _find_write_chunk()
