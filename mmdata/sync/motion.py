"""Motion seen by cameras, as signals for :mod:`mmdata.sync.correlate`.

Dense Farneback flow between consecutive grey frames at reduced size. A flow sample belongs to the
**midpoint** of its pair of frames, and is divided by their distance in time, so drops and jitter do
not pass for motion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.sync.correlate import Floats, Signal, Stamps
from mmdata.sync.heading import find_drive

FLOW_WIDTH = 128
"""Frames are reduced to about this width: motion, not detail, is wanted."""


@dataclass(frozen=True)
class CameraMotion:
    """Per pair of frames, stamped at its midpoint; K = number of pairs.

    speed      (K,) mean flow magnitude, widths/s.
    field      (K, 4) mean flow x, y, divergence and curl, 1/s in widths.
    rotation   (K, 3) camera rotation rate that explains the flow best, rad/s up to the scale of the
               focal length; in the camera's own frame (x right, y down, z forward).
    energy     (K,) mean absolute grey difference per second: the fallback without optical flow.
    still      (K,) pairs whose pixels are identical.
    brightness (K + 1,) mean grey of each frame, 0-255.
    frame_ns   (K + 1,) stamps of the frames.
    heading    (3,) direction of travel in the camera frame, where the camera drives through the
               scene; ``rotation`` is then free of what nearness adds to the flow.
    """

    stamp_ns: Stamps
    speed: Floats
    field: Floats
    rotation: Floats
    energy: Floats
    still: NDArray[np.bool_]
    brightness: Floats
    frame_ns: Stamps
    heading: Floats | None = None

    def signal(self, values: Floats) -> Signal:
        return Signal(self.stamp_ns, values)


def camera_motion(
    stamp_ns: Stamps, frames: Iterable[NDArray[np.uint8]], *, focal_widths: float = 0.8
) -> CameraMotion:
    """Motion of a camera from its grey frames (H, W) uint8, all of one size, one per stamp.

    ``focal_widths`` is the focal length over the image width; it only weighs roll against pan and
    tilt, so the default of a usual lens (64 degrees) serves where the camera is not calibrated.
    """
    import cv2

    stamps = np.asarray(stamp_ns, np.int64)
    speed, field, rotation, energy, still, brightness = [], [], [], [], [], []
    previous: NDArray[np.uint8] | None = None
    solver: Floats | None = None
    grids, textured = [], []
    frames_shape: tuple[int, ...] = ()
    for i, frame in enumerate(frames):
        frames_shape = frame.shape
        brightness.append(float(frame.mean()))
        if previous is not None:
            dt = max(float(stamps[i] - stamps[i - 1]) / 1e9, 1e-6)
            difference = float(cv2.absdiff(previous, frame).mean())
            energy.append(difference / dt)
            still.append(difference == 0.0)
            if difference == 0.0:
                flow = np.zeros((*frame.shape, 2), np.float32)
            else:
                flow = cv2.calcOpticalFlowFarneback(previous, frame, None, 0.5, 3, 15, 2, 5, 1.1, 0)
            if solver is None:
                solver = _rotation_solver(frame.shape, focal_widths)
            grid = flow[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL].astype(np.float64)
            grid /= frame.shape[1] * dt
            speed.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()) / frame.shape[1] / dt)
            field.append(_field(grid))
            rotation.append(_robust_solve(solver, grid.reshape(-1)))
            grids.append(grid.astype(np.float32).reshape(-1, 2))
            textured.append(_texture(previous))
        previous = frame
    pairs = len(speed)
    middle = (stamps[:-1] + (stamps[1:] - stamps[:-1]) // 2)[:pairs]
    turn = np.asarray(rotation, np.float64).reshape(pairs, 3)
    drive = None
    if solver is not None:
        level: Floats = np.stack(textured)
        # Noise alone makes some texture: a fiftieth of what textured places have is none.
        drive = find_drive(
            np.asarray(np.stack(grids) / focal_widths, np.float64),
            np.asarray(level >= 0.02 * float(np.quantile(level, 0.9))),
            _places(frames_shape, focal_widths),
            solver.reshape(-1, 2, 3) / focal_widths,
        )
    if drive is not None:
        known = np.isfinite(drive.rotation).all(axis=1)
        turn[known] = drive.rotation[known]
        turn[~known] = 0.0
    return CameraMotion(
        stamp_ns=middle,
        speed=np.asarray(speed, np.float64),
        field=np.asarray(field, np.float64).reshape(pairs, 4),
        rotation=turn,
        energy=np.asarray(energy, np.float64),
        still=np.asarray(still, bool),
        brightness=np.asarray(brightness, np.float64),
        frame_ns=stamps[: pairs + 1],
        heading=None if drive is None else drive.heading,
    )


_CELL = 8


def _field(grid: Floats) -> list[float]:
    rows, columns = grid.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    x, y = (x - x.mean()) / columns, (y - y.mean()) / columns
    u, v = grid[..., 0], grid[..., 1]
    weight = float((x * x + y * y).mean())
    return [
        float(u.mean()),
        float(v.mean()),
        float((u * x + v * y).mean()) / weight,
        float((v * x - u * y).mean()) / weight,
    ]


def _rotation_solver(shape: tuple[int, ...], focal: float) -> Floats:
    """Design matrix (2 cells, 3): flow in widths/s of a camera that turns at one rad/s."""
    x, y = _places(shape, focal).reshape(*_probe(shape).shape, 2).transpose(2, 0, 1)
    u = np.stack([x * y, -(1 + x * x), y], axis=-1)
    v = np.stack([1 + y * y, -x * y, -x], axis=-1)
    return focal * np.stack([u, v], axis=2).reshape(-1, 3)


def _probe(image: NDArray[Any] | tuple[int, ...]) -> NDArray[Any]:
    """The middle of every cell of an image, or of one of that shape."""
    pixels = np.zeros(image) if isinstance(image, tuple) else image
    return pixels[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL]


def _places(shape: tuple[int, ...], focal: float) -> Floats:
    """Normalised coordinates (C, 2) of the cells."""
    rows, columns = _probe(shape).shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    x = (x * _CELL + _CELL // 2 - shape[1] / 2) / shape[1] / focal
    y = (y * _CELL + _CELL // 2 - shape[0] / 2) / shape[1] / focal
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _texture(frame: NDArray[np.uint8]) -> Floats:
    """Least eigenvalue (C,) of the structure tensor of each cell's middle."""
    import cv2

    smooth = cv2.GaussianBlur(frame, (0, 0), 1.0).astype(np.float32)
    return np.asarray(_probe(cv2.cornerMinEigenVal(smooth, 7)).reshape(-1), np.float64)


def _robust_solve(design: Floats, flow: Floats) -> Floats:
    """Least squares with two rounds of Huber weights: moving objects and parallax are outliers."""
    weight: Floats = np.ones(len(flow))
    omega: Floats = np.zeros(3)
    for _ in range(3):
        weighted = design * weight[:, None]
        omega[:] = np.linalg.solve(weighted.T @ design + 1e-12 * np.eye(3), weighted.T @ flow)
        residual = np.abs(flow - design @ omega)
        scale = 1.345 * 1.4826 * float(np.median(residual)) + 1e-12
        weight = np.minimum(1.0, scale / np.maximum(residual, 1e-12))
    return omega


def small_grey(data: bytes | NDArray[np.uint8], reduction: int = 2) -> NDArray[np.uint8]:
    """Grey frame of ``FLOW_WIDTH`` columns from encoded bytes (JPEG, PNG) or from pixels.

    JPEG is decoded at 1/``reduction`` (2, 4 or 8) of its size, several times faster than in full.
    Raises ValueError for bytes that are no image.
    """
    import cv2

    if isinstance(data, bytes):
        flag = getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{reduction}")
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
        if grey is None:
            raise ValueError("not an image")
    else:
        grey = data if data.ndim == 2 else cv2.cvtColor(data, cv2.COLOR_RGB2GRAY)
        if grey.dtype != np.uint8:
            grey = cv2.convertScaleAbs(grey, alpha=255.0 / max(float(grey.max()), 1.0))
    width = FLOW_WIDTH
    height = max(16, round(grey.shape[0] * width / grey.shape[1]))
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def reduction_for(data: bytes) -> int:
    """The strongest reduction that leaves ``FLOW_WIDTH`` columns of an encoded image."""
    import cv2

    flag = cv2.IMREAD_REDUCED_GRAYSCALE_2
    half = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    if half is None:
        return 2
    return next((r for r in (8, 4) if 2 * half.shape[1] // r >= FLOW_WIDTH), 2)
