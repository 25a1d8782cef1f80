"""QA samples: sizes and acceptance numbers by hand, minimum rates, unbiased estimates."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.quality.queue import Candidate, checker_quality, review_queue
from mmdata.quality.sampling import (
    Item,
    Plan,
    acceptance_number,
    estimate_fault_rate,
    fault_rate_bounds,
    sample_size,
    stratified_sample,
    zero_acceptance_size,
)


def test_zero_acceptance_sizes_everyone_knows() -> None:
    assert zero_acceptance_size(0.05) == 59
    assert zero_acceptance_size(0.01) == 299
    assert zero_acceptance_size(0.05, 0.90) == 45
    with pytest.raises(ValueError, match="between 0 and 1"):
        zero_acceptance_size(0)


@pytest.mark.parametrize(("acceptance", "size"), [(0, 59), (1, 93), (2, 124), (3, 153)])
def test_sizes_for_larger_acceptance_numbers(acceptance: int, size: int) -> None:
    # Known sizes for 95 % confidence that fewer than 5 % are faulty.
    assert sample_size(0.05, acceptance) == size

    def risk(n: int) -> float:
        return sum(math.comb(n, k) * 0.05**k * 0.95 ** (n - k) for k in range(acceptance + 1))

    assert risk(size) <= 0.05 < risk(size - 1)
    assert acceptance_number(size, 0.05) == acceptance
    assert acceptance_number(size - 1, 0.05) == (acceptance - 1 if acceptance else None)


def test_small_lots_need_less() -> None:
    # Lot of 20 with 1 bad: missing it in n draws has chance (20 - n) / 20, so n = 19.
    assert sample_size(0.05, 0, lot=20) == 19
    assert sample_size(0.05, 0, lot=200) < 59
    assert acceptance_number(20, 0.05, lot=20) == 0
    assert acceptance_number(100, 0.05, lot=100) == 4  # all seen: 4 of 100 is below 5 %


def test_bounds_by_the_rule_of_three() -> None:
    low, high = fault_rate_bounds(0, 100)
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert fault_rate_bounds(100, 100)[1] == 1.0


def items() -> list[Item]:
    rng = np.random.default_rng(0)
    made = []
    for label, n in (("car", 1000), ("truck", 100), ("tram", 8)):
        for i in range(n):
            annotator = str(rng.choice(["anna", "bob"], p=[0.9, 0.1]))
            made.append(Item(f"{label}{i}", f"ep{i % 7}", label, annotator, "warning"))
    return made


def test_sample_keeps_minimum_rates_and_every_stratum() -> None:
    plan = Plan(rate=0.05, min_rate=0.10, min_count=20, class_rates={"truck": 0.5})
    sample = stratified_sample(items(), plan, seed=3)
    drawn = {s.name[0]: s for s in sample.classes}
    assert drawn["car"].sampled == 100
    assert drawn["truck"].sampled == 50
    assert drawn["tram"].sampled == 8  # fewer than the minimum: all of them
    assert all(s.sampled >= 1 for s in sample.strata)
    bob = next(s for s in sample.strata if s.name == ("car", "", "bob", "warning"))
    assert bob.sampled / 100 == pytest.approx(bob.population / 1000, abs=0.011)
    assert drawn["tram"].acceptance == 0
    assert drawn["car"].acceptance == acceptance_number(100, 0.05, lot=1000)
    assert len({i.key for i in sample.items}) == len(sample.items)
    json.dumps(sample.to_dict())


def test_sample_depends_on_seed_and_not_on_order() -> None:
    made = items()
    one = stratified_sample(made, Plan(), seed=1)
    assert stratified_sample(made[::-1], Plan(), seed=1) == one
    assert stratified_sample(made, Plan(), seed=2).items != one.items
    with pytest.raises(ValueError, match="twice"):
        stratified_sample([made[0], made[0]], Plan())


def test_weighted_fault_rate_is_unbiased_where_classes_are_sampled_unevenly() -> None:
    made = items()
    bad = {i.key: i.label == "truck" for i in made}  # 100 of 1108
    plan = Plan(rate=0.05, min_rate=0.05, min_count=0, class_rates={"truck": 0.9})
    sample = stratified_sample(made, plan)
    rates = estimate_fault_rate(sample, {i.key: bad[i.key] for i in sample.items})
    assert rates["*"]["fault_rate"] == pytest.approx(100 / 1108, abs=0.002)
    assert rates["*"]["faults"] / rates["*"]["checked"] > 0.5  # what not weighing would say
    assert rates["truck"]["accepted"] is False
    assert rates["car"]["accepted"] is (None if sample.classes[0].acceptance is None else True)
    some = dict.fromkeys([sample.items[0].key], False)
    assert estimate_fault_rate(sample, some)["truck"]["accepted"] is None


# Queue -------------------------------------------------------------------------------------


def candidates(n: int = 200) -> list[Candidate]:
    return [
        Candidate(f"c{i}", f"ep{i % 3}", ["error", "warning", "info", "none"][i % 4], (i % 10) / 10)
        for i in range(n)
    ]


def test_queue_ranks_by_severity_times_score_with_a_spread_random_share() -> None:
    queue = review_queue(candidates(), size=100, random_share=0.2, seed=5)
    assert [e.position for e in queue] == list(range(100))
    random = [e.position for e in queue if e.why == "random"]
    assert len(random) == 20
    assert all(2 <= b - a <= 8 for a, b in pairwise(random))
    ranks = [e.candidate.rank for e in queue if e.why == "ranked"]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] == pytest.approx(2.4)  # error x 0.8: scores of errors are even tenths
    assert len({e.candidate.id for e in queue}) == 100
    json.dumps([e.to_dict() for e in queue])
    assert review_queue(candidates()[::-1], size=100, random_share=0.2, seed=5) == queue


def test_every_candidate_has_the_same_chance_of_the_random_share() -> None:
    made = candidates(20)
    seen = dict.fromkeys((c.id for c in made), 0)
    for seed in range(600):
        for entry in review_queue(made, size=10, random_share=0.4, seed=seed):
            if entry.why == "random":
                seen[entry.candidate.id] += 1
    # 4 of 20 in 600 queues: 120 expected, standard deviation about 10.
    assert min(seen.values()) > 120 - 45
    assert max(seen.values()) < 120 + 45


@given(st.integers(0, 30), st.floats(0, 1), st.none() | st.integers(0, 40))
def test_queue_is_complete(n: int, share: float, size: int | None) -> None:
    queue = review_queue(candidates(n), size=size, random_share=share)
    assert len(queue) == (n if size is None else min(n, size))
    assert len({e.candidate.id for e in queue}) == len(queue)


def test_queue_refuses_nonsense() -> None:
    for bad in (Candidate("a", "e", "awful"), Candidate("a", "e", "info", 1.5)):
        with pytest.raises(ValueError, match="severity is one of"):
            review_queue([bad])
    with pytest.raises(ValueError, match="twice"):
        review_queue([Candidate("a", "e"), Candidate("a", "e")])
    with pytest.raises(ValueError, match="random share"):
        review_queue([], random_share=2)


def test_random_part_estimates_the_checker() -> None:
    # Flagged items are faulty half of the time, others one time in ten.
    made = [
        Candidate(f"c{i}", "e", "error" if i % 5 == 0 else "none") for i in range(4000)
    ]  # fmt: skip
    faulty = {("e", None, f"c{i}"): (i % 10 == 0 if i % 5 == 0 else i % 10 == 1)
              for i in range(4000)}  # fmt: skip
    quality = checker_quality(review_queue(made, random_share=0.5, seed=1), faulty)
    for name, truth in (("precision", 0.5), ("recall", 0.5), ("fault_rate", 0.2)):
        made_ = quality[name]
        assert made_.value == pytest.approx(truth, abs=0.05)
        assert made_.low is not None
        assert made_.high is not None
        assert made_.low < truth < made_.high
    assert checker_quality([], {})["recall"].value is None
