"""RoboMIND trajectories: one `trajectory.hdf5` each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.recording import Recording
from mmdata.streams import Kind
from mmdata_converters._common import DatasetConverter, row_stamps, synthetic
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_encoded, is_h5, is_numeric, open_h5, picture_of, text_of, walk

#: Nothing in the files tells a rate; rows are placed at this one, and that is said.
_RATE_HZ = 30.0


class RoboMindConverter(DatasetConverter):
    name = "robomind"
    summary = "RoboMIND HDF5 trajectories"
    reads = "arms (puppet) and actions (master), RGB and depth pictures"
    labels = "language, success by folder"
    time = "synthetic, rate assumed: the files hold none"
    cannot = "the colour order, which differs between robots"

    @classmethod
    def claims(cls, path: Path) -> bool:
        if not is_h5(path):
            return False
        with open_h5(path) as file:
            return "puppet" in file and ("master" in file or "observations" in file)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Trajectory(path)


class _Trajectory(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "robomind")
        self.uses(path)
        self.file = self.owns(open_h5(path))
        self.timing = synthetic(None, f"row / {_RATE_HZ:g} Hz, assumed: the file states no rate")
        self.account.problem(f"the file holds no time: rows are placed at {_RATE_HZ:g} Hz")
        self.rows = [len(d) for _, d in walk(self.file["puppet"]) if d.shape]
        self.n = max(self.rows, default=0)
        for name, dataset in walk(self.file):
            if name.startswith(("language", "instruction")):
                continue
            self._one(name, dataset)
        self._labels()

    def _one(self, name: str, dataset: Any) -> None:
        top, _, rest = name.partition("/")
        if dataset.shape and dataset.shape[0] != self.n:
            self.account.problem(f"{name}: {dataset.shape[0]} rows, the robot's state has {self.n}")
        stamps = row_stamps(dataset.shape[0] if dataset.shape else 0, _RATE_HZ)
        info = {**self.timing, "source_topic": name}
        if "images" in name:
            camera = name.rsplit("/", 1)[-1]
            stream = "camera_" + re.sub(r"[^A-Za-z0-9]+", "_", camera).removeprefix("camera_")
            if "depth" in name:
                stream += "_depth"
                if is_encoded(dataset):
                    self.depth_pictures(stream, picture_of(dataset), stamps, **info)
                    return
                if dataset.ndim == 3 and dataset.dtype == np.uint16:
                    self.frames(stream, dataset, stamps, kind=Kind.DEPTH, **info)
                    return
            elif is_encoded(dataset):
                self.encoded(stream, picture_of(dataset), stamps, **info)
                return
            elif dataset.ndim == 4 and dataset.dtype == np.uint8:
                self.frames(stream, dataset, stamps, **info)
                return
        if not is_numeric(dataset):
            self.drop(name, f"values of type {dataset.dtype}")
            return
        stream, field = _stream_of(top, rest)
        self.signal(stream, {field: dataset}, stamps, **info)

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        keys = ("language_raw", "language_instruction", "instruction")
        texts = [text_of(self.file.get(k)) or text_of(self.file.attrs.get(k)) for k in keys]
        text = next((t for t in texts if t), None)
        parts = [p.lower() for p in self.path.parts]
        outcome = next(
            (w for w in ("success", "fail") if any(p.startswith(w) for p in parts)), None
        )
        self.know(instruction=text, outcome="failure" if outcome == "fail" else outcome)
        spans = Spans(row_stamps(self.n, _RATE_HZ), self.episode_id)
        spans.whole("instruction", [text or ""], "instruction")
        self.layer("robomind", captions=spans.captions)

    @property
    def episode_id(self) -> str:
        """All files are called trajectory: the folder above `data` tells them apart."""
        folder = self.path.parent.parent if self.path.parent.name == "data" else self.path.parent
        return re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("_.") or "robomind"


def _stream_of(top: str, rest: str) -> tuple[str, str]:
    """puppet/joint_position_left -> joint_states_left.position; master/... -> action..."""
    side = next((s for s in ("_left", "_right") if rest.endswith(s)), "")
    what = rest.removesuffix(side)
    if top == "puppet" and what in ("joint_position", "joint_velocity", "joint_effort"):
        return f"joint_states{side}", what.removeprefix("joint_")
    if top == "puppet" and what.startswith("end_effector"):
        return f"eef{side}", "data"  # Euler angles or quaternions by robot: kept as they are
    if top == "master":
        return "action_" + re.sub(r"[^A-Za-z0-9]+", "_", rest), "data"
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{top}_{rest}").strip("_"), "data"
