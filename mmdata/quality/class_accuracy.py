"""Annotators against a reference, class by class: an aggregate alone hides the rare ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmdata.quality import agreement, intervals
from mmdata.quality.bootstrap import Estimate, bootstrap_sums
from mmdata.quality.intervals import Interval

if TYPE_CHECKING:
    from mmdata.quality.label_agreement import Settings

Floats = npt.NDArray[np.float64]
#: annotator -> class ("*": mean recall over classes) -> measure -> estimate
Accuracy = dict[str, dict[str, dict[str, Estimate]]]


def frame_accuracy(
    episodes: Mapping[str, Mapping[str, list[Interval]]], names: Sequence[str], settings: Settings
) -> Accuracy:
    """Timelines in bins; the last of `names` stands for time without a label."""
    gap, bin_ns = names[-1], settings.bin_ms * 1_000_000
    tables: dict[str, list[Floats]] = {}
    for by in episodes.values():
        truth = by.get(settings.reference or "", [])
        for who, own in by.items() if truth else ():
            if who == settings.reference:
                continue
            start = min(i.start_ns for i in (*truth, *own))
            end = max(i.end_ns for i in (*truth, *own))
            two = [
                [x or gap for x in intervals.binned(side, start, end, bin_ns)]
                for side in (truth, own)
            ]
            tables.setdefault(who, []).append(agreement.confusion(two[0], two[1], names))

    def scores(total: Floats) -> dict[str, float]:
        found = agreement.class_scores(total, names)
        flat = {
            f"{measure}/{name}": getattr(score, measure)
            for name, score in found.items()
            for measure in ("recall", "precision", "f1", "accuracy")
        }
        return {"balanced_accuracy/*": agreement.balanced_accuracy(found), **flat}

    return {
        who: _by_class(
            bootstrap_sums(parts, scores, resamples=settings.resamples, seed=settings.seed)
        )
        for who, parts in tables.items()
    }


def detection_accuracy(
    parts: Mapping[str, Sequence[Floats]], labels: Sequence[str], settings: Settings
) -> Accuracy:
    """Things found or not. parts: per annotator and episode, (K, 3) per class: matched with the
    reference, only in the reference, only with the annotator."""

    def share(part: float, rest: float) -> float:
        return part / (part + rest) if part + rest else float("nan")

    def scores(total: Floats) -> dict[str, float]:
        out = {}
        for label, (hits, missed, invented) in zip(labels, total, strict=True):
            out[f"recall/{label}"] = share(hits, missed)
            out[f"precision/{label}"] = share(hits, invented)
            out[f"f1/{label}"] = intervals.f1((hits, missed, invented))
        recalls = [share(hits, missed) for hits, missed, _ in total if hits + missed]
        mean = float(np.mean(recalls)) if recalls else float("nan")
        return {"balanced_accuracy/*": mean, **out}

    return {
        who: _by_class(
            bootstrap_sums(own, scores, resamples=settings.resamples, seed=settings.seed)
        )
        for who, own in parts.items()
    }


def _by_class(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Estimate]]:
    """`measure/class` by class; classes of which neither side has any are left out."""
    out: dict[str, dict[str, Estimate]] = {}
    for name, estimate in estimates.items():
        measure, _, label = name.partition("/")
        out.setdefault(label, {})[measure] = estimate
    return {
        label: row
        for label, row in out.items()
        if label == "*" or any(e.value is not None for n, e in row.items() if n != "accuracy")
    }
