"""PandaSet cuboids as JSON; see the importer for the conventions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mmdata.annotations.boxes import boxes_3d, heading, track_losses, wrapped
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Layer

TILT_RAD = 1e-3
_ATTRIBUTES = ("stationary", "sensor_id", "sibling")
_TRACK = {"label", "object_id", "frame_id", "stamp_ns", "center_m", "size_lwh_m",
          "quaternion_wxyz", "keyframe_attributes", "attributes", "gap_after"}  # fmt: skip
_BOX = _TRACK - {"keyframe_attributes", "gap_after"}


def write_pandaset(path: Path, layer: Layer, scene: Scene) -> Exported:
    """One cuboid per box and keyframe, in order of stamp."""
    losses = Losses()
    losses.rest(layer, {"tracks_3d": _TRACK, "boxes_3d": _BOX})
    for track in layer.tracks_3d:
        for lost in track_losses(track):
            losses.add(lost, track.id)
    boxes = sorted(boxes_3d(layer), key=lambda box: (box.stamp_ns, box.id))
    frame_of = {stamp: i for i, stamp in enumerate(sorted({box.stamp_ns for box in boxes}))}
    rows: list[dict[str, Any]] = []
    for box in boxes:
        yaw, tilt = heading(box.quaternion_wxyz)
        if tilt > TILT_RAD:
            losses.add("pitch and roll of boxes", box.id)
        for name in sorted({*box.attributes} - {*_ATTRIBUTES}):
            losses.add(f"attribute {name!r} of boxes", box.id)
        length, width, height = box.size_lwh_m
        rows.append(
            {
                "stamp_ns": box.stamp_ns,
                "frame": frame_of[box.stamp_ns],
                "track": box.object_id or box.id,
                "label": box.label,
                "frame_id": box.frame_id,
                "yaw_rad": wrapped(yaw - math.pi / 2),
                "center_m": list(box.center_m),
                "size_wlh_m": [width, length, height],
                **{k: box.attributes[k] for k in _ATTRIBUTES if k in box.attributes},
            }
        )
    write_durably(path, json.dumps({"boxes": rows}).encode())
    return Exported((path,), losses.report())
