"""One camera's rectangles and the 3D boxes seen in it, brought together by image and identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.checks.labels.projection import Seen
from mmdata.checks.labels.scene import View
from mmdata.checks.labels.tables import Boxes2D, Boxes3D, Floats, Ints


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
        mine, theirs = np.flatnonzero(frame == at), rows_of(seen, int(at))
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


def rows_of(seen: Seen, frame: int) -> Ints:
    """Indices of the boxes seen in one exposure."""
    a, b = np.searchsorted(seen.frame, [frame, frame + 1])
    return np.arange(a, b)


def where(f: Facing, i: int) -> dict[str, Any]:
    """What a finding about rectangle ``i`` says of its place."""
    named = f.two.names[f.two.named[i]]
    return {
        "stream": f.view.stream,
        "object_id": named.object_id,
        "stamp_ns": int(f.two.stamp_ns[i]),
        "layer": named.layer,
        "author": named.author,
    }
