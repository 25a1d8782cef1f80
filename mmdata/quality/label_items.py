"""Annotations as things to check: items of a sample, candidates of a queue, judged proposals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmdata.quality.queue import SEVERITIES, Candidate
from mmdata.quality.sampling import Item
from mmdata_schema import COLLECTIONS, Annotation, Layer, Provenance, ReviewState

_JUDGED = (ReviewState.ACCEPTED, ReviewState.REJECTED)


def class_of(collection: str, annotation: Annotation) -> str:
    """What an annotation claims: its label, style, path or name; else its collection."""
    for name in ("label", "style", "path", "name"):
        value = getattr(annotation, name, None)
        if isinstance(value, str):
            return value
    return collection


def maker_of(layer: Layer, annotation: Annotation) -> str:
    """Who or what made an annotation; the layer's name where nobody is named."""
    made: Provenance = annotation.provenance or layer.provenance
    software = made.model or made.tool
    return made.author or (software.name if software else layer.name)


def items_of(
    layers: Sequence[Layer],
    findings: Sequence[Mapping[str, Any]] = (),
    tasks: Mapping[str, str] | None = None,
) -> list[Item]:
    """Every annotation but comments; a track is one item.

    findings: as for :func:`candidates_of`; an item has the severity of the gravest about it.
    tasks: by episode.
    """
    severity: dict[tuple[str, str | None, str], str] = {}
    for found in sorted(_candidates(findings, layers), key=lambda c: SEVERITIES[c.severity]):
        severity[found.episode_id, found.layer, found.id] = found.severity
    return [
        Item(
            a.id, layer.episode_id, class_of(name, a), maker_of(layer, a),
            severity.get((layer.episode_id, layer.name, a.id)), layer.name,
            (tasks or {}).get(layer.episode_id),
        )
        for layer in layers
        for name in COLLECTIONS
        if name != "comments"
        for a in getattr(layer, name)
    ]  # fmt: skip


def candidates_of(
    layers: Sequence[Layer], findings: Sequence[Mapping[str, Any]] = ()
) -> list[Candidate]:
    """Annotations that nobody has judged yet, with what speaks against each.

    findings: as checks report them, each with `severity` (error, warning, info) and, where they
    have them, `status`, `annotation_id`, `layer`, `episode_id`, `score`, `message` and `details`
    (one or two of them name the annotation where `annotation_id` does not); only those that FAILED
    count. A finding about no annotation known here is a candidate of its own. Without
    a finding a proposal of low confidence is `info`, of score 1 - confidence. Of several findings
    about one annotation the gravest counts.
    """
    best: dict[tuple[str, str | None, str], Candidate] = {}
    judged: set[tuple[str, str | None, str]] = set()
    key: tuple[str, str | None, str]
    for layer in layers:
        for name in COLLECTIONS:
            for a in getattr(layer, name) if name != "comments" else ():
                key = (layer.episode_id, layer.name, a.id)
                if a.review is not None and a.review.state in _JUDGED:
                    judged.add(key)
                    continue
                sure = a.confidence
                if sure is None:
                    best[key] = Candidate(a.id, layer.episode_id, layer=layer.name)
                else:
                    best[key] = Candidate(
                        a.id, layer.episode_id, "info", 1 - sure, f"confidence {sure:.2f}",
                        layer.name,
                    )  # fmt: skip
    for found in _candidates(findings, layers):
        key = (found.episode_id, found.layer, found.id)
        if key not in judged and (key not in best or best[key].rank <= found.rank):
            best[key] = found
    return list(best.values())


def _candidates(findings: Sequence[Mapping[str, Any]], layers: Sequence[Layer]) -> list[Candidate]:
    """The failed findings, each about the annotation it names where that is known."""
    places: dict[tuple[str, str], list[str]] = {}
    for layer in layers if findings else ():
        for a in layer.annotations():
            places.setdefault((layer.episode_id, a.id), []).append(layer.name)
    return [
        _of_finding(number, finding, places)
        for number, finding in enumerate(findings)
        if finding.get("status", "FAILED") == "FAILED"
    ]


def _of_finding(
    number: int, finding: Mapping[str, Any], places: Mapping[tuple[str, str], list[str]]
) -> Candidate:
    severity = str(finding.get("severity", "warning"))
    if severity not in SEVERITIES:
        raise ValueError(f"finding of unknown severity {severity!r}")
    episode = str(finding.get("episode_id", ""))
    annotation, layer = finding.get("annotation_id"), finding.get("layer")
    details: Sequence[Mapping[str, Any]] = finding.get("details") or ()
    if annotation is None and 1 <= len(details) <= 2:
        # More places than the two sides of a comparison are those of a cause behind many.
        annotation = next(iter(details[0].get("annotation_ids", ())), None)
        layer = layer or details[0].get("layer")
    if annotation is not None and (episode, str(annotation)) not in places:
        # A keyframe is addressed as <track id>@<stamp_ns>; the track is what is reviewed.
        annotation = str(annotation).rpartition("@")[0] or annotation
    if annotation is not None and layer is None:
        names = places.get((episode, str(annotation)), [])
        layer = names[0] if len(names) == 1 else None
    rule = finding.get("rule", "finding")
    id = str(annotation) if annotation is not None else f"{rule}#{number}"
    reason = ": ".join(str(v) for v in (finding.get("rule"), finding.get("message")) if v)
    score = finding.get("score")
    return Candidate(
        id, episode, severity, 1.0 if score is None else float(score), reason or None, layer
    )


def judged_proposals(
    layers: Iterable[Layer],
) -> tuple[list[float], list[bool], list[str], list[str]]:
    """(confidence, accepted, class, episode) of annotations with a confidence that were judged
    alone: accepted counts as right, rejected as wrong."""
    rows = [
        (a.confidence, a.review.state is ReviewState.ACCEPTED, class_of(name, a), layer.episode_id)
        for layer in layers
        for name in COLLECTIONS
        for a in getattr(layer, name)
        if a.confidence is not None and a.review is not None and a.review.state in _JUDGED
    ]
    return (
        [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows],
    )  # fmt: skip
