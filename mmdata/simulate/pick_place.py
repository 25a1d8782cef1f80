"""Simulated pick-and-place: from a seed to every signal, image and point of one episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmdata.geometry import SE3, map_vectors
from mmdata.simulate import arm, signals
from mmdata.simulate.episode import SimEpisode, SimStream, arrive, make_stream
from mmdata.simulate.faults import StreamFaults, inject
from mmdata.simulate.lidar import Scan
from mmdata.simulate.motion import Floats
from mmdata.simulate.rosbag import camera_info, static_transforms
from mmdata.simulate.sampling import PoseAt, Sampler
from mmdata.simulate.scene import cast
from mmdata.simulate.script import Failure, Script
from mmdata.simulate.story import tell
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
SCAN = Scan(0.095, (-0.85, 0.85), (-0.35, 0.35), columns=160, rings=32)


def pick_place(
    seed: int = 0,
    *,
    duration_s: float | None = None,
    failures: Sequence[Failure] = (),
    faults: Mapping[str, StreamFaults] | None = None,
    streams: Sequence[str] | None = None,
    rates_hz: Mapping[str, float] | None = None,
    texture: str = "grain",
    render: bool = True,
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
        render: without it, cameras keep their stamps but show one grey frame.

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
    sampler = Sampler(seed, start_ns, length_s, dict(RATES_HZ) | dict(rates_hz or {}))
    builder = _Builder(world, sampler, render)
    raw = builder.build(streams)
    episode = SimEpisode(
        episode_id=f"pick_place_{seed:03d}",
        start_ns=start_ns,
        end_ns=sampler.end_ns,
        rig=world.rig,
        raw=raw,
        truth=tell(world, start_ns, length_s, raw, builder.heard),
        world=world,
        setup=_setup(world, raw),
    )
    return inject(episode, faults, seed) if faults else episode


class _Builder:
    """Samples the world at each stream's own instants."""

    def __init__(self, world: World, sampler: Sampler, render: bool) -> None:
        self.world, self.sampler, self.render = world, sampler, render
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
        return {name: builders[name](name) for name in self.sampler.chosen(builders, names)}

    def _sensor(self, name: str) -> PoseAt:
        return lambda t: self.world.sensor_pose(name, t)

    def _camera(self, name: str) -> SimStream:
        model = self.world.rig[name].camera
        assert model is not None
        topic = f"/{name.replace('_', '/')}/image/compressed"
        return self.sampler.camera(
            name, topic, model, self.world.panels, self._sensor(name), self.world.solids,
            render=self.render,
        )  # fmt: skip

    def _lidar(self, name: str) -> SimStream:
        return self.sampler.lidar(
            name, "/lidar/points", SCAN, self._sensor("lidar"), self.world.solids,
            self.world.panels,
        )  # fmt: skip

    def _imu(self, name: str) -> SimStream:
        return self.sampler.imu(name, "/imu", self._sensor("imu"))

    def _tf(self, name: str) -> SimStream:
        return self.sampler.transform(name, "base", "hand", self.world.hand_pose)

    def _depth(self, name: str) -> SimStream:
        true, receive, rng = self.sampler.draw(name, 2e-4, (0.020, 0.004))
        t = self.sampler.seconds(true)
        sensor = "camera_front"
        model = self.world.rig[sensor].camera
        assert model is not None
        v, u = np.mgrid[: model.height, : model.width]
        rays = model.unproject(np.stack([u, v], axis=-1).reshape(-1, 2))
        position, orientation = self.world.sensor_pose(sensor, np.zeros(1))
        pose = SE3.from_quaternion(orientation[0], position[0])
        world_rays = map_vectors(pose.rotation, rays)
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

    def _joint_states(self, name: str) -> SimStream:
        true, receive, rng = self.sampler.draw(name, 5e-5, (0.0006, 0.0002))
        t = self.sampler.seconds(true)
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
        true, receive, _ = self.sampler.draw(name, 5e-5, (0.0008, 0.0003))
        t = self.sampler.seconds(true)
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
        true, receive, _ = self.sampler.draw(name, 1e-4, (0.0005, 0.0002))
        t = self.sampler.seconds(true)
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
        true, receive, rng = self.sampler.draw(name, 3e-5, (0.0006, 0.0002))
        t = self.sampler.seconds(true)
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
        true, receive, rng = self.sampler.draw(name, 1e-4, (0.0010, 0.0003))
        t = self.sampler.seconds(true)
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

    def _audio(self, name: str) -> SimStream:
        block = round(AUDIO_RATE_HZ / self.sampler.rates_hz[name])
        span_s = block / AUDIO_RATE_HZ
        # Blocks follow one another without a gap: their stamps come from counting samples.
        count = int(self.sampler.length_s * AUDIO_RATE_HZ) // block
        _, _, rng = self.sampler.draw(name, 0.0, (0.0, 0.0))
        first = np.arange(count, dtype=np.int64) * block
        true = self.sampler.start_ns + first * 10**9 // AUDIO_RATE_HZ
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
