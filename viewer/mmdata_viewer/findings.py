"""What is wrong with an episode and its labels, as a worklist that knows where to jump."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdata import open_episode
from mmdata.checks import Context, Status, run_checks
from mmdata_schema import Layer, Taxonomy, load_taxonomy, validate_layer

_PATH = re.compile(r"^(?P<collection>\w+)\[(?P<id>[^\]]+)\](?:\.(?P<field>.+))?$")
#: The vocabulary offered where a layer names no taxonomy of its own.
TAXONOMIES = ("phases", "events", "object_classes", "grasp_outcomes", "sound_events", "captions")


def vocabulary() -> Taxonomy:
    """The packaged taxonomies in one."""
    return Taxonomy(name="packaged", version="1.0", extends=[]).edit(
        **{
            group: getattr(load_taxonomy(name), group)
            for name, group in (
                ("phases", "tiers"),
                ("events", "events"),
                ("object_classes", "object_classes"),
                ("grasp_outcomes", "grasp_outcomes"),
                ("sound_events", "sound_events"),
                ("captions", "caption_styles"),
            )
        }
    )


def label_findings(layer: Layer, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Rules of the schema and the taxonomy on one layer; instants absolute."""
    by_id = layer.by_id()
    found = []
    for problem in validate_layer(layer, taxonomy):
        match = _PATH.match(problem.path)
        row: dict[str, Any] = {
            "rule": f"label/{problem.rule}",
            "severity": "warning",
            "message": problem.message,
            "layer": layer.name,
        }
        if match:
            annotation = by_id.get(match["id"])
            row |= {"collection": match["collection"], "id": match["id"], "field": match["field"]}
            for name in ("start_ns", "stamp_ns"):
                value = getattr(annotation, name, None)
                if value is not None:
                    row["stamp_ns"] = value[0] if isinstance(value, list) else value
                    break
            row["object_id"] = getattr(annotation, "object_id", None)
        found.append(row)
    return found


def check_findings(path: Path, documents: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Failed rules of `mmdata check` on an episode file and the given layers (parsed JSON)."""
    with open_episode(path) as episode:
        context = Context(episode, ledger=episode.sync, layers=documents)
        return [
            {k: v for k, v in finding.to_dict().items() if v is not None}
            for finding in run_checks(context)
            if finding.status is Status.FAILED
        ]
