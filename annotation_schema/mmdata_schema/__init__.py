"""The annotation schema: layers of labels for one episode, taxonomies, and their versions.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata_schema.base import (
        Annotation,
        Evidence,
        LayerRef,
        Provenance,
        Review,
        ReviewState,
        ReviewStep,
        Software,
        new_id,
        stable_id,
    )
    from mmdata_schema.errors import SchemaError
    from mmdata_schema.io import read_layer, write_layer
    from mmdata_schema.layer import (
        COLLECTIONS,
        Layer,
        TaxonomyRef,
        collection_of,
        parse_annotation,
    )
    from mmdata_schema.migrations import migrate
    from mmdata_schema.rle import rle_runs, rle_string
    from mmdata_schema.spatial import Box2D, Box3D, Keypoint, Keypoints, Mask
    from mmdata_schema.taxonomy import Taxonomy, load_taxonomy
    from mmdata_schema.timeline import (
        Caption,
        Event,
        GraspOutcome,
        Phase,
        SoundEvent,
        Transcript,
        Word,
    )
    from mmdata_schema.tracks import Track2D, Track3D
    from mmdata_schema.validate import Problem, validate_layer
    from mmdata_schema.version import SCHEMA_VERSION
    from mmdata_schema.whole import Comment, OddCondition, Pin, SceneObject, Tag, ViewAttribute

_HOME = {
    "base": (
        "Annotation Evidence LayerRef Provenance Review ReviewState ReviewStep Software new_id "
        "stable_id"
    ),
    "errors": "SchemaError",
    "io": "read_layer write_layer",
    "layer": "COLLECTIONS Layer TaxonomyRef collection_of parse_annotation",
    "migrations": "migrate",
    "rle": "rle_runs rle_string",
    "spatial": "Box2D Box3D Keypoint Keypoints Mask",
    "taxonomy": "Taxonomy load_taxonomy",
    "timeline": "Caption Event GraspOutcome Phase SoundEvent Transcript Word",
    "tracks": "Track2D Track3D",
    "validate": "Problem validate_layer",
    "version": "SCHEMA_VERSION",
    "whole": "Comment OddCondition Pin SceneObject Tag ViewAttribute",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "COLLECTIONS",
    "SCHEMA_VERSION",
    "Annotation",
    "Box2D",
    "Box3D",
    "Caption",
    "Comment",
    "Event",
    "Evidence",
    "GraspOutcome",
    "Keypoint",
    "Keypoints",
    "Layer",
    "LayerRef",
    "Mask",
    "OddCondition",
    "Phase",
    "Pin",
    "Problem",
    "Provenance",
    "Review",
    "ReviewState",
    "ReviewStep",
    "SceneObject",
    "SchemaError",
    "Software",
    "SoundEvent",
    "Tag",
    "Taxonomy",
    "TaxonomyRef",
    "Track2D",
    "Track3D",
    "Transcript",
    "ViewAttribute",
    "Word",
    "collection_of",
    "load_taxonomy",
    "migrate",
    "new_id",
    "parse_annotation",
    "read_layer",
    "rle_runs",
    "rle_string",
    "stable_id",
    "validate_layer",
    "write_layer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
