"""Episodes on object stores (`s3://`, and whatever else fsspec reaches): ranged reads, block cache.

An episode is read in blocks, each fetched once and kept in a local folder (`MMDATA_CACHE`, by
default `~/.cache/mmdata/blocks`) that is bounded in bytes. Blocks of an object that changed are not
used: its ETag (or size and time) is part of their name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdata.episode import Episode
from mmdata.errors import MissingDependencyError
from mmdata.store import ByteSource, FileBytes, open_episode

BLOCK_BYTES = 1 << 20
CACHE_BYTES = 16 << 30
_SWEEP_EVERY = 256


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def open_any(path: str) -> Episode:
    """Open an episode of a path or URL. Raises what `open_episode` raises."""
    return open_episode(RemoteFile(path) if is_remote(path) else path)


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
        self.name = url
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
        return self.name, self.block_bytes

    def __setstate__(self, state: tuple[str, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def _connect(self) -> None:
        if self._pid == os.getpid():
            return
        system, path = file_system(self.name)
        if self._pid != -1:
            system = type(system)(*system.storage_args, skip_instance_cache=True,
                                  **system.storage_options)  # fmt: skip
        self._system, self._path, self._pid = system, path, os.getpid()
        facts = system.info(path)
        self._size = int(facts["size"])
        version = [str(facts.get(k, "")) for k in ("ETag", "LastModified", "mtime")]
        name = json.dumps([self.name, self._size, self.block_bytes, *version])
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
