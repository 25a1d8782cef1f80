"""How many samples each episode has, where filters judge tick by tick. Judged once, then kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmdata.align.online import grid_count
from mmdata.errors import ConfigError
from mmdata.loaders.apart import shared_out
from mmdata.loaders.episode_data import EpisodeData
from mmdata.loaders.index import EpisodeFacts
from mmdata.loaders.items import Caches
from mmdata.loaders.remote import is_remote, open_any
from mmdata.loaders.spec import RateTimeline, SampleSpec, StoredTimeline
from mmdata.streams import Kind

if TYPE_CHECKING:
    from mmdata.loaders.dataset import EpisodeDataset

_KEEP_FROM = 64
Job = tuple[str, SampleSpec, Sequence[Path]]


def count_samples(dataset: EpisodeDataset, workers: int) -> NDArray[np.int64]:
    """(E,) i8 samples per episode that pass the spec's filters.

    Where the index tells (`count_from_facts`), no episode is opened. For datasets of many episodes
    counts that were judged are kept beside them, under a name made of what the spec asks of time
    and of the episodes' contents. Filters by phase are judged every time: labels
    change on their own.
    """
    spec = _without_payload(dataset.spec)
    n = len(dataset.episodes)
    kept = _kept_file(dataset, spec) if n >= _KEEP_FROM else None
    if kept is not None and kept.exists():
        found = np.array(json.loads(kept.read_bytes()), np.int64)
        if len(found) == n:
            return found
    # Facts do not tell a stream's kind, and no filter judges windows of audio: one episode of each
    # set of streams is looked at.
    alike = {frozenset(f.streams): f for f in dataset.episodes}
    audio = {streams for streams, f in alike.items() if _has_audio(f, spec)}
    known = (
        None if frozenset(f.streams) in audio else count_from_facts(f, spec)
        for f in dataset.episodes
    )
    counts = np.fromiter((-1 if count is None else count for count in known), np.int64, n)
    unknown = np.flatnonzero(counts < 0)
    jobs: list[Job] = [
        (f.path, spec, dataset._beside(f)) for f in (dataset.episodes[n] for n in unknown)
    ]
    counts[unknown] = shared_out(_count, jobs, workers)
    if kept is not None and len(unknown) and os.access(kept.parent, os.W_OK):
        partial = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(counts.tolist(), separators=(",", ":")))
        partial.replace(kept)
    return counts


def count_from_facts(facts: EpisodeFacts, spec: SampleSpec) -> int | None:
    """Samples of an episode where its facts alone tell, else None.

    They do where no slot can be empty but for want of an earlier sample (policy 'previous', any
    distance, arrival plays no part), on a grid, or where every tick of a reference stream passes.
    """
    filters, timeline = spec.filters, spec.timeline
    if filters.max_residual_ms is not None or filters.phase or spec.delay_ns is not None:
        return None
    if isinstance(timeline, StoredTimeline) or spec.tick_stream not in facts.streams:
        return None
    _, distinct, start, end = facts.streams[spec.tick_stream]
    if start is None or end is None:
        return 0
    first = start
    for key in spec.observations.values() if filters.complete else ():
        stream = facts.streams.get(key.stream)
        if stream is None or key.policy != "previous" or key.tolerance_ns is not None:
            return None
        if stream[2] is None:
            return 0
        first = max(first, stream[2] - int(key.offset_ns().min()))
    if isinstance(timeline, RateTimeline):
        return grid_count(first, end, timeline.rate_hz) if first <= end else 0
    return int(distinct or 0) if first == start else None


def count_ticks(facts: EpisodeFacts, spec: SampleSpec) -> int:
    """Ticks of an episode from its facts alone. Raises ConfigError where no such timeline is."""
    if isinstance(spec.timeline, StoredTimeline):
        if spec.timeline.name not in facts.timelines:
            have = ", ".join(facts.timelines) or "none"
            raise ConfigError(
                f"{facts.path} has no timeline {spec.timeline.name!r}; it has: {have}"
            )
        return int(facts.timelines[spec.timeline.name])
    if spec.tick_stream not in facts.streams:
        raise ConfigError(
            f"{facts.path} has no stream {spec.tick_stream!r}; it has: {', '.join(facts.streams)}"
        )
    _, distinct, first, last = facts.streams[spec.tick_stream]
    if isinstance(spec.timeline, RateTimeline):
        if first is None or last is None:
            return 0
        return grid_count(first, last, spec.timeline.rate_hz)
    return int(distinct or 0)


def _has_audio(facts: EpisodeFacts, spec: SampleSpec) -> bool:
    """Whether a key is audio."""
    with open_any(facts.path) as episode:
        names = {key.stream for key in spec.keys.values()} & set(episode.streams)
        return any(episode.streams[name].info.kind is Kind.AUDIO for name in names)


def _count(job: Job) -> int:
    path, spec, sidecars = job
    return len(EpisodeData(path, spec, {}, Caches(0), sidecars, payload=False))


def _without_payload(spec: SampleSpec) -> SampleSpec:
    """What decides which ticks are kept, and nothing else."""
    keys = {
        name: key.model_copy(update={"normalise": None}) for name, key in spec.observations.items()
    }
    # A spec of targets alone keeps them: something must hold the streams.
    return spec.model_copy(update={"keys": keys or dict(spec.keys), "labels": {}})


def _kept_file(dataset: EpisodeDataset, spec: SampleSpec) -> Path | None:
    folders = {f.path.rpartition("/")[0] for f in dataset.episodes if not is_remote(f.path)}
    if len(folders) != 1 or spec.filters.phase is not None:
        return None
    names = (f.path.rpartition("/")[2] for f in dataset.episodes)  # wherever the folder lies
    pairs = zip(names, dataset.episodes, strict=True)
    contents = "".join(f"{name}:{f.content}\n" for name, f in pairs)
    name = hashlib.sha256(f"{spec.digest}\n{contents}".encode()).hexdigest()[:16]
    return Path(folders.pop()) / f"mmdata-counts.{name}.json"
