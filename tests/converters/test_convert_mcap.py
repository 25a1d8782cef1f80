"""MCAP with protobuf, JSON and ROS 1: schemas, stamps, boxes, rig, damage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import mcap as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.errors import ConversionError
from mmdata.testing import ConverterContract, write_episode
from mmdata_converters.mcap_foxglove import FoxgloveMcapConverter
from mmdata_converters.mcap_foxglove.protobuf import ProtobufDecoder
from mmdata_schema import read_layer


class TestMcap(ConverterContract):
    converter = FoxgloveMcapConverter
    synthetic = False
    counts: ClassVar = dict.fromkeys(
        ("camera_front", "lidar", "wheel", "tf_front", "depth", "state", "old"), 6
    )

    def make(self, folder: Path) -> Path:
        return layout.write_mcap(folder / "run.mcap")


class TestMcapWithoutChunks(TestMcap):
    def make(self, folder: Path) -> Path:
        return layout.write_mcap(folder / "run.mcap", chunked=False)


def convert(path: Path):
    with FoxgloveMcapConverter.open(path) as recording:
        episode = open_episode(write_episode(recording, path.with_name("e.h5")))
    return episode, recording


def test_by_hand(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_mcap(tmp_path / "run.mcap"))
    camera = episode.streams["camera_front"]
    assert [number_of(i) for i in camera] == list(range(6))
    assert camera.source_ns[2] == layout.START_NS + 200_000_000
    assert camera.receive_ns[2] == layout.START_NS + 205_000_000
    assert camera.publish_ns[2] == layout.START_NS + 201_000_000
    lidar = episode.streams["lidar"]
    assert lidar[1]["x"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert lidar[1]["intensity"].tolist() == [0, 1, 2, 3, 4]
    wheel = episode.streams["wheel"]
    assert wheel["speed"].tolist() == [0, 1.5, 3, 4.5, 6, 7.5]
    assert wheel["ticks"][2].tolist() == [2, -2, 7]
    assert wheel["mode"].tolist() == [0] * 6  # a default that protobuf leaves out
    assert episode.streams["depth"][3][0, 0] == 1003
    state = episode.streams["state"]
    assert state["joints"][2].tolist() == [1, 2, 6]
    assert state.source_ns[1] == layout.START_NS + 100_000_000
    old = episode.streams["old"]
    assert old.source_ns[1] == layout.START_NS + 100_000_000
    assert sum(len(episode.streams[s]) for s in episode.streams) == 42
    assert recording.account.messages["/old"] == 6


def test_rig_and_boxes_by_hand(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_mcap(tmp_path / "run.mcap"))
    np.testing.assert_allclose(
        episode.streams["tf_front"]["orientation"][0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    )
    # The transform never changed, so it is the camera's mount: its x points along the base's y.
    point = episode.rig.transform("base", "front").apply([1.0, 0, 0])
    np.testing.assert_allclose(point, [1, 1, 2], atol=1e-12)
    assert episode.rig["camera_front"].camera.K[0, 2] == 32
    (box,) = read_layer(recording.layers["mcap"]).boxes_3d
    assert (box.label, box.object_id, box.frame_id) == ("car", "car-1", "map")
    assert box.size_lwh_m == (4.5, 1.9, 1.6)
    assert box.center_m == (1, 2, 3)
    assert box.stamp_ns == layout.START_NS


def test_messages_of_several_layouts_are_several_streams(tmp_path: Path) -> None:
    """Pictures that change from JPEG to PNG, states whose arms have six or seven joints."""
    path = layout.write_mixed(tmp_path / "mixed.mcap")
    episode, recording = convert(path)
    assert [number_of(i) for i in episode.streams["camera"]] == [0, 2, 4, 6]
    assert [number_of(i) for i in episode.streams["camera_3"]] == [1, 3, 5, 7]  # PNG
    assert [number_of(i) for i in episode.streams["camera_2"]] == [9]  # a topic of that name
    assert episode.streams["camera_3"].info.encoding == "png"
    assert episode.streams["arm"]["q"].shape == (4, 6)
    assert episode.streams["arm_2"]["q"].shape == (4, 7)
    problems = recording.account.problem_lines()
    assert "/arm: messages of another layout became arm_2" in problems
    assert "/arm: no numbers, so not kept: mode, tags (8 times)" in problems
    # A list that is never as long as before: eight layouts become streams, the rest is counted.
    (dropped,) = recording.account.dropped_list()
    assert (dropped.topic, dropped.count) == ("/growing", 4)


def test_a_damaged_chunk_loses_that_chunk_only(tmp_path: Path) -> None:
    path = layout.write_mcap(tmp_path / "run.mcap", n=40, chunk_size=2048)
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 8] = b"damaged!"
    path.write_bytes(bytes(data))
    episode, recording = convert(path)
    camera = episode.streams["camera_front"]
    assert 30 <= len(camera) < 40
    for stamp, image in zip(camera.source_ns, camera, strict=True):
        assert number_of(image) == (stamp - layout.START_NS) // 100_000_000
    lost = {d.topic: d.count for d in recording.account.dropped_list() if "damaged" in d.reason}
    assert lost["/camera/front"] == 40 - len(camera)


def test_a_cut_file_gives_what_is_before(tmp_path: Path) -> None:
    path = layout.write_mcap(tmp_path / "run.mcap", n=40, chunk_size=2048)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert FoxgloveMcapConverter.sniff(path)
    episode, recording = convert(path)
    assert 10 < len(episode.streams["camera_front"]) < 40
    assert any("cannot be read to its end" in p for p in recording.account.problem_lines())


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8), st.floats(allow_nan=False))
def test_protobuf_round_trip(ticks: list[int], speed: float) -> None:
    decoder = ProtobufDecoder(layout.descriptors(), "acme.Wheel")
    message = {"timestamp": layout.stamp(5), "speed": speed, "ticks": ticks}
    found = decoder.decode(layout.encode("acme.Wheel", message))
    assert found == {**message, "mode": 0}


@given(st.binary(max_size=200))
def test_protobuf_never_crashes(data: bytes) -> None:
    decoder = ProtobufDecoder(layout.descriptors(), "foxglove.PointCloud")
    with contextlib.suppress(ConversionError):
        decoder.decode(data)


def test_a_type_that_is_not_described() -> None:
    with pytest.raises(ConversionError, match="do not hold"):
        ProtobufDecoder(layout.descriptors(), "acme.Missing")
