"""nuScenes tables of the labels; see the importer for the conventions.

Tables of recordings (sensors, poses, sample data, maps) are written empty: their content is the
recording's, not the layer's. The rows have every key of the published schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from mmdata.annotations.boxes import boxes_3d, track_losses
from mmdata.annotations.importers.nuscenes import VISIBILITY
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Box3D, Layer

_BOX = {"label", "object_id", "frame_id", "stamp_ns", "center_m", "size_lwh_m", "attributes",
        "quaternion_wxyz", "visibility"}  # fmt: skip
_TRACK = _BOX | {"keyframe_attributes", "gap_after"}
_ATTRIBUTES = {"source_id", "lidar_points", "radar_points", "nuscenes_attributes"}
_EMPTY = ("calibrated_sensor", "ego_pose", "log", "map", "sample_data", "sensor")
_TOKEN = re.compile(r"[0-9a-f]{32}")


def write_nuscenes(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Write the tables into folder `path`. All boxes must share one frame."""
    losses = Losses()
    losses.rest(layer, {"tracks_3d": _TRACK, "boxes_3d": _BOX})
    for track in layer.tracks_3d:
        for lost in track_losses(track):
            losses.add(lost, track.id)
    boxes = sorted(boxes_3d(layer), key=lambda box: (box.stamp_ns, box.id))
    frames = {box.frame_id for box in boxes}
    wanted = scene.frame_id or (next(iter(frames)) if len(frames) == 1 else None)
    for box in boxes:
        if box.frame_id != wanted:
            losses.add("boxes that are not in the one global frame", box.id)
        if box.stamp_ns % 1000:
            losses.add("stamps rounded down to microseconds", box.id)
        for name in sorted({*box.attributes} - _ATTRIBUTES):
            losses.add(f"attribute {name!r} of boxes", box.id)
    boxes = [box for box in boxes if box.frame_id == wanted]
    tables = _tables(layer, boxes, losses)
    for name in _EMPTY:
        losses.add("tables of the recording left empty", name)
        tables[name] = []
    path.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_durably(path / f"{name}.json", json.dumps(rows, indent=0).encode())
    return Exported(tuple(path / f"{name}.json" for name in tables), losses.report())


def _tables(layer: Layer, boxes: list[Box3D], losses: Losses) -> dict[str, list[dict[str, Any]]]:
    scene_token = _token("scene", layer.episode_id)
    stamps = sorted({box.stamp_ns // 1000 for box in boxes})
    sample_of = {us: _token("sample", layer.episode_id, us) for us in stamps}
    samples = [
        {"token": sample_of[us], "timestamp": us, "scene_token": scene_token,
         "prev": sample_of[stamps[i - 1]] if i else "",
         "next": sample_of[stamps[i + 1]] if i + 1 < len(stamps) else ""}
        for i, us in enumerate(stamps)
    ]  # fmt: skip
    states = sorted({str(s) for box in boxes for s in _states(box)})
    tokens = [_source_token(box) for box in boxes]
    chains: dict[str, list[int]] = {}
    for i, box in enumerate(boxes):
        chains.setdefault(_token_or_own("instance", box.object_id or box.id), []).append(i)
    rows: list[dict[str, Any]] = []
    instances = []
    for instance, chain in chains.items():
        label = boxes[chain[0]].label
        for i in chain:
            if boxes[i].label != label:
                losses.add("labels that change along an object (an instance has one)", boxes[i].id)
        instances.append(
            {"token": instance, "category_token": _token("category", label),
             "nbr_annotations": len(chain), "first_annotation_token": tokens[chain[0]],
             "last_annotation_token": tokens[chain[-1]]}
        )  # fmt: skip
        for k, i in enumerate(chain):
            row = _row(boxes[i], sample_of[boxes[i].stamp_ns // 1000], losses)
            rows.append(
                {"token": tokens[i], "instance_token": instance, **row,
                 "prev": tokens[chain[k - 1]] if k else "",
                 "next": tokens[chain[k + 1]] if k + 1 < len(chain) else ""}
            )  # fmt: skip
    return {
        "category": [
            {"token": _token("category", label), "name": label, "description": ""}
            for label in sorted({box.label for box in boxes})
        ],
        "attribute": [
            {"token": _token("attribute", s), "name": s, "description": ""} for s in states
        ],
        "visibility": [
            {"token": token, "level": f"v{round(a * 100)}-{round(b * 100)}", "description": ""}
            for token, (a, b) in VISIBILITY.items()
        ],
        "instance": instances,
        "sample_annotation": rows,
        "sample": samples,
        "scene": [
            {"token": scene_token, "log_token": "", "nbr_samples": len(samples),
             "first_sample_token": samples[0]["token"] if samples else "",
             "last_sample_token": samples[-1]["token"] if samples else "",
             "name": layer.episode_id, "description": ""}
        ],
    }  # fmt: skip


def _row(box: Box3D, sample_token: str, losses: Losses) -> dict[str, Any]:
    length, width, height = box.size_lwh_m
    bins = {bounds: token for token, bounds in VISIBILITY.items()}
    visibility = bins.get(box.visibility) if box.visibility else ""
    if visibility is None:
        losses.add("visibility bounds that are none of the four bins", box.id)
    for name in ("lidar_points", "radar_points"):
        if name not in box.attributes:
            losses.add(f"{name} written as 0 (unknown; the format demands a number)", box.id)
    return {
        "sample_token": sample_token,
        "visibility_token": visibility or "",
        "attribute_tokens": [_token("attribute", s) for s in _states(box)],
        "translation": list(box.center_m),
        "size": [width, length, height],
        "rotation": list(box.quaternion_wxyz),
        "num_lidar_pts": box.attributes.get("lidar_points", 0),
        "num_radar_pts": box.attributes.get("radar_points", 0),
    }


def _states(box: Box3D) -> list[Any]:
    states = box.attributes.get("nuscenes_attributes")
    return states if isinstance(states, list) else []


def _source_token(box: Box3D) -> str:
    own = box.attributes.get("source_id")
    return _token_or_own("box", own if isinstance(own, str) else box.id)


def _token_or_own(kind: str, id: str) -> str:
    """An id that is a nuScenes token already stays, so that reading and writing agree."""
    return id if _TOKEN.fullmatch(id) else _token(kind, id)


def _token(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:32]
