"""Where a track's object is at an instant; the same rules as viewer/web/src/tracks.ts."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import SE3
from mmdata.geometry import quat_multiply, quat_slerp
from mmdata_schema import Track3D
from mmdata_viewer.frames import FrameGraph

Placed = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def box_at(
    track: Track3D, stamp_ns: int, frames: FrameGraph, tolerance_ns: int = 0
) -> Placed | None:
    """Centre (3,), size (3,) and quaternion (4,) in the track's frame; None where it is not seen.

    Linear in time between keyframes, rotation slerped; where the track's frame moves, this happens
    in the frame above it that stands still. Beyond its ends and in gaps the object is seen only
    within tolerance_ns of a keyframe.
    """
    stamps = track.stamp_ns
    right = bisect_left(stamps, stamp_ns)
    if right < len(stamps) and stamps[right] == stamp_ns:
        return _keyframe(track, right)
    left = right - 1
    if left < 0 or right >= len(stamps) or (track.gap_after and track.gap_after[left]):
        near = min(
            (i for i in (left, right) if 0 <= i < len(stamps)),
            key=lambda i: abs(stamps[i] - stamp_ns),
        )
        return _keyframe(track, near) if abs(stamps[near] - stamp_ns) <= tolerance_ns else None
    weight = (stamp_ns - stamps[left]) / (stamps[right] - stamps[left])
    a, b = _keyframe(track, left), _keyframe(track, right)
    root = frames.root(track.frame_id)
    poses: list[SE3 | None] = [
        frames.transform(root, track.frame_id, t) for t in (stamps[left], stamps[right], stamp_ns)
    ]
    back = None
    if poses[0] is not None and poses[1] is not None and poses[2] is not None:
        a, b, back = _moved(poses[0], a), _moved(poses[1], b), poses[2].inverse()
    centre = a[0] + weight * (b[0] - a[0])
    size = a[1] + weight * (b[1] - a[1])
    mixed = (centre, size, quat_slerp(a[2], b[2], weight))
    return mixed if back is None else _moved(back, mixed)


def _keyframe(track: Track3D, i: int) -> Placed:
    columns: list[Any] = [track.center_m[i], track.size_lwh_m[i], track.quaternion_wxyz[i]]
    centre, size, quaternion = (np.asarray(c, np.float64) for c in columns)
    return centre, size, quaternion


def _moved(pose: SE3, box: Placed) -> Placed:
    return pose.apply(box[0]), box[1], quat_multiply(pose.quaternion, box[2])
