"""3D boxes against the rectangles of one camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmdata.checks.label_limits import ImageLimits, ProjectionLimits
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.projection import Seen, exposures_of
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.scene import View
from mmdata.checks.labels.spread import Shifts, shifts
from mmdata.checks.labels.tables import Boxes2D, Boxes3D, Classes, Floats, Ints, Mask

#: Whether boxes of Seen (indices) are hidden by something else, as far as LiDAR tells. The number
#: says in how many directions of time (0 to 2) the images next to it show them.
Hides = Callable[[Seen, Ints, Ints], Mask]


@dataclass(frozen=True)
class Facing:
    """One camera's rectangles and the 3D boxes seen in it, ready to be compared.

    frame (M,): exposure of each rectangle, -1 where it belongs to none. code_2d (M,), code_3d (K,):
    identities as numbers, equal where they claim to be one object; -1: no claim. code_track (T,):
    of every 3D track. rect_2d (M, 4): cut to the image. own (M,): index into seen of the same
    identity in the same frame, -1 without; iou (M,): overlap with it.
    """

    view: View
    boxes: Boxes3D
    seen: Seen
    two: Boxes2D
    frame: Ints
    code_2d: Ints
    code_3d: Ints
    code_track: Ints
    rect_2d: Floats
    own: Ints
    iou: Floats


def face(view: View, boxes: Boxes3D, seen: Seen, two: Boxes2D, codes: Mapping[str, int]) -> Facing:
    """Bring both sides of one camera together. codes: identity -> number, over both layers."""
    frame = np.searchsorted(view.stamp_ns, two.stamp_ns)
    frame = np.minimum(frame, max(len(view.stamp_ns) - 1, 0))
    frame = np.where(view.stamp_ns[frame] == two.stamp_ns, frame, -1)
    limit = np.array([view.camera.width, view.camera.height] * 2) - 0.5
    rect = np.clip(two.xyxy, -0.5, limit)
    code_track = _codes(boxes.named, codes)
    code_3d = code_track[boxes.track[seen.row]]
    code_2d = _codes(two.names, codes)[two.named] if len(two) else np.zeros(0, np.int64)
    known = np.unique(code_3d)
    claims = code_2d[code_2d >= 0]
    if len(claims) and np.isin(claims, known).mean() < 0.3:
        # Both layers number their objects in their own way: whoever overlaps most is meant.
        code_2d = _by_overlap(frame, code_2d, rect, seen, code_3d)
    own = _join(frame, code_2d, seen.frame, code_3d)
    overlap = np.zeros(len(two))
    has = own >= 0
    overlap[has] = iou_pairs(rect[has], seen.rect[own[has]])
    # Of two rectangles with one identity in one image the better one is meant.
    order = np.lexsort((-overlap, own))
    again = np.append(False, own[order][1:] == own[order][:-1]) & (own[order] >= 0)
    own[order[again]] = -1
    overlap[order[again]] = 0.0
    return Facing(view, boxes, seen, two, frame, code_2d, code_3d, code_track, rect, own, overlap)


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
    taken = np.zeros(len(seen), bool)
    taken[partner[partner >= 0]] = True

    swapped = _swapped(f, partner, overlap, limits)
    out += _swap_findings(f, partner, swapped)
    out += _class_findings(f, partner, swapped, classes)
    kinds = _kinds(f, classes)
    height = np.ones(len(two))
    height[f.own >= 0] = f.boxes.size[f.seen.row[f.own[f.own >= 0]], 2]
    measured = shifts(
        f.rect_2d, f.own, seen, f.view.camera, limits, f.code_2d, kinds, height, swapped
    )
    out += _location_findings(f, measured, limits)

    # A rectangle far from everything, of an identity in sight that nothing else shows: misplaced.
    alone = (partner < 0) & (f.frame >= 0)
    astray = alone & (f.own >= 0) & ~taken[f.own]
    astray &= seen.visible[f.own] >= limits.missing_visibility
    astray &= seen.certain[f.own] & _far_off(f, limits)
    out += [_astray(f, int(i)) for i in np.flatnonzero(astray)]
    taken[f.own[astray]] = True
    alone &= ~astray

    out += _missing(f, taken, labelled, limits, hides)
    out += _unexplained(f, alone, limits, projection)
    return out


def _kinds(f: Facing, classes: Classes) -> Ints:
    """Class of each rectangle's own 3D box as a number."""
    names = np.array([classes.name(named.label) for named in f.boxes.named])
    numbers = np.unique(names, return_inverse=True)[1].reshape(-1)
    return np.where(f.own >= 0, numbers[f.boxes.track[f.seen.row[f.own]]], -1)


def iou_pairs(a: Floats, b: Floats) -> Floats:
    """Intersection over union of rectangles (N, 4) and (N, 4)."""
    side = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inter = np.prod(np.maximum(side, 0.0), axis=1)
    both = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1)
    return np.asarray(inter / np.maximum(both - inter, 1e-12))


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """(N, M) intersection over union."""
    side = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    inter = np.prod(np.maximum(side, 0.0), axis=2)
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b))
    return np.asarray(inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-12))


def _codes(named: tuple[Any, ...], codes: Mapping[str, int]) -> Ints:
    return np.array([codes.get(n.object_id, -1) if n.object_id else -1 for n in named], np.int64)


def _join(frame_2d: Ints, code_2d: Ints, frame_3d: Ints, code_3d: Ints) -> Ints:
    """For every rectangle, the seen box of the same frame and identity; -1 without."""
    if len(frame_3d) == 0 or len(frame_2d) == 0:
        return np.full(len(frame_2d), -1, np.int64)
    many = int(max(code_3d.max(), code_2d.max())) + 2
    keys = frame_3d * many + code_3d
    order = np.argsort(keys, kind="stable")
    wanted = frame_2d * many + code_2d
    at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    hit = (keys[order][at] == wanted) & (code_2d >= 0) & (frame_2d >= 0)
    return np.where(hit, order[at], -1)


def _by_overlap(frame: Ints, code: Ints, rect: Floats, seen: Seen, code_3d: Ints) -> Ints:
    """Identities of the other layer: for each, the 3D identity it overlaps most often."""
    votes: dict[int, dict[int, int]] = {}
    for at in np.unique(frame[frame >= 0]):
        mine, theirs = np.flatnonzero(frame == at), _rows_of(seen, int(at))
        if len(theirs) == 0:
            continue
        overlap = iou_matrix(rect[mine], seen.rect[theirs])
        best = overlap.argmax(axis=1)
        for i, j in zip(mine.tolist(), best.tolist(), strict=True):
            if code[i] >= 0 and overlap[mine.tolist().index(i), j] > 0.5:
                count = votes.setdefault(int(code[i]), {})
                other = int(code_3d[theirs[j]])
                count[other] = count.get(other, 0) + 1
    meant = {c: max(v, key=lambda k: v[k]) for c, v in votes.items()}
    return np.array([meant.get(int(c), -1) for c in code], np.int64)


def _rows_of(seen: Seen, frame: int) -> Ints:
    a, b = np.searchsorted(seen.frame, [frame, frame + 1])
    return np.arange(a, b)


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
        boxes = _rows_of(f.seen, int(f.frame[rows[0]]))
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


def _where(f: Facing, i: int) -> dict[str, Any]:
    """What a finding about rectangle ``i`` says of its place."""
    named = f.two.names[f.two.named[i]]
    return {
        "stream": f.view.stream,
        "object_id": named.object_id,
        "stamp_ns": int(f.two.stamp_ns[i]),
        "layer": named.layer,
        "author": named.author,
    }


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
            make(RULES["identity_swap"], text, annotation_ids=tuple(ids), **_where(f, i))
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
                **_where(f, i),
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
                **_where(f, i),
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
        **_where(f, i),
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


def _unexplained(
    f: Facing, alone: Mask, limits: ImageLimits, projection: ProjectionLimits
) -> list[LabelFinding]:
    """Rectangles that no 3D box explains: phantoms, or objects without a 3D label."""
    rows = np.flatnonzero(alone)
    if len(rows) == 0 or len(f.boxes) == 0:
        return []
    exposure = f.view.stamp_ns - f.view.late_ns
    at = exposure[f.frame[rows]]
    rows = rows[(at >= f.boxes.stamp_ns.min()) & (at <= f.boxes.stamp_ns.max())]
    row, frame, _, certain = exposures_of(f.boxes, exposure, projection)
    codes = f.code_track[f.boxes.track]
    # Boxes without an identity explain nothing here; -1 must not run into the frame before.
    own = codes[row] >= 0
    row, frame, certain = row[own], frame[own], certain[own]
    every = codes[row]
    many = int(max(every.max(initial=0), f.code_2d.max(initial=0))) + 2
    now = np.unique((frame * many + every)[certain])
    grace = np.unique(frame * many + every)
    tracked = set(codes[codes >= 0].tolist())
    limit = np.array([f.view.camera.width, f.view.camera.height]) - 4.0
    edge: Mask = np.asarray(
        (f.rect_2d[:, :2] < 3.0).any(axis=1) | (f.rect_2d[:, 2:] > limit).any(axis=1)
    )
    out: list[LabelFinding] = []
    homeless: dict[int, list[int]] = {}
    for i in rows.tolist():
        key = int(f.frame[i] * many + f.code_2d[i])
        side = float((f.rect_2d[i, 2:] - f.rect_2d[i, :2]).min())
        if side < limits.min_side_px:
            continue
        code = int(f.code_2d[i])
        if code >= 0 and code in tracked:
            if _holds(now, key):
                # At the border a hand may still draw what just left the image.
                if not edge[i] and (f.own[i] < 0 or f.seen.certain[f.own[i]]):
                    out.append(_phantom(f, i, "its 3D box is not in this part of the image"))
            elif not _holds(grace, key) and _between(f, code, int(f.two.stamp_ns[i])):
                homeless.setdefault(int(code), []).append(i)
            continue
        if code >= 0:
            homeless.setdefault(code, []).append(i)
        else:
            out.append(_phantom(f, i, "no 3D box projects here"))
    for code, members in homeless.items():
        if len(members) < limits.min_unlabelled and code not in tracked:
            out += [_phantom(f, i, "no 3D box projects here") for i in members]
            continue
        first = members[0]
        text = f"labelled in {len(members)} images of this camera and nowhere in 3D"
        if code in tracked:
            text = f"labelled in {len(members)} images while its 3D track has a hole"
        ids = tuple(f.two.row_id(i) for i in members)
        out.append(
            make(RULES["missing_3d"], text, value=len(members), annotation_ids=ids,
                 **_where(f, first))
        )  # fmt: skip
    return out


def _holds(ordered: Ints, key: int) -> bool:
    at = int(np.searchsorted(ordered, key))
    return at < len(ordered) and int(ordered[at]) == key


def _between(f: Facing, code: int, stamp_ns: int) -> bool:
    """Whether the identity has 3D boxes before and after an instant."""
    stamps = f.boxes.stamp_ns[f.code_track[f.boxes.track] == code]
    return bool(len(stamps)) and bool(stamps.min() < stamp_ns < stamps.max())


def _phantom(f: Facing, i: int, why: str) -> LabelFinding:
    rows = _rows_of(f.seen, int(f.frame[i]))
    if len(rows) and iou_matrix(f.rect_2d[i : i + 1], f.seen.rect[rows]).max() > 0.5:
        why = "another rectangle shows the 3D box that lies here"
    label = f.two.names[f.two.named[i]].label
    return make(
        RULES["phantom_2d"], f"{label}: {why}", annotation_ids=(f.two.row_id(i),), **_where(f, i)
    )
