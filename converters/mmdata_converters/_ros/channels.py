"""Channels of a log and the definitions of their message types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from mmdata.digest import FileHash

Stamps = NDArray[np.int64]
#: Constants and fields of message types by name, as rosbags parses them.
Definitions = Mapping[str, Any]


@dataclass(frozen=True)
class Channel:
    """One topic with one message type. definition: text in ROS message or IDL form, or empty."""

    number: int
    topic: str
    type: str
    definition: str
    ros1: bool = False
    idl: bool = False
    distribution: str | None = None

    def definitions(self) -> Definitions | None:
        """Fields of the type and of all it contains; None when they are not to be had.

        The log's own definition counts; without one, those of the ROS distribution.
        """
        stock = Stores.ROS1_NOETIC if self.ros1 else _distribution(self.distribution)
        return _definitions(self.type, self.definition, self.idl, stock)


def _distribution(name: str | None) -> Stores:
    chosen: Stores = getattr(Stores, f"ROS2_{(name or '').upper()}", Stores.LATEST)
    return chosen


@cache
def _definitions(message_type: str, text: str, idl: bool, stock: Stores) -> Definitions | None:
    found: dict[str, Any] = {}
    if text:
        try:
            found.update(
                get_types_from_idl(text) if idl else get_types_from_msg(text, message_type)
            )
        except Exception:  # rosbags raises many kinds on definitions it cannot parse
            return None
    elif (known := _stock_fields(stock)).get(message_type) is not None:
        found[message_type] = known[message_type]
    _fill_missing(found, stock)
    return found if message_type in found else None


@cache
def _stock_fields(stock: Stores) -> Definitions:
    fields: Definitions = get_typestore(stock).fielddefs
    return fields


def _fill_missing(found: dict[str, Any], stock: Stores) -> None:
    """Add types a definition refers to without containing them, as old bags do (roslib/Header)."""
    while True:
        missing = {
            name
            for _, fields in found.values()
            for _, description in fields
            for name in _references(description)
            if name not in found
        }
        wanted = {n: _stock_fields(stock)[n] for n in missing if n in _stock_fields(stock)}
        if not wanted:
            return
        found.update(wanted)


def _references(description: Any) -> Iterator[str]:
    kind, detail = description
    if kind == Nodetype.NAME:
        yield detail
    elif kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        yield from _references(detail[0])


def normal_type(name: str) -> str:
    """`sensor_msgs/Imu` and `sensor_msgs/msg/Imu` both as the latter."""
    return name if "/msg/" in name else re.sub(r"/(?=[^/]*$)", "/msg/", name, count=1)


@dataclass(frozen=True)
class Block:
    """Messages of one channel that lie in one buffer.

    Message i is `buffer[starts[i] : starts[i] + lengths[i]]`; receive_ns and publish_ns (n,) i8.
    not_before_ns: no later block holds a message received before it.
    """

    channel: Channel
    buffer: NDArray[np.uint8]
    starts: Stamps
    lengths: Stamps
    receive_ns: Stamps
    publish_ns: Stamps | None
    not_before_ns: int


@dataclass(frozen=True)
class ChannelSummary:
    """Count and receive stamps of a channel, as the log's index knows them."""

    channel: Channel
    count: int
    first_ns: int | None
    last_ns: int | None


class ChannelTable:
    """Channels by content: several publishers of one topic, or several files, share a channel."""

    def __init__(self) -> None:
        self._by_content: dict[tuple[str, str, str], Channel] = {}

    def add(
        self,
        topic: str,
        message_type: str,
        definition: str,
        *,
        ros1: bool = False,
        idl: bool = False,
        distribution: str | None = None,
    ) -> Channel:
        """The channel of this content, new or known."""
        key = (topic, message_type, definition)
        if key not in self._by_content:
            self._by_content[key] = Channel(
                len(self._by_content), topic, message_type, definition, ros1, idl, distribution
            )
        return self._by_content[key]


@dataclass
class Tally:
    """Counts and receive stamps per channel."""

    counts: dict[int, int]
    first: dict[int, int]
    last: dict[int, int]

    @classmethod
    def empty(cls) -> Tally:
        return cls({}, {}, {})

    def add(self, number: int, count: int, first_ns: int, last_ns: int) -> None:
        """Account for count messages received between first_ns and last_ns."""
        self.counts[number] = self.counts.get(number, 0) + count
        self.first[number] = min(self.first.get(number, first_ns), first_ns)
        self.last[number] = max(self.last.get(number, last_ns), last_ns)

    def summaries(self, channels: Iterable[Channel]) -> list[ChannelSummary]:
        """One summary per channel; channels without messages count 0."""
        return [
            ChannelSummary(
                c, self.counts.get(c.number, 0), self.first.get(c.number), self.last.get(c.number)
            )
            for c in channels
        ]


class RawLog(Protocol):
    """A log file opened for raw reading; each storage format implements it."""

    format: str
    problems: list[str]

    @property
    def lost(self) -> list[tuple[str, int, str]]:
        """Messages that cannot be had: (topic, count, reason); fills while blocks are read."""

    def channels(self) -> Sequence[ChannelSummary]: ...
    def blocks(self, topics: frozenset[str] | None) -> Iterator[Block]: ...
    def receive_stamps(self, topic: str | None) -> Iterator[Stamps]: ...
    def hash_while_reading(self) -> Mapping[Path, FileHash]: ...
    def close(self) -> None: ...
