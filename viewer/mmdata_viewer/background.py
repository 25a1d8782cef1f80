"""Work that takes seconds, in a process of its own, so that frames never wait for it."""

from __future__ import annotations

import multiprocessing
import os
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
        # The signal that ends the server may come while close() holds it.
        self._lock = threading.RLock()
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Result of a module-level function; blocks the calling thread only.

        ViewerError when the worker dies of it, and after :meth:`close`.
        """
        try:
            with self._lock:
                if self._closed:
                    raise ViewerError("the server is ending")
                if self._pool is None:
                    # spawn: a fork would copy the threads' locks and the open HDF5 files.
                    context = multiprocessing.get_context("spawn")
                    self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
                pool = self._pool
                # Under the lock: a worker that close() does not see yet would go on to its end.
                answer = pool.submit(function, *arguments)
            return answer.result()
        except BrokenProcessPool as error:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise ViewerError("the checking process died on this episode") from error

    def close(self) -> None:
        """Stop the worker at once, for good."""
        with self._lock:
            self._closed = True
            if self._pool is not None:
                # Terminated rather than waited for: nothing it does outlives its answer.
                for worker in list((self._pool._processes or {}).values()):
                    worker.terminate()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None


def _begin() -> None:
    """Give way to whatever shows frames, and end with the server.

    However the server ends, this worker would else wait for work for ever.
    """
    import cv2

    if hasattr(os, "nice"):
        os.nice(15)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
