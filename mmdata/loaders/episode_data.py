"""One episode as a dataset holds it: ticks, which sample every slot sees, and where samples lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.align.online import grid_ticks, hold, lookup
from mmdata.clocks import SAME_EPOCH_NS, Stamps
from mmdata.episode import NO_RESIDUAL, Episode
from mmdata.errors import ConfigError
from mmdata.geometry import quat_slerp
from mmdata.loaders.crew import Crew
from mmdata.loaders.items import Caches, TableItems, open_items
from mmdata.loaders.labels import read_labels
from mmdata.loaders.plan import Key, Scaling, compile_keys, gather, gather_audio
from mmdata.loaders.remote import byte_source, open_any
from mmdata.loaders.spec import RateTimeline, ReferenceTimeline, SampleSpec
from mmdata.streams import Kind, Stream

Array = NDArray[Any]
_ALONE = Crew(1)


class Slots:
    """Which sample every slot of every tick sees, for one key.

    index (T, K) i4: -1 where the slot is padding. seen (T, K) i4: the same after `pad`.
    """

    def __init__(self, key: Key, index: Stamps) -> None:
        self.index = index.astype(np.int32)
        self.mask = self.index >= 0
        self.full = bool(self.mask.all())
        held = hold(index) if key.spec.pad == "hold" else index
        self.seen = held.astype(np.int32)

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.mask.nbytes + self.seen.nbytes


class EpisodeData:
    """Everything windows of one episode need. Holds no open HDF5 file, so it survives a fork."""

    def __init__(
        self,
        path: str,
        spec: SampleSpec,
        scalings: Mapping[str, Scaling],
        caches: Caches,
        sidecars: Sequence[Path] = (),
        payload: bool = True,
    ) -> None:
        """payload: False for the ticks and slots alone, which is what counting samples needs."""
        self.spec = spec
        with open_any(path) as episode:
            self.keys = compile_keys(
                spec.keys, _infos(episode, {k.stream for k in spec.keys.values()}), scalings
            )
            self.tick_ns = ticks_of(episode, spec)
            source = byte_source(path)
            self.stamps: dict[str, Stamps] = {}
            self.slots: dict[str, Slots] = {}
            self.items: dict[str, Any] = {}
            self._raw: dict[str, dict[str, Array]] = {}
            residuals: dict[str, Stamps] = {}
            arrivals: dict[str, Stamps | None] = {}
            for name, key in self.keys.items():
                stream = episode.streams[key.info.name]
                stamps = self.stamps.setdefault(key.info.name, np.array(stream.stamp_ns))
                if payload:
                    self.items[name] = open_items(key, stream, source, caches, (path, name))
                if payload and key.spec.policy in ("linear", "slerp"):
                    self._raw[name] = {f: np.asarray(stream[f]) for f in key.fields}
                if key.info.kind is Kind.AUDIO:
                    arrivals[name] = arrival_ns(stream, spec)
                    continue
                index, residuals[name] = self._lookup(key, stream, stamps)
                self.slots[name] = Slots(key, index)
            self._arrivals = arrivals
            labels = None
            if spec.labels or spec.filters.phase or spec.filters.min_grade:
                labels = read_labels(episode, sidecars)
            self.labels: dict[str, Any] = {
                name: labels.column(label, self.tick_ns)
                for name, label in spec.labels.items()
                if labels is not None and payload
            }
            phase = spec.filters.phase
            inside = None
            if phase is not None and labels is not None:
                inside = labels.phase_of(self.tick_ns, phase) >= 0
        self.tables = {
            name: items.table
            for name, items in self.items.items()
            if isinstance(items, TableItems) and name not in self._raw
        }
        self.kept = self._kept(residuals, inside)
        for name, items in self.items.items():
            video = getattr(items, "video", None)
            if video is not None:
                seen = self.slots[name].seen[self.kept]
                video.uses = np.bincount(
                    seen[seen >= 0], minlength=len(self.stamps[self.keys[name].info.name])
                )
        self.nbytes = self._nbytes()

    def __len__(self) -> int:
        """Samples: ticks that pass the filters."""
        return len(self.kept)

    def sample(self, n: int, crew: Crew = _ALONE) -> dict[str, Any]:
        """Sample n: every key, its mask, the labels, `tick` and `tick_ns`. crew: decodes images."""
        tick = int(self.kept[n])
        result: dict[str, Any] = {"tick": tick, "tick_ns": self.tick_ns[tick]}
        read: dict[str, dict[str, Any]] = {}
        if len(self.tables) < len(self.keys):
            self._read(read, tick, crew)
        for name, key in self.keys.items():
            table = self.tables.get(name)
            if table is None:
                result.update(read[name])
                continue
            slots = self.slots[name]  # the common case, kept short: it sets the pace
            value, mask = table.take(slots.seen[tick], axis=0, mode="wrap"), slots.mask[tick]
            single = key.spec.single
            result[name] = value[0] if single else value
            result[f"{name}.mask"] = mask[0] if single else mask
        for name, column in self.labels.items():
            result[name] = column[tick]
        return result

    def _read(self, read: dict[str, dict[str, Any]], tick: int, crew: Crew) -> None:
        """Keys that do not lie in memory."""

        def task(name: str) -> None:
            read[name] = self.key_sample(name, tick)

        crew.run([partial(task, name) for name in self.keys if name not in self.tables])

    def key_sample(self, name: str, tick: int) -> dict[str, Any]:
        """One key at one tick: its value and masks."""
        key = self.keys[name]
        if name not in self.slots:
            return self._audio(key, tick)
        if name in self._raw:
            return self._interpolated(key, tick)
        return gather(key, self.items[name], self.slots[name].index[tick])

    # -- making ------------------------------------------------------------------------------

    def _lookup(self, key: Key, stream: Stream, stamps: Stamps) -> tuple[Stamps, Stamps]:
        if key.spec.target:
            index, residual = lookup(key.query, stamps, self.tick_ns)
            # Where the episode and the stream are over, a held value is padding.
            if len(self.tick_ns) and len(stamps):
                end = max(self.tick_ns[-1], stamps[-1])
                index = np.where(self.tick_ns[:, None] + key.query.offset_ns > end, -1, index)
            return index, residual
        arrival = arrival_ns(stream, self.spec)
        return lookup(key.query, stamps, self.tick_ns, arrival, self.spec.delay_ns)

    def _kept(self, residuals: Mapping[str, Stamps], inside: Array | None) -> NDArray[np.int64]:
        keep = np.ones(len(self.tick_ns), np.bool_)
        filters = self.spec.filters
        for name in self.spec.observations:
            if name not in self.slots:
                continue
            slots = self.slots[name]
            if filters.complete:
                keep &= slots.mask.all(axis=1)
            if filters.max_residual_ms is not None:
                residual = np.where(residuals[name] == NO_RESIDUAL, 0, residuals[name])
                keep &= (np.abs(residual) <= filters.max_residual_ms * 1e6).all(axis=1)
        if inside is not None:
            keep &= inside
        return np.flatnonzero(keep)

    def _nbytes(self) -> int:
        parts = [self.tick_ns.nbytes, self.kept.nbytes, 4096]
        parts += [stamps.nbytes for stamps in self.stamps.values()]
        parts += [slots.nbytes for slots in self.slots.values()]
        parts += [items.nbytes for items in self.items.values()]
        parts += [a.nbytes for raw in self._raw.values() for a in raw.values()]
        parts += [64 * len(column) for column in self.labels.values()]
        return sum(parts)

    # -- windows that need more than a look-up -----------------------------------------------

    def _audio(self, key: Key, tick: int) -> dict[str, Any]:
        stamps = self.stamps[key.info.name]
        ticks = self.tick_ns[tick : tick + 1]
        delay = None if key.spec.target else self.spec.delay_ns
        index, _ = lookup(key.query, stamps, ticks, self._arrivals[key.name], delay)
        blocks = self.items[key.name]
        return gather_audio(key, blocks, index[0], int(ticks[0]), stamps)

    def _interpolated(self, key: Key, tick: int) -> dict[str, Any]:
        slots, stamps = self.slots[key.name], self.stamps[key.info.name]
        seen = slots.seen[tick].astype(np.int64)
        before = np.maximum(seen, 0)
        after = np.minimum(before + 1, len(stamps) - 1)
        span = stamps[after] - stamps[before]
        since = self.tick_ns[tick] + key.query.offset_ns - stamps[before]
        weight = np.where(span > 0, since / np.maximum(span, 1), 0.0).clip(0.0, 1.0)
        columns = {
            name: _between(name, raw[before], raw[after], weight)
            for name, raw in self._raw[key.name].items()
        }
        value = key.rows(columns)
        value[seen < 0] = 0
        mask = slots.mask[tick]
        single = key.spec.single
        return {
            key.name: value[0] if single else value,
            f"{key.name}.mask": mask[0] if single else mask,
        }


def _between(name: str, a: Array, b: Array, weight: Array) -> Array:
    """Rows between a and b (n, ...): slerp for orientations, linear for floats, else a."""
    if a.dtype.kind != "f":
        return a
    if name.endswith("orientation") and a.shape[-1] == 4:
        return quat_slerp(a, b, weight)
    shaped = weight.reshape(-1, *([1] * (a.ndim - 1)))
    return np.asarray(a + (b - a) * shaped)


def ticks_of(episode: Episode, spec: SampleSpec) -> Stamps:
    """(T,) i8 ticks of an episode under a spec's timeline."""
    timeline = spec.timeline
    if isinstance(timeline, RateTimeline | ReferenceTimeline):
        name = spec.tick_stream
        if name not in episode.streams:
            raise ConfigError(
                f"episode {episode.episode_id!r} has no stream {name!r} to make ticks from; it has "
                f"{', '.join(episode.streams)}"
            )
        stream = episode.streams[name]
        if isinstance(timeline, RateTimeline):
            if stream.start_ns is None or stream.end_ns is None:
                return np.empty(0, np.int64)
            return grid_ticks(stream.start_ns, stream.end_ns, timeline.rate_hz)
        stamps = stream.stamp_ns
        arrival = arrival_ns(stream, spec)
        if spec.delay_ns is not None and arrival is not None:
            stamps = stamps[arrival <= stamps + spec.delay_ns]
        return np.unique(stamps)
    try:
        return np.asarray(episode.aligned(timeline.name).tick_ns, np.int64)
    except KeyError as error:
        raise ConfigError(str(error.args[0])) from None


def arrival_ns(stream: Stream, spec: SampleSpec) -> Stamps | None:
    """(N,) i8 when each sample arrived, on the stamps' clock; None where arrival plays no part.

    Raises ConfigError where arrivals are on another clock, because then nobody knows the latency.
    """
    if spec.delay_ns is None or stream.receive_ns is None:
        return None
    receive = np.array(stream.receive_ns)
    if len(receive) and abs(int(np.median(receive - stream.stamp_ns))) > SAME_EPOCH_NS:
        raise ConfigError(
            f"stream {stream.name!r}: its receive stamps are on another clock than its samples, so "
            "delay_ms cannot be judged; leave delay_ms out"
        )
    return receive


def _infos(episode: Episode, names: set[str]) -> dict[str, Any]:
    missing = names - set(episode.streams)
    if missing:
        raise ConfigError(
            f"episode {episode.episode_id!r} has no stream {', '.join(sorted(missing))}; it has "
            f"{', '.join(episode.streams)}"
        )
    return {name: episode.streams[name].info for name in names}
