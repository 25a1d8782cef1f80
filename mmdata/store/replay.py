"""Rewriting an episode from its journal: sorting by stamp, and recovery after a crash.

Both are the same act. The `.partial` file's HDF5 structures are not looked at; the journal says
where every chunk lies. What is written goes to another `.partial`, so that the first one stays
intact until the episode has its final name.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import EpisodeClocks, Placement, Stamps, StampStatistics, place_streams
from mmdata.errors import FormatError
from mmdata.geometry import Rig
from mmdata.store import layout
from mmdata.store.codecs import Pipeline
from mmdata.store.journal import ChunkRef, Journal, RowsRef, journal_path, read_journal
from mmdata.store.writer import EpisodeWriter, Timelines
from mmdata.streams import Ragged, StreamInfo, offsets_name

_BLOCK_BYTES = 8 << 20
_STAMPS = ("source_ns", "receive_ns", "publish_ns")


def recover(
    partial: str | os.PathLike[str],
    timelines: Timelines | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Make a valid episode (status "recovered") of what a killed writer left; returns its path.

    Everything appended up to the writer's last flush comes back. The `.partial` and its journal
    are removed once the episode stands under its final name.

    Raises FormatError when nothing can be recovered, or the writer is still alive;
    FileExistsError when the episode exists.
    """
    partial = Path(partial)
    if not partial.exists():
        raise FileNotFoundError(f"{partial} does not exist")
    if partial.suffix != ".partial":
        raise FormatError(f"{partial}: expected the <episode>.h5.partial that a killed writer left")
    target = partial.with_suffix("")
    if not journal_path(partial).exists():
        raise FormatError(f"{partial}: its journal is missing, nothing can be recovered")
    from mmdata.store.writer import lock_journal

    with lock_journal(journal_path(partial)):
        replay(partial, target, timelines=timelines, status="recovered", overwrite=overwrite)
    partial.unlink()
    journal_path(partial).unlink()
    return target


def replay(
    partial: Path,
    target: Path,
    *,
    clocks: EpisodeClocks | None = None,
    timelines: Timelines | None = None,
    status: str = "complete",
    overwrite: bool = True,
) -> None:
    """Write `target` from a `.partial` and its journal, every stream in stamp order."""
    journal = read_journal(partial)
    facts = _declarations(journal)
    episode = facts.single["episode"]
    with _Source(partial, journal, facts.columns) as source:
        if clocks is None:
            statistics = {name: source.statistics(name) for name in facts.streams}
            clocks = place_streams(statistics, episode["stamps"])
        writer = EpisodeWriter(
            target,
            episode["episode_id"],
            profile=episode["profile"],
            overwrite=overwrite,
            replace_partial=True,
            status=status,
            partial=target.with_name(target.name + ".rewrite.partial"),
        )
        try:
            _restore(writer, facts)
            writer.clocks = clocks
            for name, info in facts.streams.items():
                writer.add_stream(info)
                _copy_stream(source, writer, info, clocks.placements[name])
            writer.close(timelines)
        except BaseException:
            writer.abort()
            raise


class _Facts:
    """The declarations of a journal, the last of each name."""

    def __init__(self) -> None:
        self.single: dict[str, Any] = {}
        self.streams: dict[str, StreamInfo] = {}
        self.columns: dict[str, dict[str, tuple[int, dict[str, Any]]]] = {}


def _declarations(journal: Journal) -> _Facts:
    facts = _Facts()
    number = 0
    for what, data in journal.declarations:
        if what == "stream":
            facts.streams[data["name"]] = layout.info_from_json(data)
        elif what == "column":
            facts.columns.setdefault(data["stream"], {})[data["name"]] = (number, data)
            number += 1
        else:
            facts.single[what] = data
    return facts


def _restore(writer: EpisodeWriter, facts: _Facts) -> None:
    if "rig" in facts.single:
        writer.set_rig(Rig.from_dict(facts.single["rig"]))
    writer.set_metadata(**facts.single.get("metadata", {}))
    writer.set_provenance(facts.single.get("provenance", {}))
    for layer, document in facts.single.get("annotations", {}).items():
        writer.set_annotations(layer, document)


def _copy_stream(
    source: _Source, writer: EpisodeWriter, info: StreamInfo, placement: Placement
) -> None:
    columns = source.columns.get(info.name, {})
    present = [name for name in _STAMPS if name in columns]
    if not present:
        return
    n = source.rows(info.name, present[0])
    stamps = {name: source.read(info.name, name, 0, n) for name in present}
    placed = placement.stamps(stamps.get("source_ns"), stamps.get("receive_ns"))
    order = np.argsort(placed, kind="stable")
    in_order = bool((order[1:] > order[:-1]).all())
    for rows in _blocks(source, info, order):
        columns_out = {"stamp_ns": placed[rows], **{k: v[rows] for k, v in stamps.items()}}
        if not in_order:
            columns_out["recorded"] = rows
        writer.append_sorted(info.name, columns_out, source.batch(info, columns, rows))


def _blocks(source: _Source, info: StreamInfo, order: Stamps) -> Iterator[Stamps]:
    """Row numbers in stamp order, in blocks of bounded bytes."""
    cost = source.row_bytes(info, len(order))[order]
    block = np.cumsum(cost) // _BLOCK_BYTES
    edges = np.flatnonzero(np.diff(block)) + 1
    yield from (rows for rows in np.split(order, edges) if len(rows))


class _Source:
    """Rows of the columns of a `.partial`, read by the journal."""

    def __init__(
        self,
        partial: Path,
        journal: Journal,
        columns: Mapping[str, Mapping[str, tuple[int, dict[str, Any]]]],
    ) -> None:
        self.columns = columns
        self._journal = journal
        self._partial = partial.open("rb")
        self._tail = journal_path(partial).open("rb")
        self._cached: tuple[int, int, NDArray[Any]] | None = None

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._partial.close()
        self._tail.close()

    def rows(self, stream: str, column: str) -> int:
        """Committed rows of a column."""
        return self._journal.counts.get(self.columns[stream][column][0], 0)

    def statistics(self, stream: str) -> StampStatistics:
        """Stamp statistics, as the writer had them."""
        columns = self.columns.get(stream, {})
        statistics = StampStatistics()
        stamps = {
            name: self.read(stream, name, 0, self.rows(stream, name))
            for name in ("source_ns", "receive_ns")
            if name in columns
        }
        statistics.update(stamps.get("source_ns"), stamps.get("receive_ns"))
        return statistics

    def row_bytes(self, info: StreamInfo, n: int) -> NDArray[np.int64]:
        """(n,) bytes of each row over all payload columns."""
        total = np.full(n, 64, np.int64)
        for name, (_, data) in self.columns[info.name].items():
            if name in _STAMPS or name == "stamp_ns":
                continue
            size = int(np.prod(data["shape"], dtype=np.int64)) * np.dtype(data["dtype"]).itemsize
            field = info.fields.get(name)
            if field is not None and field.ragged:
                offsets = self.read(info.name, offsets_name(info.kind, name), 0, n + 1)
                total += np.diff(offsets) * size
            elif self.rows(info.name, name) == n:
                total += size
        return total

    def batch(
        self, info: StreamInfo, columns: Mapping[str, Any], rows: Stamps
    ) -> dict[str, NDArray[Any] | Ragged]:
        """Payload of the given rows, in their order."""
        batch: dict[str, NDArray[Any] | Ragged] = {}
        names = [*info.fields, *(["keyframe"] if "keyframe" in columns else [])]
        for name in names:
            field = info.fields.get(name)
            runs = _runs(rows)
            if field is None or not field.ragged:
                parts = [self.read(info.name, name, a, b) for a, b in runs]
                batch[name] = np.concatenate(parts)
                continue
            data, lengths = [], []
            for a, b in runs:
                offsets = self.read(info.name, offsets_name(info.kind, name), a, b + 1)
                data.append(self.read(info.name, name, int(offsets[0]), int(offsets[-1])))
                lengths.append(np.diff(offsets))
            ends = np.cumsum(np.concatenate(lengths))
            batch[name] = Ragged(np.concatenate(data), np.concatenate([[0], ends]).astype(np.int64))
        return batch

    def read(self, stream: str, column: str, first: int, last: int) -> NDArray[Any]:
        """Rows first:last of a column. Raises FormatError when bytes are missing or damaged."""
        number, data = self.columns[stream][column]
        dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
        row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        out = np.empty((last - first, *shape), dtype)
        done = first
        while done < last:
            reference = self._find(number, done, int(data["chunk_rows"]), row_bytes)
            if reference is None:
                raise FormatError(f"the journal lacks rows {done}:{last} of {stream}/{column}")
            values = self._load(number, data, reference)
            start = reference.first_row
            stop = min(start + len(values), last)
            out[done - first : stop - first] = values[done - start : stop - start]
            done = stop
        return out

    def _find(
        self, number: int, row: int, chunk_rows: int, row_bytes: int
    ) -> ChunkRef | RowsRef | None:
        """The finished chunk that holds a row, else the journaled rows that do."""
        chunks = self._journal.chunks.get(number, [])
        if row // chunk_rows < len(chunks):
            return chunks[row // chunk_rows]
        tails = self._journal.rows.get(number, [])
        i = bisect_right(tails, row, key=lambda t: t.first_row) - 1
        if i < 0 or row >= tails[i].first_row + tails[i].length // row_bytes:
            return None
        return tails[i]

    def _load(
        self, number: int, data: Mapping[str, Any], reference: ChunkRef | RowsRef
    ) -> NDArray[Any]:
        if self._cached is not None and self._cached[:2] == (number, reference.first_row):
            return self._cached[2]
        file = self._partial if isinstance(reference, ChunkRef) else self._tail
        file.seek(reference.file_offset)
        raw = file.read(reference.length)
        dtype = np.dtype(data["dtype"])
        if isinstance(reference, ChunkRef):
            try:
                raw = Pipeline(data["compression"], dtype.itemsize).decode(raw)
            except (RuntimeError, ValueError) as error:
                raise FormatError(
                    f"{self._partial.name}: chunk of {data['stream']}/{data['name']} at byte "
                    f"{reference.file_offset} is damaged: {error}"
                ) from error
        values = np.frombuffer(raw, dtype).reshape(-1, *data["shape"])
        if isinstance(reference, ChunkRef):
            self._cached = (number, reference.first_row, values)
        return values


def _runs(rows: Stamps) -> list[tuple[int, int]]:
    """Consecutive row numbers as half-open ranges, in order."""
    edges = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, edges)]
