"""KITTI tracking labels: one file for a sequence, `frame track_id` before each object line."""

from __future__ import annotations

from pathlib import Path

from mmdata.annotations.exporters.kitti import KEPT, line_of, pairs
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Layer


def write_kitti_tracking(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Object ids that are numbers stay; others get the next free number, which is reported."""
    losses = Losses()
    losses.rest(layer, KEPT)
    everything = list(pairs(layer, scene, losses))
    ids = {box.object_id for _, pair in everything for box in pair if box and box.object_id}
    numbers = {id: int(id) for id in ids if id.isdecimal() and str(int(id)) == id}
    free = max(numbers.values(), default=-1) + 1
    for id in sorted(ids - {*numbers}):
        losses.add("object ids replaced by numbers", f"{id} -> {free}")
        numbers[id] = free
        free += 1
    lines = []
    for frame, pair in everything:
        flat, solid = pair
        if flat is not None and flat.truncated is not None:
            losses.add("boxes_2d.truncated (a level is kept there, not a fraction)", flat.id)
        object_id = (flat or solid).object_id  # type: ignore[union-attr]
        track = numbers[object_id] if object_id else -1
        lines.append(f"{frame} {track} {line_of(pair, losses, truncation_level=True)}")
    write_durably(path, ("\n".join(lines) + "\n" if lines else "").encode())
    return Exported((path,), losses.report())
