"""Samples as a Ray dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmdata.errors import MissingDependencyError
from mmdata.loaders.dataset import EpisodeDataset

try:
    import ray
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata
except ImportError:
    raise MissingDependencyError("ray", "ray", "mmdata.loaders.ray") from None

_ROWS_PER_BLOCK = 64


class EpisodeSource(Datasource):  # type: ignore[misc]
    """Reads an `EpisodeDataset` in true order; a task reads whole episodes."""

    def __init__(self, dataset: EpisodeDataset) -> None:
        super().__init__()
        self._dataset = dataset

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all samples, from the first one."""
        if not len(self._dataset):
            return 0
        return len(self._dataset) * sum(np.asarray(v).nbytes for v in self._dataset[0].values())

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, *_: Any, **__: Any
    ) -> list[ReadTask]:
        """Tasks of about equally many samples."""
        counts = self._dataset.counts
        ends = np.cumsum(counts)
        share = max(1, -(-len(self._dataset) // max(1, parallelism)))
        starts = np.flatnonzero(np.diff(np.r_[-1, (ends - counts) // share]) > 0)
        tasks = []
        for first, last in zip(starts, [*starts[1:], len(counts)], strict=True):
            begin, end = int(ends[first] - counts[first]), int(ends[last - 1])
            if end > begin:
                rows = end - begin
                metadata = BlockMetadata(
                    num_rows=rows, size_bytes=None, input_files=None, exec_stats=None
                )
                tasks.append(ReadTask(_Reader(self._dataset, begin, end), metadata))
        return tasks


class _Reader:
    def __init__(self, dataset: EpisodeDataset, begin: int, end: int) -> None:
        self._dataset, self._begin, self._end = dataset, begin, end

    def __call__(self) -> Iterator[Any]:
        from ray.data.block import BlockAccessor

        for first in range(self._begin, self._end, _ROWS_PER_BLOCK):
            last = min(first + _ROWS_PER_BLOCK, self._end)
            batch = self._dataset.batch(range(first, last))
            yield BlockAccessor.batch_to_block(
                {
                    name: np.array(v) if isinstance(v, list) else np.asarray(v)
                    for name, v in batch.items()
                }
            )


def read_episodes(dataset: EpisodeDataset, **options: Any) -> Any:
    """A `ray.data.Dataset` of all samples. options: those of `ray.data.read_datasource`."""
    return ray.data.read_datasource(EpisodeSource(dataset), **options)
