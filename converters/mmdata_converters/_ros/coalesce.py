"""Small blocks of messages joined into large ones, over several chunks of a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mmdata.streams import Ragged
from mmdata_converters._ros.channels import Block

#: Blocks of at least this many message bytes pass as they are: joining would only copy them.
_LARGE_BYTES = 256 << 10
#: Small blocks are held back until they come to this much, over all channels.
_HELD_BYTES = 8 << 20


def coalesce(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same messages in fewer blocks, each channel's in its order.

    Decoding and writing a block costs the same Python time however few messages it holds, and a
    chunk of a log with large messages holds few of the others. In a joined block messages lie back
    to back. `not_before_ns` of what comes out takes into account what is held back.
    """
    held: dict[int, list[Block]] = {}
    size = 0
    not_before_ns = 0
    for block in blocks:
        if not len(block.starts):
            continue
        if not held:
            not_before_ns = block.not_before_ns
        number, bytes_here = block.channel.number, int(block.lengths.sum())
        if bytes_here >= _LARGE_BYTES:
            if number in held:
                yield _joined(held.pop(number), not_before_ns)
            yield replace(block, not_before_ns=min(block.not_before_ns, not_before_ns))
            continue
        # A copy, so that what is held back does not keep whole chunks in memory.
        held.setdefault(number, []).append(_packed(block))
        size += bytes_here
        if size >= _HELD_BYTES:
            yield from (_joined(same, not_before_ns) for same in held.values())
            held.clear()
            size = 0
    yield from (_joined(same, not_before_ns) for same in held.values())


def _packed(block: Block) -> Block:
    rows = Ragged.gather(block.buffer, block.starts, block.lengths)
    return replace(block, buffer=rows.data, starts=rows.offsets[:-1])


def _joined(blocks: list[Block], not_before_ns: int) -> Block:
    first = blocks[0]
    if len(blocks) == 1:
        return replace(first, not_before_ns=not_before_ns)
    lengths = np.concatenate([b.lengths for b in blocks])
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    publish = [b.publish_ns for b in blocks if b.publish_ns is not None]
    return Block(
        first.channel,
        np.concatenate([b.buffer for b in blocks]),
        starts,
        lengths,
        np.concatenate([b.receive_ns for b in blocks]),
        np.concatenate(publish) if len(publish) == len(blocks) else None,
        not_before_ns,
    )
