"""Content hashes of files and columns.

BLAKE3: on one core about three times as fast as SHA-256 with the processor's help, and a conversion
hashes everything twice, as the log and as columns. Specification: https://github.com/BLAKE3-team.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

#: What new files are hashed with, and the key hashes have in JSON.
ALGORITHM = "blake3"
_ALGORITHMS: Mapping[str, Any] = {"blake3": blake3, "sha256": hashlib.sha256}


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
