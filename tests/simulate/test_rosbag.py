"""The log on disk holds what the episode holds, read back by rosbags alone."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from mmdata import simulate


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    faults = {
        "wrench": simulate.StreamFaults(regressions=3, duplicate_fraction=0.01),
        "camera_front": simulate.StreamFaults(drop_fraction=0.05),
    }
    episode = simulate.pick_place(seed=2, duration_s=4.0, faults=faults)
    folder = simulate.write_mcap(tmp_path_factory.mktemp("log") / "run", episode)
    found = defaultdict(list)
    with AnyReader([folder]) as reader:
        for connection, stamp, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found[connection.topic].append((stamp, message))
    return episode, folder, found


def header_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_topics_counts_and_stamps(log):
    episode, folder, found = log
    assert (folder / "metadata.yaml").is_file()
    assert len(list(folder.glob("*.mcap"))) == 1
    for stream in episode.raw.values():
        messages = found[stream.topic]
        assert len(messages) == len(stream)
        # Recording order is kept where stamps are equal, as duplicates may be.
        assert [s for s, _ in messages] == stream.receive_ns.tolist()
        if stream.source_ns is not None and stream.message != "tf2_msgs/msg/TFMessage":
            assert [header_ns(m) for _, m in messages] == stream.source_ns.tolist()
    once = {"/tf_static", "/robot_description", "/audio_info"}
    once |= {"/camera/front/camera_info", "/camera/wrist/camera_info"}
    assert all(len(found[topic]) == 1 for topic in once)
    assert set(found) == once | {s.topic for s in episode.raw.values()}


def test_signals_come_back_exactly(log):
    episode, _, found = log
    i = 7
    joints = found["/joint_states"][i][1]
    fields = episode.raw["joint_states"].fields
    assert joints.name == ["joint1", "joint2", "joint3", "joint4", "joint5", "joint6",
                           "finger_left", "finger_right"]  # fmt: skip
    assert np.array_equal(joints.position, fields["position"][i])
    assert np.array_equal(joints.effort, fields["effort"][i])
    pose = found["/eef_pose"][i][1].pose
    assert [pose.orientation.w, pose.orientation.x, pose.orientation.y, pose.orientation.z] == (
        episode.raw["eef_pose"].fields["orientation"][i].tolist()
    )
    assert pose.position.z == episode.raw["eef_pose"].fields["position"][i, 2]
    wrench = found["/wrench"][i][1].wrench
    assert wrench.torque.y == episode.raw["wrench"].fields["torque"][i, 1]
    tactile = found["/tactile"][i][1]
    assert [d.size for d in tactile.layout.dim] == [2, 4, 4]
    assert [d.stride for d in tactile.layout.dim] == [32, 16, 4]
    assert np.array_equal(tactile.data.reshape(2, 4, 4), episode.raw["tactile"].fields["data"][i])
    assert found["/command/gripper"][i][1].data == episode.raw["command_gripper"].fields["data"][i]
    imu = found["/imu"][i][1]
    assert imu.angular_velocity.x == episode.raw["imu"].fields["angular_velocity"][i, 0]
    transform = found["/tf"][i][1].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("base", "hand")
    assert (
        transform.transform.translation.x == episode.raw["tf_base_hand"].fields["translation"][i, 0]
    )


def test_images_points_and_sound_come_back_exactly(log):
    episode, _, found = log
    i = 5
    for name in ("front", "wrist"):
        message = found[f"/camera/{name}/image/compressed"][i][1]
        assert message.format == "jpeg"
        assert message.data.tobytes() == episode.raw[f"camera_{name}"].fields["data"][i].tobytes()
    depth = found["/camera/front/depth"][i][1]
    assert (depth.encoding, depth.height, depth.width) == ("16UC1", 240, 320)
    assert np.array_equal(
        depth.data.view("<u2").reshape(240, 320),
        episode.raw["camera_front_depth"].fields["data"][i],
    )
    cloud = found["/lidar/points"][i][1]
    dtype = np.dtype(
        {"names": ["x", "y", "z", "intensity", "ring", "t"],
         "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<u4"],
         "offsets": [f.offset for f in cloud.fields], "itemsize": cloud.point_step}
    )  # fmt: skip
    points = cloud.data.view(dtype)
    assert [f.name for f in cloud.fields] == list(dtype.names)
    fields = episode.raw["lidar_points"].fields
    assert len(points) == cloud.width == len(fields["x"][i])
    for name in ("x", "y", "z", "intensity", "ring"):
        assert np.array_equal(points[name], fields[name][i])
    assert np.array_equal(points["t"], fields["point_offset_ns"][i])
    audio = found["/audio"][i][1].audio.data.view("<i2")
    assert np.array_equal(audio, episode.raw["audio"].fields["samples"][i][:, 0])
    info = found["/audio_info"][0][1]
    assert (info.sample_rate, info.sample_format, info.channels) == (16000, "S16LE", 1)


def test_calibration_comes_back_exactly(log):
    episode, _, found = log
    for name in ("front", "wrist"):
        info = found[f"/camera/{name}/camera_info"][0][1]
        camera = episode.rig[f"camera_{name}"].camera
        assert np.array_equal(info.k.reshape(3, 3), camera.K)
        assert info.distortion_model == "plumb_bob"
        assert np.array_equal(info.d[: len(camera.distortion)], camera.distortion)
        assert (info.width, info.height) == (camera.width, camera.height)
    mounts = {t.child_frame_id: t for t in found["/tf_static"][0][1].transforms}
    assert set(mounts) == {
        "tcp", "camera_front", "camera_wrist", "lidar", "wrist_ft", "imu", "mic",
    }  # fmt: skip
    wrist = mounts["camera_wrist"]
    assert wrist.header.frame_id == "hand"
    pose = episode.rig["camera_wrist"].parent_SE3_sensor
    r = wrist.transform.rotation
    assert [r.w, r.x, r.y, r.z] == pose.quaternion.tolist()


def test_nothing_is_overwritten(log):
    episode, folder, _ = log
    with pytest.raises(FileExistsError, match="choose another folder"):
        simulate.write_mcap(folder, episode)


def test_the_truth_is_json(log, tmp_path):
    episode, _, _ = log
    simulate.write_truth(tmp_path / "truth.json", episode)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth == episode.truth
    assert truth["exposure_ns"]["camera_front"] == episode.raw["camera_front"].true_ns.tolist()
    assert truth["faults"]["wrench"]["regressions"] == 3
    assert {"phases", "script_phases", "contact_intervals", "lifted_intervals", "events",
            "audio_click_ns", "object", "t0_ns"} <= set(truth)  # fmt: skip
