"""Random access into stored video: a group of pictures is decoded once and serves many windows.

Pixels equal those of `mmdata.Stream` to the bit. For orders that stay near, what is decoded on the
way is kept in whatever form is smaller: as a model will see it (cropped, resized), or as the
decoder gave it, which is half of RGB. That is converted when it is served, straight into the batch:
memory that is not in the processor's cache is what costs time beside decoding.
"""

from __future__ import annotations

import base64
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mmdata import media
from mmdata.errors import FormatError
from mmdata.loaders import images
from mmdata.loaders.convert import ONE_THREAD, Converter
from mmdata.loaders.spec import ImageSpec
from mmdata.memory import ReusedMemory

Array = NDArray[Any]
#: A decoder may hold back this many pictures to put them in order.
_MAX_REORDER = 17
#: Each open decoder holds its reference pictures, up to 17 of them.
_MAX_DECODERS = 16
#: Packets read at once.
_MAX_READ = 64


class FrameCache:
    """What was decoded of any number of videos, least recently used first out, bounded in bytes."""

    def __init__(self, limit_bytes: int, memory: ReusedMemory) -> None:
        self.limit_bytes = limit_bytes
        self.memory = memory
        #: Keep what is decoded on the way to a frame: for orders that stay near (`Order.near`).
        self.keep = False
        self.nbytes = 0
        self._frames: OrderedDict[tuple[Hashable, int], tuple[Any, int]] = OrderedDict()
        self._count: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def get(self, video: Hashable, position: int, last: bool) -> Any | None:
        """The frame at a position, or None. last: it will not be asked for again."""
        key = (video, position)
        with self._lock:
            if key not in self._frames:
                return None
            if last:
                return self._pop(key)
            self._frames.move_to_end(key)
            return self._frames[key][0]

    def put(self, video: Hashable, position: int, frame: Any, nbytes: int) -> int:
        """Keep a frame, if the limit allows any. Returns how many of the video are kept."""
        key = (video, position)
        with self._lock:
            if key in self._frames:
                self._pop(key)
            self._frames[key] = frame, nbytes
            self.nbytes += nbytes
            count = self._count[video] = self._count.get(video, 0) + 1
            while self.nbytes > self.limit_bytes:
                self._pop(next(iter(self._frames)))
            return count

    def _pop(self, key: tuple[Hashable, int]) -> Any:
        frame, nbytes = self._frames.pop(key)
        self.nbytes -= nbytes
        self._count[key[0]] -= 1
        if not self._count[key[0]]:
            del self._count[key[0]]
        return frame


class DecoderPool:
    """Which videos may keep their decoder open: the latest few.

    A decoder holds on to the memory of all pictures that were kept of its video at a time, for the
    next ones. limit_bytes: of that memory, of all decoders.
    """

    def __init__(self, limit_bytes: int = 384 << 20) -> None:
        self.limit_bytes = limit_bytes
        self._open: OrderedDict[int, Video] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, video: Video) -> None:
        """Note that a video decodes now; those that did so longest ago close their decoders."""
        closing = []
        with self._lock:
            self._open[id(video)] = video
            self._open.move_to_end(id(video))
            nbytes = sum(v.decoder_bytes for v in self._open.values())
            while len(self._open) > 1 and (
                len(self._open) > _MAX_DECODERS or nbytes > self.limit_bytes
            ):
                old = self._open.popitem(last=False)[1]
                nbytes -= old.decoder_bytes
                closing.append(old)
        for old in closing:
            old.close()


class Video:
    """One stream of packets, a picture per packet, as one key sees it.

    packets(samples): bytes of each of some samples (n,). keyframe (N,): where decoding can start.
    recorded (N,): decoding order where that is not the stamps' order. Threads may share it; they
    take turns.
    """

    def __init__(
        self,
        name: Hashable,
        encoding: str,
        packets: Callable[[Array], Sequence[bytes]],
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
        #: Memory of pictures the open decoder holds, in use or for the next ones.
        self.decoder_bytes = 0
        self._encoding, self._packets, self._spec = encoding, packets, spec
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
        self._read: dict[int, bytes] = {}
        self._early: dict[int, Any] = {}
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._converter = Converter()

    def frame(self, i: int, out: Array | None = None) -> Array:
        """Sample i as the key sees it, into `out` where that is given.

        Raises FormatError when it does not decode.
        """
        position, uses = int(self._position_of[i]), self._used(i)
        keep = self._cache.keep
        frame = self._cache.get(self.name, position, uses == 1) if keep else None
        if frame is None:
            self._pool.use(self)
            with self._lock:
                frame = self._decode(i, position)
            if keep and uses > 1:
                frame = self._keep(position, frame)
        if isinstance(frame, av.VideoFrame):
            return self._processed(frame, out)
        if out is None:
            return np.asarray(frame)
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
            self._leave()
            self._context, self._early, self.decoder_bytes = None, {}, 0

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
        if not start <= self._next <= position:
            self._leave()
        if self._context is None or not start <= self._next <= position:
            self._open()
            self._next = start
        wanted = None
        last = min(position + _MAX_REORDER, len(self._sample_of))
        while wanted is None and self._next < last:
            wanted = self._take(self._feed(position + 1), position)
        if wanted is None:
            wanted = self._take(self._decoded(None), position)
            self._context = None  # a drained decoder takes no more packets
        return wanted

    def _leave(self) -> None:
        """Decode what is left of a group before the decoder goes elsewhere.

        In near orders its other windows come soon, in whatever order.
        """
        if self._context is None or not self._cache.keep:
            return
        end = self._end(self._next - 1)
        try:
            while self._next < end:
                self._take(self._feed(end), None)
        except FormatError:
            return  # told to whoever asks for that frame

    def _end(self, position: int) -> int:
        """Where the group of a position ends."""
        after = int(np.searchsorted(self._keyframes, position, side="right"))
        return int(self._keyframes[after]) if after < len(self._keyframes) else len(self._sample_of)

    def _open(self) -> None:
        self._early = {}
        if self._context is not None:
            self._context.flush_buffers()
            return
        self._context = av.CodecContext.create(media.DECODERS[self._encoding], "r")
        self._context.thread_count = 1
        if self._extradata:
            self._context.extradata = self._extradata

    def _feed(self, until: int) -> list[Any]:
        """Pictures that the next packet brings. until: packets before that come soon."""
        position = self._next
        data = self._read.pop(position, None)
        if data is None:
            if self._cache.keep:
                until = max(until, self._end(position))
            ahead = range(position, min(max(until, position + 1), position + _MAX_READ))
            self._read = dict(zip(ahead, self._packets(self._sample_of[ahead]), strict=True))
            data = self._read.pop(position)
        packet = av.Packet(data)
        packet.pts = packet.dts = position
        pictures = self._decoded(packet)
        self._next += 1
        return pictures

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            pictures: list[Any] = self._context.decode(packet)
        except av.error.FFmpegError as error:
            self._context = None
            raise FormatError(
                f"packet {self._next} does not decode as {self._encoding}: {error}"
            ) from error
        return pictures

    def _take(self, pictures: list[Any], position: int | None) -> Any | None:
        """The picture at a position; the others are kept where they will be asked for."""
        wanted = None
        for picture in pictures:
            at = int(picture.pts)
            if at == position:
                wanted = picture
            elif self._cache.keep:
                if self._used(int(self._sample_of[at])):
                    self._keep(at, picture)
            elif position is not None and at > position:
                self._early[at] = picture  # out of order: the decoder cannot give it again
        return wanted

    def _keep(self, position: int, picture: Any) -> Any:
        """Keep a decoded picture, or what the key sees of it where that is smaller. Returns it."""
        size = picture.height, picture.width
        if size not in self._sizes:
            shape = images.processed_shape(size, self._spec)
            nbytes = sum(plane.buffer_size for plane in picture.planes)
            self._sizes[size] = math.prod(shape), nbytes
        processed, decoded = self._sizes[size]
        if processed < decoded:
            kept = self._processed(picture)
            self._cache.put(self.name, position, kept, processed)
            return kept
        count = self._cache.put(self.name, position, picture, decoded)
        self.decoder_bytes = max(self.decoder_bytes, count * decoded)
        return picture

    def _processed(self, picture: Any, out: Array | None = None) -> Array:
        """What the key sees of a picture, (C, H, W) or (H, W, C) uint8."""
        spec = self._spec
        shape = images.processed_shape((picture.height, picture.width), spec)
        if out is None:
            out = self._cache.memory.empty(shape, np.uint8)
        if out.shape != shape:
            raise FormatError(f"a frame of shape {shape} among frames of shape {out.shape}")
        whole = spec.size_hw is None and spec.crop_tlhw is None
        if whole and self._converter.into(picture, out, spec.layout):
            return out
        return images.finish(self._converter.rgb(picture), spec, out)


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
        picture = self._reformatter.reformat(pictures[0], format="rgb24", **ONE_THREAD)
        return np.asarray(picture.to_ndarray())
