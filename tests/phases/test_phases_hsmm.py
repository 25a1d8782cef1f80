"""The decoder against enumeration of every segmentation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.phases.hsmm import NEVER, Lattice, decode, posteriors


def lattice(seed: int, k: int, s: int, temperature: float = 1.0) -> Lattice:
    rng = np.random.default_rng(seed)
    moves = np.log(rng.dirichlet(np.ones(s), s) + 1e-3)
    np.fill_diagonal(moves, NEVER)
    return Lattice(
        times=np.cumsum(rng.uniform(0.3, 1.5, k)),
        emissions=np.vstack([np.zeros(s), np.cumsum(rng.normal(0, 1.5, (k - 1, s)), axis=0)]),
        enter=rng.normal(0, 1, (k, s)),
        start=np.log(rng.dirichlet(np.ones(s))),
        end=np.log(rng.dirichlet(np.ones(s))),
        transition=moves,
        length_mu=rng.normal(0, 0.5, s),
        length_sigma=rng.uniform(0.3, 1.0, s),
        shortest=np.full(s, 0.1),
        temperature=temperature,
    )


def score(model: Lattice, cuts: tuple[int, ...], states: tuple[int, ...]) -> float:
    edges = (0, *cuts, len(model.times) - 1)
    total = float(model.start[states[0]] + model.end[states[-1]])
    for n, (a, b, s) in enumerate(zip(edges, edges[1:], states, strict=False)):
        z = (np.log(model.times[b] - model.times[a]) - model.length_mu[s]) / model.length_sigma[s]
        total += float(model.emissions[b, s] - model.emissions[a, s])
        total += float(-0.5 * z * z - np.log(model.length_sigma[s]))
        if n:
            total += float(model.transition[states[n - 1], s] + model.enter[a, s])
    return total


def every(model: Lattice) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    k, s = model.emissions.shape
    out = []
    for count in range(k - 1):
        for cuts in itertools.combinations(range(1, k - 1), count):
            for states in itertools.product(range(s), repeat=count + 1):
                if all(a != b for a, b in itertools.pairwise(states)):
                    out.append((score(model, cuts, states), cuts, states))
    return out


@given(st.integers(0, 10_000))
def test_best_path_is_the_best_of_all(seed: int) -> None:
    model = lattice(seed, 6, 3)
    best = max(every(model))
    stays, found = decode(model)
    assert found == pytest.approx(best[0])
    assert tuple(x.state for x in stays) == best[2]
    assert tuple(x.first for x in stays[1:]) == best[1]


@given(st.integers(0, 10_000), st.sampled_from([1.0, 3.0]))
def test_posteriors_are_those_of_all_paths(seed: int, temperature: float) -> None:
    model = lattice(seed, 5, 3, temperature)
    k, s = model.emissions.shape
    paths = every(model)
    weights = np.array([p[0] for p in paths]) / temperature
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    expected = np.zeros((k - 1, s))
    for weight, (_, cuts, states) in zip(weights, paths, strict=True):
        edges = (0, *cuts, k - 1)
        for a, b, state in zip(edges, edges[1:], states, strict=False):
            expected[a:b, state] += weight
    assert posteriors(model) == pytest.approx(expected, abs=1e-6)


def test_too_short_stays_are_refused() -> None:
    model = lattice(1, 6, 3)
    slow = Lattice(
        **{**{f: getattr(model, f) for f in model.__slots__}, "shortest": np.full(3, 1e3)}
    )
    _stays, score = decode(slow)
    assert score < -1e9  # no allowed segmentation


def test_a_stay_longer_than_the_look_back_is_put_together() -> None:
    times = np.arange(0, 101.0)
    emissions = np.column_stack([np.arange(101.0), np.zeros(101)])
    model = Lattice(
        times,
        emissions,
        np.full((101, 2), -3.0),
        np.log([0.5, 0.5]),
        np.zeros(2),
        np.log([[1e-9, 1.0], [1.0, 1e-9]]),
        np.log([5.0, 5.0]),
        np.ones(2),
        np.zeros(2),
        longest_s=10.0,
    )
    stays, _ = decode(model)
    assert [x.state for x in stays] == [0]
    assert (stays[0].first, stays[0].last) == (0, 100)
    assert stays[0].posterior > 0.6
