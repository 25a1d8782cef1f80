"""Reading for training, side by side: the same pixels, states and actions for every format.

    python benchmarks/loader.py [--seconds 8] [--peer LEROBOT_VENV/bin/python] [--folder DIR]
    python benchmarks/loader.py --folder DIR --parts jpeg,versus     # some parts; others are kept

A sample is two 640x480 RGB frames, a 14-dim state and 16 steps of 14-dim actions, all as arrays.
Parts: `data` writes what the others read; `jpeg` and `video` are mmdata's readers in every order,
in one process with one and two threads and with one and two workers; `versus` is LeRobotDataset in
its own environment with 0, 1 and 2 workers, each beside mmdata with as many; `peers` are robomimic-
and Isaac-style HDF5, plain h5py and WebDataset-style shards; `signals` leaves images out; `memory`
watches every process over epochs; `many` opens ten thousand episodes. `jpeg` and `video` also take
one thread in turns with bare decoding, second by second. Results lie in DIR/results.json, the table
is made of all that is there; what failed or is absent says so in its place.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import loader_ours as ours
import numpy as np
from loader_data import GOPS, write_all
from loader_peers import Measured, hdf5_reader, lerobot, raw_h5py_reader, tar_reader
from loader_report import report
from loader_turns import in_turns
from rich.console import Console

#: Worker processes, and threads in each of them (or in the one process).
WAYS = ((0, 1), (0, 2), (1, 1), (2, 1))
#: Turns of one second in which a reader and bare decoding are compared.
TURNS = 15


@dataclass
class Bench:
    """The settings of a run, and what it has found so far: part -> facts."""

    folder: Path
    arguments: argparse.Namespace
    console: Console
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return float(self.arguments.seconds)

    def rows(self, cases: Iterable[tuple[list[Any], Callable[[], Measured]]]) -> list[Measured]:
        """Measure each case in a fresh fork: (reader, order, workers, threads, MB on disk)."""
        rows = []
        for (reader, order, workers, threads, disk), run in cases:
            row = {"reader": reader, "order": order, "workers": workers, "threads": threads}
            row |= in_child(run) | {"disk_mb": disk}
            rows.append(row)
            self.console.print(" ".join(f"{k}={_short(v)}" for k, v in row.items()), style="dim")
        return rows

    def turns(self, kind: str, orders: Iterable[str], limits: dict[str, bool]) -> Measured:
        """Reading in some orders, in turns with bare decoding (name -> whether to RGB)."""
        readers: dict[str, Callable[[], Iterator[int]]] = {
            name: partial(ours.bare, self.folder, kind, rgb) for name, rgb in limits.items()
        }
        readers |= {order: partial(ours.frames_of, self.folder / kind, order) for order in orders}
        return in_turns(readers, TURNS, 1.0)


def in_child(run: Callable[[], Measured]) -> Measured:
    """Run in a fresh fork, so that memory is the reader's own; an error becomes its result."""
    import resource

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = ours.resident_mb()
            result = run()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            result.setdefault("memory_mb", max(0.0, peak - before))
        except BaseException as error:  # told in the table instead of a number
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "the reader died"}


# -- parts -----------------------------------------------------------------------------------


def data(bench: Bench) -> Measured:
    """Write what is not there yet."""
    a = bench.arguments
    if not (bench.folder / "raw").exists():
        write_all(bench.folder, a.episodes, a.frames)
    if a.many:
        ours.write_many(bench.folder / f"many_{a.many}", a.many)
    if a.rows and not _long(bench).exists():
        ours.write_rows(_long(bench), a.rows)
    lerobot(bench.folder, a.peer, 0, 0.1)  # writes its dataset; what fails is told by `versus`
    kinds = ("jpeg", *GOPS, "robomimic", "isaac", "tar", "lerobot")
    return {"disk_mb": {kind: size_mb(bench.folder / kind) for kind in kinds}}


def _of_mmdata(bench: Bench, kinds: Iterable[str], cases: Any) -> list[Measured]:
    return bench.rows(
        (
            [f"mmdata {kind}", order, workers, threads, size_mb(bench.folder / kind)],
            partial(ours.images, bench.folder / kind, order, workers, threads, bench.seconds),
        )
        for kind in kinds
        for order, workers, threads in cases
    )


def jpeg(bench: Bench) -> Measured:
    """mmdata's JPEG files."""
    turns = bench.turns("jpeg", ["random"], {"JPEG": True})
    cases = [(order, *way) for order in ("random", "block shuffle") for way in WAYS]
    return {"rows": _of_mmdata(bench, ["jpeg"], [*cases, ("sequential", 0, 1)]), "turns": turns}


def video(bench: Bench) -> Measured:
    """mmdata's H.264 files."""
    limits = {"H.264 to RGB": True, "H.264": False}
    turns = bench.turns("h264", ["block shuffle", "sequential"], limits)
    cases = [("block shuffle", *way) for way in WAYS]
    cases += [("sequential", 0, 1), ("random", 0, 1), ("random", 0, 2)]
    rows = _of_mmdata(bench, ["h264"], cases)
    rows += _of_mmdata(bench, ["h264-gop2"], [("random", *way) for way in WAYS])
    return {"rows": rows, "turns": turns}


def versus(bench: Bench) -> Measured:
    """LeRobotDataset, and mmdata with as many workers right after it."""
    rows: list[Measured] = []
    for workers, threads in ((0, 2), (1, 1), (2, 1)):
        result = lerobot(bench.folder, bench.arguments.peer, workers, bench.seconds)
        row = {"reader": "LeRobotDataset h264", "order": "random", "workers": workers, "threads": 1}
        rows.append(row | result | {"disk_mb": result.get("bytes", 0) / 1e6})
        bench.console.print(str(rows[-1]), style="dim")
        rows += _of_mmdata(bench, ["jpeg", "h264-gop2"], [("random", workers, threads)])
        rows += _of_mmdata(bench, ["h264"], [("block shuffle", workers, threads)])
    return {"rows": rows}


def peers(bench: Bench) -> Measured:
    """Other layouts, read as their users read them."""
    folder, seconds = bench.folder, bench.seconds
    readers: dict[str, tuple[str, str, Callable[[], Measured]]] = {
        "raw h5py, our JPEG file": (
            "jpeg", "random", lambda: raw_h5py_reader(folder / "jpeg", seconds),
        ),
        "robomimic-style HDF5": (
            "robomimic", "random", lambda: hdf5_reader(folder / "robomimic" / "demos.h5", seconds),
        ),
        "Isaac-style HDF5": (
            "isaac", "random", lambda: hdf5_reader(folder / "isaac" / "demos.h5", seconds),
        ),
        "WebDataset-style tar": ("tar", "shards", lambda: tar_reader(folder / "tar", seconds)),
    }  # fmt: skip
    return {
        "rows": bench.rows(
            ([name, order, 0, 1, size_mb(folder / kind)], reader)
            for name, (kind, order, reader) in readers.items()
        )
    }


def signals(bench: Bench) -> Measured:
    """Samples without images, and windows of one long signal."""
    found = {"short": in_child(partial(ours.signals, bench.folder / "jpeg", bench.seconds / 2))}
    if bench.arguments.rows:
        found["long"] = in_child(partial(ours.long_signal, _long(bench), bench.seconds / 2))
    return found


def memory(bench: Bench) -> Measured:
    """Resident memory of every process over three epochs with images."""
    cases = [("jpeg", "random"), ("h264", "block shuffle")]
    return {
        f"{kind}, {order}, {workers} workers": in_child(
            partial(ours.memory_of_epochs, bench.folder / kind, order, workers, 3)
        )
        for kind, order in cases
        for workers in (0, 2)
    }


def many(bench: Bench) -> Measured:
    """Opening many episodes: for the first time, again, and an epoch of them."""
    if not bench.arguments.many:
        return {}
    folder = bench.folder / f"many_{bench.arguments.many}"
    found: Measured = {}
    for name, workers in (("first", 0), ("first, 2 workers", 2)):
        for made in folder.glob("*.json"):
            made.unlink()
        found[name] = in_child(partial(ours.open_many, folder, workers))
    found["again"] = in_child(partial(ours.open_many, folder, 0))
    return found | {"epoch": in_child(partial(ours.many_over_an_epoch, folder))}


PARTS: dict[str, Callable[[Bench], Measured]] = {
    part.__name__: part for part in (data, jpeg, video, versus, peers, signals, memory, many)
}
#: Parts that read what `data` writes.
NEED_DATA = {part.__name__ for part in (jpeg, video, versus, peers, signals, memory)}


def run(bench: Bench, parts: Iterable[str]) -> None:
    """Run parts one after the other; one that fails tells its error and stops no other."""
    for name in parts:
        load, begin = os.getloadavg()[0], time.perf_counter()
        try:
            found = PARTS[name](bench)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        took = time.perf_counter() - begin
        bench.found[name] = found | {"load": load, "took_s": took, "seconds": bench.seconds}
        bench.console.print(f"part {name}: {took:.0f} s, load {load:.1f} before it")
        (bench.folder / "results.json").write_text(json.dumps(bench.found, indent=1))


def size_mb(path: Path) -> float:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6


def _long(bench: Bench) -> Path:
    return bench.folder / f"rows_{bench.arguments.rows}.h5"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="which, and in which order")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement")
    peer = Path(__file__).resolve().parents[2] / "peers/lerobot/bin/python"
    parser.add_argument("--peer", default=str(peer), help="Python of LeRobot's environment")
    parser.add_argument("--many", type=int, default=10_000, help="episodes of the opening test")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the long signal")
    parser.add_argument("--folder", type=Path, help="keep data and results here, and use them")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    cv2.setNumThreads(1)
    console = Console(width=120)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}, NumPy "
        f"{np.__version__}, OpenCV {cv2.__version__}, PyAV {av.__version__}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "data"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "jpeg").exists() and set(parts) & NEED_DATA:
            parts = ["data", *(p for p in parts if p != "data")]
        bench = Bench(folder, arguments, console)
        if (folder / "results.json").exists():
            bench.found = json.loads((folder / "results.json").read_text())
        run(bench, parts)
        report(bench.found, console)


if __name__ == "__main__":
    main()
