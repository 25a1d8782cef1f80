"""DROID, UMI, REASSEMBLE and AgiBot episodes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest

from .media import mp3, picture, png, write_video

START_MS = 1_700_000_000_000
START_S = 1_700_000_000


# -- DROID -------------------------------------------------------------------------------------


def write_droid(
    root: Path, n: int = 10, *, frames: int | None = None, skip: Sequence[int] = ()
) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = np.arange(n)
    with h5py.File(root / "trajectory.h5", "w") as file:
        file.attrs.update(user="anna", building="lab", success=True, scene_id=42,
                          current_task="close the drawer", robot_serial_number="panda-7",
                          version_number="1.1")  # fmt: skip
        state = file.create_group("observation/robot_state")
        # A quarter turn about z, 0.5 m ahead.
        cartesian = np.tile([0.5, 0.0, 0.3, 0.0, 0.0, np.pi / 2], (n, 1))
        state["cartesian_position"] = cartesian
        state["gripper_position"] = rows / n
        state["joint_positions"] = rows[:, None] + np.arange(7) / 10
        state["joint_velocities"] = np.zeros((n, 7))
        state["joint_torques_computed"] = np.ones((n, 7))
        state["motor_torques_measured"] = np.ones((n, 7)) * 2
        state["prev_command_successful"] = np.ones(n, bool)
        times = file.create_group("observation/timestamp")
        times["robot_state/robot_timestamp_seconds"] = np.full(n, START_S)
        times["robot_state/robot_timestamp_nanos"] = rows * 66_666_667
        times["robot_state/read_start"] = START_MS + rows * 67 + 4
        times["robot_state/read_end"] = START_MS + rows * 67 + 5
        times["skip_action"] = np.isin(rows, skip)
        times["control/step_start"] = START_MS + rows * 67
        for serial in ("111", "222"):
            times[f"cameras/{serial}_estimated_capture"] = START_MS + rows * 67 - 20
            times[f"cameras/{serial}_frame_received"] = START_MS + rows * 67 - 1
            times[f"cameras/{serial}_read_end"] = START_MS + rows * 67
            file[f"observation/camera_intrinsics/{serial}_left"] = np.tile(
                np.float64([[50, 0, 32], [0, 50, 24], [0, 0, 1]]), (n, 1, 1)
            )
        file["observation/camera_type/111"] = np.zeros(n, int)  # wrist
        file["observation/camera_type/222"] = np.ones(n, int)
        file["observation/camera_extrinsics/111_left"] = cartesian + rows[:, None] * 0.01
        file["observation/camera_extrinsics/222_left"] = cartesian
        file["observation/controller_info/movement_enabled"] = np.ones(n, bool)
        action = file.create_group("action")
        action["cartesian_position"] = np.zeros((n, 6))
        action["joint_position"] = rows[:, None] + np.arange(7) / 10 + 0.5
        action["gripper_position"] = np.zeros(n)
        action["robot_state/joint_positions"] = np.zeros((n, 7))
    (root / "metadata_x.json").write_text(json.dumps({"uuid": "x", "current_task": "other"}))
    for serial in ("111", "222"):
        count = n if frames is None else frames
        write_video(root / f"recordings/MP4/{serial}.mp4", [picture(i) for i in range(count)], 15)
    return root


# -- UMI ---------------------------------------------------------------------------------------


def write_umi(
    path: Path,
    lengths: Sequence[int] = (5, 7),
    *,
    codec: str = "blosc",
    version: int = 2,
    sharded: bool = False,
    inside: str = "",
) -> Path:
    """A zarr replay buffer, as folder or .zarr.zip. inside: folder that the zip file holds.
    Version 3 is written by zarr itself, as a folder."""
    values: dict[str, bytes] = {".zgroup": b'{"zarr_format": 2}'}
    n = sum(lengths)

    def put(key: str, array: np.ndarray, chunks: tuple[int, ...]) -> None:
        compressor = {"blosc": numcodecs.Blosc("zstd"), "zlib": numcodecs.Zlib(1),
                      "jpegxl": None}[codec]  # fmt: skip
        facts = {
            "zarr_format": 2, "shape": array.shape, "chunks": chunks, "dtype": array.dtype.str,
            "compressor": compressor.get_config() if compressor else None, "fill_value": 0,
            "order": "C", "filters": None,
        }  # fmt: skip
        pictures = codec == "jpegxl" and array.ndim == 4
        if pictures:
            facts["compressor"] = {"id": "imagecodecs_jpegxl", "lossless": True}
        values[f"{key}/.zarray"] = json.dumps(facts).encode()
        counts = [-(-s // c) for s, c in zip(array.shape, chunks, strict=True)]
        for place in np.ndindex(*counts):
            chunk = np.zeros(chunks, array.dtype)
            where = tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunks, strict=True))
            part = array[where]
            chunk[tuple(slice(0, s) for s in part.shape)] = part
            data = chunk.tobytes()
            coded = compressor.encode(data) if compressor else data
            if pictures:
                imagecodecs = pytest.importorskip("imagecodecs")
                coded = imagecodecs.jpegxl_encode(chunk[0], lossless=True)
            values[f"{key}/{'.'.join(map(str, place))}"] = bytes(coded)

    if version == 3:
        root = pytest.importorskip("zarr").open_group(path, mode="w", zarr_format=3)

        def put(key: str, array: np.ndarray, chunks: tuple[int, ...]) -> None:
            more = {"shards": (chunks[0] * 2, *chunks[1:])} if sharded and array.ndim == 4 else {}
            one = root.create_array(
                key, shape=array.shape, chunks=chunks, dtype=array.dtype, **more
            )
            one[:] = array

    put("meta/episode_ends", np.cumsum(lengths).astype(np.int64), (len(lengths),))
    rows = np.arange(n, dtype=np.float32)
    put("data/robot0_eef_pos", np.stack([rows, rows, rows], 1), (4, 3))
    turned = np.tile(np.float32([0, 0, np.pi / 2]), (n, 1))
    put("data/robot0_eef_rot_axis_angle", turned, (4, 2))
    put("data/robot0_gripper_width", rows[:, None] / 100, (n, 1))
    put("data/robot0_demo_start_pose", np.zeros((n, 6)), (n, 6))
    put("data/camera0_rgb", np.stack([picture(i, 32, 40) for i in range(n)]), (1, 32, 40, 3))
    if version == 3:
        return path
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in values.items():
                archive.writestr(inside + key, value)
    else:
        for key, value in values.items():
            (path / key).parent.mkdir(parents=True, exist_ok=True)
            (path / key).write_bytes(value)
    return path


# -- REASSEMBLE --------------------------------------------------------------------------------


def write_reassemble(
    path: Path,
    n: int = 20,
    *,
    parts: bool = False,
    misspelt: bool = False,
    unit: float = 1.0,
    released: bool = False,
) -> Path:
    """parts: as recorded, one dataset per number. unit: what a second is written as. released: as
    files for download are: sound as int64 and without stamps, poses in a folder of their own."""

    def at(values: np.ndarray) -> np.ndarray:
        return (START_S + values) * unit

    state = {
        "compensated_base_force": np.arange(n * 3.0).reshape(n, 3),
        "compensated_base_torque": np.ones((n, 3)), "measured_force": np.zeros((n, 3)),
        "measured_torque": np.zeros((n, 3)), "gripper_positions": np.full((n, 2), 0.02),
        "joint_positions": np.arange(n * 7.0).reshape(n, 7), "joint_velocities": np.zeros((n, 7)),
        "joint_efforts": np.ones((n, 7)), "velocity": np.zeros((n, 6)),
        "pose": np.tile([0.4, 0.1, 0.2, np.sqrt(0.5), 0, 0, np.sqrt(0.5)], (n, 1)),
    }  # fmt: skip
    named = {
        "pose": [f"pose_{k}" for k in ("x", "y", "z", "qw", "qx", "qy", "qz")],
        "velocity": [f"vel_{k}" for k in ("x", "y", "z", "qx", "qy", "qz")],
        "joint_positions": [f"pos_joint{i}" for i in range(1, 8)],
        "joint_velocities": [f"vel_joint{i}" for i in range(1, 8)],
        "joint_efforts": [f"eff_joint{i}" for i in range(1, 8)],
        "gripper_positions": ["pos_joint8", "pos_joint9"],
    }
    times = at(np.arange(n) / 100)
    video = io.BytesIO()
    write_video(video, [picture(i) for i in range(8)], 30, container="mp4")
    with h5py.File(path, "w") as file:
        for name, values in state.items():
            pieces = named.get(name, [f"{name}_{a}" for a in "xyz"])
            if parts:
                for i, piece in enumerate(pieces):
                    file[f"robot_state/{piece}"] = values[:, i]
                    file[f"timestamps/{piece}"] = times[:, None]
                continue
            written = name.replace("compensated", "compenseted") if misspelt else name
            file[f"robot_state/{written}"] = values
            file[f"timestamps/{written}"] = times
        file["hama1"] = np.void(video.getvalue())
        file["timestamps/hama1"] = at(np.arange(8) / 30 + 0.003)
        sound = mp3(np.sin(np.arange(16000) / 5), 16000)
        if released:
            file["hama1_audio"] = np.frombuffer(sound, np.uint8).astype(np.int64)
            file["capture_node-camera-image"] = np.void(video.getvalue())
            file["timestamps/capture_node-camera-image"] = at(np.arange(8) / 30)
        else:
            file["hand_audio"] = np.void(sound)
            file["timestamps/hand_audio"] = at(np.arange(16) / 16)
        file["events"] = np.arange(30).reshape(10, 3) % 2
        file["timestamps/events"] = at(np.arange(10) / 1000)
        low = "Low_level" if misspelt else "low_level"
        for i, (start, end, good) in enumerate(((0.0, 0.1, True), (0.1, 0.2, False))):
            segment = file.create_group(f"segments_info/{i}")
            segment["start"], segment["end"] = at(np.array(start)), at(np.array(end))
            segment["success"], segment["text"] = good, b"Pick gear."
            segment["index"] = i
            part = segment.create_group(f"{low}/0")
            part["start"], part["end"] = at(np.array(start)), at(np.array(start + 0.05))
            part["success"], part["text"] = True, b"Approach"
    poses = {"gear": [[0.1, 0.2, 0.3], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]]}
    if released:
        poses["Hama1"] = [[1, 2, 3], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]]
        poses["DAVIS346"] = [[0, 0, 1], [0, 0, 0, 1]]
        (path.parent.parent / "poses").mkdir()
        beside = path.parent.parent / "poses" / f"{path.stem}_poses.json"
    else:
        beside = path.with_name(f"{path.stem}_poses.json")
    beside.write_text(json.dumps(poses))
    return path


# -- AgiBot ------------------------------------------------------------------------------------


def write_agibot(root: Path, n: int = 12, *, sent: int = 9) -> Path:
    folder = root / "proprio_stats/327/648642"
    folder.mkdir(parents=True)
    with h5py.File(folder / "proprio_stats.h5", "w") as file:
        file["timestamp"] = START_S * 10**9 + np.arange(n) * 33_333_333
        file["state/joint/position"] = np.arange(n * 14.0).reshape(n, 14)
        file["state/joint/current_value"] = np.zeros((n, 14))
        file["state/end/position"] = np.zeros((n, 2, 3))
        file["state/end/orientation"] = np.tile([0, 0, np.sqrt(0.5), np.sqrt(0.5)], (n, 2, 1))
        file["state/effector/position"] = np.full((n, 2), 35.0)
        file["state/head/position"] = np.zeros((n, 2))
        file["state/robot/velocity"] = np.zeros((0,))
        file["action/joint/position"] = np.arange(sent * 14.0).reshape(sent, 14)
        file["action/joint/index"] = np.arange(sent) + (n - sent)
        file["action/effector/position"] = np.zeros((n, 2))
        file["action/effector/index"] = np.arange(n - 2)
    videos = root / "observations/327/648642/videos"
    write_video(videos / "head_color.mp4", [picture(i) for i in range(n)], 30)
    write_video(root / "observations/327/648642/tactile/left.mp4", [picture(i) for i in range(n)])
    depth = root / "observations/327/648642/depth"
    depth.mkdir()
    for i in range(n):
        if i != 4:
            image = png(np.full((24, 32), 900 + i, np.uint16))
            (depth / f"head_depth_{i:06d}.png").write_bytes(image)
    (root / "task_info").mkdir()
    (root / "task_info/task_327.json").write_text(json.dumps([{
        "episode_id": 648642, "task_id": 327, "task_name": "Pickup items in the supermarket",
        "init_scene_text": "A shelf", "label_info": {"action_config": [
            {"start_frame": 0, "end_frame": 6, "action_text": "Retrieve cucumber",
             "skill": "Pick"},
            {"start_frame": 6, "end_frame": 12, "action_text": "Place it", "skill": "Place"},
            {"start_frame": 9, "end_frame": 9, "action_text": "nothing", "skill": "Pick"},
        ]},
    }]))  # fmt: skip
    return root


def write_agibot_digital(root: Path, n: int = 12) -> Path:
    """Digital World: other names, seconds as float32, quaternions scalar first, depth by row."""
    folder = root / "meta_info/digitaltwin_3/000aa0b4-8fbe"
    folder.mkdir(parents=True)
    with h5py.File(folder / "proprio_states.h5", "w") as file:
        # The table runs at 60 Hz where the videos play at 30, as released.
        file["timestamp"] = (0.2 + np.arange(n) / 60).astype(np.float32)
        for top in ("state", "action"):
            file[f"{top}/joint/position"] = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
            file[f"{top}/joint"].attrs["name"] = ["joint_lift_body", "Joint1_l", "Joint1_r"]
            file[f"{top}/end/orientation"] = np.tile(
                np.float32([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]), (n, 2, 1)
            )
            file[f"{top}/end/wrench"] = np.zeros((0,), np.float32)
            file[f"{top}/effector/index"] = np.arange(n, dtype=np.float32)
            file[f"{top}/effector/position"] = np.full((n, 2), 120, np.float32)
        file["action/robot/velocity"] = np.zeros(n, np.float32)
    (folder / "task_info.json").write_text(json.dumps({
        "episode_id": "000aa0b4-8fbe", "task_name": "place_objects_into_handbag",
        "label_info": {"action_config": [
            {"start_frame": 0, "end_frame": 6, "skill": "Grasp", "action_text": ""}]},
    }))  # fmt: skip
    seen = root / "observations/digitaltwin_3/000aa0b4-8fbe"
    write_video(seen / "video/head.mp4", [picture(i) for i in range(n)], 30)
    for i in range(n):
        (seen / f"depth/{i}").mkdir(parents=True)
        depth = png(np.full((24, 32), 900 + i, np.uint16))
        (seen / f"depth/{i}/head.png").write_bytes(depth)
    return root


def write_agibot_flat(root: Path, n: int = 12, table: str = "aligned_joints.h5") -> Path:
    """Everything of one episode beside each other, with the cameras' parameters."""
    root.mkdir(parents=True)
    with h5py.File(root / table, "w") as file:
        file["timestamp"] = START_S * 10**9 + np.arange(n) * 33_333_333
        file["state/joint/position"] = np.arange(n * 14.0).reshape(n, 14)
        for side in ("left", "right"):
            file[f"state/{side}_effector/position"] = np.full((n, 1), 35.0)
        file["state/head/position"] = np.zeros((n, 2))
        file["action/joint/position"] = np.zeros((n + 2, 14))  # more than there are rows
    for camera, moves in (("head", 0.0), ("hand_left", 0.01)):
        write_video(root / f"{camera}_color.mp4", [picture(i) for i in range(n)], 30)
        lens = {"fx": 50, "fy": 51, "ppx": 32, "ppy": 24, "k1": 0.1}
        (root / f"{camera}_intrinsic_params.json").write_text(json.dumps({"intrinsic": lens}))
        # A quarter turn about z; the hand's camera rises.
        turn = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        poses = [{"extrinsic": {"rotation_matrix": turn, "translation_vector": [1, 2, i * moves]}}
                 for i in range(n)]  # fmt: skip
        (root / f"{camera}_extrinsic_params_aligned.json").write_text(json.dumps(poses))
    (root / "data_info.json").write_text(json.dumps({
        "task_name": "wipe", "label_info": {"action_config": [
            {"start_frame": 0, "end_frame": 6, "action_text": "\u64e6", "skill": "",
             "english_action_text": "Wipe the table"}]},
    }))  # fmt: skip
    return root
