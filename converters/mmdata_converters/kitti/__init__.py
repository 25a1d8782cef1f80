"""KITTI: raw drives (cameras, Velodyne, oxts, tracklets, calibration), object and tracking
benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdata.errors import ConversionError
from mmdata.recording import Recording
from mmdata_converters._common import DatasetConverter


class KittiConverter(DatasetConverter):
    name = "kitti"
    summary = "KITTI raw drives, object and tracking benchmarks"
    reads = "cameras, Velodyne with sweep start and end, oxts (GNSS, IMU)"
    labels = "tracklets; 2D and 3D object labels; 3D tracks"
    calibration = "intrinsics, extrinsics"
    time = "measured (raw); synthetic: 10 Hz (tracking), one second apart (object)"
    cannot = "odometry ground truth, segmentation benchmarks; per-point times"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.is_dir() and (_is_raw(path) or _is_object(path) or _is_tracking(path))

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        if path.is_dir() and _is_tracking(path):
            from mmdata_converters.kitti.tracking import sequences

            return sequences(path)
        return ("",)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if path.is_dir() and _is_raw(path):
            from mmdata_converters.kitti.raw import Drive

            return Drive(path)
        if path.is_dir() and _is_tracking(path):
            from mmdata_converters.kitti.tracking import Sequence as Tracked

            return Tracked(path, part)
        if path.is_dir() and _is_object(path):
            from mmdata_converters.kitti.object import Objects

            return Objects(path)
        raise ConversionError(f"{path}: no drive of KITTI raw, nor one of its benchmarks")


def _is_raw(path: Path) -> bool:
    return any(
        (path / f / "timestamps.txt").is_file()
        for f in ("oxts", "velodyne_points", "image_00", "image_01", "image_02", "image_03")
    )


def _is_object(path: Path) -> bool:
    calibrations = (path / "calib").is_dir() and next((path / "calib").glob("*.txt"), None)
    pictures = (path / "image_2").is_dir() or any((path / "velodyne").glob("*.bin"))
    return bool(calibrations) and pictures


def _is_tracking(path: Path) -> bool:
    """Whether a folder has sequences of numbered frames, and calibration or labels for them."""
    known = any(any((path / f).glob("[0-9]*.txt")) for f in ("calib", "label_02", "oxts"))
    return known and any(
        f.is_dir() and f.name.isdigit()
        for top in ("image_02", "velodyne") if (path / top).is_dir()
        for f in (path / top).iterdir()
    )  # fmt: skip
