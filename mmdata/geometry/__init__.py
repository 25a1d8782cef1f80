"""Rotations, rigid transforms, camera models and the rig: NumPy only.

Conventions (docs/conventions.md): quaternions are ``qw, qx, qy, qz``; ``a_SE3_b`` maps points in
b's frame into a's; metres, radians, right-handed frames; camera frames are x right, y down,
z forward; pixel centres lie at integer coordinates; stamps are int64 nanoseconds.
"""

from mmdata.geometry.boxes import (
    BOX_EDGES,
    ProjectedBox,
    box_corners,
    clip_polygon,
    points_in_box,
    project_box,
    project_box_bounds,
    project_box_edges,
    project_polyline,
)
from mmdata.geometry.camera import CameraModel, LensModel
from mmdata.geometry.linear import map_vectors
from mmdata.geometry.pose import SE3, interpolate_poses
from mmdata.geometry.quaternions import (
    quat_angle,
    quat_conjugate,
    quat_continuous,
    quat_from_matrix,
    quat_from_rotvec,
    quat_multiply,
    quat_normalise,
    quat_rotate,
    quat_shortest_arc,
    quat_slerp,
    quat_to_matrix,
    quat_to_rotvec,
)
from mmdata.geometry.rig import Rig, Sensor

__all__ = [
    "BOX_EDGES",
    "SE3",
    "CameraModel",
    "LensModel",
    "ProjectedBox",
    "Rig",
    "Sensor",
    "box_corners",
    "clip_polygon",
    "interpolate_poses",
    "map_vectors",
    "points_in_box",
    "project_box",
    "project_box_bounds",
    "project_box_edges",
    "project_polyline",
    "quat_angle",
    "quat_conjugate",
    "quat_continuous",
    "quat_from_matrix",
    "quat_from_rotvec",
    "quat_multiply",
    "quat_normalise",
    "quat_rotate",
    "quat_shortest_arc",
    "quat_slerp",
    "quat_to_matrix",
    "quat_to_rotvec",
]
