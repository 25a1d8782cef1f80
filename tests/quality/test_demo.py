"""Demonstration quality: measures against known values, claims and grades."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.episode import Episode
from mmdata.geometry import Rig
from mmdata.quality.cameras import camera_health
from mmdata.quality.demo import (
    ClaimType,
    DemoQuality,
    assess_demonstration,
    compare_with_length,
    dataset_ranges,
)
from mmdata.quality.movement import (
    action_lag,
    chatter,
    idle_mask,
    path_efficiency,
    saturation,
)
from mmdata.quality.smoothness import ldlj, smoothness, sparc
from mmdata.streams import FieldInfo, Kind, Ragged, Stream, StreamInfo

START = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Span:
    label: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Instant:
    label: str
    stamp_ns: int


def signal(name: str, fields: Mapping[str, Any], rate_hz: float = 100.0) -> Stream:
    arrays = {f: np.asarray(v, np.float64) for f, v in fields.items()}
    n = len(next(iter(arrays.values())))
    stamps = START + np.rint(np.arange(n) * 1e9 / rate_hz).astype(np.int64)
    info = StreamInfo(name, Kind.SIGNAL, {f: FieldInfo.of(v) for f, v in arrays.items()})
    return Stream(info, {"stamp_ns": stamps, **arrays})


def camera(name: str, frames: list[Any], rate_hz: float = 30.0) -> Stream:
    data = Ragged.from_rows([cv2.imencode(".png", f)[1].ravel() for f in frames])
    stamps = START + np.rint(np.arange(len(frames)) * 1e9 / rate_hz).astype(np.int64)
    info = StreamInfo(name, Kind.IMAGE, {"data": FieldInfo.of(data)}, encoding="png")
    return Stream(info, {"stamp_ns": stamps, "data": data.data, "offsets": data.offsets})


def episode(*streams: Stream, name: str = "e") -> Episode:
    return Episode(
        name,
        None,
        min(s.start_ns or 0 for s in streams),
        max(s.end_ns or 0 for s in streams),
        "complete",
        "header",
        {s.name: s for s in streams},
        {},
        Rig({}),
        {},
    )


def reach(n: int = 400) -> Any:
    s = np.linspace(0, 1, n)
    return (s**3 * (10 - 15 * s + 6 * s * s))[:, None] * np.array([0.4, 0.2, -0.1])


def texture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(40, 220, (48, 64, 3), dtype=np.uint8)


def claims(report: DemoQuality, kind: ClaimType) -> dict[str, float | None]:
    return {c.name: c.value for c in report.claims if c.type is kind}


# Measures -----------------------------------------------------------------------------------------


def test_smoothness_of_the_reference_profile() -> None:
    t = np.arange(-1, 1, 0.01)
    bell = np.exp(-5 * t**2)
    assert sparc(bell, 100.0) == pytest.approx(-1.41403, abs=5e-6)
    assert ldlj(bell, 100.0) == pytest.approx(-5.81636, abs=5e-6)


@given(st.floats(0.1, 10.0))
def test_smoothness_does_not_depend_on_size(size: float) -> None:
    t = np.arange(-1, 1, 0.01)
    bell = np.exp(-5 * t**2)
    assert sparc(size * bell, 100.0) == pytest.approx(sparc(bell, 100.0))
    assert ldlj(size * bell, 100.0) == pytest.approx(ldlj(bell, 100.0))


def test_a_jerky_reach_is_less_smooth_and_short_ones_are_not_judged() -> None:
    smooth = smoothness(reach(), 100.0)
    jerky = reach() + 0.01 * np.sin(2 * np.pi * 4 * np.arange(400) / 100)[:, None]
    rough = smoothness(jerky, 100.0)
    assert rough.sparc < smooth.sparc
    assert rough.ldlj < smooth.ldlj
    assert np.isnan(smoothness(reach(10), 100.0).sparc)
    assert np.isnan(sparc(np.zeros(50), 100.0))


@pytest.mark.parametrize("rate_hz", [30.0, 100.0, 500.0])
def test_idle_share_does_not_depend_on_the_rate(rate_hz: float) -> None:
    t = np.arange(0, 10, 1 / rate_hz)
    state = np.where(t < 4, t, np.where(t < 7, 4.0, t - 3.0))[:, None]
    state = state + np.random.default_rng(0).normal(0, 0.002, state.shape)
    assert idle_mask(state, rate_hz).mean() == pytest.approx(0.3, abs=0.02)


def test_directness() -> None:
    assert path_efficiency(np.array([[0.0, 0], [1, 0], [1, 1]])) == pytest.approx(np.sqrt(2) / 2)
    assert np.isnan(path_efficiency(np.zeros((5, 3))))


@given(st.integers(-30, 30))
def test_lag_is_found(steps: int) -> None:
    rng = np.random.default_rng(3)
    walk = np.cumsum(np.convolve(rng.normal(0, 1, 1200), np.ones(25) / 25, "same"))
    action = walk[100:900, None]
    state = walk[100 - steps : 900 - steps, None]
    found = action_lag(action, state, 100.0)
    assert found is not None
    assert found.seconds == pytest.approx(steps / 100.0, abs=0.003)
    assert found.correlation > 0.99
    assert found.tracking_rms < 0.01


def test_tracking_error_is_what_is_left_at_the_best_lag() -> None:
    t = np.arange(0, 10, 0.01)
    wanted = np.sin(t)[:, None]  # range 2
    reached = 0.8 * np.sin(t - 0.1)[:, None]  # 0.1 s late and a fifth short
    found = action_lag(wanted, reached, 100.0)
    assert found is not None
    assert found.seconds == pytest.approx(0.1, abs=0.005)
    # The error is 0.2 sin, rms 0.2 / sqrt(2), in ranges of the state: 1.6.
    whole = np.sqrt((np.sin(t) ** 2).mean())
    assert found.tracking_rms == pytest.approx(0.2 * whole / 1.6, abs=0.005)


def test_lag_of_nothing_is_not_known() -> None:
    assert action_lag(np.zeros((300, 2)), np.zeros((300, 2)), 100.0) is None


def test_saturation_needs_a_stay_and_leaves_switches_out() -> None:
    t = np.arange(0, 10, 0.02)
    stuck = np.clip(np.sin(t) * 3, -1, 1)
    touch = np.sin(t)
    switch = (t > 5).astype(float)
    values = np.column_stack([stuck, touch, switch])
    low, high = np.array([-1.0, -1.01, 0.0]), np.array([1.0, 3.0, 1.0])
    share = saturation(values, low, high, 50.0)
    expected = (np.abs(np.sin(t) * 3) >= 0.96).mean()
    assert share[0] == pytest.approx(expected, abs=0.01)
    assert share[1] < 0.15
    assert np.isnan(share[2])


def test_chatter_counts_reversals_within_a_second() -> None:
    t = np.arange(0, 4, 0.01)
    quiet = t[:, None]
    assert chatter(quiet, 100.0) == 0.0
    shaking = quiet + np.where((t > 1) & (t < 3), 0.5 * np.sin(2 * np.pi * 5 * t), 0)[:, None]
    assert chatter(shaking, 100.0) == pytest.approx(10, abs=1)


def test_cameras() -> None:
    live = camera_health(camera("c", [texture(i) for i in range(60)]))
    assert live is not None
    assert (live.frozen, live.black, live.blurred) == (0.0, 0.0, 0.0)
    frames = [texture(0)] * 30 + [texture(i) for i in range(1, 31)]
    frozen = camera_health(camera("c", frames))
    assert frozen is not None
    assert frozen.frozen == pytest.approx(29 / 59, abs=0.01)
    dark = camera_health(camera("c", [np.zeros((48, 64, 3), np.uint8)] * 30 + frames[30:]))
    assert dark is not None
    assert dark.black == pytest.approx(0.5, abs=0.05)
    soft = [cv2.GaussianBlur(texture(i), (0, 0), 3) if i % 2 else texture(i) for i in range(60)]
    blurred = camera_health(camera("c", soft))
    assert blurred is not None
    assert blurred.blurred == pytest.approx(0.5, abs=0.15)


# Claims -------------------------------------------------------------------------------------------


def arm(n: int = 400, **more: Any) -> Stream:
    turn = np.tile([1.0, 0, 0, 0], (n, 1))
    return signal("eef_pose", {"position": reach(n), "orientation": turn, **more})


def test_a_clean_demonstration_is_an_a_and_stands_beside_its_length() -> None:
    frames = camera("camera_front", [texture(i) for i in range(60)])
    report = assess_demonstration(episode(arm(), frames))
    assert (report.grade, report.score) == ("A", 100.0)
    shown = report.to_dict()
    assert shown["baselines"]["length_s"] == pytest.approx(3.99)
    assert 0 <= shown["baselines"]["random"] < 1
    assert "actions" in claims(report, ClaimType.NOT_ASSESSED)
    assert "hesitations" in claims(report, ClaimType.NOT_ASSESSED)


def test_only_the_worst_defect_moves_the_grade() -> None:
    half = [texture(0)] * 30 + [texture(i) for i in range(30)]
    third = [texture(i) // 100 for i in range(20)] + [texture(i) for i in range(40)]
    report = assess_demonstration(episode(arm(), camera("a", half), camera("b", third)))
    defects = claims(report, ClaimType.DEFECT)
    assert set(defects) == {"a.frozen", "b.black"}
    assert report.score == pytest.approx(100 * (1 - 30 / 59), abs=1)
    assert report.grade == "F"


def test_risks_do_not_move_the_grade() -> None:
    still = np.concatenate([reach(200), np.repeat(reach(200)[-1:], 400, axis=0)])
    still += np.random.default_rng(0).normal(0, 1e-4, still.shape)
    report = assess_demonstration(
        episode(signal("eef_pose", {"position": still})),
        events=[Instant("hesitation", START), Instant("grasp_failure", START)],
    )
    risks = claims(report, ClaimType.RISK)
    assert risks["idle"] == pytest.approx(0.7, abs=0.05)
    assert risks["hesitations"] == 1
    assert risks["retries"] == 1
    assert report.grade == "A"


def test_nothing_to_check_is_not_assessed_rather_than_good() -> None:
    report = assess_demonstration(episode(signal("temperature", {"value": np.arange(50.0)})))
    assert report.grade == "NOT_ASSESSED"
    assert report.score is None


def test_broken_states_are_defects() -> None:
    place = reach(400)
    place[100:200] = np.nan
    joints = np.cumsum(np.random.default_rng(0).normal(0, 1, (400, 6)), axis=0)
    joints[200:300] = joints[200]
    report = assess_demonstration(
        episode(
            signal("eef_pose", {"position": place}), signal("joint_states", {"position": joints})
        )
    )
    defects = claims(report, ClaimType.DEFECT)
    assert defects["eef_pose.position.not_finite"] == pytest.approx(0.25)
    assert defects["joint_states.position.frozen"] == pytest.approx(0.25, abs=0.01)


def test_standing_still_is_no_frozen_state_while_nothing_else_moves() -> None:
    place = np.concatenate([reach(200), np.repeat(reach(200)[-1:], 200, axis=0)])
    report = assess_demonstration(episode(signal("eef_pose", {"position": place})))
    assert claims(report, ClaimType.DEFECT) == {}


def test_smoothness_is_per_phase_and_actions_are_followed() -> None:
    place = reach(400)
    late = np.concatenate([np.repeat(place[:1], 8, axis=0), place[:-8]])
    turn = np.tile([1.0, 0, 0, 0], (400, 1))
    ep = episode(
        signal("command_eef_pose", {"position": place, "orientation": turn}),
        signal("eef_pose", {"position": late, "orientation": turn}),
    )
    report = assess_demonstration(ep, [Span("approach", START, START + 3_900_000_000)])
    facts = claims(report, ClaimType.CHARACTERISTIC)
    assert facts["smoothness.approach"] == pytest.approx(-1.4, abs=0.1)
    assert facts["command_eef_pose.position.lag"] == pytest.approx(0.08, abs=0.005)


def test_saturation_is_judged_against_the_data_set() -> None:
    t = np.arange(0, 8, 0.02)
    wide = episode(signal("action", {"data": np.column_stack([3 * np.sin(t), t])}, 50.0))
    tight = episode(
        signal("action", {"data": np.column_stack([np.clip(6 * np.sin(t), -3, 3), t])}, 50.0)
    )
    alone = assess_demonstration(tight)
    assert "action.data.saturation" in claims(alone, ClaimType.NOT_ASSESSED)
    report = assess_demonstration(tight, ranges=dataset_ranges([wide, tight]))
    assert (claims(report, ClaimType.RISK)["action.data.saturation"] or 0) > 0.5


def test_a_score_that_is_length_is_called_so() -> None:
    reports = [
        DemoQuality((), "A", 100.0 - k, 10.0 + k, chance, ())
        for k, chance in enumerate([0.3, 0.9, 0.1, 0.5, 0.7, 0.2])
    ]
    beside = compare_with_length(reports)
    assert beside["score_vs_length"] == pytest.approx(-1.0)
    assert abs(beside["random_vs_length"] or 0) < 0.9
    assert compare_with_length(reports[:3])["score_vs_length"] is None
