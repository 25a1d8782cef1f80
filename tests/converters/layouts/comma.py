"""A comma2k19 segment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .media import picture, write_video

START_S = 46408.5


def _put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, array)


def write_segment(root: Path, *, video: bool = True, raw_can: bool = True) -> Path:
    log = root / "processed_log"
    imu = START_S + np.arange(50) / 104
    for name in ("accelerometer", "gyro"):
        _put(log / f"IMU/{name}/t", imu)
        _put(log / f"IMU/{name}/value", np.arange(150.0).reshape(50, 3))
    can = START_S + np.arange(40) / 83
    _put(log / "CAN/steering_angle/t", can)
    _put(log / "CAN/steering_angle/value", np.full(40, 90.0))
    _put(log / "CAN/speed/t", can)
    _put(log / "CAN/speed/value", np.full((40, 1), 8.0))
    _put(log / "CAN/radar/t", can[:4].repeat(2))
    _put(log / "CAN/radar/value", np.tile([74.0, -2.0, 3.0, np.nan, np.nan, 528, 1], (8, 1)))
    if raw_can:
        _put(log / "CAN/raw_can/t", can)
        _put(log / "CAN/raw_can/address", np.full(40, 608))
        _put(log / "CAN/raw_can/src", np.zeros(40, np.int64))
        _put(log / "CAN/raw_can/data", np.array([b"\x08\xff\0\0\0\0\0\0"] * 40, "S8"))
    _put(log / "GNSS/live_gnss_ublox/t", can[:5])
    _put(
        log / "GNSS/live_gnss_ublox/value", np.tile([37.7, -122.4, 7.8, 1.5e12, 33.0, 180], (5, 1))
    )
    frames = START_S + 0.05 + np.arange(20) / 20
    pose = root / "global_pose"
    _put(pose / "frame_times", frames)
    _put(pose / "frame_positions", np.arange(60.0).reshape(20, 3))
    _put(pose / "frame_velocities", np.zeros((20, 3)))
    _put(pose / "frame_orientations", np.tile([0.5, 0.5, 0.5, 0.5], (20, 1)))
    if video:
        options = {"x265-params": "log-level=none:bframes=0:keyint=8"}
        write_video(root / "video.hevc", [picture(i) for i in range(20)], 20, "libx265",
                    options=options, container="hevc")  # fmt: skip
    return root
