"""`mmdata annotations agreement`, `sample`, `queue` and `calibration`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli.common import JsonOption, one_line_errors, print_json, print_table, table

if TYPE_CHECKING:
    from mmdata_schema import Layer

EpisodesArgument = Annotated[list[Path], typer.Argument(help="Episode files, or folders of them.")]
LayersOption = Annotated[
    list[str] | None, typer.Option("--layer", "-l", help="Only these layers (repeat the option).")
]
FindingsOption = Annotated[Path | None, typer.Option(help="JSON of findings, as checks write it.")]
HtmlOption = Annotated[Path | None, typer.Option(help="Write a self-contained page.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything drawn at random.")]


def register(group: typer.Typer) -> None:
    """Add the commands to `mmdata annotations`."""
    group.command()(agreement)
    group.command()(sample)
    group.command()(queue)
    group.command()(calibration)


def agreement(
    episodes: EpisodesArgument,
    layer: LayersOption = None,
    reference: Annotated[
        str | None, typer.Option(help="Layer the others are scored against, per class.")
    ] = None,
    tier: Annotated[list[str] | None, typer.Option(help="Only these tiers of phases.")] = None,
    bin_ms: Annotated[int, typer.Option(help="Bin of frame-wise numbers.", min=1)] = 50,
    tolerance_ms: Annotated[
        list[int] | None, typer.Option(help="Tolerances of boundaries (default 100 and 250).")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Resamples for intervals.", min=0)] = 1000,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    json: bool = JsonOption,
) -> None:
    """How far the layers of the same episodes agree: phases, events, boxes; per category.

    Each layer name is one annotator. Intervals come from resampling episodes.
    """
    with usage_errors():
        from mmdata.quality.label_agreement import Settings, measure_agreement

        settings = Settings(
            bin_ms=bin_ms, tolerances_ms=tuple(tolerance_ms or (100, 250)), tiers=tuple(tier or ()),
            reference=reference, resamples=resamples, seed=seed,
        )  # fmt: skip
        annotators = by_annotator(episodes, layer)
        if len(annotators) < 2:
            raise ValueError(
                f"agreement needs two layers at least; found: {', '.join(annotators) or 'none'}"
            )
        if reference is not None and reference not in annotators:
            raise ValueError(f"no layer {reference!r}; found: {', '.join(annotators)}")
        measured = measure_agreement(annotators, settings)
        if html is not None:
            from mmdata.quality.label_pages import agreement_page

            html.write_text(agreement_page(measured, settings), encoding="utf-8")
        if json:
            print_json({"settings": vars(settings), "measured": [m.to_dict() for m in measured]})
            return
        if not measured:
            typer.echo("no two layers label the same thing in the same episode")
        for m in measured:
            typer.echo(
                f"{m.kind}: {m.name} ({', '.join(m.annotators)}; {len(m.episodes)} episodes)"
            )
            shown = table("measure", "category", "value", "low", "high", right=("value",))
            rows = [("all", m.overall), *m.by_category.items()]
            for category, estimates in rows:
                for name, e in estimates.items():
                    shown.add_row(name, category, *(number(v) for v in (e.value, e.low, e.high)))
            print_table(shown)


def sample(
    episodes: EpisodesArgument,
    layer: LayersOption = None,
    rate: Annotated[float, typer.Option(help="Share of all annotations.")] = 0.05,
    min_rate: Annotated[float, typer.Option(help="Least share of every class.")] = 0.02,
    min_count: Annotated[int, typer.Option(help="Least number of every class.")] = 20,
    class_rate: Annotated[
        list[str] | None, typer.Option(help="Least share of one class, as CLASS=RATE.")
    ] = None,
    max_fault_rate: Annotated[
        float, typer.Option(help="Fault rate a class must be shown to stay below.")
    ] = 0.05,
    confidence: Annotated[float, typer.Option(help="With this confidence.")] = 0.95,
    findings: FindingsOption = None,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    json: bool = JsonOption,
) -> None:
    """Draw annotations to check: by class, task, annotator and severity of findings.

    Each class has its acceptance number: how many faults it may show.
    """
    with usage_errors():
        from mmdata.quality.label_items import items_of
        from mmdata.quality.sampling import Plan, stratified_sample

        plan = Plan(rate, min_rate, min_count, _rates(class_rate or ()), max_fault_rate, confidence)
        known = _findings(findings) if findings is not None else []
        items = items_of(_layers(episodes, layer), known, _tasks(episodes))
        drawn = stratified_sample(items, plan, seed=seed)
        if html is not None:
            from mmdata.quality.label_pages import sample_page

            html.write_text(sample_page(drawn), encoding="utf-8")
        if json:
            print_json(drawn.to_dict())
            return
        shown = table("class", "population", "sampled", "acceptance number")
        for s in drawn.classes:
            number = "too few to tell" if s.acceptance is None else str(s.acceptance)
            shown.add_row(s.name[0], str(s.population), str(s.sampled), number)
        print_table(shown)
        for item in drawn.items:
            typer.echo(f"{item.episode_id} {item.layer} {item.id} {item.label}")


def queue(
    episodes: EpisodesArgument,
    layer: LayersOption = None,
    findings: FindingsOption = None,
    size: Annotated[int | None, typer.Option(help="Length of the queue.", min=1)] = None,
    random_share: Annotated[float, typer.Option(help="Share drawn at random.")] = 0.15,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    json: bool = JsonOption,
) -> None:
    """What to review first: gravest findings and least sure proposals, some at random."""
    with usage_errors():
        from mmdata.quality.label_items import candidates_of
        from mmdata.quality.queue import review_queue

        layers = _layers(episodes, layer)
        known = _findings(findings) if findings is not None else []
        made = review_queue(
            candidates_of(layers, known), size=size, random_share=random_share, seed=seed
        )
        if html is not None:
            from mmdata.quality.label_pages import queue_page

            html.write_text(queue_page(made), encoding="utf-8")
        if json:
            print_json([entry.to_dict() for entry in made])
            return
        shown = table("#", "episode", "layer", "id", "severity", "score", "why", "reason")
        for e in made:
            c = e.candidate
            shown.add_row(str(e.position + 1), c.episode_id, c.layer or "", c.id, c.severity,
                          f"{c.score:.2f}", e.why, c.reason or "")  # fmt: skip
        print_table(shown)


def calibration(
    episodes: EpisodesArgument,
    layer: LayersOption = None,
    max_error: Annotated[
        float, typer.Option(help="Error rate among what is accepted without review.")
    ] = 0.02,
    bins: Annotated[int, typer.Option(help="Bins of equal count.", min=1)] = 15,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    json: bool = JsonOption,
) -> None:
    """Whether confidences of judged proposals mean what they say, and from which on to trust."""
    with usage_errors():
        from dataclasses import asdict

        from mmdata.quality.calibration import calibration as calibrate
        from mmdata.quality.calibration import routing_thresholds
        from mmdata.quality.label_items import judged_proposals

        sure, right, labels, sources = judged_proposals(_layers(episodes, layer))
        if not sure:
            raise ValueError("no annotation has both a confidence and a verdict")
        made = calibrate(sure, right, episodes=sources, bins=bins, seed=seed)
        routes = routing_thresholds(sure, right, labels, max_error=max_error)
        if html is not None:
            from mmdata.quality.label_pages import calibration_page

            html.write_text(calibration_page(made, list(routes.values())), encoding="utf-8")
        if json:
            rows = {name: asdict(route) for name, route in routes.items()}
            print_json({"calibration": made.to_dict(), "routing": rows})
            return
        e = made.ece
        typer.echo(f"{made.count} judged proposals: ECE {number(e.value)} "
                   f"[{number(e.low)}, {number(e.high)}]")  # fmt: skip
        shown = table("class", "accept from", "share accepted", "error below", "examples")
        for r in routes.values():
            shown.add_row(r.label, "review all" if r.threshold is None else number(r.threshold),
                          f"{r.accepted:.1%}", number(r.error_bound), str(r.count))  # fmt: skip
        print_table(shown)


def by_annotator(paths: list[Path], names: list[str] | None) -> dict[str, dict[str, Layer]]:
    """annotator (a layer's name) -> episode -> layer."""
    annotators: dict[str, dict[str, Layer]] = {}
    for made in _layers(paths, names):
        annotators.setdefault(made.name, {})[made.episode_id] = made
    return annotators


def _layers(paths: list[Path], names: list[str] | None) -> list[Layer]:
    """Usable layers of the episodes, in order of episode and name."""
    from mmdata.annotations import list_layers, read_episode_layer

    found = []
    for file in _files(paths):
        for entry in list_layers(file):
            if names is not None and entry.name not in names:
                continue
            if entry.problem is not None:
                raise ValueError(f"{file}: layer {entry.name!r}: {entry.problem}")
            found.append(read_episode_layer(file, entry.name))
    return found


def _files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise ValueError("no episodes there")
    return files


def _tasks(paths: list[Path]) -> dict[str, str]:
    """Task by episode, where an episode's metadata names it."""
    from mmdata import open_episode

    tasks = {}
    for file in _files(paths):
        with open_episode(file) as episode:
            if episode.metadata.get("task") is not None:
                tasks[episode.episode_id] = str(episode.metadata["task"])
    return tasks


def _findings(path: Path) -> list[dict[str, Any]]:
    """Findings of a file: a list of them, or of episodes that have `findings` and a `path`."""
    import json as json_module

    document = json_module.loads(path.read_bytes())
    if isinstance(document, dict):
        document = document.get("episodes") or document.get("findings") or [document]
    rows: list[dict[str, Any]] = []
    for entry in document:
        own = entry.get("findings")
        if own is None:
            rows.append(entry)
            continue
        episode = entry.get("episode_id") or Path(entry.get("path", "")).stem
        rows += [{"episode_id": episode, **finding} for finding in own]
    return rows


def _rates(given: list[str] | tuple[str, ...]) -> dict[str, float]:
    rates = {}
    for text in given:
        label, equals, rate = text.rpartition("=")
        if not equals:
            raise ValueError(f"--class-rate takes CLASS=RATE, got {text!r}")
        rates[label] = float(rate)
    return rates


def number(value: float | None) -> str:
    """Three decimals, or a dash for what is not defined."""
    return "-" if value is None else f"{value:.3f}"


@contextmanager
def usage_errors() -> Iterator[None]:
    """As `one_line_errors`; numbers that make no sense are errors of usage."""
    from mmdata.errors import ConfigError

    with one_line_errors():
        try:
            yield
        except ValueError as error:
            raise ConfigError(str(error)) from error
