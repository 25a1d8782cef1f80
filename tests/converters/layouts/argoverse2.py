"""An Argoverse 2 sensor log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import feather

from .media import jpeg, picture

START_NS = 315_967_376_859_506_000
TURNED = np.sqrt(0.5)


def _write(path: Path, **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns), str(path))


def write_log(root: Path, n: int = 5) -> Path:
    sweeps = [START_NS + i * 100_100_003 for i in range(n)]
    for i, stamp in enumerate(sweeps):
        points = 4 + i
        _write(
            root / f"sensors/lidar/{stamp}.feather",
            x=np.arange(points, dtype=np.float16), y=np.zeros(points, np.float16),
            z=np.ones(points, np.float16), intensity=np.arange(points, dtype=np.uint8),
            laser_number=np.arange(points, dtype=np.uint8),
            offset_ns=np.arange(points, dtype=np.int32) * 1000,
        )  # fmt: skip
    for shift, camera in enumerate(("ring_front_center", "stereo_front_left")):
        folder = root / f"sensors/cameras/{camera}"
        folder.mkdir(parents=True)
        for i in range(2 * n):
            stamp = START_NS + 7 * shift + i * 50_000_001
            (folder / f"{stamp}.jpg").write_bytes(jpeg(picture(i)))
    names = ["ring_front_center", "stereo_front_left", "up_lidar"]
    _write(
        root / "calibration/egovehicle_SE3_sensor.feather", sensor_name=names,
        qw=[TURNED, 1.0, 1.0], qx=[0.0] * 3, qy=[0.0] * 3, qz=[TURNED, 0.0, 0.0],
        tx_m=[1.6, 1.6, 1.3], ty_m=[0.0, 0.2, 0.0], tz_m=[1.4, 1.4, 1.6],
    )  # fmt: skip
    _write(
        root / "calibration/intrinsics.feather", sensor_name=names[:2], fx_px=[50.0, 60.0],
        fy_px=[50.0, 60.0], cx_px=[32.0, 32.0], cy_px=[24.0, 24.0], k1=[-0.2, -0.3],
        k2=[0.1, 0.1], k3=[0.0, 0.0], height_px=[48, 48], width_px=[64, 64],
    )  # fmt: skip
    order = [3, 0, 1, 2, 4]
    _write(
        root / "city_SE3_egovehicle.feather", timestamp_ns=[sweeps[i] for i in order],
        qw=[1.0] * n, qx=[0.0] * n, qy=[0.0] * n, qz=[0.0] * n,
        tx_m=[float(i) for i in order], ty_m=[0.0] * n, tz_m=[0.0] * n,
    )  # fmt: skip
    _write(
        root / "annotations.feather", timestamp_ns=[sweeps[1], sweeps[0], sweeps[0]],
        track_uuid=["t-1", "t-1", "t-2"], category=["BUS", "BUS", "PEDESTRIAN"],
        length_m=[12.0, 12.0, 0.6], width_m=[2.5, 2.5, 0.7], height_m=[3.0, 3.0, 1.8],
        qw=[1.0, TURNED, 1.0], qx=[0.0] * 3, qy=[0.0] * 3, qz=[0.0, TURNED, 0.0],
        tx_m=[9.0, 10.0, 3.0], ty_m=[1.0] * 3, tz_m=[0.5] * 3, num_interior_pts=[50, 60, 7],
    )  # fmt: skip
    return root
