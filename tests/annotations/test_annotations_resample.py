"""Tracks at other instants and in a moving frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.annotations import Scene, read_format, write_format
from mmdata.annotations.resample import resample
from mmdata.annotations.scene import Losses, Poses
from mmdata.geometry import SE3, Rig, Sensor
from mmdata_schema import Layer, Provenance, Track2D, Track3D

T0 = 1_760_030_100_000_000_000
S = 1_000_000_000
Q = (1.0, 0.0, 0.0, 0.0)
QUARTER = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))


def layer(**collections: Any) -> Layer:
    return Layer(episode_id="e", name="gt", provenance=Provenance(author="a"), **collections)


def track(**more: Any) -> Track3D:
    return Track3D.parse(
        {"id": "t", "object_id": "car", "label": "car", "frame_id": "world",
         "stamp_ns": [T0, T0 + S, T0 + 4 * S], "center_m": [(0, 0, 0), (10, 0, 0), (40, 6, 0)],
         "size_lwh_m": [(4, 2, 1)] * 3, "quaternion_wxyz": [Q, Q, QUARTER],
         "keyframe_attributes": {"n": [1, 2, 3]}, **more}
    )  # fmt: skip


def scene(*seconds: float, **more: Any) -> Scene:
    stamps = np.array([T0 + round(s * S) for s in seconds], dtype=np.int64)
    return Scene("e", stamps={"cam": stamps}, stream="cam", **more)


def test_track_is_asked_at_the_samples() -> None:
    losses = Losses()
    where = scene(-1, 0.25, 1, 2.5, 9)
    (made,) = resample(layer(tracks_3d=[track()]), where, losses).tracks_3d
    assert made.stamp_ns == [T0 + S // 4, T0 + S, T0 + 5 * S // 2]
    assert made.center_m == [(2.5, 0, 0), (10, 0, 0), (25, 3, 0)]
    # Half of a quarter turn.
    assert made.quaternion_wxyz[2] == pytest.approx(
        (math.cos(math.pi / 8), 0, 0, math.sin(math.pi / 8))
    )
    assert made.interpolated == [True, None, True]
    assert made.keyframe_attributes == {"n": [None, 2, None]}
    (loss,) = losses.report()
    assert loss.count == 2  # two of three keyframes lie on no sample


def test_nothing_is_made_up_in_gaps_or_beyond_the_ends() -> None:
    gap = track(gap_after=[False, True, False])
    made = resample(layer(tracks_3d=[gap]), scene(0.5, 1, 2.5, 3.9, 4), Losses()).tracks_3d[0]
    assert made.stamp_ns == [T0 + S // 2, T0 + S, T0 + 4 * S]
    assert made.gap_after == [False, True, False]
    made = resample(layer(tracks_3d=[gap]), scene(0.5, 2, 4), Losses()).tracks_3d[0]
    assert made.gap_after == [True, False]
    losses = Losses()
    assert resample(layer(tracks_3d=[gap]), scene(2, 3), losses).tracks_3d == []
    assert "exist at no sample" in losses.report()[0].what


def test_rectangles_are_asked_at_the_samples_of_their_own_stream() -> None:
    flat = Track2D(
        id="f", object_id="o", label="car", stream="cam", stamp_ns=[T0, T0 + S],
        xyxy_px=[(0, 0, 4, 4), (8, 0, 12, 8)], rotation_rad=[0.0, 0.5],
    )  # fmt: skip
    made = resample(layer(tracks_2d=[flat]), scene(0.5), Losses()).tracks_2d[0]
    assert made.xyxy_px == [(4, 0, 8, 6)]
    assert made.rotation_rad == [0.25]
    losses = Losses()
    other = flat.edit(stream="elsewhere")
    assert resample(layer(tracks_2d=[other]), scene(0.5), losses).tracks_2d == []
    assert "not known" in losses.report()[0].what


def test_moves_into_a_frame_that_moves() -> None:
    # The vehicle drives 10 m/s along x; the camera stands 2 m ahead of its origin.
    poses = Poses(
        "world", "ego", np.array([T0, T0 + 4 * S]), np.array([[0.0, 0, 0], [40, 0, 0]]),
        np.array([Q, Q]),
    )  # fmt: skip
    rig = Rig([Sensor("camera", "camera", "ego", SE3.from_quaternion(Q, (2, 0, 0)))])
    where = scene(0.5, 2.5, rig=rig, poses=(poses,), frame_id="camera")
    made = resample(layer(tracks_3d=[track()]), where, Losses()).tracks_3d[0]
    # At 0.5 s: box at 5, vehicle at 5; at 2.5 s: box at (25, 3), vehicle at 25.
    np.testing.assert_allclose(made.center_m, [(-2, 0, 0), (-2, 3, 0)], atol=1e-12)
    assert made.frame_id == "camera"
    back = where.transform("world", "camera", T0 + S)
    assert back is not None
    np.testing.assert_allclose(back.translation, [12, 0, 0], atol=1e-12)
    assert where.transform("world", "camera", T0 + 5 * S) is None
    losses = Losses()
    lost = scene(0.5, rig=rig, frame_id="camera")
    assert resample(layer(tracks_3d=[track()]), lost, losses).tracks_3d[0].frame_id == "world"
    assert any("no known place" in loss.what for loss in losses.report())


def test_pandaset_boxes_as_kitti_labels_of_a_camera(shared_data: Path, tmp_path: Path) -> None:
    """World boxes at LiDAR times, written per image of a camera that moves: seen where they are."""
    source = shared_data / "real/pandaset_002/drive.cuboids.json"
    made = read_format("pandaset", source, Scene("drive"), layer="gt").layer
    stamps = np.array([made.tracks_3d[0].stamp_ns[0] + 50_000_000 + k * 10**8 for k in range(9)])
    # x right, y down, z forward of a camera that looks along the world's x and drives along it.
    turn = SE3.from_matrix([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5]])
    poses = Poses(
        "world", "camera", stamps[[0, -1]], np.array([[0.0, 0, 1.5], [8.0, 0, 1.5]]),
        np.array([turn.quaternion] * 2),
    )  # fmt: skip
    where = Scene("drive", stamps={"cam": stamps}, stream="cam", frame_id="camera", poses=(poses,))
    exported = write_format("kitti", tmp_path, made, where, resample=True)
    assert len(exported.files) == 9
    lines = exported.files[4].read_text().splitlines()
    tracks = [t for t in made.tracks_3d if t.stamp_ns[0] <= stamps[4] <= t.stamp_ns[-1]]
    assert len(lines) == len(tracks)
    wanted = []
    for t in tracks:
        k = int(np.searchsorted(t.stamp_ns, stamps[4])) - 1
        part = (stamps[4] - t.stamp_ns[k]) / (t.stamp_ns[k + 1] - t.stamp_ns[k])
        x, y, z = (1 - part) * np.array(t.center_m[k]) + part * np.array(t.center_m[k + 1])
        wanted.append((-y, 1.5 - z + t.size_lwh_m[k][2] / 2, x - 4.0))
    got = [tuple(float(v) for v in line.split()[-4:-1]) for line in lines]
    np.testing.assert_allclose(sorted(got), sorted(wanted), atol=0.02)
