"""Small logs, written quickly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


def header(stamp_ns: int, frame_id: str = "") -> object:
    """std_msgs/Header."""
    time = STORE.types["builtin_interfaces/msg/Time"]
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return STORE.types["std_msgs/msg/Header"](
        stamp=time(sec=sec, nanosec=nanosec), frame_id=frame_id
    )


def write_log(path: Path, seed: int, messages: int = 40) -> Path:
    """A rosbag2 folder with a wrench, a value and a few JPEG frames; other content per seed."""
    rng = np.random.default_rng(seed)
    types = STORE.types
    vector = types["geometry_msgs/msg/Vector3"]
    wrench, image, value = (
        "geometry_msgs/msg/WrenchStamped", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/Float64"
    )  # fmt: skip
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            kind: writer.add_connection(topic, kind, typestore=STORE)
            for topic, kind in (("/wrench", wrench), ("/camera/compressed", image), ("/v", value))
        }

        def write(kind: str, stamp_ns: int, message: object) -> None:
            writer.write(connections[kind], stamp_ns + MS, STORE.serialize_cdr(message, kind))

        for k in range(messages):
            now = START_NS + seed * 1000 * MS + k * 10 * MS
            force, torque = (vector(*rng.normal(size=3)) for _ in range(2))
            parts = types["geometry_msgs/msg/Wrench"](force=force, torque=torque)
            write(wrench, now, types[wrench](header=header(now, "wrist"), wrench=parts))
            write(value, now, types[value](data=float(k)))
            if k % 10 == 0:
                frame = np.full((48, 64, 3), rng.integers(0, 255, 3), np.uint8)
                data = cv2.imencode(".jpg", frame)[1].reshape(-1)
                write(image, now, types[image](header=header(now, "cam"), format="jpeg", data=data))
    return path
