"""Scores against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.phases.metrics import (
    Interval,
    boundaries,
    edit_score,
    evaluate,
    frame_accuracy,
    match_instants,
    score_episode,
    segment_counts,
)

S = 1_000_000_000


def phases(*parts: tuple[str, float, float]) -> list[Interval]:
    return [Interval(label, round(a * S), round(b * S)) for label, a, b in parts]


TRUE = phases(("a", 0, 2), ("b", 2, 4), ("a", 4, 10))


def test_perfect_prediction_scores_everything() -> None:
    scores = evaluate([score_episode(TRUE, TRUE)])
    assert scores["frame_accuracy"].value == 100.0
    assert scores["edit"].value == 100.0
    assert scores["f1@50"].value == 100.0
    assert scores["boundary_f1@100ms"].value == 1.0
    assert scores["f1@50"].low is None  # one episode has no spread


def test_frame_accuracy_is_a_share_of_time() -> None:
    predicted = phases(("a", 0, 3), ("b", 3, 4), ("a", 4, 10))
    assert frame_accuracy(predicted, TRUE) == pytest.approx(90.0)


def test_edit_counts_sequence_errors_only() -> None:
    predicted = phases(("a", 0, 1), ("c", 1, 2), ("b", 2, 4), ("a", 4, 10))
    assert edit_score(predicted, TRUE) == pytest.approx(75.0)  # one insertion in four
    assert edit_score([], []) == 100.0
    assert edit_score([], TRUE) == 0.0


def test_segments_need_label_and_overlap() -> None:
    predicted = phases(("a", 0, 3), ("b", 3, 4), ("c", 4, 10))
    # a: IoU 2/3; b: IoU 1/2; c has no partner
    assert segment_counts(predicted, TRUE, 0.5) == (2, 1, 1)
    assert segment_counts(predicted, TRUE, 0.6) == (1, 2, 2)


def test_over_segmentation_lowers_edit_but_not_accuracy() -> None:
    split = phases(("a", 0, 1), ("a", 1, 2), ("b", 2, 4), ("a", 4, 7), ("a", 7, 10))
    score = score_episode(split, TRUE)
    assert score.accuracy == 100.0
    assert score.edit == pytest.approx(60.0)
    assert score.segments[0.5] == (3, 2, 0)


def test_boundaries_have_signed_errors() -> None:
    predicted = phases(("a", 0, 2.05), ("b", 2.05, 3.8), ("a", 3.8, 10))
    score = score_episode(predicted, TRUE)
    assert score.boundaries[100] == (1, 1, 1)
    assert score.boundaries[250] == (2, 0, 0)
    assert score.errors_ms == pytest.approx((50.0, -200.0))


def test_gaps_have_two_boundaries() -> None:
    assert boundaries(phases(("a", 0, 1), ("b", 2, 3))) == [1 * S, 2 * S]


def test_matching_is_not_greedy() -> None:
    # The closest pair (10, 11) would leave 0 and 20 without partners.
    assert match_instants([0, 11], [10, 20], 10) == [(0, 10), (11, 20)]


@given(
    st.lists(st.integers(0, 2000), unique=True, max_size=8),
    st.lists(st.integers(0, 2000), unique=True, max_size=8),
)
def test_matches_are_one_to_one_and_as_many_as_possible(a: list[int], b: list[int]) -> None:
    a, b = sorted(a), sorted(b)
    pairs = match_instants(a, b, 100)
    assert len({p for p, _ in pairs}) == len(pairs) == len({t for _, t in pairs})
    assert all(abs(p - t) <= 100 for p, t in pairs)

    def most(left: list[int], right: list[int]) -> int:
        if not left or not right:
            return 0
        best = max(most(left[1:], right), most(left, right[1:]))
        if abs(left[0] - right[0]) <= 100:
            best = max(best, 1 + most(left[1:], right[1:]))
        return best

    if len(a) + len(b) <= 10:
        assert len(pairs) == most(a, b)


def test_bootstrap_is_over_episodes() -> None:
    bad = score_episode(phases(("c", 0, 10)), TRUE)
    good = score_episode(TRUE, TRUE)
    score = evaluate([good, bad], resamples=200)["frame_accuracy"]
    assert score.value == 50.0
    assert (score.low, score.high) == (0.0, 100.0)
