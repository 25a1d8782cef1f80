"""ELAN (.eaf): tiers of intervals in milliseconds of the media's time.

A tier whose linguistic type is named like a collection (`events`, `captions`, `transcripts`,
`sound_events`) fills it; any other is a tier of phases. A phase on a child tier has the phase of
the parent tier that holds it as its parent; annotations that only refer to another one become
its attributes, under the name of their tier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata_schema import Layer, parse_annotation, stable_id

MS = 1_000_000
_COLLECTIONS = ("events", "captions", "transcripts", "sound_events")
Element = ElementTree.Element


def read_elan(path: Path, scene: Scene, *, layer: str) -> Imported:
    """Times count from the scene's origin plus the media's TIME_ORIGIN."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConversionError(f"{path} is not XML: {error}") from error
    header = root.find("HEADER")
    if root.tag != "ANNOTATION_DOCUMENT" or header is None:
        raise ConversionError(f"{path} is no ELAN file: its root is <{root.tag}>")
    if header.get("TIME_UNITS", "milliseconds") != "milliseconds":
        raise ConversionError(f"{path}: times in {header.get('TIME_UNITS')}, not milliseconds")
    losses = Losses()
    media = header.findall("MEDIA_DESCRIPTOR")
    # Time zero of the document lies at TIME_ORIGIN of the media's own time.
    origin_ms = int(media[0].get("TIME_ORIGIN", "0")) if len(media) == 1 else 0
    if len(media) > 1 and any(m.get("TIME_ORIGIN") for m in media):
        losses.add("time origins of several media files (the first file's time is used)", path.name)
    zero = scene.zero_ns() + origin_ms * MS
    times = {
        slot.get("TIME_SLOT_ID", ""): zero + int(slot.get("TIME_VALUE", "0")) * MS
        for slot in root.findall("./TIME_ORDER/TIME_SLOT")
        if slot.get("TIME_VALUE") is not None
    }
    rows: dict[str, dict[str, Any]] = {}
    tiers = root.findall("TIER")
    for tier in tiers:
        for element in tier.findall("./ANNOTATION/ALIGNABLE_ANNOTATION"):
            row = _aligned(tier, element, times, losses)
            if row is not None:
                rows[element.get("ANNOTATION_ID", "")] = row
    _references(tiers, rows, losses)
    _parents(tiers, rows)
    for name in ("LEXICON_REF", "EXTERNAL_REF"):
        if root.find(name) is not None:
            losses.add(f"<{name}>", path.name)
    collections: dict[str, list[Any]] = {}
    for row in rows.values():
        collection = row.pop("collection")
        row.pop("eaf_tier")
        collections.setdefault(collection, []).append(parse_annotation(collection, row))
    author = root.get("AUTHOR") or None
    annotators = {t.get("ANNOTATOR") for t in tiers} - {None, ""}
    if author is None and len(annotators) == 1:
        author = annotators.pop()
    elif len(annotators) > 1:
        losses.add("annotators of single tiers", ", ".join(sorted(map(str, annotators))))
    out = Layer.parse(
        {"episode_id": scene.episode_id, "name": layer,
         "provenance": scene.provenance("elan", path, author), **collections}
    )  # fmt: skip
    return Imported((out,), losses.report())


def _aligned(
    tier: Element, element: Element, times: dict[str, int], losses: Losses
) -> dict[str, Any] | None:
    name, id = tier.get("TIER_ID", ""), element.get("ANNOTATION_ID", "")
    start = times.get(element.get("TIME_SLOT_REF1", ""))
    end = times.get(element.get("TIME_SLOT_REF2", ""))
    if start is None or end is None:
        losses.add("annotations whose time is not set", id)
        return None
    text = element.findtext("ANNOTATION_VALUE") or ""
    kind = tier.get("LINGUISTIC_TYPE_REF", "")
    row: dict[str, Any] = {
        "id": stable_id("elan", id, name), "eaf_tier": name, "attributes": {},
        "collection": kind if kind in _COLLECTIONS else "phases",
    }  # fmt: skip
    participant = tier.get("PARTICIPANT") or None
    # ELAN wants a name for every tier; "motion@left" is tier "motion" of actor "left".
    name = name.removesuffix(f"@{participant}")
    if kind == "events":
        return {**row, "label": text or name, "stamp_ns": start, "actor": participant}
    row |= {"start_ns": start, "end_ns": end}
    if kind == "captions":
        return {**row, "text": text, "style": name}
    if kind == "transcripts":
        return {**row, "text": text, "speaker": participant or name}
    if kind == "sound_events":
        return {**row, "label": text or name}
    if not text:
        losses.add("phases without a value (the tier's name is the label)", id)
    return {**row, "tier": name, "label": text or name, "actor": participant}


def _references(tiers: list[Element], rows: dict[str, dict[str, Any]], losses: Losses) -> None:
    """Annotations without a time of their own, as attributes of the timed one they lead to."""
    target = {
        e.get("ANNOTATION_ID", ""): e.get("ANNOTATION_REF", "")
        for tier in tiers
        for e in tier.findall("./ANNOTATION/REF_ANNOTATION")
    }
    for tier in tiers:
        name = tier.get("TIER_ID", "").removeprefix(f"{tier.get('PARENT_REF')}.")
        for element in tier.findall("./ANNOTATION/REF_ANNOTATION"):
            id = element.get("ANNOTATION_REF", "")
            while id in target:
                id = target[id]
            row = rows.get(id)
            if row is None:
                losses.add("references to annotations without a time", element.get("ANNOTATION_ID"))
                continue
            text = element.findtext("ANNOTATION_VALUE") or ""
            old = row["attributes"].get(name)
            if old is None:
                row["attributes"][name] = text
            else:
                row["attributes"][name] = [*(old if isinstance(old, list) else [old]), text]


def _parents(tiers: list[Element], rows: dict[str, dict[str, Any]]) -> None:
    parent_of = {t.get("TIER_ID", ""): t.get("PARENT_REF") for t in tiers}
    phases = [row for row in rows.values() if row["collection"] == "phases"]
    for row in phases:
        above = parent_of.get(row["eaf_tier"])
        for other in phases if above else ():
            inside = other["start_ns"] <= row["start_ns"] and row["end_ns"] <= other["end_ns"]
            if other["eaf_tier"] == above and inside:
                row["parent_id"] = other["id"]
                break
