"""Decoding: the very pixels of `mmdata.Stream`, in any order, through any order of access."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_episodes import T0, picture, video_packets

from mmdata import EpisodeWriter, Kind, StreamInfo, media, open_episode
from mmdata.errors import ConfigError, FormatError
from mmdata.loaders import images
from mmdata.loaders.memory import BatchMemory
from mmdata.loaders.spec import ImageSpec
from mmdata.loaders.video import DecoderPool, FrameCache, LiveDecoder, Video

FRAMES = [picture(k) for k in range(40)]
PACKETS = video_packets(FRAMES)
KEYFRAMES = np.array([media.is_keyframe(p, "h264") for p in PACKETS])
TRUTH = [
    media.VideoDecoder("h264", PACKETS.__getitem__, KEYFRAMES).frame(i) for i in range(len(PACKETS))
]


def _video(cache: FrameCache, spec: ImageSpec | None = None) -> Video:
    return Video(
        "v", "h264", PACKETS.__getitem__, KEYFRAMES, spec or ImageSpec(), cache, DecoderPool()
    )


@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.integers(0, 39), min_size=1, max_size=25),
    keep=st.booleans(),
    limit=st.sampled_from([0, 20_000, 10**9]),
)
def test_any_order_gives_the_pixels_of_the_stream(order: list[int], keep: bool, limit: int) -> None:
    cache = FrameCache(limit, BatchMemory())
    cache.keep = keep
    video = _video(cache)
    for i in order:
        assert np.array_equal(video.frame(i), TRUTH[i].transpose(2, 0, 1)), i
        assert cache.nbytes <= limit


@pytest.mark.parametrize("keep", [False, True])
def test_a_group_is_decoded_once(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    cache = FrameCache(10**9, BatchMemory())
    cache.keep = keep
    video = _video(cache)
    video.uses = np.ones(40, np.int64)
    feed = Video._feed

    def count(self: Video, position: int) -> list[object]:
        fed.append(position)
        return feed(self, position)

    monkeypatch.setattr(Video, "_feed", count)
    order = np.random.default_rng(0).permutation(40)
    for i in order:
        video.frame(int(i))
    if keep:
        assert sorted(fed) == list(range(40))
        assert cache.nbytes == 0, "a frame that no window wants any more is let go"
    else:
        assert len(fed) > 80


def test_frames_nobody_wants_are_not_kept() -> None:
    cache = FrameCache(10**9, BatchMemory())
    cache.keep = True
    video = _video(cache)
    video.uses = np.zeros(40, np.int64)
    video.uses[[3, 12]] = 1
    video.frame(3)
    assert list(cache._frames) == [("v", 12)]


def test_no_keyframe_and_broken_packets_are_errors() -> None:
    cache = FrameCache(0, BatchMemory())
    none = Video("v", "h264", PACKETS.__getitem__, np.zeros(40), ImageSpec(), cache, DecoderPool())
    with pytest.raises(FormatError, match="no keyframe"):
        none.frame(3)
    broken = Video(
        "v", "h264", lambda i: b"\x00\x00\x01\x65junk", KEYFRAMES, ImageSpec(), cache, DecoderPool()
    )
    with pytest.raises(FormatError):
        broken.frame(0)


def test_samples_out_of_decoding_order(tmp_path: Path) -> None:
    """Packets whose stamps go back are stored by stamp and decoded by arrival."""
    stamps = T0 + np.arange(40, dtype=np.int64) * 10**7
    stamps[[7, 20]] = stamps[[20, 7]]
    with EpisodeWriter(tmp_path / "e.h5") as writer:
        writer.add_stream(StreamInfo("cam", Kind.IMAGE, {}, encoding="h264"))
        writer.append("cam", stamps, PACKETS)
        writer.append("state", np.sort(stamps), {"data": np.arange(40.0)})
    from mmdata.loaders import EpisodeDataset, SampleSpec

    spec = SampleSpec.model_validate(
        {"timeline": {"reference_stream": "state"}, "keys": {"cam": {"stream": "cam"}}}
    )
    dataset = EpisodeDataset([tmp_path / "e.h5"], spec)
    with open_episode(tmp_path / "e.h5") as episode:
        stream = episode.streams["cam"]
        assert stream.recorded is not None
        for n in (39, 7, 20, 0, 8):
            assert np.array_equal(dataset[n]["cam"], stream[n].transpose(2, 0, 1))
    assert np.array_equal(dataset[7]["cam"], TRUTH[20].transpose(2, 0, 1))


def test_live_decoder_gives_the_same_pixels() -> None:
    live = LiveDecoder("h264")
    for packet, truth in zip(PACKETS, TRUTH, strict=True):
        assert np.array_equal(live.frame(packet), truth)


@pytest.mark.parametrize("layout", ["chw", "hwc"])
def test_crop_resize_layout_by_hand(layout: str) -> None:
    frame = FRAMES[5]
    spec = ImageSpec(crop_tlhw=(8, 4, 32, 40), size_hw=(16, 20), layout=layout)
    expected = cv2.resize(frame[8:40, 4:44], (20, 16), interpolation=cv2.INTER_AREA)
    exact = frame[8:40, 4:44].reshape(16, 2, 20, 2, 3).astype(float).mean((1, 3))
    assert np.abs(expected - exact).max() <= 0.5
    if layout == "chw":
        expected = expected.transpose(2, 0, 1)
    assert np.array_equal(images.finish(frame, spec), expected)
    planes = list(np.ascontiguousarray(frame.transpose(2, 0, 1)))
    out = np.empty(images.processed_shape(frame.shape[:2], spec), np.uint8)
    assert np.array_equal(images.finish_planes(planes, spec, out), expected)


def test_grey_and_wrong_shapes() -> None:
    grey = FRAMES[0][..., 0]
    assert images.finish(grey, ImageSpec()).shape == (1, 48, 64)
    assert images.finish(grey, ImageSpec(layout="hwc")).shape == (48, 64, 1)
    with pytest.raises(FormatError, match="shape"):
        images.finish(FRAMES[0], ImageSpec(), out=np.empty((3, 10, 10), np.uint8))
    with pytest.raises(ConfigError, match="crop"):
        images.finish(FRAMES[0], ImageSpec(crop_tlhw=(40, 0, 20, 20)))


def test_fast_jpeg_shrinks_on_the_way_down() -> None:
    big = cv2.resize(FRAMES[9], (640, 480), interpolation=cv2.INTER_LINEAR)
    data = media.encode_jpeg(big, 95)
    spec = ImageSpec(size_hw=(96, 128), fast=True)
    assert images.decode(data, spec).shape == (120, 160, 3)
    assert images.decode(data, ImageSpec(size_hw=(96, 128))).shape == (480, 640, 3)
    cropped = ImageSpec(size_hw=(96, 128), fast=True, crop_tlhw=(0, 0, 240, 320))
    assert images.decode(data, cropped).shape == (480, 640, 3)
    full = images.finish(images.decode(data, ImageSpec()), ImageSpec(size_hw=(96, 128)))
    fast = images.finish(images.decode(data, spec), spec)
    assert fast.shape == full.shape
    assert np.abs(fast.astype(int) - full).mean() < 4
    with pytest.raises(FormatError):
        images.decode(b"not an image", spec)


def test_memory_comes_back_and_only_then() -> None:
    memory = BatchMemory()
    first = memory.empty((300, 1000), np.uint8)
    place = first.__array_interface__["data"][0]
    view = first[5:]
    del first
    assert memory.kept_bytes == 0, "a view still holds it"
    second = memory.empty((300, 1000), np.uint8)
    assert second.__array_interface__["data"][0] != place
    del view
    assert memory.kept_bytes == 300_000
    third = memory.empty((150, 1000), np.uint16)
    assert third.__array_interface__["data"][0] == place
    del second, third
    assert BatchMemory(limit_bytes=0).empty((300, 1000), np.uint8).shape == (300, 1000)
