"""Tasks whose right answer is known, hidden among the others, and what they say over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmdata.quality.label_agreement import GAP, Annotators, Settings, measure_agreement
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
    task: which task it was, where one task gives a result for each of several classes; over all
    classes a task counts once, by its mean score.
    """

    annotator: str
    unix_ns: int
    label: str
    score: float
    task: str | None = None


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


def gold_results(
    annotators: Annotators, reference: str, settings: Settings | None = None
) -> list[GoldResult]:
    """What each annotator made of every episode that has a reference layer, class by class.

    annotators: annotator -> episode -> layer, the reference among them. Scores are F1 against the
    reference as :func:`mmdata.quality.label_agreement.measure_agreement` has it: over bins of time
    for phases, matched within the largest tolerance for events, by overlap for boxes. The time is
    when the layer was last modified. ValueError where a layer does not say when that was.
    """
    base = replace(settings or Settings(), reference=reference, resamples=0)
    truth = annotators[reference]
    out = []
    for who, own in sorted(annotators.items()):
        for episode, layer in sorted(own.items()):
            if who == reference or episode not in truth:
                continue
            made = layer.provenance.modified_unix_ns or layer.provenance.created_unix_ns
            if made is None:
                raise ValueError(
                    f"layer {who!r} of {episode} does not say when it was made; set "
                    "provenance.modified_unix_ns"
                )
            pair = {reference: {episode: truth[episode]}, who: {episode: layer}}
            for measured in measure_agreement(pair, base):
                for label, scores in measured.accuracy.get(who, {}).items():
                    score = scores["f1"].value if "f1" in scores else None
                    if label not in ("*", GAP) and score is not None:
                        out.append(GoldResult(who, made, label, score, episode))
    return out


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
        groups.setdefault((result.annotator, result.label), []).append(result)
    for whole in _by_task(results):
        groups.setdefault((whole.annotator, "*"), []).append(whole)
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


def _by_task(results: Sequence[GoldResult]) -> list[GoldResult]:
    """One result for each task of an annotator, over all classes, in order of time. Results of one
    task rise and fall together, so they must not be shuffled as if each stood alone."""
    tasks: dict[tuple[str, str | int], list[GoldResult]] = {}
    for k, result in enumerate(results):
        key: str | int = k if result.task is None else result.task
        tasks.setdefault((result.annotator, key), []).append(result)
    whole = [
        replace(
            own[0], label="*", unix_ns=max(r.unix_ns for r in own),
            score=float(np.mean([r.score for r in own])),
        )
        for own in tasks.values()
    ]  # fmt: skip
    return sorted(whole, key=lambda r: r.unix_ns)


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
