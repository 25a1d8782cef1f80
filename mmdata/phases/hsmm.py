"""Explicit-duration Viterbi (HSMM) over candidate boundaries, and the posteriors that go with it.

A segment from candidate i to j in state s scores its summed emissions, the log-normal density of
its length, and the score of entering s at i. Boundaries lie on candidates only, so the work grows
with the number of candidates times how many fit into the longest segment, not with the frame rate.
Posteriors come from the same lattice (segmental forward-backward).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdata.phases.inputs import Floats

NEVER = -1e12
CONTINUE = -6.0
"""Cost of splitting one long stay in a state in two, where it outgrows the look-back."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """K candidate times (ascending, seconds) and S states.

    emissions (K, S): summed log-likelihood from the first candidate to each; enter (K, S): score
    of a boundary into s at each; start, end (S,); transition (S, S) log p of from -> to;
    length_mu, length_sigma, shortest (S,): log-normal of length in s; temperature >= 1 softens
    posteriors, not the best path.
    """

    times: Floats
    emissions: Floats
    enter: Floats
    start: Floats
    end: Floats
    transition: Floats
    length_mu: Floats
    length_sigma: Floats
    shortest: Floats
    longest_s: float = 60.0
    temperature: float = 3.0


@dataclass(frozen=True, slots=True)
class Stay:
    """A decoded segment: state, candidates [first, last], posterior of the label inside it."""

    state: int
    first: int
    last: int
    posterior: float


def _log_length(lattice: Lattice, length: Floats) -> Floats:
    """(L, S) log density of staying for each length (L,), up to the common 1/length."""
    log = np.log(np.maximum(length, 1e-6))[:, None]
    z = (log - lattice.length_mu) / lattice.length_sigma
    out = -0.5 * z * z - np.log(lattice.length_sigma)
    out[length[:, None] < lattice.shortest - 1e-9] = NEVER
    return np.asarray(out)


def _window(lattice: Lattice, k: int) -> int:
    return int(np.searchsorted(lattice.times, lattice.times[k] - lattice.longest_s))


def _long(lattice: Lattice, k: int) -> bool:
    """Whether a stay that reaches candidate k may have outgrown the look-back."""
    return bool(lattice.times[k] - lattice.times[0] > 0.5 * lattice.longest_s)


def decode(lattice: Lattice, *, confident: bool = True) -> tuple[list[Stay], float]:
    """Best segmentation and its score. Neighbouring stays in one state are merged.

    Without `confident` the posteriors, which take most of the time, are left out (NaN).
    """
    K, S = lattice.emissions.shape
    reach = np.full((K, S), NEVER)  # best score of having just entered s at k
    best = np.full((K, S), NEVER)  # best score of leaving s at k
    came = np.zeros((K, S), np.int64)
    source = np.zeros((K, S), np.int64)
    reach[0] = lattice.start
    source[0] = -1
    for k in range(1, K):
        i = _window(lattice, k)
        stay = (
            reach[i:k]
            - lattice.emissions[i:k]
            + _log_length(lattice, lattice.times[k] - lattice.times[i:k])
        )
        j = stay.argmax(axis=0)
        came[k] = i + j
        best[k] = stay[j, np.arange(S)] + lattice.emissions[k]
        step = best[k][:, None] + lattice.transition
        source[k] = step.argmax(axis=0)
        reach[k] = step[source[k], np.arange(S)] + lattice.enter[k]
        if _long(lattice, k):  # let a stay go on, which is no boundary
            on = best[k] + CONTINUE
            source[k] = np.where(on > reach[k], np.arange(S), source[k])
            reach[k] = np.maximum(reach[k], on)
    final = best[K - 1] + lattice.end
    state = int(final.argmax())
    score = float(final[state])
    stays: list[Stay] = []
    k = K - 1
    posterior = posteriors(lattice) if confident else None
    span = np.diff(lattice.times)
    while k > 0:
        first = int(came[k, state])
        last = k
        previous = int(source[first, state]) if first > 0 else -1
        if stays and stays[-1].state == state:
            last = stays.pop().last
        mean = float("nan")
        if posterior is not None:
            mean = float(np.average(posterior[first:last, state], weights=span[first:last]))
        stays.append(Stay(state, first, last, mean))
        k, state = first, previous
    return stays[::-1], score


def posteriors(lattice: Lattice) -> Floats:
    """(K - 1, S) posterior of each state between neighbouring candidates."""
    K, S = lattice.emissions.shape
    heat = lattice.temperature
    emissions, enter = lattice.emissions / heat, lattice.enter / heat
    trans = np.exp(lattice.transition / heat)
    reach = np.full((K, S), NEVER)
    leave = np.full((K, S), NEVER)
    reach[0] = lattice.start / heat
    for k in range(1, K):
        i = _window(lattice, k)
        stay = (
            reach[i:k]
            - emissions[i:k]
            + _log_length(lattice, lattice.times[k] - lattice.times[i:k]) / heat
        )
        leave[k] = _logsum(stay) + emissions[k]
        reach[k] = _log_matmul(leave[k], trans) + enter[k]
        if _long(lattice, k):
            reach[k] = np.logaddexp(reach[k], leave[k] + CONTINUE / heat)
    onward = np.full((K, S), NEVER)  # log mass after leaving s at k
    inward = np.full((K, S), NEVER)  # log mass after entering s at k
    onward[K - 1] = lattice.end / heat
    occupied = np.zeros((K + 1, S))
    total = _logsum((leave[K - 1] + onward[K - 1])[:, None])[0]
    for k in range(K - 2, -1, -1):
        last = int(np.searchsorted(lattice.times, lattice.times[k] + lattice.longest_s, "right"))
        ahead = slice(k + 1, max(last, k + 2))
        stay = (
            onward[ahead]
            + emissions[ahead]
            - emissions[k]
            + _log_length(lattice, lattice.times[ahead] - lattice.times[k]) / heat
        )
        inward[k] = _logsum(stay)
        mass = np.exp(np.minimum(reach[k] + stay - total, 0.0))
        # A stay from k to j occupies the intervals k .. j - 1: add at k, take away at j.
        occupied[k] += mass.sum(axis=0)
        occupied[ahead] -= mass
        onward[k] = _log_matmul(inward[k] + enter[k], trans.T)
        if _long(lattice, k):
            onward[k] = np.logaddexp(onward[k], inward[k] + CONTINUE / heat)
    share = np.clip(np.cumsum(occupied, axis=0)[: K - 1], 0.0, None)
    return np.asarray(share / np.maximum(share.sum(axis=1, keepdims=True), 1e-12))


def _logsum(rows: Floats) -> Floats:
    top = rows.max(axis=0)
    return np.asarray(top + np.log(np.exp(rows - top).sum(axis=0)))


def _log_matmul(logs: Floats, matrix: Floats) -> Floats:
    top = logs.max()
    return np.asarray(top + np.log(np.maximum(np.exp(logs - top) @ matrix, 1e-300)))
