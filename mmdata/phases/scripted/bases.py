"""Drives and walks with known phases: speed and yaw rate of a base."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdata.phases.inputs import Base, Floats, Inputs
from mmdata.phases.scripted.style import (
    FINE_S,
    START_NS,
    Style,
    Take,
    clock,
    intervals,
    profile,
    sampled,
    stamps_of,
)

RATES_HZ = (20.0, 50.0, 83.0, 100.0)


@dataclass
class _Base:
    """What has been played so far, 1 ms apart."""

    speed_m_s: float = 0.0
    now: float = 0.0
    speed: list[Floats] = field(default_factory=list)
    yaw: list[Floats] = field(default_factory=list)
    gap: list[Floats] = field(default_factory=list)
    spans: list[tuple[str, float]] = field(default_factory=list)

    def add(
        self,
        label: str,
        seconds: float,
        to_m_s: float | None = None,
        yaw: Floats | None = None,
        gap_s: float = 8.0,
    ) -> None:
        """A phase that ends at a speed; yaw (n,) rad/s, n as `steps` says; gap_s behind a lead."""
        n = self.steps(seconds)
        goal = self.speed_m_s if to_m_s is None else to_m_s
        speed = self.speed_m_s + np.cumsum(_hump(n, goal - self.speed_m_s)) * FINE_S
        self.speed.append(speed)
        self.yaw.append(np.zeros(n) if yaw is None else yaw)
        self.gap.append(np.maximum(speed, 1.0) * gap_s)
        self.spans.append((label, self.now))
        self.speed_m_s = goal
        self.now += n * FINE_S

    @staticmethod
    def steps(seconds: float) -> int:
        return round(seconds / FINE_S)

    def take(
        self, rng: np.random.Generator, rate_hz: float, noise: tuple[float, float], lead: bool
    ) -> Take:
        style = Style(rate_hz=rate_hz, jitter=float(rng.uniform(0.0, 0.1)))
        speed = np.concatenate(self.speed)
        t = clock(len(speed))
        base = Base(
            speed=sampled(t, speed, noise[0], style, rng),
            yaw_rate=sampled(t, np.concatenate(self.yaw), noise[1], style, rng),
            lead_gap=sampled(t, np.concatenate(self.gap), 0.3, style, rng) if lead else None,
        )
        end = int(stamps_of(np.array(self.now)))
        return Take(Inputs(START_NS, end, base=base), intervals(self.spans, self.now), ())


def _hump(n: int, total: float) -> Floats:
    """(n,) rates that add up to a total: up, steady, down, the ends at most 0.6 s long.

    Drivers and walking robots build up acceleration and yaw rate within some tenths of a second.
    """
    t = np.arange(n) * FINE_S
    ramp = min(0.6, 0.3 * n * FINE_S)
    shape = profile("minimum_jerk", np.clip(np.minimum(t, t[::-1]) / ramp, 0.0, 1.0))
    return np.asarray(total * shape / (shape.sum() * FINE_S))


def driving(seed: int, *, rate_hz: float | None = None) -> Take:
    """Stand, pull away, a mix of lanes kept, turns, lane changes and following, stop, stand."""
    rng = np.random.default_rng([seed, 11])
    drive = _Base()
    cruise = float(rng.uniform(8.0, 20.0))
    lead = bool(rng.random() < 0.5)
    drive.add("stand", rng.uniform(2.0, 6.0))
    drive.add("pull_away", cruise / rng.uniform(1.2, 2.5), cruise)
    for _ in range(int(rng.integers(2, 5))):
        drive.add("keep_lane", rng.uniform(5.0, 14.0), cruise * rng.uniform(0.97, 1.03))
        kinds = ["turn_left", "turn_right", "change_lane_left", "change_lane_right"]
        kind = str(rng.choice([*kinds, "follow"] if lead else kinds))
        sign = 1.0 if kind.endswith("left") else -1.0
        if kind == "follow":
            drive.add("follow", rng.uniform(5.0, 12.0), gap_s=rng.uniform(1.0, 2.2))
        elif kind.startswith("turn"):
            angle = sign * rng.uniform(0.8, 1.7)
            seconds = abs(angle) / rng.uniform(0.2, 0.4)
            drive.add(kind, seconds, yaw=_hump(drive.steps(seconds), angle))
        else:
            seconds, lane = rng.uniform(3.0, 6.0), rng.uniform(2.8, 3.7)
            n = drive.steps(seconds)
            rate = lane * 2 * np.pi / (drive.speed_m_s * seconds**2)
            drive.add(kind, seconds, yaw=sign * rate * np.sin(2 * np.pi * np.arange(n) / n))
    drive.add("keep_lane", rng.uniform(5.0, 10.0))
    drive.add("brake_to_stop", drive.speed_m_s / rng.uniform(1.2, 3.0), 0.0)
    drive.add("stand", rng.uniform(2.0, 5.0))
    noise = (float(rng.uniform(0.01, 0.08)), float(rng.uniform(0.001, 0.006)))
    rate = float(rng.choice(RATES_HZ)) if rate_hz is None else rate_hz
    return drive.take(rng, rate, noise, lead)


def locomotion(seed: int, *, rate_hz: float | None = None) -> Take:
    """A walking robot: stand, walk with the rhythm of its gait, turn, back up."""
    rng = np.random.default_rng([seed, 12])
    walk = _Base()
    pace = float(rng.uniform(0.4, 1.2))
    walk.add("stand", rng.uniform(1.0, 4.0))
    walk.add("walk", rng.uniform(0.6, 1.2), pace)
    walk.add("walk", rng.uniform(2.0, 5.0))
    for _ in range(int(rng.integers(2, 5))):
        kind = str(rng.choice(["turn_left", "turn_right", "stand", "reverse"]))
        if kind.startswith("turn"):
            angle = (1.0 if kind == "turn_left" else -1.0) * rng.uniform(0.6, 1.8)
            seconds = abs(angle) / rng.uniform(0.4, 0.9)
            walk.add(kind, seconds, yaw=_hump(walk.steps(seconds), angle))
        else:
            # It slows down while it still walks, and speeds up when it walks again.
            walk.add("walk", rng.uniform(0.5, 1.0), 0.0)
            walk.add("stand", rng.uniform(1.0, 3.0))
            if kind == "reverse":
                walk.add("reverse", rng.uniform(0.8, 1.2), -0.5 * pace)
                walk.add("reverse", rng.uniform(1.0, 3.0))
                walk.add("reverse", rng.uniform(0.5, 1.0), 0.0)
                walk.add("stand", rng.uniform(1.0, 2.0))
            walk.add("walk", rng.uniform(0.6, 1.2), pace)
        walk.add("walk", rng.uniform(2.0, 6.0))
    walk.add("walk", rng.uniform(0.6, 1.2), 0.0)
    walk.add("stand", rng.uniform(1.0, 3.0))
    # The gait: speed and heading sway with the steps.
    step_hz, sway = rng.uniform(1.2, 2.5), rng.uniform(0.0, 0.12)
    speed = np.concatenate(walk.speed)
    t = clock(len(speed))
    walk.speed = [speed * (1.0 + sway * np.sin(2 * np.pi * step_hz * t))]
    going = np.abs(speed) / pace
    yaw = np.concatenate(walk.yaw)
    walk.yaw = [yaw + going * 0.3 * sway * np.sin(np.pi * step_hz * t)]
    noise = (float(rng.uniform(0.005, 0.03)), float(rng.uniform(0.002, 0.01)))
    rate = float(rng.choice(RATES_HZ)) if rate_hz is None else rate_hz
    return walk.take(rng, rate, noise, lead=False)
