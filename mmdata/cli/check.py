"""``mmdata check`` and ``mmdata shift``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli.common import one_line_errors, print_json, warn

if TYPE_CHECKING:
    from mmdata.checks import Limits
    from mmdata.sync.budget import Budget
    from mmdata.sync.report import Section


@dataclass(frozen=True)
class Checked:
    """Outcome for one episode; ``section`` only where a report was asked for."""

    path: str
    verdict: str
    findings: tuple[dict[str, Any], ...]
    ledger: dict[str, Any]
    section: Section | None = None

    def to_dict(self) -> dict[str, Any]:
        keys = ("a", "b", "offset_ms", "sigma_ms", "method", "verdict")
        return {
            "path": self.path,
            "verdict": self.verdict,
            "findings": list(self.findings),
            "ledger": [{key: pair[key] for key in keys} for pair in self.ledger["pairs"]],
        }


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("check")(check)
    app.command("shift")(shift)


def check(
    episodes: Annotated[
        list[Path] | None, typer.Argument(help="Episode files, or folders of them.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained report.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    budget: Annotated[Path | None, typer.Option(help="YAML with budgets and limits.")] = None,
    select: Annotated[list[str] | None, typer.Option(help="Only these rules (globs).")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not these rules (globs).")] = None,
    strict: Annotated[
        bool, typer.Option(help="Warnings fail; open questions are no pass.")
    ] = False,
    content: Annotated[
        bool, typer.Option("--content/--stamps-only", help="Compare content, or stamps alone.")
    ] = True,
    write: Annotated[bool, typer.Option(help="Write the ledger into the episode.")] = True,
    rules: Annotated[bool, typer.Option(help="List the rules and stop.")] = False,
) -> None:
    """Check time, sensors and labels of episodes.

    Exit code: 1 when an episode fails (with --strict: or cannot be assessed), else 0.
    """
    from mmdata.checks import exit_code
    from mmdata.errors import ConfigError

    if rules:
        _list_rules()
        return
    with one_line_errors():
        if not episodes:
            raise ConfigError("name at least one episode: mmdata check EPISODE.h5")
        sync_budget, limits = read_settings(budget)
        checked = [
            check_episode(
                path,
                budget=sync_budget,
                limits=limits,
                select=select or (),
                exclude=exclude or (),
                strict=strict,
                content=content,
                write=write,
                report=html is not None,
            )
            for path in episode_paths(episodes)
        ]
        if html is not None:
            from mmdata.sync.report import render_report

            page = render_report([one.section for one in checked if one.section is not None])
            html.write_text(page, encoding="utf-8")
    if as_json:
        print_json({"episodes": [one.to_dict() for one in checked]})
    else:
        for one in checked:
            _print(one)
    raise typer.Exit(exit_code((one.verdict for one in checked), strict=strict))


def shift(
    episode: Annotated[Path, typer.Argument(help="Episode file.")],
    stream: Annotated[str, typer.Option(help="Stream to move.")],
    by: Annotated[str, typer.Option(help="Signed time with unit: -80ms, +1.5s, 250us, 12ns.")],
    reason: Annotated[str, typer.Option(help="Recorded with the shift.")] = "mmdata shift",
) -> None:
    """Move one stream in time: metadata only, recorded, undone by the opposite shift."""
    from mmdata.align.stored import realign
    from mmdata.store import shift_stream
    from mmdata.sync.shift import parse_duration_ns

    with one_line_errors():
        by_ns = parse_duration_ns(by)
        shift_stream(episode, stream, by_ns, reason)
        timelines = realign(episode)
    typer.echo(f"{episode}: {stream} moved by {by_ns / 1e6:+g} ms; source stamps unchanged")
    if timelines:
        typer.echo(f"aligned again: {', '.join(timelines)}")


def check_episode(
    path: str | Path,
    *,
    budget: Budget | None = None,
    limits: Limits | None = None,
    select: Any = (),
    exclude: Any = (),
    strict: bool = False,
    content: bool = True,
    write: bool = False,
    report: bool = False,
) -> Checked:
    """Assess and check one episode file; see :func:`check` for the options."""
    from mmdata.checks import Context, Limits, run_checks, verdict
    from mmdata.store import open_episode, write_sync
    from mmdata.sync.assess import assess
    from mmdata.sync.report import section

    layers = _layers(Path(path))
    with open_episode(path) as episode:
        ledger = assess(episode, budget=budget, content=content, layers=layers)
        context = Context(episode, ledger.to_dict(), layers, limits or Limits())
        found = run_checks(context, select=select, exclude=exclude)
        result = verdict(found, strict=strict)
        findings = tuple(finding.to_dict() for finding in found)
        drawn = section(episode, result, findings, ledger) if report else None
    if write:
        try:
            write_sync(path, ledger.to_dict())
        except PermissionError:
            warn(f"{path}: read-only, so the ledger is not written into it")
    return Checked(str(path), result, findings, ledger.to_dict(), drawn)


def read_settings(path: Path | None) -> tuple[Budget, Limits]:
    """Budgets and, under ``checks:``, limits of one YAML file; defaults without one.

    Raises ConfigError with the key that is wrong.
    """
    from pydantic import ValidationError

    from mmdata.checks import Limits
    from mmdata.errors import ConfigError
    from mmdata.sync.budget import Budget, parse_budget, read_yaml

    if path is None:
        return Budget(), Limits()
    settings = read_yaml(path)
    checks = settings.pop("checks", None) or {}
    try:
        limits = Limits.model_validate(checks)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("checks", *(str(part) for part in first["loc"])))
        raise ConfigError(f"{path}: {where}: {first['msg']}; see docs/sync.md, Budgets") from error
    return parse_budget(settings, path), limits


def episode_paths(paths: list[Path]) -> list[Path]:
    """Files as they are, folders as their episodes. Raises ConfigError for an empty folder."""
    from mmdata.errors import ConfigError

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path.glob("*.h5"))
        if not inside:
            raise ConfigError(f"{path}: no episodes (*.h5) in this folder")
        found += inside
    return found


def _layers(path: Path) -> dict[str, dict[str, Any]]:
    """Annotation layers beside and inside the episode, as parsed JSON."""
    import json

    from mmdata.annotations import list_layers, read_episode_layer
    from mmdata_schema.io import write_layer

    entries = [entry for entry in list_layers(path) if entry.problem is None]
    return {
        entry.name: json.loads(write_layer(read_episode_layer(path, entry.name)))
        for entry in entries
    }


def _print(one: Checked) -> None:
    typer.echo(f"{one.path}: {one.verdict}")
    for finding in one.findings:
        if finding["status"] == "FAILED":
            stream = f" {finding['stream']}" if finding["stream"] else ""
            typer.echo(f"  {finding['rule']} {finding['severity']}{stream}: {finding['message']}")
    open_questions = sum(f["status"] == "NOT_ASSESSED" for f in one.findings)
    if open_questions:
        typer.echo(f"  {open_questions} not assessed (see --json or --html)")


def _list_rules() -> None:
    from mmdata.checks import rules

    for rule in rules():
        clause = f" [{rule.clause}, second-hand]" if rule.clause else ""
        typer.echo(f"{rule.id} {rule.severity}: {rule.title}{clause}")
