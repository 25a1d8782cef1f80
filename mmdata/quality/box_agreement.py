"""Agreement on boxes: what is matched, how well it overlaps, turns and is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmdata.quality.bootstrap import Estimate, bootstrap_sums
from mmdata.quality.boxes import match_boxes, yaw_difference_rad
from mmdata.quality.class_accuracy import detection_accuracy
from mmdata.quality.intervals import f1
from mmdata_schema import Box2D, Box3D, Layer

if TYPE_CHECKING:
    from mmdata.quality.label_agreement import Measured, Settings

Floats = npt.NDArray[np.float64]
_Boxes = Sequence[Box2D | Box3D]
#: Sums per label: matched, only one, only the other, IoU, distance m, yaw rad, yaw count, flips.
_FIELDS = 8


def box_agreement(
    annotators: Mapping[str, Mapping[str, Layer]], settings: Settings
) -> list[Measured]:
    """3D boxes by frame and instant, 2D boxes by stream and instant, labels free to differ.

    Only instants that both annotators of a pair labelled count, so that different keyframe rates
    are no disagreement.
    """
    return [
        *_measure("boxes_3d", annotators, _solid, settings.match_iou_3d, settings),
        *_measure("boxes_2d", annotators, _flat, settings.match_iou_2d, settings),
    ]


def _solid(layer: Layer) -> Iterator[tuple[tuple[str, int], Box3D]]:
    for box in layer.boxes_3d:
        yield (box.frame_id, box.stamp_ns), box
    for track in layer.tracks_3d:
        for i in range(track.keyframe_count):
            yield (track.frame_id, track.stamp_ns[i]), track.keyframe(i)


def _flat(layer: Layer) -> Iterator[tuple[tuple[str, int], Box2D]]:
    """Upright rectangles; overlap is not defined here for turned ones."""
    for box in layer.boxes_2d:
        if not box.rotation_rad:
            yield (box.stream, box.stamp_ns), box
    for track in layer.tracks_2d:
        for i in range(track.keyframe_count):
            if not (track.rotation_rad and track.rotation_rad[i]):
                yield (track.stream, track.stamp_ns[i]), track.keyframe(i)


def _measure(
    kind: str, annotators: Mapping[str, Mapping[str, Layer]],
    rows: Callable[[Layer], Iterator[tuple[tuple[str, int], Any]]], min_iou: float,
    settings: Settings,
) -> list[Measured]:  # fmt: skip
    from mmdata.quality.label_agreement import Measured, mean_kappa

    episodes: dict[str, dict[str, dict[tuple[str, int], list[Any]]]] = {}
    for who, own in sorted(annotators.items()):
        for episode, layer in own.items():
            found: dict[tuple[str, int], list[Any]] = {}
            for key, box in rows(layer):
                found.setdefault(key, []).append(box)
            if found:
                episodes.setdefault(episode, {})[who] = found
    episodes = {e: by for e, by in sorted(episodes.items()) if len(by) > 1}
    if not episodes:
        return []
    labels = sorted(
        {b.label for by in episodes.values() for own in by.values() for r in own.values()
         for b in r}
    )  # fmt: skip
    place = {label: i for i, label in enumerate(labels)}
    sums = np.zeros((len(episodes), len(labels), _FIELDS))
    names = sorted({w for by in episodes.values() for w in by})
    pairs = {pair: k for k, pair in enumerate(combinations(names, 2))}
    against: dict[str, list[Floats]] = {}
    tables = np.zeros((len(episodes), len(pairs), len(labels), len(labels)))
    for e, by in enumerate(episodes.values()):
        for (a, one), (b, two) in combinations(sorted(by.items()), 2):
            added = np.zeros((len(labels), _FIELDS))
            for key in one.keys() & two.keys():
                _pair(one[key], two[key], min_iou, place, added, tables[e, pairs[a, b]])
            sums[e] += added
            if settings.reference in (a, b):
                # Columns are: matched, only with the first, only with the second.
                columns = [0, 1, 2] if settings.reference == a else [0, 2, 1]
                against.setdefault(b if settings.reference == a else a, []).append(
                    added[:, columns]
                )
    boot: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    solid = kind == "boxes_3d"
    overall = bootstrap_sums(sums.sum(axis=1), lambda t: _scores(t, solid), **boot)
    if len(labels) > 1:
        overall |= bootstrap_sums(
            tables, lambda t: {"label_kappa": mean_kappa(t)}, **boot
        )  # fmt: skip
    by_category: dict[str, dict[str, Estimate]] = {
        label: bootstrap_sums(sums[:, i], lambda t: _scores(t, solid), **boot)
        for label, i in place.items()
    }
    return [
        Measured(kind, kind, tuple(names), tuple(episodes), overall, by_category, tuple(labels),
                 tables.sum(axis=(0, 1)),
                 accuracy=detection_accuracy(against, labels, settings))
    ]  # fmt: skip


def _pair(
    one: _Boxes, two: _Boxes, min_iou: float, place: Mapping[str, int], sums: Floats, table: Floats
) -> None:
    """Add one instant of one pair of annotators. A match with two labels is a miss for both."""
    matched = match_boxes(one, two, min_iou)
    for i, j, iou in matched:
        a, b = one[i], two[j]
        table[place[a.label], place[b.label]] += 1
        if a.label != b.label:
            sums[place[a.label], 1] += 1
            sums[place[b.label], 2] += 1
            continue
        row = sums[place[a.label]]
        row[0] += 1
        row[3] += iou
        if isinstance(a, Box3D) and isinstance(b, Box3D):
            row[4] += math.dist(a.center_m, b.center_m)
            yaw = yaw_difference_rad(a, b)
            if math.isfinite(yaw):
                row[5] += min(yaw, math.pi - yaw)
                row[6] += 1
                row[7] += yaw > math.pi / 2
    for k, box in enumerate(one):
        if all(k != i for i, _, _ in matched):
            sums[place[box.label], 1] += 1
    for k, other in enumerate(two):
        if all(k != j for _, j, _ in matched):
            sums[place[other.label], 2] += 1


def _scores(total: Floats, solid: bool) -> dict[str, float]:
    """Of summed rows: F1 of boxes, and means over the matched ones."""
    hits, _, _, iou, distance, yaw, headings, flips = total
    nan = float("nan")
    out = {"box_f1": f1(total[:3]), "mean_iou": iou / hits if hits else nan}
    if solid:
        out |= {
            "mean_centre_distance_m": distance / hits if hits else nan,
            "mean_yaw_difference_rad": yaw / headings if headings else nan,
            "heading_flip_rate": flips / headings if headings else nan,
        }
    return {name: float(value) for name, value in out.items()}
