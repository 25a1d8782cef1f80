"""Records of an MCAP file: channels, how many messages, and the messages chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata_converters._common import DAMAGE

_RUN = 512


@dataclass
class Channel:
    """One channel and its schema; stamps of its messages as the index knows them."""

    topic: str
    encoding: str
    schema_name: str = ""
    schema_encoding: str = ""
    schema: bytes = b""
    log_ns: list[Stamps] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(len(block) for block in self.log_ns)


@dataclass(frozen=True)
class Messages:
    """Messages of one channel out of one chunk. log_ns, publish_ns (n,) i8."""

    channel: Channel
    data: list[bytes]
    log_ns: Stamps
    publish_ns: Stamps
    not_before_ns: int | None


def encodings_of(path: Path) -> set[str]:
    """Message encodings of a file, from its summary; from all of it where it has none."""
    from mcap.exceptions import McapError
    from mcap.reader import make_reader

    try:
        with path.open("rb") as file:
            summary = make_reader(file).get_summary()
            if summary is not None and summary.channels:
                return {c.message_encoding for c in summary.channels.values()}
    except (*DAMAGE, McapError):
        pass  # no summary, or a damaged one: look at the records
    return {c.encoding for c in McapFile(path).channels.values()}


class McapFile:
    """An MCAP file, scanned once: what cannot be read is told in `problems`.

    Raises ConversionError when nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.channels: dict[int, Channel] = {}
        self._schemas: dict[int, Any] = {}
        self._scan()
        if not self.channels:
            raise ConversionError(f"{path}: no channel can be read from it")

    def blocks(self, topics: frozenset[str] | None) -> Iterator[Messages]:
        """Messages of the topics, chunk by chunk. Damaged chunks were told while scanning."""
        from mcap.records import Chunk, Message

        loose: list[Any] = []
        for record in self._records([]):
            if isinstance(record, Message):
                loose.append(record)
                if len(loose) >= _RUN:
                    yield from self._grouped(loose, topics, None)
                    loose = []
            elif isinstance(record, Chunk):
                messages = [r for r in self._inside(record, []) if isinstance(r, Message)]
                for start in range(0, len(messages), _RUN):
                    part = messages[start : start + _RUN]
                    yield from self._grouped(part, topics, record.message_start_time)
        yield from self._grouped(loose, topics, None)

    # -- internals -----------------------------------------------------------------------------

    def _records(self, problems: list[str]) -> Iterator[Any]:
        """Records in the order of the file, until its end or until it makes no sense."""
        from mcap.exceptions import McapError
        from mcap.stream_reader import StreamReader

        with self.path.open("rb") as file:
            try:
                yield from StreamReader(file, emit_chunks=True).records
            except (*DAMAGE, McapError) as error:
                problems.append(
                    f"the file cannot be read to its end ({type(error).__name__}); everything "
                    "before is taken"
                )

    def _inside(self, chunk: Any, problems: list[str]) -> list[Any]:
        from mcap.exceptions import McapError
        from mcap.stream_reader import breakup_chunk

        try:
            return list(breakup_chunk(chunk, validate_crc=True))
        except (*DAMAGE, McapError, Exception) as error:  # decompressors raise their own kinds
            problems.append(f"a damaged chunk ({type(error).__name__}) is left out")
            return []

    def _scan(self) -> None:
        """Channels and stamps. Chunks are opened where they have no index or new definitions."""
        from mcap.records import Channel as ChannelRecord
        from mcap.records import Chunk, Message, MessageIndex, Schema

        loose: dict[int, list[int]] = {}
        chunk: Any = None
        index: dict[int, Stamps] = {}

        def take(record: Any) -> None:
            if isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, ChannelRecord):
                self._add(record)
            elif isinstance(record, Message):
                loose.setdefault(record.channel_id, []).append(record.log_time)

        def settle() -> None:
            """Take a chunk by its index, or by its content where that tells more."""
            nonlocal chunk, index
            if chunk is not None and (not index or not set(index) <= set(self.channels)):
                for inner in self._inside(chunk, self.problems):
                    take(inner)
            elif chunk is not None:
                for number, stamps in index.items():
                    self.channels[number].log_ns.append(stamps)
            chunk, index = None, {}

        for record in self._records(self.problems):
            if isinstance(record, MessageIndex) and chunk is not None:
                stamps = [entry[0] for entry in record.records]
                if stamps:
                    index[record.channel_id] = np.array(stamps, np.int64)
                continue
            settle()
            if isinstance(record, Chunk):
                chunk = record
            else:
                take(record)
        settle()
        for number, stamps in loose.items():
            if number in self.channels:
                self.channels[number].log_ns.append(np.array(stamps, np.int64))
            else:
                self.problems.append(f"{len(stamps)} messages of a channel without a record")

    def _add(self, record: Any) -> None:
        if record.id in self.channels:
            return
        schema = self._schemas.get(record.schema_id)
        self.channels[record.id] = Channel(
            record.topic,
            record.message_encoding,
            schema.name if schema else "",
            schema.encoding if schema else "",
            schema.data if schema else b"",
        )

    def _grouped(
        self, messages: list[Any], topics: frozenset[str] | None, not_before: int | None
    ) -> Iterator[Messages]:
        by_channel: dict[int, list[Any]] = {}
        for message in messages:
            channel = self.channels.get(message.channel_id)
            if channel is not None and (topics is None or channel.topic in topics):
                by_channel.setdefault(message.channel_id, []).append(message)
        for number, found in by_channel.items():
            yield Messages(
                self.channels[number],
                [m.data for m in found],
                np.array([m.log_time for m in found], np.int64),
                np.array([m.publish_time for m in found], np.int64),
                not_before,
            )
