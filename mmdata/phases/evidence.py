"""What grammars speak of: soft facts over time, and instants at which something changed.

A fact is (value, weight), both (n,) in 0 to 1: `moving`, `up`, `closed` ... The weight is how much
it matters then: directions mean nothing while the hand stands. An instant has a kind, a time and a
strength in 0 to 1. Both exist only for signals the episode has.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from mmdata.phases.contacts import Contact, GripperMove, mask_of
from mmdata.phases.features import Motion, direction_change
from mmdata.phases.grid import Grid, runs, smooth, widened
from mmdata.phases.inputs import Floats
from mmdata.phases.settings import Settings

DIRECTION_WEIGHT = 0.35
"""Weight of the direction of motion against other facts."""


@dataclass(frozen=True, slots=True)
class Instant:
    """Something changed at `seconds`: kind (start, stop, turn, contact_on ...), strength 0 to 1."""

    kind: str
    seconds: float
    strength: float
    effector: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All facts (name -> value, weight) and instants of an episode on its grid; lasting (n,) is how
    much changes for good at each instant, 1 for the strongest, None where nobody looked; flow
    (n, C): what all hands do, as of `features.flow`.
    """

    grid: Grid
    facts: Mapping[str, tuple[Floats, Floats]]
    instants: Sequence[Instant]
    top_speed_m_s: float = 0.0
    lasting: Floats | None = None
    flow: Floats | None = None


def _ramp(values: Floats, low: float, high: float) -> Floats:
    """0 below low, 1 above high, linear between."""
    out: Floats = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    return out


def motion_facts(
    motion: Motion,
    grasps: list[Contact],
    tools: list[Contact],
    moves: list[GripperMove],
    grid: Grid,
) -> dict[str, tuple[Floats, Floats]]:
    """Facts of one effector."""
    ones = np.ones(grid.n)
    facts: dict[str, tuple[Floats, Floats]] = {}
    moving = ones
    if motion.speed is not None:
        moving = _ramp(motion.speed, motion.scales.still, 3.0 * motion.scales.still)
        facts["moving"] = (moving, ones)
    if motion.up is not None and motion.speed is not None:
        slope = motion.up / np.maximum(motion.speed, 1e-12)
        # One direction is kept through a whole movement, so its moments say less than their number.
        matters = DIRECTION_WEIGHT * moving
        facts["up"] = (_ramp(slope, 0.3, 0.8), matters)
        facts["down"] = (_ramp(-slope, 0.3, 0.8), matters)
        facts["lateral"] = (1.0 - _ramp(np.abs(slope), 0.4, 0.9), matters)
    if motion.tilt_rate is not None:
        tilting = _ramp(motion.tilt_rate, 0.15, 0.4)
        for a, b in _tilts(motion.tilt_rate, grid):
            tilting[a:b] = np.maximum(tilting[a:b], 0.75)
        facts["tilting"] = (tilting, ones)
    if motion.width is not None or motion.touch is not None or motion.command is not None:
        facts["closed"] = (mask_of(grasps, grid), ones)
        facts["holding"] = (mask_of(grasps, grid, held_only=True), ones)
    if motion.width is not None:
        for name, closing in (("closing", True), ("opening", False)):
            mask = np.zeros(grid.n)
            for m in moves:
                if m.closing is closing:
                    mask[int(m.start_s / grid.step_s) : int(m.end_s / grid.step_s) + 1] = 1.0
            facts[name] = (mask, ones)
    if motion.force is not None:
        facts["pressing"] = (mask_of(tools, grid), ones)
    return facts


def motion_instants(
    motion: Motion,
    grasps: list[Contact],
    tools: list[Contact],
    moves: list[GripperMove],
    grid: Grid,
    settings: Settings,
) -> list[Instant]:
    """Instants of one effector: start, stop, turn, contacts, gripper."""
    found: list[Instant] = []
    if motion.before is not None and motion.after is not None:
        found += turns(motion, grid, settings) + dips(motion, grid, settings)
    for c in grasps:
        if not c.open_start:
            found.append(Instant("contact_on", c.start_s, max(c.confidence, 0.6), c.effector))
        if not c.open_end:
            found.append(Instant("contact_off", c.end_s, max(c.confidence, 0.6), c.effector))
    for c in tools:
        found.append(Instant("tool_on", c.start_s, c.confidence, c.effector))
        found.append(Instant("tool_off", c.end_s, c.confidence, c.effector))
    for m in moves:
        kind = "close_start" if m.closing else "open_end"
        at = m.start_s if m.closing else m.end_s
        found.append(
            Instant(kind, at, float(np.clip(abs(m.width_to - m.width_from), 0.3, 0.8)), motion.name)
        )
    if motion.tilt_rate is not None:
        for a, b in _tilts(motion.tilt_rate, grid):
            found += [
                Instant(kind, i * grid.step_s, 0.7, motion.name)
                for kind, i in (("tilt_start", a), ("tilt_stop", b))
                if 0 < i < grid.n
            ]
    return found


def _tilts(rate: Floats, grid: Grid) -> list[tuple[int, int]]:
    """Runs of tilting, from where it sets out to where it ends."""
    found: list[tuple[int, int]] = []
    for a, b in runs(_ramp(rate, 0.15, 0.4) > 0.5):
        a, b = widened(rate, a, b, grid)
        if found and a <= found[-1][1]:
            a, b = found.pop()[0], max(b, a)
        found.append((a, b))
    return found


def turns(motion: Motion, grid: Grid, settings: Settings) -> list[Instant]:
    """Local maxima of the direction-change statistic, told apart by which side stands.

    The middle of a maximum's plateau is taken, since a start out of rest is flat at the top. A
    pause belongs to the phase before it, so a stop is worth half a start.
    """
    assert motion.before is not None
    assert motion.after is not None
    assert motion.velocity is not None
    still = motion.scales.still
    change = smooth(direction_change(motion.before, motion.after, still), 0.02, grid)
    w = grid.steps(settings.window_s)
    change[:w] = 0.0
    change[-w:] = 0.0
    peaks, facts = find_peaks(
        change, height=settings.direction_threshold, prominence=0.15, plateau_size=(1, None)
    )
    a, b = np.linalg.norm(motion.before, axis=1), np.linalg.norm(motion.after, axis=1)
    found = []
    for k, i in enumerate(peaks.tolist()):
        quiet, loud = min(a[i], b[i]), max(a[i], b[i])
        kind = "turn"
        if quiet < 2.0 * still and quiet < 0.3 * loud:
            kind = "start" if b[i] > a[i] else "stop"
        height = float(facts["peak_heights"][k])
        pace = float(np.clip(loud / (0.25 * max(motion.scales.fast, 1e-12)), 0.2, 1.0))
        strength = float(np.clip(height, 0.0, 1.0)) * pace
        if kind == "start":
            i = _onset(motion.velocity, i, grid)
        found.append(
            Instant(kind, float(i) * grid.step_s, strength * (0.5 if kind == "stop" else 1.0),
                    motion.name)
        )  # fmt: skip
    return _apart(found, settings.separation_s)


def _apart(found: list[Instant], least_s: float) -> list[Instant]:
    """The strongest of each kind where several lie closer than least_s; kinds do not compete."""
    kept: list[Instant] = []
    taken: dict[str, list[float]] = {}
    for instant in sorted(found, key=lambda i: -i.strength):
        times = taken.setdefault(instant.kind, [])
        k = bisect_left(times, instant.seconds)
        if all(abs(t - instant.seconds) >= least_s for t in times[max(0, k - 1) : k + 1]):
            times.insert(k, instant.seconds)
            kept.append(instant)
    return sorted(kept, key=lambda i: i.seconds)


def _onset(velocity: Floats, i: int, grid: Grid) -> int:
    """Where a start found near i began: the rise of speed from 20 to 60 % extrapolated to nothing.

    Exact for a linear rise; a minimum-jerk start is seen 5 % of its length late, a step one
    smoothing width early.
    """
    reach = grid.steps(0.3)
    a, b = max(0, i - reach), min(grid.n, i + reach)
    speed = np.linalg.norm(velocity[a:b], axis=1)
    top = int(np.argmax(speed[i - a :])) + (i - a)
    bottom = int(np.argmin(speed[: top + 1]))
    rise = speed[top] - speed[bottom]
    if rise <= 0 or top == bottom:
        return i
    climb = speed[bottom : top + 1]
    low = bottom + int(np.flatnonzero(climb <= speed[bottom] + 0.2 * rise)[-1])
    high = bottom + int(np.flatnonzero(climb >= speed[bottom] + 0.6 * rise)[0])
    back = 0.5 * max(high - low, 1)
    return a + max(bottom, round(low - back))


def dips(motion: Motion, grid: Grid, settings: Settings) -> list[Instant]:
    """Speed minima between two movements: one ends, the next begins, without a stop or a turn."""
    if motion.speed is None or motion.scales.fast <= 0:
        return []
    level = np.log(np.maximum(motion.speed, motion.scales.still))
    valleys, facts = find_peaks(-level, prominence=0.7, distance=grid.steps(settings.separation_s))
    return [
        Instant("dip", float(i) * grid.step_s, float(np.clip(depth / 2.0, 0.0, 1.0)), motion.name)
        for i, depth in zip(valleys.tolist(), facts["prominences"], strict=True)
        if motion.speed[i] > 1.2 * motion.scales.still  # standing is a stop and a start
    ]


def strengths(instants: Sequence[Instant], kind: str, at: Floats, sigma_s: float) -> Floats:
    """(K,) strongest instant of a kind near each time, faded by a Gaussian of its distance."""
    mine = [(i.seconds, i.strength) for i in instants if i.kind == kind]
    out = np.zeros(len(at))
    if not mine:
        return out
    times, strong = (np.array(x) for x in zip(*sorted(mine), strict=True))
    # Only neighbours matter: the nearest three on either side cover any sensible sigma.
    base = np.searchsorted(times, at)
    for shift in range(-3, 3):
        j = np.clip(base + shift, 0, len(times) - 1)
        away = np.abs(at - times[j]) / sigma_s
        some = np.flatnonzero(away < 4.0)
        faded = strong[j[some]] * np.exp(-0.5 * away[some] ** 2)
        out[some] = np.maximum(out[some], faded)
    return out


def candidate_times(evidence: Evidence, fill_s: float = 0.5) -> Floats:
    """Times at which a boundary may lie: all instants, and fillers where none is for long."""
    end = (evidence.grid.n - 1) * evidence.grid.step_s
    times = np.unique(
        np.round([i.seconds for i in evidence.instants if 0.02 < i.seconds < end - 0.02], 4)
    )
    times = np.r_[0.0, times, end]
    fill = [
        np.linspace(a, b, int((b - a) / fill_s) + 2)[1:-1]
        for a, b in itertools.pairwise(times)
        if b - a > fill_s
    ]
    return np.unique(np.concatenate([times, *fill]))
