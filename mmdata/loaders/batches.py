"""Batches as NumPy arrays from a plain iterator (for JAX, or any loop), and mixed datasets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from mmdata.errors import ConfigError
from mmdata.loaders.dataset import EpisodeDataset
from mmdata.loaders.samplers import BatchSampler


class MixedDataset:
    """Several datasets behind one another, with equal keys: what a `Mixture` draws from.

    Batches hold `dataset`, the number of the dataset each sample is from.
    """

    def __init__(self, datasets: Sequence[EpisodeDataset]) -> None:
        if not datasets:
            raise ConfigError("no datasets to mix")
        for dataset in datasets[1:]:
            if list(dataset.spec.keys) != list(datasets[0].spec.keys):
                raise ConfigError(
                    f"mixed datasets need the same keys: {list(datasets[0].spec.keys)} and "
                    f"{list(dataset.spec.keys)}"
                )
        self.datasets = list(datasets)
        self._ends = np.cumsum([len(d) for d in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, n: int) -> dict[str, Any]:
        which = int(np.searchsorted(self._ends, n, side="right"))
        start = int(self._ends[which - 1]) if which else 0
        return {**self.datasets[which][n - start], "dataset": which}

    def batch(self, numbers: Sequence[int], empty: Any = None) -> dict[str, Any]:
        """Samples stacked, in the order asked for."""
        wanted = np.asarray(numbers, np.int64)
        which = np.searchsorted(self._ends, wanted, side="right")
        starts = np.concatenate([[0], self._ends])
        result: dict[str, Any] = {}
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            part = self.datasets[number].batch((wanted[here] - starts[number]).tolist())
            for name, values in part.items():
                if isinstance(values, list):
                    column = result.setdefault(name, [None] * len(wanted))
                    for at, value in zip(here, values, strict=True):
                        column[at] = value
                    continue
                array = np.asarray(values)
                if name not in result:
                    result[name] = (empty or np.empty)((len(wanted), *array.shape[1:]), array.dtype)
                np.asarray(result[name])[here] = array
        result["dataset"] = which
        return result

    def expect(self, near: bool) -> None:
        """See `EpisodeDataset.expect`."""
        for dataset in self.datasets:
            dataset.expect(near)

    def __getitems__(self, numbers: Sequence[int]) -> dict[str, Any]:
        return self.batch(numbers)


def iterate(
    dataset: EpisodeDataset | MixedDataset,
    sampler: BatchSampler,
    *,
    threads: int = 0,
    ahead: int = 2,
) -> Iterator[dict[str, Any]]:
    """Batches of the sampler's epoch from its position on, as dicts of NumPy arrays.

    threads read batches ahead, `ahead` of them per thread; decoding runs outside Python's lock.
    Order is the sampler's. `sampler.position` counts the batches handed out, not those read ahead,
    so a state taken between two batches resumes exactly there.
    """
    dataset.expect(sampler.order.near)
    start, total = sampler.position, len(sampler)
    numbers = sampler.batches()
    if threads < 1:
        for served, batch in enumerate(numbers, start + 1):
            result = dataset.batch(batch)
            sampler.position = served
            yield result
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[dict[str, Any]]] = deque(
            pool.submit(dataset.batch, batch) for batch in islice(numbers, threads * ahead)
        )
        for served in range(start + 1, total + 1):
            result = waiting.popleft().result()
            for batch in islice(numbers, 1):
                waiting.append(pool.submit(dataset.batch, batch))
            sampler.position = served
            yield result
