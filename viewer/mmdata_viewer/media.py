"""Samples as a browser takes them: images, groups of video packets, audio as WAV."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import Kind, Stream
from mmdata.media import encode_jpeg
from mmdata.streams import VIDEO_ENCODINGS
from mmdata_viewer.errors import BadRequestError, NotThereError
from mmdata_viewer.points import depth_unit_m

MOST_PIXELS = 64_000_000
MOST_AUDIO_BYTES = 256 << 20
_PASSED_ON = ("jpeg", "png", "webp")


def check_sample(stream: Stream, i: int) -> None:
    """Raise NotThereError unless sample i exists."""
    if not 0 <= i < len(stream):
        raise NotThereError(f"sample {i} of {stream.name!r}: there are {len(stream)}")


def image_bytes(stream: Stream, i: int) -> bytes:
    """Sample i of an image or depth stream as a file a browser decodes.

    JPEG, PNG and WebP go out as stored; anything else is decoded and sent as JPEG. Depth is sent
    as grey, near is bright, over its 1st to 99th percentile.
    """
    check_sample(stream, i)
    if stream.kind is Kind.DEPTH:
        return encode_jpeg(depth_picture(stream, i))
    if stream.kind is not Kind.IMAGE:
        raise BadRequestError(f"stream {stream.name!r} ({stream.kind}) holds no images")
    encoding = stream.info.encoding or "raw"
    if encoding in _PASSED_ON:
        data = stream.encoded(i)
        if encoding != "png" or not _deep_png(data):
            return data
    return encode_jpeg(picture(stream, i))


def picture(stream: Stream, i: int) -> NDArray[np.uint8]:
    """Sample i decoded to 8 bits, (H, W, 3) RGB or (H, W). BadRequestError when it is monstrous."""
    shape = stream.info.fields["data"].shape
    if len(shape) >= 2 and shape[0] * shape[1] > MOST_PIXELS:
        raise BadRequestError(f"an image of {shape[0]} x {shape[1]} pixels is too large to show")
    image: NDArray[Any] = stream[i]
    if image.ndim == 3 and image.shape[2] == 4:
        image = image[..., :3]
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    return _stretch(image.astype(np.float64))


def depth_picture(stream: Stream, i: int) -> NDArray[np.uint8]:
    """Depth image i as (H, W) grey, near bright; black where there is no depth."""
    depth = np.asarray(stream[i], np.float64) * (depth_unit_m(stream) or 1.0)
    known = np.isfinite(depth) & (depth > 0)
    grey = 255 - _stretch(np.where(known, depth, np.nan)) * 0.85
    return np.where(known, grey, 0).astype(np.uint8)


def _stretch(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    scaled = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    return np.asarray(np.nan_to_num(scaled) * 255).astype(np.uint8)


def _deep_png(data: bytes) -> bool:
    """Whether a PNG holds 16 bits per channel, which a browser would show nearly black."""
    return len(data) > 24 and data[24] == 16


class PacketOrder:
    """Where the packets of a video stream stand in decoding order.

    order: (n,) sample of each packet; place: (n,) its inverse; starts: (g,) places of keyframes.
    BadRequestError for streams that are no video.
    """

    def __init__(self, stream: Stream) -> None:
        if stream.kind is not Kind.IMAGE or stream.info.encoding not in VIDEO_ENCODINGS:
            raise BadRequestError(f"stream {stream.name!r} is no video")
        self.keyframe = np.asarray(stream.arrays["keyframe"][:], bool)
        recorded = stream.recorded
        self.order = np.arange(len(stream)) if recorded is None else np.argsort(recorded)
        self.place = np.argsort(self.order)
        self.starts = np.flatnonzero(self.keyframe[self.order])


def packet_group(stream: Stream, i: int, packets: PacketOrder) -> bytes:
    """The packets needed to show frame i of a video stream, and the rest of their group.

    In decoding order, from the keyframe at or before frame i up to the next keyframe.
    Little-endian: u32 count, per packet u32 sample, u32 is_keyframe, u32 length; then the bytes.
    """
    check_sample(stream, i)
    starts, order = packets.starts, packets.order
    before = int(np.searchsorted(starts, packets.place[i], side="right")) - 1
    if before < 0:
        raise NotThereError(f"frame {i} of {stream.name!r} has no keyframe before it")
    last = int(starts[before + 1]) if before + 1 < len(starts) else len(order)
    samples = order[int(starts[before]) : last].tolist()
    data = [stream.encoded(s) for s in samples]
    head = [struct.pack("<I", len(data))]
    head += [
        struct.pack("<III", s, int(packets.keyframe[s]), len(p))
        for s, p in zip(samples, data, strict=True)
    ]
    return b"".join([*head, *data])


def sample_rate_hz(stream: Stream) -> int:
    """Sampling rate of an audio stream. BadRequestError where the stream does not say."""
    rate = stream.info.attrs.get("sample_rate_hz")
    if not isinstance(rate, int | float) or not 1 <= rate <= 1_000_000:
        raise BadRequestError(f"audio stream {stream.name!r} does not say its sample_rate_hz")
    return round(rate)


def audio_samples(stream: Stream) -> NDArray[np.int16]:
    """All samples (S, C) of an audio stream as int16; at most two channels."""
    info = stream.info.fields["samples"]
    ragged: Any = stream.field("samples")
    data = ragged.data.reshape(len(ragged.data), -1)[:, :2]
    if data.nbytes > MOST_AUDIO_BYTES:
        raise BadRequestError(f"{data.nbytes >> 20} MiB of audio are too much to play at once")
    kind = np.dtype(info.dtype)
    if kind.kind == "f":
        return np.asarray(np.clip(np.nan_to_num(data), -1, 1) * 32767, np.int16)
    if kind == np.uint8:
        return np.asarray((data.astype(np.int16) - 128) << 8, np.int16)
    shift = max(0, 8 * kind.itemsize - 16)
    return np.asarray(data.astype(np.int64) >> shift, np.int16)


def wav(stream: Stream) -> bytes:
    """An audio stream as a WAV file of 16 bits."""
    samples, rate = audio_samples(stream), sample_rate_hz(stream)
    body = samples.astype("<i2").tobytes()
    channels = max(1, samples.shape[1])
    return (
        b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
        + b"data" + struct.pack("<I", len(body)) + body
    )  # fmt: skip


def audio_blocks(stream: Stream, start_ns: int) -> dict[str, Any]:
    """Where the blocks of an audio stream lie in time and in the WAV file."""
    offsets = np.asarray(stream.arrays["block_start"][:], np.int64)
    return {
        "sample_rate_hz": sample_rate_hz(stream),
        "stamp": (stream.stamp_ns - start_ns).tolist(),
        "first_sample": (offsets[:-1] - offsets[0]).tolist(),
        "samples": int(offsets[-1] - offsets[0]),
    }


def waveform(stream: Stream, buckets: int = 4000) -> bytes:
    """Smallest and largest sample, as fractions of full scale, of equal parts of the audio.

    Little-endian: u32 count, f32 low[count], f32 high[count].
    """
    samples = audio_samples(stream)
    mono = samples.astype(np.float32).mean(axis=1) / 32768 if len(samples) else np.empty(0)
    count = min(max(1, buckets), len(mono))
    if count == 0:
        return struct.pack("<I", 0)
    starts = (np.arange(count, dtype=np.int64) * len(mono)) // count
    low, high = np.minimum.reduceat(mono, starts), np.maximum.reduceat(mono, starts)
    return struct.pack("<I", count) + low.astype("<f4").tobytes() + high.astype("<f4").tobytes()
