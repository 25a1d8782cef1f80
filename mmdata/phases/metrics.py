"""Scores of predicted phases against true ones, as the action-segmentation literature defines them.

Frame accuracy (MoF) over time rather than frames; edit score 100 (1 - Levenshtein / longer); F1@k
with one-to-one matches of equal label and IoU >= k; boundary F1 within a tolerance, with signed
error. Over-segmentation shows in edit and F1@k, not in accuracy. Intervals by bootstrap over
episodes, since moments of one episode are not independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmdata.phases.inputs import Floats


@dataclass(frozen=True, slots=True)
class Interval:
    """A labelled interval [start_ns, end_ns)."""

    label: str
    start_ns: int
    end_ns: int


Intervals = Sequence[Interval]
OVERLAPS = (0.10, 0.25, 0.50)
TOLERANCES_MS = (100, 250)


def frame_accuracy(predicted: Intervals, true: Intervals) -> float:
    """Share of the true intervals' time, in percent, that carries the same predicted label."""
    total = sum(t.end_ns - t.start_ns for t in true)
    right = sum(
        max(0, min(p.end_ns, t.end_ns) - max(p.start_ns, t.start_ns))
        for t in true
        for p in predicted
        if p.label == t.label
    )
    return 100.0 * right / total if total else float("nan")


def edit_score(predicted: Intervals, true: Intervals) -> float:
    """100 (1 - Levenshtein distance of the label sequences / length of the longer one)."""
    a, b = [p.label for p in predicted], [t.label for t in true]
    if not a and not b:
        return 100.0
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        previous, row = row, np.empty_like(row)
        row[0] = i
        for j, y in enumerate(b, 1):
            row[j] = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (x != y))
    return 100.0 * (1.0 - float(row[-1]) / max(len(a), len(b)))


def segment_counts(predicted: Intervals, true: Intervals, overlap: float) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) of segments at an IoU threshold."""
    free = set(range(len(true)))
    hits = 0
    for p in predicted:
        best, best_iou = None, 0.0
        for j in free:
            t = true[j]
            if t.label != p.label:
                continue
            shared = min(p.end_ns, t.end_ns) - max(p.start_ns, t.start_ns)
            joined = max(p.end_ns, t.end_ns) - min(p.start_ns, t.start_ns)
            if shared > 0 and shared / joined > best_iou:
                best, best_iou = j, shared / joined
        if best is not None and best_iou >= overlap:
            free.discard(best)
            hits += 1
    return hits, len(predicted) - hits, len(true) - hits


def boundaries(intervals: Intervals) -> list[int]:
    """Starts of all intervals but the first, and ends where a gap follows."""
    ordered = sorted(intervals, key=lambda i: i.start_ns)
    found: set[int] = set()
    for a, b in itertools.pairwise(ordered):
        found.add(b.start_ns)
        if b.start_ns > a.end_ns:
            found.add(a.end_ns)
    return sorted(found)


def match_instants(
    predicted: Sequence[int], true: Sequence[int], tolerance_ns: int
) -> list[tuple[int, int]]:
    """One-to-one matches (predicted, true) within the tolerance, most first, then closest.

    Both lists ascending; a dynamic program over their order, so no match is lost to greed.
    """
    n, m = len(predicted), len(true)
    best: list[list[tuple[int, int]]] = [[(0, 0)] * (m + 1) for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            value = max(best[i - 1][j], best[i][j - 1])
            miss = abs(predicted[i - 1] - true[j - 1])
            if miss <= tolerance_ns:
                count, cost = best[i - 1][j - 1]
                value = max(value, (count + 1, cost - miss))
            best[i][j] = value
    pairs = []
    i, j = n, m
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            pairs.append((predicted[i - 1], true[j - 1]))
            i, j = i - 1, j - 1
    return pairs[::-1]


def f1(hits: int, false: int, missed: int) -> float:
    """F1 in 0 to 1; 1 where there was nothing to find and nothing was found."""
    total = 2 * hits + false + missed
    return 2.0 * hits / total if total else 1.0


@dataclass(frozen=True, slots=True)
class EpisodeScore:
    """Counts of one episode, from which pooled scores and their spread are made."""

    accuracy: float
    edit: float
    segments: Mapping[float, tuple[int, int, int]]
    boundaries: Mapping[int, tuple[int, int, int]]
    errors_ms: tuple[float, ...]


def score_episode(predicted: Intervals, true: Intervals) -> EpisodeScore:
    """Score one episode; intervals need not be sorted. errors_ms is predicted minus true."""
    predicted = sorted(predicted, key=lambda i: i.start_ns)
    true = sorted(true, key=lambda i: i.start_ns)
    mine, theirs = boundaries(predicted), boundaries(true)
    pairs: list[tuple[int, int]] = []
    counts = {}
    for tolerance in TOLERANCES_MS:
        pairs = match_instants(mine, theirs, tolerance * 1_000_000)
        counts[tolerance] = (len(pairs), len(mine) - len(pairs), len(theirs) - len(pairs))
    return EpisodeScore(
        frame_accuracy(predicted, true),
        edit_score(predicted, true),
        {k: segment_counts(predicted, true, k) for k in OVERLAPS},
        counts,
        tuple((p - t) / 1e6 for p, t in pairs),
    )


def _summary(scores: Sequence[EpisodeScore]) -> dict[str, float]:
    def pooled(counts: Sequence[tuple[int, int, int]]) -> float:
        hits, false, missed = (sum(c) for c in zip(*counts, strict=True))
        return f1(hits, false, missed)

    out = {
        "frame_accuracy": float(np.mean([s.accuracy for s in scores])),
        "edit": float(np.mean([s.edit for s in scores])),
    }
    for k in OVERLAPS:
        out[f"f1@{round(100 * k)}"] = 100.0 * pooled([s.segments[k] for s in scores])
    for tolerance in TOLERANCES_MS:
        out[f"boundary_f1@{tolerance}ms"] = pooled([s.boundaries[tolerance] for s in scores])
    errors = np.array([e for s in scores for e in s.errors_ms])
    if errors.size:
        out["boundary_error_mean_ms"] = float(errors.mean())
        out["boundary_error_p50_ms"] = float(np.median(np.abs(errors)))
        out["boundary_error_p95_ms"] = float(np.percentile(np.abs(errors), 95))
    return out


@dataclass(frozen=True, slots=True)
class Score:
    """A score and its 95 % bootstrap interval over episodes (None below two episodes)."""

    value: float
    low: float | None
    high: float | None


def evaluate(
    scores: Sequence[EpisodeScore], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Score]:
    """Pooled scores of several episodes with 95 % intervals by bootstrap over episodes."""
    values = _summary(scores)
    if len(scores) < 2:
        return {name: Score(value, None, None) for name, value in values.items()}
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        picked = [scores[i] for i in rng.integers(len(scores), size=len(scores))]
        for name, value in _summary(picked).items():
            draws.setdefault(name, []).append(value)
    return {
        name: Score(value, *(float(q) for q in np.percentile(draws[name], [2.5, 97.5])))
        for name, value in values.items()
    }


def onset_errors_ms(predicted: Sequence[int], true: Sequence[int], within_ms: int = 250) -> Floats:
    """Signed errors of matched instants, predicted minus true, in ms."""
    pairs = match_instants(sorted(predicted), sorted(true), within_ms * 1_000_000)
    return np.array([(p - t) / 1e6 for p, t in pairs])
