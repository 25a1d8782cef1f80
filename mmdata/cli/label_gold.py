"""`mmdata annotations seed-gold` and `drift`: tasks with known answers, and what they tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.common import FINDINGS, JsonOption, print_json, print_table, table
from mmdata.cli.label_qa import (
    EpisodesArgument,
    HtmlOption,
    LayersOption,
    SeedOption,
    by_annotator,
    number,
    usage_errors,
)

if TYPE_CHECKING:
    from mmdata.quality.gold import Drift


def register(group: typer.Typer) -> None:
    """Add the commands to `mmdata annotations`."""
    group.command("seed-gold")(seed_gold)
    group.command()(drift)


def seed_gold(
    tasks: Annotated[Path, typer.Argument(help="Text file: a task (episode) per line, in order.")],
    gold: Annotated[Path, typer.Argument(help="Text file: tasks with a known answer.")],
    worklist: Annotated[Path, typer.Option(help="Write the list to hand out; gold is not marked.")],
    rate: Annotated[float, typer.Option(help="Share of gold tasks.")] = 0.1,
    seed: SeedOption = 0,
    json: bool = JsonOption,
) -> None:
    """Hide tasks with known answers among others, one in every stretch of 1 / rate.

    What is printed, the places of the gold tasks, is for whoever runs the labelling.
    """
    with usage_errors():
        from mmdata.quality.gold import seed_gold as mix

        mixed = mix(_lines(tasks), _lines(gold), rate=rate, seed=seed)
        worklist.write_text("".join(f"{task}\n" for task, _ in mixed), encoding="utf-8")
        places = [(k + 1, task) for k, (task, is_gold) in enumerate(mixed) if is_gold]
    if json:
        rows = [{"line": line, "task": task} for line, task in places]
        print_json({"worklist": str(worklist), "tasks": len(mixed), "gold": rows})
        return
    typer.echo(f"{worklist}: {len(mixed)} tasks, {len(places)} of them gold")
    shown = table("line", "gold task", right=("line",))
    for line, task in places:
        shown.add_row(str(line), task)
    print_table(shown)


def drift(
    episodes: EpisodesArgument,
    reference: Annotated[str, typer.Option(help="Layer with the known answers.")],
    layer: LayersOption = None,
    level: Annotated[float, typer.Option(help="Chance of a false alarm over everything.")] = 0.05,
    least: Annotated[int, typer.Option(help="Episodes on either side of a change.", min=2)] = 5,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    json: bool = JsonOption,
) -> None:
    """Whether annotators got better or worse, by the episodes that have a reference layer.

    Each other layer is one annotator, timed by when it was last modified. Exit code 1 when
    somebody's scores changed.
    """
    with usage_errors():
        from mmdata.quality.gold import annotator_drift, gold_results

        known = by_annotator(episodes, None if layer is None else [*layer, reference])
        if reference not in known:
            raise ValueError(f"no layer {reference!r}; found: {', '.join(known) or 'none'}")
        results = gold_results(known, reference)
        if not results:
            raise ValueError(
                f"no episode has both {reference!r} and another layer of the same kind"
            )
        found = annotator_drift(results, level=level, least=least, seed=seed)
        if html is not None:
            from mmdata.quality.label_pages import gold_page

            html.write_text(gold_page(found), encoding="utf-8")
    if json:
        print_json([one.to_dict() for one in found])
    else:
        _print(found)
    if any(one.drifted for one in found):
        raise typer.Exit(FINDINGS)


def _print(found: list[Drift]) -> None:
    from datetime import UTC, datetime

    shown = table("annotator", "class", "tasks", "mean", "before", "after", "since", "verdict",
                  right=("tasks", "mean", "before", "after"))  # fmt: skip
    for one in found:
        verdict = {None: "too few to tell", True: "changed", False: "steady"}[one.drifted]
        since = ""
        if one.drifted and one.change_unix_ns is not None:
            at = datetime.fromtimestamp(one.change_unix_ns / 1e9, UTC)
            since = at.strftime("%Y-%m-%d %H:%M")
        shown.add_row(one.annotator, one.label, str(one.count), number(one.mean),
                      number(one.before), number(one.after), since, verdict)  # fmt: skip
    print_table(shown)


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"{path} names no task")
    return found
