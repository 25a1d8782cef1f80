"""PandaSet cuboids as JSON: `boxes` with size along x (width), y (length), z and yaw about z.

PandaSet's yaw turns its own x axis, which runs across the vehicle; ours runs along it, so pi/2 is
added. Frames and stamps come with each box.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mmdata.annotations.boxes import by_track, quaternion_of_yaw, wrapped
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Box3D, Layer, Track3D, stable_id

_USED = {"stamp_ns", "track", "label", "frame_id", "yaw_rad", "center_m", "size_wlh_m"}
_KEPT = ("stationary", "sensor_id", "sibling")
#: Says again what the stamp says.
_REDUNDANT = {"frame"}


def read_pandaset(path: Path, scene: Scene, *, layer: str) -> Imported:
    """A track per object; `stationary`, `sensor_id` and `sibling` are keyframe attributes."""
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())["boxes"]
        boxes = [_box(entry, scene) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{path} holds no PandaSet cuboids: {error!r}") from error
    losses = Losses()
    for entry in entries:
        for key in sorted({*entry} - _USED - _REDUNDANT - {*_KEPT}):
            losses.add(f"field {key!r} of a cuboid", entry["track"])
    tracks = [
        Track3D.from_boxes(own, id=stable_id("track3d", object_id, label), object_id=object_id)
        for (object_id, label), own in by_track(boxes).items()
    ]
    out = Layer(
        episode_id=scene.episode_id,
        name=layer,
        provenance=scene.provenance("pandaset", path),
        tracks_3d=tracks,
    )
    return Imported((out,), losses.report())


def _box(entry: dict[str, Any], scene: Scene) -> Box3D:
    width, length, height = entry["size_wlh_m"]
    return Box3D.parse(
        {
            "id": f"{entry['track']}@{entry['stamp_ns']}",
            "object_id": str(entry["track"]),
            "label": entry["label"],
            "stamp_ns": entry["stamp_ns"],
            "frame_id": entry.get("frame_id") or scene.need_frame(),
            "stream": scene.stream,
            "center_m": entry["center_m"],
            "size_lwh_m": (length, width, height),
            "quaternion_wxyz": quaternion_of_yaw(wrapped(entry["yaw_rad"] + math.pi / 2)),
            "attributes": {k: entry[k] for k in _KEPT if entry.get(k) is not None},
        }
    )
