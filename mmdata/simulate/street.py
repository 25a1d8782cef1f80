"""The street as a function of time: ego vehicle, cameras of several lens models, actors."""

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
from mmdata.simulate.motion import Floats
from mmdata.simulate.render import make_texture
from mmdata.simulate.route import Actor, Route, Traffic
from mmdata.simulate.scene import Panel, Solid

WIDTH, HEIGHT = 480, 300
GROUND_M = 320.0
# Name: heading in degrees, lens model, focal length in pixels, coefficients.
_CAMERAS: dict[str, tuple[float, LensModel, float, tuple[float, ...]]] = {
    "camera_front": (0.0, LensModel.PINHOLE, 380.0, ()),
    "camera_front_left": (
        60.0, LensModel.BROWN_CONRADY, 300.0, (-0.16, 0.03, 4e-4, -3e-4, -0.002),
    ),
    "camera_front_right": (
        -60.0, LensModel.BROWN_CONRADY, 300.0, (0.25, -0.02, -3e-4, 4e-4, 0.001, 0.4, 0.01, 0.002),
    ),
    "camera_rear": (180.0, LensModel.FISHEYE, 185.0, (0.03, -0.008, 0.002, -0.0003)),
    "camera_left": (115.0, LensModel.FISHEYE, 190.0, (-0.01, 0.004, -0.001, 0.0001)),
    "camera_right": (-115.0, LensModel.PINHOLE, 290.0, ()),
}  # fmt: skip
CAMERAS = tuple(_CAMERAS)


@dataclass(frozen=True)
class Street:
    """Everything true about one drive; times t are (N,) seconds since the start."""

    seed: int
    length_s: float
    camera_names: tuple[str, ...]
    object_count: int
    hard_braking: bool = False

    @cached_property
    def route(self) -> Route:
        return Route(np.random.default_rng([self.seed, 11]), self.length_s, self.hard_braking)

    @cached_property
    def traffic(self) -> Traffic:
        traffic = Traffic(np.random.default_rng([self.seed, 12]), self.route)
        traffic.populate(self.object_count)
        return traffic

    @property
    def actors(self) -> list[Actor]:
        """The labelled objects; :meth:`solids` begins with them, in this order."""
        return self.traffic.actors

    def ego_pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Position (N, 3) and orientation (N, 4) of base_link in ``world``."""
        return self.route.pose(t)

    def sensor_pose(self, sensor: str, t: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Position (N, 3) and orientation (N, 4) of a sensor's frame in ``world``."""
        position, orientation = self.ego_pose(t)
        mount = self.rig[sensor].parent_SE3_sensor
        assert mount is not None
        return (
            position + quat_rotate(orientation, mount.translation),
            quat_multiply(orientation, mount.quaternion),
        )

    def solids(self, t: npt.ArrayLike) -> list[Solid]:
        """Actors, then buildings, at times (N,)."""
        out = []
        for actor in self.actors:
            center, orientation = actor.pose(t)
            tiles = tuple(max(1, round(s / 2.2)) for s in actor.size_m)
            out.append(
                Solid(
                    actor.object_id, actor.size_m, actor.colour, center,
                    quat_to_matrix(orientation), (tiles[0], tiles[1], max(2, tiles[2])), 0.7,
                )
            )  # fmt: skip
        return out + self._buildings

    @cached_property
    def _buildings(self) -> list[Solid]:
        rng = np.random.default_rng([self.seed, 13])
        out = []
        for i, (center, size, yaw) in enumerate(self.traffic.buildings):
            tone = rng.integers(90, 190)
            shade = (int(tone * 0.9), int(tone * 0.95), int(tone))
            tiles = tuple(max(1, round(s / 3.0)) for s in size)
            turned = quat_to_matrix(quat_from_rotvec([0, 0, yaw]))
            out.append(
                Solid(f"building_{i:02d}", size, shade, center, turned,
                      (tiles[0], tiles[1], tiles[2]), 0.4)
            )  # fmt: skip
        return out

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """The ground."""
        middle = self.route.plane([0.5 * self.length_s])[0]
        half = 0.5 * GROUND_M * np.eye(3)
        texture = make_texture(self.seed, (1024, 1024), (95, 98, 100), 9.0)
        center = np.array([middle[0], middle[1], 0.0])
        return (Panel("ground", center, half[0], half[1], texture, repeat=6),)

    @cached_property
    def rig(self) -> Rig:
        """The vehicle's sensors, mounted a little differently on every vehicle."""
        rng = np.random.default_rng([self.seed, 14])
        sensors = [
            Sensor("base_link", "base_link"),
            Sensor(
                "lidar", "lidar", "base_link",
                SE3.from_quaternion(quat_from_rotvec(rng.normal(0, 0.01, 3)), [1.2, 0.0, 1.95]),
            ),
            Sensor("imu", "imu", "base_link", SE3.from_quaternion([1, 0, 0, 0], [0.6, 0.0, 0.5])),
        ]  # fmt: skip
        # A camera's x right, y down, z forward in axes that point forward, left, up.
        axes = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        for name in self.camera_names:
            degrees, model, focal, coefficients = _CAMERAS[name]
            heading = np.radians(degrees)
            at = np.array([1.4 + 0.5 * np.cos(heading), 0.5 * np.sin(heading), 1.62])
            aim = quat_multiply(
                quat_from_rotvec([0, 0, heading]), quat_from_rotvec(rng.normal(0, 0.015, 3))
            )
            fx, fy = focal * (1 + rng.normal(0, 0.005, 2))
            cx, cy = np.array([0.5 * (WIDTH - 1), 0.5 * (HEIGHT - 1)]) + rng.normal(0, 3, 2)
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            camera = CameraModel(model, K, np.array(coefficients), WIDTH, HEIGHT)
            pose = SE3(quat_to_matrix(aim) @ axes, at + rng.normal(0, 0.02, 3))
            sensors.append(Sensor(name, name, "base_link", pose, camera))
        return Rig(sensors)
