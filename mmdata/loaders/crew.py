"""Threads that share the decoding of one batch: codecs run outside Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

Task = Callable[[], None]


class Crew:
    """Runs tasks in the calling thread and `threads - 1` more. Not for use after a fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def run(self, tasks: Iterable[Task]) -> None:
        """Run all tasks, in any order; raises what the first failing one raised."""
        waiting = deque(tasks)
        helpers = min(self.threads, len(waiting)) - 1
        if helpers < 1:
            _drain(waiting)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, "mmdata-decode")
        futures = [self._pool.submit(_drain, waiting) for _ in range(helpers)]
        try:
            _drain(waiting)
        finally:
            waiting.clear()
            errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error


def _drain(waiting: deque[Task]) -> None:
    while waiting:
        try:
            task = waiting.popleft()
        except IndexError:  # another thread took the last one
            return
        task()
