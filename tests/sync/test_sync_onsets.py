"""Impacts in sound and force, and the offset between their lists."""

import numpy as np
import pytest

from mmdata.sync.onsets import (
    AIR_NS_PER_M,
    OnsetConfig,
    Onsets,
    audio_onsets,
    contact_onsets,
    match_onsets,
)

START = 1_760_000_000_000_000_000
IMPACTS_S = np.array([1.013, 2.471, 3.902, 5.207, 7.748, 8.33])


def sound(impacts_s: np.ndarray, *, rate: int = 16000, seed: int = 0) -> tuple:
    """Ten seconds of int16 noise with decaying 3 kHz clicks, in blocks of 100 ms."""
    rng = np.random.default_rng(seed)
    t = np.arange(10 * rate) / rate
    wave = rng.normal(0, 20, len(t))
    for at in impacts_s:
        since = np.clip(t - at, -0.1, None)
        wave += np.where(since >= 0, 6000 * np.exp(-since / 0.01), 0) * np.sin(6000 * np.pi * since)
    block = rate // 10
    starts = np.arange(0, len(t) + 1, block)
    stamps = START + (starts[:-1] * (1e9 / rate)).astype(np.int64)
    return stamps, starts, np.rint(wave).astype(np.int16)[:, None], rate


def force(impacts_s: np.ndarray, *, rate: int = 500, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    t = np.arange(10 * rate) / rate
    value = rng.normal(0, 0.05, (len(t), 3))
    for at in impacts_s:
        since = np.clip(t - at, -0.1, None)
        value[:, 2] += np.where(since >= 0, 5 * np.exp(-since / 0.05), 0)
    return START + (t * 1e9).astype(np.int64), value


def test_clicks_are_found_to_the_millisecond() -> None:
    found = audio_onsets(*sound(IMPACTS_S))
    assert len(found.stamp_ns) == len(IMPACTS_S)
    assert np.abs((found.stamp_ns - START) / 1e9 - IMPACTS_S).max() < 0.0015


def test_force_onsets_are_found_within_a_sample() -> None:
    found = contact_onsets(*force(IMPACTS_S))
    assert len(found.stamp_ns) == len(IMPACTS_S)
    assert np.abs((found.stamp_ns - START) / 1e9 - IMPACTS_S).max() <= 0.002


def test_touch_that_lasts_most_of_the_time_begins_once() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(1000) / 100
    level = np.where((t > 2) & (t < 9), 1.0, 0.0)[:, None, None] * np.ones((1, 4, 4))
    level = level + rng.normal(0, 0.01, level.shape)
    found = contact_onsets(START + (t * 1e9).astype(np.int64), level, rate=False)
    assert ((found.stamp_ns - START) / 1e9).tolist() == pytest.approx([2.0], abs=0.02)


@pytest.mark.parametrize("offset_ms", [-200, -45, 0, 5, 80, 200])
def test_audio_offset_within_five_milliseconds(offset_ms: int) -> None:
    # A click without contact and a contact without click do not disturb.
    stamps, starts, samples, rate = sound(np.r_[IMPACTS_S, 6.6])
    heard = audio_onsets(stamps + offset_ms * 1_000_000, starts, samples, rate)
    felt = contact_onsets(*force(np.r_[IMPACTS_S, 9.4]))
    found = match_onsets(felt, heard, method="audio_impacts")
    assert found.offset_ns is not None, found.reason
    assert found.offset_ns / 1e6 == pytest.approx(offset_ms, abs=5)
    assert found.sigma_ns is not None
    assert abs(found.offset_ns / 1e6 - offset_ms) < 3 * found.sigma_ns / 1e6


def test_air_is_subtracted() -> None:
    a, b = Onsets(START + np.arange(5) * 10**9, 1e6), Onsets(START + np.arange(5) * 10**9, 1e6)
    late = Onsets(b.stamp_ns + 3 * AIR_NS_PER_M, 1e6)
    # Equal spacing is ambiguous beyond the reach of half a second only.
    found = match_onsets(a, late, method="audio_impacts", air_distance_m=3.0)
    assert found.offset_ns == pytest.approx(0, abs=1)


def test_abstains() -> None:
    one = Onsets(START + np.array([0, 10**9]), 1e6)
    assert "3 needed" in str(match_onsets(one, one, method="t").reason)
    rng = np.random.default_rng(0)
    # Dense unrelated impacts: any shift pairs some of them.
    a = Onsets(START + np.sort(rng.integers(0, 10**10, 25)), 1e6)
    b = Onsets(START + np.sort(rng.integers(0, 10**10, 25)), 1e6)
    assert match_onsets(a, b, method="t").offset_ns is None
    # A metronome agrees with itself at every beat.
    beat = Onsets(START + np.arange(40) * 200_000_000, 1e6)
    assert "another shift" in str(match_onsets(beat, beat, method="t").reason)
    far = Onsets(START + np.arange(5) * 10**9 + 5 * 10**10, 1e6)
    assert match_onsets(one, far, method="t", config=OnsetConfig(min_matches=2)).offset_ns is None


def test_silence_has_no_onset() -> None:
    stamps, starts, samples, rate = sound(IMPACTS_S)
    assert len(audio_onsets(stamps, starts, np.zeros_like(samples), rate).stamp_ns) == 0


def test_a_soft_touch_is_known_better_than_its_rate_but_never_beyond() -> None:
    """Grip that rises slowly from contacts between samples of a 100 Hz sensor."""
    rng = np.random.default_rng(4)
    touched = np.array([2.0034, 5.0071, 8.0012, 11.0097])
    seconds = np.arange(0, 14, 0.01)
    since = np.clip(seconds[:, None] - touched, 0, None)
    grip = (10 * (1 - np.exp(-since / 0.05)) * (since < 1.0)).sum(axis=1)
    taxels = grip[:, None] * np.full(16, 1 / 16) + rng.normal(0, 0.01, (len(seconds), 16))
    stamps = START + np.rint(seconds * 1e9).astype(np.int64)
    found = contact_onsets(stamps, taxels, rate=False)
    error = (found.stamp_ns - START) / 1e9 - touched
    assert np.abs(error).max() < 0.004
    # What all soft touches share is not averaged out: sigma stays above a quarter of a period.
    exact = Onsets(START + np.rint(touched * 1e9).astype(np.int64), 1e5)
    offset = match_onsets(exact, found, method="contact_onsets")
    assert offset.offset_ns is not None
    assert offset.sigma_ns is not None
    assert 2.5e6 < offset.sigma_ns < 6e6
    assert abs(offset.offset_ns) < 2 * offset.sigma_ns
