"""CSV with a header, one annotation (or keyframe of a track) per row.

Columns are those of :mod:`mmdata.annotations.columns`; `label` and a time are enough. Times are
`start_ns`, `end_ns`, `stamp_ns` on the reference clock, or decimal `start_s`, `end_s`, `time_s`
(also `_ms`) from the scene's origin. Unknown columns are attributes.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mmdata.annotations import columns
from mmdata.annotations.scene import Imported, Losses, Scene, seconds_to_ns
from mmdata.errors import ConversionError
from mmdata_schema import COLLECTIONS, Layer, parse_annotation, stable_id

_RELATIVE = {
    f"{name}_{unit}": (field, unit)
    for name, field in (("start", "start_ns"), ("end", "end_ns"), ("time", "stamp_ns"))
    for unit in ("s", "ms")
}


def read_csv_rows(path: Path, scene: Scene, *, layer: str) -> Imported:
    """`collection` says what a row is; else its columns do: a 3D or 2D box, a phase where it has
    a start and an end (of tier `tier`, else "phase"), an event where it has one time."""
    losses = Losses()
    rows: dict[str, list[dict[str, Any]]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not reader.fieldnames:
            raise ConversionError(f"{path} has no header line")
        for record in reader:
            where = f"{path}:{reader.line_num}"
            if None in record:
                raise ConversionError(f"{where}: more cells than the header has columns")
            try:
                collection, row = _row(record, scene)
            except (ValueError, ArithmeticError) as error:
                raise ConversionError(f"{where}: {error}") from error
            row.setdefault("id", stable_id("csv", path.name, reader.line_num))
            rows.setdefault(collection, []).append(row)
    out: dict[str, list[Any]] = {}
    for collection, own in rows.items():
        if collection.startswith("tracks"):
            out[collection] = [parse_annotation(collection, t) for t in _tracks(own)]
        else:
            out[collection] = [parse_annotation(collection, row) for row in own]
    made = Layer.parse(
        {"episode_id": scene.episode_id, "name": layer,
         "provenance": scene.provenance("csv", path), **out}
    )  # fmt: skip
    return Imported((made,), losses.report())


def _row(record: dict[str, str], scene: Scene) -> tuple[str, dict[str, Any]]:
    row: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    vectors = {column for column in columns.CELLS if record.get(column)}
    for name, text in record.items():
        if not text or name in columns.CELLS:
            continue
        if name in columns.INTEGERS:
            row[name] = int(text)
        elif name in _RELATIVE:
            field, unit = _RELATIVE[name]
            row[field] = scene.zero_ns() + seconds_to_ns(text, unit)
        elif name in columns.TEXTS:
            row[name] = text
        elif name in columns.JSON:
            row[name] = columns.read_json(text)
        else:
            attributes[name.removeprefix(columns.ATTRIBUTE)] = columns.read_json(text)
    for field, names in columns.VECTORS.items():
        if vectors & {*names}:
            row[field] = tuple(float(record.get(n) or "nan") for n in names)
    collection = row.pop("collection", None) or _guess(row)
    if collection not in COLLECTIONS:
        raise ValueError(f"no collection {collection!r}; there are {', '.join(COLLECTIONS)}")
    if attributes:
        row["attributes"] = attributes
    if collection == "phases":
        row.setdefault("tier", "phase")
    if collection in ("boxes_2d", "tracks_2d"):
        row.setdefault("stream", scene.stream)
    if collection in ("boxes_3d", "tracks_3d"):
        row.setdefault("frame_id", scene.frame_id)
    return collection, row


def _guess(row: dict[str, Any]) -> str:
    if "center_m" in row:
        return "boxes_3d"
    if "xyxy_px" in row:
        return "boxes_2d"
    if "start_ns" in row and "end_ns" in row:
        return "phases"
    if "stamp_ns" not in row and "start_ns" in row:
        row["stamp_ns"] = row.pop("start_ns")
    if "stamp_ns" not in row:
        raise ValueError("a row needs a time (start_ns and end_ns, or stamp_ns)")
    return "events"


_PER_KEYFRAME = ("stamp_ns", "center_m", "size_lwh_m", "quaternion_wxyz", "xyxy_px", "visibility",
                 "interpolated", "truncated", "rotation_rad", "gap_after")  # fmt: skip


def _tracks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one track id as its columns; attributes of rows belong to the keyframes."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["id"], []).append(row)
    tracks = []
    for own in grouped.values():
        own.sort(key=lambda row: row.get("stamp_ns", 0))
        track = {k: v for k, v in own[0].items() if k not in (*_PER_KEYFRAME, "attributes")}
        confidences = [row.get("confidence") for row in own]
        track.pop("confidence", None)
        if any(c is not None for c in confidences):
            track["keyframe_confidence"] = confidences
        for name in _PER_KEYFRAME:
            missing = False if name == "gap_after" else None
            column = [row.get(name, missing) for row in own]
            if any(value not in (None, False) for value in column) or name in own[0]:
                track[name] = column
        names = sorted({n for row in own for n in row.get("attributes", {})})
        track["keyframe_attributes"] = {
            n: [row.get("attributes", {}).get(n) for row in own] for n in names
        }
        tracks.append(track)
    return tracks
