"""The command line. Parsers import nothing heavy; commands import what they need when they run.

Exit codes of every command: 0 fine, 1 findings or quarantine, 2 usage.
"""

from __future__ import annotations

import sys
from importlib import import_module

import typer

#: Modules of this package whose `register(app)` adds commands, in the order of the help page.
_MODULES = (
    "convert", "episodes", "check", "segment", "annotations", "view", "demo", "formats", "configs",
)  # fmt: skip

app = typer.Typer(
    name="mmdata",
    help="Raw robot and vehicle logs into time-aligned, checked, training-ready HDF5 episodes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from mmdata import __version__

        sys.stdout.write(f"mmdata {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Start with `mmdata demo`, or `mmdata inspect LOG`."""


for _name in _MODULES:
    import_module(f"mmdata.cli.{_name}").register(app)


def main() -> None:
    """Entry point of the `mmdata` command."""
    app()
