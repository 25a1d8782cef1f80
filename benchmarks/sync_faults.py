"""Fault bench of the synchronisation checks: factorial injection into simulated recordings.

    python benchmarks/sync_faults.py [--seeds 12] [--stamp-seeds 300] [--cross-seeds 4] [--drives 6]
                                     [--first 1000] [--json FILE]
    python benchmarks/sync_faults.py --speed

Prints, per fault: detection rate, |error| p50/p95, abstention rate and sigma calibration, and the
false alarms on clean recordings. A fault counts as detected where the finding that speaks of it
FAILED, or the ledger holds its number; a content offset counts as answered where the ledger gives
one. Sigma is calibrated when about 95 % of the errors lie within two sigmas. Crossed faults are all
256 combinations of four sizes of regressions, duplicates, loss and skew in one stream; --speed
times ten million stamps and the content of a minute with two cameras.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.checks import Context, Severity, Status, run_checks
from mmdata.simulate import SimEpisode, StreamFaults, drive, inject, pick_place
from mmdata.sync.assess import assess
from mmdata.sync.clockmap import fit_clock
from mmdata.sync.health import stamp_health
from mmdata.sync.labels import Observation, label_offset
from mmdata.sync.ledger import Ledger

MS = 1_000_000
OFFSETS_MS = (0, 5, 20, 50, 100, 200)
STREAMS = (
    "camera_front", "camera_wrist", "joint_states", "eef_pose", "command_eef_pose", "imu", "wrench",
    "audio",
)  # fmt: skip


@dataclass
class Cell:
    """Tally of one kind of fault."""

    trials: int = 0
    detected: int = 0
    abstained: int = 0
    errors: list[float] = field(default_factory=list)
    scaled: list[float] = field(default_factory=list)

    def row(self, name: str, unit: str) -> list[str]:
        def number(q: float) -> str:
            return f"{np.percentile(np.abs(self.errors), q):.2f}" if self.errors else "-"

        within = np.mean(np.abs(self.scaled) <= 2) if self.scaled else None
        return [
            name,
            str(self.trials),
            f"{self.detected / self.trials:.1%}" if self.trials else "-",
            f"{self.abstained / self.trials:.1%}" if self.trials else "-",
            number(50),
            number(95),
            unit,
            "-" if within is None else f"{within:.1%}",
        ]


Cells = dict[str, Cell]


def content_cell(cells: Cells, name: str, pair: Any, true_ms: float) -> None:
    """Tally an offset of the ledger against the truth."""
    cell = cells[name]
    cell.trials += 1
    if pair is None or pair.offset_ms is None:
        cell.abstained += 1
        return
    error = pair.offset_ms - true_ms
    cell.errors.append(error)
    cell.scaled.append(error / pair.sigma_ms)
    # Detected: the interval of two sigmas leaves zero out; for no offset, it holds zero.
    away = abs(pair.offset_ms) > 2 * pair.sigma_ms
    cell.detected += away if true_ms else not away


def content_bench(clean: SimEpisode, untouched: Ledger, seed: int, cells: Cells) -> None:
    """One camera late in both clocks, every camera in turn; audio early; joints late."""
    cases: list[tuple[str, str, str]] = [
        ("camera_front", "eef_pose", "static camera"),
        ("camera_wrist", "eef_pose", "wrist camera"),
        ("audio", "wrench", "audio-contact"),
        ("joint_states", "eef_pose", "joints"),
        ("imu", "eef_pose", "gyroscope"),
    ]
    # Streams are independent of each other, so one offset for all of them at once is one trial per
    # stream; the reference stays true.
    for size in OFFSETS_MS:
        offset = size if seed % 2 else -size
        faults = {s: StreamFaults(offset_ns=offset * MS) for s, _, _ in cases if s in clean.raw}
        ledger = assess(inject(clean, faults, seed).to_episode()) if offset else untouched
        for stream, reference, name in cases:
            content_cell(cells, f"{name}, {size} ms", ledger.pair(reference, stream), offset)
        # Cameras and sound are off by as much, so picture against sound is not.
        content_cell(cells, "audio-picture, 0 ms", ledger.pair("camera_front", "audio"), 0)
        content_cell(
            cells, "camera against camera, 0 ms", ledger.pair("camera_front", "camera_wrist"), 0
        )


def response_bench(clean: SimEpisode, seed: int, cells: Cells) -> None:
    """The robot's own lag, and the same command stamped 100 ms late: a response before it."""
    lags = {}
    for name, offset in (("as it is", 0), ("command 100 ms late", 100)):
        faults = {"command_eef_pose": StreamFaults(offset_ns=offset * MS)}
        episode = inject(clean, faults, seed).to_episode() if offset else clean.to_episode()
        pair = assess(episode).pair("command_eef_pose", "eef_pose")
        cell = cells[f"command-response, {name}"]
        cell.trials += 1
        cell.abstained += pair is None or pair.offset_ms is None
        cell.detected += pair is not None and pair.verdict == ("FAILED" if offset else "PASSED")
        lags[offset] = pair.offset_ms if pair is not None else None
    if lags[0] is not None and lags[100] is not None:
        # The robot's lag is not known, so the error is that of the difference.
        cells["command-response, command 100 ms late"].errors.append(lags[100] - lags[0] + 100)


def drive_bench(seed: int, cells: Cells, alarms: list[str]) -> None:
    """A camera that drives through the scene, on time and late, against the gyroscope."""
    clean = drive(
        seed=seed, duration_s=40, cameras=2,
        streams=["camera_front", "camera_front_left", "odometry", "imu"],
    )  # fmt: skip
    for size in (0, 80):
        offset = size if seed % 2 else -size
        faults = {c: StreamFaults(offset_ns=offset * MS) for c in clean.raw if "camera" in c}
        ledger = assess(inject(clean, faults, seed).to_episode() if size else clean.to_episode())
        for camera in ("camera_front", "camera_front_left"):
            pair = ledger.pair("imu", camera)
            content_cell(cells, f"driven {camera}, {size} ms", pair, offset)
        if not size:
            alarms += [f"drive {seed}: {text}" for text in false_alarms(clean, ledger)]


def cross_bench(clean: SimEpisode, seed: int, cells: Cells, target: str) -> None:
    """All 256 crossings of regressions, duplicates, loss and skew: each fault found, none added."""
    grid = itertools.product((0, 1, 3, 8), (0.0, 0.002, 0.01, 0.05), (0.0, 0.002, 0.01, 0.05),
                             (0, 50, 300, -300))  # fmt: skip
    for k, (back, again, lost, skew) in enumerate(grid):
        faults = StreamFaults(
            regressions=back, duplicate_fraction=again, drop_fraction=lost, skew_ppm=skew
        )
        raw = inject(clean, {target: faults}, seed * 256 + k)
        stream, truth = raw.raw[target], raw.truth["faults"][target]
        header, receive = stream.source_ns, stream.receive_ns
        assert header is not None
        health = stamp_health(header)
        counts = {
            "regressions": (health.regressions, back),
            "duplicates": (health.duplicates, truth.get("duplicated", 0)),
            "loss": (health.dropped or 0, truth.get("dropped", 0)),
        }
        for name, (found, true) in counts.items():
            cell = cells[f"crossed: {name}"]
            cell.trials += 1
            cell.detected += (found > 0) == (true > 0)
            cell.errors.append(found - true)
        fit = fit_clock(header, receive)
        cell = cells["crossed: skew"]
        cell.trials += 1
        error = fit.skew_ppm - (1 / (1 + skew * 1e-6) - 1) * 1e6
        cell.errors.append(error)
        cell.scaled.append(error / fit.skew_sigma_ppm)
        cell.detected += abs(error) <= max(3 * fit.skew_sigma_ppm, 5)
        cells["crossed: change of rate (none)"].trials += 1
        cells["crossed: change of rate (none)"].detected += bool(health.rate_changes)


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


def camera_bench(clean: SimEpisode, seed: int, cells: Cells) -> None:
    """Frames that repeat or are black."""
    for name, rule, faults in (
        ("1 s frozen", "SIG005", StreamFaults(frozen=30)),
        ("0.5 s black", "SIG006", StreamFaults(black=15)),
    ):
        episode = inject(clean, {"camera_front": faults}, seed).to_episode()
        found = run_checks(Context(episode, assess(episode).to_dict()), select=[rule])
        mine = [f for f in found if f.stream == "camera_front"]
        cells[name].trials += 1
        cells[name].detected += any(f.status is Status.FAILED for f in mine)
        cells[name].abstained += all(f.status is Status.NOT_ASSESSED for f in mine)


def stamp_faults() -> Iterator[tuple[str, StreamFaults]]:
    """Every kind of stamp fault at several sizes."""
    for skew in (20, 100, 300):
        yield f"skew {skew} ppm", StreamFaults(skew_ppm=skew)
    for drop in (0.001, 0.01, 0.05):
        yield f"drops {drop:.1%}", StreamFaults(drop_fraction=drop)
    for share in (0.001, 0.01):
        yield f"duplicates {share:.1%}", StreamFaults(duplicate_fraction=share)
    for count in (1, 5):
        yield f"regressions {count}", StreamFaults(regressions=count)
    for jitter in (2, 5):
        yield f"jitter {jitter} ms", StreamFaults(jitter_ns=jitter * MS)
    yield "rate halved midway", StreamFaults(rate_divisor=2)
    yield "gap 1.5 s", StreamFaults(gap_ns=1500 * MS)
    yield "late start 2 s", StreamFaults(late_start_ns=2000 * MS)
    yield "early end 2 s", StreamFaults(early_end_ns=2000 * MS)
    yield "header 100 ms ahead", StreamFaults(header_offset_ns=100 * MS)
    yield "received in bursts", StreamFaults(burst_ns=300 * MS)
    yield "stamps of 100 ms", StreamFaults(quantise_ns=100 * MS)
    yield "computed stamps", StreamFaults(perfect=True)
    yield "offset 80 ms in both clocks, by stamps", StreamFaults(offset_ns=80 * MS)


RULES: dict[str, tuple[str, ...]] = {
    "skew": ("TIM011", "TIM015"),
    "drops": ("TIM003", "TIM004"),
    "duplicates": ("TIM002",),
    "regressions": ("TIM001",),
    "jitter": ("TIM001", "TIM005"),
    "rate": ("TIM021",),
    "gap": ("TIM003",),
    "late": ("TIM013",),
    "early": ("TIM013",),
    "header": ("TIM007", "TIM008"),
    "received": ("TIM009",),
    "stamps": ("TIM014", "TIM002"),
    "computed": ("TIM006",),
    "offset": ("TIM*",),
}


def stamp_bench(clean: SimEpisode, seed: int, cells: Cells, target: str) -> None:
    """Faults that stamps show, in one stream; content is not looked at."""
    for name, faults in stamp_faults():
        spoiled = inject(clean, {target: faults}, seed)
        episode = spoiled.to_episode()
        ledger = assess(episode, content=False)
        found = run_checks(Context(episode, ledger.to_dict()), select=RULES[name.split()[0]])
        truth = spoiled.truth["faults"][target]
        if truth.get("dropped", 1) == 0 or truth.get("duplicated", 1) == 0:
            continue  # so small a share of so few samples hit none
        cell = cells[name]
        cell.trials += 1
        bad = (Status.FAILED, Status.NOT_ASSESSED) if "computed" in name else (Status.FAILED,)
        if name.startswith("skew"):
            mine = [f for f in found if f.stream == target and f.rule == "TIM011"]
            cell.abstained += any(f.status is Status.NOT_ASSESSED for f in mine)
        cell.detected += any(f.stream == target and f.status in bad for f in found)
        facts = next(s.facts for s in ledger.streams if s.name == target)
        measure(cell, name, faults, facts, truth, clean.raw[target])


def measure(
    cell: Cell, name: str, faults: StreamFaults, facts: Any, truth: dict[str, Any], raw: Any
) -> None:
    """Error of the number the ledger gives, where it gives one and the truth is known."""
    if name.startswith("skew"):
        fit = facts.get("clock_map")
        if fit is None:
            cell.abstained += 1
            return
        # The header runs fast, so the map back to the host runs slow by as much.
        true = (1 / (1 + faults.skew_ppm * 1e-6) - 1) * 1e6
        cell.errors.append(fit["skew_ppm"] - true)
        cell.scaled.append(cell.errors[-1] / fit["skew_sigma_ppm"])
    counted = {
        "drops": ("dropped", "dropped"),
        "duplicates": ("duplicates", "duplicated"),
        "regressions": ("regressions", "regressions"),
    }.get(name.split()[0])
    if counted and counted[1] in truth:
        known = truth[counted[1]]
        known = len(known) if isinstance(known, list) else known
        cell.errors.append(facts["sensor"].get(counted[0], 0) - known)


def false_alarms(clean: SimEpisode, ledger: Ledger) -> list[str]:
    """Failed errors and warnings of a clean recording."""
    found = run_checks(Context(clean.to_episode(), ledger.to_dict()))
    return [
        f"{f.rule} {f.stream}: {f.message}"
        for f in found
        if f.status is Status.FAILED and f.severity is not Severity.INFO
    ]


def hull_bench(trials: int) -> Cell:
    """Skew of a 60 s log at 30 Hz with delay 3 ms + Exp(2 ms) and 2 % spikes of 20-120 ms."""
    cell = Cell()
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        device = (np.arange(1800) * 33_333_333 + rng.normal(0, MS, 1800)).astype(np.int64)
        delay = 3e6 + rng.exponential(2e6, 1800)
        delay += np.where(rng.random(1800) < 0.02, rng.uniform(20e6, 120e6, 1800), 0)
        skew = float(rng.choice([0, 20, 100])) * float(rng.choice([-1, 1]))
        fit = fit_clock(device, device + (device * skew * 1e-6 + delay).astype(np.int64))
        cell.trials += 1
        cell.detected += abs(fit.skew_ppm - skew) <= 5
        cell.errors.append(fit.skew_ppm - skew)
        cell.scaled.append(cell.errors[-1] / fit.skew_sigma_ppm)
    return cell


def label_bench(trials: int) -> Cell:
    """One camera, 120 boxes, 2 px noise, 5 % gross mistakes, offsets of 0-100 ms."""
    cell = Cell()
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        true = rng.uniform(0, 0.1)
        velocity = rng.normal(0, 1, (120, 2)) * rng.uniform(60, 300) * [1.0, 0.3]
        residual = rng.normal(0, 2, (120, 2)) + rng.normal(0, 3, 2) - true * velocity
        residual[rng.random(120) < 0.05] += rng.normal(0, 60, 2)
        found = label_offset(Observation(residual, velocity))
        cell.trials += 1
        if found.offset_ns is None or found.sigma_ns is None:
            cell.abstained += 1
            continue
        cell.errors.append(found.offset_ns / 1e6 - true * 1e3)
        cell.scaled.append(cell.errors[-1] / (found.sigma_ns / 1e6))
        cell.detected += abs(cell.errors[-1]) <= 5
    return cell


def print_table(title: str, rows: list[list[str]]) -> None:
    head = ["fault", "trials", "detected", "abstained", "|err| p50", "p95", "unit", "in 2 sigma"]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(row, widths, strict=True))))  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=12, help="recordings with cameras")
    parser.add_argument("--stamp-seeds", type=int, default=300, help="recordings without")
    parser.add_argument("--cross-seeds", type=int, default=4, help="of them, with crossed faults")
    parser.add_argument("--drives", type=int, default=6, help="drives with two cameras")
    parser.add_argument("--speed", action="store_true", help="time it instead")
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    parser.add_argument("--json", type=Path, help="write the tallies")
    options = parser.parse_args(argv)
    if options.speed:
        speed()
        return
    began = time.monotonic()
    content: Cells = defaultdict(Cell)
    stamps: Cells = defaultdict(Cell)
    alarms: list[str] = []
    clean_count = alarmed = 0
    timed: list[float] = []
    for k in range(options.seeds + options.stamp_seeds):
        seed = options.first + k
        with_cameras = k < options.seeds
        chosen = STREAMS if with_cameras else tuple(s for s in STREAMS if "camera" not in s)
        clean = pick_place(seed=seed, streams=chosen)
        start = time.monotonic()
        untouched = assess(clean.to_episode())
        timed += [time.monotonic() - start] if with_cameras else []
        wrong = false_alarms(clean, untouched)
        clean_count += 1
        alarmed += bool(wrong)
        alarms += [f"seed {seed}: {text}" for text in wrong]
        if with_cameras:
            content_bench(clean, untouched, seed, content)
            camera_bench(clean, seed, content)
            response_bench(clean, seed, content)
        target = "wrench" if k % 2 else "eef_pose"
        stamp_bench(clean, seed, stamps, target)
        if k < options.cross_seeds:
            cross_bench(clean, seed, stamps, target)
        print(f"\r{k + 1} of {options.seeds + options.stamp_seeds}", end="", file=sys.stderr)
    for seed in range(options.first, options.first + options.drives):
        before = len(alarms)
        drive_bench(seed, content, alarms)
        clean_count += 1
        alarmed += len(alarms) > before
    units: Callable[[str], str] = lambda n: "ppm" if "skew" in n else "samples"  # noqa: E731
    extra = {
        "hull, 60 s log": (hull_bench(200), "ppm"),
        "labels, 120 boxes": (label_bench(200), "ms"),
    }
    print_table("Offsets by content", [c.row(n, "ms") for n, c in content.items()])
    print_table(
        "Faults in stamps", [c.row(n, units(n) if c.errors else "") for n, c in stamps.items()]
    )
    print_table("Arrays alone (detected: within 5 ppm, 5 ms)",
                [c.row(n, unit) for n, (c, unit) in extra.items()])  # fmt: skip
    print(f"\nFalse alarms: {alarmed} of {clean_count} clean recordings")
    for text in alarms:
        print(f"  {text}")
    if timed:
        print(f"Assessment of a recording with two cameras: median {np.median(timed):.1f} s")
    print(f"Bench took {time.monotonic() - began:.0f} s")
    if options.json is not None:
        cells = {**content, **stamps, **{n: c for n, (c, _) in extra.items()}}
        options.json.write_text(json.dumps({n: vars(c) for n, c in cells.items()}, default=float))


if __name__ == "__main__":
    main()
