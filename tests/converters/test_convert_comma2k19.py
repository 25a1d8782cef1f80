"""comma2k19: exact stamps, units, raw CAN, pose, video, and the real segment."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from layouts import comma as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters.comma2k19 import Comma2k19Converter


class TestComma2k19(ConverterContract):
    converter = Comma2k19Converter
    synthetic = False
    counts: ClassVar = {
        "imu": 50, "steering_angle": 40, "speed": 40, "radar": 8, "raw_can": 40,
        "navsatfix_ublox": 5, "odometry": 20, "camera_road": 20,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_segment(folder / "10")


@pytest.fixture
def episode(tmp_path: Path):
    root = layout.write_segment(tmp_path / "10")
    with Comma2k19Converter.open(root) as recording:
        return open_episode(write_episode(recording, tmp_path / "e.h5"))


def test_units_and_stamps(episode) -> None:
    assert episode.streams["imu"].stamp_ns[0] == 46_408_500_000_000
    assert set(episode.streams["imu"].fields) == {"linear_acceleration", "angular_velocity"}
    np.testing.assert_allclose(episode.streams["steering_angle"]["data"], np.pi / 2)
    np.testing.assert_allclose(episode.streams["navsatfix_ublox"]["bearing"], np.pi)
    assert episode.streams["raw_can"]["data"][0].tolist() == [8, 255, 0, 0, 0, 0, 0, 0]
    assert episode.streams["radar"]["left"][0] == -2.0
    assert episode.streams["odometry"]["orientation"][0].tolist() == [0.5] * 4


def test_frames_take_the_stamps_of_their_rows(episode) -> None:
    camera = episode.streams["camera_road"]
    assert [number_of(i) for i in camera] == list(range(20))
    np.testing.assert_array_equal(camera.stamp_ns, episode.streams["odometry"].stamp_ns)


def test_missing_pieces(tmp_path: Path) -> None:
    root = layout.write_segment(tmp_path / "10", video=False)
    (root / "processed_log/CAN/speed/t").unlink()
    (root / "processed_log/CAN/radar/value").write_bytes(b"no array")
    with Comma2k19Converter.open(root) as recording:
        streams = read_all(recording)
        assert {"speed", "radar"} & set(streams) == set()
        assert len(streams["steering_angle"][0]) == 40
        assert "no video in the segment" in recording.account.problem_lines()
        dropped = {d.topic: d.count for d in recording.account.dropped_list()}
    assert dropped == {"CAN/speed": 40, "CAN/radar/value": 1, "CAN/radar": 8}


def test_real_segment(shared_data: Path) -> None:
    with Comma2k19Converter.open(shared_data / "real" / "comma2k19") as recording:
        streams = read_all(recording)
    assert {k: sum(map(len, v)) for k, v in streams.items()} == {
        "imu": 6256, "gyro_bias": 6256, "gyro_uncalibrated": 6256, "magnetometer": 592,
        "magnetometer_uncalibrated": 592, "raw_can": 135468, "radar": 10100, "speed": 4974,
        "steering_angle": 4974, "wheel_speed": 4974, "navsatfix_qcom": 30,
        "navsatfix_ublox": 579, "raw_gnss_qcom": 600, "raw_gnss_ublox": 9228, "odometry": 1200,
    }  # fmt: skip
    assert streams["odometry"][0].source_ns[0] == pytest.approx(46408547498000, abs=500)
