"""Two-handed teleoperation as people do it: no corner is sharp, little stands still, no force.

Gestures are made of overlapping minimum-jerk strokes of both hands and wrists, with submovements,
tremor, drift and a gripper that is closed slowly. Which gesture it is shows in what both hands do
together, not in any single instant, so labels have to be learned (`mmdata phases fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmdata.geometry import quat_from_rotvec
from mmdata.phases.inputs import Effector, Floats, Inputs
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
    tremor,
)

HANDS = ("left", "right")


@dataclass(frozen=True, slots=True)
class Gesture:
    """Per hand (left, right): shift (m), turn (rad, rotation vector), jaw (rad, absolute or None).

    Where a hand has a `place`, it goes there instead of shifting.
    """

    seconds: float
    next: Mapping[str, float]
    shift: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    turn: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    jaw: tuple[float | None, float | None] = (None, None)
    place: tuple[tuple[float, float, float] | None, ...] = (None, None)


GESTURES: Mapping[str, Gesture] = {
    "reach": Gesture(1.8, {"position": 0.9, "orient": 0.1}, jaw=(None, 0.1),
                     place=(None, (0.02, -0.03, 0.01))),
    "position": Gesture(2.5, {"push": 0.9, "orient": 0.1}, place=(None, (0.0, 0.0, 0.005)),
                        turn=((0.0, 0.0, 0.0), (0.4, 0.0, 0.3))),
    "push": Gesture(3.5, {"pull": 0.75, "transfer": 0.25}, turn=((0.0, 0.0, 0.0), (-1.6, 0.0, 0.2)),
                    shift=((0.0, 0.0, 0.0), (0.008, 0.0, -0.004))),
    "pull": Gesture(3.0, {"transfer": 0.7, "reach": 0.3}, jaw=(0.1, 0.8),
                    shift=((-0.06, 0.03, 0.03), (0.0, 0.0, 0.01))),
    "transfer": Gesture(2.4, {"orient": 0.6, "position": 0.4}, jaw=(0.8, 0.1),
                        place=((-0.01, 0.01, 0.02), (0.0, 0.0, 0.02))),
    "orient": Gesture(2.2, {"position": 0.8, "push": 0.2},
                      turn=((0.3, 0.2, 0.0), (1.2, 0.3, -0.5)), jaw=(0.8, None)),
}  # fmt: skip


def teleoperated(
    seed: int, *, rate_hz: float = 30.0, gestures: int = 14, joints: bool = False
) -> Take:
    """A take of two hands with poses and jaw angles; with `joints` six joint values for each pose.

    Contacts are empty: nothing here tells them from a jaw that closes on nothing.
    """
    rng = np.random.default_rng([seed, 13])
    speed = float(rng.uniform(0.7, 1.4))
    plan: list[tuple[str, float, float]] = []
    name, now = "reach", float(rng.uniform(0.3, 1.0))
    for _ in range(gestures):
        seconds = GESTURES[name].seconds / speed * float(rng.lognormal(0.0, 0.25))
        plan.append((name, now, seconds))
        now += seconds
        after = GESTURES[name].next
        name = str(rng.choice(list(after), p=list(after.values())))
    end = now + 0.5
    t = clock(round(end / FINE_S))
    style = Style(rate_hz=rate_hz, jitter=float(rng.uniform(0.0, 0.05)))
    mixing = np.random.default_rng(77).normal(0, 1, (6, 6))  # one robot for all seeds
    effectors = tuple(_hand(k, plan, t, style, joints, mixing, rng) for k in range(2))
    spans = [("reach", 0.0), *((label, at) for label, at, _ in plan)]
    inputs = Inputs(START_NS, int(stamps_of(np.array(end))), effectors)
    return Take(inputs, intervals(spans, end), ())


def _hand(
    k: int,
    plan: list[tuple[str, float, float]],
    t: Floats,
    style: Style,
    joints: bool,
    mixing: Floats,
    rng: np.random.Generator,
) -> Effector:
    home = np.array([-0.03, 0.03, 0.03]) if k == 0 else np.array([0.03, -0.03, 0.03])
    here, wrist, jaw = home + rng.normal(0, 0.005, 3), np.zeros(3), 0.8
    place = np.tile(here, (len(t), 1))
    turn = np.zeros((len(t), 3))
    angle = np.full(len(t), jaw)
    for name, start, seconds in plan:
        g = GESTURES[name]
        target = g.place[k]
        goal = here + g.shift[k] if target is None else np.array(target)
        goal = goal + rng.normal(0, 0.004, 3)
        twist = np.array(g.turn[k]) * rng.uniform(0.7, 1.3) + rng.normal(0, 0.05, 3)
        twist = twist - 0.4 * wrist if not any(g.turn[k]) else twist  # wrists unwind in between
        _strokes(place, t, start, seconds, goal - here, rng)
        _strokes(turn, t, start, seconds, twist, rng)
        here, wrist = goal, wrist + twist
        to = g.jaw[k]
        if to is not None:
            to += float(rng.normal(0, 0.03))
            begin = start + rng.uniform(0.1, 0.6) * seconds
            s = np.clip((t - begin) / rng.uniform(0.3, 0.9), 0, 1)
            angle += profile("minimum_jerk", s) * (to - jaw)
            jaw = to
    drift = np.cumsum(rng.normal(0, 1, (len(t) // 500 + 2, 3)), axis=0) * 0.0006
    knots = np.linspace(0, t[-1], len(drift))
    place = place + np.column_stack([np.interp(t, knots, d) for d in drift.T])
    place = place + tremor(t, 0.0006, rng)
    turn = turn + tremor(t, 0.02, rng)
    width = sampled(t, angle, 0.004, style, rng)
    if joints:
        q = np.column_stack([place / 0.03, turn]) @ mixing.T
        q = 0.3 * q + 0.15 * np.sin(q)  # a robot's joints are no linear map of its pose
        return Effector(HANDS[k], joints=sampled(t, q, 0.0008, style, rng), width=width)
    return Effector(
        HANDS[k],
        position=sampled(t, place, 0.0001, style, rng),
        orientation=sampled(t, quat_from_rotvec(turn), 0.0, style, rng),
        width=width,
    )


def _strokes(
    values: Floats, t: Floats, start: float, seconds: float, delta: Floats, rng: np.random.Generator
) -> None:
    """Add a move as one to three overlapping minimum-jerk strokes, with a correction at the end."""
    count = int(rng.integers(1, 4))
    parts = rng.dirichlet(np.full(count, 4.0))
    aside = rng.normal(0, 0.12 * float(np.linalg.norm(delta)), (count, delta.size))
    aside -= aside.mean(axis=0)
    edges = np.r_[0.0, np.cumsum(parts)] * seconds
    for part, off, a, b in zip(parts, aside, edges[:-1], edges[1:], strict=True):
        # Each stroke sets out a little before the one before has ended, also across gestures.
        overlap = rng.uniform(0.0, 0.25)
        begin, length = start + a - overlap * 0.5, (b - a) + overlap
        s = np.clip((t - begin) / length, 0.0, 1.0)
        values += profile("minimum_jerk", s)[:, None] * (part * delta + off)
