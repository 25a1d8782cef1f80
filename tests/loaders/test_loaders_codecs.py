"""Every video codec, with and without re-ordered pictures: the pixels of `mmdata.Stream`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from loader_episodes import T0, picture

from mmdata import EpisodeWriter, Kind, StreamInfo, media, open_episode
from mmdata.loaders import BatchSampler, BlockShuffle, EpisodeDataset, SampleSpec, iterate

FRAMES = [picture(k, 96, 128) for k in range(40)]
_X265 = "keyint=10:min-keyint=10:scenecut=0:log-level=none:pools=none:frame-threads=1"
CODECS = {
    "h264": ("libx264", {"preset": "veryfast", "sc_threshold": "0"}, 0),
    "h264 b-frames": ("libx264", {"preset": "veryfast", "sc_threshold": "0"}, 2),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": f"{_X265}:bframes=0"}, 0),
    "hevc open groups": (
        "libx265", {"preset": "ultrafast", "x265-params": f"{_X265}:bframes=3:open-gop=1"}, 3,
    ),
    "av1": ("libsvtav1", {"preset": "11", "svtav1-params": "keyint=10:lp=1"}, 0),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}, 0),
}  # fmt: skip
SPEC = SampleSpec.model_validate(
    {
        "timeline": {"reference_stream": "state"},
        "keys": {
            "full": {"stream": "cam"},
            "small": {"stream": "cam", "image": {"size_hw": (24, 32)}},
        },
    }
)


@pytest.fixture(params=CODECS)
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An episode with a video of 40 pictures in groups of 10."""
    encoder, options, b_frames = CODECS[request.param]
    try:
        context = av.CodecContext.create(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV has no encoder {encoder}")
    context.width, context.height, context.pix_fmt = 128, 96, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.gop_size, context.max_b_frames, context.options = 10, b_frames, options
    packets = []
    for k, frame in enumerate(FRAMES):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = k
        packets += context.encode(picture)
    packets += context.encode(None)
    assert sorted(p.pts for p in packets) == list(range(40))
    assert ([p.pts for p in packets] != list(range(40))) == bool(b_frames)
    stamps = T0 + np.array([p.pts for p in packets], np.int64) * 33_333_333
    with EpisodeWriter(tmp_path / "e.h5") as writer:
        writer.add_stream(StreamInfo("cam", Kind.IMAGE, {}, encoding=request.param.split()[0]))
        writer.append("cam", stamps, [bytes(p) for p in packets])
        writer.append("state", np.sort(stamps), {"data": np.arange(40.0)})
    return tmp_path / "e.h5"


def test_any_order_gives_the_pixels_of_the_stream(video: Path) -> None:
    with open_episode(video) as episode:
        stream = episode.streams["cam"]
        truth = np.stack([stream[i] for i in range(40)])
        keyframe = np.asarray(stream.arrays["keyframe"][:])
    assert np.abs(truth.astype(int) - np.stack(FRAMES)).mean() < 12, "the pictures, in their order"
    assert 3 <= keyframe.sum() < 12
    planes = truth.transpose(0, 3, 1, 2)
    dataset = EpisodeDataset([video], SPEC, threads=3)
    order = np.random.default_rng(0).permutation(40)
    for near in (False, True):
        dataset.expect(near)
        for numbers in order.reshape(5, 8):
            assert np.array_equal(dataset.batch(numbers)["full"], planes[numbers])
        for n in order[:12]:
            assert np.array_equal(dataset[int(n)]["full"], planes[n])
    blocks = BatchSampler(BlockShuffle(dataset.counts, dataset.block_size(1), 2), 8)
    for batch in iterate(dataset, blocks):
        assert np.array_equal(batch["full"], planes[batch["tick"]])
        assert batch["small"].shape == (len(batch["tick"]), 3, 24, 32)


def test_a_keyframe_index_says_where_decoding_can_start(video: Path) -> None:
    with open_episode(video) as episode:
        stream = episode.streams["cam"]
        recorded = stream.recorded
        order = np.arange(40) if recorded is None else np.argsort(recorded)
        starts = [int(i) for i in order if stream.arrays["keyframe"][int(i)]]
        for i in starts:
            context = av.CodecContext.create(media.DECODERS[stream.info.encoding or ""], "r")
            context.thread_count = 1
            got = [*context.decode(av.Packet(stream.encoded(i))), *context.decode(None)]
            assert len(got) == 1
