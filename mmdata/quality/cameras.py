"""Cameras that show nothing: frozen, black or blurred pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """Shares of time, 0 to 1; None where it was not looked at.

    frozen: in stays of at least half a second whose frames are byte for byte the same;
    black: of the looked-at frames, mean grey below 8 of 255; blurred: sharpness (variance of the
    Laplacian) below a fifth of the episode's own sharp frames. frames: how many were decoded.
    """

    frozen: float | None
    black: float
    blurred: float
    frames: int


def camera_health(stream: Any, *, looks: int = 24, frozen_s: float = 0.5) -> CameraHealth | None:
    """Health of an image stream from at most `looks` decoded frames; None where it is empty."""
    import cv2

    count = len(stream)
    if count == 0:
        return None
    greys, sharp = [], []
    for i in np.unique(np.linspace(0, count - 1, min(looks, count)).astype(int)).tolist():
        frame = np.asarray(stream[i])
        grey: NDArray[Any] = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if grey.dtype != np.uint8:
            grey = cv2.convertScaleAbs(grey, alpha=255.0 / max(float(grey.max()), 1.0))
        greys.append(float(grey.mean()))
        sharp.append(float(cv2.Laplacian(grey, cv2.CV_64F).var()))
    bright = np.array(greys) >= 8.0
    best = float(np.percentile(np.array(sharp)[bright], 90)) if bright.any() else 0.0
    blurred = float((np.array(sharp)[bright] < 0.2 * best).mean()) if bright.any() else 0.0
    return CameraHealth(_frozen(stream, frozen_s), float((~bright).mean()), blurred, len(greys))


def _frozen(stream: Any, least_s: float) -> float | None:
    """Share of time in which stored pictures do not change; None for video, whose bytes do."""
    if stream.info.encoding not in ("jpeg", "png", "raw") or len(stream) < 2:
        return None
    stamps = stream.stamp_ns
    same = np.zeros(len(stream) - 1, bool)
    previous: bytes | None = None
    for i in range(len(stream)):
        now = _bytes(stream, i)
        if previous is not None:
            same[i - 1] = now == previous
        previous = now
    edges = np.flatnonzero(np.diff(np.r_[False, same, False].astype(np.int8)))
    stuck = sum(
        int(stamps[b] - stamps[a])
        for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        if stamps[b] - stamps[a] >= least_s * 1e9
    )
    return stuck / max(int(stamps[-1] - stamps[0]), 1)


def _bytes(stream: Any, i: int) -> bytes:
    if stream.info.encoding == "raw":
        return np.asarray(stream[i]).tobytes()
    data: bytes = stream.encoded(i)
    return data
