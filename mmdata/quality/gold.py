"""Tasks whose right answer is known, hidden among the others, and what they say over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmdata.quality.sampling import fault_rate_bounds


def seed_gold(
    tasks: Sequence[str], gold: Sequence[str], *, rate: float = 0.1, seed: int = 0
) -> list[tuple[str, bool]]:
    """Tasks in their order with gold ones in between: (task, is gold).

    One gold task lies at a random place of every stretch of round(1 / rate) positions, so that
    nobody can count them off and none of the stretches goes unwatched. Gold tasks are used in
    random order, each once before any is used again. ValueError for a rate outside (0, 1) or when
    there is no gold.
    """
    if not 0 < rate < 1:
        raise ValueError(f"the rate of gold tasks lies between 0 and 1, got {rate}")
    if not gold:
        raise ValueError("there are no gold tasks to seed")
    rng = np.random.default_rng(seed)
    stretch = round(1 / rate)
    out: list[tuple[str, bool]] = []
    waiting: list[str] = []
    rest = list(tasks)
    while rest:
        if not waiting:
            waiting = [gold[i] for i in rng.permutation(len(gold))]
        block = [(task, False) for task in rest[: stretch - 1]]
        rest = rest[stretch - 1 :]
        block.insert(int(rng.integers(len(block) + 1)), (waiting.pop(), True))
        out += block
    return out


@dataclass(frozen=True)
class GoldResult:
    """One gold task done: who, when (wall clock), which class, and how well.

    score: 1 right, 0 wrong, or any number that is better the higher (IoU, minus an error).
    """

    annotator: str
    unix_ns: int
    label: str
    score: float


@dataclass(frozen=True)
class Drift:
    """How one annotator did over time, for one class or ("*") all.

    before, after: mean scores either side of the most likely change; change_unix_ns: the first
    result after it. p_value: chance of a change at least as clear if order did not matter.
    drifted: p below the level after correction for all annotators and classes looked at.
    """

    annotator: str
    label: str
    count: int
    mean: float
    interval: tuple[float, float] | None
    before: float | None = None
    after: float | None = None
    change_unix_ns: int | None = None
    p_value: float | None = None
    drifted: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def annotator_drift(
    results: Sequence[GoldResult],
    *,
    level: float = 0.05,
    least: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> list[Drift]:
    """Accuracy per annotator and class, and whether it changed at some point in time.

    The change point is where the difference of means, over its spread if there were no change, is
    largest; its p-value comes from permuting the order. `least` results are kept on either side;
    with fewer than twice as many nothing is said (p_value None). Levels are corrected by Holm's
    method over everything tested.
    """
    groups: dict[tuple[str, str], list[GoldResult]] = {}
    for result in sorted(results, key=lambda r: r.unix_ns):
        for label in (result.label, "*"):
            groups.setdefault((result.annotator, label), []).append(result)
    rng = np.random.default_rng(seed)
    found = []
    for (annotator, label), own in sorted(groups.items()):
        scores = np.array([r.score for r in own])
        binary = bool(np.isin(scores, (0.0, 1.0)).all())
        # One minus the bounds of the fault rate are those of the share that is right.
        bounds = fault_rate_bounds(int((scores == 0).sum()), len(scores)) if binary else None
        interval = (1 - bounds[1], 1 - bounds[0]) if bounds else None
        base = Drift(annotator, label, len(own), float(scores.mean()), interval)
        if len(own) >= 2 * least:
            base = _change(base, own, scores, least, permutations, rng)
        found.append(base)
    return _holm(found, level)


def _change(
    base: Drift, own: Sequence[GoldResult], scores: npt.NDArray[np.float64], least: int,
    permutations: int, rng: np.random.Generator,
) -> Drift:  # fmt: skip
    place, strength = _strongest(scores[None], least)
    shuffled = np.array([rng.permutation(scores) for _ in range(permutations)])
    others = _strongest(shuffled, least)[1]
    # A constant series has no change at all.
    p = (1 + int((others >= strength[0] - 1e-12).sum())) / (permutations + 1)
    k = int(place[0])
    return Drift(
        base.annotator, base.label, base.count, base.mean, base.interval,
        float(scores[:k].mean()), float(scores[k:].mean()), own[k].unix_ns, p,
    )  # fmt: skip


def _strongest(
    rows: npt.NDArray[np.float64], least: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Per row (R, N): the split with the largest standardised difference of means, and that."""
    n = rows.shape[1]
    splits = np.arange(least, n - least + 1)
    before = np.cumsum(rows, axis=1)[:, splits - 1]
    total = rows.sum(axis=1, keepdims=True)
    gap = np.abs(before / splits - (total - before) / (n - splits))
    gap = gap * np.sqrt(splits * (n - splits) / n)
    best = gap.argmax(axis=1)
    return splits[best], gap[np.arange(len(rows)), best]


def _holm(found: list[Drift], level: float) -> list[Drift]:
    """Holm's step-down over the p-values; what has none stays undecided."""
    tested = sorted((d.p_value, i) for i, d in enumerate(found) if d.p_value is not None)
    out = list(found)
    rejecting = True
    for rank, (p, i) in enumerate(tested):
        rejecting = rejecting and p <= level / (len(tested) - rank)
        out[i] = Drift(**{**vars(found[i]), "drifted": rejecting})
    return out
