"""Motion that streams report about themselves: poses, joints, odometry, inertial sensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdata.geometry import quaternions
from mmdata.streams import Kind, Stream
from mmdata.sync.correlate import Floats, Signal, Stamps

COMMAND_WORDS = ("command", "cmd", "action", "target", "desired", "goal")
STATE_WORDS = ("joint", "state", "qpos", "gripper", "finger")

MIN_SPEED_M_S = 0.01
MIN_TURN_RAD_S = 0.02
MIN_JOINT_PER_S = 0.02
MAX_JOINTS = 16
PREDICTED_SCORE = 0.95
"""A linear map of many channels fits a lot, so it has to predict nearly all motion."""

"""95th percentiles below which nothing moves enough to carry timing."""


@dataclass(frozen=True)
class Motion:
    """What one stream knows of its motion; None where it does not.

    linear   (N, 3) velocity in m/s, in a frame that stays the same over the stream.
    angular  (N, 3) rotation rate in rad/s, in the body's frame.
    joint    (N, J) joint (or other generalised) velocities, unit of the stream per second.
    twists   frame ("body", "world") -> (N, 6) linear and angular velocity in that frame. What a
             camera sees is linear in the body's twist when it rides along, in the world's when not.
    """

    stream: str
    linear: Signal | None = None
    angular: Signal | None = None
    joint: Signal | None = None
    twists: dict[str, Signal] = field(default_factory=dict)

    def speed(self) -> Signal | None:
        """One number: linear speed where known, else the summed joint speed."""
        source = self.linear or self.joint
        if source is None:
            return None
        return Signal(source.stamp_ns, np.linalg.norm(source.value, axis=1))


def is_command(stream: Stream) -> bool:
    return any(word in stream.name.lower() for word in COMMAND_WORDS)


def stream_motion(stream: Stream) -> Motion | None:
    """Motion of a signal stream, from its fields; None where no field is one of motion."""
    if stream.kind is not Kind.SIGNAL or len(stream) < 8:
        return None
    shapes = {n: f.shape for n, f in stream.info.fields.items() if not f.ragged}
    stamps = stream.stamp_ns
    linear = angular = joint = None
    if shapes.get("linear_velocity") == (3,):
        linear = _clean(stamps, stream["linear_velocity"])
    elif shapes.get("position") == (3,) and _is_place(stream.info.fields["position"].channels):
        linear = derivative(stamps, stream["position"])
    if shapes.get("angular_velocity") == (3,):
        angular = _clean(stamps, stream["angular_velocity"])
    elif shapes.get("orientation") == (4,) and linear is not None:
        angular = rotation_rate(stamps, stream["orientation"])
    if linear is None and angular is None:
        joint = _joint_motion(stream, shapes)
    if linear is None and angular is None and joint is None:
        return None
    return Motion(stream.name, linear, angular, joint, _twists(stream, shapes))


def _twists(stream: Stream, shapes: dict[str, tuple[int, ...]]) -> dict[str, Signal]:
    if shapes.get("linear_velocity") == shapes.get("angular_velocity") == (3,):
        rates = np.c_[stream["linear_velocity"], stream["angular_velocity"]]
        return {"body": _clean(stream.stamp_ns, rates)}
    if shapes.get("position") != (3,) or shapes.get("orientation") != (4,):
        return {}
    pose = np.c_[stream["position"], stream["orientation"]].astype(np.float64)
    stamps, pose = _spaced(stream.stamp_ns, pose)
    if len(stamps) < 8:
        return {}
    velocity = derivative(stamps, pose[:, :3])
    turn = rotation_rate(stamps, pose[:, 3:]).value
    q = pose[:-1, 3:]
    body = np.c_[quaternions.quat_rotate(quaternions.quat_conjugate(q), velocity.value), turn]
    world = np.c_[velocity.value, quaternions.quat_rotate(q, turn)]
    return {"body": Signal(velocity.stamp_ns, body), "world": Signal(velocity.stamp_ns, world)}


def _is_place(channels: tuple[str, ...] | None) -> bool:
    """Three positions are a place unless they are named as joints."""
    return channels is None or [c[-1:].lower() for c in channels] == ["x", "y", "z"]


def derivative(stamp_ns: Stamps, value: Floats) -> Signal:
    """Finite differences of (N, C) values, stamped at the midpoints."""
    stamps, values = _spaced(stamp_ns, value)
    dt = np.diff(stamps) / 1e9
    return Signal(_midpoints(stamps), np.diff(values, axis=0) / dt[:, None])


def rotation_rate(stamp_ns: Stamps, orientation: Floats) -> Signal:
    """Body rotation rate (N - 1, 3) in rad/s from (N, 4) quaternions qw, qx, qy, qz."""
    stamps, q = _spaced(stamp_ns, orientation)
    turn = quaternions.quat_to_rotvec(
        quaternions.quat_multiply(quaternions.quat_conjugate(q[:-1]), q[1:])
    )
    return Signal(_midpoints(stamps), turn / (np.diff(stamps) / 1e9)[:, None])


def _joint_motion(stream: Stream, shapes: dict[str, tuple[int, ...]]) -> Signal | None:
    velocity, position = shapes.get("velocity"), shapes.get("position")
    if velocity and len(velocity) == 1 and velocity[0]:
        values = np.asarray(stream["velocity"], np.float64)
        if np.isfinite(values).any() and np.nanmax(np.abs(values)) > 0:
            return _clean(stream.stamp_ns, values)
    if position and len(position) == 1 and position[0]:
        return derivative(stream.stamp_ns, np.asarray(stream["position"], np.float64))
    if any(word in stream.name.lower() for word in STATE_WORDS):
        for name in ("state", "data"):
            shape = shapes.get(name)
            if shape and len(shape) == 1 and shape[0] > 1:
                return derivative(stream.stamp_ns, np.asarray(stream[name], np.float64))
    return None


def _clean(stamp_ns: Stamps, value: Floats) -> Signal:
    values = np.asarray(value, np.float64)
    good = np.isfinite(values).all(axis=1) & np.r_[True, np.diff(stamp_ns) > 0]
    return Signal(stamp_ns[good], values[good])


def _spaced(stamp_ns: Stamps, value: Floats) -> tuple[Stamps, Floats]:
    """Finite samples at least half a period apart: differences of nearer ones are noise."""
    values = np.asarray(value, np.float64)
    good = np.isfinite(values).all(axis=1)
    stamps, values = stamp_ns[good], values[good]
    step = np.diff(stamps)
    positive = step[step > 0]
    if not len(positive):
        return stamps[:1], values[:1]
    keep = np.r_[True, step >= 0.5 * np.median(positive)]
    return stamps[keep], values[keep]


def _midpoints(stamps: Stamps) -> Stamps:
    return np.asarray(stamps[:-1] + np.diff(stamps) // 2)


def percentile_95(signal: Signal) -> float:
    """95th percentile of the norm of a signal."""
    return float(np.quantile(np.linalg.norm(signal.value, axis=1), 0.95))


def moves(signal: Signal, least: float) -> bool:
    return percentile_95(signal) >= least
