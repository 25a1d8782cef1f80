"""COCO; see the importer for the conventions.

Images carry `stream`, `stamp_ns` and `frame_index` and annotations `track_id`, which other readers
pass over, so that reading back puts everything where it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.annotations.boxes import boxes_2d, track_losses
from mmdata.annotations.pixels import bounds, fill, mask_of, runs_of
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Box2D, Keypoints, Layer, Mask, rle_string

_COMMON = {"label", "stream", "stamp_ns", "object_id", "confidence", "attributes"}
_KEPT = {
    "boxes_2d": _COMMON | {"xyxy_px"},
    "tracks_2d": _COMMON | {"xyxy_px", "keyframe_attributes", "keyframe_confidence", "gap_after"},
    "masks": _COMMON | {"size_hw", "counts", "crowd"},
    "keypoints": _COMMON | {"points"},
}
Part = Box2D | Mask | Keypoints


def write_coco(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Boxes, masks and keypoints of one object in one image become one annotation."""
    losses = Losses()
    losses.rest(layer, _KEPT)
    for track in layer.tracks_2d:
        for lost in track_losses(track):
            losses.add(lost, track.id)
    groups: dict[tuple[str, int, str, str], list[Part]] = {}
    parts: list[Part] = [*boxes_2d(layer), *layer.masks, *layer.keypoints]
    for part in parts:
        # Two boxes of one thing in one image stay two annotations.
        key, again = (part.stream, part.stamp_ns, part.object_id or part.id, part.label), 0
        while any(type(other) is type(part) for other in groups.get(key, ())):
            again += 1
            key = (*key[:2], f"{part.object_id or part.id}#{again}", key[3])
        groups.setdefault(key, []).append(part)
    names = _skeletons(layer, losses)
    labels = sorted({label for *_, label in groups})
    categories = {
        label: {"id": i + 1, "name": label, **({"keypoints": names[label]} if label in names
                                               else {})}
        for i, label in enumerate(labels)
    }  # fmt: skip
    images = {
        place: {"id": i + 1, **_image(*place, layer, scene, losses)}
        for i, place in enumerate(sorted({key[:2] for key in groups}))
    }
    annotations = [
        {"id": i + 1, "image_id": images[key[:2]]["id"], "category_id": categories[key[3]]["id"],
         **_entry(groups[key], names.get(key[3], []), losses)}
        for i, key in enumerate(sorted(groups))
    ]  # fmt: skip
    document = {"images": [*images.values()], "categories": [*categories.values()],
                "annotations": annotations}  # fmt: skip
    write_durably(path, json.dumps(document).encode())
    return Exported((path,), losses.report())


def _skeletons(layer: Layer, losses: Losses) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for keypoints in layer.keypoints:
        known = names.setdefault(keypoints.label, [])
        known += [p.name for p in keypoints.points if p.name not in known]
        for point in keypoints.points:
            if point.confidence is not None:
                losses.add("confidence of single keypoints", keypoints.id)
            if point.visible is None:
                losses.add("keypoints of unknown visibility written as visible", keypoints.id)
        if keypoints.skeleton not in (None, f"coco_{keypoints.label}"):
            losses.add("keypoints.skeleton", keypoints.id)
    return names


def _image(
    stream: str, stamp_ns: int, layer: Layer, scene: Scene, losses: Losses
) -> dict[str, Any]:
    sizes = {m.size_hw for m in layer.masks if (m.stream, m.stamp_ns) == (stream, stamp_ns)}
    size = scene.image_size(stream) or next(((w, h) for h, w in sizes), None)
    if size is None:
        losses.add("image sizes (the rig has no intrinsics for the stream)", stream)
    index = scene.index_of(stream, stamp_ns) if stream in scene.stamps else None
    return {
        "file_name": f"{stream}/{stamp_ns}.jpg", "stream": stream, "stamp_ns": stamp_ns,
        **({"width": size[0], "height": size[1]} if size else {}),
        **({"frame_index": index} if index is not None else {}),
    }  # fmt: skip


def _entry(parts: list[Part], names: list[str], losses: Losses) -> dict[str, Any]:
    out: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for part in parts:
        attributes |= part.attributes
        if part.object_id is not None:
            out["track_id"] = part.object_id
        if part.confidence is not None:
            if out.get("score", part.confidence) != part.confidence:
                losses.add("confidences that differ within one object", part.id)
            out["score"] = part.confidence
        if isinstance(part, Box2D):
            x0, y0, x1, y1 = part.xyxy_px
            out["bbox"] = [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0]
            out.setdefault("area", (x1 - x0) * (y1 - y0))
        elif isinstance(part, Mask):
            counts = part.counts if isinstance(part.counts, str) else rle_string(part.counts)
            polygons = attributes.pop("polygons", None)
            rle = {"size": list(part.size_hw), "counts": counts}
            out["segmentation"] = polygons if _outlines(part, polygons) else rle
            out["area"] = part.area_px
            if part.crowd is None:
                losses.add("unknown crowd flags written as 0 (readers demand one)", part.id)
            else:
                out["iscrowd"] = int(part.crowd)
        else:
            points = {p.name: p for p in part.points}
            out["keypoints"] = [v for n in names for v in _triple(points.get(n))]
            out["num_keypoints"] = len(points)
    if "iscrowd" not in out:
        out["iscrowd"] = 0
    if "bbox" not in out:
        _bbox(parts, out, losses)
    return {**out, **({"attributes": attributes} if attributes else {})}


def _outlines(mask: Mask, polygons: Any) -> bool:
    """Whether the polygons a mask came from still describe it (somebody may have edited it)."""
    if not polygons:
        return False
    points = [np.asarray(p, dtype=np.float64).reshape(-1, 2) - 0.5 for p in polygons]
    return runs_of(fill(points, *mask.size_hw)) == mask.runs()


def _bbox(parts: list[Part], out: dict[str, Any], losses: Losses) -> None:
    """COCO wants a box: the mask's, where there is one."""
    for part in parts:
        if isinstance(part, Mask):
            found = bounds(mask_of(part.runs(), *part.size_hw))
            if found is not None:
                x0, y0, x1, y1 = found
                out["bbox"] = [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
                losses.add("masks without a box got the mask's own", part.id)
                return
    losses.add("objects without a box", parts[0].id)


def _triple(point: Any) -> tuple[float, float, int]:
    if point is None:
        return 0.0, 0.0, 0
    return point.xy_px[0], point.xy_px[1], 1 if point.visible is False else 2
