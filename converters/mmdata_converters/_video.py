"""Video and audio files inside datasets as streams. Frames are matched to rows by presentation
time, never by decoding order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.streams import FieldInfo, Kind, Ragged, StreamInfo
from mmdata_converters._common import DAMAGE
from mmdata_converters._containers import (
    Video,
    VideoSource,
    audio_blocks,
    decoded_frames,
    kept_packets,
    open_video,
    opened,
    still_encoding,
    video_stream,
)
from mmdata_converters._feeds import BATCH_BYTES, Chunk, FeedRecording


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
    if synthetic_rate_hz is None:
        _compare_with_rows(recording, topic, video, stamps)
    for odd in looks_dead(video):
        account.problem(f"{topic}: {odd}")
    placed = _stamps_of(rows, stamps, synthetic_rate_hz)
    known = np.ones(len(rows), bool)
    if synthetic_rate_hz is None:
        known = rows < len(stamps)
        if has_row is not None:
            known[known] = has_row[rows[known]]
    n_without = int((~known).sum())
    attrs = {**info.pop("attrs", {}), "codec": video.encoding or video.codec, "width": video.width,
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
        encoding = video.encoding if keep else still_encoding(video)
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
        frames = decoded_frames(video, depth) if depth or not keep else kept_packets(video)
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
        with opened(video.source) as container:
            stream = video_stream(container, video.source)
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
        for block, block_rate in audio_blocks(source):
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
        for block, _ in audio_blocks(source):
            blocks.append(block)
            if len(blocks) == 256:
                yield slice(done, done + 256), {"samples": Ragged.from_rows(blocks)}
                done, blocks = done + 256, []
        if blocks:
            yield slice(done, done + len(blocks)), {"samples": Ragged.from_rows(blocks)}

    recording.feed(stream, stamps, read)


# -- internals ---------------------------------------------------------------------------------


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


def _compare_with_rows(recording: FeedRecording, topic: str, video: Video, stamps: Stamps) -> None:
    """Tell where the video's own times run at another rate than the rows that were measured."""
    if len(video.seconds) < 2 or len(stamps) < 2 or not video.timed:
        return
    rows = (len(stamps) - 1) * 1e9 / max(1, int(stamps[-1] - stamps[0]))
    frames = (len(video.seconds) - 1) / max(1e-9, float(video.seconds[-1] - video.seconds[0]))
    if abs(rows - frames) > 0.05 * rows:
        recording.account.problem(
            f"{topic}: the video plays at {frames:.3f} Hz, its rows were stamped at {rows:.3f} Hz; "
            "the stamps are kept"
        )
