"""Sample logs with known faults: what was injected is found with its number, or left open."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmdata.checks import Context, Finding, Status, run_checks
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources
from mmdata.store import open_episode
from mmdata.sync.assess import assess
from mmdata.sync.ledger import Ledger


def look(log: Path, out: Path, *, content: bool = True) -> tuple[Ledger, tuple[Finding, ...]]:
    if not log.exists():
        pytest.skip(f"sample log is absent ({log})")
    path = convert_source(find_sources([log]).sources[0], out).episodes[0].path
    with open_episode(path) as episode:
        ledger = assess(episode, content=content)
        return ledger, run_checks(Context(episode, ledger.to_dict()))


def facts(ledger: Ledger, stream: str) -> dict[str, Any]:
    return dict(next(s.facts for s in ledger.streams if s.name == stream))


def failures(findings: tuple[Finding, ...], rule: str) -> dict[str, float | None]:
    return {
        str(f.stream): f.value for f in findings if f.rule == rule and f.status is Status.FAILED
    }


@pytest.mark.parametrize("number", [301, 302, 303, 304])
def test_injected_faults(shared_data: Path, tmp_path: Path, number: int) -> None:
    log = shared_data / "sim" / f"pick_place_{number}"
    ledger, findings = look(log, tmp_path)
    truth = json.loads((shared_data / "sim" / f"pick_place_{number}.truth.json").read_text())
    faults = truth["faults"]
    assert facts(ledger, "wrench")["sensor"]["dropped"] == faults["wrench_dropped"]
    assert facts(ledger, "joint_states")["sensor"]["duplicates"] == faults["joint_duplicates"]
    skews = [
        pair.skew_ppm for pair in ledger.pairs
        if pair.kind == "lockstep" and pair.b == "joint_states" and pair.skew_ppm is not None
    ]  # fmt: skip
    for skew in skews:
        assert skew == pytest.approx(faults["joint_clock_skew_ppm"], abs=5)
    assert bool(failures(findings, "TIM015")) == bool(faults["joint_clock_skew_ppm"])
    for camera in ("camera_front", "camera_wrist"):
        true = faults[f"{camera}_latency_ms"]
        for pair in ledger.pairs:
            if pair.b != camera or pair.kind != "camera_motion" or pair.offset_ms is None:
                continue
            assert pair.sigma_ms is not None
            assert abs(pair.offset_ms - true) < 2.5 * pair.sigma_ms, pair
            late = abs(true) > 20
            assert pair.verdict != ("PASSED" if late else "FAILED")
    front = ledger.pair("eef_pose", "camera_front")
    assert front is not None
    assert front.offset_ms == pytest.approx(faults["camera_front_latency_ms"], abs=10)
    # The latency is in header and log stamps alike: no rule about stamps speaks of the camera.
    of_stamps = {f.rule for f in findings if f.stream == "camera_front"} - {"TIM016"}
    assert of_stamps
    assert not [
        f for f in findings
        if f.stream == "camera_front" and f.status is Status.FAILED and f.rule != "TIM020"
    ]  # fmt: skip


def test_imu_that_repeats_and_steps_back(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "robot_localization" / "test1.bag"
    ledger, findings = look(log, tmp_path, content=False)
    (imu,) = failures(findings, "TIM002")
    assert failures(findings, "TIM002")[imu] == 347
    assert facts(ledger, imu)["sensor"]["regressions"] == 31
    assert facts(ledger, "xsens_imu_data")["sensor"]["long_gaps"] == 45
    medians = {s.name: s.facts["latency"]["p50_ns"] / 1e6 for s in ledger.streams}
    assert medians["wheel_odometry"] == pytest.approx(-5, abs=1)
    assert medians["xsens_imu_data"] == pytest.approx(-5, abs=1)
    assert medians[imu] == pytest.approx(25, abs=1)
    assert medians["stereo_odometer_odometry"] == pytest.approx(154, abs=1)
    # The recorder's clock strayed for some seconds: no clock map may follow it.
    assert failures(findings, "TIM011") == {}


def test_stamps_after_log_time(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "kuka_honeypot" / "test.bag"
    ledger, findings = look(log, tmp_path, content=False)
    assert list(failures(findings, "TIM007")) == ["joint_states"]
    assert facts(ledger, "joint_states")["latency"]["p50_ns"] / 1e6 == pytest.approx(-4.4, abs=0.1)


def test_latency_and_pairs_of_equal_stamps(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "plotjuggler" / "tilt_laser.bag"
    ledger, findings = look(log, tmp_path, content=False)
    assert failures(findings, "TIM002") == {"temperature": 356, "velocity": 356}
    latest = max(s.facts["latency"]["max_ns"] for s in ledger.streams if "imu" in s.name)
    assert latest / 1e6 == pytest.approx(681, abs=1)


def test_three_clocks_in_one_bag(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "embag" / "luminar_mixed_clocks.bag"
    _, findings = look(log, tmp_path, content=False)
    away = failures(findings, "TIM012")
    assert set(away) == {"luminar_pointcloud", "base_scan", "base_pose_ground_truth"}
    # Recorded in March, logged in November: 238 days.
    assert away["luminar_pointcloud"] == pytest.approx(238 * 86400, rel=0.01)


def test_log_time_behind_the_header(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "mcity_ins_db3" / "start_position_A"
    _, findings = look(log, tmp_path, content=False)
    late = failures(findings, "TIM008")
    assert set(late) == {"ins_imu", "ins_nav_sat_fix", "ins_odometry"}
    assert all(98 <= (value or 0) <= 104 for value in late.values())


def test_points_longer_than_the_sweep_and_cameras_apart(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "pandaset_002"
    _, findings = look(log, tmp_path, content=False)
    (span,) = [f for f in findings if f.rule == "TIM017"]
    assert span.status is Status.FAILED
    assert "0.186 s at most" in span.message
    apart = failures(findings, "TIM020")
    assert len(apart) == 3
    assert max(value or 0 for value in apart.values()) == pytest.approx(98.3, abs=0.1)


def test_computed_stamps_of_a_lerobot_dataset(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "real" / "lerobot_v21_unitree_g1"
    _, findings = look(log, tmp_path, content=False)
    judged = [f.status for f in findings if f.rule == "TIM006"]
    assert judged
    assert set(judged) == {Status.NOT_ASSESSED}
