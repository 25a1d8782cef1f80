"""Rates that change, and samples that are missing rather than late or wrongly stamped."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.store import EpisodeWriter, open_episode
from mmdata.sync.assess import assess
from mmdata.sync.health import stamp_health
from mmdata.sync.rate import rate_spans

START = 1_760_000_000_000_000_000
MS = 1_000_000


def stamps(steps_ms: np.ndarray, jitter_ms: float = 0.05, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = np.r_[0.0, np.cumsum(steps_ms)] + rng.normal(0, jitter_ms, len(steps_ms) + 1)
    return START + np.rint(at * MS).astype(np.int64)


@pytest.mark.parametrize("ratio", [0.5, 0.67, 1.25, 2.0, 3.0])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_a_rate_that_changes_is_no_loss(ratio: float, share: float) -> None:
    at = int(800 * share)
    health = stamp_health(stamps(np.r_[np.full(at, 10.0), np.full(800 - at, 10.0 * ratio)]))
    (change,) = health.rate_changes
    assert change.before_hz == pytest.approx(100, rel=0.01)
    assert change.after_hz == pytest.approx(100 / ratio, rel=0.01)
    assert abs(change.sample - at) <= 1
    assert (health.dropped, health.gaps) == (0, 0)
    assert health.jitter_std_ns == pytest.approx(0.07 * MS, rel=0.3)
    # The period is that of most samples.
    assert health.period_ns == pytest.approx((10.0 if share >= 0.5 else 10 * ratio) * MS, rel=0.01)


def test_a_rate_that_dips_comes_back() -> None:
    dip = np.r_[np.full(400, 10.0), np.full(200, 25.0), np.full(400, 10.0)]
    health = stamp_health(stamps(dip))
    assert [c.sample for c in health.rate_changes] == pytest.approx([400, 600], abs=1)
    # What is lost within a span is counted by the span's own period.
    lossy = np.delete(stamps(dip), [100, 450, 451, 800])
    assert stamp_health(lossy).dropped == 4
    assert len(stamp_health(lossy).rate_changes) == 2


def test_loss_at_random_is_no_change_of_rate() -> None:
    rng = np.random.default_rng(1)
    whole = stamps(np.full(2000, 10.0))
    kept = np.ones(len(whole), bool)
    kept[1000:-1] = rng.random(1000) > 0.6
    health = stamp_health(whole[kept])
    assert health.rate_changes == ()
    assert health.dropped == np.count_nonzero(~kept)


def test_a_rate_that_wanders_is_one_rate() -> None:
    slow = 10.0 * (1 + 0.04 * np.sin(np.arange(1000) / 150))
    health = stamp_health(stamps(slow))
    assert health.rate_changes == ()
    assert health.dropped == 0
    assert len(rate_spans(np.diff(stamps(np.full(20, 10.0))))) == 1


def test_a_stamp_that_steps_back_is_not_a_missing_sample() -> None:
    at = stamps(np.full(400, 10.0))
    at[[100, 102, 250]] -= np.array([17, 12, 31]) * MS  # beside each other, and alone
    health = stamp_health(at)
    assert (health.regressions, health.dropped, health.gaps) == (3, 0, 0)
    assert health.longest_gap_ns < 15 * MS
    assert health.faults.regressed.tolist() == [100, 102, 250]
    # One really missing beside it still counts.
    assert stamp_health(np.delete(at, [103, 300])).dropped == 2


def test_a_late_stamp_is_not_a_missing_sample_but_a_lasting_delay_is() -> None:
    at = stamps(np.full(400, 10.0))
    late = at.copy()
    late[200] += 7 * MS
    assert stamp_health(late).dropped == 0
    at[200:] += 7 * MS
    assert stamp_health(at).dropped == 1


def test_places_are_where_the_faults_are() -> None:
    at = np.delete(stamps(np.full(300, 10.0)), [150, 151])
    at[40] = at[39]
    at[80] -= 15 * MS
    places = stamp_health(at).faults.places(at + 5)
    assert places["repeated"] == [{"sample": 40, "stamp_ns": int(at[40]) + 5}]
    (back,) = places["regressed"]
    assert (back["sample"], back["stamp_ns"]) == (80, int(at[80]) + 5)
    assert back["by_ns"] == pytest.approx(5 * MS, abs=0.3 * MS)
    (gap,) = [g for g in places["gaps"] if g["missing"] == 2]
    assert (gap["stamp_ns"], gap["end_ns"]) == (int(at[149]) + 5, int(at[150]) + 5)


def test_the_worst_places_are_kept() -> None:
    steps = np.full(900, 10.0)
    steps[::3] = 20.0
    steps[450] = 100.0
    places = stamp_health(stamps(steps)).faults.places(stamps(steps))
    assert len(places["gaps"]) == 100
    assert max(g["missing"] for g in places["gaps"]) == 9


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    jitter=st.floats(0.001, 0.9),
    lost=st.integers(0, 20),
    back=st.integers(0, 3),
    again=st.integers(0, 5),
)
def test_crossed_faults_are_counted_each(
    seed: int, jitter: float, lost: int, back: int, again: int
) -> None:
    rng = np.random.default_rng(seed)
    at = stamps(np.full(600, 10.0), jitter, seed)
    gone = rng.choice(np.arange(8, 592), lost, replace=False)
    at = np.delete(at, gone)
    # Steps back apart from each other: a stamp between two that step back is itself in doubt.
    rows = 20 + rng.choice(np.arange((len(at) - 40) // 12), back, replace=False) * 12
    at[rows] = at[rows - 1] - rng.integers(1 * MS, 20 * MS, back)
    at = np.insert(at, rng.choice(np.arange(1, len(at) - 1), again, replace=False), 0)
    repeats = np.flatnonzero(at == 0)
    at[repeats] = at[repeats - 1]
    health = stamp_health(at)
    assert health.regressions == back
    assert health.duplicates == again
    assert health.dropped is not None
    assert abs(health.dropped - lost) <= (1 if jitter > 0.5 or lost > 6 else 0)


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2])
def test_jitter_rarely_passes_for_loss(share: float) -> None:
    counted = [
        stamp_health(stamps(np.full(1000, 10.0), 10 * share, seed)).dropped or 0
        for seed in range(20)
    ]
    assert np.mean(counted) < 1.0


@pytest.mark.parametrize(("period_ns", "count"), [(5_122_929, 1331), (39_503_155, 811)])
def test_computed_stamps_have_a_rate(tmp_path: Path, period_ns: int, count: int) -> None:
    """A line fits them to less than rounding, which must not leave it without a sample."""
    with EpisodeWriter(tmp_path / "e.h5") as writer:
        for name, period in (("a", period_ns), ("b", period_ns + period_ns // 50_000)):
            at = START + np.arange(count) * period
            writer.append(name, at, {"x": np.sin(at / 1e8)})
    with open_episode(tmp_path / "e.h5") as episode:
        ledger = assess(episode, content=False)
    (pair,) = [p for p in ledger.pairs if p.kind == "lockstep"]
    assert abs(pair.skew_ppm) == pytest.approx(20, abs=0.1)
