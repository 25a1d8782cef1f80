"""Time alignment: tables that say which sample belongs to each tick, and how far off it is."""

from __future__ import annotations

from mmdata.align.tables import align_stream
from mmdata.align.timelines import (
    build_timeline,
    default_policy,
    default_timelines,
    default_tolerance_ns,
    fixed_rate_ticks,
)

__all__ = [
    "align_stream",
    "build_timeline",
    "default_policy",
    "default_timelines",
    "default_tolerance_ns",
    "fixed_rate_ticks",
]
