"""A small drive with everything the viewer shows; every camera frame carries its own number.

The number stands as eighteen black or white squares along the top: a white one, sixteen bits with
the lowest first, and an odd-parity bit, so a frame read from any screen says which one it is.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mmdata import SE3, EpisodeWriter, Kind, Ragged, Rig, StreamInfo
from mmdata.geometry import CameraModel, LensModel, Sensor, box_corners, quat_from_rotvec
from mmdata.streams import FieldInfo
from mmdata_schema import (
    Caption,
    Event,
    Layer,
    Phase,
    Provenance,
    Software,
    Track3D,
    write_layer,
)

START = 1_760_030_100_000_000_000
SECOND = 1_000_000_000
CELL = 16
BITS = 18
WIDTH, HEIGHT = 320, 240
FORWARD = np.array([0.5, -0.5, 0.5, -0.5])  # base_SE3_camera rotation: z forward, y down


def burn(image: np.ndarray[Any, Any], number: int) -> np.ndarray[Any, Any]:
    """Write a frame's number into its top rows."""
    bits = [1, *((number >> k) & 1 for k in range(16))]
    bits.append((sum(bits) + 1) % 2)
    for k, bit in enumerate(bits):
        image[:CELL, k * CELL : (k + 1) * CELL] = 255 if bit else 0
    return image


def read_number(strip: np.ndarray[Any, Any]) -> int:
    """The number in the top rows (CELL, BITS * CELL [, C]) of a picture; -1 when it is not one."""
    grey = strip if strip.ndim == 2 else strip[..., :3].mean(axis=2)
    bits = [int(grey[4:12, k * CELL + 4 : (k + 1) * CELL - 4].mean() > 127) for k in range(BITS)]
    if bits[0] != 1 or sum(bits) % 2 != 1:
        return -1
    return sum(bit << k for k, bit in enumerate(bits[1:17]))


def lens(model: LensModel, width: int = WIDTH, height: int = HEIGHT) -> CameraModel:
    K = np.array([[220.0, 0, 159.5], [0, 222.0, 121.0], [0, 0, 1]])
    distortion = {
        LensModel.PINHOLE: [],
        LensModel.BROWN_CONRADY: [-0.28, 0.09, 0.001, -0.0007, -0.01],
        LensModel.FISHEYE: [0.03, -0.01, 0.004, -0.001],
    }[model]
    if model is LensModel.FISHEYE:
        K[0, 0] = K[1, 1] = 140.0
    return CameraModel(model, K, np.array(distortion), width, height)


CAMERAS = {
    "camera_front": (LensModel.PINHOLE, 0.0),
    "camera_left": (LensModel.BROWN_CONRADY, 0.6),
    "camera_fisheye": (LensModel.FISHEYE, -0.6),
}


def rig() -> Rig:
    sensors = [Sensor("lidar", "lidar", "base", SE3.from_quaternion([1, 0, 0, 0], [0, 0, 1.8]))]
    for name, (model, yaw) in CAMERAS.items():
        turn = SE3.from_quaternion(quat_from_rotvec([0, 0, yaw]), [1.2, 0.3 * np.sign(yaw), 1.5])
        mount = turn @ SE3.from_quaternion(FORWARD, [0, 0, 0])
        sensors.append(Sensor(name, name, "base", mount, lens(model)))
    return Rig(sensors)


def ego(t_s: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Position and orientation of base in world: a gentle left bend at 5 m/s."""
    yaw = 0.06 * t_s
    position = np.stack([5 * t_s, 0.15 * t_s**2, 0 * t_s], axis=-1)
    return position, quat_from_rotvec(np.stack([0 * yaw, 0 * yaw, yaw], axis=-1))


#: id, label, centre at t = 0 in world, velocity, size, yaw.
OBJECTS = [
    ("car-1", "car", (14.0, 3.0, 0.8), (4.0, 0.0, 0.0), (4.5, 1.9, 1.6), 0.0),
    ("car-2", "car", (24.0, -4.0, 0.8), (0.0, 0.0, 0.0), (4.3, 1.8, 1.5), 0.35),
    ("pedestrian-1", "pedestrian", (11.0, -3.0, 0.9), (0.0, 1.1, 0.0), (0.7, 0.7, 1.75), 1.57),
]


def box_at(i: int, t_s: float) -> tuple[np.ndarray[Any, Any], Any, np.ndarray[Any, Any]]:
    _, _, centre, velocity, size, yaw = OBJECTS[i]
    return np.add(centre, np.multiply(velocity, t_s)), size, quat_from_rotvec([0, 0, yaw])


def sweep(t_s: float, rng: np.random.Generator, points: int) -> dict[str, np.ndarray[Any, Any]]:
    """Points of ground and objects in the lidar frame."""
    position, orientation = ego(np.array([t_s]))
    world_SE3_lidar = SE3.from_quaternion(orientation[0], position[0]) @ SE3.from_quaternion(
        [1, 0, 0, 0], [0, 0, 1.8]
    )
    radius = 3 + 45 * rng.random(points) ** 2
    angle = rng.uniform(-np.pi, np.pi, points)
    ground = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * radius], axis=-1)
    clouds = [ground + position[0]]
    for i in range(len(OBJECTS)):
        centre, size, q = box_at(i, t_s)
        n = 400
        local = rng.uniform(-0.5, 0.5, (n, 3))
        axis = rng.integers(0, 3, n)
        local[np.arange(n), axis] = np.sign(local[np.arange(n), axis]) * 0.499
        frame = SE3.from_quaternion(q, centre)
        clouds.append(frame.apply(local * np.asarray(size)))
    cloud = world_SE3_lidar.inverse().apply(np.concatenate(clouds)).astype("<f4")
    intensity = rng.integers(20, 200, len(cloud)).astype("<f4")
    return {"x": cloud[:, 0], "y": cloud[:, 1], "z": cloud[:, 2], "intensity": intensity}


def picture(name: str, t_s: float, number: int) -> np.ndarray[Any, Any]:
    """A plain street with the boxes filled where they are."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2] = np.linspace([200, 170, 130], [225, 210, 190], HEIGHT // 2)[:, None]
    image[HEIGHT // 2 :] = np.linspace([120, 122, 118], [80, 82, 80], HEIGHT // 2)[:, None]
    position, orientation = ego(np.array([t_s]))
    world_SE3_base = SE3.from_quaternion(orientation[0], position[0])
    sensor = rig()[name]
    assert sensor.parent_SE3_sensor is not None
    assert sensor.camera is not None
    camera_SE3_world = (world_SE3_base @ sensor.parent_SE3_sensor).inverse()
    colours = [(40, 90, 200), (60, 160, 60), (200, 120, 40)]
    for i in range(len(OBJECTS)):
        centre, size, q = box_at(i, t_s)
        corners = camera_SE3_world.apply(box_corners(centre, size, q))
        uv, valid = sensor.camera.project(corners)
        if valid.all():
            hull = cv2.convexHull(uv.astype(np.float32)).astype(np.int32)
            cv2.fillConvexPoly(image, hull, colours[i], cv2.LINE_AA)
    return burn(image, number)


def encode_h264(images: list[np.ndarray[Any, Any]], gop: int = 15) -> list[bytes]:
    """Annex B packets, one per image, without re-ordering."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = images[0].shape[1], images[0].shape[0]
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, 30)
    context.gop_size = gop
    context.options = {"bf": "0", "preset": "ultrafast", "crf": "18", "tune": "zerolatency"}
    packets = []
    for k, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame.pts = k
        packets += [bytes(p) for p in context.encode(frame)]
    packets += [bytes(p) for p in context.encode(None)]
    assert len(packets) == len(images)
    return packets


def stamps(rng: np.random.Generator, seconds: float, rate: float, jitter: float) -> Any:
    """Jittered stamps, so that nothing nominal gives the right frame by luck."""
    period = SECOND / rate
    n = int(seconds * rate)
    ideal = START + (np.arange(n) + rng.random()) * period
    return np.sort(ideal + rng.uniform(-jitter, jitter, n) * period).astype(np.int64)


def write_drive(path: Path, seconds: float = 8.0, points: int = 6000, seed: int = 5) -> Path:
    """Write the episode and its layers; returns the episode's path."""
    rng = np.random.default_rng(seed)
    with EpisodeWriter(path) as writer:
        writer.set_rig(rig())
        writer.set_metadata(task="drive", instruction="follow the bend and mind the pedestrian")
        for k, name in enumerate(CAMERAS):
            times = stamps(rng, seconds, 15 + 3 * k, 0.3)
            if name == "camera_left":  # a gap, in which no frame belongs to the cursor
                times = times[(times < START + 3 * SECOND) | (times > START + 4 * SECOND)]
            images = [picture(name, (t - START) / SECOND, i) for i, t in enumerate(times.tolist())]
            if name == "camera_fisheye":
                info = StreamInfo(
                    name, Kind.IMAGE, {}, frame_id=name, sensor=name, encoding="h264",
                    stamp_source="header", stamp_meaning="exposure_mid",
                )  # fmt: skip
                writer.add_stream(info)
                writer.append(name, times, encode_h264(images))
            else:
                info = StreamInfo(
                    name, Kind.IMAGE, {}, frame_id=name, sensor=name, encoding="jpeg",
                    stamp_source="header", stamp_meaning="exposure_mid",
                )  # fmt: skip
                writer.add_stream(info)
                quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
                frames = [cv2.imencode(".jpg", i, quality)[1].tobytes() for i in images]
                writer.append(name, times, frames)
        times = stamps(rng, seconds, 10, 0.05)
        sweeps = [sweep((t - START) / SECOND, rng, points) for t in times.tolist()]
        fields = {f: Ragged.from_rows([s[f] for s in sweeps]) for f in ("x", "y", "z", "intensity")}
        writer.add_stream(StreamInfo("lidar", Kind.SWEEP, {}, frame_id="lidar", sensor="lidar"))
        writer.append("lidar", times, fields)
        times = stamps(rng, seconds, 50, 0.1)
        position, orientation = ego((times - START) / SECOND)
        pose = {"position": position, "orientation": orientation}
        writer.add_stream(
            StreamInfo(
                "odometry", Kind.SIGNAL, {}, frame_id="world", attrs={"child_frame_id": "base"}
            )
        )
        writer.append("odometry", times, pose)
        times = stamps(rng, seconds, 1000, 0.1)
        t = (times - START) / SECOND
        force = np.stack([np.sin(7 * t), np.cos(5 * t), 9.81 + 0.2 * np.sin(40 * t)], axis=-1)
        force[int(4.2 * 1000)] += 6.0  # a spike no zoom may lose
        writer.add_stream(
            StreamInfo(
                "imu", Kind.SIGNAL,
                {"linear_acceleration": FieldInfo("<f8", (3,), False, "m/s^2", ("x", "y", "z"))},
                frame_id="base",
            )
        )  # fmt: skip
        writer.append("imu", times, {"linear_acceleration": force})
        times = stamps(rng, seconds, 30, 0.1)
        t = (times - START) / SECOND
        rows = np.arange(4)[:, None] + 0 * np.arange(4)
        taxels = np.stack([np.exp(-((rows - 3 * np.sin(t_)) ** 2)) for t_ in t])
        taxels = np.stack([taxels, 0.5 * taxels], axis=1).astype("<f4")
        writer.append("tactile", times, taxels, kind=Kind.TACTILE)
        rate, block = 16_000, 1600
        n = int(seconds * rate / block)
        times = START + (np.arange(n) * block * SECOND // rate).astype(np.int64)
        t = np.arange(n * block) / rate
        tone = 0.2 * np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * 0.5 * t) > 0)
        samples = (tone * 32767).astype("<i2").reshape(n, block)
        writer.add_stream(StreamInfo("audio", Kind.AUDIO, {}, attrs={"sample_rate_hz": rate}))
        writer.append("audio", times, list(samples))
    write_layers(path)
    return path


def truth_tracks(stamps_ns: Any) -> list[Track3D]:
    """The objects as tracks with a keyframe per second."""
    out = []
    keys = [int(s) for s in stamps_ns[::10]]
    for i, (object_id, label, *_) in enumerate(OBJECTS):
        boxes = [box_at(i, (s - START) / SECOND) for s in keys]
        out.append(
            Track3D(
                id=f"t-{object_id}",
                object_id=object_id,
                label=label,
                frame_id="world",
                stream="lidar",
                stamp_ns=keys,
                center_m=[tuple(b[0].tolist()) for b in boxes],
                size_lwh_m=[b[1] for b in boxes],
                quaternion_wxyz=[tuple(b[2].tolist()) for b in boxes],
            )
        )
    return out


def write_layers(path: Path) -> None:
    """A layer `anna` by a person and a proposal `auto`."""
    from mmdata import open_episode
    from mmdata.annotations import layer_path, write_layer_file

    with open_episode(path) as episode:
        lidar = np.array(episode.streams["lidar"].stamp_ns)
        name = episode.episode_id
    at = [START + int(s * SECOND) for s in (0.2, 2.0, 4.5, 7.5)]
    phases = [
        Phase(id=f"p{k}", tier="manoeuvre", label=label, start_ns=at[k], end_ns=at[k + 1])
        for k, label in enumerate(["pull_away", "keep_lane", "brake_to_stop"])
    ]
    anna = Layer(
        episode_id=name,
        name="anna",
        provenance=Provenance(author="anna", created_unix_ns=START),
        tracks_3d=truth_tracks(lidar),
        phases=phases,
        events=[Event(id="e1", label="contact", stamp_ns=START + 3 * SECOND)],
        captions=[Caption(id="c1", text="follow the bend", style="instruction")],
    )
    auto = Layer(
        episode_id=name,
        name="auto",
        provenance=Provenance(tool=Software(name="segmenter", version="0.1")),
        phases=[p.edit(id=f"auto-{p.id}", confidence=0.8) for p in phases],
    )
    for layer in (anna, auto):
        assert write_layer(layer)
        write_layer_file(layer_path(path, layer.name), layer, 0)


if __name__ == "__main__":
    import sys

    write_drive(Path(sys.argv[1]))
