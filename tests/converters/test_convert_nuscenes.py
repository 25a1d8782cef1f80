"""nuScenes: scenes, stamps, point clouds, calibration, tracks with their sizes reordered."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from layouts import nuscenes as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.testing import ConverterContract, write_episode
from mmdata_converters.nuscenes import NuScenesConverter, tables
from mmdata_schema import read_layer


class TestNuScenesExpanded(ConverterContract):
    converter = NuScenesConverter
    parts = 2
    synthetic = False
    counts: ClassVar = {
        "camera_front": 8, "lidar_top": 8, "radar_front": 8, "ego_pose": 24, "lidar_lidarseg": 4,
        "lidar_panoptic": 4, "can_pose": 20, "can_steeranglefeedback": 20,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_expansions(layout.write_nuscenes(folder / "nuscenes"))


class TestNuScenes(ConverterContract):
    converter = NuScenesConverter
    parts = 2
    synthetic = False
    counts: ClassVar = {"camera_front": 8, "lidar_top": 8, "radar_front": 8, "ego_pose": 24}

    def make(self, folder: Path) -> Path:
        return layout.write_nuscenes(folder / "nuscenes")


def convert(root: Path, part: str = ""):
    with NuScenesConverter.open(root, part) as recording:
        episode = open_episode(write_episode(recording, root.parent / "e.h5"))
    return episode, recording


def test_second_scene(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_nuscenes(tmp_path / "n"), "scene-0061")
    start = (layout.START_US + 10**8) * 1000
    camera = episode.streams["camera_front"]
    assert camera.stamp_ns[:2].tolist() == [start, start + 250_000_000]
    assert [number_of(i) for i in camera] == list(range(8))
    lidar = episode.streams["lidar_top"]
    assert lidar.info.stamp_meaning == "sweep_end"
    np.testing.assert_array_equal(lidar[2]["ring"], layout.lidar(1)[:, 4])
    assert episode.streams["radar_front"][0]["id"].tolist() == [0, 10, 20]
    assert episode.metadata["site"] == "boston-seaport"
    assert recording.account.problem_lines() == []


def test_tracks_by_hand(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_nuscenes(tmp_path / "n"), "scene-0060")
    (track,) = read_layer(recording.layers["nuscenes"]).tracks_3d
    assert track.size_lwh_m[0] == (4.7, 1.9, 1.6)  # given as width, length, height
    assert track.quaternion_wxyz[0] == tuple(layout.TURNED)
    assert track.center_m == [(10, 5, 1), (11, 5, 1), (13, 5, 1)]
    assert track.gap_after == [False, True, False]
    assert track.visibility[0] == (0.8, 1.0)
    assert track.label == "vehicle.car"
    assert track.keyframe_attributes["attributes"][0] == ["vehicle.moving"]
    # Mounted a quarter turn to the left: the sensor's x is the vehicle's y.
    point = episode.rig.transform("ego", "LIDAR_TOP").apply([1.0, 0.0, 0.0])
    np.testing.assert_allclose(point, [1.5, 1.0, 1.8], atol=1e-12)


def test_expansions(tmp_path: Path) -> None:
    root = layout.write_expansions(layout.write_nuscenes(tmp_path / "n"))
    sorted((root / "lidarseg/v1.0-mini").iterdir())[0].unlink()
    file = sorted((root / "panoptic/v1.0-mini").iterdir())[0]
    np.savez_compressed(file, data=np.zeros(2, np.uint16))  # fewer than there are points
    episode, recording = convert(root)
    classes = episode.streams["lidar_lidarseg"]
    assert len(classes) == 3
    # The first key frame lost its classes; the second has five points.
    assert classes[0]["semantic_class"].tolist() == [1, 1, 1, 1, 1]
    np.testing.assert_array_equal(classes[0]["ring"], layout.lidar(1)[:, 4])
    assert classes.stamp_ns[0] == (layout.START_US + 500_000 + 10_000) * 1000
    assert classes.info.attrs["classes"] == ["17: vehicle.car"]
    assert episode.streams["lidar_panoptic"][1]["panoptic"][0] == 17_003
    steering = episode.streams["can_steeranglefeedback"]
    assert steering.stamp_ns[1] - steering.stamp_ns[0] == 10_000_000
    assert episode.streams["can_pose"]["orientation"].shape == (20, 4)
    assert "model" not in episode.streams["can_pose"].fields
    assert (
        "lidarseg: 1 of 4 files are missing, or their sweeps" in recording.account.problem_lines()
    )
    dropped = {d.topic: (d.count, d.reason) for d in recording.account.dropped_list()}
    assert dropped["panoptic"][0] == 1
    assert "do not fit" in dropped["panoptic"][1]
    assert dropped["can_bus/route"][0] == 1


def test_missing_files_are_counted(tmp_path: Path) -> None:
    root = layout.write_nuscenes(tmp_path / "n")
    sorted((root / "sweeps/LIDAR_TOP").iterdir())[0].unlink()
    for file in (root / "samples/RADAR_FRONT").iterdir():
        file.unlink()
    episode, recording = convert(root)
    assert len(episode.streams["lidar_top"]) == 7
    assert len(episode.streams["radar_front"]) == 4
    assert set(recording.account.problem_lines()) == {
        "LIDAR_TOP: 1 of 8 files are missing", "RADAR_FRONT: 4 of 8 files are missing",
    }  # fmt: skip


def test_tables_are_scanned_across_blocks(tmp_path: Path, monkeypatch) -> None:
    """Whatever the block size, rows are found at their places, brackets in texts included."""
    root = layout.write_nuscenes(tmp_path / "n")
    file = root / "v1.0-mini" / "scene.json"
    whole = file.read_bytes()
    for size in (1, 7, 64, 4096):
        monkeypatch.setattr(tables, "_BLOCK", size)
        rows = list(tables.scan(file))
        assert [r["name"] for r, _, _ in rows] == ["scene-0060", "scene-0061"]
        assert all(whole[a:b].startswith(b"{") and whole[a:b].endswith(b"}") for _, a, b in rows)
