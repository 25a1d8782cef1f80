"""Byte against bit shuffle before Blosc's LZ4, on the fields of an episode.

    python benchmarks/filters.py EPISODE.h5 [--level 3] [--repeat 5]

Per numeric field of sweeps, depth images and signals: speed of compressing and of decompressing
its chunks on one core (MB of raw data a second of the thread's time, the best of the repetitions),
and the compression ratio. `mmdata convert LOG -o OUT` makes the episode.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc
from numcodecs.blosc import Blosc

from mmdata import Kind, open_episode

SHUFFLES = {"byte": Blosc.SHUFFLE, "bit": Blosc.BITSHUFFLE}
KINDS = (Kind.SWEEP, Kind.DEPTH, Kind.SIGNAL, Kind.TACTILE)
#: So much of each field is enough to tell.
LIMIT_BYTES = 32 << 20
LEAST_BYTES = 256 << 10


def chunks_of(file: Any, path: str) -> list[np.ndarray[Any, Any]]:
    """Whole chunks of a dataset, as the writer has them before its filters."""
    dataset = file[path]
    if not dataset.chunks:
        return []
    step = dataset.chunks[0]
    count = min(dataset.shape[0] // step, max(1, LIMIT_BYTES // (dataset[:1].nbytes * step or 1)))
    return [np.ascontiguousarray(dataset[k * step : (k + 1) * step]) for k in range(count)]


def best_seconds(work: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """The least thread time, and the result."""
    times, result = [], None
    for _ in range(repeat):
        began = time.thread_time()
        result = work()
        times.append(time.thread_time() - began)
    return min(times), result


def main() -> None:
    """Run and print the table."""
    import h5py

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("episode", type=Path)
    parser.add_argument("--level", type=int, default=3, help="Blosc's compression level")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    blosc.use_threads = False
    print(f"{'':34} {'dtype':>6} {'MB':>6}   "
          + "   ".join(f"{n:>4} MB/s in {n:>4} out ratio" for n in SHUFFLES))  # fmt: skip
    with open_episode(arguments.episode) as episode:  # loads the filters
        wanted = [(n, f) for n, s in episode.streams.items() if s.kind in KINDS for f in s.fields]
    with h5py.File(arguments.episode) as file:
        for stream, field in wanted:
            chunks = chunks_of(file, f"streams/{stream}/{field}")
            size = sum(c.nbytes for c in chunks)
            if size < LEAST_BYTES:
                continue
            shown = []
            for mode in SHUFFLES.values():
                codec = Blosc("lz4", arguments.level, mode)
                into, packed = best_seconds(
                    lambda c=codec, chunks=chunks: [c.encode(x) for x in chunks],  # type: ignore[misc]
                    arguments.repeat,
                )
                back, _ = best_seconds(
                    lambda c=codec, packed=packed: [c.decode(x) for x in packed],  # type: ignore[misc]
                    arguments.repeat,
                )
                ratio = size / sum(map(len, packed))
                shown.append(f"{size / 1e6 / into:9.0f} {size / 1e6 / back:11.0f} {ratio:5.2f}")
            print(f"{f'{stream}/{field}':34} {chunks[0].dtype.str:>6} {size / 1e6:6.1f}   "
                  + "   ".join(shown))  # fmt: skip


if __name__ == "__main__":
    main()
