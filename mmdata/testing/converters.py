"""What every converter must do, as a test class to subclass.

>>> class TestMine(ConverterContract):
...     converter = MyConverter
...     counts = {"imu": 100}
...     def make(self, folder):
...         return write_my_sample(folder / "drive_1.my")

Each test makes its own copy of the sample. docs/adding-a-converter.md walks through one.
"""

from __future__ import annotations

import hashlib
import shutil
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mmdata.errors import ConversionError, MissingDependencyError, MmdataError
from mmdata.recording import Batch, Converter, Recording
from mmdata.registry import CONVERTER_GROUP, entries
from mmdata.store import EpisodeWriter, open_episode, verify_episode
from mmdata.streams import Ragged, StreamInfo


class ConverterContract:
    """Subclass as `Test...`, set `converter`, write `make`."""

    #: The class under test.
    converter: ClassVar[type[Converter]]
    #: Samples per stream of the sample's first part; None: only consistency is tested.
    counts: ClassVar[Mapping[str, int] | None] = None
    #: Number of parts of the sample.
    parts: ClassVar[int] = 1
    #: Whether the sample's stamps are made from row numbers; None: mixed.
    synthetic: ClassVar[bool | None] = None
    #: No batch may be larger, nor reading hold more than a few of them.
    max_batch_bytes: ClassVar[int] = 32 << 20
    #: Damaged copies to try per file, and how many files of a large sample.
    damages: ClassVar[int] = 4
    damaged_files: ClassVar[int] = 12

    def make(self, folder: Path) -> Path:
        """Write a small whole recording into an empty folder and return the path to open."""
        raise NotImplementedError("a contract test writes a sample in make()")

    @pytest.fixture
    def sample(self, tmp_path: Path) -> Path:
        """Path of a fresh sample."""
        folder = tmp_path / "sample"
        folder.mkdir()
        return self.make(folder)

    # -- sniffing ------------------------------------------------------------------------------

    def test_sniffs_its_own(self, sample: Path) -> None:
        assert self.converter.sniff(sample) is True

    def test_sniffs_nothing_else(self, tmp_path: Path) -> None:
        for path in _strangers(tmp_path):
            assert self.converter.sniff(path) is False, path

    def test_no_other_converter_claims_it(self, sample: Path) -> None:
        for entry in entries(CONVERTER_GROUP):
            try:
                other = entry.load()
            except (MissingDependencyError, ImportError):
                continue  # another plug-in's business
            if other.name != self.converter.name:
                assert other.sniff(sample) is False, f"{other.name} claims it too"

    # -- opening -------------------------------------------------------------------------------

    def test_parts(self, sample: Path) -> None:
        parts = list(self.converter.sources(sample))
        assert len(parts) == len(set(parts)) == self.parts
        with self.converter.open(sample) as recording:
            first = recording.inspect()
        with self.converter.open(sample, parts[0]) as recording:
            assert recording.inspect() == first
        for part in parts:
            with self.converter.open(sample, part) as recording:
                assert recording.inspect().format

    def test_unknown_part(self, sample: Path) -> None:
        with pytest.raises(ConversionError):
            self.converter.open(sample, "no such part")

    def test_what_is_not_ours(self, tmp_path: Path) -> None:
        """Opening something else ends in a reason, not in a traceback of a library."""
        for path in _strangers(tmp_path):
            with pytest.raises((MmdataError, OSError)):
                _exhaust(self.converter.open(path))

    def test_opening_is_lazy(self, sample: Path) -> None:
        """Looking does not read the payload; a closed recording can be closed again."""
        recording = self.converter.open(sample)
        tracemalloc.start()
        try:
            recording.inspect()
            batches = recording.read()
            assert isinstance(batches, Iterator)
            assert tracemalloc.get_traced_memory()[1] < self.max_batch_bytes
        finally:
            tracemalloc.stop()
        recording.close()
        recording.close()

    # -- reading -------------------------------------------------------------------------------

    def test_counts(self, sample: Path) -> None:
        """Every message is a sample or is accounted for, and inspect knew how many there are."""
        with self.converter.open(sample) as recording:
            streams = read_all(recording)
            account = recording.account
            found = {name: sum(len(b) for b in batches) for name, batches in streams.items()}
            dropped: dict[str, int] = {}
            for item in account.dropped_list():
                dropped[item.topic] = dropped.get(item.topic, 0) + item.count
            samples: dict[str, int] = {}
            for batches in streams.values():
                for batch in batches:
                    topic = batch.info.source_topic or batch.info.name
                    samples[topic] = samples.get(topic, 0) + len(batch)
            for topic in {*samples, *dropped}:
                total = samples.get(topic, 0) + dropped.get(topic, 0)
                assert account.messages.get(topic) == total, topic
            listed = {t.topic: t.count for t in recording.inspect().topics if t.kind is not None}
            for topic, n in samples.items():
                assert listed[topic] >= n, topic
        if self.counts is not None:
            assert found == dict(self.counts)

    def test_stamps(self, sample: Path) -> None:
        """Stamps are int64 nanoseconds, one per sample, and made-up ones say so."""
        with self.converter.open(sample) as recording:
            for name, batches in read_all(recording).items():
                for batch in batches:
                    given = [batch.source_ns, batch.receive_ns, batch.publish_ns]
                    assert batch.source_ns is not None or batch.receive_ns is not None, name
                    for stamps in given:
                        if stamps is not None:
                            assert stamps.dtype == np.int64
                            assert stamps.shape == (len(batch),)
                    for values in batch.samples.values():
                        assert len(values) == len(batch), name
                source = batches[0].info.stamp_source
                if self.synthetic is not None:
                    assert (source == "synthetic") is self.synthetic, name
                if source == "synthetic":
                    assert batches[0].receive_ns is None, name

    def test_one_description_per_stream(self, sample: Path) -> None:
        with self.converter.open(sample) as recording:
            for name, batches in read_all(recording).items():
                assert len({_facts(b.info) for b in batches}) == 1, name
                assert "/" not in name

    def test_topics_can_be_chosen(self, sample: Path) -> None:
        with self.converter.open(sample) as recording:
            everything = _digests(read_all(recording))
            topics = [t.topic for t in recording.inspect().topics if t.kind is not None]
        for topic in topics[:3]:
            with self.converter.open(sample) as recording:
                chosen = read_all(recording, frozenset({topic}))
            for name, digest in _digests(chosen).items():
                assert digest == everything[name]
            sources = {b.info.source_topic or b.info.name for bs in chosen.values() for b in bs}
            assert sources <= {topic}

    def test_memory_is_bounded(self, sample: Path) -> None:
        tracemalloc.start()
        try:
            with self.converter.open(sample) as recording:
                for batch in recording.read():
                    assert batch.nbytes <= self.max_batch_bytes
            assert tracemalloc.get_traced_memory()[1] < 4 * self.max_batch_bytes
        finally:
            tracemalloc.stop()

    def test_reading_twice_gives_the_same(self, sample: Path) -> None:
        def once() -> tuple[Any, ...]:
            with self.converter.open(sample) as recording:
                digests = _digests(read_all(recording))
                return (
                    digests, recording.layers, recording.metadata, recording.rig.to_dict(),
                    recording.account.problem_lines(), recording.account.dropped_list(),
                )  # fmt: skip

        assert once() == once()

    def test_becomes_a_valid_episode(self, sample: Path, tmp_path: Path) -> None:
        for part in list(self.converter.sources(sample))[:2]:
            with self.converter.open(sample, part) as recording:
                path = write_episode(recording, tmp_path / "out" / "episode.h5")
            assert verify_episode(path).problems == []
            with open_episode(path) as episode:
                assert list(episode.annotations) == list(recording.layers)
                for stream in episode.streams.values():
                    if len(stream):
                        assert stream[0] is not None
                        assert stream[len(stream) - 1] is not None
            _check_layers(recording)
            path.unlink()

    # -- damage --------------------------------------------------------------------------------

    def test_damage_is_told(self, sample: Path, tmp_path: Path) -> None:
        """Cut or overwritten files give samples that are accounted for, or a reason. No crash."""
        rng = np.random.default_rng(7)
        files = sorted(p for p in _files(sample) if p.stat().st_size)[: self.damaged_files]
        for file in files:
            whole = file.read_bytes()
            for _ in range(self.damages):
                file.write_bytes(_damaged(whole, rng))
                try:
                    self.converter.sniff(sample)
                    _exhaust(self.converter.open(sample))
                except (MmdataError, OSError):
                    pass
            file.write_bytes(whole)

    def test_an_empty_file(self, sample: Path) -> None:
        for file in sorted(_files(sample))[: self.damaged_files]:
            whole = file.read_bytes()
            file.write_bytes(b"")
            try:
                self.converter.sniff(sample)
                _exhaust(self.converter.open(sample))
            except (MmdataError, OSError):
                pass
            file.write_bytes(whole)


# -- helpers that tests of converters may use too ----------------------------------------------


def read_all(recording: Recording, topics: frozenset[str] | None = None) -> dict[str, list[Batch]]:
    """All batches of a small recording, by stream name."""
    streams: dict[str, list[Batch]] = {}
    for batch in recording.read(topics):
        if len(batch):
            streams.setdefault(batch.info.name, []).append(batch)
    return streams


def write_episode(recording: Recording, path: Path) -> Path:
    """Write a recording as one episode file, as it is: no splitting, no alignment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with EpisodeWriter(path, overwrite=True, replace_partial=True) as writer:
        declared: set[str] = set()
        for batch in recording.read():
            name = batch.info.name
            if name not in declared:
                declared.add(name)
                writer.add_stream(batch.info)
            writer.append(
                name, batch.source_ns, batch.samples,
                receive_ns=batch.receive_ns, publish_ns=batch.publish_ns,
            )  # fmt: skip
        writer.set_rig(recording.rig)
        writer.set_metadata(**recording.metadata)
        for layer, document in recording.layers.items():
            writer.set_annotations(layer, document)
    return path


def _exhaust(recording: Recording) -> None:
    with recording:
        recording.inspect()
        for batch in recording.read():
            assert len(batch) >= 0


def _strangers(folder: Path) -> list[Path]:
    """Things that are of no format, and a path that does not exist."""
    folder = folder / "strangers"
    (folder / "empty").mkdir(parents=True)
    (folder / "empty.bin").touch()
    (folder / "noise.bin").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "noise.mcap").write_bytes(np.random.default_rng(2).bytes(5000))
    (folder / "note.txt").write_text("nothing to see here\n")
    (folder / "list.json").write_text("[1, 2, 3]")
    (folder / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with EpisodeWriter(folder / "episode.h5") as writer:
        writer.append("imu", np.arange(5), {"data": np.arange(5.0)})
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    (folder / "photos").mkdir()
    (folder / "photos" / "readme.md").write_text("# Photos\n")
    return [*sorted(folder.iterdir()), folder / "does not exist"]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.5:
        return data[: int(rng.integers(0, len(data)))]
    at = int(rng.integers(0, len(data)))
    return data[:at] + rng.bytes(64) + data[at + 64 :]


def _facts(info: StreamInfo) -> str:
    return repr(
        (info.name, info.kind, sorted(info.fields.items()), info.encoding, info.stamp_source)
    )


def _digests(streams: Mapping[str, list[Batch]]) -> dict[str, str]:
    out = {}
    for name, batches in streams.items():
        digest = hashlib.sha256()
        for batch in batches:
            for stamps in (batch.source_ns, batch.receive_ns, batch.publish_ns):
                digest.update(b"-" if stamps is None else stamps.tobytes())
            for field, values in sorted(batch.samples.items()):
                digest.update(field.encode())
                if isinstance(values, Ragged):
                    digest.update(np.diff(values.offsets).tobytes() + values.data.tobytes())
                else:
                    digest.update(np.ascontiguousarray(values).tobytes())
        out[name] = digest.hexdigest()
    return out


def _check_layers(recording: Recording) -> None:
    from mmdata_schema import read_layer

    for name, document in recording.layers.items():
        assert read_layer(document).name == name


def copy_sample(path: Path, folder: Path) -> Path:
    """A copy of a sample that a test may break."""
    target = folder / path.name
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copy(path, target)
    return target
