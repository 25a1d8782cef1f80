"""Random access into stored video: a group of pictures is decoded once and serves many windows.

Pixels equal those of `mmdata.Stream` to the bit. What is faster: one converter for all pictures,
straight to planes, and, for orders that stay near, what is decoded on the way is kept as a model
will see it (cropped, resized), or as it came where that is all of it.
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

from mmdata import media
from mmdata.errors import FormatError
from mmdata.loaders import images
from mmdata.loaders.memory import BatchMemory
from mmdata.loaders.spec import ImageSpec

Array = NDArray[Any]
#: A decoder may hold back this many pictures to put them in order.
_MAX_REORDER = 17
#: Each open decoder holds its reference pictures, up to 17 of them.
_MAX_DECODERS = 16
#: Conversion in threads of its own costs more than it gains, and does not survive a fork.
_ONE_THREAD: dict[str, Any] = (
    {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}
)


class FrameCache:
    """Processed frames of any number of videos, least recently used first out, bounded in bytes."""

    def __init__(self, limit_bytes: int, memory: BatchMemory) -> None:
        self.limit_bytes = limit_bytes
        self.memory = memory
        #: Keep what is decoded on the way to a frame: for orders that stay near (`Order.near`).
        self.keep = False
        self.nbytes = 0
        self._frames: OrderedDict[tuple[Hashable, int], Array | _Planes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, video: Hashable, position: int, last: bool) -> Array | _Planes | None:
        """The frame at a position, or None. last: it will not be asked for again."""
        with self._lock:
            frame = self._frames.get((video, position))
            if frame is None:
                return None
            if last:
                del self._frames[video, position]
                self.nbytes -= frame.nbytes
            else:
                self._frames.move_to_end((video, position))
            return frame

    def put(self, video: Hashable, position: int, frame: Array | _Planes) -> None:
        """Keep a frame, if the limit allows any."""
        with self._lock:
            old = self._frames.pop((video, position), None)
            self.nbytes += frame.nbytes - (0 if old is None else old.nbytes)
            self._frames[video, position] = frame
            while self.nbytes > self.limit_bytes:
                self.nbytes -= self._frames.popitem(last=False)[1].nbytes


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
    """One stream of packets, a picture per packet, as one key sees it.

    packet(i): bytes of sample i. keyframe (N,): where decoding can start. recorded (N,): decoding
    order where that is not the stamps' order. Threads may share it; they take turns.
    """

    def __init__(
        self,
        name: Hashable,
        encoding: str,
        packet: Callable[[int], bytes],
        keyframe: Array,
        spec: ImageSpec,
        cache: FrameCache,
        pool: DecoderPool,
        recorded: Array | None = None,
        extradata: str | None = None,
    ) -> None:
        self.name = name
        #: (N,) how many slots of an epoch see each sample; None while nobody has counted.
        self.uses: Array | None = None
        self._encoding, self._packet, self._spec = encoding, packet, spec
        self._cache, self._pool = cache, pool
        n = len(keyframe)
        self._sample_of = np.arange(n) if recorded is None else np.argsort(recorded)
        self._position_of = np.empty(n, np.int64)
        self._position_of[self._sample_of] = np.arange(n)
        self._keyframes = np.flatnonzero(np.asarray(keyframe)[self._sample_of])
        self._extradata = base64.b64decode(extradata) if extradata else None
        self._lock = threading.Lock()
        self._context: Any = None
        self._next = -1
        self._early: dict[int, Any] = {}
        self._reformatter = VideoReformatter()

    def frame(self, i: int, out: Array | None = None) -> Array:
        """Sample i as the key sees it, into `out` where that is given.

        Raises FormatError when it does not decode.
        """
        position = int(self._position_of[i])
        keep = self._cache.keep
        frame = self._cache.get(self.name, position, self._used(i) == 1) if keep else None
        if frame is None:
            self._pool.use(self)
            with self._lock:
                frame = self._converted(self._decode(i, position))
            if keep and self._used(i) > 1:
                self._cache.put(self.name, position, frame)
        if isinstance(frame, _Planes):
            if out is None:
                shape = images.processed_shape(frame.rgb[0].shape, self._spec)
                out = self._cache.memory.empty(shape, np.uint8)
            return images.finish_planes(frame.rgb, self._spec, out)
        if out is None:
            return frame
        if out.shape != frame.shape:
            raise FormatError(f"a frame of shape {frame.shape} among frames of shape {out.shape}")
        np.copyto(out, frame)
        return out

    @property
    def gop(self) -> int:
        """Pictures per group: the usual distance of keyframes."""
        n = len(self._sample_of)
        return int(np.median(np.diff(np.append(self._keyframes, n)))) if n else 1

    def close(self) -> None:
        """Let the decoder go; the next frame opens one."""
        with self._lock:
            self._context, self._early = None, {}

    def _used(self, i: int) -> int:
        return 2 if self.uses is None else int(self.uses[i])

    def _decode(self, i: int, position: int) -> Any:
        if position in self._early:
            return self._early.pop(position)
        before = int(np.searchsorted(self._keyframes, position, side="right")) - 1
        if before < 0:
            raise FormatError(f"frame {i}: no keyframe at or before it, so it cannot be decoded")
        # Pictures shown before the keyframe of an open group need the group before that one.
        for group in range(before, max(before - 2, -1), -1):
            wanted = self._from(group, position)
            if wanted is not None:
                return wanted
        raise FormatError(f"frame {i}: the {self._encoding} decoder gave no frame for it")

    def _from(self, group: int, position: int) -> Any | None:
        """The picture at a position, decoded from a group's keyframe on (or from where it is)."""
        start = int(self._keyframes[group])
        if self._context is None or not start <= self._next <= position:
            self._open()
            self._next = start
        wanted = None
        last = min(position + _MAX_REORDER, len(self._sample_of))
        while wanted is None and self._next < last:
            wanted = self._take(self._feed(self._next), position)
            self._next += 1
        if self._cache.keep and wanted is not None:
            # To the end of the group: its other windows come soon, in whatever order.
            after = int(np.searchsorted(self._keyframes, position, side="right"))
            end = self._keyframes[after] if after < len(self._keyframes) else len(self._sample_of)
            while self._next < end:
                self._take(self._feed(self._next), position, keep_later=True)
                self._next += 1
        if wanted is None:
            wanted = self._take(self._decoded(None), position)
            self._context = None  # a drained decoder takes no more packets
        return wanted

    def _open(self) -> None:
        if self._context is not None:
            self._context.flush_buffers()
            self._early = {}
            return
        self._context = av.CodecContext.create(media.DECODERS[self._encoding], "r")
        self._context.thread_count = 1
        self._early = {}
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

    def _take(self, pictures: list[Any], position: int, keep_later: bool = False) -> Any | None:
        wanted = None
        for picture in pictures:
            at = int(picture.pts)
            if at == position:
                wanted = picture
            elif at > position and not keep_later:
                self._early[at] = picture  # out of order: the decoder cannot give it again
            elif self._cache.keep and self._used(int(self._sample_of[at])):
                self._cache.put(self.name, at, self._converted(picture))
        return wanted

    def _converted(self, picture: Any) -> _Planes | Array:
        """A decoded picture to be kept: as the key sees it where that is smaller, else its planes.

        Planes go straight to the batch later; a copy of them now would cost a fifth of decoding.
        """
        planes = _Planes(self._reformatter.reformat(picture, format="gbrp", **_ONE_THREAD))
        if self._spec.size_hw is None and self._spec.crop_tlhw is None:
            return planes
        shape = images.processed_shape(planes.rgb[0].shape, self._spec)
        return images.finish_planes(
            planes.rgb, self._spec, self._cache.memory.empty(shape, np.uint8)
        )


class _Planes:
    """A picture in FFmpeg's memory. rgb: its three planes, (H, W) uint8."""

    def __init__(self, frame: Any) -> None:
        views: list[Array] = []
        self.nbytes = 0
        for plane in frame.planes:
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
            views.append(rows[:, : frame.width])
            self.nbytes += rows.nbytes
        self.rgb = [views[2], views[0], views[1]]


class LiveDecoder:
    """Packets of a running robot in order of arrival, each to its picture as (H, W, 3) RGB."""

    def __init__(self, encoding: str, extradata: str | None = None) -> None:
        self._context = av.CodecContext.create(media.DECODERS[encoding], "r")
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
        picture = self._reformatter.reformat(pictures[0], format="rgb24", **_ONE_THREAD)
        return np.asarray(picture.to_ndarray())
