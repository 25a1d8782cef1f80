"""One thing labelled twice: 3D boxes of two identities in one place.

Solid things do not share space, so two boxes that fill each other by half at most of the instants
they share show one thing. Labels that say so themselves (PandaSet's `sibling`: one box for each of
two LiDARs) are no fault, but they must agree about the class.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.spatial import cKDTree

from mmdata.checks.label_limits import TrackLimits
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import Boxes3D, Classes, Floats, Ints
from mmdata.checks.labels.tracks import about
from mmdata.geometry import quat_conjugate, quat_rotate

_LINE = (np.arange(8) - 3.5) / 8
_GRID = np.stack(np.meshgrid(_LINE, _LINE, _LINE), axis=-1).reshape(-1, 3)


def check_duplicates(
    boxes: Boxes3D, limits: TrackLimits, classes: Classes
) -> tuple[list[LabelFinding], dict[int, int]]:
    """Findings, and each track that shows what another one shows already -> that other one."""
    out: list[LabelFinding] = []
    meant: dict[int, int] = {}
    for (a, b), rows in sorted(_together(boxes, limits).items()):
        shared = np.intersect1d(boxes.stamp_ns[boxes.track == a], boxes.stamp_ns[boxes.track == b])
        if 2 * len(rows) < len(shared) or boxes.thing[a] == boxes.thing[b]:
            continue
        lengths = [np.count_nonzero(boxes.track == k) for k in (a, b)]
        extra, kept = (b, a) if lengths[1] <= lengths[0] else (a, b)
        kept = meant.get(kept, kept)
        if extra in meant or extra == kept:
            continue
        meant[extra] = kept
        one, two = boxes.named[kept], boxes.named[extra]
        row = rows[0][1] if extra == b else rows[0][0]
        out.append(
            make(
                RULES["duplicate_object"],
                f"lies where {one.object_id or one.annotation_id} ({one.label}) lies, in "
                f"{len(rows)} of {len(shared)} keyframes",
                value=len(rows) / max(len(shared), 1),
                limit=0.5,
                annotation_ids=(two.annotation_id, one.annotation_id),
                **about(boxes, row),
            )
        )
    return out + _siblings(boxes, classes), meant


def without(boxes: Boxes3D, tracks: dict[int, int]) -> Boxes3D:
    """The table without some tracks."""
    keep = ~np.isin(boxes.track, list(tracks))
    return Boxes3D(
        boxes.named, boxes.track[keep], boxes.stamp_ns[keep], boxes.center[keep],
        boxes.size[keep], boxes.quaternion[keep], boxes.last[keep],
    )  # fmt: skip


def _together(boxes: Boxes3D, limits: TrackLimits) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Pairs of tracks -> pairs of rows of one instant that fill each other."""
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    if len(boxes) == 0:
        return pairs
    reach = 0.5 * boxes.size.max(axis=1)
    # Instants as a fourth axis, further apart than any two boxes that touch.
    instant = np.unique(boxes.stamp_ns, return_inverse=True)[1].reshape(-1)
    most = float(reach.max())
    place = np.concatenate([boxes.center, 4.0 * most * instant[:, None]], axis=1)
    near = cKDTree(place).query_pairs(most, output_type="ndarray")
    if len(near) == 0:
        return pairs
    i, j = near[:, 0].astype(np.int64), near[:, 1].astype(np.int64)
    apart = np.linalg.norm(boxes.center[i] - boxes.center[j], axis=1)
    some = (apart < np.minimum(reach[i], reach[j])) & (boxes.track[i] != boxes.track[j])
    i, j = i[some], j[some]
    share = np.minimum(_inside(boxes, i, j), _inside(boxes, j, i))
    for k in np.flatnonzero(share >= limits.duplicate_overlap).tolist():
        a, b = sorted((int(i[k]), int(j[k])), key=lambda row: int(boxes.track[row]))
        pairs[(int(boxes.track[a]), int(boxes.track[b]))].append((a, b))
    for rows in pairs.values():
        rows.sort(key=lambda pair: int(boxes.stamp_ns[pair[0]]))
    return pairs


def _inside(boxes: Boxes3D, i: Ints, j: Ints) -> Floats:
    """Share of each box i (K,) that lies in box j (K,), by a grid of points."""
    world = quat_rotate(boxes.quaternion[i][:, None], _GRID * boxes.size[i][:, None])
    world = world + (boxes.center[i] - boxes.center[j])[:, None]
    local = quat_rotate(quat_conjugate(boxes.quaternion[j])[:, None], world)
    within = (np.abs(local) <= 0.5 * boxes.size[j][:, None]).all(axis=2)
    return np.asarray(within.mean(axis=1))


def _siblings(boxes: Boxes3D, classes: Classes) -> list[LabelFinding]:
    """Labels of one thing, told to be that, that call it by different classes."""
    first: dict[int, int] = {}
    out: list[LabelFinding] = []
    for track, thing in enumerate(boxes.thing.tolist()):
        other = first.setdefault(thing, track)
        mine, theirs = boxes.named[track], boxes.named[other]
        if mine.object_id == theirs.object_id:
            continue  # one identity with two classes is told along the tracks
        if classes.relation(mine.label, theirs.label) == "different":
            row = int(np.argmax(boxes.track == track))
            out.append(
                make(RULES["class_change"],
                     f"is a {mine.label}, and its sibling {theirs.object_id} a {theirs.label}",
                     annotation_ids=(mine.annotation_id, theirs.annotation_id),
                     **about(boxes, row))
            )  # fmt: skip
    return out
