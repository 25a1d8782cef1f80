"""Simulated pick-and-place: from a seed to every signal, image and point of one episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmdata.errors import ConfigError
from mmdata.geometry import SE3
from mmdata.simulate import arm, signals
from mmdata.simulate.episode import (
    SimEpisode,
    SimStream,
    Stamps,
    arrive,
    make_stream,
    sample_stamps,
)
from mmdata.simulate.faults import StreamFaults, exposures, inject
from mmdata.simulate.lidar import sweeps
from mmdata.simulate.motion import Floats
from mmdata.simulate.render import Camera, encode_jpeg
from mmdata.simulate.rosbag import camera_info, static_transforms
from mmdata.simulate.scene import cast
from mmdata.simulate.script import Failure, Script
from mmdata.simulate.world import World
from mmdata.streams import Kind, Ragged

RATES_HZ: Mapping[str, float] = {
    "camera_front": 30.0,
    "camera_wrist": 30.0,
    "camera_front_depth": 5.0,
    "lidar_points": 10.0,
    "joint_states": 150.0,
    "eef_pose": 100.0,
    "command_eef_pose": 50.0,
    "command_gripper": 50.0,
    "wrench": 200.0,
    "tactile": 100.0,
    "imu": 200.0,
    "audio": 10.0,
    "tf_base_hand": 50.0,
}
"""Default rate of every stream; audio: blocks per second."""
AUDIO_RATE_HZ = 16000
ENCODER_NOISE_RAD = 2e-5


def pick_place(
    seed: int = 0,
    *,
    duration_s: float | None = None,
    failures: Sequence[Failure] = (),
    faults: Mapping[str, StreamFaults] | None = None,
    streams: Sequence[str] | None = None,
    rates_hz: Mapping[str, float] | None = None,
    texture: str = "grain",
) -> SimEpisode:
    """Simulate one recording; the same arguments give the same bytes.

    Args:
        seed: draws operator, object, places, gains, pauses and sensor mounts.
        duration_s: length; cycles follow one another until it is full, the last one is cut off.
            Without it, one whole cycle.
        failures: of the first cycle: missed_grasp, regrasp, slip, drop, hesitation, collision.
        faults: per stream name; see :func:`mmdata.simulate.inject`, which can also be called
            later, many times, on one clean episode.
        streams: names to simulate, all of :data:`RATES_HZ` by default. Without cameras an
            episode takes a fraction of a second.
        rates_hz: other rates for some streams.
        texture: "grain", or "plain" for a table on which a moving camera sees nothing move.

    Raises:
        ConfigError: an unknown failure or stream.
    """
    script = Script(seed, tuple(failures))
    script.play(first=True)
    while duration_s is not None and script.end_s < duration_s:
        script.play(first=False)
    length_s = script.end_s if duration_s is None else duration_s
    world = World(script, seed, texture)
    start_ns = 1_760_000_000_000_000_000 + seed * 1_000_000_000_000
    builder = _Builder(world, start_ns, length_s, dict(RATES_HZ) | dict(rates_hz or {}))
    raw = builder.build(streams)
    truth = _truth(world, start_ns, length_s, raw, builder.heard)
    episode = SimEpisode(
        episode_id=f"pick_place_{seed:03d}",
        start_ns=start_ns,
        end_ns=start_ns + round(length_s * 1e9),
        rig=world.rig,
        raw=raw,
        truth=truth,
        world=world,
        setup=_setup(world, raw),
    )
    return inject(episode, faults, seed) if faults else episode


class _Builder:
    """Samples the world at each stream's own instants."""

    def __init__(
        self, world: World, start_ns: int, length_s: float, rates_hz: dict[str, float]
    ) -> None:
        self.world, self.start_ns, self.length_s = world, start_ns, length_s
        self.end_ns = start_ns + round(length_s * 1e9)
        self.rates_hz = rates_hz
        self.heard = self._heard()

    def build(self, names: Sequence[str] | None) -> dict[str, SimStream]:
        builders = {
            "camera_front": self._camera,
            "camera_wrist": self._camera,
            "camera_front_depth": self._depth,
            "lidar_points": self._lidar,
            "joint_states": self._joint_states,
            "eef_pose": self._pose_stamped,
            "command_eef_pose": self._pose_stamped,
            "command_gripper": self._command_gripper,
            "wrench": self._wrench,
            "tactile": self._tactile,
            "imu": self._imu,
            "audio": self._audio,
            "tf_base_hand": self._tf,
        }
        wanted = list(builders) if names is None else list(names)
        for name in wanted:
            if name not in builders:
                raise ConfigError(f"no stream {name!r} in pick_place; there are {list(builders)}")
        return {name: builders[name](name) for name in wanted}

    def _rng(self, name: str) -> np.random.Generator:
        # Each stream draws on its own, so that leaving one out does not change the others.
        return np.random.default_rng([self.world.seed, 2, list(RATES_HZ).index(name)])

    def _when(
        self,
        rng: np.random.Generator,
        name: str,
        jitter_s: float,
        latency_s: tuple[float, float],
        span_s: float = 0.0,
    ) -> tuple[Stamps, Stamps, Floats]:
        """True stamps, log stamps, and true times in seconds since the start."""
        true = sample_stamps(rng, self.start_ns, self.end_ns, self.rates_hz[name], jitter_s)
        receive = arrive(rng, true, span_s + latency_s[0], latency_s[1])
        return true, receive, (true - self.start_ns).astype(np.float64) * 1e-9

    def _camera(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 2e-4, (0.012, 0.003))
        model = self.world.rig[name].camera
        assert model is not None
        camera = Camera(model, self.world.panels, self.world.seed)
        solids = self.world.solids(t)
        position, orientation = self.world.sensor_pose(name, t)
        frames = []
        for i in range(len(t)):
            pose = SE3.from_quaternion(orientation[i], position[i])
            frames.append(encode_jpeg(camera.render(pose, [s.take(i) for s in solids])))
        return make_stream(
            name,
            Kind.IMAGE,
            f"/{name.replace('_', '/')}/image/compressed",
            "sensor_msgs/msg/CompressedImage",
            true,
            receive,
            {"data": Ragged.from_rows(frames)},
            frame_id=name,
            sensor=name,
            encoding="jpeg",
        )

    def _depth(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 2e-4, (0.020, 0.004))
        sensor = "camera_front"
        model = self.world.rig[sensor].camera
        assert model is not None
        v, u = np.mgrid[: model.height, : model.width]
        rays = model.unproject(np.stack([u, v], axis=-1).reshape(-1, 2))
        position, orientation = self.world.sensor_pose(sensor, np.zeros(1))
        pose = SE3.from_quaternion(orientation[0], position[0])
        world_rays = rays @ pose.rotation.T
        still = cast(pose.translation, world_rays, (), self.world.panels).distance
        solids = self.world.solids(t)
        out = np.zeros((len(t), model.height, model.width), np.uint16)
        for i in range(len(t)):
            moving = cast(pose.translation, world_rays, [s.take(i) for s in solids]).distance
            depth_mm = 1000.0 * np.minimum(moving, still) * rays[:, 2]
            depth_mm += rng.normal(0, 1.0, len(rays)) * (1.0 + 0.002 * depth_mm)
            seen = np.isfinite(depth_mm) & (depth_mm < 4000.0)
            out[i] = np.where(seen, np.rint(depth_mm), 0).reshape(model.height, model.width)
        return make_stream(
            name,
            Kind.DEPTH,
            "/camera/front/depth",
            "sensor_msgs/msg/Image",
            true,
            receive,
            {"data": out},
            frame_id=sensor,
            sensor=sensor,
            units={"data": "mm"},
            attrs={"unit": "mm", "invalid": 0, "pixel_format": "16UC1"},
        )

    def _lidar(self, name: str) -> SimStream:
        rng = self._rng(name)
        span_s = 0.095
        true, receive, t = self._when(rng, name, 1e-4, (0.004, 0.001), span_s)
        fields = sweeps(
            t, span_s, lambda s: self.world.sensor_pose("lidar", s), self.world.solids,
            self.world.panels, rng,
        )  # fmt: skip
        return make_stream(
            name,
            Kind.SWEEP,
            "/lidar/points",
            "sensor_msgs/msg/PointCloud2",
            true,
            receive,
            fields,
            frame_id="lidar",
            sensor="lidar",
            units={"x": "m", "y": "m", "z": "m", "point_offset_ns": "ns"},
            span_ns=round(span_s * 1e9),
        )

    def _joint_states(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 5e-5, (0.0006, 0.0002))
        q = self.world.joints(t)
        finger = 0.5 * self.world.width(t)[:, None] * np.ones(2)
        finger_speed = 0.5 * signals.velocity(self.world.width, t)[:, None] * np.ones(2)
        linear = signals.acceleration(self._hand_position, t)
        force = self.world.script.object.load_n(t, linear)
        force[:, 2] += self.world.script.table.push_n(t)
        grip = -self.world.script.object.grip_n(t)[:, None] * np.ones(2)
        position = np.hstack([q, finger])
        position[:, :6] += rng.normal(0, ENCODER_NOISE_RAD, q.shape)
        position[:, 6:] += rng.normal(0, 1e-5, finger.shape)
        velocity = np.hstack([signals.velocity(self.world.joints, t), finger_speed])
        velocity += rng.normal(0, 2e-3, velocity.shape) * ([1.0] * 6 + [0.2] * 2)
        effort = np.hstack([arm.holding_torque(q, force), grip])
        effort += rng.normal(0, 0.05, effort.shape)
        channels = (*arm.JOINTS, *arm.FINGERS)
        return make_stream(
            name,
            Kind.SIGNAL,
            "/joint_states",
            "sensor_msgs/msg/JointState",
            true,
            receive,
            {"position": position, "velocity": velocity, "effort": effort},
            channels=dict.fromkeys(("position", "velocity", "effort"), channels),
        )

    def _pose_stamped(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 5e-5, (0.0008, 0.0003))
        commanded = name == "command_eef_pose"
        pose_at = self.world.command_pose if commanded else self.world.tcp_pose
        position, orientation = pose_at(t)
        return make_stream(
            name,
            Kind.SIGNAL,
            "/command/eef_pose" if commanded else "/eef_pose",
            "geometry_msgs/msg/PoseStamped",
            true,
            receive,
            {"position": position, "orientation": orientation},
            frame_id="base",
            channels={"position": ("x", "y", "z"), "orientation": ("qw", "qx", "qy", "qz")},
            units={"position": "m"},
        )

    def _command_gripper(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 1e-4, (0.0005, 0.0002))
        return make_stream(
            name,
            Kind.SIGNAL,
            "/command/gripper",
            "std_msgs/msg/Float64",
            true,
            receive,
            {"data": self.world.script.gripper.command(t)},
            header=False,
            units={"data": "m"},
        )

    def _wrench(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 3e-5, (0.0006, 0.0002))
        script = self.world.script
        force, torque = signals.wrench(
            t, self.world.hand_pose, script.table, script.object, script.gripper,
            script.impulses, arm.TCP_M, rng,
        )  # fmt: skip
        return make_stream(
            name,
            Kind.SIGNAL,
            "/wrench",
            "geometry_msgs/msg/WrenchStamped",
            true,
            receive,
            {"force": force, "torque": torque},
            frame_id="wrist_ft",
            sensor="wrist_ft",
            channels=dict.fromkeys(("force", "torque"), ("x", "y", "z")),
            units={"force": "N", "torque": "N m"},
        )

    def _tactile(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 1e-4, (0.0010, 0.0003))
        data = signals.tactile(t, self.world.script.object, rng).astype(np.float32)
        return make_stream(
            name,
            Kind.TACTILE,
            "/tactile",
            "std_msgs/msg/Float32MultiArray",
            true,
            receive,
            {"data": data},
            header=False,
            units={"data": "N"},
            attrs={"layout": ["finger", "row", "col"]},
        )

    def _imu(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 5e-5, (0.0008, 0.0003))
        gyro, force = signals.imu(t, lambda s: self.world.sensor_pose("imu", s), rng)
        orientation = self.world.sensor_pose("imu", t)[1]
        return make_stream(
            name,
            Kind.SIGNAL,
            "/imu",
            "sensor_msgs/msg/Imu",
            true,
            receive,
            {
                "orientation": orientation,
                "angular_velocity": gyro,
                "linear_acceleration": force,
            },
            frame_id="imu",
            sensor="imu",
            units={"angular_velocity": "rad/s", "linear_acceleration": "m/s^2"},
        )

    def _audio(self, name: str) -> SimStream:
        rng = self._rng(name)
        block = round(AUDIO_RATE_HZ / self.rates_hz[name])
        count = int(self.length_s * AUDIO_RATE_HZ) // block
        true = self.start_ns + np.arange(count, dtype=np.int64) * block * 10**9 // AUDIO_RATE_HZ
        span_s = block / AUDIO_RATE_HZ
        receive = arrive(rng, true, span_s + 0.003, 0.001)

        def joint_speed(t: Floats) -> Floats:
            return np.asarray(np.abs(signals.velocity(self.world.joints, t)).sum(axis=1))

        heard = [(time, loudness) for _, time, loudness in self.heard]
        samples = signals.audio(
            count * block, AUDIO_RATE_HZ, joint_speed, self.world.script.gripper, heard, rng
        )
        offsets = np.arange(count + 1, dtype=np.int64) * block
        return make_stream(
            name,
            Kind.AUDIO,
            "/audio",
            "audio_common_msgs/msg/AudioDataStamped",
            true,
            receive,
            {"samples": Ragged(samples[:, None], offsets)},
            frame_id="mic",
            sensor="mic",
            attrs={"sample_rate_hz": AUDIO_RATE_HZ},
            span_ns=round(span_s * 1e9),
        )

    def _tf(self, name: str) -> SimStream:
        rng = self._rng(name)
        true, receive, t = self._when(rng, name, 1e-4, (0.0008, 0.0003))
        position, orientation = self.world.hand_pose(t)
        return make_stream(
            name,
            Kind.SIGNAL,
            "/tf",
            "tf2_msgs/msg/TFMessage",
            true,
            receive,
            {"translation": position, "rotation": orientation},
            frame_id="base",
            attrs={"child_frame_id": "hand"},
        )

    def _hand_position(self, t: Floats) -> Floats:
        return self.world.hand_pose(t)[0]

    def _heard(self) -> list[tuple[str, float, float]]:
        """Cause, time of arrival at the microphone and loudness of every knock."""
        mount = self.world.rig["mic"].parent_SE3_sensor
        assert mount is not None
        out = []
        for impulse in self.world.script.impulses:
            at = self.world.tcp_pose([impulse.time_s])[0][0]
            if impulse.cause == "landed":
                at = self.world.object_pose([impulse.time_s])[0][0]
            delay = float(np.linalg.norm(at - mount.translation)) / signals.SOUND_M_S
            out.append((impulse.cause, impulse.time_s + delay, impulse.loudness))
        return out


def _setup(world: World, raw: Mapping[str, SimStream]) -> tuple[tuple[str, str, Any], ...]:
    """Messages sent once, at the start."""
    out: list[tuple[str, str, Any]] = [
        ("/tf_static", "tf2_msgs/msg/TFMessage", static_transforms(world.rig)),
        ("/robot_description", "std_msgs/msg/String", {"data": arm.arm_urdf()}),
    ]
    for name in ("camera_front", "camera_wrist"):
        camera = world.rig[name].camera
        if name in raw and camera is not None:
            topic = f"/{name.replace('_', '/')}/camera_info"
            out.append((topic, "sensor_msgs/msg/CameraInfo", camera_info(name, camera)))
    if "audio" in raw:
        payload = {"rate_hz": AUDIO_RATE_HZ}
        out.append(("/audio_info", "audio_common_msgs/msg/AudioInfo", payload))
    return tuple(out)


def _truth(
    world: World,
    start_ns: int,
    length_s: float,
    raw: Mapping[str, SimStream],
    heard: list[tuple[str, float, float]],
) -> dict[str, Any]:
    script = world.script

    def ns(time_s: float) -> int:
        return start_ns + round(min(time_s, length_s) * 1e9)

    def intervals(pairs: list[tuple[float, float]]) -> list[dict[str, int]]:
        return [{"start_ns": ns(a), "end_ns": ns(b)} for a, b in pairs if a < length_s]

    def phases(found: list[Any]) -> list[dict[str, Any]]:
        found[-1].end_s = script.end_s
        return [
            {"label": p.label, "start_ns": ns(p.start_s), "end_ns": ns(p.end_s)}
            for p in found
            if p.start_s < length_s
        ]

    events = sorted((e for e in script.events if e.time_s < length_s), key=lambda e: e.time_s)
    lifted = [e.time_s for e in script.events if e.label == "lifted"]
    down = [e.time_s for e in script.events if e.label in ("placed", "landed")]
    t = np.arange(0.0, length_s, 0.02)
    position, orientation = world.object_pose(t)
    return {
        "task": "pick up the red cube and place it elsewhere on the table",
        "generator": "mmdata.simulate.pick_place",
        "seed": world.seed,
        "success": all(cycle["success"] for cycle in script.cycles),
        "cycles": script.cycles,
        "failures": list(script.failures),
        "t0_ns": start_ns,
        "end_ns": ns(length_s),
        "phases": phases(script.phases),
        "script_phases": phases(script.script_phases),
        "events": [{"label": e.label, "stamp_ns": ns(e.time_s)} | e.extra for e in events],
        "contact_intervals": intervals([(h.start_s, h.end_s) for h in script.object.holds]),
        "lifted_intervals": intervals(list(zip(lifted, down, strict=False))),
        "audio_click_ns": [ns(time) for _, time, _ in heard if time < length_s],
        "audio_clicks": [
            {"cause": cause, "stamp_ns": ns(time), "loudness": loudness}
            for cause, time, loudness in heard
            if time < length_s
        ],
        "object": {
            "name": "cube",
            "size_m": [script.object.size_m] * 3,
            "mass_kg": script.object.mass_kg,
            "stamp_ns": [ns(s) for s in t.tolist()],
            "position": position.tolist(),
            "orientation": orientation.tolist(),
        },
        "command_delay_ns": round(script.style.delay_s * 1e9),
        "gripper_delay_ns": round(script.style.gripper_delay_s * 1e9),
        "exposure_ns": exposures(raw),
        "faults": {},
    }
