"""When the gripper holds something and when the tool touches something, to a few milliseconds.

A grasp contact starts when the fingers meet the object, not when closing is commanded (about
100 ms earlier). Sources, best first: tactile load (first rise, extrapolated back to its floor),
gripper width (the knee at which closing stalls, half its peak rate), command (only when nothing
else is there, and said so). A click in the sound within 40 ms sharpens an onset taken from the
width or the command. Contacts of the tool itself: `mmdata.phases.tools`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdata.phases.features import Motion
from mmdata.phases.grid import Grid, close_runs, crossing, robust_sigma, runs
from mmdata.phases.inputs import Floats
from mmdata.phases.settings import Settings


@dataclass(frozen=True, slots=True)
class GripperMove:
    """One closing or opening: seconds, widths in ranges (0 closed, 1 open)."""

    closing: bool
    start_s: float
    end_s: float
    width_from: float
    width_to: float


@dataclass(frozen=True, slots=True)
class Contact:
    """Contact of one effector over [start_s, end_s); evidence source -> onset it saw, seconds.

    `kind` is "grasp" or "tool". `held` is False for a grasp that found nothing, None where no
    signal tells. `open_end` marks a contact that the episode's end cut off.
    """

    effector: str
    kind: str
    start_s: float
    end_s: float
    confidence: float
    evidence: tuple[str, ...]
    held: bool | None = None
    open_end: bool = False
    open_start: bool = False


def gripper_moves(motion: Motion, grid: Grid, settings: Settings) -> list[GripperMove]:
    """Closings and openings of the gripper, ends at half the peak rate (unbiased for a knee)."""
    width, rate = motion.width, motion.width_rate
    if width is None or rate is None:
        return []
    noise = 4.0 * robust_sigma(rate)
    level = max(settings.gripper_rate, min(noise, 1.0))
    found = []
    for sign in (-1.0, 1.0):
        pace = sign * rate
        for a, b in close_runs(pace > 0.5 * level, grid.steps(0.06), grid.steps(0.02)):
            peak = float(pace[a:b].max())
            travel = sign * float(width[min(b, grid.n - 1)] - width[max(a - 1, 0)])
            if peak < level or travel < settings.gripper_travel:
                continue
            half = np.flatnonzero(pace[a:b] >= 0.5 * peak) + a
            first, last = int(half[0]), int(half[-1])
            start = crossing(pace, first, 0.5 * peak) if first > 0 else 0.0
            end = crossing(pace, last + 1, 0.5 * peak) if last + 1 < grid.n else float(last)
            found.append(
                GripperMove(
                    sign < 0,
                    start * grid.step_s,
                    end * grid.step_s,
                    float(width[max(a - 1, 0)]),
                    float(width[min(b, grid.n - 1)]),
                )
            )
    return sorted(found, key=lambda m: m.start_s)


@dataclass(frozen=True, slots=True)
class LoadInterval:
    """Seconds in which a load stands above its floor; sigma_s is how well the onset is known."""

    start_s: float
    end_s: float
    sigma_s: float


def load_intervals(
    seconds: Floats, load: Floats, settings: Settings, *, fraction: float | None = None
) -> list[LoadInterval]:
    """Where a load (N,) sampled at seconds (N,) stands above its floor.

    The floor is the median of what lies near the 20th percentile, noise comes from second
    differences, so a ramp is not noise. Contact began between the last sample at the floor and
    the first above: the middle of the two, or further back along the slope where the rise takes
    several samples.
    """
    if len(load) < 4:
        return []
    noise = robust_sigma(np.diff(load, 2)) / np.sqrt(6.0)
    floor = float(np.percentile(load, 20))
    near = load[load <= floor + 6.0 * noise]
    floor = float(np.median(near)) if near.size else floor
    top = float(np.percentile(load, 99.5))
    share = settings.contact_fraction if fraction is None else fraction
    threshold = max(settings.contact_sigmas * noise, share * (top - floor))
    if top - floor < 2.0 * threshold:
        return []
    found: list[LoadInterval] = []
    for a, b in runs(load > floor + threshold):
        start, sigma = _edge(seconds, load, a, -1, floor)
        end, _ = _edge(seconds, load, b - 1, 1, floor)
        if found and start - found[-1].end_s < settings.contact_gap_s:
            found[-1] = LoadInterval(found[-1].start_s, end, found[-1].sigma_s)
        else:
            found.append(LoadInterval(start, end, sigma))
    return [i for i in found if i.end_s - i.start_s >= settings.contact_gap_s]


def _edge(seconds: Floats, load: Floats, i: int, outward: int, floor: float) -> tuple[float, float]:
    """(instant, sigma) at which the load left the floor, near its outermost sample i above it."""
    j = i + outward
    if not 0 <= j < len(load):
        return float(seconds[i]), 0.0
    gap = abs(float(seconds[i] - seconds[j]))
    inside = min(max(i - outward, 0), len(load) - 1)
    rise = float(load[inside] - load[i])
    level = float(load[i]) - floor
    middle = 0.5 * gap
    if rise > 0.5 * level:  # still rising after the first sample above: follow the slope back
        slope = rise / max(abs(float(seconds[inside] - seconds[i])), 1e-9)
        middle = min(max(level / slope, 0.0), max(gap, 0.03))
    return float(seconds[i]) + outward * middle, gap / np.sqrt(12.0) + 0.002


def _command_moves(motion: Motion, grid: Grid) -> list[tuple[bool, float]]:
    """(closing, seconds) of each command change: from one third of its range to the other, timed
    where it crosses the middle, so that a command that wavers there is none.
    """
    if motion.command is None:
        return []
    command = motion.command
    sure = np.flatnonzero((command < 1.0 / 3.0) | (command > 2.0 / 3.0))
    if sure.size == 0:
        return []
    closed = command[sure] < 0.5
    out = []
    for k in np.flatnonzero(np.diff(closed.astype(np.int8))).tolist():
        first, last = int(sure[k]), int(sure[k + 1])
        beyond = command[first : last + 1] < 0.5
        at = last - int(np.argmax((beyond != closed[k + 1])[::-1])) + 1
        out.append((bool(closed[k + 1]), crossing(command, at, 0.5) * grid.step_s))
    return out


def grasp_contacts(
    motion: Motion, moves: list[GripperMove], clicks_s: Floats, grid: Grid, settings: Settings
) -> list[Contact]:
    """Every interval in which the gripper is closed on something (or on nothing: held False)."""
    duration = (grid.n - 1) * grid.step_s
    commands = _command_moves(motion, grid)
    touched = []
    if motion.touch is not None:
        touched = load_intervals(motion.touch_s, motion.touch, settings)
    closings = [m for m in moves if m.closing]
    found: list[Contact] = []
    for interval in touched:
        start, end = interval.start_s, interval.end_s
        evidence = ["tactile"]
        confidence = 0.9
        knees = [m.end_s for m in closings if abs(m.end_s - start) < 0.15]
        if knees:
            evidence.append("width")
            confidence = 0.97
            start = _fuse(start, interval.sigma_s, min(knees, key=lambda k: abs(k - start)))
        openings = [m.start_s for m in moves if not m.closing and abs(m.start_s - end) < 0.15]
        if openings:
            end = _fuse(end, interval.sigma_s, min(openings, key=lambda k: abs(k - end)))
        if len(clicks_s) and np.abs(clicks_s - start).min() < 0.05:
            evidence.append("audio")
        found.append(
            Contact(
                motion.name,
                "grasp",
                start,
                end,
                confidence,
                tuple(evidence),
                True,
                end >= duration - grid.step_s,
                start <= grid.step_s,
            )
        )
    narrowest = min((m.width_to for m in closings), default=0.0)
    widest = max((m.width_to for m in closings), default=0.0)
    for k, move in enumerate(moves):
        if not move.closing:
            continue
        if any(c.start_s - 0.3 < move.end_s < c.end_s for c in found if "tactile" in c.evidence):
            continue
        travel = move.width_from - move.width_to
        if travel < settings.grasp_travel:
            continue
        later = [m for m in moves[k + 1 :] if not m.closing]
        following = [m for m in moves[k + 1 :] if m.closing]
        end = later[0].start_s if later else duration
        if following and following[0].start_s < end and not later:
            end = duration
        held: bool | None = None
        evidence, confidence = ["width"], 0.7
        if motion.touch is not None:
            held, confidence = False, 0.85
            evidence.append("no tactile load")
        elif widest - narrowest > 2.0 * settings.closed_margin:
            held = move.width_to > narrowest + settings.closed_margin
            evidence.append("stalled wide" if held else "closed fully")
        start = move.end_s
        near = clicks_s[np.abs(clicks_s - start) < 0.04] if len(clicks_s) else clicks_s
        if len(near):
            start = float(near[np.argmin(np.abs(near - start))])
            evidence.append("audio")
            confidence = 0.85
        if any(c.start_s <= start < c.end_s for c in found):
            continue
        if later and end - start < settings.twitch_s and travel < 2.5 * settings.grasp_travel:
            continue
        found.append(
            Contact(
                motion.name,
                "grasp",
                start,
                max(end, start + grid.step_s),
                confidence,
                tuple(evidence),
                held,
                not later,
            )
        )
    if motion.width is None and motion.touch is None:
        found = _from_command(motion, commands, duration, settings)
    return sorted(found, key=lambda c: c.start_s)


WIDTH_SIGMA_S = 0.012
"""How well the knee of the gripper's width tells the contact."""


def _fuse(touch_s: float, sigma_s: float, width_s: float) -> float:
    """Two instants of one contact, weighted by how well each source knows it."""
    a, b = 1.0 / max(sigma_s, 1e-3) ** 2, 1.0 / WIDTH_SIGMA_S**2
    return (a * touch_s + b * width_s) / (a + b)


def _from_command(
    motion: Motion, commands: list[tuple[bool, float]], duration: float, settings: Settings
) -> list[Contact]:
    """Grasps as commanded: the only choice without width and touch, and earlier than contact."""
    found = []
    for k, (closing, at) in enumerate(commands):
        if closing:
            end = next((t for c, t in commands[k + 1 :] if not c), duration)
            if end - at < settings.twitch_s and end < duration:
                continue
            found.append(
                Contact(
                    motion.name,
                    "grasp",
                    at,
                    end,
                    0.4,
                    ("command only",),
                    None,
                    end == duration,
                )
            )
    return found


def mask_of(contacts: list[Contact], grid: Grid, *, held_only: bool = False) -> Floats:
    """(n,) 1 inside contacts, 0 outside."""
    out = np.zeros(grid.n)
    for c in contacts:
        if held_only and c.held is False:
            continue
        out[round(c.start_s / grid.step_s) : max(1, round(c.end_s / grid.step_s))] = 1.0
    return out


__all__ = [
    "Contact",
    "GripperMove",
    "LoadInterval",
    "grasp_contacts",
    "gripper_moves",
    "load_intervals",
    "mask_of",
]
