"""ELAN (.eaf); see the importer for the conventions. Times are rounded to milliseconds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdata.annotations.importers.elan import MS
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Annotation, Layer

Element = ElementTree.Element
_COMMON = {"label", "attributes"}
_SPAN = _COMMON | {"start_ns", "end_ns"}
_KEPT = {
    "phases": _SPAN | {"tier", "actor", "parent_id"},
    "events": _COMMON | {"stamp_ns", "actor"},
    "sound_events": _SPAN,
    "captions": _SPAN | {"text", "style"},
    "transcripts": _SPAN | {"text", "speaker"},
}
_TYPES = ("phases", "events", "sound_events", "captions", "transcripts")


class _Document:
    """An annotation document under construction: time slots, tiers, ids."""

    def __init__(self, zero_ns: int, losses: Losses) -> None:
        self.zero_ns, self.losses = zero_ns, losses
        self.slots: list[tuple[str, int]] = []
        self.tiers: dict[tuple[str, str], Element] = {}
        self.count = 0

    def tier(self, name: str, kind: str, participant: str | None = None) -> Element:
        """The tier of this name and participant (a name is used once in a file)."""
        key = (name, participant or "")
        if key not in self.tiers:
            id = name if not participant else f"{name}@{participant}"
            tier = Element("TIER", TIER_ID=id, LINGUISTIC_TYPE_REF=kind)
            if participant:
                tier.set("PARTICIPANT", participant)
            self.tiers[key] = tier
        return self.tiers[key]

    def add(self, tier: Element, start: int, end: int, text: str, of: Annotation) -> str:
        """One interval on a tier; its id."""
        times = []
        for ns in (start, end):
            ms = (ns - self.zero_ns + MS // 2) // MS
            if ms * MS != ns - self.zero_ns:
                self.losses.add("boundaries rounded to milliseconds", of.id)
            times.append(ms)
        if times[1] <= times[0]:
            times[1] = times[0] + 1
            self.losses.add("intervals stretched to one millisecond", of.id)
        if times[0] < 0:
            self.losses.add("annotations before the origin of the media", of.id)
            return ""
        refs = []
        for ms in times:
            refs.append(f"ts{len(self.slots) + 1}")
            self.slots.append((refs[-1], ms))
        id = self._id()
        wrapper = ElementTree.SubElement(tier, "ANNOTATION")
        annotation = ElementTree.SubElement(
            wrapper, "ALIGNABLE_ANNOTATION",
            {"ANNOTATION_ID": id, "TIME_SLOT_REF1": refs[0], "TIME_SLOT_REF2": refs[1]},
        )  # fmt: skip
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = text
        return id

    def refer(self, tier: Element, target: str, text: str) -> None:
        """One annotation that has its time from another."""
        wrapper = ElementTree.SubElement(tier, "ANNOTATION")
        annotation = ElementTree.SubElement(
            wrapper, "REF_ANNOTATION", {"ANNOTATION_ID": self._id(), "ANNOTATION_REF": target}
        )
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = text

    def _id(self) -> str:
        self.count += 1
        return f"a{self.count}"


def write_elan(path: Path, layer: Layer, scene: Scene) -> Exported:
    """Write timed annotations; attributes become child tiers that refer to them."""
    losses = Losses()
    losses.rest(layer, _KEPT)
    document = _Document(scene.zero_ns(), losses)
    for name in _TYPES:
        for annotation in sorted(getattr(layer, name), key=_start):
            _write(document, name, annotation)
    root = Element(
        "ANNOTATION_DOCUMENT",
        {"AUTHOR": layer.provenance.author or "", "FORMAT": "3.0", "VERSION": "3.0",
         # Readers look the version up by it, ELAN itself included.
         "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation":
         "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
         "DATE": datetime.now(UTC).isoformat(timespec="seconds")},
    )  # fmt: skip
    ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    order = ElementTree.SubElement(root, "TIME_ORDER")
    for id, ms in sorted(document.slots, key=lambda slot: slot[1]):
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=id, TIME_VALUE=str(ms))
    root.extend(document.tiers.values())
    for kind in (*_TYPES, "attributes"):
        aligned = "false" if kind == "attributes" else "true"
        element = ElementTree.SubElement(
            root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID=kind, TIME_ALIGNABLE=aligned
        )
        if kind == "attributes":
            element.set("CONSTRAINTS", "Symbolic_Association")
    ElementTree.SubElement(root, "CONSTRAINT", STEREOTYPE="Symbolic_Association",
                           DESCRIPTION="1-1 association with a parent annotation")  # fmt: skip
    ElementTree.indent(root)
    write_durably(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return Exported((path,), losses.report())


def _start(annotation: Any) -> tuple[int, str]:
    start = getattr(annotation, "stamp_ns", None)
    start = getattr(annotation, "start_ns", None) if start is None else start
    return (start or 0, annotation.id)


def _write(document: _Document, name: str, annotation: Any) -> None:
    losses = document.losses
    if name == "events":
        losses.add("instants written as intervals of one millisecond", annotation.id)
        tier = document.tier("events", name, annotation.actor)
        start, end, text = annotation.stamp_ns, annotation.stamp_ns + MS, annotation.label
    elif name == "captions":
        if annotation.start_ns is None:
            losses.add("captions about the whole episode", annotation.id)
            return
        tier = document.tier(annotation.style, name)
        start, end, text = annotation.start_ns, annotation.end_ns, annotation.text
    elif name == "transcripts":
        tier = document.tier("transcripts", name, annotation.speaker)
        start, end, text = annotation.start_ns, annotation.end_ns, annotation.text
    elif name == "sound_events":
        tier = document.tier("sound_events", name)
        start, end, text = annotation.start_ns, annotation.end_ns, annotation.label
        if end is None:
            losses.add("onsets written as intervals of one millisecond", annotation.id)
            end = start + MS
    else:
        tier = document.tier(annotation.tier, name, annotation.actor)
        start, end, text = annotation.start_ns, annotation.end_ns, annotation.label
        if annotation.parent_id is not None:
            losses.add("parents of phases (read back by containment on parent tiers only)",
                       annotation.id)  # fmt: skip
    if name != "phases" and (tier.get("LINGUISTIC_TYPE_REF") != name):
        losses.add("tiers of one name in two collections", annotation.id)
    id = document.add(tier, start, end, text, annotation)
    if not id:
        return
    for key, value in sorted(annotation.attributes.items()):
        child = document.tier(f"{tier.get('TIER_ID')}.{key}", "attributes")
        child.set("PARENT_REF", tier.get("TIER_ID", ""))
        if not isinstance(value, str):
            losses.add(f"type of attribute {key!r} (written as text)", annotation.id)
        document.refer(child, id, value if isinstance(value, str) else json.dumps(value))
