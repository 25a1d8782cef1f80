"""The pick-and-place cell as a function of time: arm, gripper, object, cameras, surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mmdata.geometry import (
    SE3,
    CameraModel,
    LensModel,
    Rig,
    Sensor,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    quat_to_matrix,
)
from mmdata.simulate import arm
from mmdata.simulate.motion import Floats, minimum_jerk
from mmdata.simulate.render import make_texture
from mmdata.simulate.scene import Panel, Solid
from mmdata.simulate.script import Script

TILT_FROM_M, TILT_OVER_M = 0.22, 0.09
OBJECT_BGR, BODY_BGR, FINGER_BGR = (45, 40, 200), (150, 140, 130), (70, 70, 75)
_TABLE_SIZE_M = (1.3, 1.3)


@dataclass(frozen=True)
class World:
    """Everything true about one run; times t are (N,) seconds since the start, as arrays."""

    script: Script
    seed: int
    texture: str = "grain"

    def tcp_pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Position (N, 3) and orientation (N, 4) of the tcp in ``base``."""
        return self._pose(self.script.table.tcp(t))

    def command_pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """What the tcp is told to do; it follows after the script's delay."""
        return self._pose(self.script.path.sample(t))

    def hand_pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Position and orientation of the hand (flange)."""
        position, orientation = self.tcp_pose(t)
        return position - quat_rotate(orientation, [0.0, 0.0, arm.TCP_M]), orientation

    def joints(self, t: npt.ArrayLike) -> Floats:
        """Arm joint angles (N, 6) in radians."""
        position, orientation = self.tcp_pose(t)
        return arm.inverse(position, quat_to_matrix(orientation))

    def width(self, t: npt.ArrayLike) -> Floats:
        """Distance between the fingers (N,)."""
        return self.script.gripper.width(t)

    def object_pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Centre (N, 3) and orientation (N, 4) of the cube in ``base``."""
        state = self.script.object.state(t)
        return state[:, :3], quat_from_rotvec(state[:, 3:] * np.array([0.0, 0.0, 1.0]))

    def contact(self, t: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether fingers and cube touch, (N,)."""
        return self.script.object.held(t)

    def sensor_pose(self, sensor: str, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Position (N, 3) and orientation (N, 4) of a sensor's frame in ``base``."""
        t = np.asarray(t, dtype=np.float64)
        mount = self.rig[sensor]
        assert mount.parent_SE3_sensor is not None
        if mount.parent == "base":
            position = np.zeros((len(t), 3))
            orientation = np.tile([1.0, 0.0, 0.0, 0.0], (len(t), 1))
        else:
            position, orientation = self.hand_pose(t)
        pose = mount.parent_SE3_sensor
        return (
            position + quat_rotate(orientation, pose.translation),
            quat_multiply(orientation, pose.quaternion),
        )

    def solids(self, t: npt.ArrayLike) -> list[Solid]:
        """Every box of the scene at times (N,)."""
        t = np.asarray(t, dtype=np.float64)
        links = arm.forward(self.joints(t))
        out = []
        for part in arm.BODY:
            position, orientation = links[part.frame]
            centre = position + quat_rotate(orientation, part.center_m)
            tiles = (1, 1, 4) if part.size_m[2] > 0.3 else (1, 2, 1)
            out.append(
                Solid(
                    part.frame, np.array(part.size_m), BODY_BGR, centre,
                    quat_to_matrix(orientation), tiles,
                )
            )  # fmt: skip
        position, orientation = links["hand"]
        width = self.width(t)
        for name, side in zip(arm.FINGERS, (1.0, -1.0), strict=True):
            offset = np.zeros((len(t), 3))
            offset[:, 1] = side * 0.5 * (width + arm.FINGER_SIZE_M[1])
            offset[:, 2] = arm.FINGER_CENTER_Z_M
            centre = position + quat_rotate(orientation, offset)
            out.append(
                Solid(
                    name, np.array(arm.FINGER_SIZE_M), FINGER_BGR, centre,
                    quat_to_matrix(orientation), (1, 1, 2),
                )
            )  # fmt: skip
        centre, turned = self.object_pose(t)
        size = np.full(3, self.script.object.size_m)
        out.append(Solid("cube", size, OBJECT_BGR, centre, quat_to_matrix(turned), (2, 2, 2), 0.8))
        return out

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """Table, floor and walls of the cell."""
        contrast = 0.0 if self.texture == "plain" else 9.0
        table = make_texture(self.seed, (900, 900), (165, 185, 200), contrast)
        floor = make_texture(self.seed + 1, (512, 512), (95, 100, 105), 0.5 * contrast)
        wall = make_texture(self.seed + 2, (256, 512), (190, 200, 195), 0.3 * contrast)
        half = 0.5 * np.array(_TABLE_SIZE_M)
        x, y, z = np.eye(3)
        panels = [
            Panel("table", np.array([0.35, 0.0, 0.0]), half[0] * x, half[1] * y, table),
            Panel("floor", np.array([0.0, 0.0, -0.75]), 3.0 * x, 3.0 * y, floor),
        ]
        for name, center, along in (
            ("wall_back", -3.0 * x, 3.0 * y), ("wall_front", 3.0 * x, 3.0 * y),
            ("wall_right", -3.0 * y, 3.0 * x), ("wall_left", 3.0 * y, 3.0 * x),
        ):  # fmt: skip
            panels.append(Panel(name, center + 0.75 * z, along, -1.5 * z, wall))
        return tuple(panels)

    @cached_property
    def rig(self) -> Rig:
        """The cell's sensors, mounted a little differently in every run."""
        rng = np.random.default_rng([self.seed, 5])
        front = CameraModel.pinhole(
            np.array([[290.0, 0, 159.5], [0, 290.0, 119.5], [0, 0, 1]]), 320, 240
        )
        wrist = CameraModel(
            LensModel.BROWN_CONRADY,
            np.array([[190.0, 0, 161.2], [0, 189.3, 118.1], [0, 0, 1]]),
            np.array([-0.08, 0.01, 4e-4, -3e-4, 0.0]),
            320,
            240,
        )
        eye = np.array([1.12, 0.0, 0.52]) + rng.normal(0, [0.03, 0.08, 0.03])
        c, s = np.cos(0.27), np.sin(0.27)
        # Beside the hand, looking along the tool and a little towards it.
        wrist_axes = np.column_stack([[0, 1, 0], [-c, 0, -s], [-s, 0, c]])
        nudge = SE3.from_quaternion(quat_from_rotvec(rng.normal(0, 0.02, 3)))
        hand_SE3_wrist = SE3(wrist_axes, np.array([0.075, 0.0, 0.02])) @ nudge
        # The LiDAR looks over the table from its corner: x forward, z up.
        lidar_yaw = 2.35 + rng.normal(0, 0.03)
        lidar_q = quat_multiply(quat_from_rotvec([0, 0, lidar_yaw]), quat_from_rotvec([0, 0.5, 0]))
        return Rig(
            [
                Sensor("hand", "hand"),
                Sensor("tcp", "tcp", "hand", arm.HAND_SE3_TCP),
                Sensor(
                    "camera_front", "camera_front", "base",
                    look_at(eye, np.array([0.36, 0.0, 0.10])), front,
                ),
                Sensor("camera_wrist", "camera_wrist", "hand", hand_SE3_wrist, wrist),
                Sensor(
                    "lidar", "lidar", "base",
                    SE3.from_quaternion(lidar_q, [0.95, -0.55, 0.45]),
                ),
                Sensor("wrist_ft", "wrist_ft", "hand", SE3.identity()),
                Sensor(
                    "imu", "imu", "hand",
                    SE3.from_quaternion(quat_from_rotvec([0, 0, np.pi / 2]), [0.0, 0.04, 0.03]),
                ),
                Sensor("mic", "mic", "base", SE3.from_quaternion([1, 0, 0, 0], [0.7, 0.35, 0.1])),
            ]
        )  # fmt: skip

    @cached_property
    def _lean_axis(self) -> Floats:
        axis = np.random.default_rng([self.seed, 6]).uniform(-0.35, 0.35, 3)
        return np.asarray(axis * [1.0, 1.0, 0.0])

    def _pose(self, state: Floats) -> tuple[Floats, Floats]:
        """High above the table the tool leans, as an operator's hand does; below it is upright."""
        lean = minimum_jerk((state[:, 2] - TILT_FROM_M) / TILT_OVER_M)
        tilted = quat_from_rotvec(lean[:, None] * self._lean_axis)
        return state[:, :3], quat_multiply(arm.tool_down(state[:, 3]), tilted)


def look_at(eye: Floats, target: Floats) -> SE3:
    """Pose of a camera (x right, y down, z forward) in a frame whose z points up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return SE3(np.column_stack([right, np.cross(forward, right), forward]), eye)
