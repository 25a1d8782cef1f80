"""Contacts of tool or held object with the world, from compensated force.

What is carried is no contact: while something is held, the force is compared with that of a weight
between nothing (its support carries it) and all of it, along gravity and inertia, so neither
lifting nor setting down nor carrying counts, and what is left is the push of the world.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmdata.phases.contacts import Contact
from mmdata.phases.features import Motion
from mmdata.phases.grid import Grid, close_runs, crossing, robust_sigma, smooth
from mmdata.phases.inputs import Floats
from mmdata.phases.settings import Settings

AROUND_S = 0.12
"""Force this near to a change of the grasp belongs to the grasp."""
LASTS_S = 0.25
"""Shorter bursts are jolts of the arm, or bumps, which are told as collisions."""
MASS_DOUBT = 0.25
"""Share by which the fitted mass of the tool may be wrong."""
CARRIED = 75.0
"""Percentile of the load over a hold that is taken for the weight of what is held."""


@dataclass(frozen=True, slots=True)
class Touches:
    """Tool contacts, and when held objects were set down on their support."""

    tools: list[Contact]
    set_down: list[Contact]


def tool_touches(motion: Motion, grasps: list[Contact], grid: Grid, settings: Settings) -> Touches:
    """Contacts of one effector's tool or load, and settings-down; empty without a wrench."""
    if motion.force is None:
        return Touches([], [])
    force = smooth(motion.force, 0.02, grid)
    held = [(c, *_span(c, grid)) for c in grasps]
    base = _level(force, [(a, b) for _, a, b in held], motion, grid)
    left = np.linalg.norm(force - base, axis=1)
    near = np.zeros(grid.n, bool)
    set_down: list[Contact] = []
    for contact, a, b in held:
        moves_on = _moves_on(motion, a, grid)
        near[max(0, a - grid.steps(AROUND_S)) : moves_on] = True
        near[max(0, b - grid.steps(AROUND_S)) : b + grid.steps(AROUND_S)] = True
        # What the grip itself does to the sensor shows before the load comes on.
        grip = slice(a + grid.steps(0.5 * AROUND_S), moves_on)
        over = force[a:b] - base[a:b]
        over -= np.median(force[grip] - base[grip], axis=0) if b > grip.stop else 0.0
        if motion.per_kg is None:  # either it hangs on the hand for most of the time, or not
            usual = np.linalg.norm(over - np.median(over, axis=0), axis=1)
            left[a:b] = np.minimum(left[a:b], usual)
            continue
        per_kg = motion.per_kg[a:b]
        load = (over * per_kg).sum(axis=1) / np.maximum((per_kg**2).sum(axis=1), 1e-9)
        sign = motion.load_sign or float(np.sign(np.median(load))) or 1.0
        load, per_kg = sign * load, sign * per_kg
        weight = max(0.0, float(np.percentile(load, CARRIED)))
        carried = np.clip(load, 0.0, 1.3 * weight)
        left[a:b] = np.linalg.norm(over - carried[:, None] * per_kg, axis=1)
        set_down += _set_down(contact, load, weight, a, grid)
    threshold = max(
        settings.contact_sigmas * _free_sigma(left, motion, grid),
        0.2 * float(np.percentile(left, 99)),
    )
    over_it = left / (threshold + _doubt(motion, grid))
    found = [
        Contact(
            motion.name,
            "tool",
            crossing(over_it, a, 1.0) * grid.step_s,
            b * grid.step_s,
            float(np.clip(over_it[a:b].max() / 4.0 + 0.3, 0.3, 0.9)),
            ("wrench",),
        )
        for a, b in close_runs((over_it > 1.0) & ~near, grid.steps(0.1), grid.steps(LASTS_S))
    ]
    return Touches(found, set_down)


def _doubt(motion: Motion, grid: Grid) -> Floats:
    """(n,) N that an error of the tool's mass may leave where it is tilted or accelerated."""
    if motion.per_kg is None:
        return np.zeros(grid.n)
    usual = np.median(motion.per_kg, axis=0)
    away = np.linalg.norm(smooth(motion.per_kg, 0.02, grid) - usual, axis=1)
    return MASS_DOUBT * motion.tool_kg * np.asarray(away)


def _free_sigma(left: Floats, motion: Motion, grid: Grid) -> float:
    """Size of the force left in free motion: that of the calmest sixth of what moves.

    Contact may fill most of an episode, and standing is calmer than any motion.
    """
    size = grid.steps(0.25)
    count = len(left) // size
    if count < 4:
        return max(1.25 * float(np.percentile(left, 30)), 1e-9)
    blocks = np.median(left[: count * size].reshape(count, size), axis=1)
    if motion.speed is not None:
        speed = motion.speed[: count * size].reshape(count, size).mean(axis=1)
        moving = speed > 2.0 * motion.scales.still
        blocks = blocks[moving] if np.count_nonzero(moving) > 4 else blocks
    return max(1.25 * float(np.percentile(blocks, 100.0 / 6.0)), 1e-9)


def _moves_on(motion: Motion, a: int, grid: Grid) -> int:
    """When the hand moves on after a grasp at a, within a second."""
    least, most = a + grid.steps(2.0 * AROUND_S), a + grid.steps(1.0)
    if motion.speed is None:
        return least
    moving = np.flatnonzero(motion.speed[least:most] > 3.0 * motion.scales.still)
    return least + int(moving[0]) if moving.size else min(most, grid.n)


def _span(contact: Contact, grid: Grid) -> tuple[int, int]:
    a = min(round(contact.start_s / grid.step_s), grid.n - 1)
    return a, max(a + 1, min(round(contact.end_s / grid.step_s), grid.n))


def _level(force: Floats, held: list[tuple[int, int]], motion: Motion, grid: Grid) -> Floats:
    """(n, 3) force of the empty hand: the median of each stretch without a hold, lines between.

    An episode starts in free motion; where most of a stretch differs strongly from that, the
    stretch is contact rather than drift of the sensor.
    """
    free = np.median(force[: grid.steps(1.0)], axis=0)
    assert motion.force is not None
    noise = float(np.linalg.norm([robust_sigma(np.diff(f)) for f in motion.force.T]))
    strong = max(0.4 * float(np.percentile(np.linalg.norm(force - free, axis=1), 99)), 2 * noise)
    open_hand = np.ones(grid.n, bool)
    for a, b in held:
        open_hand[a:b] = False
    out = np.full(force.shape, np.nan)
    for a, b in close_runs(open_hand, 1, 1):
        level = np.median(force[a:b], axis=0)
        out[a:b] = free if np.linalg.norm(level - free) > strong else level
    known = np.flatnonzero(open_hand)
    if known.size == 0:
        return np.tile(free, (grid.n, 1))
    missing = np.flatnonzero(~open_hand)
    for column in out.T:
        column[missing] = np.interp(missing, known, column[known])
    return out


def _set_down(
    contact: Contact, load: Floats, weight: float, first: int, grid: Grid
) -> list[Contact]:
    """Where the load of a hold leaves the hand for good while the fingers still hold."""
    noise = robust_sigma(np.diff(load))
    if contact.held is False or contact.open_end or weight < max(10.0 * noise, 0.01):
        return []
    loaded = np.flatnonzero(load > 0.5 * weight)
    gone = int(loaded[-1]) + 1
    if gone >= len(load) - 1 or loaded.size < grid.steps(0.3):
        return []
    at = (first + gone) * grid.step_s
    return [replace(contact, kind="support", start_s=at, evidence=("load leaves the hand",),
                    confidence=0.7)]  # fmt: skip


__all__ = ["Touches", "tool_touches"]
