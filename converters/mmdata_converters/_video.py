"""Video files inside datasets: packets carried over as they are, audio, and the few codecs that
cannot be carried over. Frames are matched to rows by presentation time, never by decoding order.
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

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.media import encode_jpeg, is_keyframe
from mmdata.streams import VIDEO_ENCODINGS, FieldInfo, Kind, Ragged, StreamInfo
from mmdata_converters._common import DAMAGE
from mmdata_converters._feeds import BATCH_BYTES, Chunk, FeedRecording

VideoSource: TypeAlias = Path | Callable[[], bytes]

#: FFmpeg's codec name -> encoding of a stream, where packets can be kept.
_CODECS = {
    "h264": "h264", "hevc": "hevc", "av1": "av1", "libdav1d": "av1", "libaom-av1": "av1",
    "vp9": "vp9", "libvpx-vp9": "vp9", "mpeg4": "mpeg4", "mjpeg": "jpeg",
}  # fmt: skip
_TO_ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_LOSSLESS = ("ffv1", "huffyuv", "ffvhuff", "png", "rawvideo", "qtrle")


@dataclass(frozen=True)
class DepthScale:
    """How a depth video's numbers stand for distances, as LeRobot quantises them.

    Of `bits` bits. Logarithmic: d = near (far / near)^(q / max) - shift with near = low + shift and
    far = high + shift; linear: d = low + (high - low) q / max.
    """

    low: float
    high: float
    shift: float
    logarithmic: bool
    bits: int = 12
    unit: str | None = None

    def distances(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """Distances (...) f4 of quantised numbers (...)."""
        fraction = numbers.astype(np.float64) / ((1 << self.bits) - 1)
        if not self.logarithmic:
            return (self.low + (self.high - self.low) * fraction).astype(np.float32)
        near, far = self.low + self.shift, self.high + self.shift
        return (near * (far / near) ** fraction - self.shift).astype(np.float32)


@dataclass(frozen=True)
class Video:
    """A video file, or the part of one between two times.

    encoding: as in StreamInfo; None when the packets cannot be kept. seconds (n,) f8: presentation
    time of the frames, ascending, from the start of the part.
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
    with _opened(source) as container:
        stream = _video_stream(container, source)
        context = stream.codec_context
        rate = float(stream.average_rate) if stream.average_rate else None
        slack = 0.5 / rate if rate and start_s is not None else 0.0
        low = -np.inf if start_s is None else start_s - slack
        high = np.inf if end_s is None else end_s - slack
        times: list[float] = []
        first_in_order: bool | None = None
        for packet, seconds in _packets(container, stream, start_s):
            if seconds >= high + 2.0:
                break
            if not low <= seconds < high:
                continue
            if first_in_order is None:
                first_in_order = bool(packet.is_keyframe)
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
        )


def rows_of_frames(video: Video, n_rows: int) -> tuple[NDArray[np.int64], list[str]]:
    """Row of each frame (in order of presentation), and what was odd.

    Frames on an even grid go to the row of their grid place, so that a frame missing in the middle
    leaves its row without one instead of shifting the rest. Frames at uneven times are taken one
    per row, in order.
    """
    seconds, n = video.seconds, len(video.seconds)
    notes: list[str] = []
    rows = np.arange(n)
    period = video.period_s
    if period is not None and period > 0:
        places = (seconds - seconds[0]) / period
        grid = np.rint(places).astype(np.int64)
        even = np.abs(places - grid).max() < 0.3 and (np.diff(grid) > 0).all()
        late = round(float(seconds[0]) / period)
        if even and grid[-1] + 1 > n:
            shift = late if late > 0 and late + grid[-1] < n_rows else 0
            if grid[-1] + shift < max(n_rows, 1):
                rows = grid + shift
                notes.append(f"{int(grid[-1]) + 1 - n} frames are missing inside the video")
        elif even and late > 0 and n + late == n_rows:
            rows = grid + late
            notes.append(f"the video starts {late} frames late")
        elif not even:
            notes.append("frames at uneven times: one row each, in order")
    if n < n_rows:
        notes.append(f"{n} frames for {n_rows} rows")
    if n > n_rows:
        notes.append(f"{n} frames for {n_rows} rows: {n - n_rows} frames have no row")
    return rows, notes


def add_video(
    recording: FeedRecording,
    name: str,
    source: VideoSource,
    stamps: Stamps,
    *,
    synthetic_rate_hz: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    declared_rate_hz: float | None = None,
    has_row: NDArray[np.bool_] | None = None,
    receive: Stamps | None = None,
    depth_scale: DepthScale | None = None,
    **info: Any,
) -> None:
    """Declare a video's frames as a stream; frame i belongs to the row it was recorded for.

    stamps (n_rows,) i8. synthetic_rate_hz: rate the stamps were made with, by which frames beyond
    the last row get theirs; without it they are left out and counted. has_row (n_rows,): rows that
    exist, where some are lost. receive (n_rows,): receive stamps of the rows. depth_scale: what the
    numbers of a depth video mean. A video that cannot be read is counted as missing.
    """
    topic = str(info.get("source_topic") or name)
    account = recording.account
    if isinstance(source, Path):
        if not source.exists():
            account.problem(f"{topic}: {source.name} is missing: {len(stamps)} rows without frame")
            return
        recording.uses(source)
    try:
        video = open_video(source, start_s, end_s)
    except ConversionError as error:
        recording.drop(topic, f"unreadable video: {error}", max(1, len(stamps)))
        return
    rows, notes = rows_of_frames(video, len(stamps))
    for note in notes:
        account.problem(f"{topic}: {note}")
    _compare_rates(recording, topic, video, declared_rate_hz)
    for odd in looks_dead(video):
        account.problem(f"{topic}: {odd}")
    placed = _stamps_of(rows, stamps, synthetic_rate_hz)
    known = np.ones(len(rows), bool)
    if synthetic_rate_hz is None:
        known = rows < len(stamps)
        if has_row is not None:
            known[known] = has_row[rows[known]]
    n_without = int((~known).sum())
    attrs = {**info.pop("attrs", {}), "codec": video.codec, "width": video.width,
             "height": video.height}  # fmt: skip
    depth = video.pixel_format.startswith("gray") and video.pixel_format not in ("gray", "gray8")
    keep = video.encoding is not None and video.starts_on_keyframe and not depth
    if depth:
        kind = "<u2" if depth_scale is None else "<f4"
        unit = None if depth_scale is None else depth_scale.unit
        stream = StreamInfo(
            name, Kind.DEPTH, {"data": FieldInfo(kind, (video.height, video.width), unit=unit)},
            attrs=attrs, **info,
        )  # fmt: skip
    else:
        encoding = video.encoding if keep else _still_encoding(video)
        stream = StreamInfo(
            name, Kind.IMAGE, {"data": FieldInfo("|u1", (), True)}, encoding=encoding,
            attrs=attrs, **info,
        )  # fmt: skip
        if not keep:
            why = (
                "starts between keyframes"
                if video.encoding
                else f"packets of {video.codec} cannot be kept"
            )
            account.problem(f"{topic}: {why}: frames were encoded again as {encoding}")

    def read() -> Iterator[Chunk]:
        if n_without:
            recording.drop(topic, "no row with a stamp", n_without)
        frames = _decoded(video, depth) if depth or not keep else _kept(video)
        at: list[int] = []
        found: list[Any] = []
        held = 0
        for frame, data in frames:
            if not known[frame]:
                continue
            if depth and depth_scale is not None:
                data = depth_scale.distances(np.asarray(data))
            at.append(frame)
            found.append(data)
            held += len(data) if isinstance(data, bytes) else data.nbytes
            if held >= BATCH_BYTES:
                yield np.array(at), _samples(found, depth)
                at, found, held = [], [], 0
        if at:
            yield np.array(at), _samples(found, depth)

    received = None if receive is None else _stamps_of(rows, receive, synthetic_rate_hz)
    recording.feed(stream, placed, read, received)


def looks_dead(video: Video, samples: int = 6) -> list[str]:
    """Whether a few frames spread over the video are all black, or all the same."""
    if not len(video.seconds):
        return ["the video has no frame"]
    spread = np.linspace(0, len(video.seconds) - 1, samples).astype(int)
    wanted = sorted({float(video.seconds[i]) for i in spread})
    seen: dict[float, NDArray[np.float32]] = {}
    try:
        with _opened(video.source) as container:
            stream = _video_stream(container, video.source)
            for seconds in wanted:
                container.seek(int((seconds + video.first_s) / stream.time_base), stream=stream)
                frame = next(container.decode(stream), None)
                if frame is not None and frame.pts is not None:
                    grey = frame.reformat(64, 48, "gray").to_ndarray()
                    seen.setdefault(float(frame.pts), grey.astype(np.float32))
    except DAMAGE:
        return []  # what does not decode is found when it is read or checked
    looks = list(seen.values())
    if looks and all(g.mean() < 20 and g.std() < 2 for g in looks):
        return [f"black in {len(looks)} frames looked at"]
    apart = [np.abs(g - looks[0]) for g in looks[1:]]
    # Coding noise of one picture; something that moved differs more somewhere.
    if len(looks) > 2 and all(d.mean() < 1 and np.quantile(d, 0.995) < 5 for d in apart):
        return [f"the same picture in {len(looks)} frames looked at: frozen?"]
    return []


def add_audio(
    recording: FeedRecording, name: str, source: VideoSource, first_ns: int, **info: Any
) -> None:
    """Declare the first audio track of a file: one block per decoded frame, stamped by its start
    after first_ns at the track's own rate.
    """
    topic = str(info.get("source_topic") or name)
    try:
        starts, rate, channels = [], 0, 0
        for block, block_rate in _audio_blocks(source):
            starts.append(len(block))
            rate, channels = block_rate, block.shape[1]
    except ConversionError as error:
        recording.drop(topic, f"unreadable audio: {error}")
        return
    if not starts:
        recording.account.problem(f"{topic}: no audio in it")
        return
    begin = np.concatenate([[0], np.cumsum(starts)[:-1]]).astype(np.float64)
    stamps = first_ns + np.rint(begin * (1e9 / rate)).astype(np.int64)
    attrs = {**info.pop("attrs", {}), "sample_rate_hz": rate}
    stream = StreamInfo(
        name, Kind.AUDIO, {"samples": FieldInfo("<i2", (channels,), True)}, attrs=attrs, **info
    )

    def read() -> Iterator[Chunk]:
        blocks: list[Any] = []
        done = 0
        for block, _ in _audio_blocks(source):
            blocks.append(block)
            if len(blocks) == 256:
                yield slice(done, done + 256), {"samples": Ragged.from_rows(blocks)}
                done, blocks = done + 256, []
        if blocks:
            yield slice(done, done + len(blocks)), {"samples": Ragged.from_rows(blocks)}

    recording.feed(stream, stamps, read)


# -- internals ---------------------------------------------------------------------------------


def _av_errors() -> tuple[type[Exception], ...]:
    import av

    return (av.error.FFmpegError, OSError, ValueError, EOFError)


@contextmanager
def _opened(source: VideoSource) -> Iterator[Any]:
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


def _video_stream(container: Any, source: VideoSource) -> Any:
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


def _kept(video: Video) -> Iterator[tuple[int, bytes]]:
    """(frame, packet) in decoding order, packets in a form that decodes on its own."""
    import av

    with _opened(video.source) as container:
        stream = _video_stream(container, video.source)
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


def _decoded(video: Video, depth: bool) -> Iterator[tuple[int, Any]]:
    """(frame, pixels or encoded picture) where packets cannot be kept."""
    from cv2 import IMWRITE_PNG_COMPRESSION, imencode

    lossless = _still_encoding(video) == "png"
    with _opened(video.source) as container:
        stream = _video_stream(container, video.source)
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


def _still_encoding(video: Video) -> str:
    return "png" if video.codec in _LOSSLESS else "jpeg"


def _frame_at(video: Video, seconds: float) -> int | None:
    i = int(np.searchsorted(video.seconds, seconds - 1e-7))
    if i < len(video.seconds) and abs(video.seconds[i] - seconds) < 1e-6:
        return i
    return None


def _samples(found: list[Any], depth: bool) -> dict[str, Any]:
    return {"data": np.stack(found) if depth else Ragged.from_rows(found, np.uint8)}


def _stamps_of(rows: NDArray[np.int64], stamps: Stamps, synthetic_rate_hz: float | None) -> Stamps:
    """Stamp of each frame. Frames without a row: by the rate; else they are left out later."""
    inside = rows < len(stamps)
    placed = np.full(len(rows), stamps[-1] if len(stamps) else 0, np.int64)
    placed[inside] = stamps[rows[inside]]
    if synthetic_rate_hz is not None:
        origin = int(stamps[0]) if len(stamps) else 0
        placed[~inside] = origin + np.rint(rows[~inside] * (1e9 / synthetic_rate_hz)).astype(
            np.int64
        )
    return placed


def _compare_rates(
    recording: FeedRecording, topic: str, video: Video, declared_rate_hz: float | None
) -> None:
    period = video.period_s
    if not declared_rate_hz or not period:
        return
    rate = 1.0 / period
    if abs(rate - declared_rate_hz) > 0.01 * declared_rate_hz:
        recording.account.problem(
            f"{topic}: the video runs at {rate:.3f} Hz, the dataset declares {declared_rate_hz:g}"
        )


def _audio_blocks(source: VideoSource) -> Iterator[tuple[NDArray[np.int16], int]]:
    import av

    with _opened(source) as container:
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
