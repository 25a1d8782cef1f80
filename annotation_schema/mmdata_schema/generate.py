"""Write the JSON Schema files of the current version: ``python -m mmdata_schema.generate``.

``--check`` writes nothing and exits 1 when a file is missing or out of date. Files of older
versions are never touched.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmdata_schema.layer import Layer
from mmdata_schema.taxonomy import Taxonomy
from mmdata_schema.version import SCHEMA_VERSION

FOLDER = Path(__file__).parent / "schemas" / SCHEMA_VERSION


def schema_texts() -> dict[str, str]:
    """File name -> JSON Schema (draft 2020-12) of the current version."""
    texts = {}
    for name, model in (("layer", Layer), ("taxonomy", Taxonomy)):
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **model.model_json_schema(),
        }
        texts[f"{name}.json"] = json.dumps(schema, indent=2, sort_keys=True) + "\n"
    return texts


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    if set(arguments) - {"--check"}:
        print("usage: python -m mmdata_schema.generate [--check]", file=sys.stderr)
        return 2
    stale = []
    for name, text in schema_texts().items():
        path = FOLDER / name
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path)
            if "--check" not in arguments:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
    for path in stale:
        print(f"{'out of date' if '--check' in arguments else 'wrote'}: {path}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
