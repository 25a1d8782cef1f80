"""COCO: boxes, masks and keypoints per image, in one JSON file.

COCO measures boxes and polygons from the top left pixel's corner, so 0.5 is taken off; keypoints
are pixel indices, as ours are. Polygons become masks of the pixels whose centre they hold, and
are kept in attribute `polygons` so that they can be written back as they were.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.annotations.pixels import fill, runs_of
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Annotation, Box2D, Keypoints, Layer, Mask, stable_id

_USED = {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "keypoints",
         "num_keypoints", "score", "track_id", "attributes"}  # fmt: skip


def read_coco(path: Path, scene: Scene, *, layer: str) -> Imported:
    """Parts of one COCO annotation share an object id: its track id, else one made for it.

    An image belongs to the sample with its `stamp_ns`, else number `frame_index`, else the
    number that ends its file name (a stamp where it is one of the stream's, else an index).
    """
    try:
        document = json.loads(path.read_bytes())
        images = {image["id"]: image for image in document["images"]}
        categories = {c["id"]: c for c in document["categories"]}
        entries = document["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{path} is no COCO file of annotations: {error!r}") from error
    losses = Losses()
    for name in sorted({*document} - {"images", "categories", "annotations"}):
        if document[name]:
            losses.add(f"section {name!r}", path.name)
    for category in categories.values():
        if category.get("supercategory"):
            losses.add("supercategories", category["name"])
    places: dict[Any, tuple[str, int] | None] = {}
    parts: list[Annotation] = []
    for entry in entries:
        try:
            image, category = images[entry["image_id"]], categories[entry["category_id"]]
        except KeyError as error:
            raise ConversionError(
                f"{path}: annotation {entry.get('id')} refers to a missing image or category "
                f"({error})"
            ) from error
        if image["id"] not in places:
            places[image["id"]] = _place(image, scene)
        place = places[image["id"]]
        if place is None:
            losses.add("annotations of images without a sample", image.get("file_name"))
            continue
        for key in sorted({*entry} - _USED):
            losses.add(f"field {key!r} of annotations", entry["id"])
        parts.extend(_parts(entry, image, category, place, losses))
    out = Layer(
        episode_id=scene.episode_id, name=layer, provenance=scene.provenance("coco", path),
        boxes_2d=[p for p in parts if isinstance(p, Box2D)],
        masks=[p for p in parts if isinstance(p, Mask)],
        keypoints=[p for p in parts if isinstance(p, Keypoints)],
    )  # fmt: skip
    return Imported((out,), losses.report())


def _place(image: dict[str, Any], scene: Scene) -> tuple[str, int] | None:
    stream = image.get("stream") or scene.need_stream()
    if isinstance(image.get("stamp_ns"), int):
        return stream, image["stamp_ns"]
    if isinstance(image.get("frame_index"), int):
        stamp_ns = scene.frame_ns(stream, image["frame_index"])
    else:
        number = re.search(r"(\d+)$", Path(image.get("file_name", "")).stem)
        if number is None:
            return None
        value = int(number[1])
        known = value < 2**63 and scene.index_of(stream, value) is not None
        stamp_ns = value if known else scene.frame_ns(stream, value)
    return None if stamp_ns is None else (stream, stamp_ns)


def _parts(
    entry: dict[str, Any], image: dict[str, Any], category: dict[str, Any],
    place: tuple[str, int], losses: Losses,
) -> list[Annotation]:  # fmt: skip
    attributes = dict(entry.get("attributes") or {})
    score = entry.get("score")
    if score is not None and not 0 <= score <= 1:
        attributes["score"] = score
    track = entry.get("track_id", attributes.get("track_id"))
    object_id = str(track) if track is not None else stable_id("coco", entry["id"])
    common: dict[str, Any] = {
        "label": category["name"], "stream": place[0], "stamp_ns": place[1],
        "object_id": object_id,
        "confidence": float(score) if score is not None and 0 <= score <= 1 else None,
    }  # fmt: skip
    found: list[Annotation] = []
    if entry.get("bbox"):
        x, y, w, h = (float(v) for v in entry["bbox"])
        found.append(
            Box2D.parse({**common, "id": stable_id("box2d", entry["id"]), "attributes": attributes,
                         "xyxy_px": (x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5)})
        )  # fmt: skip
    mask = _mask(entry, image, losses)
    if mask is not None:
        own = {} if found else attributes
        polygons = {} if isinstance(entry["segmentation"], dict) else {
            "polygons": entry["segmentation"]}  # fmt: skip
        found.append(
            Mask.parse({**common, **mask, "id": stable_id("mask", entry["id"]),
                        "crowd": bool(entry["iscrowd"]) if "iscrowd" in entry else None,
                        "attributes": {**own, **polygons}})
        )  # fmt: skip
    if entry.get("keypoints"):
        points = _keypoints(entry, category)
        found.append(
            Keypoints.parse({**common, "id": stable_id("keypoints", entry["id"]),
                             "points": points, "skeleton": f"coco_{category['name']}",
                             "attributes": {} if found else attributes})
        )  # fmt: skip
    if not found:
        losses.add("annotations without box, mask or keypoints", entry["id"])
    return found


def _mask(entry: dict[str, Any], image: dict[str, Any], losses: Losses) -> dict[str, Any] | None:
    segmentation = entry.get("segmentation")
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return {"size_hw": tuple(segmentation["size"]), "counts": segmentation["counts"]}
    if not image.get("width") or not image.get("height"):
        losses.add("polygons of images without a size", entry["id"])
        return None
    size = int(image["height"]), int(image["width"])
    outlines = [np.asarray(p, dtype=np.float64).reshape(-1, 2) - 0.5 for p in segmentation]
    return {"size_hw": size, "counts": runs_of(fill(outlines, *size))}


def _keypoints(entry: dict[str, Any], category: dict[str, Any]) -> list[dict[str, Any]]:
    values = entry["keypoints"]
    names = category.get("keypoints") or [str(i) for i in range(len(values) // 3)]
    if len(values) != 3 * len(names):
        raise ConversionError(
            f"annotation {entry['id']} has {len(values) // 3} keypoints, its category {len(names)}"
        )
    return [
        {"name": name, "xy_px": (float(x), float(y)), "visible": v == 2}
        for name, x, y, v in zip(names, values[::3], values[1::3], values[2::3], strict=True)
        if v
    ]
