"""Throughput of a batch with one process, with two, and with Ray.

    python benchmarks/batch.py [LOG ...] [--copies 6] [--repeat 3] [--jobs 1 2]

Each engine converts the same logs (copies of LOG; without it, of a simulated pick-and-place and of
10 s of a generated log with a LiDAR) by the command line, in turn, so that all meet the same load.
The time holds everything: starting Python, the workers and Ray. Medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MMDATA = str(Path(sys.executable).with_name("mmdata"))


def sources(folder: Path, logs: list[Path], copies: int) -> float:
    """Fill a folder with logs; returns its size in MB."""
    if not logs:
        from ingest import write_long_log

        from mmdata.simulate import pick_place, write_mcap

        logs = [folder.parent / "simulated", folder.parent / "generated"]
        write_mcap(logs[0], pick_place(seed=0))
        write_long_log(logs[1], 10)
    for log in logs:
        for k in range(copies):
            target = folder / f"{log.stem}_{k}"
            if log.is_dir():
                shutil.copytree(log, target)
            else:
                target = target.with_suffix(log.suffix)
                folder.mkdir(exist_ok=True)
                shutil.copy(log, target)
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def seconds(logs: Path, out: Path, options: list[str]) -> float:
    """Wall time of one batch."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    done = subprocess.run(
        [MMDATA, "convert", str(logs), "-o", str(out), *options], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr[-2000:]}\na batch failed")
    return time.perf_counter() - began


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="*", type=Path)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    engines = {f"-j {n}": ["-j", str(n)] for n in arguments.jobs}
    most = str(max(arguments.jobs))
    if importlib.util.find_spec("ray") is not None:
        engines[f"--engine ray -j {most}"] = ["--engine", "ray", "-j", most]
    else:
        print("Ray is left out: it is not installed (the ray extra)")
    with tempfile.TemporaryDirectory(prefix="mmdata-bench-") as scratch:
        logs = Path(scratch) / "logs"
        size = sources(logs, arguments.logs, arguments.copies)
        count = len(list(logs.iterdir()))
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f}; {count} logs, {size:.0f} MB, "
              f"medians of {arguments.repeat}")  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(arguments.repeat):
            for name, options in engines.items():
                times[name].append(seconds(logs, Path(scratch) / "out", options))
        first = statistics.median(next(iter(times.values())))
        for name, taken in times.items():
            median = statistics.median(taken)
            print(f"{name:20} {median:7.2f} s {size / median:7.0f} MB/s {first / median:6.2f}x")


if __name__ == "__main__":
    main()
