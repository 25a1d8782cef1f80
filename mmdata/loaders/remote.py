"""Episodes on object stores (`s3://`, and whatever else fsspec reaches): ranged reads, block cache.

An episode is read in blocks, each fetched once and kept in a local folder (`MMDATA_CACHE`, by
default `~/.cache/mmdata/blocks`) that is bounded in bytes. Blocks of an object that changed are not
used: its ETag (or size and time) is part of their name.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from mmdata.episode import Episode
from mmdata.errors import FormatError, MissingDependencyError
from mmdata.loaders.chunks import ByteSource, FileBytes
from mmdata.store import layout, open_episode, reader
from mmdata.store.handle import FileHandle, load_filters

BLOCK_BYTES = 1 << 20
CACHE_BYTES = 16 << 30
_SWEEP_EVERY = 256


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def open_any(path: str) -> Episode:
    """Open an episode of a path or URL. Raises what `open_episode` raises."""
    return open_remote(path) if is_remote(path) else open_episode(path)


def byte_source(path: str) -> ByteSource:
    """Positioned reads of a path or URL."""
    return RemoteFile(path) if is_remote(path) else FileBytes(path)


def file_system(url: str) -> tuple[Any, str]:
    """fsspec file system and path of a URL. Raises MissingDependencyError."""
    try:
        import fsspec
    except ImportError:
        raise MissingDependencyError("fsspec", "s3", "reading remote episodes") from None
    try:
        # A client of its own per process: they do not survive a fork.
        system, path = fsspec.core.url_to_fs(url, skip_instance_cache=False)
    except ImportError as error:
        raise MissingDependencyError("s3fs", "s3", f"reading {url}") from error
    return system, path


def list_episodes(url: str) -> list[str]:
    """URLs of the episodes in a remote folder, by name."""
    system, path = file_system(url)
    protocol = url.split("://")[0]
    return sorted(f"{protocol}://{p}" for p in system.ls(path, detail=False) if p.endswith(".h5"))


class RemoteFile:
    """Positioned reads of one remote object through the block cache. Safe to fork and pickle."""

    def __init__(self, url: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.url = url
        self.block_bytes = block_bytes
        self.fetched_bytes = 0
        self._pid = -1
        self._system: Any = None
        self._path = ""
        self._size = -1
        self._folder = Path()
        self._new = 0

    @property
    def size(self) -> int:
        """Bytes of the object."""
        self._connect()
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to length bytes from offset on. Missing neighbouring blocks come in one request."""
        self._connect()
        stop = min(offset + length, self._size)
        if stop <= offset:
            return b""
        first, last = offset // self.block_bytes, (stop - 1) // self.block_bytes
        blocks = self._blocks(first, last + 1)
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        start = offset - first * self.block_bytes
        return data[start : start + stop - offset]

    def __getstate__(self) -> tuple[str, int]:
        return self.url, self.block_bytes

    def __setstate__(self, state: tuple[str, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def _connect(self) -> None:
        if self._pid == os.getpid():
            return
        system, path = file_system(self.url)
        if self._pid != -1:
            system = type(system)(*system.storage_args, skip_instance_cache=True,
                                  **system.storage_options)  # fmt: skip
        self._system, self._path, self._pid = system, path, os.getpid()
        facts = system.info(path)
        self._size = int(facts["size"])
        version = [str(facts.get(k, "")) for k in ("ETag", "LastModified", "mtime")]
        name = json.dumps([self.url, self._size, self.block_bytes, *version])
        digest = hashlib.sha256(name.encode()).hexdigest()
        self._folder = cache_folder() / digest[:2] / digest
        self._folder.mkdir(parents=True, exist_ok=True)

    def _blocks(self, first: int, stop: int) -> list[bytes]:
        blocks: dict[int, bytes] = {}
        for number in range(first, stop):
            kept = self._kept(number)
            if kept is not None:
                blocks[number] = kept
        for start, end in _runs([n for n in range(first, stop) if n not in blocks]):
            begin = start * self.block_bytes
            data: bytes = self._system.cat_file(
                self._path, start=begin, end=min(end * self.block_bytes, self._size)
            )
            self.fetched_bytes += len(data)
            for number in range(start, end):
                at = (number - start) * self.block_bytes
                blocks[number] = data[at : at + self.block_bytes]
                self._keep(number, blocks[number])
        return [blocks[number] for number in range(first, stop)]

    def _length(self, number: int) -> int:
        return min(self.block_bytes, self._size - number * self.block_bytes)

    def _kept(self, number: int) -> bytes | None:
        try:
            data = (self._folder / str(number)).read_bytes()
        except FileNotFoundError:
            return None
        return data if len(data) == self._length(number) else None

    def _keep(self, number: int, data: bytes) -> None:
        target = self._folder / str(number)
        unfinished = target.with_name(f"{number}.{os.getpid()}.partial")
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(target)
        self._new += 1
        if self._new % _SWEEP_EVERY == 0:
            bound_cache()


def cache_folder() -> Path:
    """Where blocks are kept."""
    return Path(os.environ.get("MMDATA_CACHE", Path.home() / ".cache" / "mmdata" / "blocks"))


def bound_cache(limit_bytes: int = CACHE_BYTES) -> None:
    """Remove the blocks read longest ago until the cache is within its limit."""
    files = []
    for path in cache_folder().glob("*/*/*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process removed it
            continue
        files.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files, key=lambda f: f[0]):
        if total <= limit_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for k in range(1, len(numbers) + 1):
        if k == len(numbers) or numbers[k] != numbers[k - 1] + 1:
            yield numbers[start], numbers[k - 1] + 1
            start = k


class _Seekable(io.RawIOBase):
    """A RemoteFile as the file object h5py wants."""

    def __init__(self, remote: RemoteFile) -> None:
        self._remote = remote
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._remote.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        # HDF5 calls this with its lock held, and fsspec fetches in a thread of its own. Were that
        # thread to collect garbage that holds HDF5 objects, it would wait for the lock for ever.
        collects = gc.isenabled()
        gc.disable()
        try:
            data = self._remote.read_at(self._at, len(view))
        finally:
            if collects:
                gc.enable()
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class RemoteHandle(FileHandle):
    """An episode at a URL, open for reading."""

    def __init__(self, url: str) -> None:
        super().__init__(Path(url))
        self.url = url
        self.remote = RemoteFile(url)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.remote.read_at(offset, length)

    def close(self) -> None:
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file, self._pid = None, -1

    def __getstate__(self) -> Any:
        return self.url

    def __setstate__(self, url: Any) -> None:
        self.__init__(url)  # type: ignore[misc]

    def _open(self) -> None:
        load_filters()
        try:
            _ = self.remote.size  # connect while HDF5's lock is free (see `_Seekable.readinto`)
            self._file = h5py.File(_Seekable(self.remote), "r")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise FormatError(f"{self.url} is not a readable HDF5 file: {error}") from error
        self._pid = os.getpid()


def open_remote(url: str) -> Episode:
    """Open the episode at a URL; samples come by ranged reads. Raises what `open_episode` does."""
    handle = RemoteHandle(url)
    file = handle.file()
    try:
        reader.check_format(file, handle.path)
    except FormatError:
        handle.close()
        raise
    attrs = {key: layout.from_attr(value) for key, value in file.attrs.items()}
    metadata = file.get(layout.METADATA)
    return Episode(
        episode_id=str(attrs.get("episode_id", url.rsplit("/", 1)[-1].removesuffix(".h5"))),
        path=None,
        start_ns=attrs.get("start_ns"),
        end_ns=attrs.get("end_ns"),
        status=str(attrs["status"]),
        reference_clock=str(attrs.get("reference_clock", "header")),
        streams=reader.LazyMapping(
            list(file.get(layout.STREAMS, ())), lambda name: reader.open_stream(handle, name)
        ),
        timelines={
            name: partial(reader.read_timeline, file, name) for name in file.get(layout.ALIGNED, ())
        },
        rig=reader.read_rig(file),
        metadata={}
        if metadata is None
        else {key: layout.from_attr(value) for key, value in metadata.attrs.items()},
        sync=json.loads(reader.read_text(file, f"{layout.SYNC}/{layout.LEDGER}") or "{}"),
        annotations={
            name: reader.read_text(file, f"{layout.ANNOTATIONS}/{name}") or ""
            for name in file.get(layout.ANNOTATIONS, ())
        },
        provenance=json.loads(reader.read_text(file, layout.PROVENANCE) or "{}"),
        closer=handle.close,
    )
