"""How the arm is told to move: overlapping minimum-jerk reaches, a gripper that stalls, tremor.

A path is its start plus the sum of its reaches (submovements); where one begins before the
last has ended, the corner is blended, as in human reaching and teleoperation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def minimum_jerk(u: npt.ArrayLike) -> Floats:
    """0 to 1 over u = 0 to 1 with zero speed and acceleration at both ends; clamped outside."""
    u = np.clip(np.asarray(u, dtype=np.float64), 0.0, 1.0)
    return np.asarray(u**3 * (10.0 + u * (6.0 * u - 15.0)))


@dataclass(frozen=True)
class Reach:
    """One submovement: from start_s, over duration_s, by delta (x, y, z in m, yaw in rad)."""

    start_s: float
    duration_s: float
    delta: Floats

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s


@dataclass
class Path:
    """A path of (x, y, z, yaw) over time in seconds."""

    start: Floats
    reaches: list[Reach] = field(default_factory=list)
    tremor: Floats = field(default_factory=lambda: np.zeros((0, 6)))
    """(K, 6) rows of frequency in Hz, phase, and amplitudes in x, y (m), z (m) and yaw (rad)."""

    @property
    def target(self) -> Floats:
        """Where the path ends."""
        return np.asarray(self.start + sum(r.delta for r in self.reaches))

    def sample(self, t: npt.ArrayLike) -> Floats:
        """Points (N, 4) at times (N,)."""
        t = np.asarray(t, dtype=np.float64)
        out = np.tile(self.start, (len(t), 1))
        for reach in self.reaches:
            out += minimum_jerk((t - reach.start_s) / reach.duration_s)[:, None] * reach.delta
        for row in self.tremor:
            out += np.sin(2 * np.pi * row[0] * t + row[1])[:, None] * row[2:]
        return out


@dataclass(frozen=True)
class Stroke:
    """One motion of the gripper: commanded at command_s, moving from start_s until end_s."""

    command_s: float
    target_m: float
    start_s: float
    end_s: float
    start_width_m: float
    end_width_m: float


@dataclass
class Gripper:
    """A gripper that answers after a delay, moves at one speed and stalls on what it holds."""

    delay_s: float
    speed_m_s: float
    start_width_m: float
    ramp_s: float = 0.03
    strokes: list[Stroke] = field(default_factory=list)

    def move(self, command_s: float, target_m: float, stall_m: float | None = None) -> Stroke:
        """Command a width; stall_m is the width of an object that stops the closing fingers."""
        width = self.strokes[-1].end_width_m if self.strokes else self.start_width_m
        end = target_m if stall_m is None else max(target_m, stall_m)
        distance = abs(end - width)
        start = command_s + self.delay_s
        # Distance while speeding up is speed * ramp / 2.
        time = distance / self.speed_m_s + 0.5 * self.ramp_s
        if distance < 0.5 * self.speed_m_s * self.ramp_s:
            time = np.sqrt(2 * distance * self.ramp_s / self.speed_m_s)
        stroke = Stroke(command_s, target_m, start, start + time, width, end)
        self.strokes.append(stroke)
        return stroke

    def when(self, stroke: Stroke, width_m: float) -> float:
        """Time at which a stroke passes a width."""
        distance = abs(width_m - stroke.start_width_m)
        if distance < 0.5 * self.speed_m_s * self.ramp_s:
            return float(stroke.start_s + np.sqrt(2 * distance * self.ramp_s / self.speed_m_s))
        return float(stroke.start_s + distance / self.speed_m_s + 0.5 * self.ramp_s)

    def width(self, t: npt.ArrayLike) -> Floats:
        """Distance between the fingers (N,) in metres at times (N,)."""
        t = np.asarray(t, dtype=np.float64)
        out = np.full(t.shape, self.start_width_m)
        for s in self.strokes:
            elapsed = np.clip(t - s.start_s, 0.0, s.end_s - s.start_s)
            early = np.minimum(elapsed, self.ramp_s)
            moved = self.speed_m_s * (early**2 / (2 * self.ramp_s) + (elapsed - early))
            moved = np.minimum(moved, abs(s.end_width_m - s.start_width_m))
            out += np.sign(s.end_width_m - s.start_width_m) * moved
        return out

    def command(self, t: npt.ArrayLike) -> Floats:
        """Commanded width (N,) at times (N,)."""
        t = np.asarray(t, dtype=np.float64)
        times = [s.command_s for s in self.strokes]
        targets = np.array([self.start_width_m, *(s.target_m for s in self.strokes)])
        return np.asarray(targets[np.searchsorted(times, t, side="right")])


def random_tremor(rng: np.random.Generator, amplitude_m: float) -> Floats:
    """Hand tremor in x, y and yaw; none in z, so that what rests on the table stays at rest."""
    count = 4
    weights = rng.normal(size=(count, 4)) / np.sqrt(count)
    scale = amplitude_m * np.array([1.0, 1.0, 0.0, 5.0])
    return np.column_stack(
        [rng.uniform(1.5, 7.0, count), rng.uniform(0, 2 * np.pi, count), weights * scale]
    )
