"""The engine of content-based offsets: two motion signals, one lag, and whether to believe it.

**Sign.** ``offset_ns`` of (a, b) is stamp_b - stamp_a of the same physical event: positive means
that b's stamps are late. Shifting b by ``-offset_ns`` brings the two together.

**Method.** Both signals are averaged onto a common grid, smoothed with a Hann window and compared
at every lag up to ``max_lag_s``. Three scores share the engine, all of them from second moments:

``pearson``   one channel each: correlation coefficient.
``rotation``  three channels each, related by an unknown rotation: nuclear norm of the
              cross-covariance over the norms of both (the best rotation's correlation, Kabsch).
``linear``    any channels, b an unknown linear map of a: square root of the fraction of b's
              variance that a explains. Judged by blocks of time the map was not fitted to.

The peak is refined by a parabola. The moments are kept per block of time, so leave-one-block-out
peaks give the jackknife sigma and the two halves of the recording are checked against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Stamps = NDArray[np.int64]
Score = Literal["pearson", "rotation", "linear"]


@dataclass(frozen=True)
class Signal:
    """A continuous quantity: stamps (N,) int64 ascending, values (N, C) or (N,) float64."""

    stamp_ns: Stamps
    value: Floats

    def __post_init__(self) -> None:
        value = np.asarray(self.value, np.float64)
        object.__setattr__(self, "value", value[:, None] if value.ndim == 1 else value)
        object.__setattr__(self, "stamp_ns", np.asarray(self.stamp_ns, np.int64))


@dataclass(frozen=True)
class CorrelationConfig:
    """Gates are conventions (see docs/sync.md); every one of them can make the method abstain."""

    rate_hz: float = 200.0
    smooth_s: float = 0.06
    max_lag_s: float = 0.5
    min_window_s: float = 4.0
    min_score: float = 0.6
    max_second_peak: float = 0.85
    """Second peak over first peak, at most."""
    max_half_difference_s: float = 0.03
    max_sigma_s: float = 0.015
    min_activity: float = 0.15
    """Least fraction of the overlap in which either signal moves."""
    floor_sigma_s: float = 0.001
    """What the method cannot resolve even on perfect signals; added in quadrature."""


@dataclass(frozen=True)
class OffsetEstimate:
    """An offset with its evidence. ``offset_ns`` is None exactly when ``reason`` is given."""

    method: str
    offset_ns: float | None
    sigma_ns: float | None
    reason: str | None = None
    tests: dict[str, float] = field(default_factory=dict)
    curve: tuple[Floats, Floats] | None = None
    """Lags in ns and the score at each, for plots."""

    @property
    def known(self) -> bool:
        return self.offset_ns is not None


def abstain(method: str, reason: str, **evidence: Any) -> OffsetEstimate:
    return OffsetEstimate(method, None, None, reason, **evidence)


def swapped(estimate: OffsetEstimate) -> OffsetEstimate:
    """The estimate of (b, a) as one of (a, b)."""
    offset = None if estimate.offset_ns is None else -estimate.offset_ns
    curve = estimate.curve
    if curve is not None:
        curve = -curve[0][::-1], curve[1][::-1]
    return replace(estimate, offset_ns=offset, curve=curve)


def correlate(
    a: Signal,
    b: Signal,
    *,
    method: str,
    score: Score = "pearson",
    config: CorrelationConfig | None = None,
) -> OffsetEstimate:
    """Offset of b against a (positive: b late), or an abstention that says which test failed."""
    config = config or CorrelationConfig()
    if len(a.stamp_ns) < 8 or len(b.stamp_ns) < 8:
        return abstain(method, "fewer than 8 samples")
    start = max(int(a.stamp_ns[0]), int(b.stamp_ns[0]))
    stop = min(int(a.stamp_ns[-1]), int(b.stamp_ns[-1]))
    span_s = (stop - start) / 1e9
    if span_s < config.min_window_s:
        return abstain(
            method, f"overlap of {max(span_s, 0):.1f} s is under {config.min_window_s:g} s"
        )
    step = round(1e9 / config.rate_hz)
    edges = start + np.arange((stop - start) // step + 1, dtype=np.int64) * step
    left = _smooth(_cell_means(a, edges), config)
    right = _smooth(_cell_means(b, edges), config)
    usable = _covered(a.stamp_ns, edges) & _covered(b.stamp_ns, edges)
    for which, values in (("first", left), ("second", right)):
        if not _activity(values[usable]) >= config.min_activity:
            return abstain(method, f"too little motion in the {which} signal")
    reach = round(config.max_lag_s * config.rate_hz)
    blocks = int(np.clip(span_s, 4, 24))
    moments = _moments(left, right, usable, reach, blocks)
    return _judge(moments, (left.shape[1], right.shape[1]), score, step, method, config)


def _judge(
    moments: Floats,
    channels: tuple[int, int],
    score: Score,
    step: int,
    method: str,
    config: CorrelationConfig,
) -> OffsetEstimate:
    """From block moments (blocks, lags, m, m) to an estimate or an abstention."""
    blocks, lags = moments.shape[:2]
    total = moments.sum(axis=0)
    curve = _score(total, channels, score)
    lag_ns = (np.arange(lags) - lags // 2) * float(step)
    plot = (lag_ns, curve)
    k = int(np.argmax(curve))
    tests = {"score": float(curve[k])}
    if score == "linear":
        tests["predicted_score"] = _predicted(moments[:, k], channels)
    if not 0 < k < lags - 1:
        return abstain(method, "best lag lies at the edge of the search", tests=tests, curve=plot)
    peak = _refine(curve, k)
    second = _second_peak(curve, k)
    tests["second_peak_ratio"] = second / max(tests["score"], 1e-9)
    near = round(0.1 * 1e9 / step)
    leave_out = [
        _peak_near(_score(total - moments[i], channels, score), k, near) for i in range(blocks)
    ]
    spread = np.asarray(leave_out) - np.mean(leave_out)
    # The last factor is the width of Student's t with so few blocks.
    jackknife = float(np.sqrt((blocks - 1) / blocks * np.sum(spread**2))) * step / 1e9
    jackknife *= np.sqrt((blocks - 1) / (blocks - 3)) if blocks > 3 else np.inf
    sigma_s = float(np.hypot(jackknife, config.floor_sigma_s))
    halves = [
        int(np.argmax(_score(part.sum(axis=0), channels, score)))
        for part in (moments[: blocks // 2], moments[blocks // 2 :])
    ]
    tests["half_difference_ms"] = abs(halves[0] - halves[1]) * step / 1e6
    tests["sigma_ms"] = sigma_s * 1e3
    reasons = []
    agreement = tests.get("predicted_score", tests["score"])
    if agreement < config.min_score:
        reasons.append(f"correlation {agreement:.2f} is under {config.min_score:g}")
    if tests["second_peak_ratio"] > config.max_second_peak:
        reasons.append(f"a second peak reaches {tests['second_peak_ratio']:.2f} of the first")
    if tests["half_difference_ms"] > config.max_half_difference_s * 1e3:
        reasons.append(f"the two halves differ by {tests['half_difference_ms']:.0f} ms")
    if sigma_s > config.max_sigma_s:
        reasons.append(f"sigma {sigma_s * 1e3:.1f} ms is over {config.max_sigma_s * 1e3:g} ms")
    if reasons:
        return abstain(method, "; ".join(reasons), tests=tests, curve=plot)
    offset = (peak - lags // 2) * step
    return OffsetEstimate(method, float(offset), sigma_s * 1e9, None, tests, plot)


def _cell_means(signal: Signal, edges: Stamps) -> Floats:
    """Mean of the linear interpolant over each grid cell: no aliasing at any input rate."""
    origin = edges[0]
    keep = np.r_[True, np.diff(signal.stamp_ns) > 0]
    t = (signal.stamp_ns[keep] - origin) / 1e9
    at = (edges - origin) / 1e9
    out = np.empty((len(edges) - 1, signal.value.shape[1]))
    for c in range(out.shape[1]):
        y = np.nan_to_num(signal.value[keep, c])
        area = np.r_[0.0, np.cumsum((y[1:] + y[:-1]) / 2 * np.diff(t))]
        i = np.clip(np.searchsorted(t, at, side="right") - 1, 0, len(t) - 2)
        dt = at - t[i]
        slope = (y[i + 1] - y[i]) / (t[i + 1] - t[i])
        out[:, c] = np.diff(area[i] + y[i] * dt + slope * dt * dt / 2) / np.diff(at)
    return out


def _covered(stamp_ns: Stamps, edges: Stamps) -> NDArray[np.bool_]:
    """Cells that do not lie in a hole of the input (5 periods and 0.2 s)."""
    step = np.diff(stamp_ns)
    limit = max(5 * float(np.median(step)), 2e8)
    holes = np.flatnonzero(step > limit)
    good = np.ones(len(edges) - 1, bool)
    for h in holes:
        good &= (edges[1:] <= stamp_ns[h]) | (edges[:-1] >= stamp_ns[h + 1])
    return good


def _smooth(values: Floats, config: CorrelationConfig) -> Floats:
    width = max(1, round(config.smooth_s * config.rate_hz))
    window = np.hanning(width + 2)[1:-1]
    window /= window.sum()
    padded = np.pad(values, ((width // 2, width - 1 - width // 2), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, window, mode="valid") for column in padded.T], axis=1)


def _activity(values: Floats) -> float:
    """Fraction of cells whose distance from the median exceeds a tenth of the largest one."""
    if not len(values):
        return 0.0
    size = np.linalg.norm(values - np.median(values, axis=0), axis=1)
    top = float(np.quantile(size, 0.99))
    if top <= 1e-12:
        return 0.0
    return float(np.mean(size > 0.1 * top))


def _moments(
    left: Floats, right: Floats, usable: NDArray[np.bool_], reach: int, blocks: int
) -> Floats:
    """Second moments of [1, left(t), right(t + lag)] per block of t: (blocks, lags, m, m).

    Blocks are overlapping Hann windows that add up to one. With sharp blocks a mismatch that only
    changes slowly (a gain that depends on pose) would show at every edge and inflate the jackknife.
    """
    n = len(left)
    scale = [x / max(float(np.abs(x[usable]).max()), 1e-12) for x in (left, right)]
    first = np.c_[np.ones(n), scale[0]]
    second = scale[1]
    p, m = first.shape[1], first.shape[1] + second.shape[1]
    bounds = np.linspace(0, n, blocks).astype(int)
    out = np.zeros((blocks, 2 * reach + 1, m, m))
    rising = [np.sin(np.pi / 2 * np.arange(k) / k) ** 2 for k in np.diff(bounds)]
    for j, lag in enumerate(range(-reach, reach + 1)):
        lo, hi = max(0, -lag), min(n, n - lag)
        z = np.zeros((n, m))
        z[lo:hi, :p], z[lo:hi, p:] = first[lo:hi], second[lo + lag : hi + lag]
        z[lo:hi][~(usable[lo:hi] & usable[lo + lag : hi + lag])] = 0.0
        for i, up in enumerate(rising):
            part = z[bounds[i] : bounds[i + 1]]
            both, later = part.T @ part, (part * up[:, None]).T @ part
            out[i, j] += both - later
            out[i + 1, j] += later
    return out


def _score(moment: Floats, channels: tuple[int, int], score: Score) -> Floats:
    """Score per lag from summed moments (lags, m, m)."""
    p, _ = channels
    n = np.maximum(moment[:, :1, :1], 1.0)
    mean = moment[:, :1, 1:]
    covariance = moment[:, 1:, 1:] - mean.transpose(0, 2, 1) @ mean / n
    aa, ab, bb = covariance[:, :p, :p], covariance[:, :p, p:], covariance[:, p:, p:]
    var_a = np.trace(aa, axis1=1, axis2=2)
    var_b = np.trace(bb, axis1=1, axis2=2)
    norm = np.sqrt(np.maximum(var_a * var_b, 1e-300))
    if score == "pearson":
        return np.asarray(ab[:, 0, 0] / norm)
    if score == "rotation":
        u, s, vt = np.linalg.svd(ab)
        proper = np.sign(np.linalg.det(u) * np.linalg.det(vt))
        return np.asarray((s[:, 0] + s[:, 1] + proper * s[:, 2]) / norm)
    explained = np.trace(ab.transpose(0, 2, 1) @ np.linalg.solve(_ridged(aa), ab), axis1=1, axis2=2)
    return np.asarray(np.sqrt(np.maximum(explained, 0) / np.maximum(var_b, 1e-300)))


def _ridged(aa: Floats) -> Floats:
    p = aa.shape[-1]
    size = np.trace(aa, axis1=-2, axis2=-1)[..., None, None] / p
    return np.asarray(aa + (1e-3 * size + 1e-15) * np.eye(p))


def _predicted(parts: Floats, channels: tuple[int, int]) -> float:
    """Score of a linear map on blocks it was not fitted to: parts (blocks, m, m) at one lag.

    Many channels explain any short signal in hindsight; only prediction tells.
    """
    inputs = channels[0] + 1
    total = parts.sum(axis=0)
    squared = 0.0
    for part in parts:
        rest = total - part
        weights = np.linalg.solve(_ridged(rest[:inputs, :inputs]), rest[:inputs, inputs:])
        squared += float(
            np.trace(part[inputs:, inputs:])
            - 2 * np.trace(weights.T @ part[:inputs, inputs:])
            + np.trace(weights.T @ part[:inputs, :inputs] @ weights)
        )
    mean = total[0, inputs:] / max(total[0, 0], 1.0)
    variance = float(np.trace(total[inputs:, inputs:]) - total[0, 0] * np.sum(mean**2))
    return float(np.sqrt(max(0.0, 1 - squared / max(variance, 1e-300))))


def _refine(curve: Floats, k: int) -> float:
    before, at, after = curve[k - 1 : k + 2]
    bend = before - 2 * at + after
    return k if bend >= 0 else k + 0.5 * float(before - after) / float(bend)


def _peak_near(curve: Floats, k: int, reach: int) -> float:
    lo, hi = max(1, k - reach), min(len(curve) - 1, k + reach + 1)
    return _refine(curve, lo + int(np.argmax(curve[lo:hi])))


def _second_peak(curve: Floats, k: int) -> float:
    """Highest local maximum beyond the valleys that flank the main peak."""
    inner = (curve[1:-1] >= curve[:-2]) & (curve[1:-1] > curve[2:])
    peaks = np.flatnonzero(inner) + 1
    candidates = [float(curve[j]) for j in peaks if j != k]
    # The ends count too: a curve still rising there has a rival outside the search.
    candidates += [float(curve[0]) if curve[0] > curve[1] else 0.0]
    candidates += [float(curve[-1]) if curve[-1] > curve[-2] else 0.0]
    return max(0.0, *candidates)
