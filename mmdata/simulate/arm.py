"""A six-joint arm with a spherical wrist: forward and inverse kinematics in closed form, URDF.

Frames: ``base`` (z up, on the table), ``hand`` (the flange, carrying camera, IMU and force sensor),
``tcp`` between the finger tips. The tool's z axis points out of the hand, its fingers close
along y. At all joints zero the arm stands straight up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmdata.geometry import (
    SE3,
    quat_from_matrix,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
)

Floats = npt.NDArray[np.float64]

JOINTS = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6")
FINGERS = ("finger_left", "finger_right")
SHOULDER_M, UPPER_M, FORE_M, WRIST_M, TCP_M = 0.30, 0.42, 0.38, 0.09, 0.13
HAND_SE3_TCP = SE3.from_quaternion([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, TCP_M])
MAX_WIDTH_M = 0.085

_Z, _Y = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
# Per joint: position in the frame before it, and axis.
_CHAIN = (
    (np.array([0.0, 0.0, SHOULDER_M]), _Z),
    (np.zeros(3), _Y),
    (np.array([0.0, 0.0, UPPER_M]), _Y),
    (np.array([0.0, 0.0, FORE_M]), _Z),
    (np.zeros(3), _Y),
    (np.zeros(3), _Z),
)
LIMITS_RAD = ((-2.9, 2.9), (-1.8, 2.4), (-0.1, 2.8), (-2.9, 2.9), (-0.1, 2.2), (-3.1, 3.1))
# Mass in kg and centre along the link's z, by the joint that carries it.
LINK_MASSES = {1: (2.6, 0.20), 2: (1.9, 0.18), 5: (0.95, 0.12)}


class Part(NamedTuple):
    """A box of the arm's body: the frame that carries it, its centre there and its size."""

    frame: str
    center_m: tuple[float, float, float]
    size_m: tuple[float, float, float]


BODY = (
    Part("base", (0.0, 0.0, 0.11), (0.17, 0.17, 0.22)),
    Part("joint1", (0.0, 0.0, 0.0), (0.13, 0.15, 0.15)),
    Part("joint2", (0.0, 0.0, 0.5 * UPPER_M), (0.10, 0.10, UPPER_M)),
    Part("joint3", (0.0, 0.0, 0.45 * FORE_M), (0.08, 0.08, 0.9 * FORE_M)),
    Part("joint5", (0.0, 0.0, 0.02), (0.07, 0.07, 0.10)),
    Part("hand", (0.0, 0.0, 0.03), (0.06, 0.18, 0.06)),
)
# A finger reaches from the palm to 8 mm beyond the tcp; its inner face closes on y = 0.
FINGER_SIZE_M = (0.022, 0.012, 0.078)
FINGER_TIP_M = 0.008
FINGER_CENTER_Z_M = TCP_M + FINGER_TIP_M - 0.5 * FINGER_SIZE_M[2]


def forward(q: npt.ArrayLike) -> dict[str, tuple[Floats, Floats]]:
    """Pose of every link: name -> position (N, 3) and orientation (N, 4) in ``base``.

    Args:
        q: (N, 6) joint angles in radians.
    """
    q = np.asarray(q, dtype=np.float64)
    position = np.zeros((len(q), 3))
    orientation = np.tile([1.0, 0.0, 0.0, 0.0], (len(q), 1))
    poses = {"base": (position, orientation)}
    for j, (origin, axis) in enumerate(_CHAIN):
        position = position + quat_rotate(orientation, origin)
        orientation = quat_multiply(orientation, quat_from_rotvec(q[:, j, None] * axis))
        poses[JOINTS[j]] = (position, orientation)
    for name, along in (("hand", WRIST_M), ("tcp", TCP_M)):
        position = position + quat_rotate(orientation, along * _Z)
        poses[name] = (position, orientation)
    return poses


def inverse(position: npt.ArrayLike, rotation: npt.ArrayLike) -> Floats:
    """Joint angles (N, 6), elbow up, that bring the tcp to positions (N, 3), rotations (N, 3, 3).

    Raises:
        ValueError: a pose is out of reach.
    """
    p, R = np.asarray(position, dtype=np.float64), np.asarray(rotation, dtype=np.float64)
    wrist = p - (WRIST_M + TCP_M) * R[..., 2]
    q1 = np.arctan2(wrist[:, 1], wrist[:, 0])
    reach, height = np.hypot(wrist[:, 0], wrist[:, 1]), wrist[:, 2] - SHOULDER_M
    cosine = (reach**2 + height**2 - UPPER_M**2 - FORE_M**2) / (2 * UPPER_M * FORE_M)
    if (np.abs(cosine) > 1).any():
        raise ValueError(f"tcp position {p[np.abs(cosine).argmax()]} m is out of the arm's reach")
    q3 = np.arccos(cosine)
    bend = np.arctan2(FORE_M * np.sin(q3), UPPER_M + FORE_M * np.cos(q3))
    q2 = np.arctan2(reach, height) - bend
    turned, pitch = q1, q2 + q3
    c1, s1, cp, sp = np.cos(turned), np.sin(turned), np.cos(pitch), np.sin(pitch)
    # Rows of the transposed forearm rotation Rz(q1) Ry(q2 + q3).
    forearm_T = np.stack(
        [
            np.stack([c1 * cp, s1 * cp, -sp], axis=-1),
            np.stack([-s1, c1, np.zeros_like(c1)], axis=-1),
            np.stack([c1 * sp, s1 * sp, cp], axis=-1),
        ],
        axis=-2,
    )
    w = forearm_T @ R
    q5 = np.arctan2(np.hypot(w[:, 0, 2], w[:, 1, 2]), w[:, 2, 2])
    q4 = np.arctan2(w[:, 1, 2], w[:, 0, 2])
    q6 = np.arctan2(w[:, 2, 1], -w[:, 2, 0])
    return np.stack([q1, q2, q3, q4, q5, q6], axis=-1)


def jacobian(q: npt.ArrayLike, frame: str, offset_z: float = 0.0) -> Floats:
    """Translational Jacobian (N, 3, 6) of the point at (0, 0, offset_z) of a frame."""
    poses = forward(q)
    position, orientation = poses[frame]
    point = position + quat_rotate(orientation, offset_z * _Z)
    carried = list(poses).index(frame)
    columns = []
    for j, (_, axis) in enumerate(_CHAIN):
        if j + 1 > carried:
            columns.append(np.zeros_like(point))
            continue
        origin, turned = poses[JOINTS[j]]
        columns.append(np.cross(quat_rotate(turned, axis), point - origin))
    return np.stack(columns, axis=-1)


def holding_torque(q: npt.ArrayLike, tcp_force: npt.ArrayLike) -> Floats:
    """Joint torques (N, 6) that carry the arm's weight and a force (N, 3) acting on the tcp."""
    q = np.asarray(q, dtype=np.float64)
    load = -np.einsum("nij,ni->nj", jacobian(q, "tcp"), np.asarray(tcp_force))
    for j, (mass, along) in LINK_MASSES.items():
        load += mass * 9.81 * jacobian(q, JOINTS[j], along)[:, 2]
    return np.asarray(load)


def tool_down(yaw: npt.ArrayLike) -> Floats:
    """Orientation (N, 4) of a tool that points straight down, turned by yaw (N,) about base z."""
    turn = quat_from_rotvec(np.asarray(yaw, dtype=np.float64)[..., None] * _Z)
    return quat_multiply(turn, quat_from_matrix(np.diag([-1.0, 1.0, -1.0])))


def arm_urdf() -> str:
    """The arm as URDF text: joints, fingers, and its body as boxes."""
    visuals: dict[str, str] = {}
    for part in BODY:
        visuals[part.frame] = (
            f'<visual><origin xyz="{_numbers(part.center_m)}"/>'
            f'<geometry><box size="{_numbers(part.size_m)}"/></geometry></visual>'
        )
    for name, side in zip(FINGERS, (1, -1), strict=True):
        center = (0.0, side * 0.5 * FINGER_SIZE_M[1], FINGER_CENTER_Z_M)
        visuals[name] = (
            f'<visual><origin xyz="{_numbers(center)}"/>'
            f'<geometry><box size="{_numbers(FINGER_SIZE_M)}"/></geometry></visual>'
        )
    links = ["base", *JOINTS, "hand", "tcp", *FINGERS]
    frames = {joint: f"{joint}_link" for joint in JOINTS} | {f: f"{f}_link" for f in FINGERS}
    out = ['<robot name="sim_arm">']
    out += [f'<link name="{frames.get(n, n)}">{visuals.get(n, "")}</link>' for n in links]
    parent = "base"
    for name, (origin, axis), (low, high) in zip(JOINTS, _CHAIN, LIMITS_RAD, strict=True):
        out.append(
            f'<joint name="{name}" type="revolute"><parent link="{parent}"/>'
            f'<child link="{frames[name]}"/><origin xyz="{_numbers(origin)}"/>'
            f'<axis xyz="{_numbers(axis)}"/>'
            f'<limit lower="{low}" upper="{high}" effort="80" velocity="3"/></joint>'
        )
        parent = frames[name]
    for name, above, along in (("hand", parent, WRIST_M), ("tcp", "hand", TCP_M)):
        out.append(
            f'<joint name="{name}_mount" type="fixed"><parent link="{above}"/>'
            f'<child link="{name}"/><origin xyz="0 0 {along}"/></joint>'
        )
    for name, side in zip(FINGERS, (1, -1), strict=True):
        out.append(
            f'<joint name="{name}" type="prismatic"><parent link="hand"/>'
            f'<child link="{frames[name]}"/><origin xyz="0 0 0"/><axis xyz="0 {side} 0"/>'
            f'<limit lower="0" upper="{0.5 * MAX_WIDTH_M}" effort="40" velocity="0.2"/></joint>'
        )
    return "\n".join([*out, "</robot>"])


def _numbers(values: npt.ArrayLike) -> str:
    return " ".join(f"{v:g}" for v in np.asarray(values, dtype=np.float64))
