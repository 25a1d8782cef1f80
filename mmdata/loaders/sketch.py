"""Distribution of a column in bounded memory, merged without loss.

A DDSketch (Masson, Rim, Lee, VLDB 2019): values fall in buckets whose bounds grow by a constant
factor, so a quantile is right to 0.1 % of its value. Merging adds counts, hence merged sketches
equal the sketch of all values to the last count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELATIVE_ERROR = 1e-3
_LOG_GROWTH = float(np.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)))
#: Values nearer zero count as zero.
SMALLEST = 1e-12
#: Added to bucket numbers so that those of positive values are positive.
_SHIFT = 20_000


@dataclass
class Sketch:
    """bucket (B,) i8 ascending, count (B,) i8. Bucket order is value order; 0 is zero."""

    bucket: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    count: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def n(self) -> int:
        """Values seen."""
        return int(self.count.sum())

    def add(self, values: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Account for finite values (n,), each `weights` (n,) times."""
        flat = np.asarray(values, np.float64).ravel()
        times = np.ones(len(flat), np.int64) if weights is None else np.asarray(weights, np.int64)
        self._add(_buckets(flat), times)

    def merge(self, other: Sketch) -> None:
        """Take in what another sketch has seen."""
        self._add(other.bucket, other.count)

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """Values at fractions q of the distribution; NaN when nothing was seen."""
        wanted = np.asarray(q, np.float64)
        if not len(self.count):
            return np.full(wanted.shape, np.nan)
        rank = wanted * (self.n - 1)
        at = np.searchsorted(np.cumsum(self.count), rank, side="right")
        return _values(self.bucket[np.minimum(at, len(self.bucket) - 1)])

    def to_dict(self) -> dict[str, Any]:
        return {"bucket": self.bucket.tolist(), "count": self.count.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Sketch:
        return cls(np.array(data["bucket"], np.int64), np.array(data["count"], np.int64))

    def _add(self, bucket: NDArray[np.int64], count: NDArray[np.int64]) -> None:
        seen = count > 0
        buckets = np.concatenate([self.bucket, bucket[seen]])
        counts = np.concatenate([self.count, count[seen]])
        self.bucket, inverse = np.unique(buckets, return_inverse=True)
        self.count = np.zeros(len(self.bucket), np.int64)
        np.add.at(self.count, inverse, counts)


def _buckets(values: NDArray[np.float64]) -> NDArray[np.int64]:
    size = np.abs(values)
    number = np.ceil(np.log(np.maximum(size, SMALLEST)) / _LOG_GROWTH).astype(np.int64) + _SHIFT
    return np.where(size < SMALLEST, 0, np.sign(values).astype(np.int64) * number)


def _values(bucket: NDArray[np.int64]) -> NDArray[np.float64]:
    upper = np.exp((np.abs(bucket) - _SHIFT) * _LOG_GROWTH)
    middle = upper * (1 - RELATIVE_ERROR)
    return np.where(bucket == 0, 0.0, np.sign(bucket) * middle)
