"""Boxes of two annotators against each other: exact overlap of turned boxes, yaw, matching."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from mmdata.geometry import box_corners, quat_rotate
from mmdata_schema import Box2D, Box3D

Floats = npt.NDArray[np.float64]

#: Corner indices of the six faces, outward counter-clockwise (corners as `box_corners` has them).
_FACES = ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
#: Metres within which a corner counts as lying in a plane.
_EPSILON = 1e-10


def box_intersection_m3(a: Box3D, b: Box3D) -> float:
    """Volume shared by two boxes of any rotation, exactly: a is clipped by b's six planes.

    ValueError when they lie in different frames.
    """
    if a.frame_id != b.frame_id:
        raise ValueError(f"boxes in frames {a.frame_id!r} and {b.frame_id!r}")
    if math.dist(a.center_m, b.center_m) >= (math.hypot(*a.size_lwh_m)
                                            + math.hypot(*b.size_lwh_m)) / 2:  # fmt: skip
        return 0.0
    # Coordinates from b's centre: world coordinates of a map would cost digits.
    center = np.subtract(a.center_m, b.center_m)
    corners = box_corners(center, a.size_lwh_m, a.quaternion_wxyz)
    faces = [corners[list(face)] for face in _FACES]
    axes = quat_rotate(np.asarray(b.quaternion_wxyz), np.eye(3))
    for axis, size in zip(axes, b.size_lwh_m, strict=True):
        for normal in (axis, -axis):
            faces = _cut(faces, normal, size / 2)
            if not faces:
                return 0.0
    return _volume(faces)


def _cut(faces: list[Floats], normal: Floats, limit: float) -> list[Floats]:
    """A convex body cut to normal . x <= limit, its cut closed by a new face."""
    kept: list[Floats] = []
    rim: list[Floats] = []
    cut = False
    for face in faces:
        side = face @ normal - limit
        rim.extend(face[np.abs(side) <= _EPSILON])
        if (side <= _EPSILON).all():
            kept.append(face)
            continue
        cut = True
        points: list[Floats] = []
        for i in range(len(face)):
            j = (i + 1) % len(face)
            if side[i] <= _EPSILON:
                points.append(face[i])
            if min(side[i], side[j]) < -_EPSILON and max(side[i], side[j]) > _EPSILON:
                crossing = face[i] + side[i] / (side[i] - side[j]) * (face[j] - face[i])
                points.append(crossing)
                rim.append(crossing)
        if len(points) > 2:
            kept.append(np.array(points))
    if cut and kept and len(rim) > 2:
        kept.append(_ring(np.array(rim), normal))
    return kept


def _ring(points: Floats, normal: Floats) -> Floats:
    """Points of a convex polygon in order, counter-clockwise seen against the normal."""
    middle = points.mean(axis=0)
    u = np.cross(normal, [1.0, 0.0, 0.0] if abs(normal[0]) < 0.9 else [0.0, 1.0, 0.0])
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    offset = points - middle
    return np.asarray(points[np.argsort(np.arctan2(offset @ v, offset @ u))])


def _volume(faces: list[Floats]) -> float:
    """Sum of the tetrahedra from the origin to the faces' triangles (divergence theorem)."""
    total = 0.0
    for face in faces:
        fan = np.cross(face[1:-1], face[2:])
        total += float((fan @ face[0]).sum())
    return max(total / 6.0, 0.0)


def iou_3d(a: Box3D, b: Box3D) -> float:
    """Intersection over union of two boxes; NaN when both have no volume."""
    shared = box_intersection_m3(a, b)
    joined = math.prod(a.size_lwh_m) + math.prod(b.size_lwh_m) - shared
    return shared / joined if joined > 0 else float("nan")


def iou_2d(a: Box2D, b: Box2D) -> float:
    """Intersection over union of two upright rectangles; NaN when both have no area.

    ValueError for turned rectangles.
    """
    if a.rotation_rad or b.rotation_rad:
        raise ValueError("iou_2d takes upright rectangles")
    ax0, ay0, ax1, ay1 = a.xyxy_px
    bx0, by0, bx1, by1 = b.xyxy_px
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    joined = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    return shared / joined if joined > 0 else float("nan")


def yaw_difference_rad(a: Box3D, b: Box3D) -> float:
    """Angle in [0, pi] between the headings of two boxes, seen along the frame's z.

    NaN when a box stands upright, so that it has no heading.
    """
    headings = [quat_rotate(box.quaternion_wxyz, (1.0, 0.0, 0.0))[:2] for box in (a, b)]
    if any(math.hypot(*h) < 1e-6 for h in headings):
        return float("nan")
    (ax, ay), (bx, by) = headings
    return abs(math.atan2(ax * by - ay * bx, ax * bx + ay * by))


def match_boxes(
    a: Sequence[Box2D | Box3D], b: Sequence[Box2D | Box3D], min_iou: float
) -> list[tuple[int, int, float]]:
    """One-to-one (index in a, index in b, IoU) of boxes at one instant: largest total IoU."""
    iou = np.zeros((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if isinstance(x, Box3D) and isinstance(y, Box3D):
                iou[i, j] = np.nan_to_num(iou_3d(x, y))
            elif isinstance(x, Box2D) and isinstance(y, Box2D):
                iou[i, j] = np.nan_to_num(iou_2d(x, y))
    iou = np.where(iou >= min_iou, iou, 0.0)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return [
        (int(i), int(j), float(iou[i, j])) for i, j in zip(rows, columns, strict=True) if iou[i, j]
    ]
