"""Findings about labels, and the causes they are folded under."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmdata.checks import Detail, Finding, Severity, Status
from mmdata.checks.places import most


@dataclass(frozen=True)
class LabelRule:
    """Static facts of a rule: see docs/label-checks.md. error_type: code of ``error_types``."""

    id: str
    name: str
    title: str
    severity: Severity
    error_type: str
    why: str


@dataclass(frozen=True)
class LabelFinding(Finding):
    """A finding that points at annotations.

    key: the finding's own name within a report. error_type: code of the taxonomy ``error_types``.
    annotation_ids: boxes, keyframes (``<track>@<stamp>``), phases or captions concerned.
    cause: key of the finding that explains this one; such a finding needs no attention of its own.
    explains: on a cause, how many findings are folded under it.
    """

    key: str = ""
    name: str = ""
    error_type: str = ""
    layer: str | None = None
    object_id: str | None = None
    annotation_ids: tuple[str, ...] = ()
    stamp_ns: int | None = None
    author: str | None = None
    cause: str | None = None
    explains: int = 0

    def to_dict(self) -> dict[str, Any]:
        own = {
            "key": self.key,
            "name": self.name,
            "error_type": self.error_type,
            "layer": self.layer,
            "object_id": self.object_id,
            "annotation_ids": list(self.annotation_ids),
            "stamp_ns": self.stamp_ns,
            "author": self.author,
            "cause": self.cause,
            "explains": self.explains,
        }
        return super().to_dict() | own

    def under(self, cause: str) -> LabelFinding:
        """This finding, folded under a cause."""
        return replace(self, cause=cause)


def make(rule: LabelRule, message: str, **fields: Any) -> LabelFinding:
    """A failed finding of ``rule``.

    Its details, where none are given, are one for each view of ``stream`` (``a/b``: two), at the
    finding's stamp and with its annotations.
    """
    stream = fields.pop("stream", None)
    value, limit = fields.pop("value", None), fields.pop("limit", None)
    error_type = fields.pop("error_type", rule.error_type)
    where = (stream, fields.get("object_id"), fields.get("stamp_ns"))
    ids = fields.get("annotation_ids", ())
    parts = [rule.name, *(str(x) for x in where if x is not None), *ids[:2]]
    return LabelFinding(
        rule.id, Status.FAILED, rule.severity, stream,
        None if value is None else float(value), None if limit is None else float(limit),
        message, fields.pop("details", None) or _details(stream, fields),
        key="|".join(parts), name=rule.name, error_type=error_type, **fields,
    )  # fmt: skip


def _details(stream: str | None, fields: Mapping[str, Any]) -> tuple[Detail, ...]:
    stamp, layer, who = (fields.get(name) for name in ("stamp_ns", "layer", "object_id"))
    ids = tuple(fields.get("annotation_ids", ()))
    views = stream.split("/") if stream else [None]
    if views == [None] and stamp is None and layer is None and who is None and not ids:
        return ()
    return tuple(
        Detail(view, stamp, layer=layer, annotation_ids=ids, object_id=who) for view in views
    )


def explained(findings: Sequence[LabelFinding]) -> list[LabelFinding]:
    """The findings, every cause told how many are folded under it and where they are."""
    below: dict[str, list[LabelFinding]] = defaultdict(list)
    for finding in findings:
        if finding.cause is not None:
            below[finding.cause].append(finding)
    return [_cause(f, below[f.key]) if f.key in below else f for f in findings]


def _cause(cause: LabelFinding, folded: Sequence[LabelFinding]) -> LabelFinding:
    places = [(abs(f.value or 0.0), detail) for f in folded for detail in f.details]
    places += [(float("inf"), detail) for detail in cause.details if detail.stamp_ns is not None]
    weights = {k: weight for k, (weight, _) in enumerate(places)}
    details = most((detail for _, detail in places), weights) or cause.details
    return replace(cause, explains=len(folded), details=details)


def unfolded(findings: Iterable[LabelFinding]) -> list[LabelFinding]:
    """Causes and findings that nothing else explains: what a person should read."""
    return [finding for finding in findings if finding.cause is None]
