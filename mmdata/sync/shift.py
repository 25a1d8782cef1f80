"""``mmdata shift``: move a stream in time, in metadata only.

The samples and their source stamps stay as they are. What changes is the offset between the
stream's source stamps and ``stamp_ns``, and the change is recorded, so that the opposite shift
takes it back.
"""

from __future__ import annotations

import re

from mmdata.errors import ConfigError

_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_PATTERN = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)\s*$")


def parse_duration_ns(text: str) -> int:
    """``-80ms``, ``+1.5 s``, ``250us`` or ``12ns`` to int64 nanoseconds. Raises ConfigError."""
    match = _PATTERN.match(text)
    if match is None:
        raise ConfigError(f"{text!r} is not a duration: write a number and ns, us, ms or s (-80ms)")
    number, unit = match.groups()
    whole, _, fraction = number.lstrip("+-").partition(".")
    scale = _UNITS_NS[unit]
    # Integer arithmetic: a float loses nanoseconds from about a hundred days on.
    value = int(whole) * scale
    if fraction:
        part = int(fraction) * scale
        if part % 10 ** len(fraction):
            raise ConfigError(f"{text!r} is finer than a nanosecond")
        value += part // 10 ** len(fraction)
    return -value if number.startswith("-") else value
