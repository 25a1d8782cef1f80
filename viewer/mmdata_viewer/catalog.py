"""Which episodes may be opened: the files under one root, named by keys instead of paths."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".h5"
_MAX_DEPTH = 6


@dataclass(frozen=True)
class Entry:
    """One episode file. key: stable for the file's place under the root; name: that place."""

    key: str
    name: str
    path: Path


class Catalog:
    """Episode files of a folder, or a single one.

    A client only ever sends a key, so no path of its own making reaches the file system. Links
    that lead out of the root are left out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(path)
        if not given.exists():
            raise FileNotFoundError(f"{given} does not exist")
        self.root = (given if given.is_dir() else given.parent).resolve()
        self._only = None if given.is_dir() else given.resolve()
        self._known: dict[str, Entry] = {}

    def entries(self) -> list[Entry]:
        """All episodes there are now, by name."""
        found = sorted(self._scan(), key=lambda entry: entry.name)
        self._known = {entry.key: entry for entry in found}
        return found

    def entry(self, key: str) -> Entry:
        """The episode of a key; KeyError when there is none."""
        if key not in self._known:
            self.entries()
        return self._known[key]

    def _scan(self) -> Iterator[Entry]:
        if self._only is not None:
            yield self._entry(self._only)
            return
        for folder, folders, files in os.walk(self.root):
            here = Path(folder)
            depth = len(here.relative_to(self.root).parts)
            folders[:] = [f for f in folders if not f.startswith(".")] if depth < _MAX_DEPTH else []
            for file in files:
                path = here / file
                inside = path.resolve().is_relative_to(self.root)
                if file.endswith(SUFFIX) and not file.startswith(".") and inside:
                    yield self._entry(path)

    def _entry(self, path: Path) -> Entry:
        name = path.relative_to(self.root).as_posix()
        return Entry(hashlib.sha256(name.encode()).hexdigest()[:16], name, path)
