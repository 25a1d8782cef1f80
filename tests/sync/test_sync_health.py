"""Stream health against hand-counted faults."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.sync.health import latency_health, recorded_order, stamp_health

START = 1_760_000_000_000_000_000


def grid(n: int, period_ns: int = 10_000_000, jitter_ns: int = 0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return START + np.arange(n) * period_ns + np.rint(rng.normal(0, 1, n) * jitter_ns).astype(int)


def test_clean_stream_has_no_fault() -> None:
    health = stamp_health(grid(1000, jitter_ns=100_000))
    assert (health.regressions, health.duplicates, health.gaps, health.dropped) == (0, 0, 0, 0)
    assert health.period_ns == pytest.approx(10_000_000, rel=0.01)
    # Two independent errors per interval: 100 us * sqrt(2).
    assert health.jitter_std_ns == pytest.approx(141_421, rel=0.1)
    assert not health.perfect
    assert health.quantum_ns == 1


def test_drops_duplicates_and_regressions_are_counted_exactly() -> None:
    stamps = np.delete(grid(200, jitter_ns=50_000), [20, 21, 90])  # two gaps, three samples
    stamps = np.insert(stamps, 50, stamps[50])  # one repeat
    stamps[150:] -= 300_000_000  # the clock is set back by 300 ms, an interval of about -290 ms
    health = stamp_health(stamps)
    assert (health.gaps, health.dropped) == (2, 3)
    assert health.duplicates == 1
    assert health.regressions == 1
    assert health.worst_regression_ns == pytest.approx(290e6, abs=1e6)
    assert health.longest_gap_ns == pytest.approx(30e6, abs=1e6)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(60, 400),
    back=st.sets(st.integers(5, 50), max_size=5),
    again=st.sets(st.integers(5, 50), max_size=5),
    seed=st.integers(0, 999),
)
def test_no_monotonicity_fault_is_missed(
    n: int, back: set[int], again: set[int], seed: int
) -> None:
    steps = np.random.default_rng(seed).integers(5_000_000, 15_000_000, n)
    for i in back:
        steps[i] = -int(steps[i])
    for i in again - back:
        steps[i] = 0
    health = stamp_health(START + np.cumsum(steps))
    # The first step leads from the start itself, so it is no interval.
    assert health.regressions == len(back)
    assert health.duplicates == len(again - back)


def test_perfect_grid_is_called_computed_even_with_drops() -> None:
    assert stamp_health(grid(100)).perfect
    assert stamp_health(np.delete(grid(100), [10, 40, 41])).perfect
    thirty = START + np.rint(np.arange(100) * (1e9 / 30)).astype(np.int64)
    assert stamp_health(thirty).perfect
    assert not stamp_health(grid(100, jitter_ns=5_000)).perfect
    late_jitter = grid(100)
    late_jitter[60:] += 40_000
    assert not stamp_health(late_jitter).perfect


def test_quantisation_is_the_largest_power_of_ten() -> None:
    assert stamp_health(grid(50)).quantum_ns == 10_000_000
    assert stamp_health(grid(50) + 1_000).quantum_ns == 1_000
    assert stamp_health(grid(50) + 7).quantum_ns == 1


def test_events_have_no_drops() -> None:
    rng = np.random.default_rng(1)
    health = stamp_health(START + np.cumsum(rng.exponential(1e9, 300)).astype(np.int64))
    assert not health.periodic
    assert health.dropped is None


def test_few_stamps_say_little() -> None:
    assert stamp_health(np.empty(0, np.int64)).count == 0
    assert stamp_health(np.array([START])).rate_hz is None
    assert stamp_health(grid(3)).period_ns is None


def test_latency_numbers_and_negative_ones() -> None:
    source = grid(100, jitter_ns=1000)
    delay = np.arange(100) * 1_000_000 - 5_000_000
    latency = latency_health(source, source + delay)
    assert (latency.min_ns, latency.max_ns) == (-5_000_000, 94_000_000)
    assert latency.p50_ns == pytest.approx(45_000_000, abs=1_000_000)
    assert latency.p95_ns == pytest.approx(89_000_000, abs=1_000_000)
    assert latency.negative == 5


def test_burst_is_seen() -> None:
    source = grid(100, jitter_ns=1000)
    receive = source + 2_000_000
    receive[40:45] = receive[45]  # six arrive together
    assert latency_health(source, receive).bursts == 1
    assert latency_health(source, source + 2_000_000).bursts == 0


def test_clock_that_is_set_shows_as_a_step() -> None:
    rng = np.random.default_rng(3)
    source = grid(3000, jitter_ns=1000)
    receive = source + 3_000_000 + rng.exponential(2e6, 3000).astype(np.int64)
    assert latency_health(source, receive).step_ns is None
    stepped = np.where(np.arange(3000) < 1500, source, source - 80_000_000)
    step = latency_health(stepped, receive).step_ns
    assert step == pytest.approx(80e6, abs=3e6)
    excursion = receive.copy()
    excursion[1500:1540] -= 150_000_000
    assert latency_health(source, excursion).step_ns is None


def test_recorded_order_undoes_the_sort() -> None:
    original = np.array([5, 3, 9, 9, 1])
    order = np.argsort(original, kind="stable")
    assert recorded_order(original[order], order).tolist() == original.tolist()


def test_ten_million_stamps_in_under_two_seconds() -> None:
    stamps = grid(10_000_000, jitter_ns=100_000)
    # Processor time: other programs on the machine are no fault of ours.
    start = time.process_time()
    stamp_health(stamps)
    assert time.process_time() - start < 2.0
