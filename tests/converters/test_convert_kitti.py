"""KITTI: nanosecond stamps, missing sweeps, calibration and labels against numbers by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from layouts import kitti as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.geometry import box_corners
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters.kitti import KittiConverter
from mmdata_converters.kitti.common import parse_time
from mmdata_schema import read_layer


class TestKittiRaw(ConverterContract):
    converter = KittiConverter
    synthetic = False
    counts: ClassVar = dict.fromkeys(
        ("camera_00", "camera_02", "lidar", "oxts", "navsatfix", "imu"), 6
    )

    def make(self, folder: Path) -> Path:
        return layout.write_raw(folder)


class TestKittiObject(ConverterContract):
    converter = KittiConverter
    synthetic = True
    counts: ClassVar = {"camera_2": 3, "lidar": 3}

    def make(self, folder: Path) -> Path:
        return layout.write_object(folder / "training")


class TestKittiTracking(ConverterContract):
    converter = KittiConverter
    parts = 2
    synthetic = True
    counts: ClassVar = dict.fromkeys(("camera_02", "lidar", "oxts", "navsatfix", "imu"), 4)

    def make(self, folder: Path) -> Path:
        return layout.write_tracking(folder / "training")


def convert(path: Path, out: Path, part: str = ""):
    with KittiConverter.open(path, part) as recording:
        episode = open_episode(write_episode(recording, out / "e.h5"))
    return episode, recording


def test_times_keep_their_nanoseconds() -> None:
    assert parse_time("2011-09-26 13:02:25.964389445") == layout.FIRST_NS
    assert parse_time("1970-01-01 00:00:01.5") == 1_500_000_000
    assert layout.text_of(layout.FIRST_NS) == "2011-09-26 13:02:25.964389445"


def test_a_missing_sweep_shifts_nothing(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_raw(tmp_path, without_sweep=2), tmp_path)
    lidar = episode.streams["lidar"]
    assert lidar.stamp_ns.tolist() == [layout.stamp(i) for i in (0, 1, 3, 4, 5)]
    assert [len(s["x"]) for s in lidar] == [5, 6, 8, 9, 10]
    assert "velodyne_points: 1 of 6 stamps have no file" in recording.account.problem_lines()
    np.testing.assert_array_equal(lidar[2]["intensity"], layout.points(3)[:, 3])
    assert lidar[0]["sweep_start_offset_ns"] == -50_000_000
    assert lidar[0]["sweep_end_offset_ns"] == 53_000_000
    assert [number_of(i) for i in episode.streams["camera_02"]] == list(range(6))


def test_a_camera_that_was_not_downloaded(tmp_path: Path) -> None:
    drive = layout.write_raw(tmp_path)
    shutil.rmtree(drive / "image_02")
    episode, recording = convert(drive, tmp_path)
    assert "camera_02" not in episode.streams
    assert [number_of(i) for i in episode.streams["camera_00"]] == list(range(6))
    assert "image_02: calibrated, but no pictures" in recording.account.problem_lines()


def test_oxts(tmp_path: Path) -> None:
    episode, _ = convert(layout.write_raw(tmp_path), tmp_path)
    imu = episode.streams["imu"]
    # The six after the angles are velocities; then ax, ay, az.
    assert imu["linear_acceleration"][0].tolist() == [5, 6, 7]
    assert imu["angular_velocity"][0].tolist() == [11, 12, 13]
    np.testing.assert_allclose(imu["orientation"][0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    assert episode.streams["navsatfix"]["longitude"][0] == 8.4


def test_rig_by_hand(tmp_path: Path) -> None:
    episode, _ = convert(layout.write_raw(tmp_path), tmp_path)
    rig = episode.rig
    # A point 10 m before the scanner: camera 0 has it at z = 10 - 0.3, y = -0.1 (T of velo_to_cam).
    point = rig.transform("camera_00", "velodyne").apply([10.0, 0.0, 0.0])
    np.testing.assert_allclose(point, [0, -0.1, 9.7], atol=1e-12)
    # Camera 2: P[0, 3] / f = 35 / 700 = 0.05 m further.
    point = rig.transform("camera_02", "velodyne").apply([10.0, 0.0, 0.0])
    np.testing.assert_allclose(point, [0.05, -0.1, 9.7], atol=1e-12)
    np.testing.assert_allclose(rig.transform("velodyne", "imu").translation, [-0.8, 0.3, -0.8])
    assert rig["camera_02"].camera.K[0, 0] == 700


def test_tracklets_by_hand(tmp_path: Path) -> None:
    with KittiConverter.open(layout.write_raw(tmp_path)) as recording:
        read_all(recording)
        (track,) = read_layer(recording.layers["kitti"]).tracks_3d
    assert track.stamp_ns == [layout.stamp(1), layout.stamp(2)]
    assert track.center_m[0] == (10, 2, -0.75)  # the bottom is at -1.5, the box 1.5 high
    assert track.size_lwh_m[0] == (4.0, 1.6, 1.5)
    assert track.quaternion_wxyz[0] == pytest.approx((np.sqrt(0.5), 0, 0, np.sqrt(0.5)))
    assert track.keyframe_attributes["occlusion"] == [0, 1]


def test_object_labels_by_hand(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_object(tmp_path / "training"), tmp_path)
    layer = read_layer(recording.layers["kitti"])
    assert len(layer.boxes_2d) == 9
    assert len(layer.boxes_3d) == 6
    car = next(b for b in layer.boxes_3d if b.label == "Car" and b.stamp_ns == 0)
    assert car.center_m == pytest.approx((2.0, 1.7 - 0.75, 20.0))
    assert car.size_lwh_m == (4.0, 1.6, 1.5)
    corners = box_corners(car.center_m, car.size_lwh_m, car.quaternion_wxyz)
    # rotation_y = 0: the length lies along the camera's x, the height along -y.
    np.testing.assert_allclose(np.ptp(corners, axis=0), [4.0, 1.5, 1.6], atol=1e-9)
    walker = next(b for b in layer.boxes_3d if b.label == "Pedestrian" and b.stamp_ns == 0)
    from mmdata.geometry import quat_rotate

    heading = quat_rotate(walker.quaternion_wxyz, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(heading, [0, 0, -1], atol=1e-3)  # 1.57 turns x to -z about y down
    flat = next(b for b in layer.boxes_2d if b.label == "Car" and b.stamp_ns == 0)
    assert flat.xyxy_px == (100, 50, 200, 90)
    assert flat.truncated == 0.25
    assert flat.object_id == car.object_id
    assert episode.streams["camera_2"].stamp_ns.tolist() == [0, 10**9, 2 * 10**9]
    # The 3D box and the picture meet through the rig.
    point = episode.rig.transform("camera_2", "camera_0_rect").apply(car.center_m)
    np.testing.assert_allclose(point, [2.05, 0.95, 20.0])


def test_tracking_by_hand(tmp_path: Path) -> None:
    root = layout.write_tracking(tmp_path / "training", without_sweep=1)
    assert list(KittiConverter.sources(root)) == ["0000", "0001"]
    episode, recording = convert(root, tmp_path, "0001")
    assert episode.streams["lidar"].stamp_ns.tolist() == [0, 200_000_000, 300_000_000]
    assert [number_of(i) for i in episode.streams["camera_02"]] == list(range(4))
    assert "velodyne: 1 of 4 frames are missing" in recording.account.problem_lines()
    layer = read_layer(recording.layers["kitti"])
    (track,) = layer.tracks_3d
    assert track.stamp_ns == [0, 100_000_000, 200_000_000, 300_000_000]
    assert track.center_m[1] == pytest.approx((3.0, 1.7 - 0.75, 20.0))
    assert track.size_lwh_m[0] == (4.0, 1.6, 1.5)
    assert track.keyframe_attributes["occlusion"] == [1] * 4
    assert len(layer.boxes_2d) == 5
    point = episode.rig.transform("camera_02", "velodyne").apply([10.0, 0.0, 0.0])
    np.testing.assert_allclose(point, [0.05, -0.1, 9.7], atol=1e-12)
    np.testing.assert_allclose(
        episode.streams["imu"]["orientation"][0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    )
