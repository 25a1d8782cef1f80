"""nuScenes tables: a folder with `sample_annotation.json` and the tables it refers to.

Boxes are in the global frame, size is width, length, height, rotation qw, qx, qy, qz, stamps
microseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmdata.annotations.boxes import by_track
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Box3D, Layer, Track3D, stable_id

#: Bounds of the visible fraction by visibility token.
VISIBILITY = {"1": (0.0, 0.4), "2": (0.4, 0.6), "3": (0.6, 0.8), "4": (0.8, 1.0)}
_TABLES = ("scene", "sample", "sample_annotation", "instance", "category", "attribute")


def read_nuscenes(
    path: Path, scene: Scene, *, layer: str, scene_name: str | None = None
) -> Imported:
    """A track per instance and category, `object_id` the instance's token.

    `scene_name` picks the scene by name or token where the tables hold several. Keyframe
    attributes: `source_id` (token of the box), `lidar_points`, `radar_points` and
    `nuscenes_attributes`. The frame is the scene's, else `global`.
    """
    tables = {table: _table(path, table) for table in _TABLES}
    tables["visibility"] = _table(path, "visibility", optional=True)
    chosen = [s for s in tables["scene"].values() if scene_name in (None, s["name"], s["token"])]
    if len(chosen) != 1:
        have = ", ".join(s["name"] for s in tables["scene"].values())
        raise ConversionError(f"{path}: choose one scene by name; there are: {have}")
    samples = {
        token: sample for token, sample in tables["sample"].items()
        if sample["scene_token"] == chosen[0]["token"]
    }  # fmt: skip
    losses = Losses()
    boxes = []
    for row in tables["sample_annotation"].values():
        if row["sample_token"] in samples:
            boxes.append(_box(row, samples[row["sample_token"]], tables, scene))
    if chosen[0].get("description"):
        losses.add("description of the scene", chosen[0]["description"])
    tracks = [
        Track3D.from_boxes(own, id=stable_id("track3d", *key), object_id=key[0])
        for key, own in by_track(boxes).items()
    ]
    out = Layer(
        episode_id=scene.episode_id, name=layer, provenance=scene.provenance("nuscenes", path),
        tracks_3d=tracks,
    )  # fmt: skip
    return Imported((out,), losses.report())


def _table(path: Path, table: str, optional: bool = False) -> dict[str, dict[str, Any]]:
    file = path / f"{table}.json"
    if optional and not file.exists():
        return {}
    try:
        return {row["token"]: row for row in json.loads(file.read_bytes())}
    except FileNotFoundError as error:
        raise ConversionError(f"{path} lacks the table {table}.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{file} is no nuScenes table: {error!r}") from error


def _box(
    row: dict[str, Any], sample: dict[str, Any], tables: dict[str, Any], scene: Scene
) -> Box3D:
    try:
        instance = tables["instance"][row["instance_token"]]
        label = tables["category"][instance["category_token"]]["name"]
        states = [tables["attribute"][token]["name"] for token in row["attribute_tokens"]]
    except KeyError as error:
        raise ConversionError(f"box {row['token']} refers to missing token {error}") from error
    width, length, height = (float(v) for v in row["size"])
    attributes = {
        "source_id": row["token"],
        "lidar_points": row.get("num_lidar_pts"),
        "radar_points": row.get("num_radar_pts"),
        "nuscenes_attributes": states or None,
    }
    return Box3D.parse(
        {
            "id": row["token"],
            "object_id": row["instance_token"],
            "label": label,
            "stamp_ns": int(sample["timestamp"]) * 1000,
            "frame_id": scene.frame_id or "global",
            "stream": scene.stream,
            "center_m": [float(v) for v in row["translation"]],
            "size_lwh_m": (length, width, height),
            "quaternion_wxyz": [float(v) for v in row["rotation"]],
            "visibility": VISIBILITY.get(str(row.get("visibility_token") or "")),
            "attributes": {k: v for k, v in attributes.items() if v is not None},
        }
    )
