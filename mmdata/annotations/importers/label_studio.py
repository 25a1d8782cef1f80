"""Label Studio's JSON export: time segments of audio, time series and video timelines.

Times are decimal seconds from the scene's origin (time series may count in other units: say so).
Frames of video timelines count from 1, both ends included. A file is a list of tasks; the
annotations of each person become a layer.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from mmdata.annotations.scene import Imported, Losses, Scene, plain, seconds_to_ns
from mmdata.errors import ConversionError
from mmdata_schema import COLLECTIONS, Layer, Provenance, Software, parse_annotation, stable_id

SEGMENTS = {"labels", "timeserieslabels", "timelinelabels"}
TIMED = ("phases", "events", "sound_events", "captions", "transcripts", "grasps")
_REGION = {"textarea": "text", "choices": "choices", "number": "number", "rating": "rating",
           "taxonomy": "taxonomy", "datetime": "datetime"}  # fmt: skip


def read_label_studio(path: Path, scene: Scene, *, layer: str, time_unit: str = "s") -> Imported:
    """A control named like a collection (`events`, `transcripts` ...) fills it; any other is a
    tier of phases of that name, where an instant is an event. Choices about the whole task are
    tags. Of several tasks, those whose data name the episode are read.
    """
    tasks = json.loads(path.read_bytes(), parse_float=Decimal)
    tasks = _of_episode(tasks if isinstance(tasks, list) else [tasks], scene.episode_id, path)
    losses = Losses()
    found: dict[str, tuple[Provenance, dict[str, dict[str, Any]]]] = {}
    for task in tasks:
        for kind in ("annotations", "predictions"):
            for entry in task.get(kind) or ():
                if entry.get("was_cancelled"):
                    losses.add("annotations that were skipped by the annotator", entry.get("id"))
                    continue
                who, provenance = _author(entry, kind, scene, path)
                _, into = found.setdefault(who, (provenance, {}))
                for id, annotation in _regions(entry, scene, time_unit, losses):
                    into[id] = annotation
    layers = []
    for who, (provenance, rows) in found.items():
        name = layer if len(found) == 1 else f"{layer}-{_safe(who)}"
        collections: dict[str, list[Any]] = {}
        for row in rows.values():
            collection = row.pop("collection")
            collections.setdefault(collection, []).append(parse_annotation(collection, row))
        layers.append(
            Layer.parse(
                {"episode_id": scene.episode_id, "name": name, "provenance": provenance,
                 **collections}
            )
        )  # fmt: skip
    return Imported(tuple(layers), losses.report())


def _of_episode(tasks: list[Any], episode_id: str, path: Path) -> list[Any]:
    if len(tasks) <= 1:
        return tasks
    chosen = [
        task for task in tasks
        if any(
            isinstance(v, str) and (v == episode_id or Path(v).stem == episode_id)
            for v in task["data"].values()
        )
    ]  # fmt: skip
    if not chosen:
        raise ConversionError(f"{path}: none of {len(tasks)} tasks names episode {episode_id!r}")
    return chosen


def _author(entry: dict[str, Any], kind: str, scene: Scene, path: Path) -> tuple[str, Provenance]:
    tool = Software(name="label-studio")
    if kind == "predictions":
        name = str(entry.get("model_version") or "prediction")
        score = entry.get("score")
        confidence = float(score) if score is not None and 0 <= score <= 1 else None
        model = Software(name=name)
        return name, Provenance(
            model=model, tool=tool, source_file=path.name, confidence=confidence
        )
    who = entry.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    name = str(who) if who is not None else (scene.author or "unknown")
    return name, scene.provenance("label-studio", path, str(who) if who is not None else None)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in name)


def _regions(
    entry: dict[str, Any], scene: Scene, time_unit: str, losses: Losses
) -> list[tuple[str, dict[str, Any]]]:
    """Annotations of one person's (or model's) result, with what belongs to each region."""
    out: list[tuple[str, dict[str, Any]]] = []
    by_region: dict[str, list[dict[str, Any]]] = {}
    others = []
    for result in entry.get("result") or ():
        kind, value = result.get("type"), result.get("value") or {}
        if kind == "relation":
            losses.add("relations between regions", entry.get("id"))
        elif kind in SEGMENTS:
            for i, row in enumerate(_segments(result, scene, time_unit, losses)):
                id = result["id"] if i == 0 else stable_id("ls", result["id"], i)
                row["id"] = id
                out.append((id, row))
                by_region.setdefault(result["id"], []).append(row)
        elif kind in _REGION:
            others.append((result["id"], result["from_name"], kind, plain(value[_REGION[kind]])))
        else:
            losses.add(f"results of type {kind!r}", result.get("id"))
    for region, name, kind, value in others:
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        rows = by_region.get(region)
        if rows is None:
            if kind == "choices":
                id = stable_id("tag", name, value)
                out.append((id, {"collection": "tags", "id": id, "label": name, "value": value}))
            else:
                losses.add(f"{kind} about the whole task", name)
            continue
        for row in rows:
            if "text" in COLLECTIONS[row["collection"]].model_fields and kind == "textarea":
                row["text"] = "\n".join(value) if isinstance(value, list) else value
            else:
                row["attributes"][name] = value
    for _, row in out:
        if row["collection"] in ("captions", "transcripts"):
            row.setdefault("text", "")
    return out


def _segments(
    result: dict[str, Any], scene: Scene, unit: str, losses: Losses
) -> list[dict[str, Any]]:
    value, kind, tier = result["value"], result["type"], result["from_name"]
    labels = value.get(kind) or value.get("labels") or []
    spans = []
    if kind == "timelinelabels":
        stream = scene.need_stream()
        for span in value["ranges"]:
            # The end of the last frame is the stamp of the one after it, where there is one.
            start = scene.frame_ns(stream, int(span["start"]) - 1)
            last = int(span["end"])
            end = scene.frame_ns(stream, last)
            if end is None and (before := scene.frame_ns(stream, last - 1)) is not None:
                end = before + 1
            if start is None or end is None:
                losses.add(f"timeline ranges beyond the samples of {stream}", result["id"])
            else:
                spans.append((start, end, False))
    else:
        zero = scene.zero_ns()
        start = zero + seconds_to_ns(value["start"], unit)
        end = zero + seconds_to_ns(value["end"], unit)
        spans.append((start, end, bool(value.get("instant"))))
    if not labels:
        losses.add("regions without a label", result["id"])
    attributes = {"channel": value["channel"]} if value.get("channel") is not None else {}
    if (result.get("meta") or {}).get("text"):
        attributes["note"] = "\n".join(result["meta"]["text"])
    score = result.get("score")
    rows = []
    for label in labels:
        for start, end, instant in spans:
            row: dict[str, Any] = {"attributes": dict(attributes)}
            if score is not None and 0 <= score <= 1:
                row["confidence"] = float(score)
            rows.append({**row, **_row(tier, label, start, end, instant)})
    return rows


def _row(tier: str, label: str, start: int, end: int, instant: bool) -> dict[str, Any]:
    if tier == "events" or ((instant or end <= start) and tier not in TIMED):
        return {"collection": "events", "label": label, "stamp_ns": start}
    span = {"start_ns": start, "end_ns": end}
    if tier == "captions":
        return {"collection": tier, **span, "style": label}
    if tier == "transcripts":
        return {"collection": tier, **span, "speaker": label}
    if tier == "sound_events" and (instant or end <= start):
        return {"collection": tier, "label": label, "start_ns": start}
    if tier in ("sound_events", "grasps"):
        return {"collection": tier, "label": label, **span}
    return {"collection": "phases", "tier": tier, "label": label, **span}
