"""How far two annotators agree on one episode, and where they do not: the adjudication list."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from mmdata.geometry import quat_angle
from mmdata.quality.agreement import kappa_of
from mmdata.quality.intervals import Interval, boundaries, f1, instant_counts
from mmdata_schema import Layer, Phase, Track3D

BOUNDARY_NS = 100_000_000
"""Two boundaries agree when they are closer than this."""
MATCH_M = 2.0
"""Two boxes are taken for the same object when their centres are closer than this."""
APART, TURNED_RAD = 0.1, float(np.deg2rad(10))
"""Matched objects differ when their centres are further apart than this share of the longest side,
or when they are turned further than this."""


def agreement(a: Layer, b: Layer) -> dict[str, Any]:
    """Numbers per tier and for 3D tracks, and `differences` to adjudicate, by time.

    Per tier: `time_agreement`, the share of the time covered by either layer in which both have the
    same label; `kappa`, Cohen's kappa of the labels over that time (no label counts as a label);
    `boundary_f1`, inner boundaries within 0.1 s of each other, matched one to one, as
    `mmdata annotations agreement` counts them. None where a number is not defined. Tracks are
    compared at the stamps both have, matched by nearest centre: median centre distance and
    rotation. Absent where there is nothing to compare.
    """
    tiers, differences = {}, []
    names = sorted({p.tier for p in (*a.phases, *b.phases)})
    for tier in names:
        ours, theirs = (_sorted(x, tier) for x in (a, b))
        tiers[tier], found = _tier(ours, theirs)
        differences += [{"tier": tier, **d} for d in found]
    boxes, found = _tracks(a.tracks_3d, b.tracks_3d)
    differences += found
    out: dict[str, Any] = {"a": a.name, "b": b.name, "tiers": tiers}
    if boxes is not None:
        out["tracks_3d"] = boxes
    return {**out, "differences": sorted(differences, key=lambda d: int(d["stamp_ns"]))}


def _sorted(layer: Layer, tier: str) -> list[Phase]:
    return sorted((p for p in layer.phases if p.tier == tier), key=lambda p: p.start_ns)


def _label_at(phases: list[Phase], stamp_ns: int) -> Phase | None:
    return next((p for p in phases if p.start_ns <= stamp_ns < p.end_ns), None)


def _tier(a: list[Phase], b: list[Phase]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    cuts = sorted({t for p in (*a, *b) for t in (p.start_ns, p.end_ns)})
    labels = ["", *sorted({p.label for p in (*a, *b)})]
    place = {label: i for i, label in enumerate(labels)}
    shared_ns = np.zeros((len(labels), len(labels)))
    differences: list[dict[str, Any]] = []
    for start, end in pairwise(cuts):
        pa, pb = _label_at(a, start), _label_at(b, start)
        if pa is None and pb is None:
            continue
        la, lb = pa.label if pa else "", pb.label if pb else ""
        shared_ns[place[la], place[lb]] += end - start
        if la != lb and end - start > BOUNDARY_NS:
            differences.append(
                {
                    "kind": "phase",
                    "stamp_ns": start,
                    "end_ns": end,
                    "a": la or None,
                    "b": lb or None,
                    "a_id": pa.id if pa else None,
                    "b_id": pb.id if pb else None,
                }
            )
    ours, theirs = (
        boundaries([Interval(p.label, p.start_ns, p.end_ns) for p in side]) for side in (a, b)
    )
    return {
        "time_agreement": float(np.trace(shared_ns) / (shared_ns.sum() or 1)),
        "kappa": _defined(kappa_of(shared_ns)),
        "boundary_f1": _defined(f1(instant_counts(ours, theirs, BOUNDARY_NS))),
        "count_a": len(a),
        "count_b": len(b),
    }, differences


def _defined(value: float) -> float | None:
    """A number for JSON, which has none that is not defined."""
    return value if np.isfinite(value) else None


def _tracks(
    a: list[Track3D], b: list[Track3D]
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    if not a and not b:
        return None, []
    distances, angles, differences = [], [], []
    free = list(b)
    for track in a:
        scored = [(d, other) for other in free if (d := _distance(track, other)) is not None]
        best = min(scored, key=lambda pair: pair[0][0], default=None)
        if best is None or best[0][0] > MATCH_M:
            differences.append(_missing(track, "a"))
            continue
        (distance, angle), other = best
        free.remove(other)
        distances.append(distance)
        angles.append(angle)
        both = {"a": track.label, "b": other.label, "a_id": track.id, "b_id": other.id}
        row = {"stamp_ns": track.stamp_ns[0], "object_id": track.object_id, **both}
        if other.label != track.label:
            differences.append({"kind": "class", **row})
        elif distance > APART * max(track.size_lwh_m[0]) or angle > TURNED_RAD:
            differences.append(
                {"kind": "place", **row, "centre_m": distance, "rotation_rad": angle}
            )
    differences += [_missing(track, "b") for track in free]
    out: dict[str, Any] = {"matched": len(distances), "only_a": len(a) - len(distances)}
    out["only_b"] = len(free)
    if distances:
        out["centre_m"] = float(np.median(distances))
        out["rotation_rad"] = float(np.median(angles))
    return out, differences


def _missing(track: Track3D, side: str) -> dict[str, Any]:
    other = "b" if side == "a" else "a"
    return {
        "kind": "object",
        "stamp_ns": track.stamp_ns[0],
        "object_id": track.object_id,
        side: track.label,
        other: None,
        f"{side}_id": track.id,
        f"{other}_id": None,
    }


def _distance(a: Track3D, b: Track3D) -> tuple[float, float] | None:
    """Median centre distance and rotation at the stamps both have; None without any."""
    at = {stamp: i for i, stamp in enumerate(b.stamp_ns)}
    pairs = [(i, at[stamp]) for i, stamp in enumerate(a.stamp_ns) if stamp in at]
    if not pairs or a.frame_id != b.frame_id:
        return None
    i, j = (list(x) for x in zip(*pairs, strict=True))
    centres = np.asarray(a.center_m)[i] - np.asarray(b.center_m)[j]
    angles = quat_angle(np.asarray(a.quaternion_wxyz)[i], np.asarray(b.quaternion_wxyz)[j])
    return float(np.median(np.linalg.norm(centres, axis=1))), float(np.median(angles))
