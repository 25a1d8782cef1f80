"""Rotation seen from a camera that drives, against points of known depth and motion."""

import numpy as np
import pytest

from mmdata.sync.heading import find_drive

PLACE = np.stack(np.meshgrid(np.linspace(-0.6, 0.6, 16), np.linspace(-0.35, 0.35, 10)), -1)
PLACE = PLACE.reshape(-1, 2)


def turn_design() -> np.ndarray:
    """Flow (C, 2, 3) of static points per rad/s of camera rotation (x right, y down)."""
    x, y = PLACE.T
    u = np.stack([x * y, -(1 + x * x), y], axis=1)
    v = np.stack([1 + y * y, -x * y, -x], axis=1)
    return np.stack([u, v], axis=1)


def scene(
    heading: np.ndarray, pairs: int = 120, *, speed_m_s: float = 9.0, noise: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """Flow (K, C, 2) between walls of changing depth, and the true rotation (K, 3)."""
    rng = np.random.default_rng(3)
    t = np.arange(pairs) / 10
    omega = np.stack([0.01 * np.sin(3 * t), 0.3 * np.sin(0.9 * t), 0.01 * np.cos(2 * t)], axis=1)
    near = rng.uniform(0.05, 0.25, (pairs, len(PLACE)))
    away = PLACE * heading[2] - heading[:2]
    flow = np.einsum("cij,kj->kci", turn_design(), omega) + near[..., None] * speed_m_s * away
    return flow + rng.normal(0, noise, flow.shape), omega


@pytest.mark.parametrize("yaw_deg", [0, 8, 60])
def test_heading_and_rotation_of_a_drive(yaw_deg: float) -> None:
    yaw = np.radians(yaw_deg)
    heading = np.array([np.sin(yaw), 0.03, np.cos(yaw)])
    heading /= np.linalg.norm(heading)
    flow, omega = scene(heading)
    # A third of the cells sees sky, which shows no flow; a few see a car of its own motion.
    seen = np.ones(flow.shape[:2], bool)
    sky = PLACE[:, 1] < -0.15
    flow[:, sky], seen[:, sky] = 0.0, False
    flow[:, 100:106] += [0.5, 0.1]
    drive = find_drive(flow, seen, PLACE, turn_design())
    assert drive is not None
    assert abs(float(drive.heading @ heading)) > np.cos(np.radians(2))
    error = drive.rotation - omega
    assert np.sqrt(np.mean(error[:, 1] ** 2)) < 0.02
    gain = np.polyfit(omega[:, 1], drive.rotation[:, 1], 1)[0]
    assert gain == pytest.approx(1, abs=0.05)


def test_what_turns_only_or_moves_any_way_is_no_drive() -> None:
    flow, _ = scene(np.array([0.0, 0.0, 1.0]), speed_m_s=0.0)
    seen = np.ones(flow.shape[:2], bool)
    assert find_drive(flow, seen, PLACE, turn_design()) is None
    noise = np.random.default_rng(0).normal(size=flow.shape)
    assert find_drive(noise, seen, PLACE, turn_design()) is None


def test_too_little_texture_is_no_drive() -> None:
    flow, _ = scene(np.array([0.0, 0.0, 1.0]))
    seen = np.zeros(flow.shape[:2], bool)
    seen[:, :10] = True
    assert find_drive(flow, seen, PLACE, turn_design()) is None
