"""Rectangles without a 3D box of their own: of nothing, of what has no 3D label, or drawn twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmdata.checks.label_limits import ImageLimits, ProjectionLimits
from mmdata.checks.labels.facing import Facing, iou_matrix, iou_pairs, where
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.projection import exposures_of
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import Ints, Mask


def unexplained(
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
                 **where(f, first))
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
    label = f.two.names[f.two.named[i]].label
    return make(
        RULES["phantom_2d"], f"{label}: {why}", annotation_ids=(f.two.row_id(i),), **where(f, i)
    )


def twice_of(f: Facing, partner: Ints, limits: ImageLimits) -> dict[int, int]:
    """Rectangles that show what another one of their image shows already -> that one.

    They have no 3D box of their own: either another rectangle of their identity has it, or they
    claim none and what else might be there is hardly in sight.
    """
    out: dict[int, int] = {}
    settled = f.own >= 0
    behind = np.where(partner >= 0, f.seen.visible[partner], 0.0) if len(f.seen) else partner * 0.0
    order = np.argsort(f.frame, kind="stable")
    order = order[f.frame[order] >= 0]
    edges = np.flatnonzero(np.diff(f.frame[order])) + 1
    for rows in np.split(order, edges):
        there, rest = rows[settled[rows]], rows[~settled[rows]]
        if len(there) == 0 or len(rest) == 0:
            continue
        overlap = iou_matrix(f.rect_2d[rest], f.rect_2d[there])
        best = overlap.argmax(axis=1)
        for k in np.flatnonzero(overlap.max(axis=1) > limits.duplicate_iou).tolist():
            i, j = int(rest[k]), int(there[best[k]])
            hidden = f.code_2d[i] < 0 and behind[i] < 0.3
            if hidden or f.code_2d[i] == f.code_2d[j]:
                out[i] = j
    return out


def twice_findings(f: Facing, twice: Mapping[int, int], limits: ImageLimits) -> list[LabelFinding]:
    """Findings of what :func:`twice_of` gave."""
    out = []
    for i, j in twice.items():
        mine, other = (f.two.names[f.two.named[k]] for k in (i, j))
        overlap = float(iou_pairs(f.rect_2d[i : i + 1], f.rect_2d[j : j + 1])[0])
        out.append(
            make(
                RULES["duplicate_2d"],
                f"{mine.label}: another rectangle ({other.object_id}) shows the same",
                value=overlap, limit=limits.duplicate_iou,
                annotation_ids=(f.two.row_id(i), f.two.row_id(j)), **where(f, i),
            )
        )  # fmt: skip
    return out
