"""KITTI object labels: a folder with one `<frame>.txt` per image.

Each line: type, truncated, occluded, alpha, left, top, right, bottom (pixel indices from 0, so
as ours), height, width, length, x, y, z of the bottom's centre in the camera frame, rotation_y
about the camera's y axis, and for detections a score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.annotations.boxes import from_camera_box
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Box2D, Box3D, Layer, stable_id

#: What the development kit writes where there is no 3D box.
NO_DIMENSION, NO_PLACE = -1.0, -1000.0


@dataclass(frozen=True)
class KittiLine:
    """One object of a label file; what the format marks as unknown is None."""

    label: str
    truncated: float | None
    occlusion: int | None
    alpha_rad: float | None
    xyxy_px: tuple[float, float, float, float] | None
    box: tuple[Any, Any, Any] | None
    score: float | None

    @property
    def attributes(self) -> dict[str, Any]:
        """What has no field of its own."""
        own = {"occlusion": self.occlusion, "alpha_rad": self.alpha_rad}
        return {k: v for k, v in own.items() if v is not None}


def parse_line(words: list[str], where: str) -> KittiLine:
    """The fields after frame and track id. ConversionError when they are not KITTI's."""
    try:
        numbers = [float(word) for word in words[1:]]
        if len(numbers) not in (14, 15):
            raise ValueError(f"{len(words)} fields")
    except ValueError as error:
        raise ConversionError(f"{where}: no KITTI label line: {error}") from error
    truncated, occluded, alpha, left, top, right, bottom, h, w, length, x, y, z, ry = numbers[:14]
    return KittiLine(
        label=words[0],
        truncated=truncated if truncated >= 0 else None,
        occlusion=int(occluded) if occluded >= 0 else None,
        alpha_rad=alpha if alpha > -10 else None,
        xyxy_px=(left, top, right, bottom) if right >= left and bottom >= top and right >= 0
        else None,
        box=from_camera_box(h, w, length, (x, y, z), ry) if h >= 0 and x > NO_PLACE else None,
        score=numbers[14] if len(numbers) == 15 else None,
    )  # fmt: skip


def read_kitti(path: Path, scene: Scene, *, layer: str) -> Imported:
    """A 2D and a 3D box per line, sharing an object id that is made for the line.

    The number in a file's name is the index of the sample in the scene's stream. DontCare
    regions are 2D boxes of that label. Scores are not probabilities in KITTI: those outside
    [0, 1] are kept as an attribute.
    """
    stream, frame_id = scene.need_stream(), scene.need_frame()
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    losses = Losses()
    flat: list[Box2D] = []
    solid: list[Box3D] = []
    for file in files:
        number = re.search(r"(\d+)$", file.stem)
        stamp_ns = scene.frame_ns(stream, int(number[1])) if number else None
        if stamp_ns is None:
            losses.add(f"label files without a sample in {stream}", file.name)
            continue
        for i, text in enumerate(file.read_text().splitlines()):
            if not text.strip():
                continue
            line = parse_line(text.split(), f"{file}:{i + 1}")
            object_id = stable_id("kitti", file.stem, i)
            common: dict[str, Any] = {
                "label": line.label, "stamp_ns": stamp_ns, "stream": stream,
                "object_id": object_id, **score_of(line),
            }  # fmt: skip
            if line.xyxy_px is not None:
                flat.append(
                    Box2D.parse(
                        {**common, "id": stable_id("box2d", file.stem, i),
                         "xyxy_px": line.xyxy_px, "truncated": line.truncated}
                    )
                )  # fmt: skip
            if line.box is not None:
                center, size, quaternion = line.box
                solid.append(
                    Box3D.parse(
                        {**common, "id": stable_id("box3d", file.stem, i), "frame_id": frame_id,
                         "center_m": center, "size_lwh_m": size, "quaternion_wxyz": quaternion}
                    )
                )  # fmt: skip
            if line.xyxy_px is None and line.box is None:
                losses.add("lines without a box", f"{file.name}:{i + 1}")
    out = Layer(
        episode_id=scene.episode_id, name=layer, provenance=scene.provenance("kitti", path),
        boxes_2d=flat, boxes_3d=solid,
    )  # fmt: skip
    return Imported((out,), losses.report())


def score_of(line: KittiLine) -> dict[str, Any]:
    """Confidence where the score can be one, else an attribute, with the line's others."""
    if line.score is None:
        return {"attributes": line.attributes}
    if 0 <= line.score <= 1:
        return {"attributes": line.attributes, "confidence": line.score}
    return {"attributes": {**line.attributes, "score": line.score}}
