"""Fault bench of the synchronisation checks: factorial injection into simulated recordings.

    python benchmarks/sync_faults.py [--seeds 12] [--stamp-seeds 300] [--cross-seeds 4] [--drives 6]
                                     [--clean-seeds 0] [--arrays 200] [--first 1000] [--json FILE]
    python benchmarks/sync_faults.py --merge FILE...
    python benchmarks/sync_faults.py --speed

Prints, per fault: detection rate, |error| p50/p95, abstention rate and sigma calibration, and the
false alarms on clean recordings. What is detected and answered is said in sync_cases.py. Sigma is
calibrated when about 95 % of the errors lie within two sigmas. Crossed faults are all 256
combinations of four sizes of regressions, duplicates, loss and skew in one stream. A long bench can
be run in parts, each with its own --first, and printed as one with --merge; --speed times ten
million stamps and the content of a minute with two cameras.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import beta
from sync_cases import (
    MS,
    STREAMS,
    Cell,
    Cells,
    camera_bench,
    contact_bench,
    content_bench,
    cross_bench,
    drive_bench,
    false_alarms,
    hull_bench,
    label_bench,
    lidar_bench,
    response_bench,
    stamp_bench,
)

from mmdata.simulate import pick_place
from mmdata.sync.assess import assess
from mmdata.sync.health import stamp_health


def cells() -> Cells:
    return defaultdict(Cell)


@dataclass
class Tally:
    """Everything a run counted; runs over different seeds add up."""

    content: Cells = field(default_factory=cells)
    stamps: Cells = field(default_factory=cells)
    arrays: Cells = field(default_factory=cells)
    clean: int = 0
    alarmed: int = 0
    alarms: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def judge_clean(self, name: str, alarms: list[str]) -> None:
        self.clean += 1
        self.alarmed += bool(alarms)
        self.alarms += [f"{name}: {text}" for text in alarms]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self), default=lambda o: getattr(o, "__dict__", str(o))))

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Tally:
        total = cls()
        for path in paths:
            part = json.loads(path.read_text())
            for group in ("content", "stamps", "arrays"):
                for name, cell in part.pop(group).items():
                    getattr(total, group)[name].add(Cell(**cell))
            for name, value in part.items():
                setattr(total, name, getattr(total, name) + value)
        return total


def run(options: argparse.Namespace) -> Tally:
    """Recordings with cameras, recordings without, drives, and arrays."""
    tally = Tally()
    for k in range(options.seeds + options.stamp_seeds):
        seed = options.first + k
        with_cameras = k < options.seeds
        chosen = STREAMS if with_cameras else tuple(s for s in STREAMS if "camera" not in s)
        clean = pick_place(seed=seed, streams=chosen)
        start = time.monotonic()
        untouched = assess(clean.to_episode())
        tally.seconds += [time.monotonic() - start] if with_cameras else []
        tally.judge_clean(f"seed {seed}", false_alarms(clean, untouched))
        if with_cameras:
            content_bench(clean, untouched, seed, tally.content)
            camera_bench(clean, seed, tally.content)
            response_bench(clean, seed, tally.content)
            contact_bench(seed, tally.content)
        target = "wrench" if k % 2 else "eef_pose"
        stamp_bench(clean, seed, tally.stamps, target)
        if k < options.cross_seeds:
            cross_bench(clean, seed, tally.stamps, target)
        print(f"\r{k + 1} of {options.seeds + options.stamp_seeds}", end="", file=sys.stderr)
    for seed in range(options.first, options.first + options.drives):
        tally.judge_clean(f"drive {seed}", drive_bench(seed, tally.content))
        tally.judge_clean(f"drive {seed} with LiDAR", lidar_bench(seed, tally.content))
        print(f"\rdrive {seed}", end="", file=sys.stderr)
    for seed in range(options.first, options.first + options.clean_seeds):
        clean = pick_place(seed, streams=[s for s in STREAMS if "camera" not in s])
        tally.judge_clean(f"seed {seed}", false_alarms(clean, assess(clean.to_episode())))
    seeds = range(options.first, options.first + options.arrays)
    if seeds:
        tally.arrays["hull, 60 s log"] = hull_bench(seeds)
        tally.arrays["labels, 120 boxes"] = label_bench(seeds)
    return tally


def speed() -> None:
    """Ten million stamps; the content of a minute with two cameras."""
    rng = np.random.default_rng(0)
    stamps = np.arange(10_000_000) * MS + rng.integers(0, MS // 20, 10_000_000)
    lossy = stamps[rng.random(len(stamps)) > 0.05]
    for name, values in (("clean", stamps), ("5 % lost", lossy)):
        wall, cpu = time.monotonic(), time.process_time()
        stamp_health(values)
        print(
            f"{len(values):,} stamps, {name}: {time.monotonic() - wall:.2f} s wall, "
            f"{time.process_time() - cpu:.2f} s of CPU"
        )
    clean = pick_place(seed=1, duration_s=60, streams=STREAMS)
    wall, cpu = time.monotonic(), time.process_time()
    assess(clean.to_episode())
    print(
        f"60 s with two cameras: {time.monotonic() - wall:.1f} s wall, "
        f"{time.process_time() - cpu:.1f} s of CPU"
    )


def print_table(title: str, rows: list[list[str]]) -> None:
    head = ["fault", "trials", "detected", "abstained", "|err| p50", "p95", "unit", "in 2 sigma"]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(row, widths, strict=True))))  # fmt: skip


def report(tally: Tally) -> None:
    def unit(name: str, cell: Cell) -> str:
        return ("ppm" if "skew" in name or "hull" in name else "samples") if cell.errors else ""

    print_table("Offsets by content", [c.row(n, "ms") for n, c in tally.content.items()])
    print_table("Faults in stamps", [c.row(n, unit(n, c)) for n, c in tally.stamps.items()])
    print_table(
        "Arrays alone (detected: within 5 ppm, 5 ms)",
        [c.row(n, "ms" if "labels" in n else "ppm") for n, c in tally.arrays.items()],
    )
    # Rule of Clopper and Pearson, one-sided: what the rate could be with 95 % confidence.
    bound = beta.ppf(0.95, tally.alarmed + 1, tally.clean - tally.alarmed) if tally.clean else 1.0
    print(
        f"\nFalse alarms: {tally.alarmed} of {tally.clean} clean recordings; "
        f"below {bound:.2%} with 95 % confidence"
    )
    for text in tally.alarms:
        print(f"  {text}")
    if tally.seconds:
        print(
            f"Assessment of a recording with two cameras: median {np.median(tally.seconds):.1f} s"
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=12, help="recordings with cameras")
    parser.add_argument("--stamp-seeds", type=int, default=300, help="recordings without")
    parser.add_argument("--cross-seeds", type=int, default=4, help="of them, with crossed faults")
    parser.add_argument("--drives", type=int, default=6, help="drives with two cameras or a LiDAR")
    parser.add_argument("--clean-seeds", type=int, default=0, help="only for false alarms")
    parser.add_argument("--arrays", type=int, default=200, help="trials on arrays alone")
    parser.add_argument("--speed", action="store_true", help="time it instead")
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    parser.add_argument("--json", type=Path, help="write the tallies")
    parser.add_argument("--merge", type=Path, nargs="+", help="print the tallies of earlier runs")
    options = parser.parse_args(argv)
    if options.speed:
        speed()
        return
    began = time.monotonic()
    tally = Tally.read(options.merge) if options.merge else run(options)
    report(tally)
    print(f"Bench took {time.monotonic() - began:.0f} s")
    if options.json is not None:
        tally.write(options.json)


if __name__ == "__main__":
    main()
