"""Trials of the fault bench: faults injected into one simulated recording, tallied by kind.

A fault counts as detected where the finding that speaks of it FAILED, or the ledger holds its
number; a content offset counts as answered where the ledger gives one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
    "camera_front", "camera_wrist", "joint_states", "eef_pose", "command_eef_pose",
    "command_gripper", "imu", "wrench", "tactile", "tf_base_hand", "audio",
)  # fmt: skip


@dataclass
class Cell:
    """Tally of one kind of fault."""

    trials: int = 0
    detected: int = 0
    abstained: int = 0
    errors: list[float] = field(default_factory=list)
    scaled: list[float] = field(default_factory=list)

    def add(self, other: Cell) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

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


def contact_bench(seed: int, cells: Cells) -> None:
    """Touch and sound against force, over several grasps."""
    clean = pick_place(seed, duration_s=40, streams=["eef_pose", "wrench", "tactile", "audio"])
    for size in OFFSETS_MS:
        offset = size if seed % 2 else -size
        faults = {"tactile": StreamFaults(offset_ns=offset * MS)}
        ledger = assess(inject(clean, faults, seed).to_episode() if size else clean.to_episode())
        name = f"force-tactile over 40 s, {size} ms"
        content_cell(cells, name, ledger.pair("wrench", "tactile"), offset)
        if not size:
            name = "audio-contact over 40 s, 0 ms"
            content_cell(cells, name, ledger.pair("wrench", "audio"), 0)


def drive_bench(seed: int, cells: Cells) -> list[str]:
    """Cameras that drive through the scene, on time and late, against the gyroscope and by labels.

    Labels are those of a careful annotator with 2 px of noise. Returns the false alarms.
    """
    clean = drive(
        seed=seed, duration_s=40, cameras=2,
        streams=["camera_front", "camera_front_left", "odometry", "imu"],
    )  # fmt: skip
    cameras = ("camera_front", "camera_front_left")
    alarms = []
    for size in (0, 80):
        offset = size if seed % 2 else -size
        late = inject(clean, {c: StreamFaults(offset_ns=offset * MS) for c in cameras}, seed)
        rng = np.random.default_rng(seed)
        boxes = [
            b | {"xyxy_px": (np.asarray(b["xyxy_px"]) + rng.normal(0, 2, 4)).tolist()}
            for b in late.truth["boxes_2d"]
        ]
        ledger = assess(late.to_episode(), layers={"human": late.truth | {"boxes_2d": boxes}})
        for camera in cameras:
            pair = ledger.pair("imu", camera)
            content_cell(cells, f"driven {camera}, {size} ms", pair, offset)
            pair = ledger.pair("annotations/human", camera)
            content_cell(cells, f"labels of a drive, {size} ms", pair, offset)
        if not size:
            alarms = false_alarms(clean, ledger)
    return alarms


def lidar_bench(seed: int, cells: Cells) -> list[str]:
    """A LiDAR on a vehicle, on time and late, against odometry and gyroscope; the false alarms."""
    clean = drive(seed, duration_s=30, cameras=1, streams=["lidar_points", "odometry", "imu"])
    alarms = []
    for size in (0, 80):
        offset = size if seed % 2 else -size
        late = inject(clean, {"lidar_points": StreamFaults(offset_ns=offset * MS)}, seed)
        ledger = assess(late.to_episode())
        for ego in ("odometry", "imu"):
            name = f"LiDAR against {ego}, {size} ms"
            content_cell(cells, name, ledger.pair(ego, "lidar_points"), offset)
        if not size:
            alarms = false_alarms(clean, ledger)
    return alarms


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


def hull_bench(seeds: Iterable[int]) -> Cell:
    """Skew of a 60 s log at 30 Hz with delay 3 ms + Exp(2 ms) and 2 % spikes of 20-120 ms."""
    cell = Cell()
    for seed in seeds:
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


def label_bench(seeds: Iterable[int]) -> Cell:
    """One camera, 120 boxes, 2 px noise, 5 % gross mistakes, offsets of 0-100 ms."""
    cell = Cell()
    for seed in seeds:
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
