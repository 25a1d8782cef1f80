"""Random access into stored video: every group of pictures is decoded once, frames are shared.

Pixels equal those of `mmdata.Stream` to the bit. What is faster: decoded pictures are kept as the
decoder made them and converted only when wanted, straight into planes, with one converter.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mmdata.errors import FormatError

Array = NDArray[Any]
_CODEC_NAMES = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d", "vp9": "vp9"}
#: A decoder may hold back this many pictures to put them in order.
_MAX_REORDER = 17
#: What one open decoder is taken to hold: its reference pictures, beside the cache.
_MAX_DECODERS = 16


class PictureCache:
    """Decoded pictures of any number of videos, least recently used first out, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.nbytes = 0
        self._pictures: OrderedDict[tuple[Hashable, int], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, video: Hashable, position: int) -> Any | None:
        """The picture at a position, or None."""
        with self._lock:
            found = self._pictures.get((video, position))
            if found is None:
                return None
            self._pictures.move_to_end((video, position))
            return found[0]

    def put(self, video: Hashable, position: int, picture: Any, nbytes: int) -> None:
        """Keep a picture; the newest one stays whatever the limit."""
        with self._lock:
            old = self._pictures.pop((video, position), None)
            self.nbytes += nbytes - (old[1] if old else 0)
            self._pictures[video, position] = (picture, nbytes)
            while self.nbytes > self.limit_bytes and len(self._pictures) > 1:
                self.nbytes -= self._pictures.popitem(last=False)[1][1]


class DecoderPool:
    """Which videos may keep their decoder open: the latest few."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, Video] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, video: Video) -> None:
        """Note that a video decodes now; the one that did so longest ago closes its decoder."""
        with self._lock:
            self._open[id(video)] = video
            self._open.move_to_end(id(video))
            old = self._open.popitem(last=False)[1] if len(self._open) > _MAX_DECODERS else None
        if old is not None:
            old.close()


class Video:
    """One stream of packets, a picture per packet.

    packet(i): bytes of sample i. keyframe (N,): where decoding can start. recorded (N,): decoding
    order where that is not the stamps' order. Threads may share it; they take turns.
    """

    def __init__(
        self,
        name: Hashable,
        encoding: str,
        packet: Callable[[int], bytes],
        keyframe: Array,
        cache: PictureCache,
        pool: DecoderPool,
        recorded: Array | None = None,
        extradata: str | None = None,
    ) -> None:
        self.name = name
        self._encoding = encoding
        self._packet = packet
        self._cache = cache
        self._pool = pool
        n = len(keyframe)
        self._sample_of = np.arange(n) if recorded is None else np.argsort(recorded)
        self._position_of = np.empty(n, np.int64)
        self._position_of[self._sample_of] = np.arange(n)
        self._keyframes = np.flatnonzero(np.asarray(keyframe)[self._sample_of])
        self._extradata = base64.b64decode(extradata) if extradata else None
        self._lock = threading.Lock()
        self._context: Any = None
        self._next = -1
        self._reformatter: Any = None

    def frame(self, i: int) -> Array:
        """Sample i as (3, H, W) uint8 RGB planes. Raises FormatError when it does not decode."""
        position = int(self._position_of[i])
        picture = self._cache.get(self.name, position)
        if picture is None:
            self._pool.use(self)
            with self._lock:
                picture = self._cache.get(self.name, position) or self._decode(i, position)
        with self._lock:
            return self._planes(picture)

    def close(self) -> None:
        """Let the decoder go; the next frame opens one."""
        with self._lock:
            self._context = None

    def _decode(self, i: int, position: int) -> Any:
        before = int(np.searchsorted(self._keyframes, position, side="right")) - 1
        if before < 0:
            raise FormatError(f"frame {i}: no keyframe at or before it, so it cannot be decoded")
        start = int(self._keyframes[before])
        if self._context is None or not start <= self._next <= position:
            self._open()
            self._next = start
        wanted = None
        last = min(position + _MAX_REORDER, len(self._sample_of))
        while wanted is None and self._next < last:
            wanted = self._take(self._feed(self._next), position)
            self._next += 1
        if wanted is None:
            wanted = self._take(self._decoded(None), position)
            self._context = None  # a drained decoder takes no more packets
        if wanted is None:
            raise FormatError(f"frame {i}: the {self._encoding} decoder gave no frame for it")
        return wanted

    def _open(self) -> None:
        self._context = av.CodecContext.create(_CODEC_NAMES[self._encoding], "r")
        self._context.thread_count = 1
        if self._extradata:
            self._context.extradata = self._extradata

    def _feed(self, position: int) -> list[Any]:
        packet = av.Packet(self._packet(int(self._sample_of[position])))
        packet.pts = packet.dts = position
        return self._decoded(packet)

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            pictures: list[Any] = self._context.decode(packet)
        except av.error.FFmpegError as error:
            self._context = None
            raise FormatError(
                f"packet {self._next} does not decode as {self._encoding}: {error}"
            ) from error
        return pictures

    def _take(self, pictures: list[Any], position: int) -> Any | None:
        wanted = None
        for picture in pictures:
            nbytes = sum(plane.buffer_size for plane in picture.planes)
            self._cache.put(self.name, int(picture.pts), picture, nbytes)
            if picture.pts == position:
                wanted = picture
        return wanted

    def _planes(self, picture: Any) -> Array:
        if self._reformatter is None:
            self._reformatter = VideoReformatter()
        converted = self._reformatter.reformat(picture, format="gbrp")
        height, width = converted.height, converted.width
        planes = np.empty((3, height, width), np.uint8)
        for channel, plane in zip((1, 2, 0), converted.planes, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
            planes[channel] = rows[:, :width]
        return planes


class LiveDecoder:
    """Packets of a running robot in order of arrival, each to its picture as (H, W, 3) RGB."""

    def __init__(self, encoding: str, extradata: str | None = None) -> None:
        self._context = av.CodecContext.create(_CODEC_NAMES[encoding], "r")
        self._context.thread_count = 1
        if extradata:
            self._context.extradata = base64.b64decode(extradata)
        self._reformatter = VideoReformatter()

    def frame(self, packet: bytes) -> Array:
        """The picture of one packet. Raises FormatError when there is none yet."""
        try:
            pictures = self._context.decode(av.Packet(packet))
        except av.error.FFmpegError as error:
            raise FormatError(f"a packet does not decode: {error}") from error
        if len(pictures) != 1:
            raise FormatError(
                "the video holds pictures back (B-frames), which a robot cannot wait for; "
                "stream it without B-frames"
            )
        picture = self._reformatter.reformat(pictures[0], format="rgb24")
        return np.asarray(picture.to_ndarray())
