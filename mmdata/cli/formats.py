"""`mmdata formats`: every installed log format, what it reads, what it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import typer

from mmdata.cli.common import JsonOption, print_json, print_table, table

#: The README's table stands between these lines.
BEGIN, END = "<!-- formats: begin -->", "<!-- formats: end -->"


@dataclass(frozen=True)
class FormatFacts:
    """What is known of one format. missing: modules it needs that are not installed."""

    name: str
    summary: str
    reads: str
    labels: str
    calibration: str
    time: str
    cannot: str
    requires: tuple[str, ...]
    extra: str | None
    missing: tuple[str, ...]

    @property
    def needs(self) -> str:
        """How to get what it needs; empty where it needs nothing more."""
        if not self.requires:
            return ""
        return f"mmdata[{self.extra}]" if self.extra else ", ".join(self.requires)


def formats() -> list[FormatFacts]:
    """Facts of every registered format, by name. One whose module cannot be loaded has none."""
    from importlib import import_module

    from mmdata.registry import CONVERTER_GROUP, entries

    found = []
    for entry in entries(CONVERTER_GROUP):
        module, _, attribute = entry.target.partition(":")
        try:
            converter: Any = getattr(import_module(module), attribute)
        except ImportError:
            converter = None  # a plug-in that imports at its top what is not installed
        texts = {
            key: str(getattr(converter, key, "")) for key in
            ("summary", "reads", "labels", "calibration", "time", "cannot")
        }  # fmt: skip
        found.append(
            FormatFacts(
                entry.name, requires=entry.requires, extra=entry.extra,
                missing=tuple(entry.missing()), **texts,
            )
        )  # fmt: skip
    return sorted(found, key=lambda facts: facts.name)


def readme_table() -> str:
    """The table of the README, in Markdown, with its marks."""
    lines = [BEGIN, "| format | is | streams | labels | time |", "|---|---|---|---|---|"]
    lines += [
        f"| `{f.name}` | {f.summary} | {f.reads} | {f.labels or '-'} | {f.time or '-'} |"
        for f in formats()
    ]
    return "\n".join([*lines, END])


def page() -> str:
    """docs/formats.md."""
    lines = [
        "# Formats",
        "",
        "Written by `mmdata formats --page`. `mmdata convert` recognises these by their content;",
        "`--format NAME` forces one. Datasets of many episodes become one episode file each.",
        "What a format cannot be read for is counted and told by `inspect` and `convert`.",
        "",
        "- *Measured* stamps are kept as the source has them, also where its own metadata says",
        "  otherwise. *Synthetic* ones are made from row numbers: `stamp_source` and",
        "  `stamp_meaning` say `synthetic`, and nothing is concluded about their synchrony.",
        "- Videos are carried over packet by packet (H.264, HEVC, AV1, VP9, MPEG-4, MJPEG). Where",
        "  that cannot be, frames are encoded again, and that is told.",
        "- Quaternions become `qw, qx, qy, qz`, angles radians, sizes length, width, height.",
        "- Plain folders: [folders.md](folders.md). A format of your own:",
        "  [adding-a-converter.md](adding-a-converter.md).",
    ]
    for f in formats():
        lines += ["", f"## {f.name}", "", f"{f.summary}.", "", "| | |", "|---|---|"]
        rows = (
            ("streams", f.reads), ("labels", f.labels), ("calibration", f.calibration),
            ("time", f.time), ("cannot", f.cannot), ("needs", f.needs),
        )  # fmt: skip
        lines += [f"| {name} | {text} |" for name, text in rows if text]
    return "\n".join(lines) + "\n"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("formats")
    def formats_command(
        json: bool = JsonOption,
        markdown: bool = typer.Option(False, "--markdown", help="Print the README's table."),
        whole_page: bool = typer.Option(False, "--page", help="Print docs/formats.md."),
    ) -> None:
        """List the log formats: what each reads, what it cannot, what it needs installed.

        Example: mmdata formats
        """
        if json:
            print_json([{**asdict(f), "needs": f.needs} for f in formats()])
        elif markdown:
            typer.echo(readme_table())
        elif whole_page:
            typer.echo(page(), nl=False)
        else:
            shown = table("format", "is", "reads", "labels", "time", "needs")
            for f in formats():
                needs = f"pip install '{f.needs}'" if f.missing else ""
                shown.add_row(f.name, f.summary, f.reads, f.labels, f.time, needs)
            print_table(shown)
