"""Columns of the CSV form: which there are, and how a cell reads and writes."""

from __future__ import annotations

import json
from typing import Any

#: Column(s) of fields that are more than one cell.
VECTORS: dict[str, tuple[str, ...]] = {
    "center_m": ("center_x_m", "center_y_m", "center_z_m"),
    "size_lwh_m": ("length_m", "width_m", "height_m"),
    "quaternion_wxyz": ("qw", "qx", "qy", "qz"),
    "xyxy_px": ("x_min_px", "y_min_px", "x_max_px", "y_max_px"),
    "visibility": ("visibility_min", "visibility_max"),
}
INTEGERS = {"start_ns", "end_ns", "stamp_ns"}
#: Written as JSON: lists, truth values, numbers, values of any type.
JSON = {"object_ids", "success", "confidence", "interpolated", "truncated", "rotation_rad",
        "value", "gap_after"}  # fmt: skip
TEXTS = (
    "collection", "id", "tier", "label", "text", "style", "path", "name", "object_id", "stream",
    "frame_id", "actor", "parent_id", "start_stream", "end_stream", "role", "language", "speaker",
    "contact_event_id", "release_event_id",
)  # fmt: skip
ORDER = (
    "collection", "id", "tier", "label", "start_ns", "end_ns", "stamp_ns", "text", "style", "path",
    "name", "value", "object_id", "object_ids", "stream", "frame_id", "actor", "parent_id",
    "start_stream", "end_stream", "success", "role", "language", "speaker", "contact_event_id",
    "release_event_id", "confidence", "interpolated", "truncated", "rotation_rad", "gap_after",
    *(c for columns in VECTORS.values() for c in columns),
)  # fmt: skip
ATTRIBUTE = "attributes."
CELLS = {c for columns in VECTORS.values() for c in columns}


def cell(value: Any) -> str:
    """A value as JSON, so that 3 and "3" stay apart."""
    return json.dumps(value, ensure_ascii=False)


def read_json(text: str) -> Any:
    """The JSON value in a cell, or the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text
