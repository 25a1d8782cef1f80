"""How many messages a second one core turns into samples; beside it rosbags, one by one.

    python benchmarks/decode.py [--messages 40960] [--block 512 4096] [--repeat 5]

Per message type and serialisation, thousands of messages of one layout with random numbers, as
blocks of the given size, decoded to batches of samples (stamps, fields, stream descriptions) by the
code a conversion uses. Time is that of the one thread that does it, the best of the repetitions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from mmdata.recording import Account
from mmdata_converters._ros.channels import Block, ChannelTable
from mmdata_converters._ros.decoder import ChannelDecoder
from mmdata_converters._ros.rig import RigBuilder

TYPES = (
    "sensor_msgs/msg/Imu", "geometry_msgs/msg/WrenchStamped", "sensor_msgs/msg/JointState",
    "nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray",
)  # fmt: skip
#: Distinct messages; they are repeated, for serialising them takes longer than decoding.
_DISTINCT = 512


def messages(store: Any, kind: str, ros1: bool) -> list[bytes]:
    """Serialised messages of one layout, random numbers."""
    rng = np.random.default_rng(0)
    serialise = store.serialize_ros1 if ros1 else store.serialize_cdr
    return [bytes(serialise(_message(store, kind, rng), kind)) for _ in range(_DISTINCT)]


def _message(store: Any, kind: str, rng: np.random.Generator) -> Any:
    from rosbags.interfaces import Nodetype

    values: dict[str, Any] = {}
    for name, (node, detail) in store.fielddefs[kind][1]:
        if node == Nodetype.NAME:
            values[name] = _message(store, detail, rng)
        elif node == Nodetype.BASE:
            values[name] = "base" if detail[0] == "string" else int(rng.integers(0, 100))
            if detail[0].startswith("float"):
                values[name] = float(rng.normal())
        elif detail[0][0] == Nodetype.BASE:
            texts = detail[0][1][0] == "string"
            count = detail[1] or 7  # arrays keep their length, sequences hold seven
            values[name] = [f"joint_{k}" for k in range(7)] if texts else rng.normal(size=count)
        else:
            values[name] = []
    return store.types[kind](**values)


def blocks(raw: list[bytes], size: int, total: int, kind: str, ros1: bool) -> list[Block]:
    """`total` messages as blocks of `size`."""
    channel = ChannelTable().add("/topic", kind, "", ros1=ros1)
    made = []
    for first in range(0, total, size):
        rows = [raw[(first + k) % len(raw)] for k in range(size)]
        lengths = np.fromiter(map(len, rows), np.int64, size)
        starts = np.cumsum(lengths) - lengths
        receive = np.arange(first, first + size, dtype=np.int64)
        buffer = np.frombuffer(b"".join(rows), np.uint8)
        made.append(Block(channel, buffer, starts, lengths, receive, None, first))
    return made


def best(work: Callable[[], int], repeat: int) -> float:
    """Units of work a second of the thread's time."""
    rates = []
    for _ in range(repeat):
        began = time.thread_time()
        count = work()
        rates.append(count / (time.thread_time() - began))
    return max(rates)


def _decoded(parts: list[Block]) -> int:
    decoder = ChannelDecoder(parts[0].channel, "s", "s", Account(), RigBuilder(), None)
    count = sum(len(batch) for block in parts for batch in decoder.decode(block))
    assert count == sum(len(b.starts) for b in parts)
    return count


def rows(sizes: list[int], total: int, repeat: int) -> Iterator[tuple[str, str, list[float]]]:
    """(type, serialisation, rates: one by one with rosbags, then per block size)."""
    for ros1 in (False, True):
        store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
        single = store.deserialize_ros1 if ros1 else store.deserialize_cdr
        for kind in TYPES:
            raw = messages(store, kind, ros1)

            def one_by_one(raw: list[bytes] = raw, kind: str = kind, read: Any = single) -> int:
                return sum(read(message, kind) is not None for message in raw * 4)

            rates = [best(one_by_one, repeat)]
            for size in sizes:
                parts = blocks(raw, size, total, kind, ros1)
                rates.append(best(lambda parts=parts: _decoded(parts), repeat))  # type: ignore[misc]
            yield kind, "ROS 1" if ros1 else "CDR", rates


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=40_960)
    parser.add_argument("--block", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    heads = [f"blocks of {size}" for size in arguments.block]
    print(f"messages/s of one core\n{'':34} {'':6} {'rosbags':>11} "
          + " ".join(f"{h:>15}" for h in heads))  # fmt: skip
    for kind, form, rates in rows(arguments.block, arguments.messages, arguments.repeat):
        shown = " ".join(f"{rate:15,.0f}" for rate in rates[1:])
        print(f"{kind:34} {form:6} {rates[0]:11,.0f} {shown}")


if __name__ == "__main__":
    main()
