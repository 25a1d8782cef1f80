"""PandaSet: frames out of pickles that nothing is run from, point times, poses, cuboids."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from layouts import pandaset as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.errors import ConversionError
from mmdata.geometry import quat_rotate
from mmdata.testing import ConverterContract, write_episode
from mmdata_converters._pickle import _strings_of, read_frame
from mmdata_converters.pandaset import PandaSetConverter
from mmdata_schema import read_layer


class TestPandaSet(ConverterContract):
    converter = PandaSetConverter
    synthetic = False
    counts: ClassVar = dict.fromkeys(
        ("camera_front", "camera_front_pose", "camera_back", "camera_back_pose", "lidar",
         "lidar_pose", "navsatfix"), 4,
    )  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_sequence(folder / "002")


def convert(root: Path):
    with PandaSetConverter.open(root) as recording:
        episode = open_episode(write_episode(recording, root.parent / "e.h5"))
    return episode, recording


@pytest.mark.parametrize("old", [True, False])
def test_by_hand(tmp_path: Path, old: bool) -> None:
    episode, recording = convert(layout.write_sequence(tmp_path / "002", old=old))
    lidar = episode.streams["lidar"]
    assert lidar.stamp_ns[0] == 1_557_539_924_500_000_000
    sweep = lidar[1]
    assert sweep["x"].tolist() == [i * 1.5 for i in range(7)]
    assert sweep["sensor_index"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(sweep["point_offset_ns"], np.arange(7) * 1e6, atol=500)
    assert set(sweep["semantic_class"]) == {13}
    assert [number_of(i) for i in episode.streams["camera_front"]] == [0, 1, 2, 3]
    pose = episode.streams["camera_front_pose"]
    assert pose["orientation"][0].tolist() == [0.5, 0.5, -0.5, 0.5]
    assert pose["position"][2].tolist() == [2, 0, 0]
    assert episode.rig["camera_front"].camera.K[1, 1] == 51
    tracks = {t.object_id: t for t in read_layer(recording.layers["pandaset"]).tracks_3d}
    car = tracks["car-1"]
    assert car.size_lwh_m[0] == (4.7, 1.9, 1.6)  # dimensions.y is the length
    assert [c[0] for c in car.center_m] == [10, 11, 12, 13]
    # Yaw 0: PandaSet's car is long along the world's y, so ours heads there.
    heading = quat_rotate(car.quaternion_wxyz[0], [1.0, 0, 0])
    np.testing.assert_allclose(heading, [0, 1, 0], atol=1e-12)
    bus = quat_rotate(tracks["bus-2"].quaternion_wxyz[0], [1.0, 0, 0])
    np.testing.assert_allclose(bus, [-1, 0, 0], atol=1e-12)
    assert car.keyframe_attributes["stationary"] == [True] * 4
    assert car.keyframe_attributes["object_motion"] == ["Parked"] * 4
    assert tracks["bus-2"].keyframe_attributes["sibling_id"] == ["bus-9"] * 4


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_frames_as_the_installed_pandas_pickles_them(tmp_path: Path, protocol: int) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({
        "uuid": ["a", "bé", "c"], "label": ["Car", None, ""], "yaw": [0.5, 1.0, 2.0],
        "d": [1, 2, 3], "stationary": [True, False, True],
    }).iloc[1:]  # fmt: skip
    path = tmp_path / "00.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(frame.reset_index(drop=True), protocol)))
    found = read_frame(path)
    assert list(found) == ["uuid", "label", "yaw", "d", "stationary"]
    assert found["uuid"].tolist() == ["bé", "c"]
    assert found["label"][1] == ""
    assert found["yaw"].tolist() == [1.0, 2.0]
    assert found["stationary"].tolist() == [False, True]


@pytest.mark.parametrize(
    "buffers",
    [
        [None, np.array([0, 10**9], "<i8").tobytes(), b"ab"],
        [None, np.array([-5, 1], "<i8").tobytes(), b"ab"],
        [None, b"", b"ab"],
        [None, np.array([0, 2, 1], "<i8").tobytes(), b"ab"],
    ],
)
def test_strings_whose_places_lie(buffers: list) -> None:
    length = 2 if buffers[1] and len(buffers[1]) == 24 else 1
    with pytest.raises(ConversionError, match="outside"):
        _strings_of(("large_string", length, 0, 0, buffers, [], None))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/mmdata_was_here",)


class Sneaky:
    def __reduce__(self):
        return getattr, (np.ndarray, "tofile")


@pytest.mark.parametrize(
    "what", [Harmful(), Sneaky(), [1, 2], {"x": np.arange(3)}, np.dtype, object()]
)
def test_nothing_but_frames_is_read(tmp_path: Path, what: object) -> None:
    path = tmp_path / "00.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(what)))
    with pytest.raises(ConversionError):
        read_frame(path)
    assert not Path("/tmp/mmdata_was_here").exists()


def test_a_poisoned_sequence_loses_that_sweep_only(tmp_path: Path) -> None:
    root = layout.write_sequence(tmp_path / "002")
    (root / "lidar/01.pkl.gz").write_bytes(gzip.compress(pickle.dumps(Harmful())))
    (root / "lidar/03.pkl.gz").unlink()
    episode, recording = convert(root)
    assert [len(s["x"]) for s in episode.streams["lidar"]] == [6, 8]
    assert episode.streams["lidar"].stamp_ns[1] == 1_557_539_924_700_000_048
    (dropped,) = recording.account.dropped_list()
    assert (dropped.topic, dropped.count) == ("lidar", 1)
    assert "refused" in dropped.reason
    assert "lidar: 1 of 4 stamps have no file" in recording.account.problem_lines()
