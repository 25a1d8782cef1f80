"""Argoverse 2 sensor logs: Feather tables, pictures and sweeps named by their nanoseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError
from mmdata.geometry import SE3, CameraModel, Sensor
from mmdata.recording import Recording
from mmdata.streams import FieldInfo
from mmdata_converters._common import DatasetConverter, measured, read_bytes
from mmdata_converters._feeds import FeedRecording

_EGO, _CITY = "egovehicle", "city"
_POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
_POINTS = {
    "x": FieldInfo("<f4", unit="m"), "y": FieldInfo("<f4", unit="m"),
    "z": FieldInfo("<f4", unit="m"), "intensity": FieldInfo("|u1"),
    "laser_number": FieldInfo("|u1"), "point_offset_ns": FieldInfo("<i4", unit="ns"),
}  # fmt: skip


class Argoverse2Converter(DatasetConverter):
    name = "argoverse2"
    summary = "Argoverse 2 sensor logs"
    reads = "nine cameras, LiDAR with per-point times, ego pose"
    labels = "3D tracks"
    calibration = "intrinsics, extrinsics"
    time = "measured"
    cannot = "maps; lens distortion (kept as attributes, as its devkit does not apply it)"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return (path / "sensors").is_dir() and (
            (path / "calibration").is_dir() or (path / "city_SE3_egovehicle.feather").is_file()
        )

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not (path / "sensors").is_dir():
            raise ConversionError(f"{path}: no folder `sensors`: not a log of Argoverse 2")
        return _Log(path)


class _Log(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "argoverse2")
        self.know(source_format="Argoverse 2 sensor")
        cameras = path / "sensors" / "cameras"
        intrinsics = self._table("calibration/intrinsics.feather")
        lenses = {} if intrinsics is None else _by_name(intrinsics)
        for folder in sorted(cameras.iterdir()) if cameras.is_dir() else []:
            if folder.is_dir():
                self._camera(folder, lenses.get(folder.name, {}))
        for name in sorted(lenses):
            if not (cameras / name).is_dir():
                self.account.problem(f"sensors/cameras/{name}: calibrated, but no pictures")
        self._lidar()
        self.attempt("ego poses", self._poses)
        self.attempt("calibration", lambda: self._rig(lenses))
        self.attempt("annotations", self._annotations)

    def _table(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Columns of a Feather file of the log; None where it is missing or damaged."""
        file = self.path / name
        if not file.is_file():
            self.account.problem(f"{name} is missing")
            return None
        self.uses(file)
        try:
            return read_feather(file)
        except ConversionError as error:
            self.drop(name, str(error))
            return None

    def _named(self, folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], Any]:
        files = sorted(
            (f for f in folder.iterdir() if f.suffix in suffixes and f.stem.isdigit()),
            key=lambda f: int(f.stem),
        )
        self.uses(*files)
        return files, np.array([int(f.stem) for f in files], np.int64)

    def _camera(self, folder: Path, lens: Mapping[str, Any]) -> None:
        files, stamps = self._named(folder, (".jpg", ".png"))
        self.tell_gaps(f"sensors/cameras/{folder.name}", stamps)
        attrs = {k: float(lens[k]) for k in ("k1", "k2", "k3") if k in lens}
        self.encoded(
            f"camera_{folder.name}", lambda i: read_bytes(files[i]), stamps,
            source_topic=f"sensors/cameras/{folder.name}", frame_id=folder.name,
            sensor=f"camera_{folder.name}", attrs=attrs, **measured(),
        )  # fmt: skip

    def _lidar(self) -> None:
        folder = self.path / "sensors" / "lidar"
        if not folder.is_dir():
            self.account.problem("sensors/lidar is missing")
            return
        files, stamps = self._named(folder, (".feather",))
        self.tell_gaps("sensors/lidar", stamps)

        def get(row: int) -> dict[str, Any] | None:
            table = read_feather(files[row])
            table["point_offset_ns"] = table.pop("offset_ns")
            return {n: table[n].astype(f.dtype) for n, f in _POINTS.items()}

        self.sweeps(
            "lidar", get, stamps, _POINTS, source_topic="sensors/lidar", frame_id=_EGO,
            sensor="lidar", attrs={"motion_compensated": True}, **measured("sweep_start"),
        )  # fmt: skip

    def _poses(self) -> None:
        table = self._table("city_SE3_egovehicle.feather")
        if table is None:
            return
        order = np.argsort(table["timestamp_ns"], kind="stable")
        self.signal(
            "ego_pose",
            {
                "position": np.stack([table[k] for k in _POSE[4:]], 1)[order],
                "orientation": np.stack([table[k] for k in _POSE[:4]], 1)[order],
            },
            table["timestamp_ns"][order].astype(np.int64), units={"position": "m"},
            source_topic="city_SE3_egovehicle", frame_id=_CITY, **measured(),
        )  # fmt: skip

    def _rig(self, lenses: Mapping[str, Mapping[str, Any]]) -> None:
        table = self._table("calibration/egovehicle_SE3_sensor.feather")
        mounts = {} if table is None else _by_name(table)
        for name in sorted({*mounts, *lenses}):
            pose = camera = None
            try:
                if name in mounts:
                    q, t = ([float(mounts[name][k]) for k in ks] for ks in (_POSE[:4], _POSE[4:]))
                    pose = SE3.from_quaternion(q, t)
                if name in lenses:
                    fx, fy, cx, cy, width, height = (
                        float(lenses[name][k])
                        for k in ("fx_px", "fy_px", "cx_px", "cy_px", "width_px", "height_px")
                    )
                    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
                    camera = CameraModel.pinhole(K, int(width), int(height))
            except (KeyError, ValueError) as error:
                self.account.problem(f"{name}: calibration cannot be used: {error}")
            sensor = f"camera_{name}" if name in lenses else name
            self.mount(Sensor(sensor, name, None if pose is None else _EGO, pose, camera))

    def _annotations(self) -> None:
        from mmdata_schema import Track3D, stable_id

        if not (self.path / "annotations.feather").is_file():
            self.account.problem("annotations.feather is missing, as in logs of the test split")
            return
        table = self._table("annotations.feather")
        if table is None:
            return
        names = table["track_uuid"].astype(str)
        labels = table["category"].astype(str)
        tracks = []
        for key in sorted(set(zip(names.tolist(), labels.tolist(), strict=True))):
            rows = np.flatnonzero((names == key[0]) & (labels == key[1]))
            rows = rows[np.argsort(table["timestamp_ns"][rows], kind="stable")]

            def columns(*keys: str, rows: NDArray[Any] = rows) -> list[tuple[float, ...]]:
                return [tuple(float(table[k][r]) for k in keys) for r in rows]

            points = table.get("num_interior_pts")
            tracks.append(
                Track3D.parse({
                    "id": stable_id("track", self.episode_id, *key), "object_id": key[0],
                    "label": key[1], "frame_id": _EGO, "stream": "lidar",
                    "stamp_ns": [int(table["timestamp_ns"][r]) for r in rows],
                    "center_m": columns(*_POSE[4:]),
                    "size_lwh_m": columns("length_m", "width_m", "height_m"),
                    "quaternion_wxyz": columns(*_POSE[:4]),
                    "keyframe_attributes": {} if points is None else {
                        "lidar_points": [int(points[r]) for r in rows]
                    },
                })
            )  # fmt: skip
        self.layer("argoverse2", tracks_3d=tracks)


def read_feather(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of a Feather file. Raises ConversionError when it is damaged."""
    import pyarrow as pa
    from pyarrow import feather

    try:
        table = feather.read_table(str(path), memory_map=False)
        return {n: table[n].combine_chunks().to_numpy(zero_copy_only=False)
                for n in table.column_names}  # fmt: skip
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise ConversionError(f"{path.name} is no readable Feather file: {error}") from error


def _by_name(table: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Rows of a calibration table by sensor."""
    names = table.get("sensor_name")
    if names is None:
        return {}
    return {str(n): {k: v[i] for k, v in table.items()} for i, n in enumerate(names)}
