"""Pairs of streams that report motion themselves: kinematics, odometry, inertial sensors, LiDAR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mmdata.streams import Kind, Stream
from mmdata.sync import lidar
from mmdata.sync.correlate import CorrelationConfig, Signal, abstain, correlate, swapped
from mmdata.sync.events import Candidate
from mmdata.sync.frames import stretch
from mmdata.sync.kinematics import (
    MAX_JOINTS,
    MIN_JOINT_PER_S,
    MIN_SPEED_M_S,
    MIN_TURN_RAD_S,
    PREDICTED_SCORE,
    Motion,
    moves,
)


def kinematic_pairs(
    motions: Mapping[str, Motion], reference: str | None, config: CorrelationConfig
) -> Iterator[Candidate]:
    """Every other moving stream against the reference, through what both measure."""
    if reference is None:
        return
    base = motions[reference]
    for name, motion in motions.items():
        if name == reference:
            continue
        estimates = []
        speed, other = base.speed(), motion.speed()
        if speed is not None and other is not None and base.linear is not None:
            same = motion.linear is not None
            if moves(speed, MIN_SPEED_M_S) and moves(
                other, MIN_SPEED_M_S if same else MIN_JOINT_PER_S
            ):
                # Joint and tip speed are related, not proportional: that limits their offset.
                floor = config.floor_sigma_s if same else 0.002
                estimates.append(
                    correlate(
                        speed,
                        other,
                        method="linear_speed" if same else "joint_speed",
                        config=replace(config, floor_sigma_s=floor),
                    )
                )
        joints, linear = motion.joint, base.linear
        if joints is not None and joints.value.shape[1] > MAX_JOINTS:
            joints = None
        if joints is not None and linear is not None and moves(linear, MIN_SPEED_M_S):
            strict = replace(config, min_score=PREDICTED_SCORE)
            found = correlate(joints, linear, method="joint_map", score="linear", config=strict)
            estimates.append(swapped(found))
        if base.angular is not None and motion.angular is not None:
            turns = moves(base.angular, MIN_TURN_RAD_S)
            if turns and moves(motion.angular, MIN_TURN_RAD_S):
                estimates.append(
                    correlate(
                        base.angular,
                        motion.angular,
                        method="angular_rate",
                        score="rotation",
                        config=config,
                    )
                )
        if estimates:
            yield Candidate(reference, name, "kinematics", tuple(estimates))


def sweep_pairs(
    streams: Mapping[str, Stream],
    motions: Mapping[str, Motion],
    span: tuple[int, int],
    config: CorrelationConfig,
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
        sweep_config = replace(config, floor_sigma_s=0.002)
        for ego, motion in egos.items():
            estimates = []
            if motion.angular is not None and moves(motion.angular, MIN_TURN_RAD_S):
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
            if speed is not None and moves(speed, MIN_SPEED_M_S):
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
