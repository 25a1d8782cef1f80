"""Alignment tick by tick: the same look-up for training and for a running robot.

`lookup` decides which sample every slot of a window sees. Training calls it for all ticks of an
episode at once, `OnlineAligner` for the tick that is due; nothing else decides.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmdata.align.tables import align_stream
from mmdata.clocks import SECOND_NS, Stamps
from mmdata.episode import NO_RESIDUAL, Policy
from mmdata.errors import ConfigError, SyncError

_FINEST_HZ = Fraction(1, 1000)


def grid_ticks(start_ns: int, end_ns: int, rate_hz: float) -> Stamps:
    """(T,) i8 ticks of a rate within [start, end], on a grid that is the same for everybody.

    Tick k is `floor(k * 1e9 / rate)`, counted from the clock's zero, so a robot and a recording
    agree on every tick without agreeing on a start. The rate is taken to 1 mHz. Raises ConfigError
    unless it lies in (0, 1e6].
    """
    per_cycle, cycle_ns = _cycle(rate_hz)
    first, last = _tick_range(start_ns, end_ns, per_cycle, cycle_ns)
    cycle, within = np.divmod(np.arange(first, last, dtype=np.int64), per_cycle)
    ticks: Stamps = cycle * cycle_ns + within * cycle_ns // per_cycle
    return ticks


def grid_count(start_ns: int, end_ns: int, rate_hz: float) -> int:
    """How many ticks `grid_ticks` gives."""
    first, last = _tick_range(start_ns, end_ns, *_cycle(rate_hz))
    return last - first


@cache
def _cycle(rate_hz: float) -> tuple[int, int]:
    """Ticks and length of a cycle of whole seconds: exact in int64, no drift."""
    if not 0 < rate_hz <= 1e6:
        raise ConfigError(f"a timeline's rate must be in (0, 1e6] Hz, not {rate_hz:g}")
    rate = Fraction(round(rate_hz / _FINEST_HZ), 1) * _FINEST_HZ
    return rate.numerator, rate.denominator * SECOND_NS


def _tick_range(start_ns: int, end_ns: int, per_cycle: int, cycle_ns: int) -> tuple[int, int]:
    first = _tick_number(start_ns, per_cycle, cycle_ns)
    return first, max(first, _tick_number(end_ns + 1, per_cycle, cycle_ns))


def _tick_number(stamp_ns: int, per_cycle: int, cycle_ns: int) -> int:
    """Number of the first tick at or after a stamp."""
    number = stamp_ns * per_cycle // cycle_ns
    while _tick(number, per_cycle, cycle_ns) < stamp_ns:
        number += 1
    return number


def _tick(number: int, per_cycle: int, cycle_ns: int) -> int:
    cycle, within = divmod(number, per_cycle)
    return cycle * cycle_ns + within * cycle_ns // per_cycle


@dataclass(frozen=True)
class Query:
    """What a window asks of one stream: the sample at `tick + offset` for each of its K slots.

    offset_ns (K,) i8. tolerance_ns: None means any distance.
    """

    stream: str
    offset_ns: Stamps
    policy: Policy = "previous"
    tolerance_ns: int | None = None

    @property
    def causal(self) -> bool:
        """Whether no slot can see a sample from its tick's future."""
        return self.policy == "previous" and bool((self.offset_ns <= 0).all())


def lookup(
    query: Query,
    stamp_ns: Stamps,
    tick_ns: Stamps,
    receive_ns: Stamps | None = None,
    delay_ns: int | None = None,
) -> tuple[Stamps, Stamps]:
    """Which sample each slot of each tick's window sees.

    stamp_ns (N,) i8 ascending, tick_ns (T,) i8. Returns index (T, K) i8 (-1: none) and residual_ns
    (T, K) i8 = stamp - (tick + offset), `NO_RESIDUAL` where index is -1.

    With delay_ns, only samples received by `tick + delay_ns` are there to be seen (receive_ns
    (N,) i8; without it a sample arrives at its stamp); a slot then takes the last one of them.
    """
    wanted = (tick_ns[:, None] + query.offset_ns).ravel()
    shape = (len(tick_ns), len(query.offset_ns))
    if delay_ns is None:
        index, residual = align_stream(stamp_ns, wanted, query.policy, query.tolerance_ns)
        return index.reshape(shape), residual.reshape(shape)
    if query.policy != "previous":
        raise ConfigError(
            f"stream {query.stream!r}: a delay goes with the policy 'previous' only, not "
            f"{query.policy!r}"
        )
    arrival = stamp_ns if receive_ns is None else receive_ns
    due = np.repeat(tick_ns + delay_ns, shape[1])
    index, _ = align_stream(stamp_ns, wanted)
    late = np.flatnonzero((index >= 0) & (arrival[index] > due)) if len(arrival) else index[:0]
    while len(late):
        index[late] -= 1
        late = late[(index[late] >= 0) & (arrival[index[late]] > due[late])]
    found = index >= 0
    residual = np.full(len(wanted), NO_RESIDUAL, np.int64)
    residual[found] = stamp_ns[index[found]] - wanted[found]
    if query.tolerance_ns is not None:
        far = found & (residual < -query.tolerance_ns)
        index[far], residual[far] = -1, NO_RESIDUAL
    return index.reshape(shape), residual.reshape(shape)


def hold(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill empty slots (-1) of each window (T, K) from the slot before, else from the one after.

    A window without any sample stays empty. No slot sees beyond its window's last slot.
    """
    if index.size == 0 or (index >= 0).all():
        return index
    slots = np.where(index >= 0, np.arange(index.shape[1]), -1)
    before = np.maximum.accumulate(slots, axis=1)
    after = np.where(slots >= 0, slots, index.shape[1])
    after = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    source = np.where(before >= 0, before, np.where(after < index.shape[1], after, 0))
    return np.take_along_axis(index, source, axis=1)


class Plan(Protocol):
    """What an `OnlineAligner` serves; `mmdata.loaders.Recipe.online` makes one."""

    @property
    def queries(self) -> Mapping[str, Query]:
        """Key -> what it asks."""

    @property
    def delay_ns(self) -> int:
        """How long after a tick its samples are waited for."""

    @property
    def rate_hz(self) -> float | None:
        """Rate of the ticks, or None where a stream's stamps are the ticks."""

    @property
    def tick_stream(self) -> str:
        """The stream whose stamps are the ticks, or whose first stamp starts them."""

    def prepare(self, stream: str, sample: Any) -> Mapping[str, Any]:
        """One message, processed for every key that reads the stream."""
        ...

    def assemble(self, tick_ns: int, rows: Mapping[str, Window]) -> dict[str, Any]:
        """The sample of a tick from what each key's window sees."""
        ...


@dataclass(frozen=True)
class Window:
    """What one key sees at one tick: rows of a buffer (or an episode), and which of them.

    items: sequence of prepared samples, stamps (n,) i8 theirs; index, residual_ns (K,) i8 say which
    of them each slot sees, -1 for none.
    """

    items: Any
    stamps: Stamps
    index: Stamps
    residual_ns: Stamps


@dataclass
class _Buffer:
    """Recent messages of one stream, by stamp; equal stamps in order of arrival."""

    horizon_ns: int
    stamps: list[int] = field(default_factory=list)
    receives: list[int] = field(default_factory=list)
    items: list[Mapping[str, Any]] = field(default_factory=list)

    def insert(self, stamp_ns: int, receive_ns: int, item: Mapping[str, Any]) -> None:
        at = bisect.bisect_right(self.stamps, stamp_ns)
        self.stamps.insert(at, stamp_ns)
        self.receives.insert(at, receive_ns)
        self.items.insert(at, item)

    def forget(self, tick_ns: int, due_ns: int) -> None:
        """Drop what no tick from tick_ns on can see: keep the last one before the horizon."""
        at = bisect.bisect_right(self.stamps, tick_ns - self.horizon_ns) - 1
        while at > 0 and self.receives[at] > due_ns:
            at -= 1
        if at > 0:
            del self.stamps[:at], self.receives[:at], self.items[:at]


class OnlineAligner:
    """Samples for a policy on a running robot, equal bit for bit to those it was trained on.

    >>> aligner = Recipe.load("policy.json").online()
    ... for message in robot:                                  # in any order, late, or missing
    ...     aligner.push(message.topic, message.data, message.stamp_ns, message.receive_ns)
    ...     for sample in aligner.poll(now_ns):
    ...         act(policy(sample))

    A tick is due `plan.delay_ns` after it; what has not arrived then does not belong to it, in
    training (by `receive_ns`) as here. Only messages near the open ticks are held. Not safe to
    share between threads.
    """

    def __init__(self, plan: Plan) -> None:
        ahead = [name for name, query in plan.queries.items() if not query.causal]
        if ahead:
            raise ConfigError(
                f"{', '.join(ahead)} would need samples from the future, which a robot does not "
                "have: give the key policy 'previous' and offsets up to 0, or make it a target"
            )
        self.plan = plan
        self.last_tick_ns: int | None = None
        self._buffers: dict[str, _Buffer] = {}
        for query in plan.queries.values():
            reach = -int(query.offset_ns.min(initial=0))
            known = self._buffers.setdefault(query.stream, _Buffer(reach))
            known.horizon_ns = max(known.horizon_ns, reach)
        self._buffers.setdefault(plan.tick_stream, _Buffer(0))
        self._now_ns: int | None = None
        self._start_ns: int | None = None
        self._ticks_seen: list[tuple[int, int]] = []

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams whose messages matter; others may be pushed and are ignored."""
        return tuple(self._buffers)

    @property
    def held(self) -> dict[str, int]:
        """Messages in memory per stream."""
        return {name: len(buffer.stamps) for name, buffer in self._buffers.items()}

    def push(self, stream: str, sample: Any, stamp_ns: int, receive_ns: int | None = None) -> None:
        """Hand over one message: a sample as `mmdata.Stream` gives it, or encoded image bytes.

        receive_ns: when it arrived, on the same clock; absent, it arrived at its stamp.
        """
        buffer = self._buffers.get(stream)
        if buffer is None:
            return
        receive = stamp_ns if receive_ns is None else receive_ns
        if self._now_ns is None or receive > self._now_ns:
            self._now_ns = receive
        buffer.insert(stamp_ns, receive, self.plan.prepare(stream, sample))
        if stream == self.plan.tick_stream:
            if self._start_ns is None or (self.last_tick_ns is None and stamp_ns < self._start_ns):
                self._start_ns = stamp_ns
            if self.plan.rate_hz is None:
                bisect.insort(self._ticks_seen, (stamp_ns, receive))

    def poll(self, now_ns: int | None = None) -> Iterator[dict[str, Any]]:
        """Samples of the ticks that have become due by now_ns (default: the latest arrival).

        A tick whose deadline is exactly now_ns waits until now_ns has passed, because messages may
        still arrive at it.
        """
        now = self._now_ns if now_ns is None else now_ns
        if now is None:
            return
        for tick in self._due(now - self.plan.delay_ns - 1):
            if self.last_tick_ns is None or tick > self.last_tick_ns:
                yield self.sample(tick)

    def sample(self, tick_ns: int) -> dict[str, Any]:
        """The sample of one tick from what has arrived by its deadline.

        Ticks are asked for in ascending order: what only earlier ticks could see is forgotten.
        Raises SyncError otherwise.
        """
        if self.last_tick_ns is not None and tick_ns < self.last_tick_ns:
            raise SyncError(
                f"tick {tick_ns} lies before {self.last_tick_ns}, whose sample was taken already"
            )
        self.last_tick_ns = tick_ns
        ticks = np.array([tick_ns], np.int64)
        windows = {}
        for name, query in self.plan.queries.items():
            buffer = self._buffers[query.stream]
            stamps = np.array(buffer.stamps, np.int64)
            arrivals = np.array(buffer.receives, np.int64)
            index, residual = lookup(query, stamps, ticks, arrivals, self.plan.delay_ns)
            items = [item[name] for item in buffer.items]
            windows[name] = Window(items, stamps, index[0], residual[0])
        sample = self.plan.assemble(tick_ns, windows)
        for buffer in self._buffers.values():
            buffer.forget(tick_ns, tick_ns + self.plan.delay_ns)
        return sample

    def _due(self, until_ns: int) -> list[int]:
        if self._start_ns is None:
            return []
        if self.plan.rate_hz is not None:
            start = self._start_ns if self.last_tick_ns is None else self.last_tick_ns + 1
            return [int(t) for t in grid_ticks(start, until_ns, self.plan.rate_hz)]
        ticks = []
        while self._ticks_seen and self._ticks_seen[0][0] <= until_ns:
            stamp, receive = self._ticks_seen.pop(0)
            if receive <= stamp + self.plan.delay_ns:
                ticks.append(stamp)
        return ticks
