"""The contract between converters and the core.

A converter knows one log format. It opens a recording, says what is in it (`inspect`) and yields
batches of samples (`read`) in bounded memory. The core splits, names, places on clocks, aligns and
writes them. docs/adding-a-converter.md walks through one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.digest import FileHash
from mmdata.geometry import Rig
from mmdata.streams import Kind, Ragged, StreamInfo


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a recording. kind: what its samples become; None for topics that become none."""

    topic: str
    type: str
    kind: Kind | None
    count: int
    first_ns: int | None = None
    last_ns: int | None = None

    @property
    def rate_hz(self) -> float | None:
        """Mean rate by receive stamps."""
        if self.count < 2 or self.first_ns is None or self.last_ns is None:
            return None
        return (self.count - 1) * 1e9 / (self.last_ns - self.first_ns or 1)


@dataclass(frozen=True, slots=True)
class Summary:
    """What `mmdata inspect` shows. Stamps are receive stamps."""

    format: str
    start_ns: int | None
    end_ns: int | None
    topics: Sequence[Topic]
    problems: Sequence[str] = ()


@dataclass(slots=True)
class Batch:
    """Samples of one stream, in recording order.

    samples: payload in a form `EpisodeWriter.append` takes. source_ns / receive_ns / publish_ns
    (n,) i8 or None. not_before_ns: a promise that no later batch of any stream holds a sample
    received before it, which lets the core close an episode of a split recording.
    """

    info: StreamInfo
    samples: Mapping[str, NDArray[Any] | Ragged]
    source_ns: Stamps | None
    receive_ns: Stamps | None = None
    publish_ns: Stamps | None = None
    not_before_ns: int | None = None

    def __len__(self) -> int:
        stamps = self.source_ns if self.source_ns is not None else self.receive_ns
        return 0 if stamps is None else len(stamps)

    @property
    def nbytes(self) -> int:
        """Memory of the payload."""
        values = self.samples.values()
        return sum(v.data.nbytes if isinstance(v, Ragged) else v.nbytes for v in values)

    @property
    def order_ns(self) -> Stamps:
        """(n,) i8 stamps to split a recording by: receive stamps, else source stamps."""
        stamps = self.receive_ns if self.receive_ns is not None else self.source_ns
        assert stamps is not None
        return stamps

    def select(self, keep: NDArray[np.bool_]) -> Batch:
        """The samples of the batch where keep (n,) is true."""
        rows = np.flatnonzero(keep)

        def pick(values: NDArray[Any] | Ragged) -> NDArray[Any] | Ragged:
            return values.take(rows) if isinstance(values, Ragged) else values[rows]

        return Batch(
            self.info,
            {name: pick(values) for name, values in self.samples.items()},
            None if self.source_ns is None else self.source_ns[rows],
            None if self.receive_ns is None else self.receive_ns[rows],
            None if self.publish_ns is None else self.publish_ns[rows],
            self.not_before_ns,
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """Messages that became no samples, and why. Nothing is left out without one of these."""

    topic: str
    count: int
    reason: str


@dataclass
class Account:
    """What a recording tells about itself while it is read."""

    messages: dict[str, int] = field(default_factory=dict)
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)

    def count(self, topic: str, n: int = 1) -> None:
        """n messages of a topic were read."""
        self.messages[topic] = self.messages.get(topic, 0) + n

    def drop(self, topic: str, reason: str, n: int = 1) -> None:
        """n messages of a topic became no samples."""
        self.dropped[topic, reason] = self.dropped.get((topic, reason), 0) + n

    def problem(self, text: str, n: int = 1) -> None:
        """Something odd that was tolerated, told once with how often it was met."""
        self.problems[text] = self.problems.get(text, 0) + n

    def problem_lines(self) -> list[str]:
        return [t if n == 1 else f"{t} ({n} times)" for t, n in self.problems.items()]

    def dropped_list(self) -> list[Dropped]:
        return [Dropped(topic, n, reason) for (topic, reason), n in self.dropped.items()]


class Recording(ABC):
    """An open recording. Use as a context manager.

    `account`, `rig`, `metadata` and `layers` (annotation layers that came along: name -> JSON
    document of the annotation schema) fill while `read` runs; then they are complete.
    """

    def __init__(self) -> None:
        self.account = Account()
        self.metadata: dict[str, Any] = {}
        self.layers: dict[str, str] = {}

    @abstractmethod
    def inspect(self) -> Summary:
        """What is in it, without reading payload where the format allows it."""

    @abstractmethod
    def read(self, topics: frozenset[str] | None = None) -> Iterator[Batch]:
        """Every sample of the given topics (None: all), in bounded memory.

        A message that cannot be decoded is counted in `account`, not raised.
        """

    def receive_stamps(self, topic: str | None = None) -> Iterator[Stamps]:
        """Receive stamps in blocks, of all topics or of one; used to find where to split.

        Blocks may overlap in time and be unsorted. The default reads everything.
        """
        for batch in self.read(None if topic is None else frozenset({topic})):
            yield batch.order_ns

    @property
    def rig(self) -> Rig:
        """Calibration met so far."""
        return Rig()

    @property
    def files(self) -> Sequence[Path]:
        """The files it consists of (hashed for the provenance)."""
        return ()

    def hash_while_reading(self) -> Mapping[Path, FileHash]:
        """Files whose hashes `read` makes on its way, from now on; the others it may not read whole
        or not in order."""
        return {}

    def close(self) -> None:  # noqa: B027 (most recordings hold nothing open)
        """Release files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Converter(ABC):
    """One log format. Subclass it and list it in a converter table."""

    #: Short name, as in `mmdata convert --format NAME`.
    name: ClassVar[str]
    #: One line for `mmdata formats`.
    summary: ClassVar[str] = ""
    #: What `mmdata formats` says: the streams, labels and calibration it reads, what its stamps
    #: are worth, and what it cannot read.
    reads: ClassVar[str] = ""
    labels: ClassVar[str] = ""
    calibration: ClassVar[str] = ""
    time: ClassVar[str] = ""
    cannot: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def sniff(cls, path: Path) -> bool:
        """Whether path is of this format. Looks at few bytes, never raises."""

    @classmethod
    def sources(cls, path: Path) -> Sequence[str]:
        """Names of the recordings path holds: ("",) where it is one, else one per episode.

        Datasets of many episodes (LeRobot, robomimic, RLDS ...) list them here, in their own
        order. Reads no payload. Raises ConversionError as `open` does.
        """
        return ("",)

    @classmethod
    @abstractmethod
    def open(cls, path: Path, part: str = "") -> Recording:
        """Open a recording; part is one of `sources(path)`, "" standing for the first.

        Raises ConversionError with a reason a user can act on; OSError passes through.
        """


#: Parts of a topic that say nothing once the stream's kind is known.
_NOISE = re.compile(
    r"/(image|image_raw|image_color|image_rect|image_rect_color|image_rect_raw|compressed|"
    r"compressedDepth|ffmpeg|compressed_video|data_raw)(?=/|$)"
)


def stream_names(topics: Iterable[str]) -> dict[str, str]:
    """A short, unique, HDF5-safe stream name for each topic: `/camera/front/image/compressed` ->
    `camera_front`. Where two would clash, both keep their whole topic. Depends on the set of topics
    only, not on their order.
    """
    short: dict[str, list[str]] = {}
    topics = sorted(set(topics))
    for topic in topics:
        short.setdefault(_safe_name(_NOISE.sub("", f"/{topic.strip('/')}")), []).append(topic)
    names: dict[str, str] = {}
    for name, owners in short.items():
        if len(owners) == 1 and name:
            names[owners[0]] = name
    taken = set(names.values())
    for topic in topics:
        if topic in names:
            continue
        name = base = _safe_name(topic) or "root"
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        names[topic] = name
        taken.add(name)
    return names


def _safe_name(topic: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", topic).strip("_.")
