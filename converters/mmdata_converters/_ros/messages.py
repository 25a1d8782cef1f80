"""From groups of equal messages to samples: one function per message type that has a meaning of its
own, `flatten` for the rest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata import media
from mmdata.memory import ReusedMemory
from mmdata.streams import Kind, Ragged
from mmdata_converters._ros import clouds, fields
from mmdata_converters._ros.fields import number_of, text_of
from mmdata_converters._ros.layout import Group, Number, Struct, Structs, Text, Texts
from mmdata_converters._ros.rig import RigBuilder

Rows = NDArray[np.int64]
#: Memory of sweeps and images that are written, kept for those to come.
_KEPT_BYTES = 64 << 20


@dataclass
class Part:
    """Samples of one stream out of one group. key tells streams of one topic apart.

    rows: which messages of the block they come from. channels: names of the last axis per field.
    suffix: appended to the stream's name (transform streams); otherwise further keys are numbered.
    """

    key: Hashable
    kind: Kind
    samples: dict[str, NDArray[Any] | Ragged]
    rows: Rows
    source_ns: NDArray[np.int64] | None
    frame_id: str | None = None
    encoding: str | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    suffix: str | None = None


@dataclass
class Context:
    """What decoding a topic may need to know or tell."""

    topic: str
    sensor: str
    rig: RigBuilder
    audio_info: dict[str, Any] | None
    drop: Callable[[str, int], None]
    problem: Callable[[str], None]
    joint_orders: dict[frozenset[str], tuple[str, ...]] = field(default_factory=dict)
    cloud_forms: clouds.CloudForms = field(default_factory=clouds.CloudForms)
    memory: ReusedMemory = field(default_factory=lambda: ReusedMemory(_KEPT_BYTES))


Adapter = Callable[[Group, Context], Sequence[Part]]

_DEPTH_UNITS = {"16UC1": "mm", "32FC1": "m"}  # REP 118
_TACTILE_WORDS = ("tactile", "taxel", "skin", "touch", "gelsight", "digit", "xela", "fingertip")


def _part(
    group: Group, kind: Kind, samples: dict[str, Any], key: Hashable = 0, **more: Any
) -> Part:
    return Part(
        key,
        kind,
        samples,
        group.rows,
        more.pop("source_ns", fields.source_stamps(group)),
        more.pop("frame_id", fields.frame_id(group.root)),
        **more,
    )


def _bytes_part(
    group: Group, kind: Kind, data: NDArray[Any], key: Hashable = 0, **more: Any
) -> Part:
    """data (m, k) u1: one row of bytes per message."""
    m, k = data.shape
    payload = Ragged(data.reshape(-1).view(np.uint8), np.arange(m + 1, dtype=np.int64) * k)
    return _part(group, kind, {"data": payload}, key, **more)


def generic(group: Group, context: Context) -> Sequence[Part]:
    """Every numeric field by its name; with the serialised message where that is not all of it."""
    samples, exact = fields.flatten(group)
    if not exact:
        context.problem("nested arrays are kept as serialised bytes in the field 'message'")
        samples["message"] = group.serialised()
    if not samples:
        samples["data"] = np.zeros((len(group.rows), 1), np.uint8)
    shape = tuple(
        (n, v.data.shape[1:] if isinstance(v, Ragged) else v.shape[1:]) for n, v in samples.items()
    )
    units = {n: fields.UNITS[n.split(".")[-1]] for n in samples if n.split(".")[-1] in fields.UNITS}
    attrs = {}
    child = group.root.fields.get("child_frame_id")
    if isinstance(child, Text):
        attrs["child_frame_id"] = child.value
        samples.pop("child_frame_id", None)
    if isinstance(group.root.fields.get("data"), Text) and len(group.root.fields) == 1:
        return [_part(group, Kind.TEXT, samples, shape)]
    return [_part(group, Kind.SIGNAL, samples, shape, units=units, attrs=attrs)]


def image(group: Group, context: Context) -> Sequence[Part]:
    """sensor_msgs/Image: raw frames, or depth."""
    encoding = text_of(group.root, "encoding")
    data = number_of(group, "data")
    if encoding not in media.PIXEL_FORMATS:
        context.problem(f"image encoding {encoding!r} is unknown, its frames are kept as bytes")
        return [
            _bytes_part(
                group, Kind.OPAQUE, data, ("bytes", encoding), attrs={"pixel_format": encoding}
            )
        ]
    code, channels = media.PIXEL_FORMATS[encoding]
    big = number_of(group, "is_bigendian")
    sizes = np.stack([number_of(group, n).astype(np.int64) for n in ("height", "width", "step")], 1)
    depth = encoding in _DEPTH_UNITS or (encoding == "mono16" and "depth" in context.topic.lower())
    parts = []
    for height, width, step in np.unique(sizes, axis=0):
        here = (sizes == (height, width, step)).all(axis=1)
        packed = int(width) * channels * int(code[1])
        if data.shape[1] < height * step or step < packed:
            context.drop(
                f"{data.shape[1]} data bytes, {height} x {width} {encoding} needs "
                f"{height * max(step, packed)}",
                int(here.sum()),
            )
            continue
        rows = data[here] if not here.all() else data
        pixels = rows[:, : height * step].reshape(len(rows), height, step)[:, :, :packed]
        dtype = np.dtype((">" if big[here][0] else "<") + code)
        frames = (
            np.ascontiguousarray(pixels).view(dtype).astype(dtype.newbyteorder("<"), copy=False)
        )
        part = _part(group, Kind.DEPTH if depth else Kind.IMAGE, {}, (encoding, height, width))
        part.rows = group.rows[here]
        part.source_ns = None if part.source_ns is None else part.source_ns[here]
        if depth:
            part.samples = {"data": frames.reshape(len(rows), height, width)}
            part.attrs = {"pixel_format": encoding}
            if encoding in _DEPTH_UNITS:
                part.units = {"data": _DEPTH_UNITS[encoding]}
                part.attrs["invalid"] = "nan" if encoding == "32FC1" else 0
        else:
            part.samples = {"data": frames.reshape(len(rows), height, width, channels)}
            part.encoding = "raw"
            part.attrs = {"pixel_format": encoding}
        parts.append(part)
    return parts


def compressed_image(group: Group, context: Context) -> Sequence[Part]:
    """sensor_msgs/CompressedImage: kept byte for byte; depth PNG is decoded, without loss."""
    data = group.tail if group.tail is not None else list(number_of(group, "data"))
    description = text_of(group.root, "format")
    if "compressedDepth" in description:
        return _compressed_depth(group, context, data, description)
    parts: list[Part] = []
    codes = [media.sniff_image(row[:12].tobytes()) for row in data]
    for code in dict.fromkeys(codes):
        here = np.array([c == code for c in codes])
        same = [row for row, c in zip(data, codes, strict=True) if c == code]
        frames = _joined_bytes(same, context.memory)
        part = _part(group, Kind.IMAGE, {"data": frames}, code or "bytes", encoding=code)
        part.rows = group.rows[here]
        part.source_ns = None if part.source_ns is None else part.source_ns[here]
        part.attrs = {"format": description}
        if code is None:
            context.problem(f"images in the unknown format {description!r} are kept as bytes")
            part.kind = Kind.OPAQUE
        parts.append(part)
    return parts


def _joined_bytes(rows: Sequence[NDArray[Any]], memory: ReusedMemory) -> Ragged:
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=ends[1:])
    data = memory.empty((int(ends[-1]),), np.uint8)
    return Ragged(np.concatenate(rows, out=data), ends)


def _compressed_depth(
    group: Group, context: Context, data: Sequence[NDArray[Any]], description: str
) -> Sequence[Part]:
    if not description.startswith("16UC1"):
        context.problem(f"{description!r} is kept as bytes: its quantisation is not undone")
        whole = {"data": Ragged.from_rows(data)}
        return [_part(group, Kind.OPAQUE, whole, "bytes", attrs={"format": description})]
    frames = []
    for row in data:
        # compressed_depth_image_transport puts a 12-byte header before the PNG.
        start = row.tobytes().find(b"\x89PNG", 0, 64)
        frames.append(media.decode_image(row[max(start, 0) :]))
    stacked = np.stack(frames)
    return [
        _part(
            group, Kind.DEPTH, {"data": stacked}, stacked.shape[1:], units={"data": "mm"},
            attrs={"pixel_format": "16UC1", "invalid": 0, "format": description},
        )
    ]  # fmt: skip


def compressed_video(group: Group, context: Context) -> Sequence[Part]:
    """foxglove CompressedVideo and ffmpeg_image_transport packets."""
    name = (text_of(group.root, "format") or text_of(group.root, "encoding")).lower()
    code = next(
        (c for c, words in {"h264": ("264", "avc"), "hevc": ("265", "hevc"), "av1": ("av1",),
                            "vp9": ("vp9",)}.items() if any(w in name for w in words)),
        None,
    )  # fmt: skip
    data = number_of(group, "data")
    if code is None:
        context.problem(f"video in the unknown format {name!r} is kept as bytes")
        return [_bytes_part(group, Kind.OPAQUE, data, name, attrs={"format": name})]
    return [_bytes_part(group, Kind.IMAGE, data, code, encoding=code, attrs={"format": name})]


def camera_info(group: Group, context: Context) -> Sequence[Part]:
    """sensor_msgs/CameraInfo: the rig's intrinsics, and a signal, since it may change."""
    names = {name.lower(): name for name in group.root.fields}
    K, D = (number_of(group, names[n]).astype(np.float64) for n in ("k", "d"))
    model = text_of(group.root, "distortion_model")
    for i in sorted({0, len(K) - 1}):
        width, height = int(number_of(group, "width")[i]), int(number_of(group, "height")[i])
        context.rig.add_camera(
            context.sensor,
            fields.frame_id(group.root),
            model,
            K[i].reshape(3, 3),
            D[i],
            width,
            height,
        )
    samples, _ = fields.flatten(
        group, dense=frozenset({"d", "D"}), skip=frozenset({"distortion_model"})
    )
    samples = {n.upper() if n in ("d", "k", "r", "p") else n: v for n, v in samples.items()}
    return [
        _part(group, Kind.SIGNAL, samples, (model, D.shape[1]), attrs={"distortion_model": model})
    ]


def point_cloud(group: Group, context: Context) -> Sequence[Part]:
    """sensor_msgs/PointCloud2: a part for each run of messages with the same point fields."""
    data = group.tail if group.tail is not None else number_of(group, "data")
    parts: list[Part] = []
    run: list[_Cloud] = []
    for i, payload in enumerate(data):
        try:
            form = context.cloud_forms.of(group, i)
            points = form.points(payload)
        except clouds.CloudError as error:
            context.drop(str(error), 1)
            continue
        if run and not run[-1].form.is_like(form):
            parts += _sweeps(group, run, context)
            run = []
        run.append(_Cloud(i, form, points))
    if run:
        parts += _sweeps(group, run, context)
    return parts


@dataclass(slots=True)
class _Cloud:
    """Points of message i of a group."""

    i: int
    form: clouds.CloudForm
    points: NDArray[Any]


def _sweeps(group: Group, run: Sequence[_Cloud], context: Context) -> list[Part]:
    """Clouds with the same point fields as one part, or as several whose times differ in kind."""
    stamps = fields.source_stamps(group)
    here = np.array([c.i for c in run])
    source_ns = None if stamps is None else stamps[here]
    ends = np.zeros(len(run) + 1, np.int64)
    np.cumsum([len(c.points) for c in run], out=ends[1:])
    columns = clouds.point_fields([c.points for c in run], context.memory)
    try:
        columns, timed_by, problem = clouds.time_points(columns, ends, source_ns)
    except clouds.SweepsDifferError:
        return [part for cloud in run for part in _sweeps(group, [cloud], context)]
    if problem:
        for _ in run:
            context.problem(problem)
    samples: dict[str, Any] = {n: Ragged(v, ends) for n, v in columns.items()}
    organised = run[0].form.height > 1
    if organised:
        for name in ("height", "width"):
            samples[name] = np.array([getattr(c.form, name) for c in run], np.uint32)
    kinds = tuple((n, v.dtype.str, v.shape[1:]) for n, v in columns.items())
    return [
        Part(
            (timed_by, organised, kinds), Kind.SWEEP, samples, group.rows[here], source_ns,
            fields.frame_id(group.root),
            attrs={} if timed_by is None else {"point_offset_field": timed_by},
            units={"point_offset_ns": "ns"},
        )
    ]  # fmt: skip


def laser_scan(group: Group, context: Context) -> Sequence[Part]:
    """sensor_msgs/LaserScan."""
    samples = clouds.laser_scan(group)
    return [_part(group, Kind.SWEEP, samples, tuple(samples), units={"range": "m"})]


def joint_state(group: Group, context: Context) -> Sequence[Part]:
    """sensor_msgs/JointState: joints in the order of the first message that lists them.

    Messages with other joints, or other fields filled, make a stream of their own.
    """
    node = group.root.fields["name"]
    names = node.values if isinstance(node, Texts) else ()
    first_seen = context.joint_orders.setdefault(frozenset(names), names)
    if len(set(names)) < len(names):
        context.problem("joint names repeat within a message")
        first_seen = names
    order = [names.index(name) for name in first_seen]
    samples: dict[str, Any] = {}
    channels: dict[str, tuple[str, ...]] = {}
    for name in ("position", "velocity", "effort"):
        values = number_of(group, name)
        if not values.shape[1]:
            continue
        if names and values.shape[1] == len(names):
            samples[name] = values[:, order] if first_seen != names else values
            channels[name] = first_seen
        else:
            samples[name] = values
    if not samples:
        context.drop("joint state without position, velocity and effort", len(group.rows))
        return []
    key = tuple((n, v.shape[1], channels.get(n)) for n, v in samples.items())
    return [_part(group, Kind.SIGNAL, samples, key, channels=channels)]


def multi_array(group: Group, context: Context) -> Sequence[Part]:
    """std_msgs/*MultiArray: shaped by its layout if it fits; tactile when the topic says so."""
    data = number_of(group, "data")
    layout = group.root.fields.get("layout")
    sizes: list[int] = []
    labels: list[str] = []
    if isinstance(layout, Struct) and isinstance(layout.fields.get("dim"), Structs):
        dims = layout.fields["dim"]
        assert isinstance(dims, Structs)
        for item in dims.items:
            size, label = item.fields["size"], item.fields["label"]
            assert isinstance(size, Number)
            assert isinstance(label, Text)
            values = np.unique(group.numbers(size))
            sizes.append(int(values[0]) if len(values) == 1 else -1)
            labels.append(label.value)
    if not data.shape[1]:
        context.drop("empty array", len(group.rows))
        return []
    if sizes and np.prod(sizes) == data.shape[1] and min(sizes) > 0:
        data = data.reshape(len(data), *sizes)
    tactile = any(word in context.topic.lower() for word in _TACTILE_WORDS)
    kind = Kind.TACTILE if tactile else Kind.SIGNAL
    attrs = {"layout": ",".join(labels)} if any(labels) else {}
    return [_part(group, kind, {"data": data}, data.shape[1:], attrs=attrs)]


def audio(group: Group, context: Context) -> Sequence[Part]:
    """audio_common_msgs AudioData(Stamped): PCM by its AudioInfo; without one, opaque bytes."""
    holder = group.root.fields.get("audio")
    node = holder.fields["data"] if isinstance(holder, Struct) else group.root.fields["data"]
    assert isinstance(node, Number)
    data = group.numbers(node)
    info = context.audio_info
    dtype = _pcm_dtype(info)
    if info is None or dtype is None or info["channels"] < 1:
        why = "no AudioInfo" if info is None else f"coding {info['coding_format']!r}"
        context.problem(f"audio is kept as bytes: {why}")
        return [_bytes_part(group, Kind.OPAQUE, data, "bytes", attrs=info or {})]
    channels = int(info["channels"])
    usable = data.shape[1] // (dtype.itemsize * channels) * dtype.itemsize * channels
    if usable != data.shape[1]:
        context.problem(f"audio blocks end in {data.shape[1] - usable} bytes of a partial sample")
    m = len(data)
    samples = np.ascontiguousarray(data[:, :usable]).view(dtype).astype(dtype.newbyteorder("<"))
    per_block = usable // (dtype.itemsize * channels)
    blocks = Ragged(
        samples.reshape(m * per_block, channels), np.arange(m + 1, dtype=np.int64) * per_block
    )
    attrs = {"sample_rate_hz": int(info["sample_rate"])}
    return [_part(group, Kind.AUDIO, {"samples": blocks}, (dtype.str, channels), attrs=attrs)]


def _pcm_dtype(info: dict[str, Any] | None) -> np.dtype[Any] | None:
    if info is None or info["coding_format"].lower() not in ("wave", "wav", "pcm", "raw", ""):
        return None
    name = info["sample_format"].upper().replace("_", "")
    codes = {"S16LE": "<i2", "S16BE": ">i2", "U8": "u1", "S8": "i1", "S32LE": "<i4",
             "F32LE": "<f4", "FLOAT32LE": "<f4"}  # fmt: skip
    return np.dtype(codes[name]) if name in codes else None


def transforms(group: Group, context: Context) -> Sequence[Part]:
    """tf2_msgs/TFMessage: a stream per pair of frames; static ones go to the rig."""
    node = group.root.fields["transforms"]
    assert isinstance(node, Structs)
    static = context.topic.rstrip("/").endswith("tf_static")
    parts = []
    for item in node.items:
        header, child, transform = (
            item.fields[n] for n in ("header", "child_frame_id", "transform")
        )
        assert isinstance(header, Struct)
        assert isinstance(child, Text)
        assert isinstance(transform, Struct)
        parent_node = header.fields["frame_id"]
        assert isinstance(parent_node, Text)
        parent_name, child_name = parent_node.value.strip("/"), child.value.strip("/")
        samples = {}
        for name, key in (("translation", "translation"), ("rotation", "orientation")):
            inner = transform.fields[name]
            assert isinstance(inner, Struct)
            values = fields.whole_struct(group, inner)
            assert values is not None
            samples[key] = values
        if static:
            context.rig.add_static(
                parent_name, child_name, samples["translation"][-1], samples["orientation"][-1]
            )
            continue
        stamp = header.fields["stamp"]
        assert isinstance(stamp, Struct)
        parts.append(
            Part(
                (parent_name, child_name), Kind.SIGNAL, dict(samples), group.rows,
                fields.time_ns(group, stamp), parent_name,
                attrs={"child_frame_id": child_name}, units={"translation": "m"},
                suffix=f"{parent_name}_{child_name}",
            )
        )  # fmt: skip
    return parts


ADAPTERS: dict[str, Adapter] = {
    "sensor_msgs/msg/Image": image,
    "sensor_msgs/msg/CompressedImage": compressed_image,
    "foxglove_msgs/msg/CompressedVideo": compressed_video,
    "foxglove_msgs/msg/CompressedImage": compressed_image,
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": compressed_video,
    "sensor_msgs/msg/CameraInfo": camera_info,
    "sensor_msgs/msg/PointCloud2": point_cloud,
    "sensor_msgs/msg/LaserScan": laser_scan,
    "sensor_msgs/msg/JointState": joint_state,
    "audio_common_msgs/msg/AudioData": audio,
    "audio_common_msgs/msg/AudioDataStamped": audio,
    "tf2_msgs/msg/TFMessage": transforms,
    "tf/msg/tfMessage": transforms,
    **{
        f"std_msgs/msg/{name}MultiArray": multi_array
        for name in ("Float32", "Float64", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16",
                     "UInt32", "UInt64", "Byte")
    },
}  # fmt: skip

#: Adapters that take groups with a tail.
TAILED = {compressed_image, point_cloud}

_KINDS: dict[Adapter, Kind] = {
    image: Kind.IMAGE, compressed_image: Kind.IMAGE, compressed_video: Kind.IMAGE,
    point_cloud: Kind.SWEEP, laser_scan: Kind.SWEEP, audio: Kind.AUDIO,
}  # fmt: skip


def kind_of(message_type: str, topic: str, known: bool) -> Kind:
    """Kind a topic's samples will most likely have, without reading one."""
    if not known:
        return Kind.OPAQUE
    if message_type == "std_msgs/msg/String":
        return Kind.TEXT
    adapter = ADAPTERS.get(message_type, generic)
    if adapter is image and "depth" in topic.lower():
        return Kind.DEPTH
    if adapter is multi_array and any(word in topic.lower() for word in _TACTILE_WORDS):
        return Kind.TACTILE
    return _KINDS.get(adapter, Kind.SIGNAL)
