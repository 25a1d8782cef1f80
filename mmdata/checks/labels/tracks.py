"""Boxes along their tracks: jumps, sizes, speeds, headings and identities.

Positions are judged by their deviation from the straight line between neighbours. Its spread over
all tracks is the hand's noise, so limits hold at any rate of keyframes and for any annotator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.checks.label_limits import TrackLimits
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import Boxes3D, Classes, Floats, Ints, Mask
from mmdata.geometry import quat_rotate

_ROUNDS = 60


@dataclass(frozen=True)
class Jump:
    """A keyframe off its path (``broken`` false), or a path broken between row and row + 1."""

    row: int
    by: Floats
    limit: float
    broken: bool


def check_tracks(boxes: Boxes3D, limits: TrackLimits, classes: Classes) -> list[LabelFinding]:
    """Findings along the tracks of one layer; boxes in a frame that stands still, z up."""
    if len(boxes) == 0:
        return []
    jumps = find_jumps(boxes, limits)
    # Rows whose position cannot be used to judge velocities.
    spoilt = np.zeros(len(boxes), bool)
    for jump in jumps:
        spoilt[jump.row] = True
        if jump.broken:
            spoilt[min(jump.row + 1, len(boxes) - 1)] = True
    out = list(_jump_findings(boxes, jumps))
    out += _sizes(boxes, limits, classes)
    out += _motions(boxes, limits, classes, spoilt)
    out += _identities(boxes, limits, classes)
    return out


def about(boxes: Boxes3D, row: int) -> dict[str, Any]:
    """What a finding about a keyframe says of its place."""
    named = boxes.named[boxes.track[row]]
    return {
        "object_id": named.object_id or named.annotation_id,
        "stamp_ns": int(boxes.stamp_ns[row]),
        "layer": named.layer,
        "author": named.author,
        "stream": None,
    }


def deviations(boxes: Boxes3D) -> tuple[Floats, Floats, Mask]:
    """Each keyframe's offset (N, 3) from the line between its neighbours; the weight (N,) of the
    later neighbour; and where both exist (N,)."""
    n = len(boxes)
    inner = ~(boxes.first | boxes.last)
    before, after = np.maximum(np.arange(n) - 1, 0), np.minimum(np.arange(n) + 1, n - 1)
    t = boxes.stamp_ns
    span = np.where(inner, t[after] - t[before], 1)
    w = np.where(inner, (t - t[before]) / span, 0.5)
    line = boxes.center[before] * (1 - w)[:, None] + boxes.center[after] * w[:, None]
    return np.where(inner[:, None], boxes.center - line, 0.0), w, inner


def find_jumps(boxes: Boxes3D, limits: TrackLimits) -> list[Jump]:
    """Displaced keyframes and broken paths, the strongest of each stretch first, taken away one by
    one so that neighbours are not blamed."""
    n = len(boxes)
    d, w, inner = deviations(boxes)
    if not inner.any():
        return []
    stretch = np.cumsum(boxes.first) - 1
    before, after = np.maximum(np.arange(n) - 1, 0), np.minimum(np.arange(n) + 1, n - 1)
    # A jump of row k by e shows as -w e, e, -(1 - w) e at k - 1, k, k + 1.
    h_before = np.where(inner[before] & ~boxes.first, -w[before], 0.0)
    h_own = inner.astype(float)
    h_after = np.where(inner[after] & ~boxes.last, -(1 - w[after]), 0.0)
    energy = h_before**2 + h_own + h_after**2
    # A break after row k by e shows as -w e at k and (1 - w) e at k + 1.
    g_own = np.where(inner, -w, 0.0)
    g_after = np.where(inner[after] & ~boxes.last, 1 - w[after], 0.0)
    g_energy = np.where(boxes.last, 0.0, g_own**2 + g_after**2)

    def estimate(d: Floats) -> tuple[Floats, Floats]:
        jump = d[before] * h_before[:, None] + d * h_own[:, None] + d[after] * h_after[:, None]
        cut = d * g_own[:, None] + d[after] * g_after[:, None]
        safe, g_safe = np.maximum(energy, 1e-9), np.maximum(g_energy, 1e-9)
        return jump / safe[:, None], cut / g_safe[:, None]

    by, cut_by = estimate(d)
    limit = _jump_limit(boxes, np.linalg.norm(by, axis=1), energy, stretch, limits)
    cut_limit = np.maximum(limit, limit[after]) * 1.5
    found: list[Jump] = []
    for _ in range(_ROUNDS):
        size, cut_size = np.linalg.norm(by, axis=1), np.linalg.norm(cut_by, axis=1)
        score = np.where((size > limit) & (energy > 0), size**2 * energy, 0.0)
        # At the end of a stretch a break and a jump look alike; a jump says less.
        two_sided = (g_own != 0) & (g_after != 0)
        cut_score = np.where((cut_size > cut_limit) & two_sided, cut_size**2 * g_energy, 0.0)
        best = np.maximum(score, cut_score)
        top = np.zeros(stretch[-1] + 1)
        np.maximum.at(top, stretch, best)
        rows = np.flatnonzero((best > 0) & (best == top[stretch]))
        if len(rows) == 0:
            break
        _, first = np.unique(stretch[rows], return_index=True)
        for k in rows[first].tolist():
            if cut_score[k] > score[k]:
                found.append(Jump(k, cut_by[k].copy(), float(cut_limit[k]), True))
                d[k] -= g_own[k] * cut_by[k]
                d[after[k]] -= g_after[k] * cut_by[k]
            else:
                found.append(Jump(k, by[k].copy(), float(limit[k]), False))
                e = by[k].copy()
                d[before[k]] -= h_before[k] * e
                d[k] -= h_own[k] * e
                d[after[k]] -= h_after[k] * e
        by, cut_by = estimate(d)
    return found


def _jump_limit(
    boxes: Boxes3D, size: Floats, energy: Floats, stretch: Ints, limits: TrackLimits
) -> Floats:
    """Displacement (N,) from which on a keyframe is off its path."""
    n = len(boxes)
    t = boxes.stamp_ns / 1e9
    gap_before = np.where(boxes.first, 0.0, t - t[np.maximum(np.arange(n) - 1, 0)])
    gap_after = np.where(boxes.last, 0.0, t[np.minimum(np.arange(n) + 1, n - 1)] - t)
    bend = 0.5 * limits.acceleration_m_s2 * np.maximum(gap_before, gap_after) ** 2
    # Ends are told by one neighbour only, so they are noisier: each kind has its own spread.
    kind = np.round(energy * 4).astype(int)
    spread = np.zeros(n)
    inner_spread = _scale(size[energy > 1.4]) if (energy > 1.4).any() else _scale(size[energy > 0])
    for value in np.unique(kind[kind > 0]):
        rows = kind == value
        own = _scale(size[rows]) if rows.sum() >= 30 else 0.0
        spread[rows] = max(own, inner_spread)
    # A track that is noisy throughout is not a track of jumps.
    order = np.argsort(stretch, kind="stable")
    edges = np.flatnonzero(np.append(True, np.diff(stretch[order]) != 0))
    for rows in np.split(order, edges[1:]):
        if len(rows) >= 8:
            spread[rows] = np.maximum(spread[rows], _scale(size[rows]))
    return np.maximum(limits.jump_m, bend + limits.sigma * spread)


def _scale(length: Floats) -> float:
    """Standard deviation per axis behind lengths of Gaussian 3-vectors, by their median."""
    return float(np.median(length)) / 1.538 if len(length) else 0.0


def _jump_findings(boxes: Boxes3D, jumps: list[Jump]) -> Iterator[LabelFinding]:
    breaks = [jump for jump in jumps if jump.broken]
    used: set[int] = set()
    for a in range(len(breaks)):
        for b in range(a + 1, len(breaks)):
            if {a, b} & used or not _exchange(boxes, breaks[a].row, breaks[b].row):
                continue
            used |= {a, b}
            i, j = breaks[a].row, breaks[b].row
            other = boxes.named[boxes.track[j]].object_id
            yield make(
                RULES["identity_swap"],
                f"the tracks of {boxes.named[boxes.track[i]].object_id} and {other} exchange their "
                "places",
                annotation_ids=(boxes.row_id(i + 1), boxes.row_id(j + 1)),
                **about(boxes, i + 1),
            )
    swapped = {breaks[k].row for k in used}
    for jump in jumps:
        if jump.broken and jump.row in swapped:
            continue
        size = float(np.linalg.norm(jump.by))
        row = jump.row + 1 if jump.broken else jump.row
        text = f"{size:.2f} m off the path of its neighbours"
        if jump.broken:
            text = f"the path is broken by {size:.2f} m before this keyframe"
        yield make(
            RULES["jump"], text, value=size, limit=jump.limit,
            annotation_ids=(boxes.row_id(row),), **about(boxes, row),
        )  # fmt: skip


def _exchange(boxes: Boxes3D, i: int, j: int) -> bool:
    """Whether after rows i and j each track goes on where the other came from."""
    t = boxes.stamp_ns
    if boxes.track[i] == boxes.track[j] or abs(int(t[i] - t[j])) > 1_000_000:
        return False

    def ahead(row: int) -> Floats:
        if boxes.first[row]:
            return np.asarray(boxes.center[row])
        step = (t[row + 1] - t[row]) / max(int(t[row] - t[row - 1]), 1)
        return np.asarray(
            boxes.center[row] + step * (boxes.center[row] - boxes.center[row - 1])
        )  # fmt: skip

    near = 0.5 * float(max(boxes.size[i].max(), boxes.size[j].max()))
    return bool(
        np.linalg.norm(boxes.center[i + 1] - ahead(j)) < near
        and np.linalg.norm(boxes.center[j + 1] - ahead(i)) < near
    )


def _sizes(boxes: Boxes3D, limits: TrackLimits, classes: Classes) -> list[LabelFinding]:
    rigid = np.array([classes.rigid(named.label) for named in boxes.named])[boxes.track]
    out: list[LabelFinding] = []
    starts = np.flatnonzero(np.append(True, np.diff(boxes.track) != 0))
    middle = np.ones_like(boxes.size)
    for rows in np.split(np.arange(len(boxes)), starts[1:]):
        middle[rows] = np.median(boxes.size[rows], axis=0) if len(rows) >= 3 else boxes.size[rows]
    change = boxes.size / np.maximum(middle, 1e-6) - 1.0
    spread = 1.4826 * float(np.median(np.abs(change[rigid]))) if rigid.any() else 0.0
    limit = max(limits.size_fraction, limits.sigma * spread)
    worst = np.abs(change).argmax(axis=1)
    value = change[np.arange(len(boxes)), worst]
    for row in np.flatnonzero(rigid & (np.abs(value) > limit)).tolist():
        what = ("length", "width", "height")[worst[row]]
        out.append(
            make(
                RULES["size_change"],
                f"{what} is {boxes.size[row, worst[row]]:.2f} m, {value[row]:+.0%} against the "
                "track's median",
                value=abs(value[row]),
                limit=limit,
                annotation_ids=(boxes.row_id(row),),
                **about(boxes, row),
            )
        )
    return out


def _motions(
    boxes: Boxes3D, limits: TrackLimits, classes: Classes, spoilt: Mask
) -> list[LabelFinding]:
    """Speed between neighbours, acceleration and heading over a window."""
    out: list[LabelFinding] = []
    n = len(boxes)
    t = boxes.stamp_ns / 1e9
    after = np.minimum(np.arange(n) + 1, n - 1)
    linked = ~boxes.last
    dt = np.where(linked, t[after] - t, 1.0)
    d, _, inner = deviations(boxes)
    noise = _scale(np.linalg.norm(d[inner & ~spoilt], axis=1)) if inner.any() else 0.0
    speed = np.linalg.norm(boxes.center[after] - boxes.center, axis=1) / dt
    names = [classes.name(named.label) for named in boxes.named]
    top = np.array([limits.class_speed_m_s.get(x, limits.speed_m_s) for x in names])[boxes.track]
    usable = linked & ~spoilt & ~spoilt[after]
    for row in np.flatnonzero(usable & (speed > top + 3 * noise / dt)).tolist():
        out.append(
            make(RULES["speed"], f"moves at {speed[row]:.0f} m/s", value=speed[row],
                 limit=top[row], annotation_ids=(boxes.row_id(row), boxes.row_id(row + 1)),
                 **about(boxes, row))
        )  # fmt: skip
    step = max(1, round(0.5 * limits.acceleration_window_s / max(float(np.median(dt[linked])), 1e-3)
                        )) if linked.any() else 1  # fmt: skip
    rows, back, ahead = _window(boxes, step)
    bad = np.cumsum(np.append(0, spoilt))
    clean = bad[ahead + 1] - bad[back] == 0
    rows, back, ahead = rows[clean], back[clean], ahead[clean]
    if len(rows) == 0:
        return out
    left, right = t[rows] - t[back], t[ahead] - t[rows]
    v0 = (boxes.center[rows] - boxes.center[back]) / left[:, None]
    v1 = (boxes.center[ahead] - boxes.center[rows]) / right[:, None]
    a = np.linalg.norm(v1 - v0, axis=1) / (0.5 * (left + right))
    fast = np.maximum(np.linalg.norm(v0, axis=1), np.linalg.norm(v1, axis=1)) <= 1.2 * top[rows]
    a_limit = limits.acceleration_m_s2 + limits.sigma * 2.0 * noise / (left * right)
    peak = _local_max(a, rows, boxes.track, step)
    for k in np.flatnonzero(peak & fast & (a > a_limit)).tolist():
        row = int(rows[k])
        out.append(
            make(RULES["acceleration"], f"accelerates by {a[k]:.0f} m/s2", value=a[k],
                 limit=a_limit[k], annotation_ids=(boxes.row_id(row),), **about(boxes, row))
        )  # fmt: skip
    turns = np.array([x in limits.heading_classes for x in names])[boxes.track[rows]]
    moved = boxes.center[ahead] - boxes.center[back]
    ground = np.linalg.norm(moved[:, :2], axis=1)
    facing = quat_rotate(boxes.quaternion[rows], np.array([1.0, 0.0, 0.0]))
    cross = facing[:, 0] * moved[:, 1] - facing[:, 1] * moved[:, 0]
    along = facing[:, 0] * moved[:, 0] + facing[:, 1] * moved[:, 1]
    angle = np.abs(np.arctan2(cross, along))
    blur = 3.0 * np.sqrt(2.0) * noise / np.maximum(ground, 1e-3)
    wrong = turns & (ground / (left + right) > limits.heading_min_speed_m_s)
    wrong &= angle > limits.heading_rad + blur
    for k in np.flatnonzero(wrong).tolist():
        row = int(rows[k])
        text = f"faces {np.degrees(angle[k]):.0f} degrees away from where it goes"
        if angle[k] > 2.6:
            text += ": it drives backwards, or front and back are exchanged"
        out.append(
            make(RULES["heading"], text, value=angle[k], limit=limits.heading_rad,
                 annotation_ids=(boxes.row_id(row),), **about(boxes, row))
        )  # fmt: skip
    return out


def _window(boxes: Boxes3D, step: int) -> tuple[Ints, Ints, Ints]:
    """Rows with ``step`` neighbours on both sides in their stretch, and those neighbours."""
    rows = np.arange(step, len(boxes) - step)
    stretch = np.cumsum(boxes.first)
    inside = (stretch[rows - step] == stretch[rows]) & (stretch[rows + step] == stretch[rows])
    rows = rows[inside]
    return rows, rows - step, rows + step


def _local_max(value: Floats, rows: Ints, track: Ints, reach: int) -> Mask:
    """Values that no neighbour of the same track within ``reach`` rows exceeds."""
    out = np.ones(len(value), bool)
    for shift in range(1, 2 * reach + 1):
        near = (rows[shift:] - rows[:-shift] <= 2 * reach) & (
            track[rows[shift:]] == track[rows[:-shift]]
        )
        out[:-shift] &= ~(near & (value[shift:] > value[:-shift]))
        out[shift:] &= ~(near & (value[:-shift] >= value[shift:]))
    return out


def _identities(boxes: Boxes3D, limits: TrackLimits, classes: Classes) -> list[LabelFinding]:
    """One identity at two places, or with two classes."""
    out: list[LabelFinding] = []
    by_object: dict[str, list[int]] = {}
    for index, named in enumerate(boxes.named):
        if named.object_id is not None:
            by_object.setdefault(named.object_id, []).append(index)
    bounds = np.searchsorted(boxes.track, np.arange(len(boxes.named) + 1))
    for object_id, tracks in by_object.items():
        rows = np.concatenate([np.arange(bounds[k], bounds[k + 1]) for k in tracks])
        if len(rows) < 2:
            continue
        rows = rows[np.argsort(boxes.stamp_ns[rows], kind="stable")]
        labels = {classes.name(boxes.named[k].label): k for k in tracks}
        if len(labels) > 1:
            ids = tuple(boxes.named[k].annotation_id for k in labels.values())
            text = f"is a {' and a '.join(sorted(labels))}"
            place = about(boxes, int(rows[0])) | {"object_id": object_id}
            out.append(make(RULES["class_change"], text, annotation_ids=ids, **place))
        top = limits.class_speed_m_s.get(next(iter(labels)), limits.speed_m_s)
        a, b = rows[:-1], rows[1:]
        apart = np.linalg.norm(boxes.center[b] - boxes.center[a], axis=1)
        dt = (boxes.stamp_ns[b] - boxes.stamp_ns[a]) / 1e9
        # Within one stretch this is a jump or a speed; between two it is the identity.
        linked = (b == a + 1) & ~boxes.last[a]
        size = np.maximum(boxes.size[a], boxes.size[b]).max(axis=1)
        # Where it would be at its speed, give or take what it can speed up or turn.
        before = np.where(boxes.first[a], a, np.maximum(a - 1, 0))
        step = np.maximum(boxes.stamp_ns[a] - boxes.stamp_ns[before], 1) / 1e9
        pace = (boxes.center[a] - boxes.center[before]) / step[:, None]
        pace = np.where(np.linalg.norm(pace, axis=1, keepdims=True) > top, 0.0, pace)
        off = np.linalg.norm(boxes.center[b] - boxes.center[a] - pace * dt[:, None], axis=1)
        reach = np.minimum(top * dt, 1.0 + 0.2 * top * dt + 4.0 * dt**2) + size
        for k in np.flatnonzero(~linked & (apart > size) & (off > reach)).tolist():
            text = f"is {apart[k]:.1f} m away from itself"
            text += " at the same time" if dt[k] == 0 else f" after {dt[k]:.2f} s"
            out.append(
                make(RULES["identity_reuse"], text, value=apart[k], limit=reach[k],
                     annotation_ids=(boxes.row_id(int(a[k])), boxes.row_id(int(b[k]))),
                     **about(boxes, int(b[k])))
            )  # fmt: skip
        for k in np.flatnonzero(~linked & (dt == 0) & (apart <= size)).tolist():
            out.append(
                make(RULES["identity_reuse"], "has two boxes at one instant", value=apart[k],
                     annotation_ids=(boxes.row_id(int(a[k])), boxes.row_id(int(b[k]))),
                     **about(boxes, int(b[k])))
            )  # fmt: skip
    return out
