"""Layers as arrays: 3D keyframes, rectangles and who drew them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mmdata_schema import Layer, Provenance, load_taxonomy
from mmdata_schema.taxonomy import Taxonomy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Named:
    """One track, or one rectangle's identity: what rows of a table point to. sibling: another
    identity that the label says is the same thing."""

    annotation_id: str
    object_id: str | None
    label: str
    layer: str
    author: str
    frame_id: str | None = None
    single: bool = False
    sibling: str | None = None


@dataclass(frozen=True)
class Boxes3D:
    """N keyframes in order of track and stamp, in one fixed frame.

    track (N,): index into ``named``. last (N,): no box exists between this row and the next.
    """

    named: tuple[Named, ...]
    track: Ints
    stamp_ns: Ints
    center: Floats
    size: Floats
    quaternion: Floats
    last: Mask

    def __len__(self) -> int:
        return len(self.track)

    @cached_property
    def first(self) -> Mask:
        """Rows before which no box exists."""
        return np.concatenate([[True], self.last[:-1]]) if len(self) else np.zeros(0, bool)

    @cached_property
    def interval_ns(self) -> float:
        """Median time between the keyframes of a track; 0 when no track has two."""
        inside = ~self.last[:-1]
        steps = np.diff(self.stamp_ns)[inside]
        return float(np.median(steps)) if len(steps) else 0.0

    @cached_property
    def thing(self) -> Ints:
        """(T,) per track: a number that tracks of one thing (identity or sibling) share."""
        number: dict[str, int] = {}
        out = np.arange(len(self.named))
        for k, named in enumerate(self.named):
            own = named.object_id or named.annotation_id
            same = [number[name] for name in (own, named.sibling) if name in number]
            out[k] = min(same, default=k)
            for name in (own, named.sibling):
                if name is not None:
                    number.setdefault(name, int(out[k]))
        return out

    def row_id(self, row: int) -> str:
        """Address of a keyframe."""
        named: Named = self.named[self.track[row]]
        if named.single:
            return named.annotation_id
        return f"{named.annotation_id}@{self.stamp_ns[row]}"


@dataclass(frozen=True)
class Boxes2D:
    """M rectangles in the images of one camera; named (M,) indexes ``names``."""

    names: tuple[Named, ...]
    named: Ints
    stamp_ns: Ints
    xyxy: Floats

    def __len__(self) -> int:
        return len(self.named)

    def row_id(self, row: int) -> str:
        named: Named = self.names[self.named[row]]
        if named.single:
            return named.annotation_id
        return f"{named.annotation_id}@{self.stamp_ns[row]}"


@dataclass(frozen=True)
class Classes:
    """Class names of one taxonomy; different words for one class are the same."""

    taxonomy: Taxonomy = field(default_factory=lambda: load_taxonomy("object_classes"))

    @cached_property
    def _parents(self) -> dict[str, str | None]:
        return {c.label: c.parent for c in self.taxonomy.object_classes}

    @cached_property
    def _rigid(self) -> dict[str, bool | None]:
        return {c.label: c.rigid for c in self.taxonomy.object_classes}

    def name(self, label: str) -> str:
        """The taxonomy's name, or the label itself."""
        return self.taxonomy.canonical("object_classes", label) or label

    def rigid(self, label: str) -> bool:
        """Whether things of this class keep their size. Unknown classes do not count."""
        return bool(self._rigid.get(self.name(label)))

    def relation(self, a: str, b: str) -> str:
        """``same``, ``level`` (one is a kind of the other, or both of one) or ``different``."""
        a, b = self.name(a), self.name(b)
        if a == b:
            return "same"
        family = {x: {x, self._parents.get(x)} - {None} for x in (a, b)}
        return "level" if family[a] & family[b] else "different"


def author_of(own: Provenance | None, layer: Provenance) -> str:
    """Whoever stands for an annotation: a person, else the model or the tool."""
    for who in (own, layer):
        if who is None:
            continue
        if who.author:
            return who.author
        software = who.model or who.tool
        if software is not None:
            return software.name
    return "unknown"


def read_boxes_3d(layer: Layer, max_gap_intervals: float) -> Boxes3D:
    """Tracks and single boxes of a layer, each still in its own frame.

    Single boxes that share object, class and frame become one track.
    """
    named: list[Named] = []
    columns: list[tuple[Ints, Floats, Floats, Floats, Mask]] = []
    for track in layer.tracks_3d:
        gap = np.asarray(track.gap_after or [False] * track.keyframe_count, bool)
        who = author_of(track.provenance, layer.provenance)
        named.append(
            Named(track.id, track.object_id, track.label, layer.name, who, track.frame_id,
                  sibling=_sibling(track.attributes, track.keyframe_attributes))
        )  # fmt: skip
        columns.append(
            _columns(track.stamp_ns, track.center_m, track.size_lwh_m, track.quaternion_wxyz, gap)
        )
    groups: dict[tuple[str, ...], list[Any]] = {}
    for box in layer.boxes_3d:
        key = (box.object_id or box.id, box.label, box.frame_id)
        groups.setdefault(key, []).append(box)
    for boxes in groups.values():
        boxes.sort(key=lambda box: box.stamp_ns)
        first = boxes[0]
        who = author_of(first.provenance, layer.provenance)
        single = len(boxes) == 1
        name = first.id if single else (first.object_id or first.id)
        named.append(
            Named(name, first.object_id, first.label, layer.name, who, first.frame_id, single,
                  _sibling(first.attributes, {}))
        )  # fmt: skip
        columns.append(
            _columns(
                [b.stamp_ns for b in boxes],
                [b.center_m for b in boxes],
                [b.size_lwh_m for b in boxes],
                [b.quaternion_wxyz for b in boxes],
                np.zeros(len(boxes), bool),
            )
        )
    return join(named, columns, max_gap_intervals)


def _sibling(own: Mapping[str, Any], by_keyframe: Mapping[str, Sequence[Any]]) -> str | None:
    values = [own.get("sibling"), *by_keyframe.get("sibling", ())]
    return next((value for value in values if isinstance(value, str) and value), None)


def join(
    named: Iterable[Named],
    columns: list[tuple[Ints, Floats, Floats, Floats, Mask]],
    max_gap_intervals: float,
) -> Boxes3D:
    """One table of tracks given as (stamps, centres, sizes, quaternions, gap after)."""
    if not columns:
        none = np.zeros(0, np.int64)
        empty = np.zeros((0, 3))
        return Boxes3D((), none, none, empty, empty, np.zeros((0, 4)), np.zeros(0, bool))
    lengths = [len(c[0]) for c in columns]
    stamp, center, size, quaternion, gap = (
        np.concatenate([c[i] for c in columns]) for i in range(5)
    )
    track = np.repeat(np.arange(len(columns)), lengths)
    end = np.append(track[1:] != track[:-1], True)
    steps = np.append(np.diff(stamp), 0)
    usual = np.median(steps[~end]) if (~end).any() else 0.0
    last = end | gap.astype(bool) | (steps > max_gap_intervals * usual)
    return Boxes3D(tuple(named), track, stamp, center, size, quaternion, last)


def _columns(
    stamps: Any, centers: Any, sizes: Any, quaternions: Any, gap: Mask
) -> tuple[Ints, Floats, Floats, Floats, Mask]:
    q = np.asarray(quaternions, np.float64).reshape(-1, 4)
    return (
        np.asarray(stamps, np.int64),
        np.asarray(centers, np.float64).reshape(-1, 3),
        np.asarray(sizes, np.float64).reshape(-1, 3),
        q / np.linalg.norm(q, axis=1, keepdims=True),
        gap,
    )


def read_boxes_2d(layer: Layer, exposures: Mapping[str, Ints]) -> dict[str, Boxes2D]:
    """Rectangles per stream. Tracks give one for every exposure they cover."""
    rows: dict[str, list[tuple[Named, Ints, Floats]]] = {}
    for box in layer.boxes_2d:
        who = author_of(box.provenance, layer.provenance)
        named = Named(box.id, box.object_id, box.label, layer.name, who, single=True)
        entry = (named, np.array([box.stamp_ns], np.int64), np.array([box.xyxy_px]))
        rows.setdefault(box.stream, []).append(entry)
    for track in layer.tracks_2d:
        who = author_of(track.provenance, layer.provenance)
        named = Named(track.id, track.object_id, track.label, layer.name, who)
        own = np.asarray(track.stamp_ns, np.int64)
        gap = np.asarray(track.gap_after or [False] * len(own), bool)
        xyxy = np.asarray(track.xyxy_px, np.float64)
        stamps = exposures.get(track.stream, own)
        at = stamps[(stamps >= own[0]) & (stamps <= own[-1])]
        left = np.clip(np.searchsorted(own, at, side="right") - 1, 0, len(own) - 1)
        exact = own[left] == at
        at, left, exact = (x[exact | ~gap[left]] for x in (at, left, exact))
        right = np.where(exact, left, np.minimum(left + 1, len(own) - 1))
        span = np.maximum(own[right] - own[left], 1)
        part = ((at - own[left]) / span)[:, None]
        entry = (named, at, xyxy[left] + part * (xyxy[right] - xyxy[left]))
        rows.setdefault(track.stream, []).append(entry)
    return {stream: _boxes_2d(entries) for stream, entries in rows.items()}


def _boxes_2d(entries: list[tuple[Named, Ints, Floats]]) -> Boxes2D:
    named = np.repeat(np.arange(len(entries)), [len(e[1]) for e in entries])
    stamp = np.concatenate([e[1] for e in entries])
    xyxy = np.concatenate([e[2] for e in entries]).reshape(-1, 4)
    return Boxes2D(tuple(e[0] for e in entries), named, stamp, xyxy)
