"""Points of a LiDAR sweep or a depth image: for display, for counting, for fitting."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import Kind, Stream
from mmdata.geometry import (
    Rig,
    points_in_box,
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
)
from mmdata_viewer.errors import BadRequestError, NotThereError
from mmdata_viewer.frames import FrameGraph

MAGIC = 0x50444D4D  # "MMDP"
MOST_POINTS = 2_000_000
_STEPS = 32_000
_POSE_STEP_NS, _MOST_POSES = 1_000_000, 500
_INTENSITIES = ("intensity", "reflectivity", "i", "reflectance")

Floats = NDArray[np.float64]


def read_points(
    stream: Stream, i: int, rig: Rig, frames: FrameGraph | None = None
) -> tuple[Floats, Floats | None]:
    """Points (P, 3) in metres in the stream's own frame, and intensities (P,) where known.

    Points with a coordinate that is not finite are left out, as are depths of zero. With `frames`,
    the points of a sweep are moved to where they would have been measured at the sweep's stamp,
    had the sensor stood still (what moves by itself stays smeared): needs `point_offset_ns` and a
    pose stream above the sensor's frame.
    """
    if not 0 <= i < len(stream):
        raise NotThereError(f"sample {i} of {stream.name!r}: there are {len(stream)}")
    if stream.kind is Kind.SWEEP:
        sample = stream[i]
        points, intensity, finite = _sweep_points(sample, stream.name)
        offsets = sample.get("point_offset_ns")
        if frames is not None and offsets is not None and np.shape(offsets) == finite.shape:
            frame = stream.info.frame_id or stream.name
            points = deskewed(points, offsets[finite], int(stream.stamp_ns[i]), frame, frames)
        return points, intensity
    if stream.kind is Kind.DEPTH:
        return _depth_points(stream, i, rig), None
    raise BadRequestError(f"stream {stream.name!r} ({stream.kind}) holds no points")


def deskewed(
    points: Floats, offset_ns: Any, stamp_ns: int, frame: str, frames: FrameGraph
) -> Floats:
    """Points (P, 3) as seen at stamp_ns from a sensor that moved while it measured them.

    offset_ns (P,): when each point was measured, after stamp_ns. Poses are taken every
    millisecond. Unchanged where the sensor's pose is not known.
    """
    root = frames.root(frame)
    start = frames.transform(root, frame, stamp_ns)
    bins = np.asarray(offset_ns, np.int64) // _POSE_STEP_NS
    steps = np.unique(bins)
    if start is None or root == frame or len(steps) > _MOST_POSES:
        return points
    back, moved = start.inverse(), points.copy()
    for step in steps.tolist():
        pose = frames.transform(root, frame, stamp_ns + step * _POSE_STEP_NS + _POSE_STEP_NS // 2)
        rows = bins == step
        if pose is not None:
            moved[rows] = (back @ pose).apply(points[rows])
    return moved


def _sweep_points(
    sample: dict[str, Any], name: str
) -> tuple[Floats, Floats | None, NDArray[np.bool_]]:
    if not {"x", "y", "z"} <= set(sample):
        raise BadRequestError(f"sweep stream {name!r} has no fields x, y, z")
    points = np.stack([np.asarray(sample[a], np.float64) for a in "xyz"], axis=-1)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=-1))
    intensity = None
    for field in _INTENSITIES:
        if field in sample and np.shape(sample[field]) == (len(points),):
            intensity = np.nan_to_num(np.asarray(sample[field], np.float64))[finite]
            break
    return points[finite], intensity, finite


def depth_unit_m(stream: Stream) -> float | None:
    """Metres per unit of a depth stream, None where the stream does not say."""
    unit = stream.info.attrs.get("unit") or stream.info.fields["data"].unit
    return {"mm": 1e-3, "m": 1.0}.get(str(unit))


def _depth_points(stream: Stream, i: int, rig: Rig) -> Floats:
    unit = depth_unit_m(stream)
    camera = next(
        (
            sensor.camera
            for sensor in rig.values()
            if sensor.camera is not None
            and (sensor.name == stream.info.sensor or sensor.frame_id == stream.info.frame_id)
        ),
        None,
    )
    if unit is None or camera is None:
        return np.empty((0, 3))
    depth = np.asarray(stream[i], np.float64) * unit
    # Depth may come smaller than the calibrated image: pixels are scaled about their corners.
    scale = np.array([camera.width / depth.shape[1], camera.height / depth.shape[0]])
    v, u = np.nonzero(np.isfinite(depth) & (depth > 0))
    rays = camera.unproject((np.stack([u, v], axis=-1) + 0.5) * scale - 0.5)
    points = rays / rays[:, 2:] * depth[v, u][:, None]
    return np.asarray(points[np.isfinite(points).all(axis=-1)])


def encode_points(points: Floats, intensity: Floats | None, budget: int) -> bytes:
    """The display form of a cloud: int16 steps from a float64 origin.

    Little-endian: u32 magic, u32 count, u32 total, u32 has_intensity, f64 origin[3], f64 step_m,
    then i16 xyz[count, 3], padding to 4, u8 intensity[count]. Above the budget, points are taken
    at equal strides, so that the shown ones keep the sweep's pattern.
    """
    total = len(points)
    stride = max(1, -(-total // max(1, min(budget, MOST_POINTS))))
    points = points[::stride]
    low = points.min(axis=0) if total else np.zeros(3)
    high = points.max(axis=0) if total else np.zeros(3)
    origin = 0.5 * (low + high)
    step = max(float((high - low).max()) / (2 * _STEPS), 1e-6)
    steps = np.rint((points - origin) / step).astype("<i2")
    head = struct.pack("<IIII", MAGIC, len(points), total, int(intensity is not None))
    parts = [head, struct.pack("<4d", *origin, step), steps.tobytes()]
    parts.append(b"\0" * (-len(parts[-1]) % 4))
    if intensity is not None:
        parts.append(_to_bytes(intensity[::stride]).tobytes())
    return b"".join(parts)


def _to_bytes(values: Floats) -> NDArray[np.uint8]:
    """Spread over 0-255 by rank limits, so that one bright return does not darken the rest."""
    if len(values) == 0:
        return np.empty(0, np.uint8)
    low, high = np.percentile(values, [1, 99])
    return np.asarray(np.clip((values - low) / (high - low or 1.0), 0, 1) * 255).astype(np.uint8)


def count_in_box(points: Floats, center: Any, size: Any, quaternion: Any) -> int:
    """Points (P, 3) inside a box of the same frame, faces included."""
    return int(np.count_nonzero(points_in_box(points, center, size, quaternion)))


def fit_box(
    points: Floats, center: Any, size: Any, quaternion: Any, margin_m: float = 0.3
) -> tuple[Floats, Floats, Floats] | None:
    """The box around the points in and near a roughly placed one; None with fewer than five.

    The yaw that lays most points close to the sides of their bounding rectangle (the closeness
    criterion of Zhang et al., 2017, "Efficient L-shape fitting") is looked for within 45 degrees
    of the given one. Roll and pitch are kept. Returns center, size and quaternion.
    """
    center, size = np.asarray(center, np.float64), np.asarray(size, np.float64)
    q = np.asarray(quaternion, np.float64)
    grown = size + 2 * margin_m
    near = points[points_in_box(points, center, grown, q)]
    local = quat_rotate(quat_conjugate(q), near - center)
    # The lowest decimetre is mostly ground, unless the whole object is that flat.
    if grown[2] > 0.6:
        local = local[local[:, 2] > local[:, 2].min(initial=0.0) + 0.12]
    if len(local) < 5:
        return None

    def closeness(yaw: float) -> float:
        c, s = np.cos(yaw), np.sin(yaw)
        along, across = local[:, 0] * c + local[:, 1] * s, local[:, 1] * c - local[:, 0] * s
        nearest = np.minimum.reduce(
            [along.max() - along, along - along.min(), across.max() - across, across - across.min()]
        )
        return float(np.sum(1.0 / np.maximum(nearest, 0.02)))

    yaws = np.deg2rad(np.arange(-45, 45, 1.0))
    # Of equal scores the smallest turn.
    best = max(yaws, key=lambda yaw: (round(closeness(float(yaw)), 6), -abs(yaw)))
    turned = quat_multiply(q, quat_from_rotvec([0.0, 0.0, float(best)]))
    aligned = quat_rotate(quat_conjugate(turned), near - center)
    keep = aligned[:, 2] >= local[:, 2].min() - 1e-9
    low, high = aligned[keep].min(axis=0), aligned[keep].max(axis=0)
    # The bottom stays where it was: points say nothing about what stands on the ground.
    low[2] = min(low[2], -0.5 * size[2])
    return center + quat_rotate(turned, 0.5 * (low + high)), np.maximum(high - low, 0.02), turned
