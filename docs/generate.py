"""Writes the pages that are generated: docs/cli.md and docs/config.md.

python docs/generate.py            write them
python docs/generate.py --check    exit 1 when they are not up to date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmdata.cli import app
from mmdata.config import ConvertConfig

DOCS = Path(__file__).parent
WIDTH = 96


def cli_page() -> str:
    """Help of every command."""
    lines = [
        "# Command line",
        "",
        "Every command takes `--json` where it prints a result. Exit codes: 0 fine, 1 findings or",
        "quarantine, 2 usage, 130 interrupted.",
    ]
    for path, command in _commands(typer.main.get_command(app), "mmdata"):
        context = command.make_context(path, [], resilient_parsing=True)
        context.terminal_width = context.max_content_width = WIDTH
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        lines += ["", f"## {path}", "", "```text", text.strip(), "```"]
    return "\n".join(lines) + "\n"


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _commands(child, f"{path} {name}")


def config_page() -> str:
    """Keys of every configuration file."""
    lines = [
        "# Configuration",
        "",
        "`mmdata config init LOG` writes a first file for `mmdata convert --config`. Every key is",
        "optional; an unknown key is an error.",
    ]
    seen: list[type[BaseModel]] = [ConvertConfig]
    for model in seen:
        lines += ["", f"## {model.__name__}", "", (model.__doc__ or "").strip(), ""]
        lines += ["| key | values | default | |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            for inner in _models(field.annotation):
                if inner not in seen:
                    seen.append(inner)
            lines.append(
                f"| `{name}` | {_kind(field)} | {_default(field)} | {field.description or ''} |"
            )
    return "\n".join(lines) + "\n"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _kind(field: FieldInfo) -> str:
    text = str(field.annotation) if get_args(field.annotation) else field.annotation.__name__
    for noise in ("typing.", "mmdata.config.", " | None"):
        text = text.replace(noise, "")
    return text.replace("|", "or")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return "" if value is None else f"`{value!r}`"


PAGES = {"cli.md": cli_page, "config.md": config_page}


def main() -> None:
    """Write or check the pages."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run `python docs/generate.py`")


if __name__ == "__main__":
    main()
