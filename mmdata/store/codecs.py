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
from numcodecs.fletcher32 import Fletcher32

Profile = Literal["default", "interchange"]
PROFILES: tuple[Profile, ...] = ("default", "interchange")

BLOSC_FILTER = 32001
_BLOSC_FORMAT = 2
_LZ4 = 1
_CLEVEL = 3
_GZIP_LEVEL = 4

# Contextual mode: no global Blosc lock, so chunks are compressed in parallel by our own threads.
blosc.use_threads = False


@dataclass(frozen=True)
class Pipeline:
    """Filters of one dataset: compression "blosc" | "gzip" | "none", then the checksum."""

    compression: Literal["blosc", "gzip", "none"]
    itemsize: int

    def encode(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Bytes of a whole chunk as they lie in the file."""
        data: Any = np.ascontiguousarray(chunk)
        for codec in self._codecs():
            data = codec.encode(data)
        return data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))

    def decode(self, data: bytes) -> bytes:
        """Raw bytes of a chunk. Raises RuntimeError when the checksum does not match."""
        for codec in reversed(self._codecs()):
            data = codec.decode(data)
        return bytes(memoryview(data).cast("B"))

    def apply(self, creation: h5py.h5p.PropDCID, chunk_bytes: int) -> None:
        """Declare the same filters on a dataset creation property list."""
        if self.compression == "blosc":
            values = (
                _BLOSC_FORMAT, _BLOSC_FORMAT, self.itemsize, chunk_bytes,
                _CLEVEL, self._shuffle, _LZ4,
            )  # fmt: skip
            creation.set_filter(BLOSC_FILTER, h5py.h5z.FLAG_OPTIONAL, values)
        elif self.compression == "gzip":
            creation.set_shuffle()
            creation.set_deflate(_GZIP_LEVEL)
        creation.set_fletcher32()

    @property
    def _shuffle(self) -> int:
        return int(Blosc.SHUFFLE)

    def _codecs(self) -> list[Any]:
        if self.compression == "blosc":
            compress = [Blosc("lz4", _CLEVEL, self._shuffle)]
        elif self.compression == "gzip":
            compress = [Shuffle(self.itemsize), Zlib(_GZIP_LEVEL)]
        else:
            compress = []
        return [*compress, Fletcher32()]


def pipeline_for(dtype: np.dtype[Any], compressed: bool, profile: Profile) -> Pipeline:
    """Filters for values of a dtype; payload that arrives compressed is not compressed again."""
    if not compressed:
        return Pipeline("none", dtype.itemsize)
    return Pipeline("blosc" if profile == "default" else "gzip", dtype.itemsize)
