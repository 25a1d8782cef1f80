"""Ego motion as a LiDAR sees it: point-to-plane ICP between consecutive sweeps.

The motion between two sweeps becomes a rate at the midpoint between their middles, a signal like
any other for :mod:`mmdata.sync.correlate`. Within a sweep each point has its own time; sweeps are
straightened (deskewed) with the motion found so far where the sensor gives those times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mmdata.geometry import quaternions
from mmdata.sync.correlate import Floats, Signal, Stamps

MAX_POINTS = 3000
MAX_ITERATIONS = 30


@dataclass(frozen=True)
class SweepMotion:
    """Rates between consecutive sweeps in the sensor's frame; K = pairs that could be matched.

    stamp_ns (K,), linear (K, 3) m/s, angular (K, 3) rad/s, residual_m (K,) median distance left.
    """

    stamp_ns: Stamps
    linear: Floats
    angular: Floats
    residual_m: Floats

    def signals(self) -> tuple[Signal, Signal]:
        return Signal(self.stamp_ns, self.linear), Signal(self.stamp_ns, self.angular)


def sweep_motion(
    stamp_ns: Stamps, sweeps: Iterable[tuple[Floats, Stamps | None]], *, max_residual_m: float = 0.5
) -> SweepMotion:
    """Motion from sweeps: per stamp (points (P, 3) in metres, point_offset_ns (P,) or None)."""
    middles, rows = [], []
    previous: tuple[Floats, Floats, int] | None = None
    guess = np.zeros(6)  # rates of the pair before: vehicles do not change them at once
    for stamp, (points, offset) in zip(np.asarray(stamp_ns, np.int64), sweeps, strict=True):
        kept, when = _thin(points, offset)
        middle = int(stamp) + (int(np.median(when)) if when is not None else 0)
        if when is not None:
            since = (when - np.median(when)) / 1e9
            kept = _move(kept, guess[None, :] * since[:, None])
        if len(kept) < 50:
            previous = None
            continue
        normals = _normals(kept)
        if previous is not None and middle > previous[2]:
            dt = (middle - previous[2]) / 1e9
            step, left = _icp(kept, previous[0], previous[1], guess * dt)
            if left <= max_residual_m:
                guess = step / dt
                middles.append(previous[2] + (middle - previous[2]) // 2)
                rows.append(np.r_[guess, left])
        previous = (kept, normals, middle)
    table = np.asarray(rows, np.float64).reshape(-1, 7)
    return SweepMotion(np.asarray(middles, np.int64), table[:, 3:6], table[:, :3], table[:, 6])


def _thin(points: Floats, offset: Stamps | None) -> tuple[Floats, Stamps | None]:
    """One point per voxel, voxels grown until at most ``MAX_POINTS`` remain; range 1 m and up."""
    points = np.asarray(points, np.float64)
    distance = np.linalg.norm(points, axis=1)
    index = np.flatnonzero(np.isfinite(distance) & (distance > 1.0))
    voxel = 0.3
    while len(index) > MAX_POINTS:
        cells = np.floor(points[index] / voxel).astype(np.int64)
        key = cells @ np.array([73856093, 19349663, 83492791])
        _, first = np.unique(key, return_index=True)
        index = index[np.sort(first)]
        voxel *= 1.4
    return points[index], None if offset is None else np.asarray(offset, np.int64)[index]


def _normals(points: Floats) -> Floats:
    """Unit normal of each point's ten nearest; zero where they form no plane."""
    from scipy.spatial import cKDTree

    _, near = cKDTree(points).query(points, k=min(10, len(points)))
    local = points[near] - points[near].mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(local.transpose(0, 2, 1) @ local)
    flat = values[:, 0] < 0.1 * values[:, 1]
    return np.asarray(np.where(flat[:, None], vectors[:, :, 0], 0.0))


def _icp(source: Floats, target: Floats, normals: Floats, start: Floats) -> tuple[Floats, float]:
    """Rotation vector and translation (6,) of ``source`` onto ``target``; median residual."""
    from scipy.spatial import cKDTree

    tree = cKDTree(target)
    pose = start.copy()
    residual = np.inf
    for _ in range(MAX_ITERATIONS):
        moved = _move(source, pose[None, :])
        distance, i = (np.asarray(found) for found in tree.query(moved))
        near = distance < max(3 * float(np.median(distance)), 0.2)
        near &= np.any(normals[i] != 0, axis=1)
        if np.count_nonzero(near) < 30:
            return pose, np.inf
        n, p = normals[i[near]], moved[near]
        error = np.einsum("ij,ij->i", n, target[i[near]] - p)
        scale = 1.4826 * float(np.median(np.abs(error))) + 1e-6
        weight = 1 / (1 + (error / (2 * scale)) ** 2)
        design = np.c_[np.cross(p, n), n]
        normal = (design * weight[:, None]).T @ design + 1e-6 * np.eye(6)
        change = np.linalg.solve(normal, (design * weight[:, None]).T @ error)
        pose = _compose(change, pose)
        residual = float(np.median(np.abs(error)))
        if np.abs(change).max() < 1e-5:
            break
    return pose, residual


def _move(points: Floats, pose: Floats) -> Floats:
    """Apply (rotation vector, translation) rows, one for all points or one per point."""
    q = quaternions.quat_from_rotvec(pose[:, :3])
    return np.asarray(quaternions.quat_rotate(q, points) + pose[:, 3:])


def _compose(after: Floats, before: Floats) -> Floats:
    q = quaternions.quat_from_rotvec(after[:3])
    turn = quaternions.quat_multiply(q, quaternions.quat_from_rotvec(before[:3]))
    return np.concatenate(
        [quaternions.quat_to_rotvec(turn), quaternions.quat_rotate(q, before[3:]) + after[3:]]
    )
