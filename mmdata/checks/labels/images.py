"""3D boxes against the rectangles of one camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmdata.checks.label_limits import ImageLimits, ProjectionLimits
from mmdata.checks.labels.facing import Facing, iou_matrix, rows_of, where
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.phantoms import twice_findings, twice_of, unexplained
from mmdata.checks.labels.projection import Seen
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.spread import Shifts, shifts
from mmdata.checks.labels.tables import Classes, Floats, Ints, Mask

#: Whether boxes of Seen (indices) are hidden by something else, as far as LiDAR tells. The number
#: says in how many directions of time (0 to 2) the images next to it show them.
Hides = Callable[[Seen, Ints, Ints], Mask]


def compare(
    facing: Facing,
    limits: ImageLimits,
    projection: ProjectionLimits,
    classes: Classes,
    hides: Hides | None = None,
) -> list[LabelFinding]:
    """Findings of one camera."""
    f, seen, two = facing, facing.seen, facing.two
    partner, overlap = _partners(f, limits)
    out: list[LabelFinding] = []
    frames = len(f.view.stamp_ns)
    labelled = np.zeros(frames, bool)
    labelled[f.frame[f.frame >= 0]] = True
    twice = twice_of(f, partner, limits)
    again = np.zeros(len(two), bool)
    again[list(twice)] = True
    partner = np.where(again, -1, partner)
    out += twice_findings(f, twice, limits)
    taken = np.zeros(len(seen), bool)
    taken[partner[partner >= 0]] = True
    # What shows a thing shows all that is labelled of it.
    thing = seen.frame * (len(f.boxes.named) + 1) + f.boxes.thing[f.boxes.track[seen.row]]
    taken |= np.isin(thing, thing[taken])
    swapped = _swapped(f, partner, overlap, limits)
    out += _swap_findings(f, partner, swapped)
    out += _class_findings(f, partner, swapped, classes)
    kinds = _kinds(f, classes)
    height = np.ones(len(two))
    height[f.own >= 0] = f.boxes.size[f.seen.row[f.own[f.own >= 0]], 2]
    author = np.unique([n.author for n in two.names], return_inverse=True)[1].reshape(-1)[two.named]
    measured = shifts(
        f.rect_2d, f.own, seen, f.view.camera, limits, f.code_2d, kinds, height, author, swapped
    )
    out += _location_findings(f, measured, limits)

    # A rectangle far from everything, of an identity in sight that nothing else shows: misplaced.
    alone = (partner < 0) & (f.frame >= 0) & ~again
    astray = alone & (f.own >= 0) & ~taken[f.own]
    astray &= seen.visible[f.own] >= limits.missing_visibility
    astray &= seen.certain[f.own] & _far_off(f, limits)
    out += [_astray(f, int(i)) for i in np.flatnonzero(astray)]
    taken[f.own[astray]] = True
    alone &= ~astray

    out += _missing(f, taken, labelled, limits, hides)
    out += unexplained(f, alone, limits, projection)
    return out


def _kinds(f: Facing, classes: Classes) -> Ints:
    """Class of each rectangle's own 3D box as a number."""
    names = np.array([classes.name(named.label) for named in f.boxes.named])
    numbers = np.unique(names, return_inverse=True)[1].reshape(-1)
    return np.where(f.own >= 0, numbers[f.boxes.track[f.seen.row[f.own]]], -1)


def _partners(f: Facing, limits: ImageLimits) -> tuple[Ints, Floats]:
    """The seen box that each rectangle shows, -1 for none, and their overlap.

    Own identities that overlap well are taken as they are; the rest of each frame is assigned
    for the largest sum of overlaps (Hungarian), own identities having an advantage.
    """
    partner = np.where(f.iou >= limits.settled_iou, f.own, -1)
    overlap = np.where(partner >= 0, f.iou, 0.0)
    taken = np.zeros(len(f.seen), bool)
    taken[partner[partner >= 0]] = True
    open_rows = np.flatnonzero((partner < 0) & (f.frame >= 0))
    open_rows = open_rows[np.argsort(f.frame[open_rows], kind="stable")]
    edges = np.flatnonzero(np.append(True, np.diff(f.frame[open_rows]) != 0))
    for rows in np.split(open_rows, edges[1:]):
        if len(rows) == 0:
            continue
        boxes = rows_of(f.seen, int(f.frame[rows[0]]))
        boxes = boxes[~taken[boxes]]
        if len(boxes) == 0:
            continue
        iou = iou_matrix(f.rect_2d[rows], f.seen.rect[boxes])
        same = f.own[rows][:, None] == boxes[None, :]
        # Boxes hardly in sight explain a rectangle only where nothing better does.
        score = (
            iou + limits.swap_gain_iou * (same & (iou > 0)) - 0.2 * (f.seen.visible[boxes] < 0.2)
        )
        score[(iou < limits.match_iou) & ~(same & (iou > 0.05))] = 0.0
        a, b = linear_sum_assignment(score, maximize=True)
        good = score[a, b] > 0
        partner[rows[a[good]]] = boxes[b[good]]
        overlap[rows[a[good]]] = iou[a[good], b[good]]
    return partner, overlap


def _swapped(f: Facing, partner: Ints, overlap: Floats, limits: ImageLimits) -> Mask:
    """Rectangles that show a box of another identity."""
    has = partner >= 0
    other = np.zeros(len(partner), bool)
    other[has] = f.code_3d[partner[has]] != f.code_2d[has]
    claims = np.isin(f.code_2d, f.code_3d) & (f.code_2d >= 0)
    large = (f.rect_2d[:, 2:] - f.rect_2d[:, :2]).min(axis=1) >= limits.min_side_px
    return np.asarray(other & claims & large & (overlap - f.iou >= limits.swap_gain_iou))


def _swap_findings(f: Facing, partner: Ints, swapped: Mask) -> list[LabelFinding]:
    out = []
    seen_ids = {
        (int(f.frame[i]), int(f.code_2d[i])): i for i in np.flatnonzero(swapped).tolist()
    }  # fmt: skip
    done: set[int] = set()
    for i in np.flatnonzero(swapped).tolist():
        if i in done:
            continue
        shown = f.boxes.named[f.boxes.track[f.seen.row[partner[i]]]].object_id
        j = seen_ids.get((int(f.frame[i]), int(f.code_3d[partner[i]])))
        ids = [f.two.row_id(i)]
        if j is not None and f.code_3d[partner[j]] == f.code_2d[i]:
            done.add(j)
            ids.append(f.two.row_id(j))
            text = f"identities {f.two.names[f.two.named[i]].object_id} and {shown} are exchanged"
        else:
            text = f"shows {shown}, not {f.two.names[f.two.named[i]].object_id}"
        out.append(
            make(RULES["identity_swap"], text, annotation_ids=tuple(ids), **where(f, i))
        )  # fmt: skip
    return out


def _class_findings(
    f: Facing, partner: Ints, swapped: Mask, classes: Classes
) -> list[LabelFinding]:
    rows = np.flatnonzero((partner >= 0) & ~swapped)
    tracks = f.boxes.track[f.seen.row[partner[rows]]]
    pairs = np.stack([f.two.named[rows], tracks], axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    relation = np.array(
        [classes.relation(f.two.names[a].label, f.boxes.named[b].label) for a, b in unique],
        dtype=object,
    )
    out = []
    for k in np.flatnonzero(relation[inverse.reshape(-1)] != "same") if len(rows) else ():
        i, track = int(rows[k]), f.boxes.named[tracks[k]]
        level = relation[inverse.reshape(-1)[k]] == "level"
        mine = f.two.names[f.two.named[i]].label
        text = f"{mine} in the image, {track.label} in 3D"
        if level:
            text += ": two levels of one class"
        out.append(
            make(
                RULES["class_mismatch"],
                text,
                error_type="ACC3" if level else "ACC1",
                annotation_ids=(f.two.row_id(i), track.annotation_id),
                **where(f, i),
            )
        )
    return out


def _location_findings(f: Facing, measured: Shifts, limits: ImageLimits) -> list[LabelFinding]:
    out = []
    for k in np.flatnonzero(measured.wrong).tolist():
        i = int(measured.row[k])
        seen = int(f.own[i])
        if f.seen.visible[seen] < limits.location_visibility or not f.seen.certain[seen]:
            continue
        value, what = measured.worst(k)
        out.append(
            make(
                RULES["box_location"],
                f"{what} by {value:.0%} of its side against the projection of its 3D box "
                f"(overlap {f.iou[i]:.2f})",
                value=value,
                limit=limits.min_shift_fraction,
                annotation_ids=(f.two.row_id(i), f.boxes.row_id(int(f.seen.row[seen]))),
                **where(f, i),
            )
        )
    return out


def _astray(f: Facing, i: int) -> LabelFinding:
    rect, mine = f.seen.rect[f.own[i]], f.rect_2d[i]
    apart = 0.5 * np.abs(rect[:2] + rect[2:] - mine[:2] - mine[2:])
    value = float((apart / np.maximum(rect[2:] - rect[:2], 1.0)).max())
    return make(
        RULES["box_location"],
        f"shifted by {value:.0%} of its side: it does not meet the projection of its 3D box",
        value=value,
        annotation_ids=(f.two.row_id(i), f.boxes.row_id(int(f.seen.row[f.own[i]]))),
        **where(f, i),
    )


def _missing(
    f: Facing, taken: Mask, labelled: Mask, limits: ImageLimits, hides: Hides | None
) -> list[LabelFinding]:
    seen = f.seen
    side = (seen.rect[:, 2:] - seen.rect[:, :2]).min(axis=1)
    expected = (
        seen.certain & (seen.visible >= limits.missing_visibility) & (side >= limits.min_side_px)
    )
    # An image without any label is one finding, if nearly all others of the camera have some.
    watched = labelled.mean() >= limits.labelled_frames
    candidates = np.flatnonzero(expected & ~taken & (labelled[seen.frame] | watched))
    # Half hidden things are left out or not as the annotator likes: only a hole in a series tells.
    around = _labelled_around(f, candidates)
    plain = (seen.visible[candidates] >= limits.plain_visibility) | (around == 2)
    candidates, around = candidates[plain], around[plain]
    if hides is not None and len(candidates):
        candidates = candidates[~hides(seen, candidates, around)]
    out = []
    for k in candidates[labelled[seen.frame[candidates]]].tolist():
        named = f.boxes.named[f.boxes.track[seen.row[k]]]
        out.append(
            make(
                RULES["missing_2d"],
                f"{named.label} at {seen.range_m[k]:.0f} m, {seen.visible[k]:.0%} visible, "
                "has no rectangle",
                value=seen.visible[k],
                limit=limits.missing_visibility,
                stream=f.view.stream,
                object_id=named.object_id,
                stamp_ns=int(f.view.stamp_ns[seen.frame[k]]),
                layer=named.layer,
                annotation_ids=(f.boxes.row_id(int(seen.row[k])),),
            )
        )
    for frame in np.unique(seen.frame[candidates][~labelled[seen.frame[candidates]]]).tolist():
        out.append(
            make(
                RULES["unlabelled_frame"],
                "no rectangle in this image, where 3D boxes are in sight",
                stream=f.view.stream,
                stamp_ns=int(f.view.stamp_ns[frame]),
            )
        )
    return out


def _labelled_around(f: Facing, rows: Ints) -> Ints:
    """In how many directions of time the images next to seen boxes have a rectangle of their
    identity: 0, 1 or 2. Before the first and after the last image counts as having one."""
    many = int(max(f.code_3d.max(initial=0), f.code_2d.max(initial=0))) + 2
    keys = np.unique((f.frame * many + f.code_2d)[(f.code_2d >= 0) & (f.frame >= 0)])
    frame = f.seen.frame[rows]
    own = frame * many + f.code_3d[rows]
    before = np.isin(own - many, keys) | np.isin(own - 2 * many, keys) | (frame == 0)
    last = len(f.view.stamp_ns) - 1
    after = np.isin(own + many, keys) | np.isin(own + 2 * many, keys) | (frame == last)
    return np.where(f.code_3d[rows] >= 0, before.astype(np.int64) + after, 0)


def _far_off(f: Facing, limits: ImageLimits) -> Mask:
    """Rectangles whose centre is off its projection by more than a hand's error."""
    rect = f.seen.rect[f.own]
    apart = 0.5 * np.abs(rect[:, :2] + rect[:, 2:] - f.rect_2d[:, :2] - f.rect_2d[:, 2:])
    side = np.maximum(rect[:, 2:] - rect[:, :2], 1.0)
    spread = np.hypot(limits.spread_px, limits.spread_fraction * side)
    return np.asarray((apart > limits.location_sigma * spread).any(axis=1))
