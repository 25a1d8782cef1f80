"""CSV, one annotation (or keyframe of a track) per row; see the importer for the columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from mmdata.annotations import columns
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import COLLECTIONS, Layer, Track2D, Track3D

_FIELDS = {*columns.TEXTS, *columns.INTEGERS, *columns.JSON, *columns.VECTORS, "attributes"}
_TRACK = _FIELDS | {"keyframe_attributes", "keyframe_confidence"}
_NOT_HELD = {"masks", "keypoints", "comments"}


def write_csv_rows(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Every collection but masks, keypoints and comments. Only columns that are used are there."""
    losses = Losses()
    kept = {n: _TRACK if n.startswith("tracks") else _FIELDS for n in COLLECTIONS
            if n not in _NOT_HELD}  # fmt: skip
    losses.rest(layer, kept)
    rows: list[dict[str, str]] = []
    for name in kept:
        for annotation in getattr(layer, name):
            if isinstance(annotation, Track2D | Track3D):
                rows += _track(name, annotation, losses)
            else:
                rows.append(_row(name, annotation.to_dict()))
    used = {name for row in rows for name in row}
    header = [name for name in columns.ORDER if name in used]
    header += sorted(used - {*columns.ORDER})
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_durably(path, text.getvalue().encode())
    return Exported((path,), losses.report())


def _track(name: str, track: Track2D | Track3D, losses: Losses) -> list[dict[str, str]]:
    if track.attributes:
        losses.add("attributes of tracks written as those of their keyframes", track.id)
    if track.confidence is not None:
        losses.add("confidence of tracks written as that of their keyframes", track.id)
    rows = []
    for i in range(track.keyframe_count):
        fields = {**track.keyframe(i).to_dict(), "id": track.id}
        if track.gap_after and track.gap_after[i]:
            fields["gap_after"] = True
        rows.append(_row(name, fields))
    return rows


def _row(collection: str, fields: dict[str, Any]) -> dict[str, str]:
    row = {"collection": collection}
    for name, value in fields.items():
        if name == "attributes":
            row |= {f"{columns.ATTRIBUTE}{k}": columns.cell(v) for k, v in value.items()}
        elif name in columns.VECTORS:
            row |= dict(zip(columns.VECTORS[name], map(repr, value), strict=True))
        elif name in columns.INTEGERS:
            row[name] = str(value)
        elif name in columns.TEXTS:
            row[name] = value
        elif name in columns.JSON:
            row[name] = columns.cell(value)
    return row
