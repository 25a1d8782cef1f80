"""Annotation layers of an episode: where they live, how they change, and other tools' formats.

Layers are documents of :mod:`mmdata_schema`. Each lives in exactly one place: beside the episode
as ``<episode_id>.<layer>.json``, or embedded in it after :func:`publish`.
"""

from mmdata.annotations.diff import Change, LayerDiff, diff_layers
from mmdata.annotations.formats import FORMATS, Format, read_format, write_format
from mmdata.annotations.merge import Conflict, Merge, merge_layers
from mmdata.annotations.place import (
    LayerEntry,
    layer_path,
    list_layers,
    publish,
    read_episode_layer,
    withdraw,
)
from mmdata.annotations.scene import Exported, Imported, Loss, Scene
from mmdata.annotations.sidecar import RevisionConflictError, read_layer_file, write_layer_file

__all__ = [
    "FORMATS",
    "Change",
    "Conflict",
    "Exported",
    "Format",
    "Imported",
    "LayerDiff",
    "LayerEntry",
    "Loss",
    "Merge",
    "RevisionConflictError",
    "Scene",
    "diff_layers",
    "layer_path",
    "list_layers",
    "merge_layers",
    "publish",
    "read_episode_layer",
    "read_format",
    "read_layer_file",
    "withdraw",
    "write_format",
    "write_layer_file",
]
