"""Hashes of the files a recording consists of."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mmdata.digest import FileHash, hash_text
from mmdata.recording import Recording

#: Hashes of files by path, size and modification time: the episodes of a dataset share files.
_KNOWN: dict[tuple[str, int, int], str] = {}
_MOST_KNOWN = 4096


class SourceHashes:
    """Hashes the files of a recording while it is read; those it does not read whole on a thread.

    at_once: do not wait for the recording to come by; the hashes are wanted before all is read.
    """

    def __init__(self, recording: Recording, at_once: bool = False) -> None:
        self._files = list(recording.files)
        self._running = {} if at_once else dict(recording.hash_while_reading())
        self._apart = [FileHash(path) for path in self._files if path not in self._running]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mmdata-hash")
        self._done: Future[dict[Path, str]] = self._thread.submit(
            lambda: {h.path: _hexdigest(h) for h in self._apart}
        )

    def results(self) -> list[str]:
        """A hash per file, in the recording's order. Waits for them; raises OSError."""
        found = self._done.result()
        return [found[p] if p in found else self._running[p].hexdigest() for p in self._files]

    def joint(self) -> str:
        """One hash over all files: that of the only file, or of all their hashes."""
        results = self.results()
        return results[0] if len(results) == 1 else hash_text("".join(results))

    def close(self) -> None:
        """Stop: nobody waits for the hash of a large file that is given up."""
        for one in self._apart:
            one.stop()
        self._thread.shutdown()


def _hexdigest(file: FileHash) -> str:
    status = file.path.stat()
    key = (str(file.path), status.st_size, status.st_mtime_ns)
    if key not in _KNOWN:
        found = file.hexdigest()
        if file.stopped:
            return found
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = found
    return _KNOWN[key]
