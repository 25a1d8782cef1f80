"""Events: contacts, grasps and how they ended, slips, hesitations, collisions, and the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdata.phases.contacts import Contact, GripperMove
from mmdata.phases.features import Motion
from mmdata.phases.grid import Grid, close_runs, robust_sigma, smooth
from mmdata.phases.inputs import Floats
from mmdata.phases.settings import Settings

PLACING_S = 2.0
"""A force this long before the release is the object meeting its support."""


@dataclass(frozen=True, slots=True)
class Found:
    """An event in seconds since the start of the grid."""

    label: str
    seconds: float
    confidence: float
    evidence: tuple[str, ...]
    effector: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """success, failure or unknown, and why."""

    label: str
    confidence: float
    evidence: tuple[str, ...]


def _lost(contact: Contact, moves: Sequence[GripperMove], motion: Motion, grid: Grid) -> str | None:
    """Why a contact ended without the gripper being opened; None where it was opened."""
    end = contact.end_s
    if contact.open_end or "command only" in contact.evidence:
        return None
    if any(not m.closing and m.start_s - 0.25 < end < m.end_s + 0.1 for m in moves):
        return None
    if any(m.closing and abs(m.start_s - end) < 0.3 for m in moves):
        return "fingers closed further where the object had been"
    if motion.command is not None:
        a = int(max(0.0, end - 0.3) / grid.step_s)
        if motion.command[a : int(end / grid.step_s) + 1].max() > 0.5:
            return None
        return "contact ended although closing was commanded"
    return "contact ended although the gripper did not open" if motion.width is not None else None


def grasp_events(
    motion: Motion, grasps: list[Contact], moves: list[GripperMove], grid: Grid, settings: Settings
) -> list[Found]:
    """contact_on/off, grasp_success/failure, drop, regrasp and slip of one effector."""
    out: list[Found] = []
    failed_before: Found | None = None
    for c in grasps:
        at = c.effector
        if c.held is False:
            out.append(Found("grasp_failure", c.start_s, c.confidence, c.evidence, at))
            failed_before = out[-1]
            continue
        if not c.open_start:
            out.append(Found("contact_on", c.start_s, c.confidence, c.evidence, at))
            out.append(
                Found(
                    "grasp_success",
                    c.start_s,
                    c.confidence if c.held else 0.5,
                    c.evidence if c.held else (*c.evidence, "no signal tells a hold from a miss"),
                    at,
                )
            )
        if failed_before is not None and c.start_s - failed_before.seconds < 10.0:
            out.append(
                Found("regrasp", c.start_s, c.confidence, ("after " + failed_before.label,), at)
            )
        failed_before = None
        if not c.open_end:
            out.append(Found("contact_off", c.end_s, c.confidence, c.evidence, at))
        if why := _lost(c, moves, motion, grid):
            out.append(Found("drop", c.end_s, 0.8, (why,), at))
            failed_before = out[-1]
        out += _slips(motion, c, grid)
    return out


def _slips(motion: Motion, contact: Contact, grid: Grid) -> list[Found]:
    """Bursts of touch vibration while holding, clear of grasping and letting go."""
    if motion.slip is None:
        return []
    a = int((contact.start_s + 0.2) / grid.step_s)
    b = int((contact.end_s - 0.1) / grid.step_s)
    if b - a < grid.steps(0.2):
        return []
    energy = np.log(np.maximum(motion.slip[a:b], 1e-30))
    middle = float(np.median(energy))
    threshold = middle + max(8.0 * robust_sigma(np.diff(energy)), 3.0 * robust_sigma(energy), 1.5)
    return [
        Found(
            "slip",
            contact.start_s + 0.2 + i * grid.step_s,
            float(np.clip((energy[i:j].max() - middle) / 5.0, 0.3, 0.9)),
            ("tactile vibration",),
            contact.effector,
        )
        for i, j in close_runs(energy > threshold, grid.steps(0.3), grid.steps(0.04))
    ]


def hesitations(
    motion: Motion,
    grasps: list[Contact],
    moves: list[GripperMove],
    grid: Grid,
    settings: Settings,
) -> list[Found]:
    """Going nowhere for long between two movements, with the gripper at rest.

    Net speed over the hesitation time counts, so dithering on the spot is one too. Standing before
    the first and after the last movement is waiting, not hesitation.
    """
    if motion.speed is None or motion.before is None or motion.velocity is None:
        return []
    w = min(grid.steps(settings.hesitation_s), grid.n - 1)
    path = np.cumsum(motion.velocity, axis=0) * grid.step_s
    net = np.linalg.norm(path[w:] - path[:-w], axis=1) / settings.hesitation_s
    slow = np.zeros(grid.n, bool)
    for a, b in close_runs(net < motion.scales.still, 1, 1):
        slow[a : b + w] = True
    going = np.flatnonzero(motion.speed > 3.0 * motion.scales.still)
    if len(going) == 0:
        return []
    out = []
    for a, b in close_runs(slow, grid.steps(0.1), w):
        start, end = a * grid.step_s, b * grid.step_s
        busy = any(m.start_s < end + 0.1 and m.end_s > start - 0.1 for m in moves) or any(
            start - 0.3 < t < end + 0.3 for c in grasps for t in (c.start_s, c.end_s)
        )
        resting = end - start > settings.rest_s
        if busy or resting or a <= going[0] or b >= going[-1]:
            continue
        out.append(
            Found(
                "hesitation",
                start,
                float(np.clip((end - start) / (3.0 * settings.hesitation_s), 0.3, 0.9)),
                (f"no headway for {end - start:.2f} s",),
                motion.name,
            )
        )
    return out


def placings(motion: Motion, grasps: list[Contact], touches: list[Contact]) -> list[Found]:
    """The held object meets its support: the first new force, or the load leaving the hand, of the
    last moments before it is let go.
    """
    out = []
    for c in grasps:
        if c.held is False or c.open_end:
            continue
        before = [
            t for t in touches if c.start_s + 0.3 < t.start_s < c.end_s < t.start_s + PLACING_S
        ]
        if before:
            t = min(before, key=lambda t: t.start_s)
            out.append(Found("placed", t.start_s, t.confidence, t.evidence, motion.name))
    return out


def collisions(motion: Motion, grasps: list[Contact], grid: Grid) -> list[Found]:
    """Sudden compensated force that stops a moving hand, away from grasping and placing."""
    if motion.force is None or motion.speed is None:
        return []
    force = np.linalg.norm(smooth(motion.force, 0.01, grid), axis=1)
    sigma = max(robust_sigma(force), 1e-9)
    level = float(np.median(force)) + max(12.0 * sigma, 0.3 * float(force.max()))
    changes = [t for c in grasps for t in (c.start_s, c.end_s)]
    out = []
    for a, b in close_runs(force > level, grid.steps(0.3), 1):
        at = a * grid.step_s
        placing = any(c.start_s < at < c.end_s < at + PLACING_S for c in grasps)
        if placing or any(abs(at - t) < 0.2 for t in changes):
            continue
        before = float(motion.speed[max(0, a - grid.steps(0.15)) : a + 1].max())
        after = float(motion.speed[a : a + grid.steps(0.25)].min())
        if before > 4.0 * motion.scales.still and after < 0.5 * before:
            out.append(
                Found(
                    "collision",
                    at,
                    float(np.clip(force[a:b].max() / (4 * level) + 0.3, 0.3, 0.9)),
                    (f"force {force[a:b].max():.1f} N", f"speed falls to {after / before:.0%}"),
                    motion.name,
                )
            )
    return out


def outcome_of(
    motions: Sequence[Motion], grasps: Sequence[Contact], events: Sequence[Found], grid: Grid
) -> Outcome:
    """Outcome of a handling task from how its grasps ended; unknown where nothing was gripped.

    Success is an object held, carried and let go on purpose after the last failure. It speaks of
    handling only: whether the object is where it should be, these signals cannot tell.
    """
    known = {m.name: m for m in motions}
    gripping = [m for m in motions if m.width is not None or m.touch is not None]
    if not gripping:
        return Outcome("unknown", 0.0, ("no gripper signal",))
    if not grasps:
        return Outcome("unknown", 0.3, ("the gripper never closed on anything",))
    held = [c for c in grasps if c.held is not False]
    drops = [e.seconds for e in events if e.label == "drop"]
    last_failure = max(
        [e.seconds for e in events if e.label in ("drop", "grasp_failure", "collision")],
        default=-1.0,
    )
    if not held:
        return Outcome("failure", 0.85, ("every grasp closed on nothing",))
    paths = {
        n: np.cumsum(m.velocity, axis=0) * grid.step_s
        for n, m in known.items()
        if m.velocity is not None
    }
    reach = {n: float(np.linalg.norm(np.ptp(p, axis=0))) for n, p in paths.items()}
    good = [
        c
        for c in held
        if not c.open_end
        and not any(abs(c.end_s - d) < 1e-6 for d in drops)
        and (
            c.effector not in paths or _extent(paths[c.effector], c, grid) > 0.1 * reach[c.effector]
        )
    ]
    if good and good[-1].end_s > last_failure:
        sure = 0.85 if good[-1].held else 0.6
        return Outcome("success", sure, ("held, carried and released on purpose",))
    if drops and last_failure in drops:
        return Outcome("failure", 0.8, ("the object was dropped and not picked up again",))
    if held[-1].open_end:
        return Outcome("unknown", 0.3, ("still holding at the end",))
    if last_failure >= 0 and not any(c.start_s > last_failure for c in held):
        return Outcome("failure", 0.7, ("no grasp after the last failure",))
    return Outcome("unknown", 0.3, ("held, but hardly moved",))


def _extent(path: Floats, contact: Contact, grid: Grid) -> float:
    """Diagonal of the box a hand moves in during a contact."""
    a, b = int(contact.start_s / grid.step_s), int(contact.end_s / grid.step_s)
    return float(np.linalg.norm(np.ptp(path[a : b + 1], axis=0)))
