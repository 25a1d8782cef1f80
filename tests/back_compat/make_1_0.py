"""Writes the frozen sample of format 1.0. Kept for reference: the file is never written again.

python tests/back_compat/make_1_0.py tests/back_compat/episode_1_0.h5
"""

from __future__ import annotations

import sys

import numpy as np

from mmdata import EpisodeWriter, Ragged, media
from mmdata.align import build_timeline
from mmdata.geometry import SE3, CameraModel, LensModel, Rig, Sensor

T0 = 1_700_000_000_000_000_000
STEP = 10_000_000


def main(path: str) -> None:
    """A small episode with every kind, a regression, a rig and a timeline."""
    rng = np.random.default_rng(0)
    stamps = T0 + np.arange(12, dtype=np.int64) * STEP
    writer = EpisodeWriter(path, "frozen")
    order = np.array([0, 1, 3, 2, 4, 5, 6, 7, 8, 9, 10, 11])
    writer.append(
        "imu", stamps[order], {"angular_velocity": np.outer(order, [1.0, 2.0, 3.0])},
        receive_ns=stamps + 1_000_000,
    )  # fmt: skip
    pictures = [media.encode_jpeg(np.full((16, 16, 3), 20 * i, np.uint8)) for i in range(4)]
    writer.append("camera", stamps[:4], pictures, kind="image")
    writer.append("depth", stamps[:2], np.arange(32, dtype="u2").reshape(2, 4, 4), kind="depth")
    sweep = Ragged.from_rows([np.arange(5, dtype="f4"), np.arange(3, dtype="f4")])
    writer.append("lidar", stamps[:2], {"x": sweep, "rpm": np.array([600, 601])}, kind="sweep")
    writer.append(
        "audio", stamps[:2], [np.arange(4, dtype="i2"), np.arange(3, dtype="i2")], kind="audio"
    )
    writer.append("touch", stamps[:2], rng.normal(size=(2, 2, 2)), kind="tactile")
    writer.append("say", stamps[:2], ["hello", "wörld"], kind="text")
    writer.append("blob", stamps[:1], [b"\x00\x01\x02"], kind="opaque")
    camera = CameraModel(LensModel.PINHOLE, np.diag([10.0, 10.0, 1.0]), np.empty(0), 16, 16)
    mount = SE3.from_xyz_qwxyz([1, 2, 3, 1, 0, 0, 0])
    writer.set_rig(Rig([Sensor("camera", "cam", "base", mount, camera)]))
    writer.set_metadata(task="frozen")
    writer.close(lambda streams: [build_timeline(streams, rate_hz=50)])


if __name__ == "__main__":
    main(sys.argv[1])
