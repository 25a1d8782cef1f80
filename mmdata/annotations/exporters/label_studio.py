"""Label Studio's JSON, as a task with one finished annotation; see the importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmdata.annotations.scene import Exported, Losses, Scene, ns_to_seconds
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Annotation, Caption, Event, Layer, Phase, SoundEvent, Transcript

_COMMON = {"label", "attributes", "confidence"}
_SPAN = _COMMON | {"start_ns", "end_ns"}
_KEPT = {
    "phases": _SPAN | {"tier"},
    "events": _COMMON | {"stamp_ns"},
    "sound_events": _SPAN,
    "grasps": _SPAN,
    "captions": _SPAN | {"text", "style"},
    "transcripts": _SPAN | {"text", "speaker"},
    "tags": {"label", "value"},
}


def write_label_studio(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Segments as audio-style labels in seconds from the scene's origin."""
    losses = Losses()
    losses.rest(layer, _KEPT)
    zero = scene.zero_ns()
    results: list[dict[str, Any]] = []
    for phase in layer.phases:
        results += _region(phase, phase.tier, phase.label, phase.start_ns, phase.end_ns, zero,
                           losses)  # fmt: skip
    everything: list[tuple[str, Annotation]] = [
        (name, a)
        for name in ("events", "sound_events", "grasps", "captions", "transcripts")
        for a in getattr(layer, name)
    ]
    for name, annotation in everything:
        start, end = _times(annotation)
        if start is None or end is None:
            losses.add(f"{name} about the whole episode", annotation.id)
            continue
        results += _region(annotation, name, _label(annotation), start, end, zero, losses)
        if isinstance(annotation, Caption | Transcript):
            results.append(
                {"id": annotation.id, "from_name": "text", "to_name": "media", "type": "textarea",
                 "value": {"text": [annotation.text]}}
            )  # fmt: skip
    for tag in layer.tags:
        if not isinstance(tag.value, str):
            losses.add("types of tag values (written as text)", tag.id)
        text = tag.value if isinstance(tag.value, str) else json.dumps(tag.value)
        results.append(
            {"id": tag.id, "from_name": tag.label, "to_name": "media", "type": "choices",
             "value": {"choices": [text]}}
        )  # fmt: skip
    who = layer.provenance.author
    annotation_entry = {"id": 1, "result": results, **({"completed_by": {"email": who}} if who
                                                       else {})}  # fmt: skip
    task = {"id": 1, "data": {"episode_id": layer.episode_id}, "annotations": [annotation_entry]}
    write_durably(path, json.dumps([task], ensure_ascii=False).encode())
    return Exported((path,), losses.report())


def _times(annotation: Annotation) -> tuple[int | None, int | None]:
    if isinstance(annotation, Event):
        return annotation.stamp_ns, annotation.stamp_ns
    start = getattr(annotation, "start_ns", None)
    end = getattr(annotation, "end_ns", None)
    return start, start if isinstance(annotation, SoundEvent) and end is None else end


def _label(annotation: Annotation) -> str:
    if isinstance(annotation, Caption):
        return annotation.style
    if isinstance(annotation, Transcript):
        return annotation.speaker or "unknown"
    return str(getattr(annotation, "label", ""))


def _region(
    annotation: Annotation, control: str, label: str, start: int, end: int, zero: int,
    losses: Losses,
) -> list[dict[str, Any]]:  # fmt: skip
    if isinstance(annotation, Phase) and control in _KEPT:
        losses.add("tiers named like a collection", annotation.id)
    common = {"id": annotation.id, "to_name": "media"}
    span = {"start": float(ns_to_seconds(start - zero)), "end": float(ns_to_seconds(end - zero))}
    region: dict[str, Any] = {
        **common, "from_name": control, "type": "labels", "value": {**span, "labels": [label]},
    }  # fmt: skip
    if annotation.confidence is not None:
        region["score"] = annotation.confidence
    out = [region]
    for name, value in sorted(annotation.attributes.items()):
        if name == "channel":
            region["value"]["channel"] = value
        elif name == "note" and isinstance(value, str):
            region["meta"] = {"text": [value]}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            out.append({**common, "from_name": name, "type": "number", "value": {"number": value}})
        else:
            if not isinstance(value, str):
                losses.add(f"type of attribute {name!r} (written as text)", annotation.id)
            text = value if isinstance(value, str) else json.dumps(value)
            key = "choices" if control in ("captions", "transcripts") else "textarea"
            field = "choices" if key == "choices" else "text"
            out.append({**common, "from_name": name, "type": key, "value": {field: [text]}})
    return out
