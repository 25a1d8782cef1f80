"""What KITTI's raw drives and its object benchmark share: text formats, frames, points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import SE3, CameraModel, Sensor
from mmdata.streams import FieldInfo
from mmdata_converters._common import DAMAGE, read_bytes
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._rotations import from_roll_pitch_yaw

POINTS = {
    "x": FieldInfo("<f4", unit="m"), "y": FieldInfo("<f4", unit="m"),
    "z": FieldInfo("<f4", unit="m"), "intensity": FieldInfo("<f4"),
}  # fmt: skip
#: Columns of a line of oxts.
OXTS = (
    "lat", "lon", "alt", "roll", "pitch", "yaw", "vn", "ve", "vf", "vl", "vu", "ax", "ay", "az",
    "af", "al", "au", "wx", "wy", "wz", "wf", "wl", "wu", "pos_accuracy", "vel_accuracy",
    "navstat", "numsats", "posmode", "velmode", "orimode",
)  # fmt: skip
#: Frame of the labels of both benchmarks.
RECTIFIED = "camera_0_rect"
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
    """`key: numbers` lines, the colon not always there; lines without numbers are left out."""
    out = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"\s*(\w+)(?::|\s)\s*([-+0-9.eE][-+0-9.eE\s]*)", line)
        if match:
            out[match[1]] = np.array([float(v) for v in match[2].split()])
    return out


def rigid(calibration: Mapping[str, NDArray[np.float64]]) -> SE3:
    return SE3(calibration["R"].reshape(3, 3), calibration["T"])


def rectified(P: NDArray[np.float64], R_rect: NDArray[np.float64]) -> SE3:
    """camera_SE3_cam0 of a rectified camera: P = K [I | t] after the rectifying rotation."""
    return SE3(np.eye(3), np.asarray(np.linalg.solve(P[:, :3], P[:, 3]), np.float64)) @ SE3(
        R_rect, np.zeros(3)
    )


def mount_rectified(
    recording: FeedRecording,
    found: Mapping[str, NDArray[np.float64]],
    cameras: Mapping[int, tuple[str, Path]],
) -> None:
    """Velodyne and rectified cameras of a benchmark's calibration. cameras: number -> (name, folder
    of its pictures). Raises KeyError, ValueError or LinAlgError for one that cannot be used.
    """

    def first(*keys: str) -> NDArray[np.float64]:
        return next((found[k] for k in keys if k in found), found.get(keys[0], np.empty(0)))

    rectify = first("R0_rect", "R_rect").reshape(3, 3)
    cam0_SE3_velo = SE3.from_matrix(first("Tr_velo_to_cam", "Tr_velo_cam").reshape(3, 4))
    recording.mount(Sensor("velodyne", "velodyne"))
    rect0_SE3_velo = SE3(rectify, np.zeros(3)) @ cam0_SE3_velo
    recording.mount(Sensor(RECTIFIED, RECTIFIED, "velodyne", rect0_SE3_velo.inverse()))
    for index, (name, folder) in cameras.items():
        P = found[f"P{index}"].reshape(3, 4)
        size = picture_size(folder)
        model = None if size is None else CameraModel.pinhole(P[:, :3], *size)
        pose = rectified(P, np.eye(3)).inverse()
        recording.mount(Sensor(name, name, RECTIFIED, pose, model))


def picture_size(folder: Path) -> tuple[int, int] | None:
    """Width and height of the first picture of a folder that can be decoded."""
    from mmdata.media import decode_image

    for file in sorted(folder.glob("*.[pj][np]g")):
        try:
            height, width = decode_image(file.read_bytes()).shape[:2]
        except DAMAGE:
            continue  # counted when it is read
        return int(width), int(height)
    return None


def add_oxts(
    recording: FeedRecording, table: NDArray[np.float64], at: Stamps, known: Mapping[str, Any]
) -> None:
    """The GNSS/IMU unit's 30 numbers per row as they are, and as a fix and an IMU."""
    column = {name: table[:, i] for i, name in enumerate(OXTS)}

    def triple(names: str) -> NDArray[np.float64]:
        return np.stack([column[n] for n in names.split()], 1)

    recording.signal("oxts", {"data": table}, at, channels={"data": OXTS},
                     source_topic="oxts", **known)  # fmt: skip
    recording.signal(
        "navsatfix",
        {"latitude": column["lat"], "longitude": column["lon"], "altitude": column["alt"]},
        at, units={"latitude": "deg", "longitude": "deg", "altitude": "m"},
        source_topic="oxts/navsatfix", **known,
    )  # fmt: skip
    attrs = {"orientation": "qw qx qy qz, east-north-up from forward-left-up"}
    recording.signal(
        "imu",
        {
            "linear_acceleration": triple("ax ay az"), "angular_velocity": triple("wx wy wz"),
            "orientation": from_roll_pitch_yaw(triple("roll pitch yaw")),
        },
        at, units={"linear_acceleration": "m/s^2", "angular_velocity": "rad/s"},
        source_topic="oxts/imu", frame_id="imu", sensor="imu",
        **{**known, "attrs": {**known.get("attrs", {}), **attrs}},
    )  # fmt: skip


def read_velodyne(path: Path) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    if len(data) % 16:
        raise ConversionError(f"{len(data)} bytes are no rows of x, y, z, reflectance")
    points = np.frombuffer(data, "<f4").reshape(-1, 4)
    return dict(zip(POINTS, points.T, strict=True))
