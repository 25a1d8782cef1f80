"""Agreement coefficients against scikit-learn, krippendorff, and cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmdata.quality.agreement import (
    alpha_by_value,
    alpha_of,
    balanced_accuracy,
    class_scores,
    cohen_kappa,
    coincidences,
    confusion,
    fleiss_kappa,
    krippendorff_alpha,
    unitize,
    unitizing_alpha,
    unitizing_alphas,
)
from mmdata.quality.bootstrap import bootstrap, bootstrap_sums
from mmdata.quality.intervals import Interval

MS = 1_000_000
labels = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=2,
                  max_size=60)  # fmt: skip


# Kappa -------------------------------------------------------------------------------------


def test_cohen_by_hand() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: po = 0.7, pe = 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    a = ["y"] * 25 + ["n"] * 25
    b = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4, abs=1e-12)
    assert math.isnan(cohen_kappa(["y"] * 3, ["y"] * 3))
    assert cohen_kappa(["y", "n"], ["n", "y"]) == -1
    with pytest.raises(ValueError, match="2 and 1"):
        cohen_kappa(["y", "n"], ["y"])


@given(labels, st.sampled_from([None, "linear", "quadratic"]))
def test_cohen_equals_scikit_learn(pairs: list[tuple[str, str]], weights: Any) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = ([p[i] for p in pairs] for i in (0, 1))
    assume(len({*a, *b}) > 1)
    ours = cohen_kappa(a, b, weights=weights)
    if math.isnan(ours):
        return
    assert ours == pytest.approx(metrics.cohen_kappa_score(a, b, weights=weights), abs=1e-9)


def test_fleiss_example_of_the_original_paper_form() -> None:
    # Ten subjects, fourteen raters, five categories; value known to three digits as 0.210.
    table = np.array([
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ])  # fmt: skip
    assert fleiss_kappa(table) == pytest.approx(0.2099, abs=5e-5)


def test_fleiss_by_hand() -> None:
    # Two raters: agree on a, agree on b, differ. P = 2/3; shares 1/2, 1/2, so Pe = 1/2.
    assert fleiss_kappa([[2, 0], [0, 2], [1, 1]]) == pytest.approx(1 / 3, abs=1e-12)
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([[2, 0], [1, 0]])
    assert math.isnan(fleiss_kappa([[2, 0], [2, 0]]))


# Krippendorff ------------------------------------------------------------------------------

#: Four observers, twelve units, missing values: Krippendorff's own textbook example.
TEXTBOOK: list[list[int | None]] = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_krippendorff_textbook_values() -> None:
    assert krippendorff_alpha(TEXTBOOK, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(TEXTBOOK, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(TEXTBOOK, "interval") == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(TEXTBOOK, "ratio") == pytest.approx(0.797, abs=5e-4)


def test_krippendorff_by_hand() -> None:
    # Units (a,a) (a,b): coincidences aa 2, ab 1, ba 1. Do = 2/4; De = 2*3*1/(4*3) = 1/2: alpha 0.
    assert krippendorff_alpha([["a", "a"], ["a", "b"]]) == pytest.approx(0, abs=1e-12)
    assert krippendorff_alpha([["a", "b"], ["a", "b"]]) == 1
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))
    assert math.isnan(krippendorff_alpha([["a", None], [None, "b"]]))


ratings = st.integers(2, 4).flatmap(
    lambda m: st.lists(
        st.lists(st.none() | st.integers(1, 5), min_size=m, max_size=m), min_size=2, max_size=25
    )
)


@given(ratings, st.sampled_from(["nominal", "ordinal", "interval", "ratio"]))
def test_alpha_equals_the_krippendorff_package(units: list[list[int | None]], level: Any) -> None:
    package = pytest.importorskip("krippendorff")
    rows = [list(row) for row in zip(*units, strict=True)]
    paired = [v for u in units if sum(v is not None for v in u) > 1 for v in u if v is not None]
    assume(len(set(paired)) > 1)
    data = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)
    theirs = package.alpha(reliability_data=data, level_of_measurement=level)
    assert krippendorff_alpha(rows, level) == pytest.approx(theirs, abs=1e-9)


def test_alpha_by_value_is_alpha_of_that_value_against_the_rest() -> None:
    values = [1, 2, 3, 4, 5]
    by_value = alpha_by_value(coincidences(TEXTBOOK, values), values)
    for value in values:
        told = [[None if v is None else v == value for v in row] for row in TEXTBOOK]
        assert by_value[value] == pytest.approx(krippendorff_alpha(told), abs=1e-12)


# Unitising ---------------------------------------------------------------------------------


def segments(*rows: tuple[str, int, int]) -> list[Interval]:
    return [Interval(label, a * MS, b * MS) for label, a, b in rows]


def test_unitizing_by_hand() -> None:
    # Continuum of 10; one marks [0, 4), the other [2, 6), same label.
    # Per direction: a with a 2, a with gap 2, gap with a 2, gap with gap 4.
    # Both directions over m-1 = 1: aa 4, ag 4, ga 4, gg 8; total 20, margins 8 and 12.
    # Squares: a 16 + 16, gaps lengths 6 + (2 + 4) = 12. e_ag = 20 * 8 * 12 / (400 - 44).
    expected = 20 * 96 / (400 - 44)
    alphas = unitizing_alpha([segments(("a", 0, 4)), segments(("a", 2, 6))], 0, 10 * MS)
    assert alphas["u"] == pytest.approx(1 - 4 / expected, abs=1e-12)
    assert alphas["binary"] == pytest.approx(1 - 4 / expected, abs=1e-12)
    # Of a alone: disagreement 4 against expected e_ag.
    assert alphas["a"] == pytest.approx(1 - 4 / expected, abs=1e-12)


@pytest.mark.parametrize(("n", "reference"), [(2, 0.7380275085964364), (3, 0.540524642810329)])
def test_unitizing_equals_another_implementation(n: int, reference: float) -> None:
    """Numbers from the package krippendorff-unitized-alpha 0.1.0, given the gaps as segments."""
    rows = [
        segments(("a", 0, 40), ("b", 55, 90)),
        segments(("a", 3, 45), ("b", 45, 88)),
        segments(("a", 0, 30), ("c", 30, 60), ("b", 60, 100)),
    ]
    assert unitizing_alpha(rows[:n], 0, 100 * MS)["u"] == pytest.approx(reference, abs=1e-12)


def test_unitizing_perfect_absent_and_opposite() -> None:
    one = segments(("a", 0, 4), ("b", 4, 9))
    assert unitizing_alpha([one, one], 0, 10 * MS)["u"] == 1
    assert math.isnan(unitizing_alpha([[], []], 0, 10 * MS)["u"])
    other = segments(("b", 0, 4), ("a", 4, 9))
    alphas = unitizing_alpha([one, other], 0, 10 * MS)
    assert alphas["u"] < 0
    assert alphas["binary"] == 1
    with pytest.raises(ValueError, match="beyond"):
        unitizing_alpha([one, segments(("a", 5, 11))], 0, 10 * MS)
    with pytest.raises(ValueError, match="two annotators"):
        unitizing_alpha([one], 0, 10 * MS)


def test_unitizing_without_gaps_on_tiny_segments_is_the_nominal_alpha_of_bins() -> None:
    # With segments of one unit each, sum of squares is the number of bins: alpha of the bins.
    rng = np.random.default_rng(3)
    a, b = rng.choice(list("abc"), (2, 200))
    b = np.where(rng.random(200) < 0.7, a, b)
    units = [segments(*((str(x), i, i + 1) for i, x in enumerate(row))) for row in (a, b)]
    alphas = unitizing_alpha(units, 0, 200 * MS)
    assert alphas["u"] == pytest.approx(krippendorff_alpha([a.tolist(), b.tolist()]), abs=1e-12)


def test_unitizing_is_additive_over_episodes() -> None:
    one = [segments(("a", 0, 4)), segments(("a", 2, 6))]
    two = [segments(("b", 1, 3)), segments(("b", 1, 4))]
    tables = [unitize(pair, 0, 10 * MS, ["a", "b"]).table() for pair in (one, two)]
    shifted = [
        one[k] + [Interval(i.label, i.start_ns + 10 * MS, i.end_ns + 10 * MS) for i in two[k]]
        for k in (0, 1)
    ]
    joined = unitize(shifted, 0, 20 * MS, ["a", "b"])
    pooled = unitizing_alphas(tables[0] + tables[1], joined.categories)
    # Gaps that touch across the seam are counted by plain length, so nothing changes.
    assert pooled == pytest.approx(unitizing_alphas(joined.table(), joined.categories))


# Accuracy ----------------------------------------------------------------------------------


@given(labels)
def test_class_scores_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    true, said = ([p[i] for p in pairs] for i in (0, 1))
    known = sorted({*true, *said})
    scores = class_scores(confusion(true, said, known), known)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, said, labels=known, zero_division=np.nan
    )
    for i, label in enumerate(known):
        ours = scores[label]
        assert ours.support == support[i]
        for mine, theirs in ((ours.precision, precision[i]), (ours.recall, recall[i]),
                             (ours.f1, f1[i])):  # fmt: skip
            assert mine == pytest.approx(theirs, abs=1e-9, nan_ok=True)
        right = sum((t == label) == (s == label) for t, s in pairs) / len(pairs)
        assert ours.accuracy == pytest.approx(right, abs=1e-12)
    in_truth = [label for label in known if scores[label].support]
    wanted = metrics.recall_score(true, said, labels=in_truth, average="macro")
    assert balanced_accuracy(scores) == pytest.approx(wanted, abs=1e-9)


# Bootstrap ---------------------------------------------------------------------------------


def test_bootstrap_needs_two_episodes_and_covers_the_truth() -> None:
    single = bootstrap([1.0], lambda e: {"mean": float(np.mean(e))})["mean"]
    assert (single.value, single.low, single.high, single.episodes) == (1.0, None, None, 1)
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        sample = rng.normal(5, 1, 30).tolist()
        made = bootstrap(sample, lambda e: {"m": float(np.mean(e))}, resamples=300, seed=trial)
        assert made["m"].low is not None
        assert made["m"].high is not None
        covered += made["m"].low <= 5 <= made["m"].high
    assert 50 <= covered <= 60


def test_bootstrap_of_sums_agrees_with_the_general_one() -> None:
    tables = np.random.default_rng(1).integers(0, 20, (12, 2, 2)).astype(float)

    def rate(total: Any) -> dict[str, float]:
        return {"rate": float(total[0, 0] / total.sum())}

    fast = bootstrap_sums(tables, rate, resamples=4000)["rate"]
    slow = bootstrap(
        list(tables), lambda e: rate(np.sum(e, axis=0)), resamples=4000
    )["rate"]  # fmt: skip
    assert fast.value == slow.value
    assert fast.low == pytest.approx(slow.low, abs=0.01)
    assert fast.high == pytest.approx(slow.high, abs=0.01)


def test_undefined_statistics_are_absent_not_zero() -> None:
    made = bootstrap_sums(np.zeros((3, 2, 2)), lambda t: {"alpha": alpha_of(t, [0, 1])})
    assert made["alpha"].value is None
    assert made["alpha"].low is None
