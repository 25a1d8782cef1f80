"""comma2k19: one-minute segments of highway driving, NumPy arrays and a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.recording import Recording
from mmdata_converters._common import (
    DAMAGE,
    DatasetConverter,
    load_array,
    measured,
    natural,
    seconds_to_ns,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._video import add_video

#: Axes of the phone: forward, right, down.
_DEVICE = "device_frd"
#: folder -> (stream, field, unit, channels, factor into our unit)
_SIGNALS: dict[str, tuple[str, str, str | None, tuple[str, ...] | None, float]] = {
    "IMU/accelerometer": ("imu", "linear_acceleration", "m/s^2", ("x", "y", "z"), 1),
    "IMU/gyro": ("imu", "angular_velocity", "rad/s", ("x", "y", "z"), 1),
    "IMU/gyro_bias": ("gyro_bias", "data", "rad/s", ("x", "y", "z"), 1),
    "IMU/gyro_uncalibrated": ("gyro_uncalibrated", "data", "rad/s", ("x", "y", "z"), 1),
    "IMU/magnetometer": ("magnetometer", "magnetic_field", "T", ("x", "y", "z"), 1e-6),
    "IMU/magnetometer_uncalibrated": (
        "magnetometer_uncalibrated", "magnetic_field", "T", ("x", "y", "z"), 1e-6,
    ),
    "CAN/speed": ("speed", "data", "m/s", None, 1),
    "CAN/steering_angle": ("steering_angle", "data", "rad", None, np.pi / 180),
    "CAN/wheel_speed": (
        "wheel_speed", "data", "m/s",
        ("front_left", "front_right", "rear_left", "rear_right"), 1,
    ),
    "CAN/radar": ("radar", "data", None, None, 1),
}  # fmt: skip
_POSE = {
    "frame_positions": ("position", "m"),
    "frame_orientations": ("orientation", None),
    "frame_velocities": ("linear_velocity", "m/s"),
    "frame_gps_times": ("gps_week_and_second", None),
}


class Comma2k19Converter(DatasetConverter):
    name = "comma2k19"
    summary = "comma2k19 segments"
    reads = "IMU, CAN, radar, GNSS live and raw, global pose (ECEF), road video"
    time = "measured, boot clock"
    cannot = "raw_log.bz2"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return (path / "processed_log").is_dir() or (
            (path / "global_pose" / "frame_times").is_file()
            or (path / "global_pose" / "frame_times.npy").is_file()
        )

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not cls.claims(path):
            raise ConversionError(f"{path}: neither processed_log nor global_pose in it")
        return _Segment(path)


class _Segment(FeedRecording):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "comma2k19")
        self.know(source_format="comma2k19")
        log = path / "processed_log"
        pending: dict[str, Any] = {}
        folders = {p.parent for p in log.rglob("*") if p.is_file()}
        for folder in sorted(folders, key=lambda f: natural(str(f))):
            topic = folder.relative_to(log).as_posix()
            arrays = self._arrays(folder, topic)
            if "t" not in arrays:
                self.drop(topic, "no stamps (t)", max((len(a) for a in arrays.values()), default=1))
                continue
            stamps = self._stamps(topic, arrays.pop("t"))
            if stamps is None:
                continue
            if not arrays:
                self.drop(topic, "stamps without values", len(stamps))
                continue
            if topic in _SIGNALS and "value" in arrays:
                self._known(topic, stamps, arrays["value"], pending)
            elif topic == "CAN/raw_can":
                self._raw_can(topic, stamps, arrays)
            elif topic.startswith("GNSS/live"):
                self._gnss(topic, stamps, arrays["value"])
            else:
                name = topic.rsplit("/", 1)[-1]
                fields = {"data" if k == "value" else k: v for k, v in arrays.items()}
                self.signal(name, fields, stamps, source_topic=topic, **measured())
        for stream, (stamps, fields, units, channels, topic) in pending.items():
            frame = _DEVICE if topic.startswith("IMU/") else None
            self.signal(
                stream, fields, stamps, units=units, channels=channels, source_topic=topic,
                frame_id=frame, **measured(),
            )  # fmt: skip
        self._pose_and_video()

    def _arrays(self, folder: Path, topic: str) -> dict[str, NDArray[Any]]:
        found = {}
        for file in sorted(folder.iterdir()):
            if not file.is_file():
                continue
            self.uses(file)
            array = self._load(file, f"{topic}/{file.name}")
            if array is not None:
                found[file.name.removesuffix(".npy")] = array
        return found

    def _load(self, file: Path, topic: str) -> NDArray[Any] | None:
        """A NumPy array; never a pickled object."""
        try:
            array = load_array(file)
        except ConversionError as error:
            self.drop(topic, str(error))
            return None
        return array if array.ndim else None

    def _stamps(self, topic: str, seconds: NDArray[Any]) -> Stamps | None:
        try:
            return seconds_to_ns(seconds.reshape(-1))
        except DAMAGE as error:
            self.drop(topic, f"stamps: {error}", max(1, len(seconds)))
            return None

    def _known(
        self, topic: str, stamps: Stamps, values: NDArray[Any], pending: dict[str, Any]
    ) -> None:
        stream, field, unit, channels, factor = _SIGNALS[topic]
        if topic == "CAN/radar" and values.shape[1:] == (7,):
            self._radar(topic, stamps, values)
            return
        values = values * factor if factor != 1 else values
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        known = pending.get(stream)
        if known is not None and not np.array_equal(known[0], stamps):
            stream = f"{stream}_{field}"  # two sensors that do not share their stamps
            known = None
        if known is None:
            fresh: tuple[Any, ...] = (stamps, {}, {}, {}, topic)
            known = fresh
            pending[stream] = known
        known[1][field] = values
        known[2].update({field: unit} if unit else {})
        known[3].update({field: channels} if channels else {})

    def _radar(self, topic: str, stamps: Stamps, values: NDArray[Any]) -> None:
        self.signal(
            "radar",
            {
                "forward": values[:, 0], "left": values[:, 1], "relative_speed": values[:, 2],
                "address": values[:, 5], "new_track": values[:, 6],
            },
            stamps, units={"forward": "m", "left": "m", "relative_speed": "m/s"},
            source_topic=topic, **measured(),
        )  # fmt: skip

    def _raw_can(self, topic: str, stamps: Stamps, arrays: dict[str, NDArray[Any]]) -> None:
        fields = {k: v for k, v in arrays.items() if v.dtype.kind in "iuf"}
        data = arrays.get("data")
        if data is not None and data.dtype.kind == "S":
            width = data.dtype.itemsize
            fields["data"] = np.ascontiguousarray(data).view(np.uint8).reshape(len(data), width)
        self.signal("raw_can", fields, stamps, source_topic=topic, **measured())

    def _gnss(self, topic: str, stamps: Stamps, values: NDArray[Any]) -> None:
        name = "navsatfix_" + topic.rsplit("_", 1)[-1]
        if values.shape[1:] != (6,):
            self.signal(name, {"data": values}, stamps, source_topic=topic, **measured())
            return
        self.signal(
            name,
            {
                "latitude": values[:, 0], "longitude": values[:, 1], "speed": values[:, 2],
                "utc_ms": values[:, 3], "altitude": values[:, 4],
                "bearing": np.deg2rad(values[:, 5]),
            },
            stamps,
            units={"latitude": "deg", "longitude": "deg", "speed": "m/s", "utc_ms": "ms",
                   "altitude": "m", "bearing": "rad"},
            source_topic=topic, **measured(),
        )  # fmt: skip

    def _pose_and_video(self) -> None:
        folder = self.path / "global_pose"
        arrays = self._arrays(folder, "global_pose") if folder.is_dir() else {}
        times = arrays.get("frame_times")
        stamps = self._stamps("global_pose", times) if times is not None else None
        if stamps is not None:
            for name in sorted({n for n in _POSE if n != "frame_gps_times"} - set(arrays)):
                self.account.problem(f"global_pose/{name} is missing")
            fields = {_POSE[k][0]: v for k, v in arrays.items() if k in _POSE}
            units = {f: u for f, u in _POSE.values() if u and f in fields}
            if fields:
                self.signal(
                    "odometry", fields, stamps, units=units, source_topic="global_pose",
                    frame_id="ecef", attrs={"quaternion": "qw qx qy qz, ECEF from device"},
                    **measured(),
                )  # fmt: skip
        video = next((self.path / n for n in ("video.hevc", "video.mp4", "video.mkv")
                      if (self.path / n).exists()), None)  # fmt: skip
        if (self.path / "raw_log.bz2").exists():
            self.account.problem("raw_log.bz2 is not read; processed_log was made from it")
        if video is None:
            self.account.problem("no video in the segment")
        elif stamps is None:
            self.drop("video", "no frame_times to stamp its frames with")
        else:
            add_video(
                self, "camera_road", video, stamps, source_topic="video", source_type="video",
                **measured("unknown"),
            )  # fmt: skip
