"""Calibration and routing, gold tasks and drift of annotators."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.quality.calibration import calibration, calibration_error, routing_thresholds
from mmdata.quality.gold import GoldResult, annotator_drift, seed_gold


def test_ece_by_hand() -> None:
    # Two bins: 0.2 with 1 of 4 right, 0.8 with 2 of 4 right: (0.05 * 4 + 0.3 * 4) / 8.
    confidence = [0.2] * 4 + [0.8] * 4
    correct = [1, 0, 0, 0, 1, 1, 0, 0]
    for binning in ("mass", "width"):
        ece, rows = calibration_error(confidence, correct, bins=2, binning=binning)  # type: ignore[arg-type]
        assert ece == pytest.approx(0.175, abs=1e-12)
        assert [(c, a, n) for c, a, n in rows] == [(pytest.approx(0.2), 0.25, 4),
                                                   (pytest.approx(0.8), 0.5, 4)]  # fmt: skip
    made = calibration(confidence, correct, bins=2)
    assert made.mce == pytest.approx(0.3)
    assert made.brier == pytest.approx((0.64 + 3 * 0.04 + 2 * 0.04 + 2 * 0.64) / 8)
    assert math.isnan(calibration_error([], [])[0])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration([1.2], [1])
    with pytest.raises(ValueError, match="no confidence"):
        calibration([], [])


def test_width_bins_are_closed_on_the_right() -> None:
    _, rows = calibration_error([0.5, 0.51, 0.0, 1.0], [1, 1, 1, 1], bins=2, binning="width")
    assert [n for _, _, n in rows] == [2, 2]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80))
def test_mass_bins_hold_every_item_once_and_never_split_equals(
    rows: list[tuple[float, bool]],
) -> None:
    c = [r[0] for r in rows]
    ece, bins = calibration_error(c, [r[1] for r in rows], bins=7)
    assert sum(n for _, _, n in bins) == len(rows)
    assert 0 <= ece <= 1
    means = [m for m, _, _ in bins]
    assert means == sorted(means)


def test_calibrated_confidences_have_a_small_error_and_intervals_hold_it() -> None:
    rng = np.random.default_rng(0)
    c = rng.uniform(0, 1, 6000)
    correct = rng.random(6000) < c
    episodes = [f"e{i % 30}" for i in range(6000)]
    good = calibration(c, correct, episodes=episodes, resamples=100)
    assert good.ece.value is not None
    assert good.ece.value < 0.03
    assert good.ece.episodes == 30
    bad = calibration(c, rng.random(6000) < c**3, episodes=episodes, resamples=100)
    assert bad.ece.value == pytest.approx(0.25, abs=0.03)  # mean of c - c^3
    assert bad.ece.low is not None
    assert bad.ece.low > 0.2
    inside = sum(b.low <= b.confidence <= b.high for b in good.bins)
    assert inside >= 13


def test_routing_threshold_by_hand() -> None:
    # 150 right ones at 0.9 (enough for 2 % at 95 %: 149), errors below.
    confidence = [0.9] * 150 + [0.5] * 50
    correct = [True] * 150 + [False] * 50
    routes = routing_thresholds(confidence, correct, ["a"] * 200)
    assert routes["a"].threshold == 0.9
    assert routes["a"].accepted == 0.75
    assert routes["a"].error_bound == pytest.approx(1 - 0.05 ** (1 / 150))
    assert routing_thresholds(confidence[:140], correct[:140], ["a"] * 140)["a"].threshold is None
    split = routing_thresholds(confidence, correct, ["a"] * 150 + ["b"] * 50)
    assert split["b"].threshold is None


def test_routing_keeps_its_promise() -> None:
    """Over many draws the true error above the threshold is rarely beyond the promise."""
    rng = np.random.default_rng(1)
    broken = used = 0
    for _ in range(150):
        c = rng.uniform(0.5, 1, 800)
        correct = rng.random(800) < c
        route = routing_thresholds(c, correct, ["a"] * 800, max_error=0.1)["a"]
        if route.threshold is not None:
            used += 1
            broken += (1 - route.threshold) / 2 > 0.1
    assert used > 30
    assert broken <= 0.05 * 150 + 6


# Gold --------------------------------------------------------------------------------------


@given(st.integers(1, 80), st.sampled_from([0.1, 0.2, 0.25, 0.5]), st.integers(0, 5))
def test_gold_is_seeded_once_per_stretch(n: int, rate: float, seed: int) -> None:
    tasks = [f"t{i}" for i in range(n)]
    out = seed_gold(tasks, ["g0", "g1", "g2"], rate=rate, seed=seed)
    assert [t for t, gold in out if not gold] == tasks
    stretch = round(1 / rate)
    for k in range(0, len(out), stretch):
        assert sum(gold for _, gold in out[k : k + stretch]) == 1
    used = [t for t, gold in out if gold]
    for k in range(0, len(used) - 2, 3):
        assert set(used[k : k + 3]) == {"g0", "g1", "g2"}
    assert out == seed_gold(tasks, ["g0", "g1", "g2"], rate=rate, seed=seed)


def test_gold_places_cannot_be_counted_off() -> None:
    out = seed_gold([str(i) for i in range(900)], ["g"], rate=0.1)
    places = {k % 10 for k, (_, gold) in enumerate(out) if gold}
    assert len(places) == 10
    for rate, gold in ((0.0, ["g"]), (0.1, [])):
        with pytest.raises(ValueError, match="gold"):
            seed_gold(["a"], gold, rate=rate)


def results(annotator: str, scores: list[float], label: str = "car") -> list[GoldResult]:
    return [GoldResult(annotator, 1000 + i, label, s) for i, s in enumerate(scores)]


def test_drift_finds_when_somebody_became_worse() -> None:
    steady = results("anna", [1, 1, 1, 0, 1] * 10)
    worse = results("bob", [1.0] * 25 + [0.0, 0.0, 1.0] * 9)
    found = {(d.annotator, d.label): d for d in annotator_drift([*steady, *worse])}
    bob = found["bob", "*"]
    assert bob.drifted is True
    assert bob.change_unix_ns == 1000 + 25
    assert (bob.before, bob.after) == (1.0, pytest.approx(1 / 3))
    anna = found["anna", "car"]
    assert anna.drifted is False
    assert anna.mean == 0.8
    assert anna.interval is not None
    assert anna.interval[0] < 0.8 < anna.interval[1]
    few = annotator_drift(results("zoe", [1.0] * 6))
    assert all(d.p_value is None and d.drifted is None for d in few)


def test_drift_raises_few_false_alarms() -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for trial in range(60):
        own = results("x", (rng.random(40) < 0.9).astype(float).tolist())
        alarms += any(d.drifted for d in annotator_drift(own, permutations=199, seed=trial))
    assert alarms <= 8


def test_drift_of_graded_scores() -> None:
    rng = np.random.default_rng(3)
    own = results("x", [*rng.normal(0.8, 0.05, 20), *rng.normal(0.6, 0.05, 20)])
    (by_class, everything) = sorted(annotator_drift(own), key=lambda d: d.label != "car")
    assert by_class.drifted is True
    assert by_class.interval is None
    assert by_class.change_unix_ns == pytest.approx(1020, abs=1)
    assert everything.label == "*"
