"""Clock maps: device time to host time from one-sided delays.

A message is received after it was measured, never before, so the points (device, host) lie above
the line that links the two clocks and touch it where the delay was smallest. The line is the
supporting line of their lower convex hull at the mean device time, which is the optimum of the
linear programme "below all points, least total distance". Ordinary least squares follows the load
of the machine instead. The minimum delay itself cannot be observed from one-way stamps: every
offset here includes it, and says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import ClockMap
from mmdata.errors import SyncError
from mmdata.streams import Stream

Stamps = NDArray[np.int64]
Floats = NDArray[np.float64]

SUBSETS = 8
"""Interleaved subsets whose hulls give the uncertainty."""

MAX_HULL_POINTS = 8192
"""Longer inputs are first thinned to the least delay per time bucket."""

UNOBSERVABLE = "the minimum delay is not observable from one-way stamps and is part of offset_ns"


@dataclass(frozen=True)
class ClockFit:
    """host = device + offset_ns + skew_ppm * 1e-6 * (device - reference_ns).

    ``sigma_*`` are one standard deviation, from hulls of interleaved subsets (conservative: a hull
    gains from more points faster than a mean does). Residuals are delay above the line, >= 0.
    """

    reference_ns: int
    offset_ns: float
    skew_ppm: float
    offset_sigma_ns: float
    skew_sigma_ppm: float
    residual_p50_ns: float
    residual_p95_ns: float
    residual_max_ns: float
    n: int
    early: int
    """Points left out because they came far below the line (a host clock that was off a while)."""
    valid_from_ns: int
    valid_to_ns: int
    method: str = "lower_hull"
    bias: str = UNOBSERVABLE

    def apply(self, device_ns: Stamps) -> Stamps:
        """Device stamps (N,) to host stamps (N,), both int64 ns."""
        since = (np.asarray(device_ns, np.int64) - self.reference_ns).astype(np.float64)
        change = np.rint(self.offset_ns + since * self.skew_ppm * 1e-6).astype(np.int64)
        return np.asarray(device_ns, np.int64) + change

    def to_map(self) -> ClockMap:
        """The same line as the core's affine map."""
        return ClockMap(self.reference_ns, self.offset_ns, self.skew_ppm)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_attrs(self) -> dict[str, Any]:
        """Attributes of ``/clocks/<clock>`` in an episode file."""
        return {
            "offset_ns": round(self.offset_ns),
            "skew_ppm": self.skew_ppm,
            "offset_sigma_ns": self.offset_sigma_ns,
            "method": self.method,
            "n": self.n,
            "valid_from_ns": self.valid_from_ns,
            "valid_to_ns": self.valid_to_ns,
        }


def fit_clock(device_ns: Stamps, host_ns: Stamps) -> ClockFit:
    """One line over the whole input; (N,) int64 each, any order, N >= 16 and >= 1 s of device time.

    Raises SyncError when there is too little to fit.
    """
    device = np.asarray(device_ns, np.int64)
    delay = np.asarray(host_ns, np.int64) - device
    if len(device) < 2 * SUBSETS or int(np.ptp(device)) < 1_000_000_000:
        raise SyncError(
            f"a clock map needs at least {2 * SUBSETS} stamps over one second; got {len(device)} "
            "stamps: use a longer recording or keep the receive stamps"
        )
    order = np.argsort(device, kind="stable")
    device, delay = device[order], delay[order]
    reference = int(device[0] + (device[-1] - device[0]) // 2)
    base = int(delay.min())  # subtracting it keeps float64 exact for clocks of other epochs
    x = (device - reference).astype(np.float64)
    y = (delay - base).astype(np.float64)
    floor = _floor_line(x, y)
    x, y, early = _without_early(x, y, floor)
    slope, level = _supporting_line(x, y)
    subset = np.array([_supporting_line(x[i::SUBSETS], y[i::SUBSETS]) for i in range(SUBSETS)])
    sigma = subset.std(axis=0, ddof=1) / np.sqrt(SUBSETS)
    if abs(slope - floor.slope) > 4 * floor.slope_sigma:
        # The hull rests on a few points that the rest of the recording does not bear out.
        sigma[0] = max(sigma[0], abs(slope - floor.slope))
        sigma[1] = max(sigma[1], abs(level - floor.level))
    residual = y - (level + slope * x)
    p50, p95 = np.percentile(residual, [50, 95])
    return ClockFit(
        reference_ns=reference,
        offset_ns=base + level,
        skew_ppm=slope * 1e6,
        # Quantised or noiseless stamps make the subsets agree; a nanosecond is the stamps' own.
        offset_sigma_ns=float(max(sigma[1], 1.0)),
        skew_sigma_ppm=float(max(sigma[0] * 1e6, 1e6 / max(float(np.ptp(x)), 1.0))),
        residual_p50_ns=float(p50),
        residual_p95_ns=float(p95),
        residual_max_ns=float(residual.max()),
        n=len(device),
        early=early,
        valid_from_ns=int(device[0]),
        valid_to_ns=int(device[-1]),
    )


def fit_clock_windows(
    device_ns: Stamps, host_ns: Stamps, *, window_s: float = 60.0
) -> tuple[ClockFit, ...]:
    """Lines over consecutive windows of about ``window_s``, for oscillators that warm up.

    The last window takes the remainder, so none is shorter than ``window_s`` unless all is.
    """
    device = np.asarray(device_ns, np.int64)
    host = np.asarray(host_ns, np.int64)
    if not len(device):
        raise SyncError("a clock map needs stamps; the stream has none")
    span = int(np.ptp(device))
    count = max(1, int(span / (window_s * 1e9)))
    edges = int(device.min()) + (np.arange(count + 1) * (span / count)).astype(np.int64)
    edges[-1] = int(device.max()) + 1
    fits = []
    for start, stop in itertools.pairwise(edges):
        inside = (device >= start) & (device < stop)
        if count == 1 or np.count_nonzero(inside) >= 2 * SUBSETS:
            fits.append(fit_clock(device[inside], host[inside]))
    return tuple(fits)


def fit_streams(
    streams: Mapping[str, Stream], *, window_s: float = 60.0
) -> dict[str, tuple[ClockFit, ...]]:
    """Maps from each stream's header clock to the receive clock, by stream name.

    Streams without both stamps, with equal ones, or too short for a map are left out. Mapped stamps
    are ``apply_windows(fits, stream.source_ns)``; they hold the least delay of the transport.
    """
    found = {}
    for name, stream in streams.items():
        source, receive = stream.source_ns, stream.receive_ns
        if source is None or receive is None or np.array_equal(source, receive):
            continue
        try:
            found[name] = fit_clock_windows(source, receive, window_s=window_s)
        except SyncError:
            continue  # too short: the caller sees that it is missing
    return found


def apply_windows(fits: Sequence[ClockFit], device_ns: Stamps) -> Stamps:
    """Map with the lines of :func:`fit_clock_windows`, joined linearly between window centres."""
    device = np.asarray(device_ns, np.int64)
    if len(fits) == 1:
        return fits[0].apply(device)
    centres = np.array([fit.reference_ns for fit in fits], np.int64)
    base = int(fits[0].offset_ns)
    levels = np.array([fit.offset_ns - base for fit in fits])
    origin = centres[0]
    change = np.interp((device - origin).astype(float), (centres - origin).astype(float), levels)
    before, after = device < centres[0], device > centres[-1]
    for outside, fit in ((before, fits[0]), (after, fits[-1])):
        since = (device[outside] - fit.reference_ns).astype(float)
        change[outside] = fit.offset_ns - base + since * fit.skew_ppm * 1e-6
    return np.asarray(device + base + np.rint(change).astype(np.int64))


@dataclass(frozen=True)
class _Floor:
    """Line through the least delays of up to 32 windows, by the median of slopes (Theil-Sen)."""

    slope: float
    level: float
    spread: float
    slope_sigma: float


def _floor_line(x: Floats, y: Floats) -> _Floor:
    """x ascending. Far less exact than the hull, and no single point can move it."""
    parts = min(32, len(x) // 8)
    edges = np.linspace(0, len(x), parts + 1).astype(int)[:-1]
    lowest = np.minimum.reduceat(y, edges)
    centre = np.add.reduceat(x, edges) / np.diff(np.r_[edges, len(x)])
    i, j = np.triu_indices(parts, 1)
    apart = centre[j] > centre[i]
    slope = float(np.median((lowest[j] - lowest[i])[apart] / (centre[j] - centre[i])[apart]))
    left = lowest - slope * centre
    level = float(np.median(left))
    spread = 1.4826 * float(np.median(np.abs(left - level)))
    # 1.25: a median is less efficient than a mean. Half a microsecond: stamps are no finer.
    slope_sigma = 1.25 * max(spread, 500.0) / (float(np.std(centre)) * np.sqrt(parts))
    return _Floor(slope, level, spread, slope_sigma)


def _without_early(x: Floats, y: Floats, floor: _Floor) -> tuple[Floats, Floats, int]:
    """Points without those that lie far below the level of their time.

    One-sided noise never goes below the line, so a few points that do would hold the hull alone.
    """
    early = y - floor.slope * x < floor.level - max(5 * floor.spread, 1e5)
    # Where many points are early it is the level that is wrong, and nothing may be left out.
    if not early.any() or early.mean() > 0.05:
        return x, y, 0
    return x[~early], y[~early], int(early.sum())


def _supporting_line(x: Floats, y: Floats) -> tuple[float, float]:
    """(slope, value at x = 0) of the lower hull's edge under mean(x). x ascending."""
    at = float(x.mean())
    if len(x) > MAX_HULL_POINTS:
        # Thinning keeps the least delay per bucket relative to a slope; the second pass uses the
        # slope the first one found, so that no bucket hides a hull vertex behind the skew.
        slope, _ = _edge(*_thin(x, y, 0.0), at)
        x, y = _thin(x, y, slope)
    return _edge(x, y, at)


def _thin(x: Floats, y: Floats, slope: float) -> tuple[Floats, Floats]:
    starts = np.linspace(0, len(x), MAX_HULL_POINTS // 2, endpoint=False).astype(int)
    residual = y - slope * x
    least = np.minimum.reduceat(residual, starts)
    bucket = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(x)]))
    kept = np.flatnonzero(residual == least[bucket])
    return x[kept], y[kept]


def _edge(x: Floats, y: Floats, at: float) -> tuple[float, float]:
    hull: list[int] = []
    xs, ys = x.tolist(), y.tolist()
    for i in range(len(xs)):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            cross = (xs[b] - xs[a]) * (ys[i] - ys[a]) - (ys[b] - ys[a]) * (xs[i] - xs[a])
            if cross > 0:
                break
            hull.pop()
        if hull and xs[hull[-1]] == xs[i]:
            # Equal device stamps: only the lower host stamp can touch the line.
            if ys[i] >= ys[hull[-1]]:
                continue
            hull.pop()
        hull.append(i)
    if len(hull) < 2:
        return 0.0, ys[hull[0]]
    k = int(np.searchsorted([xs[i] for i in hull], at))
    a, b = hull[max(0, min(k, len(hull) - 1) - 1)], hull[max(1, min(k, len(hull) - 1))]
    slope = (ys[b] - ys[a]) / (xs[b] - xs[a])
    return slope, ys[a] - slope * xs[a]
