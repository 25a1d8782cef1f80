"""``mmdata check`` and ``mmdata shift`` on episode files of a simulated robot."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mmdata.annotations import layer_path, write_layer_file
from mmdata.cli.check import register
from mmdata.simulate import SimEpisode, StreamFaults, inject, pick_place
from mmdata.simulate.drive import drive
from mmdata.store import EpisodeWriter, open_episode
from mmdata.streams import Kind, Ragged
from mmdata_schema.io import read_layer

LATE_MS = 80
app = typer.Typer()
register(app)
run = CliRunner()


def write_episode(path: Path, episode: SimEpisode) -> Path:
    with EpisodeWriter(path, episode_id=path.stem) as writer:
        writer.set_rig(episode.rig)
        for name, raw in episode.raw.items():
            writer.add_stream(raw.info)
            fields = dict(raw.fields)
            samples = fields if raw.info.kind in (Kind.SIGNAL, Kind.SWEEP, Kind.TACTILE) else None
            if samples is None:
                (values,) = fields.values()
                rows = values
                if isinstance(values, Ragged) and raw.info.kind is Kind.IMAGE:
                    rows = [values[i].tobytes() for i in range(len(values))]
                samples = rows
            writer.append(name, raw.source_ns, samples, receive_ns=raw.receive_ns)
    return path


@pytest.fixture(scope="module")
def clean() -> SimEpisode:
    names = ["camera_front", "joint_states", "eef_pose", "wrench", "audio", "imu"]
    return pick_place(seed=21, streams=names)


@pytest.fixture(scope="module")
def late(clean: SimEpisode) -> SimEpisode:
    return inject(clean, {"camera_front": StreamFaults(offset_ns=LATE_MS * 1_000_000)}, seed=1)


def check(*arguments: str | Path) -> tuple[int, dict]:
    result = run.invoke(app, ["check", *map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def test_latency_in_both_clocks_is_found_by_content_and_missed_by_stamps(
    tmp_path: Path, late: SimEpisode
) -> None:
    path = write_episode(tmp_path / "late.h5", late)
    code, blind = check(path, "--stamps-only")
    (episode,) = blind["episodes"]
    assert code == 0
    assert episode["verdict"] == "PASSED"
    about_camera = [f for f in episode["findings"] if f["stream"] == "camera_front"]
    assert not [f for f in about_camera if f["status"] == "FAILED"]

    code, seeing = check(path)
    (episode,) = seeing["episodes"]
    assert code == 1
    assert episode["verdict"] == "FAILED"
    entry = next(p for p in episode["ledger"] if (p["a"], p["b"]) == ("eef_pose", "camera_front"))
    assert entry["verdict"] == "FAILED"
    assert entry["offset_ms"] == pytest.approx(LATE_MS, abs=10)
    assert abs(entry["offset_ms"] - LATE_MS) < 3 * entry["sigma_ms"]


def test_shift_mends_it_and_can_be_undone(tmp_path: Path, late: SimEpisode) -> None:
    path = write_episode(tmp_path / "late.h5", late)
    with open_episode(path) as episode:
        before = episode.streams["camera_front"].stamp_ns.copy()
        source = episode.streams["camera_front"].source_ns
        assert source is not None
        source = source.copy()
    moved = run.invoke(app, ["shift", str(path), "--stream", "camera_front", "--by", "-80ms"])
    assert moved.exit_code == 0, moved.output
    with open_episode(path) as episode:
        stream = episode.streams["camera_front"]
        assert (stream.stamp_ns == before - 80_000_000).all()
        assert (stream.source_ns == source).all()
        assert stream.info.attrs["shifts"] == [{"by_ns": -80_000_000, "reason": "mmdata shift"}]
    code, after = check(path)
    entry = next(
        p
        for p in after["episodes"][0]["ledger"]
        if (p["a"], p["b"]) == ("eef_pose", "camera_front")
    )
    assert entry["verdict"] == "PASSED"
    assert code == 0
    run.invoke(app, ["shift", str(path), "--stream", "camera_front", "--by", "+80ms"])
    with open_episode(path) as episode:
        assert np.array_equal(episode.streams["camera_front"].stamp_ns, before)


def test_json_shape_and_ledger_in_the_file(tmp_path: Path, clean: SimEpisode) -> None:
    path = write_episode(tmp_path / "clean.h5", clean)
    code, data = check(path)
    assert code == 0
    assert list(data) == ["episodes"]
    (episode,) = data["episodes"]
    assert list(episode) == ["path", "verdict", "findings", "ledger"]
    keys = {"rule", "status", "severity", "stream", "value", "limit", "message", "details"}
    assert all(set(f) == keys for f in episode["findings"])
    pairs = {"a", "b", "offset_ms", "sigma_ms", "method", "verdict"}
    assert all(set(p) == pairs for p in episode["ledger"])
    assert not [
        f for f in episode["findings"] if (f["status"], f["severity"]) == ("FAILED", "error")
    ]
    with open_episode(path) as opened:
        assert opened.sync["streams"]
        assert len(opened.sync["pairs"]) == len(episode["ledger"])


def test_no_write_leaves_the_file_alone(tmp_path: Path, clean: SimEpisode) -> None:
    path = write_episode(tmp_path / "clean.h5", clean)
    before = path.read_bytes()
    check(path, "--no-write", "--stamps-only")
    assert path.read_bytes() == before


def test_report_is_one_page_without_anything_from_outside(tmp_path: Path, late: SimEpisode) -> None:
    path = write_episode(tmp_path / "late.h5", late)
    page = tmp_path / "report.html"
    run.invoke(app, ["check", str(path), "--html", str(page), "--no-write"])
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", text)
    assert not re.search(r"url\(|@import|https?://", text)
    for part in ("Correlation", "Latency over time", "Intervals", "Residuals", 'class="tick"'):
        assert part in text, part
    assert re.search(r"eef_pose / camera_front, camera_flow: (\+\d|abstained)", text)
    assert not re.search(r"\b(nan|inf)\b", text)


def test_budget_file_and_strictness(tmp_path: Path, clean: SimEpisode) -> None:
    path = write_episode(tmp_path / "clean.h5", clean)
    settings = tmp_path / "budget.yaml"
    settings.write_text("checks: {jitter_fraction: 0.000001}\n")
    code, data = check(path, "--stamps-only", "--budget", settings, "--strict", "--no-write")
    assert code == 1
    failed = {f["rule"] for f in data["episodes"][0]["findings"] if f["status"] == "FAILED"}
    assert "TIM005" in failed
    settings.write_text("checks: {jitter: 1}\n")
    refused = run.invoke(app, ["check", str(path), "--budget", str(settings)])
    assert refused.exit_code == 2
    assert "checks.jitter" in refused.stderr


def test_folders_rules_and_errors(tmp_path: Path, clean: SimEpisode) -> None:
    write_episode(tmp_path / "a.h5", clean)
    code, data = check(tmp_path, "--stamps-only", "--select", "TIM001")
    assert code == 0
    assert [Path(e["path"]).name for e in data["episodes"]] == ["a.h5"]
    listed = run.invoke(app, ["check", "--rules"]).stdout
    assert "TIM016 error" in listed
    assert "second-hand" in listed
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = run.invoke(app, ["check", str(empty)])
    assert refused.exit_code == 2
    assert "no episodes" in refused.stderr
    assert run.invoke(app, ["check"]).exit_code == 2
    wrong = run.invoke(app, ["shift", str(tmp_path / "a.h5"), "--stream", "nope", "--by", "1ms"])
    assert wrong.exit_code == 1
    assert "no stream 'nope'" in wrong.stderr


def test_labels_beside_the_episode_are_used(tmp_path: Path) -> None:
    clean = drive(
        seed=33, duration_s=6.0, cameras=1, streams=["camera_front", "odometry"], render=False
    )
    late = inject(clean, {"camera_front": StreamFaults(offset_ns=60_000_000)}, seed=1)
    path = write_episode(tmp_path / "drive.h5", late)
    tracks = [
        {**{k: v for k, v in track.items() if k not in ("true_ns", "points")}, "id": f"t{i}"}
        for i, track in enumerate(late.truth["tracks_3d"])
    ]
    boxes = [
        {**{k: v for k, v in box.items() if k not in ("true_ns", "visibility")}, "id": f"b{i}"}
        for i, box in enumerate(late.truth["boxes_2d"])
    ]
    layer = read_layer(
        {
            "schema_version": "1.0",
            "episode_id": "drive",
            "name": "human",
            "provenance": {"author": "somebody"},
            "tracks_3d": tracks,
            "boxes_2d": boxes,
        }
    )
    write_layer_file(layer_path(path, "human"), layer, 0)
    code, data = check(path)
    entry = next(p for p in data["episodes"][0]["ledger"] if p["method"] == "label_reprojection")
    assert (entry["a"], entry["b"]) == ("annotations/human", "camera_front")
    assert entry["offset_ms"] == pytest.approx(60, abs=5)
    assert entry["verdict"] == "FAILED"
    assert code == 1
