"""`--clock fit`: a skewed header clock is mapped to the receive clock, source stamps stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmdata import EpisodeWriter, open_episode, verify_episode
from mmdata.align import default_timelines
from mmdata.conversion.clocks import fit_episode_clocks
from mmdata.store import shift_stream

T0 = 1_700_000_000_000_000_000


def _skewed(path: Path, ppm: float = 150.0) -> np.ndarray:
    """A 60 s stream whose sensor clock runs fast, with one-sided delays; returns true stamps."""
    rng = np.random.default_rng(0)
    true = T0 + np.arange(6000, dtype=np.int64) * 10_000_000
    source = true + ((true - T0) * ppm * 1e-6).astype(np.int64)
    receive = true + 2_000_000 + rng.exponential(2e6, len(true)).astype(np.int64)
    with EpisodeWriter(path) as w:
        w.append("imu", source, np.arange(6000.0), receive_ns=receive)
        w.append("short", source[:3], np.zeros(3), receive_ns=receive[:3])
        w.close(default_timelines)
    return true


def test_skew_is_taken_out_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    true = _skewed(path)
    with open_episode(path) as ep:
        before = ep.streams["imu"].source_ns.copy()
        assert np.ptp(ep.streams["imu"].stamp_ns - true) > 8_000_000
    lines = fit_episode_clocks(path)
    assert any("imu" in line and "ppm" in line for line in lines)
    assert verify_episode(path).problems == []
    with open_episode(path) as ep:
        imu = ep.streams["imu"]
        assert np.array_equal(imu.source_ns, before)
        error = imu.stamp_ns - true
        # the drift is gone, and the delay of the transport was not added
        assert np.ptp(error) < 200_000
        assert abs(np.median(error)) < 200_000
        assert abs(ep.clocks["imu"].skew_ppm + 150.0) < 5.0
        assert imu.info.clock == "imu"
        assert ep.streams["short"].info.clock == "header"


def test_clocks_that_agree_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    _skewed(path, ppm=0.0)
    before = path.read_bytes()
    assert fit_episode_clocks(path) == []
    assert path.read_bytes() == before


def test_a_shift_and_its_opposite_leave_the_same_bytes_of_stamps(tmp_path: Path) -> None:
    from mmdata.align.stored import realign

    path = tmp_path / "e.h5"
    _skewed(path)
    with open_episode(path) as ep:
        stamps, index = ep.streams["imu"].stamp_ns.copy(), ep.aligned().index["imu"].copy()
    shift_stream(path, "imu", -80_000_000, "late")
    assert any("residuals do not match" in p for p in verify_episode(path).problems)
    realign(path)
    assert verify_episode(path).problems == []
    with open_episode(path) as ep:
        assert (ep.streams["imu"].stamp_ns == stamps - 80_000_000).all()
        assert ep.streams["imu"].info.attrs["shifts"] == [{"by_ns": -80_000_000, "reason": "late"}]
    shift_stream(path, "imu", 80_000_000, "back")
    realign(path)
    with open_episode(path) as ep:
        assert np.array_equal(ep.streams["imu"].stamp_ns, stamps)
        assert np.array_equal(ep.aligned().index["imu"], index)
