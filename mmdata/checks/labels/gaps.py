"""Holes in tracks, and tracks that go on under another identity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmdata.checks.label_limits import TrackLimits
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import Boxes3D, Classes, Floats, Ints, Mask
from mmdata.checks.labels.tracks import about
from mmdata.geometry import quat_slerp

#: Whether boxes (given as a table of single boxes) would have been in sight.
InSight = Callable[[Boxes3D], Mask]


def check_gaps(
    boxes: Boxes3D, limits: TrackLimits, classes: Classes, in_sight: InSight
) -> list[LabelFinding]:
    """Holes inside tracks during which the object was in sight, and broken identities."""
    out: list[LabelFinding] = []
    if len(boxes) == 0:
        return out
    keys = [named.object_id or named.annotation_id for named in boxes.named]
    _, object_of = np.unique(keys, return_inverse=True)
    rows_of = object_of[boxes.track]
    order = np.lexsort((boxes.stamp_ns, rows_of))
    stamps = np.unique(boxes.stamp_ns)
    a, b = order[:-1], order[1:]
    same = rows_of[a] == rows_of[b]
    linked = (b == a + 1) & ~boxes.last[a]
    missed = np.searchsorted(stamps, boxes.stamp_ns[b]) - np.searchsorted(
        stamps, boxes.stamp_ns[a], side="right"
    )
    interval = max(boxes.interval_ns, 1.0)
    wide = boxes.stamp_ns[b] - boxes.stamp_ns[a] > 1.5 * interval
    holes = np.flatnonzero(same & wide & (missed > 0))
    for k in holes.tolist():
        i, j = int(a[k]), int(b[k])
        apart = float(np.linalg.norm(boxes.center[j] - boxes.center[i]))
        dt = (boxes.stamp_ns[j] - boxes.stamp_ns[i]) / 1e9
        if apart > limits.speed_m_s * dt + float(boxes.size[i].max()):
            continue  # one identity for two objects; said elsewhere
        inside = stamps[(stamps > boxes.stamp_ns[i]) & (stamps < boxes.stamp_ns[j])]
        between = _between(boxes, i, j, inside)
        visible = in_sight(between)
        # Keyframes left out on purpose (interpolated tracks) are no hole.
        if linked[k] or not visible.any() or visible.mean() < 0.5:
            continue
        out.append(
            make(
                RULES["identity_gap"],
                f"no box in {len(inside)} keyframes although it was in sight in "
                f"{int(visible.sum())} of them",
                value=len(inside),
                annotation_ids=(boxes.row_id(i), boxes.row_id(j)),
                **about(boxes, i),
            )
        )
    out += _broken(boxes, limits, classes, rows_of, stamps)
    return out


def _between(boxes: Boxes3D, i: int, j: int, stamps: Ints) -> Boxes3D:
    """Single boxes at stamps between two rows."""
    n = len(stamps)
    part = (stamps - boxes.stamp_ns[i]) / max(int(boxes.stamp_ns[j] - boxes.stamp_ns[i]), 1)
    center = boxes.center[i] + part[:, None] * (boxes.center[j] - boxes.center[i])
    q = quat_slerp(np.tile(boxes.quaternion[i], (n, 1)), np.tile(boxes.quaternion[j], (n, 1)), part)
    size: Floats = np.tile(boxes.size[i], (n, 1))
    named = tuple([boxes.named[boxes.track[i]]] * n)
    return Boxes3D(named, np.arange(n), stamps, center, size, q, np.ones(n, bool))


def _broken(
    boxes: Boxes3D, limits: TrackLimits, classes: Classes, rows_of: Ints, stamps: Ints
) -> list[LabelFinding]:
    """Objects that end where another one of their class and size begins."""
    out: list[LabelFinding] = []
    order = np.lexsort((boxes.stamp_ns, rows_of))
    edge = np.append(True, np.diff(rows_of[order]) != 0)
    begins, ends = order[edge], order[np.append(edge[1:], True)]
    ends = ends[boxes.stamp_ns[ends] < stamps[-1]]
    begins = begins[boxes.stamp_ns[begins] > stamps[0]]
    for i in ends.tolist():
        velocity = np.zeros(3)
        if not boxes.first[i]:
            dt = max(int(boxes.stamp_ns[i] - boxes.stamp_ns[i - 1]), 1) / 1e9
            velocity = (boxes.center[i] - boxes.center[i - 1]) / dt
        wait = (boxes.stamp_ns[begins] - boxes.stamp_ns[i]) / 1e9
        near = (wait > 0) & (wait <= limits.gap_s) & (rows_of[begins] != rows_of[i])
        for j in begins[near].tolist():
            dt = (boxes.stamp_ns[j] - boxes.stamp_ns[i]) / 1e9
            ahead = boxes.center[i] + velocity * dt
            apart = float(np.linalg.norm(boxes.center[j] - ahead))
            alike = np.abs(boxes.size[j] / np.maximum(boxes.size[i], 1e-6) - 1.0).max() < 0.25
            one = classes.relation(
                boxes.named[boxes.track[i]].label, boxes.named[boxes.track[j]].label
            )
            if apart > limits.gap_radius_m or not alike or one == "different":
                continue
            other = boxes.named[boxes.track[j]].object_id
            out.append(
                make(
                    RULES["identity_gap"],
                    f"ends, and {other} begins {apart:.1f} m from where it would be {dt:.1f} s "
                    "later",
                    value=apart,
                    limit=limits.gap_radius_m,
                    annotation_ids=(boxes.row_id(i), boxes.row_id(j)),
                    **about(boxes, i),
                )
            )
    return out
