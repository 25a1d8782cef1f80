"""What a camera's residuals say about the camera: turned, moved, or late.

All rectangles of a camera are regressed at once on what a small turn, a small move and a small
delay would do to each of them. A delay shows as residuals that grow with the speed at which a box
crosses the image (a slope), a turn as residuals that are alike (a median).
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
from mmdata.checks.labels.regression import LATE, MOVE, TURN, Fit, fit_models
from mmdata.checks.labels.scene import View
from mmdata.checks.labels.tables import Boxes3D, Floats, Ints, Mask
from mmdata.geometry import project_box_bounds

ROUNDS = 4
_PROBE_S, _PROBE_RAD, _PROBE_M = 0.02, 1e-3, 0.02
_MAX_PAIRS = 1500


@dataclass(frozen=True)
class CameraCause:
    """What is wrong with a camera.

    late_s: its stamps are late by this much (0: not found so); turn_rad and moved_m: how the camera
    really stands against the rig, in its own axes. sigma_s: standard error of late_s. late_px,
    place_px: median displacement of boxes by each part (0: not found so); pairs: boxes that told
    it. alone_s: delay if nothing but a delay and a turn is allowed, with its standard error.
    untold: why nothing can be said of the camera; empty where something can.
    """

    stream: str
    late_s: float = 0.0
    sigma_s: float = float("inf")
    turn_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moved_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    late_px: float = 0.0
    place_px: float = 0.0
    pairs: int = 0
    alone_s: float = 0.0
    alone_sigma_s: float = float("inf")
    untold: str = ""

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
    facing: Facing, limits: CauseLimits, projection: ProjectionLimits, *, late: bool = True
) -> CameraCause:
    """What is behind a camera's residuals; false where nothing is, or too few boxes can tell.
    late: whether a delay may be it."""
    view, boxes = facing.view, facing.boxes
    rows = _usable(facing, limits)
    drawn = facing.two.xyxy[rows]
    track = boxes.track[facing.seen.row[facing.own[rows]]]
    stamps = facing.two.stamp_ns[rows]
    theta = np.zeros(7)
    for _ in range(ROUNDS):
        corrected = view.corrected(round(theta[0] * 1e9), theta[1:4], theta[4:])
        found = _design(corrected, boxes, track, stamps, projection)
        centre, design, good = found
        design = design[good]
        objects, group = np.unique(track[good], return_inverse=True)
        if len(design) < limits.min_pairs or len(objects) < limits.min_objects:
            why = (
                f"{len(design)} rectangles of {len(objects)} objects in plain sight; what is wrong "
                f"with the camera takes {limits.min_pairs} of {limits.min_objects} to tell"
            )
            return CameraCause(view.stream, untold=why)
        # As if the camera were linear about where it is taken to stand, and not corrected.
        residual = (0.5 * (drawn[:, :2] + drawn[:, 2:]) - centre)[good] + design @ theta
        weight_px = np.hypot(2.0, 0.03 * (drawn[good, 2:] - drawn[good, :2]).max(axis=1))
        fits = fit_models(design, residual, weight_px, group.reshape(-1), limits)
        # The best of those whose every fault is large and certain enough to be told.
        noise = fits[0].spread * float(np.median(weight_px))
        told = (f for f in fits if _counts(f, design, noise, limits))
        best = next(f for f in told if late or LATE not in f.faults)
        step, theta = best.theta - theta, best.theta
        if np.abs(step).max() < 1e-4:
            break
    alone = next(f for f in fits if f.faults == (LATE, TURN))
    late_px, place_px = _effects(best, design)
    moved = best.told
    return CameraCause(
        view.stream, float(moved[0]), _sigma_s(best), _three(moved[1:4]), _three(moved[4:]),
        late_px, place_px, len(design), float(alone.theta[0]), _sigma_s(alone),
    )  # fmt: skip


def _counts(fit: Fit, design: Floats, noise_px: float, limits: CauseLimits) -> bool:
    """Whether all faults of a fit are large and certain enough to be told."""
    late_s, turn, moved = abs(fit.theta[0]), fit.theta[1:4], fit.theta[4:]
    if LATE in fit.faults and not (
        limits.min_late_ms <= late_s * 1e3 <= limits.max_late_s * 1e3
        and _sigma_s(fit) * 1e3 <= limits.max_sigma_ms
        and fit.strength(LATE) > limits.significance
    ):
        return False
    sizes = (
        (TURN, float(np.linalg.norm(turn)), limits.min_turn_rad, limits.max_turn_rad),
        (MOVE, float(np.linalg.norm(moved)), limits.min_move_m, np.inf),
    )
    for fault, size, least, most in sizes:
        if fault in fit.faults and not (
            least <= size <= most and fit.strength(fault) > limits.significance
        ):
            return False
    placed = TURN in fit.faults or MOVE in fit.faults
    least_px = max(limits.min_effect_px, limits.min_effect_noise * noise_px)
    return not placed or _effects(fit, design)[1] >= least_px


def _effects(fit: Fit, design: Floats) -> tuple[float, float]:
    """Median displacement in px by the delay, and by turn and move."""
    late = design[:, :, 0] * fit.told[0]
    place = design[:, :, 1:] @ fit.told[1:]
    late_px, place_px = (float(np.median(np.linalg.norm(x, axis=1))) for x in (late, place))
    return late_px, place_px


def _sigma_s(fit: Fit) -> float:
    return float(np.sqrt(fit.covariance[0, 0]))


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
) -> tuple[Floats, Floats, Mask]:
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
    return base, design, good


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


def shared_delay(causes: Sequence[CameraCause], limits: CauseLimits) -> float | None:
    """Delay in seconds that cameras have alike: then it is the boxes' stamps that are off.

    Two cameras must have it, and hardly one that can tell may be without it.
    """
    sure = [c for c in causes if c.alone_sigma_s * 1e3 <= limits.max_sigma_ms]
    late = [
        c.alone_s for c in sure
        if abs(c.alone_s) * 1e3 >= limits.min_late_ms
        and abs(c.alone_s) > limits.significance * c.alone_sigma_s
    ]  # fmt: skip
    if len(late) < 2:
        return None
    middle = float(np.median(late))
    room = 0.25 * abs(middle) + 0.008
    denies = [c for c in sure if abs(c.alone_s - middle) > room + 3 * c.alone_sigma_s]
    return middle if len(denies) <= (len(sure) - len(denies)) // 4 else None
