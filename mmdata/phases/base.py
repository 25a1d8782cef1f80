"""Vehicles and mobile bases: facts and instants from speed and yaw rate."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from mmdata.phases.evidence import Evidence, Instant
from mmdata.phases.grid import (
    Grid,
    close_runs,
    resample,
    robust_sigma,
    sets_out,
    smooth,
    widened,
)
from mmdata.phases.inputs import Base, Floats
from mmdata.phases.settings import Settings

LANE_SHIFT_M = 2.0
"""Least sideways shift that is a lane change; lanes are 2.5 to 3.75 m wide."""
LANE_SPEED_M_S = 4.0
"""Slower than this a swing of the heading is manoeuvring, no change of lane."""
LANE_PAUSE_S = 3.0
"""Longest straight stretch between swinging out of a lane and into the next."""
FOLLOW_S = 3.0
"""Following: less than this many seconds behind whoever drives ahead."""


def base_evidence(base: Base, grid: Grid, settings: Settings) -> Evidence:
    """Facts `standing`, `speeding_up`, `slowing`, `turning_left`, `turning_right`, `shift_left`,
    `shift_right`, `following`, `backing`, as far as the signals reach, and their edges as instants.
    """
    ones = np.ones(grid.n)
    facts: dict[str, tuple[Floats, Floats]] = {}
    edges: dict[str, list[tuple[int, int]]] = {}
    raw = None if base.speed is None else resample(base.speed, grid)
    speed = None if raw is None else smooth(raw, 0.2, grid)
    yaw = None if base.yaw_rate is None else smooth(resample(base.yaw_rate, grid), 0.2, grid)

    def add(name: str, value: Floats, carrier: Floats | None = None) -> None:
        """A fact; its edges are where the carrier (>= 0), that makes it hold, sets out and ends."""
        found = close_runs(value > 0.5, grid.steps(0.5), grid.steps(0.3))
        if carrier is not None:
            found = [widened(carrier, a, b, grid) for a, b in found]
            for a, b in found:
                value[a:b] = np.maximum(value[a:b], 0.75)
        facts[name] = (value, ones)
        edges[name] = found

    if raw is not None and speed is not None:
        pace = np.abs(speed)
        gain = _gain(np.abs(raw), grid)
        # Speeding up and slowing are measured against the vehicle's own range of speeds.
        firm = max(0.3, 0.04 * float(np.percentile(pace, 95)))
        edges["standing"] = _standing(pace < settings.base_still_m_s, gain, grid)
        facts["standing"] = (_mask(edges["standing"], grid), ones)
        add("speeding_up", np.clip(gain / firm - 0.5, 0, 1), np.clip(gain, 0, None))
        add("slowing", np.clip(-gain / firm - 0.5, 0, 1), np.clip(-gain, 0, None))
        back = np.clip(-speed, 0, None)
        add("backing", (back > settings.base_still_m_s).astype(float), back)
    if yaw is not None:
        changes = _lane_changes(speed, yaw, grid, base)
        own = np.zeros(grid.n)
        for _, a, b in changes or ():
            own[a:b] = 1.0
        for name, sign in (("left", 1), ("right", -1)):
            if changes is not None:
                edges[f"shift_{name}"] = [(a, b) for s, a, b in changes if s == sign]
                facts[f"shift_{name}"] = (_mask(edges[f"shift_{name}"], grid), ones)
            turn = np.clip(sign * yaw / settings.turn_rad_s - 0.5, 0.0, 1.0)
            add(f"turning_{name}", np.where(own > 0, 0.0, turn), np.clip(sign * yaw, 0, None))
    if base.lead_gap is not None and speed is not None:
        gap = resample(base.lead_gap, grid)
        near = (gap > 0) & (gap < FOLLOW_S * np.maximum(np.abs(speed), 1.0))
        add("following", near.astype(float))
    instants = [
        Instant(kind, i * grid.step_s, 0.8, "base")
        for name, found in edges.items()
        for a, b in found
        for kind, i in ((f"{name}_on", a), (f"{name}_off", b))
        if 0 < i < grid.n
    ]
    top = 0.0 if speed is None else float(np.abs(speed).max())
    return Evidence(grid, facts, instants, top)


def _mask(found: list[tuple[int, int]], grid: Grid) -> Floats:
    out = np.zeros(grid.n)
    for a, b in found:
        out[a:b] = 1.0
    return out


def _gain(pace: Floats, grid: Grid) -> Floats:
    """(n,) m/s^2, smoothed just enough for its noise to stay below a twentieth of its peaks."""
    calm = smooth(pace, 0.25, grid, order=1)
    top = max(float(np.percentile(np.abs(calm), 99)), 0.1)
    noise = robust_sigma(pace - smooth(pace, 0.05, grid))
    sigma = (noise**2 * grid.step_s / (4.0 * np.sqrt(np.pi) * (0.05 * top) ** 2)) ** (1.0 / 3.0)
    return smooth(pace, float(np.clip(sigma, 0.06, 0.25)), grid, order=1)


def _standing(slow: NDArray[np.bool_], gain: Floats, grid: Grid) -> list[tuple[int, int]]:
    """Stretches of standing: from where braking ends to where speeding up begins.

    Slow is reached before the one and left after the other, by as much as the acceleration takes.
    """
    found = []
    reach = grid.steps(1.0)
    for a, b in close_runs(slow, grid.steps(0.5), grid.steps(0.3)):
        start, end = a, b
        after = gain[max(a, b - reach) : min(grid.n, b + reach)]
        if b < grid.n and (k := sets_out(np.clip(after, 0, None), float(after.max()))) is not None:
            end = min(b, max(a, b - reach) + k)
        before = -gain[max(0, a - reach) : min(b, a + reach)][::-1]
        k = sets_out(np.clip(before, 0, None), float(before.max())) if a > 0 else None
        if k is not None:
            start = max(a, min(b, a + reach) - k)
        if end - start >= grid.steps(0.2):
            found.append((start, end))
        else:
            found.append((a, b))
    return found


def _lane_changes(
    speed: Floats | None, yaw: Floats, grid: Grid, base: Base
) -> list[tuple[int, int, int]] | None:
    """(+1 left or -1 right, first, last) of each lane change; None where the speed is not known.

    A lane change is a swing of the heading away from the road's and back, two opposite lobes of
    the yaw rate over the road's own, which add up to a lane's width without a lasting turn.
    """
    if speed is None:
        return None
    if base.lateral is not None:
        sideways = smooth(resample(base.lateral, grid), 0.3, grid, order=1)
        lobes = [
            (s, *widened(np.clip(s * sideways, 0, None), a, b, grid))
            for s in (1, -1)
            for a, b in close_runs(s * sideways > 0.25, grid.steps(0.3), grid.steps(0.5))
        ]
        return [(s, a, b) for s, a, b in lobes if _is_lane(sideways[a:b].sum() * grid.step_s, s)]
    swing = yaw - _road(yaw, grid)
    least = max(0.006, 4.0 * robust_sigma(np.diff(swing, 2)) if len(swing) > 3 else 0.0)
    found: list[tuple[int, int, int]] = []
    lobes = sorted(
        (a, b, s)
        for s in (1, -1)
        for a, b in close_runs(s * swing > least, grid.steps(0.1), grid.steps(0.4))
    )
    for (a, middle, s), (again, b, other) in itertools.pairwise(lobes):
        if other == s or (again - middle) * grid.step_s > LANE_PAUSE_S:
            continue
        if found and a < found[-1][2]:
            continue  # its first lobe is the second of the one before
        first, _ = widened(np.clip(s * swing, 0, None), a, middle, grid)
        _, last = widened(np.clip(-s * swing, 0, None), again, b, grid)
        heading = np.cumsum(swing[first:last]) * grid.step_s
        shift = float((speed[first:last] * np.sin(heading)).sum()) * grid.step_s
        lasting = abs(float(heading[-1])) > 0.35 * float(np.ptp(heading))
        fast = float(np.abs(speed[first:last]).mean()) > LANE_SPEED_M_S
        if _is_lane(shift, s) and not lasting and fast and (last - first) * grid.step_s < 12.0:
            found.append((s, first, last))
    return found


def _is_lane(shift_m: float, sign: int) -> bool:
    return bool(LANE_SHIFT_M < sign * shift_m < 3.0 * LANE_SHIFT_M)


def _road(yaw: Floats, grid: Grid) -> Floats:
    """(n,) yaw rate of the road itself: the running median over 12 s, longer than any manoeuvre."""
    coarse = grid.steps(0.1)
    size = min(121, max(3, len(yaw) // coarse))
    middle = median_filter(yaw[::coarse], size=size, mode="nearest")
    return np.interp(np.arange(len(yaw)), np.arange(len(middle)) * coarse, middle)


def hard_brakings(base: Base, grid: Grid, settings: Settings) -> list[tuple[float, float]]:
    """(seconds, greatest deceleration m/s^2) of each hard braking."""
    if base.speed is None:
        return []
    pace = np.abs(resample(base.speed, grid))
    gain = smooth(pace, 0.2, grid, order=1)
    found = []
    for a, b in close_runs(-gain > settings.hard_braking_m_s2, grid.steps(0.5), grid.steps(0.2)):
        found.append((a * grid.step_s, float(-gain[a:b].min())))
    return found
