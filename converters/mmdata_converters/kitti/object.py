"""KITTI's object benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.clocks import Stamps
from mmdata_converters._common import read_bytes, synthetic
from mmdata_converters._feeds import FeedRecording
from mmdata_converters.kitti.common import (
    BOX,
    POINTS,
    RECTIFIED,
    SIZE_HWL,
    camera_box,
    mount_rectified,
    read_calibration,
    read_velodyne,
)


class Objects(FeedRecording):
    """The object benchmark: pictures and sweeps that have a number and no time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "kitti", "object")
        self.know(source_format="KITTI object")
        self.timing = synthetic(None, "frame number in seconds: the benchmark holds no time")
        self.account.problem("the benchmark holds no time: frames are placed one second apart")
        for index in (2, 3):
            self._pictures(index)
        self._lidar()
        self._calibration()
        self.attempt("label_2", self._boxes)

    def _numbered(self, folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], Stamps]:
        files = sorted(f for f in folder.iterdir() if f.suffix in suffixes and f.stem.isdigit())
        self.uses(*files)
        return files, np.array([int(f.stem) for f in files], np.int64) * 1_000_000_000

    def _pictures(self, index: int) -> None:
        folder = self.path / f"image_{index}"
        if folder.is_dir():
            files, stamps = self._numbered(folder, (".png", ".jpg"))
            name = f"camera_{index}"
            self.encoded(name, lambda i: read_bytes(files[i]), stamps, source_topic=folder.name,
                         frame_id=name, sensor=name, **self.timing)  # fmt: skip

    def _lidar(self) -> None:
        folder = self.path / "velodyne"
        if folder.is_dir():
            files, stamps = self._numbered(folder, (".bin",))
            get: Callable[[int], Any] = lambda i: read_velodyne(files[i])  # noqa: E731
            self.sweeps("lidar", get, stamps, POINTS, source_topic=folder.name,
                        frame_id="velodyne", sensor="velodyne", **self.timing)  # fmt: skip

    def _calibration(self) -> None:
        files = sorted((self.path / "calib").glob("*.txt"))
        self.uses(*files)
        texts = {f.read_bytes() for f in files}
        if len(texts) > 1:
            self.account.problem(
                f"{len(texts)} calibrations among {len(files)} frames: the rig is the first one's"
            )
        try:
            cameras = {i: (f"camera_{i}", self.path / f"image_{i}") for i in (2, 3)}
            mount_rectified(self, read_calibration(files[0]), cameras)
        except (KeyError, ValueError, np.linalg.LinAlgError) as error:
            self.account.problem(f"calibration cannot be used: {error}")

    def _boxes(self) -> None:
        from mmdata_schema import Box2D, Box3D, stable_id

        folder = self.path / "label_2"
        boxes_2d, boxes_3d = [], []
        for file in sorted(folder.glob("*.txt")) if folder.is_dir() else []:
            self.uses(file)
            if not file.stem.isdigit():
                continue
            stamp = int(file.stem) * 1_000_000_000
            for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines()):
                words = line.split()
                if not words:
                    continue
                try:
                    v = [0.0, *(float(w) for w in words[1:])]
                    if len(v) < 15 or not np.isfinite(v).all():
                        raise ValueError("fewer than 15 values")
                    base = {
                        "label": words[0], "stamp_ns": stamp, "object_id": f"{file.stem}_{number}",
                        "attributes": {"occlusion": int(v[2])},
                    }  # fmt: skip
                    truncated = {"truncated": v[1]} if 0 <= v[1] <= 1 else {}
                    ident = stable_id("box2d", file.stem, number)
                    flat = {"id": ident, "stream": "camera_2", "xyxy_px": v[BOX], **truncated}
                    boxes_2d.append(Box2D.parse({**base, **flat}))
                    if min(v[SIZE_HWL]) >= 0:
                        ident = stable_id("box3d", file.stem, number)
                        solid = {"id": ident, "stream": "lidar", "frame_id": RECTIFIED}
                        boxes_3d.append(Box3D.parse({**base, **solid, **camera_box(v)}))
                except ValueError as error:
                    self.drop("label_2", f"a line that is no label: {str(error)[:60]}")
        self.layer("kitti", boxes_2d=boxes_2d, boxes_3d=boxes_3d)
