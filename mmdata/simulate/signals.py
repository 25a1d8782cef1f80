"""Signals a sensor would write, from the continuous truth: wrench, tactile, sound, IMU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mmdata.geometry import quat_conjugate, quat_multiply, quat_rotate, quat_to_rotvec
from mmdata.simulate.body import GRAVITY_M_S2, Impulse, Object, Table
from mmdata.simulate.motion import Floats, Gripper

HAND_MASS_KG = 0.73
HAND_CENTER_M = np.array([0.0, 0.0, 0.05])
FINGER_IMBALANCE_KG = 0.02
"""What of the moving fingers' inertia the two sides do not cancel."""
SOUND_M_S = 343.0
GRAVITY = np.array([0.0, 0.0, -GRAVITY_M_S2])
_STEP_S = 2e-3

PoseAt = Callable[[Floats], tuple[Floats, Floats]]


def velocity(position_at: Callable[[Floats], Floats], t: Floats) -> Floats:
    """First derivative by central differences."""
    return np.asarray((position_at(t + _STEP_S) - position_at(t - _STEP_S)) / (2 * _STEP_S))


def acceleration(position_at: Callable[[Floats], Floats], t: Floats) -> Floats:
    """Second derivative by central differences."""
    before, now, after = (position_at(t + k * _STEP_S) for k in (-1, 0, 1))
    return np.asarray((before - 2 * now + after) / _STEP_S**2)


def angular_velocity(pose_at: PoseAt, t: Floats) -> Floats:
    """Angular velocity (N, 3) in the body's own frame, rad/s."""
    before, after = pose_at(t - _STEP_S)[1], pose_at(t + _STEP_S)[1]
    return quat_to_rotvec(quat_multiply(quat_conjugate(before), after)) / (2 * _STEP_S)


def ring(impulses: Sequence[Impulse], t: Floats, frequency_hz: float, decay_s: float) -> Floats:
    """Forces (N, 3) of knocks: half a jolt, then a ringing that decays."""
    out = np.zeros((len(t), 3))
    for impulse in impulses:
        since = t - impulse.time_s
        live = (since >= 0) & (since < 10 * decay_s)
        wave = np.cos(2 * np.pi * frequency_hz * since[live]) * np.exp(-since[live] / decay_s)
        out[live] += wave[:, None] * impulse.force_n
    return out


def wrench(
    t: Floats,
    hand_at: PoseAt,
    table: Table,
    held: Object,
    gripper: Gripper,
    impulses: Sequence[Impulse],
    tcp_z_m: float,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Force (N, 3) and torque (N, 3) of the tool on the sensor, in the hand frame.

    It is m (g - a) of hand and object, what table and object push back, the knocks, the
    imbalance of the moving fingers, a bias and noise.
    """
    orientation = hand_at(t)[1]
    linear = acceleration(lambda s: hand_at(s)[0], t)
    tip = held.load_n(t, linear)
    tip[:, 2] += table.push_n(t)
    inverse = quat_conjugate(orientation)
    hand_force = quat_rotate(inverse, HAND_MASS_KG * (GRAVITY - linear))
    tip_force = quat_rotate(inverse, tip) + ring(impulses, t, 90.0, 0.015)
    # The two fingers never push quite alike, nor start quite together.
    tip_force[:, 1] += 0.06 * held.grip_n(t)
    tip_force[:, 1] += FINGER_IMBALANCE_KG * acceleration(gripper.width, t).clip(-25, 25)
    lever = np.array([0.0, 0.0, tcp_z_m])
    force = hand_force + tip_force + rng.normal(0, 0.3, 3) + rng.normal(0, 0.04, (len(t), 3))
    torque = np.cross(HAND_CENTER_M, hand_force) + np.cross(lever, tip_force)
    torque += rng.normal(0, 0.02, 3) + rng.normal(0, 0.003, (len(t), 3))
    return force, torque


def tactile(t: Floats, held: Object, rng: np.random.Generator) -> Floats:
    """Normal force in newtons on 2 fingers x 4 x 4 taxels, (N, 2, 4, 4)."""
    grip = held.grip_n(t)
    slipping = held.slipping(t)
    row, column = np.mgrid[:4, :4]
    out = rng.normal(0, 0.01, (len(t), 2, 4, 4))
    slid = np.zeros(len(t))
    for hold in held.holds:
        inside = (t >= hold.start_s) & (t < hold.end_s)
        slid[inside] = hold.slip_m(t[inside])
    vibration = 1.0 + 0.18 * rng.normal(size=(len(t), 2)) * slipping[:, None]
    for finger in range(2):
        center = rng.uniform(1.2, 1.8, 2)
        # The patch moves over the taxels, 5 mm apart, as the object slides.
        along = center[0] + slid / 0.005
        weight = np.exp(-0.5 * ((row - along[:, None, None]) ** 2 + (column - center[1]) ** 2))
        weight /= np.exp(-0.5 * ((row - center[0]) ** 2 + (column - center[1]) ** 2)).sum()
        out[:, finger] += weight * (grip * vibration[:, finger])[:, None, None]
    return out


def audio(
    count: int,
    rate_hz: float,
    joint_speed_at: Callable[[Floats], Floats],
    gripper: Gripper,
    heard: Sequence[tuple[float, float]],
    rng: np.random.Generator,
) -> npt.NDArray[np.int16]:
    """Samples (count,) of a microphone: knocks, the hum of the motors, and noise.

    heard: per knock the time its sound arrives and its loudness (0 to 1).
    """
    t = np.arange(count) / rate_hz
    out = rng.normal(0, 25.0, count)
    coarse = np.arange(0.0, t[-1] + 0.02, 0.01) if count else np.zeros(1)
    speed = np.interp(t, coarse, joint_speed_at(coarse))
    hum = sum(
        weight * np.sin(2 * np.pi * f * t + phase)
        for f, weight, phase in ((118.0, 1.0, 0.3), (236.0, 0.5, 1.1), (354.0, 0.3, 2.0))
    )
    out += 70.0 * np.minimum(speed, 1.5) * hum
    for stroke in gripper.strokes:
        moving = (t >= stroke.start_s) & (t < stroke.end_s)
        out[moving] += 60.0 * np.sin(2 * np.pi * 610.0 * t[moving])
    for time, loudness in heard:
        first = int(np.ceil(time * rate_hz))
        since = np.arange(first, min(first + int(0.05 * rate_hz), count)) / rate_hz - time
        if len(since) == 0 or first < 0:
            continue
        tone = np.zeros(len(since))
        for frequency in rng.uniform(1500.0, 5000.0, 3):
            tone += np.cos(2 * np.pi * frequency * since)
        out[first : first + len(since)] += 5000.0 * loudness * tone * np.exp(-since / 0.004)
    return np.clip(out, -32768, 32767).astype(np.int16)


def imu(t: Floats, pose_at: PoseAt, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Angular velocity (N, 3) in rad/s and specific force (N, 3) in m/s^2, in the body's frame."""
    gyro = angular_velocity(pose_at, t) + rng.normal(0, 0.003, 3)
    linear = acceleration(lambda s: pose_at(s)[0], t)
    force = quat_rotate(quat_conjugate(pose_at(t)[1]), linear - GRAVITY)
    noise = rng.normal(size=(2, len(t), 3))
    return gyro + 0.004 * noise[0], force + 0.05 * noise[1]
