"""Episode: streams, aligned views, rig, metadata and provenance of one demonstration or drive."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from mmdata.clocks import Clock, Stamps
from mmdata.streams import Kind, Stream

if TYPE_CHECKING:
    from mmdata.geometry import Rig

Policy = Literal["previous", "nearest", "linear", "slerp"]
POLICIES: tuple[Policy, ...] = ("previous", "nearest", "linear", "slerp")
#: `residual_ns` of a tick that no sample belongs to.
NO_RESIDUAL = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class AlignedStream:
    """One stream on a timeline.

    index (T,) i8: the sample that belongs to each tick, -1 for none within tolerance. Under
    "linear" and "slerp" it is the sample before the tick; the value lies between it and the next.
    residual_ns (T,) i8: `stamp_ns[index] - tick_ns`; `NO_RESIDUAL` where index is -1.
    tolerance_ns: None means any distance.
    """

    policy: Policy
    tolerance_ns: int | None
    index: Stamps
    residual_ns: Stamps


@dataclass(frozen=True)
class Timeline:
    """A common time base and which sample of every stream belongs to each of its ticks."""

    name: str
    tick_ns: Stamps
    streams: Mapping[str, AlignedStream]
    rate_hz: float | None = None
    reference_stream: str | None = None

    def __len__(self) -> int:
        return len(self.tick_ns)


class AlignedSample(Mapping[str, Any]):
    """What every stream shows at one tick: `sample["camera_front"]`, None where nothing belongs.

    `residual_ns[stream]` says how far the sample is from the tick; None where there is none.
    """

    def __init__(
        self,
        tick_ns: int,
        streams: Mapping[str, Callable[[], Any]],
        residual_ns: dict[str, int | None],
    ) -> None:
        self.tick_ns = tick_ns
        self.residual_ns = residual_ns
        self._streams = streams

    def __getitem__(self, name: str) -> Any:
        return self._streams[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{n}: {'none' if r is None else f'{r / 1e6:+.1f} ms'}"
            for n, r in self.residual_ns.items()
        )
        return f"<AlignedSample tick_ns={self.tick_ns}; {shown}>"


class AlignedView:
    """The episode on one timeline; `view[k]` is tick k. Samples are read when looked up."""

    def __init__(self, timeline: Timeline, streams: Mapping[str, Stream]) -> None:
        self.timeline = timeline
        self._streams = {n: streams[n] for n in timeline.streams}

    @property
    def name(self) -> str:
        return self.timeline.name

    @property
    def tick_ns(self) -> Stamps:
        """(T,) i8 ticks."""
        return self.timeline.tick_ns

    @property
    def index(self) -> dict[str, Stamps]:
        """Per stream: (T,) i8 sample index, -1 for none."""
        return {n: s.index for n, s in self.timeline.streams.items()}

    @property
    def residual_ns(self) -> dict[str, Stamps]:
        """Per stream: (T,) i8 stamp minus tick, `NO_RESIDUAL` for none."""
        return {n: s.residual_ns for n, s in self.timeline.streams.items()}

    def __len__(self) -> int:
        return len(self.timeline)

    @overload
    def __getitem__(self, k: int) -> AlignedSample: ...
    @overload
    def __getitem__(self, k: slice) -> list[AlignedSample]: ...
    def __getitem__(self, k: int | slice) -> AlignedSample | list[AlignedSample]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        k = range(len(self))[k]
        tick = int(self.tick_ns[k])
        readers: dict[str, Callable[[], Any]] = {}
        residuals: dict[str, int | None] = {}
        for name, aligned in self.timeline.streams.items():
            i = int(aligned.index[k])
            residuals[name] = int(aligned.residual_ns[k]) if i >= 0 else None
            readers[name] = self._reader(name, i, tick)
        return AlignedSample(tick, readers, residuals)

    def __iter__(self) -> Iterator[AlignedSample]:
        return (self[k] for k in range(len(self)))

    def _reader(self, name: str, i: int, tick_ns: int) -> Callable[[], Any]:
        if i < 0:
            return lambda: None
        stream = self._streams[name]
        if self.timeline.streams[name].policy in ("linear", "slerp"):
            return lambda: interpolate(stream, i, tick_ns)
        return lambda: stream[i]

    def __repr__(self) -> str:
        rate = f" at {self.timeline.rate_hz:g} Hz" if self.timeline.rate_hz else ""
        return f"<AlignedView {self.name!r}: {len(self)} ticks{rate}, {len(self._streams)} streams>"


def interpolate(stream: Stream, i: int, tick_ns: int) -> Any:
    """Value of a signal between samples i and i + 1 at tick_ns.

    Floating-point fields are interpolated linearly, `orientation` (qw, qx, qy, qz) along the
    shorter great arc (slerp, Shoemake 1985); anything else, and the last sample, is held.
    """
    if i + 1 >= len(stream) or stream.kind not in (Kind.SIGNAL, Kind.TACTILE):
        return stream[i]
    t0, t1 = (int(t) for t in stream.stamp_ns[i : i + 2])
    weight = (tick_ns - t0) / (t1 - t0) if t1 > t0 else 0.0
    before, after = stream[i], stream[i + 1]
    if not isinstance(before, dict):
        only = stream.fields[0]
        return _between(only, before, after, weight)
    return {name: _between(name, before[name], after[name], weight) for name in before}


def _between(name: str, a: Any, b: Any, weight: float) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind != "f" or a.shape != b.shape:
        return a
    if name.endswith("orientation") and a.shape[-1:] == (4,):
        from mmdata.geometry import quat_slerp

        return quat_slerp(a, b, weight).astype(a.dtype)
    return a + (b - a) * a.dtype.type(weight)


@dataclass
class Episode:
    """One episode, opened for reading. Use it as a context manager, or call `close()`.

    >>> with open_episode("pick.h5") as ep:
    ...     ep.streams["camera_front"][0].shape
    ...     ep.aligned("30hz")[10]["joint_states"]
    """

    episode_id: str
    path: Path | None
    start_ns: int | None
    end_ns: int | None
    status: str
    reference_clock: str
    streams: Mapping[str, Stream]
    timelines: Mapping[str, Callable[[], Timeline]]
    rig: Rig
    metadata: Mapping[str, Any]
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    sync: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    closer: Callable[[], None] | None = None

    def aligned(self, name: str | None = None) -> AlignedView:
        """The aligned view of one timeline; without a name, of the only or first one.

        Raises KeyError naming the timelines there are.
        """
        if name is None and self.timelines:
            name = next(iter(self.timelines))
        if name is None or name not in self.timelines:
            have = ", ".join(self.timelines) or "none"
            raise KeyError(
                f"episode {self.episode_id!r} has no timeline {name!r} (it has: {have}); "
                "`mmdata align EPISODE --rate HZ` adds one"
            )
        return AlignedView(self.timelines[name](), self.streams)

    @property
    def duration_s(self) -> float:
        """Length in seconds, for display; 0 where there is no sample."""
        if self.start_ns is None or self.end_ns is None:
            return 0.0
        return (self.end_ns - self.start_ns) / 1e9

    def close(self) -> None:
        """Release the file."""
        if self.closer is not None:
            self.closer()

    def __enter__(self) -> Episode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                name,
                str(stream.kind),
                str(len(stream)),
                "" if stream.rate_hz is None else f"{stream.rate_hz:.4g}",
                ", ".join(stream.fields)
                if stream.kind is not Kind.IMAGE
                else str(stream.info.encoding),
            )
            for name, stream in self.streams.items()
        ]

    def _headline(self) -> str:
        timelines = ", ".join(self.timelines) or "none"
        return (
            f"{self.episode_id!r}: {self.duration_s:.3f} s, {len(self.streams)} streams, "
            f"timelines: {timelines}"
        )

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max((len(r[c]) for r in rows), default=0) for c in range(4)]
        lines = []
        for name, kind, count, rate, shown in rows:
            cells = [
                name.ljust(widths[0]),
                kind.ljust(widths[1]),
                count.rjust(widths[2]),
                f"{rate.rjust(widths[3])} Hz" if rate else " " * (widths[3] + 3),
                shown,
            ]
            lines.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join([f"<Episode {self._headline()}", *lines]) + ">"

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{h}</th>" for h in ("stream", "kind", "samples", "rate (Hz)", "fields")
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        return f"<b>Episode {html.escape(self._headline())}</b><table><tr>{head}</tr>{body}</table>"
