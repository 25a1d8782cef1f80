"""Joining blocks over chunks, and messages that differ in the length of their last field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from mmdata.recording import Account
from mmdata.streams import Ragged, rows_at
from mmdata_converters._ros import coalesce as module
from mmdata_converters._ros.channels import Block, Channel
from mmdata_converters._ros.coalesce import coalesce
from mmdata_converters._ros.decoder import ChannelDecoder
from mmdata_converters._ros.layout import Group, LayoutDecoder
from mmdata_converters._ros.rig import RigBuilder

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE = "sensor_msgs/msg/CompressedImage"
CLOUD = "sensor_msgs/msg/PointCloud2"
CHANNELS = [Channel(i, f"/t{i}", "std_msgs/msg/Float64", "") for i in range(3)]


def _block(channel: Channel, messages: list[bytes], receive: list[int], start_ns: int) -> Block:
    """Messages with a byte of something else between them, as in a chunk."""
    lengths = np.array([len(m) for m in messages], np.int64)
    starts = np.cumsum(np.r_[0, lengths[:-1] + 1]) if len(lengths) else np.empty(0, np.int64)
    return Block(
        channel, np.frombuffer(b"|".join(messages) or b"|", np.uint8), starts, lengths,
        np.array(receive, np.int64), None, start_ns,
    )  # fmt: skip


def _messages(block: Block) -> list[bytes]:
    return [
        block.buffer[a : a + n].tobytes() for a, n in zip(block.starts, block.lengths, strict=True)
    ]


@given(st.data())
def test_joined_blocks_hold_the_same_messages_in_order(data: st.DataObject) -> None:
    large, held = module._LARGE_BYTES, module._HELD_BYTES
    module._LARGE_BYTES, module._HELD_BYTES = 60, 100
    try:
        blocks, now = [], 0
        for k in range(data.draw(st.integers(0, 25))):
            now += data.draw(st.integers(0, 5))
            messages = data.draw(st.lists(st.binary(max_size=30), max_size=4))
            receive = [now + data.draw(st.integers(0, 9)) for _ in messages]
            blocks.append(_block(CHANNELS[k % 3], messages, receive, now))
        joined = list(coalesce(blocks))
    finally:
        module._LARGE_BYTES, module._HELD_BYTES = large, held
    for channel in CHANNELS:
        before = [b for b in blocks if b.channel is channel]
        after = [b for b in joined if b.channel is channel]
        assert [m for b in after for m in _messages(b)] == [m for b in before for m in _messages(b)]
        assert [t for b in after for t in b.receive_ns] == [t for b in before for t in b.receive_ns]
    # The promise a split relies on: nothing later was received before not_before_ns.
    for i, block in enumerate(joined):
        for later in joined[i:]:
            assert (later.receive_ns >= block.not_before_ns).all()


def _image(data: bytes, stamp: int, frame_id: str, text: str, little: bool) -> bytes:
    types = STORE.types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=stamp, nanosec=7), frame_id=frame_id
    )
    message = types[IMAGE](header=header, format=text, data=np.frombuffer(data, np.uint8))
    return bytes(STORE.serialize_cdr(message, IMAGE, little_endian=little))


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40), st.integers(0, 2**31 - 1),
            st.sampled_from(["", "cam", "other"]), st.sampled_from(["jpeg", "png"]),
            st.integers(0, 5),
        ),
        max_size=12,
    ),
    st.booleans(),
)  # fmt: skip
def test_groups_with_a_tail_hold_what_single_messages_hold(
    rows: list[tuple[bytes, int, str, str, int]], little: bool
) -> None:
    raw = [_image(d, s, f, t, little) + b"\0" * pad for d, s, f, t, pad in rows]
    block = _block(CHANNELS[0], raw, list(range(len(raw))), 0)
    channel = Channel(0, "/camera", IMAGE, "")
    definitions = channel.definitions()
    assert definitions is not None
    decoder = LayoutDecoder(definitions, IMAGE, ros1=False, tails=True)
    seen: dict[int, tuple[bytes, int]] = {}
    for group in decoder.decode(block.buffer, block.starts, block.lengths):
        assert isinstance(group, Group)
        data, header = group.root.fields["data"], group.root.fields["header"]
        payload = group.tail if group.tail is not None else list(group.numbers(data))
        seconds = group.numbers(header.fields["stamp"].fields["sec"])
        for row, values, second in zip(group.rows, payload, seconds, strict=True):
            assert int(row) not in seen
            seen[int(row)] = (values.tobytes(), int(second))
            assert group.root.fields["format"].value == rows[row][3]
            assert header.fields["frame_id"].value == rows[row][2]
    assert seen == {i: (d, s) for i, (d, s, _, _, _) in enumerate(rows)}


def test_images_of_many_sizes_come_out_in_order() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1_000, 40_000, 60)
    images = [b"\xff\xd8\xff\xe0" + rng.bytes(int(n)) for n in sizes]
    images[17] = b"\x89PNG\r\n\x1a\n" + images[17]
    raw = [_image(d, i, "cam" if i % 7 else "other", "jpeg", True) for i, d in enumerate(images)]
    channel = Channel(0, "/camera", IMAGE, "")
    decoder = ChannelDecoder(channel, "camera", "camera", Account(), RigBuilder(), None)
    block = _block(channel, raw, list(range(60)), 0)
    found: dict[str, list[bytes]] = {}
    stamps: dict[str, list[int]] = {}
    for batch in decoder.decode(block):
        data = batch.samples["data"]
        assert isinstance(data, Ragged)
        assert batch.info.encoding is not None
        found[batch.info.encoding] = [data[i].tobytes() for i in range(len(data))]
        assert batch.source_ns is not None
        stamps[batch.info.encoding] = (batch.source_ns // 1_000_000_000).tolist()
    assert found["png"] == [images[17]]
    assert found["jpeg"] == [d for i, d in enumerate(images) if i != 17]
    assert stamps["jpeg"] == [i for i in range(60) if i != 17]


#: Fields of clouds: rows of words, other sizes between them, and what is not words after all.
_CLOUD_FIELDS = (
    [("x", "f4", 0), ("y", "f4", 4), ("t", "u4", 8)],
    [("x", "f4", 4), ("t", "i4", 12)],
    [("x", "f4", 0), ("ring", "u2", 4), ("time", "f4", 6)],
    [("x", "f4", 0), ("timestamp", "f8", 8)],
)
_CODES = {"f4": 7, "f8": 8, "u2": 4, "u4": 6, "i4": 5}


@st.composite
def _clouds(draw: st.DrawFn) -> list[bytes]:
    """Serialised PointCloud2 of one form or two in turn."""
    form = st.tuples(st.sampled_from(_CLOUD_FIELDS), st.booleans(), st.sampled_from([16, 18]))
    forms = draw(st.lists(form, min_size=1, max_size=2))
    return [draw(_cloud(*draw(st.sampled_from(forms)))) for _ in range(draw(st.integers(0, 8)))]


@st.composite
def _cloud(draw: st.DrawFn, fields: list[tuple[str, str, int]], little: bool, step: int) -> bytes:
    """Point times in all kinds, and what is wrong with them."""
    height, width = draw(st.sampled_from([(1, 0), (1, 1), (1, 4), (2, 3)]))
    stamp = draw(st.sampled_from([5, 1_700_000_000]))
    n = height * width
    order = "<" if little else ">"
    points = np.zeros(n, np.dtype({
        "names": [f[0] for f in fields], "formats": [order + f[1] for f in fields],
        "offsets": [f[2] for f in fields], "itemsize": step,
    }))  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    for name, kind, _ in fields:
        points[name] = rng.integers(0, 1000, n)
        if name.startswith("t"):
            second = 1.0 if kind[0] == "f" else 1e9
            times = points[name] * second * 1e-9
            times += draw(
                st.sampled_from([0, 3 * second, *([np.nan, stamp] if second == 1 else [])])
            )
            times[1:] += draw(st.sampled_from([0, second, 2.5 * second]))
            points[name] = times if kind[0] == "f" else np.clip(times, 0, np.iinfo(kind).max)
    types = STORE.types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=stamp, nanosec=0), frame_id="lidar"
    )
    described = [
        types["sensor_msgs/msg/PointField"](name=f, offset=o, datatype=_CODES[k], count=1)
        for f, k, o in fields
    ]
    missing = draw(st.sampled_from([0, 0, 0, 1]))
    data = points.view(np.uint8).reshape(-1)
    message = types[CLOUD](
        header=header, height=height, width=width, fields=described, is_bigendian=not little,
        point_step=step, row_step=step * width, data=data[: len(data) - missing], is_dense=True,
    )  # fmt: skip
    return bytes(STORE.serialize_cdr(message, CLOUD)) + b"\0" * draw(st.sampled_from([0, 0, 2]))


@settings(max_examples=200)
@given(_clouds())
def test_clouds_of_a_block_are_those_of_single_messages(raw: list[bytes]) -> None:
    def decoded(blocks: list[Block]) -> tuple[dict[object, list[Any]], dict[str, int]]:
        account, found = Account(), dict[object, list[Any]]()
        decoder = ChannelDecoder(
            Channel(0, "/lidar", CLOUD, ""), "lidar", "lidar", account, RigBuilder(), None
        )
        for batch in (b for block in blocks for b in decoder.decode(block)):
            assert batch.source_ns is not None
            key = (batch.info.attrs.get("point_offset_field"), str(batch.info.fields))
            for i in range(len(batch)):
                sweep = [(n, v[i].tobytes()) for n, v in batch.samples.items()]
                stamps = (int(batch.receive_ns[i]), int(batch.source_ns[i]))
                empty = not len(batch.samples["x"][i])  # belongs to its neighbours, if there are
                found.setdefault("empty" if empty else key, []).append(
                    (stamps, [] if empty else sweep)
                )
        found.get("empty", []).sort()  # of several streams
        return found, {d.reason: d.count for d in account.dropped_list()}

    receive = list(range(len(raw)))
    whole = decoded([_block(CHANNELS[0], raw, receive, 0)] if raw else [])
    assert whole == decoded([_block(CHANNELS[0], [m], [k], 0) for k, m in enumerate(raw)])


@given(st.binary(min_size=1, max_size=60), st.data())
def test_gathered_rows_are_the_bytes_at_their_places(content: bytes, data: st.DataObject) -> None:
    """Of one length, which takes another way, and of several."""
    buffer = np.frombuffer(content, np.uint8)
    one = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    lengths = st.integers(0, len(content)) if one is None else st.just(one)
    rows = [
        (data.draw(st.integers(0, len(content) - n)), n)
        for n in data.draw(st.lists(lengths, max_size=8))
    ]
    starts, sizes = (np.array([r[k] for r in rows], np.int64) for k in (0, 1))
    found = Ragged.gather(buffer, starts, sizes)
    assert [found[i].tobytes() for i in range(len(found))] == [content[a : a + n] for a, n in rows]
    with pytest.raises(IndexError):
        rows_at(buffer, np.array([1]), len(content))
