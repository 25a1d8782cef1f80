"""What people's hands do: no sharp corners, no force, hands that rest, grippers that flicker."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mmdata.phases import evaluate, score_episode, segment_inputs
from mmdata.phases.inputs import Effector, Inputs, Series
from mmdata.phases.learn import fit, segment_with_model
from mmdata.phases.metrics import Interval
from mmdata.phases.scripted import Take, pick_place, teleoperated


def f1_250(takes: list[Take], found: list[list[Interval]]) -> float:
    scores = [score_episode(f, t.phases) for f, t in zip(found, takes, strict=True)]
    return evaluate(scores, resamples=2)["boundary_f1@250ms"].value


@pytest.mark.parametrize(("joints", "rate_hz"), [(False, 30.0), (True, 50.0)])
def test_no_grammar_is_forced_on_what_it_does_not_explain(joints: bool, rate_hz: float) -> None:
    takes = [teleoperated(s, rate_hz=rate_hz, joints=joints) for s in range(300, 304)]
    found = [segment_inputs(t.inputs) for t in takes]
    assert [f.grammar for f in found] == [None] * len(takes)
    assert all(any("no grammar explains" in note for note in f.notes) for f in found)
    intervals = [f.intervals() for f in found]
    assert f1_250(takes, intervals) >= 0.6
    for counts in (intervals, [t.phases for t in takes]):
        assert f1_250(takes, intervals) > 1.8 * f1_250(takes, even_cut(takes, counts))
    # As many as there are, or nearly so, though hands start and stop many times in each.
    true = sum(len(t.phases) for t in takes)
    assert 0.7 * true <= sum(map(len, intervals)) <= 1.5 * true


def test_one_hand_that_hardly_rests_may_have_a_grammar() -> None:
    """Quick robots hardly rest either: of one hand alone that says nothing."""
    inputs = teleoperated(300).inputs
    notes = [
        segment_inputs(replace(inputs, effectors=hands)).notes
        for hands in (inputs.effectors, inputs.effectors[:1])
    ]
    assert [any("move on and on" in note for note in said) for said in notes] == [True, False]


def even_cut(takes: list[Take], like: Sequence[Sequence[Interval]]) -> list[list[Interval]]:
    """Equal parts, as many as `like` has."""
    out = []
    for t, found in zip(takes, like, strict=True):
        edges = np.linspace(t.inputs.start_ns, t.inputs.end_ns, len(found) + 1)
        stamps = np.rint(edges).astype(np.int64).tolist()
        out.append([Interval("", a, b) for a, b in itertools.pairwise(stamps)])
    return out


def test_slower_gestures_give_fewer_segments() -> None:
    """The time scale is the episode's own: the same hands at half the speed, the same segments."""
    take = teleoperated(305)
    usual = segment_inputs(take.inputs, "none").intervals()
    slow = segment_inputs(slowed(take.inputs, 2.0), "none").intervals()
    assert len(slow) == pytest.approx(len(usual), abs=3)


def slowed(inputs: Inputs, factor: float) -> Inputs:
    def stretch(series: Series | None) -> Series | None:
        if series is None:
            return None
        since = np.rint((series.stamp_ns - inputs.start_ns) * factor).astype(np.int64)
        return replace(series, stamp_ns=inputs.start_ns + since)

    roles = ("position", "orientation", "width")
    hands = tuple(
        replace(e, **{r: stretch(getattr(e, r)) for r in roles}) for e in inputs.effectors
    )
    end = inputs.start_ns + round((inputs.end_ns - inputs.start_ns) * factor)
    return replace(inputs, end_ns=end, effectors=hands)


@pytest.mark.slow  # a model needs several long episodes
def test_gestures_of_two_hands_are_learned() -> None:
    def take(seed: int) -> Take:
        return teleoperated(seed, gestures=9)

    model = fit([(t.inputs, t.phases) for t in map(take, range(8))])
    takes = [take(s) for s in range(310, 315)]
    found = [
        score_episode(segment_with_model(t.inputs, model).intervals(), t.phases) for t in takes
    ]
    scores = evaluate(found, resamples=2)
    assert scores["frame_accuracy"].value >= 75.0
    assert scores["f1@50"].value >= 75.0
    assert scores["edit"].value >= 80.0


def flickering(rng: np.random.Generator, kind: str, n: int = 300) -> np.ndarray:
    if kind == "noise":
        return 0.08 + rng.normal(0, 0.0002, n)
    return np.where(rng.random(n) < 0.4, 0.0793, 0.0794)  # the last bit of an encoder


@pytest.mark.parametrize("kind", ["noise", "last bit"])
@pytest.mark.parametrize("rate_hz", [20.0, 30.0, 100.0])
def test_a_gripper_that_only_flickers_grasps_nothing(kind: str, rate_hz: float) -> None:
    rng = np.random.default_rng(3)
    take = pick_place(31, rate_hz=rate_hz).inputs
    place = take.effectors[0].position
    assert place is not None
    width = Series(place.stamp_ns, flickering(rng, kind, len(place.stamp_ns)))
    inputs = replace(take, effectors=(Effector("arm", position=place, width=width),))
    assert {e.label for e in segment_inputs(inputs).events} <= {"hesitation"}


def test_a_resting_hand_does_nothing_and_leaves_the_other_its_task() -> None:
    rng = np.random.default_rng(5)
    take = pick_place(32, rate_hz=50.0)
    right = take.inputs.effectors[0]
    assert right.position is not None
    n = len(right.position.stamp_ns)
    shaking = np.cumsum(rng.normal(0, 1e-5, (n, 3)), axis=0)
    twitch = 0.06 + np.convolve(rng.normal(0, 0.002, n), np.ones(20) / 20, "same")
    left = Effector(
        "left",
        position=replace(right.position, values=np.array([0.2, 0.5, 0.3]) + shaking),
        width=Series(right.position.stamp_ns, twitch),
    )
    found = segment_inputs(replace(take.inputs, effectors=(left, replace(right, name="right"))))
    assert found.grammar == "pick_place"
    assert {e.effector for e in found.events} == {"right"}
    score = score_episode(found.intervals(), take.phases)
    assert score.boundaries[250] == (len(take.phases) - 1, 0, 0)


def test_a_wavering_command_is_no_grasp() -> None:
    t = np.arange(0, 12, 0.02)
    stamps = np.rint(t * 1e9).astype(np.int64)
    command = 0.5 + 0.12 * np.sin(2 * np.pi * 1.5 * t)
    command[:50], command[-50:] = 1.0, 0.9
    command[(t > 5) & (t < 8)] = 0.0  # the one that is meant
    path = np.column_stack([np.sin(t), np.cos(0.7 * t), 0.1 * t])
    arm = Effector("arm", position=Series(stamps, path), command=Series(stamps, command))
    found = segment_inputs(Inputs(0, int(stamps[-1]), (arm,)))
    on = [e.stamp_ns / 1e9 for e in found.events if e.label == "contact_on"]
    assert on == pytest.approx([5.0], abs=0.1)
    assert "drop" not in {e.label for e in found.events}
