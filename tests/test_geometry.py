"""mmdata.geometry against OpenCV, SciPy and its own inverses."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from mmdata import geometry as g

RNG = np.random.default_rng(5)
K = np.array([[310.0, 0.0, 162.5], [0.0, 305.0, 118.25], [0.0, 0.0, 1.0]])
WIDE_K = np.array([[110.0, 0.0, 162.5], [0.0, 108.0, 118.25], [0.0, 0.0, 1.0]])
BROWN = {
    4: [-0.28, 0.07, 1e-3, -5e-4],
    5: [-0.28, 0.07, 1e-3, -5e-4, -0.01],
    8: [0.2, -0.05, 1e-3, -5e-4, 0.01, 0.3, -0.02, 0.005],
}
FISHEYE = [0.02, -0.01, 0.003, -0.0003]

finite = st.floats(-10, 10, allow_nan=False)
quaternions = (
    st.tuples(finite, finite, finite, finite)
    .filter(lambda q: np.linalg.norm(q) > 1e-3)
    .map(lambda q: np.array(q) / np.linalg.norm(q))
)
vectors = st.tuples(finite, finite, finite).map(np.array)
poses = st.builds(g.SE3.from_quaternion, quaternions, vectors)


def cameras() -> list[g.CameraModel]:
    return [
        g.CameraModel.pinhole(K, 320, 240),
        *(
            g.CameraModel(g.LensModel.BROWN_CONRADY, K, np.array(c), 320, 240)
            for c in BROWN.values()
        ),
        g.CameraModel(g.LensModel.FISHEYE, WIDE_K, np.array(FISHEYE), 320, 240),
    ]


def same_rotation(a: np.ndarray, b: np.ndarray, atol: float = 1e-12) -> bool:
    return bool(np.all(g.quat_angle(a, b) <= atol))


# Quaternions ------------------------------------------------------------------------------


@given(quaternions, quaternions, vectors)
def test_quaternion_algebra_agrees_with_scipy(a, b, v):
    ra, rb = (Rotation.from_quat(q, scalar_first=True) for q in (a, b))
    product = (ra * rb).as_quat(scalar_first=True)
    assert same_rotation(g.quat_multiply(a, b), product, 1e-11)
    assert np.allclose(g.quat_rotate(a, v), ra.apply(v), atol=1e-12)
    assert np.allclose(g.quat_to_matrix(a), ra.as_matrix(), atol=1e-14)
    assert np.isclose(g.quat_angle(a, b), (ra.inv() * rb).magnitude(), atol=1e-12)


@given(quaternions)
def test_matrix_and_rotation_vector_round_trips(q):
    assert same_rotation(g.quat_from_matrix(g.quat_to_matrix(q)), q)
    assert same_rotation(g.quat_from_rotvec(g.quat_to_rotvec(q)), q)


@pytest.mark.parametrize("axis", np.eye(3))
def test_half_turns_survive_the_matrix(axis):
    q = np.concatenate([[0.0], axis])
    assert np.array_equal(np.abs(g.quat_from_matrix(g.quat_to_matrix(q))), q)


def test_batches_broadcast():
    a = g.quat_normalise(RNG.normal(size=(5, 1, 4)))
    b = g.quat_normalise(RNG.normal(size=(1, 7, 4)))
    ab = g.quat_multiply(a, b)
    assert ab.shape == (5, 7, 4)
    assert np.allclose(ab[3, 2], g.quat_multiply(a[3, 0], b[0, 2]))
    assert g.quat_from_matrix(g.quat_to_matrix(ab)).shape == (5, 7, 4)


def test_a_zero_quaternion_is_not_made_into_a_pose():
    assert np.isnan(g.quat_normalise([0.0, 0.0, 0.0, 0.0])).all()
    with pytest.raises(ValueError, match="non-zero quaternion"):
        g.SE3.from_quaternion([0.0, 0.0, 0.0, 0.0])


@given(quaternions, quaternions, st.floats(0, 1))
def test_slerp_agrees_with_scipy_and_takes_the_shorter_arc(a, b, t):
    if g.quat_angle(a, b) > np.pi - 1e-4:  # Half turns have two shorter arcs.
        return
    want = Slerp([0, 1], Rotation.from_quat([a, b], scalar_first=True))(t)
    for sign in (1, -1):
        got = g.quat_slerp(a, sign * b, t)
        assert same_rotation(got, want.as_quat(scalar_first=True), 1e-10)
        assert np.isclose(g.quat_angle(a, got), t * g.quat_angle(a, b), atol=1e-10)


def test_slerp_of_tiny_and_zero_angles():
    a = np.array([1.0, 0.0, 0.0, 0.0])
    b = g.quat_from_rotvec([1e-9, 0.0, 0.0])
    assert np.allclose(g.quat_to_rotvec(g.quat_slerp(a, b, 0.25)), [2.5e-10, 0, 0], atol=1e-20)
    assert np.array_equal(g.quat_slerp(a, -a, 0.5), a)


def test_continuous_series_has_no_sign_jump():
    angles = np.linspace(0, 4 * np.pi, 50)
    q = g.quat_from_rotvec(angles[:, None] * np.array([0, 0, 1.0]))
    flipped = q * RNG.choice([-1, 1], size=(50, 1))
    out = g.quat_continuous(flipped)
    assert (np.sum(out[1:] * out[:-1], axis=1) > 0.9).all()
    assert same_rotation(out, q)
    assert g.quat_continuous(np.zeros((0, 4))).shape == (0, 4)


# SE3 --------------------------------------------------------------------------------------


@given(poses, poses, vectors)
def test_se3_composes_and_inverts(a, b, p):
    assert np.allclose((a @ b).apply(p), a.apply(b.apply(p)), atol=1e-11)
    assert np.allclose((a @ b).to_matrix(), a.to_matrix() @ b.to_matrix(), atol=1e-11)
    assert np.allclose(a.inverse().apply(a.apply(p)), p, atol=1e-11)
    assert (a @ a.inverse()).is_close(g.SE3.identity(), atol_m=1e-11, atol_rad=1e-11)


@given(poses)
def test_seven_numbers_round_trip_exactly(pose):
    again = g.SE3.from_xyz_qwxyz(json.loads(json.dumps(pose.to_xyz_qwxyz().tolist())))
    assert again == pose
    assert np.array_equal(again.rotation, pose.rotation)
    from_matrix = g.SE3.from_matrix(pose.to_matrix())
    assert from_matrix.is_close(pose, atol_m=0, atol_rad=1e-12)
    assert g.SE3.from_xyz_qwxyz(from_matrix.to_xyz_qwxyz()) == from_matrix


def test_a_SE3_b_maps_points_of_b_into_a():
    # b sits at x = 1 of a, turned left by 90 degrees: b's x axis is a's y axis.
    a_SE3_b = g.SE3(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]), np.array([1.0, 0, 0]))
    assert np.allclose(a_SE3_b.apply([[2.0, 0, 0], [0, 0, 3.0]]), [[1, 2, 0], [1, 0, 3]])


def test_improper_rotations_are_refused():
    with pytest.raises(ValueError, match="proper rotation"):
        g.SE3(np.diag([1.0, 1.0, -1.0]), np.zeros(3))
    with pytest.raises(ValueError, match="proper rotation"):
        g.SE3(2 * np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match="7 numbers"):
        g.SE3.from_xyz_qwxyz([1, 2, 3])


def test_poses_are_immutable():
    with pytest.raises(ValueError, match="read-only"):
        g.SE3.identity().translation[0] = 1.0


def test_interpolated_poses_keep_nanoseconds_at_the_unix_epoch():
    start = 1_760_030_100_000_000_000
    stamps = start + np.array([0, 100])
    position = np.array([[0.0, 0, 0], [1.0, 2.0, 3.0]])
    orientation = np.stack([g.quat_from_rotvec([0, 0, 0.0]), -g.quat_from_rotvec([0, 0, 1.0])])
    p, q = g.interpolate_poses(
        stamps, position, orientation, start + np.array([-1, 0, 1, 100, 101])
    )
    assert np.allclose(p[1:4], [[0, 0, 0], [0.01, 0.02, 0.03], [1, 2, 3]], atol=1e-15)
    assert np.allclose(g.quat_to_rotvec(q[1:4])[:, 2], [0, 0.01, 1.0], atol=1e-14)
    for outside in (0, 4):
        assert np.isnan(p[outside]).all()
        assert np.isnan(q[outside]).all()
    none = g.interpolate_poses(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 4)), [1])
    assert np.isnan(none[0]).all()


# Cameras ----------------------------------------------------------------------------------


def cloud(spread: float) -> np.ndarray:
    z = RNG.uniform(0.5, 8.0, 2000)
    return np.stack([*(RNG.uniform(-spread, spread, (2, 2000)) * z), z], axis=1)


@pytest.mark.parametrize("count", [0, 4, 5, 8])
def test_projection_equals_opencv(count):
    points = cloud(0.6)
    if count:
        distortion = np.array(BROWN[count])
        camera = g.CameraModel(g.LensModel.BROWN_CONRADY, K, distortion, 320, 240)
    else:
        distortion, camera = np.zeros(5), g.CameraModel.pinhole(K, 320, 240)
    want = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, distortion)[0][:, 0]
    uv, valid = camera.project(points)
    assert valid.all()
    assert np.abs(uv - want).max() < 1e-9


def test_fisheye_projection_equals_opencv():
    points = cloud(2.5)
    camera = g.CameraModel(g.LensModel.FISHEYE, WIDE_K, np.array(FISHEYE), 320, 240)
    want = cv2.fisheye.projectPoints(
        points[:, None], np.zeros((3, 1)), np.zeros((3, 1)), WIDE_K, np.array(FISHEYE)
    )[0][:, 0]
    uv, valid = camera.project(points)
    assert valid.all()
    assert np.abs(uv - want).max() < 1e-9
    centre, seen = camera.project([0.0, 0.0, 2.0])
    assert seen
    assert np.array_equal(centre, WIDE_K[:2, 2])


def test_fisheye_sees_sideways_and_a_little_behind():
    camera = g.CameraModel(g.LensModel.FISHEYE, WIDE_K, np.zeros(4), 320, 240)
    uv, valid = camera.project([[1.0, 0.0, 0.0], [1.0, 0.0, -0.1], [0.0, 0.0, -1.0]])
    assert valid.tolist() == [True, True, False]
    assert np.isclose(uv[0, 0], WIDE_K[0, 2] + WIDE_K[0, 0] * np.pi / 2)
    assert uv[1, 0] > uv[0, 0]


@pytest.mark.parametrize("camera", cameras(), ids=lambda c: f"{c.model}{len(c.distortion)}")
@settings(deadline=None)
@given(u=st.floats(-0.5, 319), v=st.floats(-0.5, 239), depth=st.floats(0.2, 50))
def test_unproject_inverts_project(camera, u, v, depth):
    ray = camera.unproject([u, v])
    assert np.isclose(np.linalg.norm(ray), 1.0, atol=1e-14)
    uv, valid = camera.project(ray * depth)
    assert valid
    assert np.abs(uv - [u, v]).max() < 1e-8


@pytest.mark.parametrize("camera", cameras(), ids=lambda c: f"{c.model}{len(c.distortion)}")
def test_points_behind_the_camera_are_not_valid(camera):
    points = cloud(0.5) * np.array([1, 1, -1])
    uv, valid = camera.project(points)
    if camera.model is not g.LensModel.FISHEYE:
        assert not valid.any()
        assert np.isnan(uv).all()
    assert not camera.project([np.nan, 0.0, 1.0])[1]


def test_points_beyond_the_fold_are_not_valid():
    # With k1 = -0.3 the distorted radius r (1 - 0.3 r^2) grows until r = sqrt(1 / 0.9).
    camera = g.CameraModel(g.LensModel.BROWN_CONRADY, K, np.array([-0.3, 0, 0, 0]), 320, 240)
    fold = np.sqrt(1 / 0.9)
    points = [[fold * 0.999, 0.0, 1.0], [fold * 1.001, 0.0, 1.0], [1.8, 0.0, 1.0]]
    assert camera.project(points)[1].tolist() == [True, False, False]
    # OpenCV puts the last point, 61 degrees off axis, in the middle of the image.
    folded = cv2.projectPoints(
        np.array([points[2]]), np.zeros(3), np.zeros(3), K, np.array([-0.3, 0, 0, 0.0])
    )[0]
    assert camera.contains(folded).all()
    # No ray leads to a pixel beyond the largest distorted radius.
    edge = K[0, 2] + K[0, 0] * fold * (1 - 0.3 * fold**2)
    rays = camera.unproject([[edge - 1, K[1, 2]], [edge + 1, K[1, 2]]])
    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1]).all()


@pytest.mark.parametrize(
    ("model", "K_", "distortion", "message"),
    [
        ("pinhole", np.zeros((3, 3)), [], "positive focal"),
        ("pinhole", K, [0.1], "takes"),
        ("fisheye", K, [0.1, 0.2], "takes"),
        ("brown_conrady", K, [0.1, np.nan, 0, 0], "finite"),
        ("cylinder", K, [], "cylinder"),
    ],
)
def test_bad_intrinsics_are_refused(model, K_, distortion, message):
    with pytest.raises(ValueError, match=message):
        g.CameraModel(model, K_, np.array(distortion), 320, 240)


# Boxes ------------------------------------------------------------------------------------


def test_box_corners_and_edges():
    corners = g.box_corners([1, 2, 3], [4, 2, 1], g.quat_from_rotvec([0, 0, np.pi / 2]))
    # Length 4 now runs along y, width 2 along x.
    assert np.allclose(corners.min(axis=0), [0, 0, 2.5])
    assert np.allclose(corners.max(axis=0), [2, 4, 3.5])
    lengths = np.linalg.norm(corners[g.BOX_EDGES[:, 0]] - corners[g.BOX_EDGES[:, 1]], axis=1)
    assert sorted(np.round(lengths, 9)) == [1] * 4 + [2] * 4 + [4] * 4
    assert g.box_corners(np.zeros((6, 3)), np.ones((6, 3)), [1.0, 0, 0, 0]).shape == (6, 8, 3)


def test_points_in_box():
    q = g.quat_from_rotvec([0.3, -0.2, 0.9])
    points = RNG.uniform(-3, 3, (5000, 3))
    inside = g.points_in_box(points, [0.5, 0, 0], [2, 1, 3], q)
    local = (points - [0.5, 0, 0]) @ g.quat_to_matrix(q)
    assert np.array_equal(inside, (np.abs(local) <= [1, 0.5, 1.5]).all(axis=1))
    assert inside.sum() > 50


def test_a_box_across_the_near_plane_is_clipped_not_dropped():
    # A wall alongside: from 2 m behind the camera to 10 m ahead, 1 m to the right.
    camera = g.CameraModel.pinhole(K, 320, 240)
    corners = g.box_corners([1.5, 0.0, 4.0], [1.0, 1.0, 12.0], [1.0, 0, 0, 0])
    assert camera.project(corners)[1].sum() == 4
    box = g.project_box(camera, corners)
    assert box is not None
    # Its far inner edge is at x = 1, z = 10; the near end leaves the image to the right.
    assert np.isclose(box.polygon[:, 0].min(), K[0, 2] + K[0, 0] * 0.1)
    near = K[0, 2] + K[0, 0] * 2.0 / 0.1
    assert np.isclose(box.polygon[:, 0].max(), near)
    clipped = box.clipped(camera)
    assert np.isclose(clipped[:, 0].max(), 319.5)
    bounds, seen = g.project_box_bounds(camera, corners[None])
    assert seen.all()
    assert np.allclose(bounds[0], [*box.polygon.min(axis=0), *box.polygon.max(axis=0)])


def test_a_box_behind_is_unseen():
    for camera in cameras():
        corners = g.box_corners([0, 0, -50.0], [1, 1, 1], [1.0, 0, 0, 0])
        bounds, seen = g.project_box_bounds(camera, corners[None])
        assert g.project_box(camera, corners) is None
        assert not seen.any()
        assert np.isnan(bounds).all()


@pytest.mark.parametrize("camera", cameras(), ids=lambda c: f"{c.model}{len(c.distortion)}")
def test_outline_holds_the_surface_of_the_box(camera):
    """Points on the box's skin project into the bounds found from its edges alone."""
    skin = RNG.uniform(-0.5, 0.5, (3000, 3))
    skin[np.arange(3000), RNG.integers(0, 3, 3000)] = RNG.choice([-0.5, 0.5], 3000)
    for _ in range(10):
        center = RNG.uniform([-2, -1, 0.5], [2, 1, 6])
        size = RNG.uniform(0.3, 4.0, 3)
        q = g.quat_normalise(RNG.normal(size=4))
        points = center + g.quat_rotate(q, skin * size)
        if np.linalg.norm(center) < np.linalg.norm(size):  # The camera may be inside.
            continue
        uv, valid = camera.project(points)
        uv = uv[valid & (points[:, 2] > g.boxes.NEAR_M)]
        bounds, seen = g.project_box_bounds(
            camera, g.box_corners(center, size, q)[None], samples=33
        )
        inside = uv[camera.contains(uv)]
        assert len(inside) == 0 or seen[0]
        if len(inside):
            # Bent edges are sampled: a chord misses less than half a pixel of the arc.
            assert (inside >= bounds[0, :2] - 0.5).all()
            assert (inside <= bounds[0, 2:] + 0.5).all()


def test_polylines_are_cut_into_visible_pieces():
    camera = g.CameraModel.pinhole(K, 320, 240)
    line = [[0, 0, 1.0], [0, 0.1, -1.0], [0.1, 0.1, -1.0], [0.1, 0, 1.0], [0.2, 0, 1.0]]
    pieces = g.project_polyline(camera, line, near_m=0.5, samples=2)
    assert [len(piece) for piece in pieces] == [2, 3]
    # The first segment meets z = 0.5 a quarter of the way along.
    assert np.allclose(pieces[0][1], [K[0, 2], K[1, 2] + K[1, 1] * 0.025 / 0.5])
    assert g.project_polyline(camera, [[0, 0, 1.0]]) == []


def test_clip_polygon_by_hand():
    square = np.array([[-10.0, -10.0], [9.5, -10.0], [9.5, 5.0], [-10.0, 5.0]])
    clipped = g.clip_polygon(square, 20, 20)
    assert sorted(map(tuple, clipped.tolist())) == [
        (-0.5, -0.5),
        (-0.5, 5.0),
        (9.5, -0.5),
        (9.5, 5.0),
    ]
    assert g.clip_polygon(square - 50, 20, 20).shape == (0, 2)


# Rig --------------------------------------------------------------------------------------


def rig() -> g.Rig:
    brown = cameras()[2]
    base_SE3_link = g.SE3.from_quaternion(g.quat_from_rotvec([0, 0, np.pi / 2]), [1.0, 0, 0])
    link_SE3_camera = g.SE3.from_quaternion(g.quat_from_rotvec([0.1, 0.2, 0.3]), [0, 0, 0.1])
    base_SE3_lidar = g.SE3.from_quaternion([1.0, 0, 0, 0], [0, 0, 2.0])
    return g.Rig(
        [
            g.Sensor("link", "link", "base", base_SE3_link),
            g.Sensor("camera_front", "front_optical", "link", link_SE3_camera, brown),
            g.Sensor("lidar", "lidar", "base", base_SE3_lidar),
            g.Sensor("mic", "mic"),
        ]
    )


def test_rig_walks_the_tree():
    r = rig()
    point = [0.3, -0.2, 5.0]
    in_base = r["link"].parent_SE3_sensor.apply(r["camera_front"].parent_SE3_sensor.apply(point))
    lidar_SE3_camera = r.transform("lidar", "camera_front")
    assert np.allclose(lidar_SE3_camera.apply(point), in_base - [0, 0, 2.0])
    assert r.transform("lidar", "front_optical") == lidar_SE3_camera  # By frame as well.
    assert r.transform("base", "base") == g.SE3.identity()
    assert r.transform("camera_front", "lidar").is_close(lidar_SE3_camera.inverse())


def test_unknown_calibration_is_absent():
    r = rig()
    assert r.transform("mic", "lidar") is None
    assert r.transform("nowhere", "lidar") is None
    assert r.to_dict()["mic"] == {"frame_id": "mic"}
    assert "model" not in r.to_dict()["lidar"]


def test_a_loop_of_frames_ends():
    pose = g.SE3.from_quaternion([1.0, 0, 0, 0], [1, 0, 0])
    loop = g.Rig([g.Sensor("a", "a", "b", pose), g.Sensor("b", "b", "a", pose)])
    assert loop.transform("a", "elsewhere") is None
    assert np.allclose(np.abs(loop.transform("b", "a").translation), [1, 0, 0])


def test_rig_round_trips_through_json_exactly():
    values = rig().to_dict()
    again = g.Rig.from_dict(json.loads(json.dumps(values)))
    assert again.to_dict() == values
    assert dict(again) == dict(rig())
    assert list(again) == ["link", "camera_front", "lidar", "mic"]


def test_a_camera_without_its_matrix_is_refused():
    with pytest.raises(ValueError, match="lacks 'K'"):
        g.Rig.from_dict({"cam": {"model": "pinhole", "width": 3, "height": 2}})
    with pytest.raises(ValueError, match="two sensors"):
        g.Rig([g.Sensor("a", "a"), g.Sensor("a", "b")])
