"""Where a finding points: instants, views and annotations that a worklist can jump to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MOST", "Detail", "instants", "most"]

#: A finding carries at most this many places, the worst ones; its message gives the true number.
MOST = 100


@dataclass(frozen=True)
class Detail:
    """One place a finding is about; what does not apply is None (or empty).

    stream: the stream or view, always a single one (a finding about ``a/b`` has a detail for each).
    stamp_ns, end_ns: an instant, or a span from its first to its last instant, int64 nanoseconds
    on the episode's clock. sample: index of the sample in the order it was recorded, which tells
    samples apart where stamps repeat or go back. layer, annotation_ids: the annotations concerned;
    a keyframe of a track is ``<track>@<stamp_ns>``. object_id: identity of the object. message:
    what is wrong here, in a few words.
    """

    stream: str | None = None
    stamp_ns: int | None = None
    end_ns: int | None = None
    sample: int | None = None
    layer: str | None = None
    annotation_ids: tuple[str, ...] = ()
    object_id: str | None = None
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; keys without a value are left out."""
        ids = list(self.annotation_ids)
        values = {**self.__dict__, "annotation_ids": ids}
        return {key: value for key, value in values.items() if value not in (None, "", [])}


def most(
    details: Iterable[Detail], weights: Mapping[int, float] | None = None
) -> tuple[Detail, ...]:
    """At most :data:`MOST` of the details, in order of time.

    weights: how bad each is, by its position; those not named count 0. Without weights the first
    ones stay.
    """
    known = list(enumerate(details))
    if weights:
        known.sort(key=lambda item: -weights.get(item[0], 0.0))
    kept = [detail for _, detail in known[:MOST]]
    return tuple(sorted(kept, key=lambda d: (d.stamp_ns is None, d.stamp_ns or 0)))


def instants(stream: str, stamps_ns: Iterable[int], message: str = "") -> tuple[Detail, ...]:
    """A detail for each stamp of one stream, at most :data:`MOST`."""
    return most(Detail(stream, int(stamp), message=message) for stamp in stamps_ns)
