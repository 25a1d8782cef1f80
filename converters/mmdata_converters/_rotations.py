"""Rotations as other formats write them, as quaternions qw, qx, qy, qz."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.geometry import quat_from_rotvec, quat_multiply


def from_roll_pitch_yaw(angles: NDArray[Any]) -> NDArray[np.float64]:
    """(n, 3) roll, pitch, yaw about fixed x, y, z to quaternions (n, 4): R = Rz Ry Rx."""
    values = np.asarray(angles, np.float64)
    zero = np.zeros(len(values))
    roll, pitch, yaw = values.T
    q_roll = quat_from_rotvec(np.stack([roll, zero, zero], -1))
    q_pitch = quat_from_rotvec(np.stack([zero, pitch, zero], -1))
    q_yaw = quat_from_rotvec(np.stack([zero, zero, yaw], -1))
    return np.asarray(quat_multiply(quat_multiply(q_yaw, q_pitch), q_roll), np.float64)


def from_xyzw(values: NDArray[Any]) -> NDArray[Any]:
    """(..., 4) qx, qy, qz, qw to qw, qx, qy, qz."""
    return np.asarray(values)[..., [3, 0, 1, 2]]
