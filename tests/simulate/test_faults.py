"""Every injected fault is in the data as it is in the truth, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata import simulate
from mmdata.errors import ConfigError
from mmdata.simulate import StreamFaults, inject

MS = 1_000_000


@pytest.fixture(scope="module")
def clean() -> simulate.SimEpisode:
    return simulate.pick_place(
        seed=5, duration_s=20.0, streams=["wrench", "eef_pose", "command_gripper", "audio"]
    )


@pytest.fixture(scope="module")
def pictures() -> simulate.SimEpisode:
    return simulate.pick_place(seed=5, duration_s=3.0, streams=["camera_front"])


def spoil(clean: simulate.SimEpisode, name: str = "wrench", **faults):
    out = inject(clean, {name: StreamFaults(**faults)}, seed=3)
    json.dumps(out.truth)
    return clean.raw[name], out.raw[name], out.truth["faults"][name]


def test_clean_stamps_are_true_but_not_perfect(clean):
    for stream in clean.raw.values():
        delay = stream.receive_ns - stream.true_ns - stream.span_ns
        assert (delay > 0).all()
        assert np.percentile(delay, 95) < 10 * MS
        assert (np.diff(stream.receive_ns) >= 0).all()
        if stream.source_ns is not None:
            assert np.array_equal(stream.source_ns, stream.true_ns)
    assert np.diff(clean.raw["wrench"].source_ns).std() > 1000


def test_an_offset_lies_in_both_stamps(clean):
    before, after, record = spoil(clean, offset_ns=80 * MS)
    assert (after.source_ns - before.source_ns == 80 * MS).all()
    assert (after.receive_ns - before.receive_ns == 80 * MS).all()
    assert np.array_equal(after.true_ns, before.true_ns)
    assert record == {"offset_ns": 80 * MS}
    without_header, late, _ = spoil(clean, "command_gripper", offset_ns=-30 * MS)
    assert (late.receive_ns - without_header.receive_ns == -30 * MS).all()


def test_a_header_offset_lies_in_the_header_only(clean):
    before, after, _ = spoil(clean, header_offset_ns=-25 * MS)
    assert (after.source_ns - before.source_ns == -25 * MS).all()
    assert np.array_equal(after.receive_ns, before.receive_ns)


def test_skew_grows_from_the_start(clean):
    before, after, _ = spoil(clean, skew_ppm=200.0)
    drift = after.source_ns - before.source_ns
    elapsed = before.true_ns - clean.start_ns
    assert np.abs(drift - elapsed * 200e-6).max() <= 1
    assert drift[-1] > 3.9 * MS


def test_jitter(clean):
    before, after, _ = spoil(clean, jitter_ns=2 * MS)
    error = after.source_ns - before.source_ns
    assert abs(error.std() / (2 * MS) - 1) < 0.05
    assert abs(error.mean()) < 0.1 * MS


def test_latency_and_bursts(clean):
    _, after, _ = spoil(clean, latency_ns=(40 * MS, 10 * MS))
    delay = after.receive_ns - after.true_ns
    assert delay.min() >= 40 * MS
    assert 48 * MS < delay.mean() < 70 * MS  # First in first out adds to the mean.
    assert (np.diff(after.receive_ns) >= 0).all()
    _, audio, _ = spoil(clean, "audio", latency_ns=(40 * MS, 10 * MS))
    assert (audio.receive_ns - audio.true_ns).min() >= 140 * MS
    _, bursts, _ = spoil(clean, burst_ns=200 * MS)
    assert len(np.unique(bursts.receive_ns)) <= 20 / 0.2 + 1
    assert (bursts.receive_ns >= bursts.true_ns).all()


@pytest.mark.parametrize("burst", [1.0, 5.0])
def test_drops_are_counted(clean, burst):
    before, after, record = spoil(clean, drop_fraction=0.05, drop_burst=burst)
    assert len(after) == len(before) - record["dropped"]
    assert 0.02 < record["dropped"] / len(before) < 0.08
    lost = np.setdiff1d(before.true_ns, after.true_ns)
    assert record["dropped_ns"] == lost.tolist()
    runs = len(np.split(lost, np.flatnonzero(np.diff(lost) > 1.5 * 5 * MS) + 1))
    assert (len(lost) / runs > 3) == (burst > 1)
    rows = np.searchsorted(before.true_ns, after.true_ns)
    assert np.array_equal(after.fields["force"], before.fields["force"][rows])


def test_a_gap_and_missing_ends(clean):
    before, after, record = spoil(
        clean, gap_ns=700 * MS, late_start_ns=400 * MS, early_end_ns=300 * MS
    )
    assert after.true_ns[0] >= before.true_ns[0] + 400 * MS
    assert after.true_ns[-1] <= before.true_ns[-1] - 300 * MS
    assert np.diff(after.true_ns).max() >= 700 * MS
    first, last = record["gap"]
    assert not ((after.true_ns >= first) & (after.true_ns < last)).any()


def test_duplicates_repeat_stamp_and_payload(clean):
    before, after, record = spoil(clean, duplicate_fraction=0.03)
    twice = np.flatnonzero(np.diff(after.source_ns) == 0)
    assert len(twice) == record["duplicated"] == len(after) - len(before) > 20
    assert np.array_equal(after.fields["force"][twice], after.fields["force"][twice + 1])
    assert (after.receive_ns[twice + 1] > after.receive_ns[twice]).all()


def test_regressions_step_back(clean):
    before, after, record = spoil(clean, regressions=9)
    back = np.flatnonzero(np.diff(after.source_ns) < 0) + 1
    assert len(back) == 9
    assert after.true_ns[back].tolist() == record["regressed_ns"]
    same = np.setdiff1d(np.arange(len(before)), back)
    assert np.array_equal(after.source_ns[same], before.source_ns[same])
    stream = after.to_stream()
    assert (np.diff(stream.stamp_ns) >= 0).all()
    assert stream.recorded is not None


def test_rate_change_quantised_and_perfect(clean):
    _, after, record = spoil(clean, rate_divisor=4)
    early = after.true_ns < record["rate_change_ns"]
    assert np.isclose(np.median(np.diff(after.true_ns[early])), 5 * MS, rtol=0.02)
    assert np.isclose(np.median(np.diff(after.true_ns[~early])), 20 * MS, rtol=0.02)
    before, coarse, _ = spoil(clean, quantise_ns=MS)
    assert (coarse.source_ns % MS == 0).all()
    assert (before.source_ns - coarse.source_ns < MS).all()
    _, perfect, _ = spoil(clean, perfect=True)
    assert np.ptp(np.diff(perfect.source_ns)) <= 1


def test_frozen_and_black_frames(pictures):
    before, after, record = spoil(pictures, "camera_front", frozen=8)
    rows = np.searchsorted(before.true_ns, record["frozen_ns"])
    held = before.fields["data"][rows[0] - 1].tobytes()
    assert len(rows) == 8
    for i in range(len(before)):
        same = after.fields["data"][i].tobytes() == before.fields["data"][i].tobytes()
        assert same != (i in rows)
        if i in rows:
            assert after.fields["data"][i].tobytes() == held
    _, dark, record = spoil(pictures, "camera_front", black=5)
    stream = dark.to_stream()
    brightness = np.array([stream[i].mean() for i in range(len(stream))])
    assert (brightness < 2).sum() == 5
    assert (np.flatnonzero(brightness < 2) == np.searchsorted(
        dark.true_ns, record["black_ns"]
    )).all()  # fmt: skip


def test_frozen_signal_holds_its_value(clean):
    before, after, record = spoil(clean, frozen=100)
    rows = np.searchsorted(before.true_ns, record["frozen_ns"])
    assert (after.fields["force"][rows] == before.fields["force"][rows[0] - 1]).all()


any_faults = st.builds(
    StreamFaults,
    offset_ns=st.sampled_from([0, -200 * MS, 5 * MS, 200 * MS]),
    skew_ppm=st.sampled_from([0.0, 20.0, -100.0]),
    jitter_ns=st.sampled_from([0, MS]),
    drop_fraction=st.sampled_from([0.0, 0.01, 0.3]),
    duplicate_fraction=st.sampled_from([0.0, 0.05]),
    regressions=st.sampled_from([0, 3]),
    rate_divisor=st.sampled_from([1, 2]),
    burst_ns=st.sampled_from([0, 50 * MS]),
    frozen=st.sampled_from([0, 20]),
)


@settings(max_examples=40, deadline=None)
@given(faults=any_faults, seed=st.integers(0, 1000))
def test_any_mixture_is_whole_and_reproducible(clean, faults, seed):
    one = inject(clean, {"wrench": faults, "eef_pose": faults}, seed)
    two = inject(clean, {"wrench": faults}, seed)
    a, b = one.raw["wrench"], two.raw["wrench"]
    assert np.array_equal(a.source_ns, b.source_ns)
    assert np.array_equal(a.receive_ns, b.receive_ns)
    assert len(a.true_ns) == len(a.source_ns) == len(a.receive_ns)
    assert all(len(v) == len(a) for v in a.fields.values())
    assert (np.diff(a.receive_ns) >= 0).all()
    assert one.raw["audio"] is clean.raw["audio"]
    assert clean.truth["faults"] == {}
    assert one.truth["phases"] == clean.truth["phases"]


def test_impossible_faults_are_refused(clean):
    with pytest.raises(ConfigError, match="no stream"):
        inject(clean, {"sonar": StreamFaults()})
    with pytest.raises(ConfigError, match="has no header"):
        inject(clean, {"command_gripper": StreamFaults(skew_ppm=20)})
    spoiled = inject(clean, {"wrench": StreamFaults(offset_ns=MS)})
    with pytest.raises(ConfigError, match="faults already"):
        inject(spoiled, {"audio": StreamFaults(offset_ns=-MS)})


def test_pick_place_takes_faults_directly():
    faults = {"wrench": StreamFaults(drop_fraction=0.02)}
    one = simulate.pick_place(7, faults=faults, streams=["wrench"])
    clean = simulate.pick_place(7, streams=["wrench"])
    two = inject(clean, faults, seed=7)
    assert np.array_equal(one.raw["wrench"].receive_ns, two.raw["wrench"].receive_ns)
    assert len(one.raw["wrench"]) < len(clean.raw["wrench"])
