"""Pictures straight into a batch: the pixels PyAV gives, nothing beside them, of any kind."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from loader_episodes import video_packets

from mmdata import media
from mmdata.loaders import convert
from mmdata.loaders.convert import Converter, Kind
from mmdata.loaders.spec import ImageSpec
from mmdata.loaders.video import DecoderPool, FrameCache, Video
from mmdata.memory import ReusedMemory

SIZES = [(96, 128), (48, 64), (50, 68), (33, 47), (24, 168), (16, 32)]
needs_library = pytest.mark.skipif(
    convert._library() is None, reason="PyAV brought no libswscale of its own"
)


def _picture(height: int, width: int, form: str = "yuv420p", space: int = 2, limit: int = 0) -> Any:
    rng = np.random.default_rng(height)
    picture = av.VideoFrame(width, height, form)
    for plane in picture.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8))
    picture.colorspace, picture.color_range = space, limit
    return picture


def _kind(picture: Any, layout: str = "chw") -> Kind:
    space, limit = int(picture.colorspace), int(picture.color_range)
    return Kind(picture.format.name, picture.width, picture.height, space, limit, layout)


def _into(picture: Any, layout: str, converter: Converter | None = None) -> np.ndarray | None:
    """Converted between guards, which must not change; None where it does not go."""
    height, width = picture.height, picture.width
    size = 3 * height * width
    memory = np.full(size + 2000, 77, np.uint8)
    shape = (3, height, width) if layout == "chw" else (height, width, 3)
    out = memory[1000 : 1000 + size].reshape(shape)
    went = (converter or Converter()).into(picture, out, layout)
    assert (memory[:1000] == 77).all()
    assert (memory[-1000:] == 77).all()
    if not went:
        assert (memory == 77).all()
        return None
    return out if layout == "hwc" else out.transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("form", "space", "limit"),
    [
        ("yuv420p", 2, 0), ("yuv420p", 1, 1), ("yuv420p", 5, 2), ("yuvj420p", 2, 0),
        ("yuv420p", 9, 0), ("yuv444p", 2, 0), ("yuv420p10le", 1, 1), ("nv12", 1, 1), ("gray", 2, 0),
    ],
)  # fmt: skip
def test_the_pixels_of_pyav(form: str, space: int, limit: int) -> None:
    converter = Converter()
    for height, width in SIZES:
        picture = _picture(height, width, form, space, limit)
        expected = picture.to_ndarray(format="rgb24")
        assert np.array_equal(converter.rgb(picture), expected)
        for layout in ("chw", "hwc"):
            direct = _into(picture, layout, converter)
            assert direct is None or np.array_equal(direct, expected), (height, width)


@pytest.mark.parametrize("layout", ["chw", "hwc"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (50, 68), (34, 48), (24, 168)])
def test_video_of_any_size(height: int, width: int, layout: str) -> None:
    """As a key sees it, also where rows end within what a processor writes at once."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(4)]
    packets = video_packets(frames)
    keyframe = np.array([media.is_keyframe(p, "h264") for p in packets])
    stream = media.VideoDecoder("h264", packets.__getitem__, keyframe)
    cache = FrameCache(10**9, ReusedMemory())
    cache.keep = True
    video = Video(
        "v", "h264", lambda samples: [packets[i] for i in samples], keyframe,
        ImageSpec(layout=layout), cache, DecoderPool(),
    )  # fmt: skip
    for i in (0, 3, 1, 2, 2):
        expected = stream.frame(i)
        if layout == "chw":
            expected = expected.transpose(2, 0, 1)
        assert np.array_equal(video.frame(i), expected)


@needs_library
def test_colours_are_told_apart() -> None:
    found = {
        (_into(_picture(48, 64, "yuv420p", space, limit), "chw") + 0).tobytes()
        for space in (1, 5)
        for limit in (1, 2)
    }
    assert len(found) == 4


@needs_library
def test_common_pictures_go_directly_and_doubtful_ones_do_not() -> None:
    assert convert._agrees(_kind(_picture(48, 64)))
    assert convert._agrees(_kind(_picture(48, 64), "hwc"))
    doubtful = [
        _picture(50, 68),
        _picture(33, 64),
        _picture(48, 64, "yuv444p"),
        _picture(48, 64, "yuv420p", 9),
    ]
    assert not any(convert._agrees(_kind(picture)) for picture in doubtful)


@needs_library
@pytest.mark.parametrize("fault", ["pixel", "beyond"])
def test_a_library_that_differs_is_not_used(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    into = convert._Direct.into

    def wrong(self: Any, picture: Any, out: np.ndarray) -> None:
        into(self, picture, out)
        if fault == "pixel":
            out.reshape(-1)[4321] ^= 1
        else:
            out.base[-1] ^= 1

    assert convert._agrees.__wrapped__(_kind(_picture(48, 64)))
    monkeypatch.setattr(convert._Direct, "into", wrong)
    for layout in ("chw", "hwc"):
        assert not convert._agrees.__wrapped__(_kind(_picture(48, 64), layout))


def test_without_a_library_nothing_goes_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_library", lambda: None)
    monkeypatch.setattr(convert, "_agrees", convert._agrees.__wrapped__)
    assert _into(_picture(48, 64), "chw") is None


def test_memory_that_is_not_contiguous() -> None:
    out = np.zeros((3, 48, 64, 2), np.uint8)
    assert not Converter().into(_picture(48, 64), out[..., 0], "chw")
    assert not out.any()
