"""A ROS log as a recording, whatever its storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdata.cores import usable_cores
from mmdata.digest import FileHash
from mmdata.geometry import Rig
from mmdata.prefetch import prefetch
from mmdata.recording import Batch, Recording, Summary, Topic, stream_names
from mmdata.streams import Kind
from mmdata_converters._ros.channels import ChannelSummary, RawLog, Stamps
from mmdata_converters._ros.coalesce import coalesce
from mmdata_converters._ros.decoder import ChannelDecoder
from mmdata_converters._ros.fields import text_of
from mmdata_converters._ros.layout import Group, LayoutDecoder
from mmdata_converters._ros.messages import ADAPTERS, image, kind_of
from mmdata_converters._ros.rig import RigBuilder

_AUDIO_INFO = "audio_common_msgs/msg/AudioInfo"
_AUDIO_DATA = ("audio_common_msgs/msg/AudioData", "audio_common_msgs/msg/AudioDataStamped")
_PIXEL_TYPES = {
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "foxglove_msgs/msg/CompressedVideo",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "foxglove_msgs/msg/CompressedImage",
}  # fmt: skip
#: On fewer, whoever consumes the batches on another thread keeps them busy; more threads only wait.
_CORES_TO_READ_AHEAD = 3


class RosRecording(Recording):
    """Reads a `RawLog` channel by channel, block by block."""

    def __init__(self, log: RawLog, files: Sequence[Path]) -> None:
        super().__init__()
        self._log = log
        self._files = list(files)
        self._rig = RigBuilder()
        self._channels = list(log.channels())
        self._names = stream_names(c.channel.topic for c in self._channels)
        for text in log.problems:
            self.account.problem(text)

    def inspect(self) -> Summary:
        by_topic: dict[tuple[str, str], list[ChannelSummary]] = {}
        for summary in self._channels:
            channel = summary.channel
            by_topic.setdefault((channel.topic, channel.type), []).append(summary)
        peeked = self._peek_images()
        topics = []
        for (topic, message_type), summaries in by_topic.items():
            known = any(s.channel.definitions() is not None for s in summaries)
            kind = peeked.get(topic, kind_of(message_type, topic, known))
            topics.append(
                Topic(
                    topic,
                    message_type,
                    kind,
                    sum(s.count for s in summaries),
                    min((s.first_ns for s in summaries if s.first_ns is not None), default=None),
                    max((s.last_ns for s in summaries if s.last_ns is not None), default=None),
                )
            )
        starts = [t.first_ns for t in topics if t.first_ns is not None]
        ends = [t.last_ns for t in topics if t.last_ns is not None]
        return Summary(
            self._log.format,
            min(starts, default=None),
            max(ends, default=None),
            sorted(topics, key=lambda t: t.topic),
            [*self._log.problems, *self._definition_problems()],
        )

    def read(self, topics: frozenset[str] | None = None) -> Iterator[Batch]:
        decoders: dict[int, ChannelDecoder] = {}
        audio_info = self._read_audio_info()
        for text in self._definition_problems():
            self.account.problem(text)
        blocks = coalesce(self._log.blocks(topics))
        if usable_cores() >= _CORES_TO_READ_AHEAD:
            # Reading and decompressing release the interpreter lock.
            blocks = prefetch(blocks, lambda b: b.buffer.nbytes)
        for block in blocks:
            channel = block.channel
            decoder = decoders.get(channel.number)
            if decoder is None:
                decoder = decoders[channel.number] = ChannelDecoder(
                    channel,
                    self._names[channel.topic],
                    self._sensor(channel.topic),
                    self.account,
                    self._rig,
                    _nearest(audio_info, channel.topic),
                )
            yield from decoder.decode(block)
        for topic, count, reason in self._log.lost:
            self.account.drop(topic, reason, count)
        for text in [*self._log.problems, *self._rig.problems]:
            if text not in self.account.problems:
                self.account.problem(text)

    def receive_stamps(self, topic: str | None = None) -> Iterator[Stamps]:
        return self._log.receive_stamps(topic)

    @property
    def rig(self) -> Rig:
        return self._rig.build()

    @property
    def files(self) -> Sequence[Path]:
        return self._files

    def hash_while_reading(self) -> Mapping[Path, FileHash]:
        return self._log.hash_while_reading()

    def close(self) -> None:
        self._log.close()

    def _definition_problems(self) -> list[str]:
        missing: dict[str, list[str]] = {}
        for summary in self._channels:
            if summary.channel.definitions() is None:
                missing.setdefault(summary.channel.type, []).append(summary.channel.topic)
        return [
            f"{message_type} has no definition here: {', '.join(topics)} kept as opaque bytes"
            for message_type, topics in missing.items()
        ]

    def _sensor(self, topic: str) -> str:
        """The name a topic's sensor goes by in the rig: that of the image stream beside it."""
        if not topic.rstrip("/").endswith("camera_info"):
            return self._names[topic]
        base = topic.strip("/").rpartition("/")[0]
        images = sorted(
            c.channel.topic
            for c in self._channels
            if c.channel.type in _PIXEL_TYPES and c.channel.topic.strip("/").startswith(f"{base}/")
        )
        if images:
            # The colour or only stream rather than a depth image of the same camera.
            return self._names[min(images, key=lambda t: ("depth" in t.lower(), len(t), t))]
        return "_".join(part for part in base.split("/") if part) or self._names[topic]

    def _peek_images(self) -> dict[str, Kind]:
        """Whether raw image topics hold colour or depth, from the first message of each."""
        wanted = {c.channel.topic for c in self._channels
                  if ADAPTERS.get(c.channel.type) is image and c.count}  # fmt: skip
        kinds: dict[str, Kind] = {}
        if not wanted:
            return kinds
        for block in self._log.blocks(frozenset(wanted)):
            topic, definitions = block.channel.topic, block.channel.definitions()
            if topic in kinds or definitions is None:
                continue
            layouts = LayoutDecoder(definitions, block.channel.type, block.channel.ros1)
            for group in layouts.decode(block.buffer, block.starts[:1], block.lengths[:1]):
                encoding = text_of(group.root, "encoding") if isinstance(group, Group) else ""
                depth = encoding in ("16UC1", "32FC1") or (
                    encoding == "mono16" and "depth" in topic.lower()
                )
                kinds[topic] = Kind.DEPTH if depth else Kind.IMAGE
            if len(kinds) == len(wanted):
                break
        return kinds

    def _read_audio_info(self) -> dict[str, dict[str, Any]]:
        """The first AudioInfo of each of its topics; only looked for when there is audio."""
        types = {c.channel.type for c in self._channels}
        topics = {c.channel.topic for c in self._channels if c.channel.type == _AUDIO_INFO}
        found: dict[str, dict[str, Any]] = {}
        if not topics or not types.intersection(_AUDIO_DATA):
            return found
        for block in self._log.blocks(frozenset(topics)):
            definitions = block.channel.definitions()
            if definitions is None or block.channel.topic in found:
                continue
            layouts = LayoutDecoder(definitions, _AUDIO_INFO, block.channel.ros1)
            for group in layouts.decode(block.buffer, block.starts[:1], block.lengths[:1]):
                if isinstance(group, Group):
                    found[block.channel.topic] = {
                        name: text_of(group.root, name)
                        for name in ("sample_format", "coding_format")
                    } | {
                        name: int(group.numbers(node)[0])  # type: ignore[arg-type]
                        for name in ("channels", "sample_rate")
                        for node in [group.root.fields[name]]
                    }
            if len(found) == len(topics):
                break
        return found


def _nearest(infos: dict[str, dict[str, Any]], topic: str) -> dict[str, Any] | None:
    """The AudioInfo whose topic shares the longest beginning with an audio topic's."""
    if not infos:
        return None

    def shared(other: str) -> int:
        pairs = enumerate(zip(other, topic, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(other), len(topic)))

    return infos[max(sorted(infos), key=shared)]
