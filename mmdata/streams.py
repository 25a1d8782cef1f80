"""Streams: samples that share one clock, one kind and one schema.

The set of kinds is closed; docs/format.md says how each lies in the file. A `Stream` is lazy:
arrays are read when they are indexed. It works the same over NumPy arrays and over a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import SECOND_NS, Stamps, StampSource

Array: TypeAlias = NDArray[Any]
AtPolicy = Literal["previous", "nearest"]

#: Names inside a stream that are not payload fields.
STAMP_NAMES = ("stamp_ns", "source_ns", "receive_ns", "publish_ns", "recorded")
VIDEO_ENCODINGS = ("h264", "hevc", "av1", "vp9", "mpeg4")


class Kind(StrEnum):
    """What a stream's samples are."""

    SIGNAL = "signal"
    IMAGE = "image"
    DEPTH = "depth"
    SWEEP = "sweep"
    AUDIO = "audio"
    TACTILE = "tactile"
    TEXT = "text"
    OPAQUE = "opaque"


def rows_at(buffer: NDArray[np.uint8], starts: NDArray[np.int64], length: int) -> Array:
    """(n, length) u1: the bytes `buffer[start : start + length]` of each start, copied.

    Raises IndexError where they are not all in the buffer.
    """
    if not len(starts) or not length:
        return np.empty((len(starts), length), np.uint8)
    # One byte further with each row: no index has to be made for every byte that is copied.
    windows = max(0, len(buffer) - length + 1)
    rows: Array = np.ndarray((windows, length), np.uint8, buffer, 0, (1, 1))[starts]
    return rows


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different length: row i is `data[offsets[i]:offsets[i + 1]]`.

    data (P, ...), offsets (N+1,) i8 ascending from 0 to P.
    """

    data: Array
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Array:
        i = range(len(self))[i]
        row: Array = self.data[self.offsets[i] : self.offsets[i + 1]]
        return row

    @classmethod
    def from_rows(cls, rows: Sequence[Any], dtype: Any = None) -> Ragged:
        """Build from a sequence of arrays (n_i, ...) or of bytes (taken as uint8)."""
        arrays = [
            np.frombuffer(r, np.uint8) if isinstance(r, bytes | bytearray | memoryview) else r
            for r in rows
        ]
        lengths = np.fromiter((len(a) for a in arrays), np.int64, len(arrays))
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = np.concatenate(arrays) if arrays else np.empty(0, dtype or np.uint8)
        return cls(data if dtype is None else data.astype(dtype, copy=False), offsets)

    @classmethod
    def gather(cls, buffer: Array, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ragged:
        """Rows `buffer[starts[i] : starts[i] + lengths[i]]`, copied together."""
        offsets = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        if len(starts) and (lengths == lengths[0]).all() and buffer.dtype == np.uint8:
            return cls(rows_at(buffer, starts, int(lengths[0])).reshape(-1), offsets)
        pieces = [buffer[a : a + n] for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        return cls(np.concatenate(pieces) if pieces else buffer[:0], offsets)

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """The given rows (m,) in that order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        gather = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.data[gather], offsets)


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One payload field: dtype (NumPy string), shape of one row, and whether rows are ragged."""

    dtype: str
    shape: tuple[int, ...] = ()
    ragged: bool = False
    unit: str | None = None
    channels: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        values: Array | Ragged,
        unit: str | None = None,
        channels: Sequence[str] | None = None,
    ) -> FieldInfo:
        """Describe a batch of values: (n, ...) array or `Ragged`."""
        array = values.data if isinstance(values, Ragged) else values
        return cls(
            array.dtype.newbyteorder("<").str,
            tuple(array.shape[1:]),
            isinstance(values, Ragged),
            unit,
            tuple(channels) if channels is not None else None,
        )


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Everything about a stream but its samples. None means not known.

    nominal_rate_hz is what the source declares, not what was measured. `encoding` is for images
    (jpeg, png, h264, hevc, av1, vp9, mpeg4, raw). `attrs`: further facts, JSON scalars or lists.
    """

    name: str
    kind: Kind
    fields: Mapping[str, FieldInfo]
    clock: str | None = None
    frame_id: str | None = None
    sensor: str | None = None
    nominal_rate_hz: float | None = None
    source_topic: str | None = None
    source_type: str | None = None
    stamp_source: StampSource | None = None
    stamp_meaning: str = "unknown"
    encoding: str | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


def offsets_name(kind: Kind, field_name: str) -> str:
    """Name of the dataset holding the offsets of a ragged field (docs/format.md)."""
    if kind is Kind.AUDIO:
        return "block_start"
    if kind in (Kind.SIGNAL, Kind.TACTILE):
        return f"{field_name}_offsets"
    return "offsets"


class LazyArray(Protocol):
    """The part of an array (NumPy or on disk) that `Stream` uses."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> Any: ...


class Stream:
    """One stream of an episode, or a contiguous view of one.

    `stream[i]` is sample i; `stream[a:b]` a view; `stream["field"]` a whole field, (n, ...) or
    `Ragged`. What a sample is depends on the kind:

    signal, tactile   dict of field -> array, or the array itself when there is one field
    image             (H, W, 3) uint8 RGB, or (H, W) for grey images
    depth             (H, W) uint16 or float32, in the unit of the stream's `unit` attribute
    sweep             dict of point field -> (P,), and of per-sweep values
    audio             (S, C) samples of one block
    text / opaque     str / bytes
    """

    def __init__(
        self,
        info: StreamInfo,
        arrays: Mapping[str, LazyArray],
        start: int = 0,
        stop: int | None = None,
        decoder: Any = None,
    ) -> None:
        self.info = info
        self._arrays = arrays
        self._decoder = decoder
        self._start = start
        self._stop = len(arrays["stamp_ns"]) if stop is None else stop
        self._cache: dict[str, Array] = {}

    # -- facts -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def kind(self) -> Kind:
        return self.info.kind

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the payload fields."""
        return tuple(self.info.fields)

    @property
    def arrays(self) -> Mapping[str, LazyArray]:
        """Stamps, payload and offsets as stored, of the whole stream, also of a view's."""
        return self._arrays

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def stamp_ns(self) -> Stamps:
        """(n,) i8 ascending: sensor time on the reference clock."""
        stamps = self._stamps("stamp_ns")
        assert stamps is not None
        return stamps

    @property
    def source_ns(self) -> Stamps | None:
        """(n,) i8 as the sensor wrote it, or None."""
        return self._stamps("source_ns")

    @property
    def receive_ns(self) -> Stamps | None:
        """(n,) i8 when the log received it, or None."""
        return self._stamps("receive_ns")

    @property
    def publish_ns(self) -> Stamps | None:
        """(n,) i8 when it was published, or None where the log does not know it apart."""
        return self._stamps("publish_ns")

    @property
    def recorded(self) -> Stamps | None:
        """(n,) i8 position in recording order, or None where that is the stamp order."""
        return self._stamps("recorded")

    @property
    def start_ns(self) -> int | None:
        return int(self._arrays["stamp_ns"][self._start]) if len(self) else None

    @property
    def end_ns(self) -> int | None:
        return int(self._arrays["stamp_ns"][self._stop - 1]) if len(self) else None

    @property
    def rate_hz(self) -> float | None:
        """Measured rate: one over the median period. None below two samples."""
        if len(self) < 2:
            return None
        period = float(np.median(np.diff(self.stamp_ns)))
        return SECOND_NS / period if period > 0 else None

    # -- samples -----------------------------------------------------------------------------

    @overload
    def __getitem__(self, key: slice) -> Stream: ...
    @overload
    def __getitem__(self, key: int | str) -> Any: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            return self.field(key)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                raise ValueError("a stream view is contiguous: use a step of 1")
            return self._view(self._start + start, self._start + max(stop, start))
        return self._sample(self._start + range(len(self))[key])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def field(self, name: str, start: int = 0, stop: int | None = None) -> Array | Ragged:
        """Rows start:stop of one field: (n, ...) array, or `Ragged`. Raises KeyError."""
        if name not in self.info.fields:
            raise KeyError(f"stream {self.name!r} has no field {name!r}; it has {self.fields}")
        first, last, _ = slice(start, stop).indices(len(self))
        first, last = self._start + first, self._start + max(first, last)
        if not self.info.fields[name].ragged:
            values: Array = self._arrays[name][first:last]
            return values
        offsets: NDArray[np.int64] = self._arrays[self._offsets(name)][first : last + 1]
        return Ragged(self._arrays[name][offsets[0] : offsets[-1]], offsets - offsets[0])

    def encoded(self, i: int) -> bytes:
        """Sample i of an image, text or opaque stream, byte for byte as stored."""
        if "data" not in self.info.fields or not self.info.fields["data"].ragged:
            raise TypeError(f"stream {self.name!r} ({self.kind}) does not hold encoded bytes")
        return self._row("data", self._start + range(len(self))[i]).tobytes()

    def between(self, start_ns: int, end_ns: int) -> Stream:
        """View of the samples with start_ns <= stamp_ns < end_ns."""
        first, last = np.searchsorted(self.stamp_ns, [start_ns, end_ns], side="left")
        return self._view(self._start + int(first), self._start + int(max(first, last)))

    def at(
        self, stamp_ns: int, policy: AtPolicy = "previous", tolerance_ns: int | None = None
    ) -> Any | None:
        """The sample that belongs to an instant, or None where there is none within tolerance."""
        stamps = self.stamp_ns
        i = int(np.searchsorted(stamps, stamp_ns, side="right")) - 1
        if policy == "nearest" and i + 1 < len(stamps):
            later = stamps[i + 1] - stamp_ns
            if i < 0 or later < stamp_ns - stamps[i]:
                i += 1
        if i < 0 or (tolerance_ns is not None and abs(int(stamps[i]) - stamp_ns) > tolerance_ns):
            return None
        return self[i]

    # -- internals ---------------------------------------------------------------------------

    def _view(self, start: int, stop: int) -> Stream:
        return Stream(self.info, self._arrays, start, stop, self._decoder)

    def _stamps(self, name: str) -> Stamps | None:
        if name not in self._arrays:
            return None
        if name not in self._cache:
            values = np.asarray(self._arrays[name][self._start : self._stop], np.int64)
            values.flags.writeable = False
            self._cache[name] = values
        return self._cache[name]

    def _offsets(self, name: str) -> str:
        return offsets_name(self.kind, name)

    def _row(self, name: str, i: int) -> Array:
        if not self.info.fields[name].ragged:
            dense: Array = self._arrays[name][i]
            return dense
        first, last = self._arrays[self._offsets(name)][i : i + 2]
        row: Array = self._arrays[name][first:last]
        return row

    def _sample(self, i: int) -> Any:
        if self.kind is Kind.TEXT:
            return self._row("data", i).tobytes().decode("utf-8", errors="replace")
        if self.kind is Kind.OPAQUE:
            return self._row("data", i).tobytes()
        if self.kind is Kind.IMAGE:
            return self._image(i)
        if self.kind is Kind.DEPTH:
            return self._row("data", i)
        if self.kind is Kind.AUDIO:
            return self._row("samples", i)
        row = {name: self._row(name, i) for name in self.info.fields}
        if len(row) == 1 and self.kind is not Kind.SWEEP:
            return next(iter(row.values()))
        return row

    def _image(self, i: int) -> Array:
        from mmdata import media

        encoding = self.info.encoding or "raw"
        if encoding == "raw":
            return media.to_rgb(
                self._row("data", i), str(self.info.attrs.get("pixel_format", "rgb8"))
            )
        if encoding in VIDEO_ENCODINGS:
            if self._decoder is None:
                self._decoder = media.VideoDecoder(
                    encoding,
                    lambda k: self._row("data", k).tobytes(),
                    np.asarray(self._arrays["keyframe"][:]),
                    recorded=None
                    if "recorded" not in self._arrays
                    else self._arrays["recorded"][:],
                    extradata=self.info.attrs.get("extradata"),
                )
            frame: Array = self._decoder.frame(i)
            return frame
        return media.decode_image(self._row("data", i))

    # -- looks -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        rate = self.rate_hz
        facts = [f"{len(self)} samples"]
        if rate is not None:
            facts.append(f"{rate:.4g} Hz")
        if self.info.encoding:
            facts.append(self.info.encoding)
        shown = ", ".join(
            f"{n} {'ragged ' if f.ragged else ''}{f.dtype[1:]}{list(f.shape) if f.shape else ''}"
            for n, f in self.info.fields.items()
        )
        return f"<Stream {self.name!r} {self.kind}: {', '.join(facts)}; {shown}>"


def renamed(info: StreamInfo, name: str) -> StreamInfo:
    """The same description under another name."""
    return replace(info, name=name)
