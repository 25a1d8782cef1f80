"""LeRobot v1.6, v2.1 and v3.0 datasets as their documentation lays them out, with known defects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .media import picture, png, write_video

FPS = 20
CAMERA = "observation.images.front"
STATE = ["shoulder_pan", "elbow", "gripper"]


def features(video: bool = True, fps: float = FPS) -> dict[str, object]:
    picture_feature = {
        "dtype": "video" if video else "image", "shape": [48, 64, 3],
        "names": ["height", "width", "channel"],
        "info": {"video.fps": fps, "video.codec": "h264", "video.is_depth_map": False},
    }  # fmt: skip
    return {
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": STATE}},
        "action": {"dtype": "float32", "shape": [3], "names": [STATE]},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        CAMERA: picture_feature,
        **{n: {"dtype": "int64", "shape": [1], "names": None}
           for n in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }  # fmt: skip


def state(episode: int, n: int) -> np.ndarray:
    """(n, 3) f4: what the fixture's state column holds."""
    return (np.arange(n * 3).reshape(n, 3) + 1000 * episode).astype(np.float32)


def table(
    episode: int,
    n: int,
    *,
    index: int = 0,
    seconds: Sequence[float] | None = None,
    keep: Sequence[int] | None = None,
    images: bool = False,
    tasks: Sequence[int] | None = None,
    extra: dict[str, pa.Array] | None = None,
) -> pa.Table:
    rows = np.arange(n) if keep is None else np.asarray(keep)
    at = np.arange(n) / FPS if seconds is None else np.asarray(seconds)
    values = state(episode, n)[rows]
    columns: dict[str, pa.Array] = {
        "observation.state": pa.array(list(values), pa.list_(pa.float32(), 3)),
        "action": pa.array([list(v + 0.5) for v in values], pa.list_(pa.float32())),
        "next.done": pa.array([bool(r == n - 1) for r in rows]),
        "timestamp": pa.array(at[rows].astype(np.float32)),
        "frame_index": pa.array(rows.astype(np.int64)),
        "episode_index": pa.array(np.full(len(rows), episode, np.int64)),
        "index": pa.array(rows.astype(np.int64) + index),
        "task_index": pa.array(np.asarray(tasks if tasks is not None else [0] * n)[rows]),
    }
    if images:
        pictures = [{"bytes": png(picture(int(r))), "path": f"frame_{r:06d}.png"} for r in rows]
        columns[CAMERA] = pa.array(pictures)
    return pa.table(columns | (extra or {}))


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _lines(path: Path, values: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(v) + "\n" for v in values))


def write_v21(
    root: Path,
    lengths: Sequence[int] = (12, 9),
    *,
    fps: float = FPS,
    video_fps: float = FPS,
    videos: str = "videos",
    video_frames: Sequence[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    images: bool = False,
    frames: Sequence[np.ndarray] | None = None,
    **table_options: object,
) -> Path:
    """A v2.1 dataset. videos: name of the folder. video_frames: which frames are in the video."""
    root.mkdir(parents=True, exist_ok=True)
    done = 0
    for episode, n in enumerate(lengths):
        data = root / f"data/chunk-000/episode_{episode:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(episode, n, index=done, images=images, **table_options), data)
        if not images:
            shown = list(range(n)) if video_frames is None else list(video_frames)
            write_video(
                root / videos / f"chunk-000/{CAMERA}/episode_{episode:06d}.mp4",
                [picture(i) for i in shown] if frames is None else frames[: len(shown)],
                video_fps, codec, options=options, seconds=[i / video_fps for i in shown],
            )  # fmt: skip
        done += n
    _json(root / "meta/info.json", {
        "codebase_version": "v2.1", "robot_type": "so100", "total_episodes": len(lengths),
        "total_frames": done, "fps": fps, "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features(not images, fps),
    })  # fmt: skip
    tasks = ["pick the cube", "place the cube"]
    _lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(tasks)])
    _lines(root / "meta/episodes.jsonl", [
        {"episode_index": i, "tasks": tasks[:1], "length": n} for i, n in enumerate(lengths)
    ])  # fmt: skip
    return root


def write_v30(
    root: Path,
    lengths: Sequence[int] = (12, 9),
    *,
    gop: int | None = None,
    language: bool = False,
) -> Path:
    """A v3.0 dataset: all episodes in one Parquet file and one video. gop: keyframe distance;
    by default every episode starts on a keyframe."""
    tables, frames, episodes, done = [], [], [], 0
    for episode, n in enumerate(lengths):
        extra: dict[str, pa.Array] = {}
        if language:
            persistent = [
                {"role": "user", "content": "reach", "style": "subtask", "timestamp": 0.0},
                {"role": "user", "content": "lift", "style": "subtask", "timestamp": 0.2},
            ]
            events = [[{"role": "user", "content": "faster!", "style": "interjection"}]
                      if i == 3 else [] for i in range(n)]  # fmt: skip
            extra = {"language_persistent": pa.array([persistent] * n),
                     "language_events": pa.array(events)}  # fmt: skip
        tables.append(table(episode, n, index=done, extra=extra))
        frames += [picture(100 * episode + i) for i in range(n)]
        episodes.append({
            "episode_index": episode, "tasks": ["pick the cube"], "length": n,
            "data/chunk_index": 0, "data/file_index": 0,
            "dataset_from_index": done, "dataset_to_index": done + n,
            f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": 0,
            f"videos/{CAMERA}/from_timestamp": done / FPS,
            f"videos/{CAMERA}/to_timestamp": (done + n) / FPS,
            "stats/action/min": [0.0], "meta/episodes/chunk_index": 0,
        })  # fmt: skip
        done += n
    data = root / "data/chunk-000/file-000.parquet"
    data.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(data, tables[0].schema, compression="snappy") as writer:
        for one in tables:
            writer.write_table(one)
    options = {"g": str(gop), "sc_threshold": "0"} if gop else {
        "g": "1000", "sc_threshold": "0",
        "force_key_frames": ",".join(str(e["dataset_from_index"] / FPS) for e in episodes),
    }  # fmt: skip
    if not gop:
        options = {"g": str(lengths[0]), "keyint_min": "1", "sc_threshold": "0"}
    write_video(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", frames, FPS, options=options)
    meta = root / "meta/episodes/chunk-000/file-000.parquet"
    meta.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(episodes), meta)
    tasks = {"task_index": pa.array([0]), "__index_level_0__": pa.array(["pick the cube"])}
    pq.write_table(pa.table(tasks), root / "meta/tasks.parquet")
    _json(root / "meta/info.json", {
        "codebase_version": "v3.0", "robot_type": "so101", "fps": FPS,
        "total_episodes": len(lengths), "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features(),
    })  # fmt: skip
    return root


def write_v16(root: Path, lengths: Sequence[int] = (12, 9), shards: int = 2) -> Path:
    """A v1.6 dataset: rows of all episodes in shards that cut through them, a video per episode
    beside each other, videos as structs of a path and a time."""
    tables, done = [], 0
    for episode, n in enumerate(lengths):
        name = f"videos/{CAMERA}_episode_{episode:06d}.mp4"
        write_video(root / name, [picture(100 * episode + i) for i in range(n)], FPS)
        one = table(episode, n, index=done).drop_columns(["task_index"])
        frames = [{"path": name, "timestamp": np.float32(i / FPS)} for i in range(n)]
        one = one.append_column(CAMERA, pa.array(frames))
        words = pa.array(["pick up the cube"] * n)
        tables.append(one.append_column("language_instruction", words))
        done += n
    whole = pa.concat_tables(tables)
    size = -(-done // shards)
    (root / "data").mkdir(parents=True, exist_ok=True)
    for i in range(shards):
        path = root / f"data/train-{i:05d}-of-{shards:05d}.parquet"
        pq.write_table(whole.slice(i * size, size), path)
    _json(root / "meta_data/info.json", {"codebase_version": "v1.6", "fps": FPS, "video": True})
    (root / "meta_data/stats.safetensors").write_bytes(bytes(64))
    return root
