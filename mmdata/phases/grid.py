"""The analysis grid, and how sampled signals are placed on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from mmdata.phases.inputs import Floats, Series, Stamps


@dataclass(frozen=True, slots=True)
class Grid:
    """n instants from start_ns, step_ns apart."""

    start_ns: int
    step_ns: int
    n: int

    @property
    def step_s(self) -> float:
        return self.step_ns * 1e-9

    @property
    def end_ns(self) -> int:
        return self.start_ns + (self.n - 1) * self.step_ns

    @property
    def seconds(self) -> Floats:
        """(n,) seconds since start_ns."""
        return np.asarray(np.arange(self.n) * self.step_s, np.float64)

    def stamps(self, seconds: Floats) -> Stamps:
        """Seconds since start to stamps."""
        return self.start_ns + np.rint(np.asarray(seconds) * 1e9).astype(np.int64)

    def offset(self, stamp_ns: Stamps) -> Floats:
        """Stamps to seconds since start."""
        return np.asarray((np.asarray(stamp_ns, np.int64) - self.start_ns) * 1e-9, np.float64)

    def steps(self, seconds: float) -> int:
        """A duration in whole steps, at least one."""
        return max(1, round(seconds / self.step_s))

    @classmethod
    def over(cls, start_ns: int, end_ns: int, step_ns: int) -> Grid:
        return cls(start_ns, step_ns, max(2, (end_ns - start_ns) // step_ns + 1))


def resample(series: Series, grid: Grid) -> Floats:
    """Values on the grid: (n,) or (n, C).

    Several samples per step are averaged (no aliasing), sparser ones interpolated linearly.
    Duplicate stamps keep their first sample; rows that are not finite are left out.
    """
    values = np.asarray(series.values, np.float64)
    flat = values[:, None] if values.ndim == 1 else values
    t = grid.offset(series.stamp_ns)
    keep = np.asarray(np.isfinite(flat).all(axis=1))
    keep[1:] &= np.diff(t) > 0
    t, flat = t[keep], flat[keep]
    if len(t) == 0:
        return np.full((grid.n, *values.shape[1:]), np.nan)
    if len(t) > 2 * grid.n:
        cell = np.rint(t / grid.step_s).astype(np.int64)
        first = np.flatnonzero(np.r_[True, np.diff(cell) != 0])
        count = np.diff(np.r_[first, len(cell)])
        flat = np.add.reduceat(flat, first) / count[:, None]
        t = np.add.reduceat(t, first) / count
    out = np.column_stack([np.interp(grid.seconds, t, column) for column in flat.T])
    return out[:, 0] if values.ndim == 1 else out


def smooth(values: Floats, sigma_s: float, grid: Grid, order: int = 0) -> Floats:
    """Gaussian smoothing along time; order 1 gives the derivative per second."""
    out: Floats = gaussian_filter1d(
        values, sigma_s / grid.step_s, axis=0, order=order, mode="nearest"
    )
    return out / grid.step_s if order else out


def robust_sigma(values: Floats) -> float:
    """1.4826 MAD: the standard deviation of the bulk."""
    if values.size == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Half-open index ranges in which the mask is true."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return iter(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def close_runs(mask: NDArray[np.bool_], gap: int, shortest: int) -> list[tuple[int, int]]:
    """Runs with gaps below `gap` steps filled and then those below `shortest` removed."""
    joined: list[tuple[int, int]] = []
    for a, b in runs(mask):
        if joined and a - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    return [(a, b) for a, b in joined if b - a >= shortest]


def crossing(values: Floats, i: int, level: float) -> float:
    """Sub-step index at which the signal crosses `level` between i - 1 and i."""
    if i <= 0:
        return 0.0
    before, after = float(values[i - 1]), float(values[i])
    if before == after:
        return float(i)
    return i - 1 + min(1.0, max(0.0, (level - before) / (after - before)))


REACH_S = 2.0
"""How far before it is plain a movement may have begun, and after it may still end."""


def sets_out(rise: Floats, top: float) -> int | None:
    """Where a rise to `top` began: the way from 20 to 60 % of it extrapolated to nothing.

    Exact for a linear rise; None where the values never were below 20 %.
    """
    high = np.flatnonzero(rise >= 0.6 * top)
    low = np.flatnonzero(rise[: high[0]] <= 0.2 * top) if high.size else high
    if low.size == 0:
        return None
    return max(0, round(int(low[-1]) - 0.5 * (int(high[0]) - int(low[-1]))))


def widened(carrier: Floats, a: int, b: int, grid: Grid) -> tuple[int, int]:
    """The run [a, b) widened to where what carries it (>= 0) rises from nothing and falls to it."""
    reach = grid.steps(REACH_S)
    top = float(carrier[a:b].max())
    first = sets_out(carrier[max(0, a - reach) : b], top)
    last = sets_out(carrier[a : min(grid.n, b + reach)][::-1], top)
    start = a if first is None else max(0, a - reach) + first
    end = b if last is None else min(grid.n, b + reach) - last
    return min(start, a), max(end, b)
