"""What every annotation shares: field types, provenance, evidence and review.

All models keep fields they do not know (``extra="allow"``) and are frozen: an edit makes a new
object (:meth:`Model.edit`), so the old one is there for undo.
"""

from __future__ import annotations

import hashlib
import uuid
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mmdata_schema.errors import SchemaError, describe

# Strict numbers: a stamp that arrives as 1.0 or "1" is a bug upstream, not something to round.
StampNs = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Fraction = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Flag = StrictBool
Id = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^\S+$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Attributes = dict[str, JsonValue]


class Model(BaseModel):
    """Base of every model: unknown fields kept, objects frozen."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="constants")

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """An object from its JSON form; :class:`SchemaError` when it is not valid."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SchemaError(f"{cls.__name__}: {describe(error)}") from error

    def edit(self, **changes: Any) -> Self:
        """A validated copy with ``changes`` applied; raises :class:`SchemaError`."""
        known = {name: getattr(self, name) for name in type(self).model_fields}
        return self.parse({**known, **(self.model_extra or {}), **changes})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict without the known fields that hold their default."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Software(Model):
    """A tool or a model. ``name`` as published; ``version`` a release, weights id or hash."""

    name: Label
    version: str | None = None


class LayerRef(Model):
    """A revision of a layer of the same episode."""

    layer: str
    revision: Count


class Provenance(Model):
    """Who or what made something, when, and from what.

    At least one of ``author``, ``tool`` and ``model`` is set. Times are wall-clock nanoseconds
    since the Unix epoch (they say when somebody edited, not when something happened in the
    episode). ``confidence`` is the maker's own confidence in everything it covers.
    """

    author: Label | None = None
    tool: Software | None = None
    model: Software | None = None
    confidence: Fraction | None = None
    created_unix_ns: StampNs | None = None
    modified_unix_ns: StampNs | None = None
    derived_from: list[LayerRef] = []
    source_file: str | None = None

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.author is None and self.tool is None and self.model is None:
            raise ValueError("name an author, a tool or a model")
        return self


class Evidence(Model):
    """One reason for an annotation: a signal feature that a segmenter or a person relied on.

    ``kind`` names the statistic (``"gripper_command_onset"``, ``"direction_change"``, ...),
    ``stream`` and ``field`` where it was seen, ``boundary`` which end of a phase it supports
    (``"start"`` or ``"end"``), ``value`` its size in ``unit``, ``score`` its weight in [0, 1].
    """

    kind: Label
    stream: str | None = None
    field: str | None = None
    stamp_ns: StampNs | None = None
    boundary: str | None = None
    value: Float | None = None
    unit: str | None = None
    score: Fraction | None = None


class ReviewState(StrEnum):
    """draft -> review -> accepted | rejected; both of the last can be reopened."""

    DRAFT = "draft"
    REVIEW = "review"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


_NEXT: dict[ReviewState, frozenset[ReviewState]] = {
    ReviewState.DRAFT: frozenset({ReviewState.REVIEW}),
    ReviewState.REVIEW: frozenset({ReviewState.DRAFT, ReviewState.ACCEPTED, ReviewState.REJECTED}),
    ReviewState.ACCEPTED: frozenset({ReviewState.REVIEW}),
    ReviewState.REJECTED: frozenset({ReviewState.DRAFT, ReviewState.REVIEW}),
}


class ReviewStep(Model):
    """One change of state: from which to which, by whom, when (wall clock), why."""

    previous: ReviewState
    state: ReviewState
    by: Label
    unix_ns: StampNs
    note: str | None = None

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if self.state not in _NEXT[self.previous]:
            allowed = ", ".join(sorted(_NEXT[self.previous]))
            raise ValueError(
                f"review cannot go from {self.previous} to {self.state} (allowed: {allowed})"
            )
        return self


class Review(Model):
    """State of review, and the steps that led there as far as they are known."""

    state: ReviewState = ReviewState.DRAFT
    history: list[ReviewStep] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for a, b in pairwise(self.history):
            if a.state != b.previous:
                raise ValueError(f"review history goes to {a.state} and on from {b.previous}")
        if self.history and self.history[-1].state != self.state:
            raise ValueError(
                f"review state is {self.state} but its history ends in {self.history[-1].state}"
            )
        return self

    def advance(
        self, state: ReviewState | str, by: str, unix_ns: int, note: str | None = None
    ) -> Review:
        """The review after one more step; :class:`SchemaError` when the step is not allowed."""
        step = ReviewStep.parse(
            {"previous": self.state, "state": state, "by": by, "unix_ns": unix_ns, "note": note}
        )
        return self.edit(state=step.state, history=[*self.history, step])


class Annotation(Model):
    """Base of everything that can be labelled.

    ``id`` is unique within the layer and never reused. ``confidence`` is that of this annotation.
    ``provenance`` is given only where it differs from the layer's, ``review`` only where this
    annotation was judged on its own (a proposal that was accepted, adjusted or rejected).
    """

    id: Id
    confidence: Fraction | None = None
    attributes: Attributes = {}
    evidence: list[Evidence] = []
    provenance: Provenance | None = None
    review: Review | None = None


class Span(Annotation):
    """An annotation over [start_ns, end_ns) on the episode's reference clock."""

    start_ns: StampNs
    end_ns: StampNs

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_span(self.start_ns, self.end_ns)
        return self


class OptionalSpan(Annotation):
    """As :class:`Span`; both ends absent means the whole episode."""

    start_ns: StampNs | None = None
    end_ns: StampNs | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.start_ns is None) != (self.end_ns is None):
            raise ValueError("give both start_ns and end_ns, or neither for the whole episode")
        if self.start_ns is not None and self.end_ns is not None:
            check_span(self.start_ns, self.end_ns)
        return self


def check_span(start_ns: int, end_ns: int) -> None:
    """Raise ``ValueError`` unless [start_ns, end_ns) holds at least one instant."""
    if end_ns <= start_ns:
        raise ValueError(f"end_ns {end_ns} must lie after start_ns {start_ns} (end is exclusive)")


def new_id(prefix: str = "a") -> str:
    """A fresh random id, e.g. ``phase-1f0c...``; for annotations that a person makes."""
    return f"{prefix}-{uuid.uuid4().hex}"


def stable_id(prefix: str, *parts: object) -> str:
    """An id that depends on ``parts`` only, so importing the same source twice gives equal ids."""
    text = "\x1f".join(str(part) for part in parts)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
