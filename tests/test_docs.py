"""Pages that are generated or quote commands stay true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from mmdata.cli import app

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_config_page_is_current(generate: Any) -> None:
    assert (ROOT / "docs/config.md").read_text() == generate.config_page()


def test_cli_page_names_every_command_and_option(generate: Any) -> None:
    """Not compared letter by letter: how help is laid out is Typer's business."""
    page = (ROOT / "docs/cli.md").read_text()
    sections = dict(re.findall(r"^## (mmdata [^\n]*)\n\n```text\n(.*?)```", page, re.S | re.M))
    commands = dict(generate._commands(typer.main.get_command(app), "mmdata"))
    assert set(sections) == set(commands)
    for path, command in commands.items():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and not getattr(parameter, "hidden", False):
                    assert option in sections[path], (path, option)


def test_commands_quoted_in_pages_exist(generate: Any) -> None:
    commands = set(dict(generate._commands(typer.main.get_command(app), "mmdata")))
    first_words = {c.split()[1] for c in commands}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```(?:console|sh)\n(.*?)```", page.read_text(), re.S):
            for word in re.findall(r"(?:^\$ |&& |^)(?:\.venv/bin/)?mmdata ([a-z-]+)", block, re.M):
                assert word in first_words, f"{page.name}: mmdata {word}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"
