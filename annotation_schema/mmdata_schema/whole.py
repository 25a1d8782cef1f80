"""Annotations of the episode, its views and its objects, and comments on annotations."""

from __future__ import annotations

from pydantic import JsonValue

from mmdata_schema.base import Annotation, Flag, Float, Id, Label, Model, OptionalSpan, StampNs


class SceneObject(Annotation):
    """A physical thing: what stays true of it over time and in every view.

    ``object_id`` is the identity that boxes, tracks, masks, events and captions refer to.
    """

    object_id: Id
    label: Label | None = None
    name: str | None = None


class ViewAttribute(OptionalSpan):
    """Something true of one stream (glare, dirt, occluded) or of one object in one stream.

    Visibility of an object in a camera is ``name="visibility"`` with ``object_id`` and, as
    ``value``, the visible fraction in [0, 1].
    """

    stream: Label
    name: Label
    value: JsonValue
    object_id: Id | None = None


class Tag(Annotation):
    """A tag of the whole episode, with a value where the tag takes one."""

    label: Label
    value: JsonValue = None


class OddCondition(OptionalSpan):
    """One operating condition: ``path`` in the ODD taxonomy and the value observed."""

    path: Label
    value: JsonValue


class Pin(Model):
    """What a comment points at; any combination of time, object, annotation, view, field, place.

    ``field`` is a field of the annotation (``"end_ns"``) or, with ``stream`` and without an
    annotation, a field of that stream. ``xy_px`` is a place in the image ``stream``, ``xyz_m`` one
    in the ``frame_id`` frame.
    """

    stamp_ns: StampNs | None = None
    end_ns: StampNs | None = None
    object_id: Id | None = None
    annotation_id: Id | None = None
    stream: str | None = None
    field: str | None = None
    xy_px: tuple[Float, Float] | None = None
    xyz_m: tuple[Float, Float, Float] | None = None
    frame_id: str | None = None


class Comment(Annotation):
    """A remark; without a pin it is about the layer. Its ``provenance`` says who and when.

    A pin may name an annotation of another layer of the episode: give that layer in ``layer``.
    """

    text: str
    pin: Pin | None = None
    layer: str | None = None
    reply_to: Id | None = None
    resolved: Flag = False
