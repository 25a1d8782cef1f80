"""What the dataset converters share: a recording made of declared streams with known stamps.

A dataset on disk is a table with pictures: every stream's stamps are known when it is opened, and
its payload is read row by row. A converter declares one feed per stream; reading, counting,
slicing into bounded batches and surviving damage happen here, once. A sample's stamp is always
taken by its row, so that a missing picture can never shift the ones after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import Rig, Sensor
from mmdata.media import decode_image, sniff_image
from mmdata.recording import Batch, Recording, Summary, Topic
from mmdata.streams import FieldInfo, Kind, LazyArray, Ragged, StreamInfo
from mmdata_converters._common import DAMAGE, one_line

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = Stamps | slice
Chunk: TypeAlias = tuple[Rows, Mapping[str, Array | Ragged]]

BATCH_BYTES = 4 << 20
_BATCH_ROWS = 4096
_CHUNK_BYTES = 24 << 20


@dataclass(frozen=True)
class Feed:
    """One stream to be: its stamps (n,) i8 by row, and how to read (rows, samples) in order."""

    info: StreamInfo
    stamps: Stamps
    read: Callable[[], Iterator[Chunk]]
    receive: Stamps | None = None

    @property
    def topic(self) -> str:
        return self.info.source_topic or self.info.name


class FeedRecording(Recording):
    """A recording whose streams are declared while it is opened."""

    def __init__(self, path: Path, format: str, part: str = "") -> None:
        super().__init__()
        self.path = path
        self.format = format
        self.part = part
        self.feeds: list[Feed] = []
        self._sensors: dict[str, Sensor] = {}
        self._files: list[Path] = []
        self._to_close: list[Any] = []

    # -- the contract --------------------------------------------------------------------------

    def inspect(self) -> Summary:
        topics = []
        for feed in self.feeds:
            first, last = _span(feed.stamps)
            kind = feed.info.source_type or self.format
            topics.append(Topic(feed.topic, kind, feed.info.kind, len(feed.stamps), first, last))
        firsts = [t.first_ns for t in topics if t.first_ns is not None]
        lasts = [t.last_ns for t in topics if t.last_ns is not None]
        return Summary(
            self.format, min(firsts, default=None), max(lasts, default=None), topics,
            self.account.problem_lines(),
        )  # fmt: skip

    def read(self, topics: frozenset[str] | None = None) -> Iterator[Batch]:
        for feed in self.feeds:
            if topics is None or feed.topic in topics:
                yield from self._read(feed)
        self.finish()

    def receive_stamps(self, topic: str | None = None) -> Iterator[Stamps]:
        """Stamps of the samples: a dataset keeps no receive stamps."""
        for feed in self.feeds:
            if len(feed.stamps) and topic in (None, feed.topic):
                yield feed.stamps

    @property
    def rig(self) -> Rig:
        return Rig(self._sensors.values())

    @property
    def files(self) -> Sequence[Path]:
        return sorted(set(self._files))

    def close(self) -> None:
        while self._to_close:
            self._to_close.pop().close()

    def finish(self) -> None:
        """Called when everything was read: the place for layers that need what was met."""

    def _read(self, feed: Feed) -> Iterator[Batch]:
        account, topic, seen = self.account, feed.topic, 0
        account.messages[topic] = 0
        for key in [k for k in account.dropped if k[0] == topic]:
            del account.dropped[key]
        try:
            for rows, samples in feed.read():
                stamps = feed.stamps[rows]
                seen += len(stamps)
                account.count(topic, len(stamps))
                receive = None if feed.receive is None else feed.receive[rows]
                yield Batch(feed.info, samples, stamps, receive)
        except DAMAGE as error:
            dropped = sum(n for (t, _), n in account.dropped.items() if t == topic)
            left = max(1, len(feed.stamps) - seen - dropped)
            self.drop(topic, f"unreadable: {one_line(error)}", left)

    # -- for converters ------------------------------------------------------------------------

    def drop(self, topic: str, reason: str, n: int = 1) -> None:
        """n samples exist (or should) and become none."""
        self.account.count(topic, n)
        self.account.drop(topic, reason, n)

    def attempt(self, what: str, step: Callable[[], None]) -> None:
        """Read something that the rest does without; when it is damaged, that is told."""
        try:
            step()
        except DAMAGE as error:
            self.account.problem(f"{what} cannot be used: {one_line(error)}")

    def tell_gaps(self, topic: str, stamps: Stamps) -> None:
        """Tell where files that are named by their stamps seem to be missing."""
        steps = np.diff(stamps)
        if len(steps) < 3:
            return
        period = float(np.median(steps))
        lost = np.rint(steps[steps > 1.6 * period] / period) - 1
        if len(lost):
            self.account.problem(
                f"{topic}: {len(lost)} gaps of more than one period; "
                f"about {int(lost.sum())} files seem to be missing"
            )

    def uses(self, *paths: Path) -> None:
        """Files of the recording."""
        self._files += paths

    def owns(self, resource: Any) -> Any:
        """Close a resource together with the recording."""
        self._to_close.append(resource)
        return resource

    def mount(self, sensor: Sensor) -> None:
        """Add a sensor to the rig."""
        self._sensors[sensor.name] = sensor

    def know(self, **facts: Any) -> None:
        """Metadata, as far as it is known."""
        self.metadata.update({k: v for k, v in facts.items() if v not in (None, "", [])})

    def signal(
        self,
        name: str,
        fields: Mapping[str, LazyArray],
        stamps: Stamps,
        *,
        units: Mapping[str, str] | None = None,
        channels: Mapping[str, Sequence[str]] | None = None,
        kind: Kind = Kind.SIGNAL,
        receive: Stamps | None = None,
        **info: Any,
    ) -> None:
        """Numeric rows. fields: arrays (n, ...), in memory or on disk, read slice by slice.

        Rows and stamps belong together by position; what is longer than the rest is counted.
        receive (n,): receive stamps of the rows.
        """
        topic = str(info.get("source_topic") or name)
        n = min([len(stamps), *(len(f) for f in fields.values())])
        longest = max([len(stamps), *(len(f) for f in fields.values())])
        if longest != n:
            self.account.problem(f"{topic}: {n} of {longest} rows have values and a stamp")
        described = {
            field: FieldInfo(
                _plain(values.dtype).newbyteorder("<").str,
                tuple(values.shape[1:]),
                unit=(units or {}).get(field),
                channels=_channels((channels or {}).get(field), values.shape[1:]),
            )
            for field, values in fields.items()
        }
        row_bytes = sum(
            np.dtype(f.dtype).itemsize * int(np.prod(f.shape)) for f in described.values()
        )
        step = max(1, min(_BATCH_ROWS, BATCH_BYTES // max(1, row_bytes)))
        chunk = max((_chunk_rows(f) for f in fields.values()), default=1)
        if chunk > 1 and chunk * row_bytes <= _CHUNK_BYTES:
            step = -(-step // chunk) * chunk  # a compressed chunk is read once, not once per batch

        def read() -> Iterator[Chunk]:
            for start in range(0, n, step):
                rows: Rows = slice(start, min(n, start + step))
                values = {f: _numbers(v[rows]) for f, v in fields.items()}
                yield rows, values

        received = None if receive is None else receive[:n]
        self._declare(name, kind, described, stamps[:n], read, info, received)

    def frames(
        self, name: str, pixels: LazyArray, stamps: Stamps, kind: Kind = Kind.IMAGE, **info: Any
    ) -> None:
        """Raw pixels (n, H, W[, C]), in memory or on disk: grey, RGB or RGBA."""
        if kind is Kind.IMAGE:
            info = {"encoding": "raw", **info}
            depth = 1 if len(pixels.shape) == 3 else pixels.shape[-1]
            attrs = {"pixel_format": {1: "mono8", 4: "rgba8"}.get(depth, "rgb8")}
            info["attrs"] = {**attrs, **info.get("attrs", {})}
        self.signal(name, {"data": pixels}, stamps, kind=kind, **info)

    def encoded(
        self,
        name: str,
        get: Callable[[int], bytes | None],
        stamps: Stamps,
        kind: Kind = Kind.IMAGE,
        **info: Any,
    ) -> None:
        """Compressed pictures, text or opaque bytes, one per row. get(row): None where missing."""
        topic = str(info.get("source_topic") or name)
        if kind is Kind.IMAGE and "encoding" not in info:
            info["encoding"] = self._picture_encoding(get, len(stamps))

        def take(row: int) -> bytes | None:
            try:
                data = get(row)
            except DAMAGE as error:
                self.drop(topic, f"unreadable: {one_line(error)}")
                return None
            if data is None:
                self.drop(topic, "missing")
                return None
            if kind is Kind.IMAGE and sniff_image(data) is None:
                self.drop(topic, "no JPEG, PNG or WebP")
                return None
            return data

        def read() -> Iterator[Chunk]:
            for rows, found in _gather(range(len(stamps)), take, len):
                yield np.array(rows), {"data": Ragged.from_rows(found, np.uint8)}

        self._declare(name, kind, {"data": FieldInfo("|u1", (), True)}, stamps, read, info)

    def depth_pictures(
        self, name: str, get: Callable[[int], bytes | None], stamps: Stamps, **info: Any
    ) -> None:
        """Depth images kept as 16-bit PNG, one per row: decoded, which loses nothing."""
        topic = str(info.get("source_topic") or name)
        shape = _first_shape(get, len(stamps))
        if shape is None:
            self.drop(topic, "no decodable depth image", max(1, len(stamps)))
            return

        def take(row: int) -> Array | None:
            try:
                data = get(row)
                image = None if data is None else decode_image(data)
            except DAMAGE as error:
                self.drop(topic, f"unreadable: {one_line(error)}")
                return None
            if image is None or image.shape != shape or image.dtype.itemsize > 2:
                reason = "missing" if image is None else f"a picture of shape {image.shape}"
                self.drop(topic, reason)
                return None
            return image.astype(np.uint16, copy=False)

        def read() -> Iterator[Chunk]:
            for rows, found in _gather(range(len(stamps)), take, lambda image: int(image.nbytes)):
                yield np.array(rows), {"data": np.stack(found)}

        self._declare(name, Kind.DEPTH, {"data": FieldInfo("<u2", shape)}, stamps, read, info)

    def sweeps(
        self,
        name: str,
        get: Callable[[int], Mapping[str, Any] | None],
        stamps: Stamps,
        points: Mapping[str, FieldInfo],
        per_sweep: Mapping[str, FieldInfo] | None = None,
        **info: Any,
    ) -> None:
        """LiDAR sweeps. get(row): field -> (P,), a scalar for per_sweep fields; None: missing."""
        topic = str(info.get("source_topic") or name)
        per_sweep = per_sweep or {}
        fields = {n: FieldInfo(f.dtype, f.shape, True, f.unit) for n, f in points.items()}

        def take(row: int) -> Mapping[str, Any] | None:
            try:
                found = get(row)
            except DAMAGE as error:
                self.drop(topic, f"unreadable: {one_line(error)}")
                return None
            if found is None:
                self.drop(topic, "missing")
            return found

        def size(sweep: Mapping[str, Any]) -> int:
            return sum(np.asarray(v).nbytes for v in sweep.values())

        def read() -> Iterator[Chunk]:
            for rows, found in _gather(range(len(stamps)), take, size):
                samples: dict[str, Array | Ragged] = {
                    n: Ragged.from_rows([np.asarray(s[n]) for s in found], np.dtype(f.dtype))
                    for n, f in points.items()
                }
                for n, f in per_sweep.items():
                    samples[n] = np.array([s[n] for s in found], f.dtype)
                yield np.array(rows), samples

        self._declare(name, Kind.SWEEP, {**fields, **per_sweep}, stamps, read, info)

    def feed(
        self,
        info: StreamInfo,
        stamps: Stamps,
        read: Callable[[], Iterator[Chunk]],
        receive: Stamps | None = None,
    ) -> None:
        """Any other stream."""
        self.feeds.append(Feed(info, np.asarray(stamps, np.int64), read, receive))

    def layer(self, name: str, **collections: list[Any]) -> None:
        """Labels that came along, as an annotation layer; nothing where there are none."""
        if any(collections.values()):
            from mmdata import __version__
            from mmdata_schema import Layer, Provenance, Software, write_layer

            self.layers[name] = write_layer(
                Layer(
                    episode_id=self.episode_id,
                    name=name,
                    provenance=Provenance(
                        tool=Software(name=f"mmdata import of {self.format}", version=__version__),
                        source_file=self.path.name,
                    ),
                    **cast(Any, collections),
                )
            )

    @property
    def episode_id(self) -> str:
        """Name of the episode as far as the dataset gives one."""
        text = "_".join(t for t in (self.path.name.split(".")[0], self.part) if t)
        return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.") or self.format

    # -- internals -----------------------------------------------------------------------------

    def _declare(
        self,
        name: str,
        kind: Kind,
        fields: Mapping[str, FieldInfo],
        stamps: Stamps,
        read: Callable[[], Iterator[Chunk]],
        info: Mapping[str, Any],
        receive: Stamps | None = None,
    ) -> None:
        names = {f.info.name for f in self.feeds}
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        self.feed(StreamInfo(unique, kind, dict(fields), **info), stamps, read, receive)

    def _picture_encoding(self, get: Callable[[int], bytes | None], n: int) -> str:
        """Encoding of the first picture; a few others are mixed in at times and decode as well."""
        for row in range(n):
            try:
                data = get(row)
            except DAMAGE:
                continue  # counted when it is read
            encoding = sniff_image(data) if data else None
            if encoding is not None:
                return encoding
        return "jpeg"


# -- internals ---------------------------------------------------------------------------------


def _gather(
    rows: Iterable[int], take: Callable[[int], Any], size: Callable[[Any], int]
) -> Iterator[tuple[list[int], list[Any]]]:
    """Rows that are there, in groups of about BATCH_BYTES."""
    at: list[int] = []
    found: list[Any] = []
    held = 0
    for row in rows:
        value = take(row)
        if value is None:
            continue
        at.append(row)
        found.append(value)
        held += size(value)
        if held >= BATCH_BYTES:
            yield at, found
            at, found, held = [], [], 0
    if at:
        yield at, found


def _first_shape(get: Callable[[int], bytes | None], n: int) -> tuple[int, int] | None:
    for row in range(n):
        try:
            data = get(row)
            image = None if data is None else decode_image(data)
        except DAMAGE:
            continue  # counted when it is read
        if image is not None and image.ndim == 2:
            return (int(image.shape[0]), int(image.shape[1]))
    return None


def _chunk_rows(values: Any) -> int:
    chunks = getattr(values, "chunks", None)
    return int(chunks[0]) if chunks else 1


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "iuf":
        raise ConversionError(f"values of type {dtype} are no numbers")
    return dtype


def _numbers(values: Any) -> Array:
    array = np.asarray(values)
    return array.astype(_plain(array.dtype).newbyteorder("<"), copy=False)


def _channels(names: Sequence[str] | None, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Channel names where there is one per column; wrong ones are worse than none."""
    if names is None or len(shape) != 1 or len(names) != shape[0]:
        return None
    return tuple(str(n) for n in names)


def _span(stamps: Stamps) -> tuple[int | None, int | None]:
    return (int(stamps.min()), int(stamps.max())) if len(stamps) else (None, None)
