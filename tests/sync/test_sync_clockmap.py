"""The lower hull against clocks of known rate and offset."""

import numpy as np
import pytest

from mmdata.errors import SyncError
from mmdata.simulate import StreamFaults, inject, pick_place
from mmdata.sync.clockmap import apply_windows, fit_clock, fit_clock_windows, fit_streams

DEVICE_START = 5_000_000_000


def clocks(
    seconds: float, skew_ppm: float, seed: int, *, spikes: bool = True, rate_hz: float = 30.0
) -> tuple[np.ndarray, np.ndarray]:
    """A device clock in another epoch; delay 3 ms + Exp(2 ms), 2 % spikes of 20-120 ms."""
    rng = np.random.default_rng(seed)
    n = int(seconds * rate_hz)
    device = DEVICE_START + (np.arange(n) * 1e9 / rate_hz + rng.normal(0, 1e6, n)).astype(np.int64)
    delay = 3e6 + rng.exponential(2e6, n)
    if spikes:
        delay += np.where(rng.random(n) < 0.02, rng.uniform(20e6, 120e6, n), 0)
    true = 1_760_000_000_000_000_000 + (device - DEVICE_START) * (1 + skew_ppm * 1e-6)
    return device, (true.astype(np.int64) + delay.astype(np.int64))


def test_noiseless_line_is_exact() -> None:
    device = DEVICE_START + np.arange(1000) * 10_000_000
    host = device + 7_000_000 + np.rint((device - DEVICE_START) * 250e-6).astype(np.int64)
    fit = fit_clock(device, host)
    assert fit.skew_ppm == pytest.approx(250, abs=0.01)
    assert np.abs(fit.apply(device) - host).max() <= 2
    assert (fit.to_map().apply(device) == fit.apply(device)).all()


def test_skew_within_five_ppm_on_sixty_seconds_of_one_sided_noise() -> None:
    errors, scaled = [], []
    for seed in range(40):
        skew = float(np.random.default_rng(1000 + seed).uniform(-200, 200))
        fit = fit_clock(*clocks(60, skew, seed))
        errors.append(abs(fit.skew_ppm - skew))
        scaled.append(errors[-1] / fit.skew_sigma_ppm)
    assert np.percentile(errors, 95) < 2.0
    assert max(errors) < 5.0
    assert np.mean(np.asarray(scaled) < 3) > 0.95


def test_offset_holds_the_minimum_delay_and_says_so() -> None:
    device, host = clocks(60, 0, 1)
    fit = fit_clock(device, host)
    assert fit.offset_ns - (1_760_000_000_000_000_000 - DEVICE_START) == pytest.approx(3e6, abs=2e5)
    assert "minimum delay" in fit.bias


def test_load_that_grows_does_not_tilt_the_line() -> None:
    rng = np.random.default_rng(0)
    n = 30 * 120
    device = np.arange(n) * 33_333_333
    host = device + 3_000_000 + rng.exponential(np.linspace(1e6, 10e6, n)).astype(np.int64)
    assert abs(fit_clock(device, host).skew_ppm) < 1.0


def test_thinning_of_long_inputs_keeps_the_hull() -> None:
    device, host = clocks(1200, 80, 5, rate_hz=200)
    assert fit_clock(device, host).skew_ppm == pytest.approx(80, abs=0.02)


def test_windows_follow_an_oscillator_that_warms_up() -> None:
    rng = np.random.default_rng(2)
    device = np.arange(30 * 600, dtype=np.int64) * 33_333_333
    seconds = device / 1e9
    drift = 20e-6 * seconds**2 / 1200 * 1e9  # 20 ppm more after 600 s
    host = device + (3e6 + drift + rng.exponential(2e6, len(device))).astype(np.int64)
    true = device + (3e6 + drift).astype(np.int64)
    windows = fit_clock_windows(device, host)
    assert len(windows) == 9
    assert np.abs(apply_windows(windows, device) - true).max() < 150_000
    assert np.abs(fit_clock(device, host).apply(device) - true).max() > 1_000_000


def test_host_clock_that_is_off_for_a_while_does_not_hold_the_hull() -> None:
    device, host = clocks(120, 30, 8)
    host[2000:2040] -= np.linspace(50e6, 200e6, 40).astype(np.int64)
    fit = fit_clock(device, host)
    assert fit.early >= 38
    assert fit.skew_ppm == pytest.approx(30, abs=2)
    assert fit_clock(*clocks(120, 30, 8)).early == 0


def test_too_little_is_refused() -> None:
    with pytest.raises(SyncError, match="16 stamps"):
        fit_clock(np.arange(10) * 10**9, np.arange(10) * 10**9)
    with pytest.raises(SyncError):
        fit_clock_windows(np.empty(0, np.int64), np.empty(0, np.int64))


def test_streams_of_a_recording() -> None:
    names = ["joint_states", "eef_pose", "tactile"]
    clean = pick_place(seed=5, streams=names)
    skewed = inject(clean, {"joint_states": StreamFaults(skew_ppm=150)}, seed=1)
    found = fit_streams(skewed.streams)
    # The tactile array has no header, so there is no second clock to map.
    assert set(found) == {"joint_states", "eef_pose"}
    (fit,) = found["joint_states"]
    # The header runs fast by 150 ppm, so its map runs slow by as much.
    assert fit.skew_ppm == pytest.approx(-150, abs=5)
    source = skewed.streams["joint_states"].source_ns
    assert source is not None
    true = skewed.raw["joint_states"].true_ns
    mapped = apply_windows(found["joint_states"], source)
    assert np.ptp(mapped - true) < 50_000  # the skew is gone; the least delay remains
    assert (mapped - true).min() > 0
    assert set(fit.to_attrs()) >= {"offset_ns", "skew_ppm", "offset_sigma_ns", "method", "n"}
