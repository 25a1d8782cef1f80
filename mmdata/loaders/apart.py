"""Many small jobs over episode files, shared out among processes that know nothing of the caller.

Each is a fresh interpreter that imports what the jobs need and not the caller's script, so a script
needs no `if __name__ == "__main__"`, and neither threads nor open files of the caller play a part.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mmdata.cores import usable_cores

J = TypeVar("J")
R = TypeVar("R")
#: From how many jobs on processes that were asked for are used, and all cores unasked.
_ASKED_FROM, _UNASKED_FROM = 64, 1000
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from mmdata.loaders.apart import serve; serve()"
)


def shared_out(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> list[R]:
    """The function's result for each job, in order of the jobs. Raises what the function raises.

    function: of a module of mmdata, by itself. workers: processes, for 64 jobs or more; below 2, as
    many as there are cores for a thousand or more. With one process, jobs run here.
    """
    processes = workers
    if workers < 2:
        processes = usable_cores() if len(jobs) >= _UNASKED_FROM else 1
    if processes < 2 or len(jobs) < _ASKED_FROM:
        return [function(job) for job in jobs]
    size = -(-len(jobs) // processes)
    parts = [jobs[first : first + size] for first in range(0, len(jobs), size)]
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(lambda part: _ask(function, part), parts))
    return [result for part in found for result in part]


def _ask(function: Callable[[J], R], jobs: Sequence[J]) -> list[R]:
    """Results of one process."""
    request = pickle.dumps(sys.path) + pickle.dumps((function, list(jobs)))
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise RuntimeError(f"a process that reads episodes ended with status {done.returncode}")
    results, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return list(results)


def serve() -> None:
    """What such a process does: a request from standard input, results to standard output."""
    function, jobs = pickle.load(sys.stdin.buffer)
    results: list[Any] = []
    error: Exception | None = None
    try:
        results.extend(function(job) for job in jobs)
    except Exception as raised:  # whatever a job raises is the caller's: `shared_out` raises it
        error = raised
    sys.stdout.buffer.write(pickle.dumps((results, error)))
