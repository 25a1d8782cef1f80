"""RoboMIND 1 and 2 trajectories: one HDF5 file each, usually `trajectory.hdf5`.

Release 1 has bare datasets (`puppet/joint_position`) and no time. Release 2 has groups of `data`,
`timestamp` and `is_intervene` (`puppet/arm_left_position_align`), cameras below
`camera_observations`; real robots write whole seconds, simulated ones milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import CameraModel, LensModel, Sensor
from mmdata.media import decode_image
from mmdata.recording import Recording
from mmdata.streams import Kind
from mmdata_converters._common import (
    DAMAGE,
    DatasetConverter,
    measured,
    one_line,
    row_stamps,
    seconds_to_ns,
    synthetic,
    unit_of_stamps,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_encoded, is_h5, is_numeric, open_h5, picture_of, text_of, walk

#: For files that tell no rate; rows are placed at this one, and that is said.
_RATE_HZ = 30.0
#: Groups of a robot's state, groups of what was asked of it.
_STATES, _ACTIONS = ("puppet", "franka"), ("master", "action")
#: Facts about the recording, no streams.
_FACTS = (
    "metadata", "language", "instruction", "camera_model", "camera_color_channel",
    "camera_color_resolution", "camera_depth_resolution", "camera_intrinsics",
)  # fmt: skip
_TEXTS = ("language_raw", "language_instruction", "instruction")


class RoboMindConverter(DatasetConverter):
    name = "robomind"
    summary = "RoboMIND 1 and 2 HDF5 trajectories"
    reads = "arms (puppet), actions (master), forces, interventions, RGB and depth pictures"
    labels = "language, success by folder"
    calibration = "intrinsics (release 2)"
    time = "measured where stamps resolve the rows (release 2), else synthetic"
    cannot = "extrinsics (frames not told); order of quaternions and colours (kept as they are)"

    @classmethod
    def claims(cls, path: Path) -> bool:
        if not is_h5(path):
            return False
        with open_h5(path) as file:
            robot = [k for k in (*_STATES, *_ACTIONS) if isinstance(file.get(k), Mapping)]
            if any(name.endswith("_align") for k in robot for name in file[k]):
                return True
            pictures = "rgb_images" in file.get("observations", ())
            return ("puppet" in robot and ("master" in robot or "observations" in file)) or (
                "franka" in robot and pictures
            )

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not cls.claims(path):
            raise ConversionError(f"{path}: no puppet, franka or master group of RoboMIND in it")
        return _Trajectory(path)


class _Trajectory(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "robomind")
        self.uses(path)
        self.file = self.owns(open_h5(path))
        self.n = self._rows()
        self.stamps, self.timing = self._time()
        self.done: set[str] = set()
        if not any(k in self.file for k in _ACTIONS):
            self.account.problem("the file has no actions (master)")
        self._groups()
        for name, dataset in walk(self.file):
            if name not in self.done and not name.startswith(_FACTS):
                self._one(name, dataset)
        self.attempt("camera_intrinsics", self._cameras)
        self.attempt("labels", self._labels)

    # -- time ----------------------------------------------------------------------------------

    def _rows(self) -> int:
        """Rows of the trajectory: those of the robot's aligned state."""
        groups = [g for g in (*_STATES, *_ACTIONS, "camera_observations") if g in self.file]
        for group in groups:
            lengths = [
                len(d) for k, d in walk(self.file[group]) if d.shape and "_raw/" not in f"{k}/"
            ]
            if max(lengths, default=0):
                return max(lengths)
        return 0

    def _time(self) -> tuple[Stamps, dict[str, Any]]:
        """Stamps of the rows that the cameras and the aligned streams share."""
        column = self.file.get("camera_observations/timestamp")
        found = None if column is None else self._clock("camera_observations", column)
        if found is not None and len(found[0]) >= self.n:
            return found
        if column is not None:
            self.account.problem(
                f"camera_observations/timestamp: {len(column)} for {self.n} rows: not used"
            )
        self.account.problem(f"the file holds no time: rows are placed at {_RATE_HZ:g} Hz")
        rule = f"row / {_RATE_HZ:g} Hz, assumed: the file states no rate"
        return row_stamps(self.n, _RATE_HZ), synthetic(None, rule)

    def _clock(self, name: str, column: Any) -> tuple[Stamps, dict[str, Any]] | None:
        """Stamps of a `timestamp` column; None where it has none that are usable.

        Stamps too coarse to tell rows apart stay as a signal, and rows are spread evenly between.
        """
        try:
            values = np.asarray(column[:]).reshape(-1)
            factor, unit = unit_of_stamps(values)
            stamps = seconds_to_ns(values, factor)
        except DAMAGE as error:
            self.account.problem(f"{name}: stamps cannot be used: {one_line(error)}")
            return None
        steps = np.diff(stamps)
        if not len(stamps) or (len(steps) and not (steps > 0).any()):
            if len(stamps) > 1:
                self.account.problem(f"{name}: the clock stands still: its stamps are not used")
            return None
        self.know(stamp_unit=unit)
        if len(steps) < 2 or (steps == 0).mean() < 0.5:
            return stamps, measured("unknown")
        rate = (len(stamps) - 1) * 1e9 / float(stamps.max() - stamps.min())
        self.account.problem(
            f"{name}: stamps of whole {unit} do not tell rows apart: "
            f"rows are placed evenly, at their mean rate of {rate:.2f} Hz"
        )
        rule = f"first stamp + row / {rate:.4g} Hz, the mean rate of stamps of whole {unit}"
        return int(stamps.min()) + row_stamps(len(stamps), rate), synthetic(None, rule)

    # -- robot, release 2 ----------------------------------------------------------------------

    def _groups(self) -> None:
        """Groups of data, timestamp and is_intervene."""
        for name, dataset in walk(self.file):
            group = name.removesuffix("/data")
            if group != name and "camera_observations" not in name and is_numeric(dataset):
                self._group(group, dataset)

    def _group(self, name: str, data: Any) -> None:
        self.done |= {f"{name}/{k}" for k in self.file[name]}
        if not len(data):
            self.account.problem(f"{name} is empty")
            return
        aligned = not name.endswith("_raw")
        column = self.file[name].get("timestamp")
        stamps, timing = self.stamps, self.timing
        if column is not None and (not aligned or timing["stamp_source"] == "header"):
            own = self._clock(name, column)
            if own is not None and len(own[0]) == len(data):
                stamps, timing = own
            elif not aligned:
                self.drop(name, "no usable stamps of its own", len(data))
                return
        fields = {"data": _column(data)}
        flags = self.file[name].get("is_intervene")
        if flags is not None and len(flags) == len(data):
            fields["intervened"] = flags
        top, _, rest = name.partition("/")
        stream, field = _stream_of(top, rest.removesuffix("_align"))
        fields = {field if k == "data" else k: v for k, v in fields.items()}
        if field == "data" and data.shape[1:] == (7,) and "pose" in name:
            self.account.problem("poses: order of the quaternion unknown; values kept as they are")
        self.signal(stream, fields, stamps, source_topic=name, **timing)

    # -- anything else -------------------------------------------------------------------------

    def _one(self, name: str, dataset: Any) -> None:
        top, _, rest = name.partition("/")
        if top in ("camera_extrinsics", "base_to_robot_transformation"):
            self.drop(name, "a transform whose frames are not told")
            return
        if name == "camera_observations/timestamp" and self.timing["stamp_source"] == "header":
            return
        if dataset.shape and dataset.shape[0] != self.n:
            self.account.problem(f"{name}: {dataset.shape[0]} rows, the robot's state has {self.n}")
        stamps, timing = self.stamps, self.timing
        n = dataset.shape[0] if dataset.shape else 0
        if n > len(stamps):
            if timing["stamp_source"] != "synthetic":
                self.account.problem(f"{name}: {n - len(stamps)} rows without a stamp: left out")
            else:
                stamps = row_stamps(n, _RATE_HZ)
        info = {**timing, "source_topic": name}
        if "images" in name and self._picture(name, dataset, stamps[:n], info):
            return
        if not is_numeric(dataset):
            self.drop(name, f"values of type {dataset.dtype}")
            return
        stream, field = _stream_of(top, rest)
        self.signal(stream, {field: dataset}, stamps[: max(n, 1)], **info)

    def _picture(self, name: str, dataset: Any, stamps: Stamps, info: dict[str, Any]) -> bool:
        camera = name.rsplit("/", 1)[-1]
        stream = _camera(camera)
        if "depth" in name:
            stream += "_depth"
            if is_encoded(dataset):
                self.depth_pictures(stream, picture_of(dataset), stamps, **info)
                return True
            if dataset.ndim == 3 and dataset.dtype == np.uint16:
                self.frames(stream, dataset, stamps, kind=Kind.DEPTH, **info)
                return True
            return False
        order = text_of(self.file.get(f"camera_color_channel/{camera}"))
        if order:
            info = {**info, "attrs": {**info.get("attrs", {}), "declared_colour_order": order}}
        if is_encoded(dataset):
            self.encoded(stream, picture_of(dataset), stamps, sensor=stream, **info)
            return True
        if dataset.ndim == 4 and dataset.dtype == np.uint8:
            self.frames(stream, dataset, stamps, sensor=stream, **info)
            return True
        return False

    def _cameras(self) -> None:
        """Intrinsics, for cameras that have pictures: those tell the size they are meant for."""
        group = self.file.get("camera_intrinsics", {})
        for name in group:
            pictures = self.file.get(f"camera_observations/color_images/{name}")
            matrix = group[name].get("matrix") if hasattr(group[name], "get") else None
            if pictures is None or matrix is None or not is_encoded(pictures):
                self.drop(f"camera_intrinsics/{name}", "no camera of that name, or no matrix")
                continue
            try:
                K = np.asarray(matrix[:], np.float64).reshape(3, 3)
                lens = group[name].get("dist_coeffs")
                D = np.zeros(5) if lens is None else np.asarray(lens[:], np.float64).reshape(-1)
                height, width = decode_image(picture_of(pictures)(0) or b"").shape[:2]
                model = CameraModel(LensModel.BROWN_CONRADY, K, D, width, height)
                self.mount(Sensor(_camera(name), _camera(name), camera=model))
            except DAMAGE as error:
                self.account.problem(f"{name}: intrinsics cannot be used: {one_line(error)}")

    # -- labels --------------------------------------------------------------------------------

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        meta = self.file.get("metadata")
        facts: dict[str, Any] = {}
        if meta is not None:
            facts = {**dict(meta.attrs), **{k: meta[k] for k in meta}}
        length = facts.pop("trajectory_length", None)
        if length is not None and int(np.asarray(length[()]).item()) != self.n:
            self.account.problem(f"metadata says {int(np.asarray(length[()]).item())} rows, "
                                 f"there are {self.n}")  # fmt: skip
        texts = {k: text_of(v) for k, v in facts.items()}
        text = texts.get("language_instruction") or next(
            (
                t
                for k in _TEXTS
                if (t := text_of(self.file.get(k)) or text_of(self.file.attrs.get(k)))
            ),
            None,
        )
        parts = self.path.parts
        places = [i for i, p in enumerate(parts) if re.match(r"(?i)(success|fail)", p)]
        outcome = None
        if places:
            outcome = "success" if parts[places[-1]].lower().startswith("success") else "failure"
            self.know(task=parts[places[-1] - 1] if places[-1] else None)
        self.know(
            instruction=text, outcome=outcome, operator=texts.get("collector"),
            collection_time=texts.get("collection_time"),
            simulated={"sim": True, "real": False}.get(str(texts.get("data_type")).lower()),
        )  # fmt: skip
        spans = Spans(self.stamps[: self.n], self.episode_id)
        spans.whole("instruction", [text or ""], "instruction")
        self.layer("robomind", captions=spans.captions)

    @property
    def episode_id(self) -> str:
        """Most files are called trajectory: the folder above `data` tells them apart."""
        if self.path.stem != "trajectory" and self.path.parent.name == "data":
            name = self.path.stem
        else:
            own = self.path.parent
            name = (own.parent if own.name == "data" else own).name
        return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.") or "robomind"


def _camera(name: str) -> str:
    return "camera_" + re.sub(r"[^A-Za-z0-9]+", "_", name).removeprefix("camera_")


def _column(data: Any) -> Any:
    """A column of one number per row as such, whether written (n,) or (n, 1)."""
    return np.asarray(data[:])[:, 0] if data.shape[1:] == (1,) else data


def _stream_of(top: str, rest: str) -> tuple[str, str]:
    """Stream and field: puppet/joint_position_left, puppet/arm_left_position -> joint_states_left,
    position; master/... -> action_...
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "_", rest)
    raw = "_raw" if plain.endswith("_raw") else ""
    what = plain.removesuffix("_raw")
    side = next((f"_{s}" for s in ("left", "right", "single") if f"_{s}" in what), "")
    base = what.replace(side, "", 1) if side else what
    if top in _ACTIONS:
        return f"action_{plain}", "data"
    if top in _STATES:
        motion = re.fullmatch(r"(?:joint|arm)_(position|velocity|effort)", base)
        if motion:
            return f"joint_states{side}{raw}", motion[1]
        if base == "end_effector_position":
            return f"gripper{side}{raw}", "position"
        if base in ("end_effector", "end_effector_pose"):
            return f"eef{side}{raw}", "data"  # Euler angles or quaternions by robot: kept
        return plain, "data"
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{top}_{plain}").strip("_"), "data"
