"""ALOHA / ACT episodes: one HDF5 file each, with or without compressed images."""

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

#: By convention of ACT's recorder; the files hold no time at all.
_RATE_HZ = 50.0
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_STATE = {"qpos": "position", "qvel": "velocity", "effort": "effort"}


class AlohaConverter(DatasetConverter):
    name = "aloha"
    summary = "ALOHA / ACT HDF5 episodes"
    reads = "joint states, actions, base actions, images raw or JPEG (`compress`), depth"
    labels = "language"
    time = "synthetic, 50 Hz by convention"
    cannot = "the colour order of compressed images, which no file states"

    @classmethod
    def claims(cls, path: Path) -> bool:
        if not is_h5(path):
            return False
        with open_h5(path) as file:
            return "action" in file and "qpos" in file.get("observations", ())

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Episode(path)


class _Episode(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "aloha")
        self.uses(path)
        self.file = self.owns(open_h5(path))
        self.timing = synthetic(_RATE_HZ, f"row / {_RATE_HZ:g} Hz, the recorder's convention")
        self.account.problem(f"the file holds no time: rows are placed at {_RATE_HZ:g} Hz")
        observations = self.file["observations"]
        self.n = len(self.file["action"])
        state = {f: observations[k] for k, f in _STATE.items() if k in observations}
        channels = _channels(state["position"])
        self._signal("joint_states", "observations/qpos", state, channels)
        used = {f"observations/{k}" for k in _STATE}
        self._signal("action", "action", {"data": self.file["action"]}, channels)
        for name, dataset in walk(self.file):
            if name in used or name == "action":
                continue
            self._one(name, dataset)
        self.attempt("labels", self._labels)

    def _signal(
        self, stream: str, topic: str, fields: dict[str, Any], channels: list[str] | None = None
    ) -> None:
        n = max(len(f) for f in fields.values())
        named = dict.fromkeys(fields, channels) if channels else None
        self.signal(
            stream, fields, row_stamps(n, _RATE_HZ), channels=named, source_topic=topic,
            **self.timing,
        )  # fmt: skip

    def _one(self, name: str, dataset: Any) -> None:
        last = name.rsplit("/", 1)[-1]
        if last in ("compress_len", "instruction", "language_raw", "task"):
            return
        if len(dataset.shape) and dataset.shape[0] != self.n:
            self.account.problem(f"{name}: {dataset.shape[0]} rows, action has {self.n}")
        stamps = row_stamps(dataset.shape[0] if dataset.shape else 0, _RATE_HZ)
        info = {**self.timing, "source_topic": name}
        if "images" in name or "depth" in name:
            camera = "camera_" + re.sub(r"[^A-Za-z0-9]+", "_", last).removeprefix("camera_")
            depth = "depth" in name
            if is_encoded(dataset):
                add = self.depth_pictures if depth else self.encoded
                add(camera + ("_depth" if depth else ""), picture_of(dataset), stamps, **info)
                return
            if depth and dataset.ndim == 3 and dataset.dtype == np.uint16:
                self.frames(f"{camera}_depth", dataset, stamps, kind=Kind.DEPTH, **info)
                return
            if dataset.ndim == 4 and dataset.dtype == np.uint8:
                self.frames(camera, dataset, stamps, **info)
                return
        if is_numeric(dataset):
            short = name.removeprefix("observations/")
            self._signal(re.sub(r"[^A-Za-z0-9]+", "_", short), name, {"data": dataset})
        else:
            self.drop(name, f"values of type {dataset.dtype}")

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        text = None
        for key in ("language_raw", "instruction", "task"):
            text = text or text_of(self.file.get(key)) or text_of(self.file.attrs.get(key))
        sim = self.file.attrs.get("sim")
        self.know(instruction=text, simulated=None if sim is None else bool(sim))
        spans = Spans(row_stamps(self.n, _RATE_HZ), self.episode_id)
        spans.whole("instruction", [text or ""], "instruction")
        self.layer("aloha", captions=spans.captions)


def _channels(qpos: Any) -> list[str] | None:
    """The fourteen joints of the two ViperX arms, in ACT's order."""
    if qpos.ndim != 2 or qpos.shape[1] != 14:
        return None
    return [f"{side}_{joint}" for side in ("left", "right") for joint in _JOINTS]
