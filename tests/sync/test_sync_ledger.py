"""Budgets, fusion and verdicts with hand-computed numbers."""

import json
from pathlib import Path

import pytest

from mmdata.errors import ConfigError
from mmdata.sync.budget import AudioVideoBudget, Budget, PairLimit, SpatialBudget, read_budget
from mmdata.sync.correlate import OffsetEstimate, abstain
from mmdata.sync.ledger import Ledger, StreamEntry, fuse, pair_entry
from mmdata.sync.shift import parse_duration_ns


def estimate(method: str, offset_ms: float, sigma_ms: float) -> OffsetEstimate:
    return OffsetEstimate(method, offset_ms * 1e6, sigma_ms * 1e6)


def test_spatial_budget_from_speeds() -> None:
    # 0.5 m/s and 5 mm give 10 ms; 15 m/s and 10 cm give 6.7 ms.
    assert SpatialBudget(e_max_m=0.005).limit_ms(0.5, 0) == pytest.approx(10)
    assert SpatialBudget(e_max_m=0.1).limit_ms(15, 0) == pytest.approx(6.667, abs=0.001)
    # 10 ms at 90 deg/s and 10 m: 15.7 cm.
    limit = SpatialBudget(e_max_m=0.157, radius_m=10).limit_ms(0, 1.5708)
    assert limit == pytest.approx(10, abs=0.01)
    assert SpatialBudget(e_max_m=0.1).limit_ms(0, 0) is None


def test_windows_and_their_order() -> None:
    budget = Budget(
        spatial=SpatialBudget(e_max_m=0.005),
        pairs=[PairLimit(a="eef*", b="camera_front", limit_ms=33)],
        limits_ms={"camera_motion": 12},
    )
    assert budget.window_ms("camera_motion", "eef_pose", "camera_front", 0.5) == (-33, 33)
    assert budget.window_ms("camera_motion", "camera_front", "eef_pose", 0.5) == (-33, 33)
    assert budget.window_ms("camera_motion", "x", "y", 0.5) == (-10, 10)
    assert budget.window_ms("camera_motion", "x", "y") == (-12, 12)
    # ITU-R BT.1359: sound 45 ms early to 125 ms late.
    assert budget.window_ms("audio_video", "camera", "audio", 0.5) == (-45, 125)
    assert budget.window_ms("unheard_of", "x", "y") is None
    # A response cannot precede its command; how late it may be, nobody told.
    assert budget.window_ms("command_response", "x", "y", 0.5) == (-10, float("inf"))
    entry = pair_entry("c", "r", "command_response", [estimate("m", -50, 5)], budget, {})
    assert entry.verdict == "FAILED"
    assert entry.to_dict()["limit_ms"] == [-10.0, None]


def test_judgement_needs_the_whole_interval() -> None:
    budget = Budget()
    assert budget.judge(5, 2, (-10, 10))[0] == "PASSED"
    assert budget.judge(7, 2, (-10, 10))[0] == "NOT_ASSESSED"
    assert budget.judge(15, 2, (-10, 10))[0] == "FAILED"
    assert budget.judge(-15, 2, (-10, 10))[0] == "FAILED"
    assert budget.judge(-60, 5, (-45, 125))[0] == "FAILED"
    assert budget.judge(60, 5, (-45, 125))[0] == "PASSED"
    assert budget.judge(0, 1, None)[0] == "NOT_ASSESSED"


def test_fusion_weighs_by_variance_and_claims_no_gain() -> None:
    fused = fuse([estimate("a", 10, 3), estimate("b", 16, 6), abstain("c", "no motion")])
    assert not isinstance(fused, str)
    offset, sigma, methods = fused
    # weights 4:1 -> 11.2
    assert offset / 1e6 == pytest.approx(11.2)
    assert sigma / 1e6 == pytest.approx(3.0)
    assert methods == "a+b"
    # 2 sigma apart: sigma grows by that factor.
    _, wider, _ = fuse([estimate("a", 0, 3), estimate("b", 10, 4)])
    assert wider / 1e6 == pytest.approx(6.0)


def test_contradiction_and_silence_give_no_answer() -> None:
    text = fuse([estimate("a", 0, 2), estimate("b", 30, 2)])
    assert isinstance(text, str)
    assert "contradict" in text
    assert fuse([abstain("a", "no motion")]) == "a: no motion"


def test_entry_and_ledger_as_json() -> None:
    budget = Budget()
    late = pair_entry("eef", "cam", "camera_motion", [estimate("flow", 80, 4)], budget, {})
    quiet = pair_entry("eef", "wrist", "camera_motion", [abstain("flow", "x")], budget, {})
    ledger = Ledger((StreamEntry("cam", {"kind": "image"}),), (late, quiet))
    assert ledger.verdict == "FAILED"
    assert ledger.pair("eef", "cam") is late
    data = json.loads(json.dumps(ledger.to_dict(), allow_nan=False))
    assert data["pairs"][0]["offset_ms"] == 80.0
    assert data["pairs"][0]["verdict"] == "FAILED"
    assert data["pairs"][0]["limit_ms"] == [-20.0, 20.0]
    assert data["pairs"][1]["offset_ms"] is None
    assert data["pairs"][1]["methods"][0]["abstained"] == "x"
    assert Ledger((), (quiet,)).verdict == "NOT_ASSESSED"


def test_budget_file(tmp_path: Path) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text("spatial: {e_max_m: 0.01, radius_m: 0.5}\naudio_video: {sound_early_ms: 90}\n")
    budget = read_budget(path)
    assert budget.spatial == SpatialBudget(e_max_m=0.01, radius_m=0.5)
    assert budget.audio_video == AudioVideoBudget(sound_early_ms=90)
    path.write_text("spatial: {e_max: 0.01}\n")
    with pytest.raises(ConfigError, match=r"spatial\.e_max"):
        read_budget(path)
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match="keys and values"):
        read_budget(path)
    path.write_text("a: [\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_budget(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_budget(tmp_path / "absent.yaml")


def test_durations() -> None:
    assert parse_duration_ns("-80ms") == -80_000_000
    assert parse_duration_ns("+1.5 s") == 1_500_000_000
    assert parse_duration_ns("250us") == 250_000
    assert parse_duration_ns("-0.5ms") == -500_000
    assert parse_duration_ns("123456789012345678ns") == 123_456_789_012_345_678
    for wrong in ("80", "ms", "1.5ns", "-80 min", ""):
        with pytest.raises(ConfigError):
            parse_duration_ns(wrong)
