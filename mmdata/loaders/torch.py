"""Batches as torch tensors: a DataLoader whose workers write straight into the trainer's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmdata.errors import MissingDependencyError
from mmdata.loaders.batches import MixedDataset
from mmdata.loaders.dataset import EpisodeDataset
from mmdata.loaders.samplers import BatchSampler, Order
from mmdata.loaders.shared import SharedPool, received

try:
    import torch
    from torch.utils.data import DataLoader, Dataset, get_worker_info
except ImportError:
    raise MissingDependencyError("torch", "torch", "mmdata.loaders.torch") from None


def to_torch(sample: dict[str, Any]) -> dict[str, Any]:
    """Arrays of a sample or batch as tensors over the same memory; text and numbers stay."""
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in sample.items()
    }


class TorchDataset(Dataset[Any]):
    """A dataset whose items and batches are tensors. Batches come ready from `__getitems__`."""

    def __init__(self, dataset: EpisodeDataset | MixedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, n: int) -> dict[str, Any]:
        return to_torch(self.dataset[n])

    def __getitems__(self, numbers: Sequence[int]) -> Any:
        if get_worker_info() is None:
            return to_torch(self.dataset.batch(numbers))
        pool = _pool()
        pool.forget()  # what a batch that failed had filled
        return _Sent(pool.places(self.dataset.batch(numbers, pool.empty)))


class _Sent:
    """A worker's batch, which arrives in the trainer's process as a dict of tensors."""

    def __init__(self, places: dict[str, Any]) -> None:
        self._places = places

    def __reduce__(self) -> Any:
        return _arrived, (self._places,)


def _arrived(places: dict[str, Any]) -> dict[str, Any]:
    return to_torch(received(places))


class EpisodeLoader:
    """Training batches: `torch.utils.data.DataLoader` with exact order and exact resume.

    >>> loader = EpisodeLoader(dataset, Shuffle(len(dataset), seed=1), batch_size=32, workers=2)
    >>> for epoch in range(10):
    ...     loader.set_epoch(epoch)
    ...     for batch in loader: ...

    `state_dict()` counts the batches handed out, whatever the workers have read ahead. start:
    "fork" | "spawn" | "forkserver"; workers stay alive between epochs.
    """

    def __init__(
        self,
        dataset: EpisodeDataset | MixedDataset,
        order: Order,
        batch_size: int,
        *,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
        tail: Any = "keep",
        start: str = "fork",
        ahead: int = 2,
        pin_memory: bool = False,
    ) -> None:
        self.sampler = BatchSampler(
            order, batch_size, rank=rank, ranks=ranks, workers=workers, tail=tail
        )
        self._reader = _Reader(self.sampler)
        dataset.expect(order.near)
        self._loader: DataLoader[Any] = DataLoader(
            TorchDataset(dataset),
            batch_sampler=self._reader,
            num_workers=workers,
            collate_fn=_ready,  # batches come ready from __getitems__
            multiprocessing_context=start if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=ahead if workers else None,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch at its beginning."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches from the current position to the end of the epoch."""
        for served, batch in enumerate(self._loader, self.sampler.position + 1):
            self.sampler.position = served
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where training is: JSON-compatible."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken."""
        self.sampler.load_state_dict(state)


class _Reader:
    """What the DataLoader reads ahead, without moving the position that training sees."""

    def __init__(self, sampler: BatchSampler) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler) - self._sampler.position

    def __iter__(self) -> Iterator[list[int]]:
        return self._sampler.batches()


def _ready(batch: Any) -> Any:
    return batch


_pools: list[SharedPool] = []


def _pool() -> SharedPool:
    """This process's segments."""
    if not _pools or _pools[0].pid != os.getpid():
        _pools[:] = [SharedPool()]
    return _pools[0]
