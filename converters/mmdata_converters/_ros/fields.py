"""Any message as named numeric fields: what no special rule covers is flattened by these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.streams import Ragged
from mmdata_converters._ros.layout import Group, Number, Struct, Structs, Text, Texts

Fields = dict[str, NDArray[Any] | Ragged]

_TIME_TYPES = {"builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration"}
_XYZ = ("x", "y", "z")
_VECTORS = {
    "geometry_msgs/msg/Vector3", "geometry_msgs/msg/Point", "geometry_msgs/msg/Point32",
}  # fmt: skip
_QUATERNION = "geometry_msgs/msg/Quaternion"

#: Wrappers that add nothing to the name of what they wrap.
_UNWRAP = (
    ("pose.pose.", ""), ("pose.covariance", "pose_covariance"),
    ("twist.twist.linear", "linear_velocity"), ("twist.twist.angular", "angular_velocity"),
    ("twist.covariance", "twist_covariance"), ("twist.linear", "linear_velocity"),
    ("twist.angular", "angular_velocity"), ("pose.", ""), ("wrench.", ""), ("transform.", ""),
)  # fmt: skip
_BARE = {"linear": "linear_velocity", "angular": "angular_velocity"}
_TWISTS = {"geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"}

UNITS = {
    "position": "m", "translation": "m", "linear_velocity": "m/s", "angular_velocity": "rad/s",
    "linear_acceleration": "m/s^2", "force": "N", "torque": "N.m", "latitude": "deg",
    "longitude": "deg", "altitude": "m", "magnetic_field": "T", "range": "m",
    "temperature": "degC", "fluid_pressure": "Pa",
}  # fmt: skip


def source_stamps(group: Group) -> NDArray[np.int64] | None:
    """(m,) i8 of `header.stamp`, or of a top-level `timestamp` / `stamp`; None without one."""
    header = group.root.fields.get("header")
    candidates = [header.fields.get("stamp")] if isinstance(header, Struct) else []
    candidates += [group.root.fields.get("timestamp"), group.root.fields.get("stamp")]
    for node in candidates:
        if isinstance(node, Struct) and node.type == "builtin_interfaces/msg/Time":
            return time_ns(group, node)
    return None


def time_ns(group: Group, node: Struct) -> NDArray[np.int64]:
    """(m,) i8 nanoseconds of a time or duration."""
    seconds, nanoseconds = node.fields.values()
    assert isinstance(seconds, Number)
    assert isinstance(nanoseconds, Number)
    stamps: NDArray[np.int64] = group.numbers(seconds).astype(np.int64) * 1_000_000_000
    return stamps + group.numbers(nanoseconds).astype(np.int64)


def frame_id(root: Struct) -> str | None:
    """`header.frame_id` or a top-level `frame_id`; None when absent or empty."""
    header = root.fields.get("header")
    for holder in ([header] if isinstance(header, Struct) else []) + [root]:
        node = holder.fields.get("frame_id")
        if isinstance(node, Text) and node.value:
            return node.value
    return None


def text_of(root: Struct, name: str) -> str:
    """A top-level string, or ''."""
    node = root.fields.get(name)
    return node.value if isinstance(node, Text) else ""


def number_of(group: Group, name: str) -> NDArray[Any]:
    """A top-level number (m,) or array (m, k). KeyError-free use needs a known type."""
    node = group.root.fields[name]
    assert isinstance(node, Number)
    return group.numbers(node)


def flatten(
    group: Group, dense: frozenset[str] = frozenset(), skip: frozenset[str] = frozenset()
) -> tuple[Fields, bool]:
    """Fields of a group, and whether they hold all of it.

    Numbers become (m,), fixed arrays (m, k), vectors (m, 3), quaternions (m, 4) with qw first,
    times int64 nanoseconds, strings and free-length arrays `Ragged`; dense names free-length arrays
    that are stored as (m, k) instead. Elements of arrays of messages are stacked per field. The
    header and the top-level fields in skip are left out. What does not fit (arrays within arrays
    of messages) makes the second value False.
    """
    found: Fields = {}
    exact = True
    for path, values, whole in _leaves(group, group.root, "", dense):
        exact &= whole
        top = path.split(".", 1)[0]
        if values is None or top == "header" or top in skip:
            continue
        name = _short(path, group.root.type)
        found[path if name in found else name] = values
    return found, exact


def _short(path: str, message_type: str) -> str:
    if message_type in _TWISTS and path in _BARE:
        return _BARE[path]
    for prefix, replacement in _UNWRAP:
        if path.startswith(prefix):
            return replacement + path[len(prefix) :]
    return path


def _leaves(
    group: Group, struct: Struct, prefix: str, dense: frozenset[str]
) -> Iterator[tuple[str, NDArray[Any] | Ragged | None, bool]]:
    for name, node in struct.fields.items():
        path = f"{prefix}{name}"
        if isinstance(node, Struct):
            whole = whole_struct(group, node)
            if whole is not None:
                yield path, whole, True
            else:
                yield from _leaves(group, node, f"{path}.", dense)
        elif isinstance(node, Number):
            values = group.numbers(node)
            free = node.sequence and path not in dense
            if node.count == 0 and not free:
                yield path, None, True
            else:
                yield path, _ragged(values) if free else values, True
        elif isinstance(node, Text):
            yield path, _repeat(node.value.encode(), len(group.rows)), True
        elif isinstance(node, Texts):
            yield path, _repeat("\n".join(node.values).encode(), len(group.rows)), True
        else:
            yield from _stacked(group, node, path)


def whole_struct(group: Group, node: Struct) -> NDArray[Any] | None:
    """Vectors, quaternions and times as one array."""
    if node.type in _TIME_TYPES:
        return time_ns(group, node)
    names: tuple[str, ...] = ()
    if node.type in _VECTORS:
        names = _XYZ
    elif node.type == _QUATERNION:
        names = ("w", "x", "y", "z")
    parts = [node.fields.get(n) for n in names]
    if not names or not all(isinstance(p, Number) for p in parts):
        return None
    return np.stack([group.numbers(p) for p in parts if isinstance(p, Number)], axis=1)


def _stacked(
    group: Group, node: Structs, path: str
) -> Iterator[tuple[str, NDArray[Any] | Ragged | None, bool]]:
    """An array of messages: per field one ragged array with a row per element."""
    columns: dict[str, list[NDArray[Any]]] = {}
    exact = True
    for item in node.items:
        for name, values, whole in _leaves(group, item, f"{path}.", frozenset()):
            exact &= whole
            if isinstance(values, Ragged):
                exact = False
            elif values is not None:
                columns.setdefault(name, []).append(values)
    yield path, None, exact
    for name, parts in columns.items():
        if len(parts) == len(node.items):
            yield name, _ragged(np.stack(parts, axis=1)), True


def _ragged(values: NDArray[Any]) -> Ragged:
    """(m, k, ...) as m rows of k elements."""
    m, k = values.shape[:2]
    return Ragged(values.reshape(m * k, *values.shape[2:]), np.arange(m + 1, dtype=np.int64) * k)


def _repeat(data: bytes, m: int) -> Ragged:
    row = np.frombuffer(data, np.uint8)
    return Ragged(np.tile(row, m), np.arange(m + 1, dtype=np.int64) * len(row))
