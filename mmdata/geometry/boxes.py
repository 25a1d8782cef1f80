"""3D boxes and lines seen by a camera, clipped at the near plane and at the lens's range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmdata.geometry.camera import CameraModel, LensModel
from mmdata.geometry.quaternions import Floats, quat_conjugate, quat_rotate

NEAR_M = 0.1
_BISECTIONS = 40
_BLOCK = 512

_SIGNS = np.array([[x, y, z] for z in (-1, 1) for x, y in ((1, 1), (-1, 1), (-1, -1), (1, -1))])
BOX_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)
"""(12, 2) corner indices: bottom ring, top ring, uprights."""


def box_corners(center: npt.ArrayLike, size: npt.ArrayLike, quaternion: npt.ArrayLike) -> Floats:
    """Corners (..., 8, 3) of boxes: bottom ring (z-) then top ring, counter-clockwise from (+, +).

    Args:
        center: (..., 3) metres.
        size: (..., 3) full extents along the box's own x (length), y (width) and z (height).
        quaternion: (..., 4) orientation of the box in the frame of center.
    """
    center, size = np.asarray(center, dtype=np.float64), np.asarray(size, dtype=np.float64)
    q = np.asarray(quaternion, dtype=np.float64)
    local = 0.5 * size[..., None, :] * _SIGNS
    return center[..., None, :] + quat_rotate(q[..., None, :], local)


def points_in_box(
    points: npt.ArrayLike, center: npt.ArrayLike, size: npt.ArrayLike, quaternion: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Which points (P, 3) lie in one box, faces included."""
    offset = np.asarray(points, dtype=np.float64) - np.asarray(center, dtype=np.float64)
    local = quat_rotate(quat_conjugate(quaternion), offset)
    return np.asarray((np.abs(local) <= 0.5 * np.asarray(size, dtype=np.float64)).all(axis=-1))


@dataclass(frozen=True)
class ProjectedBox:
    """What a camera sees of a box, in pixels; parts may lie outside the image.

    edges: visible pieces of the twelve edges, each (M, 2). polygon: (K, 2) convex outline.
    """

    edges: list[Floats]
    polygon: Floats

    def clipped(self, camera: CameraModel) -> Floats:
        """The outline cut to the image, (K, 2); empty when the box lies outside."""
        return clip_polygon(self.polygon, camera.width, camera.height)


def project_box(
    camera: CameraModel,
    corners: npt.ArrayLike,
    *,
    near_m: float = NEAR_M,
    samples: int = 16,
) -> ProjectedBox | None:
    """Edges and outline of a box with corners (8, 3) in the camera frame, or None if unseen."""
    corners = np.asarray(corners, dtype=np.float64)
    edges = [
        piece
        for i, j in BOX_EDGES
        for piece in project_polyline(camera, corners[[i, j]], near_m=near_m, samples=samples)
    ]
    if not edges:
        return None
    return ProjectedBox(edges, _convex_hull(np.concatenate(edges)))


def project_polyline(
    camera: CameraModel, points: npt.ArrayLike, *, near_m: float = NEAR_M, samples: int = 16
) -> list[Floats]:
    """Visible pieces, each (M, 2) pixels, of a polyline (N, 3) in the camera frame.

    Every segment is sampled, since distortion bends lines, and cut where it crosses the near
    plane or leaves the lens model's range.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 2:
        return []
    pixels, visible = _project_segments(camera, points[:-1], points[1:], near_m, samples)
    pieces: list[list[Floats]] = []
    for segment, seen in zip(pixels, visible, strict=True):
        if not seen.any():
            continue
        run = segment[seen]
        if pieces and np.allclose(pieces[-1][-1][-1], run[0], atol=1e-9):
            pieces[-1].append(run[1:])
        else:
            pieces.append([run])
    return [np.concatenate(piece) for piece in pieces]


def project_box_bounds(
    camera: CameraModel, corners: npt.ArrayLike, *, near_m: float = NEAR_M, samples: int = 8
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Image rectangles of many boxes at once.

    Args:
        camera: the camera.
        corners: (B, 8, 3) in the camera frame.
        near_m: near plane.
        samples: points per edge.

    Returns:
        bounds (B, 4) as u_min, v_min, u_max, v_max, not cut to the image, NaN where unseen;
        seen (B,), whether any part projects at all.
    """
    corners = np.asarray(corners, dtype=np.float64)
    bounds = np.empty((len(corners), 4))
    # In blocks, so that a million boxes need no more memory than a thousand.
    for first in range(0, len(corners), _BLOCK):
        block = corners[first : first + _BLOCK]
        pixels, visible = project_box_edges(camera, block, near_m=near_m, samples=samples)
        mask = visible[..., None]
        low = np.where(mask, pixels, np.inf).min(axis=(1, 2))
        high = np.where(mask, pixels, -np.inf).max(axis=(1, 2))
        bounds[first : first + _BLOCK] = np.concatenate([low, high], axis=1)
    seen = np.asarray(np.isfinite(bounds).all(axis=1))
    return np.where(seen[:, None], bounds, np.nan), seen


def project_box_edges(
    camera: CameraModel, corners: npt.ArrayLike, *, near_m: float = NEAR_M, samples: int = 8
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Edges of many boxes (B, 8, 3), cut to what the camera can see.

    Returns:
        pixels (B, 12, samples, 2) along each edge of BOX_EDGES, NaN where unseen; seen
        (B, 12, samples).
    """
    corners = np.asarray(corners, dtype=np.float64)
    start = corners[:, BOX_EDGES[:, 0]].reshape(-1, 3)
    end = corners[:, BOX_EDGES[:, 1]].reshape(-1, 3)
    pixels, visible = _project_segments(camera, start, end, near_m, samples)
    shape = (len(corners), len(BOX_EDGES), samples)
    return pixels.reshape(*shape, 2), visible.reshape(shape)


def clip_polygon(polygon: npt.ArrayLike, width: int, height: int) -> Floats:
    """A convex polygon (K, 2) cut to the image's outer pixel edges; empty (0, 2) if outside."""
    points = np.asarray(polygon, dtype=np.float64)
    for axis, sign, limit in (
        (0, 1, -0.5),
        (0, -1, width - 0.5),
        (1, 1, -0.5),
        (1, -1, height - 0.5),
    ):
        if len(points) == 0:
            break
        distance = sign * (points[:, axis] - limit)
        following = np.roll(points, -1, axis=0)
        next_distance = np.roll(distance, -1)
        crosses = (distance >= 0) != (next_distance >= 0)
        gap = np.where(crosses, distance - next_distance, 1.0)
        crossing = points + (distance / gap)[:, None] * (following - points)
        crossing[:, axis] = limit
        pairs = np.stack([points, crossing], axis=1).reshape(-1, 2)
        points = pairs[np.stack([distance >= 0, crosses], axis=1).reshape(-1)]
    return points


def _project_segments(
    camera: CameraModel, start: Floats, end: Floats, near_m: float, samples: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Pixels (S, samples, 2) along segments (S, 3) cut to their visible part, and a mask.

    One run per segment: a straight segment meets a convex range at most once. The lens's range is
    a cone, convex up to 90 degrees from the axis; beyond, the longest run is kept.
    """
    direction = end - start
    first, last = np.zeros(len(start)), np.ones(len(start))
    if camera.model is not LensModel.FISHEYE:
        # A lens that sees sideways has no near plane; its range alone decides.
        slope = direction[:, 2]
        safe = np.where(slope == 0, 1.0, slope)
        crossing = np.where(slope == 0, 0.0, (near_m - start[:, 2]) / safe)
        first = np.where(slope > 0, np.clip(crossing, 0, 1), first)
        last = np.where(slope < 0, np.clip(crossing, 0, 1), last)
        gone = np.maximum(start[:, 2], end[:, 2]) < near_m
        last = np.where(gone, first - 1.0, last)

    def at(t: Floats) -> Floats:
        return start[:, None] + t[..., None] * direction[:, None]

    steps = np.linspace(0.0, 1.0, samples)
    t = first[:, None] + steps * (last - first)[:, None]
    valid = camera.sees(at(t)) & (last >= first)[:, None]
    some = np.asarray(valid.any(axis=1))
    partly = some & ~valid.all(axis=1)
    if partly.any():
        run_first, run_last = _longest_run(valid[partly])
        rows = np.flatnonzero(partly)
        for run, outward in ((run_first, -1), (run_last, 1)):
            inside = t[rows, run]
            outside = t[rows, np.clip(run + outward, 0, samples - 1)]
            for _ in range(_BISECTIONS):
                middle = 0.5 * (inside + outside)
                point = start[rows] + middle[:, None] * direction[rows]
                seen = camera.sees(point)
                inside, outside = np.where(seen, middle, inside), np.where(seen, outside, middle)
            (first if outward < 0 else last)[rows] = inside
        t = first[:, None] + steps * (last - first)[:, None]
    # A grazing segment may be seen only between two samples; it is then left out.
    pixels, valid_now = camera.project(at(t))
    return pixels, valid_now & some[:, None]


def _longest_run(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First and last index of the longest run of True in each row."""
    length = np.zeros(mask.shape, dtype=np.intp)
    for column in range(mask.shape[1]):
        before = length[:, column - 1] if column else 0
        length[:, column] = np.where(mask[:, column], before + 1, 0)
    last = length.argmax(axis=1)
    return last - length.max(axis=1) + 1, last


def _convex_hull(points: Floats) -> Floats:
    """Andrew's monotone chain, counter-clockwise in (u, v); collinear points are dropped."""
    ordered = np.unique(points, axis=0).tolist()
    if len(ordered) < 3:
        return np.array(ordered)

    def chain(sequence: list[list[float]]) -> list[list[float]]:
        hull: list[list[float]] = []
        for p in sequence:
            while len(hull) > 1:
                (ax, ay), (bx, by) = hull[-2], hull[-1]
                if (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax) > 0:
                    break
                hull.pop()
            hull.append(p)
        return hull[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))
