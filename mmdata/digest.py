"""Content hashes of files and columns.

BLAKE3: on one core about three times as fast as SHA-256 with the processor's help, and a conversion
hashes everything twice, as the log and as columns. Specification: https://github.com/BLAKE3-team.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

#: What new files are hashed with, and the key hashes have in JSON.
ALGORITHM = "blake3"
_ALGORITHMS: Mapping[str, Any] = {"blake3": blake3, "sha256": hashlib.sha256}
#: Small enough for a core's cache, large enough not to fight over the interpreter lock.
_BLOCK_BYTES = 1 << 20


class Hasher(Protocol):
    """A running hash."""

    def update(self, data: Any, /) -> Any:
        """Add a buffer of bytes."""

    def hexdigest(self) -> str:
        """What was added so far, 64 hexadecimal digits."""


def new_hasher(algorithm: str = ALGORITHM) -> Hasher:
    """An empty hash."""
    hasher: Hasher = _ALGORITHMS[algorithm]()
    return hasher


class FileHash:
    """The hash of a file. Who reads the file anyway shows it what is read, and it reads the rest.

    Threads may share it. Raises OSError where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hasher = new_hasher()
        self._position = 0
        self._lock = threading.Lock()
        self.stopped = False

    def saw(self, position: int, data: memoryview | bytes) -> None:
        """Bytes that lie in the file at a position. What lies before them is read if need be."""
        with self._lock:
            view = memoryview(data)
            if position + len(view) <= self._position:
                return
            if position > self._position:
                self._read_until(position)
            self._hasher.update(view[self._position - position :])
            self._position = position + len(view)

    def hexdigest(self) -> str:
        """Of the whole file: reads what was not seen. 64 hexadecimal digits."""
        with self._lock:
            self._read_until(None)
            return self._hasher.hexdigest()

    def stop(self) -> None:
        """Nobody waits for the hash any more: what is still to come is worth nothing."""
        self.stopped = True

    def _read_until(self, end: int | None) -> None:
        most = _BLOCK_BYTES if end is None else min(_BLOCK_BYTES, end - self._position)
        block = bytearray(most)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._position)
            while not self.stopped and self._position != end:
                view = memoryview(block)
                if end is not None:
                    view = view[: end - self._position]
                size = file.readinto(view)
                if not size:
                    return
                self._hasher.update(view[:size])
                self._position += size


def bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array in C order, (nbytes,); a view where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def hash_text(text: str, algorithm: str = ALGORITHM) -> str:
    """Hash of a text's UTF-8 bytes, hexadecimal."""
    hasher = new_hasher(algorithm)
    hasher.update(text.encode())
    return hasher.hexdigest()


def find_hash(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """(algorithm, hash) of a JSON entry that has one under the algorithm's name.

    SHA-256 is in episodes written before format 1.1.
    """
    return next(((a, str(entry[a])) for a in _ALGORITHMS if a in entry), None)
