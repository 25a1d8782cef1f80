"""Which logs are meant by what a user names, and what their episodes are called."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmdata import registry
from mmdata.errors import ConversionError

#: Path, format, part and URI of a recording.
_Found = tuple[Path, str, str, str]
#: Files that claim to be a log; when nothing recognises one, that is worth a line.
LOG_SUFFIXES = (".bag", ".mcap", ".db3", ".active", ".zstd")


@dataclass(frozen=True, slots=True)
class Source:
    """One recording to convert: where it is, its format, which part of it, and its episode id.

    uri: where it is in an object store; path then is its path in there, and format "" where it
    shows only once the recording was downloaded.
    """

    path: Path
    format: str
    episode_id: str
    part: str = ""
    uri: str = ""

    @property
    def label(self) -> str:
        """How it is shown to people and in the ledger."""
        where = self.uri or str(self.path)
        return f"{where}::{self.part}" if self.part else where


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something named that cannot be converted, and why."""

    path: Path | str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """Outcome of `find_sources`. ignored: files in folders that are no logs."""

    sources: list[Source]
    unreadable: list[Unreadable]
    ignored: list[Path | str]


def is_uri(text: object) -> bool:
    """Whether something names an object in a store rather than a local file."""
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def find_sources(inputs: Iterable[str | Path], format_name: str | None = None) -> Found:
    """Expand files, folders, globs and URIs (see `mmdata.conversion.remote`) into recordings.

    A folder that is a log itself (a rosbag2, a dataset) is one; any other folder is searched. Ids
    are unique and depend only on the set of paths: the file's name, with its folder's name before
    it where two would be the same.
    """
    found: list[_Found] = []
    unreadable: list[Unreadable] = []
    ignored: list[Path | str] = []
    seen: set[Path] = set()
    for given in inputs:
        if isinstance(given, str) and is_uri(given):
            from mmdata.conversion.remote import find_remote

            logs, missing, others = find_remote(given)
            found += [(Path("/" + u.split("://", 1)[1]), format_name or "", "", u) for u in logs]
            unreadable += missing
            ignored += others
            continue
        matches = _expand(given)
        if not matches:
            unreadable.append(Unreadable(Path(given), "does not exist"))
        for path in matches:
            _visit(path, format_name, True, found, unreadable, ignored, seen)
    ids = _episode_ids([(path, part) for path, _, part, _ in found])
    sources = [
        Source(path, name, episode_id, part, uri)
        for (path, name, part, uri), episode_id in zip(found, ids, strict=True)
    ]
    return Found(sources, unreadable, ignored)


def _expand(given: str | Path) -> list[Path]:
    path = Path(given)
    if path.exists():
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]  # noqa: PTH207 (absolute patterns)


def _visit(
    path: Path,
    format_name: str | None,
    named: bool,
    found: list[_Found],
    unreadable: list[Unreadable],
    ignored: list[Path | str],
    seen: set[Path],
) -> None:
    resolved = path.resolve()
    if resolved in seen:
        return
    seen.add(resolved)
    if format_name is not None and (named or path.is_file()):
        converter = registry.converter(format_name)
        if not named and not converter.sniff(path):
            ignored.append(path)
            return
    else:
        sniffed = registry.sniff(path)
        if sniffed is None:
            _unrecognised(path, format_name, named, found, unreadable, ignored, seen)
            return
        converter = sniffed
    try:
        parts = converter.sources(path)
    except (ConversionError, OSError) as error:
        unreadable.append(Unreadable(path, str(error)))
        return
    found += [(path, converter.name, part, "") for part in parts]


def _unrecognised(
    path: Path,
    format_name: str | None,
    named: bool,
    found: list[_Found],
    unreadable: list[Unreadable],
    ignored: list[Path | str],
    seen: set[Path],
) -> None:
    if path.is_dir():
        before = len(found) + len(unreadable)
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                _visit(child, format_name, False, found, unreadable, ignored, seen)
        if named and len(found) + len(unreadable) == before:
            unreadable.append(Unreadable(path, "no log of a known format in this folder"))
    elif named or path.suffix in LOG_SUFFIXES:
        unreadable.append(Unreadable(path, _why_unknown(path)))
    else:
        ignored.append(path)


def _why_unknown(path: Path) -> str:
    try:
        size = path.stat().st_size
    except OSError as error:
        return str(error)
    if size == 0:
        return "the file is empty"
    return (
        f"not a log of a known format ({size:,} bytes; `mmdata formats` lists them, "
        "--format NAME forces one)"
    )


def _episode_ids(entries: list[tuple[Path, str]]) -> list[str]:
    def stem(path: Path) -> str:
        name = (
            path.name
            if path.is_dir()
            else re.sub(r"(\.(bag|mcap|db3|zstd|active|hdf5|h5|zarr|zip))+$", "", path.name)
        )
        return _safe(name) or "episode"

    def with_part(base: str, part: str) -> str:
        return f"{base}_{_safe(part)}" if part else base

    ids = [with_part(stem(p), part) for p, part in entries]
    for depth in (1, 2, 3):
        clashes = {i for i, n in Counter(ids).items() if n > 1}
        ids = [
            with_part("_".join([*map(_safe, p.resolve().parts[-1 - depth : -1]), stem(p)]), part)
            if i in clashes
            else i
            for i, (p, part) in zip(ids, entries, strict=True)
        ]
    counts: Counter[str] = Counter()
    unique = []
    for i in ids:
        counts[i] += 1
        unique.append(i if counts[i] == 1 else f"{i}_{counts[i]}")
    return unique


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.")
