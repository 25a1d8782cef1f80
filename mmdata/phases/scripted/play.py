"""One or two arms carry out a list of moves: positions, grippers, forces, touch, and the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdata.geometry import quat_conjugate, quat_rotate
from mmdata.phases.inputs import Effector, Floats, Inputs
from mmdata.phases.scripted.style import (
    FINE_S,
    START_NS,
    Style,
    Take,
    blended,
    clock,
    intervals,
    profile,
    sampled,
    stamps_of,
    tremor,
)

OPEN_M = 0.08
UP = np.array([0.0, 0.0, 1.0])
GRAVITY_M_S2 = 9.81


@dataclass(frozen=True, slots=True)
class Move:
    """Go to `to` (None: stay) under the label; `close` or `open` works the gripper meanwhile.

    A move with the gripper begins, by the convention, when the fingers meet or lose the object;
    `empty` closings meet each other. tilt: angle (rad) reached at its end; loaded: the object's
    weight hangs on the hand; push (N, world) of the world on the tool; drag (N) against the
    motion; other: what the second arm does meanwhile.
    """

    label: str
    to: tuple[float, float, float] | None
    seconds: float
    grip: str | None = None
    empty: bool = False
    tilt: float | None = None
    loaded: bool = False
    push: tuple[float, float, float] = (0.0, 0.0, 0.0)
    drag: float = 0.0
    other: Move | None = None


@dataclass
class _Arm:
    """State of one arm and what it has played, 1 ms apart."""

    here: Floats
    tilt: float = 0.0
    width: float = OPEN_M
    command: float = 1.0
    held_since: float | None = None
    parts: dict[str, list[Floats]] = field(default_factory=dict)
    contacts: list[tuple[float, float]] = field(default_factory=list)

    def needs(self, move: Move, style: Style) -> float:
        """Seconds a move takes; the gripper gets the time it needs."""
        seconds = max(0.25, move.seconds / style.speed)
        if move.grip is not None:
            seconds = max(seconds, 0.15 + style.gripper_delay_s + OPEN_M / style.gripper_speed_m_s)
        return seconds

    def play(self, move: Move, now: float, n: int, m: int, style: Style) -> float | None:
        """Append n steps of motion and m of rest; the instant the gripper met or lost something."""
        t = now + clock(n + m)
        share = np.r_[profile(style.profile, np.arange(1, n + 1) / n), np.ones(m)]
        goal = self.here if move.to is None else np.array(move.to)
        self._add("path", self.here + share[:, None] * (goal - self.here))
        self.here = goal
        turn = self.tilt if move.tilt is None else move.tilt
        self._add("tilt", self.tilt + share * (turn - self.tilt))
        self.tilt = turn
        self._add("loaded", np.full(n + m, float(move.loaded)))
        self._add("push", np.tile(np.array(move.push), (n + m, 1)))
        self._add("drag", np.full(n + m, move.drag))
        return self._grip(move, t, style)

    def _grip(self, move: Move, t: Floats, style: Style) -> float | None:
        instant: float | None = None
        if move.grip is not None:
            self.command = 0.0 if move.grip == "close" else 1.0
        self._add("command", np.full(len(t), self.command))
        start = self.width
        width = np.full(len(t), start)
        if move.grip == "close":
            target = 0.0 if move.empty else style.object_width_m
            ramp = (t - t[0] - style.gripper_delay_s) * style.gripper_speed_m_s
            width = np.maximum(target, start - np.clip(ramp, 0, None))
            instant = float(t[np.argmax(width <= target + 1e-9)])
            if not move.empty:
                self.held_since = instant
        elif move.grip == "open":
            ramp = (t - t[0] - style.gripper_delay_s) * style.gripper_speed_m_s
            width = np.minimum(OPEN_M, start + np.clip(ramp, 0, None))
            instant = float(t[np.argmax(ramp > 0)])
            if self.held_since is not None:
                self.contacts.append((self.held_since, instant))
                self.held_since = None
        if self.held_since is not None:  # pads and object give a little under load
            width = width - style.creep_m_s * np.clip(t - max(self.held_since, t[0]), 0, None)
        self._add("width", width)
        self.width = float(width[-1])
        return instant

    def _add(self, name: str, values: Floats) -> None:
        self.parts.setdefault(name, []).append(values)

    def effector(self, name: str, end_s: float, style: Style, rng: np.random.Generator) -> Effector:
        """What the sensors of this arm wrote."""
        played = {k: np.concatenate(v) for k, v in self.parts.items()}
        path, tilt = played["path"], played["tilt"][:, None]
        t = clock(len(path))
        if style.blend_s > 0:
            path, tilt = blended(path, style.blend_s), blended(tilt, style.blend_s)
        if style.tremor_m > 0:
            path = path + tremor(t, style.tremor_m, rng)
        half = tilt[:, 0] / 2
        turn = np.column_stack([np.cos(half), np.sin(half), 0 * half, 0 * half])
        held = np.zeros(len(t))
        contacts = list(self.contacts)
        if self.held_since is not None:
            contacts.append((self.held_since, end_s))
        for a, b in contacts:
            held[(t > a) & (t <= b)] = 1.0
        ramp = np.convolve(held, np.ones(15) / 15)[: len(held)] * held * 12.0
        force = self._force(t, path, turn, contacts, style, played, rng)
        return Effector(
            name,
            position=sampled(t, path, style.position_noise_m, style, rng),
            orientation=sampled(t, turn, 0.0, style, rng),
            width=sampled(t, played["width"], style.width_noise_m, style, rng),
            command=sampled(t, played["command"], 0.0, style, rng),
            wrench=sampled(
                t, np.column_stack([force, 0.05 * force]), style.force_noise_n, style, rng
            ),
            touch=sampled(
                t, ramp[:, None] * rng.uniform(0.05, 0.2, 8), style.touch_noise, style, rng
            ),
        )

    def _force(
        self,
        t: Floats,
        path: Floats,
        turn: Floats,
        contacts: list[tuple[float, float]],
        style: Style,
        played: dict[str, Floats],
        rng: np.random.Generator,
    ) -> Floats:
        """(N, 3) N in the sensor's frame: weight and inertia, the world's push, knocks, bias."""
        velocity = np.gradient(path, FINE_S, axis=0)
        acceleration = np.gradient(velocity, FINE_S, axis=0)
        mass = style.hand_kg + style.object_kg * blended(played["loaded"][:, None], 0.08)[:, 0]
        world = -mass[:, None] * (acceleration + GRAVITY_M_S2 * UP)
        # A push wavers, and takes some hundredths of a second to build up.
        waver = 1.0 + 0.5 * tremor(t, 1.0, rng)[:, :1]
        world += blended(played["push"], 0.06) * waver
        speed = np.linalg.norm(velocity, axis=1, keepdims=True)
        along = velocity / np.maximum(speed, 0.01)
        world -= blended(played["drag"][:, None], 0.06) * waver * along
        for instant in (x for contact in contacts for x in contact):
            world[(t > instant) & (t < instant + 0.03)] += np.array([0.4, 0.2, 2.0])
        bias = rng.normal(0, 1, 3) * style.force_bias_n
        return np.asarray(style.force_sign * quat_rotate(quat_conjugate(turn), world) + bias)


def perform(
    script: list[Move],
    style: Style,
    rng: np.random.Generator,
    places: dict[str, tuple[float, float, float]] | None = None,
) -> Take:
    """Carry out a script in a style. The same generator state gives the same take.

    places: where each arm sets out, by its name; without it one arm sets out from somewhere near
    its first goal.
    """
    if places is None:
        first = np.array(script[0].to or (0.4, 0.0, 0.2))
        arms = {"arm": _Arm(first + rng.uniform([-0.25, -0.25, 0.0], [0.25, 0.25, 0.3]))}
    else:
        arms = {name: _Arm(np.array(at)) for name, at in places.items()}
    now = 0.0
    spans: list[tuple[str, float]] = []
    for move in script:
        jobs = [move, move.other or Move(move.label, None, 0.0)][: len(arms)]
        n = round(max(a.needs(j, style) for a, j in zip(arms.values(), jobs, strict=True)) / FINE_S)
        gripping = any(j.grip is not None for j in jobs)
        m = 0 if gripping else round(style.pause_s * float(rng.uniform(0.5, 1.5)) / FINE_S)
        instants = [a.play(j, now, n, m, style) for a, j in zip(arms.values(), jobs, strict=True)]
        met = [i for i in instants if i is not None]
        spans.append((move.label, met[0] if met else now))
        now += (n + m) * FINE_S
    effectors = tuple(a.effector(name, now, style, rng) for name, a in arms.items())
    contacts = sorted(
        (int(stamps_of(np.array(a))), int(stamps_of(np.array(b))))
        for arm in arms.values()
        for a, b in arm.contacts
    )
    inputs = Inputs(START_NS, int(stamps_of(np.array(now))), effectors)
    return Take(inputs, intervals(spans, now), tuple(contacts))
