"""Where the jobs of a batch run: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

from mmdata.config import ConvertConfig
from mmdata.conversion.job import JobResult
from mmdata.conversion.ledger import join_claim
from mmdata.conversion.remote import convert_anywhere
from mmdata.conversion.sources import Source, is_uri
from mmdata.errors import ConversionError, MissingDependencyError

Progress = Callable[[str, int, int], None]
#: A result and when its job was started (Unix seconds).
Results = Iterator[tuple[JobResult, float]]
_REPORT_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1
_REACH_S = 5.0


@dataclass(frozen=True)
class Task:
    """One job of a batch. replaces: episodes (file names) an earlier run made of its source."""

    source: Source
    out: str | Path
    config: ConvertConfig
    overwrite: bool = False
    replaces: frozenset[str] = frozenset()

    def run(self, progress: Progress | None = None) -> tuple[JobResult, float]:
        """Do it; the second value is when it was started (Unix seconds)."""
        started = time.time()
        report = None if progress is None else _Throttled(progress, self.source.episode_id)
        result = convert_anywhere(
            self.source, self.out, self.config,
            overwrite=self.overwrite, replaces=self.replaces, progress=report,
        )  # fmt: skip
        return result, started


def run_here(todo: list[Task], progress: Progress | None) -> Results:
    """One after the other in this process."""
    for task in todo:
        yield task.run(progress)


class _Throttled:
    def __init__(self, report: Callable[[str, int, int], None], name: str) -> None:
        self._report = report
        self._name = name
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - self._last > _REPORT_EVERY_S:
            self._last = now
            self._report(self._name, done, total)


def _work(task: Task) -> tuple[JobResult, float]:
    return task.run(None if _reports is None else lambda *facts: _reports.put(facts))


# -- local processes ---------------------------------------------------------------------------

_reports: Any = None
_claim: Any = None


def _start_worker(reports: Any, parent: int, out: Path | None) -> None:
    """A worker ignores Ctrl-C (its parent stops it), and dies with its parent."""
    global _reports, _claim
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if sys.platform == "linux":
        # Sooner than `watch` sees it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)  # the parent was killed: stop writing at once, its next run starts over

    threading.Thread(target=watch, daemon=True).start()
    if out is not None:
        _claim = join_claim(out)


class _Pool:
    """Worker processes of one batch, started anew after one of them was killed."""

    def __init__(self, jobs: int, out: str | Path, reports: Any) -> None:
        self._jobs = jobs
        self._arguments = (reports, os.getpid(), None if is_uri(out) else Path(out))
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._executor = ProcessPoolExecutor(
            self._jobs, mp_context=self._context, initializer=_start_worker,
            initargs=self._arguments,
        )  # fmt: skip

    def submit(self, task: Task) -> Future[tuple[JobResult, float]]:
        # Workers start with Ctrl-C blocked, lest it end them while they import.
        with _sigint_blocked():
            return self._executor.submit(_work, task)

    def restart(self) -> None:
        """Replace the workers, of which one has died."""
        self.stop(at_once=True)
        self._start()

    def stop(self, at_once: bool) -> None:
        """End the workers; at_once: whatever they are doing."""
        if at_once:
            for process in list((self._executor._processes or {}).values()):
                process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_pool(todo: list[Task], jobs: int, progress: Progress | None) -> Results:
    """In `jobs` processes. When one is killed, the logs it may have died of are tried once more,
    each alone; one that dies then is given up."""
    reports: Any = None
    if progress is not None:
        reports = multiprocessing.get_context("spawn").Queue()
    pool = _Pool(jobs, todo[0].out, reports)
    waiting = list(reversed(todo))
    alone: list[Task] = []
    by_itself = False
    running: dict[Future[tuple[JobResult, float]], Task] = {}
    try:
        while waiting or running or alone:
            # No more is handed out than can run, so that stopping has little to give up.
            if not running:
                by_itself = bool(alone)
            limit, queue = (1, alone) if by_itself else (jobs, waiting)
            while queue and len(running) < limit:
                try:
                    future = pool.submit(queue[-1])
                except BrokenProcessPool:  # a worker has died; what runs says so below
                    if not running:
                        pool.restart()
                    break
                running[future] = queue.pop()
            done, _ = wait(running, timeout=_REPORT_EVERY_S, return_when=FIRST_COMPLETED)
            _pass_on(reports, progress)
            for future in done:
                task = running[future]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    suspects = list(running.values())
                    running.clear()
                    pool.restart()
                    for suspect in suspects:
                        remove_partials(suspect)
                    if by_itself:
                        yield JobResult(task.source, reason=_DIED), time.time()
                    else:
                        alone += reversed(suspects)
                    break
                del running[future]
                yield result
    finally:
        pool.stop(at_once=bool(running))
        if reports is not None:
            reports.close()
        for task in running.values():
            remove_partials(task)


_DIED = "the process converting it was killed (by the system for its memory, or by somebody)"


def _pass_on(reports: Any, progress: Progress | None) -> None:
    if reports is None or progress is None:
        return
    while True:
        try:
            progress(*reports.get_nowait())
        except Empty:
            return


def remove_partials(task: Task) -> None:
    """Remove what a stopped worker left of a source."""
    out, source = task.out, task.source
    if is_uri(out):
        return
    for pattern in (".h5.partial", ".h5.partial.journal", ".h5.rewrite.partial*"):
        for path in Path(out).glob(f"{glob.escape(source.episode_id)}*{pattern}"):
            rest = path.name[len(source.episode_id) :].split(".h5", 1)[0]
            if not rest or (rest[0] == "_" and rest[1:].isdigit()):
                path.unlink(missing_ok=True)


# -- Ray ---------------------------------------------------------------------------------------


def run_ray(todo: list[Task], jobs: int, address: str | None) -> Results:
    """The same job function as Ray tasks; sources and `out` must be paths every node sees, or URIs.

    Without address, Ray is started here with `jobs` processors.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", "--engine ray") from None
    started_here = not ray.is_initialized()
    if started_here:
        if address:
            _reach(address)
        options: dict[str, Any] = {"address": address} if address else {"num_cpus": jobs}
        if not address:
            options["include_dashboard"] = False
        try:
            ray.init(log_to_driver=False, logging_level="error", **options)
        except Exception as error:  # Ray raises bare ones when it does not start or is not reached
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConversionError(f"--engine ray: {first}") from error
    work = ray.remote(num_cpus=1, max_retries=2)(_work)
    limit = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    waiting = list(reversed(todo))
    running: dict[Any, Task] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                task = waiting.pop()
                running[work.remote(_absolute(task))] = task
            done, _ = ray.wait(list(running), num_returns=1)
            task = running.pop(done[0])
            try:
                result, started = ray.get(done[0])
            except ray.exceptions.RayError as error:
                reason = f"its Ray task failed: {str(error).splitlines()[0]}"
                result, started = JobResult(task.source, reason=reason), time.time()
            yield _as_asked(result, task), started
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started_here:
            ray.shutdown()
        for task in running.values():
            remove_partials(task)


def _reach(address: str) -> None:
    """Refuse an address at which nothing listens; Ray would wait for it, and may end the process.

    Raises ConversionError. Addresses without a port ("auto") are left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConversionError(
            f"--engine ray: nothing answers at {address} ({error}); is the cluster up?"
        ) from None


def _absolute(task: Task) -> Task:
    """Ray's workers have a working folder of their own."""
    source, out = task.source, task.out
    return replace(
        task,
        source=source if source.uri else replace(source, path=source.path.resolve()),
        out=out if is_uri(out) else Path(out).resolve(),
    )


def _as_asked(result: JobResult, task: Task) -> JobResult:
    """A result that names its source and its episodes as the batch does."""
    result.source = task.source
    result.episodes = [
        replace(
            e,
            source=task.source.label,
            path=e.path if is_uri(task.out) else Path(task.out) / e.path.name,
        )
        for e in result.episodes
    ]
    return result
