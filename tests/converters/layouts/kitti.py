"""KITTI raw drives and the object benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .media import picture, png

#: 2011-09-26 13:02:25.964389445 UTC
FIRST_NS = 1_317_042_145_964_389_445
PERIOD_NS = 103_000_111


def stamp(i: int, offset: int = 0) -> int:
    return FIRST_NS + i * PERIOD_NS + offset


def text_of(ns: int) -> str:
    seconds = np.datetime64(ns // 10**9, "s").astype(str).replace("T", " ")
    return f"{seconds}.{ns % 10**9:09d}"


def _times(path: Path, n: int, offset: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text_of(stamp(i, offset)) + "\n" for i in range(n)))


def points(i: int) -> np.ndarray:
    return (np.arange((5 + i) * 4, dtype=np.float32) / 4).reshape(-1, 4)


P2 = "7.0e+02 0 3.2e+01 3.5e+01 0 7.0e+02 2.4e+01 0 0 0 1 0"
TRACKLETS = """<?xml version="1.0"?>
<boost_serialization><tracklets><count>1</count><item_version>1</item_version>
<item><objectType>Car</objectType><h>1.5</h><w>1.6</w><l>4.0</l><first_frame>1</first_frame>
<poses><count>2</count>
<item><tx>10</tx><ty>2</ty><tz>-1.5</tz><rx>0</rx><ry>0</ry><rz>1.5707963267948966</rz>
<state>2</state><occlusion>0</occlusion><truncation>0</truncation></item>
<item><tx>11</tx><ty>2</ty><tz>-1.5</tz><rx>0</rx><ry>0</ry><rz>0</rz>
<state>2</state><occlusion>1</occlusion><truncation>0</truncation></item>
</poses><finished>1</finished></item></tracklets></boost_serialization>
"""


def write_raw(root: Path, n: int = 6, *, without_sweep: int | None = None) -> Path:
    day = root / "2011_09_26"
    drive = day / "2011_09_26_drive_0001_sync"
    for camera in (0, 2):
        folder = drive / f"image_0{camera}"
        _times(folder / "timestamps.txt", n, camera * 1000)
        (folder / "data").mkdir()
        for i in range(n):
            (folder / f"data/{i:010d}.png").write_bytes(png(picture(i)))
    velodyne = drive / "velodyne_points"
    _times(velodyne / "timestamps.txt", n)
    _times(velodyne / "timestamps_start.txt", n, -50_000_000)
    _times(velodyne / "timestamps_end.txt", n, 53_000_000)
    (velodyne / "data").mkdir()
    for i in range(n):
        if i != without_sweep:
            points(i).tofile(velodyne / f"data/{i:010d}.bin")
    oxts = drive / "oxts"
    _times(oxts / "timestamps.txt", n, 500)
    (oxts / "data").mkdir()
    for i in range(n):
        values = [49.0, 8.4, 116.0, 0.0, 0.0, np.pi / 2, *range(24)]
        (oxts / f"data/{i:010d}.txt").write_text(" ".join(map(str, values)))
    (drive / "tracklet_labels.xml").write_text(TRACKLETS)
    (day / "calib_imu_to_velo.txt").write_text(
        "calib_time: 25-May-2012 16:47:16\nR: 1 0 0 0 1 0 0 0 1\nT: -0.8 0.3 -0.8\n"
    )
    (day / "calib_velo_to_cam.txt").write_text(
        "calib_time: x\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.1 -0.3\ndelta_f: 0 0\n"
    )
    (day / "calib_cam_to_cam.txt").write_text(
        "calib_time: x\ncorner_dist: 9.95e-02\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
        f"S_rect_00: 64 48\nP_rect_00: {P2.replace('3.5e+01', '0')}\n"
        f"S_rect_02: 64 48\nP_rect_02: {P2}\n"
    )
    return drive


LABELS = """\
Car 0.25 1 -1.57 100.00 50.00 200.00 90.00 1.50 1.60 4.00 2.00 1.70 20.00 0.00
Pedestrian 0.00 0 0.00 10.00 20.00 30.00 60.00 1.80 0.60 0.50 -3.00 1.60 8.00 1.57
DontCare -1 -1 -10 500.00 100.00 520.00 110.00 -1 -1 -1 -1000 -1000 -1000 -10
"""


def write_object(root: Path, n: int = 3) -> Path:
    for folder in ("image_2", "velodyne", "calib", "label_2"):
        (root / folder).mkdir(parents=True)
    for i in range(n):
        (root / f"image_2/{i:06d}.png").write_bytes(png(picture(i)))
        points(i).tofile(root / f"velodyne/{i:06d}.bin")
        (root / f"label_2/{i:06d}.txt").write_text(LABELS)
        (root / f"calib/{i:06d}.txt").write_text(
            f"P0: {P2.replace('3.5e+01', '0')}\nP1: {P2}\nP2: {P2}\nP3: {P2}\n"
            "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3\n"
            "Tr_imu_to_velo: 1 0 0 -0.8 0 1 0 0.3 0 0 1 -0.8\n\n"
        )
    return root


def write_tracking(root: Path, n: int = 4, *, without_sweep: int | None = None) -> Path:
    """Two sequences of the tracking benchmark; its calibration has keys without colons."""
    for sequence in ("0000", "0001"):
        for folder in (f"image_02/{sequence}", f"velodyne/{sequence}", "calib", "label_02", "oxts"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        lines = []
        for i in range(n):
            (root / f"image_02/{sequence}/{i:06d}.png").write_bytes(png(picture(i)))
            if i != without_sweep:
                points(i).tofile(root / f"velodyne/{sequence}/{i:06d}.bin")
            lines.append(f"{i} 7 Car 0 1 0.0 100 50 200 90 1.5 1.6 4.0 {2 + i} 1.7 20.0 0.0\n")
        lines.append(f"{n - 1} -1 DontCare -1 -1 -10 5 5 9 9 -1000 -1000 -1000 -10 -1 -1 -1\n")
        (root / f"label_02/{sequence}.txt").write_text("".join(lines))
        oxts = [" ".join(map(str, [49.0, 8.4, 116.0, 0.0, 0.0, np.pi / 2, *range(24)]))] * n
        (root / f"oxts/{sequence}.txt").write_text("\n".join(oxts) + "\n")
        (root / f"calib/{sequence}.txt").write_text(
            f"P0: {P2.replace('3.5e+01', '0')}\nP1: {P2}\nP2: {P2}\nP3: {P2}\n"
            "R_rect 1 0 0 0 1 0 0 0 1\nTr_velo_cam 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3\n"
            "Tr_imu_velo 1 0 0 -0.8 0 1 0 0.3 0 0 1 -0.8\n"
        )
    return root
