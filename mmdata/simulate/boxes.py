"""The true labels of a drive: 3D boxes of every sweep, 2D boxes of every exposure."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from mmdata.geometry import SE3, CameraModel, box_corners, project_box_bounds, quat_to_matrix
from mmdata.simulate.episode import Stamps
from mmdata.simulate.motion import Floats
from mmdata.simulate.render import visible_polygons
from mmdata.simulate.street import Street
from mmdata.streams import Ragged

MAX_RANGE_M = 70.0
MIN_SIDE_PX = 4.0
MIN_VISIBILITY = 0.05
_SCALE = 0.5


def tracks_3d(
    street: Street, stamp_ns: Stamps, t: Floats, surfaces: Ragged | None
) -> list[dict[str, Any]]:
    """One track per actor: its box in ``world`` at the instant of every sweep's stamp.

    surfaces: per sweep, which solid each point lies on; gives the column ``points``. Keyframes
    farther than MAX_RANGE_M from the vehicle are left out.
    """
    ego = street.ego_pose(t)[0]
    tracks = []
    for index, actor in enumerate(street.actors):
        center, orientation = actor.pose(t)
        near = np.linalg.norm(center - ego, axis=1) < MAX_RANGE_M
        rows = np.flatnonzero(near)
        if len(rows) == 0:
            continue
        track = {
            "object_id": actor.object_id,
            "label": actor.label,
            "stream": "lidar_points",
            "frame_id": "world",
            "stamp_ns": stamp_ns[rows].tolist(),
            "true_ns": stamp_ns[rows].tolist(),
            "center_m": center[rows].tolist(),
            "size_lwh_m": [actor.size_m.tolist()] * len(rows),
            "quaternion_wxyz": orientation[rows].tolist(),
        }
        if surfaces is not None:
            track["points"] = [int((surfaces[int(i)] == index).sum()) for i in rows]
        tracks.append(track)
    return tracks


def boxes_2d(street: Street, camera_name: str, stamp_ns: Stamps, t: Floats) -> list[dict[str, Any]]:
    """Rectangles around the whole (also hidden) actors, cut to the image, at every exposure.

    ``visibility`` is the share of the actor's outline within the image that nothing hides,
    ``truncated`` the share of its rectangle outside the image. Actors of which less than
    MIN_VISIBILITY or MIN_SIDE_PX shows are left out.
    """
    camera = street.rig[camera_name].camera
    assert camera is not None
    small = _smaller(camera)
    position, orientation = street.sensor_pose(camera_name, t)
    turn = quat_to_matrix(orientation)
    corners, far = [], []
    for actor in street.actors:
        center, turned = actor.pose(t)
        offset = box_corners(center, actor.size_m, turned) - position[:, None]
        corners.append(offset @ turn)
        far.append(np.linalg.norm(center - position, axis=1) > MAX_RANGE_M)
    every = np.array(corners).reshape(-1, 8, 3)
    bounds = project_box_bounds(camera, every, samples=16)[0].reshape(-1, len(t), 4)
    cut = np.clip(
        bounds, [-0.5, -0.5, -0.5, -0.5], np.array([camera.width, camera.height] * 2) - 0.5
    )
    side = np.minimum(cut[..., 2] - cut[..., 0], cut[..., 3] - cut[..., 1])
    candidate = (side >= MIN_SIDE_PX) & ~np.array(far)
    solids = street.solids(t)
    out = []
    for i in range(len(t)):
        indices = np.flatnonzero(candidate[:, i])
        if len(indices) == 0:
            continue
        shown = _visibility(small, SE3(turn[i], position[i]), [s.take(i) for s in solids], indices)
        for index, visible in zip(indices.tolist(), shown, strict=True):
            if visible < MIN_VISIBILITY:
                continue
            whole, inside = bounds[index, i], cut[index, i]
            out.append(
                {
                    "stream": camera_name,
                    "label": street.actors[index].label,
                    "object_id": street.actors[index].object_id,
                    "stamp_ns": int(stamp_ns[i]),
                    "true_ns": int(stamp_ns[i]),
                    "xyxy_px": inside.tolist(),
                    "truncated": float(1.0 - _area(inside) / _area(whole)),
                    "visibility": round(float(visible), 4),
                }
            )
    return out


def _visibility(
    camera: CameraModel, pose: SE3, solids: list[Any], indices: np.ndarray[Any, Any]
) -> list[float]:
    """Share of each solid's outline that is not painted over by nearer solids."""
    polygons, owner = visible_polygons(camera, pose, solids)
    seen = np.full((camera.height, camera.width), 255, np.uint8)
    for polygon, index in zip(polygons, owner.tolist(), strict=True):
        cv2.fillConvexPoly(seen, polygon, index, cv2.LINE_8, 4)
    out = []
    for index in indices.tolist():
        alone = np.zeros_like(seen)
        for k in np.flatnonzero(owner == index):
            cv2.fillConvexPoly(alone, polygons[k], 1, cv2.LINE_8, 4)
        total = int(alone.sum())
        shown = int(((seen == index) & (alone > 0)).sum())
        out.append(shown / total if total else 0.0)
    return out


def _smaller(camera: CameraModel) -> CameraModel:
    """The same view in fewer pixels: shares of area need no more."""
    K = camera.K.copy()
    K[:2] *= _SCALE
    K[:2, 2] += 0.5 * (_SCALE - 1)
    width, height = round(camera.width * _SCALE), round(camera.height * _SCALE)
    return CameraModel(camera.model, K, camera.distortion, width, height)


def _area(bounds: Floats) -> float:
    return float((bounds[2] - bounds[0]) * (bounds[3] - bounds[1]))
