"""Chunk filters, run outside HDF5: the same bytes HDF5's own pipeline would write.

Encoding a chunk ourselves and handing it over with a direct chunk write keeps compression out of
HDF5's global lock, and tells us where each chunk lies in the file (the journal needs that).
Every chunk ends in HDF5's Fletcher-32 checksum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import h5py
import numpy as np
from numcodecs import Shuffle, Zlib, blosc
from numcodecs.blosc import Blosc

from mmdata.store.libhdf5 import fletcher32

Profile = Literal["default", "interchange"]
PROFILES: tuple[Profile, ...] = ("default", "interchange")

BLOSC_FILTER = 32001
_BLOSC_FORMAT = 2
_LZ4 = 1
_CLEVEL = 3
_GZIP_LEVEL = 4

# Contextual mode: no global Blosc lock, so chunks are compressed in parallel by our own threads.
blosc.use_threads = False
_BLOSC = Blosc("lz4", _CLEVEL, Blosc.SHUFFLE)


@dataclass(frozen=True)
class Pipeline:
    """Filters of one dataset: compression "blosc" | "gzip" | "none", then the checksum."""

    compression: Literal["blosc", "gzip", "none"]
    itemsize: int

    def encode(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Bytes of a whole chunk as they lie in the file."""
        data: Any = np.ascontiguousarray(chunk).reshape(-1)
        for codec in self._codecs():
            data = codec.encode(data)
        data = data if isinstance(data, bytes) else data.view(np.uint8)
        return b"".join((data, fletcher32(data).to_bytes(4, "little")))

    def decode(self, data: bytes) -> bytes:
        """Raw bytes of a chunk. Raises RuntimeError when the checksum does not match."""
        decoded: Any = np.frombuffer(data, np.uint8)[:-4]
        if fletcher32(decoded) != int.from_bytes(data[-4:], "little"):
            raise RuntimeError("its checksum does not match")
        for codec in reversed(self._codecs()):
            decoded = codec.decode(decoded)
        return decoded if isinstance(decoded, bytes) else bytes(memoryview(decoded).cast("B"))

    def apply(self, creation: h5py.h5p.PropDCID, chunk_bytes: int) -> None:
        """Declare the same filters on a dataset creation property list."""
        if self.compression == "blosc":
            values = (
                _BLOSC_FORMAT, _BLOSC_FORMAT, self.itemsize, chunk_bytes,
                _CLEVEL, Blosc.SHUFFLE, _LZ4,
            )  # fmt: skip
            creation.set_filter(BLOSC_FILTER, h5py.h5z.FLAG_OPTIONAL, values)
        elif self.compression == "gzip":
            creation.set_shuffle()
            creation.set_deflate(_GZIP_LEVEL)
        creation.set_fletcher32()

    def _codecs(self) -> list[Any]:
        """Between the rows and the checksum."""
        if self.compression == "blosc":
            return [_BLOSC]
        if self.compression == "gzip":
            return [Shuffle(self.itemsize), Zlib(_GZIP_LEVEL)]
        return []


def pipeline_for(dtype: np.dtype[Any], compressed: bool, profile: Profile) -> Pipeline:
    """Filters for values of a dtype; payload that arrives compressed is not compressed again."""
    if not compressed:
        return Pipeline("none", dtype.itemsize)
    return Pipeline("blosc" if profile == "default" else "gzip", dtype.itemsize)
