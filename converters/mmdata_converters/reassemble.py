"""REASSEMBLE: one HDF5 file per recording, every modality with its own stamps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import SE3, Sensor
from mmdata.recording import Recording
from mmdata_converters._common import (
    DAMAGE,
    DatasetConverter,
    measured,
    natural,
    read_json,
    seconds_to_ns,
    synthetic,
    unit_of_stamps,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_h5, open_h5, text_of
from mmdata_converters._rotations import from_xyzw
from mmdata_converters._video import add_audio, add_video

#: Spellings that were met, and what is meant.
_MEANT = {
    "compenseted_base_torque": "compensated_base_torque",
    "compenseted_base_force": "compensated_base_force",
}
#: Names in the poses' files -> names of the cameras' videos.
_CAMERAS = {"davis346": "capture_node"}
_ROBOT: dict[str, tuple[str, str, str | None]] = {
    "joint_positions": ("joint_states", "position", "rad"),
    "joint_velocities": ("joint_states", "velocity", "rad/s"),
    "joint_efforts": ("joint_states", "effort", "N*m"),
    "gripper_positions": ("gripper", "position", "m"),
    "gripper_velocities": ("gripper", "velocity", "m/s"),
    "gripper_efforts": ("gripper", "effort", "N"),
    "compensated_base_force": ("wrench", "force", "N"),
    "compensated_base_torque": ("wrench", "torque", "N*m"),
    "measured_force": ("wrench_measured", "force", "N"),
    "measured_torque": ("wrench_measured", "torque", "N*m"),
}
_PARTS = {
    "pose": ("pose_x", "pose_y", "pose_z", "pose_qw", "pose_qx", "pose_qy", "pose_qz"),
    "velocity": ("vel_x", "vel_y", "vel_z", "vel_qx", "vel_qy", "vel_qz"),
    **{f"{n}_{w}": tuple(f"{n}_{w}_{a}" for a in "xyz")
       for n in ("compensated_base", "measured") for w in ("force", "torque")},
    **{f"joint_{n}": tuple(f"{s}_joint{i}" for i in range(1, 8))
       for n, s in (("positions", "pos"), ("velocities", "vel"), ("efforts", "eff"))},
    **{f"gripper_{n}": tuple(f"{s}_joint{i}" for i in (8, 9))
       for n, s in (("positions", "pos"), ("velocities", "vel"), ("efforts", "eff"))},
}  # fmt: skip


class ReassembleConverter(DatasetConverter):
    name = "reassemble"
    summary = "REASSEMBLE HDF5 recordings"
    reads = "robot state, forces, events, cameras, microphones"
    labels = "tasks and skills with success, object poses"
    calibration = "poses of the cameras"
    time = "measured; sound is placed from the first stamp of its camera"
    cannot = "files whose stamps have no modality of that name"

    @classmethod
    def claims(cls, path: Path) -> bool:
        if not is_h5(path):
            return False
        with open_h5(path) as file:
            return {"robot_state", "timestamps"} <= {k.lower() for k in file}

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Recording(path)


class _Recording(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "reassemble")
        self.uses(path)
        self.file = self.owns(open_h5(path))
        self.root = {k.lower(): self.file[k] for k in self.file}
        self.times = self._times()
        self.cameras: set[str] = set()
        self._robot()
        for name in sorted(self.root):
            if name in ("robot_state", "timestamps", "segments_info"):
                continue
            self._one(name, self.root[name])
        have = {*self.root, *(self._meant(k) for k in self.root["robot_state"])}
        parts = {p for group in _PARTS.values() for p in group}
        for name in sorted(set(self.times) - have - parts - set(_PARTS)):
            self.account.problem(f"timestamps/{name}: stamps of something that is not there")
        if "segments_info" not in self.root:
            self.account.problem("segments_info is missing: no labels")
        self.attempt("labels", self._labels)

    # -- time ----------------------------------------------------------------------------------

    def _times(self) -> dict[str, Stamps]:
        """Stamps by modality. The unit of all of them is that of the largest."""
        group = self.root["timestamps"]
        found: dict[str, NDArray[Any]] = {}
        for key in group:
            values = np.asarray(group[key][()])
            if values.ndim > 1:
                values = values.reshape(len(values), -1)[:, 0]
            if values.ndim == 1 and values.dtype.kind in "iuf":
                found[self._meant(key)] = values
        longest = max(found.values(), key=len, default=np.empty(0))
        self.factor, unit = unit_of_stamps(longest)
        if np.abs(longest).max(initial=0.0) < 1e8:
            self.account.problem(f"stamps do not count from 1970; taken as {unit}")
        self.know(stamp_unit=unit)
        out = {}
        for key, values in found.items():
            try:
                out[key] = seconds_to_ns(values, self.factor)
            except DAMAGE as error:
                self.drop(f"timestamps/{key}", str(error), max(1, len(values)))
        return out

    def _meant(self, key: str) -> str:
        """A name as documented; other spellings are told."""
        low = key.lower()
        meant = _MEANT.get(low, low)
        if meant != key:
            self.account.problem(f"{key} is taken as {meant}")
        return meant

    # -- data ----------------------------------------------------------------------------------

    def _robot(self) -> None:
        group = self.root["robot_state"]
        arrays: dict[str, Any] = {self._meant(k): group[k] for k in group}
        for name, parts in _PARTS.items():
            if name not in arrays and all(p in arrays for p in parts):
                arrays[name] = np.stack([arrays[p][()] for p in parts], -1)
                for table in (self.times, arrays):
                    kept = table.get(parts[0])
                    if table is self.times and kept is not None:
                        self.times.setdefault(name, kept)
        used = {p for n, parts in _PARTS.items() if n in arrays for p in parts}
        merged: dict[str, dict[str, Any]] = {}
        facts: dict[str, tuple[Stamps, dict[str, str], str]] = {}
        for name in sorted(n for n in arrays if n not in used):
            values, stamps = arrays[name], self.times.get(name)
            if not len(getattr(values, "shape", ())) or values.dtype.kind not in "iufb":
                self.drop(f"robot_state/{name}", "no rows of numbers")
                continue
            if stamps is None:
                self.drop(f"robot_state/{name}", "no stamps", max(1, len(values)))
                continue
            stream, field, unit = _ROBOT.get(name, (name, "data", None))
            known = facts.get(stream)
            if known is not None and not np.array_equal(known[0], stamps):
                stream = f"{stream}_{field}"
            for part, column in self._fields(name, field, values).items():
                merged.setdefault(stream, {})[part] = column
            _, units, _ = facts.setdefault(stream, (stamps, {}, f"robot_state/{name}"))
            units.update({field: unit} if unit else {})
        for stream, fields in merged.items():
            stamps, units, topic = facts[stream]
            name = {"pose": "eef_pose", "velocity": "eef_velocity"}.get(stream, stream)
            self.signal(name, fields, stamps, units=units, source_topic=topic, **measured())

    def _fields(self, name: str, field: str, values: Any) -> dict[str, Any]:
        if name == "pose" and values.shape[1:] == (7,):
            pose = np.asarray(values[:])
            return {"position": pose[:, :3], "orientation": pose[:, 3:]}  # qw, qx, qy, qz
        if name == "velocity" and values.ndim == 2 and values.shape[1] in (6, 7):
            if values.shape[1] == 7:
                self.account.problem("velocity has 7 columns; documented are 6")
                return {field: values}
            velocity = np.asarray(values[:])
            return {"linear": velocity[:, :3], "angular": velocity[:, 3:]}
        return {field: values}

    def _one(self, name: str, item: Any) -> None:
        stamps = self.times.get(name)
        if not hasattr(item, "shape"):
            return
        if name == "events" and len(item.shape) == 2:
            if stamps is None:
                self.drop(name, "no stamps", max(1, len(item)))
            else:
                columns = {"data": ("x", "y", "polarity")}
                self.signal(name, {"data": item}, stamps, channels=columns, source_topic=name,
                            **measured())  # fmt: skip
            return
        blob = _blob(item)
        info: dict[str, Any] = {"source_topic": name, **measured()}
        if blob is not None and "audio" in name and stamps is None:
            # The released files stamp no sound; each microphone is part of a camera.
            camera = name.removesuffix("_audio")
            stamps = self.times.get(camera)
            rule = f"first stamp of {camera} + sample / rate: the sound has no stamps of its own"
            info = {"source_topic": name, **synthetic(None, rule)}
            if stamps is not None and len(stamps):
                self.account.problem(f"{name} has no stamps: placed from the first of {camera}")
        if blob is None or stamps is None or not len(stamps):
            reason = "no stamps" if blob is not None else f"values of type {item.dtype}"
            self.drop(name, reason, max(1, int(item.shape[0]) if item.shape else 1))
            return
        if "audio" in name:
            add_audio(self, name, blob, int(stamps[0]), **info)
        else:
            camera = _camera(name)
            self.cameras.add(camera)
            add_video(self, camera, blob, stamps, source_type="video", sensor=camera, **info)

    # -- labels --------------------------------------------------------------------------------

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        spans = Spans(np.empty(0, np.int64), self.episode_id)
        segments: Any = self.root.get("segments_info")
        for key in sorted(segments, key=natural) if segments is not None else ():
            try:
                self._segment(spans, segments[key], "task", None)
            except DAMAGE as error:
                self.drop("segments_info", f"segment {key}: {str(error)[:80]}")
        self.layer("reassemble", phases=spans.phases, objects=self._objects())

    def _segment(self, spans: Any, group: Any, tier: str, parent: str | None) -> None:
        names = {k.lower(): k for k in group}
        start, end = (
            int(seconds_to_ns(np.atleast_1d(group[names[k]][()]), self.factor)[0])
            for k in ("start", "end")
        )
        more: dict[str, Any] = {"parent_id": parent} if parent else {}
        if "success" in names:
            more["success"] = bool(np.asarray(group[names["success"]][()]).reshape(-1)[0])
        text = text_of(group[names["text"]]) if "text" in names else None
        ident = spans.phase(tier, text or "segment", start, end, **more)
        low: Any = group[names["low_level"]] if "low_level" in names else None
        for key in sorted(low, key=natural) if low is not None else ():
            self._segment(spans, low[key], "skill", ident)

    def _objects(self) -> list[Any]:
        """Poses of cameras and objects in the world: JSON beside the file or in a folder `poses`
        beside its own, quaternions with the scalar last. Cameras go to the rig.
        """
        from mmdata_schema import SceneObject, stable_id

        objects = []
        folders = (self.path.parent, self.path.parent.parent / "poses")
        for file in sorted({f for d in folders for f in d.glob(f"{self.path.stem}*pose*.json")}):
            self.uses(file)
            poses = read_json(file)
            for name, pose in sorted(poses.items()) if isinstance(poses, Mapping) else ():
                try:
                    position, xyzw = (np.asarray(v, np.float64) for v in pose)
                    camera = _camera(_CAMERAS.get(name.lower(), name.lower()))
                    if camera in self.cameras:
                        where = SE3.from_quaternion(from_xyzw(xyzw), position)
                        self.mount(Sensor(camera, camera, "world", where))
                        continue
                    numbers = [*position.tolist(), *from_xyzw(xyzw).tolist()]
                except DAMAGE:
                    self.drop(file.name, f"the pose of {name} is none")
                    continue
                ident = re.sub(r"\s+", "_", name)
                objects.append(
                    SceneObject.parse({
                        "id": stable_id("object", self.episode_id, name), "object_id": ident,
                        "name": name, "attributes": {"pose_xyz_qwxyz": numbers},
                    })
                )  # fmt: skip
        return objects


def _camera(name: str) -> str:
    """Stream of a camera."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).removesuffix("_camera_image")
    return f"camera_{plain}"


def _blob(item: Any) -> Callable[[], bytes] | None:
    """A file inside the file: a void scalar or a row of bytes, be each written as a wider number,
    read when it is needed.
    """
    if item.shape == () and item.dtype.kind in "VSO":
        return lambda: _bytes(item[()])
    if len(item.shape) == 1 and item.dtype.kind in "iu":
        return lambda: _narrow(item[:])
    return None


def _narrow(values: NDArray[Any]) -> bytes:
    if len(values) and (values.min() < 0 or values.max() > 255):
        raise ConversionError("numbers that are no bytes")
    return values.astype(np.uint8).tobytes()


def _bytes(value: Any) -> bytes:
    """Bytes of a void or string scalar."""
    return value.tobytes() if hasattr(value, "tobytes") else bytes(value)
