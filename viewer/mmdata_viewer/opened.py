"""Open episodes: a few at a time, one reader at a time, reopened when the file was replaced."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmdata import Episode, Stream, open_episode
from mmdata_viewer.errors import NotThereError
from mmdata_viewer.frames import FrameGraph

if TYPE_CHECKING:
    from mmdata_viewer.catalog import Catalog, Entry
    from mmdata_viewer.media import PacketOrder
    from mmdata_viewer.pyramid import Pyramid

_MOST_OPEN = 4


class Opened:
    """An episode, its lock (HDF5 reads one at a time) and what was computed from it."""

    def __init__(self, entry: Entry, version: str) -> None:
        self.entry = entry
        self.version = version
        self.lock = threading.RLock()
        self.pyramids: dict[tuple[str, str], Pyramid] = {}
        self.audio: dict[str, bytes] = {}
        self.packets: dict[str, PacketOrder] = {}
        self.episode: Episode = open_episode(entry.path)
        self._frames: FrameGraph | None = None

    @property
    def start_ns(self) -> int:
        """Zero of the wire's time axis."""
        return self.episode.start_ns or 0

    @property
    def frames(self) -> FrameGraph:
        if self._frames is None:
            self._frames = FrameGraph(self.episode)
        return self._frames

    def stream(self, name: str) -> Stream:
        """A stream by name; NotThereError when there is none."""
        if name not in self.episode.streams:
            raise NotThereError(f"{self.entry.name} has no stream {name!r}")
        return self.episode.streams[name]


class Pool:
    """The episodes that were used last."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Opened] = OrderedDict()

    @contextmanager
    def use(self, key: str) -> Iterator[Opened]:
        """The episode of a key, locked. NotThereError for unknown keys; errors of opening pass."""
        with self._lock:
            opened = self._get(key)
        with opened.lock:
            yield opened

    def _get(self, key: str) -> Opened:
        try:
            entry = self.catalog.entry(key)
            status = entry.path.stat()
        except (KeyError, FileNotFoundError):
            raise NotThereError(f"there is no episode {key!r} here") from None
        version = f"{status.st_mtime_ns:x}-{status.st_size:x}"
        opened = self._open.get(key)
        if opened is None or opened.version != version:
            opened = self._open[key] = Opened(entry, version)
        self._open.move_to_end(key)
        while len(self._open) > _MOST_OPEN:
            # Not closed by hand: a request may still read it; the last one to let go closes it.
            self._open.popitem(last=False)
        return opened
