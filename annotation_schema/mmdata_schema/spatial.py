"""Boxes in 3D and 2D, masks and keypoints at one instant.

``object_id`` is the identity of the thing over time, across views and across layers: two boxes
with one ``object_id`` claim to show the same thing.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from mmdata_schema.base import (
    Annotation,
    Count,
    Flag,
    Float,
    Fraction,
    Id,
    Label,
    Model,
    NonNegative,
    StampNs,
)
from mmdata_schema.rle import rle_runs


def _unit(q: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    norm = math.hypot(*q)
    if abs(norm - 1.0) > 1e-3:
        raise ValueError(f"quaternion (qw, qx, qy, qz) has norm {norm:.6g}, not 1")
    return q


def _rectangle(r: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if r[2] < r[0] or r[3] < r[1]:
        raise ValueError(f"rectangle {list(r)} must be [x_min, y_min, x_max, y_max]")
    return r


Vec3 = tuple[Float, Float, Float]
Quaternion = Annotated[tuple[Float, Float, Float, Float], AfterValidator(_unit)]
SizeLwh = tuple[NonNegative, NonNegative, NonNegative]
Rectangle = Annotated[tuple[Float, Float, Float, Float], AfterValidator(_rectangle)]
Bounds = tuple[Fraction, Fraction]


class Box3D(Annotation):
    """One 3D box at one instant, in metres.

    ``center_m`` is the centroid and ``quaternion_wxyz`` (qw, qx, qy, qz) the rotation of the box
    in the ``frame_id`` frame (``frame_id_SE3_box``). ``size_lwh_m`` lies along the box's own x
    (heading), y (left) and z (up). ``stream`` is the stream it was drawn on. ``interpolated``
    says whether it was computed between others; absent when the source does not say.
    ``visibility`` bounds the visible fraction from below and above.
    """

    label: Label
    stamp_ns: StampNs
    frame_id: Label
    center_m: Vec3
    size_lwh_m: SizeLwh
    quaternion_wxyz: Quaternion
    object_id: Id | None = None
    stream: str | None = None
    interpolated: Flag | None = None
    visibility: Bounds | None = None


class Box2D(Annotation):
    """One rectangle in the image of camera ``stream`` whose sample has stamp ``stamp_ns``.

    ``xyxy_px`` is [x_min, y_min, x_max, y_max] in the pixel system of the rig's camera models:
    x right, y down, (0, 0) the centre of the top left pixel of the image as stored (distorted).
    ``rotation_rad`` turns the rectangle clockwise in the image about its centre. ``truncated``
    is the fraction outside the image, ``visibility`` as in :class:`Box3D`.
    """

    label: Label
    stream: Label
    stamp_ns: StampNs
    xyxy_px: Rectangle
    rotation_rad: Float | None = None
    object_id: Id | None = None
    interpolated: Flag | None = None
    truncated: Fraction | None = None
    visibility: Bounds | None = None


class Mask(Annotation):
    """A run-length encoded mask of the image of ``stream`` at ``stamp_ns``, as COCO writes it.

    ``size_hw`` is [height, width]; runs go down the columns and alternate, zeros first.
    ``counts`` is the list of runs or COCO's compressed string. Both are checked without
    decoding the mask: runs are not negative and add up to height x width.
    """

    label: Label
    stream: Label
    stamp_ns: StampNs
    size_hw: tuple[Count, Count]
    counts: str | list[Count]
    object_id: Id | None = None
    crowd: Flag | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        total = sum(self.runs())
        if total != self.size_hw[0] * self.size_hw[1]:
            raise ValueError(
                f"runs add up to {total}, not to {self.size_hw[0]} x {self.size_hw[1]} pixels"
            )
        return self

    def runs(self) -> list[int]:
        """Run lengths, zeros first."""
        return rle_runs(self.counts) if isinstance(self.counts, str) else list(self.counts)

    @property
    def area_px(self) -> int:
        """Number of pixels inside."""
        return sum(self.runs()[1::2])


class Keypoint(Model):
    """One named point. ``visible`` is false when its place was inferred behind something."""

    name: Label
    xy_px: tuple[Float, Float]
    visible: Flag | None = None
    confidence: Fraction | None = None


class Keypoints(Annotation):
    """The points of one object in the image of ``stream`` at ``stamp_ns``.

    Points that were not labelled are left out. Pixel system as in :class:`Box2D`; ``skeleton``
    names the set of points (``"coco_person"``).
    """

    label: Label
    stream: Label
    stamp_ns: StampNs
    points: list[Keypoint]
    object_id: Id | None = None
    skeleton: str | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [point.name for point in self.points]
        if len(set(names)) != len(names):
            raise ValueError("a keypoint name occurs twice")
        return self
