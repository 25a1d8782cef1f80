"""One object's boxes over time, in 3D and in one camera.

Keyframes are held in columns, because one object per box would make large layers slow;
``keyframe(i)`` gives one as a box. A keyframe is addressed by its track's id and its stamp, as
``<track id>@<stamp_ns>``.

Between two keyframes centre, size and rectangle are linear in time and rotation is slerped along
the shorter arc. There is no extrapolation, and the object does not exist between a keyframe
whose ``gap_after`` is true and the next one.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each object
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self

from pydantic import Field, JsonValue, model_validator

from mmdata_schema.base import Annotation, Flag, Float, Fraction, Id, Label, StampNs
from mmdata_schema.errors import SchemaError
from mmdata_schema.spatial import Bounds, Box2D, Box3D, Quaternion, Rectangle, SizeLwh, Vec3


class Track(Annotation):
    """What both kinds of track share.

    Every column has one entry per keyframe; optional columns may be absent. Null entries mean
    unknown. ``attributes`` holds what is true of the whole track, ``keyframe_attributes`` one
    column per attribute that changes (or that the source gives per box: point counts, ids).
    A thing whose label changes has one track per label, all with its ``object_id``.
    """

    #: Columns every keyframe fills, and optional ones with what stands for "not given".
    required_columns: ClassVar[tuple[str, ...]] = ()
    optional_columns: ClassVar[dict[str, Any]] = {
        "interpolated": None,
        "visibility": None,
        "keyframe_confidence": None,
        "gap_after": False,
    }

    label: Label
    object_id: Id
    stamp_ns: list[StampNs] = Field(min_length=1)
    interpolated: list[Flag | None] | None = None
    visibility: list[Bounds | None] | None = None
    keyframe_confidence: list[Fraction | None] | None = None
    gap_after: list[Flag] | None = None
    keyframe_attributes: dict[str, list[JsonValue]] = {}

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        n = len(self.stamp_ns)
        columns = {name: getattr(self, name) for name in self._names()}
        columns |= {f"keyframe_attributes.{k}": v for k, v in self.keyframe_attributes.items()}
        for name, column in columns.items():
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} entries for {n} keyframes")
        for a, b in pairwise(self.stamp_ns):
            if b <= a:
                raise ValueError(f"stamp_ns must ascend; {b} follows {a}")
        return self

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return (*cls.required_columns, *cls.optional_columns)

    @property
    def keyframe_count(self) -> int:
        """Number of keyframes."""
        return len(self.stamp_ns)

    def index_of(self, stamp_ns: int) -> int | None:
        """Index of the keyframe at exactly this stamp."""
        i = bisect_left(self.stamp_ns, stamp_ns)
        return i if i < len(self.stamp_ns) and self.stamp_ns[i] == stamp_ns else None

    def put_keyframe(
        self, stamp_ns: int, *, attributes: Mapping[str, Any] | None = None, **columns: Any
    ) -> Self:
        """A track with the keyframe at ``stamp_ns`` added or changed.

        ``columns`` are values by column name. What is not given stays as it was, or is unknown
        in a new keyframe, which needs all required columns. ``attributes`` are entries of
        ``keyframe_attributes``. Raises :class:`SchemaError`.
        """
        unknown = set(columns) - set(self._names())
        if unknown:
            raise SchemaError(f"{type(self).__name__} has no column {sorted(unknown)[0]!r}")
        n = self.keyframe_count
        defaults = self.optional_columns
        new: dict[str, Any] = {"stamp_ns": list(self.stamp_ns)}
        for name in self._names():
            column = getattr(self, name)
            if column is not None:
                new[name] = list(column)
            elif name in columns:
                new[name] = [defaults[name]] * n
        rows = {name: list(column) for name, column in self.keyframe_attributes.items()}
        for name in attributes or {}:
            rows.setdefault(name, [None] * n)
        i = self.index_of(stamp_ns)
        if i is None:
            missing = [name for name in self.required_columns if name not in columns]
            if missing:
                raise SchemaError(f"a new keyframe of {self.id!r} needs {', '.join(missing)}")
            i = bisect_left(self.stamp_ns, stamp_ns)
            for name, column in new.items():
                column.insert(i, stamp_ns if name == "stamp_ns" else defaults.get(name))
            for column in rows.values():
                column.insert(i, None)
        for name, value in columns.items():
            new[name][i] = value
        for name, value in (attributes or {}).items():
            rows[name][i] = value
        return self.edit(**new, keyframe_attributes=rows)

    def remove_keyframe(self, stamp_ns: int) -> Self:
        """A track without the keyframe at ``stamp_ns``; :class:`SchemaError` if it is the last."""
        i = self.index_of(stamp_ns)
        if i is None:
            raise SchemaError(f"track {self.id!r} has no keyframe at {stamp_ns}")
        if self.keyframe_count == 1:
            raise SchemaError(f"track {self.id!r} has one keyframe left: remove the track")

        def without(column: list[Any]) -> list[Any]:
            return column[:i] + column[i + 1 :]

        old = {name: getattr(self, name) for name in ("stamp_ns", *self._names())}
        return self.edit(
            **{name: without(column) for name, column in old.items() if column is not None},
            keyframe_attributes={k: without(v) for k, v in self.keyframe_attributes.items()},
        )

    def _keyframe(self, i: int) -> dict[str, Any]:
        """Fields of keyframe ``i`` as a box."""
        i = range(self.keyframe_count)[i]  # negative indices and IndexError as for a list
        stamp_ns = self.stamp_ns[i]
        own = {k: v[i] for k, v in self.keyframe_attributes.items() if v[i] is not None}
        values = {n: getattr(self, n)[i] for n in self._names() if getattr(self, n) is not None}
        values.pop("gap_after", None)
        confidence = values.pop("keyframe_confidence", None)
        return {
            **values,
            "id": f"{self.id}@{stamp_ns}",
            "label": self.label,
            "object_id": self.object_id,
            "stamp_ns": stamp_ns,
            "confidence": self.confidence if confidence is None else confidence,
            "attributes": {**self.attributes, **own},
        }

    @classmethod
    def _from_boxes(
        cls, boxes: Sequence[Any], shared: tuple[str, ...], id: str, object_id: str
    ) -> Self:
        if not boxes:
            raise SchemaError("a track needs at least one box")
        boxes = sorted(boxes, key=lambda box: box.stamp_ns)
        first = boxes[0]
        for box in boxes:
            for name in shared:
                if getattr(box, name) != getattr(first, name):
                    raise SchemaError(
                        f"boxes of one track must share {name}; got {getattr(first, name)!r} "
                        f"and {getattr(box, name)!r}"
                    )
            if box.evidence or box.provenance or box.review or box.model_extra:
                raise SchemaError(
                    f"box {box.id!r} has evidence, provenance, review or unknown fields, for "
                    "which a track has no columns"
                )
        fields: dict[str, Any] = {name: getattr(first, name) for name in shared}
        fields["stamp_ns"] = [box.stamp_ns for box in boxes]
        for name in (*cls._names(), "confidence"):
            column = [getattr(box, name, None) for box in boxes]
            if any(value is not None for value in column):
                fields["keyframe_confidence" if name == "confidence" else name] = column
        names = sorted({name for box in boxes for name in box.attributes})
        fields["keyframe_attributes"] = {n: [b.attributes.get(n) for b in boxes] for n in names}
        return cls.parse({"id": id, "object_id": object_id, **fields})


class Track3D(Track):
    """The 3D boxes of one object in one frame; columns as the fields of :class:`Box3D`."""

    required_columns: ClassVar[tuple[str, ...]] = ("center_m", "size_lwh_m", "quaternion_wxyz")

    frame_id: Label
    stream: str | None = None
    center_m: list[Vec3]
    size_lwh_m: list[SizeLwh]
    quaternion_wxyz: list[Quaternion]

    def keyframe(self, i: int) -> Box3D:
        """Keyframe ``i`` as a box with id ``<track id>@<stamp_ns>``."""
        return Box3D(**self._keyframe(i), frame_id=self.frame_id, stream=self.stream)

    @classmethod
    def from_boxes(cls, boxes: Sequence[Box3D], *, id: str, object_id: str) -> Self:
        """A track of ``boxes`` (any order), which must share label, frame and stream.

        Their attributes become columns; their own ids are not kept. Raises
        :class:`SchemaError`, also when two boxes have the same stamp.
        """
        return cls._from_boxes(boxes, ("label", "frame_id", "stream"), id, object_id)


class Track2D(Track):
    """The rectangles of one object in one camera; columns as the fields of :class:`Box2D`."""

    required_columns: ClassVar[tuple[str, ...]] = ("xyxy_px",)
    optional_columns: ClassVar[dict[str, Any]] = {
        **Track.optional_columns,
        "rotation_rad": None,
        "truncated": None,
    }

    stream: Label
    xyxy_px: list[Rectangle]
    rotation_rad: list[Float | None] | None = None
    truncated: list[Fraction | None] | None = None

    def keyframe(self, i: int) -> Box2D:
        """Keyframe ``i`` as a box with id ``<track id>@<stamp_ns>``."""
        return Box2D(**self._keyframe(i), stream=self.stream)

    @classmethod
    def from_boxes(cls, boxes: Sequence[Box2D], *, id: str, object_id: str) -> Self:
        """A track of ``boxes`` (any order), which must share label and stream.

        Their attributes become columns; their own ids are not kept. Raises
        :class:`SchemaError`, also when two boxes have the same stamp.
        """
        return cls._from_boxes(boxes, ("label", "stream"), id, object_id)
