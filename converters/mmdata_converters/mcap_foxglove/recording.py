"""An MCAP file as a recording."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import SE3, CameraModel, LensModel, Rig, Sensor
from mmdata.recording import Batch, Recording, Summary, Topic, stream_names
from mmdata.streams import FieldInfo, Kind, Ragged, StreamInfo
from mmdata_converters._common import DAMAGE
from mmdata_converters.mcap_foxglove.log import Channel, McapFile, Messages
from mmdata_converters.mcap_foxglove.protobuf import ProtobufDecoder
from mmdata_converters.mcap_foxglove.schemas import Sample, boxes_of, decode

_LENSES = {
    "plumb_bob": LensModel.BROWN_CONRADY, "rational_polynomial": LensModel.BROWN_CONRADY,
    "kannala_brandt": LensModel.FISHEYE, "equidistant": LensModel.FISHEYE,
    "fisheye": LensModel.FISHEYE,
}  # fmt: skip
_KINDS = {
    "CompressedImage": Kind.IMAGE, "CompressedVideo": Kind.IMAGE, "RawImage": Kind.IMAGE,
    "PointCloud": Kind.SWEEP, "LaserScan": Kind.SWEEP, "Log": Kind.TEXT, "RawAudio": Kind.AUDIO,
}  # fmt: skip

#: Streams that one topic may become because its messages are laid out differently.
_MAX_LAYOUTS = 8


class McapRecording(Recording):
    """Messages become samples by their schema; those nobody knows are kept as bytes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._log = McapFile(path)
        self._names = stream_names(c.topic for c in self._log.channels.values())
        self._infos: dict[str, StreamInfo] = {}
        self._layouts: dict[str, list[StreamInfo]] = {}
        self._decoders: dict[int, Any] = {}
        self._cameras: dict[str, Sensor] = {}
        self._mounts: dict[str, tuple[str, tuple[float, ...]] | None] = {}
        self._boxes: list[dict[str, Any]] = []
        for problem in self._log.problems:
            self.account.problem(problem)

    # -- the contract --------------------------------------------------------------------------

    def inspect(self) -> Summary:
        found: dict[str, list[Channel]] = {}
        for channel in self._log.channels.values():
            found.setdefault(channel.topic, []).append(channel)
        topics = []
        for topic, channels in sorted(found.items()):
            stamps = [b for c in channels for b in c.log_ns if len(b)]
            first = min((int(b.min()) for b in stamps), default=None)
            last = max((int(b.max()) for b in stamps), default=None)
            one = channels[0]
            count = sum(c.count for c in channels)
            topics.append(Topic(topic, one.schema_name or one.encoding, _kind(one), count, first,
                                last))  # fmt: skip
        firsts = [t.first_ns for t in topics if t.first_ns is not None]
        lasts = [t.last_ns for t in topics if t.last_ns is not None]
        return Summary("mcap", min(firsts, default=None), max(lasts, default=None), topics,
                       self.account.problem_lines())  # fmt: skip

    def read(self, topics: frozenset[str] | None = None) -> Iterator[Batch]:
        for block in self._log.blocks(topics):
            channel = block.channel
            if channel.encoding == "ros1":
                yield from self._ros1(block)
            elif channel.encoding in ("protobuf", "json"):
                yield from self._decoded(block)
            else:
                yield self._opaque(block)
        self._count_lost(topics)
        self._finish()

    def _count_lost(self, topics: frozenset[str] | None) -> None:
        """Messages that the index lists and no readable chunk held."""
        listed: dict[str, int] = {}
        for channel in self._log.channels.values():
            if topics is None or channel.topic in topics:
                listed[channel.topic] = listed.get(channel.topic, 0) + channel.count
        for topic, count in listed.items():
            lost = count - self.account.messages.get(topic, 0)
            if lost > 0:
                self.account.count(topic, lost)
                self.account.drop(topic, "in a damaged chunk", lost)

    def receive_stamps(self, topic: str | None = None) -> Iterator[Stamps]:
        for channel in self._log.channels.values():
            if topic in (None, channel.topic):
                yield from (b for b in channel.log_ns if len(b))

    @property
    def rig(self) -> Rig:
        sensors = dict(self._cameras)
        for child, mount in self._mounts.items():
            if mount is None:
                continue  # it moved
            pose = SE3.from_xyz_qwxyz(mount[1])
            known = next((n for n, s in sensors.items() if s.frame_id == child), child)
            old = sensors.get(known, Sensor(known, child))
            sensors[known] = replace(old, parent=mount[0], parent_SE3_sensor=pose)
        return Rig(sensors.values())

    @property
    def files(self) -> Sequence[Path]:
        return [self._path]

    # -- decoding ------------------------------------------------------------------------------

    def _decoder(self, channel: Channel) -> Any:
        key = id(channel)
        if key not in self._decoders:
            try:
                self._decoders[key] = (
                    ProtobufDecoder(channel.schema, channel.schema_name).decode
                    if channel.encoding == "protobuf" else json.loads
                )  # fmt: skip
            except ConversionError as error:
                self.account.problem(f"{channel.topic}: {error}; kept as opaque bytes")
                self._decoders[key] = None
        return self._decoders[key]

    def _decoded(self, block: Messages) -> Iterator[Batch]:
        channel, topic = block.channel, block.channel.topic
        decoder = self._decoder(channel)
        if decoder is None:
            yield self._opaque(block)
            return
        self.account.count(topic, len(block.data))
        short = channel.schema_name.rsplit(".", 1)[-1]
        rows: dict[str, list[tuple[int, Sample]]] = {}
        for row, data in enumerate(block.data):
            try:
                message = decoder(data)
                if not isinstance(message, dict):
                    raise ConversionError("a message that is no object")
                samples = self._samples(channel, short, message, int(block.log_ns[row]))
            except DAMAGE as error:
                self.account.drop(topic, f"undecodable message: {str(error)[:100]}")
                continue
            if samples is None:
                continue  # it went elsewhere: calibration, boxes
            for sample in samples:
                rows.setdefault(sample.key, []).append((row, sample))
            if not samples:
                self.account.drop(topic, "nothing in it that a stream can hold")
        for key, found in rows.items():
            yield from self._batches(block, key, found)

    def _samples(
        self, channel: Channel, short: str, message: dict[str, Any], log_ns: int
    ) -> list[Sample] | None:
        if "foxglove" in channel.schema_name.lower():
            if short == "CameraCalibration":
                self._calibration(channel, message)
                self.account.drop(channel.topic, "calibration: in the rig")
                return None
            if short == "SceneUpdate":
                for box in boxes_of(message):
                    self._boxes.append({**box, "stamp_ns": box["stamp_ns"] or log_ns})
                self.account.drop(channel.topic, "boxes: in the annotation layer")
                return None
            if short == "FrameTransforms":
                transforms = message.get("transforms") or []
                found = [decode("foxglove.FrameTransform", t) for t in transforms]
                for sample in found:
                    self._transform(sample)
                return [s for s in found if s is not None]
        sample = decode(channel.schema_name, message)
        if sample is not None and sample.left_out:
            names = ", ".join(sorted(sample.left_out))
            self.account.problem(f"{channel.topic}: no numbers, so not kept: {names}")
        if short == "FrameTransform":
            self._transform(sample)
        return [] if sample is None else [sample]

    def _batches(
        self, block: Messages, key: str, found: list[tuple[int, Sample]]
    ) -> Iterator[Batch]:
        """Samples of one key by their layout: each layout is a stream of its own."""
        by_stream: dict[str, list[tuple[int, Sample]]] = {}
        for row, sample in found:
            info = self._stream(block.channel, key, sample)
            if info is None:
                self.account.drop(block.channel.topic, f"more than {_MAX_LAYOUTS} layouts")
            else:
                by_stream.setdefault(info.name, []).append((row, sample))
        for name, good in by_stream.items():
            info = self._infos[name]
            at = np.array([row for row, _ in good])
            source = None
            if info.stamp_source == "header":
                source = np.array([s.stamp_ns or 0 for _, s in good], np.int64)
            columns = {n: _column(f, [s.fields[n] for _, s in good])
                       for n, f in info.fields.items()}  # fmt: skip
            yield Batch(info, columns, source, block.log_ns[at], block.publish_ns[at],
                        block.not_before_ns)  # fmt: skip

    def _stream(self, channel: Channel, key: str, sample: Sample) -> StreamInfo | None:
        """The stream of a topic that a sample fits, made for it where there is none yet."""
        base = self._names[channel.topic] + (f"_{_safe(key)}" if key else "")
        known = self._layouts.setdefault(base, [])
        for info in known:
            if _fits(info, sample):
                return info
        if len(known) >= _MAX_LAYOUTS:
            return None
        name, number = base, 2
        others = set(self._names.values()) - {self._names[channel.topic]}
        while name in self._infos or name in others:
            name, number = f"{base}_{number}", number + 1
        info = StreamInfo(
            name, sample.kind, {n: _field(sample, v) for n, v in sample.fields.items()},
            frame_id=sample.frame_id, sensor=base, source_topic=channel.topic,
            source_type=channel.schema_name,
            stamp_source="header" if sample.stamp_ns is not None else "receive",
            encoding=sample.encoding, attrs=sample.attrs,
        )  # fmt: skip
        if known:
            self.account.problem(f"{channel.topic}: messages of another layout became {name}")
        known.append(info)
        self._infos[name] = info
        return info

    def _ros1(self, block: Messages) -> Iterator[Batch]:
        from mmdata_converters._ros.channels import Block, normal_type
        from mmdata_converters._ros.channels import Channel as RosChannel
        from mmdata_converters._ros.decoder import ChannelDecoder
        from mmdata_converters._ros.rig import RigBuilder

        key = id(block.channel)
        if key not in self._decoders:
            topic = block.channel.topic
            name = self._names[topic]
            text = block.channel.schema.decode("utf-8", errors="replace")
            channel = RosChannel(
                len(self._decoders), topic, normal_type(block.channel.schema_name), text, ros1=True
            )
            rig = RigBuilder()
            self._decoders[key] = (
                channel, ChannelDecoder(channel, name, name, self.account, rig, None), rig,
            )  # fmt: skip
        channel, decoder, _ = self._decoders[key]
        buffer = Ragged.from_rows(block.data, np.uint8)
        lengths = np.diff(buffer.offsets)
        not_before = block.not_before_ns
        if not_before is None:
            not_before = -(2**62)  # outside of chunks nothing is promised
        found = Block(channel, buffer.data, buffer.offsets[:-1], lengths, block.log_ns,
                      block.publish_ns, not_before)  # fmt: skip
        for batch in decoder.decode(found):
            if block.not_before_ns is None:
                batch.not_before_ns = None
            yield batch

    def _opaque(self, block: Messages) -> Batch:
        topic = block.channel.topic
        self.account.count(topic, len(block.data))
        name = self._names[topic]
        if name not in self._infos:
            self.account.problem(f"{topic}: encoding {block.channel.encoding!r} kept as bytes")
            self._infos[name] = StreamInfo(
                name, Kind.OPAQUE, {"data": FieldInfo("|u1", (), True)}, source_topic=topic,
                source_type=block.channel.schema_name, stamp_source="receive",
                attrs={"serialization": block.channel.encoding},
            )  # fmt: skip
        data = {"data": Ragged.from_rows(block.data, np.uint8)}
        return Batch(self._infos[name], data, None, block.log_ns, block.publish_ns,
                     block.not_before_ns)  # fmt: skip

    # -- what is no stream ---------------------------------------------------------------------

    def _calibration(self, channel: Channel, message: dict[str, Any]) -> None:
        base = channel.topic.strip("/").rpartition("/")[0]
        beside = sorted(
            c.topic for c in self._log.channels.values()
            if c.topic.strip("/").startswith(f"{base}/") and _kind(c) is Kind.IMAGE
        )  # fmt: skip
        name = self._names[beside[0]] if beside and base else self._names[channel.topic]
        if name in self._cameras:
            return
        try:
            model = str(message.get("distortion_model") or "").lower()
            lens = _LENSES.get(model, LensModel.PINHOLE if not message.get("D") else None)
            if lens is None:
                raise ValueError(f"the distortion model {model!r}")
            K = np.asarray(message.get("K"), np.float64).reshape(3, 3)
            size = int(message.get("width") or 0), int(message.get("height") or 0)
            D = np.asarray(message.get("D") or [], np.float64)
            if not D.any() and lens is not LensModel.FISHEYE:
                lens, D = LensModel.PINHOLE, np.zeros(0)
            frame = str(message.get("frame_id") or name)
            self._cameras[name] = Sensor(name, frame, camera=CameraModel(lens, K, D, *size))
        except (ValueError, TypeError) as error:
            self.account.problem(f"{channel.topic}: calibration cannot be used: {error}")

    def _transform(self, sample: Sample | None) -> None:
        """Transforms that never change belong to the rig."""
        if sample is None or not sample.frame_id or not sample.key:
            return
        numbers = (*sample.fields["position"].tolist(), *sample.fields["orientation"].tolist())
        mount = (sample.frame_id, numbers)
        if sample.key not in self._mounts:
            self._mounts[sample.key] = mount
        elif self._mounts[sample.key] != mount:
            self._mounts[sample.key] = None

    def _finish(self) -> None:
        if not self._boxes:
            return
        from mmdata import __version__
        from mmdata_schema import Box3D, Layer, Provenance, Software, stable_id, write_layer

        boxes, seen = [], set()
        for number, box in enumerate(self._boxes):
            ident = stable_id("box", box["stamp_ns"], box["object_id"], number)
            if not box["object_id"]:
                box = {k: v for k, v in box.items() if k != "object_id"}
            key = (box["stamp_ns"], box.get("object_id"), box["center_m"])
            if key in seen:
                continue
            seen.add(key)
            try:
                boxes.append(Box3D.parse({"id": ident, **box}))
            except ValueError as error:
                self.account.problem(f"a box that is none: {str(error)[:100]}")
        self._boxes.clear()
        tool = Software(name="mmdata import of mcap", version=__version__)
        provenance = Provenance(tool=tool, source_file=self._path.name)
        layer = Layer(
            episode_id=self._path.stem, name="mcap", provenance=provenance, boxes_3d=boxes
        )
        self.layers["mcap"] = write_layer(layer)


def _kind(channel: Channel) -> Kind | None:
    short = channel.schema_name.rsplit(".", 1)[-1]
    if channel.encoding == "ros1":
        from mmdata_converters._ros.channels import normal_type
        from mmdata_converters._ros.messages import kind_of

        return kind_of(normal_type(channel.schema_name), channel.topic, bool(channel.schema))
    if channel.encoding not in ("protobuf", "json"):
        return Kind.OPAQUE
    if "foxglove" not in channel.schema_name.lower():
        return Kind.SIGNAL
    if short in ("CameraCalibration", "SceneUpdate"):
        return None
    return _KINDS.get(short, Kind.SIGNAL)


def _ragged(sample: Sample) -> bool:
    return sample.kind in (Kind.SWEEP, Kind.TEXT, Kind.AUDIO) or (
        sample.kind is Kind.IMAGE and sample.encoding != "raw"
    )


def _field(sample: Sample, value: Any) -> FieldInfo:
    if isinstance(value, bytes):
        return FieldInfo("|u1", (), True)
    array = np.asarray(value)
    if _ragged(sample):
        return FieldInfo(array.dtype.newbyteorder("<").str, array.shape[1:], True)
    return FieldInfo(array.dtype.newbyteorder("<").str, array.shape)


def _fits(info: StreamInfo, sample: Sample) -> bool:
    """Whether a sample is laid out as a stream's are."""
    return (
        sample.kind is info.kind
        and sample.encoding == info.encoding
        and (sample.stamp_ns is not None) == (info.stamp_source == "header")
        and set(sample.fields) == set(info.fields)
        and all(_field(sample, sample.fields[n]) == known for n, known in info.fields.items())
    )


def _column(known: FieldInfo, values: list[Any]) -> Any:
    if known.ragged:
        return Ragged.from_rows(values, np.dtype(known.dtype))
    return np.stack([np.asarray(v) for v in values]).astype(known.dtype)


def _safe(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", key).strip("_.")
