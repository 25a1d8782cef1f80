"""`mmdata annotations ...` from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from mmdata import EpisodeWriter, Kind, StreamInfo
from mmdata.annotations import read_episode_layer, read_layer_file, write_layer_file
from mmdata.cli.annotations import register
from mmdata.quality.label_items import candidates_of, items_of, judged_proposals
from mmdata.streams import FieldInfo
from mmdata_schema import Box2D, Layer, Phase, Provenance, Review, ReviewState, Software

MS = 1_000_000
T0 = 1_760_030_100_000_000_000
LABELS = ("reach", "grasp", "lift", "place")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two", "three"):
        with EpisodeWriter(tmp_path / f"{name}.h5", episode_id=name) as writer:
            info = StreamInfo("wrench", Kind.SIGNAL, {"force": FieldInfo("<f8", (3,))}, clock="c")
            writer.add_stream(info)
            writer.append("wrench", T0 + np.arange(5) * 10**7, {"force": np.zeros((5, 3))})
        for who, late in (("anna", 0), ("bob", 120)):
            edges = [0, 1000 + late, 1500, 2500, 4000]
            phases = [
                Phase(id=f"p{i}", tier="motion", label=LABELS[i], start_ns=T0 + edges[i] * MS,
                      end_ns=T0 + edges[i + 1] * MS)
                for i in range(4)
            ]  # fmt: skip
            layer = Layer(episode_id=name, name=who, provenance=Provenance(author=who),
                          phases=phases)  # fmt: skip
            write_layer_file(tmp_path / f"{name}.{who}.json", layer, 0)
    return tmp_path


def run(*args: object, code: int = 0) -> Result:
    app = typer.Typer()
    register(app)
    app.command()(lambda: None)  # a lone group would not keep its name
    result = CliRunner().invoke(app, ["annotations", *map(str, args)])
    assert result.exit_code == code, result.output
    return result


def run_json(*args: object, code: int = 0) -> Any:
    return json.loads(run(*args, "--json", code=code).stdout)


def test_import_list_export(folder: Path) -> None:
    episode = folder / "one.h5"
    source = folder / "rows.csv"
    source.write_text("label,start_s,end_s\ngrasp,0.01,0.03\n")
    made = run_json("import", episode, source, "-f", "csv", "--layer", "sheet")
    assert made["layers"][0]["counts"] == {"phases": 1}
    assert read_episode_layer(episode, "sheet").phases[0].start_ns == T0 + 10 * MS
    again = run("import", episode, source, "-f", "csv", "--layer", "sheet", code=2)
    assert "--replace" in again.stderr
    replaced = run_json("import", episode, source, "-f", "csv", "--layer", "sheet", "--replace")
    assert replaced["layers"][0]["revision"] == 2
    names = [e["name"] for e in run_json("list", episode)]
    assert names == ["anna", "bob", "sheet"]
    assert "4 phases" in run("list", episode).stdout
    exported = run_json("export", episode, "anna", folder / "a.eaf", "-f", "elan")
    assert exported == {"files": [str(folder / "a.eaf")], "losses": []}
    lost = run("export", episode, "anna", folder / "c.json", "-f", "coco")
    assert "not carried over: phases not held: 4" in lost.stderr
    assert "no layer 'zoe'" in run("export", episode, "zoe", "x", "-f", "csv", code=2).stderr
    assert (
        "no annotation format"
        in run("import", episode, source, "-f", "yolo", "--layer", "x", code=2).stderr
    )
    assert (
        "has no stream"
        in run(
            "import", episode, source, "-f", "csv", "--layer", "x", "--stream", "y", code=1
        ).stderr
    )


def test_diff_and_merge(folder: Path) -> None:
    ours, theirs = folder / "one.anna.json", folder / "one.bob.json"
    found = run_json("diff", ours, theirs, code=1)
    assert set(found["changed"]) == {"p0", "p1"}
    assert "~ phases p0 end_ns" in run("diff", ours, f"{folder / 'one.h5'}:bob", code=1).stdout
    run("diff", ours, ours)
    clash = run_json("merge", ours, theirs, code=1)
    assert clash["saved_revision"] is None
    assert {c["path"] for c in clash["conflicts"]} == {"end_ns", "start_ns"}
    base = folder / "base.json"
    base.write_text(ours.read_text())
    merged = run_json("merge", ours, theirs, "--base", base)
    assert merged == {"saved_revision": 2, "conflicts": []}
    assert read_layer_file(ours).phases[0].end_ns == T0 + 1120 * MS
    kept = run("merge", folder / "two.anna.json", folder / "two.bob.json", "--keep-ours", code=1)
    assert "saved as revision 2" in kept.stdout


def test_publish_and_undo(folder: Path) -> None:
    episode = folder / "one.h5"
    assert run_json("publish", episode) == {"published": ["anna", "bob"]}
    assert {e["place"] for e in run_json("list", episode)} == {"embedded"}
    assert run_json("publish", episode, "bob", "--undo")["withdrawn"] == [
        str(folder / "one.bob.json")
    ]
    assert "not embedded" in run("publish", episode, "bob", "--undo", code=2).stderr
    assert "name the layers" in run("publish", episode, "--undo", code=2).stderr
    (folder / "one.bad.json").write_text('{"schema_version": "77.0"}')
    assert "77" in run("list", episode, code=1).stdout


def test_agreement_and_its_page(folder: Path) -> None:
    page = folder / "agreement.html"
    made = run_json("agreement", folder, "--html", page, "--resamples", 50, "--reference", "anna")
    (phases,) = made["measured"]
    assert phases["episodes"] == ["one", "three", "two"]
    assert phases["overall"]["boundary_f1@100ms"]["value"] == pytest.approx(2 / 3)
    assert phases["overall"]["boundary_f1@250ms"]["value"] == 1
    assert phases["accuracy"]["bob"]["grasp"]["recall"]["value"] == pytest.approx(0.76, abs=0.05)
    text = page.read_text()
    assert text.count("<svg") >= 5
    assert "boundary_f1@250ms" in text
    # Self-contained: nothing is fetched from anywhere.
    assert not any(mark in text for mark in ("http://", "https://", "src=", "<script", "@import"))
    assert "motion" in run("agreement", folder, "--resamples", 10).stdout
    assert "two layers" in run("agreement", folder, "--layer", "anna", code=2).stderr
    assert "no layer 'x'" in run("agreement", folder, "--reference", "x", code=2).stderr


def test_sample_and_queue(folder: Path) -> None:
    page = folder / "sample.html"
    made = run_json("sample", folder, "--min-count", 2, "--class-rate", "lift=0.9", "--html", page)
    sampled = {c["name"][0]: (c["sampled"], c["population"]) for c in made["classes"]}
    assert sampled == {"grasp": (2, 6), "lift": (6, 6), "place": (2, 6), "reach": (2, 6)}
    assert "acceptance number" in page.read_text()
    assert made == run_json("sample", folder, "--min-count", 2, "--class-rate", "lift=0.9")
    assert "CLASS=RATE" in run("sample", folder, "--class-rate", "lift", code=2).stderr
    assert "fault rate" in run("sample", folder, "--max-fault-rate", 2, code=2).stderr
    findings = folder / "findings.json"
    findings.write_text(json.dumps([
        {"path": str(folder / "one.h5"), "findings": [
            {"rule": "LBL001", "status": "FAILED", "severity": "error", "message": "too short",
             "annotation_id": "p2", "layer": "bob"},
            {"rule": "LBL002", "status": "PASSED", "severity": "error", "annotation_id": "p1"},
            {"rule": "TIM001", "status": "FAILED", "severity": "warning", "stream": "wrench"},
        ]},
    ]))  # fmt: skip
    made = run_json("sample", folder, "--min-count", 2, "--findings", findings)
    assert {"name": ["lift", "", "bob", "error"], "population": 1, "sampled": 1,
            "acceptance": 0} in made["strata"]  # fmt: skip
    page = folder / "queue.html"
    made = run_json(
        "queue", folder, "--findings", findings, "--size", 10, "--random-share", 0.2, "--html", page
    )
    assert len(made) == 10
    assert sum(e["why"] == "random" for e in made) == 2
    grave = [e for e in made if e["candidate"]["severity"] != "none"]
    assert {(e["candidate"]["id"], e["candidate"]["layer"], e["candidate"]["severity"])
            for e in grave} == {("p2", "bob", "error"), ("TIM001#2", None, "warning")}  # fmt: skip
    # Whatever was not drawn at random comes first, the graver one before.
    assert [e["position"] for e in grave if e["why"] == "ranked"] == [
        e["position"] for e in made if e["why"] == "ranked"
    ][: len([e for e in grave if e["why"] == "ranked"])]
    assert "too short" in page.read_text()
    assert "random share" in run("queue", folder, "--random-share", 3, code=2).stderr


def proposals(n: int = 300) -> Layer:
    rng = np.random.default_rng(0)
    boxes = []
    for i in range(n):
        sure = float(rng.uniform(0.3, 1))
        state = ReviewState.ACCEPTED if rng.random() < sure else ReviewState.REJECTED
        boxes.append(
            Box2D(id=f"b{i}", label="car", stream="cam", stamp_ns=T0 + i, xyxy_px=(0, 0, 1, 1),
                  confidence=sure, review=Review(state=state))
        )  # fmt: skip
    return Layer(episode_id="one", name="net", provenance=Provenance(model=Software(name="net")),
                 boxes_2d=boxes)  # fmt: skip


def test_calibration_of_judged_proposals(folder: Path) -> None:
    write_layer_file(folder / "one.net.json", proposals(), 0)
    page = folder / "calibration.html"
    made = run_json("calibration", folder, "--layer", "net", "--html", page)
    assert made["calibration"]["count"] == 300
    assert made["calibration"]["ece"]["value"] < 0.15
    assert made["routing"]["car"]["threshold"] is None  # uniform confidences keep no 2 % promise
    assert "review all" in page.read_text()
    nothing = run("calibration", folder, "--layer", "anna", code=2)
    assert "no annotation has both" in nothing.stderr


def test_candidates_leave_out_what_was_judged_and_keep_the_gravest_finding() -> None:
    layer = proposals(3)
    layer = layer.put(layer.boxes_2d[0].edit(review=None, confidence=0.4))
    findings: list[dict[str, Any]] = [
        {"episode_id": "one", "annotation_id": "b0", "severity": "warning", "message": "m"},
        {"episode_id": "one", "annotation_id": "b0@123", "severity": "error", "score": 0.5},
        {"episode_id": "one", "annotation_id": "b1", "severity": "error"},
    ]
    (only,) = candidates_of([layer], findings)
    assert (only.id, only.layer, only.severity, only.reason) == ("b0", "net", "warning", "m")
    place = {"layer": "net", "annotation_ids": ["b0@123"]}
    told = {"episode_id": "one", "severity": "error", "rule": "LAB301", "details": [place]}
    (found,) = candidates_of([layer], [told])  # as `mmdata check --json` writes them
    assert (found.id, found.layer, found.severity) == ("b0", "net", "error")
    many = told | {"details": [place] * 3}  # a cause is about more than one annotation
    assert [c.id for c in candidates_of([layer], [many])] == ["b0", "LAB301#0"]
    (plain,) = candidates_of([layer])
    assert (plain.severity, plain.score) == ("info", pytest.approx(0.6))
    with pytest.raises(ValueError, match="awful"):
        candidates_of([layer], [{"severity": "awful"}])
    items = items_of([layer], findings, {"one": "pick"})
    assert [(i.annotator, i.task) for i in items] == [("net", "pick")] * 3
    assert [i.severity for i in items] == ["error", "error", None]
    assert len(judged_proposals([layer])[0]) == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, typer, mmdata.cli.annotations as a; a.register(typer.Typer());"
        "print([m for m in ('numpy', 'scipy', 'h5py', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gold_tasks_are_hidden_in_the_worklist(folder: Path) -> None:
    tasks = [f"drive_{k}" for k in range(20)]
    (folder / "tasks.txt").write_text("\n".join(tasks))
    (folder / "gold.txt").write_text("gold_a\ngold_b\n")
    made = run_json("seed-gold", folder / "tasks.txt", folder / "gold.txt", "--rate", "0.25",
                    "--worklist", folder / "list.txt")  # fmt: skip
    lines = (folder / "list.txt").read_text().splitlines()
    assert [x for x in lines if x in tasks] == tasks
    assert [lines[g["line"] - 1] for g in made["gold"]] == [g["task"] for g in made["gold"]]
    assert len(made["gold"]) == len(lines) - len(tasks) == 7
    wrong = run("seed-gold", folder / "tasks.txt", folder / "gold.txt", "--rate", "2",
                "--worklist", folder / "list.txt", code=2)  # fmt: skip
    assert "lies between 0 and 1" in wrong.stderr


def test_drift_of_an_annotator_against_gold(tmp_path: Path) -> None:
    day = 86_400_000_000_000
    for k in range(16):
        with EpisodeWriter(tmp_path / f"e{k:02}.h5", episode_id=f"e{k:02}") as writer:
            info = StreamInfo("wrench", Kind.SIGNAL, {"force": FieldInfo("<f8", (3,))}, clock="c")
            writer.add_stream(info)
            writer.append("wrench", T0 + np.arange(5) * 10**7, {"force": np.zeros((5, 3))})
        # bob: from the ninth day on every boundary is late; anna stays as she is.
        for who, late in (("gold", 0), ("anna", 20), ("bob", 20 if k < 8 else 450)):
            edges = [0, 1000 + late, 1500 + late, 2500 + late, 4000]
            phases = [
                Phase(id=f"p{i}", tier="motion", label=LABELS[i], start_ns=T0 + edges[i] * MS,
                      end_ns=T0 + edges[i + 1] * MS)
                for i in range(4)
            ]  # fmt: skip
            who_when = Provenance(author=who, modified_unix_ns=T0 + k * day)
            layer = Layer(episode_id=f"e{k:02}", name=who, provenance=who_when, phases=phases)
            write_layer_file(tmp_path / f"e{k:02}.{who}.json", layer, 0)
    found = {(d["annotator"], d["label"]): d
             for d in run_json("drift", tmp_path, "--reference", "gold", code=1)}  # fmt: skip
    assert found["bob", "*"]["drifted"] is True
    assert found["bob", "*"]["count"] == 16
    assert found["bob", "*"]["change_unix_ns"] == T0 + 8 * day
    assert found["anna", "*"]["drifted"] is False
    assert found["bob", "grasp"]["before"] > found["bob", "grasp"]["after"] + 0.3
    page = tmp_path / "drift.html"
    told = run("drift", tmp_path, "--reference", "gold", "-l", "bob", "--html", page, code=1)
    assert "changed" in told.stdout
    assert "bob" in page.read_text()
    assert "no layer 'zoe'" in run("drift", tmp_path, "--reference", "zoe", code=2).stderr
