"""Phases of whole episodes, on seeds that were not used to tune anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmdata.phases import evaluate, score_episode, segment, segment_inputs
from mmdata.phases.inputs import Base, Effector, Inputs, Series
from mmdata.phases.metrics import Interval
from mmdata.phases.scripted import (
    FAMILIES,
    Take,
    keep_only,
    perform,
    pick_place,
    pick_place_script,
    random_style,
    take_of,
)

HELD_OUT = range(3000, 3016)


def scores(takes: list[Take], grammar: str = "auto") -> dict[str, float]:
    found = [score_episode(segment_inputs(t.inputs, grammar).intervals(), t.phases) for t in takes]
    return {name: s.value for name, s in evaluate(found, resamples=2).items()}


@pytest.mark.parametrize("retry", [False, True])
def test_phases_of_held_out_takes(retry: bool) -> None:
    got = scores([pick_place(seed, retry=retry) for seed in HELD_OUT])
    assert got["boundary_f1@250ms"] >= 0.9
    assert got["f1@50"] >= 80.0
    assert got["edit"] >= 90.0


def test_unnamed_segments_find_most_boundaries() -> None:
    got = scores([pick_place(seed) for seed in HELD_OUT], "none")
    assert got["boundary_f1@250ms"] >= 0.75


@pytest.mark.parametrize(
    ("signals", "least"),
    [
        (("position", "width"), 0.9),
        (("position", "touch"), 0.9),
        (("position", "command"), 0.7),  # contact cannot be seen, only the order to close
        (("position",), 0.6),
    ],
)
def test_fewer_signals_still_give_boundaries(signals: tuple[str, ...], least: float) -> None:
    got = scores([keep_only(pick_place(seed), *signals) for seed in HELD_OUT])
    assert got["boundary_f1@250ms"] >= least


def test_what_was_used_is_said() -> None:
    take = keep_only(pick_place(1), "position", "width")
    found = segment_inputs(take.inputs)
    assert set(found.signals) == {"arm.position", "arm.width"}
    assert found.grammar == "pick_place"
    bare = segment_inputs(keep_only(pick_place(1), "position").inputs)
    assert bare.grammar is None
    assert {p.label for p in bare.phases} == {"segment"}
    assert any("no grammar" in note for note in bare.notes)


@pytest.mark.parametrize("rate_hz", [20.0, 50.0])
def test_rate_does_not_matter(rate_hz: float) -> None:
    misses = []
    for seed in range(3000, 3008):
        a = segment_inputs(pick_place(seed, rate_hz=rate_hz).inputs).intervals()
        b = segment_inputs(pick_place(seed, rate_hz=100.0).inputs).intervals()
        assert [i.label for i in a] == [i.label for i in b]
        misses += [abs(x.start_ns - y.start_ns) / 1e6 for x, y in zip(a, b, strict=True)]
    assert np.median(misses) <= 15.0
    assert np.percentile(misses, 90) <= 50.0


def test_phases_leave_no_gap_and_cover_the_episode() -> None:
    take = pick_place(5)
    found = segment_inputs(take.inputs)
    assert found.phases[0].start_ns == take.inputs.start_ns
    assert found.phases[-1].end_ns == take.inputs.end_ns
    for a, b in zip(found.phases, found.phases[1:], strict=False):
        assert a.end_ns == b.start_ns
    assert all(0.0 <= p.confidence <= 1.0 and p.evidence for p in found.phases)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_told_apart_and_cut(family: str) -> None:
    found, named = [], []
    for seed in range(3100, 3106):
        take = take_of(family, seed)
        got = segment_inputs(take.inputs)
        named.append(got.grammar)
        found.append(score_episode(got.intervals(), take.phases))
    assert named.count(family) >= 5
    scores = evaluate(found, resamples=2)
    assert scores["boundary_f1@250ms"].value >= 0.9
    assert scores["f1@50"].value >= 80.0


def test_what_is_carried_is_no_contact_and_its_setting_down_is_seen() -> None:
    false, placed, heavy = 0, [], 0
    for seed in range(3120, 3136):
        rng = np.random.default_rng(seed)
        style = replace(random_style(rng), object_kg=1.0, hand_kg=0.7, force_noise_n=0.2)
        take = perform(pick_place_script(rng), style, rng)
        got = segment_inputs(take.inputs)
        heavy += got.grammar == "pick_place"
        false += sum(e.label == "tool_contact_on" for e in got.events)
        release = next(p for p in take.phases if p.label == "release")
        placed += [release.start_ns - e.stamp_ns for e in got.events if e.label == "placed"]
    assert heavy >= 15
    assert false <= 2
    assert len(placed) >= 14
    assert np.percentile(np.abs(placed), 90) < 250_000_000


def test_confidence_tells_right_from_wrong() -> None:
    from mmdata import simulate

    sure, unsure = [], []
    for seed in range(720, 732):
        sim = simulate.pick_place(
            seed,
            failures=("drop",) if seed % 2 else ("hesitation",),
            streams=("joint_states", "eef_pose", "command_gripper", "wrench", "tactile"),
        )
        for p in segment(sim.to_episode()).phases:
            at = (p.start_ns + p.end_ns) // 2
            true = [q["label"] for q in sim.truth["phases"] if q["start_ns"] <= at < q["end_ns"]]
            (sure if p.confidence > 0.9 else unsure).append(p.label in true)
    assert np.mean(sure) > 0.85
    assert np.mean(sure) > np.mean(unsure)


def test_degenerate_episodes_do_not_fail() -> None:
    stamps = np.arange(50) * 20_000_000
    still = Effector("arm", position=Series(stamps, np.zeros((50, 3))))
    found = segment_inputs(Inputs(0, int(stamps[-1]), (still,)))
    assert len(found.phases) == 1
    assert found.outcome.label == "unknown"
    assert segment_inputs(Inputs(0, 0)).phases[0].label == "segment"
    lost = replace(pick_place(2).inputs.effectors[0])
    assert lost.position is not None
    values = lost.position.values.copy()
    values[100:140] = np.nan
    holes = replace(lost, position=replace(lost.position, values=values))
    inputs = replace(pick_place(2).inputs, effectors=(holes,))
    assert len(segment_inputs(inputs).phases) > 4


def events_of(failure: str | None, seed: int) -> tuple[list[str], str, list[Interval]]:
    from mmdata import simulate

    sim = simulate.pick_place(
        seed,
        failures=() if failure is None else (failure,),  # type: ignore[arg-type]
        streams=("joint_states", "eef_pose", "command_gripper", "wrench", "tactile"),
    )
    found = segment(sim.to_episode())
    return [e.label for e in found.events], found.outcome.label, found.intervals()


@pytest.mark.parametrize(
    ("failure", "event", "outcome"),
    [
        (None, "grasp_success", "success"),
        ("missed_grasp", "grasp_failure", "failure"),
        ("regrasp", "regrasp", "success"),
        ("drop", "drop", "failure"),
        ("slip", "slip", "success"),
        ("hesitation", "hesitation", "success"),
        ("collision", "collision", "success"),
    ],
)
def test_failures_are_found_in_another_world(failure: str | None, event: str, outcome: str) -> None:
    hits, outcomes = 0, 0
    for seed in range(700, 706):
        labels, ended, _ = events_of(failure, seed)
        hits += event in labels
        outcomes += ended == outcome
    assert hits >= 5
    assert outcomes >= 5


def test_clean_episodes_raise_no_alarm() -> None:
    for seed in range(710, 716):
        labels, _, _ = events_of(None, seed)
        assert not {"drop", "slip", "grasp_failure", "regrasp", "collision"} & set(labels)


def test_hard_braking_is_found_once() -> None:
    t = np.arange(0, 20, 0.02)
    gentle = np.interp(t, [0, 2, 8, 12], [0, 0, 12, 8])  # up at 2, down at 1 m/s^2
    speed = np.minimum(gentle, np.interp(t, [14, 15.6], [8, 0]))  # then down at 5 m/s^2
    noise = np.random.default_rng(0).normal(0, 0.03, len(t))
    series = Series(np.rint(t * 1e9).astype(np.int64), speed + noise)
    found = segment_inputs(Inputs(0, round(t[-1] * 1e9), base=Base(speed=series)))
    braking = [e for e in found.events if e.label == "hard_braking"]
    assert len(braking) == 1
    assert abs(braking[0].stamp_ns - 14_000_000_000) < 400_000_000
    assert [p.label for p in found.phases if p.label != "keep_lane"] == [
        "stand", "pull_away", "brake_to_stop", "stand",
    ]  # fmt: skip
