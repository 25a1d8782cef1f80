"""Phases read from files for evaluation: reports, annotation layers, truth of simulators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdata.errors import ConfigError
from mmdata.phases.metrics import Interval

TIERS = ("motion", "manoeuvre", "subtask")
TRUTH_KEYS = ("phases", "script_phases", "segments")


def read_labelled(
    path: Path | str, *, tier: str | None = None, key: str | None = None
) -> dict[str, list[Interval]]:
    """Episode -> intervals, from a JSON file or a folder of them.

    Understood: the report of `mmdata segment --json`, an annotation layer (its `tier`, by default
    the finest there is), and any JSON object with a list of {label, start_ns, end_ns} under `key`
    (by default phases, script_phases or segments), as simulators write their truth. Raises
    ConfigError where a file is none of these.
    """
    path = Path(path)
    if path.is_dir():
        found: dict[str, list[Interval]] = {}
        for file in sorted(path.glob("*.json")):
            try:
                found |= read_labelled(file, tier=tier, key=key)
            except ConfigError:  # other JSON files may lie beside the labels
                continue
        if not found:
            raise ConfigError(f"{path}: no .json file with phases in it")
        return found
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if isinstance(document, list):
        document = {"phases": document}
    if isinstance(document, dict) and "episodes" in document:
        return {
            Path(str(e.get("path", i))).stem: _intervals(e.get("phases"), path)
            for i, e in enumerate(document["episodes"])
        }
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a JSON object with phases")
    if "schema_version" in document and "episode_id" in document:
        return {str(document["episode_id"]): _intervals(_of_tier(document, tier), path)}
    keys = (key,) if key else TRUTH_KEYS
    for name in keys:
        if name in document:
            return {path.name.split(".")[0]: _intervals(document[name], path)}
    raise ConfigError(f"{path}: no list of phases under {' or '.join(keys)}")


def _of_tier(layer: Mapping[str, Any], tier: str | None) -> list[Any]:
    phases = list(layer.get("phases", []))
    there = {p.get("tier") for p in phases}
    wanted = tier or next((t for t in TIERS if t in there), None)
    return [p for p in phases if wanted is None or p.get("tier") == wanted]


def _intervals(rows: Any, path: Path) -> list[Interval]:
    try:
        found = [Interval(str(r["label"]), int(r["start_ns"]), int(r["end_ns"])) for r in rows]
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{path}: phases need label, start_ns and end_ns") from error
    return sorted((i for i in found if i.end_ns > i.start_ns), key=lambda i: i.start_ns)


def pair_up(
    predicted: Mapping[str, list[Interval]], true: Mapping[str, list[Interval]]
) -> list[tuple[str, list[Interval], list[Interval]]]:
    """(episode, predicted, true) for every true episode; a single pair needs no equal names.

    Raises ConfigError naming the true episodes without a prediction.
    """
    if len(predicted) == len(true) == 1:
        name = next(iter(true))
        return [(name, next(iter(predicted.values())), true[name])]
    missing = sorted(set(true) - set(predicted))
    if missing:
        raise ConfigError(
            f"no prediction for {', '.join(missing[:5])}; predictions are for "
            f"{', '.join(sorted(predicted)[:5]) or 'nothing'}"
        )
    return [(name, predicted[name], true[name]) for name in sorted(true)]
