"""EpisodeWriter: the one way an episode file comes into being, live or by conversion."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from mmdata.clocks import EpisodeClocks, StampPolicy, Stamps, StampStatistics, place_streams
from mmdata.episode import Timeline
from mmdata.errors import FormatError
from mmdata.geometry import Rig
from mmdata.store import finalize, layout
from mmdata.store.batches import Samples, columns_of, named_stamps, normalise
from mmdata.store.codecs import Profile, pipeline_for
from mmdata.store.column import ChunkSink, Column
from mmdata.store.handle import load_filters
from mmdata.store.journal import JournalWriter, journal_path
from mmdata.streams import Kind, Ragged, Stream, StreamInfo

FLUSH_INTERVAL_S = 1.0
_WRITEBACK_INTERVAL_S = 0.25
Timelines = Callable[[Mapping[str, Stream]], Iterable[Timeline]]

_SIGNAL_CHUNK_BYTES = 128 << 10
_BYTES_CHUNK_BYTES = 256 << 10
_POINTS_MIN, _POINTS_MAX = 16 << 10, 256 << 10


class _StreamWriter:
    """Columns and stamp statistics of one stream."""

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.columns: dict[str, Column] = {}
        self.statistics = StampStatistics(synthetic=info.stamp_source == "synthetic")
        self.stamp_names: tuple[str, ...] | None = None
        self.ordered = False

    @property
    def count(self) -> int:
        return self.statistics.n


class EpisodeWriter:
    """Writes one episode file.

    >>> with EpisodeWriter("pick.h5") as writer:
    ...     writer.append("imu", stamps, {"angular_velocity": gyro}, kind="signal")

    Bytes go to `<path>.partial` and its journal; everything appended more than about a second ago
    survives a killed process (`mmdata.store.recover`). `close()` makes the file whole, gives it its
    final name and removes the journal. Leaving the context by an exception keeps the `.partial`.
    Safe to call from several threads.

    path: final file, conventionally `<episode_id>.h5`. profile: "default" compresses with Blosc
    (readers need hdf5plugin), "interchange" with gzip. stamps: see `mmdata.clocks.place_streams`.
    overwrite: replace an existing episode; replace_partial: discard what a killed writer left.

    Raises FileExistsError when the episode or an unrecovered `.partial` is already there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        episode_id: str | None = None,
        *,
        profile: Profile = "default",
        stamps: StampPolicy = "auto",
        overwrite: bool = False,
        replace_partial: bool = False,
        status: str = "complete",
        partial: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.episode_id = episode_id or self.path.stem
        self.partial = partial or self.path.with_name(self.path.name + ".partial")
        self.profile: Profile = profile
        self.stamp_policy: StampPolicy = stamps
        self.status = status
        self.rig = Rig()
        self.metadata: dict[str, Any] = {}
        self.annotations: dict[str, str] = {}
        self.provenance: dict[str, Any] = {}
        self.clocks: EpisodeClocks | None = None
        self._streams: dict[str, _StreamWriter] = {}
        self._columns: list[Column] = []
        self._lock = threading.RLock()
        self._dirty = False
        self._done = threading.Event()
        if self.path.exists() and not overwrite:
            raise FileExistsError(
                f"{self.path} exists already; choose another name or overwrite it"
            )
        load_filters()
        self._claim_partial(replace_partial)
        self._journal = JournalWriter(self.partial)
        self._lock_file = lock_journal(self._journal.path)
        self._file = h5py.File(self.partial, "w", libver=layout.LIBVER)
        self._file.attrs["format"] = layout.FORMAT
        self._file.attrs["status"] = "recording"
        self._sink = ChunkSink(self._file, self._journal)
        self._journal.declare(
            "episode",
            {"episode_id": self.episode_id, "profile": profile, "stamps": stamps},
        )
        self._flusher = threading.Thread(target=self._flush_regularly, daemon=True)
        self._flusher.start()

    # -- what goes in ------------------------------------------------------------------------

    def add_stream(self, info: StreamInfo) -> None:
        """Declare a stream. Raises FormatError when the name is taken or unusable."""
        with self._lock:
            name = info.name
            if not name or "/" in name or name.startswith("."):
                raise FormatError(
                    f"{name!r} is not a stream name: no '/', not empty, no leading '.'"
                )
            if name in self._streams:
                raise FormatError(f"{self.path}: stream {name!r} is declared twice")
            self._streams[name] = _StreamWriter(info)
            self._journal.declare("stream", layout.info_to_json(info))
            self._dirty = True

    def append(
        self,
        stream: str,
        stamps: Stamps | None,
        samples: Samples,
        *,
        receive_ns: Stamps | None = None,
        publish_ns: Stamps | None = None,
        kind: Kind | str = Kind.SIGNAL,
        copy: bool = True,
    ) -> None:
        """Add n samples.

        stamps (n,) i8: when the sensor took them (`source_ns`); None when only receive_ns is known.
        samples: for signal, tactile and sweep a dict field -> (n, ...) array or `Ragged`, or one
        array (field "data"); image, text and opaque: a list of bytes or str, or raw frames
        (n, H, W, C); depth (n, H, W); audio a list of blocks (S, C) or `Ragged`.
        kind: used when the stream was not declared by `add_stream`; its schema is then taken from
        this batch. copy False: arrays may be kept instead of copied; never change them afterwards.

        Raises FormatError when counts or schemas do not agree. Nothing of the batch is kept then.
        """
        with self._lock:
            known = self._streams.get(stream)
            info = known.info if known else StreamInfo(stream, Kind(kind), {})
            batch, info = normalise(info, samples)
            stamp_columns = named_stamps(stream, stamps, receive_ns, publish_ns)
            n = len(next(iter(stamp_columns.values())))
            for name, values in batch.items():
                if len(values) != n:
                    raise FormatError(
                        f"stream {stream!r}: {n} stamps but {len(values)} rows of {name!r}"
                    )
            if known is None:
                self.add_stream(info)
                known = self._streams[stream]
            elif not known.info.fields:
                known.info = info
                self._journal.declare("stream", layout.info_to_json(info))
            if known.stamp_names is None:
                known.stamp_names = tuple(stamp_columns)
            elif known.stamp_names != tuple(stamp_columns):
                raise FormatError(
                    f"stream {stream!r}: this batch has {', '.join(stamp_columns)}, "
                    f"earlier ones had {', '.join(known.stamp_names)}"
                )
            if n:
                self._append(known, stamp_columns, batch, copy)

    def set_stream_attrs(self, stream: str, attrs: Mapping[str, Any]) -> None:
        """Add facts to a stream's `attrs` (settings, measured quality)."""
        with self._lock:
            known = self._streams[stream]
            known.info = replace(known.info, attrs={**known.info.attrs, **attrs})
            self._journal.declare("stream", layout.info_to_json(known.info))
            self._dirty = True

    def set_rig(self, rig: Rig) -> None:
        """Intrinsics and extrinsics of the episode."""
        with self._lock:
            self.rig = rig
            self._journal.declare("rig", rig.to_dict())
            self._dirty = True

    def set_metadata(self, **facts: Any) -> None:
        """Known facts only: task, instruction, robot, operator, site, license, outcome, ..."""
        with self._lock:
            self.metadata.update({k: v for k, v in facts.items() if v is not None})
            self._journal.declare("metadata", self.metadata)
            self._dirty = True

    def set_provenance(self, facts: Mapping[str, Any]) -> None:
        """Sources, converter, configuration: whatever leads from a sample back to its log."""
        with self._lock:
            self.provenance.update(facts)
            self._journal.declare("provenance", self.provenance)
            self._dirty = True

    def set_annotations(self, layer: str, document: str) -> None:
        """One annotation layer (JSON document of the annotation schema) that came with the data."""
        with self._lock:
            self.annotations[layer] = document
            self._journal.declare("annotations", self.annotations)
            self._dirty = True

    # -- life --------------------------------------------------------------------------------

    @property
    def counts(self) -> dict[str, int]:
        """Samples per stream so far."""
        return {name: s.count for name, s in self._streams.items()}

    @property
    def infos(self) -> dict[str, StreamInfo]:
        """Stream descriptions so far."""
        return {name: s.info for name, s in self._streams.items()}

    def flush(self) -> None:
        """Make everything appended so far recoverable. Happens by itself once a second."""
        with self._lock:
            if not self._dirty:
                return
            tails = [tail for c in self._columns if (tail := c.take_tail()) is not None]
            committed = self._sink.commit(tails, {c.number: c.rows for c in self._columns})
            self._dirty = False
        try:
            committed.result()
        except BaseException:
            self._dirty = True
            raise

    def close(self, timelines: Timelines | None = None) -> Path:
        """Finish the episode and give it its final name; returns that path.

        timelines: called with the finished streams, returns the aligned views to store.
        """
        self._stop_flusher()
        with self._lock:
            try:
                self.flush()
                statistics = {n: s.statistics for n, s in self._streams.items()}
                self.clocks = self.clocks or place_streams(statistics, self.stamp_policy)
                if all(self._in_place(s) for s in self._streams.values()):
                    self._finish(timelines)
                else:
                    self._finish_sorted(timelines)
            finally:
                self._release()
        return self.path

    def abort(self) -> None:
        """Give up: remove the `.partial` and its journal."""
        self._stop_flusher()
        with self._lock:
            self._release()
            self.partial.unlink(missing_ok=True)
            journal_path(self.partial).unlink(missing_ok=True)

    def suspend(self) -> None:
        """Flush and stop, leaving the `.partial` for `recover`."""
        self._stop_flusher()
        with self._lock:
            try:
                self.flush()
            finally:
                self._release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._done.is_set():
            return
        if error is None:
            self.close()
        else:
            with contextlib.suppress(OSError):  # the first error is the one to show
                self.suspend()

    # -- internals ---------------------------------------------------------------------------

    def _claim_partial(self, replace: bool) -> None:
        journal = journal_path(self.partial)
        if not (self.partial.exists() or journal.exists()):
            return
        if not replace:
            raise FileExistsError(
                f"{self.partial} was left by a killed writer: `mmdata recover {self.partial}` "
                "brings it back; or delete it"
            )
        if journal.exists():
            lock_journal(journal).close()  # raises when its writer is alive
        self.partial.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)

    def append_sorted(
        self,
        stream: str,
        stamp_columns: Mapping[str, Stamps],
        batch: Mapping[str, Any],
    ) -> None:
        """Add rows that are already placed and in stamp order (used when rewriting)."""
        with self._lock:
            known = self._streams[stream]
            known.ordered = True
            known.stamp_names = tuple(stamp_columns)
            known.statistics.n += len(stamp_columns["stamp_ns"])
            self._write(known, stamp_columns, batch)

    def _append(
        self,
        stream: _StreamWriter,
        stamps: Mapping[str, Stamps],
        batch: Mapping[str, Any],
        copy: bool,
    ) -> None:
        source, receive = stamps.get("source_ns"), stamps.get("receive_ns")
        stream.statistics.update(source, receive)
        # Right for almost every stream; close() rewrites those for which it turns out not to be.
        if source is None:
            assert receive is not None
            placed = receive
        elif receive is None:
            placed = source
        else:
            placed = np.where(source == 0, receive, source)
        self._write(stream, {"stamp_ns": placed, **stamps}, batch, copy)

    def _write(
        self,
        stream: _StreamWriter,
        stamps: Mapping[str, Stamps],
        batch: Mapping[str, Any],
        copy: bool = True,
    ) -> None:
        for name, values in stamps.items():
            self._column(stream, name, values).append(values)
        for name, values in columns_of(stream.info, batch, self._offset_of(stream)):
            field = batch.get(name)
            first_row = len(field[0]) if isinstance(field, Ragged) and len(field) else 1
            self._column(stream, name, values, first_row).append(values, copy)
        self._dirty = True

    def _offset_of(self, stream: _StreamWriter) -> Callable[[str], int]:
        return lambda data: stream.columns[data].rows if data in stream.columns else 0

    def _column(
        self, stream: _StreamWriter, name: str, values: np.ndarray[Any, Any], first_row: int = 1
    ) -> Column:
        column = stream.columns.get(name)
        if column is not None:
            return column
        dtype, shape = values.dtype.newbyteorder("<"), tuple(values.shape[1:])
        column = Column(
            self._sink,
            len(self._columns),
            f"/{layout.STREAMS}/{stream.info.name}/{name}",
            dtype,
            shape,
            _chunk_rows(stream.info, name, values, first_row),
            pipeline_for(dtype, _compressed(stream.info, name), self.profile),
        )
        stream.columns[name] = column
        self._columns.append(column)
        self._journal.declare(
            "column",
            {
                "stream": stream.info.name, "name": name, "dtype": dtype.str, "shape": list(shape),
                "compression": column.pipeline.compression, "chunk_rows": column.chunk_rows,
            },
        )  # fmt: skip
        return column

    def _in_place(self, stream: _StreamWriter) -> bool:
        """Whether the rows written so far are already in stamp order, with the right stamps."""
        if stream.ordered or not stream.count:
            return True
        assert self.clocks is not None
        placement = self.clocks.placements[stream.info.name]
        statistics = stream.statistics
        if placement.receive_offset_ns and (
            placement.stamp_source == "receive" or statistics.n_unset
        ):
            return False
        if placement.stamp_source == "receive":
            return statistics.n_header == 0 and statistics.receive_sorted
        return statistics.header_sorted

    def _finish(self, timelines: Timelines | None) -> None:
        for column in self._columns:
            column.finish()
        self._sink.drain()
        assert self.clocks is not None
        finalize.write_episode(
            self._file,
            self,
            {n: (s.info, s.columns, s.stamp_names) for n, s in self._streams.items()},
            self.clocks,
            timelines,
        )
        self._file.close()
        finalize.publish(self.partial, self.path)
        journal_path(self.partial).unlink(missing_ok=True)

    def _finish_sorted(self, timelines: Timelines | None) -> None:
        """Rewrite through a second writer, in stamp order; this one's bytes stay until then."""
        from mmdata.store.replay import replay

        replay(self.partial, self.path, clocks=self.clocks, timelines=timelines, status=self.status)
        self._release()
        self.partial.unlink()
        journal_path(self.partial).unlink()

    def _flush_regularly(self) -> None:
        flushed = time.monotonic()
        while not self._done.wait(_WRITEBACK_INTERVAL_S):
            if time.monotonic() - flushed >= FLUSH_INTERVAL_S:
                try:
                    self.flush()
                except OSError:
                    # A full disk shows again, to the caller, at the next append or close.
                    return
                flushed = time.monotonic()
            self._sink.start_writeback()

    def _stop_flusher(self) -> None:
        self._done.set()
        if self._flusher is not threading.current_thread():
            self._flusher.join()

    def _release(self) -> None:
        self._sink.close()
        with contextlib.suppress(OSError, RuntimeError):  # what is lost was reported or given up
            self._file.close()
        self._journal.close()
        self._lock_file.close()


def lock_journal(path: Path) -> Any:
    """Hold the journal so that nobody else writes or recovers the episode. Raises FormatError."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FormatError(f"{path}: another process is writing this episode") from None
    return file


def _compressed(info: StreamInfo, column: str) -> bool:
    """Whether our filters should compress a column; encoded image bytes gain nothing."""
    return not (info.kind is Kind.IMAGE and column == "data" and info.encoding != "raw")


def _chunk_rows(info: StreamInfo, column: str, values: np.ndarray[Any, Any], first_row: int) -> int:
    """Rows per chunk of a column. first_row: how much of values a ragged field's first row is."""
    row_bytes: int = max(1, values.dtype.itemsize * int(np.prod(values.shape[1:])))
    field = info.fields.get(column)
    if info.kind in (Kind.IMAGE, Kind.DEPTH) and field is not None and not field.ragged:
        return 1
    if info.kind is Kind.SWEEP and field is not None and field.ragged:
        # As many points as the first sweep: where sweeps are of one size, a chunk is a sweep.
        return int(np.clip(first_row, _POINTS_MIN, _POINTS_MAX))
    if field is not None and field.ragged and row_bytes == 1:
        return _BYTES_CHUNK_BYTES
    return max(1, _SIGNAL_CHUNK_BYTES // row_bytes)
