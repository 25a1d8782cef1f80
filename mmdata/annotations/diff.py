"""What changed between two layers, per annotation and field; tracks per keyframe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmdata_schema import COLLECTIONS, Annotation, Layer, Track2D, Track3D

#: What the store counts, not what somebody said about the episode.
BOOKKEEPING = frozenset({"revision", "base_revision", "schema_version"})

Flat = dict[tuple[str, ...], Any]


@dataclass(frozen=True)
class Change:
    """One field that differs; `path` is `("end_ns",)`, or for a track's keyframe
    `("keyframe", "<stamp_ns>", "center_m")`. An absent value is None."""

    path: tuple[str, ...]
    before: Any
    after: Any


@dataclass(frozen=True)
class LayerDiff:
    """added, removed: id -> collection; changed: id -> changes; header: fields of the layer."""

    added: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    changed: dict[str, tuple[str, list[Change]]] = field(default_factory=dict)
    header: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.header)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""

        def rows(changes: list[Change]) -> list[dict[str, Any]]:
            return [{"path": ".".join(c.path), "before": c.before, "after": c.after}
                    for c in changes]  # fmt: skip

        return {
            "added": self.added,
            "removed": self.removed,
            "changed": {
                id: {"collection": collection, "changes": rows(changes)}
                for id, (collection, changes) in self.changed.items()
            },
            "header": rows(self.header),
        }


def diff_layers(before: Layer, after: Layer) -> LayerDiff:
    """Differences from `before` to `after`, in order of collection and id.

    Revision numbers and the schema version do not count. An id that moved to another collection
    is removed from one and added to the other.
    """
    old, new = index(before), index(after)
    out = LayerDiff(header=changes(header(before), header(after)))
    for id, (collection, annotation) in old.items():
        if id not in new:
            out.removed[id] = collection
        elif new[id][0] != collection:
            out.removed[id], out.added[id] = collection, new[id][0]
        else:
            found = changes(flatten(annotation), flatten(new[id][1]))
            if found:
                out.changed[id] = (collection, found)
    out.added.update({id: c for id, (c, _) in new.items() if id not in old})
    return out


def index(layer: Layer) -> dict[str, tuple[str, Annotation]]:
    """id -> (collection, annotation)."""
    return {a.id: (name, a) for name in COLLECTIONS for a in getattr(layer, name)}


def header(layer: Layer) -> Flat:
    """Fields of the layer itself, bookkeeping aside."""
    fields = layer.to_dict()
    return {(k,): v for k, v in fields.items() if k not in BOOKKEEPING and k not in COLLECTIONS}


def flatten(annotation: Annotation) -> Flat:
    """Fields by path. Attributes are a path each, and so is every column of every keyframe."""
    fields = annotation.to_dict()
    flat: Flat = {("attributes", k): v for k, v in fields.pop("attributes", {}).items()}
    if isinstance(annotation, Track2D | Track3D):
        stamps = fields.pop("stamp_ns")
        columns = {name: fields.pop(name) for name in annotation._names() if name in fields}
        own = fields.pop("keyframe_attributes", {})
        for i, stamp_ns in enumerate(stamps):
            at = ("keyframe", str(stamp_ns))
            flat[at] = True
            flat |= {(*at, name): column[i] for name, column in columns.items()}
            flat |= {(*at, "attributes", name): column[i] for name, column in own.items()}
        flat = {
            path: value
            for path, value in flat.items()
            # Absent in a column and no column at all mean the same.
            if path[0] != "keyframe"
            or (value is not None and not (path[-1] == "gap_after" and value is False))
        }
    return flat | {(name,): value for name, value in fields.items() if name != "id"}


def changes(before: Mapping[tuple[str, ...], Any], after: Flat) -> list[Change]:
    """Paths whose values differ; a keyframe that is new or gone is one change."""
    found = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new and type(old) is type(new):
            continue
        if path[0] == "keyframe" and len(path) > 2:
            key = path[:2]
            if (key in before) != (key in after):
                continue
        found.append(Change(path, old, new))
    return found
