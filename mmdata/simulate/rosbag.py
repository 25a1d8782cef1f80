"""Writes a simulated episode as a ROS 2 log: MCAP with metadata.yaml, through rosbags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mmdata.geometry import CameraModel, LensModel, Rig, Sensor
from mmdata.simulate.episode import SimEpisode, SimStream

# Types that ROS 2 does not ship, in their packages' own layout.
_EXTRA_TYPES = {
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": (
        "std_msgs/Header header\naudio_common_msgs/AudioData audio"
    ),
    "audio_common_msgs/msg/AudioInfo": (
        "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\n"
        "string coding_format"
    ),
}
_POINT_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
# What the sensors' own drivers call our fields.
_POINT_NAMES = {"point_offset_ns": "t"}
_LENS_NAMES = {
    LensModel.PINHOLE: "plumb_bob",
    LensModel.BROWN_CONRADY: "plumb_bob",
    LensModel.FISHEYE: "equidistant",
}


def write_mcap(path: str | Path, episode: SimEpisode) -> Path:
    """Write the episode as a ROS 2 recording: a folder with one .mcap and its metadata.yaml.

    Args:
        path: the folder; must not exist yet.
        episode: what to write.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder exists.
    """
    folder = Path(path)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another folder or remove it")
    typestore = get_typestore(Stores.ROS2_JAZZY)
    for name, text in _EXTRA_TYPES.items():
        typestore.register(get_types_from_msg(text, name))
    make = Messages(typestore)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}

        def write(topic: str, kind: str, log_ns: int, message: Any) -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=typestore)
            data = typestore.serialize_cdr(message, kind)
            writer.write(connections[topic], log_ns, data)

        for topic, kind, payload in episode.setup:
            message = make(kind, episode.start_ns, payload)
            write(topic, kind, episode.start_ns + 1_000_000, message)
        for m in episode.messages():
            message = make(m.message, m.stamp_ns, m.payload, m.stream)
            write(m.topic, m.message, m.log_ns, message)
    return folder


def camera_info(frame_id: str, camera: CameraModel) -> dict[str, Any]:
    """Payload of a CameraInfo."""
    return {"frame_id": frame_id, "camera": camera}


def static_transforms(rig: Rig) -> dict[str, Any]:
    """Payload of /tf_static: every mount of the rig."""
    sensors = {s.frame_id: s for s in rig.values() if s.parent_SE3_sensor is not None}
    return {"sensors": list(sensors.values())}


class Messages:
    """Builds ROS messages from payloads."""

    def __init__(self, typestore: Typestore) -> None:
        self._types = typestore.types

    def __call__(
        self,
        kind: str,
        stamp_ns: int | None,
        payload: dict[str, Any],
        stream: SimStream | None = None,
    ) -> Any:
        build: Callable[..., Any] = getattr(self, "_" + kind.rsplit("/", 1)[-1].lower())
        return build(stamp_ns, payload, stream)

    def _make(self, kind: str, *args: Any, **fields: Any) -> Any:
        return self._types[kind](*args, **fields)

    def _header(self, stamp_ns: int | None, frame_id: str | None) -> Any:
        seconds, nanoseconds = divmod(0 if stamp_ns is None else stamp_ns, 1_000_000_000)
        stamp = self._make("builtin_interfaces/msg/Time", seconds, nanoseconds)
        return self._make("std_msgs/msg/Header", stamp, frame_id or "")

    def _vector(self, values: npt.ArrayLike, kind: str = "Vector3") -> Any:
        return self._make(f"geometry_msgs/msg/{kind}", *np.asarray(values, np.float64).tolist())

    def _quaternion(self, qwxyz: npt.ArrayLike) -> Any:
        w, x, y, z = np.asarray(qwxyz, np.float64).tolist()
        return self._make("geometry_msgs/msg/Quaternion", x, y, z, w)

    def _pose(self, payload: dict[str, Any]) -> Any:
        return self._make(
            "geometry_msgs/msg/Pose",
            self._vector(payload["position"], "Point"),
            self._quaternion(payload["orientation"]),
        )

    def _compressedimage(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        header = self._header(stamp, stream.info.frame_id)
        return self._make("sensor_msgs/msg/CompressedImage", header, "jpeg", payload["data"])

    def _image(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        depth = payload["data"]
        return self._make(
            "sensor_msgs/msg/Image",
            self._header(stamp, stream.info.frame_id),
            *depth.shape,
            "16UC1",
            0,
            depth.shape[1] * 2,
            np.ascontiguousarray(depth, dtype="<u2").view(np.uint8).reshape(-1),
        )

    def _camerainfo(self, stamp: int, payload: dict[str, Any], _: SimStream | None) -> Any:
        camera: CameraModel = payload["camera"]
        d = camera.distortion if len(camera.distortion) else np.zeros(5)
        name = "rational_polynomial" if len(d) == 8 else _LENS_NAMES[camera.model]
        roi = self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        p = np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1)
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            self._header(stamp, payload["frame_id"]),
            camera.height,
            camera.width,
            name,
            d.copy(),
            camera.K.reshape(-1).copy(),
            np.eye(3).reshape(-1),
            p,
            0,
            0,
            roi,
        )

    def _jointstate(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        names = stream.info.fields["position"].channels or ()
        arrays = [payload.get(k, np.zeros(0)) for k in ("position", "velocity", "effort")]
        header = self._header(stamp, stream.info.frame_id)
        return self._make("sensor_msgs/msg/JointState", header, list(names), *arrays)

    def _posestamped(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        header = self._header(stamp, stream.info.frame_id)
        return self._make("geometry_msgs/msg/PoseStamped", header, self._pose(payload))

    def _wrenchstamped(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        force, torque = self._vector(payload["force"]), self._vector(payload["torque"])
        wrench = self._make("geometry_msgs/msg/Wrench", force, torque)
        header = self._header(stamp, stream.info.frame_id)
        return self._make("geometry_msgs/msg/WrenchStamped", header, wrench)

    def _float64(self, _: int | None, payload: dict[str, Any], __: SimStream) -> Any:
        return self._make("std_msgs/msg/Float64", float(payload["data"]))

    def _string(self, _: int | None, payload: dict[str, Any], __: SimStream | None) -> Any:
        return self._make("std_msgs/msg/String", payload["data"])

    def _float32multiarray(self, _: int | None, payload: dict[str, Any], __: SimStream) -> Any:
        data = payload["data"]
        labels = ("finger", "row", "col")
        strides = [int(np.prod(data.shape[k:])) for k in range(data.ndim)]
        dims = [
            self._make("std_msgs/msg/MultiArrayDimension", label, size, stride)
            for label, size, stride in zip(labels, data.shape, strides, strict=True)
        ]
        layout = self._make("std_msgs/msg/MultiArrayLayout", dims, 0)
        flat = np.ascontiguousarray(data, np.float32).reshape(-1)
        return self._make("std_msgs/msg/Float32MultiArray", layout, flat)

    def _audiodatastamped(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        samples = np.ascontiguousarray(payload["samples"], "<i2").view(np.uint8).reshape(-1)
        header = self._header(stamp, stream.info.frame_id)
        data = self._make("audio_common_msgs/msg/AudioData", samples)
        return self._make("audio_common_msgs/msg/AudioDataStamped", header, data)

    def _audioinfo(self, _: int, payload: dict[str, Any], __: SimStream | None) -> Any:
        rate = payload["rate_hz"]
        return self._make("audio_common_msgs/msg/AudioInfo", 1, rate, "S16LE", 16 * rate, "wave")

    def _imu(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        return self._make(
            "sensor_msgs/msg/Imu",
            self._header(stamp, stream.info.frame_id),
            self._quaternion(payload["orientation"]),
            np.zeros(9),
            self._vector(payload["angular_velocity"]),
            np.zeros(9),
            self._vector(payload["linear_acceleration"]),
            np.zeros(9),
        )

    def _odometry(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        twist = self._make(
            "geometry_msgs/msg/Twist",
            self._vector(payload["linear_velocity"]),
            self._vector(payload["angular_velocity"]),
        )
        zeros = np.zeros(36)
        return self._make(
            "nav_msgs/msg/Odometry",
            self._header(stamp, stream.info.frame_id),
            str(stream.info.attrs["child_frame_id"]),
            self._make("geometry_msgs/msg/PoseWithCovariance", self._pose(payload), zeros),
            self._make("geometry_msgs/msg/TwistWithCovariance", twist, zeros),
        )

    def _pointcloud2(self, stamp: int, payload: dict[str, Any], stream: SimStream) -> Any:
        count = len(payload["x"])
        fields, offset, layout = [], 0, []
        for name, values in payload.items():
            name, dtype = _POINT_NAMES.get(name, name), values.dtype
            if name == "t":
                dtype = np.dtype("<u4")
            point_type = _POINT_TYPES[dtype.str[1:]]
            fields.append(self._make("sensor_msgs/msg/PointField", name, offset, point_type, 1))
            layout.append((name, dtype))
            offset += dtype.itemsize
        points = np.zeros(count, dtype=layout)
        for (name, _), values in zip(layout, payload.values(), strict=True):
            points[name] = values
        return self._make(
            "sensor_msgs/msg/PointCloud2",
            self._header(stamp, stream.info.frame_id),
            1,
            count,
            fields,
            False,
            offset,
            offset * count,
            points.view(np.uint8),
            True,
        )

    def _tfmessage(self, stamp: int, payload: dict[str, Any], stream: SimStream | None) -> Any:
        if stream is None:
            transforms = [self._mount(stamp, s) for s in payload["sensors"]]
        else:
            child = str(stream.info.attrs["child_frame_id"])
            pose = (payload["translation"], payload["orientation"])
            transforms = [self._transform(stamp, stream.info.frame_id or "", child, *pose)]
        return self._make("tf2_msgs/msg/TFMessage", transforms)

    def _mount(self, stamp: int, sensor: Sensor) -> Any:
        assert sensor.parent_SE3_sensor is not None
        assert sensor.parent is not None
        pose = sensor.parent_SE3_sensor
        return self._transform(
            stamp, sensor.parent, sensor.frame_id, pose.translation, pose.quaternion
        )

    def _transform(
        self, stamp: int, parent: str, child: str, t: npt.ArrayLike, q: npt.ArrayLike
    ) -> Any:
        transform = self._make("geometry_msgs/msg/Transform", self._vector(t), self._quaternion(q))
        return self._make(
            "geometry_msgs/msg/TransformStamped", self._header(stamp, parent), child, transform
        )
