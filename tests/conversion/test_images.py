"""What becomes of camera frames, by policy, and whether the measured loss is the loss."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from small_logs import MS, START_NS, STORE, header

from mmdata import Episode, Kind, open_episode, verify_episode
from mmdata.config import ConvertConfig
from mmdata.conversion.images import GOP, psnr_db
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources

RAW, JPEG = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
Frames = np.ndarray[Any, Any]


def picture(k: int, height: int = 48, width: int = 64) -> Frames:
    """(H, W, 3) RGB: a gradient with a moving block whose place tells k."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1)
    left = (k * 2) % (width - 12)
    image[8:24, left : left + 12] = (250, 240, 20)
    return image.astype(np.uint8)


def _write(path: Path, kind: str, messages: list[tuple[int, int, Any]]) -> Path:
    """messages: (header stamp, receive stamp, message without header)."""
    topic = "/camera/image_raw" if kind == RAW else "/camera/compressed"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=STORE)
        for stamp, receive, facts in messages:
            message = STORE.types[kind](header=header(stamp, "cam"), **facts)
            writer.write(connection, receive, STORE.serialize_cdr(message, kind))
    return path


def raw_log(
    path: Path, frames: list[Frames], encoding: str, stamps: list[int] | None = None
) -> Path:
    """Raw images, 33 ms apart unless stamps are given."""
    messages = []
    for k, frame in enumerate(frames):
        now = START_NS + 33 * MS * k
        messages.append((
            stamps[k] if stamps else now, now + MS,
            {"height": frame.shape[0], "width": frame.shape[1], "encoding": encoding,
             "is_bigendian": 0, "step": frame.strides[0],
             "data": np.ascontiguousarray(frame).view(np.uint8).reshape(-1)},
        ))  # fmt: skip
    return _write(path, RAW, messages)


def jpeg_log(path: Path, packets: list[bytes]) -> Path:
    """JPEG frames, 33 ms apart."""
    return _write(path, JPEG, [
        (START_NS + 33 * MS * k, START_NS + 33 * MS * k + MS,
         {"format": "jpeg", "data": np.frombuffer(packet, np.uint8)})
        for k, packet in enumerate(packets)
    ])  # fmt: skip


def convert(log: Path, out: Path, **facts: Any) -> list[Path]:
    """Episodes of a log."""
    config = ConvertConfig.model_validate(facts)
    episodes = convert_source(find_sources([log]).sources[0], out, config).episodes
    for episode in episodes:
        assert verify_episode(episode.path).problems == []
    return [e.path for e in episodes]


def decoded(episode: Episode) -> list[Frames]:
    """All frames of the camera."""
    camera = episode.streams["camera"]
    return [camera[i] for i in range(len(camera))]


def picture_types(episode: Episode) -> list[str]:
    """I, P or B of every packet, found by decoding them in order."""
    import av

    camera = episode.streams["camera"]
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    found = []
    for i in range(len(camera)):
        found += decoder.decode(av.Packet(camera.encoded(i)))
    found += decoder.decode(None)
    return [" IPB"[int(frame.pict_type)] for frame in found]


@pytest.mark.parametrize("policy", ["keep", "h264"])
def test_raw_frames_become_h264(tmp_path: Path, policy: str) -> None:
    frames = [picture(k) for k in range(40)]
    (path,) = convert(raw_log(tmp_path / "log", frames, "rgb8"), tmp_path / "out", images=policy)
    with open_episode(path) as ep:
        info = ep.streams["camera"].info
        assert (info.encoding, len(ep.streams["camera"])) == ("h264", 40)  # one packet per frame
        assert {k: info.attrs[k] for k in ("gop", "crf", "b_frames", "encoded_from")} == {
            "gop": 15, "crf": 18, "b_frames": 0, "encoded_from": "raw"
        }  # fmt: skip
        assert picture_types(ep) == ["I" if k % GOP == 0 else "P" for k in range(40)]
        shown = decoded(ep)
        assert all(a.shape == b.shape for a, b in zip(shown, frames, strict=True))
        assert min(psnr_db(a, b) for a, b in zip(shown, frames, strict=True)) > 30
        # each frame is itself, not its neighbour
        assert all(psnr_db(shown[k], frames[k]) > psnr_db(shown[k], frames[k - 1])
                   for k in range(1, 40))  # fmt: skip


@pytest.mark.parametrize("policy", ["h264", "jpeg"])
def test_recorded_loss_is_the_loss(tmp_path: Path, policy: str) -> None:
    rng = np.random.default_rng(0)
    frames = [picture(k) // 2 + rng.integers(0, 99, (48, 64, 3), np.uint8) for k in range(31)]
    (path,) = convert(raw_log(tmp_path / "log", frames, "rgb8"), tmp_path / "out", images=policy)
    with open_episode(path) as ep:
        attrs, shown = ep.streams["camera"].info.attrs, decoded(ep)
    measured = [psnr_db(shown[k], frames[k]) for k in (0, 15, 30)]
    assert attrs["psnr_frames"] == 3
    assert attrs["psnr_db"] == pytest.approx(np.mean(measured), abs=1e-6)
    assert attrs["psnr_min_db"] == pytest.approx(min(measured), abs=1e-6)


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    assert psnr_db(black, black) == float("inf")
    assert psnr_db(black, np.full_like(black, 255)) == pytest.approx(0.0)
    assert psnr_db(black, np.full_like(black, 51)) == pytest.approx(10 * np.log10(25.0))


@pytest.mark.parametrize(
    ("height", "width", "encoding"),
    [(48, 64, "bgr8"), (47, 64, "rgb8"), (48, 63, "rgb8"), (47, 63, "rgb8"), (48, 64, "mono8"),
     (47, 63, "mono8"), (48, 64, "rgba8"), (18, 16, "bgra8")],
)  # fmt: skip
def test_odd_sizes_and_other_formats(
    tmp_path: Path, height: int, width: int, encoding: str
) -> None:
    rgb = [picture(k, height, width) for k in range(4)] if height > 24 else [
        np.full((height, width, 3), (200, 100, 50), np.uint8) for _ in range(4)
    ]  # fmt: skip
    alpha = np.full((height, width, 1), 255, np.uint8)
    as_sent = {
        "rgb8": lambda f: f, "bgr8": lambda f: f[..., ::-1],
        "rgba8": lambda f: np.concatenate([f, alpha], -1),
        "bgra8": lambda f: np.concatenate([f[..., ::-1], alpha], -1),
        "mono8": lambda f: cv2.cvtColor(f, cv2.COLOR_RGB2GRAY),
    }[encoding]  # fmt: skip
    sent = [np.ascontiguousarray(as_sent(f)) for f in rgb]
    (path,) = convert(raw_log(tmp_path / "log", sent, encoding), tmp_path / "out")
    with open_episode(path) as ep:
        shown = decoded(ep)
        assert ep.streams["camera"].info.attrs["encoded_from_pixel_format"] == encoding
    for got, frame, original in zip(shown, rgb, sent, strict=True):
        expected = frame if encoding != "mono8" else np.repeat(original[..., None], 3, 2)
        assert got.shape == expected.shape
        assert psnr_db(got, expected) > 28


@pytest.mark.parametrize("policy", ["keep", "h264", "jpeg", "lossless"])
@pytest.mark.parametrize("encoding", ["mono16", "bayer_rggb8", "rgb16", "bayer_gbrg16"])
def test_what_is_not_8_bit_colour_is_never_lossy(
    tmp_path: Path, policy: str, encoding: str
) -> None:
    rng = np.random.default_rng(1)
    dtype = np.uint16 if encoding.endswith("16") else np.uint8
    shape = (20, 30, 3) if encoding == "rgb16" else (20, 30)
    frames = [rng.integers(0, np.iinfo(dtype).max, shape, dtype) for _ in range(3)]
    (path,) = convert(raw_log(tmp_path / "log", frames, encoding), tmp_path / "out", images=policy)
    with open_episode(path) as ep:
        camera = ep.streams["camera"]
        assert camera.info.encoding == "raw"
        stored = camera["data"]
        assert np.array_equal(np.asarray(stored).reshape(3, *shape), np.stack(frames))


def test_lossless_keeps_raw_pixels(tmp_path: Path) -> None:
    frames = [picture(k) for k in range(3)]
    log = raw_log(tmp_path / "log", frames, "rgb8")
    (path,) = convert(log, tmp_path / "out", images="lossless")
    with open_episode(path) as ep:
        assert ep.streams["camera"].info.encoding == "raw"
        assert all(np.array_equal(a, b) for a, b in zip(decoded(ep), frames, strict=True))


@pytest.mark.parametrize("policy", ["keep", "lossless", "jpeg"])
def test_jpeg_stays_byte_for_byte(tmp_path: Path, policy: str) -> None:
    packets = [cv2.imencode(".jpg", picture(k))[1].tobytes() for k in range(5)]
    (path,) = convert(jpeg_log(tmp_path / "log", packets), tmp_path / "out", images=policy)
    with open_episode(path) as ep:
        camera = ep.streams["camera"]
        assert camera.info.encoding == "jpeg"
        assert [camera.encoded(i) for i in range(5)] == packets
        assert "psnr_db" not in camera.info.attrs


def test_transcoding_is_opt_in_and_measured(tmp_path: Path) -> None:
    packets = [
        cv2.imencode(".jpg", picture(k), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        for k in range(16)
    ]
    (path,) = convert(jpeg_log(tmp_path / "log", packets), tmp_path / "out", images="h264")
    with open_episode(path) as ep:
        camera = ep.streams["camera"]
        assert camera.info.encoding == "h264"
        assert camera.info.attrs["encoded_from"] == "jpeg"
        originals = [cv2.imdecode(np.frombuffer(p, np.uint8), 1)[..., ::-1] for p in packets]
        loss = [psnr_db(a, b) for a, b in zip(decoded(ep), originals, strict=True)]
        assert camera.info.attrs["psnr_db"] == pytest.approx(np.mean([loss[0], loss[15]]), abs=0.05)
        assert min(loss) > 28


def test_clips_of_encoded_frames_start_with_a_keyframe(tmp_path: Path) -> None:
    frames = [picture(k) for k in range(40)]
    log = raw_log(tmp_path / "log", frames, "rgb8")
    paths = convert(log, tmp_path / "out", split={"clip_s": 0.4})
    assert len(paths) == 4
    k = 0
    for path in paths:
        with open_episode(path) as ep:
            types = picture_types(ep)
            assert types == ["I" if i % GOP == 0 else "P" for i in range(len(types))]
            for got in decoded(ep):
                assert psnr_db(got, frames[k]) > 30
                k += 1
            assert ep.streams["camera"].info.attrs["psnr_frames"] == len(range(0, len(types), GOP))
    assert k == 40


def _video(frames: list[Frames], gop: int) -> list[bytes]:
    import av

    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"g": str(gop), "bf": "0", "tune": "zerolatency", "crf": "10",
                       "x264-params": "scenecut=0:repeat-headers=1"}  # fmt: skip
    packets = []
    for k, frame in enumerate(frames):
        image = av.VideoFrame.from_ndarray(frame, format="rgb24")
        image.pts = k
        packets += [bytes(p) for p in encoder.encode(image)]
    return packets + [bytes(p) for p in encoder.encode(None)]


def test_clips_of_kept_video_start_with_a_keyframe(tmp_path: Path) -> None:
    """Cut within a group of pictures, a clip has the group's beginning as well."""
    from rosbags.typesys import get_types_from_msg

    kind = "foxglove_msgs/msg/CompressedVideo"
    if kind not in STORE.types:
        text = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format"
        STORE.register(get_types_from_msg(text, kind))
    frames = [picture(k) for k in range(40)]
    with Writer(tmp_path / "log", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera", kind, typestore=STORE)
        for k, packet in enumerate(_video(frames, gop=12)):
            now = START_NS + 33 * MS * k
            message = STORE.types[kind](
                timestamp=header(now).stamp, frame_id="cam",  # type: ignore[attr-defined]
                data=np.frombuffer(packet, np.uint8), format="h264",
            )  # fmt: skip
            writer.write(connection, now, STORE.serialize_cdr(message, kind))
    paths = convert(tmp_path / "log", tmp_path / "out", split={"clip_s": 0.495})
    firsts = []
    for path in paths:
        with open_episode(path) as ep:
            stamps = ep.streams["camera"].source_ns
            assert stamps is not None
            numbers = (stamps - START_NS) // (33 * MS)
            firsts.append(int(numbers[0]))
            assert numbers.tolist() == list(range(numbers[0], numbers[-1] + 1))
            for k, got in zip(numbers, decoded(ep), strict=True):
                assert psnr_db(got, frames[k]) > 30
    assert firsts == [0, 12, 24]  # cut at 15 and 30, keyframes at 12 and 24


def test_regressed_stamps_still_decode_to_the_right_frames(tmp_path: Path) -> None:
    frames = [picture(k) for k in range(30)]
    order = [*range(10), 12, 10, 11, *range(13, 20), 25, 20, 21, 22, 23, 24, *range(26, 30)]
    stamps = [START_NS + 33 * MS * k for k in order]
    log = raw_log(tmp_path / "log", [frames[k] for k in order], "rgb8", stamps)
    (path,) = convert(log, tmp_path / "out")
    with open_episode(path) as ep:
        camera = ep.streams["camera"]
        assert (np.diff(camera.stamp_ns) > 0).all()
        shown = decoded(ep)
        assert min(psnr_db(a, b) for a, b in zip(shown, frames, strict=True)) > 30
        assert psnr_db(camera[25], frames[25]) > 30  # by random access as well
        assert camera.kind is Kind.IMAGE
