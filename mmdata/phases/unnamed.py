"""Segments without names: cut where evidence is strongest, or where the flow of motion changes.

Robots and careful people stop, turn sharply and grasp between two phases: single instants say
where to cut. In continuous movement (two-handed teleoperation, surgery) such instants come faster
than the motion itself changes; there a segment is a stretch over which all hands keep on doing the
same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from mmdata.phases.decoding import WORTH, Decoded, Segment
from mmdata.phases.evidence import Evidence, strengths
from mmdata.phases.grid import Grid
from mmdata.phases.inputs import Floats
from mmdata.phases.settings import Settings

Index = NDArray[np.intp]

HALF_SURE = 0.4
"""Fused score of a boundary at which it is as likely as not."""
REST_SHARE = 0.25
"""Part of the coherence time over which the flow is averaged to tell rest from motion."""
REST_POWER = 0.05
"""Hands rest where the power of their flow is below this share of its mean."""
RESTING = 0.1
"""Share of the time for which they rest at most in continuous movement."""
CANDIDATES_HZ = 2.0
"""Cuts of continuous motion are chosen among the strongest instants, up to so many per second."""
COST = 1.5
"""What a cut has to explain: the motion no segment explains, over so many coherence times."""
EVIDENCE = 0.3
"""Share of that which full evidence of an instant saves."""
LONGEST_S = 30.0
COHERENCE_S = 3.0
"""Longest coherence time looked for."""
ROUNDS = 6


def decode_unnamed(evidence: Evidence, settings: Settings) -> Decoded:
    """Segments labelled `segment`; by the flow of motion where that is known and continuous."""
    score = fused_score(evidence, settings)
    if evidence.flow is not None and is_continuous(evidence):
        return _by_flow(evidence, evidence.flow, score, settings)
    return _by_instants(evidence, score, settings)


def is_continuous(evidence: Evidence) -> bool:
    """Whether hands hardly ever rest, so that starts, turns and dips begin nothing new.

    Resting is judged by the mean flow over a part of the coherence time, in which trembling and
    noise cancel, against its own power: so at any speed alike.
    """
    if evidence.flow is None:
        return False
    flow, grid = evidence.flow, evidence.grid
    window = min(grid.steps(REST_SHARE * coherence(flow, grid)), grid.n - 1)
    summed = np.vstack([np.zeros(flow.shape[1]), np.cumsum(flow, axis=0)])
    power = (((summed[window:] - summed[:-window]) / window) ** 2).sum(axis=1)
    # What never moves rests all the time: hence "at most".
    return float((power <= REST_POWER * power.mean()).mean()) < RESTING


def fused_score(evidence: Evidence, settings: Settings) -> Floats:
    """(n,) evidence of a boundary: kinds and effectors add up (each once), so agreement counts."""
    kinds = {(i.kind, i.effector) for i in evidence.instants}
    score = np.zeros(evidence.grid.n)
    for kind, effector in sorted(kinds):
        mine = [i for i in evidence.instants if (i.kind, i.effector) == (kind, effector)]
        near_by = strengths(mine, kind, evidence.grid.seconds, settings.boundary_sigma_s)
        score += WORTH.get(kind, 0.5) * near_by
    # Two arms do twice as much without there being twice as many phases.
    return np.asarray(score / np.sqrt(max(1, len({effector for _, effector in kinds}))))


def coherence(flow: Floats, grid: Grid) -> float:
    """Seconds over which motion resembles itself: its autocorrelation up to its first zero."""
    coarse = grid.steps(0.05)
    table = flow[::coarse] - flow.mean(axis=0)
    step_s = coarse * grid.step_s
    power = float((table**2).sum())
    if power <= 0:
        return step_s
    total = 0.5
    for lag in range(1, min(round(COHERENCE_S / step_s), len(table))):
        alike = float((table[lag:] * table[:-lag]).sum()) / power
        if alike <= 0:
            break
        total += alike
    return 2.0 * total * step_s


def _by_instants(evidence: Evidence, score: Floats, settings: Settings) -> Decoded:
    """Cuts at maxima of the score, weighed by whether what begins there lasts.

    A boundary takes the time of its most trusted instant; its score squashed to 0 to 1 is its
    confidence.
    """
    grid = evidence.grid
    end = (grid.n - 1) * grid.step_s
    if evidence.lasting is not None:
        score = score * (0.5 + 0.5 * evidence.lasting)
    peaks, _ = find_peaks(
        score, height=settings.unnamed_threshold, distance=grid.steps(settings.unnamed_min_s)
    )
    most = max(2, round(end * settings.unnamed_most_hz))
    peaks = np.sort(peaks[np.argsort(-score[peaks], kind="stable")[:most]])
    cuts = _Cuts(evidence, settings)
    for i in peaks.tolist():
        at = i * grid.step_s
        if not settings.unnamed_min_s <= at <= end - settings.unnamed_min_s:
            continue
        cuts.add(at, float(score[i] / (score[i] + HALF_SURE)), lead=True)
    return cuts.decoded(end)


class _Cuts:
    """Boundaries as they are found, with the instants that speak for each."""

    def __init__(self, evidence: Evidence, settings: Settings) -> None:
        self.instants = sorted(evidence.instants, key=lambda x: x.seconds)
        self.times = np.array([x.seconds for x in self.instants])
        self.reach_s = settings.merge_s
        self.found: list[tuple[float, float, tuple[str, ...]]] = [(0.0, 1.0, ("episode start",))]

    def add(self, at: float, sure: float, *, lead: bool) -> None:
        """A boundary at `at`, or where its most trusted instant lies."""
        first, last = np.searchsorted(self.times, [at - self.reach_s, at + self.reach_s])
        near = self.instants[first:last]
        if lead and not near:
            return
        if lead:
            at = max(near, key=lambda x: WORTH.get(x.kind, 0.5) * x.strength).seconds
        why = tuple(sorted({f"{x.kind} {x.strength:.2f}" for x in near}))
        self.found.append((at, sure, why))

    def decoded(self, end: float) -> Decoded:
        ends = [*(at for at, _, _ in self.found[1:]), end]
        segments = [
            Segment("segment", a, b, sure, why)
            for (a, sure, why), b in zip(self.found, ends, strict=True)
            if b > a
        ]
        return Decoded(tuple(segments), float("nan"), None)


@dataclass(frozen=True, slots=True)
class _Course:
    """Sums of the flow up to each candidate, from which any segment's rest follows.

    times (K,) s; total (K, C) and square (K,): integrals of the flow and of its square.
    """

    times: Floats
    total: Floats
    square: Floats

    def rest(self, i: Index, j: Index) -> Floats:
        """What a constant flow leaves unexplained of the segments from i to j, in seconds."""
        length = self.times[j] - self.times[i]
        moved = ((self.total[j] - self.total[i]) ** 2).sum(axis=-1)
        return np.asarray(self.square[j] - self.square[i] - moved / np.maximum(length, 1e-9))


def _by_flow(evidence: Evidence, flow: Floats, score: Floats, settings: Settings) -> Decoded:
    """The best partition into stretches of constant mean flow.

    A cut costs what the partition leaves unexplained over `COST` coherence times, which is the
    episode's own measure of how much motion is noise; so cost and partition are found in turns. An
    instant's evidence makes a cut there cheaper.
    """
    grid = evidence.grid
    end = (grid.n - 1) * grid.step_s
    peaks, _ = find_peaks(score, height=0.05, distance=grid.steps(settings.separation_s))
    most = max(2, round(end * CANDIDATES_HZ))
    peaks = np.sort(peaks[np.argsort(-score[peaks], kind="stable")[:most]])
    index = np.r_[0, peaks, grid.n - 1]
    sums = np.vstack([np.zeros(flow.shape[1]), np.cumsum(flow, axis=0)]) * grid.step_s
    squares = np.r_[0.0, np.cumsum((flow**2).sum(axis=1))] * grid.step_s
    power = float(squares[-1]) / end
    course = _Course(index * grid.step_s, sums[index] / np.sqrt(power), squares[index] / power)
    dear = 1.0 - EVIDENCE * np.r_[0.0, np.minimum(score[peaks], 2.0), 0.0]
    coherence_s = coherence(flow, grid)
    cost, chosen = 0.5 * COST * coherence_s, np.empty(0, np.intp)
    for _ in range(ROUNDS):
        chosen = _partition(course, cost * dear, settings.unnamed_min_s)
        edges = np.r_[0, chosen, len(index) - 1]
        left = float(course.rest(edges[:-1], edges[1:]).sum()) / end
        cost = COST * coherence_s * max(left, 0.02)
    edges = np.r_[0, chosen, len(index) - 1]
    gain = (
        course.rest(edges[:-2], edges[2:])
        - course.rest(edges[:-2], edges[1:-1])
        - course.rest(edges[1:-1], edges[2:])
    )
    cuts = _Cuts(evidence, settings)
    for k, won in zip(chosen.tolist(), gain.tolist(), strict=True):
        cuts.add(float(course.times[k]), won / (won + cost * dear[k]), lead=False)
    return cuts.decoded(end)


def _partition(course: _Course, cost: Floats, least_s: float) -> Index:
    """Candidates (M,) at which cutting leaves the least unexplained, each cut at its cost."""
    times = course.times
    count = len(times)
    best, came = np.full(count, np.inf), np.zeros(count, np.intp)
    best[0] = 0.0
    first = np.searchsorted(times, times - LONGEST_S)
    for j in range(1, count):
        i = np.arange(min(int(first[j]), j - 1), j)
        worth = best[i] + course.rest(i, np.full(len(i), j))
        worth[(times[j] - times[i] < least_s) & (i > 0)] += 1e6
        k = int(worth.argmin())
        best[j], came[j] = worth[k] + cost[j], i[k]
    chosen, j = [], int(came[-1])
    while j > 0:
        chosen.append(j)
        j = int(came[j])
    return np.array(chosen[::-1], np.intp)
