"""Streams that arm and vehicle share: when they sample, and cameras, LiDAR, IMU, transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmdata.errors import ConfigError
from mmdata.geometry import SE3, CameraModel
from mmdata.simulate import signals
from mmdata.simulate.episode import SimStream, Stamps, arrive, make_stream, sample_stamps
from mmdata.simulate.lidar import Scan, sweeps
from mmdata.simulate.motion import Floats
from mmdata.simulate.render import Camera, encode_jpeg
from mmdata.simulate.scene import Panel, Solid
from mmdata.streams import Kind, Ragged

PoseAt = Callable[[Floats], tuple[Floats, Floats]]
SolidsAt = Callable[[Floats], list[Solid]]
# Jitter of the sampling instants; minimum and mean extra of the latency; in seconds.
_CAMERA_TIMING = (2e-4, (0.012, 0.003))
_LIDAR_TIMING = (1e-4, (0.004, 0.001))


@dataclass
class Sampler:
    """When the streams of one recording sample, and how long their messages travel.

    Every stream draws on its own, so that leaving one out does not change the others.
    """

    seed: int
    start_ns: int
    length_s: float
    rates_hz: Mapping[str, float]
    surfaces: dict[str, Ragged] = field(default_factory=dict)
    """Per LiDAR stream and sweep: which solid (by index, then panels) each point lies on."""
    _drawn: dict[str, tuple[Stamps, Stamps, np.random.Generator]] = field(default_factory=dict)

    @property
    def end_ns(self) -> int:
        return self.start_ns + round(self.length_s * 1e9)

    def draw(
        self,
        name: str,
        jitter_s: float,
        latency_s: tuple[float, float],
        span_s: float = 0.0,
    ) -> tuple[Stamps, Stamps, np.random.Generator]:
        """True stamps, log stamps, and the generator for whatever else the stream draws.

        latency_s: minimum, and mean of an exponential on top; span_s: how long a sample takes.
        """
        if name not in self._drawn:
            rng = np.random.default_rng([self.seed, 2, list(self.rates_hz).index(name)])
            true = sample_stamps(rng, self.start_ns, self.end_ns, self.rates_hz[name], jitter_s)
            self._drawn[name] = (true, arrive(rng, true, span_s + latency_s[0], latency_s[1]), rng)
        return self._drawn[name]

    def seconds(self, stamp_ns: Stamps) -> Floats:
        """Times since the start."""
        return (stamp_ns - self.start_ns).astype(np.float64) * 1e-9

    def camera_stamps(self, name: str) -> Stamps:
        """True exposure instants of a camera, whether or not its stream is made."""
        return self.draw(name, *_CAMERA_TIMING)[0]

    def lidar_stamps(self, name: str, scan: Scan) -> Stamps:
        """True instants at which the sweeps of a LiDAR begin."""
        return self.draw(name, *_LIDAR_TIMING, scan.span_s)[0]

    def chosen(self, builders: Mapping[str, object], names: Sequence[str] | None) -> list[str]:
        """The wanted streams; ConfigError when there is no such stream."""
        wanted = list(builders) if names is None else list(names)
        for name in wanted:
            if name not in builders:
                raise ConfigError(f"no stream {name!r}; there are {list(builders)}")
        return wanted

    def camera(
        self,
        name: str,
        topic: str,
        model: CameraModel,
        panels: Sequence[Panel],
        pose_at: PoseAt,
        solids_at: SolidsAt,
        *,
        render: bool = True,
    ) -> SimStream:
        """JPEG frames exposed at one instant; without rendering, one grey frame for all."""
        true, receive, _ = self.draw(name, *_CAMERA_TIMING)
        t = self.seconds(true)
        frames = []
        if render:
            camera = Camera(model, panels, self.seed)
            solids = solids_at(t)
            position, orientation = pose_at(t)
            for i in range(len(t)):
                pose = SE3.from_quaternion(orientation[i], position[i])
                frames.append(encode_jpeg(camera.render(pose, [s.take(i) for s in solids])))
        else:
            grey = np.full((model.height, model.width, 3), 128, np.uint8)
            frames = [encode_jpeg(grey)] * len(t)
        return make_stream(
            name,
            Kind.IMAGE,
            topic,
            "sensor_msgs/msg/CompressedImage",
            true,
            receive,
            {"data": Ragged.from_rows(frames, np.uint8)},
            frame_id=name,
            sensor=name,
            encoding="jpeg",
        )

    def lidar(
        self,
        name: str,
        topic: str,
        scan: Scan,
        pose_at: PoseAt,
        solids_at: SolidsAt,
        panels: Sequence[Panel],
    ) -> SimStream:
        """Sweeps; a sweep's stamp is its first point's instant, and it arrives complete."""
        true, receive, rng = self.draw(name, *_LIDAR_TIMING, scan.span_s)
        fields, self.surfaces[name] = sweeps(
            self.seconds(true), scan, pose_at, solids_at, panels, rng
        )
        return make_stream(
            name,
            Kind.SWEEP,
            topic,
            "sensor_msgs/msg/PointCloud2",
            true,
            receive,
            fields,
            frame_id="lidar",
            sensor="lidar",
            units={"x": "m", "y": "m", "z": "m", "point_offset_ns": "ns"},
            span_ns=round(scan.span_s * 1e9),
        )

    def imu(self, name: str, topic: str, pose_at: PoseAt) -> SimStream:
        """Gyroscope and accelerometer of the frame ``imu``."""
        true, receive, rng = self.draw(name, 5e-5, (0.0008, 0.0003))
        t = self.seconds(true)
        gyro, force = signals.imu(t, pose_at, rng)
        return make_stream(
            name,
            Kind.SIGNAL,
            topic,
            "sensor_msgs/msg/Imu",
            true,
            receive,
            {
                "orientation": pose_at(t)[1],
                "angular_velocity": gyro,
                "linear_acceleration": force,
            },
            frame_id="imu",
            sensor="imu",
            units={"angular_velocity": "rad/s", "linear_acceleration": "m/s^2"},
        )

    def transform(self, name: str, parent: str, child: str, pose_at: PoseAt) -> SimStream:
        """A moving frame on /tf."""
        true, receive, _ = self.draw(name, 1e-4, (0.0008, 0.0003))
        position, orientation = pose_at(self.seconds(true))
        return make_stream(
            name,
            Kind.SIGNAL,
            "/tf",
            "tf2_msgs/msg/TFMessage",
            true,
            receive,
            {"translation": position, "orientation": orientation},
            frame_id=parent,
            units={"translation": "m"},
            attrs={"child_frame_id": child},
        )
