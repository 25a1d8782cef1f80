"""How many samples each episode has, where filters judge tick by tick. Judged once, then kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmdata.loaders.episode_data import EpisodeData
from mmdata.loaders.items import Caches
from mmdata.loaders.remote import is_remote
from mmdata.loaders.spec import SampleSpec

if TYPE_CHECKING:
    from mmdata.loaders.dataset import EpisodeDataset

_PARALLEL_FROM = 64
_KEEP_FROM = 64
Job = tuple[str, SampleSpec, Sequence[Path]]


def count_samples(dataset: EpisodeDataset, workers: int) -> NDArray[np.int64]:
    """(E,) i8 samples per episode that pass the spec's filters.

    For datasets of many episodes the counts are kept beside them, under a name made of what the
    spec asks of time and of the episodes' contents. Filters by phase are judged every time: labels
    change on their own.
    """
    spec = _without_payload(dataset.spec)
    n = len(dataset.episodes)
    kept = _kept_file(dataset, spec) if n >= _KEEP_FROM else None
    if kept is not None and kept.exists():
        found = np.array(json.loads(kept.read_bytes()), np.int64)
        if len(found) == n:
            return found
    jobs: list[Job] = [(f.path, spec, dataset._beside(f)) for f in dataset.episodes]
    if workers < 2 or len(jobs) < _PARALLEL_FROM:
        counts = np.fromiter(map(_count, jobs), np.int64, len(jobs))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            counts = np.fromiter(pool.map(_count, jobs, chunksize=32), np.int64, len(jobs))
    if kept is not None and os.access(kept.parent, os.W_OK):
        partial = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(counts.tolist(), separators=(",", ":")))
        partial.replace(kept)
    return counts


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
