"""What KITTI's raw drives and its object benchmark share: text formats, frames, points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError
from mmdata.geometry import SE3
from mmdata.streams import FieldInfo
from mmdata_converters._common import read_bytes

POINTS = {
    "x": FieldInfo("<f4", unit="m"), "y": FieldInfo("<f4", unit="m"),
    "z": FieldInfo("<f4", unit="m"), "intensity": FieldInfo("<f4"),
}  # fmt: skip
#: Columns of a line of label_2, after its type.
BOX, SIZE_HWL, LOCATION, ROTATION_Y = slice(4, 8), slice(8, 11), slice(11, 14), 14


def parse_time(text: str) -> int:
    """Nanoseconds of `2011-09-26 13:02:25.964389445`, read as UTC: the files name no zone."""
    whole, _, fraction = text.strip().partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)


def camera_box(values: list[float]) -> dict[str, Any]:
    """Centre, size and rotation of a label in the rectified camera's frame.

    KITTI gives the bottom's centre (y down), h, w, l, and the angle about y between the camera's x
    and the object's length. Our box has x along the length, y to its left and z up.
    """
    height, width, length = values[SIZE_HWL]
    x, y, z = values[LOCATION]
    c, s = float(np.cos(values[ROTATION_Y])), float(np.sin(values[ROTATION_Y]))
    rotation = np.array([[c, s, 0.0], [0.0, 0.0, -1.0], [-s, c, 0.0]])
    quaternion = SE3(rotation, np.zeros(3)).quaternion
    return {
        "center_m": (x, y - height / 2, z),
        "size_lwh_m": (length, width, height),
        "quaternion_wxyz": tuple(float(q) for q in quaternion),
    }


def read_calibration(path: Path) -> dict[str, NDArray[np.float64]]:
    """`key: numbers` lines; lines without numbers (calib_time) are left out."""
    out = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        key, colon, rest = line.partition(":")
        if colon and re.fullmatch(r"[-+0-9.eE\s]+", rest) and rest.strip():
            out[key.strip()] = np.array([float(v) for v in rest.split()])
    return out


def rigid(calibration: Mapping[str, NDArray[np.float64]]) -> SE3:
    return SE3(calibration["R"].reshape(3, 3), calibration["T"])


def rectified(P: NDArray[np.float64], R_rect: NDArray[np.float64]) -> SE3:
    """camera_SE3_cam0 of a rectified camera: P = K [I | t] after the rectifying rotation."""
    return SE3(np.eye(3), np.asarray(np.linalg.solve(P[:, :3], P[:, 3]), np.float64)) @ SE3(
        R_rect, np.zeros(3)
    )


def read_velodyne(path: Path) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    if len(data) % 16:
        raise ConversionError(f"{len(data)} bytes are no rows of x, y, z, reflectance")
    points = np.frombuffer(data, "<f4").reshape(-1, 4)
    return dict(zip(POINTS, points.T, strict=True))
