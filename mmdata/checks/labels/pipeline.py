"""All geometric rules over one scene, then the causes behind what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels import causes
from mmdata.checks.labels.cameras import CameraCause, camera_cause, shared_delay
from mmdata.checks.labels.duplicates import check_duplicates, without
from mmdata.checks.labels.facing import Facing, face
from mmdata.checks.labels.findings import LabelFinding, explained, make
from mmdata.checks.labels.gaps import check_gaps
from mmdata.checks.labels.images import compare
from mmdata.checks.labels.lidar import check_lidar, count_points, hidden_by_points, nearest_sweep
from mmdata.checks.labels.projection import look
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.scene import LabelScene, View
from mmdata.checks.labels.tables import (
    Boxes2D,
    Boxes3D,
    Classes,
    Ints,
    Mask,
    read_boxes_2d,
    read_boxes_3d,
)
from mmdata.checks.labels.tracks import check_tracks
from mmdata_schema import Layer


@dataclass(frozen=True)
class Sides:
    """3D boxes of one layer, in the fixed frame; rectangles per stream of it or another.

    meant: identity of a thing labelled twice -> the identity it is checked under.
    """

    layer_3d: str
    boxes: Boxes3D
    layer_2d: str
    rectangles: dict[str, Boxes2D]
    meant: dict[str, str]


def check_boxes(
    scene: LabelScene,
    layers: Sequence[Layer],
    limits: LabelLimits | None = None,
    classes: Classes | None = None,
) -> list[LabelFinding]:
    """Findings about boxes, causes first; see :func:`review_boxes`."""
    return review_boxes(scene, layers, limits, classes)[0]


def review_boxes(
    scene: LabelScene,
    layers: Sequence[Layer],
    limits: LabelLimits | None = None,
    classes: Classes | None = None,
) -> tuple[list[LabelFinding], dict[str, str]]:
    """Findings about boxes, causes first, and per camera why nothing can be said of it as a whole:
    the empty string where something can.

    Layers are compared with themselves, and those that hold only 3D boxes with those that hold only
    rectangles.
    """
    limits, classes = limits or LabelLimits(), classes or Classes()
    exposures = {view.stream: view.stamp_ns for view in scene.views}
    three: dict[str, Boxes3D] = {}
    for layer in layers:
        boxes = read_boxes_3d(layer, limits.projection.max_gap_intervals)
        if len(boxes):
            three[layer.name] = scene.into_fixed(boxes)[0]
    two = {layer.name: read_boxes_2d(layer, exposures) for layer in layers}
    two = {name: rectangles for name, rectangles in two.items() if rectangles}
    found: list[LabelFinding] = []
    meant: dict[str, dict[str, str]] = {}
    for name, boxes in three.items():
        doubles, again = check_duplicates(boxes, limits.tracks, classes)
        found += doubles
        ids = {k: n.object_id or n.annotation_id for k, n in enumerate(boxes.named)}
        meant[name] = {ids[extra]: ids[kept] for extra, kept in again.items()}
        three[name] = boxes = without(boxes, again)
        found += check_tracks(boxes, limits.tracks, classes)
        sight = partial(_in_sight, scene, boxes, limits)
        found += check_gaps(boxes, limits.tracks, classes, sight)
        for sweeps in scene.sweeps:
            found += check_lidar(boxes, sweeps, limits.sweeps, classes)
    untold: dict[str, str] = {}
    for a, boxes in three.items():
        for b, rectangles in two.items():
            if a == b or (b not in three and a not in two):
                sides = Sides(a, boxes, b, rectangles, meant[a])
                of_cameras, silent = _images(scene, sides, limits, classes)
                found += of_cameras
                untold |= silent
    return _folded(found, three, two, limits), untold


def _images(
    scene: LabelScene, sides: Sides, limits: LabelLimits, classes: Classes
) -> tuple[list[LabelFinding], dict[str, str]]:
    """Every camera, as the rig has it, and again as its own residuals say it stands."""
    boxes = sides.boxes
    ids = {n.object_id for n in boxes.named if n.object_id}
    ids |= {n.object_id for r in sides.rectangles.values() for n in r.names if n.object_id}
    ids |= set(sides.meant.values())
    codes = {object_id: k for k, object_id in enumerate(sorted(ids))}
    codes |= {extra: codes[kept] for extra, kept in sides.meant.items()}
    facings: list[tuple[View, Facing, CameraCause]] = []
    for view in scene.views:
        rectangles = sides.rectangles.get(view.stream)
        if rectangles is None or len(boxes) == 0:
            continue
        facing = face(view, boxes, look(view, boxes, limits.projection), rectangles, codes)
        cause = camera_cause(facing, limits.causes, limits.projection)
        facings.append((view, facing, cause))
    untold = {view.stream: cause.untold for view, _, cause in facings}
    delay = shared_delay([cause for _, _, cause in facings], limits.causes)
    out: list[LabelFinding] = []
    if delay is not None:
        word = "early" if delay > 0 else "late"
        text = f"stamps of the 3D boxes are {abs(delay) * 1e3:.0f} ms {word} against all cameras"
        out.append(make(RULES["boxes_late"], text, value=-delay * 1e3, layer=sides.layer_3d))
    for view, facing, cause in facings:
        if delay is not None:
            # What is left of a camera once the delay they share is taken off.
            late = view.corrected(round(delay * 1e9), (0.0, 0.0, 0.0))
            seen = look(late, boxes, limits.projection)
            rest = face(late, boxes, seen, sides.rectangles[view.stream], codes)
            cause = camera_cause(rest, limits.causes, limits.projection, late=False)
        hides = hidden_by_points(view, boxes, scene.sweeps, limits.images)
        plain = compare(facing, limits.images, limits.projection, classes, hides)
        if not cause and delay is None:
            out += plain
            continue
        heads = causes.camera_findings(cause)
        seconds = cause.late_s if delay is None else delay
        better = view.corrected(round(seconds * 1e9), cause.turn_rad, cause.moved_m)
        seen = look(better, boxes, limits.projection)
        again = face(better, boxes, seen, sides.rectangles[view.stream], codes)
        hides = hidden_by_points(better, boxes, scene.sweeps, limits.images)
        left = compare(again, limits.images, limits.projection, classes, hides)
        keys = {f.key for f in left}
        explained = [f for f in plain if f.key not in keys]
        # The larger of a camera's causes stands for what both explain.
        top = out[0].key if delay is not None else heads[0].key
        if len(heads) == 2 and cause.place_px > cause.late_px:
            top = heads[1].key
        out += heads + [f.under(top) for f in explained] + left
    return out, untold


def _in_sight(scene: LabelScene, boxes: Boxes3D, limits: LabelLimits, holes: Boxes3D) -> Mask:
    """Holes that hold LiDAR points, or that a camera sees plainly."""
    out = np.zeros(len(holes), bool)
    for sweeps in scene.sweeps[:1]:
        which = nearest_sweep(sweeps, holes.stamp_ns)
        for k in np.flatnonzero(which >= 0).tolist():
            sweep = sweeps.read(int(which[k]))
            if sweep is not None:
                one = slice(k, k + 1)
                raised = holes.center[one] + [0.0, 0.0, limits.sweeps.floor_m]
                count = count_points(sweep.points, raised, holes.size[one], holes.quaternion[one])
                out[k] = count[0] >= limits.images.min_points
    if out.all() or not scene.views:
        return out
    # Everything else around that time may stand in the way.
    low, high = holes.stamp_ns.min() - 200_000_000, holes.stamp_ns.max() + 200_000_000
    near = (boxes.stamp_ns >= low) & (boxes.stamp_ns <= high)
    index = np.cumsum(near) - 1
    together = Boxes3D(
        boxes.named + holes.named,
        np.concatenate([boxes.track[near], holes.track + len(boxes.named)]),
        np.concatenate([boxes.stamp_ns[near], holes.stamp_ns]),
        np.concatenate([boxes.center[near], holes.center]),
        np.concatenate([boxes.size[near], holes.size]),
        np.concatenate([boxes.quaternion[near], holes.quaternion]),
        np.concatenate([_last_of(boxes, near), np.ones(len(holes), bool)]),
    )
    first = int(index[-1]) + 1 if len(index) else 0
    for view in scene.views:
        seen = look(view, together, limits.projection)
        side = (seen.rect[:, 2:] - seen.rect[:, :2]).min(axis=1)
        plain = (seen.row >= first) & (seen.visible >= 0.7) & (side >= limits.images.min_side_px)
        out[seen.row[plain] - first] = True
    return out


def _last_of(boxes: Boxes3D, near: Mask) -> Mask:
    """``last`` of the rows kept: the row before a dropped one ends its stretch."""
    following = np.append(near[1:], False)
    return np.asarray((boxes.last | ~following)[near])


def _folded(
    found: list[LabelFinding],
    three: dict[str, Boxes3D],
    two: dict[str, dict[str, Boxes2D]],
    limits: LabelLimits,
) -> list[LabelFinding]:
    sizes: Counter[tuple[str | None, str | None]] = Counter()
    drawn_2d: Counter[str] = Counter()
    drawn_3d: Counter[str] = Counter()
    for boxes in three.values():
        for name, count in zip(boxes.named, _rows_per(boxes.track, len(boxes.named)), strict=True):
            sizes[(name.object_id or name.annotation_id, None)] += count
            drawn_3d[name.author] += count
    for rectangles in two.values():
        for stream, boxes_2d in rectangles.items():
            counts = _rows_per(boxes_2d.named, len(boxes_2d.names))
            for name, count in zip(boxes_2d.names, counts, strict=True):
                sizes[(name.object_id, stream)] += count
                drawn_2d[name.author] += count
    interval = max((boxes.interval_ns for boxes in three.values()), default=0.0)
    out = causes.fold_duplicates(found)
    out = causes.fold_keyframes(out, interval)
    out = causes.fold_empty(out, limits.causes)
    out = causes.fold_objects(out, sizes, limits.causes)
    return explained(causes.fold_annotators(out, drawn_2d, drawn_3d, limits.causes))


def _rows_per(index: Ints, names: int) -> list[int]:
    counts: list[int] = np.bincount(index, minlength=names).tolist()
    return counts
