"""KITTI object labels: `<frame>.txt` per sample of a camera that has a label.

2D and 3D boxes of one object id at one stamp share a line. A missing half is written as the
development kit writes "unknown", and reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from mmdata.annotations.boxes import (
    boxes_2d,
    boxes_3d,
    to_camera_box,
    track_losses,
    wrapped,
)
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata.geometry import SE3
from mmdata_schema import Box2D, Box3D, Layer, Track2D, Track3D

TILT_RAD = 1e-3
_COMMON = {"label", "stamp_ns", "stream", "object_id", "confidence", "attributes"}
BOX_2D = {*_COMMON, "xyxy_px", "truncated"}
BOX_3D = {*_COMMON, "frame_id", "center_m", "size_lwh_m", "quaternion_wxyz"}
_TRACK = {"keyframe_attributes", "keyframe_confidence", "gap_after"}
KEPT = {"boxes_2d": BOX_2D, "boxes_3d": BOX_3D, "tracks_2d": BOX_2D | _TRACK,
        "tracks_3d": BOX_3D | _TRACK}  # fmt: skip
_ATTRIBUTES = {"occlusion", "alpha_rad", "score", "truncation"}

Pair = tuple[Box2D | None, Box3D | None]


def write_kitti(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Write into folder `path`. 3D boxes are moved into the scene's camera frame by the
    rig and recorded poses."""
    losses = Losses()
    losses.rest(layer, KEPT)
    files: dict[int, list[str]] = {}
    for frame, pair in pairs(layer, scene, losses):
        if any(box is not None and box.object_id for box in pair):
            losses.add("object ids (KITTI object labels have none)", _any(pair).object_id)
        files.setdefault(frame, []).append(line_of(pair, losses))
    path.mkdir(parents=True, exist_ok=True)
    written = []
    for frame, lines in sorted(files.items()):
        file = path / f"{frame:06d}.txt"
        write_durably(file, ("\n".join(lines) + "\n").encode())
        written.append(file)
    return Exported(tuple(written), losses.report())


def pairs(layer: Layer, scene: Scene, losses: Losses) -> Iterator[tuple[int, Pair]]:
    """(frame, boxes of one object) in order of frame and object."""
    stream, frame_id = scene.need_stream(), scene.need_frame()
    tracks: list[Track2D | Track3D] = [*layer.tracks_2d, *layer.tracks_3d]
    for track in tracks:
        for lost in track_losses(track):
            losses.add(lost, track.id)
    found: dict[tuple[int, str, int], list[Box2D | Box3D | None]] = {}
    everything: tuple[list[Box2D | Box3D], ...] = ([*boxes_2d(layer)], [*boxes_3d(layer)])
    for slot, boxes in enumerate(everything):
        for box in boxes:
            index = scene.index_of(stream, box.stamp_ns)
            # A 3D box drawn on another sensor is still one of the scene.
            if index is None or (slot == 0 and box.stream != stream):
                losses.add(f"{2 + slot}D boxes that belong to no sample of {stream}", box.id)
                continue
            kept: Box2D | Box3D | None = box
            if isinstance(box, Box3D):
                kept = _in_camera(box, frame_id, scene)
                if kept is None:
                    losses.add(f"3D boxes whose frame has no known place in {frame_id}", box.id)
                    continue
            again = 0
            key = (index, box.object_id or box.id, again)
            while found.setdefault(key, [None, None])[slot] is not None:
                key = (index, key[1], key[2] + 1)
            found[key][slot] = kept
    for key in sorted(found):
        flat, solid = found[key]
        assert flat is None or isinstance(flat, Box2D)
        assert solid is None or isinstance(solid, Box3D)
        yield key[0], (flat, solid)


def _in_camera(box: Box3D, frame_id: str, scene: Scene) -> Box3D | None:
    if box.frame_id == frame_id:
        return box
    camera_SE3_frame = scene.transform(frame_id, box.frame_id, box.stamp_ns)
    if camera_SE3_frame is None:
        return None
    pose = camera_SE3_frame @ SE3.from_quaternion(box.quaternion_wxyz, box.center_m)
    return box.edit(
        frame_id=frame_id,
        center_m=tuple(pose.translation.tolist()),
        quaternion_wxyz=tuple(pose.quaternion.tolist()),
    )


def line_of(pair: Pair, losses: Losses, truncation_level: bool = False) -> str:
    """The fields of an object line."""
    flat, solid = pair
    some = _any(pair)
    attributes = {**(solid.attributes if solid else {}), **(flat.attributes if flat else {})}
    for name in sorted({*attributes} - _ATTRIBUTES):
        losses.add(f"attribute {name!r} of boxes", some.id)
    truncated = attributes.get("truncation") if truncation_level else None
    if truncated is None and not truncation_level:
        truncated = flat.truncated if flat else None
    if flat is None:
        losses.add("2D boxes written as unknown (the object has none)", some.id)
    elif solid is None and some.label != "DontCare":
        losses.add("3D boxes written as unknown (the object has none)", some.id)
    place = [-1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0]
    alpha = attributes.get("alpha_rad")
    if solid is not None:
        (x, y, z), ry, tilt = to_camera_box(solid)
        if tilt > TILT_RAD:
            losses.add("tilt of boxes against the camera's y axis", solid.id)
        length, width, height = solid.size_lwh_m
        place = [height, width, length, x, y, z, ry]
        if alpha is None:
            alpha = wrapped(ry - math.atan2(x, z))
    rectangle = flat.xyxy_px if flat else (-1.0, -1.0, -1.0, -1.0)
    numbers = [
        -1 if truncated is None else truncated, attributes.get("occlusion", -1),
        -10.0 if alpha is None else alpha, *rectangle, *place,
    ]  # fmt: skip
    score = some.confidence if some.confidence is not None else attributes.get("score")
    if score is not None:
        numbers.append(score)
    if " " in some.label:
        losses.add("spaces in labels written as underscores", some.label)
    return " ".join([some.label.replace(" ", "_"), *(f"{n:.9g}" for n in numbers)])


def _any(pair: Pair) -> Box2D | Box3D:
    some = pair[0] or pair[1]
    assert some is not None
    return some
