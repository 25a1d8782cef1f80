"""A simulated drive: cameras with different lenses, LiDAR, ego motion, and true labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmdata.errors import ConfigError
from mmdata.geometry import quat_conjugate, quat_rotate
from mmdata.simulate import boxes, signals
from mmdata.simulate.episode import SimEpisode, SimStream, make_stream
from mmdata.simulate.faults import StreamFaults, exposures, inject
from mmdata.simulate.lidar import Scan
from mmdata.simulate.rosbag import camera_info, static_transforms
from mmdata.simulate.sampling import PoseAt, Sampler
from mmdata.simulate.street import CAMERAS, Street
from mmdata.streams import Kind

DRIVE_RATES_HZ: Mapping[str, float] = dict.fromkeys(CAMERAS, 10.0) | {
    "lidar_points": 10.0,
    "odometry": 50.0,
    "imu": 100.0,
    "tf_world_base_link": 50.0,
}
DRIVE_SCAN = Scan(0.0985, (-np.pi, np.pi), (-0.32, 0.06), columns=400, rings=24, range_noise_m=0.02)


def drive(
    seed: int = 0,
    *,
    duration_s: float = 8.0,
    cameras: int = 4,
    objects: int = 14,
    hard_braking: bool = False,
    faults: Mapping[str, StreamFaults] | None = None,
    streams: Sequence[str] | None = None,
    rates_hz: Mapping[str, float] | None = None,
    render: bool = True,
) -> SimEpisode:
    """Simulate a drive; the same arguments give the same bytes.

    Frames: ``world`` (z up), ``base_link`` (on the ground under the rear axle, x forward).
    The truth holds the labels of a perfect annotator: ``tracks_3d`` (boxes in ``world`` at every
    sweep's stamp) and ``boxes_2d`` (rectangles at every exposure), keyed as the fields of
    `mmdata_schema.Box3D` and `Box2D`. Under faults their ``stamp_ns`` is the stamp of the image
    or sweep as recorded, and ``true_ns`` stays the true instant.

    Args:
        seed: draws route, objects and sensor mounts.
        duration_s: length.
        cameras: how many, 1 to 6, in the order of `mmdata.simulate.street.CAMERAS`.
        objects: how many labelled objects; fewer where there is no room.
        hard_braking: brake hard after the first seconds.
        faults, streams, rates_hz, render: as in :func:`mmdata.simulate.pick_place`.

    Raises:
        ConfigError: an unknown stream or a number of cameras that does not exist.
    """
    if not 1 <= cameras <= len(CAMERAS):
        raise ConfigError(f"a drive has 1 to {len(CAMERAS)} cameras, not {cameras}")
    names = CAMERAS[:cameras]
    street = Street(seed, duration_s, names, objects, hard_braking)
    start_ns = 1_770_000_000_000_000_000 + seed * 1_000_000_000_000
    sampler = Sampler(seed, start_ns, duration_s, dict(DRIVE_RATES_HZ) | dict(rates_hz or {}))
    raw = _build(street, sampler, names, streams, render)
    episode = SimEpisode(
        episode_id=f"drive_{seed:03d}",
        start_ns=start_ns,
        end_ns=sampler.end_ns,
        rig=street.rig,
        raw=raw,
        truth=_truth(street, sampler, raw),
        world=street,
        setup=_setup(street, raw),
    )
    return inject(episode, faults, seed) if faults else episode


def _build(
    street: Street,
    sampler: Sampler,
    cameras: Sequence[str],
    names: Sequence[str] | None,
    render: bool,
) -> dict[str, SimStream]:
    def sensor(name: str) -> PoseAt:
        return lambda t: street.sensor_pose(name, t)

    def camera(name: str) -> SimStream:
        model = street.rig[name].camera
        assert model is not None
        topic = f"/{name.replace('_', '/', 1)}/image/compressed"
        return sampler.camera(
            name, topic, model, street.panels, sensor(name), street.solids, render=render
        )

    builders: dict[str, Any] = dict.fromkeys(cameras, camera) | {
        "lidar_points": lambda n: sampler.lidar(
            n, "/lidar/points", DRIVE_SCAN, sensor("lidar"), street.solids, street.panels
        ),
        "odometry": lambda n: _odometry(n, street, sampler),
        "imu": lambda n: sampler.imu(n, "/imu", sensor("imu")),
        "tf_world_base_link": lambda n: sampler.transform(n, "world", "base_link", street.ego_pose),
    }
    return {name: builders[name](name) for name in sampler.chosen(builders, names)}


def _odometry(name: str, street: Street, sampler: Sampler) -> SimStream:
    true, receive, rng = sampler.draw(name, 5e-5, (0.002, 0.0005))
    t = sampler.seconds(true)
    position, orientation = street.ego_pose(t)
    velocity = signals.velocity(lambda s: street.ego_pose(s)[0], t)
    linear = quat_rotate(quat_conjugate(orientation), velocity)
    angular = signals.angular_velocity(street.ego_pose, t)
    return make_stream(
        name,
        Kind.SIGNAL,
        "/odometry",
        "nav_msgs/msg/Odometry",
        true,
        receive,
        {
            "position": position,
            "orientation": orientation,
            "linear_velocity": linear + rng.normal(0, 0.01, linear.shape),
            "angular_velocity": angular + rng.normal(0, 0.001, angular.shape),
        },
        frame_id="world",
        units={"position": "m", "linear_velocity": "m/s", "angular_velocity": "rad/s"},
        attrs={"child_frame_id": "base_link"},
    )


def _setup(street: Street, raw: Mapping[str, SimStream]) -> tuple[tuple[str, str, Any], ...]:
    out: list[tuple[str, str, Any]] = [
        ("/tf_static", "tf2_msgs/msg/TFMessage", static_transforms(street.rig))
    ]
    for name, sensor in street.rig.items():
        if sensor.camera is not None and name in raw:
            topic = f"/{name.replace('_', '/', 1)}/camera_info"
            out.append((topic, "sensor_msgs/msg/CameraInfo", camera_info(name, sensor.camera)))
    return tuple(out)


def _truth(street: Street, sampler: Sampler, raw: Mapping[str, SimStream]) -> dict[str, Any]:
    def ns(time_s: float) -> int:
        return sampler.start_ns + round(min(time_s, sampler.length_s) * 1e9)

    lidar_ns = sampler.lidar_stamps("lidar_points", DRIVE_SCAN)
    rectangles = []
    for name in street.camera_names:
        stamps = sampler.camera_stamps(name)
        rectangles += boxes.boxes_2d(street, name, stamps, sampler.seconds(stamps))
    return {
        "task": "drive",
        "generator": "mmdata.simulate.drive",
        "seed": street.seed,
        "t0_ns": sampler.start_ns,
        "end_ns": sampler.end_ns,
        "phases": [
            {"label": m.label, "start_ns": ns(m.start_s), "end_ns": ns(m.end_s)}
            for m in street.route.manoeuvres
        ],
        "events": [
            {"label": "hard_braking", "stamp_ns": ns(t)} for t in street.route.hard_braking_s()
        ],
        "objects": [
            {"object_id": a.object_id, "label": a.label, "size_lwh_m": a.size_m.tolist(),
             "speed_m_s": a.speed_m_s}
            for a in street.actors
        ],
        "tracks_3d": boxes.tracks_3d(
            street, lidar_ns, sampler.seconds(lidar_ns), sampler.surfaces.get("lidar_points")
        ),
        "boxes_2d": rectangles,
        "exposure_ns": exposures(raw),
        "faults": {},
    }  # fmt: skip
