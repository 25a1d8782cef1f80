"""Reading for training, side by side: the same pixels, states and actions for every format.

    python benchmarks/loader.py [--episodes 4] [--seconds 10] [--peer LEROBOT_VENV/bin/python]

A sample is two 640x480 RGB frames, a 14-dim state and 16 steps of 14-dim actions, all as arrays.
Formats: mmdata (JPEG 95; H.264 GOP 15), robomimic-style HDF5 (a chunk per frame), Isaac-style HDF5
(gzip, chunks by h5py), raw h5py of our own JPEG file, WebDataset-style tar shards, and
LeRobotDataset in its own environment. A peer that is not there is reported so.

Bare limits: JPEG and H.264 decoding of the same bytes on one core, with nothing around it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import h5py
import hdf5plugin  # noqa: F401  (plain h5py needs it for our files)
import numpy as np
from rich.console import Console
from rich.table import Table

from mmdata import EpisodeWriter, Kind, StreamInfo, open_episode
from mmdata.loaders import (
    BatchSampler,
    BlockShuffle,
    EpisodeDataset,
    SampleSpec,
    Sequential,
    Shuffle,
    iterate,
)
from mmdata.loaders.samplers import Order
from mmdata.media import encode_jpeg

HEIGHT, WIDTH, RATE_HZ, STEPS, DIM, GOP = 480, 640, 30, 16, 14, 15
BATCH = 16
CAMERAS = ("cam0", "cam1")
Measured = dict[str, Any]


# -- the scene -------------------------------------------------------------------------------


def scene(episode: int, frames: int) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """Per tick: two frames of a camera panning over a textured plane, with sensor noise."""
    rng = np.random.default_rng(episode)
    plane = cv2.GaussianBlur(rng.integers(0, 255, (1000, 1700, 3), np.uint8), (0, 0), 4)
    plane = cv2.normalize(plane, None, 0, 255, cv2.NORM_MINMAX)
    noise = rng.integers(-4, 5, (8, HEIGHT, WIDTH, 3)).astype(np.int16)
    states = rng.standard_normal((frames + STEPS, DIM)).astype(np.float32)
    for k in range(frames):
        views = []
        for c in range(len(CAMERAS)):
            top, left = (k + 60 * c) % 500, (2 * k + 30 * c) % 1000
            view = plane[top : top + HEIGHT, left : left + WIDTH].astype(np.int16)
            views.append(np.clip(view + noise[(k + c) % 8], 0, 255).astype(np.uint8))
        yield views, states[k], states[k + 1]


def h264_packets(frames: list[np.ndarray]) -> list[bytes]:
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base = Fraction(1, RATE_HZ)
    context.gop_size, context.max_b_frames = GOP, 0
    context.options = {"preset": "veryfast", "crf": "23", "sc_threshold": "0"}
    packets: list[bytes] = []
    for k, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = k
        packets += [bytes(p) for p in context.encode(picture)]
    return packets + [bytes(p) for p in context.encode(None)]


def write_all(folder: Path, episodes: int, frames: int) -> None:
    """Every local format, from one rendering of the scene."""
    for name in ("jpeg", "h264", "robomimic", "isaac", "tar", "raw"):
        (folder / name).mkdir(parents=True)
    stamps = 10**18 + np.round(np.arange(frames) * 1e9 / RATE_HZ).astype(np.int64)
    robomimic = h5py.File(folder / "robomimic" / "demos.h5", "w")
    isaac = h5py.File(folder / "isaac" / "demos.h5", "w")
    for e in range(episodes):
        ticks = list(scene(e, frames))
        views = [[t[0][c] for t in ticks] for c in range(len(CAMERAS))]
        state, action = (np.stack([t[k] for t in ticks]) for k in (1, 2))
        jpegs = [[encode_jpeg(f, 95) for f in v] for v in views]
        payload = {"jpeg": jpegs, "h264": [h264_packets(v) for v in views]}
        for encoding, encoded in payload.items():
            with EpisodeWriter(folder / encoding / f"e_{e:03d}.h5") as writer:
                for camera, samples in zip(CAMERAS, encoded, strict=True):
                    writer.add_stream(StreamInfo(camera, Kind.IMAGE, {}, encoding=encoding))
                    writer.append(camera, stamps, samples)
                writer.append("state", stamps, {"data": state})
                writer.append("action", stamps, {"data": action})
        for file, options in (
            (robomimic, {"chunks": (1, HEIGHT, WIDTH, 3)}),
            (isaac, {"compression": "gzip", "chunks": True}),
        ):
            demo = file.create_group(f"data/demo_{e}")
            demo["actions"], demo["obs/state"] = action, state
            for camera, view in zip(CAMERAS, views, strict=True):
                demo.create_dataset(f"obs/{camera}", data=np.stack(view), **options)
        with tarfile.open(folder / "tar" / f"shard_{e:03d}.tar", "w") as shard:
            for k in range(frames):
                window = action[np.minimum(np.arange(k, k + STEPS), frames - 1)]
                parts = {f"{c}.jpg": jpegs[n][k] for n, c in enumerate(CAMERAS)}
                parts |= {"state.npy": _npy(state[k]), "action.npy": _npy(window)}
                for suffix, data in parts.items():
                    entry = tarfile.TarInfo(f"{e:03d}_{k:06d}.{suffix}")
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
        np.savez(
            folder / "raw" / f"e_{e:03d}.npz", state=state, action=action,
            **{c: np.stack(v) for c, v in zip(CAMERAS, views, strict=True)},
        )  # fmt: skip
    robomimic.close()
    isaac.close()


def _npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


# -- measuring -------------------------------------------------------------------------------


def rate(batches: Iterator[int], seconds: float) -> Measured:
    """Of an iterator of batch sizes: samples/s after the first batch, the same per second of this
    process's CPU time (which other people's load does not slow down), seconds to the first batch.
    """
    begin = time.perf_counter()
    next(batches)
    first = time.perf_counter() - begin
    start, used, count = time.perf_counter(), time.process_time(), 0
    for size in batches:
        count += size
        if time.perf_counter() - start > seconds:
            break
    passed, used = time.perf_counter() - start, time.process_time() - used
    return {"samples_s": count / passed, "samples_cpu_s": count / used, "first_s": first}


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def in_child(run: Callable[[], Measured]) -> Measured:
    """Run in a fresh fork, so that memory is the reader's own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = rss_mb()
            result = run()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            result.setdefault("memory_mb", max(0.0, peak - before))
        except Exception as error:  # shown in the table instead of a number
            result = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "the reader died"}


def spec(images: bool = True) -> SampleSpec:
    keys: dict[str, Any] = {c: {"stream": c} for c in CAMERAS} if images else {}
    keys["state"] = {"stream": "state"}
    keys["action"] = {
        "stream": "action", "at": {"steps": STEPS, "rate_hz": RATE_HZ}, "target": True,
    }  # fmt: skip
    return SampleSpec.model_validate({"timeline": {"reference_stream": "state"}, "keys": keys})


def mmdata_reader(folder: Path, order: str, workers: int, seconds: float) -> Measured:
    begin = time.perf_counter()
    dataset = EpisodeDataset(folder, spec())
    orders: dict[str, Callable[[], Order]] = {
        "random": lambda: Shuffle(len(dataset), 1),
        "block shuffle": lambda: BlockShuffle(dataset.counts, dataset.block_size(2), 4, 1),
        "sequential": lambda: Sequential(len(dataset)),
    }
    made = orders[order]()
    opened = time.perf_counter() - begin

    def epochs() -> Iterator[int]:
        if workers == 0:
            sampler, epoch = BatchSampler(made, BATCH), 0
            while True:
                sampler.set_epoch(epoch)
                for batch in iterate(dataset, sampler):
                    yield len(batch["tick"])
                epoch += 1
        from mmdata.loaders.torch import EpisodeLoader

        loader, epoch = EpisodeLoader(dataset, made, BATCH, workers=workers), 0
        while True:
            loader.set_epoch(epoch)
            for batch in loader:
                yield len(batch["tick"])
            epoch += 1

    result = rate(epochs(), seconds)
    result["first_s"] += opened
    if workers:
        del result["samples_cpu_s"]  # most of it is the workers'
    return result


def hdf5_reader(path: Path, seconds: float) -> Measured:
    """robomimic and Isaac Lab: one file, frames as arrays, a random index per sample."""
    begin = time.perf_counter()
    file = h5py.File(path, "r")
    demos = [file["data"][name] for name in file["data"]]
    place = [(d, k) for d in demos for k in range(len(d["actions"]))]
    order = np.random.default_rng(0).permutation(len(place))

    def batches() -> Iterator[int]:
        while True:
            for at in range(0, len(order) - BATCH, BATCH):
                samples = []
                for n in order[at : at + BATCH]:
                    demo, k = place[n]
                    sample = [demo["obs"][c][k].transpose(2, 0, 1) for c in CAMERAS]
                    samples.append((*sample, demo["obs/state"][k], demo["actions"][k : k + STEPS]))
                for c in range(2):
                    np.stack([s[c] for s in samples])
                yield len(samples)

    opened = time.perf_counter() - begin
    result = rate(batches(), seconds)
    result["first_s"] += opened
    return result


def raw_h5py_reader(folder: Path, seconds: float) -> Measured:
    """Our JPEG files through plain h5py: what the loader adds to that."""
    begin = time.perf_counter()
    files = [h5py.File(p, "r") for p in sorted(folder.glob("*.h5"))]
    place = [(f["streams"], k) for f in files for k in range(len(f["streams/state/stamp_ns"]))]
    order = np.random.default_rng(0).permutation(len(place))

    def batches() -> Iterator[int]:
        while True:
            for at in range(0, len(order) - BATCH, BATCH):
                out = np.empty((2, BATCH, 3, HEIGHT, WIDTH), np.uint8)
                for b, n in enumerate(order[at : at + BATCH]):
                    streams, k = place[n]
                    for c, camera in enumerate(CAMERAS):
                        group = streams[camera]
                        start, stop = group["offsets"][k : k + 2]
                        image = cv2.imdecode(group["data"][start:stop], cv2.IMREAD_COLOR)
                        out[c, b] = image[..., ::-1].transpose(2, 0, 1)
                    streams["state/data"][k]
                    streams["action/data"][k : k + STEPS]
                yield BATCH

    opened = time.perf_counter() - begin
    result = rate(batches(), seconds)
    result["first_s"] += opened
    return result


def tar_reader(folder: Path, seconds: float) -> Measured:
    """WebDataset's way: shards in random order, samples in sequence, a shuffle buffer."""
    rng = np.random.default_rng(0)

    def samples() -> Iterator[tuple[np.ndarray, ...]]:
        while True:
            for path in rng.permutation(sorted(folder.glob("*.tar"))):
                with tarfile.open(path) as shard:
                    parts: dict[str, bytes] = {}
                    name = ""
                    for entry in shard:
                        key, suffix = entry.name.split(".", 1)
                        if key != name and parts:
                            yield _decode(parts)
                            parts = {}
                        name = key
                        data = shard.extractfile(entry)
                        parts[suffix] = data.read() if data else b""
                    yield _decode(parts)

    def batches() -> Iterator[int]:
        buffer: list[Any] = []
        for sample in samples():
            buffer.append(sample)
            if len(buffer) < 64 + BATCH:
                continue
            chosen = [buffer.pop(int(rng.integers(len(buffer)))) for _ in range(BATCH)]
            for c in range(2):
                np.stack([s[c] for s in chosen])
            yield BATCH

    return rate(batches(), seconds)


def _decode(parts: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    frames = [
        cv2.imdecode(np.frombuffer(parts[f"{c}.jpg"], np.uint8), cv2.IMREAD_COLOR)[
            ..., ::-1
        ].transpose(2, 0, 1)
        for c in CAMERAS
    ]
    return (
        *frames,
        np.load(io.BytesIO(parts["state.npy"])),
        np.load(io.BytesIO(parts["action.npy"])),
    )


def bare(folder: Path, encoding: str, rgb: bool, seconds: float) -> Measured:
    """Frames per second (of time, of CPU time) of decoding in one thread; `rgb`: converted, too."""
    with open_episode(next((folder / encoding).glob("*.h5"))) as episode:
        stream = episode.streams["cam0"]
        packets = [stream.encoded(i) for i in range(len(stream))]
    count, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        if encoding == "jpeg":
            for data in packets[:50]:
                cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            count += 50
            continue
        context = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        reformatter = av.video.reformatter.VideoReformatter()
        for data in packets:
            for frame in context.decode(av.Packet(data)):
                if rgb:
                    reformatter.reformat(frame, format="gbrp", threads=1)
        count += len(packets)
    passed, used = time.perf_counter() - start, time.process_time() - used
    return {"frames_s": count / passed, "frames_cpu_s": count / used}


def signals(folder: Path, seconds: float) -> Measured:
    """Samples without images, one process."""
    dataset = EpisodeDataset(folder, spec(images=False))
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    for n in order:
        dataset[n]
    count, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        for n in order:
            dataset[n]
        count += len(order)
    single = {
        "samples_s": count / (time.perf_counter() - start),
        "samples_cpu_s": count / (time.process_time() - used),
    }

    def batches() -> Iterator[int]:
        sampler, epoch = BatchSampler(Shuffle(len(dataset)), 256), 0
        while True:
            sampler.set_epoch(epoch)
            for batch in iterate(dataset, sampler):
                yield len(batch["tick"])
            epoch += 1

    return {"single": single, "batched": rate(batches(), seconds)}


def many_episodes(folder: Path, episodes: int) -> Measured:
    """Opening a dataset of many small episodes with its index, and memory over an epoch of it."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps = 10**18 + np.arange(60, dtype=np.int64) * 33_333_333
    for e in range(episodes):
        path = folder / f"e_{e}.h5"
        if e >= 20 and not path.exists():
            shutil.copyfile(folder / f"e_{e % 20}.h5", path)
        elif not path.exists():
            with EpisodeWriter(path) as writer:
                rows = np.full((60, DIM), e, np.float32)
                writer.append("state", stamps, {"data": rows})
                writer.append("action", stamps, {"data": rows})
    begin = time.perf_counter()
    EpisodeDataset(folder, spec(images=False), workers=2)
    first = time.perf_counter() - begin
    begin, used = time.perf_counter(), time.process_time()
    dataset = EpisodeDataset(folder, spec(images=False), episode_bytes=16 << 20)
    opened, opened_cpu = time.perf_counter() - begin, time.process_time() - used
    held = []
    sampler = BatchSampler(BlockShuffle(dataset.counts, 60, 16), 240)
    for at, _ in enumerate(iterate(dataset, sampler)):
        if at % max(1, len(sampler) // 10) == 0:
            held.append(rss_mb())
    return {"first_s": first, "opened_s": opened, "opened_cpu_s": opened_cpu, "held_mb": held,
            "samples": len(dataset)}  # fmt: skip


PEER = r"""
import sys, json, time, os, resource, shutil
import numpy as np
os.environ["HF_HUB_OFFLINE"] = "1"
raw, out, seconds, fps = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
workers = int(sys.argv[5])
import torch
torch.set_num_threads(1)
from pathlib import Path
try:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
except ImportError:
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
feat = {"observation.state": {"dtype": "float32", "shape": (14,), "names": None},
        "action": {"dtype": "float32", "shape": (14,), "names": None}}
for c in ("cam0", "cam1"):
    feat["observation.images." + c] = {"dtype": "video", "shape": (480, 640, 3),
                                       "names": ["height", "width", "channels"]}
if not Path(out).exists():
    part = out + ".partial"
    shutil.rmtree(part, ignore_errors=True)
    ds = LeRobotDataset.create("bench/loader", fps, feat, root=part, video_backend="torchcodec",
                               vcodec="h264")
    for p in sorted(Path(raw).glob("*.npz")):
        z = np.load(p)
        a = {k: z[k] for k in z.files}
        for k in range(len(a["state"])):
            ds.add_frame({"observation.state": a["state"][k], "action": a["action"][k],
                          "observation.images.cam0": a["cam0"][k],
                          "observation.images.cam1": a["cam1"][k], "task": "bench"})
        ds.save_episode()
    if hasattr(ds, "finalize"):
        ds.finalize()
    os.rename(part, out)
res = {"bytes": sum(f.stat().st_size for f in Path(out).rglob("*") if f.is_file())}
delta = {"action": [i / fps for i in range(16)]}
t = time.perf_counter()
ds = LeRobotDataset("bench/loader", root=out, delta_timestamps=delta,
                    video_backend="torchcodec")
loader = torch.utils.data.DataLoader(ds, batch_size=16, shuffle=True, num_workers=workers)
def it():
    while True:
        yield from loader
g = it()
next(g)
first = time.perf_counter() - t
s = time.perf_counter(); u = time.process_time(); n = 0
for b in g:
    n += len(b["action"])
    if time.perf_counter() - s > seconds:
        break
res |= {"samples_s": n / (time.perf_counter() - s), "first_s": first}
if workers == 0:
    res["samples_cpu_s"] = n / (time.process_time() - u)
del g, loader
res["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print("RESULT" + json.dumps(res), flush=True)
os._exit(0)
"""


def lerobot(folder: Path, python: str, workers: int, seconds: float) -> Measured:
    """LeRobotDataset in its own environment, a process for each number of workers."""
    if not Path(python).exists():
        return {"error": f"absent ({python}; --peer names its Python)"}
    script = folder / "peer.py"
    script.write_text(PEER)
    command = [python, str(script), str(folder / "raw"), str(folder / "lerobot"), str(seconds),
               str(RATE_HZ), str(workers)]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for line in run.stdout.splitlines():
        if line.startswith("RESULT"):
            return dict(json.loads(line[6:]))
    return {"error": run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "no result"}


def size_mb(path: Path) -> float:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement")
    parser.add_argument("--peer", default="/work/peers/lerobot/bin/python")
    parser.add_argument("--many", type=int, default=10_000, help="episodes of the opening test")
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "data"
        if not folder.exists():
            console.print("writing the data ...")
            write_all(folder, arguments.episodes, arguments.frames)
        run(folder, arguments.seconds, arguments.peer, arguments.many, console)


def run(folder: Path, seconds: float, peer: str, many: int, console: Console) -> None:
    load = os.getloadavg()[0]
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before the run, Python "
        f"{sys.version.split()[0]}, OpenCV {cv2.__version__}, PyAV {av.__version__}"
    )
    table = Table(
        "reader", "order", "workers", "samples/s", "per CPU s", "first batch s", "memory MB", "MB"
    )
    measured: dict[tuple[str, str, int], Measured] = {}

    def row(name: str, order: str, workers: int, result: Measured, disk: float) -> None:
        measured[name, order, workers] = result
        if "error" in result:
            cells = [result["error"], "", "", ""]
        else:
            cpu, memory = result.get("samples_cpu_s"), result.get("memory_mb")
            cells = [
                f"{result['samples_s']:.0f}", "" if cpu is None else f"{cpu:.0f}",
                f"{result['first_s']:.2f}", "" if memory is None else f"{memory:.0f}",
            ]  # fmt: skip
        table.add_row(name, order, str(workers), *cells, f"{disk:.1f}")
        console.print(" | ".join([name, order, str(workers), *cells]), style="dim")

    decoding = {"JPEG": ("jpeg", True), "H.264": ("h264", False), "H.264 to RGB": ("h264", True)}
    limits: dict[str, list[Measured]] = {name: [] for name in decoding}

    def measure_limits() -> None:
        for name, (encoding, rgb) in decoding.items():
            limits[name].append(in_child(lambda e=encoding, r=rgb: bare(folder, e, r, seconds / 2)))

    measure_limits()
    for encoding in ("jpeg", "h264"):
        for order in ("random", "block shuffle", "sequential"):
            for workers in (0, 1, 2) if order != "sequential" else (0,):
                result = in_child(
                    lambda e=encoding, o=order, w=workers: mmdata_reader(folder / e, o, w, seconds)
                )
                row(f"mmdata {encoding}", order, workers, result, size_mb(folder / encoding))
    measure_limits()
    others: dict[str, tuple[Callable[[], Measured], str]] = {
        "raw h5py, our JPEG file": (lambda: raw_h5py_reader(folder / "jpeg", seconds), "jpeg"),
        "robomimic-style HDF5": (
            lambda: hdf5_reader(folder / "robomimic" / "demos.h5", seconds), "robomimic",
        ),
        "Isaac-style HDF5": (lambda: hdf5_reader(folder / "isaac" / "demos.h5", seconds), "isaac"),
        "WebDataset-style tar": (lambda: tar_reader(folder / "tar", seconds), "tar"),
    }  # fmt: skip
    for name, (reader, kind) in others.items():
        order = "shards" if kind == "tar" else "random"
        row(name, order, 0, in_child(reader), size_mb(folder / kind))
    for workers in (0, 1, 2):
        result = lerobot(folder, peer, workers, seconds)
        row("LeRobotDataset h264", "random", workers, result, result.get("bytes", 0) / 1e6)
    measure_limits()
    console.print(table)
    bare_cpu = {n: float(np.median([m["frames_cpu_s"] for m in ms])) for n, ms in limits.items()}
    console.print(
        "bare decoding, frames per CPU second (and per second, as the machine was): "
        + ", ".join(
            f"{name} {bare_cpu[name]:.0f} ({np.median([m['frames_s'] for m in ms]):.0f})"
            for name, ms in limits.items()
        )
    )
    plain = in_child(lambda: signals(folder / "jpeg", seconds / 2))
    for kind, how in (("single", "one by one"), ("batched", "in batches of 256")):
        console.print(
            f"without images, one process, {how}: {plain[kind]['samples_s']:.0f} samples/s, "
            f"{plain[kind]['samples_cpu_s']:.0f} per CPU second"
        )
    _compare(measured, bare_cpu, folder, console)
    if many:
        result = in_child(lambda: many_episodes(folder / f"many_{many}", many))
        held = ", ".join(f"{m:.0f}" for m in result["held_mb"])
        console.print(
            f"{many:,} episodes ({result['samples']:,} samples): opened with an index in "
            f"{result['opened_s']:.2f} s ({result['opened_cpu_s']:.2f} s of CPU time), without in "
            f"{result['first_s']:.0f} s; memory over an epoch, MB: {held}"
        )
    console.print(f"load after the run: {os.getloadavg()[0]:.1f}")


def _compare(
    measured: dict[tuple[str, str, int], Measured],
    bare_cpu: dict[str, float],
    folder: Path,
    console: Console,
) -> None:
    def cpu(name: str, order: str) -> float:
        return float(measured[name, order, 0].get("samples_cpu_s", float("nan")))

    jpeg, block = cpu("mmdata jpeg", "random"), cpu("mmdata h264", "block shuffle")
    console.print(
        f"by CPU time: random JPEG {2 * jpeg / bare_cpu['JPEG']:.0%} of bare JPEG decoding; block "
        f"shuffle H.264 {2 * block / bare_cpu['H.264 to RGB']:.0%} of decoding to RGB, "
        f"{2 * block / bare_cpu['H.264']:.0%} of decoding without conversion; H.264 is "
        f"{size_mb(folder / 'jpeg') / size_mb(folder / 'h264'):.1f}x smaller than JPEG 95"
    )
    for workers in (0, 1, 2):
        peer = measured["LeRobotDataset h264", "random", workers]
        if "error" in peer:
            continue
        parts = []
        for name, order in (
            ("mmdata jpeg", "random"), ("mmdata h264", "random"), ("mmdata h264", "block shuffle"),
        ):  # fmt: skip
            mine = measured[name, order, workers]
            part = f"{name} {order} {mine.get('samples_s', 0) / peer['samples_s']:.1f}x"
            if workers == 0:
                part += (
                    f" ({mine.get('samples_cpu_s', 0) / peer['samples_cpu_s']:.1f}x by CPU time)"
                )
            parts.append(part)
        console.print(f"against LeRobotDataset, {workers} workers: " + ", ".join(parts))


if __name__ == "__main__":
    main()
