"""KITTI tracking labels: one file of a sequence, `frame track_id` before the fields of an object
line. `truncated` is a level (0, 1, 2) there, not a fraction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdata.annotations.boxes import by_track
from mmdata.annotations.importers.kitti import parse_line, score_of
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Box2D, Box3D, Layer, Track2D, Track3D, stable_id


def read_kitti_tracking(path: Path, scene: Scene, *, layer: str) -> Imported:
    """A 2D and a 3D track per track id and type; DontCare regions (id -1) are single 2D boxes."""
    stream, frame_id = scene.need_stream(), scene.need_frame()
    losses = Losses()
    flat: list[Box2D] = []
    solid: list[Box3D] = []
    loose: list[Box2D] = []
    for i, text in enumerate(path.read_text().splitlines()):
        words = text.split()
        if not words:
            continue
        try:
            frame, track = int(words[0]), int(words[1])
        except (ValueError, IndexError) as error:
            raise ConversionError(f"{path}:{i + 1}: no frame and track id: {error}") from error
        line = parse_line(words[2:], f"{path}:{i + 1}")
        stamp_ns = scene.frame_ns(stream, frame)
        if stamp_ns is None:
            losses.add(f"labels of frames without a sample in {stream}", f"frame {frame}")
            continue
        common: dict[str, Any] = {
            "label": line.label, "stamp_ns": stamp_ns, "stream": stream, **score_of(line),
        }  # fmt: skip
        if line.truncated is not None:
            common["attributes"] = {**common["attributes"], "truncation": int(line.truncated)}
        if track >= 0:
            common["object_id"] = str(track)
        if line.xyxy_px is not None:
            box = Box2D.parse(
                {**common, "id": stable_id("box2d", path.stem, i), "xyxy_px": line.xyxy_px}
            )
            (flat if track >= 0 else loose).append(box)
        if line.box is not None and track >= 0:
            center, size, quaternion = line.box
            solid.append(
                Box3D.parse(
                    {**common, "id": stable_id("box3d", path.stem, i), "frame_id": frame_id,
                     "center_m": center, "size_lwh_m": size, "quaternion_wxyz": quaternion}
                )
            )  # fmt: skip
    out = Layer(
        episode_id=scene.episode_id, name=layer,
        provenance=scene.provenance("kitti-tracking", path),
        boxes_2d=loose,
        tracks_2d=[
            Track2D.from_boxes(own, id=stable_id("track2d", *key), object_id=key[0])
            for key, own in by_track(flat).items()
        ],
        tracks_3d=[
            Track3D.from_boxes(own, id=stable_id("track3d", *key), object_id=key[0])
            for key, own in by_track(solid).items()
        ],
    )  # fmt: skip
    return Imported((out,), losses.report())
