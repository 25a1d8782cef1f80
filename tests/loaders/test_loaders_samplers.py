"""Orders: every sample once, in disjoint shards, as (seed, epoch) says, resumable anywhere."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import ConfigError
from mmdata.loaders import BatchSampler, BlockShuffle, Mixture, Sequential, Shuffle
from mmdata.loaders.samplers import Order, Permutation

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(lambda c: sum(c) > 0)


def _orders(counts: list[int], seed: int, block: int, open_blocks: int) -> list[Order]:
    n = sum(counts)
    return [Sequential(n), Shuffle(n, seed), BlockShuffle(counts, block, open_blocks, seed)]


def _read(order: Order, batch: int, **kind: Any) -> list[list[int]]:
    sampler = BatchSampler(order, batch, **kind)
    batches = list(sampler)
    assert len(batches) == len(BatchSampler(order, batch, **kind))
    return batches


@given(n=st.integers(1, 3000), key=st.integers(0, 2**40))
def test_permutation_is_one(n: int, key: int) -> None:
    assert sorted(Permutation(n, key)(np.arange(n)).tolist()) == list(range(n))


@settings(max_examples=8, deadline=None)
@given(n=st.integers((1 << 16) + 1, 300_000), key=st.integers(0, 2**40))
def test_permutation_by_network_is_one_and_mixes(n: int, key: int) -> None:
    image = Permutation(n, key)(np.arange(n))
    assert np.array_equal(np.sort(image), np.arange(n))
    # Of a random permutation the mean step between neighbours is n / 3, and few places stay.
    assert abs(np.abs(np.diff(image)).mean() / (n / 3) - 1) < 0.05
    assert (image == np.arange(n)).sum() < 12
    assert not np.array_equal(image, Permutation(n, key + 1)(np.arange(n)))


@settings(max_examples=60, deadline=None)
@given(
    counts=COUNTS,
    seed=st.integers(0, 99),
    block=st.integers(1, 20),
    open_blocks=st.integers(1, 5),
    batch=st.integers(1, 17),
    ranks=st.integers(1, 4),
    workers=st.integers(0, 3),
    epoch=st.integers(0, 5),
)
def test_every_sample_once_over_all_ranks(
    counts: list[int], seed: int, block: int, open_blocks: int, batch: int, ranks: int,
    workers: int, epoch: int,
) -> None:  # fmt: skip
    for order in _orders(counts, seed, block, open_blocks):
        seen: Counter[int] = Counter()
        for rank in range(ranks):
            sampler = BatchSampler(order, batch, rank=rank, ranks=ranks, workers=workers)
            sampler.set_epoch(epoch)
            expected = len(sampler)
            batches = list(sampler)
            assert len(batches) == expected
            assert all(0 < len(b) <= batch for b in batches)
            seen.update(n for b in batches for n in b)
        assert seen == Counter(range(sum(counts)))


@settings(max_examples=40, deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 9), batch=st.integers(1, 9), ranks=st.integers(1, 4))
def test_drop_gives_every_rank_equally_many_full_batches(
    counts: list[int], seed: int, batch: int, ranks: int
) -> None:
    for order in _orders(counts, seed, 7, 2):
        parts = [
            _read(order, batch, rank=r, ranks=ranks, workers=2, tail="drop") for r in range(ranks)
        ]
        assert len({len(p) for p in parts}) == 1
        flat = [n for p in parts for b in p for n in b]
        assert all(len(b) == batch for p in parts for b in p)
        assert len(set(flat)) == len(flat)


@settings(max_examples=60, deadline=None)
@given(
    counts=COUNTS,
    seed=st.integers(0, 99),
    batch=st.integers(1, 9),
    workers=st.integers(0, 3),
    cut=st.integers(0, 60),
    epoch=st.integers(0, 3),
)
def test_resumes_at_any_batch(
    counts: list[int], seed: int, batch: int, workers: int, cut: int, epoch: int
) -> None:
    for order in _orders(counts, seed, 6, 3):
        _check_resume(order, batch, workers, cut, epoch)


@pytest.mark.parametrize("cut", [0, 1, 430, 611])
def test_mixture_resumes_at_any_batch(cut: int) -> None:
    parts = [Shuffle(700, 1), BlockShuffle([300, 200], 8, 2, 1), Sequential(450)]
    _check_resume(Mixture(parts, [3, 1, 2], 5000, seed=4), 8, 0, cut, 2)


def _check_resume(order: Order, batch: int, workers: int, cut: int, epoch: int) -> None:
    whole = BatchSampler(order, batch, workers=workers)
    whole.set_epoch(epoch)
    batches = list(whole)
    first = BatchSampler(order, batch, workers=workers)
    first.set_epoch(epoch)
    reading = iter(first)
    before = [next(reading) for _ in range(min(cut, len(batches)))]
    state = json.loads(json.dumps(first.state_dict()))
    second = BatchSampler(order, batch, workers=workers)
    second.load_state_dict(state)
    assert before + list(second) == batches


def test_order_is_a_function_of_seed_and_epoch() -> None:
    for make in (lambda s: Shuffle(500, s), lambda s: BlockShuffle([250, 250], 10, 4, s)):

        def epoch(seed: int, number: int, make: Any = make) -> list[int]:
            sampler = BatchSampler(make(seed), 7)
            sampler.set_epoch(number)
            return [n for b in sampler for n in b]

        assert epoch(3, 4) == epoch(3, 4)
        assert epoch(3, 4) != epoch(3, 5)
        assert epoch(3, 4) != epoch(4, 4)
        assert epoch(3, 4) != sorted(epoch(3, 4))


def test_sequential_is_the_true_order() -> None:
    assert _read(Sequential(10), 4, workers=3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_blocks_stay_close_and_workers_keep_to_their_own() -> None:
    order = BlockShuffle([1000, 1000], 20, 2, seed=1)
    batches = _read(order, 20, workers=2)
    for at, batch in enumerate(batches):
        assert len({n // 20 for n in batch}) <= 4, at
    mine = [{n // 20 for b in batches[w::2] for n in b} for w in range(2)]
    assert not mine[0] & mine[1]
    assert any(batch != sorted(batch) for batch in batches)


def test_mixture_draws_shares_and_small_sets_come_round_evenly() -> None:
    order = Mixture([Shuffle(1000), Shuffle(10), Shuffle(50)], [0.5, 0.3, 0.2], 20_000, seed=2)
    numbers = np.array([n for b in _read(order, 100) for n in b])
    which = np.searchsorted([1000, 1010, 1060], numbers, side="right")
    shares = np.bincount(which, minlength=3) / len(numbers)
    assert np.allclose(shares, [0.5, 0.3, 0.2], atol=0.01)
    small = np.bincount(numbers[which == 1] - 1000, minlength=10)
    assert small.min() > 0.8 * small.mean()
    parts = [[n for b in _read(order, 100, rank=r, ranks=3) for n in b] for r in range(3)]
    assert Counter(n for p in parts for n in p) == Counter(numbers.tolist())


def test_memory_is_not_that_of_the_samples() -> None:
    import tracemalloc

    tracemalloc.start()
    order = BlockShuffle(np.full(10_000, 50_000), 64, 8, seed=0)
    sampler = BatchSampler(order, 32, rank=3, ranks=8, workers=2)
    reading = sampler.batches()
    for _ in range(50):
        next(reading)
    shuffle = BatchSampler(Shuffle(500_000_000, 1), 32).batches()
    for _ in range(50):
        next(shuffle)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20  # 500 million samples as i8 would take 4 GB


def test_a_state_of_another_order_is_refused() -> None:
    state = BatchSampler(Shuffle(10, 1), 2).state_dict()
    with pytest.raises(ConfigError, match="state"):
        BatchSampler(Shuffle(10, 2), 2).load_state_dict(state)
    with pytest.raises(ConfigError):
        BatchSampler(Shuffle(10, 1), 0)
    with pytest.raises(ConfigError):
        Mixture([Shuffle(3)], [0.0], 5)
