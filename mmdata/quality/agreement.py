"""Agreement coefficients: Cohen's and Fleiss' kappa, Krippendorff's alpha, also of timelines.

Sources: Cohen 1960 and 1968 (weights), Fleiss 1971, Krippendorff, Content Analysis (2004) for
alpha, Krippendorff, Mathet, Bouvry and Widloecher 2016 for the alpha of unitised continua.
All are NaN where they are not defined (no variation that could be agreed on by chance).
Everything is computed from additive tables, so that episodes can be pooled and resampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmdata.quality.intervals import Intervals

Floats = npt.NDArray[np.float64]
Level = Literal["nominal", "ordinal", "interval", "ratio"]


def _ratio(observed: float, expected: float) -> float:
    """1 - observed / expected disagreement."""
    return 1.0 - observed / expected if expected > 0 else float("nan")


# Kappa -------------------------------------------------------------------------------------


def confusion(a: Sequence[Any], b: Sequence[Any], labels: Sequence[Any]) -> Floats:
    """Table (K, K): how often a gave label i where b gave label j."""
    if len(a) != len(b):
        raise ValueError(f"the annotators rated {len(a)} and {len(b)} items")
    place = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)))
    for x, y in zip(a, b, strict=True):
        table[place[x], place[y]] += 1
    return table


def kappa_of(table: npt.ArrayLike, weights: Literal["linear", "quadratic"] | None = None) -> float:
    """Cohen's kappa of a confusion table; weights by the distance of (ordered) labels."""
    t = np.asarray(table, dtype=np.float64)
    if t.sum() == 0:
        return float("nan")
    steps = np.abs(np.subtract.outer(np.arange(len(t)), np.arange(len(t)))).astype(np.float64)
    weight = {None: (steps > 0).astype(np.float64), "linear": steps, "quadratic": steps**2}[weights]
    expected = np.outer(t.sum(axis=1), t.sum(axis=0)) / t.sum()
    return _ratio(float((weight * t).sum()), float((weight * expected).sum()))


def cohen_kappa(
    a: Sequence[Any],
    b: Sequence[Any],
    *,
    labels: Sequence[Any] | None = None,
    weights: Literal["linear", "quadratic"] | None = None,
) -> float:
    """Cohen's kappa of two annotators' labels of the same items.

    labels: their order, which weights need; sorted where not given.
    """
    known = sorted({*a, *b}) if labels is None else labels
    return kappa_of(confusion(a, b, known), weights)


def fleiss_kappa(counts: npt.ArrayLike) -> float:
    """Fleiss' kappa; counts (N, K): how many annotators gave item n the label k.

    ValueError when items differ in their number of annotators, or have fewer than two.
    """
    table = np.asarray(counts, dtype=np.float64)
    raters = table.sum(axis=1)
    if len(table) and (np.any(raters != raters[0]) or raters[0] < 2):
        raise ValueError("every item needs the same number of annotators, two at least")
    if not len(table):
        return float("nan")
    agreed = ((table**2).sum(axis=1) - raters) / (raters * (raters - 1))
    share = table.sum(axis=0) / table.sum()
    return _ratio(1.0 - float(agreed.mean()), 1.0 - float((share**2).sum()))


# Krippendorff's alpha ----------------------------------------------------------------------


def coincidences(ratings: Sequence[Sequence[Any]], values: Sequence[Any]) -> Floats:
    """Coincidence table (K, K); ratings are annotators x units, None where one gave none.

    A unit with m ratings adds each ordered pair of them with weight 1 / (m - 1).
    """
    place = {value: i for i, value in enumerate(values)}
    table = np.zeros((len(values), len(values)))
    for unit in zip(*ratings, strict=True):
        given = np.zeros(len(values))
        for value in unit:
            if value is not None:
                given[place[value]] += 1
        m = given.sum()
        if m > 1:
            table += (np.outer(given, given) - np.diag(given)) / (m - 1)
    return table


def distances(values: Sequence[Any], level: Level, totals: Floats) -> Floats:
    """Squared differences (K, K) of values; totals (K,) are needed by the ordinal level."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "ordinal":
        upto = np.cumsum(totals)
        # Ranks passed from c to k, each end counted by half.
        between = np.abs(np.subtract.outer(upto - totals / 2, upto - totals / 2))
        return np.asarray(between**2)
    v = np.asarray(values, dtype=np.float64)
    difference = np.subtract.outer(v, v) ** 2
    if level == "interval":
        return np.asarray(difference)
    total = np.add.outer(v, v) ** 2
    return np.asarray(np.divide(difference, total, out=np.zeros_like(total), where=total > 0))


def alpha_of(table: npt.ArrayLike, values: Sequence[Any], level: Level = "nominal") -> float:
    """Krippendorff's alpha of a coincidence table."""
    o = np.asarray(table, dtype=np.float64)
    totals = o.sum(axis=1)
    n = totals.sum()
    if n <= 1:
        return float("nan")
    delta = distances(values, level, totals)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (n - 1)
    return _ratio(float((o * delta).sum()), float((expected * delta).sum()))


def alpha_by_value(table: npt.ArrayLike, values: Sequence[Any]) -> dict[Any, float]:
    """Nominal alpha of each value against all others together."""
    o = np.asarray(table, dtype=np.float64)
    out = {}
    for i, value in enumerate(values):
        own, other = o[i, i], o.sum() - o[i].sum() - o[:, i].sum() + o[i, i]
        mixed = o[i].sum() - own
        out[value] = alpha_of([[own, mixed], [mixed, other]], [0, 1])
    return out


def krippendorff_alpha(ratings: Sequence[Sequence[Any]], level: Level = "nominal") -> float:
    """Krippendorff's alpha; ratings are annotators x units, None where one gave none.

    Values of the levels above nominal are numbers (their order counts).
    """
    values = sorted({v for row in ratings for v in row if v is not None})
    return alpha_of(coincidences(ratings, values), values, level)


# Unitised timelines ------------------------------------------------------------------------

#: Category of the time between segments.
GAP = ""


@dataclass(frozen=True)
class Unitized:
    """Additive sums of one or more continua; lengths in units of `unit_ns`.

    observed (K, K): coincidences of time; squares (K,): sums of squared segment lengths (of plain
    lengths for gaps, which can begin anywhere). The last category is the gap.
    """

    categories: tuple[str, ...]
    observed: Floats
    squares: Floats

    def table(self) -> Floats:
        """(K, K + 1): observed and squares side by side, for pooling."""
        return np.column_stack([self.observed, self.squares])


def unitize(
    annotators: Sequence[Intervals],
    start_ns: int,
    end_ns: int,
    categories: Sequence[str],
    unit_ns: int = 1_000_000,
) -> Unitized:
    """Coincidences of two or more segmentations of the continuum [start_ns, end_ns)."""
    m = len(annotators)
    if m < 2:
        raise ValueError("unitising agreement needs two annotators at least")
    if GAP in categories:
        raise ValueError("the empty label stands for gaps")
    names = (*categories, GAP)
    place = {name: i for i, name in enumerate(names)}
    k = len(names)
    observed, squares = np.zeros((k, k)), np.zeros(k)
    columns = []
    for intervals in annotators:
        rows = [(place[i.label], i.start_ns - start_ns, i.end_ns - start_ns) for i in intervals]
        rows += [(k - 1, a, b) for a, b in _gaps(intervals, start_ns, end_ns)]
        columns.append(tuple(np.array([r[c] for r in rows], dtype=np.int64) for c in range(3)))
        for category, first, last in rows:
            length = (last - first) / unit_ns
            squares[category] += length if category == k - 1 else length**2
    for i, (ci, si, ei) in enumerate(columns):
        for j, (cj, sj, ej) in enumerate(columns):
            if i == j or not len(ci) or not len(cj):
                continue
            shared = np.minimum.outer(ei, ej) - np.maximum.outer(si, sj)
            shared = np.clip(shared, 0, None) / (unit_ns * (m - 1))
            np.add.at(observed, (ci[:, None], cj[None]), shared)
    return Unitized(names, observed, squares)


def _gaps(intervals: Intervals, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Stretches that no interval covers, relative to the start."""
    gaps, reached = [], start_ns
    for i in sorted(intervals, key=lambda i: i.start_ns):
        if i.start_ns < start_ns or i.end_ns > end_ns:
            raise ValueError(f"interval {i} reaches beyond the continuum")
        if i.start_ns > reached:
            gaps.append((reached - start_ns, i.start_ns - start_ns))
        reached = max(reached, i.end_ns)
    if reached < end_ns:
        gaps.append((reached - start_ns, end_ns - start_ns))
    return gaps


def unitizing_alphas(table: npt.ArrayLike, categories: Sequence[str]) -> dict[str, float]:
    """Alphas of a (pooled) :meth:`Unitized.table`.

    "u": all categories and gaps; "binary": where there are segments at all, whatever their label;
    and per category, under its name, its disagreements against those expected of it.
    """
    t = np.asarray(table, dtype=np.float64)
    observed, squares = t[:, :-1], t[:, -1]
    expected = _expected(observed, squares)
    own = np.arange(len(observed))
    out = {
        "u": _ratio(
            float(observed.sum() - observed[own, own].sum()),
            float(expected.sum() - expected[own, own].sum()),
        )
    }
    fold = np.zeros((len(observed), 2))
    fold[:-1, 0], fold[-1, 1] = 1.0, 1.0
    two = fold.T @ observed @ fold
    chance = _expected(two, fold.T @ squares)
    out["binary"] = _ratio(float(two[0, 1] + two[1, 0]), float(chance[0, 1] + chance[1, 0]))
    for i, name in enumerate(categories):
        if name != GAP:
            out[name] = _ratio(
                float(observed[i].sum() - observed[i, i]), float(expected[i].sum() - expected[i, i])
            )
    return out


def _expected(observed: Floats, squares: Floats) -> Floats:
    """Coincidences by chance: segments moved at random, never against themselves."""
    total = observed.sum()
    margins = np.outer(observed.sum(axis=1), observed.sum(axis=0)) - np.diag(squares)
    possible = total**2 - squares.sum()
    return np.asarray(total * margins / possible) if possible > 0 else np.zeros_like(observed)


def unitizing_alpha(
    annotators: Sequence[Intervals],
    start_ns: int,
    end_ns: int,
    *,
    unit_ns: int = 1_000_000,
) -> dict[str, float]:
    """Unitising alphas of one continuum, see :func:`unitizing_alphas`."""
    categories = sorted({i.label for intervals in annotators for i in intervals})
    made = unitize(annotators, start_ns, end_ns, categories, unit_ns)
    return unitizing_alphas(made.table(), made.categories)


# Accuracy ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassScore:
    """One class against a reference: how many the reference has, and how well it was met.

    accuracy: share of all items on which "is it this class?" was answered as by the reference.
    """

    support: float
    precision: float
    recall: float
    f1: float
    accuracy: float


def class_scores(table: npt.ArrayLike, labels: Sequence[Any]) -> dict[Any, ClassScore]:
    """Scores per class of a confusion table (reference x candidate); NaN where undefined."""
    t = np.asarray(table, dtype=np.float64)
    total = t.sum()

    def share(part: float, whole: float) -> float:
        return part / whole if whole else float("nan")

    out = {}
    for i, label in enumerate(labels):
        hit, is_class, said = t[i, i], t[i].sum(), t[:, i].sum()
        out[label] = ClassScore(
            float(is_class),
            share(float(hit), float(said)),
            share(float(hit), float(is_class)),
            share(2 * float(hit), float(is_class + said)),
            share(float(total - is_class - said + 2 * hit), float(total)),
        )
    return out


def balanced_accuracy(scores: Mapping[Any, ClassScore]) -> float:
    """Mean recall over the classes that the reference has."""
    recalls = [s.recall for s in scores.values() if s.support]
    return float(np.mean(recalls)) if recalls else float("nan")
