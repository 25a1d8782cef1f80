"""CVAT's XML, "for video 1.1" (tracks) and "for images 1.1" (shapes per image).

CVAT measures from the top left pixel's corner, so 0.5 is taken off. Frame numbers and image ids
are indices of the stream's samples. `outside` ends a stretch of a track (`gap_after`),
`keyframe="0"` is `interpolated`, `occluded` and `z_order` are attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mmdata.annotations.pixels import fill, mask_of_rows, runs_of
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Annotation, Box2D, Keypoints, Layer, Mask, Track2D, stable_id

Element = ElementTree.Element
_SHAPES = {"box", "polygon", "mask", "points", "skeleton"}
#: Attributes of a shape that are its geometry or are dealt with by name.
_DONE = {"label", "frame", "outside", "keyframe", "occluded", "z_order", "xtl", "ytl", "xbr", "ybr",
         "rotation", "points", "source", "rle", "left", "top", "width", "height", "group_id",
         "id", "attributes"}  # fmt: skip


def read_cvat(path: Path, scene: Scene, *, layer: str) -> Imported:
    """Boxes of tracks become 2D tracks; polygons and masks become masks, points and skeletons
    keypoints, one per frame, with the track as their object id."""
    stream = scene.need_stream()
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConversionError(f"{path} is not XML: {error}") from error
    if root.tag != "annotations":
        raise ConversionError(f"{path} is no CVAT file: its root is <{root.tag}>")
    if root.find("./meta/project") is not None:
        # Its tasks number their frames on their own, so frames could not be told apart.
        raise ConversionError(f"{path} is a dump of a project: export its tasks one by one")
    reader = _Reader(root, scene, stream, str(path))
    found: list[Annotation] = []
    for image in root.findall("image"):
        found.extend(reader.image(image))
    for track in root.findall("track"):
        found.extend(reader.track(track))
    authors = {e.findtext("username") for e in root.findall("./meta//owner")} - {None, ""}
    author = authors.pop() if len(authors) == 1 else None
    out = Layer(
        episode_id=scene.episode_id, name=layer, provenance=scene.provenance("cvat", path, author),
        boxes_2d=[a for a in found if isinstance(a, Box2D)],
        tracks_2d=[a for a in found if isinstance(a, Track2D)],
        masks=[a for a in found if isinstance(a, Mask)],
        keypoints=[a for a in found if isinstance(a, Keypoints)],
    )  # fmt: skip
    return Imported((out,), reader.losses.report())


class _Reader:
    def __init__(self, root: Element, scene: Scene, stream: str, where: str) -> None:
        self.scene, self.stream, self.where = scene, stream, where
        self.losses = Losses()
        self.size = _size(root) or scene.image_size(stream)
        self.types = {
            (label.findtext("name"), a.findtext("name")): a.findtext("input_type")
            for label in root.findall("./meta//labels/label")
            for a in label.findall("./attributes/attribute")
        }

    def image(self, image: Element) -> Iterator[Annotation]:
        """Shapes of one image."""
        number = int(image.get("id", "-1"))
        stamp_ns = self.scene.frame_ns(self.stream, number)
        size = (int(image.get("width", 0)), int(image.get("height", 0)))
        self.size = size if all(size) else self.size
        for i, shape in enumerate(image):
            if stamp_ns is None:
                self.losses.add(f"shapes of images without a sample in {self.stream}", number)
            elif shape.tag not in _SHAPES:
                self.losses.add(f"<{shape.tag}> shapes", f"image {number}")
            else:
                key = ("image", number, i)
                label = shape.get("label", "")
                fields = self._fields(shape, label, stamp_ns, key)
                yield from self._shape(shape, fields, key)

    def track(self, track: Element) -> Iterator[Annotation]:
        """Boxes of one track as a track (or none of them), other shapes one by one."""
        number, label = track.get("id", ""), track.get("label", "")
        if track.get("group_id"):
            self.losses.add("groups of tracks", f"track {number}")
        rows: list[tuple[int, Element]] = []
        for shape in track:
            if shape.tag not in _SHAPES:
                self.losses.add(f"<{shape.tag}> shapes", f"track {number}")
                continue
            rows.append((int(shape.get("frame", "-1")), shape))
        rows.sort(key=lambda row: row[0])
        boxes = [row for row in rows if row[1].tag == "box"]
        if boxes:
            yield from self._box_track(number, label, boxes)
        for frame, shape in rows:
            if shape.tag == "box" or shape.get("outside") == "1":
                continue
            stamp_ns = self.scene.frame_ns(self.stream, frame)
            if stamp_ns is None:
                self.losses.add(f"frames without a sample in {self.stream}", f"frame {frame}")
                continue
            key = ("track", number, frame)
            fields = {**self._fields(shape, label, stamp_ns, key), "object_id": number}
            if shape.get("keyframe") == "0":
                fields["attributes"]["interpolated"] = True
            yield from self._shape(shape, fields, key)

    def _box_track(
        self, number: str, label: str, rows: list[tuple[int, Element]]
    ) -> Iterator[Track2D]:
        boxes: list[Box2D] = []
        gaps: set[int] = set()
        for position, (frame, shape) in enumerate(rows):
            if shape.get("outside") == "1":
                if boxes and position and rows[position - 1][1].get("outside") != "1":
                    before = rows[position - 1]
                    if frame - before[0] > 1:
                        boxes += self._until(before, (frame, shape), number, label)
                    gaps.add(boxes[-1].stamp_ns)
                continue
            box = self._keyframe(frame, shape, number, label)
            if box is not None:
                boxes.append(box)
        if not boxes:
            self.losses.add("tracks without a visible box", f"track {number}")
            return
        track = Track2D.from_boxes(boxes, id=stable_id("track2d", "cvat", number), object_id=number)
        if gaps:
            track = track.edit(gap_after=[stamp in gaps for stamp in track.stamp_ns])
        yield track

    def _keyframe(self, frame: int, shape: Element, number: str, label: str) -> Box2D | None:
        stamp_ns = self.scene.frame_ns(self.stream, frame)
        if stamp_ns is None:
            self.losses.add(f"frames without a sample in {self.stream}", f"frame {frame}")
            return None
        fields = self._fields(shape, label, stamp_ns, ("track", number, frame))
        keyframe = shape.get("keyframe")
        return Box2D.parse(
            {**fields, **_rectangle(shape), "object_id": number,
             "interpolated": None if keyframe is None else keyframe == "0"}
        )  # fmt: skip

    def _until(
        self, before: tuple[int, Element], outside: tuple[int, Element], number: str, label: str
    ) -> list[Box2D]:
        """CVAT shows the box until the frame before `outside`, moving towards that shape: the
        last such frame, where a file holds keyframes only."""
        (start, shape), (end, gone) = before, outside
        part = (end - 1 - start) / (end - start)
        a, b = (np.array(_rectangle(s)["xyxy_px"]) for s in (shape, gone))
        box = self._keyframe(end - 1, shape, number, label)
        if box is None:
            return []
        return [box.edit(xyxy_px=tuple((a + part * (b - a)).tolist()), interpolated=True)]

    def _fields(
        self, shape: Element, label: str, stamp_ns: int, key: tuple[object, ...]
    ) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        if shape.get("occluded") is not None:
            attributes["occluded"] = shape.get("occluded") == "1"
        if shape.get("z_order") not in (None, "0"):
            attributes["z_order"] = int(shape.get("z_order", "0"))
        for child in shape.findall("attribute"):
            name = child.get("name", "")
            attributes[name] = _typed(child.text or "", self.types.get((label, name)))
        if shape.get("group_id"):
            self.losses.add("groups of shapes", key)
        for name in sorted({*shape.keys()} - _DONE):
            self.losses.add(f"attribute {name!r} of <{shape.tag}>", key)
        return {
            "id": stable_id("cvat", *key, shape.tag), "label": label, "stream": self.stream,
            "stamp_ns": stamp_ns, "attributes": attributes,
        }  # fmt: skip

    def _shape(
        self, shape: Element, fields: dict[str, Any], key: tuple[object, ...]
    ) -> Iterator[Annotation]:
        if shape.tag == "box":
            yield Box2D.parse({**fields, **_rectangle(shape)})
        elif shape.tag in ("points", "skeleton"):
            yield Keypoints.parse({**fields, "points": self._points(shape)})
        elif self.size is None:
            self.losses.add(f"<{shape.tag}> shapes of images without a size", key)
        else:
            width, height = self.size
            if shape.tag == "polygon":
                outline = _pixels(shape)
                runs = runs_of(fill([outline], height, width))
                fields["attributes"]["polygons"] = [(outline + 0.5).ravel().tolist()]
            else:
                runs = runs_of(_bitmap(shape, height, width))
            yield Mask.parse({**fields, "size_hw": (height, width), "counts": runs})

    def _points(self, shape: Element) -> list[dict[str, Any]]:
        if shape.tag == "points":
            places = _pixels(shape)
            return [{"name": str(i + 1), "xy_px": tuple(p)} for i, p in enumerate(places.tolist())]
        return [
            {"name": child.get("label", ""), "xy_px": tuple(_pixels(child)[0].tolist()),
             "visible": child.get("occluded") != "1"}
            for child in shape.findall("points") if child.get("outside") != "1"
        ]  # fmt: skip


def _size(root: Element) -> tuple[int, int] | None:
    width, height = (root.findtext(f"./meta//original_size/{n}") for n in ("width", "height"))
    return (int(width), int(height)) if width and height else None


def _rectangle(shape: Element) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(shape.get(n, "nan")) - 0.5 for n in ("xtl", "ytl", "xbr", "ybr"))
    out: dict[str, Any] = {"xyxy_px": (x0, y0, x1, y1)}
    if float(shape.get("rotation", 0)):
        out["rotation_rad"] = math.radians(float(shape.get("rotation", 0)))
    return out


def _pixels(shape: Element) -> Any:
    text = shape.get("points", "")
    return np.array([[float(v) for v in p.split(",")] for p in text.split(";")]) - 0.5


def _bitmap(shape: Element, height: int, width: int) -> Any:
    left, top, w, h = (int(float(shape.get(n, "0"))) for n in ("left", "top", "width", "height"))
    runs = [int(v) for v in shape.get("rle", "").split(",")]
    out = np.zeros((height, width), dtype=np.bool_)
    out[top : top + h, left : left + w] = mask_of_rows(runs, h, w)
    return out


_TYPES: dict[str | None, Callable[[str], Any]] = {
    "checkbox": lambda text: text.lower() == "true",
    "number": lambda text: float(text) if "." in text or "e" in text else int(text),
}


def _typed(text: str, kind: str | None) -> Any:
    try:
        return _TYPES.get(kind, str)(text)
    except ValueError:
        return text
