"""From older layer documents to the current schema: pure functions, dict -> dict.

A migration takes a document of one version and returns one of the next. It never changes its
input and keeps fields it does not know. ``tests/schema/frozen`` holds a file of every version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mmdata_schema.errors import SchemaError
from mmdata_schema.version import SCHEMA_VERSION

Document = dict[str, Any]

_0_9_STATES = {
    "open": "draft",
    "submitted": "review",
    "approved": "accepted",
    "refused": "rejected",
}


def _quaternion_wxyz(xyzw: list[float]) -> list[float]:
    x, y, z, w = xyzw
    return [w, x, y, z]


def _size_lwh(wlh: list[float]) -> list[float]:
    width, length, height = wlh
    return [length, width, height]


def _box_from_0_9(box: Document) -> Document:
    moved = {k: v for k, v in box.items() if k not in ("t_ns", "wlh_m", "rotation_xyzw", "track")}
    moved["stamp_ns"] = box["t_ns"]
    moved["size_lwh_m"] = _size_lwh(box["wlh_m"])
    moved["quaternion_wxyz"] = _quaternion_wxyz(box["rotation_xyzw"])
    if "track" in box:
        moved["object_id"] = box["track"]
    return moved


def _track_from_0_9(object_id: str, boxes: list[Document]) -> Document:
    boxes = sorted(boxes, key=lambda box: box["stamp_ns"])
    columns = {"stamp_ns", "center_m", "size_lwh_m", "quaternion_wxyz"}
    fixed = {"label", "frame_id", "object_id"}
    track: Document = {
        "id": f"track-{object_id}",
        **{name: boxes[0][name] for name in fixed},
        **{name: [box[name] for box in boxes] for name in columns},
    }
    # Everything else a box carried, ids and unknown fields too, becomes a column.
    rest: dict[str, list[Any]] = {}
    for i, box in enumerate(boxes):
        own = {k: v for k, v in box.items() if k not in columns | fixed | {"attributes"}}
        for name, value in {**box.get("attributes", {}), **own}.items():
            name = "source_id" if name == "id" else name
            rest.setdefault(name, [None] * len(boxes))[i] = value
    if rest:
        track["keyframe_attributes"] = rest
    return track


def _from_0_9(old: Document) -> Document:
    """0.9 (draft, never released) to 1.0.

    - ``annotator`` (a string) becomes ``provenance.author``.
    - ``segments`` with an inclusive ``last_ns`` become ``phases`` with an exclusive ``end_ns``.
    - ``boxes3d``, one object per box with size w,l,h and quaternion x,y,z,w, become ``tracks_3d``
      where they share ``track``, label and frame, else ``boxes_3d``.
    - ``status`` becomes ``review.state``.
    """
    moved = {"annotator", "segments", "boxes3d", "status"}
    new = {k: v for k, v in old.items() if k not in moved}
    new["schema_version"] = "1.0"
    if "annotator" in old:
        new["provenance"] = {"author": old["annotator"]}
    if "status" in old:
        new["review"] = {"state": _0_9_STATES[old["status"]]}
    phases = [
        {**{k: v for k, v in segment.items() if k != "last_ns"}, "end_ns": segment["last_ns"] + 1}
        for segment in old.get("segments", [])
    ]
    if phases:
        new["phases"] = phases
    tracks: dict[str, list[Document]] = {}
    single = []
    for box in map(_box_from_0_9, old.get("boxes3d", [])):
        if "object_id" in box:
            tracks.setdefault(box["object_id"], []).append(box)
        else:
            single.append(box)
    new_tracks = []
    for object_id, boxes in tracks.items():
        stamps = {box["stamp_ns"] for box in boxes}
        kinds = {(box["label"], box["frame_id"]) for box in boxes}
        if len(kinds) == 1 and len(stamps) == len(boxes):
            new_tracks.append(_track_from_0_9(object_id, boxes))
        else:
            single += boxes
    if new_tracks:
        new["tracks_3d"] = new_tracks
    if single:
        new["boxes_3d"] = single
    return new


#: Version of a document -> the version its migration makes, and the migration.
MIGRATIONS: dict[str, tuple[str, Callable[[Document], Document]]] = {"0.9": ("1.0", _from_0_9)}


def _major_minor(version: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", version) if isinstance(version, str) else None
    if match is None:
        raise SchemaError(
            f"annotation layer has schema_version {version!r}; expected a version such as "
            f"{SCHEMA_VERSION!r}"
        )
    return int(match[1]), int(match[2])


def migrate(document: Document) -> Document:
    """``document`` in the current major version; the same object when it already is.

    A newer minor version of the current major is left as it is: what this reader does not know
    it keeps. Raises :class:`SchemaError` for a newer major, or an old one without a migration.
    """
    current = _major_minor(SCHEMA_VERSION)
    while True:
        version = _major_minor(document.get("schema_version"))
        if version[0] > current[0]:
            raise SchemaError(
                f"annotation layer has schema version {document['schema_version']}; this reader "
                f"knows {SCHEMA_VERSION} and cannot read a newer major version: update mmdata"
            )
        if version >= current:
            return document
        key = f"{version[0]}.{version[1]}"
        if key not in MIGRATIONS:
            raise SchemaError(
                f"annotation layer has schema version {key}, for which there is no migration "
                f"(there are migrations from {', '.join(MIGRATIONS)})"
            )
        try:
            document = MIGRATIONS[key][1](document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(
                f"annotation layer says schema version {key} but does not follow it: {error!r}"
            ) from error
