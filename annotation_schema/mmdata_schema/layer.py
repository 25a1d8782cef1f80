"""A layer: one author's or tool's set of annotations of one episode."""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each object
from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, StringConstraints, model_validator

from mmdata_schema.base import (
    Annotation,
    Count,
    Label,
    Model,
    Provenance,
    Review,
    ReviewState,
)
from mmdata_schema.errors import SchemaError
from mmdata_schema.spatial import Box2D, Box3D, Keypoints, Mask
from mmdata_schema.timeline import Caption, Event, GraspOutcome, Phase, SoundEvent, Transcript
from mmdata_schema.tracks import Track2D, Track3D
from mmdata_schema.version import SCHEMA_VERSION
from mmdata_schema.whole import Comment, OddCondition, SceneObject, Tag, ViewAttribute

_A = TypeVar("_A", bound=Annotation)


def _by_id(annotations: list[_A]) -> list[_A]:
    return sorted(annotations, key=lambda annotation: annotation.id)


# Kept in order of id, so that layers with the same content are equal and give the same bytes.
_Ordered = AfterValidator(_by_id)

#: Collection of a layer -> class of its annotations.
COLLECTIONS: dict[str, type[Annotation]] = {
    "objects": SceneObject,
    "phases": Phase,
    "events": Event,
    "grasps": GraspOutcome,
    "tracks_3d": Track3D,
    "boxes_3d": Box3D,
    "tracks_2d": Track2D,
    "boxes_2d": Box2D,
    "masks": Mask,
    "keypoints": Keypoints,
    "captions": Caption,
    "transcripts": Transcript,
    "sound_events": SoundEvent,
    "view_attributes": ViewAttribute,
    "tags": Tag,
    "odd": OddCondition,
    "comments": Comment,
}
_COLLECTION_OF = {cls: name for name, cls in COLLECTIONS.items()}


class TaxonomyRef(Model):
    """The taxonomy a layer was made with."""

    name: Label
    version: str | None = None


class Layer(Model):
    """Everything one author or tool said about one episode.

    ``name`` is part of the sidecar's file name. ``revision`` counts saves of this layer (0: never
    saved) and ``base_revision`` is the revision an edit started from, so that a store can refuse
    an edit of something stale. Collections are kept in order of id; ids are unique across them.
    """

    schema_version: Annotated[
        str, StringConstraints(pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)(\.(0|[1-9]\d*))?$")
    ] = SCHEMA_VERSION
    episode_id: Label
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    provenance: Provenance
    revision: Count = 0
    base_revision: Count | None = None
    reference_clock: str | None = None
    taxonomy: TaxonomyRef | None = None
    review: Review | None = None

    objects: Annotated[list[SceneObject], _Ordered] = []
    phases: Annotated[list[Phase], _Ordered] = []
    events: Annotated[list[Event], _Ordered] = []
    grasps: Annotated[list[GraspOutcome], _Ordered] = []
    tracks_3d: Annotated[list[Track3D], _Ordered] = []
    boxes_3d: Annotated[list[Box3D], _Ordered] = []
    tracks_2d: Annotated[list[Track2D], _Ordered] = []
    boxes_2d: Annotated[list[Box2D], _Ordered] = []
    masks: Annotated[list[Mask], _Ordered] = []
    keypoints: Annotated[list[Keypoints], _Ordered] = []
    captions: Annotated[list[Caption], _Ordered] = []
    transcripts: Annotated[list[Transcript], _Ordered] = []
    sound_events: Annotated[list[SoundEvent], _Ordered] = []
    view_attributes: Annotated[list[ViewAttribute], _Ordered] = []
    tags: Annotated[list[Tag], _Ordered] = []
    odd: Annotated[list[OddCondition], _Ordered] = []
    comments: Annotated[list[Comment], _Ordered] = []

    @model_validator(mode="after")
    def _unique_ids(self) -> Self:
        seen: set[str] = set()
        for annotation in self.annotations():
            if annotation.id in seen:
                raise ValueError(f"id {annotation.id!r} occurs twice")
            seen.add(annotation.id)
        return self

    @property
    def review_state(self) -> ReviewState:
        """State of the layer's review; ``draft`` when nobody has begun one."""
        return self.review.state if self.review else ReviewState.DRAFT

    def annotations(self) -> Iterator[Annotation]:
        """All annotations, collection by collection."""
        return chain.from_iterable(getattr(self, name) for name in COLLECTIONS)

    def by_id(self) -> dict[str, Annotation]:
        """Index of all annotations."""
        return {annotation.id: annotation for annotation in self.annotations()}

    def get(self, id: str) -> Annotation | None:
        """The annotation with this id (a scan: use :meth:`by_id` for many)."""
        return next((a for a in self.annotations() if a.id == id), None)

    def put(self, annotation: Annotation) -> Self:
        """A layer with ``annotation`` added, or in the place of the one with its id."""
        name = collection_of(annotation)
        old = self.get(annotation.id)
        if old is not None and collection_of(old) != name:
            raise SchemaError(f"id {annotation.id!r} is already used in {collection_of(old)}")
        kept = [a for a in getattr(self, name) if a.id != annotation.id]
        return self.model_copy(update={name: _by_id([*kept, annotation])})

    def remove(self, id: str) -> Self:
        """A layer without the annotation ``id``; :class:`SchemaError` when there is none."""
        old = self.get(id)
        if old is None:
            raise SchemaError(f"layer {self.name!r} has no annotation {id!r}")
        name = collection_of(old)
        return self.model_copy(update={name: [a for a in getattr(self, name) if a.id != id]})


def collection_of(annotation: Annotation) -> str:
    """Name of the layer's collection that holds annotations of this class."""
    try:
        return _COLLECTION_OF[type(annotation)]
    except KeyError:
        raise SchemaError(f"{type(annotation).__name__} is not an annotation of a layer") from None


def parse_annotation(collection: str, data: dict[str, Any]) -> Annotation:
    """One annotation from its JSON form; :class:`SchemaError` when it is not valid."""
    if collection not in COLLECTIONS:
        raise SchemaError(f"no collection {collection!r}; there are {', '.join(COLLECTIONS)}")
    return COLLECTIONS[collection].parse(data)
