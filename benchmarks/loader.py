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


def rate(batches: Iterator[int], seconds: float) -> tuple[float, float, int]:
    """(samples/s after the first batch, seconds to it, samples) of an iterator of batch sizes."""
    begin = time.perf_counter()
    next(batches)
    first = time.perf_counter() - begin
    start, count = time.perf_counter(), 0
    for size in batches:
        count += size
        if time.perf_counter() - start > seconds:
            break
    return count / max(1e-9, time.perf_counter() - start), first, count


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

    speed, first, _ = rate(epochs(), seconds)
    return {"samples_s": speed, "first_s": opened + first}


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
    speed, first, _ = rate(batches(), seconds)
    return {"samples_s": speed, "first_s": opened + first}


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
    speed, first, _ = rate(batches(), seconds)
    return {"samples_s": speed, "first_s": opened + first}


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

    speed, first, _ = rate(batches(), seconds)
    return {"samples_s": speed, "first_s": first}


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
    """Frames per second of decoding alone, on one core; `rgb`: converted, too."""
    with open_episode(next((folder / encoding).glob("*.h5"))) as episode:
        stream = episode.streams["cam0"]
        packets = [stream.encoded(i) for i in range(len(stream))]
    count, start = 0, time.perf_counter()
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
    return {"frames_s": count / (time.perf_counter() - start)}


def signals(folder: Path, seconds: float) -> Measured:
    """Samples without images, one process."""
    dataset = EpisodeDataset(folder, spec(images=False))
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    for n in order:
        dataset[n]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for n in order:
            dataset[n]
        count += len(order)
    single = count / (time.perf_counter() - start)

    def batches() -> Iterator[int]:
        sampler, epoch = BatchSampler(Shuffle(len(dataset)), 256), 0
        while True:
            sampler.set_epoch(epoch)
            for batch in iterate(dataset, sampler):
                yield len(batch["tick"])
            epoch += 1

    batched, _, _ = rate(batches(), seconds)
    return {"single": single, "batched": batched}


PEER = r"""
import sys, json, time, os, resource, shutil
import numpy as np
os.environ["HF_HUB_OFFLINE"] = "1"
raw, out, seconds, fps = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
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
for workers in (0, 1, 2):
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
    s = time.perf_counter(); n = 0
    for b in g:
        n += len(b["action"])
        if time.perf_counter() - s > seconds:
            break
    res[str(workers)] = {"samples_s": n / (time.perf_counter() - s), "first_s": first}
    del g, loader
res["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print("RESULT" + json.dumps(res), flush=True)
os._exit(0)
"""


def lerobot(folder: Path, python: str, seconds: float) -> Measured:
    """LeRobotDataset in its own environment."""
    if not Path(python).exists():
        return {"error": f"absent ({python}; --peer names its Python)"}
    script = folder / "peer.py"
    script.write_text(PEER)
    command = [python, str(script), str(folder / "raw"), str(folder / "lerobot"), str(seconds),
               str(RATE_HZ)]  # fmt: skip
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
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "data"
        if not folder.exists():
            console.print("writing the data ...")
            write_all(folder, arguments.episodes, arguments.frames)
        run(folder, arguments.seconds, arguments.peer, console)


def run(folder: Path, seconds: float, peer: str, console: Console) -> None:
    load = os.getloadavg()[0]
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before the run, Python "
        f"{sys.version.split()[0]}, OpenCV {cv2.__version__}, PyAV {av.__version__}"
    )
    table = Table(
        "reader", "order", "workers", "samples/s", "first batch s", "memory MB", "disk MB"
    )

    def row(name: str, order: str, workers: int, result: Measured, disk: float) -> None:
        if "error" in result:
            table.add_row(name, order, str(workers), result["error"], "", "", f"{disk:.0f}")
            return
        table.add_row(
            name, order, str(workers), f"{result['samples_s']:.0f}", f"{result['first_s']:.2f}",
            f"{result.get('memory_mb', float('nan')):.0f}", f"{disk:.1f}",
        )  # fmt: skip

    limits = {
        name: in_child(lambda e=encoding, r=rgb: bare(folder, e, r, seconds / 2))["frames_s"]
        for name, encoding, rgb in (
            ("JPEG", "jpeg", True), ("H.264", "h264", False), ("H.264 to RGB", "h264", True),
        )
    }  # fmt: skip
    ours: dict[tuple[str, str, int], float] = {}
    for encoding in ("jpeg", "h264"):
        for order in ("random", "block shuffle", "sequential"):
            for workers in (0, 1, 2):
                if workers and order == "sequential":
                    continue
                result = in_child(
                    lambda e=encoding, o=order, w=workers: mmdata_reader(folder / e, o, w, seconds)
                )
                ours[encoding, order, workers] = result.get("samples_s", 0.0)
                row(f"mmdata {encoding}", order, workers, result, size_mb(folder / encoding))
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
    found = lerobot(folder, peer, seconds)
    if "error" in found:
        row("LeRobotDataset h264", "random", 0, found, 0)
    else:
        for workers in ("0", "1", "2"):
            found[workers]["memory_mb"] = found["memory_mb"]
            row("LeRobotDataset h264", "random", int(workers), found[workers], found["bytes"] / 1e6)
    console.print(table)
    plain = in_child(lambda: signals(folder / "jpeg", seconds / 2))
    console.print(
        "bare decoding of one core, frames/s: "
        + ", ".join(f"{name} {value:.0f}" for name, value in limits.items())
    )
    console.print(
        f"mmdata without images, one process: {plain['single']:.0f} samples/s one by one, "
        f"{plain['batched']:.0f} in batches of 256"
    )
    jpeg, block = ours["jpeg", "random", 0], ours["h264", "block shuffle", 0]
    console.print(
        f"random JPEG: {2 * jpeg / limits['JPEG']:.0%} of the bare JPEG limit; "
        f"block shuffle H.264: {2 * block / limits['H.264 to RGB']:.0%} of decoding to RGB, "
        f"{2 * block / limits['H.264']:.0%} of decoding without conversion, "
        f"{size_mb(folder / 'jpeg') / size_mb(folder / 'h264'):.1f}x smaller than JPEG 95"
    )
    if "error" not in found:
        for workers in (0, 1, 2):
            peer_rate = found[str(workers)]["samples_s"]
            console.print(
                f"against LeRobotDataset, {workers} workers: random JPEG "
                f"{ours['jpeg', 'random', workers] / peer_rate:.1f}x, random H.264 "
                f"{ours['h264', 'random', workers] / peer_rate:.1f}x, block shuffle H.264 "
                f"{ours['h264', 'block shuffle', workers] / peer_rate:.1f}x"
            )
    console.print(f"load after the run: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
