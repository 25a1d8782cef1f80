"""One episode of a LeRobot dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.media import sniff_image
from mmdata.streams import FieldInfo, Kind, Ragged, StreamInfo
from mmdata_converters._common import (
    measured,
    row_stamps,
    seconds_to_ns,
    synthetic,
)
from mmdata_converters._feeds import Chunk, FeedRecording
from mmdata_converters._parquet import ParquetRows
from mmdata_converters._video import DepthScale, add_video
from mmdata_converters.lerobot.dataset import Dataset, episode_name

_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_LANGUAGE = ("language_persistent", "language_events")
_CARTESIAN = {"x", "y", "z", "roll", "pitch", "yaw", "rx", "ry", "rz", "qx", "qy", "qz", "qw"}
#: float32 seconds and a grid: what still counts as exactly regular.
_GRID_S = 1e-4


class LeRobotEpisode(FeedRecording):
    """One episode."""

    def __init__(self, dataset: Dataset, episode: int) -> None:
        super().__init__(dataset.path, "lerobot", episode_name(episode))
        self.dataset, self.episode = dataset, episode
        places = dataset.places[episode]
        self.rows: ParquetRows = self.owns(dataset.rows(episode))
        self.uses(*(p.file for p in places), dataset.info_file)
        n = len(self.rows)
        declared = dataset.episodes.get(episode, {}).get("length")
        if declared is not None and int(declared) != n:
            self.account.problem(f"the episode has {n} rows, the metadata says {declared}")
        self.frame_index = self._frame_index(n)
        self.rate_hz: float | None = None
        self.stamps, self.timing = self._stamps(n)
        self.know(
            robot=dataset.info.get("robot_type"),
            source_format=f"LeRobot {dataset.info.get('codebase_version') or 'v1'}",
        )
        self._columns()
        self._videos()
        self.attempt("labels", self._labels)
        for note in dataset.notes:
            self.account.problem(note)

    # -- time ----------------------------------------------------------------------------------

    def _frame_index(self, n: int) -> NDArray[np.int64]:
        """Frame that belongs to each row."""
        index = self.rows.numbers("frame_index") if "frame_index" in self.rows.names else None
        if index is None or not len(index):
            return np.arange(n)
        index = index.astype(np.int64)
        if index[0] < 0 or (np.diff(index) <= 0).any():
            self.account.problem("frame_index does not ascend: rows are taken in order")
            return np.arange(n)
        if index[-1] != n - 1:
            missing = int(index[-1]) + 1 - n
            self.account.problem(f"{missing} rows are missing (by frame_index)")
        return index

    def _stamps(self, n: int) -> tuple[Stamps, dict[str, Any]]:
        """Stamps of the rows: index / fps where the timestamps are just that, else as measured."""
        fps, index = self.dataset.fps, self.frame_index
        seconds = self.rows.numbers("timestamp") if "timestamp" in self.rows.names else None
        if seconds is not None:
            seconds = seconds.astype(np.float64).reshape(-1)
            if not np.isfinite(seconds).all() or (np.diff(seconds) < 0).any():
                self.account.problem("timestamps are not finite or go backwards")
                seconds = None if not np.isfinite(seconds).all() else seconds
        if seconds is None:
            if fps is None:
                raise ConversionError(f"{self.path}: neither timestamps nor an fps in info.json")
            self.account.problem("no usable timestamp column: stamps are frame_index / fps")
        tolerance = (
            _GRID_S + 2e-7 * float(np.abs(seconds).max()) if seconds is not None and n else 0
        )
        if fps is not None and (
            seconds is None or np.abs(seconds - index / fps).max(initial=0.0) <= tolerance
        ):
            self.rate_hz = fps
            return row_stamps(int(index[-1]) + 1 if n else 0, fps)[index], synthetic(
                fps, f"frame_index / {fps:g} Hz"
            )
        assert seconds is not None
        period = float(np.median(np.diff(seconds))) if n > 1 else 0.0
        mean = (n - 1) / (seconds[-1] - seconds[0]) if n > 1 and seconds[-1] > seconds[0] else None
        if fps is not None and mean is not None and abs(mean - fps) > 0.01 * fps:
            self.account.problem(
                f"timestamps run at {mean:.3f} Hz, info.json declares {fps:g} fps; "
                "the timestamps are kept"
            )
        regular = n > 2 and mean is not None and (
            np.abs(seconds - seconds[0] - (index - index[0]) / mean).max() <= tolerance
        )  # fmt: skip
        if regular and period > 0:
            rule = "timestamp column: an exact grid, so no measurement"
            return seconds_to_ns(seconds), synthetic(mean, rule)
        facts = measured("unknown")
        return seconds_to_ns(seconds), {**facts, "nominal_rate_hz": fps}

    # -- columns -------------------------------------------------------------------------------

    def _columns(self) -> None:
        features = self.dataset.features
        videos = {k for k, f in features.items() if f.get("dtype") == "video"}
        for key in features:
            if key not in self.rows.names and key not in videos and key not in _LANGUAGE:
                self.account.problem(f"column {key} is declared and missing")
        for key in self.rows.names:
            if key in _BOOKKEEPING or key in _LANGUAGE or key in videos:
                continue
            if key not in features and not key.startswith("__"):
                self.account.problem(f"column {key} is not declared in info.json")
            if self._is_picture(key):
                self._pictures(key)
            elif not self._is_text(key) and not key.startswith("annotation."):
                self._numbers(key)

    def _numbers(self, key: str) -> None:
        values = self.rows.numbers(key)
        if values is None:
            self.drop(key, f"column of type {self.rows.type_of(key)}", len(self.rows))
            return
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        names = self._channels(key, values)
        stream, field = _stream_of(key, names)
        channels = {field: names} if names else None
        info = {**self.timing, "source_topic": key, "source_type": str(self.rows.type_of(key))}
        self.signal(stream, {field: values}, self.stamps, channels=channels, **info)
        if key == "next.success" and values.any():
            self.know(outcome="success")

    def _channels(self, key: str, values: NDArray[Any]) -> list[str] | None:
        if values.ndim != 2:
            return None
        names = _flat_names(self.dataset.features.get(key, {}).get("names"))
        if len(names) == values.shape[1]:
            return names
        if names:
            self.account.problem(f"{key}: {len(names)} names for {values.shape[1]} columns")
        group = {"observation.state": "state", "action": "action"}.get(key)
        slices = self.dataset.modality.get(group, {}) if group else {}
        found: dict[int, str] = {}
        for part, place in slices.items():
            first, last = int(place.get("start", 0)), int(place.get("end", 0))
            for i in range(first, min(last, values.shape[1])):
                found[i] = part if last - first == 1 else f"{part}_{i - first}"
        width = values.shape[1]
        return [found[i] for i in range(width)] if len(found) == width else None

    def _is_picture(self, key: str) -> bool:
        import pyarrow as pa

        kind = self.rows.type_of(key)
        declared = self.dataset.features.get(key, {}).get("dtype") == "image"
        return declared or (
            pa.types.is_struct(kind) and {f.name for f in kind} >= {"bytes", "path"}
        )

    def _is_text(self, key: str) -> bool:
        import pyarrow as pa

        kind = self.rows.type_of(key)
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def _pictures(self, key: str) -> None:
        def read() -> Iterator[Chunk]:
            for first, values in self.rows.parts(key, rows=16):
                rows, found = [], []
                for i, value in enumerate(values.to_pylist()):
                    data = value if isinstance(value, bytes) else (value or {}).get("bytes")
                    if not data:
                        named = value.get("path") if isinstance(value, dict) else None
                        frame = int(self.frame_index[first + i])
                        data = self.dataset.images(key, self.episode, named, frame)
                    if not data or sniff_image(data) is None:
                        self.drop(key, "no JPEG, PNG or WebP" if data else "missing")
                        continue
                    rows.append(first + i)
                    found.append(data)
                if rows:
                    yield np.array(rows), {"data": Ragged.from_rows(found, np.uint8)}

        encoding = "jpeg"
        for _, samples in read():
            encoding = sniff_image(samples["data"][0].tobytes()) or encoding
            break
        info = StreamInfo(
            _camera(key), Kind.IMAGE, {"data": FieldInfo("|u1", (), True)}, encoding=encoding,
            source_topic=key, source_type="image", **self.timing,
        )  # fmt: skip
        self.feed(info, self.stamps, read)

    def _videos(self) -> None:
        slots = int(self.frame_index[-1]) + 1 if len(self.rows) else 0
        stamps = np.zeros(slots, np.int64)
        has_row = np.zeros(slots, bool)
        stamps[self.frame_index] = self.stamps
        has_row[self.frame_index] = True
        rate = self.rate_hz
        if rate is not None:
            stamps = row_stamps(slots, rate)
        for key, feature in self.dataset.features.items():
            if feature.get("dtype") != "video":
                continue
            clip = self.dataset.video(key, self.episode)
            if clip.note:
                self.account.problem(clip.note if clip.file else f"{key}: {clip.note}")
            if clip.file is None:
                self.drop(key, "no place in the video", max(1, len(self.rows)))
                continue
            facts = feature.get("info") or feature.get("video_info") or {}
            declared = facts.get("video.fps") or self.dataset.fps
            depth = {k: v for k, v in facts.items() if "depth" in k and v not in (None, False)}
            timing = dict(self.timing)
            attrs = {
                **timing.pop("attrs", {}),
                **{k.replace(".", "_"): v for k, v in depth.items()},
            }
            add_video(
                self, _camera(key), clip.file, stamps, synthetic_rate_hz=rate,
                start_s=clip.start_s, end_s=clip.end_s,
                declared_rate_hz=float(declared) if declared else None, has_row=has_row,
                source_topic=key, source_type="video", attrs=attrs,
                depth_scale=_depth_scale(facts), **timing,
            )  # fmt: skip

    # -- labels --------------------------------------------------------------------------------

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        tasks = self.dataset.tasks()
        spans = Spans(self.stamps, self.episode_id)
        index = self.rows.numbers("task_index") if "task_index" in self.rows.names else None
        if index is not None and len(index):
            spans.texts("task", [tasks.get(int(i)) for i in index], "instruction")
            texts = [tasks[int(i)] for i in dict.fromkeys(index.tolist()) if int(i) in tasks]
            unknown = sorted({int(i) for i in index} - set(tasks))
            if unknown:
                self.account.problem(f"no text for task_index {unknown[:5]}: labels are lost")
        else:
            texts = list(self.dataset.episodes.get(self.episode, {}).get("tasks") or [])
            spans.whole("task", texts, "instruction")
        if texts:
            self.know(task=texts[0], instruction=texts[0])
        for key in self.rows.names:
            if self._is_text(key):
                style = "subtask" if "sub" in key and "task" in key else "instruction"
                values = self.rows.values(key).to_pylist()
                spans.texts(key, values, style)
                first = next((v for v in values if v), None)
                if style == "instruction" and first and "instruction" not in self.metadata:
                    self.know(task=first, instruction=first)
            elif key.startswith("annotation."):
                values = self.rows.numbers(key)
                if values is not None and values.dtype.kind in "iu" and values.ndim == 1:
                    spans.texts(key, [tasks.get(int(i)) for i in values], "instruction")
        self._subtasks(spans)
        for key in _LANGUAGE:
            if key in self.rows.names:
                self._language(key, spans)
        self.layer("lerobot", captions=spans.captions, phases=spans.phases)

    def _subtasks(self, spans: Any) -> None:
        """The column of sub-task numbers; rows without one have a number that stands for none."""
        known = self.dataset.subtasks()
        index = self.rows.numbers("subtask_index") if "subtask_index" in self.rows.names else None
        if not known or index is None or not len(index):
            return
        spans.texts("subtask_index", [known.get(int(i)) for i in index], "subtask")

    def _language(self, key: str, spans: Any) -> None:
        """LeRobot's language columns: lists of {role, content, style, timestamp, camera}."""
        seen: set[tuple[Any, ...]] = set()
        entries: list[tuple[int, str, str, str | None, str | None]] = []
        for row, items in enumerate(self.rows.values(key).to_pylist()):
            for item in items or []:
                at = item.get("timestamp")
                stamp = int(self.stamps[row])
                if key == "language_persistent" and at is not None:
                    stamp = self._at_seconds(float(at))
                mark = (
                    item.get("role"), item.get("content"), item.get("style"), item.get("camera"),
                    stamp,
                )  # fmt: skip
                text = item.get("content")
                if text and mark not in seen:
                    seen.add(mark)
                    camera = item.get("camera")
                    entries.append((
                        stamp, str(text), str(item.get("style") or "caption"), item.get("role"),
                        _camera(camera) if camera else None,
                    ))  # fmt: skip
        spans.since(key, sorted(entries, key=lambda e: e[0]), persistent="persistent" in key)

    def _at_seconds(self, seconds: float) -> int:
        """Stamp of an instant given in the dataset's seconds: the row nearest to it."""
        column = self.rows.numbers("timestamp")
        if column is None or not len(column):
            return round(seconds * 1e9)
        return int(self.stamps[int(np.abs(column.reshape(-1) - seconds).argmin())])


def _depth_scale(facts: dict[str, Any]) -> DepthScale | None:
    """How a depth video is quantised; None where the feature does not say."""

    def fact(key: str) -> Any:
        return facts.get(f"video.{key}") or facts.get(key)

    low, high = fact("depth_min") or 0.0, fact("depth_max")
    if not fact("is_depth_map") or not all(isinstance(v, int | float) for v in (low, high)):
        return None
    unit = fact("depth_unit")
    return DepthScale(
        float(low), float(high), float(fact("shift") or fact("depth_shift") or 0),
        bool(fact("use_log")), unit=str(unit) if unit else None,
    )  # fmt: skip


def _flat_names(names: Any) -> list[str]:
    """Channel names: a list, a list in a list, {"motors": [...]} or {name: index}."""
    if isinstance(names, dict):
        if names and all(isinstance(v, int) for v in names.values()):
            return [str(k) for k, _ in sorted(names.items(), key=lambda kv: kv[1])]
        names = [n for v in names.values() for n in (v if isinstance(v, list) else [v])]
    if not isinstance(names, list):
        return []
    if len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    return [str(n) for n in names]


def _stream_of(key: str, names: list[str] | None) -> tuple[str, str]:
    """Stream and field of a column. A state is `joint_states` only where its names are joints'."""
    if key == "action":
        return "action", "data"
    short = key.removeprefix("observation.")
    if short == "state":
        axes = {n.lower().rsplit(".", 1)[-1].rsplit("_", 1)[-1] for n in names or []}
        joints = bool(names) and not axes & _CARTESIAN and not _motors_only(names or [])
        return ("joint_states", "position") if joints else ("state", "data")
    return re.sub(r"[^A-Za-z0-9-]+", "_", short).strip("_"), "data"


def _motors_only(names: list[str]) -> bool:
    """Names like motor_0 say nothing."""
    return all(re.fullmatch(r"(motor|state|dim|joint)?s?_?\d+", n.lower()) for n in names)


def _camera(key: str) -> str:
    short = key.removeprefix("observation.").removeprefix("images.").removeprefix("image.")
    short = re.sub(r"[^A-Za-z0-9-]+", "_", short).strip("_")
    return short if short.startswith("camera") else f"camera_{short}"
