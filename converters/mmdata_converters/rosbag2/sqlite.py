"""rosbag2's SQLite storage (.db3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import zstandard

from mmdata.digest import FileHash
from mmdata.errors import ConversionError
from mmdata_converters._ros.channels import (
    Block,
    Channel,
    ChannelSummary,
    ChannelTable,
    Stamps,
    Tally,
    normal_type,
)

_ROWS = 4096
_BLOCK_BYTES = 4 << 20


class SqliteLog:
    """Raw reading of one .db3 file. decompress: applied to each message, where they are."""

    format = "rosbag2"

    def __init__(
        self,
        path: Path,
        table: ChannelTable | None = None,
        distribution: str | None = None,
        decompress: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._path = path
        self._decompress = decompress
        self.problems: list[str] = []
        self.lost: list[tuple[str, int, str]] = []
        self._channels: dict[int, Channel] = {}
        self._tally = Tally.empty()
        table = table if table is not None else ChannelTable()
        self._connection = _connect(path)
        try:
            definitions = self._definitions()
            for number, topic, name, encoding in self._connection.execute(
                "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
            ):
                form, text = definitions.get(name, ("", ""))
                if encoding != "cdr":
                    self.problems.append(
                        f"{topic}: encoding {encoding!r} is not CDR, kept as bytes"
                    )
                    name, text = f"{encoding}:{name}", ""
                self._channels[number] = table.add(
                    topic, normal_type(name), text,
                    idl="idl" in form, distribution=distribution,
                )  # fmt: skip
            self._count()
        except sqlite3.Error as error:
            self._connection.close()
            raise ConversionError(f"{path}: not a readable rosbag2 database ({error})") from error

    def hash_while_reading(self) -> Mapping[Path, FileHash]:
        return {}  # SQLite reads it

    def close(self) -> None:
        self._connection.close()

    def channels(self) -> Sequence[ChannelSummary]:
        return self._tally.summaries({c.number: c for c in self._channels.values()}.values())

    def receive_stamps(self, topic: str | None) -> Iterator[Stamps]:
        ids = self._ids(None if topic is None else frozenset({topic}))
        rows = self._connection.execute(
            f"SELECT timestamp FROM messages WHERE topic_id IN ({ids}) ORDER BY timestamp"
        )
        while chunk := rows.fetchmany(_ROWS):
            yield np.array(chunk, np.int64).reshape(-1)

    def blocks(self, topics: frozenset[str] | None) -> Iterator[Block]:
        query = (
            "SELECT topic_id, timestamp, data FROM messages "
            f"WHERE topic_id IN ({self._ids(topics)}) ORDER BY timestamp, id"
        )
        pending: dict[int, tuple[list[int], list[bytes]]] = {}
        held = count = 0
        start = None
        try:
            for topic_id, stamp, data in self._connection.execute(query):
                channel = self._channels[topic_id]
                start = stamp if start is None else start
                payload = self._payload(channel, data)
                if payload is None:
                    continue
                stamps, messages = pending.setdefault(channel.number, ([], []))
                stamps.append(stamp)
                messages.append(payload)
                held, count = held + len(payload), count + 1
                if held > _BLOCK_BYTES or count >= _ROWS:
                    yield from self._pack(pending, start)
                    pending, held, count, start = {}, 0, 0, None
        except sqlite3.DatabaseError as error:
            self.problems.append(
                f"{self._path.name} is damaged ({error}); what came before is read"
            )
        if start is not None:
            yield from self._pack(pending, start)

    def _payload(self, channel: Channel, data: bytes) -> bytes | None:
        if self._decompress is None:
            return data
        try:
            return self._decompress(data)
        except zstandard.ZstdError as error:
            self.lost.append((channel.topic, 1, f"its message cannot be decompressed: {error}"))
            return None

    def _pack(
        self, pending: dict[int, tuple[list[int], list[bytes]]], start: int
    ) -> Iterator[Block]:
        by_number = {c.number: c for c in self._channels.values()}
        for number, (stamps, messages) in pending.items():
            lengths = np.fromiter(map(len, messages), np.int64, len(messages))
            starts = np.cumsum(lengths) - lengths
            buffer = np.frombuffer(b"".join(messages), np.uint8)
            receive = np.array(stamps, np.int64)
            yield Block(by_number[number], buffer, starts, lengths, receive, None, start)

    def _ids(self, topics: frozenset[str] | None) -> str:
        chosen = [i for i, c in self._channels.items() if topics is None or c.topic in topics]
        return ",".join(map(str, chosen))

    def _count(self) -> None:
        try:
            for topic_id, count, first, last in self._connection.execute(
                "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages "
                "GROUP BY topic_id"
            ):
                if topic_id in self._channels:
                    self._tally.add(self._channels[topic_id].number, count, first, last)
                else:
                    self.lost.append((f"topic id {topic_id}", count, "its topic row is missing"))
        except sqlite3.DatabaseError as error:
            self.problems.append(f"{self._path.name} is damaged ({error}); counts are not known")

    def _definitions(self) -> dict[str, tuple[str, str]]:
        """Message definitions by type, in databases new enough to hold them (schema 4)."""
        try:
            rows = self._connection.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ).fetchall()
        except sqlite3.OperationalError:
            return {}
        return {name: (encoding or "", text or "") for name, encoding, text in rows}


def _connect(path: Path) -> sqlite3.Connection:
    """Open read-only; as immutable where SQLite cannot make its lock files."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    uri = path.resolve().as_uri()
    try:
        connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, check_same_thread=False)
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection = sqlite3.connect(
            f"{uri}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
    return connection
