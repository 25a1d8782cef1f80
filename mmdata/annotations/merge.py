"""Three-way merge of layers, field by field; what both sides changed is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mmdata_schema
from mmdata.annotations.diff import Flat, flatten, header, index
from mmdata.errors import SchemaError
from mmdata_schema import (
    COLLECTIONS,
    Annotation,
    Layer,
    LayerRef,
    Provenance,
    Track2D,
    Track3D,
    parse_annotation,
)


@dataclass(frozen=True)
class Conflict:
    """Something both sides changed differently; the merged layer holds `ours` there.

    `path` is empty where the whole annotation is in question: one side removed what the other
    changed (then the changed one is kept), both gave one id to different things, or the fields
    of both do not fit together.
    """

    id: str
    collection: str
    path: tuple[str, ...]
    base: Any
    ours: Any
    theirs: Any
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "path": ".".join(self.path)}


@dataclass(frozen=True)
class Merge:
    """The merged layer, under ours' name and revision, and what needs a decision."""

    layer: Layer
    conflicts: list[Conflict]


def merge_layers(base: Layer | None, ours: Layer, theirs: Layer) -> Merge:
    """Apply to `ours` what `theirs` changed since `base`.

    Without a base nothing counts as removed: annotations of both sides are joined. Annotations
    taken whole from a layer by somebody else carry that provenance. The result keeps ours' name,
    revision and review, and says in `provenance.derived_from` what it was made of.

    Raises SchemaError when the layers are of different episodes or clocks.
    """
    for name in ("episode_id", "reference_clock"):
        if getattr(ours, name) != getattr(theirs, name):
            raise SchemaError(
                f"layers of different {name} cannot be merged: {getattr(ours, name)!r} and "
                f"{getattr(theirs, name)!r}"
            )
    sides = [index(base) if base is not None else {}, index(ours), index(theirs)]
    conflicts: list[Conflict] = []
    merged: dict[str, list[Annotation]] = {name: [] for name in COLLECTIONS}
    for id in sorted({*sides[0], *sides[1], *sides[2]}):
        before, mine, yours = (side.get(id) for side in sides)
        kept = _one(id, before, mine, yours, conflicts)
        if kept is None:
            continue
        collection, annotation, taken = kept
        if taken and annotation.provenance is None and theirs.provenance != ours.provenance:
            annotation = annotation.edit(provenance=_bare(theirs.provenance))
        merged[collection].append(annotation)
    fields = _header(base, ours, theirs, conflicts)
    document = {**ours.to_dict(), **fields, **{n: [] for n in COLLECTIONS}}
    try:
        layer = Layer.parse(document).edit(**merged)
    except mmdata_schema.SchemaError as error:
        raise SchemaError(f"merging {ours.name!r} and {theirs.name!r}: {error}") from error
    return Merge(layer, conflicts)


_Side = tuple[str, Annotation] | None


def _one(
    id: str, base: _Side, ours: _Side, theirs: _Side, conflicts: list[Conflict]
) -> tuple[str, Annotation, bool] | None:
    """Collection and annotation to keep, and whether it was taken whole from theirs."""
    if ours == theirs or theirs == base:
        return (*ours, False) if ours else None
    if ours == base:
        return (*theirs, True) if theirs else None

    def whole(reason: str, kept: tuple[str, Annotation]) -> None:
        a, b, c = (side and side[1].to_dict() for side in (base, ours, theirs))
        conflicts.append(Conflict(id, kept[0], (), a, b, c, reason))

    if ours is None or theirs is None:
        # Work is worth more than its removal: the reviewer can still remove it.
        kept = ours or theirs
        assert kept is not None
        whole("removed on one side, changed on the other", kept)
        return (*kept, ours is None)
    if ours[0] != theirs[0]:
        whole("one id in two collections", ours)
        return (*ours, False)
    return _fields(id, base, ours, theirs, conflicts)


def _fields(
    id: str,
    base: _Side,
    ours: tuple[str, Annotation],
    theirs: tuple[str, Annotation],
    conflicts: list[Conflict],
) -> tuple[str, Annotation, bool]:
    collection = ours[0]
    old: Flat = flatten(base[1]) if base is not None and base[0] == collection else {}
    mine, yours = flatten(ours[1]), flatten(theirs[1])
    fields, found = _three_way(id, collection, old, mine, yours)
    try:
        annotation = unflatten(collection, id, fields)
    except mmdata_schema.SchemaError as error:
        conflicts.append(
            Conflict(
                id,
                collection,
                (),
                base and base[1].to_dict(),
                ours[1].to_dict(),
                theirs[1].to_dict(),
                f"the changes do not fit together: {error}",
            )
        )
        return (*ours, False)
    conflicts.extend(found)
    return collection, annotation, False


_ABSENT = object()


def _three_way(
    id: str, collection: str, base: Flat, ours: Flat, theirs: Flat
) -> tuple[Flat, list[Conflict]]:
    """Ours with theirs' changes since base; equal changes on both sides are no conflict."""
    merged: Flat = {}
    conflicts: list[Conflict] = []
    units: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path in sorted({*base, *ours, *theirs}):
        units.setdefault(path[:2] if path[0] == "keyframe" else path, []).append(path)
    for unit, paths in units.items():
        old, mine, yours = ({p: f[p] for p in paths if p in f} for f in (base, ours, theirs))
        if mine == yours or yours == old:
            merged |= mine
        elif mine == old:
            merged |= yours
        elif unit[0] == "keyframe" and not (mine and yours):
            kept = "changed" if mine else None, "changed" if yours else None
            reason = "keyframe removed on one side, changed on the other"
            conflicts.append(Conflict(id, collection, unit, "there", *kept, reason))
            merged |= mine or yours
        else:
            for path in paths:
                a, b, c = (f.get(path, _ABSENT) for f in (old, mine, yours))
                value = c if b == a else b
                if b not in (a, c) and c != a:
                    x, y, z = (None if v is _ABSENT else v for v in (a, b, c))
                    reason = "both sides changed it"
                    conflicts.append(Conflict(id, collection, path, x, y, z, reason))
                if value is not _ABSENT:
                    merged[path] = value
    return merged, conflicts


def unflatten(collection: str, id: str, flat: Flat) -> Annotation:
    """The annotation of :func:`mmdata.annotations.diff.flatten`'s paths."""
    cls = COLLECTIONS[collection]
    fields: dict[str, Any] = {p[0]: v for p, v in flat.items() if len(p) == 1}
    attributes = {p[1]: v for p, v in flat.items() if p[0] == "attributes"}
    if attributes:
        fields["attributes"] = attributes
    if issubclass(cls, Track2D | Track3D):
        stamps = sorted(int(p[1]) for p in flat if p[0] == "keyframe" and len(p) == 2)
        fields["stamp_ns"] = stamps
        names = {p[2:] for p in flat if p[0] == "keyframe" and len(p) > 2}
        own: dict[str, list[Any]] = {}
        for name in sorted(names):
            missing = cls.optional_columns.get(name[0])
            column = [flat.get(("keyframe", str(s), *name), missing) for s in stamps]
            if name[0] == "attributes":
                own[name[1]] = column
            else:
                fields[name[0]] = column
        if own:
            fields["keyframe_attributes"] = own
    return parse_annotation(collection, {**fields, "id": id})


def _header(
    base: Layer | None, ours: Layer, theirs: Layer, conflicts: list[Conflict]
) -> dict[str, Any]:
    """Fields of the merged layer. Who made it, its name and its review stay ours."""
    own = {("name",), ("provenance",), ("review",)}
    flat = {p: v for p, v in header(ours).items() if p not in own}
    if base is not None:
        old, new = header(base), header(theirs)
        merged, found = _three_way(
            ours.name, "layer", *({p: v for p, v in f.items() if p not in own}
                                  for f in (old, flat, new))
        )  # fmt: skip
        conflicts.extend(found)
        flat = merged
    refs = [*ours.provenance.derived_from]
    for layer in (ours, theirs):
        ref = LayerRef(layer=layer.name, revision=layer.revision)
        if ref not in refs:
            refs.append(ref)
    provenance = ours.provenance.edit(derived_from=refs)
    return {**{p[0]: v for p, v in flat.items()}, "provenance": provenance.to_dict()}


def _bare(provenance: Provenance) -> Provenance:
    return provenance.edit(derived_from=[])
