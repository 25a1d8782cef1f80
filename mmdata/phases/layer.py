"""The annotation layer `auto`: proposals an annotator can accept or correct."""

from __future__ import annotations

from typing import Any

from mmdata.phases.segment import Event, Phase, Segmentation
from mmdata_schema import Event as LayerEvent
from mmdata_schema import Evidence, GraspOutcome, Layer, Provenance, Software, Tag, stable_id
from mmdata_schema import Phase as LayerPhase

LAYER = "auto"
#: Labels of grammars that the phase taxonomy knows under a wider word.
WIDER = {
    "insert": "contact_motion",
    "pour": "contact_motion",
    "wipe": "contact_motion",
    "hand_over": "contact_motion",
    "follow": "keep_lane",
    "walk": "keep_lane",
}
EVENTS = {
    "contact_on": "contact",
    "contact_off": "contact_lost",
    "grasp_success": "grasped",
    "grasp_failure": "failure",
    "drop": "dropped",
    "regrasp": "regrasped",
    "tool_contact_on": "tool_on",
    "tool_contact_off": "tool_off",
}


def tier_of(segmentation: Segmentation) -> str:
    """`manoeuvre` for vehicles and mobile bases, `motion` for hands."""
    return "motion" if segmentation.analysis.motions else "manoeuvre"


def _evidence(words: tuple[str, ...], stamp_ns: int, boundary: str | None = None) -> list[Evidence]:
    found = []
    for word in words:
        kind, _, score = word.rpartition(" ")
        try:
            value = min(1.0, max(0.0, float(score)))
        except ValueError:
            kind, value = word, None
        found.append(Evidence(kind=kind, stamp_ns=stamp_ns, boundary=boundary, score=value))
    return found


def to_layer(segmentation: Segmentation, episode_id: str, *, version: str | None = None) -> Layer:
    """The layer of one segmentation. Equal segmentations give equal layers, ids included."""
    tier = tier_of(segmentation)
    actor = _actor(segmentation)
    return Layer(
        episode_id=episode_id,
        name=LAYER,
        provenance=Provenance(tool=Software(name="mmdata segment", version=version)),
        phases=[_phase(p, tier, actor) for p in segmentation.phases],
        events=[_event(e) for e in segmentation.events],
        grasps=_grasps(segmentation),
        tags=_tags(segmentation, episode_id),
    )


def _actor(segmentation: Segmentation) -> str | None:
    names = [m.name for m in segmentation.analysis.motions]
    return names[0] if len(names) == 1 and names[0] != "arm" else None


def _phase(phase: Phase, tier: str, actor: str | None) -> LayerPhase:
    label = WIDER.get(phase.label, phase.label)
    return LayerPhase(
        id=stable_id("phase", phase.label, phase.start_ns, phase.end_ns),
        tier=tier,
        label=label,
        start_ns=phase.start_ns,
        end_ns=phase.end_ns,
        actor=actor,
        confidence=min(1.0, phase.confidence),
        attributes={"detail": phase.label} if label != phase.label else {},
        evidence=_evidence(phase.evidence, phase.start_ns, "start"),
    )


def _event(event: Event) -> LayerEvent:
    label = EVENTS.get(event.label, event.label)
    attributes: dict[str, Any] = {"detail": event.label} if label != event.label else {}
    return LayerEvent(
        id=stable_id("event", event.label, event.stamp_ns, event.effector),
        label=label,
        stamp_ns=event.stamp_ns,
        actor=event.effector if event.effector not in ("", "arm", "base") else None,
        confidence=event.confidence,
        attributes=attributes,
        evidence=_evidence(event.evidence, event.stamp_ns),
    )


def _grasps(segmentation: Segmentation) -> list[GraspOutcome]:
    """One outcome per attempt to grasp."""
    grid = segmentation.analysis.grid
    events = segmentation.events
    out = []
    for name, contacts in segmentation.analysis.grasps.items():
        for c in contacts:
            start = grid.start_ns + round(c.start_s * 1e9)
            end = max(grid.start_ns + round(c.end_s * 1e9), start + 1)
            inside = {e.label for e in events if e.effector == name and start <= e.stamp_ns <= end}
            label = "success"
            if c.held is False:
                label = "missed"
            elif "drop" in inside:
                label = "dropped"
            elif "slip" in inside:
                label = "slip_held"
            out.append(
                GraspOutcome(
                    id=stable_id("grasp", name, start, end),
                    label=label,
                    start_ns=start,
                    end_ns=end,
                    actor=name if name != "arm" else None,
                    confidence=c.confidence if c.held is not None else 0.5 * c.confidence,
                    evidence=_evidence(c.evidence, start),
                )
            )
    return out


def _tags(segmentation: Segmentation, episode_id: str) -> list[Tag]:
    found = segmentation.outcome
    if found.label == "unknown":
        return []
    return [
        Tag(
            id=stable_id("tag", episode_id, "outcome"),
            label="outcome",
            value=found.label,
            confidence=found.confidence,
            evidence=[Evidence(kind=w) for w in found.evidence],
        )
    ]
