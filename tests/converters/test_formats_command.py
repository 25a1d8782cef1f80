"""`mmdata formats`, its page and the README's table."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from mmdata.cli import formats
from mmdata.registry import CONVERTER_GROUP, entries

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    formats.register(app)
    result = CliRunner().invoke(app, ["formats", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_converter_is_listed() -> None:
    names = {e.name for e in entries(CONVERTER_GROUP)}
    listed = {f["name"] for f in json.loads(run("--json"))}
    assert names == listed
    text = run()
    assert all(name in text for name in names)


def test_built_in_ones_say_what_they_do() -> None:
    for facts in formats.formats():
        if facts.name in ("acme", "acme_radar"):
            continue
        assert facts.summary, facts.name
        assert facts.reads, facts.name
        assert facts.cannot, facts.name


def test_page_is_up_to_date() -> None:
    """When this fails: `mmdata formats --page > docs/formats.md`."""
    assert (ROOT / "docs/formats.md").read_text() == formats.page()


def test_readme_has_the_table() -> None:
    """When this fails: put the output of `mmdata formats --markdown` between its marks."""
    text = (ROOT / "README.md").read_text()
    if formats.BEGIN in text:
        between = text[text.index(formats.BEGIN) : text.index(formats.END) + len(formats.END)]
        assert between == formats.readme_table()


def test_what_is_missing_is_shown(monkeypatch) -> None:
    from mmdata import registry

    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    facts = {f.name: f for f in formats.formats()}
    assert facts["lerobot"].missing == ("pyarrow",)
    assert facts["lerobot"].needs == "mmdata[parquet]"
    assert facts["lerobot"].reads  # its module loads without pyarrow
