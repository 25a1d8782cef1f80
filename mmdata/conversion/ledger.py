"""The job ledger: one line per source in `<out>/ledger.jsonl`, appended, the last line counting."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmdata.conversion.sources import Source

LEDGER = "ledger.jsonl"
Status = Literal["done", "quarantined"]


@dataclass(frozen=True)
class Entry:
    """What became of one source.

    fingerprint: sizes and modification times of its files; sha256: of its content, as in the
    provenance. config: hash of the configuration it was converted with.
    """

    source: str
    status: Status
    fingerprint: str
    config: str
    episodes: Mapping[str, int] = field(default_factory=dict)
    sha256: str | None = None
    reason: str | None = None
    started_unix_s: float = 0.0
    seconds: float = 0.0


class Ledger:
    """Reads and appends the ledger of one output folder."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.path = out / LEDGER
        self.entries: dict[str, Entry] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                entry = _parse(line)
                if entry is not None:
                    self.entries[entry.source] = entry

    def append(self, entry: Entry) -> None:
        """Record an outcome durably; a torn last line of a killed run is ended first."""
        self.entries[entry.source] = entry
        line = json.dumps(asdict(entry), sort_keys=True) + "\n"
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def settled(self, source: Source, config: str, retry: bool) -> Entry | None:
        """The entry that makes converting a source unnecessary, or None.

        Done, unchanged, same configuration, its episodes all there; or quarantined, unchanged, and
        no retry asked for.
        """
        entry = self.entries.get(source.label)
        if entry is None or entry.config != config or entry.fingerprint != fingerprint(source.path):
            return None
        if entry.status == "quarantined":
            return None if retry else entry
        for name, size in entry.episodes.items():
            path = self._out / name
            if not path.exists() or path.stat().st_size != size:
                return None
        return entry


def fingerprint(path: Path) -> str:
    """Hash over names, sizes and modification times of a source's files; reads no content."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        status = file.stat()
        name = file.name if file == path else str(file.relative_to(path))
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _parse(line: str) -> Entry | None:
    try:
        facts: dict[str, Any] = json.loads(line)
        known = {k: v for k, v in facts.items() if k in Entry.__dataclass_fields__}
        return Entry(**known)
    except (ValueError, TypeError):
        return None  # a line that a killed run left torn
