"""A drive of KITTI raw: cameras, Velodyne, oxts, calibration, tracklets."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.geometry import SE3, CameraModel, LensModel, Sensor
from mmdata.streams import FieldInfo
from mmdata_converters._common import DAMAGE, measured, read_bytes
from mmdata_converters._feeds import FeedRecording
from mmdata_converters.kitti.common import (
    OXTS,
    POINTS,
    add_oxts,
    parse_time,
    read_calibration,
    read_velodyne,
    rectified,
    rigid,
)


class Drive(FeedRecording):
    """One drive; its calibration lies beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "kitti")
        self.know(source_format="KITTI raw")
        self.rectified = not path.name.endswith("_extract")
        for index in range(4):
            self._camera(index)
        self.velodyne_ns: dict[int, int] = {}
        self._velodyne()
        self._oxts()
        self._calibration()
        self.attempt("tracklet_labels.xml", self._tracklets)

    def _rows(self, folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], Stamps]:
        """Files that have a stamp, and their stamps; a file's name is the number of its line."""
        times = self._times(folder / "timestamps.txt")
        data = folder / "data"
        found = sorted(f for f in data.iterdir() if f.suffix in suffixes) if data.is_dir() else []
        files, stamps = [], []
        for file in found:
            number = int(file.stem) if file.stem.isdigit() else -1
            stamp = times.get(number)
            if stamp is None:
                self.account.problem(f"{folder.name}: a file without a stamp")
                continue
            files.append(file)
            stamps.append(stamp)
        missing = len(times) - len(files)
        if missing > 0:
            self.account.problem(f"{folder.name}: {missing} of {len(times)} stamps have no file")
        self.uses(*files)
        return files, np.array(stamps, np.int64)

    def _times(self, path: Path) -> dict[int, int]:
        if not path.is_file():
            self.account.problem(f"{path.parent.name}/{path.name} is missing")
            return {}
        self.uses(path)
        out = {}
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines()):
            if line.strip():
                try:
                    out[number] = parse_time(line)
                except ValueError:
                    self.account.problem(f"{path.parent.name}/{path.name}: a line that is no time")
        return out

    def _camera(self, index: int) -> None:
        folder = self.path / f"image_0{index}"
        if not folder.is_dir():
            return
        files, stamps = self._rows(folder, (".png", ".jpg"))
        self.encoded(
            f"camera_0{index}", lambda i: read_bytes(files[i]), stamps,
            source_topic=folder.name, frame_id=f"camera_0{index}", sensor=f"camera_0{index}",
            **measured("unknown"),
        )  # fmt: skip

    def _velodyne(self) -> None:
        folder = self.path / "velodyne_points"
        if not folder.is_dir():
            return
        files, stamps = self._rows(folder, (".bin",))
        self.velodyne_ns = self._times(folder / "timestamps.txt")
        spans: dict[str, dict[int, int]] = {}
        for end in ("start", "end"):
            file = folder / f"timestamps_{end}.txt"
            spans[f"sweep_{end}_offset_ns"] = self._times(file)
        numbers = [int(f.stem) for f in files]
        spans = {n: t for n, t in spans.items() if all(i in t for i in numbers)}

        def get(row: int) -> Mapping[str, Any] | None:
            sweep = read_velodyne(files[row])
            if sweep is not None:
                for name, times in spans.items():
                    sweep[name] = times[numbers[row]] - int(stamps[row])
            return sweep

        self.sweeps(
            "lidar", get, stamps, POINTS, {n: FieldInfo("<i8", unit="ns") for n in spans},
            source_topic=folder.name, frame_id="velodyne", sensor="velodyne",
            attrs={"stamp_rule": "when the scanner faced forward"}, **measured("unknown"),
        )  # fmt: skip

    def _oxts(self) -> None:
        folder = self.path / "oxts"
        if not folder.is_dir():
            return
        files, stamps = self._rows(folder, (".txt",))
        rows, kept = [], []
        for file, stamp in zip(files, stamps.tolist(), strict=True):
            try:
                values = [float(v) for v in file.read_text().split()]
            except DAMAGE:
                values = []
            if len(values) == len(OXTS):
                rows.append(values)
                kept.append(stamp)
            else:
                self.drop("oxts", f"not {len(OXTS)} numbers")
        if not rows:
            return
        add_oxts(self, np.array(rows), np.array(kept, np.int64), measured())

    # -- calibration ---------------------------------------------------------------------------

    def _calibration(self) -> None:
        found = {}
        for name in ("cam_to_cam", "velo_to_cam", "imu_to_velo"):
            file = next((f / f"calib_{name}.txt" for f in (self.path, self.path.parent)
                         if (f / f"calib_{name}.txt").is_file()), None)  # fmt: skip
            if file is None:
                self.account.problem(f"calib_{name}.txt is missing")
                continue
            self.uses(file)
            found[name] = read_calibration(file)
        try:
            self._mounts(found)
        except (KeyError, ValueError) as error:
            self.account.problem(f"calibration cannot be used: {error}")

    def _mounts(self, found: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> None:
        if "imu_to_velo" in found:
            velo_SE3_imu = rigid(found["imu_to_velo"])
            self.mount(Sensor("imu", "imu"))
            self.mount(Sensor("velodyne", "velodyne", "imu", velo_SE3_imu.inverse()))
        else:
            self.mount(Sensor("velodyne", "velodyne"))
        cameras = found.get("cam_to_cam", {})
        cam0_SE3_velo = rigid(found["velo_to_cam"]) if "velo_to_cam" in found else None
        for index in range(4):
            name = f"camera_0{index}"
            if self.rectified and f"P_rect_0{index}" in cameras:
                P = cameras[f"P_rect_0{index}"].reshape(3, 4)
                width, height = cameras[f"S_rect_0{index}"].astype(int).tolist()
                camera = CameraModel.pinhole(P[:, :3], width, height)
                cam_SE3_cam0 = rectified(P, cameras["R_rect_00"].reshape(3, 3))
            elif f"K_0{index}" in cameras:
                width, height = cameras[f"S_0{index}"].astype(int).tolist()
                camera = CameraModel(
                    LensModel.BROWN_CONRADY, cameras[f"K_0{index}"].reshape(3, 3),
                    cameras[f"D_0{index}"], width, height,
                )  # fmt: skip
                rotation = cameras[f"R_0{index}"].reshape(3, 3)
                cam_SE3_cam0 = SE3(rotation, cameras[f"T_0{index}"])
            else:
                continue
            if not (self.path / f"image_0{index}").is_dir():
                self.account.problem(f"image_0{index}: calibrated, but no pictures")
            pose = None if cam0_SE3_velo is None else (cam_SE3_cam0 @ cam0_SE3_velo).inverse()
            self.mount(Sensor(name, name, None if pose is None else "velodyne", pose, camera))

    # -- labels --------------------------------------------------------------------------------

    def _tracklets(self) -> None:
        file = self.path / "tracklet_labels.xml"
        if not file.is_file():
            return
        self.uses(file)
        try:
            root = ET.parse(file).getroot()
        except ET.ParseError as error:
            self.drop(file.name, f"no valid XML: {error}")
            return
        times = self.velodyne_ns or self._times(self.path / "image_02" / "timestamps.txt")
        tracks = []
        for number, item in enumerate(root.findall("./tracklets/item")):
            track = self._track(number, item, times)
            if track is not None:
                tracks.append(track)
        self.layer("kitti", tracks_3d=tracks)

    def _track(self, number: int, item: ET.Element, times: Mapping[int, int]) -> Any:
        from mmdata_schema import Track3D, stable_id

        def value(node: ET.Element, key: str) -> float:
            return float(node.findtext(key, "nan"))

        height, width, length = (value(item, k) for k in "hwl")
        first = int(item.findtext("first_frame", "0"))
        columns: dict[str, list[Any]] = {k: [] for k in ("stamp_ns", "center_m", "quaternion_wxyz")}
        attributes: dict[str, list[Any]] = {k: [] for k in ("state", "occlusion", "truncation")}
        for i, pose in enumerate(item.findall("./poses/item")):
            stamp = times.get(first + i)
            place = [value(pose, k) for k in ("tx", "ty", "tz", "rz")]
            if stamp is None or not np.isfinite(place).all():
                self.drop("tracklet_labels.xml", "a box at a frame without a stamp")
                continue
            x, y, z, yaw = place
            columns["stamp_ns"].append(stamp)
            columns["center_m"].append((x, y, z + height / 2))  # given at the bottom
            columns["quaternion_wxyz"].append((np.cos(yaw / 2).item(), 0.0, 0.0,
                                               np.sin(yaw / 2).item()))  # fmt: skip
            for key, column in attributes.items():
                number_text = pose.findtext(key)
                column.append(None if number_text is None else int(float(number_text)))
        if not columns["stamp_ns"] or not np.isfinite([height, width, length]).all():
            return None
        label = (item.findtext("objectType") or "unknown").strip()
        ident = stable_id("track", self.episode_id, number)
        return Track3D.parse({
            "id": ident, "object_id": f"tracklet_{number}", "label": label,
            "frame_id": "velodyne", "stream": "lidar", "keyframe_attributes": attributes,
            "size_lwh_m": [(length, width, height)] * len(columns["stamp_ns"]), **columns,
        })  # fmt: skip
