"""Camera offset from labels: the reprojection residual of tracked boxes against image velocity.

A camera whose stamps are late by tau shows at stamp t what happened at t - tau. A box that moves
through the image at velocity v therefore appears v * tau behind where its 3D track projects to:
residual = extrinsic error - tau * v. The regression's slope is the offset and its intercept takes
what a wrong calibration adds, so the two are not mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.geometry import CameraModel, Rig, quaternions
from mmdata.geometry.boxes import box_corners, project_box_bounds
from mmdata.geometry.pose import interpolate_poses
from mmdata.sync.correlate import Floats, OffsetEstimate, Stamps, abstain

if TYPE_CHECKING:
    from mmdata.geometry import SE3

METHOD = "label_reprojection"
HUBER = 1.345
ROUNDS = 3


@dataclass(frozen=True)
class LabelConfig:
    min_boxes: int = 30
    max_sigma_s: float = 0.003
    max_offset_s: float = 0.5
    min_velocity_px_s: float = 2.0
    """Spread of image velocity below which nothing moves enough to tell."""
    probe_s: float = 0.02
    """Half distance over which image velocity is differenced."""


@dataclass(frozen=True)
class MovingFrame:
    """Poses parent_SE3_child over time: stamp_ns (N,), position (N, 3), orientation (N, 4) wxyz."""

    parent: str
    child: str
    stamp_ns: Stamps
    position: Floats
    orientation: Floats


@dataclass(frozen=True)
class Observation:
    """Labelled 2D boxes of one camera with the 3D track they belong to.

    residual_px (n, 2): centre of the 2D label minus projected centre; velocity_px_s (n, 2): image
    velocity the 3D track predicts.
    """

    residual_px: Floats
    velocity_px_s: Floats


def label_offset(seen: Observation, config: LabelConfig | None = None) -> OffsetEstimate:
    """Offset of the camera's stamps against the 3D labels' (positive: camera late).

    Huber iteratively reweighted least squares of the residual on image velocity with one intercept
    per image axis; sigma = sqrt(sum r^2 / n / sum v^2) over centred velocity, with the weights.
    """
    config = config or LabelConfig()
    residual = np.asarray(seen.residual_px, np.float64)
    velocity = np.asarray(seen.velocity_px_s, np.float64)
    good = np.isfinite(residual).all(axis=1) & np.isfinite(velocity).all(axis=1)
    residual, velocity = residual[good], velocity[good]
    n = len(residual)
    if n < config.min_boxes:
        return abstain(METHOD, f"{n} matched boxes, {config.min_boxes} needed")
    spread = float(np.sqrt(np.mean((velocity - np.median(velocity, axis=0)) ** 2)))
    if spread < config.min_velocity_px_s:
        return abstain(METHOD, f"image velocity spreads by {spread:.1f} px/s only")
    weight = np.ones_like(residual)
    slope, error, centred = 0.0, residual, velocity
    for _ in range(50):
        total = weight.sum(axis=0)
        v0 = (weight * velocity).sum(axis=0) / total
        r0 = (weight * residual).sum(axis=0) / total
        centred, level = velocity - v0, residual - r0
        new = float((weight * centred * level).sum() / (weight * centred**2).sum())
        error = level - new * centred
        scale = 1.4826 * float(np.median(np.abs(error))) + 1e-9
        weight = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(error), 1e-12))
        if abs(new - slope) < 1e-7:
            break
        slope = new
    slope = new
    variance = float((weight * error**2).sum() / max(weight.sum() - 3, 1))
    sigma = float(np.sqrt(variance / (weight * centred**2).sum()))
    tests = {"boxes": float(n), "sigma_ms": sigma * 1e3, "residual_px": float(np.sqrt(variance))}
    if sigma > config.max_sigma_s:
        reason = f"sigma {sigma * 1e3:.1f} ms is over {config.max_sigma_s * 1e3:g} ms"
        return abstain(METHOD, reason, tests=tests)
    if abs(slope) > config.max_offset_s:
        return abstain(METHOD, f"slope of {-slope:.2f} s is no clock offset", tests=tests)
    return OffsetEstimate(METHOD, -slope * 1e9, sigma * 1e9, None, tests)


def observe(
    tracks_3d: dict[str, tuple[Stamps, Floats, Floats, Floats]],
    boxes_2d: list[tuple[str, int, tuple[float, float, float, float]]],
    camera: CameraModel,
    camera_SE3_world: SE3 | tuple[Stamps, Floats, Floats],
    config: LabelConfig | None = None,
    *,
    lag_ns: int = 0,
) -> Observation:
    """Match 2D boxes to 3D tracks by object id and predict where and how fast they appear.

    tracks_3d: object id -> (stamp_ns (K,), center_m (K, 3), size_lwh_m (K, 3), wxyz (K, 4)).
    boxes_2d: (object id, stamp_ns, xyxy in px). camera_SE3_world: a fixed pose, or the poses
    (stamp_ns, position, orientation) of world_SE3_camera over time. Boxes that leave the image, on
    either side, are left out: their centre is cut. ``lag_ns`` is an offset assumed already: the
    scene is looked at that much before each stamp.
    """
    config = config or LabelConfig()
    probe = round(config.probe_s * 1e9)
    by_track: dict[str, list[tuple[int, tuple[float, float, float, float]]]] = {}
    for identity, stamp, (u0, v0, u1, v1) in boxes_2d:
        inside = u0 > 1 and v0 > 1 and u1 < camera.width - 1 and v1 < camera.height - 1
        if inside and identity in tracks_3d and len(tracks_3d[identity][0]) >= 2:
            by_track.setdefault(identity, []).append((stamp, (u0, v0, u1, v1)))
    residuals, velocities = [np.empty((0, 2))], [np.empty((0, 2))]
    for identity, rows in by_track.items():
        track = tracks_3d[identity]
        shown = np.array([stamp for stamp, _ in rows], np.int64) - lag_ns
        xyxy = np.array([box for _, box in rows])
        at = np.stack([shown - probe, shown, shown + probe])
        at = np.clip(at, track[0][0], track[0][-1])
        known = (at[1] == shown) & (at[2] > at[0])
        if not known.any():
            continue
        at = at[:, known]
        centre = _centres(track, at.reshape(-1), camera, camera_SE3_world).reshape(3, -1, 2)
        measured = (xyxy[known, :2] + xyxy[known, 2:]) / 2
        residuals.append(measured - centre[1])
        velocities.append((centre[2] - centre[0]) / ((at[2] - at[0]) / 1e9)[:, None])
    residual, velocity = np.concatenate(residuals), np.concatenate(velocities)
    seen = np.isfinite(residual).all(axis=1) & np.isfinite(velocity).all(axis=1)
    return Observation(residual[seen], velocity[seen])


def layer_offsets(
    document: Mapping[str, Any],
    rig: Rig,
    poses: Sequence[MovingFrame] = (),
    config: LabelConfig | None = None,
) -> Iterator[tuple[str, OffsetEstimate]]:
    """(camera stream, offset) for every camera that a layer labels in 2D and the rig places.

    The regression is linear and the motion is not, so it is repeated around the offset it found.
    ``document`` is an annotation layer as parsed JSON; ``poses`` tell where the rig was when the
    tracks are in a frame it moves in. Cameras without intrinsics or without a
    known transform to the frame of the 3D tracks are skipped: there is nothing to project with.
    """
    by_frame: dict[str, dict[str, tuple[Stamps, Floats, Floats, Floats]]] = {}
    for track in document.get("tracks_3d", ()):
        by_frame.setdefault(track["frame_id"], {})[track["object_id"]] = (
            np.asarray(track["stamp_ns"], np.int64),
            np.asarray(track["center_m"], np.float64),
            np.asarray(track["size_lwh_m"], np.float64),
            np.asarray(track["quaternion_wxyz"], np.float64),
        )
    by_stream: dict[str, list[tuple[str, int, tuple[float, float, float, float]]]] = {}
    for track in document.get("tracks_2d", ()):
        rows = by_stream.setdefault(track["stream"], [])
        for stamp, box in zip(track["stamp_ns"], track["xyxy_px"], strict=True):
            rows.append((track["object_id"], int(stamp), tuple(box)))
    for box in document.get("boxes_2d", ()):
        if box.get("object_id") is not None:
            rows = by_stream.setdefault(box["stream"], [])
            rows.append((box["object_id"], int(box["stamp_ns"]), tuple(box["xyxy_px"])))
    for stream, boxes in by_stream.items():
        sensor = rig.get(stream)
        if sensor is None or sensor.camera is None:
            continue
        for frame, tracks in by_frame.items():
            pose = _camera_pose(rig, stream, frame, poses)
            if pose is None:
                continue
            lag = 0
            for _ in range(ROUNDS):
                seen = observe(tracks, boxes, sensor.camera, pose, config, lag_ns=lag)
                found = label_offset(seen, config)
                if found.offset_ns is None:
                    break
                found = replace(found, offset_ns=found.offset_ns + lag)
                lag = round(found.offset_ns or 0)
            yield stream, found


def _camera_pose(
    rig: Rig, camera: str, frame: str, poses: Sequence[MovingFrame]
) -> SE3 | tuple[Stamps, Floats, Floats] | None:
    """A fixed camera_SE3_frame, or frame_SE3_camera over time, or None where neither is known."""
    fixed = rig.transform(camera, frame)
    if fixed is not None:
        return fixed
    for moving in poses:
        mount = rig.transform(moving.child, camera) if moving.parent == frame else None
        if mount is not None:
            lever = quaternions.quat_rotate(moving.orientation, mount.translation)
            turned = quaternions.quat_multiply(moving.orientation, mount.quaternion)
            return moving.stamp_ns, moving.position + lever, turned
    return None


def _centres(
    track: tuple[Stamps, Floats, Floats, Floats],
    at: Stamps,
    camera: CameraModel,
    camera_SE3_world: SE3 | tuple[Stamps, Floats, Floats],
) -> Floats:
    """Centres (M, 2) of the projected rectangle at the instants ``at``; NaN where unseen.

    Also where it leaves the image: a label is cut there, and its noise would hide that it is.
    """
    stamps, center, size, quaternion = track
    moved, turned = interpolate_poses(stamps, center, quaternion, at)
    i = np.clip(np.searchsorted(stamps, at), 0, len(stamps) - 1)
    corners = box_corners(moved, size[i], turned)
    if isinstance(camera_SE3_world, tuple):
        # Outside the known poses this is NaN, and so is what is projected with it.
        position, orientation = interpolate_poses(*camera_SE3_world, at)
        back = quaternions.quat_conjugate(orientation)[:, None]
        corners = quaternions.quat_rotate(back, corners - position[:, None])
    else:
        corners = camera_SE3_world.apply(corners)
    bounds, _ = project_box_bounds(camera, corners)
    cut = (bounds[:, :2] < 0).any(axis=1)
    cut |= (bounds[:, 2:] > [camera.width - 1, camera.height - 1]).any(axis=1)
    bounds[cut] = np.nan
    return np.asarray((bounds[:, :2] + bounds[:, 2:]) / 2)
