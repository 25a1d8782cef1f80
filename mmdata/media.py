"""Images and video packets: decoding to RGB, keyframes, encoding. Codecs load on use."""

from __future__ import annotations

import base64
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import FormatError

Array = NDArray[Any]
#: Decoders of video encodings, by the name FFmpeg knows them by.
DECODERS = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d", "vp9": "vp9", "mpeg4": "mpeg4"}
_FRAME_CACHE_BYTES = 64 << 20

#: ROS image encodings: (dtype, channels). Bayer and 4:2:2 frames keep their raw layout.
PIXEL_FORMATS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3), "bgr8": ("u1", 3), "rgba8": ("u1", 4), "bgra8": ("u1", 4),
    "mono8": ("u1", 1), "8UC1": ("u1", 1), "8UC3": ("u1", 3), "8UC4": ("u1", 4),
    "8UC2": ("u1", 2), "yuv422": ("u1", 2), "yuv422_yuy2": ("u1", 2), "uyvy": ("u1", 2),
    "yuyv": ("u1", 2), "mono16": ("u2", 1), "16UC1": ("u2", 1), "16SC1": ("i2", 1),
    "rgb16": ("u2", 3), "bgr16": ("u2", 3), "16UC3": ("u2", 3), "32FC1": ("f4", 1),
    "32FC3": ("f4", 3), "64FC1": ("f8", 1),
    "bayer_rggb8": ("u1", 1), "bayer_bggr8": ("u1", 1), "bayer_gbrg8": ("u1", 1),
    "bayer_grbg8": ("u1", 1), "bayer_rggb16": ("u2", 1), "bayer_bggr16": ("u2", 1),
    "bayer_gbrg16": ("u2", 1), "bayer_grbg16": ("u2", 1),
}  # fmt: skip


def decode_image(data: Array | bytes, least_hw: tuple[int, int] | None = None) -> Array:
    """Decode JPEG, PNG, ... to (H, W, 3) uint8 RGB, (H, W) when grey, at stored bit depth.

    least_hw: a JPEG may be decoded smaller, to the least scale that keeps this height and width.
    Quicker than decoding in full and resizing, and not the same pixels.
    Raises FormatError when the bytes are no image, or not a whole one.
    """
    flat = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if flat[:2].tobytes() == b"\xff\xd8":
        image = _decode_jpeg(flat, least_hw or (0, 0))
        if image is not None:
            return image
    import cv2

    image = cv2.imdecode(flat, cv2.IMREAD_UNCHANGED) if len(flat) else None
    if image is None:
        raise FormatError(f"{len(flat)} bytes that are no decodable image")
    if image.ndim == 2:
        return np.asarray(image)
    code = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, code))


def _decode_jpeg(data: Array, least_hw: tuple[int, int]) -> Array | None:
    """RGB or grey pixels of a JPEG; None where OpenCV must look: CMYK, 12 bits, damage.

    libjpeg-turbo with its exact transform and smooth upsampling, as OpenCV decodes, but straight to
    RGB.
    """
    import simplejpeg  # type: ignore[import-untyped]

    try:
        coded = simplejpeg.decode_jpeg_header(data)[2]
        if coded not in ("YCbCr", "Gray", "RGB"):
            return None
        wanted = "GRAY" if coded == "Gray" else "RGB"
        height, width = least_hw
        image = simplejpeg.decode_jpeg(data, wanted, min_height=height, min_width=width)
    except ValueError:
        return None
    return np.asarray(image[..., 0] if coded == "Gray" else image)


def _one_thread_in_a_fork() -> None:
    """The threads of OpenCV's pool do not exist in a forked child, which may wait for them."""
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(0)  # not 1: that joins the parent's threads, for ever


os.register_at_fork(after_in_child=_one_thread_in_a_fork)


def encode_jpeg(image: Array, quality: int = 95) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W) grey as JPEG."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise FormatError(f"cannot encode an image of shape {image.shape}, dtype {image.dtype}")
    return bytes(data)


def to_rgb(image: Array, pixel_format: str) -> Array:
    """Raw pixels of a ROS encoding to RGB (or grey), (H, W, 3) or (H, W), at their bit depth."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if pixel_format.startswith("bgr") or pixel_format == "8UC3":
        return np.ascontiguousarray(image[..., 2::-1])
    if pixel_format in ("rgba8", "rgb8", "rgb16"):
        return image[..., :3]
    if pixel_format.startswith("bayer_"):
        import cv2

        # OpenCV names a Bayer pattern by the second row, ROS by the first.
        pattern = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}[pixel_format[6:10]]
        return np.asarray(cv2.cvtColor(image, getattr(cv2, f"COLOR_Bayer{pattern}2RGB")))
    if pixel_format in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        import cv2

        order = "UYVY" if pixel_format in ("yuv422", "uyvy") else "YUY2"
        return np.asarray(cv2.cvtColor(image, getattr(cv2, f"COLOR_YUV2RGB_{order}")))
    return image


def sniff_image(data: bytes | memoryview) -> str | None:
    """Encoding of compressed image bytes by their magic: jpeg, png, webp or None."""
    head = bytes(data[:12])
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return None


def is_keyframe(packet: bytes | memoryview, encoding: str) -> bool:
    """Whether decoding can start at this packet (H.264/HEVC Annex B, AV1 OBUs, VP9, MPEG-4)."""
    data = bytes(packet)
    if encoding in ("h264", "hevc"):
        return any(
            (b & 0x1F) == 5 if encoding == "h264" else 16 <= ((b >> 1) & 0x3F) <= 21
            for b in _nal_headers(data)
        )
    if encoding == "av1":
        # A random access point starts with a sequence header OBU (type 1).
        return any(t == 1 for t in _obu_types(data))
    if encoding == "vp9" and data:
        profile = (data[0] >> 5 & 1) | (data[0] >> 4 & 1) << 1
        bit = 2 if profile < 3 else 1
        return not data[0] >> bit & 1
    if encoding == "mpeg4":
        # A video object plane whose coding type is intra.
        plane = data.find(b"\x00\x00\x01\xb6")
        return 0 <= plane < len(data) - 4 and data[plane + 4] >> 6 == 0
    return False


def _nal_headers(data: bytes) -> list[int]:
    headers, at = [], data.find(b"\x00\x00\x01")
    while at >= 0 and at + 3 < len(data):
        headers.append(data[at + 3])
        at = data.find(b"\x00\x00\x01", at + 3)
    return headers


def _obu_types(data: bytes) -> list[int]:
    types, at = [], 0
    while at < len(data):
        header = data[at]
        types.append(header >> 3 & 0xF)
        at += 2 if header & 4 else 1
        if not header & 2:
            break
        size, shift = 0, 0
        while at < len(data):
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        at += size
    return types


class VideoDecoder:
    """Random access into a stream of video packets, one frame per packet.

    packet(i) gives the bytes of sample i; keyframe (N,) says where decoding can start.
    Where samples were re-ordered by stamp, `recorded` (N,) gives their decoding order.
    Decoded frames are kept up to 64 MiB. Not safe to share between threads.
    """

    def __init__(
        self,
        encoding: str,
        packet: Callable[[int], bytes],
        keyframe: Array,
        recorded: Array | None = None,
        extradata: str | None = None,
    ) -> None:
        self._encoding = encoding
        self._packet = packet
        n = len(keyframe)
        self._sample_of = np.arange(n) if recorded is None else np.argsort(recorded)
        self._position_of = np.empty(n, np.int64)
        self._position_of[self._sample_of] = np.arange(n)
        self._keyframes = np.flatnonzero(np.asarray(keyframe)[self._sample_of])
        self._extradata = base64.b64decode(extradata) if extradata else None
        self._frames: OrderedDict[int, Array] = OrderedDict()
        self._held = 0
        self._context: Any = None
        self._next = -1

    def frame(self, i: int) -> Array:
        """Sample i as (H, W, 3) uint8 RGB. Raises FormatError when it cannot be decoded."""
        position = int(self._position_of[i])
        if position in self._frames:
            self._frames.move_to_end(position)
            return self._frames[position]
        before = int(np.searchsorted(self._keyframes, position, side="right")) - 1
        if before < 0:
            raise FormatError(f"frame {i}: no keyframe at or before it, so it cannot be decoded")
        # Pictures shown before the keyframe of an open GOP need the keyframe before that one.
        for first in self._keyframes[max(0, before - 1) : before + 1][::-1]:
            self._decode(int(first), position)
            if position in self._frames:
                return self._frames[position]
            self._context = None
        raise FormatError(f"frame {i}: the {self._encoding} decoder gave no frame for it")

    def _decode(self, start: int, position: int) -> None:
        """Decode up to a position, from where the decoder is if that lies behind start."""
        if not start <= self._next <= position or self._context is None:
            self._open()
            self._next = start
        while self._next <= position:
            self._feed(self._next)
            self._next += 1
        if position not in self._frames:
            self._drain()

    def _open(self) -> None:
        import av

        self._context = av.CodecContext.create(DECODERS[self._encoding], "r")
        self._context.thread_count = 1
        if self._extradata:
            self._context.extradata = self._extradata

    def _feed(self, position: int) -> None:
        import av

        packet = av.Packet(self._packet(int(self._sample_of[position])))
        packet.pts = packet.dts = position
        try:
            for frame in self._context.decode(packet):
                self._store(frame)
        except av.error.FFmpegError as error:
            raise FormatError(
                f"packet {position} does not decode as {self._encoding}: {error}"
            ) from error

    def _drain(self) -> None:
        """Take what the decoder still holds back; it must be opened anew after that."""
        for frame in self._context.decode(None):
            self._store(frame)
        self._context = None

    def _store(self, frame: Any) -> None:
        image: Array = frame.to_ndarray(format="rgb24")
        self._frames[int(frame.pts)] = image
        self._held += image.nbytes
        while self._held > _FRAME_CACHE_BYTES and len(self._frames) > 1:
            _, old = self._frames.popitem(last=False)
            self._held -= old.nbytes
