"""LeRobot v2.1 and v3.0: counts, time, frames that stay with their rows, labels, defects."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import lerobot as layout
from layouts.media import number_of, picture, write_depth_video

from mmdata import open_episode
from mmdata.errors import ConversionError
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters._video import DepthScale
from mmdata_converters.lerobot import LeRobotConverter
from mmdata_schema import read_layer

CAMERA = layout.CAMERA


class TestLeRobot21(ConverterContract):
    converter = LeRobotConverter
    counts: ClassVar = {"joint_states": 12, "action": 12, "next_done": 12, "camera_front": 12}
    parts = 2
    synthetic = True

    def make(self, folder: Path) -> Path:
        return layout.write_v21(folder / "set")


class TestLeRobot30(ConverterContract):
    converter = LeRobotConverter
    counts: ClassVar = {"joint_states": 12, "action": 12, "next_done": 12, "camera_front": 12}
    parts = 2
    synthetic = True

    def make(self, folder: Path) -> Path:
        return layout.write_v30(folder / "set", language=True)


class TestLeRobotImages(ConverterContract):
    converter = LeRobotConverter
    counts: ClassVar = {"joint_states": 12, "action": 12, "next_done": 12, "camera_front": 12}
    parts = 2

    def make(self, folder: Path) -> Path:
        return layout.write_v21(folder / "set", images=True)


class TestLeRobot16(ConverterContract):
    converter = LeRobotConverter
    counts: ClassVar = {"state": 12, "action": 12, "next_done": 12, "camera_front": 12}
    parts = 2
    synthetic = True

    def make(self, folder: Path) -> Path:
        return layout.write_v16(folder / "set")


def convert(root: Path, part: str = ""):
    with LeRobotConverter.open(root, part) as recording:
        path = write_episode(recording, root / "out.h5")
    return open_episode(path), recording


def shown(episode, stream: str = "camera_front") -> list[int]:
    return [number_of(image) for image in episode.streams[stream]]


def told(recording, text: str) -> bool:
    return any(text in line for line in recording.account.problem_lines())


def test_values_channels_and_time(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_v21(tmp_path), "episode_000001")
    joints = episode.streams["joint_states"]
    np.testing.assert_array_equal(joints["position"], layout.state(1, 9))
    assert joints.info.fields["position"].channels == tuple(layout.STATE)
    np.testing.assert_array_equal(episode.streams["action"]["data"], layout.state(1, 9) + 0.5)
    assert joints.info.stamp_source == joints.info.stamp_meaning == "synthetic"
    assert joints.stamp_ns.tolist() == [i * 50_000_000 for i in range(9)]
    assert shown(episode) == list(range(9))
    assert episode.metadata["instruction"] == "pick the cube"
    assert recording.account.problem_lines() == []


@pytest.mark.parametrize(
    ("codec", "options", "encoding"),
    [
        ("libx264", {"bf": "2", "g": "6"}, "h264"),
        ("libx265", {"x265-params": "log-level=none:bframes=3:keyint=8:min-keyint=8"}, "hevc"),
        ("libsvtav1", {"g": "2", "preset": "12"}, "av1"),
        ("mpeg4", {}, "mpeg4"),
        ("mpeg4", {"bf": "2"}, "mpeg4"),
    ],
)
def test_packets_are_carried_over(tmp_path: Path, codec: str, options: dict, encoding: str) -> None:
    root = layout.write_v21(tmp_path, (24,), codec=codec, options=options)
    episode, recording = convert(root)
    stream = episode.streams["camera_front"]
    assert stream.info.encoding == encoding
    assert shown(episode) == list(range(24))
    order = np.random.default_rng(1).permutation(24)
    with open_episode(episode.path) as again:
        at_random = again.streams["camera_front"]
        assert [number_of(at_random[int(i)]) for i in order] == order.tolist()
    video = next(root.glob("videos/**/*.mp4")).read_bytes()
    if codec in ("libsvtav1", "mpeg4"):  # packets lie in the file as they lie in the episode
        keys = np.asarray(stream.arrays["keyframe"])
        assert all(stream.encoded(int(i)) in video for i in np.flatnonzero(keys == 0))
    assert not told(recording, "encoded again")


def test_a_codec_that_cannot_be_kept(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (6,), codec="libx264")
    from layouts.media import write_video

    path = next(root.glob("videos/**/*.mp4"))
    write_video(path, [picture(i) for i in range(6)], 20, "ffv1", container="matroska")
    episode, recording = convert(root)
    assert episode.streams["camera_front"].info.encoding == "png"
    assert shown(episode) == list(range(6))
    assert told(recording, "encoded again as png")


def test_a_frame_lost_inside_leaves_its_row_empty(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (12,), video_frames=[0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11])
    episode, recording = convert(root)
    stream = episode.streams["camera_front"]
    for stamp, image in zip(stream.stamp_ns, stream, strict=True):
        assert number_of(image) == stamp // 50_000_000
    assert 150_000_000 not in stream.stamp_ns
    assert told(recording, "11 frames for 12 rows")


def test_rows_lost_inside_leave_frames_where_they_were(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (12,), keep=[0, 1, 2, 3, 7, 8, 9, 10, 11])
    episode, recording = convert(root)
    stream = episode.streams["camera_front"]
    assert [s // 50_000_000 for s in stream.stamp_ns] == shown(episode) == list(range(12))
    joints = episode.streams["joint_states"]
    assert (joints.stamp_ns // 50_000_000).tolist() == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert told(recording, "3 rows are missing")


def test_a_video_one_short_and_one_long(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_v21(tmp_path / "s", (12,), video_frames=range(11)))
    assert shown(episode) == list(range(11))
    assert told(recording, "11 frames for 12 rows")
    episode, recording = convert(layout.write_v21(tmp_path / "l", (12,), video_frames=range(14)))
    assert shown(episode)[:12] == list(range(12))
    assert told(recording, "2 frames have no row")


def test_measured_timestamps_beat_the_declared_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seconds = np.cumsum(1 / 18.6 + rng.uniform(-0.004, 0.004, 40))
    episode, recording = convert(layout.write_v21(tmp_path, (40,), seconds=seconds))
    joints, camera = episode.streams["joint_states"], episode.streams["camera_front"]
    assert joints.info.stamp_source == "header"
    assert joints.info.nominal_rate_hz == 20
    want = np.rint(seconds.astype(np.float32).astype(np.float64) * 1e9).astype(np.int64)
    np.testing.assert_array_equal(joints.source_ns, want)
    np.testing.assert_array_equal(camera.source_ns, want)
    assert shown(episode) == list(range(40))
    assert told(recording, "info.json declares 20 fps")


def test_a_wrong_declared_fps(tmp_path: Path) -> None:
    """info.json says 30, timestamps and video run at 20."""
    episode, recording = convert(layout.write_v21(tmp_path, (12,), fps=30))
    assert episode.streams["joint_states"].rate_hz == pytest.approx(20, rel=1e-3)
    assert shown(episode) == list(range(12))
    assert told(recording, "timestamps run at 20.000 Hz, info.json declares 30 fps")
    assert told(recording, "the video runs at 20.000 Hz, the dataset declares 30")


def test_folder_named_video(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_v21(tmp_path, (12,), videos="video"))
    assert shown(episode) == list(range(12))
    assert told(recording, "video found as video/chunk-000")


def test_missing_and_broken_videos(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (12, 9))
    first, second = sorted(root.glob("videos/**/*.mp4"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:300])
    episode, recording = convert(root, "episode_000000")
    assert "camera_front" not in episode.streams
    assert len(episode.streams["action"]) == 12
    assert told(recording, "is missing: 12 rows without frame")
    episode, recording = convert(root, "episode_000001")
    assert "camera_front" not in episode.streams
    assert [d.count for d in recording.account.dropped_list()] == [9]


@pytest.mark.parametrize(
    ("frames", "word"),
    [([np.zeros((48, 64, 3), np.uint8)] * 24, "black"), ([picture(5)] * 24, "frozen")],
)
def test_dead_videos_are_told(tmp_path: Path, frames: list, word: str) -> None:
    root = layout.write_v21(tmp_path, (24,), frames=frames, options={"g": "4"})
    episode, recording = convert(root)
    assert len(episode.streams["camera_front"]) == 24
    assert told(recording, word)


def test_extra_and_missing_columns(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (12,), extra={"observation.force": pa.array(np.arange(12.0))})
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace('"next.done"', '"next.reward"'))
    episode, recording = convert(root)
    np.testing.assert_array_equal(episode.streams["force"]["data"], np.arange(12.0))
    assert told(recording, "column observation.force is not declared")
    assert told(recording, "column next.reward is declared and missing")


def test_tasks_become_captions(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (12,), tasks=[0] * 5 + [1] * 7)
    _, recording = convert(root)
    captions = sorted(read_layer(recording.layers["lerobot"]).captions, key=lambda c: c.start_ns)
    assert [(c.text, c.style, c.start_ns, c.end_ns) for c in captions] == [
        ("pick the cube", "instruction", 0, 250_000_000),
        ("place the cube", "instruction", 250_000_000, 600_000_000),
    ]


def test_v3_second_episode_of_a_shared_video(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_v30(tmp_path, (12, 9)), "episode_000001")
    assert episode.streams["camera_front"].info.encoding == "h264"
    assert shown(episode) == [100 + i for i in range(9)]
    assert episode.streams["camera_front"].stamp_ns[0] == 0
    np.testing.assert_array_equal(episode.streams["joint_states"]["position"], layout.state(1, 9))
    assert recording.account.problem_lines() == []


def test_what_is_missing_around_the_rows_is_told(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (12,))
    (root / "meta/tasks.jsonl").unlink()
    episodes = root / "meta/episodes.jsonl"
    episodes.write_text("[]\nnull\n" + episodes.read_text())
    episode, recording = convert(root)
    assert shown(episode) == list(range(12))
    assert told(recording, "no text for task_index [0]: labels are lost")
    (root / "data/chunk-000/episode_000000.parquet").unlink()
    with pytest.raises(ConversionError, match="no episode in it"):
        LeRobotConverter.sources(root)


def test_v3_without_the_episodes_table(tmp_path: Path) -> None:
    """Rows are found by their episode_index; which part of a shared video is theirs is not told,
    so no frame is given to any of them."""
    root = layout.write_v30(tmp_path, (12, 9))
    shutil.rmtree(root / "meta/episodes")
    assert len(LeRobotConverter.sources(root)) == 2
    episode, recording = convert(root, "episode_000001")
    np.testing.assert_array_equal(episode.streams["joint_states"]["position"], layout.state(1, 9))
    assert "camera_front" not in episode.streams
    assert told(recording, "where the episode lies in the video is not told")
    assert [d.count for d in recording.account.dropped_list()] == [9]


def test_v3_episode_between_keyframes(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_v30(tmp_path, (12, 9), gop=50), "episode_000001")
    assert shown(episode) == [100 + i for i in range(9)]
    assert told(recording, "starts between keyframes")


def test_v3_language(tmp_path: Path) -> None:
    _, recording = convert(layout.write_v30(tmp_path, (12, 9), language=True))
    layer = read_layer(recording.layers["lerobot"])
    phases = sorted((p.start_ns, p.end_ns, p.tier, p.label) for p in layer.phases)
    assert phases == [
        (0, 200_000_000, "subtask", "reach"),
        (200_000_000, 600_000_000, "subtask", "lift"),
    ]
    (event,) = [c for c in layer.captions if c.style == "interjection"]
    assert (event.start_ns, event.end_ns, event.text) == (150_000_000, 200_000_000, "faster!")


def test_an_episode_of_one_row(tmp_path: Path) -> None:
    episode, _ = convert(layout.write_v21(tmp_path, (1,)))
    assert episode.streams["joint_states"].stamp_ns.tolist() == [0]
    assert shown(episode) == [0]


def test_depth_steps_by_hand() -> None:
    """12 bits over 0.01 .. 10 m, logarithmic with a shift of 3.5 m: 1.25 mm at 0.3 m, 2.1 mm at
    3 m, 3.8 mm at 8 m."""
    scale = DepthScale(0.01, 10.0, 3.5, True)
    depth = scale.distances(np.arange(4096)).astype(np.float64)
    assert depth[0] == pytest.approx(0.01, abs=1e-6)
    assert depth[-1] == pytest.approx(10.0, abs=1e-6)
    for at, step in ((0.3, 1.25e-3), (3.0, 2.14e-3), (8.0, 3.78e-3)):
        i = int(np.searchsorted(depth, at))
        assert depth[i + 1] - depth[i] == pytest.approx(step, rel=0.02)
    linear = DepthScale(1.0, 3.0, 0.0, False).distances(np.array([0, 4095]))
    assert linear.tolist() == [1.0, 3.0]


def test_depth_video_becomes_distances(tmp_path: Path) -> None:
    root = layout.write_v21(tmp_path, (6,))
    video = next(root.glob("videos/**/*.mp4"))
    frames = [np.full((48, 64), 600 * i, np.uint16) for i in range(6)]
    write_depth_video(video, frames)
    info = root / "meta/info.json"
    facts = (
        '"is_depth_map": true, "depth_unit": "m", "video.depth_min": 0.01, '
        '"video.depth_max": 10.0, "video.shift": 3.5, "video.use_log": true, "video.codec"'
    )
    info.write_text(info.read_text().replace('"video.codec"', facts))
    episode, _ = convert(root)
    depth = episode.streams["camera_front"]
    assert depth.kind == "depth"
    assert depth.info.fields["data"].unit == "m"
    want = 3.51 * (13.5 / 3.51) ** (600 * np.arange(6) / 4095) - 3.5
    np.testing.assert_allclose([d[5, 5] for d in depth], want, atol=1e-5)


def test_v16_episode_cut_by_two_shards(tmp_path: Path) -> None:
    root = layout.write_v16(tmp_path)
    assert list(LeRobotConverter.sources(root)) == ["episode_000000", "episode_000001"]
    episode, recording = convert(root, "episode_000000")
    np.testing.assert_array_equal(episode.streams["state"]["data"], layout.state(0, 12))
    assert shown(episode) == list(range(12))
    assert episode.metadata["instruction"] == "pick up the cube"
    assert episode.metadata["source_format"] == "LeRobot v1.6"
    assert recording.account.problem_lines() == []
    episode, _ = convert(root, "episode_000001")
    assert shown(episode) == [100 + i for i in range(9)]


def test_v3_subtask_numbers_become_phases(tmp_path: Path) -> None:
    index = pa.array([-1] * 2 + [1] * 4 + [0] * 6)
    root = layout.write_v30(tmp_path, (12,))
    file = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).append_column("subtask_index", index), file)
    names = {"subtask_index": pa.array([0, 1]), "__index_level_0__": pa.array(["lift", "reach"])}
    pq.write_table(pa.table(names), root / "meta/subtasks.parquet")
    _, recording = convert(root)
    phases = read_layer(recording.layers["lerobot"]).phases
    found = sorted((p.start_ns, p.end_ns, p.label) for p in phases)
    assert found == [(100_000_000, 300_000_000, "reach"), (300_000_000, 600_000_000, "lift")]


def test_v20_and_names_as_they_were(tmp_path: Path) -> None:
    """v2.0: one stats.json for all, motors named in a dictionary."""
    root = layout.write_v21(tmp_path, (12,))
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace('"v2.1"', '"v2.0"'))
    (root / "meta/stats.json").write_text("{}")
    episode, recording = convert(root)
    assert shown(episode) == list(range(12))
    assert episode.metadata["source_format"] == "LeRobot v2.0"
    assert recording.account.problem_lines() == []


def test_real_unitree(shared_data: Path) -> None:
    root = shared_data / "real" / "lerobot_v21_unitree_g1"
    assert list(LeRobotConverter.sources(root)) == ["episode_000001", "episode_000002"]
    for part, n in (("episode_000001", 393), ("episode_000002", 343)):
        with LeRobotConverter.open(root, part) as recording:
            streams = read_all(recording)
            counts: ClassVar = {k: sum(map(len, v)) for k, v in streams.items()}
            assert counts == {"joint_states": n, "action": n, "camera_cam_high": n}
            assert streams["camera_cam_high"][0].info.encoding == "av1"
            assert told(recording, "98 have no data file")
