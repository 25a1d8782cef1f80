"""The index of a dataset: what must be known of every episode before any of them is opened.

`mmdata-index.json` lies in the dataset's folder. An episode whose size or modification time
changed is read anew; everything else is taken from the index.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.digest import find_hash
from mmdata.errors import ConfigError, FormatError
from mmdata.loaders.apart import shared_out
from mmdata.loaders.remote import RemoteFile, is_remote, list_episodes
from mmdata.store import read_summary
from mmdata.store.layout import info_from_json, info_to_json
from mmdata.streams import StreamInfo

INDEX_NAME = "mmdata-index.json"
_VERSION = 2
_COLUMNS = ("path", "nbytes", "mtime_ns", "episode_id", "content", "metadata")
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True)
class EpisodeFacts:
    """One episode.

    streams: name -> [samples, distinct stamps, first stamp, last stamp] (stamps None when empty).
    timelines: name -> ticks. content: sha256 over the stored content hashes of all streams, or
    over counts and stamps where there are none.
    """

    path: str
    nbytes: int
    mtime_ns: int
    episode_id: str
    streams: Mapping[str, Sequence[int | None]]
    timelines: Mapping[str, int]
    metadata: Mapping[str, Any]
    content: str


def read_facts(path: str) -> EpisodeFacts:
    """Facts of one episode file or URL. Raises what `open_episode` raises."""
    nbytes, mtime_ns = 0, 0
    if not is_remote(path):
        status = Path(path).stat()
        nbytes, mtime_ns = status.st_size, status.st_mtime_ns
    summary = read_summary(RemoteFile(path) if is_remote(path) else path)
    streams: dict[str, list[int | None]] = {}
    for name, stamps in summary.stamp_ns.items():
        distinct = int((stamps[1:] != stamps[:-1]).sum()) + bool(len(stamps))
        ends = [int(stamps[0]), int(stamps[-1])] if len(stamps) else [None, None]
        streams[name] = [len(stamps), distinct, *ends]
    hashes = summary.provenance.get("streams", {})
    found = {n: find_hash(h) for n, h in hashes.items() if isinstance(h, dict)}
    known = {n: h[1] if h is not None else None for n, h in found.items()}
    content = known if set(known) >= set(streams) else streams
    return EpisodeFacts(
        path=path,
        nbytes=nbytes,
        mtime_ns=mtime_ns,
        episode_id=summary.episode_id,
        streams=streams,
        timelines=dict(summary.ticks),
        metadata=dict(summary.metadata),
        content=_sha256(json.dumps(content, sort_keys=True)),
    )


def find_episodes(source: str | os.PathLike[str] | Iterable[Any]) -> tuple[list[str], Path | None]:
    """Paths of a folder, a list, or a manifest, and the folder an index can lie in.

    A manifest is a text file with one path (or URL) per line, relative to itself; `#` comments. A
    folder's episodes come in order of name, with numbers in names in numeric order.
    Raises ConfigError when there is no episode.
    """
    if not isinstance(source, str | os.PathLike):
        paths, folder = [os.fspath(p) for p in source], None
    elif is_remote(os.fspath(source)):
        paths, folder = list_episodes(os.fspath(source)), None
    elif Path(source).is_dir():
        folder = Path(source)
        names = [e.name for e in os.scandir(folder) if e.name.endswith(".h5")]
        paths = [f"{folder}/{name}" for name in sorted(names, key=_natural)]
    elif Path(source).suffix == ".h5":
        paths, folder = [os.fspath(source)], None
    else:
        base = Path(source).parent
        lines = (line.split("#")[0].strip() for line in Path(source).read_text().splitlines())
        paths = [p if is_remote(p) else str(base / p) for p in lines if p]
        folder = None
    if not paths:
        raise ConfigError(f"no episodes (*.h5) in {source}")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{source} names an episode twice")
    return paths, folder


def load_index(
    source: str | os.PathLike[str] | Iterable[Any], *, workers: int = 0, save: bool = True
) -> list[EpisodeFacts]:
    """Facts of all episodes of a folder, list or manifest.

    workers: processes that read episodes the index does not know (see `shared_out`). save: write
    the index back, when the source is a folder that can be written. Raises ConfigError and what
    `open_episode` raises.
    """
    paths, folder = find_episodes(source)
    facts: list[EpisodeFacts | None] = [None] * len(paths)
    if folder is not None:
        known = _read(folder / INDEX_NAME, folder)
        now = _states(folder)
        facts = [f if f is not None and now.get(f.path) == (f.nbytes, f.mtime_ns) else None
                 for f in map(known.get, paths)]  # fmt: skip
    missing = [path for path, fact in zip(paths, facts, strict=True) if fact is None]
    if not missing:
        return [fact for fact in facts if fact is not None]
    read = iter(shared_out(read_facts, missing, workers))
    complete = [fact if fact is not None else next(read) for fact in facts]
    if folder is not None and save and os.access(folder, os.W_OK):
        _write(folder / INDEX_NAME, complete)
    return complete


def fingerprint(facts: Iterable[EpisodeFacts]) -> str:
    """sha256 of a set of episodes: their ids and contents, in order of id."""
    return _sha256("".join(sorted(f"{f.episode_id}:{f.content}\n" for f in facts)))


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of each file of a folder."""
    states = {}
    for entry in os.scandir(folder):
        status = entry.stat()
        states[f"{folder}/{entry.name}"] = (status.st_size, status.st_mtime_ns)
    return states


def _read(path: Path, folder: Path) -> dict[str, EpisodeFacts]:
    """What an index file says, by path; nothing where there is none or it is of another version."""
    try:
        document = json.loads(path.read_bytes())
        if document.get("version") != _VERSION:
            return {}
        metadata = document["metadata"]
        rows = zip(*(document["episodes"][name] for name in _COLUMNS), strict=True)
        known = {}
        for name, nbytes, mtime_ns, episode_id, content, about in rows:
            here = f"{folder}/{name}"
            known[here] = EpisodeFacts(
                here, nbytes, mtime_ns, episode_id, {}, {}, metadata[about], content
            )
        facts = list(known.values())
        for part, columns in (("streams", document["streams"]), ("timelines", document["ticks"])):
            for name, (numbers, values) in columns.items():
                for number, value in zip(numbers, values, strict=True):
                    getattr(facts[number], part)[name] = value
        return known
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FormatError(
            f"{path} is no index this version wrote ({error}); delete it to have it made anew"
        ) from error


def _write(path: Path, facts: Sequence[EpisodeFacts]) -> None:
    """By columns, because ten thousand small objects take seconds to parse."""
    metadata: dict[str, int] = {}
    about = [metadata.setdefault(json.dumps(f.metadata), len(metadata)) for f in facts]
    streams: dict[str, tuple[list[int], list[Any]]] = {}
    ticks: dict[str, tuple[list[int], list[Any]]] = {}
    for number, fact in enumerate(facts):
        for columns, values in ((streams, fact.streams), (ticks, fact.timelines)):
            for name, value in values.items():
                numbers, column = columns.setdefault(name, ([], []))
                numbers.append(number)
                column.append(value)
    rows = [
        (Path(f.path).name, f.nbytes, f.mtime_ns, f.episode_id, f.content, a)
        for f, a in zip(facts, about, strict=True)
    ]
    document = {
        "version": _VERSION,
        "episodes": dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)),
        "metadata": [json.loads(text) for text in metadata],
        "streams": streams,
        "ticks": ticks,
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(document, separators=(",", ":")))
    partial.replace(path)


def _natural(name: str) -> list[str | int]:
    """Text and numbers in turn."""
    parts: list[str | int] = list(_DIGITS.split(name))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def infos_to_json(infos: Mapping[str, StreamInfo]) -> dict[str, Any]:
    """Stream descriptions as JSON-compatible data."""
    return {name: info_to_json(info) for name, info in infos.items()}


def infos_from_json(data: Mapping[str, Any]) -> dict[str, StreamInfo]:
    """The inverse of `infos_to_json`."""
    return {name: info_from_json(info) for name, info in data.items()}
