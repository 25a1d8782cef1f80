"""The simulated cell agrees with itself: what one sensor shows, the others confirm."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from mmdata import simulate
from mmdata.errors import ConfigError
from mmdata.geometry import (
    SE3,
    CameraModel,
    box_corners,
    interpolate_poses,
    project_box,
    quat_angle,
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    quat_to_rotvec,
)
from mmdata.simulate import arm
from mmdata.simulate.lidar import RANGE_NOISE_M
from mmdata.simulate.script import FAILURES

G = 9.81


def seconds(episode: simulate.SimEpisode, stamps) -> np.ndarray:
    return (np.asarray(stamps) - episode.start_ns).astype(np.float64) * 1e-9


def event(episode: simulate.SimEpisode, label: str) -> int:
    return next(e["stamp_ns"] for e in episode.truth["events"] if e["label"] == label)


def camera_pose(episode: simulate.SimEpisode, name: str, t: float) -> SE3:
    position, orientation = episode.world.sensor_pose(name, [t])
    return SE3.from_quaternion(orientation[0], position[0])


# Images -----------------------------------------------------------------------------------


def cube_outline(episode, name: str, pose_t: float, cube_t: float):
    """Where the cube at cube_t is seen from where the camera is at pose_t."""
    camera = episode.rig[name].camera
    assert isinstance(camera, CameraModel)
    center, turned = episode.world.object_pose([cube_t])
    corners = box_corners(center[0], [episode.world.script.object.size_m] * 3, turned[0])
    seen = project_box(camera, camera_pose(episode, name, pose_t).inverse().apply(corners))
    return camera, seen


def red(image: np.ndarray) -> np.ndarray:
    r, g, b = (image[..., k].astype(int) for k in range(3))
    return (r > 50) & (r > 2 * g) & (r > 2 * b)


def overlap(episode, name: str, i: int, late_s: float = 0.0) -> tuple[float, float]:
    """Share of red pixels inside the cube's outline, and of the outline that is red."""
    t = float(seconds(episode, episode.raw[name].true_ns[i])) + late_s
    camera, seen = cube_outline(episode, name, t, t)
    mask = np.zeros((camera.height, camera.width), np.uint8)
    if seen is not None:
        cv2.fillConvexPoly(mask, np.round(seen.polygon * 16).astype(np.int32), 1, cv2.LINE_8, 4)
    found = red(episode.streams[name][i])
    inside = (found & (mask > 0)).sum()
    return inside / max(1, found.sum()), inside / max(1, mask.sum())


@pytest.mark.parametrize("name", ["camera_front", "camera_wrist"])
def test_the_cube_is_where_its_true_corners_project(episode, name):
    found = [overlap(episode, name, i) for i in range(3, len(episode.raw[name]), 7)]
    seen = [(a, b) for a, b in found if b > 0]
    assert len(seen) > 30
    assert np.median([a for a, _ in seen]) > 0.93
    # Fingers hide part of it now and then, and JPEG blurs its edge.
    assert np.percentile([a for a, _ in seen], 5) > 0.8
    assert np.median([b for _, b in seen]) > 0.8


@pytest.mark.parametrize("name", ["camera_front", "camera_wrist"])
def test_images_show_the_instant_of_their_exposure(episode, name):
    """While cube or camera move fast, the outline of 70 ms later or earlier fits worse."""
    label = "transport" if name == "camera_front" else "descend"
    phase = next(p for p in episode.truth["phases"] if p["label"] == label)
    true = episode.raw[name].true_ns
    middle = 0.5 * (phase["start_ns"] + phase["end_ns"])
    if label == "descend":  # After touching down it no longer moves.
        middle = phase["start_ns"] + 0.25 * (phase["end_ns"] - phase["start_ns"])
    rows = np.argsort(np.abs(true - middle))[:6]

    def fit(late_s: float) -> float:
        return float(np.mean([np.prod(overlap(episode, name, i, late_s)) for i in rows]))

    assert fit(0.0) > fit(0.07) + 0.05
    assert fit(0.0) > fit(-0.07) + 0.05


def flow(episode, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean flow magnitude between frames, at the middle of each pair (true or stamped)."""
    stream = episode.streams[name]
    grey = [cv2.cvtColor(stream[i], cv2.COLOR_RGB2GRAY) for i in range(len(stream))]
    small = [cv2.resize(g, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for g in grey]
    size = []
    for a, b in itertools.pairwise(small):
        field = cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 2, 5, 1.1, 0)
        size.append(np.linalg.norm(field, axis=-1).mean())
    t = seconds(episode, stream.stamp_ns)
    return 0.5 * (t[1:] + t[:-1]), np.array(size)


def best_lag(t: np.ndarray, motion: np.ndarray, episode) -> tuple[float, float]:
    """Lag of motion behind the tcp's true speed, and the correlation there."""
    grid = np.arange(t[0] + 0.3, t[-1] - 0.3, 0.005)

    def smooth(x: np.ndarray) -> np.ndarray:
        x = np.convolve(x, np.hanning(13) / np.hanning(13).sum(), "same")
        return (x - x.mean()) / x.std()

    lags = np.arange(-0.25, 0.2501, 0.005)
    shown = smooth(np.interp(grid, t, motion))
    scores = []
    for lag in lags:
        a, b = (episode.world.tcp_pose(grid - lag + h)[0] for h in (-0.005, 0.005))
        scores.append(np.mean(shown * smooth(np.linalg.norm(b - a, axis=1) / 0.01)))
    k = int(np.clip(np.argmax(scores), 1, len(lags) - 2))
    left, peak, right = scores[k - 1 : k + 2]
    return lags[k] + 0.005 * 0.5 * (left - right) / (left - 2 * peak + right), peak


def test_optic_flow_follows_the_arm_without_lag_and_shows_an_injected_one(episode):
    t, motion = flow(episode, "camera_front")
    lag, score = best_lag(t, motion, episode)
    assert score > 0.85
    assert abs(lag) < 0.012
    late = simulate.inject(episode, {"camera_front": simulate.StreamFaults(offset_ns=80_000_000)})
    stamps = seconds(late, late.streams["camera_front"].stamp_ns)
    shifted, _ = best_lag(0.5 * (stamps[1:] + stamps[:-1]), motion, late)
    assert abs(shifted - lag - 0.080) < 0.005


def test_the_wrist_camera_sees_itself_move_over_the_textured_table(episode):
    t, motion = flow(episode, "camera_wrist")
    lag, score = best_lag(t, motion, episode)
    assert score > 0.6
    assert abs(lag) < 0.03


def test_a_plain_table_shows_no_motion():
    short = {"duration_s": 0.8, "streams": ["camera_wrist"]}
    plain = simulate.pick_place(4, texture="plain", **short).streams["camera_wrist"]
    grain = simulate.pick_place(4, **short).streams["camera_wrist"]

    # The top of the picture shows nothing but table.
    def spread(stream) -> float:
        return float(stream[20][:60].std(axis=(0, 1)).mean())

    assert spread(plain) < 4 < 10 < spread(grain)


def test_no_two_frames_are_equal(episode):
    stream = episode.streams["camera_front"]
    frames = {stream.encoded(i) for i in range(len(stream))}
    assert len(frames) == len(stream)


def test_depth_is_the_distance_to_the_cube_along_the_axis(episode):
    stream = episode.raw["camera_front_depth"]
    i = 2
    t = float(seconds(episode, stream.true_ns[i]))
    _, seen = cube_outline(episode, "camera_front", t, t)
    center, _ = episode.world.object_pose([t])
    z = camera_pose(episode, "camera_front", t).inverse().apply(center[0])[2]
    half = 0.5 * np.sqrt(3) * episode.world.script.object.size_m
    u, v = np.round(seen.polygon.mean(axis=0)).astype(int)
    depth_mm = int(stream.fields["data"][i][v, u])
    assert 1000 * (z - half) - 10 < depth_mm < 1000 * z


# Kinematics -------------------------------------------------------------------------------


def urdf_forward(q: dict[str, float]) -> dict[str, SE3]:
    """Forward kinematics read from the URDF text alone."""
    root = ET.fromstring(arm.arm_urdf())
    poses = {"base": SE3.identity()}
    for joint in root.findall("joint"):
        parent, child = joint.find("parent").get("link"), joint.find("child").get("link")
        pose = SE3.from_quaternion(
            [1, 0, 0, 0], [float(v) for v in joint.find("origin").get("xyz").split()]
        )
        if joint.get("type") != "fixed":
            axis = np.array([float(v) for v in joint.find("axis").get("xyz").split()])
            value = q[joint.get("name")]
            if joint.get("type") == "revolute":
                pose = pose @ SE3.from_quaternion(quat_from_rotvec(value * axis))
            else:
                pose = pose @ SE3.from_quaternion([1, 0, 0, 0], value * axis)
        poses[child] = poses[parent] @ pose
    return poses


def test_joints_through_the_urdf_give_the_eef_pose(signals):
    joints, eef = signals.streams["joint_states"], signals.streams["eef_pose"]
    names = joints.info.fields["position"].channels
    position, orientation = interpolate_poses(
        eef.stamp_ns, eef["position"], eef["orientation"], joints.stamp_ns
    )
    for i in range(5, len(joints) - 5, 40):
        q = dict(zip(names, joints["position"][i].tolist(), strict=True))
        pose = urdf_forward(q)["tcp"]
        # Encoder noise of 20 microradian on a metre of arm, and linear interpolation over 10 ms.
        assert np.linalg.norm(pose.translation - position[i]) < 2e-4
        assert quat_angle(pose.quaternion, orientation[i]) < 1e-3


def test_joint_velocity_is_the_derivative_of_position(signals):
    joints = signals.streams["joint_states"]
    t = seconds(signals, joints.stamp_ns)
    numeric = np.gradient(joints["position"], t, axis=0)
    difference = (numeric - joints["velocity"])[2:-2]
    # The encoders' noise of 2e-5 rad over 13 ms, beside the noise of the velocity itself.
    assert np.percentile(np.abs(difference[:, :6]), 95) < 0.01


def test_joints_stay_within_their_limits():
    low, high = np.array(arm.LIMITS_RAD).T
    for seed in range(20):
        q = simulate.pick_place(seed, streams=["joint_states"]).raw["joint_states"].fields
        assert (q["position"][:, :6] > low).all()
        assert (q["position"][:, :6] < high).all()
        assert (np.abs(q["velocity"][:, :6]) < 3).all()


def test_inverse_kinematics_refuses_what_is_out_of_reach():
    with pytest.raises(ValueError, match="out of the arm's reach"):
        arm.inverse([[2.0, 0, 0]], np.diag([-1.0, 1.0, -1.0])[None])


def test_the_tcp_follows_its_command_after_the_true_delay(signals):
    delay_s = signals.truth["command_delay_ns"] * 1e-9
    eef = signals.streams["eef_pose"]
    t = seconds(signals, eef.stamp_ns)
    told = signals.world.command_pose(t - delay_s)[0]
    high = eef["position"][:, 2] > 0.05
    assert np.abs(told - eef["position"])[high].max() < 1e-6


def test_imu_agrees_with_the_pose(signals):
    imu = signals.streams["imu"]
    t = seconds(signals, imu.stamp_ns)
    q, gyro = imu["orientation"], imu["angular_velocity"]
    # Over 10 ms from the sample before to the one after.
    turned = quat_to_rotvec(quat_multiply(quat_conjugate(q[:-2]), q[2:]))
    error = gyro[1:-1] - turned / (t[2:] - t[:-2])[:, None]
    assert np.ptp(gyro[:, 2]) > 0.3
    assert np.abs(error.mean(axis=0)).max() < 0.01  # A bias,
    assert error.std() < 0.006  # and noise.
    # In the mean over the run the hand goes nowhere fast: what is left is gravity.
    force = quat_rotate(q, imu["linear_acceleration"]).mean(axis=0)
    assert np.allclose(force, [0, 0, G], atol=0.15)


# Contact ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_tactile_and_wrench_begin_at_contact(seed):
    ep = simulate.pick_place(seed, streams=["tactile", "wrench", "joint_states"])
    contact = event(ep, "contact")
    tactile = ep.raw["tactile"]
    total = tactile.fields["data"].sum(axis=(2, 3))
    for finger in range(2):
        noise = total[tactile.true_ns < contact, finger].std()
        first = tactile.true_ns[np.argmax(total[:, finger] > 6 * noise)]
        assert 0 <= first - contact < 25_000_000
    wrench = ep.raw["wrench"]
    force = wrench.fields["force"]
    jolt = np.abs(np.diff(force, axis=0)).max(axis=1)
    near = np.abs(wrench.true_ns[1:] - contact) < 150_000_000
    quiet = near & (wrench.true_ns[1:] < contact)
    first = wrench.true_ns[1:][near & (jolt > 2 * jolt[quiet].max())][0]
    assert 0 <= first - contact < 8_000_000


@pytest.mark.parametrize("seed", range(6))
def test_the_gripper_stalls_at_the_objects_width(seed):
    ep = simulate.pick_place(seed, streams=["joint_states"])
    joints = ep.raw["joint_states"]
    width = joints.fields["position"][:, 6:].sum(axis=1)
    held = (joints.true_ns > event(ep, "grasped")) & (
        joints.true_ns < event(ep, "gripper_open_command")
    )
    size = ep.truth["object"]["size_m"][1]
    assert held.sum() > 50
    assert np.abs(width[held] - size).max() < 1e-4
    # It is wider before, and comes past the pads' give at the instant of contact.
    at = np.interp(event(ep, "contact"), joints.true_ns, width)
    assert abs(at - size - 0.0016) < 1e-3


def test_the_object_moves_only_with_the_gripper(signals):
    t = np.arange(0.0, seconds(signals, signals.end_ns), 0.002)
    world = signals.world
    position, orientation = world.object_pose(t)
    held = world.contact(t)
    speed = np.linalg.norm(np.diff(position, axis=0), axis=1) / 0.002
    assert speed[~held[1:] & ~held[:-1]].max() == 0
    assert speed.max() < 1.0
    assert position[:, 2].min() >= 0.5 * signals.truth["object"]["size_m"][0] - 1e-12
    # Lifted, it keeps its place between the fingers.
    lifted, placed = (seconds(signals, event(signals, k)) for k in ("lifted", "placed"))
    carried = (t > lifted + 0.01) & (t < placed - 0.01)
    tcp, turned = world.tcp_pose(t)
    local = quat_rotate(quat_conjugate(turned), position - tcp)[carried]
    assert np.ptp(local, axis=0).max() < 2e-3
    upright = np.abs(quat_rotate(orientation, [0, 0, 1.0])[:, 2] - 1).max()
    assert upright < 1e-12


def test_the_hand_carries_the_weight_of_what_it_holds(signals):
    wrench = signals.streams["wrench"]
    t = seconds(signals, wrench.stamp_ns)
    force = quat_rotate(signals.world.hand_pose(t)[1], wrench["force"])[:, 2]
    contact, lifted, placed = (
        seconds(signals, event(signals, k)) for k in ("grasped", "lifted", "placed")
    )
    # From rest to rest the mean acceleration is zero.
    before = force[(t > contact + 0.2) & (t < lifted - 0.05)].mean()
    carried = force[(t > lifted + 0.02) & (t < placed - 0.02)].mean()
    # The fingers never push quite alike: gripping shows sideways.
    sideways = wrench["force"][:, 1]
    gripped = sideways[(t > contact + 0.2) & (t < lifted - 0.05)].mean()
    open_ = sideways[(t > contact - 0.5) & (t < contact - 0.1)].mean()
    assert abs(gripped - open_ - 0.06 * signals.world.script.style.grip_force_n) < 0.1
    mass = signals.truth["object"]["mass_kg"]
    assert abs((before - carried) - mass * G) < 0.08


def test_sound_reaches_the_microphone_after_contact(signals):
    rate = signals.streams["audio"].info.attrs["sample_rate_hz"]
    samples = signals.raw["audio"].fields["samples"].data[:, 0].astype(float)
    # High-pass: the motors hum below 1 kHz.
    samples = np.diff(samples, n=2)
    noise = np.median(np.abs(samples)) / 0.6745
    mic = signals.rig["mic"].parent_SE3_sensor.translation
    for label in ("contact", "placed"):
        stamp = event(signals, label)
        t = float(seconds(signals, stamp))
        rows = slice(int((t - 0.03) * rate), int((t + 0.05) * rate))
        loud = np.abs(samples[rows]) > 8 * noise
        heard = rows.start / rate + (np.argmax(loud) + 2) / rate
        distance = np.linalg.norm(signals.world.tcp_pose([t])[0][0] - mic)
        assert abs(heard - t - distance / 343.0) < 5e-4
        assert min(abs(c - stamp) for c in signals.truth["audio_click_ns"]) < 3_000_000


# LiDAR ------------------------------------------------------------------------------------


def surface_distance(episode, points, t, columns) -> np.ndarray:
    """Distance of points (P, 3) in ``base`` to the nearest surface at their own times (P,)."""
    best = np.full(len(points), np.inf)
    for solid in episode.world.solids(t):
        local = np.einsum("nji,nj->ni", solid.rotation[columns], points - solid.position[columns])
        q = np.abs(local) - 0.5 * solid.size
        outside = np.linalg.norm(np.maximum(q, 0), axis=1)
        best = np.minimum(best, np.abs(outside + np.minimum(q.max(axis=1), 0)))
    for panel in episode.world.panels:
        best = np.minimum(best, np.abs((points - panel.center) @ panel.normal))
    return best


def test_lidar_points_lie_on_surfaces_at_their_own_instant(episode):
    stream = episode.raw["lidar_points"]
    pose = episode.rig["lidar"].parent_SE3_sensor
    on_arm: dict[str, list[np.ndarray]] = {"true": [], "frozen": []}
    for i in range(0, len(stream), 4):
        row = {name: stream.fields[name][i] for name in stream.fields}
        points = pose.apply(np.stack([row["x"], row["y"], row["z"]], axis=1))
        start = float(seconds(episode, stream.true_ns[i]))
        times, columns = np.unique(row["point_offset_ns"], return_inverse=True)
        distance = surface_distance(episode, points, start + times * 1e-9, columns)
        assert len(points) > 3000
        assert distance.max() < 6 * RANGE_NOISE_M
        assert np.sqrt(np.mean(distance**2)) < RANGE_NOISE_M
        frozen = surface_distance(episode, points, start + 0 * times, columns)
        speed = np.diff(episode.world.tcp_pose([start, start + 0.1])[0], axis=0)
        # Shining parts above the table: arm and cube.
        above = (points[:, 2] > 0.05) & (points[:, 0] < 0.7) & (points[:, 0] > 0.2)
        if np.linalg.norm(speed) > 0.018:
            on_arm["true"].append(distance[above])
            on_arm["frozen"].append(frozen[above])
    # Taking the whole sweep for one instant misplaces the points of the moving arm.
    error = {k: np.sqrt(np.mean(np.concatenate(v) ** 2)) for k, v in on_arm.items()}
    assert sum(len(v) for v in on_arm["true"]) > 1000
    assert error["true"] < RANGE_NOISE_M
    assert error["frozen"] > 1.5 * error["true"]


def test_lidar_sees_arm_cube_and_table(episode):
    stream = episode.raw["lidar_points"]
    shine = stream.fields["intensity"][3]
    offsets = stream.fields["point_offset_ns"][3]
    assert (np.diff(offsets) >= 0).all()
    assert 0.8 * 1e8 < offsets.max() < 1.0 * 1e8
    assert set(np.unique(stream.fields["ring"][3])) <= set(range(32))
    assert 0 < shine.min() < shine.max() <= 1
    point = np.stack([stream.fields[k][3] for k in "xyz"], axis=1)
    pose = episode.rig["lidar"].parent_SE3_sensor
    t = float(seconds(episode, stream.true_ns[3]))
    center, _ = episode.world.object_pose([t])
    near = np.linalg.norm(pose.apply(point) - center, axis=1) < 0.04
    assert near.sum() >= 3


# The script -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_every_seed_makes_a_whole_and_ordered_story(seed):
    ep = simulate.pick_place(seed, streams=[])
    truth = ep.truth
    json.dumps(truth)
    assert truth["success"]
    labels = ["approach", "descend", "grasp", "lift", "transport", "lower", "release", "retract"]
    for kind in ("phases", "script_phases"):
        phases = truth[kind]
        assert [p["label"] for p in phases] == labels
        assert phases[0]["start_ns"] == ep.start_ns
        assert phases[-1]["end_ns"] == ep.end_ns
        for before, after in itertools.pairwise(phases):
            assert before["end_ns"] == after["start_ns"]
            assert before["end_ns"] - before["start_ns"] > 30_000_000
    stamps = [event(ep, k) for k in (
        "gripper_close_command", "contact", "grasped", "lifted", "placed",
        "gripper_open_command", "released",
    )]  # fmt: skip
    assert stamps == sorted(stamps)
    begins = {p["label"]: p["start_ns"] for p in truth["phases"]}
    assert begins["grasp"] == event(ep, "contact")
    assert begins["lift"] == event(ep, "lifted")
    assert begins["release"] == event(ep, "released")
    assert truth["contact_intervals"] == [
        {"start_ns": event(ep, "contact"), "end_ns": event(ep, "released")}
    ]
    assert truth["lifted_intervals"] == [
        {"start_ns": event(ep, "lifted"), "end_ns": event(ep, "placed")}
    ]
    moved = np.array(truth["object"]["position"])
    assert np.linalg.norm(moved[-1] - moved[0]) > 0.1
    assert 7 < (ep.end_ns - ep.start_ns) * 1e-9 < 25


def test_seeds_differ_in_what_matters():
    styles = [simulate.pick_place(s, streams=[]).world.script.style for s in range(12)]
    for field in ("speed", "pause_s", "blend", "delay_s", "gripper_speed_m_s", "grip_force_n"):
        values = [getattr(s, field) for s in styles]
        assert np.std(values) > 0.1 * np.mean(values)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("failure", FAILURES)
def test_failures_tell_their_own_story(failure, seed):
    ep = simulate.pick_place(seed, failures=[failure], streams=["wrench"])
    truth, labels = ep.truth, [e["label"] for e in ep.truth["events"]]
    assert truth["success"] == (failure not in ("missed_grasp", "drop"))
    start, end = (np.array(truth["object"]["position"][k]) for k in (0, -1))
    if failure == "missed_grasp":
        assert truth["contact_intervals"] == []
        assert np.array_equal(start, end)
        assert "failure" in labels
    elif failure == "regrasp":
        assert labels.index("failure") < labels.index("recovery") < labels.index("contact")
        assert labels.count("gripper_close_command") == 2
    elif failure == "slip":
        slip = next(e for e in truth["events"] if e["label"] == "slip")
        assert event(ep, "lifted") < slip["stamp_ns"] < event(ep, "placed")
        t = seconds(ep, slip["stamp_ns"]) + np.array([0.0, slip["duration_s"]])
        gap = ep.world.tcp_pose(t)[0][:, 2] - ep.world.object_pose(t)[0][:, 2]
        assert np.isclose(gap[1] - gap[0], slip["distance_m"], atol=1e-6)
    elif failure == "drop":
        assert event(ep, "slip") < event(ep, "dropped") < event(ep, "landed")
        assert "placed" not in labels
        fall = (event(ep, "landed") - event(ep, "dropped")) * 1e-9
        assert 0.02 < fall < 0.4
        assert np.isclose(end[2], start[2])
    elif failure == "hesitation":
        pause = (event(ep, "hesitation_end") - event(ep, "hesitation")) * 1e-9
        assert 0.8 < pause < 4
    else:
        hit = event(ep, "collision")
        wrench = ep.raw["wrench"]
        push = -wrench.fields["force"][:, 2] + np.median(wrench.fields["force"][:, 2])
        after = (wrench.true_ns > hit) & (wrench.true_ns < hit + 150_000_000)
        assert push[after].max() > 12
        assert push[wrench.true_ns < hit - 20_000_000].max() < 6
        assert ep.world.tcp_pose([seconds(ep, hit)])[0][0, 2] < arm.FINGER_TIP_M + 0.002


def test_failures_combine():
    ep = simulate.pick_place(2, failures=["collision", "regrasp", "slip"], streams=[])
    labels = [e["label"] for e in ep.truth["events"]]
    assert ep.truth["success"]
    for label in ("collision", "failure", "recovery", "slip", "placed"):
        assert label in labels
    with pytest.raises(ConfigError, match="explosion"):
        simulate.pick_place(0, failures=["explosion"])  # type: ignore[list-item]


def test_cycles_fill_the_duration():
    ep = simulate.pick_place(3, duration_s=40.0, streams=["wrench"])
    assert ep.end_ns - ep.start_ns == 40_000_000_000
    assert sum(p["label"] == "lift" for p in ep.truth["phases"]) >= 3
    assert ep.truth["phases"][-1]["end_ns"] == ep.end_ns
    assert ep.raw["wrench"].true_ns.max() <= ep.end_ns
    assert all(e["stamp_ns"] <= ep.end_ns for e in ep.truth["events"])


def test_the_same_seed_gives_the_same_bytes():
    names = ["camera_wrist", "audio", "wrench", "lidar_points"]
    first = simulate.pick_place(seed=1, duration_s=1.5, streams=[*names, "imu", "eef_pose"])
    # Streams do not depend on which others are made, nor on their order.
    again = simulate.pick_place(seed=1, duration_s=1.5, streams=names[::-1])
    for name, stream in again.raw.items():
        before = first.raw[name]
        assert np.array_equal(stream.true_ns, before.true_ns)
        assert np.array_equal(stream.receive_ns, before.receive_ns)
        for field, values in stream.fields.items():
            a, b = (getattr(v, "data", v) for v in (values, before.fields[field]))
            assert np.array_equal(np.asarray(a), np.asarray(b))
    other = simulate.pick_place(seed=2, streams=["wrench"])
    assert not np.array_equal(
        other.raw["wrench"].fields["force"][:10], first.raw["wrench"].fields["force"][:10]
    )


def test_without_rendering_only_the_pictures_differ(episode):
    bare = simulate.pick_place(seed=1, streams=["camera_front"], render=False)
    stream = bare.raw["camera_front"]
    assert np.array_equal(stream.true_ns, episode.raw["camera_front"].true_ns)
    assert np.array_equal(stream.receive_ns, episode.raw["camera_front"].receive_ns)
    assert bare.streams["camera_front"][0].shape == (240, 320, 3)
    assert stream.fields["data"][0].tobytes() == stream.fields["data"][5].tobytes()


def test_an_unknown_stream_is_refused():
    with pytest.raises(ConfigError, match="no stream 'sonar'"):
        simulate.pick_place(0, streams=["sonar"])


def test_it_reads_as_an_episode(episode):
    ep = episode.to_episode()
    assert set(ep.streams) == set(simulate.pick_place.__globals__["RATES_HZ"])
    assert ep.streams["camera_front"][0].shape == (240, 320, 3)
    assert ep.streams["lidar_points"][0]["x"].dtype == np.float32
    assert ep.streams["audio"][0].shape == (1600, 1)
    assert ep.streams["tactile"][0].shape == (2, 4, 4)
    assert set(ep.streams["joint_states"][0]) == {"position", "velocity", "effort"}
    assert ep.rig.transform("camera_front", "lidar") is not None
    # The hand moves: only /tf knows where it is.
    assert ep.rig.transform("base", "camera_wrist") is None
