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
from mmdata.loaders.spec import ImageSpec
from mmdata.loaders.video import DecoderPool, FrameCache, LiveDecoder, Video
from mmdata.memory import ReusedMemory

FRAMES = [picture(k) for k in range(40)]
PACKETS = video_packets(FRAMES)
KEYFRAMES = np.array([media.is_keyframe(p, "h264") for p in PACKETS])
TRUTH = [
    media.VideoDecoder("h264", PACKETS.__getitem__, KEYFRAMES).frame(i) for i in range(len(PACKETS))
]


def _packets(samples: np.ndarray) -> list[bytes]:
    return [PACKETS[i] for i in samples]


def _video(
    cache: FrameCache,
    spec: ImageSpec | None = None,
    name: str = "v",
    pool: DecoderPool | None = None,
) -> Video:
    pool = pool or DecoderPool(10**9)
    return Video(name, "h264", _packets, KEYFRAMES, spec or ImageSpec(), cache, pool)


@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.integers(0, 39), min_size=1, max_size=25),
    keep=st.booleans(),
    limit=st.sampled_from([0, 20_000, 10**9]),
)
def test_any_order_gives_the_pixels_of_the_stream(order: list[int], keep: bool, limit: int) -> None:
    cache = FrameCache(limit, ReusedMemory())
    cache.keep = keep
    video = _video(cache)
    for i in order:
        assert np.array_equal(video.frame(i), TRUTH[i].transpose(2, 0, 1)), i
        assert cache.nbytes <= limit


@pytest.mark.parametrize("keep", [False, True])
def test_a_group_is_decoded_once(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    cache = FrameCache(10**9, ReusedMemory())
    cache.keep = keep
    video = _video(cache)
    video.uses = np.ones(40, np.int64)
    feed = Video._feed

    def count(self: Video, until: int) -> list[object]:
        fed.append(self._next)
        return feed(self, until)

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
    cache = FrameCache(10**9, ReusedMemory())
    cache.keep = True
    video = _video(cache)
    video.uses = np.zeros(40, np.int64)
    video.uses[[3, 12]] = 1
    video.frame(3)
    video.frame(20)
    assert list(cache._frames) == [("v", 12)]


@pytest.mark.parametrize("why", ["memory", "number"])
def test_a_decoder_that_closes_finishes_its_group(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "number":
        monkeypatch.setattr("mmdata.loaders.video._MAX_DECODERS", 1)
    packets = video_packets([picture(k, 240, 320) for k in range(20)], gop=10)
    keyframe = np.arange(20) % 10 == 0
    cache = FrameCache(10**9, ReusedMemory())
    cache.keep = True
    pool = DecoderPool(1 if why == "memory" else 10**9)
    first, second = (
        Video(
            name, "h264", lambda samples: [packets[i] for i in samples], keyframe, ImageSpec(),
            cache, pool,
        )
        for name in ("first", "second")
    )  # fmt: skip
    first.frame(3)
    assert [at for _, at in cache._frames] == [0, 1, 2, 3]
    assert first.decoder_bytes == cache.nbytes
    assert cache.nbytes < 4 * 240 * 320 * 3, "as the decoder gave it"
    second.frame(0)
    assert sorted(at for name, at in cache._frames if name == "first") == list(range(10))
    assert first.decoder_bytes == 0
    truth = media.VideoDecoder("h264", packets.__getitem__, keyframe)
    for i in (4, 15, 9):
        assert np.array_equal(first.frame(i), truth.frame(i).transpose(2, 0, 1))


def test_a_broken_packet_is_told_to_whoever_asks_for_it() -> None:
    cache = FrameCache(10**9, ReusedMemory())
    cache.keep = True
    packets = [*PACKETS]
    packets[10] = b"\x00\x00\x01\x65junk"
    video = Video(
        "v", "h264", lambda samples: [packets[i] for i in samples], KEYFRAMES, ImageSpec(),
        cache, DecoderPool(),
    )  # fmt: skip
    assert np.array_equal(video.frame(3), TRUTH[3].transpose(2, 0, 1))
    assert np.array_equal(video.frame(20), TRUTH[20].transpose(2, 0, 1))
    assert np.array_equal(video.frame(9), TRUTH[9].transpose(2, 0, 1))
    with pytest.raises(FormatError):
        video.frame(10)


def test_no_keyframe_and_broken_packets_are_errors() -> None:
    cache = FrameCache(0, ReusedMemory())
    pool = DecoderPool(0)
    none = Video("v", "h264", _packets, np.zeros(40), ImageSpec(), cache, pool)
    with pytest.raises(FormatError, match="no keyframe"):
        none.frame(3)
    junk = [b"\x00\x00\x01\x65junk"]
    broken = Video("v", "h264", lambda i: junk * len(i), KEYFRAMES, ImageSpec(), cache, pool)
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
        dataset.expect(near=True)
        for n in (39, 7, 20, 0, 8, 21, 33):
            assert np.array_equal(dataset[n]["cam"], stream[n].transpose(2, 0, 1))
    assert np.array_equal(dataset[7]["cam"], TRUTH[20].transpose(2, 0, 1))


def test_packets_of_a_group_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdata.loaders import EpisodeDataset, SampleSpec
    from mmdata.store import FileBytes

    stamps = T0 + np.arange(40, dtype=np.int64) * 10**7
    with EpisodeWriter(tmp_path / "e.h5") as writer:
        writer.add_stream(StreamInfo("cam", Kind.IMAGE, {}, encoding="h264"))
        writer.append("cam", stamps, PACKETS)
    spec = SampleSpec.model_validate(
        {"timeline": {"reference_stream": "cam"}, "keys": {"cam": {"stream": "cam"}}}
    )
    dataset = EpisodeDataset([tmp_path / "e.h5"], spec)
    dataset.expect(near=True)
    dataset[0]
    read_at, reads = FileBytes.read_at, []

    def count(self: FileBytes, offset: int, length: int) -> bytes:
        reads.append(length)
        return read_at(self, offset, length)

    monkeypatch.setattr(FileBytes, "read_at", count)
    for n in range(40):
        assert np.array_equal(dataset[n]["cam"], TRUTH[n].transpose(2, 0, 1))
    assert len(reads) == 3, "three groups"


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
    assert images.processed_shape(frame.shape[:2], spec) == expected.shape


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
    memory = ReusedMemory()
    first = memory.empty((300, 1000), np.uint8)
    place = first.__array_interface__["data"][0]
    view = first[5:]
    del first
    assert memory.kept_bytes == 0, "a view still holds it"
    second = memory.empty((300, 1000), np.uint8)
    assert second.__array_interface__["data"][0] != place
    del view
    assert 300_000 <= memory.kept_bytes < 340_000
    third = memory.empty((150, 1000), np.uint16)
    assert third.__array_interface__["data"][0] == place
    del second, third
    assert ReusedMemory(limit_bytes=0).empty((300, 1000), np.uint8).shape == (300, 1000)
