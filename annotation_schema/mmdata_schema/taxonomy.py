"""Taxonomies: what labels, attributes, tiers and phase transitions a project uses, as YAML.

The packaged ones (``phases``, ``events``, ``grasp_outcomes``, ``object_classes``,
``sound_events``, ``odd``, ``error_types``) are starting points; a project's own file may extend
them. An absent group leaves its labels free.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each object
from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import JsonValue, ValidationError, model_validator

from mmdata_schema.base import Flag, Float, Label, Model
from mmdata_schema.errors import SchemaError, describe
from mmdata_schema.layer import COLLECTIONS


class AttributeRule(Model):
    """An attribute: its type, and for numbers its range and unit, for ``enum`` its values."""

    name: Label
    type: Literal["bool", "int", "float", "str", "enum"]
    values: list[JsonValue] = []
    required: Flag = False
    minimum: Float | None = None
    maximum: Float | None = None
    unit: str | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _enumerated(self) -> Self:
        if (self.type == "enum") != bool(self.values):
            raise ValueError("give values for type enum, and only there")
        return self


class Term(Model):
    """A label. ``aliases`` are names that other datasets and formats use for it."""

    label: Label
    description: str | None = None
    aliases: list[Label] = []
    parent: str | None = None
    attributes: list[AttributeRule] = []


class PhaseTerm(Term):
    """A phase label with the rule for its two boundaries, so that annotators place them alike."""

    starts_when: str | None = None
    ends_when: str | None = None


class Tier(Model):
    """One tier of phases.

    ``parent`` is the coarser tier its phases lie within. Phases of an ``exclusive`` tier do not
    overlap and those of a ``gap_free`` one leave no gap between first and last, per actor and
    stream. ``transitions`` gives for a label those that may follow; labels without an entry may
    be followed by any. ``first`` and ``last`` are the labels an episode may begin and end with.
    """

    name: Label
    description: str | None = None
    parent: str | None = None
    exclusive: Flag = True
    gap_free: Flag = False
    labels: list[PhaseTerm] = []
    transitions: dict[str, list[str]] = {}
    first: list[str] = []
    last: list[str] = []

    @model_validator(mode="after")
    def _known_labels(self) -> Self:
        known = {term.label for term in self.labels}
        used = {*self.first, *self.last, *self.transitions}
        used.update(label for after in self.transitions.values() for label in after)
        if self.labels and used - known:
            raise ValueError(f"tier {self.name!r} has no label {sorted(used - known)[0]!r}")
        return self


class ObjectClass(Term):
    """An object class. ``rigid`` objects keep their size along a track."""

    rigid: Flag | None = None


class OddTerm(Model):
    """A node of the ODD taxonomy by dotted ``path``; ``values`` where it takes one of a set."""

    path: Label
    description: str | None = None
    values: list[JsonValue] = []
    type: Literal["bool", "int", "float", "str"] | None = None
    unit: str | None = None


class ErrorType(Model):
    """A type of annotation error, and how far software can find it.

    ``detectable``: ``full`` (from the labels and recordings alone), ``partial`` (symptoms, or only
    where the needed data is there) or ``none`` (a fault of the process, not of the data).
    """

    code: Label
    dimension: Literal["completeness", "accuracy", "consistency"]
    title: Label
    detectable: Literal["full", "partial", "none"]
    how: str


_NAMED: tuple[tuple[str, str], ...] = (
    ("tiers", "name"),
    ("events", "label"),
    ("grasp_outcomes", "label"),
    ("object_classes", "label"),
    ("sound_events", "label"),
    ("caption_styles", "label"),
    ("tags", "label"),
    ("odd", "path"),
    ("error_types", "code"),
)


class Taxonomy(Model):
    """A taxonomy file. ``attributes`` maps a layer's collection to rules for all its annotations.

    ``extends`` names packaged taxonomies or files (relative to this one); their entries come
    first and an entry here replaces the one of the same name. With ``closed_attributes`` an
    attribute without a rule is a problem.
    """

    name: Label
    version: Label
    description: str | None = None
    source: str | None = None
    extends: list[str] = []
    tiers: list[Tier] = []
    events: list[Term] = []
    grasp_outcomes: list[Term] = []
    object_classes: list[ObjectClass] = []
    sound_events: list[Term] = []
    caption_styles: list[Term] = []
    tags: list[Term] = []
    odd: list[OddTerm] = []
    error_types: list[ErrorType] = []
    attributes: dict[str, list[AttributeRule]] = {}
    closed_attributes: Flag = False

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for group, key in _NAMED:
            names = [getattr(entry, key) for entry in getattr(self, group)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{group} has {twice[0]!r} twice")
        unknown = sorted(set(self.attributes) - set(COLLECTIONS))
        if unknown:
            raise ValueError(f"attributes: a layer has no collection {unknown[0]!r}")
        return self

    def tier(self, name: str) -> Tier | None:
        """The tier of this name."""
        return next((tier for tier in self.tiers if tier.name == name), None)

    def canonical(self, group: str, label: str) -> str | None:
        """This taxonomy's label for a name or alias in ``group``, e.g. ``"object_classes"``.

        Aliases match whatever their case; ``None`` when nothing matches.
        """
        terms: list[Term] = getattr(self, group)
        if any(term.label == label for term in terms):
            return label
        wanted = label.casefold()
        for term in terms:
            if any(wanted == alias.casefold() for alias in (term.label, *term.aliases)):
                return term.label
        return None


_E = TypeVar("_E")


def _merged(base: list[_E], own: list[_E], key: str) -> list[_E]:
    entries = {getattr(entry, key): entry for entry in base}
    entries.update({getattr(entry, key): entry for entry in own})
    return list(entries.values())


def _extended(own: Taxonomy, base: Taxonomy) -> Taxonomy:
    groups: dict[str, Any] = {
        group: _merged(getattr(base, group), getattr(own, group), key) for group, key in _NAMED
    }
    groups["attributes"] = {
        name: _merged(base.attributes.get(name, []), own.attributes.get(name, []), "name")
        for name in {**base.attributes, **own.attributes}
    }
    return own.edit(**groups)


def _read(source: str | Path, folder: Path | None) -> tuple[str, str, Path | None]:
    """Text, identity and folder of a packaged taxonomy (a bare name) or a file."""
    if isinstance(source, str) and not source.endswith((".yaml", ".yml")):
        packaged = files("mmdata_schema").joinpath("taxonomies", f"{source}.yaml")
        if "/" in source or "\\" in source or not packaged.is_file():
            raise SchemaError(
                f"no packaged taxonomy {source!r}; there are {', '.join(packaged_taxonomies())}; "
                "a file's name ends in .yaml"
            )
        return packaged.read_text("utf-8"), source, None
    path = (folder / source if folder else Path(source)).resolve()
    return path.read_text("utf-8"), str(path), path.parent


def _load(source: str | Path, folder: Path | None, opened: tuple[str, ...]) -> Taxonomy:
    text, identity, folder = _read(source, folder)
    if identity in opened:
        raise SchemaError(f"taxonomy {identity} extends itself")
    try:
        taxonomy = Taxonomy.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise SchemaError(f"taxonomy {source} is not valid YAML: {error}") from error
    except ValidationError as error:
        raise SchemaError(f"taxonomy {source} is not valid: {describe(error)}") from error
    # Later ones win over earlier ones, so the nearest is applied last.
    for base in reversed(taxonomy.extends):
        taxonomy = _extended(taxonomy, _load(base, folder, (*opened, identity)))
    return taxonomy


def packaged_taxonomies() -> list[str]:
    """Names of the taxonomies in the package."""
    entries = files("mmdata_schema").joinpath("taxonomies").iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries)


def load_taxonomy(source: str | Path) -> Taxonomy:
    """A packaged taxonomy by name (``"phases"``) or a YAML file by path, with what it extends.

    Raises :class:`SchemaError` when it is not valid, ``OSError`` when a file cannot be read.
    """
    return _load(source, None, ())
