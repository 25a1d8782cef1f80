"""Pairs with a camera: against motion, against gyroscopes, against other cameras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from mmdata.streams import Stream
from mmdata.sync.correlate import CorrelationConfig, OffsetEstimate, abstain, correlate
from mmdata.sync.events import Candidate
from mmdata.sync.kinematics import (
    MAX_JOINTS,
    MIN_JOINT_PER_S,
    MIN_SPEED_M_S,
    MIN_TURN_RAD_S,
    PREDICTED_SCORE,
    Motion,
    moves,
)
from mmdata.sync.motion import CameraMotion

CAMERA_FLOOR_S = 0.003
"""Exposure, flow and what the camera does not see of a motion limit any camera to about this."""

DRIVEN_FLOOR_S = 0.008
"""A driven camera takes its lever arm about the axle for rotation, which limits its offset."""

DRIVE_M_S = 2.0
"""Slower than this is a hand, whose camera sees its speed."""

PAIR_FLOOR_S = 0.006
"""Two views of one motion are related, not proportional."""

DRIVEN = "it drives through the scene, whose nearness and not the speed governs the flow"


def camera_pairs(
    cameras: Mapping[str, CameraMotion],
    motions: Mapping[str, Motion],
    reference: str | None,
    config: CorrelationConfig,
) -> Iterator[Candidate]:
    joints = [n for n, m in motions.items() if m.joint is not None and n != reference]
    sources = ([reference] if reference else []) + joints[:1]
    camera_config = replace(config, floor_sigma_s=CAMERA_FLOOR_S)
    for source in sources:
        speed = motions[source].speed()
        least = MIN_SPEED_M_S if motions[source].linear is not None else MIN_JOINT_PER_S
        if speed is None:
            continue
        for name, camera in cameras.items():
            if not moves(speed, least):
                estimate = abstain("camera_flow", f"{source} does not move")
                yield Candidate(source, name, "camera_motion", (estimate,))
                continue
            linear = motions[source].linear
            if camera.heading is not None and linear is not None and moves(linear, DRIVE_M_S):
                found = [abstain("camera_flow", DRIVEN)]
                if motions[source].angular is not None:
                    found.append(camera_rotation(motions[source], camera, config))
                yield Candidate(source, name, "camera_motion", tuple(found))
                continue
            found = [
                correlate(
                    speed, camera.signal(camera.speed), method="camera_flow", config=camera_config
                )
            ]
            found += camera_twist(motions[source], camera, camera_config)
            if not any(estimate.known for estimate in found):
                # Weaker evidence than flow (texture counts as motion), so it is asked only when
                # flow says nothing, and has to agree better.
                energy = camera.signal(camera.energy)
                strict = replace(camera_config, min_score=0.8, floor_sigma_s=0.005)
                found.append(correlate(speed, energy, method="frame_difference", config=strict))
            yield Candidate(source, name, "camera_motion", tuple(found))


def camera_twist(
    motion: Motion, camera: CameraMotion, config: CorrelationConfig
) -> list[OffsetEstimate]:
    """Mean image motion as a linear map of the twist or of the joint velocities that predicts it.

    Of several, the one that predicts best speaks.
    """
    strict = replace(config, min_score=PREDICTED_SCORE)
    flow = camera.signal(camera.field[:, :2])
    causes = {f"camera_twist_{frame}": twist for frame, twist in motion.twists.items()}
    if motion.joint is not None and motion.joint.value.shape[1] <= MAX_JOINTS:
        causes["camera_joints"] = motion.joint
    found = [
        correlate(cause, flow, method=method, score="linear", config=strict)
        for method, cause in causes.items()
    ]
    return sorted(found, key=lambda e: -e.tests.get("predicted_score", 0.0))[:1]


def camera_rotation(
    motion: Motion, camera: CameraMotion, config: CorrelationConfig, method: str = "camera_rotation"
) -> OffsetEstimate:
    """Rotation that the image shows against one that was measured, whatever the mounting."""
    assert motion.angular is not None
    if not moves(motion.angular, MIN_TURN_RAD_S):
        return abstain(method, f"{motion.stream} does not turn")
    floor = config.floor_sigma_s if camera.heading is None else DRIVEN_FLOOR_S
    return correlate(
        motion.angular,
        camera.signal(camera.rotation),
        method=method,
        score="rotation",
        config=replace(config, floor_sigma_s=floor),
    )


def camera_gyro(
    cameras: Mapping[str, CameraMotion],
    streams: Mapping[str, Stream],
    motions: Mapping[str, Motion],
    config: CorrelationConfig,
) -> Iterator[Candidate]:
    for name, motion in motions.items():
        if "angular_velocity" not in streams[name].fields or motion.angular is None:
            continue
        for camera_name, camera in cameras.items():
            estimate = camera_rotation(motion, camera, config, "camera_gyro")
            yield Candidate(name, camera_name, "camera_gyro", (estimate,))


def camera_camera(
    cameras: Mapping[str, CameraMotion],
    against: Mapping[str, tuple[float, float]],
    reference: str | None,
    config: CorrelationConfig,
    max_pairs: int,
) -> Iterator[Candidate]:
    """Cameras against each other: by what both see, and through the stream both were compared with.

    against: camera -> (offset_ns, sigma_ns) against ``reference``. The way through it is often the
    better one, since two views of one motion resemble each other less than either its cause.
    """
    for a, b in list(combinations(cameras, 2))[:max_pairs]:
        left, right = cameras[a], cameras[b]
        if left.heading is not None or right.heading is not None:
            found = [abstain("camera_camera", DRIVEN)]
        else:
            pair = replace(config, floor_sigma_s=PAIR_FLOOR_S)
            speeds = left.signal(left.speed), right.signal(right.speed)
            found = [correlate(*speeds, method="camera_camera", config=pair)]
        if a in against and b in against:
            (offset_a, sigma_a), (offset_b, sigma_b) = against[a], against[b]
            sigma = float(np.hypot(sigma_a, sigma_b))
            found.append(OffsetEstimate(f"via_{reference}", offset_b - offset_a, sigma))
        yield Candidate(a, b, "camera_camera", tuple(found))
