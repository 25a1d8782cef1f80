"""Stream health: what the stamps of one stream say by themselves.

Everything here is a pure function of int64 nanosecond stamps **in recorded order**, vectorised so
that ten million stamps take well under two seconds. Definitions: period P = median of the positive
intervals, per span of steady rate; drops = sum(round(interval / P) - 1) over intervals > 1.5 P
after which the stamps stay late (:mod:`mmdata.sync.rate`); jitter = spread of the intervals that
are neither long, duplicates nor regressions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.sync.rate import DROP_FACTOR, RateSpan, missing_samples, rate_spans

Stamps = NDArray[np.int64]

APERIODIC_RATIO = 0.5
"""Median absolute deviation of the intervals, over the period, above which there is no rate."""

PERFECT_NS = 1_000
"""Stamps that all lie within this of a perfect grid were computed, not measured."""

MIN_SAMPLES = 5
"""Fewer stamps than this say nothing about rate or jitter."""


MOST_PLACES = 100
"""A ledger names at most this many places of a fault, the worst ones."""


@dataclass(frozen=True)
class RateChange:
    """From sample ``sample`` (recorded order) on, samples come at another rate."""

    sample: int
    before_hz: float
    after_hz: float


@dataclass(frozen=True)
class Faults:
    """Where stamps are wrong: indices of samples in recorded order, and by how much.

    A sample is regressed or repeated against the one before it; ``after_gap`` come late or after
    others that are missing.
    """

    regressed: Stamps
    regressed_ns: Stamps
    repeated: Stamps
    after_gap: Stamps
    missing: Stamps
    """Samples missing before each of ``after_gap``; 0 where the sample was only late."""

    def places(self, stamp_ns: Stamps) -> dict[str, Any]:
        """JSON-like places, on the time base of ``stamp_ns`` (N,) in recorded order."""
        found: dict[str, Any] = {}
        for name, rows, sizes in (
            ("regressed", self.regressed, self.regressed_ns),
            ("repeated", self.repeated, None),
            ("gaps", self.after_gap, self.missing),
        ):
            keep = np.arange(min(len(rows), MOST_PLACES))
            if sizes is not None and len(rows) > MOST_PLACES:
                keep = np.sort(np.argsort(-sizes, kind="stable")[:MOST_PLACES])
            for k in keep.tolist():
                i = int(rows[k])
                place = {"sample": i, "stamp_ns": int(stamp_ns[i])}
                if name == "regressed":
                    place["by_ns"] = int(self.regressed_ns[k])
                if name == "gaps":
                    place["stamp_ns"], place["end_ns"] = int(stamp_ns[i - 1]), int(stamp_ns[i])
                    place["missing"] = int(self.missing[k])
                found.setdefault(name, []).append(place)
        return found


_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class StampHealth:
    """Health of one sequence of stamps. ``None`` means: cannot be told from these stamps."""

    count: int
    start_ns: int | None = None
    end_ns: int | None = None
    regressions: int = 0
    """Intervals < 0 in recorded order."""
    worst_regression_ns: int = 0
    duplicates: int = 0
    """Intervals = 0 in recorded order."""
    period_ns: float | None = None
    """Of the rate that most samples have."""
    rate_hz: float | None = None
    periodic: bool = False
    gaps: int | None = None
    """Intervals in which samples are missing, or longer than two periods (only where the stream
    has a period, and without those that a step back makes)."""
    long_gaps: int | None = None
    """Those longer than two periods."""
    longest_gap_ns: int = 0
    """Longest interval, without those that a wrong stamp makes."""
    dropped: int | None = None
    """Estimated number of samples missing inside the gaps."""
    jitter_std_ns: float | None = None
    jitter_p95_ns: float | None = None
    """95th percentile of |interval - period|."""
    quantum_ns: int | None = None
    """Largest power of ten that divides every stamp."""
    perfect: bool = False
    """No measurable jitter at all: the stamps were computed, so they prove nothing."""
    rate_changes: tuple[RateChange, ...] = ()
    faults: Faults = field(default=Faults(_NONE, _NONE, _NONE, _NONE, _NONE), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like numbers; what is not known is left out, places are ``faults.places``."""
        rest = {k: v for k, v in self.__dict__.items() if k not in ("faults", "rate_changes")}
        found = {k: v for k, v in rest.items() if v is not None}
        if self.rate_changes:
            found["rate_changes"] = [asdict(change) for change in self.rate_changes]
        return found


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
    earliest: int
    """Sample with the least delay, in recorded order."""
    latest: int
    """Sample with the most."""
    burst_samples: Stamps
    """First sample of each burst."""
    step_sample: int | None
    """First sample after the change of level, within a window of the search."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-like numbers, without the places."""
        names = ("count", "min_ns", "p50_ns", "p95_ns", "max_ns", "negative", "bursts", "step_ns")
        return {k: v for k in names if (v := getattr(self, k)) is not None}

    def places(self, stamp_ns: Stamps) -> dict[str, Any]:
        """JSON-like places, on the time base of ``stamp_ns`` (N,) in recorded order."""

        def at(sample: int) -> dict[str, int]:
            return {"sample": int(sample), "stamp_ns": int(stamp_ns[sample])}

        found: dict[str, Any] = {"earliest": at(self.earliest), "latest": at(self.latest)}
        if self.bursts:
            found["bursts"] = [at(i) for i in self.burst_samples[:MOST_PLACES].tolist()]
        if self.step_sample is not None:
            found["step"] = at(self.step_sample)
        return found


def stamp_health(stamp_ns: Stamps) -> StampHealth:
    """Health of ``stamp_ns`` (N,) int64, in recorded order."""
    stamps = np.ascontiguousarray(stamp_ns, dtype=np.int64)
    n = len(stamps)
    if n < 2:
        only = int(stamps[0]) if n else None
        return StampHealth(n, only, only)
    step = np.diff(stamps)
    regressed = np.flatnonzero(step < 0) + 1
    repeated = np.flatnonzero(step == 0) + 1
    # The period is that of the sensor, so repeats and steps back do not count towards it.
    whole = not (len(regressed) or len(repeated))
    forward = step if whole else step[step > 0]
    common: dict[str, Any] = {
        "count": n,
        "start_ns": int(stamps.min()),
        "end_ns": int(stamps.max()),
        "regressions": len(regressed),
        "worst_regression_ns": int(-step.min()) if len(regressed) else 0,
        "duplicates": len(repeated),
        "quantum_ns": _quantum(stamps),
        "longest_gap_ns": max(int(step.max()), 0),
        "faults": Faults(regressed, -step[regressed - 1], repeated, _NONE, _NONE),
    }
    if len(forward) < MIN_SAMPLES - 1:
        return StampHealth(**common)
    spans = rate_spans(forward)
    main = max(spans, key=lambda span: span.stop - span.first)
    common |= {"period_ns": main.period_ns, "rate_hz": 1e9 / main.period_ns}
    period: Any = main.period_ns  # one number for all intervals, or one for each
    if len(spans) > 1:
        period = np.repeat([s.period_ns for s in spans], [s.stop - s.first for s in spans])
        source = np.flatnonzero(step > 0)
        common["rate_changes"] = tuple(
            RateChange(int(source[b.first]), 1e9 / a.period_ns, 1e9 / b.period_ns)
            for a, b in itertools.pairwise(spans)
        )
    deviation = np.abs(forward - period)
    normal = deviation
    periodic = float(np.median(deviation / period)) < APERIODIC_RATIO
    if periodic:
        long = forward > DROP_FACTOR * period
        some = bool(long.any())
        normal = deviation[~long] if some else deviation
        common |= _loss(stamps, step, spans, common["faults"]) if some else _NO_LOSS
    return StampHealth(
        **common,
        periodic=periodic,
        jitter_std_ns=float(np.sqrt(np.mean(normal * normal))),
        jitter_p95_ns=_percentile(normal, 95),
        perfect=all(_perfect(forward[s.first : s.stop], s.period_ns) for s in spans),
    )


_NO_LOSS: dict[str, Any] = {"gaps": 0, "long_gaps": 0, "dropped": 0}


def _loss(stamps: Stamps, step: Stamps, spans: list[RateSpan], known: Faults) -> dict[str, Any]:
    """What is missing in a stream some of whose intervals are long."""
    kept = None
    if len(known.repeated):
        # Repeats are no samples of their own, so they must not stand in for missing ones.
        kept = np.delete(np.arange(len(stamps)), known.repeated)
        stamps, step = stamps[kept], np.diff(stamps[kept])
    period: Any = spans[0].period_ns
    if len(spans) > 1:
        # Steps back belong to the span around them.
        forward: Any = np.cumsum(step > 0) - (step > 0)
        owner = np.searchsorted([span.stop for span in spans], forward, side="right")
        period = np.array([span.period_ns for span in spans])[np.minimum(owner, len(spans) - 1)]
    at = np.flatnonzero(step > DROP_FACTOR * period)
    local = period[at] if len(spans) > 1 else np.full(len(at), period)
    missing = missing_samples(stamps, at, local)
    long = (step[at] > 2 * local) & ~_beside(at, np.flatnonzero(step < 0))
    gap = long | (missing > 0)
    normal = np.ones(len(step), bool)
    normal[at[~gap]] = False
    after = at[gap] + 1
    return {
        "gaps": int(np.count_nonzero(gap)),
        "long_gaps": int(np.count_nonzero(long)),
        "dropped": int(missing.sum()),
        "longest_gap_ns": int(step.max(initial=0, where=normal)),
        "faults": replace(
            known, after_gap=after if kept is None else kept[after], missing=missing[gap]
        ),
    }


def _beside(at: Stamps, back: Stamps) -> NDArray[np.bool_]:
    """Which of the intervals ``at`` have a step back within two intervals: it made them long."""
    if not len(back):
        return np.zeros(len(at), bool)
    i = np.searchsorted(back, at)
    nearest = np.minimum(
        np.abs(at - back[np.maximum(i - 1, 0)]), np.abs(back[np.minimum(i, len(back) - 1)] - at)
    )
    return np.asarray(nearest <= 2)


def latency_health(source_ns: Stamps, receive_ns: Stamps) -> LatencyHealth:
    """Receive minus sensor time of one stream; both (N,) int64, in recorded order, N >= 1."""
    source, receive = np.asarray(source_ns, np.int64), np.asarray(receive_ns, np.int64)
    delay = receive - source
    bursts = _bursts(source, receive)
    step, step_sample = _latency_step(delay)
    ranks = [max(0, round(q * (len(delay) - 1))) for q in (0.5, 0.95)]
    ordered = np.partition(delay, ranks)
    return LatencyHealth(
        count=len(delay),
        min_ns=int(delay.min()),
        p50_ns=int(ordered[ranks[0]]),
        p95_ns=int(ordered[ranks[1]]),
        max_ns=int(delay.max()),
        negative=int(np.count_nonzero(delay < 0)),
        bursts=len(bursts),
        step_ns=step,
        earliest=int(np.argmin(delay)),
        latest=int(np.argmax(delay)),
        burst_samples=bursts,
        step_sample=step_sample,
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


def _bursts(source: Stamps, receive: Stamps) -> Stamps:
    """First samples of the bursts."""
    if len(source) < MIN_SAMPLES:
        return _NONE
    apart = np.diff(source)
    positive = apart[apart > 0]
    if not len(positive):
        return _NONE
    period = float(np.median(positive))
    together = (np.diff(receive) < 0.1 * period) & (apart > 0.5 * period)
    # Two consecutive short arrivals make a run of three samples.
    pairs = together[1:] & together[:-1]
    return np.flatnonzero(pairs & ~np.r_[False, pairs[:-1]])


def _latency_step(delay: Stamps) -> tuple[int | None, int | None]:
    """Level change of the windowed minimum delay that stands out of its usual change.

    Size and first sample after it.
    """
    windows = min(64, len(delay) // 20)
    if windows < 6:
        return None, None
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
    if abs(worst) <= max(20.0 * usual, 5.0 * spread, 5e6):
        return None, None
    return worst, sum(len(part) for part in parts[: cuts[at]])


def _split(values: Stamps, parts: int) -> Iterator[Stamps]:
    edges = np.linspace(0, len(values), parts + 1).astype(int)
    return (values[a:b] for a, b in itertools.pairwise(edges))
