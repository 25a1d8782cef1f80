"""`mmdata segment`, `mmdata phases fit` and `mmdata phases evaluate` on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mmdata.annotations import read_episode_layer, read_layer_file, write_layer_file
from mmdata.cli.segment import register
from mmdata.errors import ConfigError
from mmdata.simulate import pick_place, write_truth
from mmdata.simulate.episode import SimEpisode
from mmdata.store import EpisodeWriter
from mmdata_schema import Review

SIGNALS = ("joint_states", "eef_pose", "command_gripper", "wrench", "tactile", "audio")


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def write(folder: Path, sim: SimEpisode) -> Path:
    path = folder / f"{sim.episode_id}.h5"
    with EpisodeWriter(path, episode_id=sim.episode_id) as writer:
        for name, stream in sim.to_episode().streams.items():
            writer.add_stream(stream.info)
            writer.append(name, stream.stamp_ns, {f: stream[f] for f in stream.fields})
    write_truth(folder / f"{sim.episode_id}.truth.json", sim)
    return path


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes")
    for seed in range(4):
        failures = ("regrasp",) if seed == 1 else ()
        write(folder, pick_place(seed, streams=SIGNALS, failures=failures))  # type: ignore[arg-type]
    return folder


def run(app: typer.Typer, *args: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_report_has_the_documented_form(app: typer.Typer, episodes: Path) -> None:
    report = json.loads(run(app, "segment", episodes / "pick_place_000.h5", "--json"))
    (one,) = report["episodes"]
    assert {"path", "phases", "events", "quality"} <= set(one)
    for phase in one["phases"]:
        assert set(phase) == {"label", "start_ns", "end_ns", "confidence", "evidence"}
        assert isinstance(phase["start_ns"], int)
    for event in one["events"]:
        assert {"label", "stamp_ns", "confidence", "evidence"} <= set(event)
    assert one["quality"]["baselines"].keys() == {"length_s", "random"}
    assert "arm.position" in one["signals"]


def test_predictions_are_scored_and_models_fitted(
    app: typer.Typer, episodes: Path, tmp_path: Path
) -> None:
    predicted = tmp_path / "predicted.json"
    predicted.write_text(run(app, "segment", episodes, "--json", "--no-quality"))
    scores = json.loads(run(app, "phases", "evaluate", predicted, episodes, "--json"))
    assert scores["episodes"] == 4
    assert scores["scores"]["boundary_f1@250ms"]["value"] > 0.75
    assert scores["scores"]["boundary_f1@250ms"]["low"] is not None
    model = tmp_path / "model.json"
    run(app, "phases", "fit", episodes, "--truth", episodes, "--out", model)
    again = run(app, "segment", episodes / "pick_place_003.h5", "--model", model, "--json")
    labels = [p["label"] for p in json.loads(again)["episodes"][0]["phases"]]
    assert "transport" in labels
    with pytest.raises(ConfigError, match="no prediction for"):
        run(app, "phases", "evaluate", predicted, _only(tmp_path, episodes))


def _only(folder: Path, episodes: Path) -> Path:
    other = folder / "truth"
    other.mkdir()
    text = (episodes / "pick_place_000.truth.json").read_text()
    for name in ("pick_place_000", "somewhere_else"):
        (other / f"{name}.truth.json").write_text(text)
    return other


def test_layer_is_written_replaced_and_guarded(
    app: typer.Typer, episodes: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, pick_place(2, streams=SIGNALS))
    run(app, "segment", path, "--write", "--no-quality")
    layer = read_episode_layer(path, "auto")
    assert layer.revision == 1
    assert len(layer.phases) >= 7
    run(app, "segment", path, "--write", "--no-quality")
    sidecar = path.with_name("pick_place_002.auto.json")
    again = read_layer_file(sidecar)
    assert (again.revision, again.phases) == (2, layer.phases)
    judged = again.edit(review=Review().advance("review", "ann", 1))
    write_layer_file(sidecar, judged, 2)
    with pytest.raises(ConfigError, match="reviewed"):
        run(app, "segment", path, "--write", "--no-quality")
    run(app, "segment", path, "--write", "--force", "--no-quality")
    assert read_layer_file(sidecar).review is None
    # The layer is itself something to evaluate.
    run(app, "phases", "evaluate", sidecar, tmp_path / "pick_place_002.truth.json")


def test_page_goes_where_it_is_told(app: typer.Typer, episodes: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    out = run(app, "segment", episodes / "pick_place_000.h5", "--html", page)
    assert "<svg" in page.read_text()
    assert "beside it length" in out


def test_wrong_use_is_one_clear_error(app: typer.Typer, episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no grammar 'juggle'"):
        run(app, "segment", episodes / "pick_place_000.h5", "--grammar", "juggle")
    with pytest.raises(ConfigError, match=r"no episode \(\.h5\)"):
        run(app, "segment", tmp_path)
    with pytest.raises(ConfigError, match="--layer NAME or --truth PATH"):
        run(app, "phases", "fit", episodes)
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="label, start_ns and end_ns"):
        run(app, "phases", "evaluate", tmp_path / "x.json", tmp_path / "x.json")
