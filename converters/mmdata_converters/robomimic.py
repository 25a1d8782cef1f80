"""robomimic, robosuite, LIBERO and Isaac Lab demonstrations: one HDF5 file, `data/demo_<i>` each an
episode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.geometry import quat_from_rotvec
from mmdata.recording import Recording
from mmdata.streams import Kind
from mmdata_converters._common import DatasetConverter, natural, row_stamps, synthetic
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_h5, is_numeric, open_h5, text_of, walk
from mmdata_converters._rotations import from_xyzw

#: robosuite's default control rate, used where the file states none, and then said so.
_USUAL_RATE_HZ = 20.0
_DEMO = re.compile(r"demo_\d+")
_ARM = re.compile(
    r"(?:(robot\d+)_)?(joint_pos|joint_vel|eef_pos|eef_quat|gripper_q?pos|gripper_qvel"
    r"|ee_pos|ee_ori|joint_states|gripper_states)"
)
#: Simulators behind robomimic's env_type that write quaternions scalar last.
_SCALAR_LAST = (1, 3)
_FIELDS = {
    "joint_pos": ("joint_states", "position"), "joint_vel": ("joint_states", "velocity"),
    "eef_pos": ("eef_pose", "position"), "eef_quat": ("eef_pose", "orientation"),
    "gripper_qpos": ("gripper", "position"), "gripper_pos": ("gripper", "position"),
    "gripper_qvel": ("gripper", "velocity"),
    # LIBERO's names; ee_ori is a rotation vector
    "joint_states": ("joint_states", "position"), "gripper_states": ("gripper", "position"),
    "ee_pos": ("eef_pose", "position"), "ee_ori": ("eef_pose", "orientation"),
}  # fmt: skip


class RobomimicConverter(DatasetConverter):
    name = "robomimic"
    summary = "robomimic, robosuite, LIBERO, Isaac Lab HDF5"
    reads = "actions, observations, states, rewards, images, depth"
    labels = "success, filter masks, language"
    time = "synthetic, at the control rate the file states"
    cannot = "next_obs and initial_state (left out, counted); the simulator's model"

    @classmethod
    def claims(cls, path: Path) -> bool:
        if not is_h5(path):
            return False
        with open_h5(path) as file:
            return "data" in file and any(_DEMO.fullmatch(name) for name in file["data"])

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        with open_h5(path) as file:
            return sorted((n for n in file.get("data", ()) if _DEMO.fullmatch(n)), key=natural)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Demo(path, part)


class _Demo(FeedRecording):
    def __init__(self, path: Path, part: str) -> None:
        super().__init__(path, "robomimic", part)
        self.uses(path)
        file = self.owns(open_h5(path))
        self.demo = file["data"][part]
        self.env = _environment(file["data"])
        self.isaac = "env_type" not in self.env and self.env.get("type") == 2
        rate, rule = self._rate()
        self.rate_hz = rate
        self.timing = synthetic(self._stated_rate(), rule)
        declared = self.demo.attrs.get("num_samples")
        actions = self.demo.get("actions")
        n = len(actions) if actions is not None else int(declared or 0)
        if declared is not None and int(declared) != n:
            self.account.problem(f"num_samples is {int(declared)}, there are {n} actions")
        self.n = n
        self.convention = text_of(file["data"].attrs.get("macros_image_convention"))
        if self.convention == "opengl":
            self.account.problem("pictures are stored bottom row first (opengl): kept as they are")
        self._streams()
        self.attempt("labels", lambda: self._labels(file))

    def _stated_rate(self) -> float | None:
        """Control rate as the file states it."""
        kwargs = self.env.get("env_kwargs") or {}
        rate = kwargs.get("control_freq") if isinstance(kwargs, dict) else None
        rate = rate or self.env.get("control_freq")
        sim = self.env.get("sim_args") or {}
        if rate is None and isinstance(sim, dict) and sim.get("dt"):
            rate = 1.0 / (float(sim["dt"]) * float(sim.get("decimation") or 1))
        return float(rate) if rate else None

    def _rate(self) -> tuple[float, str]:
        stated = self._stated_rate()
        if stated is not None:
            return stated, f"row / {stated:g} Hz (control rate of the environment)"
        self.account.problem(f"the file states no rate: rows are placed at {_USUAL_RATE_HZ:g} Hz")
        return _USUAL_RATE_HZ, f"row / {_USUAL_RATE_HZ:g} Hz, assumed: the file states no rate"

    def _streams(self) -> None:
        arms: dict[str, dict[str, Any]] = {}
        topics: dict[str, str] = {}
        for path, dataset in walk(self.demo):
            top, _, rest = path.partition("/")
            if top in ("next_obs", "initial_state"):
                reason = "obs of the next row" if top == "next_obs" else "one row before the start"
                self.drop(path, reason, max(1, dataset.shape[0] if dataset.shape else 1))
                continue
            if not is_numeric(dataset):
                self.drop(path, f"values of type {dataset.dtype}")
                continue
            if len(dataset) != self.n and top != "states":
                self.account.problem(f"{path}: {len(dataset)} rows, actions have {self.n}")
            arm = _ARM.fullmatch(rest) if top == "obs" else None
            if arm is not None:
                stream, field = _FIELDS[arm[2]]
                stream += f"_{arm[1]}" if arm[1] not in (None, "robot0") else ""
                values = self._rotation(path, dataset) if field == "orientation" else dataset
                if values is not None:
                    arms.setdefault(stream, {})[field] = values
                    topics[stream] = f"obs/{rest.rsplit('_', 1)[0]}"
                    continue
            self._one(path, top, rest, dataset)
        for stream, fields in arms.items():
            n = min(len(v) for v in fields.values())
            self.signal(
                stream, fields, row_stamps(n, self.rate_hz), source_topic=topics[stream],
                **self.timing,
            )  # fmt: skip

    def _rotation(self, path: str, dataset: Any) -> Any:
        """Quaternions as qw, qx, qy, qz; None where the file does not tell their order."""
        if dataset.ndim == 2 and dataset.shape[1] == 3 and path.endswith("ee_ori"):
            return quat_from_rotvec(dataset[:])
        if dataset.ndim != 2 or dataset.shape[1] != 4:
            return None
        if self.isaac:
            return dataset
        if self.env.get("env_type") in _SCALAR_LAST or "robosuite" in json.dumps(self.env).lower():
            return from_xyzw(dataset[:])
        self.account.problem(f"{path}: order of the quaternion unknown; values kept as they are")
        return None

    def _one(self, path: str, top: str, rest: str, dataset: Any) -> None:
        stamps = row_stamps(len(dataset), self.rate_hz)
        info = {**self.timing, "source_topic": path}
        name = {"actions": "action", "rewards": "reward", "dones": "done"}.get(path)
        if name is None:
            name = re.sub(r"[^A-Za-z0-9]+", "_", rest if top == "obs" else path).strip("_")
        if top == "obs" and dataset.ndim in (3, 4) and min(dataset.shape[1:3]) >= 8:
            depth = "depth" in rest or dataset.dtype.kind == "f"
            name = "camera_" + re.sub(r"_(image|rgb)$", "", name.removeprefix("camera_"))
            if self.convention == "opengl":
                info["attrs"] = {**info["attrs"], "image_convention": "opengl: bottom row first"}
            if depth:
                self._depth(name, dataset, stamps, info)
                return
            if dataset.dtype == np.uint8:
                self.frames(name, dataset, stamps, **info)
                return
        if self.isaac and path.endswith("root_pose") and dataset.shape[1:] == (7,):
            pose = dataset[:]
            self.signal(
                name, {"position": pose[:, :3], "orientation": pose[:, 3:]}, stamps,
                units={"position": "m"}, **info,
            )  # fmt: skip
            return
        self.signal(name, {"data": dataset}, stamps, **info)

    def _depth(self, name: str, dataset: Any, stamps: Any, info: dict[str, Any]) -> None:
        if dataset.dtype not in (np.uint16, np.float32):
            self.signal(name, {"data": dataset}, stamps, **info)
            return
        pixels = dataset if dataset.ndim == 3 else _Squeezed(dataset)
        self.frames(name, pixels, stamps, kind=Kind.DEPTH, **info)

    def _labels(self, file: Any) -> None:
        filters = []
        for name in file.get("mask", ()):
            members = {
                m.decode() if isinstance(m, bytes) else str(m) for m in file["mask"][name][:]
            }
            if self.part in members:
                filters.append(name)
        success = self.demo.attrs.get("success")
        task = self.env.get("env_name")
        text = self._language(file["data"])
        self.know(task=text_of(task), tags=filters, instruction=text)
        if success is not None:
            self.know(outcome="success" if bool(success) else "failure")
        from mmdata_schema import Tag, stable_id

        tags = [
            Tag(id=stable_id("tag", self.episode_id, "filter", f), label="filter", value=f)
            for f in filters
        ]
        if success is not None:
            ident = stable_id("tag", self.episode_id, "success")
            tags.append(Tag(id=ident, label="success", value=bool(success)))
        from mmdata_converters._labels import Spans

        spans = Spans(row_stamps(self.n, self.rate_hz), self.episode_id)
        spans.whole("language_instruction", [text or ""], "instruction")
        self.layer("robomimic", tags=tags, captions=spans.captions)

    def _language(self, data: Any) -> str | None:
        """What was asked: LIBERO tells it for the file, RoboCasa for the episode."""
        for facts, key in ((self.demo, "ep_meta"), (data, "problem_info")):
            found = _json_of(facts, key)
            text = found.get("lang") or found.get("language_instruction")
            text = text[0] if isinstance(text, list) and text else text
            if isinstance(text, str) and text.strip(' "'):
                return text.strip(' "')
        return None


class _Squeezed:
    """(n, H, W, 1) on disk as (n, H, W)."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.shape = tuple(dataset.shape[:3])
        self.dtype = dataset.dtype
        self.chunks = dataset.chunks

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        return self._dataset[rows][..., 0]


def _json_of(item: Any, key: str) -> dict[str, Any]:
    """An attribute that holds a JSON object; empty where it does not."""
    text = text_of(item.attrs.get(key))
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _environment(data: Any) -> dict[str, Any]:
    """Facts about the environment: robomimic's env_args, else what robosuite itself writes."""
    env = _json_of(data, "env_args")
    if env:
        return env
    env = _json_of(data, "env_info")
    name = text_of(data.attrs.get("env"))
    if name:
        env = {"env_type": 1, "env_name": name, **env}
    return env
