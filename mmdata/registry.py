"""Finding converters (and other plug-ins) by entry point, loading them when they are needed.

A built-in table and a third party's entry point look the same: group `mmdata.converters`, value a
sequence of `Entry`. A plug-in that fails to load is warned about and skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.errors import ConversionError, MissingDependencyError

if TYPE_CHECKING:
    from mmdata.recording import Converter

CONVERTER_GROUP = "mmdata.converters"


@dataclass(frozen=True, slots=True)
class Entry:
    """One plug-in: its name, where it lives ("module:attribute"), and what it needs installed."""

    name: str
    target: str
    requires: tuple[str, ...] = ()
    extra: str | None = None

    def missing(self) -> list[str]:
        """Required modules that are not installed."""
        return [module for module in self.requires if find_spec(module) is None]

    def load(self) -> Any:
        """Import the plug-in. Raises MissingDependencyError with the command that helps."""
        missing = self.missing()
        if missing:
            raise MissingDependencyError(missing[0], self.extra, f"the format {self.name!r}")
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


def entries(group: str) -> list[Entry]:
    """All entries of a group, built-ins first; of two with one name the first counts."""
    found: dict[str, Entry] = {}
    points = sorted(entry_points(group=group), key=lambda p: (p.name != "builtin", p.name))
    for point in points:
        try:
            table: Sequence[Entry] = point.load()
            for entry in table:
                found.setdefault(entry.name, entry)
        except Exception as error:  # a broken plug-in of somebody else must not stop the rest
            warnings.warn(
                f"plug-in {point.name!r} ({point.value}) is skipped: {error}", stacklevel=2
            )
    return list(found.values())


def converter(name: str) -> type[Converter]:
    """The converter of a format name. Raises ConversionError naming the known ones."""
    known = {entry.name: entry for entry in entries(CONVERTER_GROUP)}
    if name not in known:
        raise ConversionError(f"unknown format {name!r}; known: {', '.join(sorted(known))}")
    loaded: type[Converter] = known[name].load()
    return loaded


def sniff(path: Path) -> type[Converter] | None:
    """The first installed converter that recognises path, or None."""
    for entry in entries(CONVERTER_GROUP):
        if entry.missing():
            continue
        candidate: type[Converter] = entry.load()
        if candidate.sniff(path):
            return candidate
    return None
