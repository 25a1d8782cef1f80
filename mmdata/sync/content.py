"""Which content-based methods apply to which streams of an episode, and their offsets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from mmdata.episode import Episode
from mmdata.streams import Kind, Stream
from mmdata.sync import lidar
from mmdata.sync.correlate import CorrelationConfig, Signal, abstain, correlate
from mmdata.sync.events import Candidate, commands, contacts, sound_and_picture
from mmdata.sync.frames import camera_facts, read_camera_motion, stretch
from mmdata.sync.kinematics import Motion, is_command, stream_motion
from mmdata.sync.labels import LabelConfig, label_offset, layer_observations
from mmdata.sync.motion import CameraMotion
from mmdata.sync.onsets import OnsetConfig

MIN_SPEED_M_S = 0.01
MIN_TURN_RAD_S = 0.02
MIN_JOINT_PER_S = 0.02
"""95th percentiles below which nothing moves enough to carry timing."""


@dataclass(frozen=True)
class ContentConfig:
    """How content is compared. ``max_span_s``: the busiest stretch of this length is decoded."""

    correlation: CorrelationConfig = field(default_factory=CorrelationConfig)
    onsets: OnsetConfig = field(default_factory=OnsetConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    max_span_s: float = 60.0
    max_pairs: int = 24
    air_distance_m: float | None = None


@dataclass
class Content:
    """Everything the content of an episode says about time."""

    pairs: list[Candidate] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stream name -> facts found on the way (black and frozen frames)."""
    speeds: dict[str, float] = field(default_factory=dict)


def content_offsets(episode: Episode, config: ContentConfig | None = None) -> Content:
    """Run every content-based method that applies to the streams of ``episode``."""
    config = config or ContentConfig()
    streams = {n: s for n, s in episode.streams.items() if len(s) >= 8}
    motions = {
        name: motion
        for name, stream in streams.items()
        if not is_command(stream) and (motion := stream_motion(stream)) is not None
    }
    reference = _reference(motions)
    out = Content(speeds=_speeds(motions, reference))
    start, end = _busiest(episode, motions, reference, config.max_span_s)
    cameras: dict[str, CameraMotion] = {}
    for name, stream in streams.items():
        if stream.kind is Kind.IMAGE:
            sensor = episode.rig.get(stream.info.sensor or name)
            camera = sensor.camera if sensor is not None else None
            seen = read_camera_motion(stretch(stream, start, end), camera)
            if seen is not None:
                cameras[name] = seen
                speed = motions[reference].speed() if reference else None
                out.facts[name] = camera_facts(seen, speed)
    pairs = [
        *_camera_motion(cameras, motions, reference, config),
        *_camera_gyro(cameras, streams, motions, config),
        *_camera_camera(cameras, config),
        *_kinematics(motions, reference, config),
        *contacts(streams, config.onsets, config.air_distance_m),
        *sound_and_picture(streams, cameras, config.onsets),
        *commands(streams, config.correlation),
        *_sweeps(streams, motions, (start, end), config),
        *_labels(episode, config),
    ]
    out.pairs = pairs
    return out


def _reference(motions: dict[str, Motion]) -> str | None:
    """The stream other things are compared with: linear motion first, then joints."""
    ranked = sorted(
        (
            (motion.linear is None, "eef" not in name and "odom" not in name, name)
            for name, motion in motions.items()
            if motion.speed() is not None
        )
    )
    return ranked[0][2] if ranked else None


def _speeds(motions: dict[str, Motion], reference: str | None) -> dict[str, float]:
    speeds: dict[str, float] = {}
    motion = motions[reference] if reference else None
    if motion is not None and motion.linear is not None:
        speeds["v95_m_s"] = round(_p95(motion.linear), 4)
    angular = [m.angular for m in ([motion] if motion else []) if m and m.angular is not None]
    angular += [m.angular for m in motions.values() if m.angular is not None]
    if angular:
        speeds["w95_rad_s"] = round(_p95(angular[0]), 4)
    return speeds


def _p95(signal: Signal) -> float:
    return float(np.quantile(np.linalg.norm(signal.value, axis=1), 0.95))


def _busiest(
    episode: Episode, motions: dict[str, Motion], reference: str | None, span_s: float
) -> tuple[int, int]:
    """The stretch with most motion; the middle of the episode where nobody reports motion."""
    start, end = episode.start_ns or 0, episode.end_ns or 0
    span = int(span_s * 1e9)
    if end - start <= span:
        return start, end
    first = start + (end - start - span) // 2
    speed = motions[reference].speed() if reference else None
    if speed is not None:
        size = np.linalg.norm(speed.value, axis=1)
        starts = start + np.linspace(0, end - start - span, 64).astype(np.int64)
        total = np.r_[0.0, np.cumsum(size)]
        edges = [np.searchsorted(speed.stamp_ns, s) for s in (starts, starts + span)]
        first = int(starts[np.argmax(total[edges[1]] - total[edges[0]])])
    return first, first + span


def _moves(signal: Signal, least: float) -> bool:
    return _p95(signal) >= least


def _camera_motion(
    cameras: dict[str, CameraMotion],
    motions: dict[str, Motion],
    reference: str | None,
    config: ContentConfig,
) -> Iterator[Candidate]:
    joints = [n for n, m in motions.items() if m.joint is not None and n != reference]
    sources = ([reference] if reference else []) + joints[:1]
    camera_config = replace(config.correlation, floor_sigma_s=0.003)
    for source in sources:
        speed = motions[source].speed()
        least = MIN_SPEED_M_S if motions[source].linear is not None else MIN_JOINT_PER_S
        if speed is None:
            continue
        for name, camera in cameras.items():
            if not _moves(speed, least):
                estimate = abstain("camera_flow", f"{source} does not move")
                yield Candidate(source, name, "camera_motion", (estimate,))
                continue
            found = [
                correlate(
                    speed, camera.signal(camera.speed), method="camera_flow", config=camera_config
                )
            ]
            if not found[0].known:
                # Weaker evidence than flow (texture counts as motion), so it is asked only when
                # flow says nothing, and has to agree better.
                energy = camera.signal(camera.energy)
                strict = replace(camera_config, min_score=0.8, floor_sigma_s=0.005)
                found.append(correlate(speed, energy, method="frame_difference", config=strict))
            yield Candidate(source, name, "camera_motion", tuple(found))


def _camera_gyro(
    cameras: dict[str, CameraMotion],
    streams: dict[str, Stream],
    motions: dict[str, Motion],
    config: ContentConfig,
) -> Iterator[Candidate]:
    for name, motion in motions.items():
        if "angular_velocity" not in streams[name].fields or motion.angular is None:
            continue
        for camera_name, camera in cameras.items():
            if not _moves(motion.angular, MIN_TURN_RAD_S):
                estimates = [abstain("camera_gyro", f"{name} does not turn")]
            else:
                turn = camera.signal(camera.rotation)
                estimates = [
                    correlate(
                        motion.angular,
                        turn,
                        method="camera_gyro",
                        score="rotation",
                        config=config.correlation,
                    )
                ]
            yield Candidate(name, camera_name, "camera_gyro", tuple(estimates))


def _camera_camera(cameras: dict[str, CameraMotion], config: ContentConfig) -> Iterator[Candidate]:
    camera_config = replace(config.correlation, floor_sigma_s=0.003)
    for a, b in list(combinations(cameras, 2))[: config.max_pairs]:
        left, right = cameras[a], cameras[b]
        found = correlate(
            left.signal(left.speed),
            right.signal(right.speed),
            method="camera_camera",
            config=camera_config,
        )
        yield Candidate(a, b, "camera_camera", (found,))


def _kinematics(
    motions: dict[str, Motion], reference: str | None, config: ContentConfig
) -> Iterator[Candidate]:
    """Every other moving stream against the reference, through what both measure."""
    if reference is None:
        return
    base = motions[reference]
    for name, motion in list(motions.items())[: config.max_pairs]:
        if name == reference:
            continue
        estimates = []
        speed, other = base.speed(), motion.speed()
        if speed is not None and other is not None and base.linear is not None:
            same = motion.linear is not None
            if _moves(speed, MIN_SPEED_M_S) and _moves(
                other, MIN_SPEED_M_S if same else MIN_JOINT_PER_S
            ):
                # Joint and tip speed are related, not proportional: that limits their offset.
                floor = config.correlation.floor_sigma_s if same else 0.002
                estimates.append(
                    correlate(
                        speed,
                        other,
                        method="linear_speed" if same else "joint_speed",
                        config=replace(config.correlation, floor_sigma_s=floor),
                    )
                )
        if base.angular is not None and motion.angular is not None:
            turns = _moves(base.angular, MIN_TURN_RAD_S)
            if turns and _moves(motion.angular, MIN_TURN_RAD_S):
                estimates.append(
                    correlate(
                        base.angular,
                        motion.angular,
                        method="angular_rate",
                        score="rotation",
                        config=config.correlation,
                    )
                )
        if estimates:
            yield Candidate(reference, name, "kinematics", tuple(estimates))


def _sweeps(
    streams: dict[str, Stream],
    motions: dict[str, Motion],
    span: tuple[int, int],
    config: ContentConfig,
) -> Iterator[Candidate]:
    egos = {n: m for n, m in motions.items() if m.linear is not None or m.angular is not None}
    for name, stream in streams.items():
        if stream.kind is not Kind.SWEEP or not {"x", "y", "z"} <= set(stream.fields) or not egos:
            continue
        part = stretch(stream, *span)
        if len(part) < 12:
            for ego in egos:
                estimate = abstain("lidar_icp", f"{len(part)} sweeps, 12 needed")
                yield Candidate(ego, name, "lidar_motion", (estimate,))
            continue
        seen = lidar.sweep_motion(part.stamp_ns, _points(part))
        linear, angular = seen.signals()
        sweep_config = replace(config.correlation, floor_sigma_s=0.002)
        for ego, motion in egos.items():
            estimates = []
            if motion.angular is not None and _moves(motion.angular, MIN_TURN_RAD_S):
                estimates.append(
                    correlate(
                        motion.angular,
                        angular,
                        method="lidar_icp_rotation",
                        score="rotation",
                        config=sweep_config,
                    )
                )
            speed = motion.speed() if motion.linear is not None else None
            if speed is not None and _moves(speed, MIN_SPEED_M_S):
                size = Signal(linear.stamp_ns, np.linalg.norm(linear.value, axis=1))
                estimates.append(
                    correlate(speed, size, method="lidar_icp_speed", config=sweep_config)
                )
            if estimates:
                yield Candidate(ego, name, "lidar_motion", tuple(estimates))


def _points(stream: Stream) -> Iterator[tuple[Any, Any]]:
    for i in range(len(stream)):
        sample = stream[i]
        offset = sample.get("point_offset_ns")
        yield np.stack([sample["x"], sample["y"], sample["z"]], axis=1), offset


def _labels(episode: Episode, config: ContentConfig) -> Iterator[Candidate]:
    for layer, text in episode.annotations.items():
        document = json.loads(text)
        if not isinstance(document, dict):
            continue
        for stream, seen in layer_observations(document, episode.rig):
            found = label_offset(seen, config.labels)
            yield Candidate(f"annotations/{layer}", stream, "label_reprojection", (found,))
