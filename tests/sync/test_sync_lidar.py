"""Scan matching: motion between sweeps of a known room, and the offset it gives."""

import numpy as np
import pytest

from mmdata.sync.correlate import Signal, correlate
from mmdata.sync.lidar import sweep_motion

START = 1_760_000_000_000_000_000


def room(seed: int = 0) -> np.ndarray:
    """Points on walls, floor and boxes of a 30 m hall, in the world frame."""
    rng = np.random.default_rng(seed)
    parts = []
    for axis, at in ((0, -15.0), (0, 15.0), (1, -12.0), (1, 12.0), (2, -1.5)):
        p = rng.uniform([-15, -12, -1.5], [15, 12, 4], (2500, 3))
        p[:, axis] = at
        parts.append(p)
    for _ in range(12):
        centre = rng.uniform([-12, -9, -1], [12, 9, 0.5])
        p = rng.uniform(-1, 1, (300, 3))
        p[np.arange(300), rng.integers(0, 3, 300)] = np.sign(rng.normal(size=300))
        parts.append(centre + p * [1.0, 0.7, 0.9])
    return np.concatenate(parts)


def pose(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and yaw of a robot that starts, turns and stops."""
    yaw = 0.6 * np.sin(0.9 * t) + 0.3 * np.sin(2.3 * t + 1)
    return 1.5 * np.sin(0.7 * t), 0.8 * np.sin(1.1 * t + 0.4), yaw


def seen_from(world: np.ndarray, t: float, rng: np.random.Generator) -> np.ndarray:
    x, y, yaw = pose(np.array(t))
    c, s = np.cos(yaw), np.sin(yaw)
    local = (world - [x, y, 0]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    chosen = rng.choice(len(local), 4000, replace=False)
    return local[chosen] + rng.normal(0, 0.01, (4000, 3))


def drive(seconds: float) -> tuple[np.ndarray, list]:
    rng = np.random.default_rng(1)
    world = room()
    t = np.arange(0, seconds, 0.1)
    return t, [(seen_from(world, float(at), rng), None) for at in t]


def test_rates_are_those_of_the_robot() -> None:
    t, sweeps = drive(3.0)
    found = sweep_motion(START + (t * 1e9).astype(np.int64), sweeps)
    at = (found.stamp_ns - START) / 1e9
    yaw_rate = (pose(at + 0.05)[2] - pose(at - 0.05)[2]) / 0.1
    # ICP aligns the later sweep to the earlier: its rotation is the robot's own.
    assert np.abs(found.angular[:, 2] - yaw_rate).max() < 0.05
    speed = np.hypot(*[(pose(at + 0.05)[i] - pose(at - 0.05)[i]) / 0.1 for i in (0, 1)])
    assert np.abs(np.linalg.norm(found.linear, axis=1) - speed).max() < 0.15
    assert found.residual_m.max() < 0.2


@pytest.mark.slow
def test_offset_against_odometry() -> None:
    t, sweeps = drive(14.0)
    late = 0.045
    found = sweep_motion(START + ((t + late) * 1e9).astype(np.int64), sweeps)
    fine = np.arange(0, 14, 0.01)
    rate = np.gradient(pose(fine)[2], 0.01)
    ego = Signal(START + (fine * 1e9).astype(np.int64), np.c_[0 * rate, 0 * rate, rate])
    angular = found.signals()[1]
    estimate = correlate(ego, angular, method="lidar", score="rotation")
    assert estimate.offset_ns is not None, estimate.reason
    assert estimate.offset_ns / 1e6 == pytest.approx(45, abs=10)
