"""Rates: the spans of a stream that share one, and the samples missing within them.

A long interval alone does not tell a lost sample from a late one, from a stamp that stepped back,
or from a sensor that was switched to half its rate. The first two are told apart by the stamps
around it: after a loss everything is later by whole periods, after a late stamp nothing is. The
third is a change of the usual interval that lasts, and is found first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Stamps = NDArray[np.int64]
Floats = NDArray[np.float64]

DROP_FACTOR = 1.5
"""An interval longer than this many periods may have lost samples."""

CHANGE_RATIO = 1.1
"""Rates nearer than this are one rate that wanders."""

NEIGHBOURS = 5
"""Samples on either side of a long interval that say whether it lasts."""

_WINDOWS = 64
_WINDOW_INTERVALS = 10
_MIN_WINDOWS = 3
_MIXED = 0.15
"""At most this part of a span's intervals may look like those of its neighbour."""
_MOST_SPANS = 8


@dataclass(frozen=True)
class RateSpan:
    """Intervals [first, stop) that share a period."""

    first: int
    stop: int
    period_ns: float


def rate_spans(interval_ns: Stamps) -> list[RateSpan]:
    """Spans of steady rate of (N,) positive intervals in order, N >= 1; one where nothing changes.

    Medians of up to 64 windows are cut where that lowers their absolute deviations by more than
    a cut costs; a cut stands if the intervals on its two sides hardly overlap, so loss at random
    does not pass for a lower rate.
    """
    n = len(interval_ns)
    whole = [RateSpan(0, n, float(np.median(interval_ns)))]
    count = min(_WINDOWS, n // _WINDOW_INTERVALS)
    if count < 2 * _MIN_WINDOWS:
        return whole
    size = n // count
    # A thousand intervals of a window give its median well enough.
    windows = interval_ns[: count * size].reshape(count, size)[:, :: max(1, size // 1000)]
    level = np.log(np.median(windows, axis=1))
    if float(np.ptp(level)) < np.log(CHANGE_RATIO):
        return whole
    spans = [
        RateSpan(a * size, n if b == count else b * size, 0.0)
        for a, b in itertools.pairwise(_cuts(level))
    ]
    spans = _settled(interval_ns, spans)
    return spans if len(spans) <= _MOST_SPANS else whole


def missing_samples(stamp_ns: Stamps, at: Stamps, period_ns: Floats | float) -> Stamps:
    """How many samples are missing in each of the long intervals ``at`` (M,), as (M,) int64.

    stamp_ns: (N,) without repeats; interval i lies between stamps i and i + 1. period_ns: of each
    long interval, or of all. An interval lost round(interval / period) - 1 samples, but no more
    than by which the stamps after it lag behind those before it.
    """
    if not len(at):
        return np.empty(0, np.int64)
    period = np.broadcast_to(np.asarray(period_ns, np.float64), at.shape)
    origin = stamp_ns[at]
    most = np.rint((stamp_ns[at + 1] - origin) / period) - 1
    k = np.arange(NEIGHBOURS)
    rows, reach = at[:, None], k * period[:, None]
    before = _median_within(stamp_ns, rows - k, origin[:, None], reach)
    after = _median_within(stamp_ns, rows + 1 + k, origin[:, None], -reach)
    lag = np.rint((after - before) / period) - 1
    found = np.asarray(np.clip(lag, 0, most), np.int64)
    since = origin - origin[0]
    return _once(found, at, since + before, since + after, period)


def _once(found: Stamps, at: Stamps, before: Floats, after: Floats, period: Floats) -> Stamps:
    """Long intervals near each other see the same loss: their sum is that of the whole group."""
    first = np.r_[0, np.flatnonzero(np.diff(at) > NEIGHBOURS) + 1]
    last = np.r_[first[1:], len(at)] - 1
    net = np.rint((after[last] - before[first]) / period[first]) - (at[last] + 1 - at[first])
    extra = np.add.reduceat(found, first) - np.maximum(net, 0).astype(np.int64)
    for group in np.flatnonzero((extra > 0) & (last > first)):
        # The one with a wrong stamp beside it comes first and saw what the later ones lost.
        for i in range(int(first[group]), int(last[group]) + 1):
            taken = min(int(found[i]), int(extra[group]))
            found[i] -= taken
            extra[group] -= taken
    return found


def _median_within(stamp_ns: Stamps, index: Stamps, origin: Stamps, reach: Floats) -> Floats:
    """Median over the columns that lie within the stamps; at least one does."""
    inside = (index >= 0) & (index < len(stamp_ns))
    value = (stamp_ns[np.clip(index, 0, len(stamp_ns) - 1)] - origin) + reach
    ranked = np.sort(np.where(inside, value, np.inf), axis=1)
    count, row = inside.sum(axis=1), np.arange(len(index))
    return np.asarray((ranked[row, (count - 1) // 2] + ranked[row, count // 2]) / 2)


def _cuts(level: Floats) -> list[int]:
    """Bounds of the spans of (W,) window levels: least absolute deviations plus a price per cut."""
    n = len(level)
    noise = 1.4826 * float(np.median(np.abs(np.diff(level))))
    price = _MIN_WINDOWS * (0.5 * np.log(CHANGE_RATIO) + 2 * noise)
    best = np.full(n + 1, np.inf)
    best[0] = -price
    back = np.zeros(n + 1, int)
    for stop in range(_MIN_WINDOWS, n + 1):
        for start in range(stop - _MIN_WINDOWS + 1):
            if not np.isfinite(best[start]):
                continue
            part = level[start:stop]
            cost = best[start] + price + float(np.abs(part - np.median(part)).sum())
            if cost < best[stop]:
                best[stop], back[stop] = cost, start
    bounds = [n]
    while bounds[-1]:
        bounds.append(int(back[bounds[-1]]))
    return bounds[::-1]


def _settled(interval_ns: Stamps, spans: Sequence[RateSpan]) -> list[RateSpan]:
    """Spans with exact bounds; neighbours whose rates are not clearly two are joined."""
    bounds = [span.first for span in spans] + [spans[-1].stop]
    while True:
        period = [float(np.median(interval_ns[a:b])) for a, b in itertools.pairwise(bounds)]
        moved = [
            _change(interval_ns[a:c], p, q)
            for (a, c), p, q in zip(
                zip(bounds, bounds[2:], strict=False), period, period[1:], strict=False
            )
        ]
        weak = [i for i, at in enumerate(moved) if at is None]
        if not weak:
            break
        del bounds[weak[0] + 1]
    cuts = [a + int(at) for a, at in zip(bounds, moved, strict=False) if at is not None]
    bounds = [bounds[0], *cuts, bounds[-1]]
    return [
        RateSpan(a, b, float(np.median(interval_ns[a:b]))) for a, b in itertools.pairwise(bounds)
    ]


def _change(interval_ns: Stamps, before: float, after: float) -> int | None:
    """Where intervals of period ``before`` give way to those of ``after``; None where they mix."""
    if max(before, after) < CHANGE_RATIO * min(before, after):
        return None
    size = np.log(np.maximum(interval_ns, 1))
    early = np.abs(size - np.log(before)) < np.abs(size - np.log(after))
    at = int(np.argmax(np.cumsum(np.where(early, 1, -1)))) + 1
    left, right = early[:at], early[at:]
    if min(len(left), len(right)) < _WINDOW_INTERVALS:
        return None
    return at if np.mean(~left) <= _MIXED and np.mean(right) <= _MIXED else None
