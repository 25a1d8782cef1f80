"""Scripted motions with known phases, for tests, tuning and benchmarks; not a physics simulator.

What varies: speed profile (first-order approach as of a position controller, or minimum jerk as
of a person), gains, pauses, how far corners are blended, tremor, sensor noise, rate and jitter of
stamps, gripper speed and delay, object width. Truth follows the convention of docs/phases.md: a
phase starts when its motion starts; a pause belongs to the phase before it; a grasp starts when
the fingers meet the object (or each other), a release when they leave it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmdata.phases.inputs import Effector, Floats, Inputs, Series
from mmdata.phases.metrics import Interval

START_NS = 1_760_000_000_000_000_000
FINE_S = 0.001


@dataclass(frozen=True, slots=True)
class Style:
    """How a script is carried out. Lengths in s, m; noise as standard deviations."""

    profile: str = "minimum_jerk"
    speed: float = 1.0
    pause_s: float = 0.15
    blend_s: float = 0.0
    tremor_m: float = 0.0
    position_noise_m: float = 0.0003
    width_noise_m: float = 0.0001
    force_noise_n: float = 0.1
    touch_noise: float = 0.05
    rate_hz: float = 100.0
    jitter: float = 0.02
    gripper_delay_s: float = 0.03
    gripper_speed_m_s: float = 0.2
    object_width_m: float = 0.045
    creep_m_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Take:
    """A scripted episode: what was measured, and the truth."""

    inputs: Inputs
    phases: tuple[Interval, ...]
    contacts: tuple[tuple[int, int], ...]
    events: tuple[tuple[str, int], ...] = ()


def random_style(rng: np.random.Generator, rate_hz: float | None = None) -> Style:
    """A style drawn wide: robot-like and human-like, clean and noisy, sharp and blended."""
    human = rng.random() < 0.6
    return Style(
        profile="minimum_jerk" if human else "first_order",
        speed=float(rng.uniform(0.6, 1.5)),
        pause_s=float(rng.uniform(0.0, 0.5) if rng.random() < 0.5 else 0.0),
        blend_s=float(rng.uniform(0.0, 0.35) if human else 0.0),
        tremor_m=float(rng.uniform(0.0, 0.002) if human else 0.0),
        position_noise_m=float(10 ** rng.uniform(-4.3, -3.1)),
        width_noise_m=float(10 ** rng.uniform(-4.3, -3.5)),
        force_noise_n=float(rng.uniform(0.05, 0.4)),
        touch_noise=float(rng.uniform(0.02, 0.2)),
        rate_hz=float(rng.choice([30.0, 50.0, 100.0, 125.0]) if rate_hz is None else rate_hz),
        jitter=float(rng.uniform(0.0, 0.1)),
        gripper_delay_s=float(rng.uniform(0.02, 0.12)),
        gripper_speed_m_s=float(rng.uniform(0.08, 0.3)),
        object_width_m=float(rng.uniform(0.02, 0.06)),
        creep_m_s=float(rng.uniform(0.0, 0.002)),
    )


@dataclass(frozen=True, slots=True)
class Move:
    """Go to `to` under the label; `close` or `open` works the gripper meanwhile."""

    label: str
    to: tuple[float, float, float]
    seconds: float
    grip: str | None = None
    empty: bool = False


def pick_place_script(rng: np.random.Generator, retry: bool = False) -> list[Move]:
    """Approach, descend, grasp, lift, transport, lower, release, retract; `retry` misses first."""
    pick = np.array([rng.uniform(0.35, 0.6), rng.uniform(-0.3, 0.0), 0.02])
    place = np.array([rng.uniform(0.35, 0.6), rng.uniform(0.05, 0.3), 0.03])
    high, lift = rng.uniform(0.1, 0.25), rng.uniform(0.1, 0.25)

    def at(p: Floats, z: float) -> tuple[float, float, float]:
        return (float(p[0]), float(p[1]), float(p[2] + z))

    def about(seconds: float) -> float:
        return float(seconds * rng.uniform(0.7, 1.4))

    moves = [Move("approach", at(pick, high), about(1.4)), Move("descend", at(pick, 0), about(1.1))]
    if retry:
        moves += [
            Move("grasp", at(pick, 0), about(0.7), "close", empty=True),
            Move("release", at(pick, 0.0), about(0.5), "open"),
            Move("retract", at(pick, 0.08), about(0.7)),
            Move("descend", at(pick + np.array([0.02, 0.0, 0.0]), 0), about(0.8)),
        ]
    return [
        *moves,
        Move("grasp", at(pick, 0), about(0.7), "close"),
        Move("lift", at(pick, lift), about(1.1)),
        Move("transport", at(place, lift), about(1.7)),
        Move("lower", at(place, 0), about(1.1)),
        Move("release", at(place, 0), about(0.6), "open"),
        Move("retract", at(place, high), about(1.1)),
    ]


def _profile(kind: str, s: Floats) -> Floats:
    """Share of the way covered at phase s in 0 to 1."""
    if kind == "minimum_jerk":
        return np.asarray(s**3 * (10 - 15 * s + 6 * s * s))
    return np.asarray((1 - np.exp(-4.0 * s)) / (1 - np.exp(-4.0)))


def perform(script: list[Move], style: Style, rng: np.random.Generator) -> Take:
    """Carry out a script in a style. The same generator state gives the same take."""
    here = np.array(script[0].to) + rng.uniform([-0.25, -0.25, 0.0], [0.25, 0.25, 0.3])
    path, phases, contacts = [], [], []
    open_width, width = 0.08, 0.08
    widths, commands = [], []
    told, fire_at, target = 1.0, -1.0, 0.08
    now, contact_from = 0.0, -1.0
    spans: list[tuple[str, float]] = []
    for move in script:
        moving = max(0.25, move.seconds / style.speed)
        if move.grip is not None:  # the gripper gets the time it needs
            moving = max(moving, 0.15 + style.gripper_delay_s + 0.08 / style.gripper_speed_m_s)
        dwell = style.pause_s * float(rng.uniform(0.5, 1.5)) if move.grip is None else 0.0
        n = round(moving / FINE_S)
        m = round(dwell / FINE_S)
        share = _profile(style.profile, np.arange(1, n + 1) / n)
        goal = np.array(move.to)
        leg = here + share[:, None] * (goal - here)
        path.append(np.concatenate([leg, np.repeat(goal[None], m, axis=0)]))
        begins: float | None = None if move.grip else now
        if move.grip is not None:
            told = 0.0 if move.grip == "close" else 1.0
            fire_at = now + style.gripper_delay_s
            target = open_width
            if move.grip == "close":
                target = 0.0 if move.empty else style.object_width_m
        for _ in range(n + m):
            now += FINE_S
            if fire_at >= 0 and now >= fire_at:
                step = style.gripper_speed_m_s * FINE_S
                old = width
                width = min(target, width + step) if target > width else max(target, width - step)
                if begins is None and (width == target or move.grip == "open"):
                    begins = now
                if target == style.object_width_m and width == target and old > width:
                    contact_from = now
                if target == open_width and contact_from >= 0 and width > old:
                    contacts.append((contact_from, now))
                    contact_from = -1.0
            if contact_from >= 0 and told == 0.0:
                width -= style.creep_m_s * FINE_S
                target = width
            widths.append(width)
            commands.append(told)
        spans.append((move.label, begins if begins is not None else now))
        here = goal
    fine = np.concatenate(path)
    if style.blend_s > 0:
        fine = _blend(fine, style.blend_s)
    t = np.arange(1, len(fine) + 1) * FINE_S
    if style.tremor_m > 0:
        for axis in range(3):
            f, p = rng.uniform(0.8, 4.0, 4), rng.uniform(0, 2 * np.pi, 4)
            fine[:, axis] += style.tremor_m / 4 * np.sin(2 * np.pi * f * t[:, None] + p).sum(axis=1)

    def stamps() -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats]:
        period = 1.0 / style.rate_hz
        at = np.arange(period, float(t[-1]), period)
        at = at + np.clip(rng.normal(0, style.jitter, len(at)), -0.4, 0.4) * period
        at = np.clip(at, 0, t[-1])
        return START_NS + np.rint(at * 1e9).astype(np.int64), at

    def sample(values: Floats, noise: float) -> Series:
        ns, at = stamps()
        flat = values[:, None] if values.ndim == 1 else values
        out = np.column_stack([np.interp(at, t, c) for c in flat.T])
        out = out + rng.normal(0, noise, out.shape)
        return Series(ns, out[:, 0] if values.ndim == 1 else out, "scripted")

    held = np.zeros(len(t))
    for a, b in contacts:
        held[(t > a) & (t <= b)] = 1.0
    ramp = np.convolve(held, np.ones(15) / 15)[: len(held)] * held * 12.0
    touch = ramp[:, None] * rng.uniform(0.05, 0.2, 8)
    acceleration = np.gradient(np.gradient(fine, FINE_S, axis=0), FINE_S, axis=0)
    acceleration = np.clip(acceleration, -6, 6)
    mass = 0.5 + 0.05 * held
    force = -mass[:, None] * (acceleration + np.array([0, 0, 9.81]))
    for a, b in contacts:
        for at_s in (a, b):
            burst = (t > at_s) & (t < at_s + 0.03)
            force[burst] += np.array([0.4, 0.2, 2.0])
    command = np.array(commands)
    ns, at_s2 = stamps()
    command_series = Series(
        ns, command[np.clip(np.searchsorted(t, at_s2), 0, len(t) - 1)], "scripted"
    )
    still = np.tile([1.0, 0.0, 0.0, 0.0], (len(t), 1))
    effector = Effector(
        "arm",
        position=sample(fine, style.position_noise_m),
        orientation=sample(still, 0.0),
        width=sample(np.array(widths), style.width_noise_m),
        command=command_series,
        wrench=sample(np.column_stack([force, 0.05 * force]), style.force_noise_n),
        touch=sample(touch, style.touch_noise),
    )
    inputs = Inputs(START_NS, START_NS + round(float(t[-1]) * 1e9), (effector,))
    phases = [
        Interval(label, START_NS + round(a * 1e9), START_NS + round(b * 1e9))
        for (label, a), (_, b) in zip(spans, [*spans[1:], ("", now)], strict=True)
    ]
    return Take(
        inputs,
        tuple(phases),
        tuple((START_NS + round(a * 1e9), START_NS + round(b * 1e9)) for a, b in contacts),
    )


def _blend(path: Floats, seconds: float) -> Floats:
    """Round corners by a symmetric moving average, as fingers and filters do."""
    width = max(1, round(seconds / FINE_S)) | 1
    pad = width // 2
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    long = np.concatenate(
        [np.repeat(path[:1], pad, axis=0), path, np.repeat(path[-1:], pad, axis=0)]
    )
    return np.column_stack([np.convolve(c, kernel, mode="valid") for c in long.T])


def pick_place(seed: int, *, retry: bool = False, rate_hz: float | None = None) -> Take:
    """A pick-and-place take; everything about it follows from the seed."""
    rng = np.random.default_rng(seed)
    style = random_style(rng, rate_hz)
    return perform(pick_place_script(rng, retry), style, rng)


def keep_only(take: Take, *signals: str) -> Take:
    """The same take with nothing but the named signals of each effector (position, width, ...)."""
    bare = tuple(
        Effector(e.name, **{name: getattr(e, name) for name in signals})
        for e in take.inputs.effectors
    )
    return replace(take, inputs=replace(take.inputs, effectors=bare))
