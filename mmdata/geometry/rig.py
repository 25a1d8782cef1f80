"""The rig: every sensor's frame, place and intrinsics, as far as they are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.geometry.camera import CameraModel
from mmdata.geometry.pose import SE3


@dataclass(frozen=True)
class Sensor:
    """One sensor or frame of the rig; what is not known is None.

    Args:
        name: key in the rig.
        frame_id: coordinate frame of its data.
        parent: name of the frame it is mounted on.
        parent_SE3_sensor: maps points in its frame into the parent's.
        camera: intrinsics.
    """

    name: str
    frame_id: str
    parent: str | None = None
    parent_SE3_sensor: SE3 | None = None
    camera: CameraModel | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-like and exact; unknown parts have no key."""
        out: dict[str, Any] = {"frame_id": self.frame_id}
        if self.parent is not None:
            out["parent"] = self.parent
        if self.parent_SE3_sensor is not None:
            out["parent_SE3_sensor"] = self.parent_SE3_sensor.to_xyz_qwxyz().tolist()
        if self.camera is not None:
            out |= {
                "model": str(self.camera.model),
                "width": self.camera.width,
                "height": self.camera.height,
                "K": self.camera.K.tolist(),
                "distortion": self.camera.distortion.tolist(),
            }
        return out

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> Sensor:
        """The sensor written by :meth:`to_dict`.

        Raises:
            ValueError: values that do not make a transform or a camera.
        """
        pose = values.get("parent_SE3_sensor")
        camera = None
        if "model" in values:
            try:
                camera = CameraModel(
                    values["model"],
                    np.asarray(values["K"]),
                    np.asarray(values["distortion"]),
                    int(values["width"]),
                    int(values["height"]),
                )
            except KeyError as error:
                raise ValueError(f"camera of sensor {name!r} lacks {error}") from error
        return cls(
            name,
            values.get("frame_id", name),
            values.get("parent"),
            None if pose is None else SE3.from_xyz_qwxyz(pose),
            camera,
        )


class Rig(Mapping[str, Sensor]):
    """Sensors by name; parents form a tree of frames. Immutable.

    Raises:
        ValueError: two sensors share a name.
    """

    def __init__(self, sensors: Iterable[Sensor] = ()) -> None:
        self._sensors: dict[str, Sensor] = {}
        self._mounts: dict[str, tuple[str, SE3]] = {}
        for sensor in sensors:
            if sensor.name in self._sensors:
                raise ValueError(f"the rig has two sensors named {sensor.name!r}")
            self._sensors[sensor.name] = sensor
            if sensor.parent is not None and sensor.parent_SE3_sensor is not None:
                # Two sensors may share one frame (colour and depth); the first mount counts.
                self._mounts.setdefault(sensor.frame_id, (sensor.parent, sensor.parent_SE3_sensor))

    def __getitem__(self, name: str) -> Sensor:
        return self._sensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sensors)

    def __len__(self) -> int:
        return len(self._sensors)

    def __repr__(self) -> str:
        return f"Rig({', '.join(self._sensors)})"

    def transform(self, a: str, b: str) -> SE3 | None:
        """``a_SE3_b`` of two sensors or frames by name; None when no known path joins them."""
        ancestors_a = self._ancestors(a)
        for frame, frame_SE3_b in self._ancestors(b).items():
            if frame in ancestors_a:
                return ancestors_a[frame].inverse() @ frame_SE3_b
        return None

    def _ancestors(self, name: str) -> dict[str, SE3]:
        """Frame -> frame_SE3_start for the frame of ``name`` and everything it is mounted on."""
        frame = self._sensors[name].frame_id if name in self._sensors else name
        pose = SE3.identity()
        found = {frame: pose}
        while frame in self._mounts:
            frame, parent_SE3_frame = self._mounts[frame]
            if frame in found:  # A loop in the calibration: nothing above it can be trusted.
                break
            pose = parent_SE3_frame @ pose
            found[frame] = pose
        return found

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """JSON-like; :meth:`from_dict` gives back exactly the same numbers."""
        return {name: sensor.to_dict() for name, sensor in self._sensors.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Rig:
        """The rig written by :meth:`to_dict`; ValueError as in :meth:`Sensor.from_dict`."""
        return cls(Sensor.from_dict(name, entry) for name, entry in values.items())
