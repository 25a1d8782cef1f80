"""What a camera's residuals say about the camera: turned, moved, or late.

All rectangles of a camera are regressed at once on what a small turn, a small move and a small
delay would do to each of them. A delay shows as residuals that grow with the speed at which a box
crosses the image (a slope), a turn as residuals that are alike (a median). Huber weights keep
single wrong boxes out; the Bayesian information criterion decides which of the causes are needed,
so that what one explains is not given to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdata.checks.label_limits import CauseLimits, ProjectionLimits
from mmdata.checks.labels.facing import Facing
from mmdata.checks.labels.projection import (
    camera_poses,
    corners_in_camera,
    exposures_of,
    samples,
)
from mmdata.checks.labels.scene import View
from mmdata.checks.labels.tables import Boxes3D, Floats, Ints, Mask
from mmdata.geometry import project_box_bounds

HUBER = 1.345
ROUNDS = 4
_PROBE_S, _PROBE_RAD, _PROBE_M = 0.02, 1e-3, 0.02
_MAX_PAIRS = 1500
#: No hand is steadier than this part of the assumed noise.
_LEAST_SPREAD = 0.1
#: Columns of the design: late, turn about x, y, z, move along x, y, z.
_MODELS: tuple[tuple[int, ...], ...] = (
    (), (0,), (1, 2, 3), (0, 1, 2, 3), (4, 5, 6), (0, 4, 5, 6), (1, 2, 3, 4, 5, 6),
)  # fmt: skip


@dataclass(frozen=True)
class CameraCause:
    """What is wrong with a camera.

    late_s: its stamps are late by this much (0: not found so); turn_rad and moved_m: how the camera
    really stands against the rig, in its own axes. sigma_s: standard error of late_s. effect_px:
    median displacement of boxes by each part (0: not found so); pairs: boxes that told it. alone_s:
    delay if nothing but a delay is allowed, with its standard error.
    """

    stream: str
    late_s: float
    sigma_s: float
    turn_rad: tuple[float, float, float]
    moved_m: tuple[float, float, float]
    late_px: float
    place_px: float
    pairs: int
    alone_s: float = 0.0
    alone_sigma_s: float = float("inf")

    def __bool__(self) -> bool:
        """Whether there is anything wrong with the camera."""
        return self.late_px > 0 or self.place_px > 0

    @property
    def turned_deg(self) -> float:
        return float(np.degrees(np.linalg.norm(self.turn_rad)))

    @property
    def moved_by_m(self) -> float:
        return float(np.linalg.norm(self.moved_m))


def camera_cause(
    facing: Facing, limits: CauseLimits, projection: ProjectionLimits
) -> CameraCause | None:
    """What is behind a camera's residuals (false where nothing is), or None where too few boxes can
    tell."""
    rows = _usable(facing, limits)
    if len(rows) < limits.min_pairs:
        return None
    view, boxes = facing.view, facing.boxes
    drawn = facing.two.xyxy[rows]
    track = boxes.track[facing.seen.row[facing.own[rows]]]
    stamps = facing.two.stamp_ns[rows]
    late, turn, moved = 0.0, np.zeros(3), np.zeros(3)
    model: tuple[int, ...] = ()
    design, covariance = np.zeros((0, 7)), np.zeros((7, 7))
    noise = 0.0
    alone: tuple[float, float] | None = None
    for _ in range(ROUNDS):
        corrected = view.corrected(round(late * 1e9), turn, moved)
        found = _design(corrected, boxes, track, stamps, projection)
        if found is None:
            return None
        centre, design, good = found
        residual = (0.5 * (drawn[:, :2] + drawn[:, 2:]) - centre)[good]
        side = (drawn[good, 2:] - drawn[good, :2]).max(axis=1)
        design = design[good]
        _, group = np.unique(track[good], return_inverse=True)
        if len(residual) < limits.min_pairs or group.max() + 1 < limits.min_objects:
            return None
        if alone is None:
            alone = _alone(design, residual, np.hypot(2.0, 0.03 * side), group.reshape(-1))
        model, step, spread, noise = _fit(
            design, residual, np.hypot(2.0, 0.03 * side), group.reshape(-1), limits
        )
        if model:
            covariance = spread
        late, turn, moved = late + step[0], turn + step[1:4], moved + step[4:]
        if np.linalg.norm(turn) > limits.max_turn_rad or abs(late) > limits.max_late_s:
            return None
        if abs(step[0]) < 1e-4 and np.abs(step[1:]).max() < 1e-4:
            break
    theta = np.concatenate([[late], turn, moved])
    late_px = float(np.median(np.linalg.norm(design[:, :, 0] * late, axis=1)))
    place_px = float(np.median(np.linalg.norm(design[:, :, 1:] @ theta[1:], axis=1)))
    least = max(limits.min_effect_px, limits.min_effect_noise * noise)
    sigma_s = float(np.sqrt(covariance[0, 0]))
    late_counts = (
        abs(late) * 1e3 >= limits.min_late_ms
        and sigma_s * 1e3 <= limits.max_sigma_ms
        and abs(late) > limits.significance * sigma_s
    )
    strength = max(_strength(theta, covariance, part) for part in ((1, 2, 3), (4, 5, 6)))
    far = np.linalg.norm(turn) >= limits.min_turn_rad or np.linalg.norm(moved) >= limits.min_move_m
    place_counts = place_px >= least and strength > limits.significance and far
    if not late_counts:
        late, late_px = 0.0, 0.0
    if not place_counts:
        turn, moved, place_px = np.zeros(3), np.zeros(3), 0.0
    return CameraCause(
        view.stream, float(late), sigma_s, _three(turn), _three(moved), late_px, place_px,
        len(design), *(alone or (0.0, float("inf"))),
    )  # fmt: skip


def _three(v: Floats) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])


def _usable(f: Facing, limits: CauseLimits) -> Ints:
    """Rectangles of known identity, whole and in plain sight."""
    rows = np.flatnonzero(f.own >= 0)
    if len(rows) == 0:
        return rows
    seen = f.seen
    own = f.own[rows]
    camera = f.view.camera
    border = np.array([camera.width, camera.height]) - 4.0
    whole = (f.two.xyxy[rows, :2] > 3.0).all(axis=1) & (f.two.xyxy[rows, 2:] < border).all(axis=1)
    good = whole & (seen.inside[own] > 0.9) & (seen.visible[own] > 0.7) & seen.certain[own]
    side = (f.two.xyxy[rows, 2:] - f.two.xyxy[rows, :2]).min(axis=1)
    rows = rows[good & (side >= 8.0)]
    if len(rows) > _MAX_PAIRS:
        rows = rows[np.linspace(0, len(rows) - 1, _MAX_PAIRS).astype(int)]
    return np.asarray(rows)


def _design(
    view: View, boxes: Boxes3D, track: Ints, stamps: Ints, projection: ProjectionLimits
) -> tuple[Floats, Floats, Mask] | None:
    """Centres (n, 2), derivatives (n, 2, 7) of the centres, and which rows could be projected."""
    steps = [(0.0, np.zeros(3), np.zeros(3))]
    for sign in (1, -1):
        steps.append((sign * _PROBE_S, np.zeros(3), np.zeros(3)))
    steps += [(0.0, _PROBE_RAD * axis, np.zeros(3)) for axis in np.eye(3)]
    steps += [(0.0, np.zeros(3), _PROBE_M * axis) for axis in np.eye(3)]
    centres = []
    for late, turn, moved in steps:
        seen = view.corrected(round(late * 1e9), turn, moved)
        centres.append(_centres(seen, boxes, track, stamps, projection))
    base = centres[0]
    late_column = (centres[1] - centres[2]) / (2 * _PROBE_S)
    columns = [late_column]
    columns += [(c - base) / _PROBE_RAD for c in centres[3:6]]
    columns += [(c - base) / _PROBE_M for c in centres[6:9]]
    design = np.stack(columns, axis=2)
    finite = np.isfinite(design).all(axis=(1, 2)) & np.isfinite(base).all(axis=1)
    good: Mask = np.asarray(finite)
    return (base, design, good) if good.any() else None


def _centres(
    view: View, boxes: Boxes3D, track: Ints, stamps: Ints, projection: ProjectionLimits
) -> Floats:
    """Centre of the projection of a track at each stamp, through the view as it is corrected."""
    at, inverse = np.unique(stamps, return_inverse=True)
    exposure = at - view.late_ns
    row, frame, part, _ = exposures_of(boxes, exposure, projection)
    many = len(boxes.named) + 1
    keys = frame * many + boxes.track[row]
    order = np.argsort(keys, kind="stable")
    wanted = inverse.reshape(-1) * many + track
    out = np.full((len(stamps), 2), np.nan)
    if len(keys) == 0:
        return out
    place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    hit = np.flatnonzero(keys[order][place] == wanted)
    chosen = order[place[hit]]
    position, orientation = camera_poses(view, exposure)
    position, orientation = position[frame[chosen]], orientation[frame[chosen]]
    corners, _ = corners_in_camera(boxes, row[chosen], part[chosen], position, orientation)
    bounds, seen = project_box_bounds(
        view.camera, corners, near_m=projection.near_m, samples=samples(view.camera, projection)
    )
    out[hit] = np.where(seen[:, None], 0.5 * (bounds[:, :2] + bounds[:, 2:]), np.nan)
    return out


def _fit(
    design: Floats, residual: Floats, weight_px: Floats, group: Ints, limits: CauseLimits
) -> tuple[tuple[int, ...], Floats, Floats, float]:
    """Best model, its step (7,), covariance (7, 7) and noise in px. group (n,): object of each box.

    Boxes of one object err alike (a cuboid fits it or does not), so an object with many boxes
    counts for little more than one with few, and errors are clustered by object.
    """
    A = (design / weight_px[:, None, None]).reshape(-1, 7)
    y = (residual / weight_px[:, None]).reshape(-1)
    clusters = np.repeat(group, 2)
    share = 1.0 / (1.0 + (np.bincount(group)[group] - 1) * limits.object_correlation)
    shares: Floats = np.repeat(share, 2).astype(np.float64)
    fits = [(model, *_robust(A[:, list(model)], y, shares, clusters)) for model in _MODELS]
    scale = max(_LEAST_SPREAD, min(spread for _, _, _, spread in fits))
    scores = []
    for model, theta, _, _ in fits:
        left = np.abs(y - A[:, list(model)] @ theta) / scale
        loss = np.where(left <= HUBER, 0.5 * left**2, HUBER * (left - 0.5 * HUBER))
        scores.append(2 * float((shares * loss).sum()) + limits.bic_gain * len(model))
    best = int(np.argmin(scores))
    model, theta, errors, _ = fits[best]
    index = list(model)
    step, covariance = np.zeros(7), np.zeros((7, 7))
    step[index], covariance[np.ix_(index, index)] = theta, errors
    return model, step, covariance, float(scale * np.median(weight_px))


def _alone(design: Floats, residual: Floats, weight_px: Floats, group: Ints) -> tuple[float, float]:
    """Delay and its standard error when it is the only thing allowed for, besides an offset."""
    A = (design / weight_px[:, None, None]).reshape(-1, 7)[:, :4]
    y = (residual / weight_px[:, None]).reshape(-1)
    theta, covariance, _ = _robust(A, y, np.ones(len(y)), np.repeat(group, 2))
    return float(theta[0]), float(np.sqrt(covariance[0, 0]))


def _robust(A: Floats, y: Floats, share: Floats, clusters: Ints) -> tuple[Floats, Floats, float]:
    """Huber regression by reweighting: parameters, clustered covariance, spread of what is left."""
    k = A.shape[1]
    theta: Floats = np.zeros(k)
    spread = 1.4826 * float(np.median(np.abs(y)))
    if k == 0:
        return theta, np.zeros((0, 0)), spread
    weight, normal = share.copy(), np.eye(k)
    for _ in range(30):
        normal = A.T @ (weight[:, None] * A)
        new = np.linalg.lstsq(normal, A.T @ (weight * y), rcond=None)[0]
        left = np.abs(y - A @ new)
        spread = 1.4826 * float(np.median(left)) + 1e-9
        weight = share * np.minimum(1.0, HUBER * spread / np.maximum(left, 1e-12))
        if np.abs(new - theta).max() < 1e-9:
            break
        theta = np.asarray(new, np.float64)
    pull = A * (weight * (y - A @ theta))[:, None]
    sums = np.zeros((int(clusters.max()) + 1, k))
    np.add.at(sums, clusters, pull)
    groups = len(np.unique(clusters))
    inverse = np.linalg.pinv(normal)
    small = groups / max(groups - k, 1)
    return theta, small * inverse @ (sums.T @ sums) @ inverse, spread


def _strength(theta: Floats, covariance: Floats, index: Sequence[int]) -> float:
    """How many standard errors a group of parameters is away from nothing."""
    part = [i for i in index if covariance[i, i] > 0]
    if not part:
        return 0.0
    t, c = theta[part], covariance[np.ix_(part, part)]
    return float(np.sqrt(max(float(t @ np.linalg.pinv(c) @ t), 0.0) / len(part)))


def shared_delay(causes: Sequence[CameraCause]) -> float | None:
    """Delay in seconds that cameras have alike: then it is the boxes' stamps that are off.

    Two cameras must have it, and no camera that can tell may be without it.
    """
    late = [c.late_s for c in causes if c.late_px > 0]
    if len(late) < 2:
        return None
    middle = float(np.median(late))
    room = 0.25 * abs(middle) + 0.008
    if max(abs(x - middle) for x in late) > room:
        return None
    rest = [c for c in causes if c.late_px == 0]
    denies = [c for c in rest if abs(c.alone_s - middle) > room + 3 * c.alone_sigma_s]
    return middle if len(denies) <= len(late) // 4 else None
