"""Measures of movement in a demonstration: idling, directness, saturation, lag and tracking.

All take evenly sampled arrays and limits in seconds; nothing depends on the frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def runs(mask: Bools) -> list[tuple[int, int]]:
    """Half-open index ranges in which the mask is true."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def idle_mask(
    state: Floats, rate_hz: float, *, per_second: float = 0.02, window_s: float = 0.5
) -> Bools:
    """(N,) where no channel of state (N, C) moves faster than `per_second` of its range.

    Net movement over `window_s` counts, so noise is not movement; shorter rests are not idle.
    """
    low, high = np.percentile(state, [1, 99], axis=0)
    span = np.where(high - low > 1e-9, high - low, np.inf)
    w = max(1, min(round(window_s * rate_hz), len(state) - 1))
    moved = (np.abs(state[w:] - state[:-w]) / span).max(axis=1) / (w / rate_hz)
    idle = np.zeros(len(state), bool)
    for a, b in runs(moved < per_second):
        idle[a : b + w] = True
    return idle


def path_efficiency(path: Floats) -> float:
    """Straight distance over distance travelled of a path (N, C); nan where it does not move.

    For one phase, not a whole task: any task with more than one goal is far from straight.
    """
    travelled = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    if travelled <= 1e-9:
        return float("nan")
    return float(np.linalg.norm(path[-1] - path[0])) / travelled


def saturation(
    values: Floats,
    low: Floats,
    high: Floats,
    rate_hz: float,
    *,
    margin: float = 0.02,
    at_least_s: float = 0.2,
) -> Floats:
    """(C,) share of time within `margin` of an end of the data set's range, in stays long enough.

    Channels with fewer than 5 different values (switches, grippers) are left out (nan).
    """
    out = np.full(values.shape[1], np.nan)
    shortest = max(1, round(at_least_s * rate_hz))
    for c in range(values.shape[1]):
        column, span = values[:, c], high[c] - low[c]
        if span <= 0 or len(np.unique(column)) < 5:
            continue
        at_end = (column <= low[c] + margin * span) | (column >= high[c] - margin * span)
        out[c] = sum(b - a for a, b in runs(at_end) if b - a >= shortest) / len(column)
    return out


@dataclass(frozen=True, slots=True)
class Lag:
    """How long the state follows the action, its correlation, and the error left at that lag.

    tracking_rms is in ranges of the state (0 to 1); nan where action and state differ in meaning.
    """

    seconds: float
    correlation: float
    tracking_rms: float


def action_lag(action: Floats, state: Floats, rate_hz: float, *, most_s: float = 0.5) -> Lag | None:
    """Lag of the state (N, C) behind the action (N, C); None where nothing moves enough to tell.

    Normalised correlation of velocities over lags of up to `most_s` either way, parabola on the
    peak; positive means that the state follows.
    """
    n = len(action)
    most = min(round(most_s * rate_hz), n // 3)
    if n < 8 or most < 1:
        return None
    w = max(1, round(0.05 * rate_hz))
    va, vs = action[w:] - action[:-w], state[w:] - state[:-w]
    span = np.ptp(state, axis=0)
    use = (span > 1e-9) & (np.ptp(action, axis=0) > 1e-9)
    if not use.any():
        return None
    va, vs = va[:, use] / span[use], vs[:, use] / span[use]
    scores = np.empty(2 * most + 1)
    for k, lag in enumerate(range(-most, most + 1)):
        a = va[max(0, -lag) : len(va) - max(0, lag)]
        b = vs[max(0, lag) : len(vs) - max(0, -lag)]
        norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
        scores[k] = float((a * b).sum()) / norm if norm > 0 else 0.0
    top = int(scores.argmax())
    shift = 0.0
    if 0 < top < 2 * most:
        left, middle, right = scores[top - 1 : top + 2]
        bend = left - 2 * middle + right
        shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    lag = top - most
    a = action[max(0, -lag) : n - max(0, lag)]
    b = state[max(0, lag) : n - max(0, -lag)]
    miss = float(np.sqrt((((a - b)[:, use] / span[use]) ** 2).mean()))
    return Lag(float(lag + shift) / rate_hz, float(scores[top]), miss)


def chatter(values: Floats, rate_hz: float, *, step: float = 0.02) -> float:
    """Most reversals per second of any channel of values (N, C) within one second.

    A reversal is a change of direction of more than `step` of the channel's range both ways.
    """
    worst = 0.0
    for column in values.T:
        span = float(np.ptp(column))
        if span <= 1e-9:
            continue
        turns = _turning_points(column / span, step)
        if len(turns) < 2:
            continue
        times = np.array(turns) / rate_hz
        inside = np.searchsorted(times, times + 1.0) - np.arange(len(times))
        worst = max(worst, float(inside.max()))
    return worst


def _turning_points(column: Floats, step: float) -> list[int]:
    """Indices of extremes between swings larger than step (zigzag)."""
    found: list[int] = []
    low = high = 0
    rising = 0
    for i, value in enumerate(column.tolist()):
        if value > column[high]:
            high = i
        if value < column[low]:
            low = i
        if rising >= 0 and column[high] - value > step:
            if rising > 0:
                found.append(high)
            rising, low = -1, i
        elif rising <= 0 and value - column[low] > step:
            if rising < 0:
                found.append(low)
            rising, high = 1, i
    return found
