"""Stream health: what the stamps of one stream say by themselves.

Everything here is a pure function of int64 nanosecond stamps **in recorded order**, vectorised so
that ten million stamps take well under two seconds. Definitions: period P = median of the positive
intervals; drops = sum(round(interval / P) - 1) over intervals > 1.5 P; jitter = spread of the
intervals that are neither drops, duplicates nor regressions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Stamps = NDArray[np.int64]

DROP_FACTOR = 1.5
"""An interval longer than this many periods has lost samples."""

APERIODIC_RATIO = 0.5
"""Median absolute deviation of the intervals, over the period, above which there is no rate."""

PERFECT_NS = 1_000
"""Stamps that all lie within this of a perfect grid were computed, not measured."""

MIN_SAMPLES = 5
"""Fewer stamps than this say nothing about rate or jitter."""


@dataclass(frozen=True)
class StampHealth:
    """Health of one sequence of stamps. ``None`` means: cannot be told from these stamps."""

    count: int
    start_ns: int | None
    end_ns: int | None
    regressions: int
    """Intervals < 0 in recorded order."""
    worst_regression_ns: int
    duplicates: int
    """Intervals = 0 in recorded order."""
    period_ns: float | None
    rate_hz: float | None
    periodic: bool
    gaps: int | None
    """Intervals > 1.5 periods (only where the stream has a period)."""
    long_gaps: int | None
    """Intervals > 2 periods, which no jitter explains."""
    longest_gap_ns: int
    dropped: int | None
    """Estimated number of samples missing inside the gaps."""
    jitter_std_ns: float | None
    jitter_p95_ns: float | None
    """95th percentile of |interval - period|."""
    quantum_ns: int | None
    """Largest power of ten that divides every stamp."""
    perfect: bool
    """No measurable jitter at all: the stamps were computed, so they prove nothing."""

    def to_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}


@dataclass(frozen=True)
class LatencyHealth:
    """Receive minus sensor time, and how the recorder saw the stream arrive."""

    count: int
    min_ns: int
    p50_ns: int
    p95_ns: int
    max_ns: int
    negative: int
    """Samples received before they were measured."""
    bursts: int
    """Runs of three or more arrivals that came at once although they were measured apart."""
    step_ns: int | None
    """Largest sudden level change of the minimum delay (a clock that was set), if any."""

    def to_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}


def stamp_health(stamp_ns: Stamps) -> StampHealth:
    """Health of ``stamp_ns`` (N,) int64, in recorded order."""
    stamps = np.ascontiguousarray(stamp_ns, dtype=np.int64)
    n = len(stamps)
    if n < 2:
        only = int(stamps[0]) if n else None
        return StampHealth(
            n, only, only, 0, 0, 0, None, None, False, None, None, 0, None, None, None, None, False
        )
    step = np.diff(stamps)
    backward = step < 0
    regressions = int(np.count_nonzero(backward))
    duplicates = int(np.count_nonzero(step == 0))
    # The period is that of the sensor, so repeats and steps back do not count towards it.
    forward = step if not (regressions or duplicates) else step[step > 0]
    start, end = int(stamps.min()), int(stamps.max())
    common = {
        "count": n,
        "start_ns": start,
        "end_ns": end,
        "regressions": regressions,
        "worst_regression_ns": int(-step.min()) if regressions else 0,
        "duplicates": duplicates,
        "quantum_ns": _quantum(stamps),
        "longest_gap_ns": int(step.max()),
    }
    if len(forward) < MIN_SAMPLES - 1:
        return StampHealth(
            **common,
            period_ns=None,
            rate_hz=None,
            periodic=False,
            gaps=None,
            long_gaps=None,
            dropped=None,
            jitter_std_ns=None,
            jitter_p95_ns=None,
            perfect=False,
        )
    period = float(np.median(forward))
    deviation = np.abs(forward - period)
    periodic = float(np.median(deviation)) < APERIODIC_RATIO * period
    gaps = long_gaps = dropped = None
    normal = deviation
    if periodic:
        long = forward > DROP_FACTOR * period
        gaps = int(np.count_nonzero(long))
        long_gaps = int(np.count_nonzero(forward > 2 * period)) if gaps else 0
        if gaps:
            dropped = int(np.sum(np.rint(forward[long] / period) - 1))
            normal = deviation[~long]
        else:
            dropped = 0
    return StampHealth(
        **common,
        period_ns=period,
        rate_hz=1e9 / period,
        periodic=periodic,
        gaps=gaps,
        long_gaps=long_gaps,
        dropped=dropped,
        jitter_std_ns=float(np.sqrt(np.mean(normal * normal))),
        jitter_p95_ns=_percentile(normal, 95),
        perfect=_perfect(forward, period),
    )


def latency_health(source_ns: Stamps, receive_ns: Stamps) -> LatencyHealth:
    """Receive minus sensor time of one stream; both (N,) int64, in recorded order, N >= 1."""
    delay = np.asarray(receive_ns, np.int64) - np.asarray(source_ns, np.int64)
    ranks = [max(0, round(q * (len(delay) - 1))) for q in (0.5, 0.95)]
    ordered = np.partition(delay, ranks)
    return LatencyHealth(
        count=len(delay),
        min_ns=int(delay.min()),
        p50_ns=int(ordered[ranks[0]]),
        p95_ns=int(ordered[ranks[1]]),
        max_ns=int(delay.max()),
        negative=int(np.count_nonzero(delay < 0)),
        bursts=_bursts(np.asarray(source_ns, np.int64), np.asarray(receive_ns, np.int64)),
        step_ns=_latency_step(delay),
    )


def recorded_order(values: Stamps, recorded: Stamps | None) -> Stamps:
    """Undo an episode's sort by stamp: ``recorded[i]`` is the recording position of sample i."""
    if recorded is None:
        return values
    out = np.empty_like(values)
    out[recorded] = values
    return out


def _percentile(values: NDArray[Any], q: float) -> float:
    rank = round(q / 100 * (len(values) - 1))
    return float(np.partition(values, rank)[rank])


def _quantum(stamps: Stamps) -> int:
    """Largest power of ten dividing all stamps, 1 ns to 1 s; the prefix test keeps it cheap."""
    for power in range(9, 0, -1):
        unit = 10**power
        if not np.any(stamps[:64] % unit) and not np.any(stamps % unit):
            return int(unit)
    return 1


def _perfect(forward: Stamps, period: float) -> bool:
    if len(forward) < 20 or not np.all(np.abs(forward[:20] - period) <= 20 * PERFECT_NS):
        # Measured stamps nearly always differ within their first twenty intervals.
        multiples = np.rint(forward[:20] / period)
        if len(forward) < 20 or np.any(
            np.abs(forward[:20] - multiples * period) > multiples * PERFECT_NS
        ):
            return False
    multiples = np.maximum(np.rint(forward / period), 1)
    if np.mean(multiples > 1) > 0.1:
        return False  # not a few drops: a coarse clock
    return bool(np.all(np.abs(forward - multiples * period) <= multiples * PERFECT_NS))


def _bursts(source: Stamps, receive: Stamps) -> int:
    if len(source) < MIN_SAMPLES:
        return 0
    apart = np.diff(source)
    positive = apart[apart > 0]
    if not len(positive):
        return 0
    period = float(np.median(positive))
    together = (np.diff(receive) < 0.1 * period) & (apart > 0.5 * period)
    # Two consecutive short arrivals make a run of three samples.
    pairs = together[1:] & together[:-1]
    return int(np.count_nonzero(pairs & ~np.r_[False, pairs[:-1]])) if len(pairs) else 0


def _latency_step(delay: Stamps) -> int | None:
    """Level change of the windowed minimum delay that stands out of its usual change."""
    windows = min(64, len(delay) // 20)
    if windows < 6:
        return None
    parts = list(_split(delay, windows))
    floor = np.array([part.min() for part in parts], np.int64)
    # A step changes the level of all that follows, at once: an excursion returns, skew is gradual.
    cuts = range(3, windows - 2)
    lasting = np.array([np.median(floor[i:]) - np.median(floor[:i]) for i in cuts])
    sudden = np.array([np.median(floor[i : i + 3]) - np.median(floor[i - 3 : i]) for i in cuts])
    change = np.where(lasting * sudden > 0, np.minimum(np.abs(lasting), np.abs(sudden)), 0.0)
    at = int(np.argmax(change))
    worst = round(float(np.copysign(change[at], lasting[at])))
    steps = np.diff(floor)
    usual = float(np.median(np.abs(steps - np.median(steps))))
    # A thousand samples of a window give its median well enough.
    middle = np.array([np.median(part[:: max(1, len(part) // 1000)]) for part in parts])
    spread = float(np.median(middle - floor))
    return worst if abs(worst) > max(20.0 * usual, 5.0 * spread, 5e6) else None


def _split(values: Stamps, parts: int) -> Iterator[Stamps]:
    edges = np.linspace(0, len(values), parts + 1).astype(int)
    return (values[a:b] for a, b in itertools.pairwise(edges))
