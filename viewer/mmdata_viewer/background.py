"""Work that takes seconds, in a process of its own, so that frames never wait for it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from mmdata_viewer.errors import ViewerError

T = TypeVar("T")


class Background:
    """One worker process, started when first needed and anew after a crash.

    A hostile file can take a decoder down with it; then only the worker dies.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Result of a module-level function; blocks the calling thread only."""
        with self._lock:
            if self._pool is None:
                # spawn: a fork would copy the threads' locks and the open HDF5 files.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, mp_context=context)
            pool = self._pool
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise ViewerError("the checking process died on this episode") from error

    def close(self) -> None:
        """Stop the worker at once."""
        with self._lock:
            if self._pool is not None:
                # Terminated rather than waited for: nothing it does outlives its answer.
                for worker in list((self._pool._processes or {}).values()):
                    worker.terminate()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None
