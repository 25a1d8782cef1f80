"""Chunks of an MCAP file: their content, and the index of the messages in it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

MESSAGE_HEAD = np.dtype(
    {
        "names": ["op", "length", "channel", "log", "publish"],
        "formats": ["u1", "<u8", "<u2", "<u8", "<u8"],
        "offsets": [0, 1, 9, 15, 23],
        "itemsize": 31,
    }
)
INDEX_DTYPE = np.dtype([("log", "<u8"), ("offset", "<u8")])
Index: TypeAlias = dict[int, NDArray[np.void]]


@dataclass(slots=True)
class Chunk:
    """A chunk record, or (compression None) a run of records outside of chunks.

    position and length are those of its (compressed) content. indexed: where the file's message
    index records of this chunk begin and end; scanned: what takes their place where there are none.
    Either way the index is, per channel id, (n,) of `INDEX_DTYPE`.
    """

    position: int
    length: int
    compression: str | None
    size: int
    crc: int
    start_ns: int
    end_ns: int
    indexed: tuple[int, int] | None = None
    scanned: Index | None = None


def content(chunk: Chunk, raw: bytes | memoryview) -> tuple[Any, str | None]:
    """Decompressed content of a chunk (bytes, or raw itself), or b"" and why it cannot be had."""
    where = f"the chunk at byte {chunk.position}"
    try:
        if not chunk.compression:
            data = raw
        elif chunk.compression == "zstd":
            data = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
        elif chunk.compression == "lz4":
            data = lz4.frame.LZ4FrameDecompressor().decompress(raw)
        else:
            return b"", f"{where} has the unknown compression {chunk.compression!r}"
    except (zstandard.ZstdError, RuntimeError) as error:
        return b"", f"{where} cannot be decompressed: {error}"
    if chunk.crc and zlib.crc32(data) != chunk.crc:
        return b"", f"{where} is damaged: its checksum does not match"
    return data, None


def index_entries(raw: bytes) -> tuple[int, NDArray[np.void]]:
    """Channel id and entries of the content of one message index record."""
    number, size = struct.unpack_from("<HI", raw)
    return number, np.frombuffer(raw[6 : 6 + size // 16 * 16], INDEX_DTYPE)
