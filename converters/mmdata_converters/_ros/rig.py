"""Calibration from CameraInfo and static transforms, collected as they are met."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdata.geometry import SE3, CameraModel, LensModel, Rig, Sensor

_FISHEYE = {"equidistant", "fisheye", "kannala_brandt"}
_BROWN_CONRADY = {"plumb_bob", "rational_polynomial"}


class RigBuilder:
    """Cameras and frames of one recording. `problems` tells what could not be taken."""

    def __init__(self) -> None:
        self._cameras: dict[str, tuple[str, CameraModel]] = {}
        self._mounts: dict[str, tuple[str, SE3]] = {}
        self.problems: list[str] = []

    def add_camera(
        self,
        sensor: str,
        frame_id: str | None,
        model: str,
        K: NDArray[np.float64],
        D: NDArray[np.float64],
        width: int,
        height: int,
    ) -> None:
        """Intrinsics (3, 3) and distortion coefficients as in sensor_msgs/CameraInfo."""
        if not K.any():
            self._note(f"{sensor}: CameraInfo is uncalibrated (K is all zero)")
            return
        if not D.any():
            lens = LensModel.PINHOLE
            D = np.empty(0)
        elif model in _FISHEYE:
            lens = LensModel.FISHEYE
        elif model in _BROWN_CONRADY:
            lens = LensModel.BROWN_CONRADY
        else:
            self._note(f"{sensor}: unknown distortion model {model!r}, its intrinsics are left out")
            return
        try:
            camera = CameraModel(lens, K, D, width, height)
        except ValueError as error:
            self._note(f"{sensor}: {error}")
            return
        known = self._cameras.setdefault(sensor, (frame_id or sensor, camera))
        if known[1] != camera:
            self._note(f"{sensor}: its CameraInfo changes; the rig holds the first, the stream all")

    def add_static(
        self, parent: str, child: str, xyz: NDArray[np.float64], qwxyz: NDArray[np.float64]
    ) -> None:
        """A static transform parent_SE3_child."""
        try:
            pose = SE3.from_xyz_qwxyz(np.concatenate([xyz, qwxyz]))
        except ValueError as error:
            self._note(f"static transform {parent} -> {child}: {error}")
            return
        known = self._mounts.setdefault(child, (parent, pose))
        if known[0] != parent or not known[1].is_close(pose):
            self._note(f"static transform of {child} is given twice and differs; the first is kept")

    def build(self) -> Rig:
        """The rig as far as it is known."""
        sensors = []
        for name, (frame_id, camera) in self._cameras.items():
            parent, pose = self._mounts.get(frame_id, (None, None))
            sensors.append(Sensor(name, frame_id, parent, pose, camera))
        placed = {frame_id for frame_id, _ in self._cameras.values()}
        taken = set(self._cameras)
        for child, (parent, pose) in self._mounts.items():
            if child not in placed and child not in taken:
                sensors.append(Sensor(child, child, parent, pose))
        return Rig(sensors)

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
