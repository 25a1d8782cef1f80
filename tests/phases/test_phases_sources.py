"""Which stream becomes which input, from names, fields and channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.episode import Episode
from mmdata.errors import ConfigError
from mmdata.geometry import Rig
from mmdata.phases.kinematics import chain, forward, read_urdf
from mmdata.phases.sources import plain, read_inputs, side_of
from mmdata.streams import FieldInfo, Kind, Stream, StreamInfo

N = 50
STAMPS = 1_700_000_000_000_000_000 + np.arange(N) * 20_000_000
T = np.linspace(0, 1, N)


def stream(
    name: str,
    fields: Mapping[str, Any],
    channels: Sequence[str] | None = None,
    kind: Kind = Kind.SIGNAL,
) -> Stream:
    named = tuple(channels) if channels else None
    arrays = {f: np.asarray(v, np.float64) for f, v in fields.items()}
    info = StreamInfo(name, kind, {f: FieldInfo.of(v, channels=named) for f, v in arrays.items()})
    return Stream(info, {"stamp_ns": STAMPS, **arrays})


def episode(*streams: Stream, **metadata: Any) -> Episode:
    return Episode(
        "e",
        None,
        int(STAMPS[0]),
        int(STAMPS[-1]),
        "complete",
        "header",
        {s.name: s for s in streams},
        {},
        Rig({}),
        metadata,
    )


def test_words_of_names() -> None:
    assert plain("kLeftShoulderPitch") == "k_left_shoulder_pitch"
    assert side_of("kLeftShoulderPitch") == "left"
    assert side_of("PSM1_jaw") == "right"
    assert side_of("right_arm/joint_2") == "right"
    assert side_of("copyright") == "arm"
    assert side_of("bright_lamp", "x") == "x"


def test_two_fingers_are_one_gripper() -> None:
    joints = np.column_stack([T, 2 * T, 0.04 * T, -0.04 * T])
    names = ("joint1", "joint2", "finger_left", "finger_right")
    (arm,) = read_inputs(episode(stream("joint_states", {"position": joints}, names))).effectors
    assert arm.name == "arm"
    assert arm.width is not None
    assert arm.width.values == pytest.approx(0.08 * T)
    assert arm.joints is not None
    assert arm.joints.values.shape == (N, 2)


def test_two_arms_of_one_state_vector() -> None:
    names = [f"{s}_{j}" for s in ("left", "right") for j in ("waist", "elbow", "gripper")]
    state = np.column_stack([k * T for k in range(1, 7)])
    inputs = read_inputs(episode(stream("observation_state", {"data": state}, names)))
    assert [e.name for e in inputs.effectors] == ["left", "right"]
    left, right = inputs.effectors
    assert left.width is not None
    assert right.width is not None
    assert left.width.values == pytest.approx(3 * T)
    assert right.width.values == pytest.approx(6 * T)
    assert left.joints is not None
    assert left.joints.values.shape == (N, 2)


def test_knuckle_angles_grow_as_the_gripper_closes() -> None:
    joints = np.column_stack([T, T])
    names = ("joint1", "robotiq_left_knuckle_joint")
    (arm,) = read_inputs(episode(stream("joint_states", {"position": joints}, names))).effectors
    assert arm.width is not None
    assert arm.width.values[-1] < arm.width.values[0]


def test_surgical_state_vector_with_named_axes() -> None:
    names = [
        f"{d}_{q}"
        for d in ("mtml", "mtmr", "psm1", "psm2")
        for q in ("x", "y", "z", "vel_x", "vel_y", "vel_z", "gripper_angle")
    ]
    state = np.column_stack([k + T for k in range(len(names))])
    inputs = read_inputs(episode(stream("kinematics", {"data": state}, names)))
    assert [e.name for e in inputs.effectors] == ["left", "right"]
    left, right = inputs.effectors
    assert right.position is not None
    assert right.position.values[0] == pytest.approx([14, 15, 16])  # psm1
    assert left.position is not None
    assert left.position.values[0] == pytest.approx([21, 22, 23])
    assert right.width is not None
    assert right.width.values[0] == 20


def test_leader_devices_are_not_effectors() -> None:
    place = np.column_stack([T, T, T])
    turn = np.tile([1.0, 0, 0, 0], (N, 1))
    pose = {"position": place, "orientation": turn}
    both = read_inputs(
        episode(stream("leader_left_pose", pose), stream("follower_left_pose", pose))
    )
    (arm,) = both.effectors
    assert arm.position is not None
    assert arm.position.source.startswith("follower")
    alone = read_inputs(episode(stream("leader_left_pose", pose)))
    assert len(alone.effectors) == 1
    assert any("leader" in n for n in alone.notes)


def test_commands_and_camera_poses_are_no_poses_of_the_hand() -> None:
    place = np.column_stack([T, T, T])
    turn = np.tile([1.0, 0, 0, 0], (N, 1))
    pose = {"position": place, "orientation": turn}
    found = read_inputs(
        episode(
            stream("command_eef_pose", pose),
            stream("camera_pose", pose),
            stream("gripper_command", {"data": T}),
        )
    )
    assert all(e.position is None for e in found.effectors)
    assert any("camera_pose" in n for n in found.notes)
    assert found.effectors[0].command is not None


def test_a_vehicle_turns_about_gravity() -> None:
    up = np.array([0.0, 9.81, 0.0])  # a phone lying on its side
    found = read_inputs(
        episode(
            stream(
                "imu",
                {
                    "angular_velocity": np.column_stack([0 * T, 0.3 + 0 * T, 0 * T]),
                    "linear_acceleration": np.tile(up, (N, 1)),
                },
            ),
            stream("wheel_speed", {"data": 10 * T}),
        )
    )
    assert found.effectors == ()
    assert found.base is not None
    assert found.base.yaw_rate is not None
    assert found.base.yaw_rate.values == pytest.approx(0.3)
    assert found.base.speed is not None


def test_unnamed_vectors_are_noted() -> None:
    state = np.column_stack([k * T for k in range(14)])
    found = read_inputs(episode(stream("qpos", {"data": state})))
    assert [e.name for e in found.effectors] == ["left", "right"]
    assert any("unnamed" in n for n in found.notes)


URDF = """<robot name="two"><link name="base"/><link name="a"/><link name="b"/><link name="tip"/>
<joint name="j1" type="revolute"><parent link="base"/><child link="a"/>
  <origin xyz="0 0 0.5"/><axis xyz="0 0 1"/></joint>
<joint name="j2" type="prismatic"><parent link="a"/><child link="b"/>
  <origin xyz="1 0 0" rpy="0 0 1.5707963267948966"/><axis xyz="1 0 0"/></joint>
<joint name="end" type="fixed"><parent link="b"/><child link="tip"/><origin xyz="0 0 0.1"/></joint>
</robot>"""


def test_forward_kinematics_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "two.urdf"
    file.write_text(URDF)
    path = chain(read_urdf(file), ["j1", "j2"])
    assert [j.name for j in path] == ["j1", "j2", "end"]
    angles = np.array([[0.0, 0.0], [np.pi / 2, 0.0], [0.0, 0.25]])
    assert forward(path, ["j1", "j2"], angles) == pytest.approx(
        np.array([[1, 0, 0.6], [0, 1, 0.6], [1, 0.25, 0.6]]), abs=1e-12
    )
    with pytest.raises(ConfigError, match="none of the joints"):
        chain(read_urdf(file), ["elbow"])
    with pytest.raises(ConfigError, match="no link 'hand'"):
        chain(read_urdf(file), ["j1"], "hand")
    (tmp_path / "bad.urdf").write_text("<robot")
    with pytest.raises(ConfigError, match="not a URDF"):
        read_urdf(tmp_path / "bad.urdf")


def test_a_urdf_gives_the_hand_a_place(tmp_path: Path) -> None:
    file = tmp_path / "two.urdf"
    file.write_text(URDF)
    joints = np.column_stack([T, 0 * T])
    ep = episode(stream("joint_states", {"position": joints}, ("j1", "j2")))
    (bare,) = read_inputs(ep).effectors
    assert bare.position is None
    (arm,) = read_inputs(ep, urdf=file).effectors
    assert arm.position is not None
    assert np.linalg.norm(arm.position.values[:, :2], axis=1) == pytest.approx(1.0)
    assert "URDF" in arm.position.source
