"""What `loader.py` measures of mmdata itself, and the bare decoding that bounds it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from loader_data import CAMERAS, DIM, RATE_HZ, STEPS
from loader_peers import BATCH, Measured, cpu_s, rate

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


def spec(images: bool = True) -> SampleSpec:
    """Per tick of the state: two frames (on demand), a state and 16 steps of actions."""
    keys: dict[str, Any] = {c: {"stream": c} for c in CAMERAS} if images else {}
    keys["state"] = {"stream": "state"}
    keys["action"] = {
        "stream": "action", "at": {"steps": STEPS, "rate_hz": RATE_HZ}, "target": True,
    }  # fmt: skip
    return SampleSpec.model_validate({"timeline": {"reference_stream": "state"}, "keys": keys})


def order_of(dataset: EpisodeDataset, name: str) -> Order:
    """random, block shuffle or sequential."""
    if name == "random":
        return Shuffle(len(dataset), 1)
    if name == "block shuffle":
        return BlockShuffle(dataset.counts, dataset.block_size(2), 4, 1)
    return Sequential(len(dataset))


def batches(dataset: EpisodeDataset, order: Order, workers: int) -> Iterator[int]:
    """Sizes of the batches of epoch after epoch."""
    epoch = 0
    if workers == 0:
        sampler = BatchSampler(order, BATCH)
        while True:
            sampler.set_epoch(epoch)
            for batch in iterate(dataset, sampler):
                yield len(batch["tick"])
            epoch += 1
    from mmdata.loaders.torch import EpisodeLoader

    loader = EpisodeLoader(dataset, order, BATCH, workers=workers)
    while True:
        loader.set_epoch(epoch)
        for batch in loader:
            yield len(batch["tick"])
        epoch += 1


def images(folder: Path, order: str, workers: int, threads: int, seconds: float) -> Measured:
    """Samples with images; threads decode in each worker, or in the one process."""
    begin = time.perf_counter()
    dataset = EpisodeDataset(folder, spec(), threads=threads)
    made = order_of(dataset, order)
    opened = time.perf_counter() - begin
    result = rate(batches(dataset, made, workers), seconds)
    result["first_s"] += opened
    return result


def memory_of_epochs(folder: Path, order: str, workers: int, epochs: int) -> Measured:
    """Resident memory, in MB, of this process and of each worker, ten times over some epochs.

    Pages that processes share count in each of them.
    """
    dataset = EpisodeDataset(folder, spec())
    made = order_of(dataset, order)
    per_epoch = -(-len(dataset) // BATCH)
    at = set(np.linspace(2, epochs * per_epoch - 1, 10).astype(int).tolist())
    rows: list[list[float]] = []
    for n, _ in enumerate(batches(dataset, made, workers)):
        if n in at:
            rows.append([resident_mb(), *(resident_mb(p) for p in _children())])
        if n >= max(at):
            break
    return {"resident_mb": [[round(r[k]) for r in rows] for k in range(min(map(len, rows)))]}


def resident_mb(process: int | str = "self") -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(p) for p in text.split()]


def frames_of(folder: Path, order: str) -> Iterator[int]:
    """Numbers of frames read in one process with one thread, epoch after epoch."""
    dataset = EpisodeDataset(folder, spec(), threads=1)
    for samples in batches(dataset, order_of(dataset, order), 0):
        yield len(CAMERAS) * samples


def bare(folder: Path, encoding: str, rgb: bool) -> Iterator[int]:
    """Numbers of frames decoded from memory in one thread, converted to the same RGB if `rgb`.

    Each goes to memory that the one before has left, so it is in the processor's cache.
    """
    with open_episode(next((folder / encoding).glob("*.h5"))) as episode:
        stream = episode.streams["cam0"]
        packets = [stream.encoded(i) for i in range(len(stream))]
    while encoding == "jpeg":
        for data in packets:
            simplejpeg.decode_jpeg(data)
            yield 1
    while True:
        context = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        reformatter = av.video.reformatter.VideoReformatter()
        for data in packets:
            for frame in context.decode(av.Packet(data)):
                if rgb:
                    reformatter.reformat(frame, format="gbrp", threads=1)
                yield 1


def signals(folder: Path, seconds: float) -> Measured:
    """Samples without images in one process: one by one, and in batches of 256."""
    dataset = EpisodeDataset(folder, spec(images=False))
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()

    def one_by_one() -> Iterator[int]:
        while True:
            for n in order:
                dataset[n]
            yield len(order)

    def batched() -> Iterator[int]:
        sampler, epoch = BatchSampler(Shuffle(len(dataset)), 256), 0
        while True:
            sampler.set_epoch(epoch)
            for batch in iterate(dataset, sampler):
                yield len(batch["tick"])
            epoch += 1

    return {"single": rate(one_by_one(), seconds), "batched": rate(batched(), seconds)}


def write_many(folder: Path, episodes: int) -> None:
    """Many small episodes of 60 ticks."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps = 10**18 + np.arange(60, dtype=np.int64) * 33_333_333
    for e in range(episodes):
        path = folder / f"e_{e}.h5"
        if path.exists():
            continue
        if e >= 20:
            shutil.copyfile(folder / f"e_{e % 20}.h5", path)
            continue
        with EpisodeWriter(path) as writer:
            rows = np.full((60, DIM), e, np.float32)
            writer.append("state", stamps, {"data": rows})
            writer.append("action", stamps, {"data": rows})


def open_many(folder: Path, workers: int) -> Measured:
    """Opening the episodes of a folder: seconds of time, and of CPU of all processes."""
    begin, used = time.perf_counter(), cpu_s()
    dataset = EpisodeDataset(folder, spec(images=False), workers=workers)
    return {
        "seconds": time.perf_counter() - begin, "cpu_s": cpu_s() - used,
        "samples": len(dataset), "episodes": len(dataset.episodes),
    }  # fmt: skip


def many_over_an_epoch(folder: Path) -> Measured:
    """Memory, in MB, over an epoch of a folder of many episodes, most of which cannot be held."""
    dataset = EpisodeDataset(folder, spec(images=False), episode_bytes=16 << 20)
    sampler = BatchSampler(BlockShuffle(dataset.counts, 60, 16), 240)
    held = []
    for at, _ in enumerate(iterate(dataset, sampler)):
        if at % max(1, len(sampler) // 10) == 0:
            held.append(round(resident_mb()))
    return {"held_mb": held}


def write_rows(path: Path, rows: int) -> None:
    """One episode of one long signal at 1 kHz."""
    rng = np.random.default_rng(0)
    with EpisodeWriter(path) as writer:
        for first in range(0, rows, 1 << 17):
            k = np.arange(first, min(first + (1 << 17), rows), dtype=np.int64)
            values = rng.standard_normal((len(k), DIM)).astype(np.float32)
            writer.append("state", 10**18 + k * 1_000_000, {"data": values})


def long_signal(path: Path, seconds: float) -> Measured:
    """Windows of a signal too long to be held: samples/s in batches of 64, one process."""
    keys = {
        "state": {"stream": "state"},
        "action": {"stream": "state", "at": {"steps": STEPS, "rate_hz": 100}, "target": True},
    }
    asked = SampleSpec.model_validate({"timeline": {"rate_hz": 100}, "keys": keys})
    dataset = EpisodeDataset([path], asked)
    before = resident_mb()
    orders: dict[str, Callable[[], Order]] = {
        "random": lambda: Shuffle(len(dataset)),
        "block shuffle": lambda: BlockShuffle(dataset.counts, 4096, 4),
    }
    result: Measured = {}
    for how, order in orders.items():
        sizes = (len(b["tick"]) for b in iterate(dataset, BatchSampler(order(), 64)))
        result[how] = rate(sizes, seconds)["samples_s"]
    return result | {"memory_mb": max(0.0, resident_mb() - before)}
