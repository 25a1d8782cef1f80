"""Robot demonstrations in HDF5: robomimic, Isaac Lab, ALOHA, RoboMIND."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from .media import jpeg, picture, png

ROBOSUITE = {"env_name": "Lift", "env_type": 1, "env_kwargs": {"control_freq": 20}}
ISAAC = {
    "env_name": "Isaac-Stack-Cube-Franka-v0",
    "type": 2,
    "sim_args": {"dt": 0.01, "decimation": 5},
}


def demos() -> dict[str, int]:
    """demo_10 after demo_2, as written out of order by merges."""
    return {"demo_0": 8, "demo_10": 5, "demo_2": 6}


def write_robomimic(path: Path, env: dict | None = None, num_samples_off_by: int = 0) -> Path:
    env = ROBOSUITE if env is None else env
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(demos().values())
        if env:
            data.attrs["env_args"] = json.dumps(env)
        for name, n in demos().items():
            demo = data.create_group(name)
            demo.attrs["num_samples"] = n + num_samples_off_by
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"] = np.linspace(-1, 1, n * 7).reshape(n, 7)
            demo["states"] = np.arange(n * 4.0).reshape(n, 4)
            demo["rewards"] = np.zeros(n)
            demo["dones"] = np.arange(n) == n - 1
            for obs in ("obs", "next_obs"):
                demo[f"{obs}/robot0_joint_pos"] = np.arange(n * 7.0).reshape(n, 7)
                demo[f"{obs}/robot0_joint_vel"] = np.ones((n, 7))
                demo[f"{obs}/robot0_eef_pos"] = np.ones((n, 3))
                # x, y, z, w: a quarter turn about z
                demo[f"{obs}/robot0_eef_quat"] = np.tile([0, 0, np.sqrt(0.5), np.sqrt(0.5)], (n, 1))
                demo[f"{obs}/robot0_gripper_qpos"] = np.full((n, 2), 0.04)
                demo[f"{obs}/object"] = np.zeros((n, 10))
                demo[f"{obs}/agentview_image"] = np.stack([picture(i) for i in range(n)])
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
    return path


def write_libero(path: Path, n: int = 6) -> Path:
    """LIBERO: other names, rotation vectors, upside-down pictures, language in problem_info."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(
            {"type": 1, "env_name": "Libero_Kitchen", "env_kwargs": {"control_freq": 20},
             "bddl_file": "x.bddl", "problem_name": "libero_kitchen_tabletop_manipulation"}
        )  # fmt: skip
        data.attrs["problem_info"] = json.dumps(
            {"language_instruction": ["open the top drawer"], "domain_name": "robosuite"}
        )
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["num_demos"] = 1
        demo = data.create_group("demo_0")
        demo.attrs["num_samples"] = n
        demo["actions"] = np.zeros((n, 7))
        demo["robot_states"] = np.zeros((n, 9))
        demo["states"] = np.zeros((n, 20))
        demo["obs/ee_pos"] = np.ones((n, 3))
        demo["obs/ee_ori"] = np.tile([0, 0, np.pi / 2], (n, 1))
        demo["obs/ee_states"] = np.zeros((n, 6))
        demo["obs/joint_states"] = np.arange(n * 7.0).reshape(n, 7)
        demo["obs/gripper_states"] = np.zeros((n, 2))
        demo["obs/agentview_rgb"] = np.stack([picture(i)[::-1] for i in range(n)])
    return path


def write_robosuite(path: Path) -> Path:
    """As robosuite's collection script writes: states and actions, demos from 1."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env"] = "Lift"
        data.attrs["env_info"] = json.dumps({"control_freq": 25, "robots": "Panda"})
        data.attrs["repository_version"] = "1.4.1"
        for i in (1, 2):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["model_file"] = "<mujoco/>"
            demo["states"] = np.zeros((5, 32))
            demo["actions"] = np.zeros((5, 7))
    return path


def write_isaac(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(demos().values())
        data.attrs["env_args"] = json.dumps(ISAAC)
        for name, n in demos().items():
            demo = data.create_group(name)
            demo.attrs["num_samples"] = n
            demo.attrs["success"] = name != "demo_2"
            demo.attrs["seed"] = 7

            def put(key: str, values: np.ndarray, demo: h5py.Group = demo) -> None:
                demo.create_dataset(key, data=values, compression="gzip", chunks=True)

            put("actions", np.zeros((n, 7), np.float32))
            put("obs/joint_pos", np.arange(n * 9, dtype=np.float32).reshape(n, 9))
            put("obs/eef_pos", np.zeros((n, 3), np.float32))
            put("obs/eef_quat", np.tile(np.float32([0.5, 0.5, 0.5, -0.5]), (n, 1)))  # w, x, y, z
            put("obs/table_cam", np.stack([picture(i) for i in range(n)]))
            put("obs/table_cam_depth", np.full((n, 24, 32, 1), 1.25, np.float32))
            pose = np.tile(np.float32([1, 2, 3, 1, 0, 0, 0]), (n, 1))
            put("states/rigid_object/cube_1/root_pose", pose)
            put("states/articulation/robot/joint_position", np.zeros((n, 9), np.float32))
            put("initial_state/rigid_object/cube_1/root_pose", pose[:1])
    return path


def write_aloha(path: Path, compress: bool = False, n: int = 7, effort: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["observations/qpos"] = np.arange(n * 14, dtype=np.float32).reshape(n, 14)
        file["observations/qvel"] = np.zeros((n, 14), np.float32)
        if effort:
            file["observations/effort"] = np.ones((n, 14), np.float32)
        file["action"] = np.arange(n * 14, dtype=np.float32).reshape(n, 14) + 0.5
        file["base_action"] = np.zeros((n, 2), np.float32)
        lengths = []
        for camera in ("cam_high", "cam_left_wrist"):
            key = f"observations/images/{camera}"
            if not compress:
                frames = np.stack([picture(i) for i in range(n)])
                file.create_dataset(key, data=frames, chunks=(1, *frames.shape[1:]))
                continue
            encoded = [jpeg(picture(i)) for i in range(n)]
            lengths.append([len(e) for e in encoded])
            longest = max(map(len, encoded)) + 40
            padded = np.stack([np.frombuffer(e.ljust(longest, b"\0"), np.uint8) for e in encoded])
            file.create_dataset(key, data=padded, chunks=(1, longest))
        if compress:
            file.attrs["compress"] = True
            file["compress_len"] = np.array(lengths)
    return path


def write_aloha_mobile(path: Path, n: int = 5) -> Path:
    """Mobile ALOHA and its kin: pictures as byte strings, depth, a base, an instruction."""
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = False, True
        for key in ("qpos", "qvel", "effort"):
            file[f"observations/{key}"] = np.zeros((n, 14))
        file["action"] = np.zeros((n, 14))
        file["base_action"] = np.zeros((n, 2))
        coded = [jpeg(picture(i)) for i in range(n)]
        file["observations/images/cam_high"] = np.array(coded, f"S{max(map(len, coded))}")
        depth = np.full((n, 24, 32), 800, np.uint16) + np.arange(n, dtype=np.uint16)[:, None, None]
        file["observations/images_depth/cam_high"] = depth
        file["instruction"] = "fold the towel"
    return path


def write_robomind(
    path: Path, n: int = 6, broken: int | None = None, short_action: bool = False
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = h5py.vlen_dtype(np.uint8)
    with h5py.File(path, "w") as file:
        for side in ("left", "right"):
            file[f"puppet/joint_position_{side}"] = np.arange(n * 7.0).reshape(n, 7)
            file[f"puppet/end_effector_{side}"] = np.zeros((n, 6))
            actions = n - 1 if short_action else n
            file[f"master/joint_position_{side}"] = np.zeros((actions, 7))
        colour = file.create_dataset("observations/rgb_images/camera_top", (n,), kind)
        depth = file.create_dataset("observations/depth_images/camera_top", (n,), kind)
        for i in range(n):
            data = b"\xff\xd8 broken" if i == broken else jpeg(picture(i))
            if i == broken:
                data = b"raw bytes of no picture"
            colour[i] = np.frombuffer(data, np.uint8)
            depth[i] = np.frombuffer(png(np.full((24, 32), 500 + i, np.uint16)), np.uint8)
        file["language_raw"] = np.array([b"put the cup on the plate"])
    return path


def write_robomind2(
    path: Path, n: int = 30, clock: str = "seconds", simulated: bool = False
) -> Path:
    """Release 2. clock: `seconds` are whole ones at 10 Hz, as real robots write them, `float` are
    seconds with a fraction, `ms` whole milliseconds from 0, as simulations write, `dead` is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.arange(n)
    stamps = {
        "seconds": 1_744_780_088 + rows // 10, "float": 1_744_780_088.5 + rows / 10,
        "ms": np.rint(rows * 100 / 3).astype(np.int64), "dead": np.zeros(n, np.int64),
    }[clock]  # fmt: skip
    kind = h5py.vlen_dtype(np.uint8)
    with h5py.File(path, "w") as file:

        def put(name: str, data: np.ndarray, at: np.ndarray = stamps) -> None:
            file[f"{name}/data"] = data
            file[f"{name}/timestamp"] = at
            file[f"{name}/is_intervene"] = np.arange(len(data)) == 3

        for top, shift in (("puppet", 0.0), ("master", 1000.0)):
            for side in ("left", "right"):
                put(f"{top}/arm_{side}_position_align", np.arange(n * 7.0).reshape(n, 7) + shift)
                put(f"{top}/end_effector_{side}_position_align",
                    rows.astype(np.float32) if simulated else rows[:, None] / n)  # fmt: skip
                pose = np.tile([0.5, 0, 0.6, 1, 0, 0, 0], (n, 1))
                put(f"{top}/end_effector_{side}_pose_align", pose)
            if simulated:
                put(f"{top}/arm_left_position_raw", np.zeros((2 * n, 7)), np.repeat(stamps, 2) // 2)
        put("force_observations/force_left_end_effector_align", np.ones((n, 6)))
        file["puppet/head_position_align/data"] = np.zeros((0,))
        file["camera_observations/timestamp"] = stamps
        file["camera_observations/is_intervene"] = rows == 3
        for name in ("camera_front", "camera_wrist_left"):
            colour = file.create_dataset(f"camera_observations/color_images/{name}", (n,), kind)
            depth = file.create_dataset(f"camera_observations/depth_images/{name}", (n,), kind)
            for i in rows:
                colour[i] = np.frombuffer(jpeg(picture(i)), np.uint8)
                depth[i] = np.frombuffer(png(np.full((24, 32), 500 + i, np.uint16)), np.uint8)
            file[f"camera_color_channel/{name}"] = b"rgb"
            file[f"camera_color_resolution/{name}"] = [48, 64]
            file[f"camera_model/{name}"] = b"RealSense_D435if"
        file["camera_intrinsics/camera_front/matrix"] = [[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]
        file["camera_intrinsics/camera_front/dist_coeffs"] = [0.1, 0, 0, 0, 0]
        file["camera_extrinsics/camera_left_arm_left"] = np.eye(4)
        facts = {"language_instruction": "pick up the bottle", "trajectory_length": n,
                 "collector": "open_1", "data_type": "sim" if simulated else "real"}  # fmt: skip
        meta = file.create_group("metadata")
        for key, value in facts.items():
            if simulated:
                meta[key] = value
            else:
                meta.attrs[key] = value
    return path


def write_robomind_simulation(path: Path) -> Path:
    """Release 1, simulated: state, colour and depth of different lengths."""
    with h5py.File(path, "w") as file:
        file["franka/joint_position"] = np.arange(40 * 8.0).reshape(40, 8)
        file["franka/end_effector"] = np.zeros((40, 7))
        file["sim_time_seq"] = np.arange(38) / 60
        kind = h5py.vlen_dtype(np.uint8)
        for key, n in (("rgb_images", 10), ("depth_images", 11)):
            data = file.create_dataset(f"observations/{key}/camera_handeye", (n,), kind)
            for i in range(n):
                depth = np.full((24, 32), 500 + i, np.uint16)
                one = jpeg(picture(i)) if key == "rgb_images" else png(depth)
                data[i] = np.frombuffer(one, np.uint8)
    return path
