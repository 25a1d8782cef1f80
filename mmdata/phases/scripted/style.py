"""How a script is carried out, and the episode that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmdata.phases.inputs import Effector, Floats, Inputs, Series, Stamps
from mmdata.phases.metrics import Interval

START_NS = 1_760_000_000_000_000_000
FINE_S = 0.001
"""Step at which motions are played before sensors sample them."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a script is carried out. Lengths in s, m, masses in kg; noise as standard deviations."""

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
    object_kg: float = 0.05
    hand_kg: float = 0.5
    force_bias_n: float = 0.0
    force_sign: float = 1.0


@dataclass(frozen=True, slots=True)
class Take:
    """A scripted episode: what was measured, and the truth."""

    inputs: Inputs
    phases: tuple[Interval, ...]
    contacts: tuple[tuple[int, int], ...]


def random_style(rng: np.random.Generator, rate_hz: float | None = None) -> Style:
    """A style drawn wide: robot-like and human-like, clean and noisy, sharp and blended."""
    human = rng.random() < 0.6
    return Style(
        profile="minimum_jerk" if human else "first_order",
        speed=float(rng.uniform(0.6, 1.5)),
        pause_s=float(rng.uniform(0.0, 0.5) if rng.random() < 0.5 else 0.0),
        blend_s=float(rng.uniform(0.05, 0.35) if human else rng.uniform(0.1, 0.25)),
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
        object_kg=float(10 ** rng.uniform(-1.7, 0.0)),
        hand_kg=float(rng.uniform(0.3, 1.2)),
        force_bias_n=float(rng.uniform(0.0, 3.0)),
        force_sign=float(rng.choice([-1.0, 1.0])),
    )


def sampled(
    t: Floats, values: Floats, noise: float, style: Style, rng: np.random.Generator
) -> Series:
    """values (N,) or (N, C) over seconds t (N,) as a sensor of this style writes them."""
    period = 1.0 / style.rate_hz
    at = np.arange(period, float(t[-1]), period)
    at = at + np.clip(rng.normal(0, style.jitter, len(at)), -0.4, 0.4) * period
    at = np.clip(at, 0, t[-1])
    flat = values[:, None] if values.ndim == 1 else values
    out = np.column_stack([np.interp(at, t, c) for c in flat.T])
    out = out + rng.normal(0, noise, out.shape)
    return Series(stamps_of(at), out[:, 0] if values.ndim == 1 else out, "scripted")


def clock(count: int) -> Floats:
    """(count,) seconds at which a motion is played."""
    return np.asarray(np.arange(1, count + 1) * FINE_S, np.float64)


def stamps_of(seconds: Floats) -> Stamps:
    """Seconds since the start as stamps (N,)."""
    return START_NS + np.rint(np.asarray(seconds) * 1e9).astype(np.int64)


def intervals(spans: list[tuple[str, float]], end_s: float) -> tuple[Interval, ...]:
    """Phases from (label, start in s); neighbours of one label are one phase."""
    kept = [s for k, s in enumerate(spans) if k == 0 or spans[k - 1][0] != s[0]]
    edges = stamps_of(np.array([*(a for _, a in kept), end_s])).tolist()
    return tuple(
        Interval(label, a, b)
        for (label, _), a, b in zip(kept, edges[:-1], edges[1:], strict=True)
        if b > a
    )


def profile(kind: str, s: Floats) -> Floats:
    """Share of the way covered at share s (0 to 1) of the time."""
    if kind == "minimum_jerk":
        return np.asarray(s**3 * (10 - 15 * s + 6 * s * s))
    return np.asarray((1 - np.exp(-4.0 * s)) / (1 - np.exp(-4.0)))


def blended(values: Floats, seconds: float) -> Floats:
    """Corners rounded by a symmetric moving average (N, C), as fingers and filters do."""
    width = max(1, round(seconds / FINE_S)) | 1
    pad = width // 2
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    long = np.concatenate(
        [np.repeat(values[:1], pad, axis=0), values, np.repeat(values[-1:], pad, axis=0)]
    )
    return np.column_stack([np.convolve(c, kernel, mode="valid") for c in long.T])


def tremor(t: Floats, size: float, rng: np.random.Generator) -> Floats:
    """(N, 3) shaking of a hand, 0.8 to 4 Hz."""
    out = np.empty((len(t), 3))
    for axis in range(3):
        f, p = rng.uniform(0.8, 4.0, 4), rng.uniform(0, 2 * np.pi, 4)
        out[:, axis] = size / 4 * np.sin(2 * np.pi * f * t[:, None] + p).sum(axis=1)
    return out


def keep_only(take: Take, *signals: str) -> Take:
    """The same take with nothing but the named signals of each effector (position, width, ...)."""
    bare = tuple(
        Effector(e.name, **{name: getattr(e, name) for name in signals})
        for e in take.inputs.effectors
    )
    return replace(take, inputs=replace(take.inputs, effectors=bare))
