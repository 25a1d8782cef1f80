"""Alignment tables against a definition written as a loop, and timelines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.align import align_stream, build_timeline, fixed_rate_ticks
from mmdata.episode import NO_RESIDUAL
from mmdata.errors import ConfigError
from mmdata.streams import FieldInfo, Kind, Stream, StreamInfo

T0 = 1_700_000_000_000_000_000
stamps_strategy = st.lists(st.integers(0, 200), max_size=40).map(
    lambda v: np.array(sorted(v), np.int64) + T0
)
ticks_strategy = st.lists(st.integers(-20, 220), max_size=40).map(
    lambda v: np.array(sorted(set(v)), np.int64) + T0
)


def _by_definition(stamps: list[int], tick: int, policy: str, tolerance: int | None) -> int:
    before = max((i for i, s in enumerate(stamps) if s <= tick), default=-1)
    if policy in ("linear", "slerp"):
        if before < 0:
            return -1
        if stamps[before] == tick:
            return before
        if before + 1 >= len(stamps):
            return -1
        gaps = (tick - stamps[before], stamps[before + 1] - tick)
        return before if tolerance is None or max(gaps) <= tolerance else -1
    chosen = before
    if policy == "nearest" and before + 1 < len(stamps):
        later = stamps[before + 1] - tick
        if before < 0 or later < tick - stamps[before]:
            chosen = before + 1
    if chosen < 0 or (tolerance is not None and abs(stamps[chosen] - tick) > tolerance):
        return -1
    return chosen


@given(
    stamps_strategy,
    ticks_strategy,
    st.sampled_from(["previous", "nearest", "linear", "slerp"]),
    st.one_of(st.none(), st.integers(0, 30)),
)
def test_tables_equal_their_definition(
    stamps: np.ndarray, ticks: np.ndarray, policy: str, tolerance: int | None
) -> None:
    index, residual = align_stream(stamps, ticks, policy, tolerance)
    expected = [_by_definition(stamps.tolist(), int(t), policy, tolerance) for t in ticks]
    assert index.tolist() == expected
    for k, i in enumerate(expected):
        assert residual[k] == (NO_RESIDUAL if i < 0 else stamps[i] - ticks[k])


@given(stamps_strategy, ticks_strategy, st.integers(0, 220))
def test_previous_never_sees_its_future(stamps: np.ndarray, ticks: np.ndarray, cut: int) -> None:
    """Whatever comes after a tick, the tick keeps its sample."""
    index, _ = align_stream(stamps, ticks, "previous")
    past = stamps[stamps <= T0 + cut]
    shortened, _ = align_stream(past, ticks, "previous")
    early = ticks <= T0 + cut
    assert np.array_equal(index[early], shortened[early])


def test_negative_tolerance_and_unknown_policy_are_refused() -> None:
    with pytest.raises(ConfigError, match="negative"):
        align_stream(np.array([T0]), np.array([T0]), "previous", -1)
    with pytest.raises(ConfigError, match="unknown alignment policy 'next'"):
        align_stream(np.array([T0]), np.array([T0]), "next")  # type: ignore[arg-type]


@given(st.floats(0.5, 1000), st.integers(0, 3600))
def test_fixed_rate_ticks_do_not_drift(rate: float, seconds: int) -> None:
    ticks = fixed_rate_ticks(T0, T0 + seconds * 10**9, rate)
    assert ticks[0] == T0
    assert ticks[-1] <= T0 + seconds * 10**9
    k = len(ticks) - 1
    assert abs(int(ticks[-1]) - T0 - k * 1e9 / rate) <= 1


def _stream(name: str, stamps: np.ndarray, kind: Kind = Kind.SIGNAL) -> Stream:
    info = StreamInfo(name, kind, {"data": FieldInfo("<f8")})
    return Stream(info, {"stamp_ns": stamps, "data": np.arange(len(stamps), dtype=float)})


def test_events_neither_set_the_span_nor_time_out() -> None:
    steady = _stream("imu", T0 + np.arange(100, dtype=np.int64) * 10_000_000)
    latched = _stream("latched", np.array([T0 - 3600 * 10**9]))
    timeline = build_timeline({"imu": steady, "latched": latched}, rate_hz=50)
    assert timeline.tick_ns[0] == T0
    assert timeline.streams["latched"].tolerance_ns is None
    assert (timeline.streams["latched"].index == 0).all()
    assert timeline.streams["imu"].tolerance_ns == 15_000_000


def test_a_gap_in_a_steady_stream_stays_a_gap() -> None:
    stamps = T0 + np.delete(np.arange(100, dtype=np.int64), slice(40, 60)) * 10_000_000
    timeline = build_timeline({"imu": _stream("imu", stamps)}, rate_hz=100)
    missing = timeline.streams["imu"].index < 0
    assert missing.sum() == 19
    assert missing[41:60].all()


def test_reference_stream_gives_the_ticks() -> None:
    camera = _stream("camera", T0 + np.array([0, 33, 66, 66, 100], np.int64) * 10**6)
    timeline = build_timeline({"camera": camera}, reference_stream="camera")
    assert timeline.name == "camera"
    assert timeline.tick_ns.tolist() == np.unique(camera.stamp_ns).tolist()
    assert timeline.streams["camera"].residual_ns.tolist() == [0, 0, 0, 0]
    with pytest.raises(ConfigError, match="no stream 'lidar'; there are: camera"):
        build_timeline({"camera": camera}, reference_stream="lidar")
    with pytest.raises(ConfigError, match="either a rate or a reference"):
        build_timeline({"camera": camera})
