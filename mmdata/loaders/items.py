"""Processed samples of one stream of one episode file, read without HDF5 once it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import media
from mmdata.loaders import images
from mmdata.loaders.memory import ChunkCache
from mmdata.loaders.plan import Key
from mmdata.loaders.video import DecoderPool, FrameCache, Video
from mmdata.memory import ReusedMemory
from mmdata.store import ByteSource
from mmdata.store.chunks import ChunkTable
from mmdata.streams import VIDEO_ENCODINGS, Kind, Stream, offsets_name

Array = NDArray[Any]
#: Fields up to this size are held in memory; of bigger ones the chunks that were read lately are.
_WHOLE_FIELD_BYTES = 64 << 20


@dataclass
class Caches:
    """What all episodes of one process share. Bounded in bytes."""

    frame_bytes: int
    chunk_bytes: int = 256 << 20
    frames: FrameCache = field(init=False)
    memory: ReusedMemory = field(default_factory=ReusedMemory)
    chunks: ChunkCache = field(init=False)
    decoders: DecoderPool = field(init=False)

    def __post_init__(self) -> None:
        self.frames = FrameCache(self.frame_bytes, self.memory)
        self.decoders = DecoderPool(self.frame_bytes)
        self.chunks = ChunkCache(self.chunk_bytes)


class Rows:
    """One field of a stream: rows by number, outside the HDF5 lock where the layout allows it."""

    def __init__(self, stream: Stream, name: str, source: ByteSource) -> None:
        self._source = source
        self._table: ChunkTable | None = None
        self._offsets: Array | None = None
        self._stream: Stream | None = None
        info = stream.info.fields[name]
        self._name = name
        arrays = stream.arrays
        try:
            self._table = arrays[name].chunks()  # type: ignore[attr-defined]
            if info.ragged:
                self._offsets = np.asarray(arrays[offsets_name(stream.kind, name)][:])
        except ValueError:
            self._stream = stream  # laid out by somebody else: through HDF5, then

    @property
    def nbytes(self) -> int:
        """Memory held."""
        offsets = 0 if self._offsets is None else self._offsets.nbytes
        return offsets + (0 if self._table is None else self._table.nbytes)

    def __getitem__(self, i: int) -> Array:
        """Row i: (...) of a dense field, (P, ...) of a ragged one."""
        if self._table is None:
            assert self._stream is not None
            rows = self._stream.field(self._name, i, i + 1)
            return rows[0]
        if self._offsets is None:
            row: Array = self._table.read(self._source, i, i + 1)[0]
            return row
        return self._table.read(self._source, int(self._offsets[i]), int(self._offsets[i + 1]))

    def packets(self, index: Array) -> list[bytes]:
        """Rows of a ragged field of bytes at index (n,), at once where they lie side by side."""
        first, n = int(index[0]), len(index)
        if self._table is None or self._offsets is None or (np.diff(index) != 1).any():
            return [self[i].tobytes() for i in index.tolist()]
        ends = self._offsets[first : first + n + 1].tolist()
        data = self._table.read(self._source, ends[0], ends[-1]).tobytes()
        return [data[a - ends[0] : b - ends[0]] for a, b in pairwise(ends)]

    def take(self, index: Array, cache: ChunkCache) -> Array:
        """Rows of a dense field at index (n,), (n, ...)."""
        table = self._table
        if table is None:
            assert self._stream is not None
            first = int(index.min())
            rows = self._stream.field(self._name, first, int(index.max()) + 1)
            taken: Array = np.asarray(rows)[index - first]
            return taken
        number, within = np.divmod(index, table.rows)
        numbers = dict.fromkeys(number.tolist())  # np.unique takes longer than the rest
        out = np.empty((len(index), *table.row_shape), table.dtype)
        for chunk in numbers:
            rows = cache.get((table, chunk), partial(table.chunk, self._source, chunk))
            if len(numbers) == 1:
                return np.asarray(rows.take(within, axis=0))
            here = number == chunk
            out[here] = rows[within[here]]
        return out

    def all(self) -> Array:
        """The whole dense field (N, ...)."""
        if self._table is None:
            assert self._stream is not None
            whole = self._stream.field(self._name)
            return np.asarray(whole)
        return self._table.read(self._source, 0, self._table.n)


class TableItems:
    """Signals in memory, processed once: a row of zeros follows the last sample."""

    def __init__(self, key: Key, columns: dict[str, Array]) -> None:
        rows = key.rows(columns)
        self.table = np.zeros((len(rows) + 1, *rows.shape[1:]), rows.dtype)
        self.table[:-1] = rows
        self.nbytes = self.table.nbytes

    def into(self, index: Array, out: Array) -> None:
        self.table.take(index, axis=0, out=out, mode="wrap")


class ChunkedItems:
    """Signals too big to hold: their rows from the chunks that were read lately."""

    def __init__(self, key: Key, columns: dict[str, Rows], cache: ChunkCache) -> None:
        self._key, self._columns, self._cache = key, columns, cache
        self.nbytes = sum(rows.nbytes for rows in columns.values())

    def into(self, index: Array, out: Array) -> None:
        there = index >= 0
        out[~there] = 0
        if there.any():
            wanted = index[there].astype(np.int64)
            taken = {name: rows.take(wanted, self._cache) for name, rows in self._columns.items()}
            out[there] = self._key.rows(taken)


class EachItems:
    """Samples read and processed one at a time by a function `one(i, out)`."""

    video: Video | None = None

    def __init__(self, one: Callable[[int, Array], Any], nbytes: int) -> None:
        self._one = one
        self.nbytes = nbytes

    def into(self, index: Array, out: Array) -> None:
        previous = -1
        for k, i in enumerate(index.tolist()):
            if i < 0:
                out[k] = 0
            elif i == previous:
                out[k] = out[k - 1]
            else:
                self._one(i, out[k])
            previous = i


class SequenceItems:
    """Samples looked up one at a time: sweeps (points, mask), audio blocks, text."""

    def __init__(self, one: Callable[[int], Any], nbytes: int) -> None:
        self._one = one
        self.nbytes = nbytes

    def __getitem__(self, i: int) -> Any:
        return self._one(i)


def open_items(key: Key, stream: Stream, source: ByteSource, caches: Caches, name: Hashable) -> Any:
    """Samples of one key of an open episode; afterwards the episode may be closed.

    name: of the video among all that share the caches.
    """
    if key.dense:
        return _signal(key, stream, source, caches)
    if key.info.kind is Kind.IMAGE:
        return _image(key, stream, source, caches, name)
    if key.info.kind is Kind.DEPTH:
        rows = Rows(stream, "data", source)

        def depth(i: int, out: Array) -> None:
            out[...] = images.finish_depth(rows[i], key.spec.image)

        return EachItems(depth, rows.nbytes)
    if key.info.kind is Kind.SWEEP:
        fields = {field: Rows(stream, field, source) for field in stream.fields}
        nbytes = sum(f.nbytes for f in fields.values())
        wanted = key.spec.sweep.fields if key.spec.sweep is not None else ()
        kept = {n: r for n, r in fields.items() if n in wanted}
        return SequenceItems(lambda i: key.process({n: r[i] for n, r in kept.items()}), nbytes)
    if key.info.kind is Kind.AUDIO:
        audio = Rows(stream, "samples", source)
        return SequenceItems(lambda i: audio[i], audio.nbytes)
    texts = [stream[i] for i in range(len(stream))]
    return SequenceItems(lambda i: texts[i], sum(len(t) for t in texts) + 64 * len(texts))


def _signal(key: Key, stream: Stream, source: ByteSource, caches: Caches) -> Any:
    columns = {name: Rows(stream, name, source) for name in key.fields}
    row_bytes = int(np.prod(key.shape, dtype=np.int64)) * np.dtype(key.dtype).itemsize
    if row_bytes * len(stream) <= _WHOLE_FIELD_BYTES:
        return TableItems(key, {name: rows.all() for name, rows in columns.items()})

    return ChunkedItems(key, columns, caches.chunks)


def _image(
    key: Key, stream: Stream, source: ByteSource, caches: Caches, name: Hashable
) -> EachItems:
    rows = Rows(stream, "data", source)
    encoding = key.info.encoding or "raw"
    arrays = stream.arrays
    if encoding in VIDEO_ENCODINGS:
        keyframe = np.asarray(arrays["keyframe"][:])
        video = Video(
            name,
            encoding,
            rows.packets,
            keyframe,
            key.image,
            caches.frames,
            caches.decoders,
            recorded=np.asarray(arrays["recorded"][:]) if "recorded" in arrays else None,
            extradata=key.info.attrs.get("extradata"),
        )
        items = _learning(key, video.frame, rows.nbytes + 3 * 8 * len(keyframe), len(stream))
        items.video = video
        return items
    if encoding == "raw":
        pixel_format = str(key.info.attrs.get("pixel_format", "rgb8"))

        def raw(i: int, out: Array | None) -> Array:
            return images.finish(media.to_rgb(rows[i], pixel_format), key.image, out=out)

        return _learning(key, raw, rows.nbytes, len(stream))
    return _learning(key, lambda i, out: key.decode(rows[i], out), rows.nbytes, len(stream))


def _learning(
    key: Key, one: Callable[[int, Array | None], Array], nbytes: int, n: int
) -> EachItems:
    if not key.shape and n:
        key.learn_shape(one(0, None))
    return EachItems(one, nbytes)
