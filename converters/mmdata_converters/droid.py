"""DROID raw episodes: trajectory.h5, MP4 recordings, measured stamps."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import SE3, CameraModel, Sensor
from mmdata.recording import Recording
from mmdata_converters._common import (
    DAMAGE,
    DatasetConverter,
    measured,
    read_json,
    row_stamps,
    synthetic,
)
from mmdata_converters._containers import open_video
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_h5, is_numeric, open_h5, text_of, walk
from mmdata_converters._rotations import from_roll_pitch_yaw
from mmdata_converters._video import add_video

#: DROID's control rate, for files that lost their stamps.
_RATE_HZ = 15.0
_BASE = "robot_base"
#: How far above an episode the dataset's folder may be: lab/success/date/episode.
_LEVELS = 5
_JOINTS = {"position": "joint_positions", "velocity": "joint_velocities",
           "effort": "joint_torques_computed"}  # fmt: skip


class DroidConverter(DatasetConverter):
    name = "droid"
    summary = "DROID raw episodes"
    reads = "joints, end-effector, gripper, actions, MP4 cameras (also stereo)"
    labels = "task, success"
    calibration = "intrinsics, extrinsics"
    time = "measured: robot clock, capture and receive stamps"
    cannot = "SVO recordings (they need the ZED SDK)"

    @classmethod
    def claims(cls, path: Path) -> bool:
        file = path / "trajectory.h5"
        if not is_h5(file):
            return False
        with open_h5(file) as opened:
            return "robot_state" in opened.get("observation", ())

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not (path / "trajectory.h5").is_file():
            raise ConversionError(f"{path}: no trajectory.h5 in it")
        return _Episode(path)


class _Episode(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "droid")
        self.uses(path / "trajectory.h5")
        self.file = self.owns(open_h5(path / "trajectory.h5"))
        self.observation = self.file["observation"]
        self.times = self.observation.get("timestamp", {})
        state = self.observation["robot_state"]
        self.n = max((len(d) for _, d in walk(state) if d.shape), default=0)
        self.stamps, self.receive, self.timing = self._robot_stamps()
        self.skipped = self._skipped()
        self.attempt("metadata", self._facts)
        self._robot(state)
        self._actions()
        self.attempt("cameras", self._cameras)

    # -- time ----------------------------------------------------------------------------------

    def _column(self, *names: str) -> NDArray[Any] | None:
        """A column of observation/timestamp by the first of these paths that exists."""
        for name in names:
            found = self.times.get(name) if hasattr(self.times, "get") else None
            if found is not None and found.shape and found.dtype.kind in "iufb":
                return np.asarray(found[:])
        return None

    def _robot_stamps(self) -> tuple[Stamps, Stamps | None, dict[str, Any]]:
        """The robot's own clock where it wrote it, and when the recorder had read it."""
        read = self._column("robot_state/read_end", "robot_state/read_start")
        receive = None if read is None else _ms(read)
        seconds = self._column("robot_state/robot_timestamp_seconds")
        nanos = self._column("robot_state/robot_timestamp_nanos")
        if seconds is not None and nanos is not None and np.any(seconds):
            own = seconds.astype(np.int64) * 1_000_000_000 + nanos.astype(np.int64)
            usable = receive is None or len(receive) == len(own)
            return own, receive if usable else None, measured()
        if receive is not None:
            self.account.problem("no stamps of the robot: those of reading it are taken")
            return receive, None, measured("unknown")
        step = self._column("control/step_start")
        if step is not None:
            self.account.problem("no stamps of the robot: those of the control step are taken")
            return _ms(step), None, measured("unknown")
        self.account.problem(f"no stamps at all: rows are placed at {_RATE_HZ:g} Hz")
        rule = f"row / {_RATE_HZ:g} Hz, DROID's control rate"
        return row_stamps(self.n, _RATE_HZ), None, synthetic(_RATE_HZ, rule)

    def _skipped(self) -> NDArray[np.bool_]:
        skip = self._column("skip_action")
        if skip is None or len(skip) != self.n:
            return np.zeros(self.n, bool)
        return skip.astype(bool)

    # -- robot ---------------------------------------------------------------------------------

    def _facts(self) -> None:
        attrs = {k: self.file.attrs[k] for k in self.file.attrs}
        for file in sorted(self.path.glob("metadata_*.json"))[:1]:
            self.uses(file)
            found = read_json(file)
            if isinstance(found, dict):
                attrs = {**found, **attrs}
        texts = {k: text_of(v) for k, v in attrs.items()}
        task = texts.get("current_task")
        said = self._said(texts.get("uuid"))
        success = attrs.get("success")
        self.know(
            task=task, instruction=said[0] if said else task, operator=texts.get("user"),
            site=texts.get("building"), lab=texts.get("lab"),
            robot=texts.get("robot_serial_number") or texts.get("robot_serial"),
            scene_id=_plain(attrs.get("scene_id")),
            source_format=f"DROID {texts.get('version_number') or ''}".strip(),
        )  # fmt: skip
        if success is not None:
            self.know(outcome="success" if bool(success) else "failure")
        from mmdata_converters._labels import Spans

        spans = Spans(self.stamps, self.episode_id)
        spans.whole("current_task", [task or ""], "instruction")
        spans.whole("language_instruction", said, "instruction")
        self.layer("droid", captions=spans.captions)

    def _said(self, uuid: str | None) -> list[str]:
        """What annotators wrote about the episode, where the dataset's file of that is above it."""
        for folder in list(self.path.resolve().parents)[:_LEVELS]:
            for file in sorted(folder.glob("aggregated-annotations*.json")):
                self.uses(file)
                entry = _annotations(file, file.stat().st_mtime_ns).get(uuid or "")
                texts = [entry.get(f"language_instruction{i}") for i in (1, 2, 3)] if entry else []
                return [str(t) for t in texts if t]
        return []

    def _signal(self, name: str, fields: dict[str, Any], topic: str, **more: Any) -> None:
        receive = self.receive
        self.signal(name, fields, self.stamps, receive=receive, source_topic=topic,
                    **{**self.timing, **more})  # fmt: skip

    def _robot(self, state: Any) -> None:
        used = set()
        joints = {f: state[k] for f, k in _JOINTS.items() if k in state}
        used |= {k for k in _JOINTS.values() if k in state}
        if joints:
            units = {"position": "rad", "velocity": "rad/s", "effort": "N*m"}
            self._signal("joint_states", joints, "observation/robot_state/joints",
                         units={f: units[f] for f in joints})  # fmt: skip
        if "cartesian_position" in state:
            used.add("cartesian_position")
            self._signal("eef_pose", _pose(state["cartesian_position"][:]),
                         "observation/robot_state/cartesian_position",
                         units={"position": "m"}, frame_id=_BASE)  # fmt: skip
        if "gripper_position" in state:
            used.add("gripper_position")
            self._signal("gripper", {"position": state["gripper_position"]},
                         "observation/robot_state/gripper_position")  # fmt: skip
        rest = {n: d for n, d in walk(state) if n not in used}
        self._rest("robot_state", "observation/robot_state", rest)
        control = self.observation.get("controller_info")
        if control is not None:
            self._rest("controller", "observation/controller_info", dict(walk(control)))
        if hasattr(self.times, "get"):
            self._rest("timing", "observation/timestamp", dict(walk(self.times)))
        for group in ("camera_extrinsics", "camera_intrinsics"):
            tables = self.observation.get(group)
            further = {} if tables is None else dict(walk(tables))
            further = {n: d for n, d in further.items() if n.endswith(("_right", "_offset"))}
            self._rest(group, f"observation/{group}", further)

    def _rest(self, stream: str, topic: str, found: dict[str, Any]) -> None:
        fields = {}
        for name, dataset in found.items():
            if is_numeric(dataset) and len(dataset) == self.n:
                fields[re.sub(r"[^A-Za-z0-9]+", "_", name)] = dataset
            else:
                count = int(dataset.shape[0]) if dataset.shape else 1
                self.drop(f"{topic}/{name}", "no number per row", max(1, count))
        if fields:
            self._signal(stream, fields, topic)

    def _actions(self) -> None:
        fields = {}
        if "action" not in self.file:
            self.account.problem("trajectory.h5 has no actions")
        for name, dataset in walk(self.file.get("action", {})):
            if name.startswith("robot_state/") or not is_numeric(dataset):
                repeated = name.startswith("robot_state/")
                reason = "as in observation/robot_state" if repeated else "no numbers"
                self.drop(f"action/{name}", reason, max(1, int(dataset.shape[0])
                                                        if dataset.shape else 1))  # fmt: skip
                continue
            if len(dataset) != self.n:
                self.account.problem(f"action/{name}: {len(dataset)} rows, the state has {self.n}")
            fields[name.replace("/", "_")] = dataset
        if not fields:
            return
        n = min(len(d) for d in fields.values())
        keep = ~self.skipped[:n]
        gone = int((~keep).sum())
        values = {f: np.asarray(d[:n])[keep] for f, d in fields.items()}
        receive = None if self.receive is None else self.receive[:n][keep]
        if gone:
            self.account.problem(f"{gone} rows of action are marked skip_action: left out")
        self.signal("action", values, self.stamps[:n][keep], receive=receive,
                    source_topic="action", **self.timing)  # fmt: skip

    # -- cameras -------------------------------------------------------------------------------

    def _cameras(self) -> None:
        folder = self.path / "recordings" / "MP4"
        files = sorted(folder.glob("*.mp4")) if folder.is_dir() else []
        serials = sorted({f.stem.partition("-")[0] for f in files} | self._known_serials())
        if not serials:
            self.account.problem("no camera")
        raw = len([*(self.path / "recordings" / "SVO").glob("*.svo*")])
        if raw:
            self.account.problem(f"recordings/SVO: {raw} files need the ZED SDK: not read")
        for serial in serials:
            stamps, receive, timing = self._camera_stamps(serial)
            place = self._place(serial)
            if place is not None:
                timing["attrs"] = {**timing.get("attrs", {}), "mounted": place}
            for suffix in ("", "-stereo"):
                file = folder / f"{serial}{suffix}.mp4"
                if not file.exists() and suffix:
                    continue
                name = f"camera_{serial}{suffix.replace('-', '_')}"
                add_video(
                    self, name, file, stamps, receive=receive,
                    synthetic_rate_hz=_RATE_HZ if timing["stamp_source"] == "synthetic" else None,
                    source_topic=f"recordings/MP4/{file.name}", source_type="video",
                    frame_id=f"camera_{serial}", sensor=f"camera_{serial}", **timing,
                )  # fmt: skip
            self._calibration(serial, folder / f"{serial}.mp4", stamps, timing)

    def _known_serials(self) -> set[str]:
        kinds = self.observation.get("camera_type")
        return set() if kinds is None else {str(k) for k in kinds}

    def _place(self, serial: str) -> str | None:
        """Where a camera is mounted, as the recording tells."""
        kind = self.observation.get(f"camera_type/{serial}")
        if kind is None or not kind.shape or not len(kind):
            return None
        return "wrist" if int(kind[0]) == 0 else "external"

    def _camera_stamps(self, serial: str) -> tuple[Stamps, Stamps | None, dict[str, Any]]:
        frames = self._column(f"cameras/{serial}_estimated_capture")
        received = self._column(f"cameras/{serial}_frame_received", f"cameras/{serial}_read_end")
        if frames is not None:
            same = received is not None and len(received) == len(frames)
            receive = _ms(received) if same and received is not None else None
            return _ms(frames), receive, dict(measured("unknown"))
        if received is not None:
            self.account.problem(f"camera {serial}: no estimated capture: receive stamps are taken")
            return _ms(received), None, measured("unknown")
        self.account.problem(f"camera {serial}: no stamps of its own: the robot's are taken")
        return self.stamps, None, dict(self.timing)

    def _calibration(
        self, serial: str, video: Path, stamps: Stamps, timing: dict[str, Any]
    ) -> None:
        name = f"camera_{serial}"
        extrinsics = self._camera_table("camera_extrinsics", serial)
        intrinsics = self._camera_table("camera_intrinsics", serial)
        pose = camera = None
        try:
            if intrinsics is not None and intrinsics.shape[1:] == (3, 3) and video.exists():
                seen = open_video(video)
                camera = CameraModel.pinhole(intrinsics[0], seen.width, seen.height)
            if extrinsics is not None and extrinsics.shape[1:] == (6,) and len(extrinsics):
                if np.ptp(extrinsics, axis=0).max() < 1e-6:
                    first = _pose(extrinsics[:1])
                    pose = SE3.from_quaternion(first["orientation"][0], first["position"][0])
                else:  # mounted on the wrist: it moves with the arm
                    self.signal(f"{name}_pose", _pose(extrinsics), stamps, units={"position": "m"},
                                source_topic=f"camera_extrinsics/{serial}", frame_id=_BASE,
                                **timing)  # fmt: skip
        except DAMAGE as error:
            self.account.problem(f"{name}: calibration cannot be used: {str(error)[:100]}")
        self.mount(Sensor(name, name, None if pose is None else _BASE, pose, camera))

    def _camera_table(self, group: str, serial: str) -> NDArray[np.float64] | None:
        found = self.observation.get(group)
        if found is None:
            return None
        key = next((k for k in (f"{serial}_left", serial) if k in found), None)
        return None if key is None else np.asarray(found[key][:], np.float64)


@lru_cache(maxsize=2)
def _annotations(file: Path, changed: int) -> dict[str, Any]:
    found = read_json(file)
    return found if isinstance(found, dict) else {}


def _ms(values: NDArray[Any]) -> Stamps:
    """Milliseconds, whole as DROID writes them, to nanoseconds."""
    stamps: Stamps = np.rint(values).astype(np.int64) * 1_000_000
    return stamps


def _pose(values: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """(n, 6) x, y, z and Euler angles about fixed x, y, z."""
    table = np.asarray(values, np.float64)
    return {"position": table[:, :3], "orientation": from_roll_pitch_yaw(table[:, 3:])}


def _plain(value: Any) -> Any:
    """A number or text out of an attribute."""
    if isinstance(value, np.generic):
        return value.item()
    return text_of(value) if not isinstance(value, int | float) else value
