"""Which content-based methods apply to which streams of an episode, and their offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdata.cores import usable_cores
from mmdata.episode import Episode
from mmdata.streams import Kind
from mmdata.sync.correlate import CorrelationConfig
from mmdata.sync.events import Candidate, commands, contacts, sound_and_picture
from mmdata.sync.frames import camera_facts, read_camera_motion, stretch
from mmdata.sync.kinematics import Motion, is_command, percentile_95, stream_motion
from mmdata.sync.labels import LabelConfig, MovingFrame, layer_offsets
from mmdata.sync.ledger import fuse
from mmdata.sync.motion import CameraMotion
from mmdata.sync.onsets import OnsetConfig
from mmdata.sync.pairs_camera import camera_camera, camera_gyro, camera_pairs
from mmdata.sync.pairs_motion import kinematic_pairs, sweep_pairs


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


def content_offsets(
    episode: Episode, layers: Mapping[str, Mapping[str, Any]], config: ContentConfig | None = None
) -> Content:
    """Run every content-based method that applies to the streams and labels of an episode.

    layers: annotation layers as parsed JSON, by name.
    """
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
    cameras = _read_cameras(episode, (start, end))
    speed = motions[reference].speed() if reference else None
    out.facts = {name: camera_facts(seen, speed) for name, seen in cameras.items()}
    correlation = config.correlation
    seen_moving = list(camera_pairs(cameras, motions, reference, correlation))
    against = {
        c.b: fused[:2]
        for c in seen_moving
        if c.a == reference and not isinstance(fused := fuse(c.estimates), str)
    }
    out.pairs = [
        *seen_moving,
        *camera_gyro(cameras, streams, motions, correlation),
        *camera_camera(cameras, against, reference, correlation, config.max_pairs),
        *kinematic_pairs(motions, reference, correlation),
        *contacts(streams, config.onsets, config.air_distance_m),
        *sound_and_picture(streams, cameras, config.onsets),
        *commands(streams, correlation),
        *sweep_pairs(streams, motions, (start, end), correlation),
        *_labels(layers, episode, config.labels),
    ]
    return out


def _read_cameras(episode: Episode, span: tuple[int, int]) -> dict[str, CameraMotion]:
    """Motion of every camera; decoding and flow run outside the interpreter lock, so in threads."""
    names = [n for n, s in episode.streams.items() if s.kind is Kind.IMAGE and len(s) >= 8]

    def read(name: str) -> CameraMotion | None:
        stream = episode.streams[name]
        sensor = episode.rig.get(stream.info.sensor or name)
        camera = sensor.camera if sensor is not None else None
        return read_camera_motion(stretch(stream, *span), camera)

    with ThreadPoolExecutor(max_workers=min(4, usable_cores())) as pool:
        found = dict(zip(names, pool.map(read, names), strict=True))
    return {name: motion for name, motion in found.items() if motion is not None}


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
        speeds["v95_m_s"] = round(percentile_95(motion.linear), 4)
    angular = [m.angular for m in ([motion] if motion else []) if m and m.angular is not None]
    angular += [m.angular for m in motions.values() if m.angular is not None]
    if angular:
        speeds["w95_rad_s"] = round(percentile_95(angular[0]), 4)
    return speeds


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


def _labels(
    layers: Mapping[str, Mapping[str, Any]], episode: Episode, config: LabelConfig
) -> Iterator[Candidate]:
    poses = list(_moving_frames(episode)) if layers else []
    for layer, document in layers.items():
        for stream, found in layer_offsets(document, episode.rig, poses, config):
            yield Candidate(f"annotations/{layer}", stream, "label_reprojection", (found,))


def _moving_frames(episode: Episode) -> Iterator[MovingFrame]:
    """Streams of poses that say which frame they move in which."""
    for stream in episode.streams.values():
        child, parent = stream.info.attrs.get("child_frame_id"), stream.info.frame_id
        place = next((f for f in ("position", "translation") if f in stream.fields), None)
        turn = next((f for f in ("orientation", "rotation") if f in stream.fields), None)
        if child and parent and place and turn and len(stream) >= 2:
            rows = stream.stamp_ns, np.asarray(stream[place]), np.asarray(stream[turn])
            yield MovingFrame(parent, str(child), *rows)
