"""Checks: rules with stable ids that look at an episode and return findings.

A rule is a generator function under :func:`check` in a family module of this package (``time``,
``signals``, ...). It yields outcomes; rule id, severity and title come from the decorator. Third
parties add families through the entry-point group ``mmdata.checks`` (value: a module).

>>> findings = run_checks(Context(episode, ledger=ledger))
>>> verdict(findings)
'FAILED'
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mmdata.checks.limits import Limits
from mmdata.checks.places import Detail
from mmdata.errors import ConfigError

if TYPE_CHECKING:
    from mmdata.episode import Episode

__all__ = [
    "Context",
    "Detail",
    "Finding",
    "Limits",
    "Outcome",
    "Rule",
    "Severity",
    "Status",
    "check",
    "exit_code",
    "failed",
    "not_assessed",
    "passed",
    "rules",
    "run_checks",
    "verdict",
]

ENTRY_POINTS = "mmdata.checks"
GBZ = "GB/Z 218.1-2026"

EXIT_PASSED, EXIT_FAILED = 0, 1


class Status(StrEnum):
    """Outcome of a rule. SKIPPED: nothing it applies to. NOT_ASSESSED: applies, cannot be told."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    NOT_ASSESSED = "NOT_ASSESSED"


class Severity(StrEnum):
    """What a failure means. Only errors fail an episode; warnings do under ``strict``."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Outcome:
    """What a rule says about one stream (or pair ``a/b``, or None: the episode).

    details: the places it is about, in order of time, at most ``places.MOST``.
    """

    status: Status
    message: str
    stream: str | None = None
    value: float | None = None
    limit: float | None = None
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True)
class Finding:
    """An outcome with the rule it belongs to."""

    rule: str
    status: Status
    severity: Severity
    stream: str | None
    value: float | None
    limit: float | None
    message: str
    details: tuple[Detail, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-like: every field, enumerations as text, details as lists of dicts."""
        return {
            "rule": self.rule,
            "status": str(self.status),
            "severity": str(self.severity),
            "stream": self.stream,
            "value": self.value,
            "limit": self.limit,
            "message": self.message,
            "details": [detail.to_dict() for detail in self.details],
        }


@dataclass(frozen=True)
class Context:
    """What rules look at.

    ledger: the synchronisation ledger as JSON-like data; empty where nobody made one. layers:
    annotation layers as parsed JSON, by name.
    """

    episode: Episode
    ledger: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


RuleFunction = Callable[[Context], Iterable[Outcome]]


@dataclass(frozen=True)
class Rule:
    """One rule. ``clause`` names what of a standard it speaks to, ``why`` is its documentation."""

    id: str
    title: str
    severity: Severity
    family: str
    clause: str | None
    why: str
    function: RuleFunction


_RULES: dict[str, Rule] = {}


def check(
    id: str, *, title: str, severity: Severity, clause: str | None = None
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a generator of outcomes as rule ``id`` (letters and digits, never reused)."""

    def register(function: RuleFunction) -> RuleFunction:
        known = _RULES.get(id)
        if known is not None and known.function.__module__ != function.__module__:
            raise ConfigError(
                f"rule {id} is defined in {known.function.__module__} and {function.__module__}"
            )
        family = function.__module__.rpartition(".")[2]
        why = (function.__doc__ or "").strip()
        _RULES[id] = Rule(id, title, severity, family, clause, why, function)
        return function

    return register


def _outcome(
    status: Status,
    message: str,
    stream: str | None = None,
    *,
    value: float | None = None,
    limit: float | None = None,
    details: Iterable[Detail] = (),
) -> Outcome:
    return Outcome(status, message, stream, value, limit, tuple(details))


passed = partial(_outcome, Status.PASSED)
failed = partial(_outcome, Status.FAILED)
not_assessed = partial(_outcome, Status.NOT_ASSESSED)


def rules() -> tuple[Rule, ...]:
    """All rules, built-in and third-party, in order of id."""
    for module in pkgutil.iter_modules(__path__):
        if module.name not in ("limits", "pages", "places"):
            importlib.import_module(f"{__name__}.{module.name}")
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # a broken plug-in must not take the built-in rules along
            warnings.warn(f"check plug-in {entry.name!r} does not load: {error}", stacklevel=2)
    return tuple(_RULES[id] for id in sorted(_RULES))


def run_checks(
    context: Context, *, select: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """Run the rules whose id matches ``select`` (all when empty) and none of ``exclude``.

    Patterns are ids or globs (``TIM*``). Raises ConfigError for a pattern that names no rule.
    """
    known = rules()
    for pattern in (*select, *exclude):
        if not any(fnmatchcase(rule.id, pattern) for rule in known):
            raise ConfigError(f"no rule is called {pattern!r}; `mmdata check --rules` lists them")
    chosen = [
        rule
        for rule in known
        if (not select or any(fnmatchcase(rule.id, p) for p in select))
        and not any(fnmatchcase(rule.id, p) for p in exclude)
    ]
    return tuple(finding for rule in chosen for finding in _run(rule, context))


def _run(rule: Rule, context: Context) -> Iterator[Finding]:
    outcomes = list(rule.function(context))
    if not outcomes:
        outcomes = [Outcome(Status.SKIPPED, "nothing in this episode it applies to")]
    for o in outcomes:
        yield Finding(rule.id, o.status, rule.severity, o.stream, o.value, o.limit, o.message,
                      o.details)  # fmt: skip


def verdict(findings: Iterable[Finding], *, strict: bool = False) -> str:
    """FAILED by any failed error (``strict``: or warning); NOT_ASSESSED when nothing was judged."""
    heavy = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    passed_any = open_any = False
    for finding in findings:
        if finding.status is Status.FAILED and finding.severity in heavy:
            return str(Status.FAILED)
        passed_any |= finding.status is Status.PASSED
        open_any |= finding.status is Status.NOT_ASSESSED and finding.severity in heavy
    if not passed_any or (strict and open_any):
        return str(Status.NOT_ASSESSED)
    return str(Status.PASSED)


def exit_code(verdicts: Iterable[str], *, strict: bool = False) -> int:
    """1 when an episode failed (``strict``: or could not be assessed), else 0."""
    refused = {str(Status.FAILED), *([str(Status.NOT_ASSESSED)] if strict else [])}
    return EXIT_FAILED if refused & set(verdicts) else EXIT_PASSED
