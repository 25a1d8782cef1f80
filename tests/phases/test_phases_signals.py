"""Single signals: grids, wrench compensation, touch, sound, contacts, direction changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.geometry import quat_conjugate, quat_from_rotvec, quat_rotate
from mmdata.phases.contacts import load_intervals
from mmdata.phases.features import direction_change, window_velocity
from mmdata.phases.grid import Grid, close_runs, resample, runs
from mmdata.phases.inputs import Audio, Series
from mmdata.phases.metrics import onset_errors_ms
from mmdata.phases.scripted import keep_only, pick_place
from mmdata.phases.segment import segment_inputs
from mmdata.phases.settings import DEFAULTS
from mmdata.phases.touch import audio_onsets, slip_energy
from mmdata.phases.wrench import GRAVITY_M_S2, compensate

NS = 1_000_000_000


def test_resampling_interpolates_and_skips_duplicates_and_nan() -> None:
    stamps = np.array([0, NS, NS, 2 * NS, 3 * NS])
    values = np.array([0.0, 10.0, 99.0, np.nan, 30.0])
    grid = Grid(0, NS // 2, 7)
    assert resample(Series(stamps, values), grid) == pytest.approx([0, 5, 10, 15, 20, 25, 30])


def test_resampling_averages_what_is_faster_than_the_grid() -> None:
    stamps = np.arange(0, 4 * NS, NS // 100)
    values = np.tile([1.0, 3.0], 200)
    got = resample(Series(stamps, values), Grid(0, NS, 4))
    assert got == pytest.approx(2.0, abs=0.05)


@given(st.lists(st.booleans(), max_size=40))
def test_runs_rebuild_their_mask(mask: list[bool]) -> None:
    again = np.zeros(len(mask), bool)
    for a, b in runs(np.array(mask, bool)):
        again[a:b] = True
    assert again.tolist() == mask


def test_close_runs_fills_gaps_then_drops_short_ones() -> None:
    mask = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0], bool)
    assert close_runs(mask, 2, 2) == [(0, 4)]


def test_wrench_compensation_finds_mass_and_leaves_the_contact() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    turn = quat_from_rotvec(np.cumsum(rng.normal(0, 0.01, (n, 3)), axis=0))
    acceleration = rng.normal(0, 2.0, (n, 3))
    specific = acceleration + np.array([0, 0, GRAVITY_M_S2])
    bias = np.array([1.0, -2.0, 0.5])
    force = bias + 0.7 * quat_rotate(quat_conjugate(turn), specific) + rng.normal(0, 0.05, (n, 3))
    force[1200:1400, 2] += 12.0
    found = compensate(force, acceleration, turn)
    assert found.mass_kg == pytest.approx(0.7, abs=0.01)
    assert np.abs(found.force[:1200]).mean() < 0.08
    assert found.force[1200:1400, 2].mean() == pytest.approx(12.0, abs=0.3)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_what_is_carried_is_weighed_apart_from_the_hand(sign: float) -> None:
    rng = np.random.default_rng(2)
    t = np.arange(0, 20, 0.01)
    acceleration = 1.5 * np.column_stack([np.sin(3 * t), np.cos(2 * t), np.sin(2.5 * t + 1)])
    angle = np.where(t > 10, 0.8 * np.sin(np.clip(t - 10, 0, np.pi)), 0.0)  # tilted while held
    turn = np.column_stack([np.cos(angle / 2), np.sin(angle / 2), 0 * t, 0 * t])
    held = ((t > 6) & (t < 16)).astype(float)
    specific = quat_rotate(quat_conjugate(turn), acceleration + np.array([0, 0, GRAVITY_M_S2]))
    force = sign * (0.6 + 0.4 * held[:, None]) * specific + rng.normal(0, 0.1, (len(t), 3))
    found = compensate(force, acceleration, turn, held=held)
    assert found.mass_kg == pytest.approx(sign * 0.6, abs=0.04)
    assert found.sign == sign
    assert found.per_kg is not None
    rest = np.linalg.norm(found.force - found.force[t < 5].mean(axis=0), axis=1)
    load = ((found.force - found.force[t < 5].mean(axis=0)) * found.per_kg).sum(axis=1) / (
        found.per_kg**2
    ).sum(axis=1)
    assert np.median(rest[t < 5]) < 0.4
    assert sign * np.median(load[held > 0]) == pytest.approx(0.4, abs=0.05)


def test_a_click_is_heard_when_it_comes() -> None:
    rng = np.random.default_rng(1)
    rate, length = 16000, 3.0
    sound = rng.normal(0, 30, round(rate * length))
    t = np.arange(400) / rate
    for at in (0.9, 2.1):
        i = round(at * rate)
        sound[i : i + 400] += 4000 * np.exp(-t * 200) * np.sin(2 * np.pi * 3000 * t)
    starts = np.arange(0, len(sound), 1600)
    blocks = 5 * NS + np.rint(starts / rate * NS).astype(np.int64)
    onsets, strength = audio_onsets(Audio(sound, rate, starts, blocks))
    assert (onsets - 5 * NS) / NS == pytest.approx([0.9, 2.1], abs=0.002)
    assert (strength > 1).all()


def test_slip_shows_as_vibration_not_as_load() -> None:
    rng = np.random.default_rng(2)
    n = 400
    load = np.linspace(0, 20, n)[:, None] + rng.normal(0, 0.05, (n, 8))
    load[200:240] += rng.normal(0, 0.8, (40, 8))
    series = Series(np.arange(n) * 10_000_000, load)
    energy = slip_energy(series).values
    assert energy[205:235].min() > 10 * np.median(energy)


@given(st.floats(0.0, 9.0), st.sampled_from([30.0, 100.0, 500.0]))
def test_contact_onset_is_known_to_a_sample(shift_ms: float, rate_hz: float) -> None:
    t = np.arange(0, 4, 1 / rate_hz)
    begin, end = 1.5 + shift_ms / 1000, 2.75
    load = np.where((t >= begin) & (t < end), 5.0, 0.0)
    load += np.random.default_rng(0).normal(0, 0.02, len(t))
    (found,) = load_intervals(t, load, DEFAULTS)
    assert abs(found.start_s - begin) <= 0.5 / rate_hz + 0.002
    assert abs(found.end_s - end) <= 0.5 / rate_hz + 0.002


def test_a_slow_rise_is_followed_back_to_its_floor() -> None:
    t = np.arange(0, 4, 0.01)
    load = np.clip((t - 1.0) * 50, 0, 6.0) * (t < 3)
    load += np.random.default_rng(0).normal(0, 0.02, len(t))
    (found,) = load_intervals(t, load, DEFAULTS)
    assert found.start_s == pytest.approx(1.0, abs=0.012)


def test_noise_is_no_contact() -> None:
    t = np.arange(0, 20, 0.01)
    assert load_intervals(t, np.abs(np.random.default_rng(0).normal(0, 1, len(t))), DEFAULTS) == []


def test_direction_change_of_corners_starts_and_reversals() -> None:
    grid = Grid(0, 10_000_000, 400)
    t = grid.seconds
    corner = np.column_stack([np.minimum(t, 2.0), np.maximum(t - 2.0, 0.0)])
    change = direction_change(*window_velocity(corner, grid, 0.15), still=0.02)
    assert change.argmax() == pytest.approx(200, abs=1)
    assert change.max() == pytest.approx(1.0, abs=0.02)
    back = np.abs(t - 2.0)[:, None]
    assert direction_change(*window_velocity(back, grid, 0.15), 0.02).max() == pytest.approx(2.0)
    start = np.maximum(t - 2.0, 0.0)[:, None]
    assert direction_change(*window_velocity(start, grid, 0.15), 0.02).max() == pytest.approx(1.0)
    assert direction_change(*window_velocity(t[:, None], grid, 0.15), 0.02).max() < 1e-6


@pytest.mark.parametrize(
    "signals",
    [
        ("position", "width", "command", "touch", "wrench"),
        ("position", "width"),
        ("width",),
        ("position", "touch"),
    ],
)
def test_contact_onsets_on_held_out_takes(signals: tuple[str, ...]) -> None:
    errors, true = [], 0
    for seed in range(400, 420):
        take = keep_only(pick_place(seed), *signals)
        found = segment_inputs(take.inputs, "none")
        onsets = [e.stamp_ns for e in found.events if e.label == "contact_on"]
        errors += onset_errors_ms(onsets, [a for a, _ in take.contacts]).tolist()
        true += len(take.contacts)
    assert len(errors) == true
    assert np.percentile(np.abs(errors), 95) <= 30.0
