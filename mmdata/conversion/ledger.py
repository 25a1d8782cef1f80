"""The job ledger: one line per source in `<out>/ledger.jsonl`, appended, the last line counting."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

from mmdata.conversion.sources import Source, is_uri
from mmdata.errors import ConversionError

LEDGER = "ledger.jsonl"
Status = Literal["done", "quarantined"]
#: How long a new batch waits for what is left of a killed one.
_CLAIM_WAIT_S = 5.0
#: For how long the state of a dataset's files is not looked at again for another of its episodes.
_LATELY_S = 2.0


@dataclass(frozen=True)
class Entry:
    """What became of one source.

    fingerprint: sizes and modification times of its files; blake3: hash of its content, as in the
    provenance. config: hash of the configuration it was converted with. episodes: size per file.
    """

    source: str
    status: Status
    fingerprint: str
    config: str
    episodes: Mapping[str, int] = field(default_factory=dict)
    blake3: str | None = None
    reason: str | None = None
    started_unix_s: float = 0.0
    seconds: float = 0.0


class OutFolder(Protocol):
    """What a batch needs of the folder it writes to."""

    def sizes(self) -> dict[str, int]: ...
    def read_text(self, name: str) -> str: ...
    def append_line(self, name: str, line: str) -> None: ...
    def sync(self, name: str) -> None: ...
    def remove(self, names: Collection[str]) -> None: ...
    def claimed(self) -> Any: ...


class LocalFolder:
    """An output folder on a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        """Size per file name."""
        if not self.path.is_dir():
            return {}
        with os.scandir(self.path) as entries:
            return {e.name: e.stat().st_size for e in entries if e.is_file()}

    def read_text(self, name: str) -> str:
        """Content of a text file; "" when it is not there."""
        file = self.path / name
        return file.read_text(errors="replace") if file.exists() else ""

    def append_line(self, name: str, line: str) -> None:
        """Add a line, on the disk when this returns. A torn line before it stays a line."""
        data = line + "\n"
        with (self.path / name).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    data = "\n" + data
            file.write(data.encode())
            file.flush()
            os.fsync(file.fileno())

    def sync(self, name: str) -> None:
        """Every line is on the disk already."""

    def remove(self, names: Collection[str]) -> None:
        """Delete files; those that are gone already are fine."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other batches out of this folder, and wait for the workers of a killed one.

        Raises ConversionError when another batch is at work here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LEDGER).open("ab") as file:
            deadline = time.monotonic() + _CLAIM_WAIT_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ConversionError(
                            f"another batch is writing to {self.path}; wait for it to end"
                        ) from None
                    time.sleep(0.05)
            fcntl.flock(file, fcntl.LOCK_SH)  # workers hold it as well, see `join_claim`
            yield


def join_claim(out: Path) -> Any:
    """Hold a batch's claim from a worker process, for as long as the returned file is open."""
    file = (out / LEDGER).open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def out_folder(out: str | Path) -> OutFolder:
    """The folder at a path or URI."""
    if isinstance(out, str) and is_uri(out):
        from mmdata.conversion.remote import RemoteFolder

        return RemoteFolder(out)
    return LocalFolder(Path(out))


class Ledger:
    """Reads and appends the ledger of one output folder."""

    def __init__(self, folder: OutFolder) -> None:
        self._folder = folder
        self._sizes: dict[str, int] | None = None
        _fingerprint_lately.cache_clear()  # what an earlier batch saw
        self.entries: dict[str, Entry] = {}
        for line in folder.read_text(LEDGER).splitlines():
            entry = _parse(line)
            if entry is not None:
                self.entries[entry.source] = entry

    def append(self, entry: Entry) -> None:
        """Add an entry."""
        self.entries[entry.source] = entry
        self._folder.append_line(LEDGER, json.dumps(asdict(entry), sort_keys=True))

    def made_of(self, source: Source) -> frozenset[str]:
        """Names of the episodes that are there and were last made of a source."""
        entry = self.entries.get(source.label)
        return frozenset(entry.episodes if entry else ())

    def settled(self, source: Source, config: str, retry: bool) -> Entry | None:
        """The entry that makes converting a source unnecessary, or None.

        Done, unchanged, same configuration, its episodes all there; or quarantined, unchanged, and
        no retry asked for.
        """
        entry = self.entries.get(source.label)
        if entry is None or entry.config != config or entry.fingerprint != fingerprint(source):
            return None
        if entry.status == "quarantined":
            return None if retry else entry
        if self._sizes is None:
            self._sizes = self._folder.sizes()
        if any(self._sizes.get(name) != size for name, size in entry.episodes.items()):
            return None
        return entry


def fingerprint(source: Source) -> str:
    """Hash over names, sizes and modification times of a source's files; reads no content."""
    if source.uri:
        from mmdata.conversion.remote import remote_fingerprint

        return remote_fingerprint(source.uri)
    if source.part:  # one of many episodes in the same files, asked for one after the other
        return _fingerprint_lately(source.path, int(time.monotonic() / _LATELY_S))
    return _fingerprint_of(source.path)


@lru_cache(maxsize=16)
def _fingerprint_lately(path: Path, moment: int) -> str:
    return _fingerprint_of(path)


def _fingerprint_of(path: Path) -> str:
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
    except (ValueError, TypeError, AttributeError):
        return None  # a line that a killed run left torn
