"""The engine: sign, precision, calibration, and the tests that make it abstain."""

import numpy as np
import pytest

from mmdata.sync.correlate import CorrelationConfig, Signal, correlate

START = 1_760_000_000_000_000_000


def strokes(seconds: float, seed: int, channels: int = 1) -> Signal:
    """Bell-shaped strokes of a hand that starts and stops, at 100 Hz."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 100)) / 100
    value = np.zeros((len(t), channels))
    at = 0.0
    while at < seconds:
        length = rng.uniform(0.5, 2.0)
        x = np.clip((t - at) / length, 0, 1)
        value += (x**2 * (1 - x) ** 2)[:, None] * rng.uniform(-1, 1, channels)
        at += length + rng.exponential(0.15)
    value = np.abs(value) if channels == 1 else value
    return Signal(START + (t * 1e9).astype(np.int64), value)


def delayed(signal: Signal, offset_s: float, seed: int, noise: float = 0.001) -> Signal:
    """The same quantity seen at 30 Hz by a sensor whose stamps are ``offset_s`` late."""
    rng = np.random.default_rng(seed)
    span = (signal.stamp_ns[-1] - signal.stamp_ns[0]) / 1e9
    true_s = np.arange(0.6, span - 0.6, 1 / 30)
    true_s = true_s + rng.normal(0, 0.0007, len(true_s))
    at = (signal.stamp_ns - START) / 1e9
    value = np.stack([np.interp(true_s, at, c) for c in signal.value.T], axis=1)
    value = value + rng.normal(0, noise, value.shape)
    return Signal(START + ((true_s + offset_s) * 1e9).astype(np.int64), value)


@pytest.mark.parametrize("offset_ms", [-200, -100, -50, -20, -5, 0, 5, 20, 50, 100, 200])
def test_sign_and_size(offset_ms: int) -> None:
    a = strokes(12, 1)
    found = correlate(a, delayed(a, offset_ms / 1e3, 2), method="t")
    assert found.offset_ns is not None, found.reason
    # Positive: b's stamps are late.
    assert found.offset_ns / 1e6 == pytest.approx(offset_ms, abs=2)
    back = correlate(delayed(a, offset_ms / 1e3, 2), a, method="t")
    assert back.offset_ns is not None
    assert back.offset_ns / 1e6 == pytest.approx(-offset_ms, abs=2)


def test_sigma_covers_the_error_when_signals_only_resemble_each_other() -> None:
    scaled = []
    for seed in range(40):
        a = strokes(14, seed)
        rng = np.random.default_rng(seed + 500)
        # A camera sees the same motion through a gain that drifts with pose.
        knots = np.linspace(0, 14, 8)
        gain = np.exp(np.interp((a.stamp_ns - START) / 1e9, knots, rng.normal(0, 0.5, 8)))
        b = delayed(Signal(a.stamp_ns, a.value * gain[:, None]), 0.05, seed)
        found = correlate(a, b, method="t")
        if found.offset_ns is not None and found.sigma_ns is not None:
            scaled.append((found.offset_ns - 50e6) / found.sigma_ns)
    assert len(scaled) > 15
    assert np.mean(np.abs(scaled) < 2) >= 0.9


def test_unrelated_motion_is_never_trusted() -> None:
    known = [correlate(strokes(10, s), strokes(10, s + 5000), method="t").known for s in range(60)]
    assert sum(known) == 0


def test_periodic_motion_is_ambiguous() -> None:
    t = np.arange(1000) / 100
    a = Signal(START + (t * 1e9).astype(np.int64), np.abs(np.sin(2 * np.pi * t / 0.5)))
    found = correlate(a, delayed(a, 0.03, 0), method="t")
    assert found.offset_ns is None
    assert found.reason is not None
    assert "second peak" in found.reason


def test_each_gate_names_itself() -> None:
    a = strokes(12, 3)
    still = Signal(a.stamp_ns, np.zeros(len(a.stamp_ns)))
    assert "too little motion" in str(correlate(a, still, method="t").reason)
    short = Signal(a.stamp_ns[:200], a.value[:200])
    assert "overlap" in str(correlate(a, short, method="t").reason)
    far = CorrelationConfig(max_lag_s=0.1)
    assert "edge" in str(correlate(a, delayed(a, 0.3, 1), method="t", config=far).reason)
    assert "fewer than 8" in str(
        correlate(a, Signal(a.stamp_ns[:3], a.value[:3]), method="t").reason
    )


def test_rotation_score_needs_no_extrinsics() -> None:
    a = strokes(12, 7, channels=3)
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))  # a proper rotation
    b = delayed(Signal(a.stamp_ns, a.value @ q.T), -0.035, 4)
    found = correlate(a, b, method="t", score="rotation")
    assert found.offset_ns is not None, found.reason
    assert found.offset_ns / 1e6 == pytest.approx(-35, abs=2)
    assert found.tests["score"] > 0.98
    # A mirror image is no rotation, and scores less.
    mirrored = delayed(Signal(a.stamp_ns, a.value @ q.T * [1, 1, -1]), -0.035, 4)
    other = correlate(a, mirrored, method="t", score="rotation")
    assert other.tests["score"] < found.tests["score"] - 0.02


def test_linear_score_finds_an_unknown_map() -> None:
    a = strokes(14, 11, channels=3)
    b = delayed(Signal(a.stamp_ns, a.value @ [[1.0, -2.0], [0.5, 0.1], [0.3, 3.0]]), 0.06, 4)
    found = correlate(a, b, method="t", score="linear")
    assert found.offset_ns is not None, found.reason
    assert found.offset_ns / 1e6 == pytest.approx(60, abs=2)


def test_holes_are_left_out() -> None:
    a = strokes(20, 13)
    b = delayed(a, 0.04, 1)
    keep = (b.stamp_ns < START + 6 * 10**9) | (b.stamp_ns > START + 9 * 10**9)
    found = correlate(a, Signal(b.stamp_ns[keep], b.value[keep]), method="t")
    assert found.offset_ns is not None, found.reason
    assert found.offset_ns / 1e6 == pytest.approx(40, abs=3)


def test_curve_is_kept_for_plots() -> None:
    a = strokes(12, 1)
    found = correlate(a, delayed(a, 0.05, 2), method="t")
    assert found.curve is not None
    lags, score = found.curve
    assert len(lags) == len(score) == 201
    assert lags[np.argmax(score)] == pytest.approx(50e6, abs=5e6)
