"""Rows of a dataset straight from the file: no HDF5 call, no HDF5 lock.

Where the chunks lie is asked of HDF5 once; from then on rows come by positioned reads and are
decompressed by the reading thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import FormatError
from mmdata.store.codecs import BLOSC_FILTER, Pipeline
from mmdata.store.sources import ByteSource

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_PIPELINES = {
    (_FLETCHER32,): "none",
    (BLOSC_FILTER, _FLETCHER32): "blosc",
    (_SHUFFLE, _DEFLATE, _FLETCHER32): "gzip",
}


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

    def chunk(self, source: ByteSource, number: int) -> NDArray[Any]:
        """Rows of one whole chunk, (n, ...). Raises FormatError where the file is damaged."""
        first = number * self.rows
        return self.read(source, first, min(first + self.rows, self.n))

    def _part(self, source: ByteSource, chunk: int, within: int, rows: int) -> bytes:
        first, length = within * self.row_bytes, rows * self.row_bytes
        offset, size = int(self.offset[chunk]), int(self.size[chunk])
        if self.plain:
            # Checksums cover whole chunks; a part of one is read without. A damaged frame does not
            # decode; `mmdata verify` says more.
            data = source.read_at(offset + first, length)
            if len(data) < length:
                raise FormatError(f"{source.name} is truncated: {self.path} ends early")
            return data
        stored = source.read_at(offset, size)
        try:
            return self.pipeline.decode(stored)[first : first + length]
        except (RuntimeError, ValueError) as error:
            raise FormatError(
                f"{source.name}: {self.path} is damaged ({error}); `mmdata verify` says more"
            ) from error
