"""Min/max pyramids: what a plot of a million samples needs to draw, at every zoom."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import Stream
from mmdata_viewer.errors import BadRequestError, NotThereError

FACTOR = 8
TILE = 2048
MOST_CHANNELS = 64
_READ_ROWS = 1 << 19

Floats = NDArray[np.float32]


class Pyramid:
    """Smallest and largest value per bucket of 8, 64, 512 ... samples of one field.

    Levels hold float32 (B, C); level 0 is the data itself and is read from the file. NaN is left
    out of a bucket, and a bucket of NaN alone stays NaN.
    """

    def __init__(self, stream: Stream, field: str) -> None:
        info = stream.info.fields.get(field)
        if info is None or info.ragged:
            raise NotThereError(f"stream {stream.name!r} has no plain field {field!r}")
        self.stream, self.field = stream, field
        self.channels = int(np.prod(info.shape, dtype=np.int64)) if info.shape else 1
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise BadRequestError(
                f"{stream.name}.{field} has {self.channels} channels; plots take 1 to "
                f"{MOST_CHANNELS}"
            )
        self.levels: list[tuple[Floats, Floats]] = []
        low, high = self._first()
        while True:
            self.levels.append((low, high))
            if len(low) <= TILE // FACTOR:
                break
            low, high = _coarser(low, high)

    def rows(self, start: int, stop: int) -> Floats:
        """Samples start:stop as (n, C) float32."""
        values: Any = self.stream.field(self.field, start, stop)
        return np.asarray(values, np.float32).reshape(len(values), self.channels)

    def tile(self, level: int, number: int, start_ns: int) -> bytes:
        """Buckets [number * TILE, ...) of a level.

        Little-endian: u32 count, u32 channels, f64 t[count] (ns since start_ns of each bucket's
        first sample), f32 low[count, C] and, above level 0, f32 high[count, C].
        """
        if not 0 <= level <= len(self.levels):
            raise NotThereError(f"level {level}; there are 0 to {len(self.levels)}")
        first = number * TILE
        count = len(self.stream) if level == 0 else len(self.levels[level - 1][0])
        if number < 0 or first >= max(count, 1):
            raise NotThereError(f"tile {number} of level {level}")
        last = min(first + TILE, count)
        width = FACTOR**level
        stamps = self.stream.stamp_ns[first * width : last * width : width] - start_ns
        parts = [struct.pack("<II", last - first, self.channels), stamps.astype("<f8").tobytes()]
        if level == 0:
            parts.append(self.rows(first, last).astype("<f4").tobytes())
        else:
            parts += [v[first:last].astype("<f4").tobytes() for v in self.levels[level - 1]]
        return b"".join(parts)

    def _first(self) -> tuple[Floats, Floats]:
        lows, highs = [], []
        for start in range(0, len(self.stream), _READ_ROWS):
            block = self.rows(start, min(start + _READ_ROWS, len(self.stream)))
            low, high = _coarser(block, block)
            lows.append(low)
            highs.append(high)
        empty = np.empty((0, self.channels), np.float32)
        return np.concatenate(lows or [empty]), np.concatenate(highs or [empty])


def _coarser(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    starts = np.arange(0, len(low), FACTOR)
    if len(starts) == 0:
        return low, high
    # fmin and fmax pass over NaN where the other value is a number.
    return np.fmin.reduceat(low, starts, axis=0), np.fmax.reduceat(high, starts, axis=0)
