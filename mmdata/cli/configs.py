"""`mmdata config init`."""

from __future__ import annotations

from pathlib import Path

import typer

from mmdata.cli.common import fail, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Configuration files.", no_args_is_help=True)
    group.command()(init)
    app.add_typer(group, name="config")


def init(
    log: Path = typer.Argument(..., help="A log to take the topics from."),
    out: Path = typer.Option(None, "--out", "-o", help="File to write (default: standard output)."),
    format: str = typer.Option(None, "--format", help="Format, when it is not recognised."),
) -> None:
    """Write a configuration for logs like this one, to edit and use with `convert --config`.

    Example: mmdata config init drive.mcap -o convert.yaml
    """
    with one_line_errors():
        from mmdata.conversion.sources import find_sources
        from mmdata.conversion.template import config_template

        found = find_sources([log], format)
        if not found.sources:
            reasons = "; ".join(u.reason for u in found.unreadable)
            fail(f"{log}: {reasons or 'not a log of a known format'}")
        text = config_template(found.sources[0])
        if out is None:
            typer.echo(text, nl=False)
            return
        if out.exists():
            fail(f"{out} exists already; choose another name")
        out.write_text(text)
        typer.echo(f"wrote {out}")
