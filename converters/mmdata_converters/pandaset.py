"""PandaSet sequences. Its `.pkl.gz` tables are read without executing a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import CameraModel, Sensor
from mmdata.recording import Recording
from mmdata.streams import FieldInfo
from mmdata_converters._common import (
    DatasetConverter,
    measured,
    read_bytes,
    read_json,
    seconds_to_ns,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._pickle import read_frame

_WORLD = "world"
_POINTS = {
    "x": FieldInfo("<f8", unit="m"), "y": FieldInfo("<f8", unit="m"),
    "z": FieldInfo("<f8", unit="m"), "intensity": FieldInfo("<f4"),
    "point_offset_ns": FieldInfo("<i8", unit="ns"), "sensor_index": FieldInfo("|u1"),
}  # fmt: skip


class PandaSetConverter(DatasetConverter):
    name = "pandaset"
    summary = "PandaSet sequences"
    reads = "six cameras, both LiDARs with per-point times, poses, GPS, point classes"
    labels = "3D tracks"
    calibration = "intrinsics; poses per frame as streams"
    time = "measured"
    cannot = "lens distortion (not in the sequences)"

    @classmethod
    def claims(cls, path: Path) -> bool:
        lidar, camera = path / "lidar" / "timestamps.json", path / "camera"
        return lidar.is_file() and ((path / "meta").is_dir() or camera.is_dir())

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not cls.claims(path):
            raise ConversionError(f"{path}: no lidar/timestamps.json: not a PandaSet sequence")
        return _Sequence(path)


class _Sequence(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "pandaset")
        self.know(source_format="PandaSet")
        cameras = path / "camera"
        for folder in sorted(cameras.iterdir()) if cameras.is_dir() else []:
            if folder.is_dir():
                self._camera(folder)
        self.lidar_ns = self._stamps(path / "lidar")
        self._lidar()
        self.attempt("meta/gps.json", self._gps)
        self.attempt("cuboids", self._cuboids)

    def _json(self, path: Path) -> Any:
        if not path.is_file():
            self.account.problem(f"{path.relative_to(self.path)} is missing")
            return None
        self.uses(path)
        return read_json(path)

    def _stamps(self, folder: Path) -> Stamps:
        return seconds_to_ns(np.array(self._json(folder / "timestamps.json") or [], np.float64))

    def _numbered(self, folder: Path, n: int, suffixes: tuple[str, ...]) -> dict[int, Path]:
        """Row -> file; a file's name is the number of its row."""
        found = {}
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            number = file.name.partition(".")[0]
            if number.isdigit() and file.name.endswith(suffixes):
                if int(number) < n:
                    found[int(number)] = file
                else:
                    self.account.problem(f"{folder.relative_to(self.path)}: a file without a stamp")
        if len(found) < n:
            where = folder.relative_to(self.path)
            self.account.problem(f"{where}: {n - len(found)} of {n} stamps have no file")
        self.uses(*found.values())
        return found

    def _camera(self, folder: Path) -> None:
        stamps = self._stamps(folder)
        files = self._numbered(folder, len(stamps), (".jpg", ".png"))
        rows = sorted(files)
        name = f"camera_{folder.name.removesuffix('_camera')}"
        self.encoded(
            name, lambda i: read_bytes(files[rows[i]]), stamps[rows],
            source_topic=f"camera/{folder.name}", frame_id=name, sensor=name, **measured(),
        )  # fmt: skip
        self._poses(folder, f"{name}_pose", stamps)
        self._lens(folder, name, [files[r] for r in rows])

    def _poses(self, folder: Path, name: str, stamps: Stamps) -> None:
        poses = self._json(folder / "poses.json")
        if not poses:
            return
        position = np.array([[p["position"][k] for k in "xyz"] for p in poses], np.float64)
        heading = np.array([[p["heading"][k] for k in "wxyz"] for p in poses], np.float64)
        self.signal(
            name, {"position": position, "orientation": heading}, stamps, units={"position": "m"},
            source_topic=f"{folder.relative_to(self.path).as_posix()}/poses", frame_id=_WORLD,
            **measured(),
        )  # fmt: skip

    def _lens(self, folder: Path, name: str, files: list[Path]) -> None:
        from mmdata.errors import FormatError
        from mmdata.media import decode_image

        lens = self._json(folder / "intrinsics.json")
        if not lens or not files:
            return
        try:
            height, width = decode_image(files[0].read_bytes()).shape[:2]
            K = [[lens["fx"], 0, lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]]
            self.mount(Sensor(name, name, camera=CameraModel.pinhole(K, width, height)))
        except (KeyError, ValueError, FormatError) as error:
            self.account.problem(f"{name}: intrinsics cannot be used: {error}")

    # -- LiDAR ---------------------------------------------------------------------------------

    def _lidar(self) -> None:
        folder = self.path / "lidar"
        n = len(self.lidar_ns)
        files = self._numbered(folder, n, (".pkl.gz", ".pkl"))
        rows = sorted(files)
        classes = self.path / "annotations" / "semseg"
        labels = self._numbered(classes, n, (".pkl.gz", ".pkl")) if classes.is_dir() else {}
        if labels and not all(r in labels for r in rows):
            self.account.problem("point classes of some sweeps are missing: none are taken")
            labels = {}
        points = dict(_POINTS) | ({"semantic_class": FieldInfo("|u1")} if labels else {})

        def get(i: int) -> Mapping[str, Any] | None:
            row = rows[i]
            sweep = _sweep(read_frame(files[row]), int(self.lidar_ns[row]))
            if labels:
                found = read_frame(labels[row]).get("class")
                if found is None or len(found) != len(sweep["x"]):
                    raise ConversionError("point classes that do not fit the points")
                sweep["semantic_class"] = found.astype(np.uint8)
            return sweep

        attrs: dict[str, Any] = {"sensor_index": ["Pandar64", "PandarGT"]}
        known = self._json(classes / "classes.json") if labels else None
        if isinstance(known, dict):
            attrs["semantic_classes"] = [f"{k}: {v}" for k, v in known.items()]
        self.sweeps(
            "lidar", get, self.lidar_ns[rows], points, source_topic="lidar", frame_id=_WORLD,
            sensor="lidar", attrs=attrs, **measured(),
        )  # fmt: skip
        self._poses(folder, "lidar_pose", self.lidar_ns)

    def _gps(self) -> None:
        rows = self._json(self.path / "meta" / "gps.json")
        if not rows:
            return
        stamps = self._stamps(self.path / "meta")

        def column(key: str) -> NDArray[np.float64]:
            return np.array([r.get(key, np.nan) for r in rows], np.float64)

        self.signal(
            "navsatfix",
            {
                "latitude": column("lat"), "longitude": column("long"),
                "altitude": column("height"),
                "velocity": np.stack([column("xvel"), column("yvel")], 1),
            },
            stamps,
            units={"latitude": "deg", "longitude": "deg", "altitude": "m", "velocity": "m/s"},
            channels={"velocity": ("x", "y")}, source_topic="meta/gps", **measured(),
        )  # fmt: skip

    # -- labels --------------------------------------------------------------------------------

    def _cuboids(self) -> None:
        from mmdata_schema import Track3D, stable_id

        folder = self.path / "annotations" / "cuboids"
        if not folder.is_dir():
            return
        files = self._numbered(folder, len(self.lidar_ns), (".pkl.gz", ".pkl"))
        boxes: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for row, file in sorted(files.items()):
            try:
                table = read_frame(file)
                found = [cuboid(table, i) for i in range(len(table["uuid"]))]
            except (ConversionError, KeyError, ValueError) as error:
                self.drop("annotations/cuboids", f"unreadable: {str(error)[:120]}")
                continue
            seen: dict[tuple[str, str], int] = {}
            for box in found:
                key = (box.pop("object_id"), box.pop("label"))
                seen[key] = seen.get(key, 0) + 1  # one thing seen twice is a second track
                box["stamp_ns"] = int(self.lidar_ns[row])
                boxes.setdefault((*key, seen[key]), []).append(box)
        tracks = []
        for (uuid, label, number), rows in sorted(boxes.items()):
            attributes = sorted({k for b in rows for k in b["attributes"]})
            tracks.append(
                Track3D.parse({
                    "id": stable_id("track", self.episode_id, uuid, label, number),
                    "object_id": uuid, "label": label, "frame_id": _WORLD, "stream": "lidar",
                    **{k: [b[k] for b in rows]
                       for k in ("stamp_ns", "center_m", "size_lwh_m", "quaternion_wxyz")},
                    "keyframe_attributes": {
                        a: [b["attributes"].get(a) for b in rows] for a in attributes
                    },
                })
            )  # fmt: skip
        self.layer("pandaset", tracks_3d=tracks)


def cuboid(table: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """One cuboid. PandaSet's box is wide along x and long along y; ours is long along x: a
    quarter turn more.
    """
    number = {k: float(table[k][row]) for k in (
        "position.x", "position.y", "position.z", "dimensions.x", "dimensions.y", "dimensions.z",
        "yaw",
    )}  # fmt: skip
    half = (number["yaw"] + np.pi / 2) / 2
    attributes: dict[str, Any] = {}
    for key, column in table.items():
        value = column[row]
        if key == "stationary":
            attributes[key] = bool(value)
        elif key.startswith("attributes.") and isinstance(value, str) and value:
            attributes[key.removeprefix("attributes.")] = value
        elif key == "cuboids.sibling_id" and isinstance(value, str) and value not in ("", "-"):
            attributes["sibling_id"] = value
        elif key == "cuboids.sensor_id":
            attributes["sensor_id"] = int(value)
    return {
        "object_id": str(table["uuid"][row]),
        "label": str(table["label"][row]),
        "center_m": tuple(number[f"position.{k}"] for k in "xyz"),
        "size_lwh_m": (number["dimensions.y"], number["dimensions.x"], number["dimensions.z"]),
        "quaternion_wxyz": (float(np.cos(half)), 0.0, 0.0, float(np.sin(half))),
        "attributes": attributes,
    }


def _sweep(table: Mapping[str, NDArray[Any]], stamp_ns: int) -> dict[str, Any]:
    offsets = seconds_to_ns(table["t"]) - stamp_ns
    return {
        "x": table["x"], "y": table["y"], "z": table["z"], "intensity": table["i"],
        "point_offset_ns": offsets, "sensor_index": table["d"].astype(np.uint8),
    }  # fmt: skip
