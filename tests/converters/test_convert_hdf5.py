"""robomimic, Isaac Lab, ALOHA and RoboMIND: values, time, quaternions, pictures, labels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from layouts import hdf5 as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.testing import ConverterContract, write_episode
from mmdata_converters.aloha import AlohaConverter
from mmdata_converters.robomimic import RobomimicConverter
from mmdata_converters.robomind import RoboMindConverter
from mmdata_schema import read_layer


class TestRobomimic(ConverterContract):
    converter = RobomimicConverter
    parts = 3
    synthetic = True
    counts: ClassVar = dict.fromkeys(
        ("action", "states", "reward", "done", "joint_states", "eef_pose", "gripper", "object",
         "camera_agentview"), 8,
    )  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_robomimic(folder / "lift.hdf5")


class TestIsaacLab(ConverterContract):
    converter = RobomimicConverter
    parts = 3
    synthetic = True
    counts: ClassVar = dict.fromkeys(
        ("action", "joint_states", "eef_pose", "camera_table_cam", "camera_table_cam_depth",
         "states_rigid_object_cube_1_root_pose", "states_articulation_robot_joint_position"), 8,
    )  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_isaac(folder / "stack.hdf5")


class TestLibero(ConverterContract):
    converter = RobomimicConverter
    synthetic = True
    counts: ClassVar = dict.fromkeys(
        ("action", "robot_states", "states", "joint_states", "eef_pose", "gripper", "ee_states",
         "camera_agentview"), 6,
    )  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_libero(folder / "open_the_top_drawer_demo.hdf5")


class TestRobosuite(ConverterContract):
    converter = RobomimicConverter
    parts = 2
    synthetic = True
    counts: ClassVar = {"action": 5, "states": 5}

    def make(self, folder: Path) -> Path:
        return layout.write_robosuite(folder / "demo.hdf5")


class TestAloha(ConverterContract):
    converter = AlohaConverter
    synthetic = True
    counts: ClassVar = dict.fromkeys(
        ("joint_states", "action", "base_action", "camera_cam_high", "camera_cam_left_wrist"), 7
    )

    def make(self, folder: Path) -> Path:
        return layout.write_aloha(folder / "episode_0.hdf5")


class TestAlohaCompressed(TestAloha):
    def make(self, folder: Path) -> Path:
        return layout.write_aloha(folder / "episode_0.hdf5", compress=True)


class TestRoboMind(ConverterContract):
    converter = RoboMindConverter
    synthetic = True

    def make(self, folder: Path) -> Path:
        return layout.write_robomind(folder / "trajectory.hdf5")


class TestRoboMind2(ConverterContract):
    converter = RoboMindConverter
    synthetic = False

    def make(self, folder: Path) -> Path:
        return layout.write_robomind2(folder / "trajectory.hdf5", 6, "float")


class TestRoboMindSimulation(ConverterContract):
    converter = RoboMindConverter
    synthetic = True

    def make(self, folder: Path) -> Path:
        return layout.write_robomind_simulation(folder / "206291.hdf5")


def convert(converter, path: Path, part: str = ""):
    with converter.open(path, part) as recording:
        out = write_episode(recording, path.with_name("out.h5"))
    return open_episode(out), recording


def told(recording, text: str) -> bool:
    return any(text in line for line in recording.account.problem_lines())


def test_robomimic_order_of_demos_and_quaternion(tmp_path: Path) -> None:
    path = layout.write_robomimic(tmp_path / "lift.hdf5")
    assert list(RobomimicConverter.sources(path)) == ["demo_0", "demo_2", "demo_10"]
    episode, recording = convert(RobomimicConverter, path, "demo_2")
    assert episode.streams["joint_states"].stamp_ns.tolist() == [i * 50_000_000 for i in range(6)]
    # x, y, z, w on disk: a quarter turn about z is (sqrt 1/2, 0, 0, sqrt 1/2) in ours.
    np.testing.assert_allclose(
        episode.streams["eef_pose"]["orientation"][0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    )
    assert [number_of(i) for i in episode.streams["camera_agentview"]] == list(range(6))
    (tag,) = read_layer(recording.layers["robomimic"]).tags
    assert (tag.label, tag.value) == ("filter", "train")
    left_out = {d.topic: d.count for d in recording.account.dropped_list()}
    assert left_out["next_obs/object"] == 6


def test_robomimic_counts_that_disagree_and_no_rate(tmp_path: Path) -> None:
    path = layout.write_robomimic(tmp_path / "a.hdf5", {"env_name": "X"}, num_samples_off_by=1)
    episode, recording = convert(RobomimicConverter, path)
    assert told(recording, "num_samples is 9, there are 8 actions")
    assert told(recording, "states no rate")
    assert episode.streams["action"].info.nominal_rate_hz is None
    assert told(recording, "order of the quaternion unknown")
    assert "orientation" not in episode.streams["eef_pose"].info.fields


def test_libero(tmp_path: Path) -> None:
    episode, recording = convert(RobomimicConverter, layout.write_libero(tmp_path / "l.hdf5"))
    np.testing.assert_allclose(  # a quarter turn about z, written as a rotation vector
        episode.streams["eef_pose"]["orientation"][0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    )
    camera = episode.streams["camera_agentview"]
    assert [number_of(i[::-1]) for i in camera] == list(range(6))
    assert "opengl" in camera.info.attrs["image_convention"]
    assert told(recording, "bottom row first")
    assert episode.metadata["instruction"] == "open the top drawer"
    (caption,) = read_layer(recording.layers["robomimic"]).captions
    assert caption.text == "open the top drawer"
    assert episode.streams["action"].rate_hz == 20.0


def test_robosuite_collection(tmp_path: Path) -> None:
    episode, recording = convert(RobomimicConverter, layout.write_robosuite(tmp_path / "d.hdf5"))
    assert episode.streams["action"].info.nominal_rate_hz == 25.0
    assert episode.metadata["task"] == "Lift"
    assert recording.account.problem_lines() == []


def test_isaac_quaternion_rate_and_success(tmp_path: Path) -> None:
    path = layout.write_isaac(tmp_path / "stack.hdf5")
    episode, _ = convert(RobomimicConverter, path, "demo_2")
    np.testing.assert_array_equal(
        episode.streams["eef_pose"]["orientation"][0], [0.5, 0.5, 0.5, -0.5]
    )
    cube = episode.streams["states_rigid_object_cube_1_root_pose"]
    np.testing.assert_array_equal(cube["position"][0], [1, 2, 3])
    np.testing.assert_array_equal(cube["orientation"][0], [1, 0, 0, 0])
    assert episode.streams["action"].rate_hz == 20.0  # dt 0.01 s, decimation 5
    assert episode.metadata["outcome"] == "failure"
    depth = episode.streams["camera_table_cam_depth"]
    assert depth.kind == "depth"
    assert depth[0].shape == (24, 32)
    assert depth[0][0, 0] == np.float32(1.25)


@pytest.mark.parametrize("compress", [False, True])
def test_aloha(tmp_path: Path, compress: bool) -> None:
    path = layout.write_aloha(tmp_path / "episode_3.hdf5", compress)
    episode, recording = convert(AlohaConverter, path)
    joints = episode.streams["joint_states"]
    assert joints.fields == ("effort", "position", "velocity") or set(joints.fields) == {
        "effort", "position", "velocity",
    }  # fmt: skip
    assert joints.info.fields["position"].channels[6] == "left_gripper"
    assert joints.info.fields["position"].channels[7] == "right_waist"
    assert joints.stamp_ns.tolist() == [i * 20_000_000 for i in range(7)]
    camera = episode.streams["camera_cam_high"]
    assert camera.info.encoding == ("jpeg" if compress else "raw")
    assert [number_of(i) for i in camera] == list(range(7))
    if compress:
        with h5py.File(path) as file:
            length = int(file["compress_len"][0, 0])
        assert len(camera.encoded(0)) == length  # without the padding
    assert told(recording, "the file holds no time")


def test_aloha_mobile(tmp_path: Path) -> None:
    path = layout.write_aloha_mobile(tmp_path / "episode_0.hdf5")
    assert AlohaConverter.sniff(path)
    episode, recording = convert(AlohaConverter, path)
    assert [number_of(i) for i in episode.streams["camera_cam_high"]] == list(range(5))
    assert [d[0, 0] for d in episode.streams["camera_cam_high_depth"]] == [
        800 + i for i in range(5)
    ]
    assert episode.streams["base_action"]["data"].shape == (5, 2)
    assert episode.metadata["instruction"] == "fold the towel"
    assert recording.account.dropped_list() == []


def test_aloha_with_a_camera_one_short(tmp_path: Path) -> None:
    path = layout.write_aloha(tmp_path / "e.hdf5")
    with h5py.File(path, "r+") as file:
        frames = file["observations/images/cam_high"][:-1]
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = frames
    episode, recording = convert(AlohaConverter, path)
    assert [number_of(i) for i in episode.streams["camera_cam_high"]] == list(range(6))
    assert told(recording, "cam_high: 6 rows, action has 7")


def test_robomind(tmp_path: Path) -> None:
    path = tmp_path / "task/success_episodes/train/0301_1/data/trajectory.hdf5"
    layout.write_robomind(path, broken=2, short_action=True)
    episode, recording = convert(RoboMindConverter, path)
    camera = episode.streams["camera_top"]
    assert [number_of(i) for i in camera] == [0, 1, 3, 4, 5]
    period = camera.stamp_ns[1]
    assert [round(s / period) for s in camera.stamp_ns] == [0, 1, 3, 4, 5]
    assert episode.streams["camera_top_depth"][4][0, 0] == 504
    (dropped,) = recording.account.dropped_list()
    assert (dropped.count, dropped.topic) == (1, "observations/rgb_images/camera_top")
    assert told(recording, "5 rows, the robot's state has 6")
    assert episode.metadata["outcome"] == "success"
    assert episode.metadata["instruction"] == "put the cup on the plate"
    assert recording.episode_id == "0301_1"


def test_robomind2_measured(tmp_path: Path) -> None:
    path = layout.write_robomind2(tmp_path / "trajectory.hdf5", 6, "float")
    episode, recording = convert(RoboMindConverter, path)
    joints, gripper = episode.streams["joint_states_left"], episode.streams["gripper_right"]
    want = [1_744_780_088_500_000_000 + i * 100_000_000 for i in range(6)]
    np.testing.assert_allclose(joints.source_ns - want[0], np.subtract(want, want[0]), atol=200)
    assert joints.info.stamp_source == "header"
    assert joints["position"][1].tolist() == [7, 8, 9, 10, 11, 12, 13]
    assert joints["intervened"].tolist() == [0, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(gripper["position"], np.arange(6) / 6)
    assert episode.streams["action_arm_left_position"]["data"][0, 0] == 1000
    camera = episode.streams["camera_front"]
    assert [number_of(i) for i in camera] == list(range(6))
    assert camera.info.attrs["declared_colour_order"] == "rgb"
    assert episode.streams["camera_front_depth"][5][0, 0] == 505
    assert episode.streams["force_observations_force_left_end_effector"]["data"].shape == (6, 6)
    assert episode.rig["camera_front"].camera.width == 64
    assert episode.metadata["instruction"] == "pick up the bottle"
    assert episode.metadata["simulated"] is False
    assert told(recording, "order of the quaternion unknown")
    assert told(recording, "puppet/head_position_align is empty")
    (dropped,) = recording.account.dropped_list()
    assert dropped.topic == "camera_extrinsics/camera_left_arm_left"


def test_robomind2_whole_seconds_do_not_tell_rows_apart(tmp_path: Path) -> None:
    path = layout.write_robomind2(tmp_path / "trajectory.hdf5", 30, "seconds")
    episode, recording = convert(RoboMindConverter, path)
    joints, camera = episode.streams["joint_states_left"], episode.streams["camera_front"]
    assert joints.info.stamp_source == "synthetic"
    assert joints.stamp_ns.tolist() == camera.stamp_ns.tolist()
    assert joints.stamp_ns[0] == 1_744_780_088 * 10**9
    assert (np.diff(joints.stamp_ns) > 0).all()
    assert joints.stamp_ns[-1] == 1_744_780_090 * 10**9  # as far as the clock tells
    assert told(recording, "stamps of whole seconds do not tell rows apart")
    # What the file says is kept as it is.
    written = episode.streams["camera_observations_timestamp"]["data"]
    assert written[:].tolist() == [1_744_780_088 + i // 10 for i in range(30)]


def test_robomind2_simulated(tmp_path: Path) -> None:
    path = layout.write_robomind2(tmp_path / "0101_1.hdf5", 12, "ms", simulated=True)
    episode, recording = convert(RoboMindConverter, path)
    joints = episode.streams["joint_states_left"]
    assert joints.source_ns.tolist()[:3] == [0, 33_000_000, 67_000_000]
    assert len(episode.streams["joint_states_left_raw"]) == 24
    assert episode.streams["gripper_left"]["position"].shape == (12,)
    assert episode.metadata["simulated"] is True
    path = layout.write_robomind2(tmp_path / "0101_2.hdf5", 12, "dead", simulated=True)
    episode, recording = convert(RoboMindConverter, path)
    assert episode.streams["joint_states_left"].info.stamp_source == "synthetic"
    assert told(recording, "the clock stands still")


def test_robomind_simulation_with_rows_that_do_not_match(tmp_path: Path) -> None:
    path = layout.write_robomind_simulation(tmp_path / "206291.hdf5")
    episode, recording = convert(RoboMindConverter, path)
    assert len(episode.streams["camera_handeye"]) == 10
    assert len(episode.streams["camera_handeye_depth"]) == 11
    assert len(episode.streams["joint_states"]) == 40
    assert told(recording, "rgb_images/camera_handeye: 10 rows, the robot's state has 40")
