"""Vehicles and mobile bases: facts and instants from speed and yaw rate."""

from __future__ import annotations

import numpy as np

from mmdata.phases.evidence import Evidence, Instant
from mmdata.phases.grid import Grid, close_runs, resample, runs, smooth
from mmdata.phases.inputs import Base, Floats
from mmdata.phases.settings import Settings

LANE_SHIFT_M = 2.0
"""Least sideways shift that is a lane change; lanes are 2.5 to 3.75 m wide."""
FOLLOW_S = 3.0
"""Following: less than this many seconds behind whoever drives ahead."""


def base_evidence(base: Base, grid: Grid, settings: Settings) -> Evidence:
    """Facts `standing`, `speeding_up`, `slowing`, `turning_left`, `turning_right`, `shift_left`,
    `shift_right`, `following`, `backing`, as far as the signals reach, and their edges as instants.
    """
    ones = np.ones(grid.n)
    facts: dict[str, tuple[Floats, Floats]] = {}
    speed = None if base.speed is None else smooth(resample(base.speed, grid), 0.2, grid)
    yaw = None if base.yaw_rate is None else smooth(resample(base.yaw_rate, grid), 0.2, grid)
    if speed is not None:
        pace = np.abs(speed)
        facts["standing"] = ((pace < settings.base_still_m_s).astype(float), ones)
        gain = smooth(pace, 0.3, grid, order=1)
        # Speeding up and slowing are measured against the vehicle's own range of speeds.
        firm = max(0.3, 0.04 * float(np.percentile(pace, 95)))
        facts["speeding_up"] = (np.clip(gain / firm - 0.5, 0, 1), ones)
        facts["slowing"] = (np.clip(-gain / firm - 0.5, 0, 1), ones)
        facts["backing"] = ((speed < -settings.base_still_m_s).astype(float), ones)
    if yaw is not None:
        shift = _lane_shift(speed, yaw, grid, base, settings)
        for name, sign in (("left", 1.0), ("right", -1.0)):
            if shift is not None:
                facts[f"shift_{name}"] = ((sign * shift > 0).astype(float), ones)
            turn = np.clip(sign * yaw / settings.turn_rad_s - 0.5, 0.0, 1.0)
            if shift is not None:
                turn = np.where(shift != 0, 0.0, turn)
            facts[f"turning_{name}"] = (turn, ones)
    if base.lead_gap is not None and speed is not None:
        gap = resample(base.lead_gap, grid)
        near = (gap > 0) & (gap < FOLLOW_S * np.maximum(np.abs(speed), 1.0))
        facts["following"] = (near.astype(float), ones)
    instants = []
    for name, (value, _) in facts.items():
        for a, b in close_runs(value > 0.5, grid.steps(0.5), grid.steps(0.3)):
            for kind, i in ((f"{name}_on", a), (f"{name}_off", b)):
                if 0 < i < grid.n:
                    instants.append(Instant(kind, i * grid.step_s, 0.8, "base"))
    top = 0.0 if speed is None else float(np.abs(speed).max())
    return Evidence(grid, facts, instants, top)


def _lane_shift(
    speed: Floats | None, yaw: Floats, grid: Grid, base: Base, settings: Settings
) -> Floats | None:
    """(n,) +1 / -1 while moving a lane to the left / right, else 0; None without speed.

    A lane change is a swing of the heading away from the road's and back: the heading against its
    own line over 8 s, times speed, adds up to a lane's width without a lasting turn.
    """
    if speed is None:
        return None
    heading = np.cumsum(yaw) * grid.step_s
    if base.lateral is not None:
        sideways = smooth(resample(base.lateral, grid), 0.3, grid, order=1)
    else:
        sideways = speed * np.sin(heading - smooth(heading, 4.0, grid))
    out = np.zeros(grid.n)
    for sign in (1.0, -1.0):
        for a, b in runs(sign * sideways > 0.25):
            shift = float(sideways[a:b].sum()) * grid.step_s
            lasting = abs(heading[min(b, grid.n - 1)] - heading[max(a, 0)])
            before = max(0, a - grid.steps(1.0))
            after = min(grid.n - 1, b + grid.steps(1.0))
            swing = np.ptp(heading[before : after + 1])
            if (
                sign * shift > LANE_SHIFT_M
                and 1.5 < (b - a) * grid.step_s < 10.0
                and lasting < 0.5 * swing + 0.02
                and abs(speed[a:b]).mean() > 4.0
            ):
                out[a:b] = sign
    return out


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
