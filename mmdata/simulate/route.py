"""Where the ego vehicle drives and what others do: manoeuvres, actors, and room for all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from mmdata.geometry import quat_from_rotvec, quat_multiply
from mmdata.simulate.motion import Floats

HARD_BRAKING_M_S2 = 4.0
"""From this deceleration on, braking counts as hard."""
EGO_SIZE_M = (4.6, 1.9, 1.5)
MARGIN_S = 1.0
_STEP_S = 0.005
LANE_M = 3.3


@dataclass(frozen=True)
class Manoeuvre:
    """What the driver does from start_s to end_s; peak acceleration and yaw rate."""

    label: str
    start_s: float
    end_s: float
    acceleration_m_s2: float = 0.0
    yaw_rate_rad_s: float = 0.0

    def profile(self, t: Floats) -> tuple[Floats, Floats]:
        """Acceleration and yaw rate (N,), smooth from zero to zero."""
        u = np.clip((t - self.start_s) / (self.end_s - self.start_s), 0.0, 1.0)
        bump = np.sin(np.pi * u) ** 2
        turn = np.sin(2 * np.pi * u) if self.label.startswith("change_lane") else bump
        return self.acceleration_m_s2 * bump, self.yaw_rate_rad_s * turn


class Route:
    """The ego vehicle's path over a flat world, from a seed.

    ``base_link`` is on the ground under the rear axle, x forward; the body pitches and rolls a
    little as it accelerates.
    """

    def __init__(self, rng: np.random.Generator, length_s: float, hard_braking: bool) -> None:
        self.rng, self.length_s = rng, length_s
        self.speed_m_s = rng.uniform(7.0, 12.0)
        self.manoeuvres: list[Manoeuvre] = []
        self._plan(hard_braking)
        t = np.arange(-MARGIN_S, length_s + MARGIN_S, _STEP_S)
        acceleration, yaw_rate = np.zeros_like(t), np.zeros_like(t)
        for manoeuvre in self.manoeuvres:
            a, w = manoeuvre.profile(t)
            acceleration, yaw_rate = acceleration + a, yaw_rate + w
        speed = self.speed_m_s + _integrate(acceleration)
        yaw = rng.uniform(-np.pi, np.pi) + _integrate(yaw_rate)
        x, y = _integrate(speed * np.cos(yaw)), _integrate(speed * np.sin(yaw))
        pitch, roll = -0.004 * acceleration, 0.003 * speed * yaw_rate
        self._path = CubicSpline(t, np.stack([x, y, yaw, pitch, roll], axis=-1))
        self._acceleration = CubicSpline(t, acceleration)

    def pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Position (N, 3) and orientation (N, 4) of base_link in ``world`` at times (N,)."""
        x, y, yaw, pitch, roll = self._path(np.asarray(t, dtype=np.float64)).T
        zero = np.zeros_like(x)
        turned = quat_from_rotvec(np.stack([zero, zero, yaw], axis=-1))
        leaned = quat_from_rotvec(np.stack([roll, pitch, zero], axis=-1))
        return np.stack([x, y, zero], axis=-1), quat_multiply(turned, leaned)

    def plane(self, t: npt.ArrayLike) -> Floats:
        """x, y and yaw (N, 3)."""
        return np.asarray(self._path(np.asarray(t, dtype=np.float64))[..., :3])

    def hard_braking_s(self) -> list[float]:
        """Times at which deceleration first exceeds HARD_BRAKING_M_S2."""
        t = np.arange(0.0, self.length_s, _STEP_S)
        hard = self._acceleration(t) < -HARD_BRAKING_M_S2
        return [float(x) for x in t[np.flatnonzero(hard[1:] & ~hard[:-1]) + 1]]

    def _plan(self, hard_braking: bool) -> None:
        """Manoeuvres one after another until the time is full."""
        rng, t, speed = self.rng, 0.0, self.speed_m_s
        queue = ["keep_lane"] + (["brake_to_stop"] if hard_braking else [])
        forced_hard = hard_braking
        while t < self.length_s:
            if not queue:
                queue = [str(rng.choice(
                    ["keep_lane", "turn_left", "turn_right", "change_lane_left",
                     "change_lane_right", "brake_to_stop"]
                ))]  # fmt: skip
            label = queue.pop(0)
            duration = rng.uniform(2.5, 4.0)
            acceleration = yaw_rate = 0.0
            side = 1.0 if label.endswith("left") else -1.0
            if label == "keep_lane":
                duration = rng.uniform(1.5, 3.0)
                acceleration = rng.uniform(-0.5, 0.5)
            elif label.startswith("turn"):
                yaw_rate = side * min(rng.uniform(0.25, 0.5), 3.0 / speed)
            elif label.startswith("change_lane"):
                yaw_rate = side * LANE_M * 2 * np.pi / (speed * duration**2)
            elif label == "brake_to_stop":
                duration = 2 * speed / (7.0 if forced_hard else rng.uniform(2.0, 3.5))
                acceleration = -2 * speed / duration
                queue = ["stand", "pull_away"]
                forced_hard = False
            elif label == "stand":
                duration = rng.uniform(0.8, 2.0)
            else:
                acceleration = 2 * rng.uniform(6.0, 10.0) / duration
            self.manoeuvres.append(Manoeuvre(label, t, t + duration, acceleration, yaw_rate))
            speed += 0.5 * acceleration * duration
            t += duration


@dataclass(frozen=True)
class Actor:
    """Another road user, or anything with a labelled box: moves along an arc.

    start: x, y, yaw of its centre on the ground at time 0. Its speed swings about speed_m_s.
    """

    object_id: str
    label: str
    size_m: Floats
    colour: tuple[int, int, int]
    start: Floats
    speed_m_s: float
    curvature_1_m: float
    swing_m: float
    swing_rad_s: float

    def plane(self, t: npt.ArrayLike) -> Floats:
        """x, y and yaw (N, 3) at times (N,)."""
        t = np.asarray(t, dtype=np.float64)
        run = self.speed_m_s * t + self.swing_m * np.sin(self.swing_rad_s * t)
        half = 0.5 * self.curvature_1_m * run
        chord = run * np.sinc(half / np.pi)
        heading = self.start[2] + half
        return np.stack(
            [
                self.start[0] + chord * np.cos(heading),
                self.start[1] + chord * np.sin(heading),
                self.start[2] + 2 * half,
            ],
            axis=-1,
        )

    def pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Centre (N, 3) and orientation (N, 4) of its box in ``world``."""
        state = self.plane(t)
        center = np.column_stack([state[:, :2], np.full(len(state), 0.5 * self.size_m[2])])
        return center, quat_from_rotvec(state[:, 2:] * np.array([0.0, 0.0, 1.0]))


# Label: size in metres, spread, share of all actors, range of speeds.
_KINDS = {
    "car": ((4.5, 1.85, 1.55), 0.06, 0.45, (3.0, 12.0)),
    "van": ((5.3, 2.0, 2.2), 0.06, 0.1, (3.0, 11.0)),
    "truck": ((8.2, 2.5, 3.3), 0.08, 0.1, (3.0, 9.0)),
    "cyclist": ((1.8, 0.6, 1.75), 0.05, 0.15, (2.5, 6.0)),
    "pedestrian": ((0.6, 0.65, 1.75), 0.06, 0.2, (0.7, 1.7)),
}


@dataclass
class Traffic:
    """Actors that keep clear of the ego vehicle and of each other, and buildings behind them."""

    rng: np.random.Generator
    route: Route
    actors: list[Actor] = field(default_factory=list)
    buildings: list[tuple[Floats, Floats, float]] = field(default_factory=list)
    """Centre, size and yaw of each."""

    def populate(self, count: int) -> None:
        """Place up to count actors and the buildings; a crowded route takes fewer."""
        self._t = np.arange(-MARGIN_S, self.route.length_s + MARGIN_S, 0.2)
        self._ego = self.route.plane(self._t)[:, :2]
        taken = [(self._ego, 0.5 * float(np.hypot(*EGO_SIZE_M[:2])))]
        labels, shares = list(_KINDS), np.array([k[2] for k in _KINDS.values()])
        for _ in range(40 * count):
            if len(self.actors) == count:
                break
            label = str(self.rng.choice(labels, p=shares / shares.sum()))
            actor = self._draw(label, len(self.actors))
            path = actor.plane(self._t)[:, :2]
            radius = 0.5 * float(np.hypot(*actor.size_m[:2]))
            if _clear(path, radius, taken):
                self.actors.append(actor)
                taken.append((path, radius))
        for _ in range(400):
            if len(self.buildings) == 16:
                break
            size = self.rng.uniform([7, 7, 5], [18, 14, 14])
            at = self._ego[self.rng.integers(len(self._ego))]
            center = at + self.rng.uniform(-45, 45, 2)
            spot = np.tile(center, (len(self._t), 1))
            radius = 0.5 * float(np.hypot(*size[:2]))
            if _clear(spot, radius + 3.0, taken):
                self.buildings.append((np.append(center, 0.5 * size[2]), size,
                                       float(self.rng.uniform(-np.pi, np.pi))))  # fmt: skip
                taken.append((spot, radius))

    def _draw(self, label: str, index: int) -> Actor:
        rng = self.rng
        size, spread, _, speeds = _KINDS[label]
        when = rng.uniform(0.0, self.route.length_s)
        x, y, yaw = self.route.plane([when])[0]
        ahead, side = rng.uniform(-8, 22), rng.choice([-1, 1]) * rng.uniform(3.4, 13.0)
        meets = [
            x + ahead * np.cos(yaw) - side * np.sin(yaw),
            y + ahead * np.sin(yaw) + side * np.cos(yaw),
        ]
        if label == "pedestrian":
            heading = rng.uniform(-np.pi, np.pi)
        else:
            heading = yaw + rng.choice([0.0, np.pi]) + rng.normal(0, 0.08)
        parked = rng.random() < 0.4
        speed = 0.0 if parked else rng.uniform(*speeds)
        swing_rad_s = rng.uniform(0.5, 1.2)
        swing = 0.0 if parked else rng.uniform(0, 0.15) * speed / swing_rad_s
        curvature = 0.0 if parked else rng.normal(0, 0.01)
        actor = Actor(
            f"{label}_{index:02d}",
            label,
            np.array(size) * (1 + rng.normal(0, spread, 3).clip(-0.15, 0.15)),
            _colour(rng),
            np.array([0.0, 0.0, heading]),
            speed,
            curvature,
            swing,
            swing_rad_s,
        )
        # Moved so that it is where it was wanted at the time it was wanted there.
        offset = np.append(meets - actor.plane([when])[0, :2], heading)
        return Actor(**{**actor.__dict__, "start": offset})


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    b, g, r = rng.integers(40, 230, 3).tolist()
    return (b, g, r)


def _clear(path: Floats, radius: float, taken: list[tuple[Floats, float]]) -> bool:
    """Whether circles moving along the paths never come closer than 0.6 m."""
    return all(
        np.linalg.norm(path - other, axis=1).min() > radius + other_radius + 0.6
        for other, other_radius in taken
    )


def _integrate(rate: Floats) -> Floats:
    """Trapezoidal integral over the route's time grid, zero at time 0."""
    total = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1])) * _STEP_S])
    return np.asarray(total - total[round(MARGIN_S / _STEP_S)])
