"""Whether a layer follows a taxonomy and refers only to what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmdata_schema.base import Annotation
from mmdata_schema.layer import COLLECTIONS, Layer
from mmdata_schema.taxonomy import AttributeRule, Taxonomy, Term, Tier
from mmdata_schema.timeline import Phase
from mmdata_schema.tracks import Track


@dataclass(frozen=True, slots=True)
class Problem:
    """``path`` reads ``collection[id].field``; ``rule`` names the kind of problem."""

    path: str
    message: str
    rule: str


#: Collection -> group of the taxonomy that its ``label`` (or ``style``) comes from.
_GROUP = {
    "objects": "object_classes",
    "events": "events",
    "grasps": "grasp_outcomes",
    "tracks_3d": "object_classes",
    "boxes_3d": "object_classes",
    "tracks_2d": "object_classes",
    "boxes_2d": "object_classes",
    "masks": "object_classes",
    "keypoints": "object_classes",
    "sound_events": "sound_events",
    "tags": "tags",
    "captions": "caption_styles",
}

_TYPES: dict[str, Callable[[Any], bool]] = {
    "bool": lambda v: isinstance(v, bool),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
}


def validate_layer(layer: Layer, taxonomy: Taxonomy) -> list[Problem]:
    """Problems of ``layer`` against ``taxonomy``, and references within it that lead nowhere.

    Empty when there are none. Groups that the taxonomy leaves empty are not checked.
    """
    problems = [*_references(layer), *_phases(layer, taxonomy), *_odd(layer, taxonomy)]
    for collection in COLLECTIONS:
        problems += _labels_and_attributes(collection, getattr(layer, collection), taxonomy)
    return problems


def _labels_and_attributes(
    collection: str, annotations: Iterable[Annotation], taxonomy: Taxonomy
) -> Iterator[Problem]:
    group = _GROUP.get(collection)
    field = "style" if collection == "captions" else "label"
    terms: dict[str, Term] = {t.label: t for t in getattr(taxonomy, group)} if group else {}
    shared = {rule.name: rule for rule in taxonomy.attributes.get(collection, [])}
    rules_of = {
        label: {**shared, **{rule.name: rule for rule in term.attributes}}
        for label, term in terms.items()
    }
    tiers = {t.name: {p.label: p for p in t.labels} for t in taxonomy.tiers}
    for annotation in annotations:
        at = f"{collection}[{annotation.id}]"
        label = getattr(annotation, field, None)
        rules = shared
        if terms and label is not None:
            if label not in terms:
                yield Problem(f"{at}.{field}", _unknown(taxonomy, str(group), label), "label")
            rules = rules_of.get(label, shared)
        elif isinstance(annotation, Phase):
            term = tiers.get(annotation.tier, {}).get(annotation.label)
            if term is not None and term.attributes:
                rules = {**shared, **{rule.name: rule for rule in term.attributes}}
        yield from _attributes(at, annotation, rules, closed=taxonomy.closed_attributes)


def _unknown(taxonomy: Taxonomy, group: str, label: str) -> str:
    known = taxonomy.canonical(group, label)
    if known is not None:
        return f"{label!r} is another name for {known!r}; use that"
    return f"{label!r} is not among the {group} of taxonomy {taxonomy.name!r}"


def _attributes(
    at: str, annotation: Annotation, rules: dict[str, AttributeRule], *, closed: bool
) -> Iterator[Problem]:
    columns = annotation.keyframe_attributes if isinstance(annotation, Track) else {}
    for name, value in annotation.attributes.items():
        if name in rules:
            wrong = _wrong(rules[name], value)
            if wrong:
                yield Problem(f"{at}.attributes.{name}", wrong, "attribute-value")
        elif closed:
            yield Problem(
                f"{at}.attributes.{name}", "the taxonomy has no such attribute", "attribute"
            )
    for name, column in columns.items():
        if name in rules:
            for i, value in enumerate(column):
                wrong = _wrong(rules[name], value) if value is not None else None
                if wrong:
                    where = f"{at}.keyframe_attributes.{name}[{i}]"
                    yield Problem(where, wrong, "attribute-value")
        elif closed:
            where = f"{at}.keyframe_attributes.{name}"
            yield Problem(where, "the taxonomy has no such attribute", "attribute")
    for name, rule in rules.items():
        if rule.required and name not in annotation.attributes and name not in columns:
            yield Problem(
                f"{at}.attributes.{name}", "this attribute is required", "attribute-missing"
            )


def _wrong(rule: AttributeRule, value: Any) -> str | None:
    if rule.type == "enum":
        # type() too: True == 1 in Python, not in a label.
        if not any(type(v) is type(value) and v == value for v in rule.values):
            return f"{value!r} is not one of {rule.values}"
        return None
    if not _TYPES[rule.type](value):
        return f"{value!r} is not of type {rule.type}"
    if rule.minimum is not None and value < rule.minimum:
        return f"{value!r} is below {rule.minimum:g}"
    if rule.maximum is not None and value > rule.maximum:
        return f"{value!r} is above {rule.maximum:g}"
    return None


def _phases(layer: Layer, taxonomy: Taxonomy) -> Iterator[Problem]:
    if not taxonomy.tiers:
        return
    tiers = {tier.name: tier for tier in taxonomy.tiers}
    by_id = {phase.id: phase for phase in layer.phases}
    # One sequence per tier, actor and view: two arms or two views may overlap.
    sequences: dict[tuple[str, str | None, str | None], list[Phase]] = {}
    for phase in layer.phases:
        at = f"phases[{phase.id}]"
        tier = tiers.get(phase.tier)
        if tier is None:
            yield Problem(f"{at}.tier", f"the taxonomy has no tier {phase.tier!r}", "tier")
            continue
        labels = {term.label for term in tier.labels}
        if labels and phase.label not in labels:
            message = f"{phase.label!r} is not a label of tier {tier.name!r}"
            yield Problem(f"{at}.label", message, "label")
        parent = by_id.get(phase.parent_id) if phase.parent_id else None
        if parent is not None:
            yield from _parent(at, phase, parent, tier)
        sequences.setdefault((phase.tier, phase.actor, phase.stream), []).append(phase)
    for (name, _, _), phases in sequences.items():
        yield from _sequence(sorted(phases, key=lambda p: (p.start_ns, p.end_ns)), tiers[name])


def _parent(at: str, phase: Phase, parent: Phase, tier: Tier) -> Iterator[Problem]:
    if parent.tier != tier.parent:
        message = f"{parent.id!r} is on tier {parent.tier!r}, not on {tier.parent!r}"
        yield Problem(f"{at}.parent_id", message, "parent-tier")
    if phase.start_ns < parent.start_ns or phase.end_ns > parent.end_ns:
        message = f"reaches beyond its parent phase {parent.id!r}"
        yield Problem(at, message, "parent-span")


def _sequence(phases: list[Phase], tier: Tier) -> Iterator[Problem]:
    for a, b in pairwise(phases):
        at = f"phases[{b.id}]"
        if tier.exclusive and b.start_ns < a.end_ns:
            yield Problem(f"{at}.start_ns", f"overlaps phase {a.id!r}", "overlap")
        if tier.gap_free and b.start_ns > a.end_ns:
            gap_ns = b.start_ns - a.end_ns
            yield Problem(f"{at}.start_ns", f"{gap_ns} ns after the end of {a.id!r}", "gap")
        if b.label not in tier.transitions.get(a.label, [b.label]):
            message = f"{b.label!r} may not follow {a.label!r} ({a.id})"
            yield Problem(f"{at}.label", message, "transition")
    for phase, allowed, word in ((phases[0], tier.first, "begin"), (phases[-1], tier.last, "end")):
        if allowed and phase.label not in allowed:
            message = f"tier {tier.name!r} may not {word} with {phase.label!r}"
            yield Problem(f"phases[{phase.id}].label", message, "transition")


def _odd(layer: Layer, taxonomy: Taxonomy) -> Iterator[Problem]:
    terms = {term.path: term for term in taxonomy.odd}
    for condition in layer.odd if terms else ():
        at = f"odd[{condition.id}]"
        term = terms.get(condition.path)
        if term is None:
            yield Problem(f"{at}.path", f"the taxonomy has no {condition.path!r}", "label")
        elif term.values and condition.value not in term.values:
            message = f"{condition.value!r} is not one of {term.values}"
            yield Problem(f"{at}.value", message, "attribute-value")
        elif term.type and not _TYPES[term.type](condition.value):
            message = f"{condition.value!r} is not of type {term.type}"
            yield Problem(f"{at}.value", message, "attribute-value")


def _references(layer: Layer) -> Iterator[Problem]:
    ids = {name: {a.id for a in getattr(layer, name)} for name in ("phases", "events", "comments")}
    everything = {annotation.id for annotation in layer.annotations()}

    def missing(at: str, id: str | None, known: set[str], what: str) -> Iterator[Problem]:
        if id is not None and id not in known:
            yield Problem(at, f"this layer has no {what} {id!r}", "reference")

    for phase in layer.phases:
        at = f"phases[{phase.id}].parent_id"
        yield from missing(at, phase.parent_id, ids["phases"], "phase")
    for grasp in layer.grasps:
        at = f"grasps[{grasp.id}]"
        contact, release = grasp.contact_event_id, grasp.release_event_id
        yield from missing(f"{at}.contact_event_id", contact, ids["events"], "event")
        yield from missing(f"{at}.release_event_id", release, ids["events"], "event")
    for comment in layer.comments:
        at = f"comments[{comment.id}]"
        yield from missing(f"{at}.reply_to", comment.reply_to, ids["comments"], "comment")
        if comment.pin and comment.layer in (None, layer.name):
            target = comment.pin.annotation_id
            # A keyframe is addressed as <track id>@<stamp_ns>.
            if target is not None and target not in everything:
                target = target.rpartition("@")[0] or target
            yield from missing(f"{at}.pin.annotation_id", target, everything, "annotation")
