"""Orders of samples: a function of (seed, epoch), shared out exactly, resumed exactly.

An order never holds a list of all samples. Memory is O(episodes) for blocks and constant otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConfigError

Numbers = NDArray[np.int64]
_CHUNK = 8192
_ROUNDS = 6
_SMALL = 1 << 16
_MIX_CHUNK = 1 << 12


class Order(Protocol):
    """An order of n samples per epoch, cut into shards that are disjoint and cover all of them."""

    @property
    def seed(self) -> int: ...
    @property
    def near(self) -> bool:
        """Whether samples that follow one another lie near one another."""
        ...

    def __len__(self) -> int: ...
    def lanes(self, workers: int) -> int:
        """Into how many shards a rank's samples are best cut for its workers."""
        ...

    def shard_length(self, epoch: int, shard: int, shards: int) -> int:
        """Samples of one shard."""
        ...

    def chunks(self, epoch: int, shard: int, shards: int, start: int) -> Iterator[Numbers]:
        """Sample numbers of one shard from its position `start` on, in pieces."""
        ...


class Permutation:
    """A permutation of range(n) that is computed place by place: a keyed Feistel network.

    Equal (n, key) give equal permutations on every machine. Up to 65,536 places it is a shuffled
    table, because a network of so few bits shuffles poorly.
    """

    def __init__(self, n: int, *key: int) -> None:
        self.n = n
        self._table: Numbers | None = None
        source = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        if n <= _SMALL:
            self._table = source.permutation(n)
        self._keys = source.integers(0, 2**63, _ROUNDS, dtype=np.uint64)
        self._half = np.uint64((max(2, (n - 1).bit_length()) + 1) // 2)
        self._mask = np.uint64((1 << int(self._half)) - 1)

    def __call__(self, places: Numbers) -> Numbers:
        """(k,) i8 places in range(n) to (k,) i8 images."""
        if self._table is not None:
            return self._table[places]
        result = self._network(places.astype(np.uint64))
        outside = np.flatnonzero(result >= self.n)
        while len(outside):  # cycle walking: apply the network until the image lies in range(n)
            result[outside] = self._network(result[outside])
            outside = outside[result[outside] >= self.n]
        return result.astype(np.int64)

    def _network(self, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = places >> self._half, places & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Sequential:
    """Every sample in its place: episode after episode, tick after tick."""

    seed = 0
    near = True

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def lanes(self, workers: int) -> int:
        return 1

    def shard_length(self, epoch: int, shard: int, shards: int) -> int:
        return len(range(shard, self.n, shards))

    def chunks(self, epoch: int, shard: int, shards: int, start: int) -> Iterator[Numbers]:
        for first in range(start, self.shard_length(epoch, shard, shards), _CHUNK):
            last = min(first + _CHUNK, self.shard_length(epoch, shard, shards))
            yield self._at(epoch, shard + shards * np.arange(first, last, dtype=np.int64))

    def _at(self, epoch: int, places: Numbers) -> Numbers:
        return places


class Shuffle(Sequential):
    """Every sample once per epoch, anywhere."""

    near = False

    def __init__(self, n: int, seed: int = 0) -> None:
        super().__init__(n)
        self.seed = seed
        self._known: tuple[int, Permutation] | None = None

    def _at(self, epoch: int, places: Numbers) -> Numbers:
        if self._known is None or self._known[0] != epoch:
            self._known = (epoch, Permutation(self.n, self.seed, epoch))
        return self._known[1](places)


class BlockShuffle:
    """Every sample once per epoch; neighbours come close together, so video is decoded once.

    Episodes are cut into blocks of consecutive samples. Blocks come in random order, `open_blocks`
    at a time, and the samples of those are mixed. Shards take whole blocks.

    counts: (E,) samples per episode. block: samples per block, best a whole number of GOPs
    (`EpisodeDataset.block_size`).
    """

    near = True

    def __init__(
        self, counts: Sequence[int] | NDArray[Any], block: int, open_blocks: int = 4, seed: int = 0
    ) -> None:
        if block < 1 or open_blocks < 1:
            raise ConfigError(f"block and open_blocks are at least 1, not {block}, {open_blocks}")
        self.counts = np.asarray(counts, np.int64)
        self.block, self.open_blocks, self.seed = block, open_blocks, seed
        self._starts = np.cumsum(self.counts) - self.counts
        blocks = -(-self.counts // block)
        self._block_ends = np.cumsum(blocks)
        self.blocks = int(blocks.sum())

    def __len__(self) -> int:
        return int(self.counts.sum())

    def lanes(self, workers: int) -> int:
        return max(1, workers)

    def shard_length(self, epoch: int, shard: int, shards: int) -> int:
        total = 0
        for places in self._places(shard, shards):
            _, lengths = self._extent(self._permutation(epoch)(places))
            total += int(lengths.sum())
        return total

    def chunks(self, epoch: int, shard: int, shards: int, start: int) -> Iterator[Numbers]:
        permutation, passed = self._permutation(epoch), 0
        for places in self._places(shard, shards):
            firsts, lengths = self._extent(permutation(places))
            for at in range(0, len(places), self.open_blocks):
                first = firsts[at : at + self.open_blocks]
                length = lengths[at : at + self.open_blocks]
                n = int(length.sum())
                if passed + n > start:
                    group = np.concatenate(
                        [np.arange(f, f + m) for f, m in zip(first, length, strict=True)]
                    )
                    key = (self.seed, epoch, 1, int(places[at]))
                    mixed = group[Permutation(n, *key)(np.arange(n))]
                    yield mixed[max(0, start - passed) :]
                passed += n

    def _permutation(self, epoch: int) -> Permutation:
        return Permutation(self.blocks, self.seed, epoch, 0)

    def _places(self, shard: int, shards: int) -> Iterator[Numbers]:
        """Places of a shard's blocks in the epoch's block order, whole groups at a time."""
        step = _CHUNK // self.open_blocks * self.open_blocks or self.open_blocks
        mine = len(range(shard, self.blocks, shards))
        for first in range(0, mine, step):
            yield shard + shards * np.arange(first, min(first + step, mine), dtype=np.int64)

    def _extent(self, block: Numbers) -> tuple[Numbers, Numbers]:
        """First sample and length of blocks."""
        episode = np.searchsorted(self._block_ends, block, side="right")
        before = np.where(episode > 0, self._block_ends[np.maximum(episode - 1, 0)], 0)
        within = (block - before) * self.block
        length = np.minimum(self.block, self.counts[episode] - within)
        return self._starts[episode] + within, length


class Mixture:
    """Several datasets in given proportions; a small one comes round more often.

    orders: one per dataset, whose samples are numbered one dataset after the other (as in
    `MixedDataset`). weights: shares of the samples drawn. samples: per epoch.
    """

    def __init__(
        self, orders: Sequence[Order], weights: Sequence[float], samples: int, seed: int = 0
    ) -> None:
        shares = np.asarray(weights, np.float64)
        if len(shares) != len(orders) or not (shares > 0).all():
            raise ConfigError("a mixture needs one positive weight per dataset")
        if any(len(order) == 0 for order in orders):
            raise ConfigError("a mixture cannot draw from a dataset without samples")
        shares = shares / shares.sum()
        if shares.min() * _MIX_CHUNK < 2:
            raise ConfigError(f"a share below {2 / _MIX_CHUNK:.1e} is too small to draw")
        self.orders, self.seed, self.samples = list(orders), seed, samples
        self._edges = np.concatenate([[0.0], np.cumsum(shares)])
        self._edges[-1] = 1.0
        self._offsets = np.cumsum([0, *(len(order) for order in orders)])
        self.near = any(order.near for order in orders)

    def __len__(self) -> int:
        return self.samples

    def lanes(self, workers: int) -> int:
        return 1

    def shard_length(self, epoch: int, shard: int, shards: int) -> int:
        return len(range(shard, self.samples, shards))

    def chunks(self, epoch: int, shard: int, shards: int, start: int) -> Iterator[Numbers]:
        place = shard + shards * start
        cursors = [_Cursor(order, epoch) for order in self.orders]
        while place < self.samples:
            chunk, within = divmod(place, _MIX_CHUNK)
            numbers = self._chunk(epoch, chunk, cursors)
            numbers = numbers[: self.samples - chunk * _MIX_CHUNK]
            mine = numbers[within::shards]
            yield mine
            place += shards * len(mine)

    def _chunk(self, epoch: int, chunk: int, cursors: list[_Cursor]) -> Numbers:
        """Sample numbers of one chunk: every dataset's exact share of it, mixed."""
        done = np.diff(np.floor(chunk * _MIX_CHUNK * self._edges)).astype(np.int64)
        after = np.diff(np.floor((chunk + 1) * _MIX_CHUNK * self._edges)).astype(np.int64)
        parts = [
            offset + cursor.take(int(first), int(last))
            for offset, cursor, first, last in zip(
                self._offsets, cursors, done, after, strict=False
            )
        ]
        joined = np.concatenate(parts)
        return joined[Permutation(len(joined), self.seed, epoch, chunk)(np.arange(len(joined)))]


class _Cursor:
    """Draws first:last of an order that starts over, reshuffled, when it ends."""

    def __init__(self, order: Order, epoch: int) -> None:
        self._order, self._epoch = order, epoch

    def take(self, first: int, last: int) -> Numbers:
        n = len(self._order)
        parts = []
        while first < last:
            round_, within = divmod(first, n)
            wanted = min(last - first, n - within)
            # Rounds of all epochs are numbered through, so no epoch repeats another's order.
            chunks = self._order.chunks((self._epoch << 20) + round_, 0, 1, within)
            got = 0
            while got < wanted:
                piece = next(chunks)[: wanted - got]
                parts.append(piece)
                got += len(piece)
            first += wanted
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class BatchSampler:
    """Batches of one rank, epoch after epoch, resumable at any batch.

    >>> sampler = BatchSampler(Shuffle(len(dataset), seed=7), 32, rank=0, ranks=4)
    >>> for numbers in sampler: ...           # one epoch; sampler.set_epoch(n) chooses which

    workers: how many DataLoader workers read the batches; batch b goes to worker b mod workers, and
    block orders keep each worker on its own blocks. tail: "keep" serves every sample exactly once
    over all ranks; "drop" gives every rank the same number of full batches.
    """

    def __init__(
        self,
        order: Order,
        batch_size: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 1,
        tail: Literal["keep", "drop"] = "keep",
    ) -> None:
        if batch_size < 1 or not 0 <= rank < ranks:
            raise ConfigError(f"batch_size {batch_size}, rank {rank} of {ranks} make no sense")
        self.order, self.batch_size, self.rank, self.ranks = order, batch_size, rank, ranks
        self.lanes = order.lanes(workers)
        self.tail = tail
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch at its beginning."""
        self.epoch, self.position = epoch, 0

    def __len__(self) -> int:
        """Batches of the epoch."""
        return sum(self._lane_batches())

    def __iter__(self) -> Iterator[list[int]]:
        """Batches from the current position to the end of the epoch; `position` follows."""
        for numbers in self.batches():
            self.position += 1
            yield numbers

    def batches(self) -> Iterator[list[int]]:
        """The same without moving `position`: for reading ahead."""
        batches = self._lane_batches()
        served, at = _served(batches, self.position)
        lanes = [self._lane(lane, count) for lane, count in enumerate(served)]
        while served != batches:
            if served[at] < batches[at]:
                served[at] += 1
                yield next(lanes[at])
            at = (at + 1) % self.lanes

    def state_dict(self) -> dict[str, Any]:
        """Where this is: JSON-compatible."""
        return {"epoch": self.epoch, "position": self.position, "of": self._of()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken. Raises ConfigError when it was taken of another order."""
        if state["of"] != self._of():
            raise ConfigError(
                f"this state belongs to a sampler of {state['of']}, not of {self._of()}"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _of(self) -> dict[str, Any]:
        return {
            "order": type(self.order).__name__, "samples": len(self.order),
            "seed": self.order.seed, "batch_size": self.batch_size, "rank": self.rank,
            "ranks": self.ranks, "lanes": self.lanes, "tail": self.tail,
        }  # fmt: skip

    def _lane_batches(self) -> list[int]:
        shards = self.ranks * self.lanes
        if self.tail == "drop":
            lengths = [self.order.shard_length(self.epoch, s, shards) for s in range(shards)]
            return [min(lengths) // self.batch_size] * self.lanes
        mine = range(self.rank * self.lanes, (self.rank + 1) * self.lanes)
        lengths = [self.order.shard_length(self.epoch, s, shards) for s in mine]
        return [-(-length // self.batch_size) for length in lengths]

    def _lane(self, lane: int, served: int) -> Iterator[list[int]]:
        shards, shard = self.ranks * self.lanes, self.rank * self.lanes + lane
        rest: list[int] = []
        for piece in self.order.chunks(self.epoch, shard, shards, served * self.batch_size):
            rest.extend(piece.tolist())
            whole = len(rest) // self.batch_size * self.batch_size
            for first in range(0, whole, self.batch_size):
                yield rest[first : first + self.batch_size]
            rest = rest[whole:]
        if rest:
            yield rest


def _served(batches: Sequence[int], position: int) -> tuple[list[int], int]:
    """Batches each lane has served after `position` of them, round robin, and whose turn it is."""
    served, at = [0] * len(batches), 0
    for _ in range(min(position, sum(batches))):
        while served[at] >= batches[at]:
            at = (at + 1) % len(batches)
        served[at] += 1
        at = (at + 1) % len(batches)
    return served, at
