"""The index of a dataset: what must be known of every episode before any of them is opened.

`mmdata-index.json` lies in the dataset's folder. An episode whose size or modification time
changed is read anew; everything else is taken from the index.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mmdata.errors import ConfigError, FormatError
from mmdata.loaders.remote import is_remote, open_any
from mmdata.store.layout import info_from_json, info_to_json
from mmdata.streams import StreamInfo

INDEX_NAME = "mmdata-index.json"
_VERSION = 1
_PARALLEL_FROM = 64


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
    with open_any(path) as episode:
        streams: dict[str, list[int | None]] = {}
        for name, stream in episode.streams.items():
            stamps = stream.stamp_ns
            distinct = int((stamps[1:] != stamps[:-1]).sum()) + bool(len(stamps))
            streams[name] = [len(stream), distinct, stream.start_ns, stream.end_ns]
        hashes = episode.provenance.get("streams", {})
        known = {n: h.get("sha256") for n, h in hashes.items() if isinstance(h, dict)}
        content = known if set(known) >= set(streams) else streams
        return EpisodeFacts(
            path=path,
            nbytes=nbytes,
            mtime_ns=mtime_ns,
            episode_id=episode.episode_id,
            streams=streams,
            timelines={name: len(episode.aligned(name)) for name in episode.timelines},
            metadata=dict(episode.metadata),
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
        from mmdata.loaders.remote import list_episodes

        paths, folder = list_episodes(os.fspath(source)), None
    elif Path(source).is_dir():
        folder = Path(source)
        names = [e.name for e in os.scandir(folder) if e.name.endswith(".h5")]
        paths = [str(folder / name) for name in sorted(names, key=_natural)]
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

    workers: processes that read episodes the index does not know. save: write the index back, when
    the source is a folder that can be written. Raises ConfigError and what `open_episode` raises.
    """
    paths, folder = find_episodes(source)
    known: dict[str, EpisodeFacts] = {}
    if folder is not None:
        known = _read(folder / INDEX_NAME, folder)
    facts: list[EpisodeFacts | None] = []
    for path in paths:
        fact = known.get(path)
        if fact is not None:
            status = Path(path).stat()
            if (status.st_size, status.st_mtime_ns) != (fact.nbytes, fact.mtime_ns):
                fact = None
        facts.append(fact)
    missing = [path for path, fact in zip(paths, facts, strict=True) if fact is None]
    if not missing:
        return [fact for fact in facts if fact is not None]
    read = iter(_read_all(missing, workers))
    complete = [fact if fact is not None else next(read) for fact in facts]
    if folder is not None and save and os.access(folder, os.W_OK):
        _write(folder / INDEX_NAME, complete)
    return complete


def fingerprint(facts: Iterable[EpisodeFacts]) -> str:
    """sha256 of a set of episodes: their ids and contents, in order of id."""
    return _sha256("".join(sorted(f"{f.episode_id}:{f.content}\n" for f in facts)))


def _read_all(paths: list[str], workers: int) -> Iterable[EpisodeFacts]:
    if workers < 2 or len(paths) < _PARALLEL_FROM:
        return map(read_facts, paths)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(read_facts, paths, chunksize=32))


def _read(path: Path, folder: Path) -> dict[str, EpisodeFacts]:
    """What an index file says, by path; nothing where there is none or it is of another version."""
    try:
        document = json.loads(path.read_bytes())
        if document.get("version") != _VERSION:
            return {}
        base = f"{folder}/"
        return {
            base + entry["path"]: EpisodeFacts(**{**entry, "path": base + entry["path"]})
            for entry in document["episodes"]
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path} is no index this version wrote ({error}); delete it to have it made anew"
        ) from error


def _write(path: Path, facts: Sequence[EpisodeFacts]) -> None:
    episodes = [{**asdict(f), "path": Path(f.path).name} for f in facts]
    text = json.dumps({"version": _VERSION, "episodes": episodes}, separators=(",", ":"))
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def _natural(name: str) -> list[tuple[int, str | int]]:
    parts: list[tuple[int, str | int]] = []
    for digits in _runs(name):
        parts.append((0, int(digits)) if digits.isdigit() else (1, digits))
    return parts


def _runs(name: str) -> list[str]:
    edges = [i for i in range(1, len(name)) if name[i].isdigit() != name[i - 1].isdigit()]
    return [name[a:b] for a, b in zip([0, *edges], [*edges, len(name)], strict=True)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def infos_to_json(infos: Mapping[str, StreamInfo]) -> dict[str, Any]:
    """Stream descriptions as JSON-compatible data."""
    return {name: info_to_json(info) for name, info in infos.items()}


def infos_from_json(data: Mapping[str, Any]) -> dict[str, StreamInfo]:
    """The inverse of `infos_to_json`."""
    return {name: info_from_json(info) for name, info in data.items()}
