"""LeRobot datasets v2.0, v2.1 and v3.0: Parquet tables and MP4 videos, many episodes each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.media import sniff_image
from mmdata.recording import Recording
from mmdata.streams import FieldInfo, Kind, Ragged, StreamInfo
from mmdata_converters._feeds import (
    Chunk,
    DatasetConverter,
    FeedRecording,
    measured,
    read_bytes,
    read_json,
    read_json_lines,
    row_stamps,
    seconds_to_ns,
    synthetic,
)
from mmdata_converters._parquet import ParquetRows
from mmdata_converters._video import add_video

_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_LANGUAGE = ("language_persistent", "language_events")
_CARTESIAN = {"x", "y", "z", "roll", "pitch", "yaw", "rx", "ry", "rz", "qx", "qy", "qz", "qw"}
#: float32 seconds and a grid: what still counts as exactly regular.
_GRID_S = 1e-4


class LeRobotConverter(DatasetConverter):
    name = "lerobot"
    summary = "LeRobot datasets v2.0, v2.1, v3.0"
    reads = "state, action and every other column; videos as packets, embedded and loose images"
    labels = "tasks, sub-task and language columns, success"
    time = "measured where the timestamps differ from index / fps, else synthetic"
    cannot = "v1 datasets"

    @classmethod
    def claims(cls, path: Path) -> bool:
        info = path / "meta" / "info.json"
        return info.is_file() and re.match(
            r"v?[23]\.", str(read_json(info).get("codebase_version", ""))
        ) is not None  # fmt: skip

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        return [_name(i) for i in _Dataset(path).found]

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        dataset = _Dataset(path)
        return LeRobotEpisode(dataset, int(part.rsplit("_", 1)[1]))


def _name(episode: int) -> str:
    return f"episode_{episode:06d}"


@dataclass(frozen=True)
class _Place:
    """Where an episode's rows lie."""

    file: Path
    start: int = 0
    stop: int | None = None


class _Dataset:
    """meta/ of a dataset, and where its episodes are."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        info = self.path / "meta" / "info.json"
        if not info.is_file():
            raise ConversionError(f"{info} is missing: not a LeRobot dataset")
        self.info: dict[str, Any] = read_json(info)
        self.features: dict[str, Any] = self.info.get("features") or {}
        fps = self.info.get("fps")
        self.fps = float(fps) if isinstance(fps, int | float) and fps > 0 else None
        self.v3 = str(self.info.get("codebase_version", "")).lstrip("v").startswith("3")
        self.notes: list[str] = []
        self.episodes = self._episodes()
        self.places = self._places()
        self.found = sorted(self.places)
        listed = len(self.episodes) or int(self.info.get("total_episodes") or 0)
        if listed > len(self.found):
            self.notes.append(
                f"the dataset lists {listed} episodes; {listed - len(self.found)} have no data file"
            )
        modality = self.path / "meta" / "modality.json"
        self.modality: dict[str, Any] = read_json(modality) if modality.is_file() else {}

    def tasks(self) -> dict[int, str]:
        """Task index -> text."""
        table = self.path / "meta" / "tasks.parquet"
        if table.is_file():
            rows = ParquetRows(table)
            texts = next((n for n in rows.names if n != "task_index"), None)
            indices = rows.values("task_index").to_pylist()
            return dict(zip(indices, rows.values(texts).to_pylist(), strict=True)) if texts else {}
        lines = read_json_lines(self.path / "meta" / "tasks.jsonl")
        return {int(t["task_index"]): str(t["task"]) for t in lines if "task_index" in t}

    def video(self, key: str, episode: int) -> tuple[Path, float | None, float | None]:
        """File of a camera's frames of an episode, and the part of it that is theirs (seconds)."""
        facts = self.episodes.get(episode, {})
        chunk = episode // int(self.info.get("chunks_size") or 1000)
        numbers = {
            "episode_chunk": chunk, "episode_index": episode, "video_key": key,
            "chunk_index": int(facts.get(f"videos/{key}/chunk_index", 0) or 0),
            "file_index": int(facts.get(f"videos/{key}/file_index", 0) or 0),
        }  # fmt: skip
        template = self.info.get("video_path") or (
            "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if self.v3 else
            "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        )  # fmt: skip
        start, end = (facts.get(f"videos/{key}/{n}_timestamp") for n in ("from", "to"))
        try:
            named = str(template).format(**numbers)
        except (KeyError, IndexError, ValueError) as error:
            raise ConversionError(f"video_path {template!r} in info.json: {error}") from error
        return self._file(named, key, episode), start, end

    def images(self, key: str, episode: int, name: str | None, frame: int) -> bytes | None:
        """One loose picture."""
        folder = self.path / "images" / key / f"episode_{episode:06d}"
        for candidate in (
            self.path / name if name else None,
            folder / f"frame_{frame:06d}.png",
            folder / f"frame-{frame:06d}.png",
            folder / f"frame_{frame:06d}.jpg",
        ):
            data = read_bytes(candidate) if candidate else None
            if data:
                return data
        return None

    # -- internals -----------------------------------------------------------------------------

    def _file(self, named: str, key: str, episode: int) -> Path:
        """The file where the metadata says it is, else where writers are known to put it."""
        path = self.path / named
        if path.exists():
            return path
        other = "video" if named.startswith("videos/") else "videos"
        candidates = [self.path / other / named.partition("/")[2]]
        if not self.v3:
            stem = f"episode_{episode:06d}.*"
            for top in ("videos", "video"):
                candidates += sorted(self.path.glob(f"{top}/**/{key}/{stem}"))
                candidates += sorted(self.path.glob(f"{top}/{key}/**/{stem}"))
        for candidate in candidates:
            if candidate.exists():
                where = candidate.relative_to(self.path)
                self.notes.append(f"video found as {where}, not as info.json says ({named})")
                return candidate
        return path

    def _episodes(self) -> dict[int, dict[str, Any]]:
        if not self.v3:
            lines = read_json_lines(self.path / "meta" / "episodes.jsonl")
            return {int(e["episode_index"]): e for e in lines if "episode_index" in e}
        episodes: dict[int, dict[str, Any]] = {}
        for file in sorted(self.path.glob("meta/episodes/**/*.parquet")):
            rows = ParquetRows(file)
            wanted = [n for n in rows.names if not n.startswith("stats/")]
            columns = {n: rows.values(n).to_pylist() for n in wanted}
            for i in range(len(rows)):
                entry = {n: c[i] for n, c in columns.items()}
                episodes[int(entry["episode_index"])] = entry
        return episodes

    def _places(self) -> dict[int, _Place]:
        files = sorted(self.path.glob("data/**/*.parquet"))
        if not self.v3:
            numbered = ((re.fullmatch(r"episode_(\d+)", f.stem), f) for f in files)
            return {int(m[1]): _Place(f) for m, f in numbered if m}
        places: dict[int, _Place] = {}
        for file in files:
            try:
                for episode, start, stop in _runs(file, file.stat().st_mtime_ns):
                    if episode in places:
                        self.notes.append(f"rows of episode {episode} lie in several pieces")
                        continue
                    places[episode] = _Place(file, start, stop)
            except ConversionError as error:
                self.notes.append(str(error))
        return places


@lru_cache(maxsize=256)
def _runs(file: Path, changed: int) -> tuple[tuple[int, int, int], ...]:
    """(episode, first row, row after the last) in a shard. changed: part of the cache's key."""
    rows = ParquetRows(file)
    values = rows.numbers("episode_index")
    if values is None or not len(values):
        return ()
    edges = np.flatnonzero(np.diff(values)) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(values)]
    return tuple((int(values[a]), a, b) for a, b in zip(starts, stops, strict=True))


class LeRobotEpisode(FeedRecording):
    """One episode."""

    def __init__(self, dataset: _Dataset, episode: int) -> None:
        super().__init__(dataset.path, "lerobot", _name(episode))
        self.dataset, self.episode = dataset, episode
        place = dataset.places[episode]
        self.rows: ParquetRows = self.owns(ParquetRows(place.file, place.start, place.stop))
        self.uses(place.file, dataset.path / "meta" / "info.json")
        n = len(self.rows)
        declared = dataset.episodes.get(episode, {}).get("length")
        if declared is not None and int(declared) != n:
            self.account.problem(f"the episode has {n} rows, the metadata says {declared}")
        self.frame_index = self._frame_index(n)
        self.rate_hz: float | None = None
        self.stamps, self.timing = self._stamps(n)
        self.know(
            robot=dataset.info.get("robot_type"),
            source_format=f"LeRobot {dataset.info.get('codebase_version')}",
        )
        self._columns()
        self._videos()
        self._labels()
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
            path, start, end = self.dataset.video(key, self.episode)
            facts = feature.get("info") or feature.get("video_info") or {}
            declared = facts.get("video.fps") or self.dataset.fps
            depth = {k: v for k, v in facts.items() if "depth" in k and v not in (None, False)}
            timing = dict(self.timing)
            attrs = {
                **timing.pop("attrs", {}),
                **{k.replace(".", "_"): v for k, v in depth.items()},
            }
            add_video(
                self, _camera(key), path, stamps, synthetic_rate_hz=rate, start_s=start, end_s=end,
                declared_rate_hz=float(declared) if declared else None, has_row=has_row,
                source_topic=key, source_type="video", attrs=attrs, **timing,
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
        else:
            texts = list(self.dataset.episodes.get(self.episode, {}).get("tasks") or [])
            spans.whole("task", texts, "instruction")
        if texts:
            self.know(task=texts[0], instruction=texts[0])
        for key in self.rows.names:
            if self._is_text(key):
                style = "subtask" if "sub" in key and "task" in key else "instruction"
                spans.texts(key, self.rows.values(key).to_pylist(), style)
            elif key.startswith("annotation."):
                values = self.rows.numbers(key)
                if values is not None and values.dtype.kind in "iu" and values.ndim == 1:
                    spans.texts(key, [tasks.get(int(i)) for i in values], "instruction")
        for key in _LANGUAGE:
            if key in self.rows.names:
                self._language(key, spans)
        self.layer("lerobot", captions=spans.captions, phases=spans.phases)

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
