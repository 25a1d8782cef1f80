"""KITTI: raw drives (cameras, Velodyne, oxts, tracklets, calibration) and the object benchmark."""

from __future__ import annotations

from pathlib import Path

from mmdata.errors import ConversionError
from mmdata.recording import Recording
from mmdata_converters._common import DatasetConverter


class KittiConverter(DatasetConverter):
    name = "kitti"
    summary = "KITTI raw drives and object benchmark"
    reads = "cameras, Velodyne with sweep start and end, oxts (GNSS, IMU)"
    labels = "tracklets; 2D and 3D object labels"
    calibration = "intrinsics, extrinsics"
    time = "measured (raw); synthetic, one second apart (object benchmark)"
    cannot = "odometry ground truth, tracking and segmentation benchmarks; per-point times"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.is_dir() and (_is_raw(path) or _is_object(path))

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if path.is_dir() and _is_raw(path):
            from mmdata_converters.kitti.raw import Drive

            return Drive(path)
        if path.is_dir() and _is_object(path):
            from mmdata_converters.kitti.object import Objects

            return Objects(path)
        raise ConversionError(f"{path}: neither a drive of KITTI raw nor its object benchmark")


def _is_raw(path: Path) -> bool:
    return any(
        (path / f / "timestamps.txt").is_file()
        for f in ("oxts", "velodyne_points", "image_00", "image_01", "image_02", "image_03")
    )


def _is_object(path: Path) -> bool:
    calibrations = (path / "calib").is_dir() and next((path / "calib").glob("*.txt"), None)
    pictures = (path / "image_2").is_dir() or (path / "velodyne").is_dir()
    return bool(calibrations) and pictures
