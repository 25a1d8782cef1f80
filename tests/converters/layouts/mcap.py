"""MCAP files with protobuf, JSON and ROS 1 messages, encoded byte by byte."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer

from .media import jpeg, picture, png
from .rlds import field, varint

START_NS = 1_700_000_000_000_000_000
TURNED = float(np.sqrt(0.5))

#: field name -> (number, type, repeated, type name); descriptor.proto's numbers of types
DOUBLE, UINT64, INT32, FIXED32, STRING, MESSAGE, BYTES, UINT32, ENUM = 1, 4, 5, 7, 9, 11, 12, 13, 14
VECTOR = {k: (i + 1, DOUBLE, False, "") for i, k in enumerate("xyz")}
MESSAGES: dict[str, dict[str, tuple[int, int, bool, str]]] = {
    "google.protobuf.Timestamp": {"seconds": (1, 3, False, ""), "nanos": (2, INT32, False, "")},
    "foxglove.Vector3": VECTOR,
    "foxglove.Quaternion": {k: (i + 1, DOUBLE, False, "") for i, k in enumerate("xyzw")},
    "foxglove.Pose": {
        "position": (1, MESSAGE, False, "foxglove.Vector3"),
        "orientation": (2, MESSAGE, False, "foxglove.Quaternion"),
    },
    "foxglove.PackedElementField": {
        "name": (1, STRING, False, ""), "offset": (2, FIXED32, False, ""),
        "type": (3, ENUM, False, ""),
    },
    "foxglove.CompressedImage": {
        "timestamp": (1, MESSAGE, False, "google.protobuf.Timestamp"),
        "frame_id": (4, STRING, False, ""), "data": (2, BYTES, False, ""),
        "format": (3, STRING, False, ""),
    },
    "foxglove.PointCloud": {
        "timestamp": (1, MESSAGE, False, "google.protobuf.Timestamp"),
        "frame_id": (2, STRING, False, ""), "pose": (3, MESSAGE, False, "foxglove.Pose"),
        "point_stride": (4, FIXED32, False, ""),
        "fields": (5, MESSAGE, True, "foxglove.PackedElementField"),
        "data": (6, BYTES, False, ""),
    },
    "foxglove.FrameTransform": {
        "timestamp": (1, MESSAGE, False, "google.protobuf.Timestamp"),
        "parent_frame_id": (2, STRING, False, ""), "child_frame_id": (3, STRING, False, ""),
        "translation": (4, MESSAGE, False, "foxglove.Vector3"),
        "rotation": (5, MESSAGE, False, "foxglove.Quaternion"),
    },
    "acme.Wheel": {
        "timestamp": (1, MESSAGE, False, "google.protobuf.Timestamp"),
        "speed": (2, DOUBLE, False, ""), "ticks": (3, INT32, True, ""),
        "mode": (4, UINT32, False, ""),
    },
}  # fmt: skip


def descriptors() -> bytes:
    """A FileDescriptorSet, one file per package."""
    files = b""
    for package in sorted({n.rpartition(".")[0] for n in MESSAGES}):
        file = field(1, f"{package}.proto".encode()) + field(2, package.encode())
        for name, fields in MESSAGES.items():
            if name.rpartition(".")[0] == package:
                body = field(1, name.rpartition(".")[2].encode())
                for key, (number, kind, repeated, type_name) in fields.items():
                    one = field(1, key.encode()) + varint(3 << 3) + varint(number)
                    one += varint(4 << 3) + varint(3 if repeated else 1)
                    one += varint(5 << 3) + varint(kind)
                    if type_name:
                        one += field(6, f".{type_name}".encode())
                    body += field(2, one)
                file += field(4, body)
        files += field(1, file)
    return files


def encode(name: str, message: dict[str, Any]) -> bytes:
    out = b""
    for key, value in message.items():
        number, kind, repeated, type_name = MESSAGES[name][key]
        if repeated and kind != MESSAGE:
            out += field(number, b"".join(varint(int(v)) for v in value))
            continue
        for one in value if repeated else [value]:
            if kind == MESSAGE:
                out += field(number, encode(type_name, one))
            elif kind == STRING:
                out += field(number, one.encode())
            elif kind == BYTES:
                out += field(number, one)
            elif kind == DOUBLE:
                out += varint(number << 3 | 1) + struct.pack("<d", one)
            elif kind == FIXED32:
                out += varint(number << 3 | 5) + struct.pack("<I", one)
            else:
                out += varint(number << 3) + varint(one)
    return out


def stamp(ns: int, json_form: bool = False) -> dict[str, int]:
    seconds, nanos = divmod(ns, 10**9)
    return {"sec": seconds, "nsec": nanos} if json_form else {"seconds": seconds, "nanos": nanos}


def points(i: int) -> np.ndarray:
    layout = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "u1"), ("pad", "u1", 3)]
    cloud = np.zeros(4 + i, layout)
    cloud["x"], cloud["intensity"] = np.arange(4 + i) + 0.5, np.arange(4 + i)
    return cloud


CUBE = {
    "entities": [{
        "timestamp": stamp(START_NS, True), "frame_id": "map", "id": "car-1",
        "metadata": [{"key": "category", "value": "car"}],
        "cubes": [{"pose": {"position": {"x": 1, "y": 2, "z": 3},
                            "orientation": {"x": 0, "y": 0, "z": TURNED, "w": TURNED}},
                   "size": {"x": 4.5, "y": 1.9, "z": 1.6}}],
    }]
}  # fmt: skip


def write_mcap(path: Path, n: int = 6, *, chunk_size: int = 4096, chunked: bool = True) -> Path:
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_size, compression=CompressionType.ZSTD,
                        use_chunking=chunked)  # fmt: skip
        writer.start()
        text = descriptors()

        def channel(topic: str, name: str, encoding: str = "protobuf", schema: bytes = text) -> int:
            form = {"protobuf": "protobuf", "json": "jsonschema", "ros1": "ros1msg"}[encoding]
            known = writer.register_schema(name, form, schema)
            return writer.register_channel(topic, encoding, known)

        camera = channel("/camera/front", "foxglove.CompressedImage")
        lidar = channel("/lidar", "foxglove.PointCloud")
        wheel = channel("/wheel", "acme.Wheel")
        tf = channel("/tf", "foxglove.FrameTransform")
        info = channel("/camera/info", "foxglove.CameraCalibration", "json", b"{}")
        depth = channel("/depth", "foxglove.RawImage", "json", b"{}")
        scene = channel("/scene", "foxglove.SceneUpdate", "json", b"{}")
        odd = channel("/state", "acme.State", "json", b"{}")
        imu = channel("/old", "geometry_msgs/Vector3Stamped", "ros1", (
            b"Header header\ngeometry_msgs/Vector3 vector\n" + b"=" * 80 +
            b"\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n" + b"=" * 80 +
            b"\nMSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z\n"))  # fmt: skip

        def put(number: int, data: bytes, at: int) -> None:
            writer.add_message(number, at + 5_000_000, data, at + 1_000_000)

        for i in range(n):
            at = START_NS + i * 100_000_000
            put(camera, encode("foxglove.CompressedImage", {
                "timestamp": stamp(at), "frame_id": "front", "data": jpeg(picture(i)),
                "format": "jpeg"}), at)  # fmt: skip
            cloud = points(i)
            layout = [
                {"name": k, "offset": o, "type": t}
                for k, o, t in (("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("intensity", 12, 1))
            ]
            put(lidar, encode("foxglove.PointCloud", {
                "timestamp": stamp(at), "frame_id": "lidar", "point_stride": 16,
                "fields": layout, "data": cloud.tobytes()}), at)  # fmt: skip
            put(wheel, encode("acme.Wheel", {
                "timestamp": stamp(at), "speed": 1.5 * i, "ticks": [i, -i, 7]}), at)  # fmt: skip
            put(tf, encode("foxglove.FrameTransform", {
                "timestamp": stamp(at), "parent_frame_id": "base", "child_frame_id": "front",
                "translation": {"x": 1.0, "y": 0.0, "z": 2.0},
                "rotation": {"x": 0.0, "y": 0.0, "z": TURNED, "w": TURNED}}), at)  # fmt: skip
            image = np.full((4, 6), 1000 + i, "<u2")
            put(depth, json.dumps({
                "timestamp": stamp(at, True), "frame_id": "front", "width": 6, "height": 4,
                "encoding": "16UC1", "step": 12,
                "data": base64.b64encode(image.tobytes()).decode()}).encode(), at)  # fmt: skip
            put(odd, json.dumps({
                "header": {"stamp": stamp(at, True)}, "pose": {"x": i, "y": 0.5},
                "name": "robot", "ok": True, "joints": [1.0, 2.0, 3.0 * i]}).encode(),
                at)  # fmt: skip
            head = struct.pack("<III", i, at // 10**9, at % 10**9) + struct.pack("<I", 3) + b"imu"
            put(imu, head + struct.pack("<ddd", i, 2.0, 3.0), at)
        put(info, json.dumps({
            "timestamp": stamp(START_NS, True), "frame_id": "front", "width": 64, "height": 48,
            "distortion_model": "plumb_bob", "D": [0.1, 0, 0, 0, 0],
            "K": [50, 0, 32, 0, 50, 24, 0, 0, 1]}).encode(), START_NS)  # fmt: skip
        put(scene, json.dumps(CUBE).encode(), START_NS)
        writer.finish()
    return path


def write_mixed(path: Path) -> Path:
    """JSON topics whose messages change their layout."""
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.LZ4)
        writer.start()

        def put(topic: str, name: str, i: int, message: dict[str, Any]) -> None:
            known = schemas.setdefault(name, writer.register_schema(name, "jsonschema", b"{}"))
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, "json", known)
            at = START_NS + i * 100_000_000
            data = json.dumps({"timestamp": stamp(at, True), **message}).encode()
            writer.add_message(channels[topic], at, data, at)

        schemas: dict[str, int] = {}
        channels: dict[str, int] = {}
        image = "foxglove.CompressedImage"
        for i in range(8):
            coded = (png if i % 2 else jpeg)(picture(i))
            put("/camera", image, i, {"data": base64.b64encode(coded).decode(), "frame_id": "c"})
            q = [float(i)] * (6 + i % 2)
            put("/arm", "acme.Arm", i, {"q": q, "mode": "run", "tags": ["a", "b"]})
        coded = base64.b64encode(jpeg(picture(9))).decode()
        put("/camera/2", image, 9, {"data": coded, "frame_id": "d"})
        for i in range(12):
            put("/growing", "acme.List", i, {"values": [1.0] * (i + 1)})
        writer.finish()
    return path
