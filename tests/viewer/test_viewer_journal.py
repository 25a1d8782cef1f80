"""The journal: nothing acknowledged is lost, nothing is overwritten, everything can be undone."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from viewer_helpers import Server

from mmdata.annotations import read_episode_layer as read
from mmdata.annotations import write_layer_file
from mmdata_schema import Layer, Phase, Provenance, write_layer
from mmdata_viewer.errors import BadRequestError, ConflictError, NotThereError
from mmdata_viewer.journal import Journal
from mmdata_viewer.layers import LayerState


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    made = Journal(tmp_path / "state" / "journal.sqlite3")
    layer = Layer(episode_id="e", name="anna", provenance=Provenance(author="anna"))
    layer = layer.put(Phase(id="p0", tier="motion", label="approach", start_ns=0, end_ns=100))
    made.set_base("e.h5", "anna", write_layer(layer))
    yield made
    made.close()


def phase(id: str, start: int, label: str = "grasp", **fields: Any) -> dict[str, Any]:
    value = {"id": id, "tier": "motion", "label": label, "start_ns": start, "end_ns": start + 50}
    return {"collection": "phases", "id": id, "after": {**value, **fields}}


def remove(id: str) -> dict[str, Any]:
    return {"collection": "phases", "id": id, "after": None}


def random_change(rng: random.Random, state: LayerState, k: int) -> list[dict[str, Any]]:
    ids = [a.id for a in state.layer.annotations()]
    what = rng.random()
    if what < 0.45 or not ids:
        return [phase(f"n{k}", rng.randrange(10**6), rng.choice(["grasp", "lift", "lower"]))]
    id = rng.choice(ids)
    if what < 0.65:
        return [remove(id)]
    other = [phase(f"m{k}", rng.randrange(10**6))] if what > 0.9 else []
    return [phase(id, rng.randrange(10**6), confidence=rng.random()), *other]


@pytest.mark.parametrize("seed", range(3))
def test_undoing_a_hundred_random_edits_restores_the_state(journal: Journal, seed: int) -> None:
    rng = random.Random(seed)
    state = LayerState(journal, "e.h5", "anna")
    hashes = [state.hash()]
    for k in range(100):
        state.edit("anna", state.revision, random_change(rng, state, k), None)
        hashes.append(state.hash())
    assert len(set(hashes)) > 80
    for before in hashes[-2::-1]:
        state.undo("anna")
        assert state.hash() == before
    with pytest.raises(NotThereError):
        state.undo("anna")
    for after in hashes[1:]:
        state.redo("anna")
        assert state.hash() == after
    # What a restarted server reads is the same.
    assert LayerState(journal, "e.h5", "anna").hash() == state.hash()


def test_an_edit_of_something_changed_since_is_a_conflict(journal: Journal) -> None:
    state = LayerState(journal, "e.h5", "anna")
    seen = state.revision
    state.edit("ben", seen, [phase("p0", 7, "lift")], None)
    before = state.hash()
    with pytest.raises(ConflictError) as caught:
        state.edit("anna", seen, [phase("p0", 9, "lower"), phase("p1", 300)], None)
    assert caught.value.facts["user"] == "ben"
    assert caught.value.facts["conflicts"][0]["theirs"]["label"] == "lift"
    assert state.hash() == before, "all or nothing"
    state.edit("anna", seen, [phase("p1", 300)], None)  # something else: both are kept
    assert {a.id for a in state.layer.annotations()} == {"p0", "p1"}
    with pytest.raises(ConflictError, match="removed"):
        state.edit("ben", state.revision, [remove("p1")], None)
        state.edit("anna", seen + 2, [remove("p1")], None)


def test_undo_is_ones_own_and_refuses_what_others_built_on(journal: Journal) -> None:
    state = LayerState(journal, "e.h5", "anna")
    state.edit("anna", 0, [phase("a", 1)], None)
    state.edit("ben", 1, [phase("b", 1)], None)
    state.undo("anna")
    assert {x.id for x in state.layer.annotations()} == {"p0", "b"}
    state.redo("anna")
    state.edit("ben", state.revision, [phase("a", 2)], None)
    with pytest.raises(ConflictError, match="ben changed a"):
        state.undo("anna")


def test_a_request_sent_twice_counts_once(journal: Journal) -> None:
    state = LayerState(journal, "e.h5", "anna")
    first = state.edit("anna", 0, [phase("a", 1)], "request-1")
    again = state.edit("anna", 0, [phase("a", 1)], "request-1")
    assert again is first
    assert state.revision == 1
    reread = LayerState(journal, "e.h5", "anna")
    assert reread.edit("anna", 0, [phase("a", 1)], "request-1").revision == 1


@pytest.mark.parametrize(
    "change",
    [
        {"collection": "phases", "id": "x", "after": {"id": "y"}},
        {"collection": "nothing", "id": "x", "after": None},
        phase("x", 5, start_ns=0.5),
        phase("x", 5, end_ns=0),
        {"collection": "events", "id": "p0", "after": {"id": "p0", "label": "a", "stamp_ns": 1}},
        {"collection": "layer", "id": "name", "after": {}},
    ],
)
def test_malformed_edits_are_refused_and_leave_no_row(journal: Journal, change: Any) -> None:
    state = LayerState(journal, "e.h5", "anna")
    with pytest.raises(BadRequestError):
        state.edit("anna", 0, [change], None)
    assert list(journal.operations("e.h5", "anna")) == []


def test_an_acknowledged_edit_is_synced_to_disk(journal: Journal) -> None:
    """Write-ahead log and synchronous=FULL: SQLite calls fsync on the log before a commit returns,
    so that an edit outlives a power cut as well. (NORMAL would sync at checkpoints only.)"""
    connection = journal._db
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    # Each edit is a transaction of its own: nothing acknowledged waits in an open one.
    LayerState(journal, "e.h5", "anna").edit("anna", 0, [phase("a", 1)], None)
    assert not connection.in_transaction
    with sqlite3.connect(journal.path) as other:
        assert other.execute("SELECT count(*) FROM operations").fetchone() == (1,)


def test_rows_cannot_be_changed_or_removed(journal: Journal) -> None:
    LayerState(journal, "e.h5", "anna").edit("anna", 0, [phase("a", 1)], None)
    with sqlite3.connect(journal.path) as db:
        for statement in ("DELETE FROM operations", "UPDATE operations SET user = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


def test_history_tells_who_did_what_to_one_annotation(journal: Journal) -> None:
    state = LayerState(journal, "e.h5", "anna")
    state.edit("anna", 0, [phase("a", 1), phase("b", 1)], None)
    state.edit("ben", 1, [phase("a", 9)], None)
    rows = state.history("a")
    assert [(o.user, o.kind, len(o.items)) for o in rows] == [
        ("anna", "edit", 1),
        ("ben", "edit", 1),
    ]
    assert rows[1].items[0].before["start_ns"] == 1
    assert rows[1].items[0].after["start_ns"] == 9


def test_killing_the_server_loses_nothing_acknowledged(server: Server) -> None:
    key = server.key("drive.h5")
    path = f"/api/e/{key}/layers/anna"
    server.ask(f"{path}/open", {})
    acknowledged = None
    for k in range(30):
        body = {"base": k, "changes": [phase(f"k{k}", 1000 * k)], "request": f"r{k}"}
        status, answer = server.ask(f"{path}/edit", body)
        assert status == 200
        acknowledged = answer["hash"]
    server.stop(signal.SIGKILL)
    server.start()
    status, answer = server.ask(path)
    assert status == 200
    assert answer["hash"] == acknowledged
    assert answer["revision"] == 30
    # The page sends again what it never got an answer for.
    body = {"base": 29, "changes": [phase("k29", 29_000)], "request": "r29"}
    assert server.ask(f"{path}/edit", body)[1]["revision"] == 30


def test_publishing_writes_the_layer_and_refuses_to_overwrite(server: Server) -> None:
    key = server.key("drive.h5")
    episode = server.root / "drive.h5"
    path = f"/api/e/{key}/layers/anna"
    server.ask(f"{path}/open", {})
    server.ask(f"{path}/edit", {"base": 0, "changes": [phase("mine", 10)]})
    status, answer = server.ask(f"{path}/publish", {})
    assert (status, answer["published"]) == (200, 2)
    assert read(episode, "anna").revision == 2
    assert "mine" in read(episode, "anna").by_id()
    # Somebody saves the file behind the server's back, changing two things.
    theirs = read(episode, "anna").remove("e1")
    mine = theirs.get("mine")
    assert mine is not None
    theirs = theirs.put(mine.edit(label="theirs"))
    write_layer_file(episode.with_name("drive.anna.json"), theirs, 2)
    server.ask(f"{path}/edit", {"base": answer["revision"], "changes": [phase("mine", 11)]})
    status, answer = server.ask(f"{path}/publish", {})
    assert status == 409
    assert answer["merge"] is True
    status, answer = server.ask(f"{path}/merge", {})
    assert (status, answer["kept_ours"]) == (200, ["mine"])
    assert server.ask(f"{path}/publish", {})[1]["published"] == 4
    merged = read(episode, "anna")
    assert merged.get("e1") is None
    assert getattr(merged.get("mine"), "label") == "grasp"  # noqa: B009


def test_blind_annotators_see_each_other_only_when_done(server: Server) -> None:
    key = server.key("drive.h5")
    base = f"/api/e/{key}"
    people = {"annotators": ["anna", "ben"], "adjudicator": "cleo"}
    server.ask(f"{base}/assignment", people, method="PUT", user="cleo")
    for user in ("anna", "ben"):
        server.ask(f"{base}/layers/{user}/open", {}, user=user)
    assert server.ask(f"{base}/layers/anna", user="ben")[0] == 403
    rows = {r["name"]: r for r in server.ask(f"{base}/layers", user="ben")[1]["layers"]}
    assert rows["anna"] == {"name": "anna", "hidden": True}
    assert server.ask(f"{base}/layers/anna", user="cleo")[0] == 200
    assert server.ask(f"{base}/agreement?a=anna&b=ben", user="ben")[0] == 403
    body = {"state": "review", "base": 0}
    assert server.ask(f"{base}/layers/ben/review", body, user="ben")[0] == 200
    assert server.ask(f"{base}/layers/anna", user="ben")[0] == 200
    queue = server.ask("/api/queue", user="cleo")[1]["queue"]
    assert [(q["episode"], q["name"]) for q in queue] == [("drive.h5", "ben")]
    accept = {"state": "accepted", "base": 1}
    assert server.ask(f"{base}/layers/ben/review", accept, user="cleo")[0] == 200
    edit = {"base": 2, "changes": [phase("late", 1)]}
    assert server.ask(f"{base}/layers/ben/edit", edit, user="ben")[0] == 403
    bad = {"state": "draft", "base": 2}
    assert server.ask(f"{base}/layers/ben/review", bad, user="cleo")[0] == 400


def test_a_damaged_episode_does_not_hide_the_queue(server: Server) -> None:
    whole = (server.root / "drive.h5").read_bytes()
    (server.root / "other.h5").write_bytes(whole)
    for name in ("drive.h5", "other.h5"):
        layer = f"/api/e/{server.key(name)}/layers/ben"
        server.ask(f"{layer}/open", {}, user="ben")
        server.ask(f"{layer}/review", {"state": "review", "base": 0}, user="ben")
    rows = server.ask("/api/queue")[1]["queue"]
    assert [row["episode"] for row in rows] == ["drive.h5", "other.h5"]
    (server.root / "other.h5").write_bytes(whole[: len(whole) // 2])
    status, answer = server.ask("/api/queue")
    assert (status, [row["episode"] for row in answer["queue"]]) == (200, ["drive.h5"])
    (damaged,) = answer["unreadable"]
    assert damaged["episode"] == "other.h5"
    assert damaged["reason"]


def test_stamps_survive_the_way_through_a_browser(server: Server) -> None:
    """What went out and came back unchanged leaves the layer's bytes as they were."""
    path = f"/api/e/{server.key('drive.h5')}/layers/anna"
    server.ask(f"{path}/open", {})
    before = server.ask(path)[1]
    document = json.loads(json.dumps(before["document"]))
    changes = [
        {"collection": name, "id": row["id"], "after": row}
        for name in ("phases", "events", "tracks_3d", "captions")
        for row in document[name]
    ]
    status, answer = server.ask(f"{path}/edit", {"base": 0, "changes": changes})
    assert status == 200
    assert answer["hash"] == before["hash"]
