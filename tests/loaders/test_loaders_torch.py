"""The torch adapter: no copies, exact coverage and resume through real worker processes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'mmdata[torch]'")

from mmdata.loaders import (  # noqa: E402
    BlockShuffle,
    EpisodeDataset,
    MixedDataset,
    Mixture,
    SampleSpec,
    Sequential,
    Shuffle,
)
from mmdata.loaders.shared import SharedPool, received  # noqa: E402
from mmdata.loaders.torch import EpisodeLoader, TorchDataset, to_torch  # noqa: E402

SPEC = SampleSpec.model_validate(
    {
        "timeline": {"rate_hz": 30},
        "keys": {
            "wrist": {"stream": "camera_wrist", "at": [-0.05, 0.0]},
            "state": {"stream": "joint_states"},
            "depth": {"stream": "depth"},
            "words": {"stream": "speech"},
        },
    }
)


@pytest.fixture(scope="module")
def dataset(demos: Path) -> EpisodeDataset:
    return EpisodeDataset(demos, SPEC)


def _numbers(batch: dict[str, Any], dataset: EpisodeDataset) -> list[int]:
    ends = np.cumsum(dataset.counts) - dataset.counts
    kept = [dataset._episode(e).kept for e in range(3)]
    return [
        int(ends[e] + np.searchsorted(kept[e], t))
        for e, t in zip(batch["episode"].tolist(), batch["tick"].tolist(), strict=True)
    ]


def test_tensors_share_the_arrays_memory(dataset: EpisodeDataset) -> None:
    sample = dataset[5]
    tensors = to_torch(sample)
    assert tensors["wrist"].data_ptr() == sample["wrist"].__array_interface__["data"][0]
    assert tensors["depth"].dtype == torch.uint16
    assert tensors["words"] == sample["words"]
    batch = TorchDataset(dataset).__getitems__([5, 9])
    assert np.array_equal(batch["wrist"][0].numpy(), sample["wrist"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["sequential", "shuffle", "blocks"])
def test_loader_serves_every_sample_once(dataset: EpisodeDataset, workers: int, kind: str) -> None:
    order: Any = {
        "sequential": Sequential(len(dataset)),
        "shuffle": Shuffle(len(dataset), 3),
        "blocks": BlockShuffle(dataset.counts, dataset.block_size(1), 2, 3),
    }[kind]
    loader = EpisodeLoader(dataset, order, 16, workers=workers)
    seen: Counter[int] = Counter()
    for batch in loader:
        numbers = _numbers(batch, dataset)
        seen.update(numbers)
        if len(seen) < 40:
            for b, n in enumerate(numbers):
                assert np.array_equal(batch["wrist"][b].numpy(), dataset[n]["wrist"])
                assert batch["words"][b] == dataset[n]["words"]
    assert seen == Counter(range(len(dataset)))


def test_workers_use_the_same_memory_again_and_only_then(dataset: EpisodeDataset) -> None:
    """No copy and no fresh pages from batch to batch; what the trainer holds stays as it was."""
    loader = EpisodeLoader(dataset, Sequential(len(dataset)), 16, workers=2)
    places = set()
    for _ in range(3):
        loader.set_epoch(0)
        for batch in loader:
            places.add(batch["wrist"].data_ptr())
            del batch
    assert len(places) <= 2 * (2 + 2), "a worker reads two batches ahead, and hands one over"
    loader.set_epoch(0)
    held = [(_numbers(b, dataset), b["wrist"]) for b in loader]
    assert len({w.data_ptr() for _, w in held}) == len(held)
    for numbers, wrist in held:
        for n, frames in zip(numbers, wrist, strict=True):
            assert np.array_equal(frames.numpy(), dataset[n]["wrist"])


def test_an_epoch_left_early_gives_its_memory_back(dataset: EpisodeDataset) -> None:
    loader = EpisodeLoader(dataset, Sequential(len(dataset)), 16, workers=1)
    places = set()
    for _ in range(6):
        loader.set_epoch(0)
        for batch in loader:
            places.add(batch["wrist"].data_ptr())
            break
    assert len(places) <= 6


def test_a_failed_batch_frees_what_it_had_filled() -> None:
    pool = SharedPool()
    first = pool.empty((500, 1000), np.float32)
    assert np.shares_memory(pool.empty((500, 1000), np.float32), first) is False
    pool.forget()
    again = pool.empty((400, 1000), np.float32)
    assert pool.nbytes == 2 * 2_000_000
    sent = pool.places({"a": again, "small": np.arange(3), "text": ["x"]})
    assert not isinstance(sent["a"], np.ndarray)
    assert sent["small"].tolist() == [0, 1, 2]
    again[:] = 7
    arrived = received(sent)["a"]
    assert arrived.shape == (400, 1000)
    assert (arrived == 7).all()
    child = os.fork()
    if child == 0:
        del arrived  # a child's copy: the parent still holds its own
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(3):
        pool.empty((500, 1000), np.float32)
    assert (arrived == 7).all(), "lent until the receiver lets go"
    assert pool.nbytes == 4 * 2_000_000
    pool.forget()
    del arrived
    assert pool.places({"a": pool.empty((400, 1000), np.float32)})["a"].number in range(4)
    assert pool.nbytes == 4 * 2_000_000


@pytest.mark.parametrize("kind", ["shuffle", "blocks"])
def test_loader_resumes_exactly_with_workers(dataset: EpisodeDataset, kind: str) -> None:
    def loader() -> EpisodeLoader:
        order: Any = (
            Shuffle(len(dataset), 9)
            if kind == "shuffle"
            else BlockShuffle(dataset.counts, 15, 2, 9)
        )
        return EpisodeLoader(dataset, order, 16, workers=2)

    whole = loader()
    whole.set_epoch(4)
    expected = [_numbers(b, dataset) for b in whole]
    first = loader()
    first.set_epoch(4)
    reading = iter(first)
    got = [_numbers(next(reading), dataset) for _ in range(5)]
    state = first.state_dict()
    assert state["position"] == 5, "batches read ahead by workers do not count"
    second = loader()
    second.load_state_dict(state)
    got += [_numbers(b, dataset) for b in second]
    assert got == expected


@pytest.mark.slow
def test_loader_by_spawn_after_the_parent_has_read(dataset: EpisodeDataset) -> None:
    dataset[0]
    loader = EpisodeLoader(dataset, Sequential(len(dataset)), 64, workers=1, start="spawn")
    numbers = [n for batch in loader for n in _numbers(batch, dataset)]
    assert numbers == list(range(len(dataset)))


def test_mixed_datasets(dataset: EpisodeDataset, demos: Path) -> None:
    one = EpisodeDataset([demos / "demo_2.h5"], SPEC)
    mixed = MixedDataset([dataset, one])
    order = Mixture([Shuffle(len(dataset)), Shuffle(len(one))], [1, 3], 400, seed=1)
    loader = EpisodeLoader(mixed, order, 20)
    which = torch.cat([batch["dataset"] for batch in loader])
    assert len(which) == 400
    assert abs((which == 1).float().mean().item() - 0.75) < 0.07
    batch = mixed.batch([0, len(dataset) + 3, 7])
    assert np.array_equal(batch["wrist"][1], one[3]["wrist"])
    assert np.array_equal(batch["wrist"][2], dataset[7]["wrist"])
    assert batch["words"][1] == one[3]["words"]
    assert mixed[len(dataset) + 3]["dataset"] == 1
