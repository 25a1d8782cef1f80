"""Reading episodes for training: windows, orders, statistics, and the same samples at inference."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.loaders.batches import MixedDataset as MixedDataset
    from mmdata.loaders.batches import iterate as iterate
    from mmdata.loaders.dataset import EpisodeDataset as EpisodeDataset
    from mmdata.loaders.recipe import Recipe as Recipe
    from mmdata.loaders.samplers import BatchSampler as BatchSampler
    from mmdata.loaders.samplers import BlockShuffle as BlockShuffle
    from mmdata.loaders.samplers import Mixture as Mixture
    from mmdata.loaders.samplers import Sequential as Sequential
    from mmdata.loaders.samplers import Shuffle as Shuffle
    from mmdata.loaders.spec import SampleSpec as SampleSpec
    from mmdata.loaders.statistics import Statistics as Statistics
    from mmdata.loaders.statistics import compute_statistics as compute_statistics

_HOMES = {
    "BatchSampler": "samplers",
    "BlockShuffle": "samplers",
    "EpisodeDataset": "dataset",
    "MixedDataset": "batches",
    "Mixture": "samplers",
    "Recipe": "recipe",
    "SampleSpec": "spec",
    "Sequential": "samplers",
    "Shuffle": "samplers",
    "Statistics": "statistics",
    "compute_statistics": "statistics",
    "iterate": "batches",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
