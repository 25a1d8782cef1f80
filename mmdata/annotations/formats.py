"""The table of other tools' formats; each is one importer and one exporter, loaded on use."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import mmdata_schema
from mmdata.annotations.scene import Exported, Imported, Losses, Scene
from mmdata.errors import ConfigError, ConversionError, SchemaError
from mmdata_schema import Layer


@dataclass(frozen=True)
class Format:
    """One format: what it is, and what must be given with it."""

    name: str
    title: str
    module: str
    needs: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("pandaset", "PandaSet cuboids (JSON)", "pandaset"),
        Format("cvat", "CVAT for video and for images 1.1 (XML)", "cvat", ("stream",)),
        Format("coco", "COCO detection, segmentation, keypoints (JSON)", "coco", ("stream",)),
        Format("kitti", "KITTI object labels (folder of txt)", "kitti", ("stream", "frame_id")),
        Format("kitti-tracking", "KITTI tracking labels (one txt)", "kitti_tracking",
               ("stream", "frame_id")),
        Format("kitti-tracklets", "KITTI raw tracklets (XML)", "kitti_tracklets",
               ("stream", "frame_id")),
        Format("nuscenes", "nuScenes tables (folder of JSON)", "nuscenes"),
        Format("label-studio", "Label Studio time segments (JSON)", "label_studio"),
        Format("elan", "ELAN (.eaf)", "elan"),
        Format("csv", "CSV, one annotation per row", "csv_rows"),
    )
}  # fmt: skip


def _lookup(name: str, kind: str, verb: str) -> Callable[..., Any]:
    if name not in FORMATS:
        raise ConfigError(f"no annotation format {name!r}; there are: {', '.join(FORMATS)}")
    module = FORMATS[name].module
    found = import_module(f"mmdata.annotations.{kind}.{module}")
    return cast("Callable[..., Any]", getattr(found, f"{verb}_{module}"))


def read_format(
    format: str, path: str | os.PathLike[str], scene: Scene, *, layer: str, **options: Any
) -> Imported:
    """Read another tool's labels as layers named `layer` (or beginning with it).

    Raises ConversionError when the file is not of that format or the scene lacks what it needs,
    SchemaError when a label makes no valid annotation, ConfigError for an unknown format or a
    name that no layer can have.
    """
    reader = _lookup(format, "importers", "read")
    try:
        Layer.parse({"episode_id": "e", "name": layer, "provenance": {"author": "a"}})
    except mmdata_schema.SchemaError as error:
        raise ConfigError(
            f"{layer!r} is no name for a layer: letters, digits, _ and -, 64 at most"
        ) from error
    try:
        return cast("Imported", reader(Path(path), scene, layer=layer, **options))
    except mmdata_schema.SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error
    except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError) as error:
        # What a file that is not built as its format says runs into, wherever that shows first.
        raise ConversionError(
            f"{path} is not {FORMATS[format].title}, or is damaged: {error!r}"
        ) from error


def write_format(
    format: str,
    path: str | os.PathLike[str],
    layer: Layer,
    scene: Scene,
    *,
    resample: bool = False,
    **options: Any,
) -> Exported:
    """Write a layer for another tool. What the format cannot hold is in the result's losses.

    resample: take tracks at the samples of the scene's stream and, in 3D, in the scene's frame
    (see :mod:`mmdata.annotations.resample`), for formats that have one set of labels per sample.
    """
    writer = _lookup(format, "exporters", "write")
    losses = Losses()
    if resample:
        from mmdata.annotations.resample import resample as at_samples

        layer = at_samples(layer, scene, losses)
    exported = cast("Exported", writer(Path(path), layer, scene, **options))
    return Exported(exported.files, (*losses.report(), *exported.losses))
