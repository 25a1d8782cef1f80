"""Whether confidences mean what they say, and from which one on a proposal needs no review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from mmdata.quality.bootstrap import Estimate, bootstrap

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """One point of the reliability curve: mean confidence, share right, its interval, count."""

    confidence: float
    accuracy: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """ece = sum of n_b / N |accuracy - confidence|; mce: the largest of these; brier: mean squared
    difference. Intervals by bootstrap over episodes where they are given."""

    ece: Estimate
    mce: float
    brier: float
    bins: tuple[Bin, ...]
    count: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def calibration_error(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    bins: int = 15,
    binning: Literal["mass", "width"] = "mass",
) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error, and (mean confidence, accuracy, count) of each bin in use.

    "mass": bins of equal count (of equal confidences none is torn apart); "width": of equal width.
    """
    c, ok = _checked(confidence, correct)
    if not len(c):
        return float("nan"), []
    if binning == "mass":
        order = np.sort(c)
        inner = order[(np.arange(1, bins) * len(c)) // bins]
        place = np.searchsorted(np.unique(inner), c, side="right")
    else:
        # Right-closed bins, as in the literature: (0, 1/B], (1/B, 2/B] ...
        place = np.clip(np.ceil(c * bins).astype(np.intp) - 1, 0, bins - 1)
    rows = []
    total = 0.0
    for b in np.unique(place):
        own = place == b
        mean, accuracy = float(c[own].mean()), float(ok[own].mean())
        rows.append((mean, accuracy, int(own.sum())))
        total += own.sum() / len(c) * abs(accuracy - mean)
    return float(total), rows


def calibration(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    episodes: Sequence[str] | None = None,
    bins: int = 15,
    binning: Literal["mass", "width"] = "mass",
    resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> Calibration:
    """Reliability of confidences (N,) in [0, 1] against whether each was right (N,).

    episodes (N,): where each comes from; without it items are resampled one by one. Bin intervals
    are Clopper-Pearson. ValueError when there is nothing, or shapes or values do not fit.
    """
    c, ok = _checked(confidence, correct)
    if not len(c):
        raise ValueError("no confidence to calibrate")
    _, rows = calibration_error(c, ok, bins=bins, binning=binning)
    groups = _groups(episodes, len(c))

    def error(drawn: Sequence[npt.NDArray[np.intp]]) -> dict[str, float]:
        own = np.concatenate(list(drawn))
        return {"ece": calibration_error(c[own], ok[own], bins=bins, binning=binning)[0]}

    ece = bootstrap(groups, error, resamples=resamples, seed=seed, level=level)["ece"]
    made = []
    for mean, accuracy, n in rows:
        right = round(accuracy * n)
        low = float(beta.ppf((1 - level) / 2, right, n - right + 1)) if right else 0.0
        high = float(beta.ppf((1 + level) / 2, right + 1, n - right)) if right < n else 1.0
        made.append(Bin(mean, accuracy, low, high, n))
    return Calibration(
        ece,
        max(abs(b.accuracy - b.confidence) for b in made),
        float(((c - ok) ** 2).mean()),
        tuple(made),
        len(c),
    )


@dataclass(frozen=True)
class Route:
    """Accept without review from `threshold` on; None: no threshold keeps the promise.

    error_bound: one-sided upper bound of the error rate among what is accepted. accepted: share.
    """

    label: str
    threshold: float | None
    accepted: float
    errors: int
    error_bound: float | None
    count: int


def routing_thresholds(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    labels: Sequence[str],
    *,
    max_error: float = 0.02,
    confidence_level: float = 0.95,
) -> dict[str, Route]:
    """Per class the lowest threshold above which errors are shown to be rarer than `max_error`.

    Thresholds are tried from the highest down and the first that fails ends the search, so the
    level holds for the one returned (fixed-sequence testing; Learn then Test, Angelopoulos et
    al. 2021). A class that has too few examples gets none: all of it is reviewed.
    """
    c, ok = _checked(confidence, correct)
    names = np.asarray(labels)
    if len(names) != len(c):
        raise ValueError(f"{len(c)} confidences, {len(names)} labels")
    out = {}
    for label in sorted(set(labels)):
        own = names == label
        out[label] = _route(label, c[own], ok[own], max_error, confidence_level)
    return out


def _route(label: str, c: Floats, ok: Floats, max_error: float, level: float) -> Route:
    n = len(c)
    best = Route(label, None, 0.0, 0, None, n)
    # Too few examples above a threshold cannot keep the promise even without an error; testing
    # starts where they could, which depends on the counts only and not on what was right.
    least = int(np.ceil(np.log(1 - level) / np.log1p(-max_error)))
    for threshold in np.unique(c)[::-1]:
        taken = c >= threshold
        count = int(taken.sum())
        if count < least:
            continue
        errors = int(count - ok[taken].sum())
        bound = float(beta.ppf(level, errors + 1, count - errors)) if errors < count else 1.0
        if bound > max_error:
            break
        best = Route(label, float(threshold), count / n, errors, bound, n)
    return best


def _groups(episodes: Sequence[str] | None, n: int) -> list[npt.NDArray[np.intp]]:
    if episodes is None:
        return [np.array([i]) for i in range(n)]
    if len(episodes) != n:
        raise ValueError(f"{n} confidences, {len(episodes)} episodes")
    names = np.asarray(episodes)
    return [np.flatnonzero(names == name) for name in sorted(set(episodes))]


def _checked(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[Floats, Floats]:
    c = np.asarray(confidence, dtype=np.float64)
    ok = np.asarray(correct, dtype=np.float64)
    if c.shape != ok.shape or c.ndim != 1:
        raise ValueError(f"confidence has shape {c.shape}, correct {ok.shape}")
    if not ((c >= 0) & (c <= 1)).all():
        raise ValueError("confidences lie in [0, 1]")
    return c, ok
