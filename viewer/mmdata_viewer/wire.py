"""Annotations as JSON that a browser can hold.

JavaScript numbers are exact up to 2^53, which stamps of the Unix epoch are not. On the wire every
`*_ns` instant is nanoseconds since the episode's start; any other integer too large for a browser
becomes `{"$int": "123"}` and comes back unharmed.
"""

from __future__ import annotations

from typing import Any

_EXACT = 2**53


def to_wire(value: Any, start_ns: int, key: str = "") -> Any:
    """JSON value with stamps relative to start_ns."""
    if isinstance(value, dict):
        return {k: to_wire(v, start_ns, k) for k, v in value.items()}
    if isinstance(value, list):
        return [to_wire(v, start_ns, key) for v in value]
    if isinstance(value, int) and not isinstance(value, bool):
        if is_instant(key):
            value -= start_ns
        return value if abs(value) < _EXACT else {"$int": str(value)}
    return value


def from_wire(value: Any, start_ns: int, key: str = "") -> Any:
    """The inverse of :func:`to_wire`. ValueError for a malformed `$int`."""
    if isinstance(value, dict):
        if set(value) == {"$int"}:
            number = int(str(value["$int"]))
            return number + start_ns if is_instant(key) else number
        return {k: from_wire(v, start_ns, k) for k, v in value.items()}
    if isinstance(value, list):
        return [from_wire(v, start_ns, key) for v in value]
    if isinstance(value, float) and is_instant(key) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and is_instant(key):
        return value + start_ns
    return value


def is_instant(key: str) -> bool:
    """Whether a field of this name holds an instant of the episode."""
    return (
        key.endswith("_ns")
        and not key.endswith("_unix_ns")
        and key not in _DURATIONS
        and (key != "unix_ns")
    )


#: Fields that end in _ns and are no instants.
_DURATIONS = frozenset({"offset_ns", "residual_ns", "tolerance_ns", "duration_ns"})
