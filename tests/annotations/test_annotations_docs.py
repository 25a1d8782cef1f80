"""The pages about layers and agreement say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmdata.annotations import FORMATS, write_layer_file
from mmdata_schema import Layer, Phase, Provenance

DOCS = Path(__file__).parents[2] / "docs"
WORKFLOW = (DOCS / "annotations-workflow.md").read_text("utf-8")
AGREEMENT = (DOCS / "agreement.md").read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    phase = Phase(id="p", tier="motion", label="grasp", start_ns=0, end_ns=1)
    layer = Layer(episode_id="take", name="anna", provenance=Provenance(author="anna"),
                  phases=[phase])  # fmt: skip
    write_layer_file("take.anna.json", layer, 0)
    for code in blocks(WORKFLOW, "python") + blocks(AGREEMENT, "python"):
        exec(compile(code, "docs", "exec"), {})


def test_every_format_has_a_row_with_what_it_needs() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \|(.*)$", WORKFLOW, re.MULTILINE))
    assert set(rows) == set(FORMATS)
    for name, row in rows.items():
        needs = {n.replace("-", "_") for n in re.findall(r"`--([a-z-]+)`", row.rpartition("|")[0])}
        assert needs - {"scene_name"} == set(FORMATS[name].needs)


def test_commands_of_the_pages_exist() -> None:
    import typer

    from mmdata.cli.annotations import register

    app = typer.Typer()
    register(app)
    group = app.registered_groups[0].typer_instance
    assert group is not None
    known = {c.name or getattr(c.callback, "__name__", "") for c in group.registered_commands}
    shown = set(re.findall(r"mmdata annotations ([a-z-]+)", WORKFLOW + AGREEMENT))
    assert shown <= known
    assert known <= shown
