"""Errors of the annotation schema.

The package stands below ``mmdata`` and cannot use its error classes; callers in ``mmdata`` turn a
:class:`SchemaError` into one of theirs.
"""

from __future__ import annotations

from typing import Any


class SchemaError(ValueError):
    """A document that is not a valid layer or taxonomy, or one that this reader cannot open."""


def describe(error: Any, limit: int = 3) -> str:
    """The first ``limit`` problems of a pydantic ``ValidationError`` in one line."""
    problems = error.errors(include_url=False, include_input=False)
    parts = []
    for problem in problems[:limit]:
        where = ".".join(str(p) for p in problem["loc"]) or "document"
        parts.append(f"{where}: {problem['msg']}")
    if len(problems) > limit:
        parts.append(f"and {len(problems) - limit} more")
    return "; ".join(parts)
