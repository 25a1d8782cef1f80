"""Reading and writing a layer as one JSON document."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from mmdata_schema.errors import SchemaError
from mmdata_schema.layer import COLLECTIONS, Layer
from mmdata_schema.migrations import migrate


def read_layer(data: str | bytes | dict[str, Any]) -> Layer:
    """The layer in a JSON document (text, UTF-8 bytes, or the parsed dict, which is not changed).

    Documents of older schema versions are migrated. Raises :class:`SchemaError` when the
    document is not JSON, not a valid layer, or of a newer major version.
    """
    if not isinstance(data, dict):
        try:
            data = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise SchemaError(f"annotation layer is not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise SchemaError("annotation layer must be a JSON object")
    return Layer.parse(migrate(data))


def write_layer(layer: Layer) -> str:
    """Canonical JSON of ``layer``: keys sorted, annotations in order of id, no defaults.

    Layers with the same content give the same text. Raises :class:`SchemaError` when an unknown
    field holds something JSON cannot carry (NaN, infinity, arbitrary objects).
    """
    try:
        document = layer.to_dict()
        document["schema_version"] = layer.schema_version
        for name in COLLECTIONS:
            if name in document:
                document[name].sort(key=lambda annotation: annotation["id"])
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (ValueError, TypeError) as error:
        raise SchemaError(f"layer {layer.name!r} cannot be written as JSON: {error}") from error
