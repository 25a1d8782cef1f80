"""Phase boundaries and labels of mmdata beside the usual baselines, on the same episodes.

    python benchmarks/phases.py [--episodes-per-set 20] [--sets wipe,pour ...] [--logs FOLDER]

Sets: one per task family (mmdata.phases.scripted: wide ranges of profiles, gains, pauses, blends,
noise, rates and weights; every third pick-and-place misses its first grasp), `simulated`
(mmdata.simulate, another world with its own dynamics), `teleoperated` (two hands, poses or joints
without poses, labels learned from other seeds), all on seeds that were not used for tuning; with
--logs also converted episodes (*.h5) that have <name>.truth.json beside them; `rates` (the same
episodes at 20, 50 and 100 Hz), `carried` (weights taken for contacts) and `speed`.
Baselines get more than they would in practice: uniform and KernelCPD know the number of phases, AWE
and PELT have the best bound or penalty for the very episodes scored. Spread is a 95 % bootstrap
over episodes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdata.phases import Interval, evaluate, score_episode
from mmdata.phases.features import grid_of, motion_signals
from mmdata.phases.grid import Grid, resample, smooth
from mmdata.phases.inputs import Floats, Inputs
from mmdata.phases.learn import fit, segment_with_model
from mmdata.phases.metrics import EpisodeScore, Score, onset_errors_ms
from mmdata.phases.online import PhaseTracker
from mmdata.phases.scripted import FAMILIES, Take, pick_place, take_of, teleoperated
from mmdata.phases.segment import segment_inputs
from mmdata.phases.settings import Settings

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
SIGNALS = ("joint_states", "eef_pose", "command_gripper", "wrench", "tactile", "audio")
HELD_OUT_SCRIPTED, HELD_OUT_SIMULATED = 8000, 1900
TAUGHT = 12


@dataclass(frozen=True)
class Case:
    """One episode: its signals, true phases, true contact onsets."""

    inputs: Inputs
    phases: tuple[Interval, ...]
    contacts: tuple[int, ...]
    family: str = "pick_place"


# Sets ---------------------------------------------------------------------------------------------


def _case(take: Take, family: str) -> Case:
    return Case(take.inputs, take.phases, tuple(a for a, _ in take.contacts), family)


def scripted(family: str, count: int, rate_hz: float | None = None) -> list[Case]:
    """Held-out takes of a family."""
    seeds = range(HELD_OUT_SCRIPTED, HELD_OUT_SCRIPTED + count)
    if family == "pick_place":
        takes = [pick_place(s, retry=s % 3 == 2, rate_hz=rate_hz) for s in seeds]
    else:
        takes = [take_of(family, s, rate_hz=rate_hz) for s in seeds]
    return [_case(t, family) for t in takes]


def simulated(count: int, rates_hz: dict[str, float] | None = None) -> list[Case]:
    """mmdata.simulate: another world with its own dynamics; one of four misses, one hesitates."""
    from mmdata import simulate
    from mmdata.phases.sources import read_inputs

    kinds: tuple[tuple[str, ...], ...] = ((), (), ("regrasp",), ("hesitation",))
    cases = []
    for i in range(count):
        sim = simulate.pick_place(
            HELD_OUT_SIMULATED + i,
            failures=kinds[i % 4],  # type: ignore[arg-type]
            streams=SIGNALS,
            rates_hz=rates_hz,
        )
        phases = tuple(
            Interval(p["label"], p["start_ns"], p["end_ns"]) for p in sim.truth["phases"]
        )
        contacts = tuple(e["stamp_ns"] for e in sim.truth["events"] if e["label"] == "contact")
        cases.append(Case(read_inputs(sim.to_episode()), phases, contacts))
    return cases


def logged(folder: Path) -> list[Case]:
    """Episodes with truth beside them (script_phases and contact_intervals)."""
    from mmdata.phases.sources import read_inputs
    from mmdata.store import open_episode

    cases = []
    for path in sorted(folder.glob("*.h5")):
        truth = json.loads(path.with_name(f"{path.stem}.truth.json").read_text())
        with open_episode(path) as ep:
            inputs = read_inputs(ep)
        phases = tuple(
            Interval(p["label"], p["start_ns"], p["end_ns"]) for p in truth["script_phases"]
        )
        cases.append(Case(inputs, phases, tuple(c["start_ns"] for c in truth["contact_intervals"])))
    return cases


# Baselines: each gives boundary stamps ------------------------------------------------------------


def _table(case: Case, rate_hz: float) -> tuple[Grid, Floats, Floats]:
    """(grid, positions (n, 3) of all hands side by side, openness (n, hands) 0 to 1) at a rate."""
    settings = Settings(step_ns=round(1e9 / rate_hz))
    grid = grid_of(case.inputs, settings)
    places, widths = [], []
    for effector in case.inputs.effectors:
        place = effector.position if effector.position is not None else effector.joints
        assert place is not None
        motion = motion_signals(effector, grid, settings)
        places.append(resample(place, grid))
        widths.append(motion.width if motion.width is not None else np.ones(grid.n))
    return grid, np.hstack(places), np.column_stack(widths)


def uniform(case: Case, count: int | None = None) -> list[int]:
    """Equal parts, as many as there are phases unless told otherwise."""
    count = count or len(case.phases)
    edges = np.linspace(case.inputs.start_ns, case.inputs.end_ns, count + 1)[1:-1]
    return [int(e) for e in edges]


def peract(case: Case, rate_hz: float) -> list[int]:
    """Keyframes of PerAct/ARM: gripper state changed, or stopped with the gripper unchanged for
    four frames; a buffer of four frames after each. Frame-based, as published."""
    grid, place, width = _table(case, rate_hz)
    joints = case.inputs.effectors[0].joints
    speed = (
        np.abs(smooth(resample(joints, grid), 0.02, grid, order=1)).max(axis=1)
        if joints is not None
        else np.linalg.norm(smooth(place, 0.02, grid, order=1), axis=1) * 2.0
    )
    is_open = (width > 0.5) @ (2 ** np.arange(width.shape[1]))
    found, buffer = [], 0
    for i in range(4, grid.n - 2):
        steady = bool((is_open[i - 4 : i + 1] == is_open[i]).all())
        stopped = buffer <= 0 and speed[i] < 0.1 and steady
        buffer = 4 if stopped else buffer - 1
        if stopped or is_open[i] != is_open[i - 1]:
            found.append(int(grid.stamps(np.array(i * grid.step_s))))
    return found


def awe(case: Case, bound_m: float) -> list[int]:
    """Fewest waypoints joined by straight lines within the bound; gripper changes forced."""
    grid, place, width = _table(case, 20.0)
    is_open = (width > 0.5) @ (2 ** np.arange(width.shape[1]))
    forced = set(np.flatnonzero(np.diff(is_open)) + 1)
    n = grid.n
    cost, came = np.full(n, np.inf), np.zeros(n, int)
    cost[0] = 0
    for j in range(1, n):
        for i in range(j - 1, -1, -1):
            share = np.linspace(0, 1, j - i + 1)[:, None]
            line = place[i] + share * (place[j] - place[i])
            if np.abs(line - place[i : j + 1]).max() > bound_m and j - i > 1:
                break
            if cost[i] + 1 < cost[j]:
                cost[j], came[j] = cost[i] + 1, i
            if i in forced:
                break
    found, j = [], n - 1
    while j > 0:
        j = int(came[j])
        if j:
            found.append(int(grid.stamps(np.array(j * grid.step_s))))
    return found[::-1]


def _features(case: Case) -> tuple[Grid, Floats]:
    """(grid, table (n, C)) for change points: velocity and openness, or speed, gain and yaw rate.

    At 20 Hz, or coarser where that would be more than 400 instants: their work grows with n^2.
    """
    length_s = (case.inputs.end_ns - case.inputs.start_ns) / 1e9
    rate_hz = float(np.clip(400.0 / length_s, 5.0, 20.0))
    base = case.inputs.base
    if base is not None and base.speed is not None and base.yaw_rate is not None:
        grid = grid_of(case.inputs, Settings(step_ns=round(1e9 / rate_hz)))
        speed = smooth(resample(base.speed, grid), 0.2, grid)
        yaw = smooth(resample(base.yaw_rate, grid), 0.2, grid)
        table = np.column_stack([speed, yaw, smooth(speed, 0.2, grid, order=1)])
        return grid, np.asarray(table / np.maximum(table.std(axis=0), 1e-9))
    grid, place, width = _table(case, rate_hz)
    velocity = smooth(place, 0.05, grid, order=1)
    table = np.column_stack([velocity / max(float(velocity.std()), 1e-9), 2.0 * width])
    return grid, table


def pelt(case: Case, model: str, share: float) -> list[int]:
    """ruptures.Pelt on velocity and width at 20 Hz; penalty is a share of log n per dimension."""
    import ruptures

    grid, table = _features(case)
    penalty = share * float(np.log(grid.n)) * table.shape[1]
    cuts = ruptures.Pelt(model=model, min_size=4, jump=1).fit(table).predict(pen=penalty)
    return [int(grid.stamps(np.array(c * grid.step_s))) for c in cuts[:-1]]


def kernel_cpd(case: Case) -> list[int]:
    """ruptures.KernelCPD (rbf); the number of phases is known."""
    import ruptures

    grid, table = _features(case)
    cuts = ruptures.KernelCPD(kernel="rbf", min_size=4).fit(table).predict(len(case.phases) - 1)
    return [int(grid.stamps(np.array(c * grid.step_s))) for c in cuts[:-1]]


# Ours ---------------------------------------------------------------------------------------------


def online(case: Case) -> list[Interval]:
    """PhaseTracker fed sample by sample in order of stamps; the gripper's range is known."""
    effector = case.inputs.effectors[0]
    roles = ("position", "orientation", "width", "command", "wrench", "touch")
    samples = [
        (int(t), role, v)
        for role in roles
        if (series := getattr(effector, role)) is not None
        for t, v in zip(series.stamp_ns, series.values, strict=True)
    ]
    tracker = PhaseTracker(case.family, width=(0.0, 0.08))
    for stamp, role, value in sorted(samples, key=lambda s: s[0]):
        tracker.push({"stamp_ns": stamp, role: value})
    tracker.finish()
    starts = [u.start_ns for u in tracker.phases]
    ends = [*starts[1:], case.inputs.end_ns]
    return [Interval(u.label, a, b) for u, a, b in zip(tracker.phases, starts, ends, strict=True)]


# Report -------------------------------------------------------------------------------------------

Method = Callable[[Case], Sequence[int] | list[Interval]]


def as_intervals(case: Case, found: Sequence[int] | list[Interval]) -> list[Interval]:
    """Boundaries to intervals with one common label."""
    if found and isinstance(found[0], Interval):
        return list(found)  # type: ignore[arg-type]
    edges = sorted({case.inputs.start_ns, *found, case.inputs.end_ns})
    return [Interval("", a, b) for a, b in itertools.pairwise(edges)]


def scored(cases: Sequence[Case], method: Method) -> tuple[list[EpisodeScore], list[EpisodeScore]]:
    """(scores with labels, scores with all labels made equal)."""
    named, blank = [], []
    for case in cases:
        found = as_intervals(case, method(case))
        named.append(score_episode(found, case.phases))
        blank.append(
            score_episode(
                [Interval("", i.start_ns, i.end_ns) for i in found],
                [Interval("", i.start_ns, i.end_ns) for i in case.phases],
            )
        )
    return named, blank


def row(name: str, cases: Sequence[Case], method: Method, labelled: bool) -> float:
    """Print one method's scores; return its boundary F1 at 250 ms."""
    started = time.perf_counter()
    named, blank = scored(cases, method)
    spent = time.perf_counter() - started
    a, b = evaluate(named, resamples=300), evaluate(blank, resamples=300)

    def cell(table: dict[str, Score], key: str, scale: float = 1.0) -> str:
        s = table.get(key)
        if s is None or s.low is None or s.high is None:
            return "-".center(19)
        return f"{s.value * scale:.2f} [{s.low * scale:.2f}, {s.high * scale:.2f}]"

    signed = b.get("boundary_error_mean_ms")
    cells = [
        cell(b, "boundary_f1@100ms"),
        cell(b, "boundary_f1@250ms"),
        f"{signed.value:+.0f} ms" if signed is not None else "-",
        cell(b, "f1@50", 0.01),
        cell(a, "f1@50", 0.01) if labelled else "-",
        cell(a, "edit", 0.01) if labelled else "-",
        cell(a, "frame_accuracy", 0.01) if labelled else "-",
    ]
    print(f"| {name} | " + " | ".join(cells) + f" | {1000 * spent / len(cases):.0f} |", flush=True)
    return b["boundary_f1@250ms"].value


def report(
    title: str, cases: Sequence[Case], with_online: bool, with_baselines: bool = True
) -> None:
    """Print the table of one set."""
    print(f"\n### {title}: {len(cases)} episodes, {sum(len(c.phases) for c in cases)} phases\n")
    print(
        "| method | boundary F1@100 ms | boundary F1@250 ms | signed error | F1@50, labels ignored "
        "| F1@50 | edit | frame accuracy | ms per episode |\n|---|---|---|---|---|---|---|---|---|"
    )
    if with_baselines:
        baselines(cases)
    unnamed = {id(c): segment_inputs(c.inputs, "none").intervals() for c in cases}
    row("uniform, as many as the next", cases, lambda c: uniform(c, len(unnamed[id(c)])), False)
    row("mmdata, no grammar", cases, lambda c: segment_inputs(c.inputs, "none").intervals(), False)
    row("mmdata, grammar chosen", cases, lambda c: segment_inputs(c.inputs).intervals(), True)
    if with_online and len(cases[0].inputs.effectors) == 1:
        row("mmdata online, lag 0.4 s", cases, online, True)
    if any(c.contacts for c in cases):
        _onsets(cases)


def baselines(cases: Sequence[Case]) -> None:
    """The rows of the other methods."""
    row("uniform, number known", cases, uniform, False)
    if cases[0].inputs.effectors:
        row("PerAct keyframes, 100 Hz", cases, lambda c: peract(c, 100.0), False)
        row("PerAct keyframes, 20 Hz", cases, lambda c: peract(c, 20.0), False)
        bounds = (0.005, 0.01, 0.02, 0.04)
        best = max(bounds, key=lambda b: _pooled(cases, lambda c: awe(c, b)))
        row(f"AWE, best bound ({best} m)", cases, lambda c: awe(c, best), False)
    for model in ("l2", "rbf"):
        _pelt_row(model, cases)
    row("KernelCPD rbf, number known", cases, kernel_cpd, False)


def _onsets(cases: Sequence[Case]) -> None:
    errors = np.concatenate(
        [
            onset_errors_ms(
                [e.stamp_ns for e in segment_inputs(c.inputs).events if e.label == "contact_on"],
                c.contacts,
            )
            for c in cases
        ]
    )
    true = sum(len(c.contacts) for c in cases)
    print(
        f"\ncontact onset: {len(errors)} of {true} found within 250 ms; error mean "
        f"{errors.mean():+.1f} ms, |error| p50 {np.median(np.abs(errors)):.1f}, "
        f"p95 {np.percentile(np.abs(errors), 95):.1f}, max {np.abs(errors).max():.1f} ms"
    )


def teleop(count: int, with_baselines: bool) -> None:
    """Two hands as people move them: unnamed segments beside baselines, and a fitted model."""
    for title, joints, rate_hz in (("poses, 30 Hz", False, 30.0), ("joints, 50 Hz", True, 50.0)):
        cases = [
            _case(teleoperated(HELD_OUT_SCRIPTED + i, rate_hz=rate_hz, joints=joints), "none")
            for i in range(count)
        ]
        known = [teleoperated(i, rate_hz=rate_hz, joints=joints) for i in range(TAUGHT)]
        model = fit([(t.inputs, t.phases) for t in known])
        report(f"teleoperated, {title}", cases, False, with_baselines)
        row(
            f"mmdata, model of {TAUGHT} episodes",
            cases,
            lambda c, m=model: segment_with_model(c.inputs, m).intervals(),  # type: ignore[misc]
            True,
        )


def carried(count: int) -> None:
    """Weights of 20 g to 1 kg are carried: how often is one taken for a contact of the tool?"""
    print("\n### Weight taken for contact\n")
    found = [segment_inputs(c.inputs) for c in scripted("pick_place", count)]
    wrong = sum(any(e.label == "tool_contact_on" for e in f.events) for f in found)
    other = sum(f.grammar != "pick_place" for f in found)
    print(f"{wrong} of {count} with a tool contact, {other} of {count} with another grammar")


def _pelt_row(model: str, cases: Sequence[Case]) -> None:
    share = max(SHARES, key=lambda s: _pooled(cases, lambda c: pelt(c, model, s)))
    name = f"PELT {model}, best penalty ({share} d ln n)"
    row(name, cases, lambda c: pelt(c, model, share), False)


def _pooled(cases: Sequence[Case], method: Method) -> float:
    return evaluate(scored(cases, method)[1], resamples=1)["boundary_f1@250ms"].value


def rates(count: int) -> None:
    """The same scripted and simulated episodes sampled at 20, 50 and 100 Hz."""
    print("\n### The same episode at 20, 50 and 100 Hz\n")
    for name, cases in (
        ("scripted", {r: scripted("pick_place", count, r) for r in (20.0, 50.0, 100.0)}),
        (
            "simulated",
            {r: simulated(count, dict.fromkeys(SIGNALS[:5], r)) for r in (20.0, 50.0, 100.0)},
        ),
    ):
        found = {
            r: [segment_inputs(c.inputs).intervals() for c in those] for r, those in cases.items()
        }
        for low in (20.0, 50.0):
            same, misses = 0, []
            for a, b in zip(found[low], found[100.0], strict=True):
                if [i.label for i in a] == [i.label for i in b]:
                    same += 1
                    misses += [
                        abs(x.start_ns - y.start_ns) / 1e6
                        for x, y in zip(a[1:], b[1:], strict=True)
                    ]
            p50, p95 = np.percentile(misses, [50, 95])
            within = float((np.array(misses) <= 50).mean())
            print(
                f"{name}, {low:.0f} against 100 Hz: {same} of {count} with the same phases; "
                f"boundaries differ by p50 {p50:.0f}, p95 {p95:.0f} ms; {within:.0%} within 50 ms"
            )


def speed() -> None:
    """One hour of 100 Hz signals."""
    print("\n### Speed\n")
    from mmdata.phases.scripted import Move, perform, pick_place_script, random_style

    rng = np.random.default_rng(5)
    style = random_style(rng, 100.0)
    script: list[Move] = []
    while sum(m.seconds for m in script) < 3600 * style.speed * 0.97:
        script += pick_place_script(rng)
    take = perform(script, style, rng)
    length = (take.inputs.end_ns - take.inputs.start_ns) / 1e9
    for grammar in ("auto", "pick_place", "none"):
        started, busy = time.perf_counter(), time.process_time()
        segment_inputs(take.inputs, grammar)
        spent, busy = time.perf_counter() - started, time.process_time() - busy
        print(f"{length:.0f} s at 100 Hz, grammar {grammar}: {spent:.1f} s ({busy:.1f} s of CPU)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--episodes-per-set", type=int, default=20)
    parser.add_argument("--sets", default="all", help="comma-separated names, or all")
    parser.add_argument("--logs", type=Path, help="folder of converted episodes with truth")
    parser.add_argument("--no-online", action="store_true")
    parser.add_argument("--no-baselines", action="store_true", help="only mmdata's own rows")
    args = parser.parse_args()
    count = args.episodes_per_set
    others, tracked = not args.no_baselines, not args.no_online
    jobs: dict[str, Callable[[], None]] = {
        family: lambda f=family: report(f, scripted(f, count), tracked, others)  # type: ignore[misc]
        for family in FAMILIES
    }
    jobs["simulated"] = lambda: report("simulated", simulated(count), tracked, others)
    jobs["teleoperated"] = lambda: teleop(count, others)
    jobs["rates"] = lambda: rates(max(4, count // 2))
    jobs["carried"] = lambda: carried(2 * count)
    jobs["speed"] = speed
    chosen = list(jobs) if args.sets == "all" else args.sets.split(",")
    for name in chosen:
        if name not in jobs:
            parser.error(f"no set {name}; there are {', '.join(jobs)}")
        jobs[name]()
    if args.logs is not None:
        report("logs", logged(args.logs), tracked, others)


if __name__ == "__main__":
    main()
