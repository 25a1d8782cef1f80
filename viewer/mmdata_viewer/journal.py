"""The annotation journal: an append-only log of edits in SQLite.

A row is one operation: who, when, on which revision of the layer it was made, and per touched
annotation its JSON before and after, so that every operation carries its own inverse. An operation
is on disk (write-ahead log, synchronous=FULL) before it is acknowledged. Rows are never changed:
undoing appends the inverse.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata_viewer.errors import UnavailableError, ViewerError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bases (
  episode TEXT NOT NULL, layer TEXT NOT NULL, document TEXT NOT NULL, unix_ns INTEGER NOT NULL,
  PRIMARY KEY (episode, layer));
CREATE TABLE IF NOT EXISTS operations (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, episode TEXT NOT NULL, layer TEXT NOT NULL,
  revision INTEGER NOT NULL, base INTEGER NOT NULL, user TEXT NOT NULL, unix_ns INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('edit', 'undo', 'redo', 'publish', 'merge')),
  target INTEGER, items TEXT NOT NULL, request TEXT UNIQUE,
  UNIQUE (episode, layer, revision));
CREATE TABLE IF NOT EXISTS preferences (
  user TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS assignments (
  episode TEXT PRIMARY KEY, annotators TEXT NOT NULL, adjudicator TEXT);
CREATE TRIGGER IF NOT EXISTS operations_kept BEFORE DELETE ON operations
  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER IF NOT EXISTS operations_fixed BEFORE UPDATE ON operations
  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""


@dataclass(frozen=True)
class Item:
    """One annotation touched by an operation. None: it is not there before, or after."""

    collection: str
    id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def inverse(self) -> Item:
        return Item(self.collection, self.id, self.after, self.before)

    def to_dict(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "id": self.id,
            "before": self.before,
            "after": self.after,
        }


@dataclass(frozen=True)
class Operation:
    """One row. revision: of the layer after it; base: what its author had seen; target: the
    revision an undo or redo is about."""

    revision: int
    base: int
    user: str
    unix_ns: int
    kind: str
    target: int | None
    items: tuple[Item, ...]
    request: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "base": self.base,
            "user": self.user,
            "unix_ns": self.unix_ns,
            "kind": self.kind,
            "target": self.target,
            "items": [item.to_dict() for item in self.items],
            "request": self.request,
        }


class Journal:
    """The database of one root folder. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ViewerError(
                f"cannot keep the annotation journal at {path} ({error}); name a writable folder "
                "with --state"
            ) from error
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- layers ------------------------------------------------------------------------------

    def layers(self, episode: str) -> list[str]:
        """Layers of an episode that were opened for editing."""
        rows = self._all("SELECT layer FROM bases WHERE episode = ? ORDER BY layer", episode)
        return [row[0] for row in rows]

    def base(self, episode: str, layer: str) -> str | None:
        """The document the operations of a layer start from."""
        rows = self._all(
            "SELECT document FROM bases WHERE episode = ? AND layer = ?", episode, layer
        )
        return rows[0][0] if rows else None

    def set_base(self, episode: str, layer: str, document: str) -> None:
        """Begin a layer; what is there already stays."""
        self._run(
            "INSERT OR IGNORE INTO bases VALUES (?, ?, ?, ?)",
            (episode, layer, document, time.time_ns()),
        )

    def operations(self, episode: str, layer: str) -> Iterator[Operation]:
        """All operations of a layer, oldest first."""
        rows = self._all(
            "SELECT revision, base, user, unix_ns, kind, target, items, request FROM operations "
            "WHERE episode = ? AND layer = ? ORDER BY revision",
            episode,
            layer,
        )
        for row in rows:
            items = tuple(Item(**item) for item in json.loads(row[6]))
            yield Operation(row[0], row[1], row[2], row[3], row[4], row[5], items, row[7])

    def append(self, episode: str, layer: str, operation: Operation) -> None:
        """Make one operation durable. UnavailableError when the disk takes nothing."""
        items = json.dumps([i.to_dict() for i in operation.items], separators=(",", ":"))
        o = operation
        self._run(
            "INSERT INTO operations (episode, layer, revision, base, user, unix_ns, kind, target,"
            " items, request) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (episode, layer, o.revision, o.base, o.user, o.unix_ns, o.kind, o.target, items,
             o.request),
        )  # fmt: skip

    # -- people ------------------------------------------------------------------------------

    def preferences(self, user: str) -> dict[str, Any]:
        """What a user's page remembered (layout, theme, keys)."""
        rows = self._all("SELECT value FROM preferences WHERE user = ?", user)
        value = json.loads(rows[0][0]) if rows else {}
        return value if isinstance(value, dict) else {}

    def set_preferences(self, user: str, value: dict[str, Any]) -> None:
        self._run("INSERT OR REPLACE INTO preferences VALUES (?, ?)", (user, json.dumps(value)))

    def assignment(self, episode: str) -> tuple[list[str], str | None] | None:
        """Who annotates an episode blindly, and who adjudicates; None when nobody was assigned."""
        rows = self._all(
            "SELECT annotators, adjudicator FROM assignments WHERE episode = ?", episode
        )
        return (json.loads(rows[0][0]), rows[0][1]) if rows else None

    def assign(self, episode: str, annotators: list[str], adjudicator: str | None) -> None:
        """Assign; an empty list of annotators takes the assignment back."""
        if annotators:
            self._run(
                "INSERT OR REPLACE INTO assignments VALUES (?, ?, ?)",
                (episode, json.dumps(annotators), adjudicator),
            )
        else:
            self._run("DELETE FROM assignments WHERE episode = ?", (episode,))

    # -- internals ---------------------------------------------------------------------------

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _run(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            try:
                self._db.execute(statement, values)
            except sqlite3.OperationalError as error:
                raise UnavailableError(f"the journal {self.path} took no row: {error}") from error
            except sqlite3.Error as error:
                raise ViewerError(f"the journal {self.path} refused a row: {error}") from error
