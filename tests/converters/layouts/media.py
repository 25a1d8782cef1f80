"""Small pictures, videos and sounds for dataset fixtures: every frame shows its own number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3) u1 RGB whose frame number can be read back with `number_of`."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([(x * 2 + 20) % 200, (y * 3) % 200, np.full_like(x, 90)], -1).astype(np.uint8)
    for bit in range(8):
        left = bit * width // 8
        image[: height // 3, left : left + width // 8] = 235 if i >> bit & 1 else 20
    return image


def number_of(image: np.ndarray) -> int:
    """The frame number in a picture, also after lossy coding."""
    height, width = image.shape[:2]
    grey = image.mean(-1) if image.ndim == 3 else image
    bits = 0
    for bit in range(8):
        left = bit * width // 8
        patch = grey[2 : height // 3 - 2, left + 2 : left + width // 8 - 2]
        bits |= int(patch.mean() > 128) << bit
    return bits


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def png(image: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(".png", bgr)[1].tobytes()


def png_rgba(image: np.ndarray) -> bytes:
    """(H, W, 4) u1 RGBA as PNG."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1].tobytes()


def write_video(
    target: Path | io.BytesIO,
    frames: Sequence[np.ndarray],
    fps: float = 20,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    seconds: Sequence[float] | None = None,
    container: str | None = None,
) -> None:
    """Encode RGB (or uint16 grey) frames; seconds: presentation time of each, default i / fps."""
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target) if isinstance(target, Path) else target, "w", format=container) as out:
        stream = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.options = options or {}
        base = Fraction(1, 90000)
        if codec != "mpeg4":
            stream.codec_context.time_base = base
        else:
            base = Fraction(1, round(fps))
            stream.codec_context.time_base = base
        for i, image in enumerate(frames):
            if image.dtype == np.uint16:
                frame = av.VideoFrame.from_ndarray(image, format="gray16le")
            else:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            at = i / fps if seconds is None else seconds[i]
            frame.pts = round(at / base)
            frame.time_base = base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_depth_video(path: Path, frames: Sequence[np.ndarray], fps: int = 20) -> None:
    """12-bit grey HEVC without loss, as depth is recorded."""
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("libx265", rate=fps)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "gray12le"
        stream.options = {"x265-params": "lossless=1:log-level=none:bframes=0"}
        for i, numbers in enumerate(frames):
            frame = av.VideoFrame(stream.width, stream.height, "gray12le")
            rows = np.zeros((stream.height, frame.planes[0].line_size // 2), np.uint16)
            rows[:, : stream.width] = numbers
            frame.planes[0].update(rows.tobytes())
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def mp3(samples: np.ndarray, rate_hz: int) -> bytes:
    """Encode mono float samples in [-1, 1] as MP3."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as out:
        stream = out.add_stream("libmp3lame", rate=rate_hz, layout="mono")
        pcm = (samples * 32000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=rate_hz, frame_size=1152)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return buffer.getvalue()
