"""Rotation of a camera that drives through a scene, apart from the flow that nearness makes.

The flow of a point at depth Z is A(x) w + e(x) |v| / Z: a part from rotation w that no depth
enters, and one along the line through the focus of expansion, e(x) = (x h_z - h_x, y h_z - h_y),
where h is the direction of travel. A vehicle's h stays (nearly) the same, so it is searched for
once: the direction across whose lines a rotation explains the flow best. Across these lines there
is only rotation; what is seen along them is left out (Longuet-Higgins and Prazdny 1980; the
"epipolar constraint" of later texts). Cells without texture show no flow at all and are left out
as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_PARALLAX = 2.0
"""Residual along the lines over that across them, from which a camera counts as driven."""

MIN_ONE_WAY = 0.75
"""A vehicle goes forward nearly all the time; a hand comes and goes."""

_DIRECTIONS = 300
_REFINEMENTS = 6
_MOST_PAIRS = 100
_MIN_CELLS = 24
_NEAR = 0.05
"""Within this angle (rad) of the focus of expansion, directions are uncertain."""


@dataclass(frozen=True)
class Drive:
    """heading (3,): unit direction of travel in the camera frame (sign undetermined); rotation
    (K, 3): rad/s in the camera frame, NaN where too few cells have texture; parallax: residual
    along the lines of expansion over that across them; one_way: part of it that points the same
    way along all of them."""

    heading: Floats
    rotation: Floats
    parallax: float
    one_way: float


def find_drive(flow: Floats, textured: Mask, place: Floats, turn: Floats) -> Drive | None:
    """The drive that explains (K, C, 2) flow, in units of the focal length per second.

    textured (K, C): cells to believe; place (C, 2): their normalised image coordinates; turn
    (C, 2, 3): flow per rad/s of rotation. None where the flow is no drive: nothing moves, rotation
    explains it as well along the lines as across them, or it goes to and fro.
    """
    usable = np.flatnonzero(textured.sum(axis=1) >= _MIN_CELLS)
    if len(usable) < 8:
        return None
    size = np.where(textured[usable, :, None], np.abs(flow[usable]), 0.0).sum(axis=(1, 2))
    fast = usable[np.argsort(-size)[:_MOST_PAIRS]]
    heading = _search(flow[fast], textured[fast], place, turn)
    across, along = _axes(place, heading)
    rotation = np.full((len(flow), 3), np.nan)
    rotation[usable], _ = _robust(flow[usable], textured[usable], across, turn, 5)
    left = flow[fast] - np.einsum("cij,kj->kci", turn, rotation[fast])
    away, aside = (np.einsum("ci,kci->kc", axis, left)[textured[fast]] for axis in (along, across))
    parallax = float(np.median(np.abs(away)) / max(float(np.median(np.abs(aside))), 1e-9))
    one_way = abs(float(away.sum())) / max(float(np.abs(away).sum()), 1e-9)
    if parallax < MIN_PARALLAX or one_way < MIN_ONE_WAY:
        return None
    return Drive(heading, rotation, parallax, one_way)


def _search(flow: Floats, seen: Mask, place: Floats, turn: Floats) -> Floats:
    i = np.arange(_DIRECTIONS) + 0.5
    # A spiral of equal areas over the half sphere: the sign of a line does not matter.
    z, angle = i / _DIRECTIONS, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - z * z)
    tried = np.c_[radius * np.cos(angle), radius * np.sin(angle), z]
    spread = 0.15
    rng = np.random.default_rng(0)
    best = tried[0]
    for rounds in (1, *[2] * _REFINEMENTS):
        costs = [_cost(flow, seen, place, turn, h, rounds) for h in tried]
        best = tried[int(np.argmin(costs))]
        near = best + rng.normal(0, spread, (30, 3))
        tried = np.r_[best[None], near / np.linalg.norm(near, axis=1, keepdims=True)]
        spread /= 1.7
    return np.asarray(best)


def _cost(
    flow: Floats, seen: Mask, place: Floats, turn: Floats, heading: Floats, rounds: int
) -> float:
    """Mean absolute flow across the lines of a heading that no rotation explains."""
    _, error = _robust(flow, seen, _axes(place, heading)[0], turn, rounds)
    return float(error[seen].mean())


def _robust(
    flow: Floats, seen: Mask, across: Floats, turn: Floats, rounds: int
) -> tuple[Floats, Floats]:
    """Rotation (K, 3) and what it leaves, (K, C) >= 0.

    Huber weights after the first round: what moves by itself is an outlier.
    """
    design = np.einsum("ci,cij->cj", across, turn)
    measured = np.einsum("ci,kci->kc", across, flow)
    base = seen.astype(np.float64)
    omega = _solve(design, measured, base)
    error = np.abs(measured - omega @ design.T)
    for _ in range(rounds - 1):
        scale = 1.345 * 1.4826 * np.nanmedian(np.where(seen, error, np.nan), axis=1) + 1e-12
        weight = base * np.minimum(1.0, scale[:, None] / np.maximum(error, 1e-12))
        omega = _solve(design, measured, weight)
        error = np.abs(measured - omega @ design.T)
    return omega, error


def _solve(design: Floats, measured: Floats, weight: Floats) -> Floats:
    """Weighted least squares of every row of ``measured`` (K, C) on ``design`` (C, 3)."""
    cells = len(design)
    products = (design[:, :, None] * design[:, None, :]).reshape(cells, 9)
    normal = (weight @ products).reshape(-1, 3, 3) + 1e-9 * np.eye(3)
    right = (weight * measured) @ design
    return np.asarray(np.linalg.solve(normal, right[..., None])[..., 0])


def _axes(place: Floats, heading: Floats) -> tuple[Floats, Floats]:
    """Unit directions (C, 2) across and along the lines through the focus of expansion."""
    along = place * heading[2] - heading[:2]
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = along / np.maximum(length, 1e-9) * np.minimum(1.0, length / _NEAR)
    return np.stack([-along[:, 1], along[:, 0]], axis=1), along
