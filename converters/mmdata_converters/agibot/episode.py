"""One episode of AgiBot World or Digital World."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.geometry import SE3, CameraModel, LensModel, Sensor
from mmdata_converters._common import (
    DAMAGE,
    measured,
    natural,
    one_line,
    read_bytes,
    read_json,
    row_stamps,
    seconds_to_ns,
    synthetic,
    unit_of_stamps,
)
from mmdata_converters._containers import open_video
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_numeric, open_h5, walk
from mmdata_converters._rotations import from_xyzw
from mmdata_converters._video import add_video
from mmdata_converters.agibot.places import Place

#: The cameras' rate, for files without stamps.
_RATE_HZ = 30.0
_BASE = "base"
_STATES = {"joint": "joint_states", "end": "eef_pose", "effector": "gripper"}
_ARMS = tuple(f"{side}_arm_joint{i}" for side in ("left", "right") for i in range(1, 8))
#: Channels as the dataset documents them, where the table does not name them: (part, columns).
_CHANNELS = {
    ("joint", 14): _ARMS, ("head", 2): ("yaw", "pitch"), ("waist", 2): ("pitch", "lift"),
    ("effector", 2): ("left", "right"),
}  # fmt: skip


class Episode(FeedRecording):
    """One episode."""

    def __init__(self, path: Path, part: str, place: Place) -> None:
        super().__init__(path, "agibot", part)
        self.place = place
        self.uses(place.table)
        self.file = self.owns(open_h5(place.table))
        joints = self.file.get("state/joint")
        # Only the simulated ones name their joints; they also write quaternions scalar first.
        self.simulated = joints is not None and "name" in joints.attrs
        lengths = [len(d) for _, d in walk(self.file.get("state", {})) if d.shape]
        self.n = max(lengths, default=0)
        self.stamps, self.timing = self._time()
        self.know(
            source_format="AgiBot Digital World" if self.simulated else "AgiBot World",
            simulated=self.simulated or None,
        )
        self._states()
        self._actions()
        self.videos: dict[str, Path] = {}
        self._observations()
        self.attempt("parameters", self._cameras)
        self.attempt("labels", self._labels)

    @property
    def episode_id(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]+", "_", f"agibot_{self.place.task}_{self.place.episode}")

    def _time(self) -> tuple[Stamps, dict[str, Any]]:
        column = self.file.get("timestamp")
        if column is not None and len(column.shape) == 1 and len(column):
            values = np.asarray(column[:])
            if len(values) != self.n:
                self.account.problem(f"timestamp: {len(values)} for {self.n} rows")
            self.n = min(self.n, len(values)) or len(values)
            factor, _ = unit_of_stamps(values)
            return seconds_to_ns(values, factor), measured()
        self.account.problem(f"no timestamp: rows are placed at {_RATE_HZ:g} Hz")
        return row_stamps(self.n, _RATE_HZ), synthetic(_RATE_HZ, f"row / {_RATE_HZ:g} Hz")

    # -- robot ---------------------------------------------------------------------------------

    def _states(self) -> None:
        by_part: dict[str, dict[str, Any]] = {}
        empty = []
        for key, dataset in walk(self.file.get("state", {})):
            part, _, field = key.rpartition("/")
            if not is_numeric(dataset) or not len(dataset):
                empty.append(key)
            elif len(dataset) != self.n:
                self.account.problem(f"state/{key}: {len(dataset)} rows for {self.n}")
                self.drop(f"state/{key}", "rows that do not fit the stamps", len(dataset))
            else:
                values = self._rotation(field, dataset)
                by_part.setdefault(part, {})[field or "data"] = values
        if empty:
            self.account.problem(f"empty in state: {', '.join(empty)}")
        for part, fields in sorted(by_part.items()):
            name = _STATES.get(part, f"state_{part}")
            if part.endswith("effector") and part != "effector":
                name = f"gripper_{part.removesuffix('_effector')}"
            units = {"position": "m"} if part == "end" else {}
            self.signal(
                re.sub(r"[^A-Za-z0-9]+", "_", name), fields, self.stamps, units=units,
                channels=self._channels("state", part, fields), source_topic=f"state/{part}",
                **self.timing,
            )  # fmt: skip

    def _channels(self, top: str, part: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Names of the columns: as the table names them, else as documented."""
        group = self.file.get(f"{top}/{part}")
        named = [str(n) for n in group.attrs.get("name", ())] if group is not None else []
        out = {}
        for field, values in fields.items():
            if len(values.shape) == 2:
                width = values.shape[1]
                found = named if len(named) == width else _CHANNELS.get((part, width))
                if found:
                    out[field] = found
        return out

    def _rotation(self, field: str, dataset: Any) -> Any:
        """Real robots write quaternions qx, qy, qz, qw, simulated ones qw, qx, qy, qz."""
        turns = field in ("orientation", "orientation_drift") and dataset.shape[-1:] == (4,)
        return from_xyzw(dataset[:]) if turns and not self.simulated else dataset

    def _actions(self) -> None:
        """Actions are sent at the rows that `index` names, and may be fewer than states."""
        if "action" not in self.file:
            self.account.problem("the table has no actions")
        by_part: dict[str, dict[str, Any]] = {}
        for key, dataset in walk(self.file.get("action", {})):
            part, _, field = key.rpartition("/")
            if is_numeric(dataset) and len(dataset):
                by_part.setdefault(part, {})[field or "data"] = dataset
        for part, fields in sorted(by_part.items()):
            index = fields.pop("index", None)
            lengths = {len(d) for d in fields.values()}
            if not fields:
                continue
            for length in sorted(lengths):
                same = {f: self._rotation(f, d) for f, d in fields.items() if len(d) == length}
                suffix = "" if len(lengths) == 1 else f"_{'_'.join(sorted(same))}"
                self._action(part, suffix, same, length, index)

    def _action(
        self, part: str, suffix: str, fields: dict[str, Any], length: int, index: Any
    ) -> None:
        topic = f"action/{part}{suffix}"
        name = "action_" + re.sub(r"[^A-Za-z0-9]+", "_", part + suffix)
        rows: NDArray[np.int64] | None = None
        if index is not None:
            places = np.asarray(index[:]).reshape(-1).astype(np.int64)
            if len(places) and (places.min() < 0 or places.max() >= len(self.stamps)):
                self.account.problem(f"{topic}: index points beyond the rows: it is not used")
            elif len(places) == length:
                rows = places
            elif length == self.n:
                sent = np.zeros(length, np.uint8)
                sent[places] = 1
                fields = {**fields, "sent": sent}
        if rows is None and length <= len(self.stamps):
            rows = np.arange(length)
            if length != self.n:
                self.account.problem(f"{topic}: {length} rows for {self.n}, and no index for them")
        if rows is None:
            self.drop(topic, "more rows than stamps", length)
            return
        units = {"position": "m"} if part == "end" and "position" in fields else {}
        self.signal(name, fields, self.stamps[rows], units=units, source_topic=topic,
                    channels=self._channels("action", part, fields), **self.timing)  # fmt: skip

    # -- pictures ------------------------------------------------------------------------------

    def _observations(self) -> None:
        root = self.place.observations
        if root is None:
            self.account.problem("the episode has no videos")
            return
        for folder in ("videos", "video", ".", "tactile"):
            for file in sorted((root / folder).glob("*.mp4")):
                self._video(file, "tactile" if folder == "tactile" else folder)
        self._depth(root / "depth")

    def _video(self, file: Path, folder: str) -> None:
        kind = file.stem.removesuffix("_color")
        name = _name(f"camera_tactile_{kind}" if folder == "tactile" else f"camera_{kind}")
        self.videos[name] = file
        add_video(
            self, name, file, self.stamps, source_topic=f"{folder}/{file.name}",
            source_type="video", sensor=name,
            synthetic_rate_hz=None if self.timing["stamp_source"] == "header" else _RATE_HZ,
            **self.timing,
        )  # fmt: skip

    def _depth(self, folder: Path) -> None:
        """Depth pictures: <camera>_depth_<row>.png, or <row>/<camera>.png."""
        by_camera: dict[str, dict[int, Path]] = {}
        for file in sorted(folder.glob("*.png")):
            match = re.fullmatch(r"(.*?)_?(\d+)", file.stem)
            if match:
                by_camera.setdefault(match[1], {})[int(match[2])] = file
        for file in sorted(folder.glob("*/*.png"), key=lambda f: natural(str(f))):
            if file.parent.name.isdigit():
                by_camera.setdefault(file.stem, {})[int(file.parent.name)] = file
        for camera, files in sorted(by_camera.items()):
            rows = sorted(r for r in files if r < len(self.stamps))
            if len(rows) < len(files):
                self.account.problem(f"depth/{camera}: {len(files) - len(rows)} beyond the rows")
            if len(rows) < self.n:
                self.account.problem(f"depth/{camera}: {len(rows)} pictures for {self.n} rows")
            self.uses(*(files[r] for r in rows))

            def get(i: int, files: dict[int, Path] = files, rows: list[int] = rows) -> bytes | None:
                return read_bytes(files[rows[i]])

            name = _name(f"camera_{camera.removesuffix('_depth')}_depth")
            self.depth_pictures(name, get, self.stamps[rows], source_topic=f"depth/{camera}",
                                **self.timing)  # fmt: skip

    # -- calibration ---------------------------------------------------------------------------

    def _cameras(self) -> None:
        folder = self.place.parameters
        if folder is None:
            return
        for file in sorted(folder.glob("*_intrinsic_params.json")):
            camera = file.name.removesuffix("_intrinsic_params.json")
            name = _name(f"camera_{camera}")
            self.uses(file)
            model = pose = None
            try:
                model = self._lens(name, read_json(file))
            except DAMAGE as error:
                self.account.problem(f"{name}: intrinsics cannot be used: {one_line(error)}")
            try:
                pose = self._pose(name, folder / f"{camera}_extrinsic_params_aligned.json")
            except DAMAGE as error:
                self.account.problem(f"{name}: extrinsics cannot be used: {one_line(error)}")
            self.mount(Sensor(name, name, None if pose is None else _BASE, pose, model))

    def _lens(self, name: str, facts: Any) -> CameraModel | None:
        """Intrinsics, checked against the pictures: some were taken at another size."""
        numbers = facts.get("intrinsic", facts)
        fx, fy, cx, cy = (float(numbers[k]) for k in ("fx", "fy", "ppx", "ppy"))
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        if name not in self.videos:
            self.account.problem(f"{name}: calibrated, but no pictures")
            return None
        video = open_video(self.videos[name])
        width, height = video.width, video.height
        if not (0.3 < cx / width < 0.7 and 0.3 < cy / height < 0.7):
            self.account.problem(
                f"{name}: principal point {cx:.0f}, {cy:.0f} is not near the middle of "
                f"{width}x{height}: intrinsics of another picture size are not used"
            )
            return None
        lens = [float(numbers.get(k) or 0.0) for k in ("k1", "k2", "p1", "p2", "k3")]
        if "fisheye" in name and "p1" not in numbers and "k4" in numbers:
            curve = np.array([float(numbers.get(f"k{i}") or 0.0) for i in range(1, 5)])
            return CameraModel(LensModel.FISHEYE, K, curve, width, height)
        if "fisheye" in name and any(lens):
            self.account.problem(f"{name}: the distortion's model is not told: not used")
            return None
        return CameraModel(LensModel.BROWN_CONRADY, K, np.array(lens), width, height)

    def _pose(self, name: str, file: Path) -> SE3 | None:
        """base_SE3_camera where it stays; a moving one becomes a stream."""
        if not file.is_file():
            return None
        self.uses(file)
        found = read_json(file)
        entries = [e.get("extrinsic", e) for e in (found if isinstance(found, list) else [found])]
        poses = [SE3(np.array(e["rotation_matrix"], np.float64).reshape(3, 3),
                     np.array(e["translation_vector"], np.float64).reshape(3))
                 for e in entries]  # fmt: skip
        turns = np.array([p.quaternion for p in poses])
        places = np.array([p.translation for p in poses])
        if len(poses) == 1 or (
            np.ptp(places, axis=0).max() < 1e-6 and np.abs(turns - turns[0]).max() < 1e-6
        ):
            return poses[0]
        if len(poses) != self.n:
            self.account.problem(f"{file.name}: {len(poses)} poses for {self.n} rows")
        n = min(len(poses), len(self.stamps))
        self.signal(
            f"{name}_pose", {"position": places[:n], "orientation": turns[:n]}, self.stamps[:n],
            units={"position": "m"}, source_topic=f"parameters/{file.name}", frame_id=_BASE,
            **self.timing,
        )  # fmt: skip
        return None

    # -- labels --------------------------------------------------------------------------------

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        spans = Spans(self.stamps[: self.n], self.episode_id)
        facts = self._description()
        task = str(facts.get("english_task_name") or facts.get("task_name") or "")
        self.know(task=task, instruction=task, scene=facts.get("init_scene_text"))
        spans.whole("task_name", [task], "instruction")
        for entry in (facts.get("label_info") or {}).get("action_config") or []:
            try:
                first, last = int(entry["start_frame"]), int(entry["end_frame"])
            except (KeyError, TypeError, ValueError):
                self.drop("action_config", "a sub-task without frames")
                continue
            if not 0 <= first < last:
                self.drop("action_config", "a sub-task that ends before it starts")
                continue
            texts = [entry.get(k) for k in ("english_action_text", "action_text", "skill")]
            text = next((str(t) for t in texts if t), "sub-task")
            skill = entry.get("skill")
            more = {"attributes": {"skill": str(skill)}} if skill else {}
            spans.phase("subtask", text, spans.edge(first), spans.edge(last), **more)
        self.layer("agibot", captions=spans.captions, phases=spans.phases)

    def _description(self) -> dict[str, Any]:
        for file in self.place.descriptions:
            if file.is_file():
                self.uses(file)
                found = read_json(file)
                own = file.parent == self.place.table.parent
                if own and isinstance(found, dict):
                    return found
                for entry in found if isinstance(found, list) else [found]:
                    if isinstance(entry, dict) and str(entry.get("episode_id")) == (
                        self.place.episode
                    ):
                        return entry
                self.account.problem(f"{file.name} does not describe episode {self.place.episode}")
                return {}
        self.account.problem(f"no description of task {self.place.task}")
        return {}


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
