"""Frames of a camera stream read as motion, and what pixels say about the camera itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import MmdataError
from mmdata.geometry import CameraModel
from mmdata.streams import Stream
from mmdata.sync.correlate import Signal
from mmdata.sync.motion import CameraMotion, camera_motion, reduction_for, small_grey

BLACK_LEVEL = 8.0
"""Mean grey (of 255) up to which a frame counts as black."""

MOST_RUNS = 20
"""A ledger names at most this many stretches of frames."""

_STILL_IMAGES = ("jpeg", "png", "jpg", "webp")


def read_camera_motion(stream: Stream, camera: CameraModel | None = None) -> CameraMotion | None:
    """Motion of an image stream; None when fewer than 8 frames can be decoded.

    Frames that cannot be decoded are left out, with their stamps.
    """
    kept: list[int] = []
    stamps = stream.stamp_ns
    focal = 0.8 if camera is None else float(camera.K[0, 0]) / camera.width

    frames = list(_frames(stream, kept))
    if len(frames) < 8:
        return None
    shape = frames[0].shape
    same = [i for i, frame in enumerate(frames) if frame.shape == shape]
    distinct = np.r_[True, np.diff(stamps[kept][same]) > 0]
    chosen = np.asarray(same)[distinct]
    return camera_motion(
        stamps[np.asarray(kept)[chosen]], [frames[i] for i in chosen], focal_widths=focal
    )


def camera_facts(motion: CameraMotion, speed: Signal | None) -> dict[str, Any]:
    """How much of the stream is black or stands still, as a ledger's stream facts.

    ``still_while_moving_s`` counts only identical frames during which another stream reports
    motion (``speed``): a camera that looks at a scene at rest is not frozen.
    """
    black = motion.brightness <= BLACK_LEVEL
    still = _runs(motion.still)
    edges = motion.frame_ns
    facts: dict[str, Any] = {
        "frames_checked": len(motion.brightness),
        "black_fraction": round(float(np.mean(black)), 4),
        "still_fraction": round(float(np.mean(motion.still)), 4),
        "still_longest_s": _longest(still, edges),
    }
    if speed is not None:
        size = np.linalg.norm(speed.value, axis=1)
        fast = np.interp(
            (motion.stamp_ns - speed.stamp_ns[0]).astype(float),
            (speed.stamp_ns - speed.stamp_ns[0]).astype(float),
            size,
            left=0.0,
            right=0.0,
        ) > 0.2 * float(np.quantile(size, 0.95))
        still = _runs(motion.still & fast) or still
        facts["still_while_moving_s"] = _longest(_runs(motion.still & fast), edges)
    longest = sorted(still, key=lambda run: edges[run[0]] - edges[run[1]])[:MOST_RUNS]
    facts["places"] = {
        "still": [{"stamp_ns": int(edges[a]), "end_ns": int(edges[b])} for a, b in sorted(longest)],
        "black": [
            {"stamp_ns": int(edges[a]), "end_ns": int(edges[b - 1])}
            for a, b in _runs(black)[:MOST_RUNS]
        ],
    }
    return facts


def stretch(stream: Stream, start_ns: int, end_ns: int) -> Stream:
    """The part of a stream within [start, end]."""
    return stream.between(start_ns, end_ns + 1)


def _frames(stream: Stream, kept: list[int]) -> Iterator[NDArray[np.uint8]]:
    encoded = (stream.info.encoding or "raw") in _STILL_IMAGES
    reduction = reduction_for(stream.encoded(0)) if encoded and len(stream) else 2
    for i in range(len(stream)):
        try:
            frame = small_grey(stream.encoded(i) if encoded else stream[i], reduction)
        except (MmdataError, ValueError):
            continue  # counted by the caller: kept has no entry for it
        kept.append(i)
        yield frame


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, stop) of each stretch in which ``mask`` is true."""
    edge = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    return [(int(a), int(b)) for a, b in edge.reshape(-1, 2)]


def _longest(runs: list[tuple[int, int]], edges: NDArray[np.int64]) -> float:
    """Longest duration (s) of runs of frame pairs; pair i lies between frames i and i + 1."""
    return round(max((float(edges[b] - edges[a]) / 1e9 for a, b in runs), default=0.0), 3)
