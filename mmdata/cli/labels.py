"""``mmdata check-labels``: labels against cameras, LiDAR, tracks and each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmdata.cli.common import (
    FINDINGS,
    JsonOption,
    one_line_errors,
    print_json,
    print_table,
    table,
)

if TYPE_CHECKING:
    from mmdata.checks.label_limits import LabelLimits
    from mmdata.checks.labels import LabelFinding
    from mmdata_schema import Layer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("check-labels")(check_labels)


def check_labels(
    episodes: list[Path] = typer.Argument(help="Episode files."),
    layer: list[str] = typer.Option([], "--layer", help="Only these layers (by name)."),
    labels: list[Path] = typer.Option([], "--labels", help="Layer documents besides (JSON)."),
    limits: Path | None = typer.Option(None, "--limits", help="YAML with limits."),
    show: int = typer.Option(40, "--show", help="Findings to print per episode."),
    folded: bool = typer.Option(False, "--folded", help="Also print what a cause explains."),
    as_json: bool = JsonOption,
    html: Path | None = typer.Option(None, "--html", help="Write a page with all findings."),
) -> None:
    """Check boxes, tracks, phases and captions for consistency across views and sensors.

    Exit code: 0 nothing found, 1 findings, 2 usage.
    """
    with one_line_errors():
        thresholds = _limits(limits)
        results = []
        for path in episodes:
            layers = [*_layers(path, layer), *(_document(p) for p in labels)]
            results.append((path, layers, _check(path, layers, thresholds)))
        if html is not None:
            html.write_text(_page(results), encoding="utf-8")
    if as_json:
        print_json(
            {
                "episodes": [
                    {
                        "path": str(path),
                        "layers": [one.name for one in layers],
                        "findings": [f.to_dict() for f in found],
                    }
                    for path, layers, found in results
                ]
            }
        )
    else:
        for path, layers, found in results:
            _print(path, layers, found, show, folded)
    if any(f.cause is None for _, _, found in results for f in found):
        raise typer.Exit(FINDINGS)


def _limits(path: Path | None) -> LabelLimits:
    import yaml
    from pydantic import ValidationError

    from mmdata.checks.label_limits import LabelLimits
    from mmdata.errors import ConfigError

    if path is None:
        return LabelLimits()
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
        return LabelLimits.model_validate(values.get("labels", values))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}; see docs/label-checks.md") from error


def _layers(path: Path, names: list[str]) -> list[Layer]:
    from mmdata.annotations import list_layers, read_episode_layer
    from mmdata.errors import ConfigError

    entries = {entry.name: entry for entry in list_layers(path)}
    missing = [name for name in names if name not in entries]
    if missing:
        have = ", ".join(entries) or "none"
        raise ConfigError(f"{path} has no layer {missing[0]!r}; it has: {have}")
    return [
        read_episode_layer(path, name)
        for name in (names or [n for n, e in entries.items() if not e.problem])
    ]


def _document(path: Path) -> Layer:
    from mmdata_schema import read_layer

    return read_layer(path.read_bytes())


def _check(path: Path, layers: list[Layer], limits: LabelLimits) -> list[LabelFinding]:
    from mmdata.checks.labels import check_labels as run
    from mmdata.store import open_episode

    with open_episode(path) as episode:
        return run(episode, layers, limits)


def _print(
    path: Path, layers: list[Layer], found: list[LabelFinding], show: int, folded: bool
) -> None:
    top = [f for f in found if f.cause is None]
    names = ", ".join(one.name for one in layers) or "no layers"
    typer.echo(f"{path} ({names}): {len(top)} findings, {len(found) - len(top)} folded under them")
    shown = found if folded else top
    if shown:
        made = table("rule", "type", "where", "object", "message", "folded", right=("folded",))
        for f in shown[:show]:
            made.add_row(
                f.rule,
                f.error_type,
                f.stream or "",
                f.object_id or "",
                f.message,
                str(f.explains or ""),
            )
        print_table(made)
    if len(shown) > show:
        typer.echo(f"... and {len(shown) - show} more (--show, --json, --html)")


def _page(results: list[tuple[Path, list[Layer], list[LabelFinding]]]) -> str:
    """A self-contained page: causes and findings, what they explain below each."""
    from collections import Counter, defaultdict
    from html import escape

    parts = [
        "<!doctype html><meta charset=utf-8><title>mmdata check-labels</title><style>"
        "body{font:14px system-ui;margin:2em}td,th{padding:.2em .7em;text-align:left;"
        "vertical-align:top}tr:nth-child(even){background:#f4f4f4}details{margin:.2em 0}"
        ".error{color:#a00}.warning{color:#860}</style>"
    ]
    for path, layers, found in results:
        below: dict[str, list[LabelFinding]] = defaultdict(list)
        for f in found:
            if f.cause is not None:
                below[f.cause].append(f)
        top = [f for f in found if f.cause is None]
        names = escape(", ".join(one.name for one in layers))
        parts.append(
            f"<h1>{escape(str(path))}</h1><p>Layers: {names}. {len(top)} findings, "
            f"{len(found) - len(top)} folded.</p><table><tr><th>type<th>findings</tr>"
        )
        for kind, count in sorted(Counter(f.error_type for f in top).items()):
            parts.append(f"<tr><td>{escape(kind)}<td>{count}</tr>")
        parts.append("</table><table><tr><th>rule<th>type<th>where<th>object<th>stamp<th>finding")
        for f in top:
            cells: list[Any] = [
                f.rule,
                f.error_type,
                f.stream or "",
                f.object_id or "",
                "" if f.stamp_ns is None else f.stamp_ns,
            ]
            inner = "".join(
                f"<li>{escape(g.rule)} {escape(g.object_id or '')} "
                f"{g.stamp_ns or ''}: {escape(g.message)}"
                for g in below[f.key]
            )
            more = (
                f"<details><summary>{len(below[f.key])} folded</summary><ul>{inner}</ul></details>"
            )
            row = "".join(f"<td>{escape(str(cell))}" for cell in cells)
            parts.append(
                f"<tr class={f.severity}>{row}<td>{escape(f.message)}{more if inner else ''}</tr>"
            )
        parts.append("</table>")
    return "\n".join(parts)
