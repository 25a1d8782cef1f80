"""How far annotators agree over a set of episodes: timelines, events, boxes; per category, with
intervals by episode.

Frame-wise numbers depend on the bin and are inflated by long idle: they always stand beside
segment and boundary scores. Every number is pooled over the pairs of annotators of an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mmdata.quality import agreement, intervals
from mmdata.quality.bootstrap import Estimate, bootstrap, bootstrap_sums
from mmdata.quality.box_agreement import box_agreement
from mmdata.quality.class_accuracy import detection_accuracy, frame_accuracy
from mmdata.quality.intervals import Interval
from mmdata_schema import Layer

Floats = npt.NDArray[np.float64]
#: annotator -> episode -> layer
Annotators = Mapping[str, Mapping[str, Layer]]
GAP = "(none)"
MS = 1_000_000
_T = TypeVar("_T")


@dataclass(frozen=True)
class Settings:
    """Numbers the measures depend on; they stand in every report.

    tiers: only these; all that are there by default. reference: the annotator whom the others
    are scored against per class.
    """

    bin_ms: int = 50
    tolerances_ms: tuple[int, ...] = (100, 250)
    min_ious: tuple[float, ...] = (0.1, 0.25, 0.5)
    match_iou_3d: float = 0.1
    match_iou_2d: float = 0.3
    tiers: tuple[str, ...] = ()
    reference: str | None = None
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One thing that was measured: a tier of phases, events, boxes.

    overall and by_category hold named estimates; confusion the pooled pairs of labels (bins or
    matched boxes); errors_ms the signed differences of matched boundaries or instants.
    """

    kind: str
    name: str
    annotators: tuple[str, ...]
    episodes: tuple[str, ...]
    overall: dict[str, Estimate]
    by_category: dict[str, dict[str, Estimate]]
    labels: tuple[str, ...] = ()
    confusion: Floats | None = None
    errors_ms: tuple[float, ...] = ()
    accuracy: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": self.kind,
            "name": self.name,
            "annotators": list(self.annotators),
            "episodes": list(self.episodes),
            "overall": {k: v.to_dict() for k, v in self.overall.items()},
            "by_category": _nested(self.by_category),
            "labels": list(self.labels),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "errors_ms": list(self.errors_ms),
            "accuracy": {who: _nested(rows) for who, rows in self.accuracy.items()},
        }


def _nested(rows: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    return {k: {n: e.to_dict() for n, e in v.items()} for k, v in rows.items()}


def measure_agreement(annotators: Annotators, settings: Settings | None = None) -> list[Measured]:
    """Everything that at least two annotators labelled in the same episode.

    An annotator whose layer of an episode holds no phase of a tier did not annotate it there; one
    who was asked to and found nothing cannot be told apart and should be left out by the caller.
    """
    settings = settings or Settings()
    out = []
    layers = [layer for own in annotators.values() for layer in own.values()]
    tiers = sorted({(p.tier, p.stream or "", p.actor or "") for la in layers for p in la.phases})
    for tier, stream, actor in tiers:
        if settings.tiers and tier not in settings.tiers:
            continue

        def rows(layer: Layer, key: tuple[str, str, str] = (tier, stream, actor)) -> list[Interval]:
            return sorted(
                (
                    Interval(p.label, p.start_ns, p.end_ns) for p in layer.phases
                    if (p.tier, p.stream or "", p.actor or "") == key
                ),
                key=lambda i: (i.start_ns, i.end_ns),
            )  # fmt: skip

        name = " ".join(part for part in (tier, stream and f"on {stream}", actor) if part)
        out += _timeline(name, _shared(annotators, rows), settings)
    out += _events(_shared(annotators, _event_rows), settings)
    return out + box_agreement(annotators, settings)


def _event_rows(layer: Layer) -> list[Interval]:
    return sorted(
        (Interval(e.label, e.stamp_ns, e.stamp_ns) for e in layer.events),
        key=lambda i: i.start_ns,
    )


def _shared(
    annotators: Annotators, rows: Callable[[Layer], list[_T]]
) -> dict[str, dict[str, list[_T]]]:
    """episode -> annotator -> rows, where at least two annotators have any."""
    found: dict[str, dict[str, list[_T]]] = {}
    for who, own in sorted(annotators.items()):
        for episode, layer in own.items():
            made = rows(layer)
            if made:
                found.setdefault(episode, {})[who] = made
    return {episode: by for episode, by in sorted(found.items()) if len(by) > 1}


def _timeline(
    name: str, episodes: dict[str, dict[str, list[Interval]]], settings: Settings
) -> list[Measured]:
    if not episodes:
        return []
    labels = sorted({i.label for by in episodes.values() for own in by.values() for i in own})
    who = sorted({w for by in episodes.values() for w in by})
    pairs = list(combinations(who, 2))
    made = [_TimelineSums.of(by, labels, pairs, settings) for by in episodes.values()]
    boot: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    overall: dict[str, Estimate] = {}
    by_category: dict[str, dict[str, Estimate]] = {label: {} for label in labels}
    names = [*labels, GAP]

    def frames(total: Floats) -> dict[str, float]:
        return {
            "cohen_kappa": mean_kappa(total[1:]),
            "krippendorff_alpha": agreement.alpha_of(total[0], names),
            "frame_agreement": _part(
                float(np.trace(total[1:].sum(axis=0))), float(total[1:].sum())
            ),
            **{
                f"alpha/{k}": v
                for k, v in agreement.alpha_by_value(total[0], names).items()
                if k != GAP
            },
        }

    _sort(bootstrap_sums([m.frames for m in made], frames, **boot),
          overall, by_category)  # fmt: skip
    fleiss = _fleiss(made, boot)
    if fleiss is not None:
        overall["fleiss_kappa"] = fleiss

    def units(total: Floats) -> dict[str, float]:
        alphas = agreement.unitizing_alphas(total, [*labels, agreement.GAP])
        return {
            "unitizing_alpha": alphas.pop("u"), "unitizing_alpha_segments": alphas.pop("binary"),
            **{f"unitizing_alpha/{k}": v for k, v in alphas.items()},
        }  # fmt: skip

    _sort(bootstrap_sums([m.units for m in made], units, **boot), overall, by_category)

    def overlaps(total: Floats) -> dict[str, float]:
        per = {f"temporal_iou/{k}": _part(*total[i]) for i, k in enumerate(labels)}
        defined = [v for v in per.values() if np.isfinite(v)]
        return {"temporal_iou": float(np.mean(defined)) if defined else float("nan"), **per}

    _sort(bootstrap_sums([m.overlap for m in made], overlaps, **boot), overall, by_category)

    def segments(total: Floats) -> dict[str, float]:
        out = {}
        for t, iou in enumerate(settings.min_ious):
            out[f"segment_f1@{round(100 * iou)}"] = intervals.f1(total[t].sum(axis=0))
            out |= {f"segment_f1@{round(100 * iou)}/{k}": intervals.f1(total[t, i])
                    for i, k in enumerate(labels)}  # fmt: skip
        return out

    _sort(bootstrap_sums([m.segments for m in made], segments, **boot), overall, by_category)

    def edges(total: Floats) -> dict[str, float]:
        out = {}
        for t, ms in enumerate(settings.tolerances_ms):
            out[f"boundary_f1@{ms}ms"] = intervals.f1(total[t, -1])
            out |= {f"boundary_f1@{ms}ms/{k}": intervals.f1(total[t, i])
                    for i, k in enumerate(labels)}  # fmt: skip
        return out

    _sort(bootstrap_sums([m.edges for m in made], edges, **boot), overall, by_category)
    overall |= _errors([m.errors_ms for m in made], boot)
    return [
        Measured(
            "phases", name, tuple(who), tuple(episodes), overall, by_category, tuple(names),
            np.sum([m.frames[1:].sum(axis=0) for m in made], axis=0),
            tuple(e for m in made for e in m.errors_ms),
            frame_accuracy(episodes, names, settings),
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class _TimelineSums:
    """What one episode adds. frames: the coincidences, then a confusion table per pair."""

    frames: Floats
    fleiss: dict[int, Floats]
    units: Floats
    overlap: Floats
    segments: Floats
    edges: Floats
    errors_ms: list[float]

    @classmethod
    def of(
        cls,
        by: Mapping[str, list[Interval]],
        labels: list[str],
        pairs: list[tuple[str, str]],
        settings: Settings,
    ) -> _TimelineSums:
        rows = [own for _, own in sorted(by.items())]
        start = min(i.start_ns for own in rows for i in own)
        end = max(i.end_ns for own in rows for i in own)
        names = [*labels, GAP]
        bins = [
            [label or GAP for label in intervals.binned(own, start, end, settings.bin_ms * MS)]
            for own in rows
        ]
        k, t, s = len(labels), len(settings.tolerances_ms), len(settings.min_ious)
        overlap, segments = np.zeros((k, 2)), np.zeros((s, k, 3))
        edges = np.zeros((t, k + 1, 3))
        frames = np.zeros((1 + len(pairs), k + 1, k + 1))
        frames[0] = agreement.coincidences(bins, names)
        errors: list[float] = []
        for (a, (x, one)), (b, (y, two)) in combinations(enumerate(sorted(by.items())), 2):
            frames[1 + pairs.index((x, y))] += agreement.confusion(bins[a], bins[b], names)
            for i, label in enumerate(labels):
                overlap[i] += intervals.label_overlap_ns(one, two, label)
            for j, iou in enumerate(settings.min_ious):
                matched = [one[i].label for i, _, _ in intervals.match_segments(one, two, iou)]
                for i, label in enumerate(labels):
                    hits = matched.count(label)
                    number = [sum(r.label == label for r in side) for side in (one, two)]
                    segments[j, i] += (hits, number[0] - hits, number[1] - hits)
            for j, ms in enumerate(settings.tolerances_ms):
                inner = intervals.boundaries(one), intervals.boundaries(two)
                edges[j, -1] += intervals.instant_counts(*inner, ms * MS)
                for i, label in enumerate(labels):
                    for mine, theirs in zip(
                        intervals.edges_of(one, label), intervals.edges_of(two, label), strict=True
                    ):
                        edges[j, i] += intervals.instant_counts(mine, theirs, ms * MS)
            widest = max(settings.tolerances_ms) * MS
            errors += [e / MS for e in intervals.signed_errors_ns(
                intervals.boundaries(one), intervals.boundaries(two), widest)]  # fmt: skip
        counts = np.array([[row.count(n) for n in names] for row in zip(*bins, strict=True)])
        return cls(
            frames,
            {len(rows): counts.astype(np.float64)},
            agreement.unitize(rows, start, end, labels).table(),
            overlap,
            segments,
            edges,
            errors,
        )


def _fleiss(made: Sequence[_TimelineSums], boot: dict[str, Any]) -> Estimate | None:
    """Fleiss' kappa over the bins, where every episode has the same number of annotators."""
    raters = {n for m in made for n in m.fleiss}
    if len(raters) != 1:
        return None
    (n,) = raters

    def kappa(drawn: Sequence[Floats]) -> dict[str, float]:
        return {"fleiss": agreement.fleiss_kappa(np.concatenate(list(drawn)))}

    fewer = {**boot, "resamples": min(boot["resamples"], 300)}
    return bootstrap([m.fleiss[n] for m in made], kappa, **fewer)["fleiss"]


def _events(episodes: dict[str, dict[str, list[Interval]]], settings: Settings) -> list[Measured]:
    if not episodes:
        return []
    labels = sorted({i.label for by in episodes.values() for own in by.values() for i in own})
    sums = np.zeros((len(episodes), len(settings.tolerances_ms), len(labels), 3))
    errors: list[list[float]] = []
    widest = max(settings.tolerances_ms) * MS
    for e, by in enumerate(episodes.values()):
        errors.append([])
        for one, two in combinations(by.values(), 2):
            for i, label in enumerate(labels):
                mine = [x.start_ns for x in one if x.label == label]
                theirs = [x.start_ns for x in two if x.label == label]
                for j, ms in enumerate(settings.tolerances_ms):
                    sums[e, j, i] += intervals.instant_counts(mine, theirs, ms * MS)
                errors[-1] += [
                    d / MS for d in intervals.signed_errors_ns(mine, theirs, widest)
                ]  # fmt: skip

    def scores(total: Floats) -> dict[str, float]:
        out = {}
        for j, ms in enumerate(settings.tolerances_ms):
            out[f"event_f1@{ms}ms"] = intervals.f1(total[j].sum(axis=0))
            out |= {f"event_f1@{ms}ms/{k}": intervals.f1(total[j, i]) for i, k in enumerate(labels)}
        return out

    overall: dict[str, Estimate] = {}
    by_category: dict[str, dict[str, Estimate]] = {label: {} for label in labels}
    boot: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    _sort(bootstrap_sums(sums, scores, **boot), overall, by_category)
    overall |= _errors(errors, boot)
    who = sorted({w for by in episodes.values() for w in by})
    return [
        Measured("events", "events", tuple(who), tuple(episodes), overall, by_category,
                 errors_ms=tuple(x for own in errors for x in own),
                 accuracy=_event_accuracy(episodes, labels, settings))
    ]  # fmt: skip


def _event_accuracy(
    episodes: dict[str, dict[str, list[Interval]]], labels: list[str], settings: Settings
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Events against the reference annotator, matched within the largest tolerance."""
    widest = max(settings.tolerances_ms) * MS
    parts: dict[str, list[Floats]] = {}
    for by in episodes.values():
        truth = by.get(settings.reference or "", [])
        for who, own in by.items() if truth else ():
            if who != settings.reference:
                stamps = [
                    [[x.start_ns for x in side if x.label == label] for side in (truth, own)]
                    for label in labels
                ]
                counts = [intervals.instant_counts(a, b, widest) for a, b in stamps]
                parts.setdefault(who, []).append(np.array(counts, dtype=np.float64))
    return detection_accuracy(parts, labels, settings)


def _errors(errors: list[list[float]], boot: dict[str, Any]) -> dict[str, Estimate]:
    """Median signed and absolute differences of what was matched, with intervals."""

    def medians(drawn: Sequence[list[float]]) -> dict[str, float]:
        values = np.array([e for own in drawn for e in own])
        if not len(values):
            return {"median_difference_ms": float("nan"), "median_abs_difference_ms": float("nan")}
        return {
            "median_difference_ms": float(np.median(values)),
            "median_abs_difference_ms": float(np.median(np.abs(values))),
        }

    return bootstrap(errors, medians, **boot)


def _sort(
    estimates: Mapping[str, Estimate], overall: dict[str, Estimate],
    by_category: dict[str, dict[str, Estimate]],
) -> None:  # fmt: skip
    """`measure/category` to its category, `measure` to the whole."""
    for name, estimate in estimates.items():
        measure, _, category = name.partition("/")
        if category:
            by_category[category][measure] = estimate
        else:
            overall[measure] = estimate


def mean_kappa(tables: Floats) -> float:
    """Mean of Cohen's kappa over pairs of annotators (Light 1971), of tables (pairs, K, K)."""
    kappas = [agreement.kappa_of(table) for table in tables]
    defined = [k for k in kappas if np.isfinite(k)]
    return float(np.mean(defined)) if defined else float("nan")


def _part(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
