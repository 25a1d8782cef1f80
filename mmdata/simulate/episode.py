"""A simulated episode: streams with their true and their recorded stamps, and the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmdata.clocks import Clock
from mmdata.episode import Episode
from mmdata.geometry import Rig
from mmdata.streams import FieldInfo, Kind, Ragged, Stream, StreamInfo, offsets_name

Stamps = npt.NDArray[np.int64]
Values = npt.NDArray[Any] | Ragged


@dataclass(frozen=True)
class SimStream:
    """One stream as the log holds it, in recording order.

    Args:
        true_ns: (N,) int64, when each sample was really taken (exposure, sweep start, first
            audio sample).
        receive_ns: (N,) int64 log stamps.
        source_ns: (N,) int64 header stamps; None where the message type has no header.
        fields: payload by name: arrays (N, ...) or Ragged with N rows.
        message: ROS 2 message type.
        info: name, kind, channels and so on, as `mmdata convert` names them.
        span_ns: how long one sample takes (sweep, block of audio); it arrives complete.
    """

    info: StreamInfo
    message: str
    true_ns: Stamps
    receive_ns: Stamps
    source_ns: Stamps | None
    fields: Mapping[str, Values]
    span_ns: int = 0

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def topic(self) -> str:
        assert self.info.source_topic is not None
        return self.info.source_topic

    def __len__(self) -> int:
        return len(self.true_ns)

    def to_stream(self) -> Stream:
        """The stream as an episode would hold it, ordered by header (else log) stamp."""
        stamps = self.receive_ns if self.source_ns is None else self.source_ns
        order = np.argsort(stamps, kind="stable")
        arrays: dict[str, Any] = {"stamp_ns": stamps[order], "receive_ns": self.receive_ns[order]}
        if self.source_ns is not None:
            arrays["source_ns"] = self.source_ns[order]
        if (np.diff(order) < 0).any():
            arrays["recorded"] = order
        for name, values in self.fields.items():
            rows = take(values, order)
            arrays[name] = rows.data if isinstance(rows, Ragged) else rows
            if isinstance(rows, Ragged):
                arrays[offsets_name(self.info.kind, name)] = rows.offsets
        return Stream(self.info, arrays)


class SimMessage(NamedTuple):
    """One message of the log; payload maps field names to arrays."""

    topic: str
    message: str
    log_ns: int
    stamp_ns: int | None
    payload: dict[str, Any]
    stream: SimStream


@dataclass(frozen=True)
class SimEpisode:
    """A simulated recording and everything that is true about it.

    Args:
        streams: the data streams by name, ready to read, as a converter would name them.
        raw: the same by name, in recording order, with true stamps.
        truth: JSON-like: phases, events, object poses, faults, exposure stamps.
        world: the continuous truth, evaluated at any time.
        setup: messages sent once: calibration, static transforms, robot description.
    """

    episode_id: str
    start_ns: int
    end_ns: int
    rig: Rig
    raw: Mapping[str, SimStream]
    truth: dict[str, Any]
    world: Any
    setup: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    _streams: dict[str, Stream] = field(default_factory=dict, init=False, repr=False)

    @property
    def streams(self) -> Mapping[str, Stream]:
        if not self._streams:
            self._streams.update({n: s.to_stream() for n, s in self.raw.items()})
        return self._streams

    def messages(self) -> Iterator[SimMessage]:
        """All messages but the setup's, in the order in which the log received them."""
        names = list(self.raw)
        stamps = np.concatenate([self.raw[n].receive_ns for n in names])
        owner = np.repeat(np.arange(len(names)), [len(self.raw[n]) for n in names])
        row = np.concatenate([np.arange(len(self.raw[n])) for n in names])
        for k in np.argsort(stamps, kind="stable"):
            stream, i = self.raw[names[owner[k]]], int(row[k])
            stamp = None if stream.source_ns is None else int(stream.source_ns[i])
            payload = {name: values[i] for name, values in stream.fields.items()}
            yield SimMessage(stream.topic, stream.message, int(stamps[k]), stamp, payload, stream)

    def to_episode(self) -> Episode:
        """The recording as an open Episode in memory, without a file."""
        ends = [s.end_ns for s in self.streams.values() if s.end_ns is not None]
        return Episode(
            episode_id=self.episode_id,
            path=None,
            start_ns=min((s.start_ns for s in self.streams.values() if s.start_ns), default=None),
            end_ns=max(ends, default=None),
            status="complete",
            reference_clock="header",
            streams=self.streams,
            timelines={},
            rig=self.rig,
            metadata={"task": self.truth["task"]},
            clocks={"header": Clock("header", "unix"), "receive": Clock("receive", "unix")},
        )


def write_truth(path: str | Path, episode: SimEpisode) -> None:
    """Write the truth as JSON."""
    Path(path).write_text(json.dumps(episode.truth, indent=1) + "\n", encoding="utf-8")


def take(values: Values, index: npt.NDArray[np.intp] | Stamps) -> Values:
    """Rows of an array or Ragged, in the order of index."""
    if not isinstance(values, Ragged):
        return values[index]
    if np.array_equal(index, np.arange(len(values))):
        return values
    return Ragged.from_rows([values[int(i)] for i in index], values.data.dtype)


def make_stream(
    name: str,
    kind: Kind,
    topic: str,
    message: str,
    true_ns: Stamps,
    receive_ns: Stamps,
    fields: Mapping[str, Values],
    *,
    header: bool = True,
    frame_id: str | None = None,
    sensor: str | None = None,
    encoding: str | None = None,
    channels: Mapping[str, tuple[str, ...]] | None = None,
    units: Mapping[str, str] | None = None,
    attrs: Mapping[str, Any] | None = None,
    span_ns: int = 0,
) -> SimStream:
    """A clean stream: header stamps are the true ones."""
    channels, units = channels or {}, units or {}
    info = StreamInfo(
        name=name,
        kind=kind,
        fields={n: FieldInfo.of(v, units.get(n), channels.get(n)) for n, v in fields.items()},
        clock="header" if header else "receive",
        frame_id=frame_id,
        sensor=sensor,
        source_topic=topic,
        source_type=message,
        stamp_source="header" if header else "receive",
        encoding=encoding,
        attrs=attrs or {},
    )
    return SimStream(
        info, message, true_ns, receive_ns, true_ns if header else None, fields, span_ns
    )


def sample_stamps(
    rng: np.random.Generator, start_ns: int, end_ns: int, rate_hz: float, jitter_s: float
) -> Stamps:
    """Instants from start to end at a rate, with a random phase and an independent jitter."""
    period = 1e9 / rate_hz
    ideal = np.arange(rng.uniform(0.0, 1.0) * period, float(end_ns - start_ns), period)
    jitter = np.clip(rng.normal(0, jitter_s * 1e9, len(ideal)), -0.3 * period, 0.3 * period)
    return start_ns + np.maximum(0, np.rint(ideal + jitter)).astype(np.int64)


def arrive(rng: np.random.Generator, true_ns: Stamps, base_s: float, mean_extra_s: float) -> Stamps:
    """Log stamps: one-sided delays over a fixed minimum, first in first out."""
    delay = base_s + rng.exponential(mean_extra_s, len(true_ns))
    return np.maximum.accumulate(true_ns + np.rint(delay * 1e9).astype(np.int64))
