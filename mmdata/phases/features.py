"""From inputs to signals on the analysis grid: speed, direction, gripper, force, touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmdata.geometry import (
    quat_conjugate,
    quat_continuous,
    quat_multiply,
    quat_rotate,
    quat_to_rotvec,
)
from mmdata.phases.grid import Grid, resample, robust_sigma, smooth
from mmdata.phases.inputs import Effector, Floats, Inputs, Series
from mmdata.phases.settings import Settings
from mmdata.phases.touch import slip_energy, tactile_load
from mmdata.phases.wrench import compensate

TURNING_RAD_S = 0.1
"""A wrist that turns less on average hardly turns."""


@dataclass(frozen=True, slots=True)
class Scales:
    """What an effector's signals are measured against; taken from the episode unless given.

    fast: 95th percentile of speed; still: speed below which it stands; width: (closed, open);
    opens_up: whether a larger command means more open, None where nothing tells.
    """

    fast: float
    still: float
    width: tuple[float, float] | None = None
    command: tuple[float, float] | None = None
    opens_up: bool | None = None


@dataclass(frozen=True, slots=True)
class Motion:
    """Signals of one effector on the grid, each (n,) or None where the episode lacks it.

    space is "position" (m) or "joints" (rad). velocity (n, C) is smoothed half as much as speed;
    turning (n, 3) is rotation in rad/s. before and after (n, C) are mean velocities over the
    window before and after each instant. width and command are 0 closed to 1 open. force and per_kg
    (n, 3): what is left after compensation, and what a kilogram more would add to it, up to
    load_sign (0: not known); tool_kg: what was taken off for the empty hand.
    """

    name: str
    space: str | None
    speed: Floats | None
    velocity: Floats | None
    before: Floats | None
    after: Floats | None
    up: Floats | None
    tilt_rate: Floats | None
    turning: Floats | None
    width: Floats | None
    width_rate: Floats | None
    command: Floats | None
    touch: Floats | None
    touch_s: Floats
    slip: Floats | None
    scales: Scales
    force: Floats | None = None
    per_kg: Floats | None = None
    load_sign: float = 0.0
    tool_kg: float = 0.0


def window_velocity(path: Floats, grid: Grid, window_s: float) -> tuple[Floats, Floats]:
    """Mean velocities (n, C) over the window before and the window after each instant."""
    w = min(grid.steps(window_s), grid.n - 1)
    moved = (path[w:] - path[:-w]) / (w * grid.step_s)
    before = np.concatenate([np.repeat(moved[:1], w, axis=0), moved])
    after = np.concatenate([moved, np.repeat(moved[-1:], w, axis=0)])
    return before, after


def direction_change(before: Floats, after: Floats, still: float) -> Floats:
    """(n,) 1 - cos of the turn where both sides move, 1 - speed ratio where one side stands.

    0 is no change, 1 a right angle, a start or a stop, 2 a reversal. Between standing (`still`)
    and moving (twice that) the two blend, so no threshold is felt as a jump.
    """
    a, b = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    low, high = np.minimum(a, b), np.maximum(a, b)
    cosine = (before * after).sum(axis=1) / np.maximum(a * b, 1e-18)
    turn = 1.0 - np.clip(cosine, -1.0, 1.0)
    ratio = 1.0 - low / np.maximum(high, 1e-18)
    both = np.clip(low / max(still, 1e-18) - 1.0, 0.0, 1.0)
    one = np.clip(high / max(still, 1e-18) - 1.0, 0.0, 1.0)
    change: Floats = one * (both * turn + (1.0 - both) * ratio)
    return change


def _normalised(values: Floats, ends: tuple[float, float]) -> Floats:
    out: Floats = np.clip((values - ends[0]) / max(ends[1] - ends[0], 1e-12), -0.2, 1.2)
    return out


def _ends(values: Floats, series: Series) -> tuple[float, float] | None:
    """(closed, open) of what was placed on the grid; None where only noise or a last bit moves."""
    low, high = (float(x) for x in np.percentile(values, [0.5, 99.5]))
    sampled = np.ravel(series.values)
    steps = np.diff(sampled[np.isfinite(sampled)])
    fine = robust_sigma(steps)
    flickers = len(np.unique(sampled)) <= 3 and np.count_nonzero(steps) > max(10, 0.2 * len(steps))
    return (low, high) if high - low > max(10.0 * fine, 1e-9) and not flickers else None


def _polarity(command: Floats, width: Floats | None, grid: Grid) -> bool | None:
    """Whether the width grows after the command does, from their agreement 150 ms later."""
    if width is None:
        return None
    lag = min(grid.steps(0.15), grid.n - 1)
    c, w = command[:-lag] - command.mean(), width[lag:] - width.mean()
    norm = float(np.linalg.norm(c) * np.linalg.norm(w))
    if norm <= 0:
        return None
    score = float(c @ w) / norm
    return None if abs(score) < 0.3 else score > 0


def _noise(series: Series, settings: Settings) -> float:
    """Standard deviation of the smoothed path, from second differences of the samples."""
    if len(series.stamp_ns) < 4:
        return 0.0
    fine = [robust_sigma(c) / np.sqrt(6.0) for c in np.diff(series.values, 2, axis=0).T]
    period_s = float(np.median(np.diff(series.stamp_ns))) * 1e-9
    left = min(1.0, period_s / (2.0 * np.sqrt(np.pi) * settings.smooth_s))
    return float(np.linalg.norm(fine) * np.sqrt(left))


def motion_signals(
    effector: Effector, grid: Grid, settings: Settings, scales: Scales | None = None
) -> Motion:
    """Signals of one effector on the grid.

    `scales` (of what was seen before) fixes the ends of width and command and is the least that
    counts as fast and still.
    """
    source: Series | None = None
    path = space = up = tilt_rate = turning = None
    if effector.position is not None:
        source, space = effector.position, "position"
    elif effector.joints is not None:
        source, space = effector.joints, "joints"
    if source is not None:
        path = resample(source, grid)
    speed = velocity = before = after = None
    fast = still = 0.0
    if source is not None and path is not None and np.isfinite(path).all():
        calm = smooth(path, settings.smooth_s, grid)
        before, after = window_velocity(calm, grid, settings.window_s)
        velocity = smooth(path, settings.smooth_s, grid, order=1)
        calmer = smooth(path, 2 * settings.smooth_s, grid, order=1)
        speed = np.linalg.norm(calmer, axis=1)
        noise = _noise(source, settings)
        fast = float(np.percentile(speed, 95))
        still = max(settings.still_fraction * fast, 2.0 * noise / settings.window_s, 1e-9)
        if scales is not None:
            fast, still = max(fast, scales.fast), max(still, scales.still)
        if space == "position":
            up = calmer[:, 2]
    if effector.orientation is not None:
        orientation = _orientation(effector.orientation, grid)
        axis = quat_rotate(orientation, np.array([0.0, 0.0, 1.0]))
        tilt_rate = np.linalg.norm(smooth(axis, 0.1, grid, order=1), axis=1)
        step = quat_multiply(orientation[1:], quat_conjugate(orientation[:-1]))
        turned = quat_to_rotvec(step) / grid.step_s
        turning = smooth(np.vstack([turned[:1], turned]), 0.1, grid)

    width = rate = command = None
    ends = command_ends = opens_up = None
    if effector.width is not None:
        raw = resample(effector.width, grid)
        ends = (scales.width if scales else None) or _ends(raw, effector.width)
        if ends is not None:
            width = _normalised(raw, ends)
            rate = smooth(width, 0.02, grid, order=1)
    if effector.command is not None:
        raw = resample(effector.command, grid)
        command_ends = (scales.command if scales else None) or _ends(raw, effector.command)
        if command_ends is not None:
            command = _normalised(raw, command_ends)
            opens_up = _polarity(command, width, grid)
            if scales is not None and scales.opens_up is not None:
                opens_up = scales.opens_up
            if opens_up is False:
                command = 1.0 - command
            elif opens_up is None and command[: grid.steps(0.3)].mean() < 0.5:
                command = 1.0 - command  # the hand is taken to start open
    touch = slip = None
    touch_s = np.empty(0)
    if effector.touch is not None:
        cells = np.asarray(effector.touch.values, np.float64)
        touch = tactile_load(cells.reshape(len(cells), -1))
        touch_s = grid.offset(effector.touch.stamp_ns)
        slip = resample(slip_energy(effector.touch), grid)
    return Motion(
        effector.name,
        space,
        speed,
        velocity,
        before,
        after,
        up,
        tilt_rate,
        turning,
        width,
        rate,
        command,
        touch,
        touch_s,
        slip,
        Scales(fast, still, ends, command_ends, opens_up),
    )


def with_force(motion: Motion, effector: Effector, grid: Grid, held: Floats) -> Motion:
    """The motion with its force, compensated; held (n,) is 1 while the gripper holds something."""
    if effector.wrench is None:
        return motion
    measured = resample(effector.wrench, grid)[:, :3]
    acceleration = orientation = None
    if effector.position is not None:
        path = resample(effector.position, grid)
        acceleration = smooth(smooth(path, 0.02, grid, order=1), 0.02, grid, order=1)
    if effector.orientation is not None:
        orientation = _orientation(effector.orientation, grid)
    found = compensate(measured, acceleration, orientation, held=held, step_s=grid.step_s)
    return replace(
        motion,
        force=found.force,
        per_kg=found.per_kg,
        load_sign=found.sign,
        tool_kg=abs(found.mass_kg or 0.0),
    )


def lasting_change(motions: Sequence[Motion], grid: Grid, settings: Settings) -> Floats:
    """(n,) how different the time after each instant is from the time before, 1 for the strongest.

    Velocities, openness and tilting of all hands are averaged over `lasting_s` on either side:
    what begins something new lasts, corrections and trembling do not.
    """
    columns: list[Floats] = []
    for m in motions:
        if m.velocity is not None:
            columns.append(smooth(m.velocity, 0.05, grid) / max(m.scales.fast, 1e-9))
        if m.width is not None:
            columns.append(1.5 * m.width[:, None])
        if m.tilt_rate is not None:
            columns.append(np.minimum(m.tilt_rate, 2.0)[:, None])
    out = np.zeros(grid.n)
    w = min(grid.steps(settings.lasting_s), grid.n // 3)
    if not columns or w < 1:
        return np.ones(grid.n)
    table = np.hstack(columns)
    summed = np.cumsum(np.vstack([np.zeros((1, table.shape[1])), table]), axis=0)
    mean = (summed[w:] - summed[:-w]) / w
    out[w : grid.n - w + 1] = np.linalg.norm(mean[w:] - mean[:-w], axis=1)
    return np.asarray(np.minimum(out / max(float(np.percentile(out, 95)), 1e-12), 2.0))


def flow(motions: Sequence[Motion], grid: Grid) -> Floats | None:
    """(n, C) what all hands do, each kind of motion at unit power; None where nothing is known.

    Fingers count less: they say when something is taken, hands and wrists what is being done.
    Joints stand for place and rotation; they are made independent of each other first, since one
    movement of the hand moves many. What hardly moves beside the other hand stays small.
    """
    columns: list[Floats] = []
    for m in motions:
        if m.velocity is not None:
            calm = smooth(m.velocity, 0.05, grid)
            moves = min(1.0, _rms(calm) / max(0.4 * m.scales.fast, 1e-9))
            if m.space == "joints":
                calm, moves = _independent(calm), np.sqrt(2.0) * moves
            columns.append(moves * calm / max(_rms(calm), 1e-9))
        if m.turning is not None:
            columns.append(m.turning / max(_rms(m.turning), TURNING_RAD_S))
        if m.width is not None:
            opening = smooth(m.width, 0.1, grid, order=1)[:, None]
            columns.append(0.4 * opening / max(_rms(opening), 1e-9))
    return np.hstack(columns) if columns else None


def _rms(values: Floats) -> float:
    """Root mean square length of the rows of (n, C)."""
    return float(np.sqrt((values**2).sum(axis=1).mean()))


def _independent(values: Floats) -> Floats:
    """(n, C) principal components at equal power, but for those of hardly any."""
    centred = values - values.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred.T @ centred / len(centred))
    sizes = np.sqrt(sizes)
    return np.asarray(centred @ axes.T / np.maximum(sizes, max(0.2 * sizes[0], 1e-12)))


def _orientation(series: Series, grid: Grid) -> Floats:
    """(n, 4) unit quaternions on the grid."""
    turned = resample(Series(series.stamp_ns, quat_continuous(series.values)), grid)
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True))


def grid_of(inputs: Inputs, settings: Settings) -> Grid:
    """The analysis grid of an episode."""
    return Grid.over(inputs.start_ns, inputs.end_ns, settings.step_ns)
