"""A sequence of KITTI's tracking benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.clocks import Stamps
from mmdata_converters._common import DAMAGE, one_line, read_bytes, row_stamps, synthetic
from mmdata_converters._feeds import FeedRecording
from mmdata_converters.kitti.common import (
    BOX,
    OXTS,
    POINTS,
    RECTIFIED,
    SIZE_HWL,
    add_oxts,
    camera_box,
    mount_rectified,
    read_calibration,
    read_velodyne,
)

#: The cameras' nominal rate; the benchmark holds no time.
_RATE_HZ = 10.0
_FOLDERS = ("image_02", "image_03", "velodyne")


def sequences(path: Path) -> list[str]:
    """Names of the sequences that have pictures or sweeps."""
    found = {f.name for top in _FOLDERS if (path / top).is_dir() for f in (path / top).iterdir()
             if f.is_dir() and f.name.isdigit()}  # fmt: skip
    return sorted(found)


class Sequence(FeedRecording):
    """Frames with a number, no time; labels with one track per object."""

    def __init__(self, path: Path, part: str) -> None:
        super().__init__(path, "kitti", part)
        self.know(source_format="KITTI tracking")
        self.timing = synthetic(_RATE_HZ, f"frame / {_RATE_HZ:g} Hz, the cameras' nominal rate")
        self.account.problem(f"the benchmark holds no time: frames are placed at {_RATE_HZ:g} Hz")
        for index in (2, 3):
            self._pictures(index)
        self._lidar()
        self._oxts()
        self._calibration()
        self.attempt("label_02", self._tracks)

    def _numbered(self, top: str, suffixes: tuple[str, ...]) -> tuple[list[Path], Stamps]:
        folder = self.path / top / self.part
        if not folder.is_dir():
            return [], np.empty(0, np.int64)
        files = sorted(f for f in folder.iterdir() if f.suffix in suffixes and f.stem.isdigit())
        self.uses(*files)
        numbers = np.array([int(f.stem) for f in files], np.int64)
        missing = 0 if not files else int(numbers.max()) + 1 - len(files)
        if missing:
            self.account.problem(f"{top}: {missing} of {int(numbers.max()) + 1} frames are missing")
        return files, self._at(numbers)

    def _at(self, numbers: Any) -> Stamps:
        stamps: Stamps = row_stamps(int(np.max(numbers, initial=-1)) + 1, _RATE_HZ)[numbers]
        return stamps

    def _pictures(self, index: int) -> None:
        files, stamps = self._numbered(f"image_0{index}", (".png", ".jpg"))
        if files:
            name = f"camera_0{index}"
            self.encoded(name, lambda i: read_bytes(files[i]), stamps, frame_id=name, sensor=name,
                         source_topic=f"image_0{index}", **self.timing)  # fmt: skip

    def _lidar(self) -> None:
        files, stamps = self._numbered("velodyne", (".bin",))
        if files:
            get: Callable[[int], Any] = lambda i: read_velodyne(files[i])  # noqa: E731
            self.sweeps("lidar", get, stamps, POINTS, source_topic="velodyne",
                        frame_id="velodyne", sensor="velodyne", **self.timing)  # fmt: skip

    def _oxts(self) -> None:
        file = self.path / "oxts" / f"{self.part}.txt"
        if not file.is_file():
            return
        self.uses(file)
        rows, numbers = [], []
        for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines()):
            try:
                values = [float(v) for v in line.split()]
            except ValueError:
                values = []
            if len(values) == len(OXTS):
                rows.append(values)
                numbers.append(number)
            elif line.strip():
                self.drop("oxts", f"not {len(OXTS)} numbers")
        if rows:
            add_oxts(self, np.array(rows), self._at(np.array(numbers)), self.timing)

    def _calibration(self) -> None:
        file = self.path / "calib" / f"{self.part}.txt"
        if not file.is_file():
            self.account.problem("the sequence has no calibration")
            return
        self.uses(file)
        cameras = {i: (f"camera_0{i}", self.path / f"image_0{i}" / self.part) for i in (2, 3)}
        try:
            mount_rectified(self, read_calibration(file), cameras)
        except (*DAMAGE, np.linalg.LinAlgError) as error:
            self.account.problem(f"calibration cannot be used: {one_line(error)}")

    def _tracks(self) -> None:
        """Lines: frame, track, type, truncated, occluded, alpha, the rest as for objects."""
        from mmdata_schema import Track3D, stable_id

        file = self.path / "label_02" / f"{self.part}.txt"
        if not file.is_file():
            return
        self.uses(file)
        tracks: dict[tuple[int, str], dict[str, list[Any]]] = {}
        flat = []
        for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines()):
            words = line.split()
            if not words:
                continue
            try:
                frame, track, label = int(words[0]), int(words[1]), words[2]
                values = [0.0, *(float(w) for w in words[3:])]
                if len(values) < 15 or not np.isfinite(values).all() or frame < 0:
                    raise ValueError("fewer than 17 values")
                stamp = int(self._at(np.array([frame]))[0])
                flat.append(self._box(number, track, label, stamp, values))
                if min(values[SIZE_HWL]) > 0:
                    columns = tracks.setdefault((track, label), {})
                    box = {"stamp_ns": stamp, **camera_box(values),
                           "truncation": int(values[1]), "occlusion": int(values[2])}  # fmt: skip
                    for key, value in box.items():
                        columns.setdefault(key, []).append(value)
            except ValueError as error:
                self.drop("label_02", f"a line that is no label: {str(error)[:60]}")
        solid = []
        for (track, label), columns in sorted(tracks.items()):
            facts = {k: columns.pop(k) for k in ("truncation", "occlusion")}
            try:
                solid.append(Track3D.parse({
                    "id": stable_id("track", self.part, track, label),
                    "object_id": f"track_{track}", "label": label,
                    "frame_id": RECTIFIED, "stream": "lidar",
                    "keyframe_attributes": facts, **columns,
                }))  # fmt: skip
            except ValueError as error:
                self.drop("label_02", f"track {track} is none: {str(error)[:60]}")
        self.layer("kitti", boxes_2d=flat, tracks_3d=solid)

    def _box(self, number: int, track: int, label: str, stamp: int, values: list[float]) -> Any:
        from mmdata_schema import Box2D, stable_id

        ident = stable_id("box2d", self.part, number)
        return Box2D.parse({
            "id": ident, "stream": "camera_02", "label": label, "stamp_ns": stamp,
            "xyxy_px": values[BOX], **({"object_id": f"track_{track}"} if track >= 0 else {}),
        })  # fmt: skip
