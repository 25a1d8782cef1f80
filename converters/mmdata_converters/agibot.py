"""AgiBot World: episodes as HDF5 tables, videos, depth pictures and task descriptions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.recording import Recording
from mmdata_converters._common import (
    DatasetConverter,
    measured,
    natural,
    read_bytes,
    read_json,
    row_stamps,
    seconds_to_ns,
    synthetic,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._h5 import is_numeric, open_h5, walk
from mmdata_converters._rotations import from_xyzw
from mmdata_converters._video import add_video

#: The cameras' rate, for files without stamps.
_RATE_HZ = 30.0
_STATES = {"joint": "joint_states", "end": "eef_pose", "effector": "gripper"}


class AgiBotConverter(DatasetConverter):
    name = "agibot"
    summary = "AgiBot World episodes"
    reads = "states, actions by their index, videos, depth, tactile videos"
    labels = "sub-tasks with skills, task"
    time = "measured"
    cannot = "camera parameters"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return bool(_episodes(path))

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        found = _episodes(path)
        if not found:
            raise ConversionError(f"{path}: no proprio_stats/<task>/<episode>/proprio_stats.h5")
        return sorted(found, key=natural)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Episode(path, part, _episodes(path)[part])


def _episodes(path: Path) -> dict[str, Path]:
    return {
        f"{f.parent.parent.name}_{f.parent.name}": f
        for f in Path(path).glob("proprio_stats/*/*/proprio_stats.h5")
    }


class _Episode(FeedRecording):
    def __init__(self, path: Path, part: str, table: Path) -> None:
        super().__init__(path, "agibot", part)
        self.uses(table)
        self.task, self.episode = table.parent.parent.name, table.parent.name
        self.file = self.owns(open_h5(table))
        self.n = max((len(d) for k, d in walk(self.file.get("state", {})) if d.shape), default=0)
        self.stamps, self.timing = self._time()
        self._states()
        self._actions()
        self._observations()
        self._labels()

    @property
    def episode_id(self) -> str:
        return f"agibot_{self.part}"

    def _time(self) -> tuple[Stamps, dict[str, Any]]:
        column = self.file.get("timestamp")
        if column is not None and len(column.shape) == 1 and len(column):
            values = np.asarray(column[:])
            if len(values) != self.n:
                self.account.problem(f"timestamp: {len(values)} for {self.n} rows")
            self.n = min(self.n, len(values)) or len(values)
            # Whole numbers are nanoseconds; simulated episodes write seconds.
            return seconds_to_ns(values, 1 if values.dtype.kind in "iu" else 10**9), measured()
        self.account.problem(f"no timestamp: rows are placed at {_RATE_HZ:g} Hz")
        return row_stamps(self.n, _RATE_HZ), synthetic(_RATE_HZ, f"row / {_RATE_HZ:g} Hz")

    def _states(self) -> None:
        by_part: dict[str, dict[str, Any]] = {}
        for key, dataset in walk(self.file.get("state", {})):
            part, _, field = key.rpartition("/")
            if not is_numeric(dataset) or not len(dataset):
                self.account.problem(f"state/{key} is empty")
            elif len(dataset) != self.n:
                self.account.problem(f"state/{key}: {len(dataset)} rows for {self.n}")
                self.drop(f"state/{key}", "rows that do not fit the stamps", len(dataset))
            else:
                values = self._rotation(field, dataset)
                by_part.setdefault(part, {})[field or "data"] = values
        for part, fields in sorted(by_part.items()):
            name = _STATES.get(part, f"state_{part}")
            self.signal(re.sub(r"[^A-Za-z0-9]+", "_", name), fields, self.stamps,
                        source_topic=f"state/{part}", **self.timing)  # fmt: skip

    def _rotation(self, field: str, dataset: Any) -> Any:
        """Quaternions are written qx, qy, qz, qw."""
        if field == "orientation" and dataset.shape[-1:] == (4,):
            return from_xyzw(dataset[:])
        return dataset

    def _actions(self) -> None:
        """Actions are sent at the rows that `index` names, and may be fewer than states."""
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
        self.signal(name, fields, self.stamps[rows], source_topic=topic, **self.timing)

    def _observations(self) -> None:
        root = self.path / "observations" / self.task / self.episode
        if not root.is_dir():
            self.account.problem("the episode has no observations folder")
            return
        for folder in ("videos", "tactile"):
            for file in sorted((root / folder).glob("*.mp4")):
                kind = file.stem.removesuffix("_color")
                name = f"camera_{kind}" if folder == "videos" else f"camera_tactile_{kind}"
                add_video(
                    self, re.sub(r"[^A-Za-z0-9]+", "_", name), file, self.stamps,
                    source_topic=f"{folder}/{file.name}", source_type="video",
                    synthetic_rate_hz=None if self.timing["stamp_source"] == "header" else _RATE_HZ,
                    **self.timing,
                )  # fmt: skip
        by_camera: dict[str, dict[int, Path]] = {}
        for file in sorted((root / "depth").glob("*.png")):
            match = re.fullmatch(r"(.*?)_?(\d+)", file.stem)
            if match:
                by_camera.setdefault(match[1], {})[int(match[2])] = file
        for camera, files in sorted(by_camera.items()):
            rows = sorted(r for r in files if r < len(self.stamps))
            if len(rows) < len(files):
                self.account.problem(f"depth/{camera}: {len(files) - len(rows)} beyond the rows")
            if len(rows) < self.n:
                self.account.problem(f"depth/{camera}: {len(rows)} pictures for {self.n} rows")
            self.uses(*(files[r] for r in rows))

            def get(i: int, files: dict[int, Path] = files, rows: list[int] = rows) -> bytes | None:
                return read_bytes(files[rows[i]])

            name = re.sub(r"[^A-Za-z0-9]+", "_", f"camera_{camera.removesuffix('_depth')}_depth")
            self.depth_pictures(name, get, self.stamps[rows], source_topic=f"depth/{camera}",
                                **self.timing)  # fmt: skip

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        spans = Spans(self.stamps[: self.n], self.episode_id)
        facts = self._description()
        task = facts.get("task_name")
        self.know(task=task, instruction=task, scene=facts.get("init_scene_text"))
        spans.whole("task_name", [str(task or "")], "instruction")
        for entry in (facts.get("label_info") or {}).get("action_config") or []:
            try:
                first, last = int(entry["start_frame"]), int(entry["end_frame"])
            except (KeyError, TypeError, ValueError):
                self.drop("action_config", "a sub-task without frames")
                continue
            if not 0 <= first < last:
                self.drop("action_config", "a sub-task that ends before it starts")
                continue
            text = str(entry.get("action_text") or entry.get("skill") or "sub-task")
            skill = entry.get("skill")
            more = {"attributes": {"skill": str(skill)}} if skill else {}
            spans.phase("subtask", text, spans.edge(first), spans.edge(last), **more)
        self.layer("agibot", captions=spans.captions, phases=spans.phases)

    def _description(self) -> dict[str, Any]:
        for file in (
            self.path / "task_info" / f"task_{self.task}.json",
            self.path / f"task_info_{self.task}.json",
            self.path / f"task_{self.task}.json",
        ):
            if file.is_file():
                self.uses(file)
                found = read_json(file)
                for entry in found if isinstance(found, list) else [found]:
                    if isinstance(entry, dict) and str(entry.get("episode_id")) == self.episode:
                        return entry
                self.account.problem(f"{file.name} does not describe episode {self.episode}")
                return {}
        self.account.problem(f"no description of task {self.task}")
        return {}
