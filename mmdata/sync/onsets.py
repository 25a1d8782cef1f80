"""Impacts and contacts: when they begin in sound, force and touch, and how two lists of them agree.

An onset is the first sample whose size leaves the noise (six median absolute deviations). Two
streams are compared by their onsets: the shift that pairs most of them, then the median of the
paired differences. The sign is that of :mod:`mmdata.sync.correlate`: positive means b is late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdata.sync.correlate import Floats, OffsetEstimate, Stamps, abstain

AIR_NS_PER_M = 2_900_000
"""Sound needs 2.9 ms per metre of air."""

MAD_FACTOR = 6.0


@dataclass(frozen=True)
class OnsetConfig:
    max_lag_s: float = 0.5
    tolerance_s: float = 0.015
    """Half width within which two onsets pair at a candidate shift."""
    min_matches: int = 3
    min_matched_fraction: float = 0.5
    """Of the shorter list."""
    max_rival: float = 0.67
    """Matches of the best other shift over those of the best, at most."""
    max_sigma_s: float = 0.01


@dataclass(frozen=True)
class Onsets:
    """Stamps (N,) int64 ascending, and the time step that limits how well each is known.

    common_ns: standard deviation of what all share, which no number of them averages out.
    """

    stamp_ns: Stamps
    resolution_ns: float
    common_ns: float = 0.0


def audio_onsets(
    block_stamp_ns: Stamps,
    block_start: Stamps,
    samples: Floats,
    sample_rate_hz: float,
    *,
    refractory_s: float = 0.1,
) -> Onsets:
    """Impacts in sound: onsets of the 1-8 kHz energy.

    block_stamp_ns (N,) stamp of the first sample of each block; block_start (N + 1,) offsets into
    samples (S, C).
    """
    from scipy.signal import butter, sosfilt

    mono = np.asarray(samples, np.float64)
    mono = mono.mean(axis=1) if mono.ndim == 2 else mono
    nyquist = sample_rate_hz / 2
    band = [min(1000.0, 0.25 * nyquist), min(8000.0, 0.95 * nyquist)]
    # A causal filter: a zero-phase one would ring before the impact.
    filtered = sosfilt(butter(4, band, "bandpass", fs=sample_rate_hz, output="sos"), mono)
    window = max(1, round(0.0005 * sample_rate_hz))
    cells = len(filtered) // window
    energy = np.sqrt(np.mean(filtered[: cells * window].reshape(cells, window) ** 2, axis=1))
    first = _first_crossings(energy, round(refractory_s / 0.0005), floor=_quiet_level(samples))
    sample = first * window
    block = np.clip(np.searchsorted(block_start, sample, side="right") - 1, 0, len(block_start) - 2)
    within = (sample - block_start[block]) * (1e9 / sample_rate_hz)
    stamps = block_stamp_ns[block] + np.rint(within).astype(np.int64)
    return Onsets(np.sort(stamps), 1e9 * window / sample_rate_hz)


def contact_onsets(
    stamp_ns: Stamps, force: Floats, *, refractory_s: float = 0.1, rate: bool = True
) -> Onsets:
    """Onsets of force or touch from (N, C) or (N, ...) values.

    With ``rate`` the size is |dF/dt| (wrenches: a load is no contact); without, it is the summed
    change from the resting level (tactile arrays). The contact happened between the last quiet and
    the first loud sample: midway, or where the rise of a level extrapolates to nothing.
    """
    values = np.asarray(force, np.float64).reshape(len(force), -1)
    stamps = np.asarray(stamp_ns, np.int64)
    keep = np.r_[True, np.diff(stamps) > 0]
    stamps, values = stamps[keep], np.nan_to_num(values[keep])
    if len(stamps) < 8:
        return Onsets(np.empty(0, np.int64), 0.0)
    period = float(np.median(np.diff(stamps)))
    if rate:
        change = np.linalg.norm(np.diff(values, axis=0), axis=1) / np.maximum(
            np.diff(stamps) / period, 0.5
        )
        size = np.r_[0.0, change]
    else:
        size = np.abs(values - np.median(values[: max(8, len(values) // 50)], axis=0)).sum(axis=1)
    first = _first_crossings(size, max(1, round(refractory_s * 1e9 / period)), level=not rate)
    first = first[first > 0]
    before = stamps[first] - stamps[first - 1]
    if rate:
        return Onsets(stamps[first] - before // 2, period)
    # Midway would be late by the time a soft touch needs to leave the noise.
    rest = float(np.quantile(size, 0.1))
    then = np.minimum(first + 1, len(size) - 1)
    slope = (size[then] - size[first]) / np.maximum(stamps[then] - stamps[first], 1)
    back = np.where(slope > 0, (size[first] - rest) / np.maximum(slope, 1e-30), 0.0)
    onset = stamps[first] - np.rint(np.clip(back, 0, before)).astype(np.int64)
    # A soft touch begins below any noise, at every grasp alike.
    return Onsets(onset, period, common_ns=period / np.sqrt(12))


def match_onsets(
    a: Onsets,
    b: Onsets,
    *,
    method: str,
    air_distance_m: float | None = None,
    config: OnsetConfig | None = None,
) -> OffsetEstimate:
    """Offset of b against a from their onsets, or an abstention.

    ``air_distance_m``: the sound of b travelled this far; its delay is subtracted. Where it is not
    known, half a metre is assumed neither way but its delay is added to sigma.
    """
    config = config or OnsetConfig()
    x, y = a.stamp_ns, b.stamp_ns
    fewest = min(len(x), len(y))
    if fewest < config.min_matches:
        return abstain(method, f"{fewest} impacts in common at most, {config.min_matches} needed")
    difference = (y[None, :] - x[:, None]).astype(np.float64)
    candidates = difference[np.abs(difference) <= config.max_lag_s * 1e9]
    if not len(candidates):
        return abstain(method, "no two impacts within reach of each other")
    tolerance = config.tolerance_s * 1e9
    counts = np.array([len(_pairs(x, y, shift, tolerance)) for shift in candidates])
    best = float(candidates[np.argmax(counts)])
    # Centre the window on the cluster, then pair once more.
    best = float(np.median(_pairs(x, y, best, tolerance)))
    paired = _pairs(x, y, best, tolerance)
    rivals = counts[np.abs(candidates - best) > 2 * tolerance]
    rival = float(rivals.max()) / len(paired) if len(rivals) else 0.0
    offset = float(np.median(paired))
    spread = 1.4826 * float(np.median(np.abs(paired - offset)))
    grain = np.hypot(a.resolution_ns, b.resolution_ns) / np.sqrt(12)
    # 1.25: a median is less efficient than a mean.
    sigma = 1.25 * max(spread, float(grain)) / np.sqrt(len(paired))
    sigma = float(np.hypot(sigma, np.hypot(a.common_ns, b.common_ns)))
    if air_distance_m is not None:
        offset -= air_distance_m * AIR_NS_PER_M
    elif method.startswith("audio"):
        sigma = float(np.hypot(sigma, 0.5 * AIR_NS_PER_M))
    tests = {
        "matches": float(len(paired)),
        "matched_fraction": len(paired) / fewest,
        "rival_ratio": rival,
        "sigma_ms": sigma / 1e6,
    }
    reasons = []
    if len(paired) < config.min_matches:
        reasons.append(f"only {len(paired)} impacts pair up")
    if tests["matched_fraction"] < config.min_matched_fraction:
        reasons.append(f"only {tests['matched_fraction']:.0%} of the impacts pair up")
    if rival > config.max_rival:
        reasons.append("another shift pairs nearly as many impacts")
    if sigma > config.max_sigma_s * 1e9:
        reasons.append(f"sigma {sigma / 1e6:.1f} ms is over {config.max_sigma_s * 1e3:g} ms")
    if reasons:
        return abstain(method, "; ".join(reasons), tests=tests)
    return OffsetEstimate(method, offset, float(sigma), None, tests)


def _pairs(x: Stamps, y: Stamps, shift: float, tolerance: float) -> Floats:
    """Differences y - x of the onsets that pair one to one (mutual nearest) at this shift."""
    distance = np.abs((y[None, :] - x[:, None]).astype(np.float64) - shift)
    to_y, to_x = distance.argmin(axis=1), distance.argmin(axis=0)
    i = np.arange(len(x))
    mutual = (to_x[to_y] == i) & (distance[i, to_y] <= tolerance)
    return np.asarray((y[to_y[mutual]] - x[mutual]).astype(np.float64))


def _first_crossings(
    size: Floats, refractory: int, floor: float = 0.0, *, level: bool = False
) -> Stamps:
    """Indices where ``size`` rises out of the noise after ``refractory`` quiet samples.

    A ``level`` may stay up for most of the recording, so its rest is its lower quartile and its
    noise is that of its differences; otherwise the median is at rest.
    """
    if level:
        centre = float(np.quantile(size, 0.1))
        noise = 1.4826 * float(np.median(np.abs(np.diff(size)))) / np.sqrt(2)
    else:
        centre = float(np.median(size))
        noise = 1.4826 * float(np.median(np.abs(size - centre)))
    top = float(size.max(initial=0.0))
    # In noiseless recordings the deviation is zero: one per cent of the largest event serves.
    limit = max(centre + MAD_FACTOR * noise, centre + 0.02 * (top - centre), floor)
    loud = np.flatnonzero(size > limit)
    if not len(loud) or top <= 0:
        return np.empty(0, np.int64)
    return loud[np.r_[True, np.diff(loud) > refractory]].astype(np.int64)


def _quiet_level(samples: Floats) -> float:
    """Two quantisation steps of integer sound: what a silent recording may show."""
    return 2.0 if np.asarray(samples).dtype.kind in "iu" else 0.0
