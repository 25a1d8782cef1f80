"""meta/ of a LeRobot dataset, and where its episodes, videos and pictures lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import ConversionError
from mmdata_converters._common import (
    read_bytes,
    read_json,
    read_json_lines,
)
from mmdata_converters._parquet import ParquetPieces, ParquetRows


def episode_name(episode: int) -> str:
    return f"episode_{episode:06d}"


def info_file(path: Path) -> Path | None:
    """info.json of a dataset: v1 has it in meta_data/."""
    return next(
        (f for f in (path / "meta" / "info.json", path / "meta_data" / "info.json") if f.is_file()),
        None,
    )


def version_of(path: Path) -> int | None:
    """Major version of a dataset, None where it is none of LeRobot's."""
    file = info_file(path)
    if file is None:
        return None
    info = read_json(file)
    if not isinstance(info, dict):
        return None
    match = re.match(r"v?([1-3])\.", str(info.get("codebase_version", "")))
    if match:
        return int(match[1])
    return 1 if file.parent.name == "meta_data" and "fps" in info else None


@dataclass(frozen=True)
class Place:
    """Where a run of an episode's rows lies."""

    file: Path
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Clip:
    """A camera's frames of an episode: file, the part of it that is theirs in seconds (None: all),
    what was odd about finding it; file None where it cannot be told.
    """

    file: Path | None
    start_s: float | None = None
    end_s: float | None = None
    note: str | None = None


def open_dataset(path: Path) -> Dataset:
    """A dataset, read once for all of its episodes as long as nothing in it changes."""
    spots = [f for f in (path / "meta", path / "meta_data", path / "data") if f.is_dir()]
    below = [f for spot in spots for f in sorted(spot.iterdir())]
    return _opened(path, tuple((str(f), f.stat().st_mtime_ns) for f in (*spots, *below)))


@lru_cache(maxsize=4)
def _opened(path: Path, changes: tuple[tuple[str, int], ...]) -> Dataset:
    return Dataset(path)


class Dataset:
    """meta/ of a dataset, and where its episodes are. Not changed once it is open."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        info = info_file(self.path)
        if info is None:
            raise ConversionError(
                f"{self.path / 'meta/info.json'} is missing: not a LeRobot dataset"
            )
        self.info_file = info
        self.info: dict[str, Any] = read_json(info)
        self.version = version_of(self.path) or 2
        fps = self.info.get("fps")
        self.fps = float(fps) if isinstance(fps, int | float) and fps > 0 else None
        self.notes: list[str] = []
        self.episodes = self._episodes()
        self.places = self._places()
        self.found = sorted(self.places)
        self.features: dict[str, Any] = self.info.get("features") or {}
        if self.version == 1 and self.found:
            self.features = self._columns(self.places[self.found[0]][0].file)
        listed = len(self.episodes) or int(self.info.get("total_episodes") or 0)
        if listed > len(self.found):
            self.notes.append(
                f"the dataset lists {listed} episodes; {listed - len(self.found)} have no data file"
            )
        modality = self.path / "meta" / "modality.json"
        self.modality: dict[str, Any] = read_json(modality) if modality.is_file() else {}

    def rows(self, episode: int) -> ParquetRows:
        """The rows of an episode."""
        pieces = [ParquetRows(p.file, p.start, p.stop) for p in self.places[episode]]
        return pieces[0] if len(pieces) == 1 else ParquetPieces(pieces)

    def tasks(self) -> dict[int, str]:
        """Task index -> text."""
        table = self.path / "meta" / "tasks.parquet"
        if table.is_file():
            return _texts(table, "task_index")
        lines = read_json_lines(self.path / "meta" / "tasks.jsonl")
        return {
            t["task_index"]: str(t["task"]) for t in lines
            if isinstance(t, dict) and isinstance(t.get("task_index"), int) and "task" in t
        }  # fmt: skip

    def subtasks(self) -> dict[int, str]:
        """Sub-task index -> text."""
        table = self.path / "meta" / "subtasks.parquet"
        return _texts(table, "subtask_index") if table.is_file() else {}

    def video(self, key: str, episode: int) -> Clip:
        """A camera's frames of an episode. Raises ConversionError for a template that is none."""
        facts = self.episodes.get(episode, {})
        chunk = episode // int(self.info.get("chunks_size") or 1000)
        numbers = {
            "episode_chunk": chunk, "episode_index": episode, "video_key": key,
            "chunk_index": int(facts.get(f"videos/{key}/chunk_index", 0) or 0),
            "file_index": int(facts.get(f"videos/{key}/file_index", 0) or 0),
        }  # fmt: skip
        template = (
            self.info.get("video_path")
            or (
                "videos/{video_key}_episode_{episode_index:06d}.mp4",
                "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
                "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            )[self.version - 1]
        )
        start, end = (facts.get(f"videos/{key}/{n}_timestamp") for n in ("from", "to"))
        try:
            named = str(template).format(**numbers)
        except (KeyError, IndexError, ValueError) as error:
            raise ConversionError(f"video_path {template!r} in info.json: {error}") from error
        file, note = self._file(named, key, episode)
        if "episode_index" not in str(template) and (start is None or not start >= 0):
            return Clip(None, note="where the episode lies in the video is not told")
        return Clip(file, start, end, note)

    def images(self, key: str, episode: int, name: str | None, frame: int) -> bytes | None:
        """One loose picture."""
        folders = [self.path / "images" / key / f"episode{s}{episode:06d}" for s in "_-"]
        names = [f"frame{s}{frame:06d}.{end}" for s in "_-" for end in ("png", "jpg")]
        for candidate in (
            self.path / name if name else None,
            *(folder / n for folder in folders for n in names),
        ):
            data = read_bytes(candidate) if candidate else None
            if data:
                return data
        return None

    # -- internals -----------------------------------------------------------------------------

    def _file(self, named: str, key: str, episode: int) -> tuple[Path, str | None]:
        """The file where the metadata says it is, else where writers are known to put it; a note
        in that case.
        """
        path = self.path / named
        if path.exists():
            return path, None
        other = "video" if named.startswith("videos/") else "videos"
        candidates = [self.path / other / named.partition("/")[2]]
        if self.version < 3:
            stem = f"episode_{episode:06d}.*"
            for top in ("videos", "video"):
                candidates += sorted(self.path.glob(f"{top}/**/{key}/{stem}"))
                candidates += sorted(self.path.glob(f"{top}/{key}/**/{stem}"))
        for candidate in candidates:
            if candidate.exists():
                where = candidate.relative_to(self.path)
                return candidate, f"video found as {where}, not as info.json says ({named})"
        return path, None

    def _episodes(self) -> dict[int, dict[str, Any]]:
        if self.version < 3:
            lines = read_json_lines(self.path / "meta" / "episodes.jsonl")
            return {
                e["episode_index"]: e for e in lines
                if isinstance(e, dict) and isinstance(e.get("episode_index"), int)
            }  # fmt: skip
        episodes: dict[int, dict[str, Any]] = {}
        for file in sorted(self.path.glob("meta/episodes/**/*.parquet")):
            rows = ParquetRows(file)
            wanted = [n for n in rows.names if not n.startswith("stats/")]
            columns = {n: rows.values(n).to_pylist() for n in wanted}
            for i in range(len(rows)):
                entry = {n: c[i] for n, c in columns.items()}
                episodes[int(entry["episode_index"])] = entry
        return episodes

    def _places(self) -> dict[int, list[Place]]:
        files = sorted(self.path.glob("data/**/*.parquet"))
        numbered = [(re.fullmatch(r"episode_(\d+)", f.stem), f) for f in files]
        if self.version == 2:
            return {int(m[1]): [Place(f)] for m, f in numbered if m}
        places: dict[int, list[Place]] = {}
        for file in files:
            try:
                for episode, start, stop in _runs(file, file.stat().st_mtime_ns):
                    places.setdefault(episode, []).append(Place(file, start, stop))
            except ConversionError as error:
                self.notes.append(str(error))
        return places

    def _columns(self, file: Path) -> dict[str, Any]:
        """What v1 tells by its columns alone: videos are structs of a path and a time."""
        import pyarrow as pa

        rows = ParquetRows(file)
        features = {}
        for name in rows.names:
            kind = rows.type_of(name)
            parts = {f.name for f in kind} if pa.types.is_struct(kind) else set()
            if parts >= {"path", "timestamp"}:
                features[name] = {"dtype": "video"}
            elif "bytes" in parts:
                features[name] = {"dtype": "image"}
            else:
                features[name] = {"dtype": str(kind)}
        rows.close()
        return features


def _texts(table: Path, index: str) -> dict[int, str]:
    """Index -> text of a table of two columns."""
    rows = ParquetRows(table)
    texts = next((n for n in rows.names if n != index), None)
    if texts is None or index not in rows.names:
        return {}
    return dict(zip(rows.values(index).to_pylist(), rows.values(texts).to_pylist(), strict=True))


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
