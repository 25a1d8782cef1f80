"""Sidecars, embedded layers, publishing, and writers that get in each other's way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mmdata import EpisodeWriter, Kind, StreamInfo, open_episode
from mmdata.annotations import (
    RevisionConflictError,
    layer_path,
    list_layers,
    publish,
    read_episode_layer,
    read_layer_file,
    withdraw,
    write_layer_file,
)
from mmdata.annotations.sidecar import write_durably
from mmdata.errors import ConfigError, FormatError, SchemaError
from mmdata.streams import FieldInfo
from mmdata_schema import Event, Layer, Provenance, write_layer

T0 = 1_760_030_100_000_000_000


def make_layer(name: str = "anna", n: int = 1, episode_id: str = "take") -> Layer:
    return Layer(
        episode_id=episode_id,
        name=name,
        provenance=Provenance(author=name),
        events=[Event(id=f"e{i}", label="contact", stamp_ns=T0 + i) for i in range(n)],
    )


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    path = tmp_path / "take.h5"
    with EpisodeWriter(path, episode_id="take") as writer:
        writer.add_stream(
            StreamInfo("wrench", Kind.SIGNAL, {"force": FieldInfo("<f8", (3,))}, clock="host")
        )
        writer.append("wrench", T0 + np.arange(5) * 10**7, {"force": np.zeros((5, 3))})
    return path


def test_save_counts_revisions_and_remembers_its_base(tmp_path: Path) -> None:
    path = tmp_path / "take.anna.json"
    first = write_layer_file(path, make_layer(), 0)
    assert (first.revision, first.base_revision) == (1, 0)
    second = write_layer_file(path, first.remove("e0"), 1)
    assert (second.revision, second.base_revision) == (2, 1)
    assert read_layer_file(path) == second
    assert path.read_text() == write_layer(second)


def test_stale_save_is_refused_naming_both_revisions_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "take.anna.json"
    layer = write_layer_file(path, make_layer(), 0)
    write_layer_file(path, layer, 1)
    before = path.read_bytes()
    with pytest.raises(RevisionConflictError, match=r"revision 1, but revision 2") as caught:
        write_layer_file(path, layer, 1)
    assert (caught.value.expected, caught.value.found) == (1, 2)
    with pytest.raises(RevisionConflictError, match="revision 0, but revision 2"):
        write_layer_file(path, layer, 0)
    with pytest.raises(RevisionConflictError, match="does not exist"):
        write_layer_file(tmp_path / "take.bob.json", make_layer("bob"), 3)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_schema_errors_become_ours_and_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "take.anna.json"
    path.write_text('{"schema_version": "1.0"}')
    with pytest.raises(SchemaError, match=r"take\.anna\.json.*episode_id"):
        read_layer_file(path)
    with pytest.raises(SchemaError, match=r"belongs into take\.anna\.json"):
        write_layer_file(tmp_path / "other.json", make_layer(), 0)
    with pytest.raises(FileNotFoundError):
        read_layer_file(tmp_path / "nothing.json")


def _add_events(path: Path, who: int, n: int) -> None:
    """Optimistic loop: read, add one event, save; on conflict read again."""
    added = conflicts = 0
    while added < n:
        layer = read_layer_file(path)
        event = Event(id=f"w{who}-{added}", label="contact", stamp_ns=T0 + added)
        try:
            write_layer_file(path, layer.put(event), layer.revision)
        except RevisionConflictError:
            conflicts += 1
            continue
        added += 1


def test_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "take.anna.json"
    write_layer_file(path, make_layer(n=0), 0)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_events, args=(path, who, 15)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    layer = read_layer_file(path)
    assert {e.id for e in layer.events} == {f"w{w}-{i}" for w in range(4) for i in range(15)}
    assert layer.revision == 1 + 4 * 15


def _write_forever(path: Path) -> None:
    while True:
        layer = read_layer_file(path)
        write_layer_file(path, layer, layer.revision)


def test_killed_writer_leaves_a_whole_file_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "take.anna.json"
    write_layer_file(path, make_layer(n=2000), 0)
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        writer = context.Process(target=_write_forever, args=(path,))
        writer.start()
        revision = read_layer_file(path).revision
        deadline = time.monotonic() + 30
        while read_layer_file(path).revision < revision + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join(10)
        layer = read_layer_file(path)
        assert len(layer.events) == 2000
        assert layer.revision >= revision + 3
        assert write_layer_file(path, layer, layer.revision).revision == layer.revision + 1


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_list_shows_layers_and_leaves_other_json_alone(episode: Path) -> None:
    write_layer_file(episode.with_name("take.anna.json"), make_layer(n=3), 0)
    episode.with_name("take.truth.json").write_text('{"phases": []}')
    episode.with_name("take.2.anna.json").write_text("{}")  # of an episode "take.2"
    episode.with_name("take.bad.json").write_text('{"schema_version": "99.0"}')
    entries = {e.name: e for e in list_layers(episode)}
    assert set(entries) == {"anna", "bad"}
    anna = entries["anna"]
    assert (anna.place, anna.revision, anna.author, anna.counts) == (
        "sidecar", 1, "anna", {"events": 3},
    )  # fmt: skip
    assert anna.review_state == "draft"
    assert "99" in (entries["bad"].problem or "")
    assert layer_path(episode, "bob") == episode.with_name("take.bob.json")
    json.dumps([e.to_dict() for e in entries.values()])


def test_publish_moves_a_layer_into_the_episode_and_withdraw_back(episode: Path) -> None:
    sidecar = episode.with_name("take.anna.json")
    saved = write_layer_file(sidecar, make_layer(), 0)
    assert publish(episode) == ["anna"]
    assert not sidecar.exists()
    assert [(e.name, e.place) for e in list_layers(episode)] == [("anna", "embedded")]
    assert read_episode_layer(episode, "anna") == saved
    with open_episode(episode) as opened:
        assert len(opened.streams["wrench"]) == 5
    with pytest.raises(SchemaError, match="is embedded"):
        write_layer_file(sidecar, make_layer(), 0)
    with pytest.raises(SchemaError, match="is embedded"):  # an editor that was open meanwhile
        write_layer_file(sidecar, saved, 1)
    with pytest.raises(ConfigError, match="embedded already"):
        publish(episode, ["anna"])
    assert withdraw(episode, ["anna"]) == [sidecar]
    assert [(e.name, e.place) for e in list_layers(episode)] == [("anna", "sidecar")]
    assert read_layer_file(sidecar) == saved
    assert write_layer_file(sidecar, saved, 1).revision == 2


def test_interrupted_publish_is_seen_and_finished(episode: Path) -> None:
    sidecar = episode.with_name("take.anna.json")
    saved = write_layer_file(sidecar, make_layer(), 0)
    document = sidecar.read_bytes()
    publish(episode)
    sidecar.write_bytes(document)  # as if the crash came before the sidecar was removed
    (entry,) = list_layers(episode)
    assert (entry.place, entry.problem) == ("both", None)
    assert publish(episode) == ["anna"]
    assert not sidecar.exists()
    sidecar.write_text(write_layer(saved.edit(revision=5)))
    (entry,) = list_layers(episode)
    assert "differs" in (entry.problem or "")
    with pytest.raises(FormatError, match="another version"):
        publish(episode)
    with pytest.raises(FormatError, match="differs"):
        withdraw(episode, ["anna"])
    assert sidecar.exists()


def test_layer_of_another_episode_is_not_published(episode: Path) -> None:
    episode.with_name("take.anna.json").write_text(write_layer(make_layer(episode_id="other")))
    with pytest.raises(SchemaError, match="of 'other'"):
        publish(episode)
    with pytest.raises(ConfigError, match="no layer 'zoe'; there are: anna"):
        read_episode_layer(episode, "zoe")
