"""`mmdata segment` and `mmdata phases`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mmdata.phases.segment import Segmentation

Episodes = Annotated[list[Path], typer.Argument(help="Episode files, or folders of them.")]


def register(app: typer.Typer) -> None:
    """Add `segment`, `phases fit` and `phases evaluate`."""
    app.command("segment")(segment_command)
    phases = typer.Typer(help="Learn phases from labelled episodes; score predictions.")
    phases.command("fit")(fit_command)
    phases.command("evaluate")(evaluate_command)
    app.add_typer(phases, name="phases")


def segment_command(
    episodes: Episodes,
    grammar: Annotated[
        str,
        typer.Option(help="auto, none, a grammar that ships (pick_place ...), or a .yaml file."),
    ] = "auto",
    model: Annotated[
        Path | None, typer.Option(help="A model of `mmdata phases fit`, instead of a grammar.")
    ] = None,
    urdf: Annotated[
        Path | None, typer.Option(help="Robot description: hand positions from joint angles.")
    ] = None,
    tip: Annotated[str | None, typer.Option(help="Link of the URDF that is the hand.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the annotation layer `auto` beside the episode.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --write: replace a layer that was reviewed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    html: Annotated[
        bool,
        typer.Option(
            "--html",
            help="Write a page with signals and phases: segment.html, or the .html file named.",
        ),
    ] = False,
    quality: Annotated[
        bool, typer.Option(help="Assess the demonstration as well (looks at pictures).")
    ] = True,
) -> None:
    """Find phases, events and the quality of demonstrations from their signals.

    Boundaries follow contact and motion, not commands. Whatever signals an episode has are used,
    and the report says which.
    """
    from mmdata.phases.learn import PhaseModel, segment_with_model
    from mmdata.phases.report import write_html
    from mmdata.phases.segment import segment
    from mmdata.phases.sources import read_inputs
    from mmdata.quality.demo import assess_demonstration, compare_with_length, dataset_ranges
    from mmdata.store import open_episode

    # `--html page.html` is what people type: a page named among the arguments is the output.
    page = next((p for p in episodes if p.suffix == ".html"), Path("segment.html"))
    paths = episode_files([p for p in episodes if p != page])
    fitted = PhaseModel.read(model) if model is not None else None
    ranges = None
    if quality and len(paths) > 1:
        ranges = dataset_ranges(_opened(paths))
    rows, pages, reports = [], [], []
    for path in paths:
        with open_episode(path) as ep:
            if fitted is not None:
                found = segment_with_model(read_inputs(ep, urdf=urdf, tip=tip), fitted)
            else:
                found = segment(ep, grammar=grammar, urdf=urdf, tip=tip)
            judged = None
            if quality:
                report = assess_demonstration(ep, found.phases, found.events, ranges=ranges)
                reports.append(report)
                judged = report.to_dict()
            if write:
                _write_layer(path, ep.episode_id, found, force)
        rows.append({"path": str(path), **found.to_dict(), "quality": judged})
        if html:
            pages.append((path.name, found, judged))
        if not as_json:
            _show(path, found, judged)
    beside = compare_with_length(reports) if len(reports) > 4 else None
    if html:
        page.write_text(write_html(pages), encoding="utf-8")
        typer.echo(f"wrote {page}", err=True)
    if as_json:
        document: dict[str, Any] = {"episodes": rows}
        if beside is not None:
            document["score_against_length"] = beside
        typer.echo(json.dumps(document, indent=1))
    elif beside is not None:
        typer.echo(_length_line(beside))


def fit_command(
    episodes: Episodes,
    out: Annotated[Path, typer.Option(help="Where the model is written (JSON).")] = Path(
        "phases.json"
    ),
    layer: Annotated[
        str | None, typer.Option(help="Annotation layer that holds the labels.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Instead: a JSON file or folder with phases per episode.")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="Tier of the layer's phases.")] = None,
    key: Annotated[str | None, typer.Option(help="List in the truth file.")] = None,
) -> None:
    """Learn labels, lengths and order of phases from labelled episodes."""
    from mmdata.errors import ConfigError
    from mmdata.phases.files import read_labelled
    from mmdata.phases.learn import fit
    from mmdata.phases.sources import read_inputs
    from mmdata.store import open_episode

    if (layer is None) == (truth is None):
        raise ConfigError("say where the labels are: either --layer NAME or --truth PATH")
    known = read_labelled(truth, tier=tier, key=key) if truth is not None else {}
    labelled = []
    for path in episode_files(episodes):
        with open_episode(path) as ep:
            intervals = (
                _from_layer(path, layer, tier)
                if layer is not None
                else known.get(path.stem, known.get(ep.episode_id, []))
            )
            if not intervals:
                typer.echo(f"{path}: no labels, left out", err=True)
                continue
            labelled.append((read_inputs(ep), intervals))
    if not labelled:
        raise ConfigError("none of the episodes has labels; names must match those of the truth")
    model = fit(labelled)
    model.write(out)
    typer.echo(
        f"wrote {out}: {len(model.labels)} phases from {model.episodes} episodes, "
        f"{len(model.signals)} signals"
    )


def evaluate_command(
    predicted: Annotated[Path, typer.Argument(help="Predictions: JSON file or folder.")],
    truth: Annotated[Path, typer.Argument(help="Truth: JSON file or folder.")],
    tier: Annotated[str | None, typer.Option(help="Tier, where files are layers.")] = None,
    key: Annotated[
        str | None, typer.Option(help="List in the truth file (phases, script_phases ...).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score predicted phases: accuracy, edit, F1 of segments and boundaries, with intervals."""
    from mmdata.phases.files import pair_up, read_labelled
    from mmdata.phases.metrics import evaluate, score_episode

    pairs = pair_up(read_labelled(predicted, tier=tier), read_labelled(truth, tier=tier, key=key))
    scores = evaluate([score_episode(p, t) for _, p, t in pairs])
    if as_json:
        document = {
            "episodes": len(pairs),
            "scores": {
                n: {"value": s.value, "low": s.low, "high": s.high} for n, s in scores.items()
            },
        }
        typer.echo(json.dumps(document, indent=1))
        return
    typer.echo(f"{len(pairs)} episodes; intervals: 95 % by bootstrap over episodes")
    for name, score in scores.items():
        spread = "" if score.low is None else f"  [{score.low:.3f}, {score.high:.3f}]"
        typer.echo(f"{name:24s} {score.value:9.3f}{spread}")


def episode_files(paths: list[Path]) -> list[Path]:
    """Files as given and the .h5 files of folders. Raises ConfigError for an empty folder."""
    from mmdata.errors import ConfigError

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.h5"))
            if not inside:
                raise ConfigError(f"{path}: no episode (.h5) in this folder")
            found += inside
        else:
            found.append(path)
    return found


def _opened(paths: list[Path]) -> Any:
    from mmdata.store import open_episode

    for path in paths:
        with open_episode(path) as ep:
            yield ep


def _write_layer(path: Path, episode_id: str, found: Segmentation, force: bool) -> None:
    """Write or replace the layer `auto`, but never what a person has judged, unless forced."""
    from mmdata.annotations import layer_path, read_layer_file, write_layer_file
    from mmdata.errors import ConfigError
    from mmdata.phases.layer import to_layer
    from mmdata_schema import ReviewState

    target = layer_path(path, "auto")
    revision = 0
    if target.exists():
        old = read_layer_file(target)
        revision = old.revision
        judged = old.review_state is not ReviewState.DRAFT or any(
            a.review is not None or a.provenance is not None for a in old.annotations()
        )
        if judged and not force:
            raise ConfigError(
                f"{target}: somebody has reviewed this layer; copy it to another name first, "
                "or use --force to replace it"
            )
    write_layer_file(target, to_layer(found, episode_id), revision)
    typer.echo(f"wrote {target}", err=True)


def _from_layer(path: Path, layer: str, tier: str | None) -> list[Any]:
    from mmdata.annotations import read_episode_layer
    from mmdata.phases.files import TIERS
    from mmdata.phases.metrics import Interval

    phases = read_episode_layer(path, layer).phases
    wanted = tier or next((t for t in TIERS if any(p.tier == t for p in phases)), None)
    return [Interval(p.label, p.start_ns, p.end_ns) for p in phases if p.tier == wanted]


def _show(path: Path, found: Segmentation, quality: dict[str, Any] | None) -> None:
    start = found.analysis.grid.start_ns
    named = f"grammar {found.grammar}" if found.grammar else "no grammar"
    typer.echo(f"{path}: {named}, outcome {found.outcome.label}")
    for p in found.phases:
        typer.echo(
            f"  {(p.start_ns - start) / 1e9:9.3f} s  {(p.end_ns - p.start_ns) / 1e9:7.3f} s  "
            f"{p.label:16s} {p.confidence:.2f}  {', '.join(p.evidence)}"
        )
    for e in found.events:
        typer.echo(
            f"  {(e.stamp_ns - start) / 1e9:9.3f} s  event      {e.label:16s} "
            f"{e.confidence:.2f}  {', '.join(e.evidence)}"
        )
    typer.echo(f"  signals: {', '.join(found.signals) or 'none'}")
    for note in found.notes:
        typer.echo(f"  note: {note}")
    if quality is not None:
        base = quality["baselines"]
        score = "" if quality["score"] is None else f" ({quality['score']:.1f})"
        typer.echo(
            f"  quality: {quality['grade']}{score}; beside it length {base['length_s']:.1f} s, "
            f"random {base['random']:.2f}"
        )
        for c in quality["claims"]:
            if c["type"] in ("DEFECT", "RISK"):
                typer.echo(f"    {c['type']:6s} {c['name']}: {c['message']}")


def _length_line(beside: dict[str, float | None]) -> str:
    def shown(value: float | None) -> str:
        return "not assessed" if value is None else f"{value:+.2f}"

    return (
        f"rank correlation with length: score {shown(beside['score_vs_length'])}, "
        f"random {shown(beside['random_vs_length'])}"
    )
