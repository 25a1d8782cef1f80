"""3D boxes against LiDAR points, each box at the instant the LiDAR saw it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.checks.label_limits import ImageLimits, SweepLimits
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.images import Hides
from mmdata.checks.labels.projection import Seen, box_at, camera_poses
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.scene import Sweep, Sweeps, View
from mmdata.checks.labels.tables import Boxes3D, Classes, Floats, Ints, Mask
from mmdata.checks.labels.tracks import about
from mmdata.geometry import points_in_box, quat_conjugate, quat_rotate

_CLEAR_M = 0.4
#: A box holds its object's points but for a hand's error.
_SKIN_M = 0.15
#: Points in the layer of the ground over those in the next one, at least.
_LAYER = 1.1
#: Share of a box by which its object may reach beyond it on either side.
_UNDERSIZED = 0.8
#: Boxes from which on their median height is that of the layer.
_TELLING = 20
#: Row of Contents -> what a finding says of its place.
Place = Callable[[int], dict[str, Any]]
_FACES = ("front", "back", "left", "right", "top")


@dataclass(frozen=True)
class Contents:
    """What points say about boxes, one row per box of ``row`` (R,).

    inside (R,): points in the box, faces included. solid (R,): those above its floor. out (R, 5):
    points just beyond each face (front, back, left, right, top), 0 where they go on past the box
    (a wall does, an object does not); near (R, 5): points just inside the face. through, before
    (R,): returns from behind and in front of an empty box along rays through it. ground (R,):
    bottom above the ground around, metres, NaN where that is not seen. range_m.
    """

    row: Ints
    inside: Ints
    solid: Ints
    out: Ints
    near: Ints
    through: Ints
    before: Ints
    ground: Floats
    range_m: Floats


class PointIndex:
    """Points (P, 3) in order of x, to find those around a place quickly."""

    def __init__(self, points: Floats) -> None:
        self.order = np.argsort(points[:, 0], kind="stable")
        self.points = points[self.order]
        self.x = np.ascontiguousarray(self.points[:, 0])
        self.y = np.ascontiguousarray(self.points[:, 1])

    def around(self, center: Floats, radius: float) -> Ints:
        """Indices (into ``points``) of all points within a square of half side ``radius``."""
        a, b = np.searchsorted(self.x, [center[0] - radius, center[0] + radius])
        return np.asarray(a + np.flatnonzero(np.abs(self.y[a:b] - center[1]) <= radius))


def count_points(points: Floats, center: Floats, size: Floats, quaternion: Floats) -> Ints:
    """Points in each of B boxes, faces included; the same numbers as a test of every point."""
    index = PointIndex(points)
    out = np.zeros(len(center), np.int64)
    for k in range(len(center)):
        radius = 0.5 * float(np.linalg.norm(size[k])) * (1 + 1e-6) + 1e-6
        rows = index.around(center[k], radius)
        out[k] = np.count_nonzero(
            points_in_box(index.points[rows], center[k], size[k], quaternion[k])
        )
    return out


def nearest_sweep(sweeps: Sweeps, stamp_ns: Ints) -> Ints:
    """Index of the sweep that each stamp belongs to, -1 beyond half a period."""
    s = sweeps.stamp_ns
    if len(s) == 0:
        return np.full(len(stamp_ns), -1)
    right = np.clip(np.searchsorted(s, stamp_ns), 0, len(s) - 1)
    left = np.maximum(right - 1, 0)
    best = np.where(np.abs(s[left] - stamp_ns) <= np.abs(s[right] - stamp_ns), left, right)
    period = float(np.median(np.diff(s))) if len(s) > 1 else 1e8
    return np.where(np.abs(s[best] - stamp_ns) <= 0.6 * period, best, -1)


def contents(boxes: Boxes3D, sweeps: Sweeps, limits: SweepLimits) -> Contents:
    """Look into every box that a sweep shows."""
    which = nearest_sweep(sweeps, boxes.stamp_ns)
    parts: list[Contents] = []
    for i in np.unique(which[which >= 0]).tolist():
        sweep = sweeps.read(i)
        if sweep is not None and len(sweep.points):
            parts.append(_contents_of(boxes, np.flatnonzero(which == i), sweep, limits))
    if not parts:
        none, floats = np.zeros(0, np.int64), np.zeros(0)
        five = np.zeros((0, 5), np.int64)
        return Contents(none, none, none, five, five, none, none, floats, floats)
    names = Contents.__dataclass_fields__
    return Contents(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def _contents_of(boxes: Boxes3D, rows: Ints, sweep: Sweep, limits: SweepLimits) -> Contents:
    index = PointIndex(sweep.points)
    point_ns = None if sweep.point_ns is None else sweep.point_ns[index.order]
    range_m = np.linalg.norm(boxes.center[rows] - sweep.origin, axis=1)
    rows, range_m = rows[range_m <= limits.max_range_m], range_m[range_m <= limits.max_range_m]
    center, size, turned = _places(boxes, rows, index, point_ns)
    inverse = quat_conjugate(turned)
    n = len(rows)
    inside, solid = np.zeros(n, np.int64), np.zeros(n, np.int64)
    out, near = np.zeros((n, 5), np.int64), np.zeros((n, 5), np.int64)
    through, before = np.zeros(n, np.int64), np.zeros(n, np.int64)
    ground = np.full(n, np.nan)
    for k in range(n):
        half = 0.5 * size[k]
        wide = half[:2] + np.maximum(limits.margin_m, _UNDERSIZED * half[:2]) + limits.margin_m
        reach = max(float(np.hypot(*half[:2])) + limits.ring_m, float(np.hypot(*wide)))
        candidates = index.around(center[k], reach)
        local = quat_rotate(inverse[k], index.points[candidates] - center[k])
        x, y, z = local.T
        ax, ay = np.abs(x), np.abs(y)
        foot = (ax <= half[0]) & (ay <= half[1])
        low = z > -half[2] + min(limits.floor_m, 0.5 * float(half[2]))
        within = foot & (np.abs(z) <= half[2])
        inside[k] = np.count_nonzero(within)
        solid[k] = np.count_nonzero(within & low)
        out[k], near[k] = _shell(x, y, z, half, low, limits)
        away = np.maximum(ax - half[0], ay - half[1])
        beside = (away > 0.3) & (away <= limits.ring_m)
        flat = z[beside & (z < -half[2] + 1.0) & (z > -half[2] - 1.5)]
        level = _ground_level(flat, limits)
        if level is not None:
            ground[k] = -half[2] - level
        if solid[k] == 0:
            rays = _rays(index.points, sweep.origin, center[k], size[k], turned[k])
            through[k], before[k] = len(rays[0]), len(rays[1])
        elif out[k].max() >= limits.cut_points:
            out[k] = _without_others(
                index.points[candidates], local, half, low, k, center, size, turned, limits
            )
    return Contents(rows, inside, solid, out, near, through, before, ground, range_m)


def _places(
    boxes: Boxes3D, rows: Ints, index: PointIndex, point_ns: Ints | None
) -> tuple[Floats, Floats, Floats]:
    """Where boxes were when the LiDAR passed them: on its own time, not on the keyframe's."""
    if point_ns is None:
        return boxes.center[rows], boxes.size[rows], boxes.quaternion[rows]
    row, part = rows.copy(), np.zeros(len(rows))
    for k, r in enumerate(rows.tolist()):
        seen = index.around(boxes.center[r], float(boxes.size[r, :2].max()))
        if len(seen) == 0 or (boxes.first[r] and boxes.last[r]):
            continue
        late = float(np.median(point_ns[seen] - boxes.stamp_ns[r]))
        base = r - 1 if boxes.last[r] or (late < 0 and not boxes.first[r]) else r
        span = int(boxes.stamp_ns[base + 1] - boxes.stamp_ns[base])
        row[k] = base
        part[k] = (late + int(boxes.stamp_ns[r] - boxes.stamp_ns[base])) / max(span, 1)
    return box_at(boxes, row, part)


def _shell(
    x: Floats, y: Floats, z: Floats, half: Floats, low: Mask, limits: SweepLimits
) -> tuple[Ints, Ints]:
    """Points beyond and inside each face, within the margin.

    None beyond where as good as the same goes on beside the box: a wall, a hedge, a tree.
    """
    tall = low & (z <= half[2])
    wide, deep = np.abs(y) - half[1], np.abs(x) - half[0]
    # Something as small as a cone does not reach as far beyond its box as a car may.
    m = min(limits.margin_m, float(half[:2].max()))
    over = np.stack([x - half[0], -x - half[0], y - half[1], -y - half[1], z - half[2]])
    facing = np.stack([wide <= 0, wide <= 0, deep <= 0, deep <= 0, (wide <= 0) & (deep <= 0)])
    # Further off beside the box than an object whose box is half as large as it should be.
    a, b = half[0], half[1]
    far = np.maximum(m, _UNDERSIZED * half[:2])
    on_y = (wide > far[1]) & (wide <= far[1] + m)
    on_x = (deep > far[0]) & (deep <= far[0] + m)
    around = (wide <= far[1] + m) & (deep <= far[0] + m) & ((wide > far[1]) | (deep > far[0]))
    flank_of = np.stack([on_y, on_y, on_x, on_x, around])
    high = np.stack([tall, tall, tall, tall, np.ones(len(z), bool)])
    # A hand's error of heading moves the long faces more than the short ones.
    swing = limits.noise_rad * np.array([half[1], half[1], half[0], half[0], 0.0])
    layer = high & (over > limits.noise_m + swing[:, None]) & (over <= m)
    beyond = (facing & layer).sum(axis=1)
    ring = (a + far[0] + m) * (b + far[1] + m) - (a + far[0]) * (b + far[1])
    share = np.array([b / m, b / m, a / m, a / m, a * b / ring])
    usual = (flank_of & layer).sum(axis=1) * share
    near = facing & high & low & (over <= 0) & (over >= -m)
    return np.where(usual < limits.beside_share * beyond, beyond, 0), near.sum(axis=1)


def _ground_level(low: Floats, limits: SweepLimits) -> float | None:
    """Height of the ground among low points around a box; None where they show none.

    The ground is a layer: fewer points lie above it, in one as thick. A wall or a hedge whose foot
    is hidden has more there.
    """
    if len(low) < limits.ground_points:
        return None
    level = float(np.quantile(low, 0.1))
    thick = 0.15
    in_layer = np.count_nonzero(np.abs(low - level) <= thick)
    above = np.count_nonzero((low > level + thick) & (low <= level + 3 * thick))
    return level if in_layer >= limits.ground_points and in_layer >= _LAYER * above else None


def _without_others(
    points: Floats, local: Floats, half: Floats, low: Mask, k: int,
    center: Floats, size: Floats, turned: Floats, limits: SweepLimits,
) -> Ints:  # fmt: skip
    """Points beyond faces that lie in no other box."""
    apart = np.linalg.norm(center[:, :2] - center[k, :2], axis=1)
    reach = np.hypot(size[:, 0], size[:, 1]) / 2 + np.hypot(half[0], half[1]) + limits.margin_m
    free = np.ones(len(points), bool)
    for j in np.flatnonzero(apart < reach).tolist():
        if j != k:
            free &= ~points_in_box(points, center[j], size[j] + 2 * limits.noise_m, turned[j])
    x, y, z = local[free].T
    return _shell(x, y, z, half, low[free], limits)[0]


def _rays(
    points: Floats, origin: Floats, center: Floats, size: Floats, turned: Floats
) -> tuple[Ints, Ints, Ints]:
    """Points behind a box along rays through its core, in front of it, and in it: indices."""
    away = points - origin
    distance = np.sqrt((away**2).sum(axis=1))
    to = center - origin
    reach = float(np.linalg.norm(to))
    cone = np.arctan2(0.5 * float(np.linalg.norm(size)), reach)
    rows = np.flatnonzero(away @ (to / reach) > np.cos(cone) * distance)
    inverse = quat_conjugate(turned)
    o, d = quat_rotate(inverse, origin - center), quat_rotate(inverse, away[rows])
    enter, leave = _crossing(o, d, 0.4 * size)
    meets = (leave >= enter) & (leave > 0)
    whole_enter, whole_leave = _crossing(o, d, 0.5 * size)
    far = distance[rows]
    # Rays that meet the core but end this much before or after the whole box.
    front = meets & ((whole_enter - 1.0) * far > _CLEAR_M)
    behind = meets & ((1.0 - whole_leave) * far > _CLEAR_M)
    return rows[behind], rows[front], rows[meets & ~behind & ~front]


def _crossing(origin: Floats, ray: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Where rays (N, 3) enter and leave a box around zero, in lengths of the ray."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-half - origin) / ray, (half - origin) / ray
    return np.fmin(a, b).max(axis=1), np.fmax(a, b).min(axis=1)


def check_lidar(
    boxes: Boxes3D, sweeps: Sweeps, limits: SweepLimits, classes: Classes
) -> list[LabelFinding]:
    """Findings of one layer's boxes against one LiDAR."""
    found = contents(boxes, sweeps, limits)
    out: list[LabelFinding] = []

    def place(k: int) -> dict[str, Any]:
        row = int(found.row[k])
        return about(boxes, row) | {
            "stream": sweeps.stream,
            "annotation_ids": (boxes.row_id(row),),
        }

    rays = found.through + found.before
    empty = (found.solid == 0) & (found.through >= limits.see_through_points)
    empty &= found.through >= limits.see_through_share * rays
    for k in np.flatnonzero(empty).tolist():
        text = (
            f"no point at {found.range_m[k]:.0f} m, and {found.through[k]} of {rays[k]} rays pass "
            "through"
        )
        out.append(make(RULES["empty_box"], text, value=found.through[k],
                        limit=limits.see_through_points, **place(k)))  # fmt: skip
    out += _cut_findings(boxes, found, limits, classes, place)
    out += _ground_findings(boxes, found, sweeps.stream, limits, classes, place)
    return out


def _cut_findings(
    boxes: Boxes3D, found: Contents, limits: SweepLimits, classes: Classes, place: Place
) -> list[LabelFinding]:
    out: list[LabelFinding] = []
    total = found.solid + found.out.sum(axis=1)
    # The surface goes on inside the face, or most of the object lies outside the box.
    goes_on = (found.near >= 3) | (found.out > found.solid[:, None])
    cut = (found.out >= limits.cut_points) & goes_on
    cut &= found.out >= limits.cut_share * np.maximum(total, 1)[:, None]
    names = np.array([classes.name(named.label) for named in boxes.named], dtype=object)
    label = names[boxes.track[found.row]]
    small = np.zeros(len(found.row), bool)
    for name in np.unique(label.astype(str)):
        rows = label == name
        middle = np.median(boxes.size[boxes.track >= 0][names[boxes.track] == name], axis=0)
        small[rows] = (boxes.size[found.row[rows]] < limits.small_share * middle).any(axis=1)
    # Something that stands close by for a moment is not part of the object.
    track = boxes.track[found.row]
    again, rows_of = np.zeros((len(boxes.named), 5), int), np.zeros(len(boxes.named), int)
    np.add.at(again, track, cut.astype(int))
    np.add.at(rows_of, track, 1)
    cut &= again[track] >= np.minimum(limits.cut_keyframes, rows_of[track])[:, None]
    both = (cut[:, 0] & cut[:, 1]) | (cut[:, 2] & cut[:, 3]) | (cut[:, 4] & cut[:, :4].any(axis=1))
    for k in np.flatnonzero(cut.any(axis=1)).tolist():
        share = float(found.out[k].sum() / max(total[k], 1))
        faces = ", ".join(_FACES[f] for f in np.flatnonzero(cut[k]))
        rule = RULES["undersized" if both[k] or small[k] else "cut_off"]
        text = f"{found.out[k].sum()} points ({share:.0%}) continue beyond the {faces}"
        out.append(make(rule, text, value=share, limit=limits.cut_share, **place(k)))
    return out


def _ground_findings(
    boxes: Boxes3D,
    found: Contents,
    stream: str,
    limits: SweepLimits,
    classes: Classes,
    place: Place,
) -> list[LabelFinding]:
    stands = np.array([classes.name(n.label) in limits.on_ground for n in boxes.named])
    known = np.flatnonzero(stands[boxes.track[found.row]] & np.isfinite(found.ground))
    if len(known) == 0:
        return []
    out: list[LabelFinding] = []
    height = found.ground[known]
    level, spread = 0.0, 0.0
    if len(known) >= _TELLING:
        level = float(np.median(height))
        spread = 1.4826 * float(np.median(np.abs(height - level)))
    if abs(level) > limits.ground_offset_m:
        out.append(
            make(RULES["layer_height"], f"boxes are {level:+.2f} m above the ground throughout "
                 f"(median of {len(known)})", value=level, limit=limits.ground_offset_m,
                 stream=stream, layer=boxes.named[0].layer)
        )  # fmt: skip
    limit = max(limits.ground_offset_m, limits.ground_sigma * spread)
    for k in known[np.abs(height - level) > limit].tolist():
        value = float(found.ground[k] - level)
        text = f"bottom is {abs(value):.2f} m {'above' if value > 0 else 'below'} the ground"
        out.append(make(RULES["ground_offset"], text, value=value, limit=limit, **place(k)))
    return out


def hidden_by_points(
    view: View, boxes: Boxes3D, sweeps: Sequence[Sweeps], limits: ImageLimits
) -> Hides | None:
    """Test whether something in front of a box hides it from a camera (a z-test with points)."""
    if not sweeps:
        return None
    cache: dict[int, Sweep | None] = {}

    def hides(seen: Seen, rows: Ints, around: Ints) -> Mask:
        exposure = view.stamp_ns - view.late_ns
        position, _ = camera_poses(view, exposure)
        which = nearest_sweep(sweeps[0], exposure[seen.frame[rows]])
        out = np.zeros(len(rows), bool)
        for k in range(len(rows)):
            i = int(which[k])
            if i < 0:
                continue
            if i not in cache:
                cache[i] = sweeps[0].read(i)
            sweep = cache[i]
            if sweep is None:
                continue
            frame = seen.frame[rows[k]]
            # What labelled boxes hide is counted already: they, and this one, at the sweep's time.
            ones = np.append(rows[k], _before(seen, int(rows[k]), boxes))
            part = _moved(boxes, seen, ones, sweep.stamp_ns - int(exposure[frame]))
            center, size, turned = box_at(boxes, seen.row[ones], part)
            rays = _rays(sweep.points, position[frame], center[0], size[0], turned[0])
            through, on = len(rays[0]), len(rays[2])
            before = _outside(sweep.points[rays[1]], center[1:], size[1:], turned[1:])
            if around[k] == 2:
                share = limits.occluded_points * (through + before + on)
                out[k] = before >= max(limits.hiding_points, share)
            else:
                # What images next to it do not show either must be seen by the LiDAR, with
                # nothing before it; the more so where it comes into or goes out of sight.
                out[k] = before > 0 or on < (limits.hiding_points if around[k] else 1)
        return out

    return hides


def _moved(boxes: Boxes3D, seen: Seen, rows: Ints, by_ns: int) -> Floats:
    """``part`` of seen boxes a little later; within the interval around their exposure."""
    row = seen.row[rows]
    following = np.where(boxes.last[row], row, np.minimum(row + 1, len(boxes) - 1))
    span = np.maximum(boxes.stamp_ns[following] - boxes.stamp_ns[row], 1)
    return np.where(following == row, seen.part[rows], seen.part[rows] + by_ns / span)


def _before(seen: Seen, k: int, boxes: Boxes3D) -> Ints:
    """Boxes of the same exposure that overlap box ``k`` in the image and are nearer."""
    a, b = np.searchsorted(seen.frame, [seen.frame[k], seen.frame[k] + 1])
    rows = np.arange(a, b)
    rect, mine = seen.rect[rows], seen.rect[k]
    meets = (rect[:, :2] < mine[2:]).all(axis=1) & (mine[:2] < rect[:, 2:]).all(axis=1)
    thing = boxes.thing[boxes.track[seen.row[rows]]]
    other = thing != boxes.thing[boxes.track[seen.row[k]]]
    return np.asarray(rows[meets & other & (seen.range_m[rows] < seen.range_m[k])])


def _outside(points: Floats, center: Floats, size: Floats, turned: Floats) -> int:
    """Points in none of the boxes, which are taken a little larger than they are."""
    free = np.ones(len(points), bool)
    for k in range(len(center)):
        free &= ~points_in_box(points, center[k], size[k] + 2 * _SKIN_M, turned[k])
    return int(np.count_nonzero(free))
