"""Which sample of a stream belongs to each tick, and how far off it is. Vectorised, exact int64."""

from __future__ import annotations

import numpy as np

from mmdata.clocks import Stamps
from mmdata.episode import NO_RESIDUAL, POLICIES, Policy
from mmdata.errors import ConfigError


def align_stream(
    stamp_ns: Stamps,
    tick_ns: Stamps,
    policy: Policy = "previous",
    tolerance_ns: int | None = None,
) -> tuple[Stamps, Stamps]:
    """Index and residual of every tick.

    stamp_ns (N,) i8 ascending, tick_ns (T,) i8. Returns index (T,) i8 (-1: no sample within
    tolerance) and residual_ns (T,) i8 = stamp - tick (`NO_RESIDUAL` where index is -1).

    previous          the last sample at or before the tick (zero-order hold, causal)
    nearest           the closest sample; of two equally close ones the earlier
    linear, slerp     index of the sample before the tick, for interpolation with the next one;
                      both must lie within tolerance. They look ahead.

    Of samples with equal stamps the last one counts. Raises ConfigError for an unknown policy or a
    negative tolerance.
    """
    if policy not in POLICIES:
        raise ConfigError(f"unknown alignment policy {policy!r}; one of {', '.join(POLICIES)}")
    if tolerance_ns is not None and tolerance_ns < 0:
        raise ConfigError(f"a tolerance cannot be negative: {tolerance_ns} ns")
    if not len(stamp_ns):
        return np.full(len(tick_ns), -1, np.int64), np.full(len(tick_ns), NO_RESIDUAL, np.int64)
    index = np.searchsorted(stamp_ns, tick_ns, side="right").astype(np.int64) - 1
    before = np.maximum(index, 0)
    after = np.minimum(index + 1, len(stamp_ns) - 1)
    to_next = stamp_ns[after] - tick_ns
    found = index >= 0
    if policy == "nearest":
        closer = (after > index) & (~found | (to_next < tick_ns - stamp_ns[before]))
        index = np.where(closer, after, index)
        found = index >= 0
    elif policy != "previous":
        exact = found & (stamp_ns[before] == tick_ns)
        has_next = after > index
        found &= exact | has_next
        if tolerance_ns is not None:
            found &= exact | (to_next <= tolerance_ns)
    residual = stamp_ns[np.maximum(index, 0)] - tick_ns
    if tolerance_ns is not None:
        found &= np.abs(residual) <= tolerance_ns
    return np.where(found, index, -1), np.where(found, residual, NO_RESIDUAL)
