"""What every command shares: output, exit codes, progress. Imports nothing heavy."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FINE, FINDINGS, USAGE, INTERRUPTED = 0, 1, 2, 130
_PLAIN_INTERVAL_S = 5.0

JsonOption = typer.Option(False, "--json", help="Print one JSON document instead of text.")


def console(stderr: bool = False) -> Console:
    """A Rich console; text goes to stdout, progress and notes to stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table; columns named in `right` are right-aligned."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_table(made: Table) -> None:
    """Print a table, at its natural width when the output is no terminal."""
    from rich.console import Console

    out = Console(highlight=False)
    if out.is_terminal:
        out.print(made)
        return
    wide = Console(highlight=False, width=160, file=io.StringIO())
    with wide.capture() as capture:
        wide.print(made)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    sys.stdout.write("\n".join(lines).rstrip("\n") + "\n")


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def warn(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{message}\n")


def fail(message: str, code: int = FINDINGS) -> NoReturn:
    """Print one line on stderr and exit."""
    sys.stderr.write(f"mmdata: {message}\n")
    raise typer.Exit(code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Known errors become one line and exit code 1 (2 for configuration); others are bugs."""
    from mmdata.errors import ConfigError, MmdataError

    try:
        yield
    except ConfigError as error:
        fail(str(error), USAGE)
    except (MmdataError, OSError) as error:
        fail(str(error))


def human_bytes(count: float) -> str:
    """1.2 MB and the like (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class ProgressLines:
    """Progress of some long work: bars with rate and ETA on a terminal, lines otherwise.

    quiet: neither (used with --json). Use as a context manager; `update` is thread-safe enough
    for one caller per task.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._quiet = quiet
        self._said: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> ProgressLines:
        if not self._quiet and sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
                console=console(stderr=True), transient=True,
            )  # fmt: skip
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, name: str, done: int, total: int, unit: str = "messages") -> None:
        """Work `name` has done so many of so many."""
        if self._quiet:
            return
        now = time.monotonic()
        began, last = self._said.get(name, (now, now))
        rate = done / max(now - began, 1e-9)
        if self._bars is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, rate="")
            self._bars.update(self._tasks[name], completed=done, total=total, rate=f"{rate:,.0f}/s")
            self._said[name] = (began, now)
            return
        if name not in self._said or (now - last > _PLAIN_INTERVAL_S and done < total):
            if name in self._said:
                eta = (total - done) / max(rate, 1e-9)
                warn(f"{name}: {done:,} of {total:,} {unit}, {rate:,.0f}/s, {eta:.0f} s left")
            self._said[name] = (began, now)

    def overall(self, done: int, total: int) -> None:
        """Jobs done of all jobs; a bar above the others when there is more than one."""
        if total > 1 and self._bars is not None:
            self.update("all logs", done, total, "logs")

    def finish(self, name: str) -> None:
        """Take the bar of finished work away."""
        if self._bars is not None and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
