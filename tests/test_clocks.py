"""Placing streams on one clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.clocks import ClockMap, StampStatistics, place_streams
from mmdata.errors import SyncError

T0 = 1_700_000_000_000_000_000
MS = 1_000_000


def _statistics(source: np.ndarray | None, receive: np.ndarray | None) -> StampStatistics:
    statistics = StampStatistics()
    statistics.update(source, receive)
    return statistics


def _ticks(n: int = 20, start: int = T0, step: int = 10 * MS) -> np.ndarray:
    return start + np.arange(n, dtype=np.int64) * step


def test_headers_of_one_epoch_are_kept_to_the_nanosecond() -> None:
    source = _ticks() + 7
    placed = place_streams({"imu": _statistics(source, source + 5 * MS)})
    placement = placed.placements["imu"]
    assert placement.stamp_source == "header"
    assert np.array_equal(placement.stamps(source, source + 5 * MS), source)
    assert placed.clocks["header"].epoch == "unix"


def test_a_boot_time_clock_among_unix_clocks_is_placed_by_receive_stamps() -> None:
    receive = _ticks()
    boot = receive - T0 + 5_000 * MS
    placed = place_streams(
        {
            "a": _statistics(receive - MS, receive),
            "b": _statistics(receive - 2 * MS, receive),
            "boot": _statistics(boot, receive),
        }
    )
    assert placed.placements["boot"].stamp_source == "receive"
    assert np.array_equal(placed.placements["boot"].stamps(boot, receive), receive)
    assert any("boot" in note for note in placed.notes)
    # What the sensor's clock reads, moved by offset_ns, is the receive time of the median sample.
    clock = placed.clocks[placed.placements["boot"].clock]
    assert abs(clock.offset_ns - (T0 - 5_000 * MS)) < MS


def test_when_most_headers_are_in_simulated_time_the_rest_moves_there() -> None:
    receive = _ticks()
    simulated = receive - T0 + 60_000 * MS
    placed = place_streams(
        {
            "scan": _statistics(simulated, receive),
            "odometry": _statistics(simulated, receive),
            "wall": _statistics(receive, receive),
            "plain": _statistics(None, receive),
        }
    )
    for name in ("wall", "plain"):
        stamps = placed.placements[name].stamps(receive if name == "wall" else None, receive)
        assert np.array_equal(stamps, simulated)


def test_unset_headers_take_receive_stamps() -> None:
    receive = _ticks()
    source = receive - MS
    source[3] = 0
    placed = place_streams({"s": _statistics(source, receive)})
    stamps = placed.placements["s"].stamps(source, receive)
    assert stamps[3] == receive[3]
    assert np.array_equal(np.delete(stamps, 3), np.delete(source, 3))
    assert any("1 header stamps are 0" in note for note in placed.notes)


def test_policies_override() -> None:
    receive = _ticks()
    boot = receive - T0 + MS
    streams = {"a": _statistics(receive, receive), "boot": _statistics(boot, receive)}
    kept = place_streams(streams, "header")
    assert np.array_equal(kept.placements["boot"].stamps(boot, receive), boot)
    received = place_streams(streams, "receive")
    assert np.array_equal(received.placements["a"].stamps(receive, receive + 0), receive)
    assert received.reference == "receive"


def test_receive_policy_without_receive_stamps_is_an_error() -> None:
    with pytest.raises(SyncError, match="no receive stamps"):
        place_streams({"a": _statistics(_ticks(), None)}, "receive")


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.integers(1, 7))
def test_sortedness_does_not_depend_on_batching(steps: list[int], size: int) -> None:
    stamps = T0 + np.cumsum(np.array(steps, np.int64))
    whole = _statistics(stamps, stamps)
    batched = StampStatistics()
    for start in range(0, len(stamps), size):
        batched.update(stamps[start : start + size], stamps[start : start + size])
    assert batched.header_sorted == whole.header_sorted == bool((np.diff(stamps) >= 0).all())
    assert batched.n == whole.n
    assert batched.delay_ns == 0


def test_delay_sample_stays_bounded() -> None:
    statistics = StampStatistics()
    for k in range(200):
        stamps = _ticks(1000, T0 + k * 10_000 * MS)
        statistics.update(stamps, stamps + 3 * MS)
    assert sum(map(len, statistics._delays)) <= 8192
    assert statistics.delay_ns == 3 * MS


def test_clock_map_is_exact_where_it_does_nothing() -> None:
    stamps = _ticks() + 1
    assert np.array_equal(ClockMap(T0, 0.0).apply(stamps), stamps)
    moved = ClockMap(T0, 1000.0, skew_ppm=100.0).apply(np.array([T0, T0 + 10**9], np.int64))
    assert moved.tolist() == [T0 + 1000, T0 + 10**9 + 1000 + 100_000]
