"""Argoverse 2: stamps from names, per-point times, ego pose in order, tracks, calibration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
from layouts import argoverse2 as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters.argoverse2 import Argoverse2Converter
from mmdata_schema import read_layer


class TestArgoverse2(ConverterContract):
    converter = Argoverse2Converter
    synthetic = False
    counts: ClassVar = {
        "camera_ring_front_center": 10, "camera_stereo_front_left": 10, "lidar": 5, "ego_pose": 5,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_log(folder / "adcf7d18")


def test_by_hand(tmp_path: Path) -> None:
    with Argoverse2Converter.open(layout.write_log(tmp_path / "log")) as recording:
        episode = open_episode(write_episode(recording, tmp_path / "e.h5"))
        assert recording.account.problem_lines() == []
    camera = episode.streams["camera_ring_front_center"]
    assert camera.stamp_ns[3] == layout.START_NS + 3 * 50_000_001
    assert [number_of(i) for i in camera] == list(range(10))
    lidar = episode.streams["lidar"]
    assert lidar.info.stamp_meaning == "sweep_start"
    assert lidar[1]["point_offset_ns"].tolist() == [0, 1000, 2000, 3000, 4000]
    assert episode.streams["ego_pose"]["position"][:, 0].tolist() == [0, 1, 2, 3, 4]
    # The camera sits a quarter turn to the left: its x is the vehicle's y.
    point = episode.rig.transform("egovehicle", "ring_front_center").apply([1.0, 0, 0])
    np.testing.assert_allclose(point, [1.6, 1.0, 1.4], atol=1e-12)
    assert episode.rig["camera_stereo_front_left"].camera.K[0, 0] == 60
    tracks = {t.object_id: t for t in read_layer(recording.layers["argoverse2"]).tracks_3d}
    bus = tracks["t-1"]
    assert bus.stamp_ns == [layout.START_NS, layout.START_NS + 100_100_003]
    assert bus.center_m[0] == (10.0, 1.0, 0.5)
    assert bus.size_lwh_m[0] == (12.0, 2.5, 3.0)
    np.testing.assert_allclose(bus.quaternion_wxyz[0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    assert bus.keyframe_attributes["lidar_points"] == [60, 50]
    assert tracks["t-2"].label == "PEDESTRIAN"


def test_damaged_and_missing(tmp_path: Path) -> None:
    root = layout.write_log(tmp_path / "log")
    sweeps = sorted((root / "sensors/lidar").iterdir())
    sweeps[2].write_bytes(b"ARROW1 nonsense")
    (root / "city_SE3_egovehicle.feather").unlink()
    shutil.rmtree(root / "sensors/cameras/stereo_front_left")
    with Argoverse2Converter.open(root) as recording:
        episode = open_episode(write_episode(recording, tmp_path / "e.h5"))
    assert episode.streams["lidar"].stamp_ns.tolist() == [
        int(s.stem) for i, s in enumerate(sweeps) if i != 2
    ]
    assert "city_SE3_egovehicle.feather is missing" in recording.account.problem_lines()
    assert "sensors/cameras/stereo_front_left: calibrated, but no pictures" in (
        recording.account.problem_lines()
    )
    assert len(episode.streams["camera_ring_front_center"]) == 10
    (dropped,) = recording.account.dropped_list()
    assert (dropped.topic, dropped.count) == ("sensors/lidar", 1)


def test_missing_files_leave_gaps_that_are_told(tmp_path: Path) -> None:
    root = layout.write_log(tmp_path / "log")
    sorted((root / "sensors/lidar").iterdir())[2].unlink()
    for file in sorted((root / "sensors/cameras/ring_front_center").iterdir())[4:6]:
        file.unlink()
    (root / "annotations.feather").unlink()
    with Argoverse2Converter.open(root) as recording:
        streams = read_all(recording)
        problems = recording.account.problem_lines()
    assert sum(map(len, streams["lidar"])) == 4
    assert sum(map(len, streams["camera_ring_front_center"])) == 8
    gap = "1 gaps of more than one period; about {} files seem to be missing"
    assert f"sensors/lidar: {gap.format(1)}" in problems
    assert f"sensors/cameras/ring_front_center: {gap.format(2)}" in problems
    assert any("annotations.feather is missing" in p for p in problems)
