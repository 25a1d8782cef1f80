"""Logs and episodes in object stores, by URI (`s3://bucket/logs/x.mcap`) through fsspec.

A log is downloaded to a temporary folder for as long as it is converted, and its episodes are
written there and uploaded whole; so a batch needs local space for as many logs (and their episodes)
as are converted at a time. The folder is made under $TMPDIR.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from mmdata import registry
from mmdata.config import ConvertConfig
from mmdata.conversion.job import JobResult, Progress, try_convert
from mmdata.conversion.sources import LOG_SUFFIXES, Source, Unreadable, is_uri
from mmdata.errors import ConversionError, MissingDependencyError, MmdataError

#: Stores in which an object appears whole or not at all. Elsewhere a file is renamed when complete.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci"}
_SYNC_INTERVAL_S = 2.0
#: What has to stay free on the local disk.
_SPARE_BYTES = 64 << 20


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI, and the path in it.

    Raises MissingDependencyError when fsspec or what it needs for this store is not installed.
    """
    try:
        import fsspec
    except ImportError:
        raise MissingDependencyError("fsspec", "s3", uri) from None
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise MissingDependencyError(f"fsspec ({error})", "s3", uri) from None
    except ValueError as error:
        raise ConversionError(f"{uri}: {error}") from error
    return fs, str(path).rstrip("/")


@contextmanager
def _telling(uri: str) -> Iterator[None]:
    """What goes wrong with a store, as one of our errors or an OSError."""
    try:
        yield
    except (MmdataError, OSError):
        raise
    except Exception as error:  # each store's client has kinds of its own: credentials, network ...
        raise ConversionError(f"{uri}: {error or type(error).__name__}") from error


def find_remote(uri: str) -> tuple[list[str], list[Unreadable], list[str]]:
    """URIs of the logs under a URI (object, folder or glob), what cannot be had, what is no log.

    Content is not looked at: a folder with a metadata.yaml is a rosbag2, other logs go by suffix.
    """
    fs, path = filesystem(uri)
    prefix = f"{uri.split('://', 1)[0]}://"
    logs: list[str] = []
    others: list[str] = []
    with _telling(uri):
        if any(c in path for c in "*?["):
            named = [str(p) for p in sorted(fs.glob(path))]
        else:
            named = [path] if fs.exists(path) else []
        for one in named:
            _visit(fs, one, logs, others)
    if not named:
        return [], [Unreadable(uri, "does not exist")], []
    unreadable = [] if logs else [Unreadable(uri, "no log in this folder (looked at file names)")]
    return [prefix + p for p in logs], unreadable, [prefix + p for p in others]


def _visit(fs: Any, path: str, logs: list[str], others: list[str]) -> None:
    if fs.isfile(path):
        logs.append(path)
        return
    files = sorted(str(p) for p in fs.find(path))
    bags = {str(PurePosixPath(p).parent) for p in files if p.endswith("/metadata.yaml")}
    logs += sorted(bags)
    for file in files:
        if bags.isdisjoint(map(str, PurePosixPath(file).parents)):
            (logs if file.endswith(LOG_SUFFIXES) else others).append(file)


def remote_fingerprint(uri: str) -> str:
    """Hash over names, sizes and versions (ETag or modification time) of a log's objects."""
    fs, path = filesystem(uri)
    digest = hashlib.sha256()
    with _telling(uri):
        objects = _objects(fs, path)
    for name, facts in objects.items():
        version = next(
            (str(facts[k]) for k in ("ETag", "etag", "LastModified", "mtime", "created")
             if facts.get(k) is not None),
            "",
        )  # fmt: skip
        digest.update(f"{name}\0{facts['size']}\0{version}\n".encode())
    return digest.hexdigest()


def _objects(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Facts by path relative to the log's folder; a log of one file has that file's name."""
    fs.invalidate_cache()
    if fs.isfile(path):
        return {PurePosixPath(path).name: fs.info(path)}
    found = fs.find(path, detail=True)
    return {str(PurePosixPath(p).relative_to(path)): found[p] for p in sorted(found)}


def convert_anywhere(
    source: Source,
    out: str | Path,
    config: ConvertConfig,
    *,
    overwrite: bool = False,
    replaces: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> JobResult:
    """`try_convert` for sources and output folders that may be URIs."""
    if not source.uri and not is_uri(out):
        return try_convert(
            source, Path(out), config,
            overwrite=overwrite, resuming=True, replaces=replaces, progress=progress,
        )  # fmt: skip
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="mmdata-") as scratch:
            local = source
            if source.uri:
                with _telling(source.uri):
                    local = _fetch(source, Path(scratch) / "log")
            target = RemoteFolder(out) if isinstance(out, str) and is_uri(out) else None
            folder = Path(scratch) / "episodes" if target else Path(out)
            if target is not None:
                folder.mkdir()
                target.fetch_previous(source.episode_id, folder, replaces)
            result = try_convert(
                local, folder, config,
                overwrite=overwrite, resuming=True, replaces=replaces, progress=progress,
            )  # fmt: skip
            result.source = source
            if target is not None and result.reason is None:
                result.episodes = [
                    replace(e, uri=target.put(e.path), source=source.label) for e in result.episodes
                ]
            result.seconds = time.perf_counter() - began
            return result
    except (MmdataError, OSError) as error:
        reason = str(error) or type(error).__name__
    return JobResult(source, reason=reason, seconds=time.perf_counter() - began)


def _fetch(source: Source, folder: Path) -> Source:
    """Download a log; refuses one that does not fit."""
    fs, path = filesystem(source.uri)
    objects = _objects(fs, path)
    size = sum(int(facts["size"]) for facts in objects.values())
    folder.mkdir()
    free = shutil.disk_usage(folder).free
    if size + _SPARE_BYTES > free:
        raise ConversionError(
            f"{source.uri} has {size:,} bytes, {folder.parent.parent} has room for {free:,}; "
            "set TMPDIR to a larger disk"
        )
    local = folder / PurePosixPath(path).name
    if fs.isfile(path):
        fs.get_file(path, str(local))
    else:
        for name in objects:
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(f"{path}/{name}", str(local / name))
    if source.format:
        return replace(source, path=local, uri="")
    converter = registry.sniff(local)
    if converter is None:
        raise ConversionError("not a log of a known format (`mmdata formats` lists them)")
    parts = converter.sources(local)
    if len(parts) > 1:
        raise ConversionError(
            f"{len(parts)} recordings in one: download it and convert the local copy"
        )
    return replace(source, path=local, uri="", format=converter.name, part=parts[0])


class RemoteFolder:
    """An output folder in a store. Objects appear in it whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs, self._path = filesystem(self.uri)
        self._lines: str | None = None
        self._unsaved = False
        self._saved_at = 0.0

    def put(self, file: Path) -> str:
        """Upload a file under its name; returns its URI."""
        target = f"{self._path}/{file.name}"
        with _telling(self.uri):
            if self.uri.split("://", 1)[0] in _OBJECT_STORES:
                self._fs.put_file(str(file), target)
            else:
                self._fs.makedirs(self._path, exist_ok=True)
                self._fs.put_file(str(file), f"{target}.partial")
                self._fs.mv(f"{target}.partial", target)
        return f"{self.uri}/{file.name}"

    def fetch_previous(self, episode_id: str, folder: Path, known: frozenset[str]) -> None:
        """Bring episodes of this id that are there already, so that the job can judge them.

        known: those that need no judging.
        """
        for name in self.sizes().keys() - known:
            if name == f"{episode_id}.h5" or (
                name.startswith(f"{episode_id}_") and name[len(episode_id) + 1 : -3].isdigit()
            ):
                with _telling(self.uri):
                    self._fs.get_file(f"{self._path}/{name}", str(folder / name))

    def sizes(self) -> dict[str, int]:
        """Size per file name."""
        self._fs.invalidate_cache()
        try:
            with _telling(self.uri):
                entries = self._fs.ls(self._path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            PurePosixPath(e["name"]).name: int(e["size"]) for e in entries if e["type"] == "file"
        }

    def read_text(self, name: str) -> str:
        """Content of a text object; "" when it is not there."""
        try:
            with _telling(self.uri):
                data: bytes = self._fs.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return ""
        return data.decode()

    def append_line(self, name: str, line: str) -> None:
        """Add a line to a text object. Objects cannot grow, so it is rewritten, now and then.

        What a killed batch did in the seconds before is done again by the next.
        """
        if self._lines is None:
            self._lines = self.read_text(name)
            if self._lines and not self._lines.endswith("\n"):
                self._lines += "\n"
        self._lines += line + "\n"
        self._unsaved = True
        if time.monotonic() - self._saved_at > _SYNC_INTERVAL_S:
            self.sync(name)

    def sync(self, name: str) -> None:
        """Write what `append_line` has kept back."""
        if self._unsaved and self._lines is not None:
            with _telling(self.uri):
                self._fs.pipe_file(f"{self._path}/{name}", self._lines.encode())
            self._unsaved, self._saved_at = False, time.monotonic()

    def remove(self, names: Collection[str]) -> None:
        """Delete objects; those that are gone already are fine."""
        for name in names:
            with contextlib.suppress(FileNotFoundError), _telling(self.uri):
                self._fs.rm_file(f"{self._path}/{name}")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Stores have no locks; that two batches do not write one folder is up to their users."""
        yield
