"""Small scripted signals of task families, each with its true phases."""

from __future__ import annotations

import numpy as np

from mmdata.phases.inputs import Base, Effector, Floats, Inputs, Series
from mmdata.phases.metrics import Interval

START_NS = 1_700_000_000_000_000_000
RATE_HZ = 100.0


def series(values: Floats, rng: np.random.Generator, noise: float = 0.0) -> Series:
    stamps = START_NS + np.rint(np.arange(len(values)) * 1e9 / RATE_HZ).astype(np.int64)
    return Series(stamps, values + rng.normal(0, 1, values.shape) * noise, "test")


def move(path: list[Floats], to: tuple[float, float, float], seconds: float) -> None:
    """Append a minimum-jerk move."""
    s = (np.arange(round(seconds * RATE_HZ)) + 1)[:, None] / round(seconds * RATE_HZ)
    start = path[-1][-1]
    path.append(start + (s**3 * (10 - 15 * s + 6 * s * s)) * (np.array(to) - start))


class Scene:
    """Arm signals built phase by phase."""

    def __init__(self, at: tuple[float, float, float], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.path = [np.array([at])]
        self.width, self.force, self.tilt = [1.0], [0.0], [0.0]
        self.spans: list[tuple[str, float]] = []

    @property
    def now_s(self) -> float:
        return (sum(len(p) for p in self.path) - 1) / RATE_HZ

    def phase(
        self,
        label: str,
        to: tuple[float, float, float] | None,
        seconds: float,
        *,
        width: float | None = None,
        force: float = 0.0,
        tilt: float | None = None,
    ) -> None:
        """`width` and `tilt` move linearly to their new value within the phase."""
        self.spans.append((label, self.now_s))
        n = round(seconds * RATE_HZ)
        move(self.path, tuple(self.path[-1][-1]) if to is None else to, seconds)  # type: ignore[arg-type]
        new_width = self.width[-1] if width is None else width
        quick = min(n, 25)
        ramp = np.linspace(self.width[-1], new_width, quick + 1)[1:]
        self.width += [*ramp, *[new_width] * (n - quick)]
        self.force += [force] * n
        new_tilt = self.tilt[-1] if tilt is None else tilt
        self.tilt += list(np.linspace(self.tilt[-1], new_tilt, n + 1)[1:])

    def effector(self, name: str = "arm") -> Effector:
        rng = self.rng
        half = np.array(self.tilt) / 2
        turn = np.column_stack([np.cos(half), np.sin(half), 0 * half, 0 * half])
        push = np.column_stack([0 * half, 0 * half, np.array(self.force), *[0 * half] * 3])
        return Effector(
            name,
            position=series(np.concatenate(self.path), rng, 0.0002),
            orientation=series(turn, rng),
            width=series(np.array(self.width), rng, 0.001),
            wrench=series(push, rng, 0.1),
        )

    def intervals(self) -> list[Interval]:
        edges = [*(t for _, t in self.spans), self.now_s]
        return [
            Interval(label, START_NS + round(a * 1e9), START_NS + round(b * 1e9))
            for (label, a), b in zip(self.spans, edges[1:], strict=True)
        ]

    def inputs(self) -> Inputs:
        effector = self.effector()
        assert effector.position is not None
        stamps = effector.position.stamp_ns
        return Inputs(int(stamps[0]), int(stamps[-1]), (effector,))


def _take(scene: Scene) -> None:
    scene.phase("approach", (0.5, -0.2, 0.2), 1.3)
    scene.phase("descend", (0.5, -0.2, 0.03), 1.0)
    scene.phase("close", None, 0.25, width=0.4)
    scene.phase("grasp", None, 0.4)
    scene.phase("lift", (0.5, -0.2, 0.2), 1.0)
    scene.phase("transport", (0.5, 0.2, 0.2), 1.4)


def _leave(scene: Scene) -> None:
    scene.phase("release", None, 0.5, width=1.0)
    scene.phase("retract", (0.5, 0.2, 0.25), 1.0)


def _without_close(scene: Scene) -> list[Interval]:
    """Closing belongs to the phase before: the grasp starts at contact."""
    found: list[Interval] = []
    for i in scene.intervals():
        if i.label == "close":
            found[-1] = Interval(found[-1].label, found[-1].start_ns, i.end_ns)
        else:
            found.append(i)
    return found


def insert() -> tuple[Inputs, list[Interval]]:
    scene = Scene((0.3, 0.0, 0.3))
    _take(scene)
    scene.phase("lower", (0.5, 0.2, 0.06), 1.0)
    scene.phase("insert", (0.5, 0.2, 0.03), 1.5, force=-15.0)
    _leave(scene)
    return scene.inputs(), _without_close(scene)


def pour() -> tuple[Inputs, list[Interval]]:
    scene = Scene((0.3, 0.0, 0.3))
    _take(scene)
    scene.phase("pour", None, 1.5, tilt=1.6)
    scene.phase("pour", None, 1.5, tilt=0.0)
    scene.phase("transport", (0.5, 0.0, 0.2), 1.2)
    scene.phase("lower", (0.5, 0.0, 0.03), 1.0)
    _leave(scene)
    found = _without_close(scene)
    merged = [i for i in found if i.label != "pour"]
    pours = [i for i in found if i.label == "pour"]
    merged.append(Interval("pour", pours[0].start_ns, pours[-1].end_ns))
    return scene.inputs(), sorted(merged, key=lambda i: i.start_ns)


def wipe() -> tuple[Inputs, list[Interval]]:
    scene = Scene((0.3, 0.0, 0.3))
    scene.phase("approach", (0.5, -0.2, 0.2), 1.3)
    scene.phase("descend", (0.5, -0.2, 0.03), 1.0)
    start = len(scene.spans)
    for k in range(4):
        scene.phase("wipe", (0.5 + 0.02 * k, 0.2 * (-1) ** k, 0.03), 1.2, force=-8.0)
    scene.phase("retract", (0.5, 0.2, 0.25), 1.0)
    scene.spans = [*scene.spans[: start + 1], scene.spans[-1]]
    return scene.inputs(), scene.intervals()


def drive(rate_hz: float = 50.0) -> tuple[Inputs, list[Interval]]:
    """Stand, pull away, keep lane, turn left, keep lane, change lane right, brake hard, stand."""
    parts = [
        ("stand", 4.0),
        ("pull_away", 6.0),
        ("keep_lane", 8.0),
        ("turn_left", 5.0),
        ("keep_lane", 8.0),
        ("change_lane_right", 4.0),
        ("keep_lane", 8.0),
        ("brake_to_stop", 3.0),
        ("stand", 4.0),
    ]
    speed, yaw, spans, now = [], [], [], 0.0
    v = 0.0
    for label, seconds in parts:
        t = np.arange(round(seconds * rate_hz)) / rate_hz
        spans.append((label, now))
        now += seconds
        pace = np.full(len(t), v)
        turn = np.zeros(len(t))
        if label == "pull_away":
            pace = v + 2.0 * t
        elif label == "brake_to_stop":
            pace = np.maximum(0.0, v - v / seconds * t)
        elif label == "turn_left":
            turn = np.full(len(t), np.pi / 2 / seconds)
        elif label == "change_lane_right":
            turn = -0.11 * np.sin(2 * np.pi * t / seconds)
        v = float(pace[-1])
        if label == "brake_to_stop":
            v = 0.0
        speed.append(pace)
        yaw.append(turn)
    rng = np.random.default_rng(0)
    n = sum(len(s) for s in speed)
    stamps = START_NS + np.rint(np.arange(n) * 1e9 / rate_hz).astype(np.int64)
    base = Base(
        speed=Series(stamps, np.abs(np.concatenate(speed) + rng.normal(0, 0.03, n)), "test"),
        yaw_rate=Series(stamps, np.concatenate(yaw) + rng.normal(0, 0.003, n), "test"),
    )
    edges = [*(t for _, t in spans), now]
    truth = [
        Interval(label, START_NS + round(a * 1e9), START_NS + round(b * 1e9))
        for (label, a), b in zip(spans, edges[1:], strict=True)
    ]
    return Inputs(int(stamps[0]), int(stamps[-1]), base=base), truth


def handover() -> tuple[Inputs, list[Interval]]:
    first, second = Scene((0.3, -0.4, 0.3), 1), Scene((0.3, 0.4, 0.3), 2)
    for label, a, b, seconds, wa, wb in (
        ("approach", (0.5, -0.3, 0.05), None, 1.8, None, None),
        ("close", None, None, 0.25, 0.4, None),
        ("grasp", None, None, 0.4, None, None),
        ("transport", (0.5, 0.0, 0.25), (0.5, 0.1, 0.25), 1.8, None, None),
        ("close", None, None, 0.25, None, 0.4),
        ("hand_over", None, None, 0.5, None, None),
        ("transport", (0.4, -0.3, 0.3), (0.5, 0.4, 0.1), 1.8, 1.0, None),
        ("release", None, None, 0.5, None, 1.0),
        ("retract", None, (0.3, 0.4, 0.3), 1.2, None, None),
    ):
        first.phase(label, a, seconds, width=wa)
        second.phase(label, b, seconds, width=wb)
    effectors = (first.effector("left"), second.effector("right"))
    inputs = first.inputs()
    return (
        Inputs(inputs.start_ns, inputs.end_ns, effectors),
        _without_close(first),
    )
