"""One topic's blocks of serialised messages into batches of its streams."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.recording import Account, Batch
from mmdata.streams import FieldInfo, Kind, Ragged, StreamInfo
from mmdata_converters._ros.channels import Block, Channel
from mmdata_converters._ros.layout import Group, LayoutDecoder
from mmdata_converters._ros.messages import ADAPTERS, TAILED, Context, Part, generic
from mmdata_converters._ros.rig import RigBuilder

Values = NDArray[Any] | Ragged


class ChannelDecoder:
    """Decodes the messages of one channel; knows the streams they have become so far."""

    def __init__(
        self,
        channel: Channel,
        name: str,
        sensor: str,
        account: Account,
        rig: RigBuilder,
        audio_info: dict[str, Any] | None,
    ) -> None:
        self.channel = channel
        self._name = name
        self._sensor = sensor
        self._account = account
        self._infos: dict[Hashable, StreamInfo] = {}
        definitions = channel.definitions()
        self._adapter = ADAPTERS.get(channel.type, generic)
        self._layouts = (
            LayoutDecoder(definitions, channel.type, channel.ros1, self._adapter in TAILED)
            if definitions
            else None
        )
        topic = channel.topic
        self._context = Context(
            topic, sensor, rig, audio_info,
            drop=lambda reason, n: account.drop(topic, reason, n),
            problem=lambda text: account.problem(f"{topic}: {text}"),
        )  # fmt: skip

    def decode(self, block: Block) -> Iterator[Batch]:
        """Batches of one block, rows in the block's order. What cannot be decoded is accounted."""
        self._account.count(self.channel.topic, len(block.starts))
        if self._layouts is None:
            yield self._opaque(block)
            return
        parts: dict[Hashable, list[Part]] = {}
        for group in self._layouts.decode(block.buffer, block.starts, block.lengths):
            if not isinstance(group, Group):
                self._account.drop(self.channel.topic, f"undecodable message: {group[1]}")
                continue
            self._note_trailing(group)
            for part in self._adapter(group, self._context):
                parts.setdefault((part.kind, part.key), []).append(part)
        for key, same in parts.items():
            yield self._batch(block, key, same)

    def _note_trailing(self, group: Group) -> None:
        if group.tail is not None:
            return  # such a group has no bytes after its tail but padding
        extra = group.layout.length - group.layout.used
        # Some ROS 2 middlewares pad a CDR message to a multiple of four.
        if extra > (0 if self.channel.ros1 else 3):
            self._account.problem(
                f"{self.channel.topic}: {extra} bytes after the end of the message, ignored",
                len(group.rows),
            )

    def _batch(self, block: Block, key: Hashable, parts: Sequence[Part]) -> Batch:
        parts = sorted(parts, key=lambda p: int(p.rows[0]))
        first = parts[0]
        rows = np.concatenate([p.rows for p in parts])
        samples = _joined([p.samples for p in parts])
        source = (
            None if first.source_ns is None
            else np.concatenate([p.source_ns for p in parts if p.source_ns is not None])
        )  # fmt: skip
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            rows = rows[order]
            samples = {
                n: v.take(order) if isinstance(v, Ragged) else v[order] for n, v in samples.items()
            }
            source = None if source is None else source[order]
        return Batch(
            self._info(key, first, samples),
            samples,
            source,
            block.receive_ns[rows],
            None if block.publish_ns is None else block.publish_ns[rows],
            block.not_before_ns,
        )

    def _info(
        self, key: Hashable, part: Part, samples: dict[str, NDArray[Any] | Ragged]
    ) -> StreamInfo:
        info = self._infos.get(key)
        if info is not None:
            if part.frame_id != info.frame_id:
                self._account.problem(
                    f"{self.channel.topic}: frame_id is {part.frame_id!r} in some messages, the "
                    f"stream says {info.frame_id!r}"
                )
            return info
        if part.suffix is not None:
            name = f"{self._name}_{_safe(part.suffix)}"
        else:
            name = self._name if not self._infos else f"{self._name}_{len(self._infos) + 1}"
        info = StreamInfo(
            name=name,
            kind=part.kind,
            fields={
                n: FieldInfo.of(v, part.units.get(n), part.channels.get(n))
                for n, v in samples.items()
            },
            frame_id=part.frame_id,
            sensor=self._sensor if part.kind in (Kind.IMAGE, Kind.DEPTH, Kind.SWEEP) else None,
            source_topic=self.channel.topic,
            source_type=self.channel.type,
            encoding=part.encoding,
            attrs=part.attrs,
        )
        self._infos[key] = info
        return info

    def _opaque(self, block: Block) -> Batch:
        """Messages of a type nobody can decode: byte for byte, under the type's name."""
        part = Part(
            "opaque", Kind.OPAQUE,
            {"data": Ragged.gather(block.buffer, block.starts, block.lengths)},
            np.arange(len(block.starts)), None,
            attrs={"serialization": "ros1" if self.channel.ros1 else "cdr"},
        )  # fmt: skip
        return self._batch(block, "opaque", [part])


def _joined(parts: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
    """The rows of all parts, field by field."""
    first = parts[0]
    if len(parts) == 1:
        return dict(first)
    rows = [{name: _rows(part[name]) for name in first} for part in parts]
    joined = {}
    for name in first:
        same = [r[name] for r in rows]
        shape = (sum(map(len, same)), *same[0].shape[1:])
        joined[name] = np.empty(shape, np.result_type(*{r.dtype for r in same}))
    at = dict.fromkeys(joined, 0)
    # Part after part: the fields of a cloud lie between each other, and its bytes stay in the cache
    # until all of them are taken out.
    for part in rows:
        for name, values in part.items():
            joined[name][at[name] : at[name] + len(values)] = values
            at[name] += len(values)
    whole: dict[str, Values] = {}
    for name, values in joined.items():
        ragged = [value for part in parts if isinstance(value := part[name], Ragged)]
        whole[name] = Ragged(values, _offsets(ragged)) if ragged else values
    return whole


def _rows(values: Values) -> NDArray[Any]:
    if isinstance(values, Ragged):
        return values.data[values.offsets[0] : values.offsets[-1]]
    return values


def _offsets(values: Sequence[Ragged]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(v.offsets) for v in values])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")
