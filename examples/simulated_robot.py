"""A robot in the simulated cell that goes where it is told, and speaks as a real one does.

`mmdata.simulate` plays demonstrations from scripts. Here the same arm, gripper, cube and camera
follow commands instead: messages come late and at their own rates, the hand lags, and fingers take
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdata import SE3
from mmdata.geometry import quat_conjugate, quat_rotate, quat_slerp
from mmdata.simulate.arm import MAX_WIDTH_M
from mmdata.simulate.render import Camera, encode_jpeg
from mmdata.simulate.script import Script
from mmdata.simulate.world import World

STEP_NS, START_NS = 10_000_000, 1_770_000_000_000_000_000
#: Where the robot lets its hand go, whatever it is told: least and most x, y, z.
WORKSPACE_M = np.array([[0.28, -0.30, 0.008], [0.60, 0.30, 0.40]])
#: The hand closes this share of the way to its command in a step of 10 ms (a lag of about 60 ms).
FOLLOW, HAND_M_S, FINGERS_M_S = 0.15, 0.6, 0.1
#: How far along the fingers, and across them, the cube's centre may lie to be held.
GRASP_M = 0.015
#: The hand moves less than this in a step, so that what is between the fingers stays so.
REACH_M = 0.006
_NOW = np.zeros(1)


@dataclass(frozen=True)
class Cell(World):
    """The cell of a seed at one instant, whose state is set instead of played."""

    now: dict[str, Any] = field(default_factory=dict)

    def tcp_pose(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        n = len(np.atleast_1d(t))
        return np.tile(self.now["tcp"], (n, 1)), np.tile(self.now["turned"], (n, 1))

    def width(self, t: Any) -> np.ndarray:
        return np.full(len(np.atleast_1d(t)), self.now["width"])

    def object_pose(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        n = len(np.atleast_1d(t))
        return np.tile(self.now["cube"], (n, 1)), np.tile(self.now["cube_turned"], (n, 1))


@dataclass(frozen=True)
class Message:
    """What the robot sends: data as `OnlineAligner.push` takes it."""

    stream: str
    data: Any
    stamp_ns: int
    receive_ns: int


class Robot:
    """One run in the cell of a seed, 10 ms at a time.

    >>> for message in robot.messages(): ...         # what has arrived by robot.now_ns
    >>> robot.step(position, orientation, width)     # m, (qw, qx, qy, qz), m
    """

    def __init__(self, seed: int, camera_every: int) -> None:
        """camera_every: steps from frame to frame."""
        script = Script(seed, ())
        script.play(first=True)
        world = World(script, seed)
        (tcp, turned), (cube, cube_turned) = world.tcp_pose(_NOW), world.object_pose(_NOW)
        self._cell = Cell(script, seed)
        self._cell.now.update(
            tcp=tcp[0], turned=turned[0], cube=cube[0], cube_turned=cube_turned[0],
            width=MAX_WIDTH_M,
        )  # fmt: skip
        model = world.rig["camera_wrist"].camera
        assert model is not None
        self._camera, self._camera_every = Camera(model, world.panels, seed), camera_every
        self._rng = np.random.default_rng(seed)
        self._rest_m = cube[0].copy()
        self._waiting: list[Message] = []
        self._steps, self._held, self.nearest_m = 0, False, np.inf

    @property
    def now_ns(self) -> int:
        return START_NS + self._steps * STEP_NS

    @property
    def hand_m(self) -> np.ndarray:
        """(3,) the tcp in `base`."""
        return np.array(self._cell.now["tcp"])

    @property
    def orientation(self) -> np.ndarray:
        """(4,) of the tcp in `base`."""
        return np.array(self._cell.now["turned"])

    @property
    def cube_m(self) -> np.ndarray:
        """(3,) the cube's centre in `base`: for the referee, not for the policy."""
        return np.array(self._cell.now["cube"])

    @property
    def lifted_m(self) -> float:
        """How far the cube is above where it stood."""
        return float(self.cube_m[2] - self._rest_m[2])

    def messages(self) -> Iterator[Message]:
        """Messages that have arrived by now, in order of arrival; to be taken once per step."""
        now = self._cell.now
        fingers = [0.5 * now["width"]] * 2
        said: dict[str, Any] = {
            "eef_pose": {"position": now["tcp"].copy(), "orientation": now["turned"].copy()},
            "joint_states": {"position": np.r_[self._cell.joints(_NOW)[0], fingers]},
        }
        if self._steps % self._camera_every == 0:
            position, orientation = self._cell.sensor_pose("camera_wrist", _NOW)
            pose = SE3.from_quaternion(orientation[0], position[0])
            solids = [s.take(0) for s in self._cell.solids(_NOW)]
            said["camera_wrist"] = encode_jpeg(self._camera.render(pose, solids)).tobytes()
        for name, data in said.items():
            late_s = self._rng.uniform(
                *((0.012, 0.03) if name == "camera_wrist" else (0.001, 0.003))
            )
            self._waiting.append(Message(name, data, self.now_ns, self.now_ns + int(late_s * 1e9)))
        arrived = [m for m in self._waiting if m.receive_ns <= self.now_ns]
        self._waiting = [m for m in self._waiting if m.receive_ns > self.now_ns]
        yield from sorted(arrived, key=lambda m: m.receive_ns)

    def wait(self) -> None:
        """Stay as it is for 10 ms."""
        self._steps += 1

    def step(self, position: np.ndarray, orientation: np.ndarray, width_m: float) -> None:
        """Follow a command for 10 ms."""
        self._steps += 1
        now, step_s = self._cell.now, STEP_NS / 1e9
        before, turned = now["tcp"], now["turned"]
        way = FOLLOW * (np.clip(position, *WORKSPACE_M) - now["tcp"])
        way *= min(1.0, HAND_M_S * step_s / max(float(np.linalg.norm(way)), 1e-12))
        now["tcp"] = now["tcp"] + way
        now["turned"] = quat_slerp(turned, orientation, FOLLOW)
        try:
            self._cell.joints(_NOW)
        except ValueError:  # out of the arm's reach: it stays where it is
            now["tcp"], now["turned"] = before, turned
        self.nearest_m = min(self.nearest_m, float(np.linalg.norm(self.hand_m - self.cube_m)))
        size = self._cell.script.object.size_m
        stroke = FINGERS_M_S * step_s
        wanted = now["width"] + float(np.clip(width_m - now["width"], -stroke, stroke))
        # Along x, y (in which the fingers close) and z of the tool.
        beside = quat_rotate(quat_conjugate(now["turned"]), self.cube_m - now["tcp"])
        free = 0.5 * (now["width"] - size)
        between = bool((np.abs(beside) <= [GRASP_M, free + REACH_M, GRASP_M]).all())
        now["width"] = float(np.clip(wanted, size if between else 0.0, MAX_WIDTH_M))
        if self._held:
            now["cube"] = now["cube"] + now["tcp"] - before
        elif between:  # a finger that meets the cube pushes it along
            free = 0.5 * (now["width"] - size)
            push = np.array([0.0, np.clip(beside[1], -free, free) - beside[1], 0.0])
            now["cube"] = now["cube"] + quat_rotate(now["turned"], push) * [1.0, 1.0, 0.0]
        held = between and now["width"] <= size + 1e-4
        if self._held and not held:
            now["cube"][2] = self._rest_m[2]  # let go: it falls
        self._held = held
