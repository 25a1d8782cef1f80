"""RLDS: TFRecord and tf.train.Example by hand, the undefined last row, language, damage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import rlds as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.errors import ConversionError
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters._tfrecord import crc32c, parse_example
from mmdata_converters.rlds import RldsConverter
from mmdata_schema import read_layer


class TestRlds(ConverterContract):
    converter = RldsConverter
    parts = 2
    synthetic = True
    counts: ClassVar = {
        "action": 5, "reward": 5, "is_first": 6, "is_last": 6, "camera_image_0": 6,
        "camera_depth": 6, "state": 6, "counts": 6,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_rlds(folder / "toy" / "1.0.0")


class TestRldsVariants(ConverterContract):
    converter = RldsConverter
    synthetic = True
    counts: ClassVar = {"is_first": 5, "is_last": 5, "packed": 5, "camera_depth_image": 5,
                        "instruction": 5, "natural_language_instruction": 5}  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_variants(folder / "toy" / "1.0.0")


def test_variants(tmp_path: Path) -> None:
    with RldsConverter.open(layout.write_variants(tmp_path / "1.0.0")) as recording:
        episode = open_episode(write_episode(recording, tmp_path / "e.h5"))
    assert episode.streams["packed"]["data"][:, 0].tolist() == [0, 1, 2, 3, 4]
    depth = episode.streams["camera_depth_image"]
    assert depth.kind == "depth"
    np.testing.assert_allclose(depth[2][0, 0], 2.5)
    np.testing.assert_allclose(depth[2][3, 4], 4.0)
    captions = read_layer(recording.layers["rlds"]).captions
    assert {c.text for c in captions} == {"pick the can", "push it"}
    assert any("is_last is set at no step" in p for p in recording.account.problem_lines())
    (dropped,) = recording.account.dropped_list()
    assert (dropped.topic, dropped.count) == ("steps/observation/words", 5)


def test_array_record_is_told(tmp_path: Path) -> None:
    root = layout.write_rlds(tmp_path / "1.0.0")
    shard = next(root.glob("*.tfrecord*"))
    shard.rename(shard.with_name(shard.name.replace("tfrecord", "array_record")))
    assert RldsConverter.sniff(root)
    with pytest.raises(ConversionError, match="ArrayRecord"):
        RldsConverter.sources(root)


def test_values(tmp_path: Path) -> None:
    root = layout.write_rlds(tmp_path / "1.0.0")
    with RldsConverter.open(root, "train_00001") as recording:
        episode = open_episode(write_episode(recording, tmp_path / "e.h5"))
        lines = recording.account.problem_lines()
    action = episode.streams["action"]["data"]
    np.testing.assert_array_equal(action, np.arange(21).reshape(3, 7))
    assert episode.streams["action"].stamp_ns.tolist() == [0, 100_000_000, 200_000_000]
    np.testing.assert_array_equal(
        episode.streams["counts"]["data"], (np.arange(8) - 300).reshape(4, 2)
    )
    assert episode.streams["state"]["data"].dtype == np.float64
    assert [number_of(i) for i in episode.streams["camera_image_0"]] == [0, 1, 2, 3]
    assert episode.streams["camera_depth"][2][0, 0] == 702
    assert "has_image_0 is 0, yet 4 pictures are there" in lines
    assert "split 'val' lists 3 episodes, 0 are here" in lines
    (caption,) = read_layer(recording.layers["rlds"]).captions
    assert (caption.text, caption.style) == ("put the cup away", "instruction")


def test_the_last_row_of_action_is_left_out_and_counted(tmp_path: Path) -> None:
    with RldsConverter.open(layout.write_rlds(tmp_path / "1.0.0")) as recording:
        read_all(recording)
        assert recording.account.messages["steps/action"] == 6
        reasons = {d.topic: (d.count, d.reason) for d in recording.account.dropped_list()}
    assert reasons["steps/action"] == (1, "undefined at the last step (RLDS)")
    assert set(reasons) == {"steps/action", "steps/reward"}


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    root = layout.write_rlds(tmp_path / "1.0.0")
    shard = next(root.glob("*.tfrecord*"))
    data = bytearray(shard.read_bytes())
    data[500] ^= 4
    shard.write_bytes(bytes(data))
    with pytest.raises(ConversionError, match="checksum"):
        RldsConverter.open(root, "train_00000")
    RldsConverter.open(root, "train_00001").close()


def test_a_cut_shard_gives_what_is_whole(tmp_path: Path) -> None:
    root = layout.write_rlds(tmp_path / "1.0.0")
    shard = next(root.glob("*.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert list(RldsConverter.sources(root)) == ["train_00000"]
    with RldsConverter.open(root) as recording:
        assert any("ends within a record" in p for p in recording.account.problem_lines())


@given(st.integers(0, 300_000), st.integers(0, 255))
def test_checksum_of_lanes(n: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(min(n, 4000))
    assert crc32c(data) == layout.crc32c(data)


def test_checksum_of_long_data() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # check value of CRC-32C
    data = np.random.default_rng(1).bytes(300_001)
    assert crc32c(data) == layout.crc32c(data)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integers_of_any_size(values: list[int]) -> None:
    found = parse_example(layout.example({"x": np.array(values, np.int64)}))
    np.testing.assert_array_equal(found["x"], np.array(values, np.int64))


@given(st.binary(max_size=200))
def test_examples_never_crash(data: bytes) -> None:
    with contextlib.suppress(ConversionError):
        parse_example(data)


def test_real_bridge(shared_data: Path) -> None:
    root = shared_data / "real" / "octo_bridge_rlds" / "bridge_dataset" / "1.0.0"
    parts = RldsConverter.sources(root)
    assert len(parts) == 25
    for part in parts:
        with RldsConverter.open(root, part) as recording:
            counts = {k: sum(map(len, v)) for k, v in read_all(recording).items()}
        assert set(counts.values()) == {10}
        assert {f"camera_image_{i}" for i in range(4)} | {"action", "state"} <= set(counts)
