"""CVAT's XML; see the importer for the conventions.

A layer with tracks is written "for video 1.1", one without "for images 1.1"; what the chosen
variant cannot hold is reported.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdata.annotations.pixels import bounds, mask_of
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Annotation, Box2D, Keypoints, Layer, Mask, Track2D

Element = ElementTree.Element
_COMMON = {"label", "stream", "stamp_ns", "attributes"}
_BOX = _COMMON | {"xyxy_px", "rotation_rad"}
_IMAGES = {
    "boxes_2d": _BOX,
    "masks": _COMMON | {"size_hw", "counts"},
    "keypoints": _COMMON | {"points"},
}
_VIDEO = {
    "tracks_2d": _BOX | {"object_id", "interpolated", "keyframe_attributes", "gap_after"},
    "boxes_2d": _BOX | {"object_id", "interpolated"},
}


def write_cvat(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Write the shapes of the scene's stream."""
    stream = scene.need_stream()
    losses = Losses()
    root = ElementTree.Element("annotations")
    _text(root, "version", "1.1")
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    _text(task, "name", layer.episode_id)
    _text(task, "size", len(scene.stamps.get(stream, ())))
    _labels(task, layer)
    size = scene.image_size(stream) or next(((w, h) for h, w in (m.size_hw for m in layer.masks)),
                                            None)  # fmt: skip
    if size:
        original = ElementTree.SubElement(task, "original_size")
        _text(original, "width", size[0])
        _text(original, "height", size[1])
    if layer.tracks_2d:
        losses.rest(layer, _VIDEO)
        _video(root, layer, scene, stream, losses)
    else:
        losses.rest(layer, _IMAGES)
        _images(root, layer, scene, stream, size, losses)
    ElementTree.indent(root)
    write_durably(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return Exported((path,), losses.report())


def _labels(task: Element, layer: Layer) -> None:
    labels = ElementTree.SubElement(task, "labels")
    shown: dict[str, dict[str, Any]] = {}
    everything: list[Track2D | Box2D | Mask | Keypoints] = []
    everything += [*layer.tracks_2d, *layer.boxes_2d, *layer.masks, *layer.keypoints]
    for annotation in everything:
        own: dict[str, Any] = shown.setdefault(annotation.label, {})
        columns = annotation.keyframe_attributes if isinstance(annotation, Track2D) else {}
        firsts = {k: next((v for v in c if v is not None), None) for k, c in columns.items()}
        own |= {k: v for k, v in {**annotation.attributes, **firsts}.items() if k not in _BUILT_IN}
    for name in sorted(shown):
        label = ElementTree.SubElement(labels, "label")
        _text(label, "name", name)
        attributes = ElementTree.SubElement(label, "attributes")
        for key, value in sorted(shown[name].items()):
            attribute = ElementTree.SubElement(attributes, "attribute")
            _text(attribute, "name", key)
            kind = "checkbox" if isinstance(value, bool) else "text"
            kind = "number" if isinstance(value, int | float) and kind != "checkbox" else kind
            _text(attribute, "input_type", kind)


_BUILT_IN = {"occluded", "z_order", "polygons"}


def _video(root: Element, layer: Layer, scene: Scene, stream: str, losses: Losses) -> None:
    tracks: list[Track2D] = [t for t in layer.tracks_2d if t.stream == stream]
    for other in layer.tracks_2d:
        if other.stream != stream:
            losses.add(f"tracks of streams other than {stream}", other.id)
    for box in layer.boxes_2d:
        if box.stream != stream:
            losses.add(f"boxes of streams other than {stream}", box.id)
            continue
        losses.add("single boxes written as tracks of one frame", box.id)
        tracks.append(Track2D.from_boxes([box], id=box.id, object_id=box.object_id or box.id))
    numbers = {id: int(id) for id in (t.object_id for t in tracks) if id.isdecimal()}
    used: set[int] = set()
    for track in tracks:
        number = numbers.get(track.object_id, -1)
        if number < 0 or number in used or str(number) != track.object_id:
            number = max({-1, *used, *numbers.values()}) + 1
            losses.add("object ids replaced by track numbers", f"{track.object_id} -> {number}")
        used.add(number)
        element = ElementTree.SubElement(root, "track", id=str(number), label=track.label)
        _keyframes(element, track, scene, stream, losses)


def _keyframes(element: Element, track: Track2D, scene: Scene, stream: str, losses: Losses) -> None:
    frames = [scene.index_of(stream, stamp) for stamp in track.stamp_ns]
    last = len(scene.stamps[stream]) - 1
    for i, frame in enumerate(frames):
        if frame is None:
            losses.add(f"keyframes that belong to no sample of {stream}", f"{track.id}@{i}")
            continue
        following = next((f for f in frames[i + 1 :] if f is not None), None)
        box = track.keyframe(i)
        _box(element, box, losses, frame=str(frame), outside="0",
                   keyframe="0" if box.interpolated else "1")  # fmt: skip
        gap = bool(track.gap_after and track.gap_after[i]) or following is None
        # A box at the next frame ends the stretch by itself only if it follows at once.
        if gap and frame < last and following != frame + 1:
            _box(element, box, losses, frame=str(frame + 1), outside="1", keyframe="1")
        elif gap and following == frame + 1:
            losses.add("gaps between neighbouring frames", f"{track.id}@{track.stamp_ns[i]}")


def _images(
    root: Element, layer: Layer, scene: Scene, stream: str, size: tuple[int, int] | None,
    losses: Losses,
) -> None:  # fmt: skip
    shapes: dict[int, list[Box2D | Mask | Keypoints]] = {}
    everything: list[Box2D | Mask | Keypoints] = [
        *layer.boxes_2d, *layer.masks, *layer.keypoints,
    ]  # fmt: skip
    for shape in everything:
        frame = scene.index_of(stream, shape.stamp_ns) if shape.stream == stream else None
        if frame is None:
            losses.add(f"shapes that belong to no sample of {stream}", shape.id)
        else:
            shapes.setdefault(frame, []).append(shape)
    for frame, group in sorted(shapes.items()):
        image = ElementTree.SubElement(root, "image", id=str(frame), name=f"{frame:06d}")
        if size:
            image.set("width", str(size[0]))
            image.set("height", str(size[1]))
        for shape in group:
            if isinstance(shape, Box2D):
                _box(image, shape, losses, label=shape.label)
            elif isinstance(shape, Mask):
                _mask(image, shape, losses)
            else:
                _skeleton(image, shape, losses)


def _box(parent: Element, box: Box2D, losses: Losses, **more: str) -> Element:
    names = ("xtl", "ytl", "xbr", "ybr")
    corners = {n: repr(v + 0.5) for n, v in zip(names, box.xyxy_px, strict=True)}
    element = ElementTree.SubElement(parent, "box", {**more, **corners})
    if box.rotation_rad:
        element.set("rotation", repr(math.degrees(box.rotation_rad)))
    _attributes(element, box, losses)
    return element


def _mask(parent: Element, mask: Mask, losses: Losses) -> None:
    pixels = mask_of(mask.runs(), *mask.size_hw)
    place = bounds(pixels)
    if place is None:
        losses.add("empty masks", mask.id)
        return
    x0, y0, x1, y1 = place
    flat = pixels[y0 : y1 + 1, x0 : x1 + 1].ravel().tolist()
    runs, value = [0], False
    for pixel in flat:
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    element = ElementTree.SubElement(
        parent, "mask",
        {"label": mask.label, "rle": ", ".join(map(str, runs)), "left": str(x0), "top": str(y0),
         "width": str(x1 - x0 + 1), "height": str(y1 - y0 + 1)},
    )  # fmt: skip
    if "polygons" in mask.attributes:
        losses.add("outlines of masks (the pixels are written)", mask.id)
    _attributes(element, mask, losses)


def _skeleton(parent: Element, keypoints: Keypoints, losses: Losses) -> None:
    element = ElementTree.SubElement(parent, "skeleton", label=keypoints.label)
    for point in keypoints.points:
        place = ",".join(repr(v + 0.5) for v in point.xy_px)
        child = ElementTree.SubElement(element, "points", label=point.name, points=place)
        child.set("outside", "0")
        child.set("occluded", "1" if point.visible is False else "0")
        if point.visible is None:
            losses.add("keypoints of unknown visibility written as visible", keypoints.id)
        if point.confidence is not None:
            losses.add("confidence of single keypoints", keypoints.id)
    _attributes(element, keypoints, losses)


def _attributes(element: Element, annotation: Annotation, losses: Losses) -> None:
    own = annotation.attributes
    if "occluded" in own:
        element.set("occluded", "1" if own["occluded"] else "0")
    elif element.tag == "box":
        element.set("occluded", "0")
        losses.add("unknown occlusion written as 0 (CVAT demands it)", annotation.id)
    if "z_order" in own:
        element.set("z_order", str(own["z_order"]))
    for name, value in sorted(own.items()):
        if name in _BUILT_IN:
            continue
        child = ElementTree.SubElement(element, "attribute", name=name)
        if isinstance(value, dict | list):
            losses.add(f"structure of attribute {name!r} (written as JSON text)", annotation.id)
        child.text = value if isinstance(value, str) else json.dumps(value)


def _text(parent: Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = str(value)
