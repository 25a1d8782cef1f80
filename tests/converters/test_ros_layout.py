"""Batch decoding equals rosbags' decoding, message by message, for random messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mmdata_converters._ros.layout import (
    DecodeError,
    Group,
    LayoutDecoder,
    Number,
    Struct,
    Structs,
    Text,
    Texts,
)

_TYPES = [
    "sensor_msgs/msg/Imu", "sensor_msgs/msg/JointState", "geometry_msgs/msg/WrenchStamped",
    "nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray",
    "sensor_msgs/msg/NavSatFix", "sensor_msgs/msg/LaserScan", "std_msgs/msg/String",
    "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/Empty",
    "diagnostic_msgs/msg/DiagnosticArray", "geometry_msgs/msg/PoseArray", "test_msgs/msg/Odd",
]  # fmt: skip
# Every primitive, each followed by one of another alignment, in scalars, arrays and sequences.
_ODD = """
bool a
float64 b
int8 c
uint16[3] d
char e
int64 f
byte g
float32[] h
uint8 i
float64[] j
string k
uint32 l
string[] m
int16 n
geometry_msgs/Point[] o
bool p
time q
duration[2] r
int8[] s
uint64 t
"""


def _store(ros1: bool) -> Any:
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    odd = _ODD
    if not ros1:
        odd = odd.replace("time q", "builtin_interfaces/Time q")
        odd = odd.replace("duration[2] r", "builtin_interfaces/Duration[2] r")
    store.register(get_types_from_msg(odd, "test_msgs/msg/Odd"))
    return store


STORES = {ros1: _store(ros1) for ros1 in (True, False)}
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


def _value(store: Any, description: Any, draw: Any, rng: np.random.Generator) -> Any:
    kind, detail = description
    if kind == Nodetype.BASE:
        if detail[0] == "string":
            return draw(_TEXT)
        return _numbers(detail[0], None, rng)
    if kind == Nodetype.NAME:
        return _message(store, detail, draw, rng)
    element, count = detail
    if kind == Nodetype.SEQUENCE:
        count = draw(st.integers(0, 4))
    if element[0] == Nodetype.BASE:
        if element[1][0] == "string":
            return [draw(_TEXT) for _ in range(count)]
        return _numbers(element[1][0], count, rng)
    return [_message(store, element[1], draw, rng) for _ in range(count)]


def _numbers(name: str, count: int | None, rng: np.random.Generator) -> Any:
    codes = {"bool": "?", "byte": "i1", "char": "u1"}
    dtype = np.dtype(codes.get(name, name))
    size = 1 if count is None else count
    if dtype.kind == "f":
        values = rng.normal(size=size).astype(dtype)
    elif dtype.kind == "b":
        values = rng.integers(0, 2, size).astype(bool)
    else:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)
    return values[0].item() if count is None else values


def _message(store: Any, name: str, draw: Any, rng: np.random.Generator) -> Any:
    fields = store.fielddefs[name][1]
    values = {n: _value(store, d, draw, rng) for n, d in fields}
    return store.types[name](**values)


def _compare(group: Group, row: int, node: Any, value: Any) -> None:
    if isinstance(node, Struct):
        for name, inner in node.fields.items():
            _compare(group, row, inner, getattr(value, name))
    elif isinstance(node, Structs):
        assert len(node.items) == len(value)
        for item, one in zip(node.items, value, strict=True):
            _compare(group, row, item, one)
    elif isinstance(node, Text):
        assert node.value == value
    elif isinstance(node, Texts):
        assert list(node.values) == list(value)
    else:
        assert isinstance(node, Number)
        assert np.array_equal(np.asarray(group.numbers(node)[row]), np.asarray(value))


@pytest.mark.parametrize("encoding", ["ros1", "cdr-le", "cdr-be"])
@pytest.mark.parametrize("name", _TYPES)
@settings(max_examples=12)
@given(data=st.data())
def test_batch_equals_rosbags(name: str, encoding: str, data: st.DataObject) -> None:
    ros1 = encoding == "ros1"
    store = STORES[ros1]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # Few distinct layouts, so that groups of several messages occur, then their numbers vary.
    templates = [_message(store, name, data.draw, rng) for _ in range(data.draw(st.integers(1, 3)))]
    picks = data.draw(st.lists(st.integers(0, len(templates) - 1), min_size=1, max_size=8))
    messages = [_renumbered(store, name, templates[p], rng) for p in picks]
    if ros1:
        raws = [bytes(store.serialize_ros1(m, name)) for m in messages]
        expected = [store.deserialize_ros1(r, name) for r in raws]
    else:
        little = encoding == "cdr-le"
        raws = [bytes(store.serialize_cdr(m, name, little_endian=little)) for m in messages]
        expected = [store.deserialize_cdr(r, name) for r in raws]
    pad = b"xyz"
    buffer = np.frombuffer(b"".join(pad + r for r in raws), np.uint8)
    lengths = np.array([len(r) for r in raws], np.int64)
    starts = np.cumsum(lengths + len(pad)) - lengths
    seen = []
    for group in LayoutDecoder(store.fielddefs, name, ros1).decode(buffer, starts, lengths):
        assert isinstance(group, Group), group
        assert group.layout.used <= group.layout.length
        for position, row in enumerate(group.rows):
            _compare(group, position, group.root, expected[row])
            seen.append(int(row))
    assert sorted(seen) == list(range(len(messages)))


def _renumbered(store: Any, name: str, message: Any, rng: np.random.Generator) -> Any:
    """The same message with other numbers, same strings and lengths."""
    values = {}
    for field, description in store.fielddefs[name][1]:
        value = getattr(message, field)
        kind, detail = description
        if kind == Nodetype.BASE:
            values[field] = value if detail[0] == "string" else _numbers(detail[0], None, rng)
        elif kind == Nodetype.NAME:
            values[field] = _renumbered(store, detail, value, rng)
        elif detail[0][0] == Nodetype.BASE:
            base = detail[0][1][0]
            values[field] = value if base == "string" else _numbers(base, len(value), rng)
        else:
            values[field] = [_renumbered(store, detail[0][1], v, rng) for v in value]
    return store.types[name](**values)


@given(cut=st.integers(0, 200), seed=st.integers(0, 100))
def test_cut_messages_are_errors_not_numbers(cut: int, seed: int) -> None:
    store, name = STORES[False], "sensor_msgs/msg/JointState"
    rng = np.random.default_rng(seed)
    header = store.types["std_msgs/msg/Header"](
        stamp=store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2), frame_id="base"
    )
    message = store.types[name](
        header=header, name=["a", "b"], position=rng.normal(size=2), velocity=rng.normal(size=2),
        effort=rng.normal(size=2),
    )  # fmt: skip
    raw = bytes(store.serialize_cdr(message, name))[:cut]
    buffer = np.frombuffer(raw or b"\0", np.uint8)
    whole = len(bytes(store.serialize_cdr(message, name)))
    decoder = LayoutDecoder(store.fielddefs, name, False)
    results = list(decoder.decode(buffer, np.array([0]), np.array([len(raw)])))
    assert len(results) == 1
    assert isinstance(results[0], Group) == (cut >= whole)
    if cut < whole:
        assert isinstance(results[0][1], DecodeError)


def test_trailing_bytes_are_seen() -> None:
    store, name = STORES[True], "std_msgs/msg/Float64"
    raw = bytes(store.serialize_ros1(store.types[name](data=2.5), name)) + b"\0\0\0\0"
    (group,) = LayoutDecoder(store.fielddefs, name, True).decode(
        np.frombuffer(raw, np.uint8), np.array([0]), np.array([len(raw)])
    )
    assert isinstance(group, Group)
    assert (group.layout.length, group.layout.used) == (12, 8)
