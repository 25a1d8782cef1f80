"""Labelled intervals and instants of two annotators against each other: overlap, boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A labelled interval [start_ns, end_ns)."""

    label: str
    start_ns: int
    end_ns: int


Intervals = Sequence[Interval]


def temporal_iou(a: Interval, b: Interval) -> float:
    """Shared time over joined time, 0 to 1; labels do not count."""
    shared = min(a.end_ns, b.end_ns) - max(a.start_ns, b.start_ns)
    if shared <= 0:
        return 0.0
    return shared / (max(a.end_ns, b.end_ns) - min(a.start_ns, b.start_ns))


def label_overlap_ns(a: Intervals, b: Intervals, label: str) -> tuple[int, int]:
    """(time both give the label, time at least one does) in ns."""
    edges = sorted({t for i in (*a, *b) if i.label == label for t in (i.start_ns, i.end_ns)})
    both = either = 0
    for start, end in pairwise(edges):
        hits = [
            any(i.label == label and i.start_ns <= start and end <= i.end_ns for i in side)
            for side in (a, b)
        ]
        both += (end - start) * all(hits)
        either += (end - start) * any(hits)
    return both, either


def match_segments(
    a: Intervals, b: Intervals, min_iou: float = 0.0, same_label: bool = True
) -> list[tuple[int, int, float]]:
    """One-to-one (index in a, index in b, IoU) with the largest total IoU; above `min_iou`."""
    if not a or not b:
        return []
    iou = np.array(
        [[0.0 if same_label and x.label != y.label else temporal_iou(x, y) for y in b] for x in a]
    )
    iou = np.where(iou >= min_iou, iou, 0.0)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return [
        (int(i), int(j), float(iou[i, j])) for i, j in zip(rows, columns, strict=True) if iou[i, j]
    ]


def boundaries(intervals: Intervals) -> list[int]:
    """Inner boundaries: where one interval ends or the next one starts, each instant once.

    The outer ends of the annotated stretch are left out: two annotators who both label from the
    first to the last sample would otherwise agree on two boundaries nobody placed.
    """
    edges = {t for i in intervals for t in (i.start_ns, i.end_ns)}
    return sorted(edges)[1:-1]


def edges_of(intervals: Intervals, label: str) -> tuple[list[int], list[int]]:
    """Starts and ends of the intervals with a label."""
    own = [i for i in intervals if i.label == label]
    return sorted(i.start_ns for i in own), sorted(i.end_ns for i in own)


def match_instants(a: Sequence[int], b: Sequence[int], tolerance_ns: int) -> list[tuple[int, int]]:
    """One-to-one (index in a, index in b) within the tolerance: most pairs, then closest."""
    if not len(a) or not len(b):
        return []
    # Differences as integers: epoch stamps do not fit a float.
    gap = np.abs(np.asarray(a, dtype=np.int64)[:, None] - np.asarray(b, dtype=np.int64)[None])
    scale = max(tolerance_ns, 1)
    # A pair too far apart costs more than all pairs within tolerance together.
    cost = np.where(gap <= tolerance_ns, gap / scale, 2.0 * (len(a) + len(b)))
    rows, columns = linear_sum_assignment(cost)
    return [
        (int(i), int(j)) for i, j in zip(rows, columns, strict=True) if gap[i, j] <= tolerance_ns
    ]


def instant_counts(a: Sequence[int], b: Sequence[int], tolerance_ns: int) -> Counts:
    """(matched, only in a, only in b) of instants within a tolerance."""
    hits = len(match_instants(a, b, tolerance_ns))
    return np.array([hits, len(a) - hits, len(b) - hits], dtype=np.int64)


def f1(counts: npt.ArrayLike) -> float:
    """F1 of (matched, only in a, only in b); NaN where there was nothing at all to agree on."""
    hits, one, two = (float(c) for c in np.asarray(counts))
    total = 2.0 * hits + one + two
    return 2.0 * hits / total if total else float("nan")


def signed_errors_ns(a: Sequence[int], b: Sequence[int], tolerance_ns: int) -> list[int]:
    """b minus a of the matched instants, ns."""
    return [b[j] - a[i] for i, j in match_instants(a, b, tolerance_ns)]


def binned(intervals: Intervals, start_ns: int, end_ns: int, bin_ns: int) -> list[str | None]:
    """Label at the centre of each bin of [start_ns, end_ns); None where there is none.

    Of overlapping intervals the one that starts last counts.
    """
    n = -(-(end_ns - start_ns) // bin_ns)
    out: list[str | None] = [None] * n
    for i in sorted(intervals, key=lambda i: i.start_ns):
        # Bins whose centre start + (k + 1/2) bin lies in [i.start, i.end).
        first = -(-(2 * (i.start_ns - start_ns) - bin_ns) // (2 * bin_ns))
        last = -(-(2 * (i.end_ns - start_ns) - bin_ns) // (2 * bin_ns))
        for k in range(max(first, 0), min(last, n)):
            out[k] = i.label
    return out
