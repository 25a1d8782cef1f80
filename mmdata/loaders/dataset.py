"""EpisodeDataset: map-style windows over a folder, a list or a manifest of episodes."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mmdata.cores import usable_cores
from mmdata.errors import ConfigError, FormatError
from mmdata.loaders.counting import count_samples, count_ticks
from mmdata.loaders.crew import Crew, Task
from mmdata.loaders.episode_data import EpisodeData
from mmdata.loaders.index import EpisodeFacts, fingerprint, load_index
from mmdata.loaders.items import Caches
from mmdata.loaders.labels import sidecars_of
from mmdata.loaders.plan import Key, Scaling
from mmdata.loaders.remote import is_remote
from mmdata.loaders.spec import ReferenceTimeline, SampleSpec

if TYPE_CHECKING:
    from mmdata.loaders.recipe import Recipe
    from mmdata.loaders.statistics import Statistics

_EPISODE_BYTES = 1 << 30
_FRAME_BYTES = 384 << 20


class EpisodeDataset:
    """Samples of many episodes, by number.

    >>> dataset = EpisodeDataset("demos/", spec)
    >>> sample = dataset[0]          # {"image": (2, 3, 96, 96), "image.mask": (2,), "state": ...}
    >>> batch = dataset.batch([5, 17, 4])        # the same with a leading dimension

    source: folder, list of paths or URLs, manifest file, or facts of a split. Sample n lies in the
    episode and at the tick that order of path and of time give it. Episodes are read when they are
    needed; what is held is bounded: episode_bytes for stamps, signals and offsets, a quarter of it
    for parts of signals too big to be held, frame_bytes for decoded video, all per process. Threads
    may share a dataset. After a fork, or pickled to another process, it opens its files anew.

    threads: that share the decoding of a batch, or of one sample's images. Absent: as many as there
    are cores, and one in processes the dataset is forked or sent to (a loader's workers).
    workers: processes used while the index is made (and filters are judged) for the first time;
    below 2, as many as there are cores for a thousand new episodes or more.
    Raises ConfigError where the spec does not fit the episodes, and what `open_episode` raises.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Iterable[Any] | Sequence[EpisodeFacts],
        spec: SampleSpec,
        *,
        statistics: Statistics | None = None,
        split: str | None = None,
        workers: int = 0,
        threads: int | None = None,
        episode_bytes: int = _EPISODE_BYTES,
        frame_bytes: int = _FRAME_BYTES,
    ) -> None:
        self.spec = spec
        self.split_name = split
        self.workers = workers
        self.threads = threads
        self._home = os.getpid()
        self.episode_bytes, self.frame_bytes = episode_bytes, frame_bytes
        if isinstance(source, list | tuple) and source and isinstance(source[0], EpisodeFacts):
            facts = list(source)
        else:
            facts = load_index(source, workers=workers)
        self._sidecars: dict[str, list[Path]] = {}
        if spec.labels or spec.filters.phase or spec.filters.min_grade:
            folders = {Path(f.path).parent for f in facts if not is_remote(f.path)}
            for folder in folders:
                self._sidecars.update(
                    {f"{folder}/{k}": paths for k, paths in sidecars_of(folder).items()}
                )
        self.episodes: list[EpisodeFacts] = [f for f in facts if self._wanted(f)]
        if not self.episodes:
            raise ConfigError("no episode passes the spec's filters")
        self._scalings: dict[str, Scaling] = {}
        self.statistics = statistics
        if statistics is not None:
            self._scalings = statistics.scalings(spec)
        self._near = False
        self._fresh()
        self._ends = np.cumsum(self._counts())
        self._ends_list: list[int] = self._ends.tolist()

    # -- facts -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def counts(self) -> NDArray[np.int64]:
        """(E,) i8 samples per episode."""
        return np.diff(self._ends, prepend=0)

    @property
    def fingerprint(self) -> str:
        """sha256 of the episodes' contents: equal for equal data wherever it lies."""
        return fingerprint(self.episodes)

    def locate(self, n: int) -> tuple[int, int]:
        """(episode, sample within it) of sample n. Raises IndexError."""
        n = int(n)
        if not 0 <= n < self._ends_list[-1]:
            raise IndexError(f"sample {n} of a dataset of {len(self)}")
        episode = bisect_right(self._ends_list, n)
        return episode, n - (self._ends_list[episode - 1] if episode else 0)

    def keys(self) -> dict[str, Key]:
        """The spec's keys on the first episode that has samples: shapes, dtypes, streams."""
        self._require_statistics()
        first = int(np.argmax(self.counts > 0))
        return self._episode(first).keys

    # -- samples -----------------------------------------------------------------------------

    def __getitem__(self, n: int) -> dict[str, Any]:
        """Sample n: dict of arrays as the spec says, with `episode`, `tick` and `tick_ns`."""
        episode, within = self.locate(n + len(self) if n < 0 else n)
        sample = self._episode(episode).sample(within, self._crew)
        sample["episode"] = episode
        return sample

    def batch(self, numbers: Sequence[int] | NDArray[Any], empty: Any = None) -> dict[str, Any]:
        """Samples stacked, each written straight to its place in the batch.

        empty(shape, dtype): how batch arrays are allocated (shared memory, pinned memory); absent,
        in memory that is used again once a batch is let go. Text becomes a list.
        Raises ConfigError when samples differ in shape.
        """
        if self._pid != os.getpid():
            self._fresh()  # decoders and locks of the parent are not ours
        empty = self._caches.memory.empty if empty is None else empty
        located = [self.locate(n) for n in numbers]
        parts = [(self._episode(e), w) for e, w in located]
        result: dict[str, Any] = {"episode": np.array([e for e, _ in located], np.int64)}
        ticks = [int(data.kept[w]) for data, w in parts]
        result["tick"] = np.array(ticks, np.int64)
        result["tick_ns"] = np.array(
            [data.tick_ns[t] for (data, _), t in zip(parts, ticks, strict=True)], np.int64
        )
        where = list(zip((data for data, _ in parts), ticks, strict=True))
        tasks: list[Task] = []
        for name in self.spec.keys:
            tasks += fill(result, name, where, empty)
        self._crew.run(tasks)
        for name in self.spec.labels:
            values = [data.labels[name][t] for data, t in where]
            result[name] = values if isinstance(values[0], str) else np.stack(values)
        return result

    def __getitems__(self, numbers: Sequence[int]) -> dict[str, Any]:
        """What a torch DataLoader asks for: a finished batch."""
        return self.batch(numbers)

    def block_size(self, gops: int = 2) -> int:
        """Samples that `gops` groups of pictures make, for `BlockShuffle`; 64 without video.

        Taken from the first episode's video with the longest groups.
        """
        self._require_statistics()
        data = self._episode(int(np.argmax(self.counts > 0)))
        longest = 0.0
        for items in data.items.values():
            video = getattr(items, "video", None)
            if video is not None and len(data):
                frames = video.gop * gops
                longest = max(longest, frames * len(data) / max(1, int((video.uses > 0).sum())))
        return max(1, round(longest)) if longest else 64

    def expect(self, near: bool) -> None:
        """Say whether samples will be asked for near one another (`Order.near`).

        If so, what is decoded on the way to a frame is kept for the windows that follow.
        """
        self._near = self._caches.frames.keep = near

    # -- derived datasets --------------------------------------------------------------------

    def split(self, fractions: Mapping[str, float], seed: int = 0) -> dict[str, EpisodeDataset]:
        """Datasets of disjoint episodes, by name.

        An episode's part depends on its id and the seed only, so adding episodes moves none. Parts
        have about the wanted sizes. Raises ConfigError when a part is left without episodes.
        """
        from mmdata.loaders.splits import assign

        names = [assign(f.episode_id, fractions, seed) for f in self.episodes]
        parts = {
            name: [f for f, n in zip(self.episodes, names, strict=True) if n == name]
            for name in fractions
        }
        for name, facts in parts.items():
            if not facts:
                raise ConfigError(f"split {name!r} has no episode; there are {len(names)} in all")
        return {name: self._derived(facts, name) for name, facts in parts.items()}

    def with_statistics(self, statistics: Statistics) -> EpisodeDataset:
        """This dataset, normalised by statistics of a training split."""
        derived = self._derived(self.episodes, self.split_name)
        derived.statistics = statistics
        derived._scalings = statistics.scalings(self.spec)
        return derived

    def recipe(self) -> Recipe:
        """Everything a robot needs to make the same samples."""
        from mmdata.loaders.recipe import Recipe

        return Recipe.of(self)

    # -- internals ---------------------------------------------------------------------------

    def _derived(self, facts: list[EpisodeFacts], split: str | None) -> EpisodeDataset:
        return EpisodeDataset(
            facts,
            self.spec,
            statistics=self.statistics,
            split=split,
            workers=self.workers,
            threads=self.threads,
            episode_bytes=self.episode_bytes,
            frame_bytes=self.frame_bytes,
        )

    def _fresh(self) -> None:
        self._pid = os.getpid()
        cores = usable_cores() if self._pid == self._home else 1
        self._crew = Crew(cores if self.threads is None else max(1, self.threads))
        self._lock = threading.Lock()
        self._held: OrderedDict[int, EpisodeData] = OrderedDict()
        self._held_bytes = 0
        self._caches = Caches(self.frame_bytes, self.episode_bytes // 4)
        self._caches.frames.keep = self._near

    def _episode(self, number: int) -> EpisodeData:
        if self._pid != os.getpid():
            self._fresh()
        data = self._held.get(number)
        if data is not None:
            if len(self._held) > 1:
                with self._lock:
                    if number in self._held:
                        self._held.move_to_end(number)
            return data
        self._require_statistics()
        data = self._load(number)
        with self._lock:
            if number not in self._held:
                self._held[number] = data
                self._held_bytes += data.nbytes
            while self._held_bytes > self.episode_bytes and len(self._held) > 1:
                self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        return data

    def _load(self, number: int) -> EpisodeData:
        facts = self.episodes[number]
        data = EpisodeData(facts.path, self.spec, self._scalings, self._caches, self._beside(facts))
        counted = self._ends_list[number] - (self._ends_list[number - 1] if number else 0)
        if len(data) != counted:
            raise FormatError(
                f"{facts.path} has {len(data)} samples and had {counted} when the dataset was "
                "opened: it or its labels changed since; open the dataset anew"
            )
        return data

    def _beside(self, facts: EpisodeFacts) -> list[Path]:
        if not self._sidecars:
            return []
        return self._sidecars.get(f"{Path(facts.path).parent}/{facts.episode_id}", [])

    def _require_statistics(self) -> None:
        normalised = [name for name, key in self.spec.keys.items() if key.normalise]
        if normalised and not self._scalings:
            raise ConfigError(
                f"{', '.join(normalised)}: normalising needs statistics of the training split: "
                "dataset.with_statistics(compute_statistics(train))"
            )

    def _wanted(self, facts: EpisodeFacts) -> bool:
        filters = self.spec.filters
        for name, values in filters.metadata.items():
            if str(facts.metadata.get(name, "")) not in values:
                return False
        if filters.min_grade is not None:
            from mmdata.loaders.labels import read_labels
            from mmdata.loaders.remote import open_any

            with open_any(facts.path) as episode:
                grade = read_labels(episode, self._beside(facts)).grade
            return grade is not None and grade <= filters.min_grade
        return True

    def _counts(self) -> NDArray[np.int64]:
        """Samples per episode: from the index where ticks are not judged one by one."""
        filters, spec = self.spec.filters, self.spec
        judged = filters.complete or filters.max_residual_ms is not None or filters.phase
        if isinstance(spec.timeline, ReferenceTimeline) and spec.delay_ns is not None:
            judged = True
        if judged:
            return count_samples(self, self.workers)
        return np.array([count_ticks(f, spec) for f in self.episodes], np.int64)

    def unnormalised(self) -> Self:
        """The same samples without normalisation (what statistics are computed from)."""
        keys = {n: k.model_copy(update={"normalise": None}) for n, k in self.spec.keys.items()}
        plain = object.__new__(type(self))
        plain.__dict__.update(self.__dict__)
        plain.spec = self.spec.model_copy(update={"keys": keys})
        plain._scalings, plain.statistics = {}, None
        plain._fresh()
        return plain

    def __getstate__(self) -> dict[str, Any]:
        own = {"_lock", "_held", "_held_bytes", "_caches", "_pid", "_crew"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fresh()

    def __repr__(self) -> str:
        split = f" {self.split_name!r}" if self.split_name else ""
        return (
            f"<EpisodeDataset{split}: {len(self):,} samples of {len(self.episodes):,} episodes; "
            f"{', '.join(self.spec.keys)}>"
        )


def fill(
    result: dict[str, Any], name: str, where: list[tuple[EpisodeData, int]], empty: Any
) -> list[Task]:
    """Put one key of many (episode, tick) into a batch; what needs decoding is left as tasks."""
    key = where[0][0].keys[name]
    for data, _ in where:
        if data.keys[name].shape != key.shape:
            raise ConfigError(
                f"{name}: samples of shape {key.shape} and {data.keys[name].shape} in one batch; "
                "give images a size_hw, or keep such episodes apart"
            )
    plain = (
        name in where[0][0].slots
        and name not in where[0][0]._raw
        and hasattr(where[0][0].items[name], "into")
    )
    if not plain:
        parts = [data.key_sample(name, tick) for data, tick in where]
        for part in parts[0]:
            values = [p[part] for p in parts]
            is_text = key.text and part == name
            result[part] = values if is_text else np.stack(values)
        return []
    window = () if key.spec.single else (key.slots,)
    value = empty((len(where), *window, *key.shape), np.dtype(key.dtype))
    array = np.asarray(value)
    mask = np.empty((len(where), *window), np.bool_)
    tasks: list[Task] = []
    videos: dict[int, tuple[Any, list[tuple[NDArray[Any], NDArray[Any]]]]] = {}
    for b, (data, tick) in enumerate(where):
        slots, items = data.slots[name], data.items[name]
        mask[b] = slots.mask[tick, 0] if key.spec.single else slots.mask[tick]
        seen, out = slots.seen[tick], array[b : b + 1] if key.spec.single else array[b]
        if name in data.tables:
            items.into(seen, out)
        elif getattr(items, "video", None) is None:
            tasks.append(partial(items.into, seen, out))
        else:
            videos.setdefault(id(items), (items, []))[1].append((seen, out))
    tasks += [partial(_in_order, items, windows) for items, windows in videos.values()]
    result[name], result[f"{name}.mask"] = value, mask
    return tasks


def _in_order(items: Any, windows: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Windows of one video by time, so that a group of pictures is decoded once for all of them."""
    for seen, out in sorted(windows, key=lambda w: int(w[0].min())):
        items.into(seen, out)
