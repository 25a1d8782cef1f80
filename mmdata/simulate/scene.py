"""A scene of textured panels and moving boxes, and rays cast into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmdata.geometry import map_vectors

Floats = npt.NDArray[np.float64]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """A fixed textured rectangle: centre + a * half_u + b * half_v for a, b in -1 to 1.

    texture: (H, W, 3) uint8 BGR, u along its columns, v along its rows; repeat times each.
    """

    name: str
    center: Floats
    half_u: Floats
    half_v: Floats
    texture: npt.NDArray[np.uint8]
    repeat: int = 1

    @property
    def normal(self) -> Floats:
        n = np.cross(self.half_u, self.half_v)
        return np.asarray(n / np.linalg.norm(n))


@dataclass(frozen=True)
class Solid:
    """A box, at one pose or at as many poses as the caller asks about at once.

    position (3,) or (N, 3) and rotation (3, 3) or (N, 3, 3) in the scene's frame. tiles: into how
    many squares each face is split along the box's axes; they alternate in brightness.
    """

    name: str
    size: Floats
    colour: Colour
    position: Floats
    rotation: Floats
    tiles: tuple[int, int, int] = (1, 1, 1)
    reflectivity: float = 0.5

    def take(self, index: Any) -> Solid:
        """The solid at one of its poses (an integer) or at several (an index array)."""
        if self.position.ndim == 1:
            return self
        return replace(self, position=self.position[index], rotation=self.rotation[index])


@dataclass(frozen=True)
class Hits:
    """What rays met: distance (N,) in metres, infinite where nothing; surface (N,), index into
    solids, then panels, -1 for nothing; cosine (N,) of the angle of incidence."""

    distance: Floats
    surface: npt.NDArray[np.int32]
    cosine: Floats


def cast(
    origin: npt.ArrayLike,
    direction: npt.ArrayLike,
    solids: Sequence[Solid],
    panels: Sequence[Panel] = (),
) -> Hits:
    """Cast rays from origin (3,) or (N, 3) along unit directions (N, 3).

    A solid with N poses is met by ray i at its pose i.
    """
    d = np.asarray(direction, dtype=np.float64)
    o = np.broadcast_to(np.asarray(origin, dtype=np.float64), d.shape)
    best = np.full(len(d), np.inf)
    surface = np.full(len(d), -1, dtype=np.int32)
    cosine = np.zeros(len(d))
    for index, solid in enumerate(solids):
        near = _may_hit(o, d, solid, best)
        if not near.any():
            continue
        rows = np.flatnonzero(near)
        part = solid.take(rows)
        distance, facing = _cast_box(o[rows], d[rows], part)
        closer = distance < best[rows]
        rows = rows[closer]
        best[rows], surface[rows], cosine[rows] = distance[closer], index, facing[closer]
    for index, panel in enumerate(panels, start=len(solids)):
        u, v = (h / (h @ h) for h in (panel.half_u, panel.half_v))
        axes = np.stack([panel.normal, u, v])
        slope, along_u, along_v = map_vectors(axes, d).T
        height, from_u, from_v = map_vectors(axes, o - panel.center).T
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -height / slope
            inside = (np.abs(from_u + distance * along_u) <= 1) & (
                np.abs(from_v + distance * along_v) <= 1
            )
        closer = inside & (distance > 1e-6) & (distance < best)
        best[closer], surface[closer] = distance[closer], index
        cosine[closer] = np.abs(slope[closer])
    return Hits(best, surface, cosine)


def _may_hit(o: Floats, d: Floats, solid: Solid, best: Floats) -> npt.NDArray[np.bool_]:
    """Rays that pass through the solid's bounding sphere."""
    offset = solid.position - o
    along = np.einsum("ni,ni->n", offset, d)
    radius = 0.5 * np.linalg.norm(solid.size)
    miss = np.einsum("ni,ni->n", offset, offset) - along * along
    return np.asarray((miss <= radius**2) & (along > -radius) & (along - radius < best))


def _cast_box(o: Floats, d: Floats, solid: Solid) -> tuple[Floats, Floats]:
    local_o = np.einsum("...ji,...j->...i", solid.rotation, o - solid.position)
    local_d = np.einsum("...ji,...j->...i", solid.rotation, d)
    with np.errstate(divide="ignore"):
        step = 1.0 / local_d
    low, high = (-0.5 * solid.size - local_o) * step, (0.5 * solid.size - local_o) * step
    enter, leave = np.minimum(low, high), np.maximum(low, high)
    axis = np.argmax(enter, axis=-1)
    first, last = enter.max(axis=-1), leave.min(axis=-1)
    hit = (first <= last) & (first > 1e-6)
    facing = np.abs(np.take_along_axis(local_d, axis[:, None], axis=-1)[:, 0])
    return np.where(hit, first, np.inf), facing
