"""Box conventions of other formats against ours (length, width, height; x forward, z up)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from mmdata.geometry import quat_multiply, quat_rotate
from mmdata_schema import Box2D, Box3D, Layer, Track2D, Track3D

Vec3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

#: Turns a camera-frame box of KITTI (x along its length, y down) into ours (y left, z up).
_CAMERA_BOX: Quaternion = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)


def quaternion_of_yaw(yaw_rad: float) -> Quaternion:
    """Rotation about z."""
    return (math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2))


def heading(quaternion: Sequence[float]) -> tuple[float, float]:
    """(yaw of the box's x axis about z, tilt of its z axis away from z), radians."""
    x = quat_rotate(quaternion, (1.0, 0.0, 0.0))
    z = quat_rotate(quaternion, (0.0, 0.0, 1.0))
    return math.atan2(x[1], x[0]), math.acos(float(np.clip(z[2], -1.0, 1.0)))


def wrapped(angle_rad: float) -> float:
    """An angle in (-pi, pi]."""
    turned = math.remainder(angle_rad, 2 * math.pi)
    return math.pi if turned == -math.pi else turned


def from_camera_box(
    height: float, width: float, length: float, bottom: Vec3, rotation_y: float
) -> tuple[Vec3, Vec3, Quaternion]:
    """Centre, size and rotation in a camera frame (x right, y down, z forward) of a KITTI box.

    `bottom` is the centre of its bottom face, `rotation_y` turns about the camera's y.
    """
    x, y, z = bottom
    about_y = (math.cos(rotation_y / 2), 0.0, math.sin(rotation_y / 2), 0.0)
    w, i, j, k = (float(v) for v in quat_multiply(about_y, _CAMERA_BOX))
    return (x, y - height / 2, z), (length, width, height), (w, i, j, k)


def to_camera_box(box: Box3D) -> tuple[Vec3, float, float]:
    """Bottom centre, rotation_y and tilt (how far "up" is from the camera's -y) of our box."""
    forward = quat_rotate(box.quaternion_wxyz, (1.0, 0.0, 0.0))
    up = quat_rotate(box.quaternion_wxyz, (0.0, 0.0, 1.0))
    # R_y(r) maps x to (cos r, 0, -sin r).
    rotation_y = math.atan2(-forward[2], forward[0])
    tilt = math.acos(float(np.clip(-up[1], -1.0, 1.0)))
    x, y, z = box.center_m
    return (x, y + box.size_lwh_m[2] / 2, z), rotation_y, tilt


def boxes_3d(layer: Layer) -> Iterator[Box3D]:
    """Every 3D box of a layer: single ones and keyframes of tracks."""
    yield from layer.boxes_3d
    for track in layer.tracks_3d:
        yield from (track.keyframe(i) for i in range(track.keyframe_count))


def boxes_2d(layer: Layer) -> Iterator[Box2D]:
    """Every rectangle of a layer: single ones and keyframes of tracks."""
    yield from layer.boxes_2d
    for track in layer.tracks_2d:
        yield from (track.keyframe(i) for i in range(track.keyframe_count))


_B = TypeVar("_B", Box2D, Box3D)


def by_track(boxes: Sequence[_B]) -> dict[tuple[str, str], list[_B]]:
    """Boxes by (object_id, label), the unit of a track, in order of first appearance."""
    found: dict[tuple[str, str], list[_B]] = {}
    for box in boxes:
        found.setdefault((box.object_id or box.id, box.label), []).append(box)
    return found


def track_losses(track: Track2D | Track3D) -> list[str]:
    """What flattening a track into boxes forgets beyond the boxes themselves."""
    lost = []
    if track.gap_after and any(track.gap_after):
        lost.append("gaps of tracks (gap_after)")
    return lost
