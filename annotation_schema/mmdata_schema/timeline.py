"""Annotations in time: phases, events, grasps, language, speech and sound.

``stream`` always names a stream of the episode: the view (camera, audio, force ...) on which the
annotation was made. Absent means it was made with all of them in sight.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each object
from __future__ import annotations

from typing import Self

from pydantic import model_validator

from mmdata_schema.base import (
    Annotation,
    Flag,
    Fraction,
    Id,
    Label,
    Model,
    OptionalSpan,
    Span,
    StampNs,
    check_span,
)


class Phase(Span):
    """A labelled interval on one tier; ``parent_id`` is the phase of the coarser tier it is in.

    ``actor`` tells arms of one robot (or vehicles) apart. ``start_stream`` and ``end_stream``
    say on which stream each boundary was placed, where that differs from ``stream``.
    ``success`` is what the annotator judged, absent when nobody did.
    """

    tier: Label
    label: Label
    parent_id: Id | None = None
    actor: str | None = None
    object_ids: list[Id] = []
    stream: str | None = None
    start_stream: str | None = None
    end_stream: str | None = None
    success: Flag | None = None


class Event(Annotation):
    """A labelled instant."""

    label: Label
    stamp_ns: StampNs
    actor: str | None = None
    object_ids: list[Id] = []
    stream: str | None = None


class GraspOutcome(Span):
    """One attempt to grasp, from first contact (or closing, on a miss) to release, and its end.

    ``label`` is the outcome. The events that bound the hold are linked where they are annotated.
    """

    label: Label
    actor: str | None = None
    object_ids: list[Id] = []
    stream: str | None = None
    contact_event_id: Id | None = None
    release_event_id: Id | None = None


class Caption(OptionalSpan):
    """Text about a span or the whole episode.

    ``style`` says what kind of text: ``caption``, ``instruction`` or one of LeRobot's language
    styles (``subtask``, ``plan``, ``memory``, ``motion``, ``interjection``, ``vqa``, ``trace``,
    ``task_aug``). ``language`` is a BCP 47 tag.
    """

    text: str
    style: Label = "caption"
    role: str | None = None
    language: str | None = None
    object_ids: list[Id] = []
    stream: str | None = None


class Word(Model):
    """One word of a transcript over [start_ns, end_ns)."""

    text: str
    start_ns: StampNs
    end_ns: StampNs
    confidence: Fraction | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_span(self.start_ns, self.end_ns)
        return self


class Transcript(Span):
    """One utterance: what was said in an audio stream, by whom, word times where known."""

    text: str
    stream: str | None = None
    speaker: str | None = None
    language: str | None = None
    words: list[Word] = []


class SoundEvent(Annotation):
    """A sound that is not speech. ``end_ns`` is absent when only the onset is known."""

    label: Label
    start_ns: StampNs
    end_ns: StampNs | None = None
    stream: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_ns is not None:
            check_span(self.start_ns, self.end_ns)
        return self
