"""The simulated street agrees with itself, and its labels with OpenCV and with brute force."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from mmdata import simulate
from mmdata.errors import ConfigError
from mmdata.geometry import (
    SE3,
    LensModel,
    points_in_box,
    quat_conjugate,
    quat_multiply,
    quat_rotate,
    quat_to_rotvec,
)
from mmdata.simulate import StreamFaults
from mmdata.simulate.drive import DRIVE_SCAN
from mmdata.simulate.scene import cast

G = 9.81
MS = 1_000_000


@pytest.fixture(scope="module")
def episode() -> simulate.SimEpisode:
    return simulate.drive(seed=3, duration_s=3.5, cameras=6, objects=16)


def seconds(episode, stamps) -> np.ndarray:
    return (np.asarray(stamps) - episode.start_ns).astype(np.float64) * 1e-9


def actor(episode, object_id: str):
    return next(a for a in episode.world.actors if a.object_id == object_id)


def pose(episode, name: str, t: float) -> SE3:
    position, orientation = episode.world.sensor_pose(name, [t])
    return SE3.from_quaternion(orientation[0], position[0])


def skin(count: int = 12) -> np.ndarray:
    """Points all over the surface of the unit cube."""
    side = np.linspace(-0.5, 0.5, count)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[(np.abs(grid) == 0.5).any(axis=1)]


def opencv_pixels(camera, points: np.ndarray) -> np.ndarray:
    zero = np.zeros(3)
    if camera.model is LensModel.FISHEYE:
        return cv2.fisheye.projectPoints(
            points[:, None], zero[:, None], zero[:, None], camera.K, camera.distortion
        )[0][:, 0]
    distortion = camera.distortion if len(camera.distortion) else np.zeros(5)
    return cv2.projectPoints(points, zero, zero, camera.K, distortion)[0][:, 0]


def test_all_lens_models_are_there(episode):
    models = {s.camera.model for s in episode.rig.values() if s.camera is not None}
    assert models == set(LensModel)
    counts = {len(s.camera.distortion) for s in episode.rig.values() if s.camera is not None}
    assert counts == {0, 4, 5, 8}


def test_rectangles_are_the_true_boxes_through_opencv(episode):
    checked = defaultdict(int)
    for box in episode.truth["boxes_2d"]:
        t = float(seconds(episode, box["true_ns"]))
        who = actor(episode, box["object_id"])
        center, turned = who.pose([t])
        points = center[0] + quat_rotate(turned[0], skin() * who.size_m)
        camera = episode.rig[box["stream"]].camera
        local = pose(episode, box["stream"], t).inverse().apply(points)
        # Far enough in front that OpenCV's formulas hold everywhere on the box.
        angle = np.degrees(np.arctan2(np.hypot(local[:, 0], local[:, 1]), local[:, 2]))
        if angle.max() > (75 if camera.model is LensModel.FISHEYE else 45):
            continue
        uv = opencv_pixels(camera, local)
        edge = np.array([camera.width, camera.height]) - 0.5
        low, high = uv.min(axis=0).clip(-0.5, edge), uv.max(axis=0).clip(-0.5, edge)
        assert np.abs(np.array(box["xyxy_px"]) - [*low, *high]).max() < 0.5
        whole = np.prod(uv.max(axis=0) - uv.min(axis=0))
        assert np.isclose(box["truncated"], 1 - np.prod(high - low) / whole, atol=0.02)
        checked[camera.model] += 1
    assert all(checked[model] > 20 for model in LensModel)


def test_images_show_the_labelled_objects(episode):
    """The middle of an unhidden box has the colour of its object, whatever the shade."""
    checked = 0
    for box in episode.truth["boxes_2d"]:
        u0, v0, u1, v1 = box["xyxy_px"]
        if box["visibility"] < 0.999 or box["truncated"] > 0 or min(u1 - u0, v1 - v0) < 24:
            continue
        raw = episode.raw[box["stream"]]
        i = int(np.flatnonzero(raw.true_ns == box["true_ns"])[0])
        image = episode.streams[box["stream"]][i].astype(float)
        u, v = round(0.5 * (u0 + u1)), round(0.5 * (v0 + v1))
        mean = image[v - 3 : v + 4, u - 3 : u + 4].mean(axis=(0, 1))
        colour = np.array(actor(episode, box["object_id"]).colour[::-1], float)
        cosine = mean @ colour / np.linalg.norm(mean) / np.linalg.norm(colour)
        assert cosine > 0.99
        checked += 1
    assert checked > 50


def test_visibility_is_the_share_rays_can_see(episode):
    checked = partly = 0
    for box in episode.truth["boxes_2d"][::7]:
        if box["truncated"] > 0:
            continue
        t = float(seconds(episode, box["true_ns"]))
        u0, v0, u1, v1 = box["xyxy_px"]
        u, v = np.meshgrid(np.linspace(u0, u1, 40), np.linspace(v0, v1, 40))
        camera = episode.rig[box["stream"]].camera
        world = pose(episode, box["stream"], t)
        rays = camera.unproject(np.stack([u, v], axis=-1).reshape(-1, 2)) @ world.rotation.T
        solids = [s.take(0) for s in episode.world.solids([t])]
        index = [s.name for s in solids].index(box["object_id"])
        alone = np.isfinite(cast(world.translation, rays, [solids[index]]).distance)
        seen = cast(world.translation, rays, solids).surface == index
        share = seen.sum() / alone.sum()
        # Coarse pixels on small objects; painter's order between touching tiles.
        small = min(u1 - u0, v1 - v0) < 10
        assert abs(share - box["visibility"]) < (0.35 if small else 0.12)
        checked += 1
        partly += 0.1 < share < 0.9
    assert checked > 40
    assert partly >= 1


def test_lidar_points_lie_on_surfaces_at_their_own_instant(episode):
    stream = episode.raw["lidar_points"]
    noise = DRIVE_SCAN.range_noise_m
    for i in range(0, len(stream), 10):
        row = {name: stream.fields[name][i] for name in stream.fields}
        start = float(seconds(episode, stream.true_ns[i]))
        t = start + row["point_offset_ns"] * 1e-9
        position, orientation = episode.world.sensor_pose("lidar", t)
        local = np.stack([row["x"], row["y"], row["z"]], axis=1).astype(float)
        points = position + quat_rotate(orientation, local)
        best = np.abs(points[:, 2])  # The ground.
        for solid in episode.world.solids(t):
            delta = np.einsum("...ji,...j->...i", solid.rotation, points - solid.position)
            q = np.abs(delta) - 0.5 * solid.size
            outside = np.linalg.norm(np.maximum(q, 0), axis=1)
            best = np.minimum(best, np.abs(outside + np.minimum(q.max(axis=1), 0)))
        assert len(points) > 3000
        assert best.max() < 6 * noise
        assert 0.9 * 98.5 * MS < row["point_offset_ns"].max() < 98.5 * MS
        # Taken as one instant, the sweep is bent by the vehicle's own motion.
        frozen = position[0] + quat_rotate(orientation[0], local)
        assert np.linalg.norm(frozen - points, axis=1).max() > 0.2


def test_point_counts_equal_brute_force(episode):
    stream = episode.raw["lidar_points"]
    total = 0
    for track in episode.truth["tracks_3d"]:
        who = actor(episode, track["object_id"])
        for i in range(0, len(track["stamp_ns"]), 6):
            k = int(np.flatnonzero(stream.true_ns == track["true_ns"][i])[0])
            start = float(seconds(episode, stream.true_ns[k]))
            t = start + stream.fields["point_offset_ns"][k] * 1e-9
            position, orientation = episode.world.sensor_pose("lidar", t)
            local = np.stack([stream.fields[n][k] for n in "xyz"], axis=1).astype(float)
            points = position + quat_rotate(orientation, local)
            # Into the object's own frame at each point's own instant.
            center, turned = who.pose(t)
            moved = quat_rotate(quat_conjugate(turned), points - center)
            grown = who.size_m + 12 * DRIVE_SCAN.range_noise_m
            inside = points_in_box(moved, np.zeros(3), grown, [1.0, 0, 0, 0])
            ground = points[:, 2] < 6 * DRIVE_SCAN.range_noise_m
            assert (inside & ~ground).sum() <= track["points"][i] <= inside.sum()
            total += track["points"][i]
    assert total > 1000


def test_tracks_are_what_the_world_says(episode):
    assert len(episode.truth["tracks_3d"]) >= 10
    for track in episode.truth["tracks_3d"]:
        t = seconds(episode, track["true_ns"])
        center, turned = actor(episode, track["object_id"]).pose(t)
        assert np.allclose(track["center_m"], center, atol=0)
        assert np.allclose(track["quaternion_wxyz"], turned, atol=0)
        assert len(track["size_lwh_m"]) == len(track["points"]) == len(t)
        assert set(track["true_ns"]) <= set(episode.raw["lidar_points"].true_ns.tolist())


@pytest.mark.parametrize("seed", range(12))
def test_traffic_is_possible(seed):
    ep = simulate.drive(seed, streams=[], cameras=1)
    world, t = ep.world, np.arange(0.0, 8.0, 0.05)
    assert len(world.actors) >= 10
    ego = world.ego_pose(t)[0]
    paths = {a.object_id: a.pose(t) for a in world.actors}
    for (_, (a, _)), (_, (b, _)) in itertools.combinations(paths.items(), 2):
        assert np.linalg.norm(a[:, :2] - b[:, :2], axis=1).min() > 1.0
    for who in world.actors:
        center, turned = paths[who.object_id]
        assert np.linalg.norm(center[:, :2] - ego[:, :2], axis=1).min() > 2.5
        velocity = np.diff(center, axis=0) / 0.05
        assert np.linalg.norm(np.diff(velocity, axis=0) / 0.05, axis=1).max() < 4.0
        if who.speed_m_s > 0:
            heading = quat_rotate(turned, [1.0, 0, 0])[:-1]
            along = np.sum(heading * velocity, axis=1) / np.linalg.norm(velocity, axis=1)
            assert along.min() > np.cos(np.radians(3))
    moving = [a for a in world.actors if a.speed_m_s > 0]
    assert 2 <= len(moving) < len(world.actors)


@pytest.mark.parametrize("seed", range(8))
def test_the_ego_vehicle_drives_as_told(seed):
    ep = simulate.drive(seed, streams=["odometry", "imu"], cameras=1, hard_braking=seed % 2 == 0)
    odometry = ep.raw["odometry"].fields
    t = seconds(ep, ep.raw["odometry"].true_ns)
    forward = odometry["linear_velocity"]
    # A car goes where it points.
    assert np.abs(forward[:, 1]).max() < 0.2
    assert forward[:, 0].min() > -0.1
    # Velocity integrates to position.
    world = quat_rotate(odometry["orientation"], forward)
    steps = 0.5 * (world[1:] + world[:-1]) * np.diff(t)[:, None]
    error = odometry["position"][0] + np.cumsum(steps, axis=0) - odometry["position"][1:]
    assert np.abs(error).max() < 0.05
    gyro = ep.raw["imu"].fields["angular_velocity"]
    q = ep.raw["imu"].fields["orientation"]
    ti = seconds(ep, ep.raw["imu"].true_ns)
    turned = quat_to_rotvec(quat_multiply(quat_conjugate(q[:-2]), q[2:]))
    drift = gyro[1:-1] - turned / (ti[2:] - ti[:-2])[:, None]
    assert drift.std() < 0.01
    gravity = quat_rotate(q, ep.raw["imu"].fields["linear_acceleration"])[:, 2]
    assert abs(gravity.mean() - G) < 0.05
    phases = ep.truth["phases"]
    for before, after in itertools.pairwise(phases):
        assert before["end_ns"] == after["start_ns"]
    assert phases[-1]["end_ns"] == ep.end_ns
    speed = dict(zip(t, forward[:, 0], strict=True))
    for phase in phases:
        inside = [v for s, v in speed.items()
                  if phase["start_ns"] <= ep.start_ns + s * 1e9 < phase["end_ns"]]  # fmt: skip
        if phase["label"] == "stand":
            assert np.abs(inside).max() < 0.1
        if phase["label"] == "brake_to_stop" and len(inside) > 20:
            assert inside[-1] < inside[0]
    hard = [e["stamp_ns"] for e in ep.truth["events"] if e["label"] == "hard_braking"]
    deceleration = -np.gradient(np.convolve(forward[:, 0], np.ones(5) / 5, "valid"), t[2:-2])
    assert (deceleration.max() > 4.0) == bool(hard)
    if seed % 2 == 0:
        assert hard
        crossing = t[2:-2][np.argmax(deceleration > 4.0)]
        assert abs(crossing - seconds(ep, hard[0])) < 0.1


def test_the_rig_is_a_tree_below_the_vehicle(episode):
    a = episode.rig.transform("camera_front", "camera_rear")
    # The two cameras look opposite ways: forward for one is backward for the other.
    assert a.apply([0, 0, 1.0])[2] < a.translation[2] - 0.9
    t = 1.3
    base = SE3.from_quaternion(*(v[0] for v in episode.world.ego_pose([t])[::-1]))
    camera = base @ episode.rig.transform("base_link", "camera_left")
    assert camera.is_close(pose(episode, "camera_left", t))


def test_labels_follow_the_stamps_as_recorded(episode):
    faults = {
        "camera_front": StreamFaults(offset_ns=50 * MS, drop_fraction=0.2),
        "lidar_points": StreamFaults(header_offset_ns=-20 * MS),
    }
    late = simulate.inject(episode, faults, seed=1)
    kept = set(late.raw["camera_front"].true_ns.tolist())
    front = [b for b in late.truth["boxes_2d"] if b["stream"] == "camera_front"]
    before = [b for b in episode.truth["boxes_2d"] if b["stream"] == "camera_front"]
    assert 0 < len(front) < len(before)
    assert all(b["stamp_ns"] - b["true_ns"] == 50 * MS and b["true_ns"] in kept for b in front)
    assert {b["stamp_ns"] for b in front} <= set(late.raw["camera_front"].source_ns.tolist())
    others = [b for b in late.truth["boxes_2d"] if b["stream"] != "camera_front"]
    assert all(b["stamp_ns"] == b["true_ns"] for b in others)
    for track in late.truth["tracks_3d"]:
        assert (np.array(track["stamp_ns"]) - track["true_ns"] == -20 * MS).all()
    assert episode.truth["boxes_2d"][0]["stamp_ns"] == episode.truth["boxes_2d"][0]["true_ns"]
    json.dumps(late.truth)


def test_labels_need_neither_rendering_nor_other_streams(episode):
    names = ["camera_left", "odometry"]
    bare = simulate.drive(
        seed=3, duration_s=3.5, cameras=6, objects=16, render=False, streams=names
    )
    assert bare.truth["boxes_2d"] == episode.truth["boxes_2d"]
    without_points = [
        {k: v for k, v in track.items() if k != "points"} for track in episode.truth["tracks_3d"]
    ]
    assert bare.truth["tracks_3d"] == without_points
    for name, stream in bare.raw.items():
        assert np.array_equal(stream.receive_ns, episode.raw[name].receive_ns)


def test_cameras_and_streams_are_checked():
    with pytest.raises(ConfigError, match="1 to 6 cameras"):
        simulate.drive(0, cameras=7)
    with pytest.raises(ConfigError, match="no stream 'wrench'"):
        simulate.drive(0, streams=["wrench"])


def test_the_log_comes_back(episode, tmp_path):
    folder = simulate.write_mcap(tmp_path / "drive", episode)
    counts, infos = defaultdict(int), {}
    with AnyReader([folder]) as reader:
        for connection, stamp, raw in reader.messages():
            counts[connection.topic] += 1
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic.endswith("camera_info"):
                infos[message.header.frame_id] = message
            if connection.topic == "/odometry" and counts[connection.topic] == 10:
                fields = episode.raw["odometry"].fields
                assert message.pose.pose.position.x == fields["position"][9, 0]
                assert message.twist.twist.angular.z == fields["angular_velocity"][9, 2]
                assert message.child_frame_id == "base_link"
                assert stamp == episode.raw["odometry"].receive_ns[9]
    for stream in episode.raw.values():
        assert counts[stream.topic] == len(stream)
    models = {name: info.distortion_model for name, info in infos.items()}
    assert models == {
        "camera_front": "plumb_bob",
        "camera_front_left": "plumb_bob",
        "camera_front_right": "rational_polynomial",
        "camera_rear": "equidistant",
        "camera_left": "equidistant",
        "camera_right": "plumb_bob",
    }
    right = episode.rig["camera_front_right"].camera
    assert np.array_equal(infos["camera_front_right"].d, right.distortion)


def test_gyro_and_heading_turn_the_same_way():
    ep = simulate.drive(1, streams=["imu"], cameras=1, duration_s=12.0)
    imu = ep.raw["imu"].fields
    t = seconds(ep, ep.raw["imu"].true_ns)
    yaw = np.unwrap(ep.world.route.plane(t)[:, 2])
    rate = np.gradient(yaw, t)
    assert np.corrcoef(rate, imu["angular_velocity"][:, 2])[0, 1] > 0.95
