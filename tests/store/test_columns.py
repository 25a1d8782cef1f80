"""Columns: rows in, chunks out, and where they lie."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmdata import Kind, Ragged, StreamInfo, open_episode, verify_episode
from mmdata.store import EpisodeWriter, shift_stream
from mmdata.store.codecs import Pipeline
from mmdata.store.column import ChunkSink, Column
from mmdata.store.journal import JournalWriter, read_journal
from mmdata.streams import FieldInfo


@pytest.mark.parametrize("first", [1, 3, 4])
def test_rows_that_are_not_copied(tmp_path: Path, first: int) -> None:
    rng = np.random.default_rng(0)
    sweeps = [rng.normal(size=20_000).astype(np.float32) for _ in range(5)]
    sweeps.append(rng.normal(size=50_001).astype(np.float32))
    packets = [b"\xff\xd8\xff" + rng.bytes(200_000) for _ in range(6)]
    for copy in (True, False):
        with EpisodeWriter(tmp_path / f"{copy}.h5", "x") as writer:
            writer.add_stream(StreamInfo("lidar", Kind.SWEEP, {}))
            writer.add_stream(StreamInfo("camera", Kind.IMAGE, {}, encoding="jpeg"))
            for part in (slice(0, first), slice(first, 6)):
                stamps = np.arange(6, dtype=np.int64)[part]
                writer.append("lidar", stamps, {"x": Ragged.from_rows(sweeps[part])}, copy=copy)
                writer.append("camera", stamps, packets[part], copy=copy)
                writer.append("wide", stamps, np.ones((len(stamps), 40_000)), copy=copy)
                writer.append("swapped", stamps, np.ones((len(stamps), 9), ">f4"), copy=copy)
    assert (tmp_path / "True.h5").read_bytes() == (tmp_path / "False.h5").read_bytes()
    assert verify_episode(tmp_path / "False.h5", decode=False).problems == []


def test_the_journal_knows_where_every_chunk_lies(tmp_path: Path) -> None:
    """Chunks of all sizes, some in holes that growing structures leave behind."""
    rng = np.random.default_rng(0)
    path = tmp_path / "x.h5"
    with EpisodeWriter(path) as writer:
        for k in range(40):
            n = int(rng.integers(1, 60_000))
            stamps = np.arange(k * 100_000, k * 100_000 + n)
            writer.append("noise", stamps, {"a": rng.normal(size=n), "b": np.zeros(n, "u1")})
            writer.append(f"other_{k % 7}", stamps, {"c": rng.integers(0, 9, n)})
            writer.set_stream_attrs("noise", {f"fact_{k}": "x" * 300})
            writer.flush()
        said = read_journal(writer.partial)
        numbers = {c.number: c.path for c in writer._columns}
        file = writer._file
        checked = 0
        for number, chunks in said.chunks.items():
            dataset = file[numbers[number]].id
            assert len(chunks) == dataset.get_num_chunks()
            for chunk in chunks:
                where = dataset.get_chunk_info_by_coord((chunk.first_row,))
                assert (chunk.file_offset, chunk.length) == (where.byte_offset, where.size)
                checked += 1
        assert checked > 100


def test_a_chunk_that_hdf5_puts_into_a_hole_is_found(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        hole = file.create_dataset("hole", data=np.arange(100_000))
        file.create_dataset("last", data=np.arange(10))
        assert hole.id.get_offset()
        del hole, file["hole"]
        sink = ChunkSink(file, JournalWriter(tmp_path / "x.h5"))
        column = Column(sink, 0, "/fills", np.dtype("<i8"), (), 1000, Pipeline("none", 8))
        data = column.pipeline.encode(np.arange(1000))
        size = file.id.get_filesize()
        (offset,) = column.write_chunks(file, 0, 1000, [data])
        assert offset < size  # not at the end
        assert offset == file["fills"].id.get_chunk_info_by_coord((0,)).byte_offset
        sink.close()


def test_columns_of_structured_rows_are_taken_apart(tmp_path: Path) -> None:
    """Strided, unaligned fields handed over without a copy equal contiguous ones."""
    rng = np.random.default_rng(1)
    points = np.frombuffer(
        rng.bytes(20_000 * 11), np.dtype([("a", "<f4"), ("b", "u1"), ("c", "<i4"), ("d", "<u2")])
    )
    assert points.dtype.names is not None
    for name, copy in (("views", False), ("copies", True)):
        with EpisodeWriter(tmp_path / f"{name}.h5", "x") as writer:
            for k in range(6):
                fields = {
                    n: Ragged(points[n] if not copy else points[n].copy(), np.array([0, 20_000]))
                    for n in points.dtype.names
                }
                writer.append("lidar", np.array([k]), fields, kind=Kind.SWEEP, copy=copy)
    assert (tmp_path / "views.h5").read_bytes() == (tmp_path / "copies.h5").read_bytes()
    assert verify_episode(tmp_path / "views.h5").problems == []


def test_thousands_of_channels_and_long_facts(tmp_path: Path) -> None:
    """Attributes above the 64 KiB of old HDF5 structures; the same bytes whenever written."""
    names = tuple(f"taxel_{k:08d}" for k in range(6000))
    for k in range(2):
        with EpisodeWriter(tmp_path / f"{k}.h5", "x") as writer:
            fields = {"value": FieldInfo("<f4", (len(names),), channels=names)}
            writer.add_stream(StreamInfo("skin", Kind.SIGNAL, fields, attrs={"rows": [*names]}))
            writer.append("skin", np.arange(3), {"value": np.ones((3, len(names)), "f4")})
            writer.set_metadata(notes="n" * 100_000)
        time.sleep(1.1)  # HDF5 keeps times in whole seconds
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()
    with open_episode(tmp_path / "0.h5") as episode:
        info = episode.streams["skin"].info
        assert info.fields["value"].channels == names
        assert info.attrs["rows"] == [*names]
        assert len(episode.metadata["notes"]) == 100_000
    shift_stream(tmp_path / "0.h5", "skin", 5, "late")
    assert verify_episode(tmp_path / "0.h5").problems == []
