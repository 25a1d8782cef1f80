"""Decoded pictures to RGB, the pixels of `mmdata.Stream` to the bit, straight into a batch.

PyAV converts into memory of its own, from where pixels would have to be copied into the batch,
which takes as long as converting. The libswscale that PyAV's wheels bring can write into the batch
itself. It does where it was found, and where it has shown on random pixels that it gives the same
as PyAV and touches nothing else; anything else goes through PyAV.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

Array = NDArray[Any]
#: Conversion in threads of its own costs more than it gains, and does not survive a fork.
ONE_THREAD: dict[str, Any] = (
    {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}
)
#: Formats whose conversion looks at no neighbours, so that where chroma lies plays no part.
_SOURCES = ("yuv420p", "yuvj420p")
#: Rows are written by pieces of up to this many pixels; the last one may reach beyond a row's end.
_PIECE = 32
_BILINEAR, _UNSPECIFIED, _BT709, _BT601, _FULL = 2, (0, 2), 1, (5, 6), 2
_ONE = 1 << 16
_FOUR_POINTERS, _FOUR_INTS = ctypes.c_void_p * 4, ctypes.c_int * 4


class Kind(NamedTuple):
    """What a conversion depends on; `layout` is "chw" or "hwc"."""

    format: str
    width: int
    height: int
    colorspace: int
    color_range: int
    layout: str


class Converter:
    """Converts pictures of one video. Threads may share it; they take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reformatter = VideoReformatter()
        self._direct: dict[Kind, _Direct] = {}

    def into(self, picture: Any, out: Array, layout: str) -> bool:
        """The whole picture into out, (3, H, W) or (H, W, 3) uint8 of its very size, if that goes.

        False where it does not go directly, and nothing was done.
        """
        kind = Kind(
            picture.format.name, picture.width, picture.height,
            int(picture.colorspace), int(picture.color_range), layout,
        )  # fmt: skip
        if not out.flags.c_contiguous or not _agrees(kind):
            return False
        with self._lock:
            if kind not in self._direct:
                self._direct[kind] = _Direct(kind)
            self._direct[kind].into(picture, out)
        return True

    def rgb(self, picture: Any) -> Array:
        """The picture as (H, W, 3) uint8, in FFmpeg's memory."""
        with self._lock:
            return _packed(self._reformatter, picture)


def _packed(reformatter: VideoReformatter, picture: Any) -> Array:
    # Not gbrp: of rows whose length is no multiple of 16 that conversion may leave out the end.
    frame: Any = reformatter.reformat(picture, format="rgb24", **ONE_THREAD)
    plane = frame.planes[0]
    rows: Array = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : 3 * frame.width]
    return rows.reshape(frame.height, frame.width, 3)


class _Direct:
    """libswscale set up as PyAV does it, for one kind of pictures."""

    def __init__(self, kind: Kind) -> None:
        lib = _library()
        assert lib is not None
        self._scale = lib.sws_scale
        width, height = kind.width, kind.height
        source, target = (
            lib.av_get_pix_fmt(name.encode())
            for name in (kind.format, "gbrp" if kind.layout == "chw" else "rgb24")
        )
        self._context = lib.sws_getContext(
            width, height, source, width, height, target, _BILINEAR, None, None, None
        )
        if not self._context:
            raise MemoryError("libswscale gives no context")
        weakref.finalize(self, lib.sws_freeContext, self._context).atexit = False
        full = kind.color_range == _FULL or kind.format.startswith("yuvj")
        table = lib.sws_getCoefficients(_BT709 if kind.colorspace == _BT709 else _BT601[0])
        lib.sws_setColorspaceDetails(self._context, table, full, table, 0, 0, _ONE, _ONE)
        self._height = height
        #: Where green, blue and red (or all of them) lie in the output.
        self._places: tuple[int, ...] = (0,)
        self._strides = _FOUR_INTS(3 * width)
        if kind.layout == "chw":
            self._places = (width * height, 2 * width * height, 0)
            self._strides = _FOUR_INTS(width, width, width)

    def into(self, picture: Any, out: Array) -> None:
        planes = picture.planes
        base = out.__array_interface__["data"][0]
        self._scale(
            self._context,
            _FOUR_POINTERS(*(plane.buffer_ptr for plane in planes)),
            _FOUR_INTS(*(plane.line_size for plane in planes)),
            0,
            self._height,
            _FOUR_POINTERS(*(base + at for at in self._places)),
            self._strides,
        )


@cache
def _library() -> Any | None:
    """The libswscale that PyAV has loaded, where its wheel brought one; else None."""
    folder = Path(av.__file__).parent
    pointer, number = ctypes.c_void_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "av_get_pix_fmt": (number, [ctypes.c_char_p]),
        "sws_getContext": (pointer, [*6 * [number], number, *3 * [pointer]]),
        "sws_getCoefficients": (pointer, [number]),
        "sws_setColorspaceDetails": (number, [pointer, pointer, number, pointer, *4 * [number]]),
        "sws_scale": (number, [*3 * [pointer], number, number, pointer, pointer]),
        "sws_freeContext": (None, [pointer]),
    }
    for place in (folder.parent / "av.libs", folder / ".dylibs"):
        for path in place.glob("*swscale*"):
            try:
                lib = ctypes.CDLL(str(path))
                for name, (result, arguments) in signatures.items():
                    function = getattr(lib, name)
                    function.restype, function.argtypes = result, arguments
            except (OSError, AttributeError):
                continue
            return lib
    return None


@cache
def _agrees(kind: Kind) -> bool:
    """Whether pictures of a kind can be converted directly: judged by random pixels."""
    known = kind.colorspace in (*_UNSPECIFIED, _BT709, *_BT601)
    if kind.format not in _SOURCES or not known or _library() is None:
        return False
    if kind.width % _PIECE or kind.height % 2:
        return False
    rng = np.random.default_rng(0)
    picture = av.VideoFrame(kind.width, kind.height, kind.format)
    for plane in picture.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8))
    picture.colorspace, picture.color_range = kind.colorspace, kind.color_range
    size = 3 * kind.width * kind.height
    guarded = rng.integers(0, 256, size + 512, np.uint8)
    before, direct, after = guarded[:256].copy(), guarded[256:-256], guarded[-256:].copy()
    expected = _packed(VideoReformatter(), picture)
    if kind.layout == "chw":
        expected = expected.transpose(2, 0, 1)
    _Direct(kind).into(picture, direct)
    untouched = np.array_equal(before, guarded[:256]) and np.array_equal(after, guarded[-256:])
    return untouched and np.array_equal(direct, expected.ravel())
