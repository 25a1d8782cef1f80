"""DROID, UMI, REASSEMBLE and AgiBot: measured stamps, rotations by hand, labels, defects."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import manipulation as layout
from layouts.media import number_of, picture

from mmdata import open_episode
from mmdata.geometry import quat_to_matrix
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters._rotations import from_roll_pitch_yaw
from mmdata_converters._zarr import ZarrStore, _image_codec
from mmdata_converters.agibot import AgiBotConverter
from mmdata_converters.droid import DroidConverter
from mmdata_converters.reassemble import ReassembleConverter
from mmdata_converters.umi import UmiConverter
from mmdata_schema import read_layer

QUARTER = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
START_NS = layout.START_S * 10**9


class TestDroid(ConverterContract):
    converter = DroidConverter
    synthetic = False
    counts: ClassVar = dict.fromkeys(
        ("joint_states", "eef_pose", "gripper", "robot_state", "controller", "action", "timing",
         "camera_111", "camera_222", "camera_111_pose"), 10,
    )  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_droid(folder / "Fri_Jul__7_14:44:02_2023")


class TestUmiZip(ConverterContract):
    converter = UmiConverter
    parts = 2
    synthetic = True
    counts: ClassVar = dict.fromkeys(
        ("eef_pose", "gripper", "robot0_demo_start_pose", "camera0"), 5
    )

    def make(self, folder: Path) -> Path:
        return layout.write_umi(folder / "dataset.zarr.zip")


class TestUmiFolder(TestUmiZip):
    def make(self, folder: Path) -> Path:
        return layout.write_umi(folder / "dataset.zarr", codec="zlib")


class TestReassemble(ConverterContract):
    converter = ReassembleConverter
    synthetic = False
    counts: ClassVar = {
        **dict.fromkeys(("joint_states", "gripper", "wrench", "wrench_measured", "eef_pose",
                         "eef_velocity"), 20),
        "camera_hama1": 8, "events": 10, "hand_audio": 29,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_reassemble(folder / "2025-01-09-13-57-17.h5")


class TestReassembleReleased(ConverterContract):
    converter = ReassembleConverter

    def make(self, folder: Path) -> Path:
        (folder / "data").mkdir()
        return layout.write_reassemble(folder / "data/2025-01-09-13-59-54.h5", released=True)


class TestAgiBot(ConverterContract):
    converter = AgiBotConverter
    synthetic = False
    counts: ClassVar = {
        **dict.fromkeys(("joint_states", "eef_pose", "gripper", "state_head", "action_effector",
                         "camera_head", "camera_tactile_left"), 12),
        "action_joint": 9, "camera_head_depth": 11,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_agibot(folder / "agibot")


class TestAgiBotDigital(ConverterContract):
    converter = AgiBotConverter
    synthetic = False

    def make(self, folder: Path) -> Path:
        return layout.write_agibot_digital(folder / "digital")


class TestAgiBotFlat(ConverterContract):
    converter = AgiBotConverter
    synthetic = False
    damaged_files = 6

    def make(self, folder: Path) -> Path:
        return layout.write_agibot_flat(folder / "3335477" / "A2D0015" / "12052353")


def convert(converter, path: Path, out: Path, part: str = ""):
    with converter.open(path, part) as recording:
        episode = open_episode(write_episode(recording, out / "e.h5"))
    return episode, recording


def told(recording, text: str) -> bool:
    return any(text in line for line in recording.account.problem_lines())


@given(st.tuples(*[st.floats(-3, 3)] * 3))
def test_euler_angles_against_matrices(angles: tuple[float, float, float]) -> None:
    a, b, c = angles
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    found = quat_to_matrix(from_roll_pitch_yaw(np.array([angles]))[0])
    np.testing.assert_allclose(found, rz @ ry @ rx, atol=1e-9)


# -- DROID -------------------------------------------------------------------------------------


def test_droid_by_hand(tmp_path: Path) -> None:
    episode, recording = convert(DroidConverter, layout.write_droid(tmp_path / "e"), tmp_path)
    joints = episode.streams["joint_states"]
    assert joints.source_ns.tolist() == [START_NS + i * 66_666_667 for i in range(10)]
    assert joints.receive_ns[1] == (layout.START_MS + 72) * 10**6
    np.testing.assert_allclose(episode.streams["eef_pose"]["orientation"][0], QUARTER)
    camera = episode.streams["camera_222"]
    assert camera.source_ns[0] == (layout.START_MS - 20) * 10**6
    assert [number_of(i) for i in camera] == list(range(10))
    # The fixed camera is in the rig; the one on the wrist moves and is a stream.
    point = episode.rig.transform("robot_base", "camera_222").apply([1.0, 0, 0])
    np.testing.assert_allclose(point, [0.5, 1.0, 0.3], atol=1e-12)
    assert episode.rig["camera_111"].parent_SE3_sensor is None
    assert "camera_111_pose" in episode.streams
    assert episode.metadata["instruction"] == "close the drawer"
    assert episode.metadata["outcome"] == "success"
    assert recording.account.problem_lines() == []


def test_droid_video_one_frame_short(tmp_path: Path) -> None:
    path = layout.write_droid(tmp_path / "e", frames=9)
    episode, recording = convert(DroidConverter, path, tmp_path)
    assert [number_of(i) for i in episode.streams["camera_111"]] == list(range(9))
    assert told(recording, "9 frames for 10 rows")


def test_droid_skipped_actions_and_missing_video(tmp_path: Path) -> None:
    path = layout.write_droid(tmp_path / "e", skip=[3, 4])
    (path / "recordings/MP4/111.mp4").unlink()
    episode, recording = convert(DroidConverter, path, tmp_path)
    action = episode.streams["action"]
    assert np.floor(action["joint_position"][:, 0]).tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert len(episode.streams["joint_states"]) == 10
    assert "camera_111" not in episode.streams
    assert told(recording, "2 rows of action are marked skip_action")
    assert told(recording, "111.mp4 is missing: 10 rows without frame")


def test_droid_language_mount_and_svo(tmp_path: Path) -> None:
    path = layout.write_droid(tmp_path / "IRIS/success/2023-07-07/Fri_Jul__7_14:44:02_2023")
    (path / "recordings/SVO").mkdir()
    (path / "recordings/SVO/111.svo").write_bytes(b"ZED")
    said = {"x": {"language_instruction1": "shut it", "language_instruction2": "close it"}}
    (tmp_path / "aggregated-annotations-030724.json").write_text(json.dumps(said))
    episode, recording = convert(DroidConverter, path, tmp_path)
    assert episode.metadata["instruction"] == "shut it"
    texts = {c.text for c in read_layer(recording.layers["droid"]).captions}
    assert texts == {"close the drawer", "shut it", "close it"}
    assert episode.streams["camera_111"].info.attrs["mounted"] == "wrist"
    assert episode.streams["camera_222"].info.attrs["mounted"] == "external"
    assert told(recording, "recordings/SVO: 1 files need the ZED SDK")


# -- UMI ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["d.zarr.zip", "d.zarr"])
def test_umi_second_episode(tmp_path: Path, name: str) -> None:
    path = layout.write_umi(tmp_path / name)
    episode, recording = convert(UmiConverter, path, tmp_path, "episode_000001")
    pose = episode.streams["eef_pose"]
    assert pose["position"][:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_allclose(pose["orientation"][0], QUARTER, atol=1e-7)
    assert episode.streams["gripper"]["width"][0] == np.float32(0.05)
    assert [number_of(i) for i in episode.streams["camera0"]] == [5, 6, 7, 8, 9, 10, 11]
    assert told(recording, "holds no time")


@pytest.mark.parametrize("sharded", [False, True])
def test_umi_in_zarr_3(tmp_path: Path, sharded: bool) -> None:
    path = layout.write_umi(tmp_path / "d.zarr", version=3, sharded=sharded)
    assert list(UmiConverter.sources(path)) == ["episode_000000", "episode_000001"]
    episode, _ = convert(UmiConverter, path, tmp_path, "episode_000001")
    assert episode.streams["eef_pose"]["position"][:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert [number_of(i) for i in episode.streams["camera0"]] == [5, 6, 7, 8, 9, 10, 11]


def test_umi_zip_of_a_folder(tmp_path: Path) -> None:
    path = layout.write_umi(tmp_path / "d.zarr.zip", inside="replay_buffer.zarr/")
    assert UmiConverter.sniff(path)
    episode, _ = convert(UmiConverter, path, tmp_path)
    assert [number_of(i) for i in episode.streams["camera0"]] == list(range(5))


_WAYS = [
    {}, {"endian": "big"}, {"order": (1, 0)}, {"compress": "blosc"}, {"compress": "gzip"},
    {"keys": "v2"},
]  # fmt: skip


@pytest.mark.parametrize("options", _WAYS)
def test_zarr_3_as_zarr_writes_it(tmp_path: Path, options: dict) -> None:
    zarr = pytest.importorskip("zarr")
    more: dict = {"compressors": None}
    if "endian" in options:
        more["serializer"] = zarr.codecs.BytesCodec(endian="big")
    if "order" in options:
        more["filters"] = [zarr.codecs.TransposeCodec(order=options["order"])]
    if "compress" in options:
        more["compressors"] = {"blosc": zarr.codecs.BloscCodec(cname="lz4"),
                               "gzip": zarr.codecs.GzipCodec()}[options["compress"]]  # fmt: skip
    if "keys" in options:
        more["chunk_key_encoding"] = {"name": "v2", "separator": "."}
    values = np.arange(35, dtype=np.float32).reshape(7, 5)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    root.create_array("x", shape=values.shape, chunks=(3, 2), dtype="f4", **more)[:] = values
    np.testing.assert_array_equal(ZarrStore(tmp_path / "a.zarr").array("x")[1:6], values[1:6])


def test_umi_jpeg_xl(tmp_path: Path) -> None:
    path = layout.write_umi(tmp_path / "d.zarr.zip", codec="jpegxl")
    episode, _ = convert(UmiConverter, path, tmp_path, "episode_000001")
    assert [number_of(i) for i in episode.streams["camera0"]] == [5, 6, 7, 8, 9, 10, 11]


def test_umi_with_jpeg_xl_but_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = layout.write_umi(tmp_path / "d.zarr.zip", codec="jpegxl")
    _image_codec.cache_clear()
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with UmiConverter.open(path) as recording:
        streams = read_all(recording)
        dropped = {d.topic: d for d in recording.account.dropped_list()}
    assert len(streams["eef_pose"][0]) == 5
    assert "camera0" not in streams
    assert dropped["data/camera0_rgb"].count == 5
    assert "mmdata[umi]" in dropped["data/camera0_rgb"].reason


def test_diffusion_policy_pictures_written_as_floats(tmp_path: Path) -> None:
    """PushT keeps 96 x 96 pictures as float32 of whole numbers; states in [0, 1] stay numbers."""
    root = pytest.importorskip("zarr").open_group(tmp_path / "p.zarr", mode="w", zarr_format=2)
    pictures = np.stack([picture(i, 96, 96) for i in range(4)]).astype(np.float32)
    fractions = np.random.default_rng(0).random((4, 16, 16, 1)).astype(np.float32)
    for key, values in (("data/img", pictures), ("data/heat", fractions),
                        ("data/state", np.zeros((4, 5), np.float32)),
                        ("meta/episode_ends", np.array([4]))):  # fmt: skip
        root.create_array(key, shape=values.shape, dtype=values.dtype)[:] = values
    episode, _ = convert(UmiConverter, tmp_path / "p.zarr", tmp_path)
    assert [number_of(i) for i in episode.streams["camera_img"]] == list(range(4))
    assert episode.streams["heat"].kind == "signal"


@given(st.integers(0, 12), st.integers(0, 12))
def test_zarr_slices(tmp_path_factory: pytest.TempPathFactory, a: int, b: int) -> None:
    path = tmp_path_factory.getbasetemp() / "slices.zarr.zip"
    if not path.exists():
        layout.write_umi(path)
    store = ZarrStore(path)
    array = store.array("data/robot0_eef_rot_axis_angle")  # chunks across both axes
    whole = np.tile(np.float32([0, 0, np.pi / 2]), (12, 1))
    np.testing.assert_array_equal(array[a:b], whole[a:b])
    store.close()


def test_umi_damaged_chunk(tmp_path: Path) -> None:
    path = layout.write_umi(tmp_path / "d.zarr")
    (path / "data/camera0_rgb/2.0.0.0").write_bytes(b"broken")
    episode, recording = convert(UmiConverter, path, tmp_path)
    assert len(episode.streams["eef_pose"]) == 5
    assert sum(d.count for d in recording.account.dropped_list()) == 5
    assert zipfile.is_zipfile(path) is False


# -- REASSEMBLE --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"parts": True}, {"misspelt": True}, {"unit": 1e3}, {"unit": 1e9}]
)
def test_reassemble_variants(tmp_path: Path, options: dict) -> None:
    path = layout.write_reassemble(tmp_path / "r.h5", **options)
    episode, recording = convert(ReassembleConverter, path, tmp_path)
    joints = episode.streams["joint_states"]
    assert joints["position"][2].tolist() == [14, 15, 16, 17, 18, 19, 20]
    assert set(joints.fields) == {"position", "velocity", "effort"}
    np.testing.assert_allclose(joints.stamp_ns - START_NS, np.arange(20) * 1e7, atol=300)
    assert episode.streams["wrench"]["force"][1].tolist() == [3, 4, 5]
    np.testing.assert_allclose(episode.streams["eef_pose"]["orientation"][0], QUARTER)
    camera = episode.streams["camera_hama1"]
    assert [number_of(i) for i in camera] == list(range(8))
    assert abs(camera.stamp_ns[0] - START_NS - 3_000_000) < 300
    audio = episode.streams["hand_audio"]
    assert audio.info.attrs["sample_rate_hz"] == 16000
    assert abs(audio.stamp_ns[0] - START_NS) < 300
    assert told(recording, "is taken as compensated_base_torque") is bool(options.get("misspelt"))


def test_reassemble_segments_and_poses(tmp_path: Path) -> None:
    path = layout.write_reassemble(tmp_path / "r.h5", misspelt=True)
    _, recording = convert(ReassembleConverter, path, tmp_path)
    layer = read_layer(recording.layers["reassemble"])
    tasks = sorted((p for p in layer.phases if p.tier == "task"), key=lambda p: p.start_ns)
    skills = sorted((p for p in layer.phases if p.tier == "skill"), key=lambda p: p.start_ns)
    assert [t.success for t in tasks] == [True, False]
    assert [s.parent_id for s in skills] == [t.id for t in tasks]
    assert tasks[0].label == "Pick gear."
    assert abs(tasks[0].end_ns - START_NS - 100_000_000) < 300
    (gear,) = layer.objects
    np.testing.assert_allclose(  # written x, y, z, w
        gear.attributes["pose_xyz_qwxyz"], [0.1, 0.2, 0.3, *QUARTER]
    )


def test_reassemble_as_released(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = layout.write_reassemble(tmp_path / "data/2025-01-09-13-59-54.h5", released=True)
    episode, recording = convert(ReassembleConverter, path, tmp_path)
    sound = episode.streams["hama1_audio"]
    assert sound.info.attrs["sample_rate_hz"] == 16000
    assert sound.info.stamp_source == "synthetic"
    assert abs(sound.stamp_ns[0] - START_NS - 3_000_000) < 300  # where hama1 begins
    assert told(recording, "hama1_audio has no stamps: placed from the first of hama1")
    assert len(episode.streams["camera_capture_node"]) == 8
    point = episode.rig.transform("world", "camera_hama1").apply([1.0, 0, 0])
    np.testing.assert_allclose(point, [1, 3, 3], atol=1e-12)
    assert "camera_capture_node" in episode.rig
    (gear,) = read_layer(recording.layers["reassemble"]).objects
    assert gear.name == "gear"


# -- AgiBot ------------------------------------------------------------------------------------


def test_agibot_by_hand(tmp_path: Path) -> None:
    path = layout.write_agibot(tmp_path / "a")
    assert list(AgiBotConverter.sources(path)) == ["327_648642"]
    episode, recording = convert(AgiBotConverter, path, tmp_path)
    stamps = [START_NS + i * 33_333_333 for i in range(12)]
    assert episode.streams["joint_states"].source_ns.tolist() == stamps
    np.testing.assert_allclose(episode.streams["eef_pose"]["orientation"][0, 1], QUARTER)
    # Nine actions, sent from the fourth row on.
    assert episode.streams["action_joint"].stamp_ns.tolist() == stamps[3:]
    assert episode.streams["action_effector"]["sent"].tolist() == [1] * 10 + [0] * 2
    assert [number_of(i) for i in episode.streams["camera_head"]] == list(range(12))
    depth = episode.streams["camera_head_depth"]
    assert [d[0, 0] - 900 for d in depth] == [i for i in range(12) if i != 4]
    assert depth.stamp_ns.tolist() == [s for i, s in enumerate(stamps) if i != 4]
    assert told(recording, "11 pictures for 12 rows")
    layer = read_layer(recording.layers["agibot"])
    phases = sorted(layer.phases, key=lambda p: p.start_ns)
    assert [(p.label, p.start_ns) for p in phases] == [
        ("Retrieve cucumber", stamps[0]), ("Place it", stamps[6]),
    ]  # fmt: skip
    assert phases[0].end_ns == stamps[6]
    assert phases[1].attributes == {"skill": "Place"}
    assert any(d.topic == "action_config" for d in recording.account.dropped_list())


def test_agibot_digital_world(tmp_path: Path) -> None:
    path = layout.write_agibot_digital(tmp_path / "a")
    assert list(AgiBotConverter.sources(path)) == ["digitaltwin_3_000aa0b4-8fbe"]
    episode, recording = convert(AgiBotConverter, path, tmp_path)
    joints = episode.streams["joint_states"]
    np.testing.assert_allclose(joints.source_ns / 1e9, 0.2 + np.arange(12) / 60, atol=1e-7)
    assert joints.info.fields["position"].channels == ("joint_lift_body", "Joint1_l", "Joint1_r")
    np.testing.assert_allclose(episode.streams["eef_pose"]["orientation"][0, 1], QUARTER, 1e-6)
    assert [number_of(i) for i in episode.streams["camera_head"]] == list(range(12))
    assert [d[0, 0] - 900 for d in episode.streams["camera_head_depth"]] == list(range(12))
    assert told(recording, "the video plays at 30.000 Hz, its rows were stamped at 60.000 Hz")
    assert episode.metadata["task"] == "place_objects_into_handbag"
    (grasp,) = read_layer(recording.layers["agibot"]).phases
    assert grasp.label == "Grasp"


@pytest.mark.parametrize("table", ["aligned_joints.h5", "proprio_stats.h5"])
def test_agibot_one_episode_in_a_folder(tmp_path: Path, table: str) -> None:
    path = layout.write_agibot_flat(tmp_path / "3335477" / "12052353", table=table)
    episode, recording = convert(AgiBotConverter, path, tmp_path)
    channels = episode.streams["joint_states"].info.fields["position"].channels
    assert (channels[0], channels[7]) == ("left_arm_joint1", "right_arm_joint1")
    assert episode.streams["gripper_left"]["position"].shape == (12, 1)
    assert "action_joint" not in episode.streams
    (dropped,) = recording.account.dropped_list()
    assert (dropped.count, dropped.reason) == (14, "more rows than stamps")
    head = episode.rig["camera_head"]
    point = episode.rig.transform("base", "camera_head").apply([1.0, 0, 0])
    np.testing.assert_allclose(point, [1, 3, 0], atol=1e-12)
    assert head.camera.K[1, 1] == 51
    hand = episode.streams["camera_hand_left_pose"]
    np.testing.assert_allclose(hand["position"][:, 2], np.arange(12) * 0.01)
    np.testing.assert_allclose(hand["orientation"][5], QUARTER, atol=1e-12)
    assert episode.rig["camera_hand_left"].parent_SE3_sensor is None
    (wipe,) = read_layer(recording.layers["agibot"]).phases
    assert wipe.label == "Wipe the table"


def test_agibot_intrinsics_of_another_picture_size_are_not_used(tmp_path: Path) -> None:
    path = layout.write_agibot_flat(tmp_path / "e")
    file = path / "head_intrinsic_params.json"
    file.write_text(file.read_text().replace('"ppx": 32', '"ppx": 640'))
    episode, recording = convert(AgiBotConverter, path, tmp_path)
    assert episode.rig["camera_head"].camera is None
    assert told(recording, "intrinsics of another picture size are not used")
