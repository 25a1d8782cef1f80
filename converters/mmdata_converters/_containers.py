"""Video and audio files as containers: which frames they have and when, packets as they are,
decoded frames where packets cannot be kept, blocks of sound.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError
from mmdata.media import encode_jpeg, is_keyframe
from mmdata.streams import VIDEO_ENCODINGS

VideoSource: TypeAlias = Path | Callable[[], bytes]

#: FFmpeg's codec name -> encoding of a stream, where packets can be kept.
_CODECS = {
    "h264": "h264", "hevc": "hevc", "av1": "av1", "libdav1d": "av1", "libaom-av1": "av1",
    "vp9": "vp9", "libvpx-vp9": "vp9", "mpeg4": "mpeg4", "mjpeg": "jpeg",
}  # fmt: skip
_TO_ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_LOSSLESS = ("ffv1", "huffyuv", "ffvhuff", "png", "rawvideo", "qtrle")


@dataclass(frozen=True)
class Video:
    """A video file, or the part of one between two times.

    encoding: as in StreamInfo; None when the packets cannot be kept. seconds (n,) f8: presentation
    time of the frames, ascending, from the start of the part. timed: whether the file says them,
    which a bare elementary stream does not.
    """

    source: VideoSource
    codec: str
    encoding: str | None
    width: int
    height: int
    pixel_format: str
    rate_hz: float | None
    seconds: NDArray[np.float64]
    first_s: float = 0.0
    starts_on_keyframe: bool = True
    timed: bool = True

    @property
    def period_s(self) -> float | None:
        """Median period of the frames."""
        return float(np.median(np.diff(self.seconds))) if len(self.seconds) > 1 else None


def open_video(
    source: VideoSource, start_s: float | None = None, end_s: float | None = None
) -> Video:
    """Look at a video without decoding it: which frames it has and when.

    start_s, end_s: the part of the file to take, [start, end), to half a frame.
    Raises ConversionError when it is no readable video.
    """
    with opened(source) as container:
        stream = video_stream(container, source)
        context = stream.codec_context
        rate = float(stream.average_rate) if stream.average_rate else None
        slack = 0.5 / rate if rate and start_s is not None else 0.0
        low = -np.inf if start_s is None else start_s - slack
        high = np.inf if end_s is None else end_s - slack
        times: list[float] = []
        first_in_order: bool | None = None
        timed = True
        for packet, seconds in _packets(container, stream, start_s):
            if seconds >= high + 2.0:
                break
            if not low <= seconds < high:
                continue
            if first_in_order is None:
                first_in_order = bool(packet.is_keyframe)
                timed = packet.pts is not None or packet.dts is not None
            times.append(seconds)
        ordered = np.sort(np.array(times, np.float64))
        origin = start_s if start_s is not None else 0.0
        encoding = _CODECS.get(context.name)
        known = encoding == "jpeg" or encoding in VIDEO_ENCODINGS
        return Video(
            source,
            str(context.name),
            encoding if known else None,
            int(context.width),
            int(context.height),
            str(context.pix_fmt or ""),
            rate,
            ordered - origin,
            origin,
            first_in_order is not False,
            timed,
        )


def audio_blocks(source: VideoSource) -> Iterator[tuple[NDArray[np.int16], int]]:
    import av

    with opened(source) as container:
        if not container.streams.audio:
            raise ConversionError("no audio track in it")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise ConversionError("an audio track of an unknown codec")
        resampler = av.AudioResampler(format="s16")
        for frame in container.decode(stream):
            for part in resampler.resample(frame):
                channels = len(part.layout.channels)
                yield part.to_ndarray().reshape(-1, channels).copy(), int(part.sample_rate)


# -- internals ---------------------------------------------------------------------------------


def _av_errors() -> tuple[type[Exception], ...]:
    import av

    return (av.error.FFmpegError, OSError, ValueError, EOFError)


@contextmanager
def opened(source: VideoSource) -> Iterator[Any]:
    import av

    av.logging.set_level(av.logging.PANIC)
    label = source.name if isinstance(source, Path) else "embedded file"
    try:
        with av.open(str(source) if isinstance(source, Path) else io.BytesIO(source())) as opened:
            yield opened
    except FileNotFoundError:
        raise
    except _av_errors() as error:
        raise ConversionError(f"{label}: {error}") from error


def video_stream(container: Any, source: VideoSource) -> Any:
    if not container.streams.video:
        raise ConversionError("no video track in it")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ConversionError("a video track of an unknown codec")
    stream.thread_type = "NONE"
    return stream


def _packets(container: Any, stream: Any, start_s: float | None) -> Iterator[tuple[Any, float]]:
    """Packets in decoding order with their presentation time."""
    if start_s:
        container.seek(max(0, int(start_s / stream.time_base)), stream=stream)
    count = 0
    for packet in container.demux(stream):
        pts = packet.pts if packet.pts is not None else packet.dts
        if not packet.size:
            continue
        if pts is None:  # a bare elementary stream: frames in order, at its nominal rate
            pts = float(count / (stream.average_rate or 25) / stream.time_base)
        count += 1
        yield packet, float(pts * stream.time_base)


def kept_packets(video: Video) -> Iterator[tuple[int, bytes]]:
    """(frame, packet) in decoding order, packets in a form that decodes on its own."""
    import av

    with opened(video.source) as container:
        stream = video_stream(container, video.source)
        extradata = bytes(stream.codec_context.extradata or b"")
        to_annex_b = None
        if video.encoding in _TO_ANNEX_B and extradata[:1] == b"\x01":
            to_annex_b = av.bitstream.BitStreamFilterContext(_TO_ANNEX_B[video.encoding], stream)
        header = _header(video.encoding, extradata)
        for packet, seconds in _packets(container, stream, video.first_s or None):
            frame = _frame_at(video, seconds - video.first_s)
            if frame is None:
                if len(video.seconds) and seconds - video.first_s > video.seconds[-1] + 2.0:
                    break
                continue
            flagged = bool(packet.is_keyframe)
            if to_annex_b is not None:
                data = b"".join(bytes(p) for p in to_annex_b.filter(packet))
            else:
                data = bytes(packet)
            lone = (
                header not in data
                if video.encoding == "mpeg4"
                else not is_keyframe(data, str(video.encoding))
            )
            if header and flagged and lone:
                data = header + data
            yield frame, data


def _header(encoding: str | None, extradata: bytes) -> bytes:
    """What a keyframe packet needs in front where the file keeps it apart."""
    if encoding == "av1":
        return extradata[4:]  # av1C: four bytes, then the sequence header OBU
    if encoding == "mpeg4" and extradata[:3] == b"\x00\x00\x01":
        return extradata
    return b""


def decoded_frames(video: Video, depth: bool) -> Iterator[tuple[int, Any]]:
    """(frame, pixels or encoded picture) where packets cannot be kept."""
    from cv2 import IMWRITE_PNG_COMPRESSION, imencode

    lossless = still_encoding(video) == "png"
    with opened(video.source) as container:
        stream = video_stream(container, video.source)
        if video.first_s:
            container.seek(max(0, int(video.first_s / stream.time_base)), stream=stream)
        for picture in container.decode(stream):
            seconds = float(picture.pts * stream.time_base) - video.first_s
            frame = _frame_at(video, seconds)
            if frame is None:
                if len(video.seconds) and seconds > video.seconds[-1]:
                    break
                continue
            if depth:
                yield frame, picture.to_ndarray().astype(np.uint16, copy=False)
            elif lossless:
                pixels = picture.to_ndarray(format="bgr24")
                yield frame, imencode(".png", pixels, [IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
            else:
                yield frame, encode_jpeg(picture.to_ndarray(format="rgb24"))


def still_encoding(video: Video) -> str:
    return "png" if video.codec in _LOSSLESS else "jpeg"


def _frame_at(video: Video, seconds: float) -> int | None:
    i = int(np.searchsorted(video.seconds, seconds - 1e-7))
    if i < len(video.seconds) and abs(video.seconds[i] - seconds) < 1e-6:
        return i
    return None
