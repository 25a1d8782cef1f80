"""Boxes of two annotators against each other: exact overlap of turned boxes, yaw, matching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from mmdata.geometry import box_corners, quat_conjugate, quat_rotate
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
    # In b's own frame its planes are those of the axes (and no digits are lost to a map's origin).
    corners = box_corners(np.subtract(a.center_m, b.center_m), a.size_lwh_m, a.quaternion_wxyz)
    local = quat_rotate(quat_conjugate(b.quaternion_wxyz), corners).tolist()
    faces = [[local[i] for i in face] for face in _FACES]
    for axis, size in enumerate(b.size_lwh_m):
        for sign in (1.0, -1.0):
            faces = _cut(faces, axis, sign, size / 2)
            if not faces:
                return 0.0
    return _volume(faces)


# Plain lists: a body has a few dozen points, for which arrays are many times slower.
_Point = list[float]
_Face = list[_Point]


def _cut(faces: list[_Face], axis: int, sign: float, limit: float) -> list[_Face]:
    """A convex body cut to sign * x[axis] <= limit, its cut closed by a new face."""
    kept: list[_Face] = []
    rim: list[_Point] = []
    cut = False
    for face in faces:
        side = [sign * p[axis] - limit for p in face]
        rim += [p for p, s in zip(face, side, strict=True) if abs(s) <= _EPSILON]
        if max(side) <= _EPSILON:
            kept.append(face)
            continue
        cut = True
        points: list[_Point] = []
        for i, (p, s) in enumerate(zip(face, side, strict=True)):
            if s <= _EPSILON:
                points.append(p)
            q, t = face[i - len(face) + 1], side[i - len(face) + 1]
            if min(s, t) < -_EPSILON and max(s, t) > _EPSILON:
                part = s / (s - t)
                crossing = [x + part * (y - x) for x, y in zip(p, q, strict=True)]
                points.append(crossing)
                rim.append(crossing)
        if len(points) > 2:
            kept.append(points)
    if cut and kept and len(rim) > 2:
        kept.append(_ring(rim, axis, sign))
    return kept


def _ring(points: list[_Point], axis: int, sign: float) -> _Face:
    """Points of a convex polygon in order, counter-clockwise seen from where the axis points."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    u0 = sum(p[u] for p in points) / len(points)
    v0 = sum(p[v] for p in points) / len(points)
    return sorted(points, key=lambda p: sign * math.atan2(p[v] - v0, p[u] - u0))


def _volume(faces: list[_Face]) -> float:
    """Sum of the tetrahedra from the origin to the faces' triangles (divergence theorem)."""
    total = 0.0
    for (ax, ay, az), *rest in faces:
        for (bx, by, bz), (cx, cy, cz) in pairwise(rest):
            total += ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
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
    for i, j in np.argwhere(_touching(a, b)).tolist():
        x, y = a[i], b[j]
        if isinstance(x, Box3D) and isinstance(y, Box3D):
            iou[i, j] = np.nan_to_num(iou_3d(x, y))
        elif isinstance(x, Box2D) and isinstance(y, Box2D):
            iou[i, j] = np.nan_to_num(iou_2d(x, y))
    iou = np.where(iou >= min_iou, iou, 0.0)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return [
        (int(i), int(j), float(iou[i, j])) for i, j in zip(rows, columns, strict=True) if iou[i, j]
    ]


def _touching(a: Sequence[Box2D | Box3D], b: Sequence[Box2D | Box3D]) -> npt.NDArray[np.bool_]:
    """Pairs (A, B) whose upright bounds overlap: the others need no exact answer."""
    low_a, high_a = _bounds(a)
    low_b, high_b = _bounds(b)
    overlap = (low_a[:, None] <= high_b[None]) & (low_b[None] <= high_a[:, None])
    return np.asarray(overlap.all(axis=-1))


def _bounds(boxes: Sequence[Box2D | Box3D]) -> tuple[Floats, Floats]:
    """Lowest and highest corner (N, 3) of each box; a rectangle has no third dimension."""
    rows = []
    for box in boxes:
        if isinstance(box, Box3D):
            corners = box_corners(box.center_m, box.size_lwh_m, box.quaternion_wxyz)
            rows.append(np.concatenate([corners.min(axis=0), corners.max(axis=0)]))
        else:
            x0, y0, x1, y1 = box.xyxy_px
            rows.append(np.array([x0, y0, 0.0, x1, y1, 0.0]))
    stack = np.array(rows).reshape(-1, 6)
    return stack[:, :3], stack[:, 3:]
