"""nuScenes tables with two scenes, as the documentation lays them out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .media import jpeg, picture

START_US = 1_533_151_603_547_590
#: A quarter turn about z.
TURNED = [0.7071067811865476, 0.0, 0.0, 0.7071067811865476]

_PCD = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z dyn_prop id rcs vx vy
SIZE 4 4 4 1 2 4 4 4
TYPE F F F I I F F F
COUNT 1 1 1 1 1 1 1 1
WIDTH {n}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {n}
DATA binary
"""


def lidar(i: int) -> np.ndarray:
    return np.arange((4 + i) * 5, dtype=np.float32).reshape(-1, 5)


def radar(n: int = 3) -> bytes:
    dtype = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("dyn_prop", "i1"), ("id", "<i2"),
             ("rcs", "<f4"), ("vx", "<f4"), ("vy", "<f4")]  # fmt: skip
    points = np.zeros(n, dtype)
    points["x"], points["id"] = np.arange(n), np.arange(n) * 10
    return _PCD.format(n=n).encode() + points.tobytes()


def write_nuscenes(root: Path, n: int = 4) -> Path:
    version = root / "v1.0-mini"
    version.mkdir(parents=True)
    channels = {"CAM_FRONT": "camera", "LIDAR_TOP": "lidar", "RADAR_FRONT": "radar"}
    tables: dict[str, list[dict]] = {
        "attribute": [{"token": "a0", "name": "vehicle.moving"}],
        "category": [{"token": "c0", "name": "vehicle.car", "index": 17}],
        "visibility": [{"token": "4", "level": "v80-100"}],
        "log": [{"token": "log0", "location": "boston-seaport", "vehicle": "n008"}],
        "map": [], "scene": [], "sample": [], "sample_data": [], "ego_pose": [],
        "sample_annotation": [], "instance": [],
        "sensor": [{"token": f"s_{c}", "channel": c, "modality": m} for c, m in channels.items()],
        "calibrated_sensor": [
            {"token": f"cs_{c}", "sensor_token": f"s_{c}", "translation": [1.5, 0.0, 1.8],
             "rotation": TURNED,
             "camera_intrinsic": [[50, 0, 32], [0, 50, 24], [0, 0, 1]] if m == "camera" else []}
            for c, m in channels.items()
        ],
    }  # fmt: skip
    for number in range(2):
        scene = f"scene-006{number}"
        tables["scene"].append({
            "token": f"sc{number}", "log_token": "log0", "nbr_samples": n, "name": scene,
            "description": "Parked truck, a \"turn\" [right] {slowly}",
        })  # fmt: skip
        tables["instance"].append({"token": f"i{number}", "category_token": "c0"})
        for i in range(n):
            at = START_US + number * 10**8 + i * 500_000
            sample = f"sa{number}_{i}"
            tables["sample"].append(
                {"token": sample, "timestamp": at, "scene_token": f"sc{number}"}
            )
            for shift, (channel, kind) in enumerate(channels.items()):
                for part, key in (("samples", True), ("sweeps", False)):
                    stamp = at + shift * 10_000 + (0 if key else 250_000)
                    end = {"camera": "jpg", "lidar": "pcd.bin", "radar": "pcd"}[kind]
                    file = f"{part}/{channel}/{scene}__{channel}__{stamp}.{end}"
                    token = f"sd_{channel}_{stamp}"
                    tables["sample_data"].append({
                        "token": token, "sample_token": sample, "ego_pose_token": f"e_{token}",
                        "calibrated_sensor_token": f"cs_{channel}", "timestamp": stamp,
                        "is_key_frame": key, "filename": file,
                        "height": 48 if kind == "camera" else 0,
                        "width": 64 if kind == "camera" else 0,
                    })  # fmt: skip
                    tables["ego_pose"].append({
                        "token": f"e_{token}", "timestamp": stamp, "rotation": TURNED,
                        "translation": [float(i), 0.0, 0.0],
                    })  # fmt: skip
                    path = root / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if kind == "camera":
                        path.write_bytes(jpeg(picture(2 * i + (not key))))
                    elif kind == "lidar":
                        lidar(i).tofile(path)
                    else:
                        path.write_bytes(radar())
            if i != 2:  # the car is not seen in the third sample
                tables["sample_annotation"].append({
                    "token": f"an{number}_{i}", "sample_token": sample,
                    "instance_token": f"i{number}", "attribute_tokens": ["a0"],
                    "visibility_token": "4", "translation": [10.0 + i, 5.0, 1.0],
                    "size": [1.9, 4.7, 1.6], "rotation": TURNED,
                    "num_lidar_pts": 12, "num_radar_pts": 1,
                })  # fmt: skip
    for name, rows in tables.items():
        (version / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def write_expansions(root: Path) -> Path:
    """Add lidarseg, panoptic labels and the CAN bus to what write_nuscenes wrote."""
    version = root / "v1.0-mini"
    rows = json.loads((version / "sample_data.json").read_text())
    listed: dict[str, list[dict]] = {"lidarseg": [], "panoptic": []}
    for kind in listed:
        (root / kind / "v1.0-mini").mkdir(parents=True)
    for row in rows:
        if "LIDAR" not in row["filename"] or not row["is_key_frame"]:
            continue
        number = int(row["sample_token"].rsplit("_", 1)[1])
        points = len(lidar(number))
        for kind, end in (("lidarseg", "lidarseg.bin"), ("panoptic", "panoptic.npz")):
            name = f"{kind}/v1.0-mini/{row['token']}_{end}"
            if kind == "lidarseg":
                np.full(points, number, np.uint8).tofile(root / name)
            else:
                data = np.full(points, 17_000 + number + 1, np.uint16)
                np.savez_compressed(root / name, data=data)
            listed[kind].append(
                {"token": f"{kind}{row['token']}", "sample_data_token": row["token"],
                 "filename": name}
            )  # fmt: skip
    for kind, entries in listed.items():
        (version / f"{kind}.json").write_text(json.dumps(entries))
    bus = root / "can_bus"
    bus.mkdir()
    at = [START_US + i * 10_000 for i in range(20)]
    pose = [{"accel": [0, 0, 9.8], "orientation": TURNED, "pos": [i, 0, 0], "utime": t,
             "model": "zoe"} for i, t in enumerate(at)]  # fmt: skip
    steering = [{"utime": t, "value": i / 10} for i, t in enumerate(at)]
    bus_files = {"pose": pose, "steeranglefeedback": steering, "route": [[1, 2], [3, 4]],
                 "meta": {"pose": {"message_freq": 100}}}  # fmt: skip
    for kind, found in bus_files.items():
        (bus / f"scene-0060_{kind}.json").write_text(json.dumps(found))
    return root
