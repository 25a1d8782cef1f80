"""What importers and exporters of other tools' formats share: the episode's side of a mapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmdata.episode import Episode
from mmdata.errors import ConversionError
from mmdata.geometry import SE3, Rig, interpolate_poses
from mmdata_schema import COLLECTIONS, Annotation, Layer, Provenance, Software

Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Poses:
    """Recorded poses of one frame in another, parent_SE3_child: stamps (N,), metres (N, 3),
    quaternions (N, 4)."""

    parent: str
    child: str
    stamp_ns: Stamps
    translation: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]

    def at(self, stamp_ns: int) -> SE3 | None:
        """The pose at an instant, interpolated; None outside of what was recorded."""
        position, orientation = interpolate_poses(
            self.stamp_ns, self.translation, self.orientation, [stamp_ns]
        )
        if not np.isfinite(position).all():
            return None
        return SE3.from_quaternion(orientation[0], position[0])


@dataclass(frozen=True)
class Scene:
    """The episode that labels belong to, and how a format's times and places map to it.

    stamps: per stream, the stamps of its samples; frame k of a video or image folder is sample k.
    stream: the stream that labels without one were made on (a camera, an audio stream).
    frame_id: frame of 3D boxes whose format does not name one.
    origin_ns: stamp of a format's time zero; else the start of `stream`, else of the episode.
    author: whoever made the labels, where the format does not say.
    poses: recorded motion of frames.
    """

    episode_id: str
    start_ns: int | None = None
    stamps: Mapping[str, Stamps] = field(default_factory=dict)
    rig: Rig = field(default_factory=Rig)
    stream: str | None = None
    frame_id: str | None = None
    origin_ns: int | None = None
    author: str | None = None
    poses: tuple[Poses, ...] = ()

    @classmethod
    def of(
        cls,
        episode: Episode,
        *,
        stream: str | None = None,
        frame_id: str | None = None,
        origin_ns: int | None = None,
        author: str | None = None,
    ) -> Scene:
        """The scene of an opened episode. ConversionError when it has no such stream."""
        if stream is not None and stream not in episode.streams:
            have = ", ".join(episode.streams)
            raise ConversionError(f"episode has no stream {stream!r}; there are: {have}")
        stamps = {name: np.asarray(s.stamp_ns) for name, s in episode.streams.items()}
        return cls(
            episode.episode_id, episode.start_ns, stamps, episode.rig,
            stream, frame_id, origin_ns, author, tuple(_poses(episode)),
        )  # fmt: skip

    def zero_ns(self) -> int:
        """Stamp of a format's time zero."""
        if self.origin_ns is not None:
            return self.origin_ns
        stamps = self.stamps.get(self.stream or "")
        if stamps is not None and len(stamps):
            return int(stamps[0])
        if self.start_ns is None:
            raise ConversionError("times count from the episode's start, which is unknown: give "
                                  "an origin")  # fmt: skip
        return self.start_ns

    def need_stream(self) -> str:
        """The stream, for formats that cannot do without."""
        if self.stream is None:
            raise ConversionError("this format does not name the stream it labels: give one")
        return self.stream

    def need_frame(self) -> str:
        """The frame of 3D boxes, for formats that do not name it."""
        if self.frame_id is None:
            raise ConversionError("this format does not name the frame of its boxes: give one")
        return self.frame_id

    def frame_ns(self, stream: str, index: int) -> int | None:
        """Stamp of sample `index`; None when there is none."""
        stamps = self.stamps.get(stream)
        if stamps is None:
            raise ConversionError(f"the stamps of stream {stream!r} are needed and not known")
        return int(stamps[index]) if 0 <= index < len(stamps) else None

    def index_of(self, stream: str, stamp_ns: int) -> int | None:
        """Sample with exactly this stamp; None when there is none."""
        stamps = self.stamps.get(stream)
        if stamps is None:
            raise ConversionError(f"the stamps of stream {stream!r} are needed and not known")
        i = int(np.searchsorted(stamps, stamp_ns))
        return i if i < len(stamps) and stamps[i] == stamp_ns else None

    def transform(self, a: str, b: str, stamp_ns: int) -> SE3 | None:
        """a_SE3_b at an instant, by the rig and at most one recorded motion; None if unknown."""

        def fixed(x: str, y: str) -> SE3 | None:
            return SE3.identity() if x == y else self.rig.transform(x, y)

        still = fixed(a, b)
        if still is not None:
            return still
        for poses in self.poses:
            for one, other, backward in (
                (poses.parent, poses.child, False),
                (poses.child, poses.parent, True),
            ):
                a_SE3_one, other_SE3_b = fixed(a, one), fixed(other, b)
                if a_SE3_one is None or other_SE3_b is None:
                    continue
                moving = poses.at(stamp_ns)
                if moving is not None:
                    return a_SE3_one @ (moving.inverse() if backward else moving) @ other_SE3_b
        return None

    def image_size(self, stream: str) -> tuple[int, int] | None:
        """(width, height) by the rig; None when it is unknown."""
        for name, sensor in self.rig.items():
            if sensor.camera is not None and stream in (name, sensor.frame_id):
                return sensor.camera.width, sensor.camera.height
        return None

    def provenance(self, tool: str, path: Path, author: str | None = None) -> Provenance:
        """Who made imported labels: the author as far as known, else the tool."""
        who = author or self.author
        return Provenance(author=who, tool=Software(name=tool), source_file=path.name)


def _poses(episode: Episode) -> Iterator[Poses]:
    for stream in episode.streams.values():
        parent, child = stream.info.frame_id, stream.info.attrs.get("child_frame_id")
        if parent and child and {"translation", "orientation"} <= {*stream.fields} and len(stream):
            yield Poses(
                parent, child, np.asarray(stream.stamp_ns),
                np.asarray(stream["translation"], np.float64),
                np.asarray(stream["orientation"], np.float64),
            )  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """Something that did not make it across: what, how many times, and the first case."""

    what: str
    count: int
    example: str

    def __str__(self) -> str:
        return f"{self.what}: {self.count} (first: {self.example})"


class Losses:
    """Collects what a format cannot hold, so that nothing is dropped silently."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, what: str, example: object = "", count: int = 1) -> None:
        """Note `count` cases of `what`."""
        self._counts[what] += count
        self._examples.setdefault(what, str(example))

    def rest(
        self, layer: Layer, kept: Mapping[str, Iterable[str]], ignore: frozenset[str] = frozenset()
    ) -> None:
        """Everything in `layer` that a writer does not carry.

        kept: collection -> fields it carries (with "attributes" for all attributes). Collections
        that are absent are not carried at all; the layer's own header never is.
        """
        for name in COLLECTIONS:
            annotations: list[Annotation] = getattr(layer, name)
            if not annotations:
                continue
            if name not in kept:
                self.add(f"{name} not held", annotations[0].id, len(annotations))
                continue
            carried = {"id", *kept[name], *ignore}
            for annotation in annotations:
                for key in annotation.to_dict():
                    if key not in carried:
                        self.add(f"{name}.{key} not held", annotation.id)
        if layer.review is not None:
            self.add("review state of the layer not held", layer.review_state)

    def report(self) -> tuple[Loss, ...]:
        """What was lost, in the order it was met."""
        return tuple(Loss(what, n, self._examples[what]) for what, n in self._counts.items())


@dataclass(frozen=True)
class Imported:
    """Layers read from a file (one per annotator where it has several), and what was lost."""

    layers: tuple[Layer, ...]
    losses: tuple[Loss, ...]

    @property
    def layer(self) -> Layer:
        """The layer, where there is one. ConversionError otherwise."""
        if len(self.layers) != 1:
            names = ", ".join(layer.name for layer in self.layers) or "none"
            raise ConversionError(f"one layer expected, found: {names}")
        return self.layers[0]


@dataclass(frozen=True)
class Exported:
    """Files written, and what of the layer they do not hold."""

    files: tuple[Path, ...]
    losses: tuple[Loss, ...]


def seconds_to_ns(seconds: Decimal | int | str, unit: str = "s") -> int:
    """Nanoseconds of a decimal time; never by way of a float. unit: s, ms, us or ns."""
    scale = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    return int((Decimal(seconds).scaleb(scale)).to_integral_value())


def ns_to_seconds(ns: int) -> Decimal:
    """Exact decimal seconds."""
    return Decimal(ns).scaleb(-9)


def plain(value: Any) -> Any:
    """A JSON value whose numbers were parsed as Decimal, as plain numbers."""
    if isinstance(value, Decimal):
        return (
            int(value)
            if value == value.to_integral_value() and "." not in str(value)
            else (float(value))
        )
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value
