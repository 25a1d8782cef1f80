"""Video packets, compressed depth and audio in ROS logs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mmdata import Kind, open_episode, registry, verify_episode
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources

T0 = 1_700_000_000_000_000_000

DEFINITIONS = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
        "uint8 flags\nbool is_bigendian\nuint8[] data"
    ),
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioInfo": (
        "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\n"
        "string coding_format"
    ),
}


@pytest.fixture(scope="module")
def store() -> Any:
    made = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        made.register(get_types_from_msg(text, name))
    return made


def _time(store: Any, stamp: int) -> Any:
    make = store.types["builtin_interfaces/msg/Time"]
    return make(sec=stamp // 10**9, nanosec=stamp % 10**9)


def _header(store: Any, stamp: int) -> Any:
    return store.types["std_msgs/msg/Header"](stamp=_time(store, stamp), frame_id="cam")


def _write(path: Path, store: Any, messages: list[tuple[str, str, int, Any]]) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for topic, kind, stamp, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp, store.serialize_cdr(message, kind))
    return path


def _convert(log: Path, out: Path) -> Path:
    return convert_source(find_sources([log]).sources[0], out).episodes[0].path


def _packets(codec: str, n: int = 12) -> list[bytes]:
    import av

    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {
        "g": "4",
        "bf": "0",
        "tune": "zerolatency",
        "x265-params": "keyint=4:bframes=0",
    }
    packets = []
    for k in range(n):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 15 * k, np.uint8), format="rgb24")
        frame.pts = k
        packets += [bytes(p) for p in encoder.encode(frame)]
    return packets + [bytes(p) for p in encoder.encode(None)]


@pytest.mark.parametrize("kind", list(DEFINITIONS)[:2])
def test_video_packets_are_kept_and_seekable(tmp_path: Path, store: Any, kind: str) -> None:
    packets = _packets("libx264")
    messages = []
    for i, packet in enumerate(packets):
        stamp = T0 + i * 33_000_000
        data = np.frombuffer(packet, np.uint8)
        if "foxglove" in kind:
            message = store.types[kind](
                timestamp=_time(store, stamp), frame_id="cam", data=data, format="h264"
            )
        else:
            message = store.types[kind](
                header=_header(store, stamp), width=64, height=48, encoding="h264", pts=i,
                flags=0, is_bigendian=False, data=data,
            )  # fmt: skip
        messages.append(("/cam/video", kind, stamp + 1_000_000, message))
    path = _convert(_write(tmp_path / "log", store, messages), tmp_path / "out")
    assert verify_episode(path).problems == []
    with open_episode(path) as ep:
        cam = ep.streams["cam_video"]
        assert (cam.kind, cam.info.encoding, cam.info.frame_id) == (Kind.IMAGE, "h264", "cam")
        assert [cam.encoded(i) for i in range(len(cam))] == packets
        assert cam.source_ns.tolist() == [T0 + i * 33_000_000 for i in range(12)]
        for i in (7, 2, 11, 3):
            assert abs(int(cam[i].mean()) - 15 * i) <= 3


def test_compressed_depth_png_is_decoded_without_loss(tmp_path: Path, store: Any) -> None:
    kind = "sensor_msgs/msg/CompressedImage"
    depth = np.random.default_rng(0).integers(0, 65535, (3, 24, 32), np.uint16)
    messages = []
    for i, picture in enumerate(depth):
        png = bytes(12) + cv2.imencode(".png", picture)[1].tobytes()
        message = store.types[kind](
            header=_header(store, T0 + i), format="16UC1; compressedDepth png",
            data=np.frombuffer(png, np.uint8),
        )  # fmt: skip
        messages.append(("/depth/compressedDepth", kind, T0 + i, message))
    path = _convert(_write(tmp_path / "log", store, messages), tmp_path / "out")
    with open_episode(path) as ep:
        stream = ep.streams["depth"]
        assert stream.kind is Kind.DEPTH
        assert stream.info.fields["data"].unit == "mm"
        assert np.array_equal(stream["data"], depth)


def test_audio_needs_its_info(tmp_path: Path, store: Any) -> None:
    """PCM when an AudioInfo, even a later one, says how to read it; bytes otherwise."""
    wave = np.arange(320, dtype="<i2").reshape(2, 160)
    data_kind, info_kind = "audio_common_msgs/msg/AudioData", "audio_common_msgs/msg/AudioInfo"
    messages = [
        ("/audio/audio", data_kind, T0 + i, store.types[data_kind](data=row.view(np.uint8)))
        for i, row in enumerate(wave)
    ]
    info = store.types[info_kind](
        channels=2, sample_rate=16000, sample_format="S16LE", bitrate=0, coding_format="wave"
    )
    with_info = [*messages, ("/audio/audio_info", info_kind, T0 + 9, info)]
    path = _convert(_write(tmp_path / "with", store, with_info), tmp_path / "out")
    with open_episode(path) as ep:
        stream = ep.streams["audio_audio"]
        assert stream.kind is Kind.AUDIO
        assert stream.info.attrs["sample_rate_hz"] == 16000
        assert np.array_equal(stream[1], wave[1].reshape(80, 2))
    log = _write(tmp_path / "without", store, messages)
    converter = registry.sniff(log)
    assert converter is not None
    with converter.open(log) as recording:
        kinds = {b.info.kind for b in recording.read()}
        assert kinds == {Kind.OPAQUE}
        assert any("no AudioInfo" in p for p in recording.account.problem_lines())
