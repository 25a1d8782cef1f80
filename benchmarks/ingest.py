"""How fast logs come in: mmdata against reading them, copying them, and LeRobot's own ingest.

    python benchmarks/ingest.py [LOG ...] [--repeat 5] [--seconds 300]
    python benchmarks/ingest.py --memory 60 300 1200

Per log, the medians of (a) reading it with `rosbags`, (b) reading and deserialising it with
`rosbags`, (c) `mmdata convert`, (d) LeRobot's `add_frame`/`save_episode` fed with the same camera
frames, decoded beforehand, and (e) copying the files. Every measurement runs in a process of its
own, (a) to (e) in turn, so that all meet the same load; imports are outside of the clock on every
side. CPU seconds are those of all threads. Without LOG: a log written here (--seconds long, with a
1 kHz wrench, 500 Hz joints, two 30 Hz JPEG cameras and a 10 Hz LiDAR of 65536 points), a simulated
pick-and-place, and the sample logs in ../shared/data where they are.

--memory: only the peak memory of converting generated logs of these lengths (seconds).

LeRobot needs an environment of its own; --lerobot names its folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
LIDAR_POINTS = 65_536
#: Frames LeRobot is fed with per repetition; it is slow, and its rate does not depend on length.
LEROBOT_FRAMES = 150

_TIMED = """
import json, os, sys, time
from pathlib import Path
def report(began, cpu, count, size=0):
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    # Not ru_maxrss, which begins with the size of the process that started this one.
    status = dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"seconds": seconds, "cpu": cpu, "count": count, "bytes_out": size,
                      "peak_mb": int(status["VmHWM"].split()[0]) / 1024}))
"""
_ROSBAGS = (
    _TIMED
    + """
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
deserialise = sys.argv[3] == "deserialise"
began, cpu, count = time.perf_counter(), time.process_time(), 0
with AnyReader([Path(sys.argv[1])], default_typestore=get_typestore(Stores.LATEST)) as reader:
    known = {c.msgtype for c in reader.connections if c.msgtype in reader.typestore.types}
    for connection, _, raw in reader.messages():
        if deserialise and connection.msgtype in known:
            reader.deserialize(raw, connection.msgtype)
        count += 1
report(began, cpu, count)
"""
)
_CONVERT = (
    _TIMED
    + """
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources
from mmdata.store import EpisodeWriter
from mmdata.store.handle import load_filters
load_filters()
import mmdata_converters.rosbag2.folder, mmdata_converters.rosbag1, mmdata_converters._ros.recording
source = find_sources([sys.argv[1]]).sources[0]
began, cpu = time.perf_counter(), time.process_time()
result = convert_source(source, Path(sys.argv[2]))
report(began, cpu, sum(t["messages"] for t in result.topics.values()),
       sum(e.bytes_out for e in result.episodes))
"""
)
_COPY = (
    _TIMED
    + """
import shutil
log, out = Path(sys.argv[1]), Path(sys.argv[2])
files = [log] if log.is_file() else [p for p in log.iterdir() if p.is_file()]
began, cpu = time.perf_counter(), time.process_time()
for file in files:
    with file.open("rb") as a, (out / file.name).open("wb") as b:
        shutil.copyfileobj(a, b, 1 << 20)
        b.flush()
        os.fsync(b.fileno())  # as a conversion does
report(began, cpu, 0, sum((out / f.name).stat().st_size for f in files))
"""
)
_LEROBOT = (
    _TIMED
    + """
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
frames = np.load(sys.argv[1])
height, width = frames.shape[2:4]
names = [f"observation.images.camera_{k}" for k in range(frames.shape[1])]
dataset = LeRobotDataset.create(
    "bench/ingest", fps=30, root=Path(sys.argv[2]) / "dataset", use_videos=True,
    features={n: {"dtype": "video", "shape": (height, width, 3),
                  "names": ["height", "width", "channels"]} for n in names})
began, cpu = time.perf_counter(), time.process_time()
for row in frames:
    dataset.add_frame({**{n: image for n, image in zip(names, row)}, "task": "ingest"})
dataset.save_episode()
if hasattr(dataset, "finalize"):
    dataset.finalize()
report(began, cpu, frames.shape[0] * frames.shape[1],
       sum(p.stat().st_size for p in (Path(sys.argv[2]) / "dataset").rglob("*") if p.is_file()))
"""
)


# -- the generated log ------------------------------------------------------------------------


def write_long_log(path: Path, seconds: float, seed: int = 0) -> Path:
    """A rosbag2 (MCAP) as a lab robot records it; the size grows by about 16 MB per second."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    rng = np.random.default_rng(seed)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        feeds = [
            _Feed(writer, store, "/wrench", 1000, *_wrench(store, rng)),
            _Feed(writer, store, "/joint_states", 500, *_joints(store, rng)),
            _Feed(writer, store, "/camera_front/image/compressed", 30, *_camera(store, rng)),
            _Feed(writer, store, "/camera_wrist/image/compressed", 30, *_camera(store, rng)),
            _Feed(writer, store, "/lidar/points", 10, *_lidar(store, rng)),
        ]
        for now in range(0, int(seconds * SECOND_NS), SECOND_NS // 1000):
            for feed in feeds:
                feed.write_due(now)
    return path


class _Feed:
    """Messages of one topic: a few serialised ones in turn, each with its own stamp.

    Serialising every message anew would take longer than everything that is measured.
    """

    def __init__(
        self, writer: Any, store: Any, topic: str, rate_hz: int, kind: str, messages: list[Any]
    ) -> None:
        self._writer = writer
        self._connection = writer.add_connection(topic, kind, typestore=store)
        self._messages = [bytearray(store.serialize_cdr(m, kind)) for m in messages]
        self._step = SECOND_NS / rate_hz
        self._count = 0

    def write_due(self, now: int) -> None:
        """Write what is due by now (ns since the start)."""
        while self._count * self._step <= now:
            raw = self._messages[self._count % len(self._messages)]
            stamp = START_NS + round(self._count * self._step)
            # The header stamp follows the four bytes of the CDR header.
            struct.pack_into("<iI", raw, 4, *divmod(stamp, SECOND_NS))
            self._writer.write(self._connection, stamp + 200_000, bytes(raw))
            self._count += 1


def _header(store: Any, frame_id: str) -> Any:
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def _wrench(store: Any, rng: np.random.Generator) -> tuple[str, list[Any]]:
    kind = "geometry_msgs/msg/WrenchStamped"
    vector, wrench = (store.types[f"geometry_msgs/msg/{n}"] for n in ("Vector3", "Wrench"))

    def triple(scale: float) -> Any:
        x, y, z = rng.normal(0, scale, 3)
        return vector(x=x, y=y, z=z)

    return kind, [
        store.types[kind](
            header=_header(store, "wrist"), wrench=wrench(force=triple(5), torque=triple(0.5))
        )
        for _ in range(5000)
    ]


def _joints(store: Any, rng: np.random.Generator) -> tuple[str, list[Any]]:
    kind = "sensor_msgs/msg/JointState"
    names = [f"joint_{i}" for i in range(1, 8)]
    walk = np.cumsum(rng.normal(0, 0.002, (2500, 7)), axis=0)
    return kind, [
        store.types[kind](
            header=_header(store, ""), name=names, position=q, velocity=rng.normal(0, 0.2, 7),
            effort=rng.normal(0, 2, 7),
        )
        for q in walk
    ]  # fmt: skip


def _camera(store: Any, rng: np.random.Generator) -> tuple[str, list[Any]]:
    """640 x 480 JPEG frames of textured shapes that move, with sensor noise."""
    import cv2

    kind = "sensor_msgs/msg/CompressedImage"
    texture = cv2.resize(rng.integers(0, 255, (60, 90, 3), np.uint8), (960, 720),
                         interpolation=cv2.INTER_CUBIC)  # fmt: skip
    messages = []
    for k in range(150):
        x, y = round(160 + 150 * np.sin(k / 24)), round(120 + 110 * np.cos(k / 24))
        frame = texture[y : y + 480, x : x + 640].copy()
        cv2.circle(frame, (320 + k, 240), 60, (30, 60, 220), -1)
        noisy = np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
        _, data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 80])
        messages.append(
            store.types[kind](header=_header(store, "camera"), format="jpeg", data=data.reshape(-1))
        )
    return kind, messages


def _lidar(store: Any, rng: np.random.Generator) -> tuple[str, list[Any]]:
    """Sweeps of 64 rings in a hall: ranges to walls and a few boxes, to the millimetre."""
    kind = "sensor_msgs/msg/PointCloud2"
    point = store.types["sensor_msgs/msg/PointField"]
    dtype = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"),
                      ("t", "<u4")])  # fmt: skip
    fields = [
        point(name=n, offset=int(dtype.fields[n][1]), datatype=6 if n == "t" else 7, count=1)
        for n in dtype.names or ()
    ]
    columns = LIDAR_POINTS // 64
    azimuth = np.repeat(np.linspace(0, 2 * np.pi, columns, endpoint=False), 64)
    elevation = np.tile(np.linspace(-0.4, 0.25, 64), columns)
    messages = []
    for k in range(20):
        wall = 12 / np.maximum(abs(np.cos(azimuth + k / 50)), abs(np.sin(azimuth + k / 50)))
        boxes = np.where(np.sin(7 * azimuth + k / 5) > 0.8, 0.6, 1.0)
        reach = np.minimum(wall * boxes, 1.8 / np.maximum(-np.sin(elevation), 1e-3))
        reach = np.round(reach + rng.normal(0, 0.01, LIDAR_POINTS), 3)
        cloud = np.empty(LIDAR_POINTS, dtype)
        cloud["x"] = reach * np.cos(elevation) * np.cos(azimuth)
        cloud["y"] = reach * np.cos(elevation) * np.sin(azimuth)
        cloud["z"] = reach * np.sin(elevation)
        cloud["intensity"] = np.clip(rng.normal(60, 20, LIDAR_POINTS), 0, 255).astype(int)
        cloud["t"] = np.repeat(np.arange(columns) * (SECOND_NS // 10 // columns), 64)
        messages.append(
            store.types[kind](
                header=_header(store, "lidar"), height=1, width=LIDAR_POINTS, fields=fields,
                is_bigendian=False, point_step=dtype.itemsize,
                row_step=dtype.itemsize * LIDAR_POINTS, data=cloud.view(np.uint8).reshape(-1),
                is_dense=True,
            )
        )  # fmt: skip
    return kind, messages


# -- measuring --------------------------------------------------------------------------------


def measure(python: str, script: str, *arguments: str) -> dict[str, float]:
    """What one run in a fresh process reports."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [python, "-c", script, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr[-2000:]}\na measurement failed")
    facts: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def camera_frames(log: Path, limit: int) -> np.ndarray[Any, Any] | None:
    """(n, cameras, H, W, 3) u1: the first frames of the log's cameras of one size, decoded."""
    from mmdata import media
    from mmdata.conversion.sources import find_sources
    from mmdata.registry import converter
    from mmdata.streams import Kind, Ragged

    source = find_sources([log]).sources[0]
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    with converter(source.format).open(source.path, source.part) as recording:
        topics = frozenset(
            t.topic for t in recording.inspect().topics if t.kind is Kind.IMAGE and t.count >= limit
        )
        if not topics:
            return None
        for batch in recording.read(topics):
            data, frames = batch.samples["data"], found.setdefault(batch.info.name, [])
            if batch.info.encoding not in ("jpeg", "png") or not isinstance(data, Ragged):
                continue
            frames += [media.decode_image(data[i]) for i in range(len(data))]
            if len(found) == len(topics) and all(len(f) >= limit for f in found.values()):
                break
    cameras = [f[:limit] for f in found.values() if len(f) >= limit]
    shapes = {c[0].shape for c in cameras}
    if not cameras or len(shapes) > 1:
        return None
    return np.stack([np.stack(c) for c in cameras], axis=1)


def rows_for(log: Path, repeat: int, lerobot: Path | None) -> Iterator[tuple[str, Any]]:
    """(what, repetitions) per line of the table, measured in turn."""
    runs: dict[str, list[dict[str, float]]] = {}
    sides: list[tuple[str, str, str, list[str]]] = [
        ("(a) rosbags read", sys.executable, _ROSBAGS, ["read"]),
        ("(b) rosbags read + deserialise", sys.executable, _ROSBAGS, ["deserialise"]),
        ("(c) mmdata convert", sys.executable, _CONVERT, []),
        ("(e) copy", sys.executable, _COPY, []),
    ]
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as scratch:
        if lerobot is not None:
            frames = camera_frames(log, LEROBOT_FRAMES)
            if frames is not None:
                np.save(f"{scratch}/frames.npy", frames)
                sides.insert(3, ("(d) LeRobot add_frame", str(lerobot), _LEROBOT, []))
        for _ in range(repeat):
            for name, python, script, more in sides:
                source = f"{scratch}/frames.npy" if python == str(lerobot) else str(log)
                with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as out:
                    runs.setdefault(name, []).append(measure(python, script, source, out, *more))
    yield from runs.items()


def report(log: Path, repeat: int, lerobot: Path | None) -> None:
    """Measure one log and print its table."""
    files = [log] if log.is_file() else [p for p in log.iterdir() if p.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e6
    medians: dict[str, dict[str, float]] = {}
    for name, runs in rows_for(log, repeat, lerobot):
        medians[name] = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
    count = int(medians["(c) mmdata convert"]["count"])
    cameras = camera_count(log)
    print(f"\n{log.name}: {size:.1f} MB, {count:,} messages, {cameras:,} camera frames")
    print(f"{'':31} {'s':>8} {'CPU s':>8} {'MB/s':>8} {'messages/s':>11} {'frames/s':>9} "
          f"{'peak MB':>8} {'out MB':>8}")  # fmt: skip
    for name, m in medians.items():
        seconds = m["seconds"]
        slow = name.startswith("(d)")
        rate = "" if slow else f"{size / seconds:.0f}"
        messages = f"{m['count'] / seconds:,.0f}" if m["count"] and not slow else ""
        frames = m["count"] if slow else cameras if name.startswith("(c)") else 0
        out = f"{m['bytes_out'] / 1e6:.1f}" if m["bytes_out"] else ""
        print(f"{name:31} {seconds:8.2f} {m['cpu']:8.2f} {rate:>8} {messages:>11} "
              f"{f'{frames / seconds:,.0f}' if frames else '':>9} {m['peak_mb']:8.0f} "
              f"{out:>8}")  # fmt: skip
    convert = medians["(c) mmdata convert"]
    for letter, name in (("b", "(b) rosbags read + deserialise"), ("e", "(e) copy")):
        other = medians[name]
        print(f"(c)/({letter}) = {convert['seconds'] / other['seconds']:.2f} in time, "
              f"{convert['cpu'] / max(other['cpu'], 1e-9):.2f} in CPU")  # fmt: skip


def camera_count(log: Path) -> int:
    """Camera frames in a log."""
    from mmdata.conversion.sources import find_sources
    from mmdata.registry import converter
    from mmdata.streams import Kind

    source = find_sources([log]).sources[0]
    with converter(source.format).open(source.path, source.part) as recording:
        return sum(t.count for t in recording.inspect().topics if t.kind is Kind.IMAGE)


def memory(lengths: list[float]) -> None:
    """Print the peak memory of converting generated logs of some lengths in seconds."""
    print(f"{'length s':>9} {'MB':>9} {'s':>8} {'CPU s':>8} {'peak MB':>8}")
    for seconds in lengths:
        with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as scratch:
            log = write_long_log(Path(scratch) / "log", seconds)
            size = sum(p.stat().st_size for p in log.iterdir()) / 1e6
            m = measure(sys.executable, _CONVERT, str(log), f"{scratch}/out")
        print(f"{seconds:9g} {size:9.0f} {m['seconds']:8.1f} {m['cpu']:8.1f} {m['peak_mb']:8.0f}",
              flush=True)  # fmt: skip


def default_logs(folder: Path, seconds: float) -> list[Path]:
    """The generated logs, and the sample logs that are there."""
    from mmdata.simulate import pick_place, write_mcap

    print(f"writing a log of {seconds:g} s ...", file=sys.stderr)
    write_long_log(folder / "generated", seconds)
    write_mcap(folder / "simulated", pick_place(seed=0))
    shared = Path(__file__).resolve().parents[2] / "shared/data"
    names = ["real/pandaset_002/drive", "sim/pick_place_301", "sim/pick_place_303"]
    found = [shared / n for n in names if (shared / n).exists()]
    return [folder / "generated", folder / "simulated", *found]


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=300, help="length of the generated log")
    parser.add_argument("--memory", nargs="+", type=float, metavar="SECONDS")
    parser.add_argument("--make-log", type=Path, help="only write the generated log there")
    parser.add_argument(
        "--lerobot", type=Path, default=Path(__file__).resolve().parents[2] / "peers/lerobot",
        help="environment with LeRobot",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.make_log is not None:
        write_long_log(arguments.make_log, arguments.seconds)
        return
    if arguments.memory:
        memory(arguments.memory)
        return
    python: Path | None = arguments.lerobot / "bin/python"
    probe = [str(python), "-c", "import lerobot.datasets.lerobot_dataset"]
    if not (python and python.exists()) or subprocess.run(probe, capture_output=True).returncode:
        print(f"(d) is left out: no LeRobot in {arguments.lerobot}; --lerobot names another place")
        python = None
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start, medians of {arguments.repeat}")
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as folder:
        logs = arguments.logs or default_logs(Path(folder), arguments.seconds)
        for log in logs:
            report(log, arguments.repeat, python)
        shutil.rmtree(Path(folder) / "generated", ignore_errors=True)


if __name__ == "__main__":
    main()
