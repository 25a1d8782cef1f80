"""Reading for training, side by side: the same pixels, states and actions for every format.

    python benchmarks/loader.py [--episodes 4] [--seconds 10] [--peer LEROBOT_VENV/bin/python]

A sample is two 640x480 RGB frames, a 14-dim state and 16 steps of 14-dim actions, all as arrays.
Formats: mmdata (JPEG 95; H.264 GOP 15 and GOP 2), robomimic-style HDF5 (a chunk per frame),
Isaac-style HDF5 (gzip, chunks by h5py), raw h5py of our own JPEG file, WebDataset-style tar shards,
and LeRobotDataset in its own environment. A peer that is not there is reported so. mmdata runs in
one thread and in two, and with one and two workers.

Bare limits: JPEG and H.264 decoding of the same bytes on one core, with nothing around it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg
from loader_data import CAMERAS, DIM, GOPS, RATE_HZ, STEPS, write_all
from loader_peers import (
    BATCH,
    Measured,
    hdf5_reader,
    lerobot,
    rate,
    raw_h5py_reader,
    tar_reader,
)
from rich.console import Console
from rich.table import Table

from mmdata import EpisodeWriter, open_episode
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

#: Reader, order, worker processes, threads in each of them (or in the one process).
Case = tuple[str, str, int, int]


# -- measuring -------------------------------------------------------------------------------


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


def mmdata_reader(folder: Path, order: str, workers: int, threads: int, seconds: float) -> Measured:
    begin = time.perf_counter()
    dataset = EpisodeDataset(folder, spec(), threads=threads)
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


def bare(folder: Path, encoding: str, rgb: bool, seconds: float) -> Measured:
    """Frames per second (of time, of CPU time) of decoding in one thread; `rgb`: converted, too."""
    with open_episode(next((folder / encoding).glob("*.h5"))) as episode:
        stream = episode.streams["cam0"]
        packets = [stream.encoded(i) for i in range(len(stream))]
    count, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        if encoding == "jpeg":
            for data in packets[:50]:
                simplejpeg.decode_jpeg(data)
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


def long_signals(path: Path, rows: int, seconds: float) -> Measured:
    """Windows of a signal too long to be held: samples/s in batches of 64, one process."""
    if not path.exists():
        rng = np.random.default_rng(0)
        with EpisodeWriter(path) as writer:
            for first in range(0, rows, 1 << 17):
                k = np.arange(first, min(first + (1 << 17), rows), dtype=np.int64)
                values = rng.standard_normal((len(k), DIM)).astype(np.float32)
                writer.append("state", 10**18 + k * 1_000_000, {"data": values})
    keys = {
        "state": {"stream": "state"},
        "action": {"stream": "state", "at": {"steps": STEPS, "rate_hz": 100}, "target": True},
    }
    asked = SampleSpec.model_validate({"timeline": {"rate_hz": 100}, "keys": keys})
    dataset = EpisodeDataset([path], asked)
    before = rss_mb()
    result: Measured = {}
    for how, order in (
        ("random", Shuffle(len(dataset))),
        ("block shuffle", BlockShuffle(dataset.counts, 4096, 4)),
    ):
        batches = iterate(dataset, BatchSampler(order, 64))
        result[how] = rate((len(b["tick"]) for b in batches), seconds)["samples_s"]
    return result | {"memory_mb": max(0.0, rss_mb() - before)}


def size_mb(path: Path) -> float:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement")
    parser.add_argument("--peer", default="/work/peers/lerobot/bin/python")
    parser.add_argument("--many", type=int, default=10_000, help="episodes of the opening test")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the long signal")
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "data"
        if not folder.exists():
            console.print("writing the data ...")
            write_all(folder, arguments.episodes, arguments.frames)
        run(folder, arguments, console)


def run(folder: Path, arguments: argparse.Namespace, console: Console) -> None:
    seconds, peer, many, rows = (
        arguments.seconds, arguments.peer, arguments.many, arguments.rows,
    )  # fmt: skip
    load = os.getloadavg()[0]
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before the run, Python "
        f"{sys.version.split()[0]}, OpenCV {cv2.__version__}, PyAV {av.__version__}"
    )
    table = Table(
        "reader",
        "order",
        "workers",
        "threads",
        "samples/s",
        "per CPU s",
        "first batch s",
        "memory MB",
        "MB",
    )
    measured: dict[Case, Measured] = {}

    def row(
        name: str, order: str, workers: int, result: Measured, disk: float, threads: int = 1
    ) -> None:
        measured[name, order, workers, threads] = result
        if "error" in result:
            cells = [result["error"], "", "", ""]
        else:
            cpu, memory = result.get("samples_cpu_s"), result.get("memory_mb")
            cells = [
                f"{result['samples_s']:.0f}", "" if cpu is None else f"{cpu:.0f}",
                f"{result['first_s']:.2f}", "" if memory is None else f"{memory:.0f}",
            ]  # fmt: skip
        case = [name, order, str(workers), str(threads), *cells]
        table.add_row(*case, f"{disk:.1f}")
        console.print(" | ".join(case), style="dim")

    decoding = {"JPEG": ("jpeg", True), "H.264": ("h264", False), "H.264 to RGB": ("h264", True)}
    limits: dict[str, list[Measured]] = {name: [] for name in decoding}

    def measure_limits() -> None:
        for name, (encoding, rgb) in decoding.items():
            limits[name].append(in_child(lambda e=encoding, r=rgb: bare(folder, e, r, seconds / 2)))

    measure_limits()
    for encoding in ("jpeg", *GOPS):
        for order in ("random", "block shuffle", "sequential"):
            if encoding == "h264-gop2" and order != "random":
                continue
            for workers, threads in ((0, 1), (0, 2), (1, 1), (2, 1)):
                if order == "sequential" and (workers, threads) != (0, 1):
                    continue
                result = in_child(
                    lambda e=encoding, o=order, w=workers, t=threads: mmdata_reader(
                        folder / e, o, w, t, seconds
                    )
                )
                row(
                    f"mmdata {encoding}",
                    order,
                    workers,
                    result,
                    size_mb(folder / encoding),
                    threads,
                )
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
    if rows:
        result = in_child(lambda: long_signals(folder / f"rows_{rows}.h5", rows, seconds / 2))
        console.print(
            f"one episode of {rows:,} rows of {DIM}: "
            + ", ".join(f"{how} {result[how]:.0f} samples/s" for how in ("random", "block shuffle"))
            + f"; memory {result['memory_mb']:.0f} MB"
        )
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
    measured: dict[Case, Measured],
    bare_cpu: dict[str, float],
    folder: Path,
    console: Console,
) -> None:
    def cpu(name: str, order: str) -> float:
        return float(measured[name, order, 0, 1].get("samples_cpu_s", float("nan")))

    jpeg, block = cpu("mmdata jpeg", "random"), cpu("mmdata h264", "block shuffle")
    console.print(
        f"by CPU time: random JPEG {2 * jpeg / bare_cpu['JPEG']:.0%} of bare JPEG decoding; block "
        f"shuffle H.264 {2 * block / bare_cpu['H.264 to RGB']:.0%} of decoding to RGB, "
        f"{2 * block / bare_cpu['H.264']:.0%} of decoding without conversion; H.264 is "
        f"{size_mb(folder / 'jpeg') / size_mb(folder / 'h264'):.1f}x smaller than JPEG 95"
    )
    for workers, threads in ((0, 1), (0, 2), (1, 1), (2, 1)):
        peer = measured["LeRobotDataset h264", "random", workers, 1]
        if "error" in peer:
            continue
        parts = []
        for name, order in (
            ("jpeg", "random"), ("h264", "random"), ("h264-gop2", "random"),
            ("h264", "block shuffle"),
        ):  # fmt: skip
            mine = measured[f"mmdata {name}", order, workers, threads]
            part = f"{name} {order} {mine.get('samples_s', 0) / peer['samples_s']:.1f}x"
            if workers == 0 and threads == 1:
                part += (
                    f" ({mine.get('samples_cpu_s', 0) / peer['samples_cpu_s']:.1f}x by CPU time)"
                )
            parts.append(part)
        console.print(
            f"against LeRobotDataset with as many workers, {workers} workers, {threads} threads: "
            + ", ".join(parts)
        )


if __name__ == "__main__":
    main()
