"""Timelines: the ticks of a common time base, and every stream placed on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmdata.align.tables import align_stream
from mmdata.clocks import SECOND_NS, Stamps
from mmdata.episode import AlignedStream, Policy, Timeline
from mmdata.errors import ConfigError
from mmdata.streams import Kind, Stream

#: A stream with a steady rate is held this many of its periods; a longer gap is a gap.
TOLERANCE_PERIODS = 1.5
#: Below this many samples a period means little.
_MIN_SAMPLES = 10
#: A stream counts as steady when its 90th percentile period is below this many median periods.
_STEADY = 3.0
_FASTEST_DEFAULT_HZ = 50.0
_MAX_TICKS = 100_000_000


def fixed_rate_ticks(start_ns: int, end_ns: int, rate_hz: float) -> Stamps:
    """(T,) i8 ticks `start + round(k * 1e9 / rate)` up to and including end. No drift builds up.

    Raises ConfigError unless rate_hz is positive and at most 1 MHz.
    """
    if not 0 < rate_hz <= 1e6:
        raise ConfigError(f"a timeline's rate must be in (0, 1e6] Hz, not {rate_hz:g}")
    count = int((end_ns - start_ns) * rate_hz // SECOND_NS) + 1
    if count > _MAX_TICKS:
        raise ConfigError(
            f"{rate_hz:g} Hz from {start_ns} to {end_ns} makes {count:,} ticks; are the stamps of "
            "all streams in one epoch?"
        )
    steps = np.arange(max(0, count), dtype=np.float64) * (SECOND_NS / rate_hz)
    return start_ns + np.rint(steps).astype(np.int64)


def default_tolerance_ns(stream: Stream) -> int | None:
    """1.5 median periods for a steadily sampled stream; None (hold for ever) for events."""
    if stream.kind in (Kind.TEXT, Kind.OPAQUE) or len(stream) < _MIN_SAMPLES:
        return None
    periods = np.diff(stream.stamp_ns)
    periods.sort()  # `np.percentile` would import numpy.ma, which takes longer than all of this
    median, high = _quantile(periods, 0.5), _quantile(periods, 0.9)
    if median <= 0 or high > _STEADY * median:
        return None
    return int(TOLERANCE_PERIODS * median)


def _quantile(ascending: Stamps, share: float) -> float:
    """As `np.quantile` interpolates."""
    below, within = divmod(share * (len(ascending) - 1), 1)
    low, high = ascending[int(below)], ascending[min(int(below) + 1, len(ascending) - 1)]
    return float(low + (high - low) * within)


def default_policy(stream: Stream, lookahead: bool) -> Policy:
    """Causal "previous"; with lookahead "linear" or "slerp" for signals, "nearest" for the rest."""
    if not lookahead:
        return "previous"
    dense_float = stream.fields and all(
        f.dtype[1] == "f" and not f.ragged for f in stream.info.fields.values()
    )
    if stream.kind is Kind.SIGNAL and dense_float:
        return "slerp" if "orientation" in stream.fields else "linear"
    return "nearest"


def build_timeline(
    streams: Mapping[str, Stream],
    *,
    rate_hz: float | None = None,
    reference_stream: str | None = None,
    name: str | None = None,
    policies: Mapping[str, Policy] | None = None,
    tolerances_ns: Mapping[str, int | None] | None = None,
    lookahead: bool = False,
) -> Timeline:
    """A timeline at a fixed rate from first to last sample, or on the stamps of one stream.

    policies and tolerances_ns override the defaults per stream (None: any distance).
    Raises ConfigError for an unknown stream, or when not exactly one of rate_hz and
    reference_stream is given.
    """
    if (rate_hz is None) == (reference_stream is None):
        raise ConfigError("a timeline needs either a rate or a reference stream")
    policies = policies if policies is not None else {}
    tolerances_ns = tolerances_ns if tolerances_ns is not None else {}
    for asked in [*policies, *tolerances_ns, *([reference_stream] if reference_stream else [])]:
        if asked not in streams:
            raise ConfigError(f"no stream {asked!r}; there are: {', '.join(streams)}")
    tolerances = {name: default_tolerance_ns(stream) for name, stream in streams.items()}
    if reference_stream is not None:
        ticks = np.unique(streams[reference_stream].stamp_ns)
    else:
        assert rate_hz is not None
        # A latched message may be hours older than the recording: events do not set its span.
        steady = [s for n, s in streams.items() if tolerances[n] is not None]
        spans = [
            (s.start_ns, s.end_ns)
            for s in steady or streams.values()
            if s.start_ns is not None and s.end_ns is not None
        ]
        ticks = np.empty(0, np.int64)
        if spans:
            ticks = fixed_rate_ticks(min(a for a, _ in spans), max(b for _, b in spans), rate_hz)
    aligned = {}
    for stream_name, stream in streams.items():
        policy = policies.get(stream_name) or default_policy(stream, lookahead)
        tolerance = tolerances_ns.get(stream_name, tolerances[stream_name])
        index, residual = align_stream(stream.stamp_ns, ticks, policy, tolerance)
        aligned[stream_name] = AlignedStream(policy, tolerance, index, residual)
    return Timeline(
        name or reference_stream or rate_name(rate_hz),
        ticks,
        aligned,
        rate_hz,
        reference_stream,
    )


def rate_name(rate_hz: float | None) -> str:
    """Conventional name of a fixed-rate timeline: "30hz"."""
    return f"{rate_hz:g}hz"


def default_rate_hz(streams: Mapping[str, Stream]) -> float | None:
    """Rate to align at when nobody asked: that of the fastest camera, else LiDAR, else signal.

    Measured rates are rounded to whole hertz (and never above 50 Hz). None for an episode in which
    no stream has a rate.
    """
    for kinds in ((Kind.IMAGE,), (Kind.SWEEP, Kind.DEPTH), tuple(Kind)):
        rates = [
            rate
            for stream in streams.values()
            if stream.kind in kinds and len(stream) >= 2 and (rate := stream.rate_hz) is not None
        ]
        if rates:
            return max(1.0, float(round(min(max(rates), _FASTEST_DEFAULT_HZ))))
    return None


def default_timelines(streams: Mapping[str, Stream]) -> list[Timeline]:
    """The aligned view every converted episode carries: one timeline, every policy causal."""
    rate = default_rate_hz(streams)
    return [] if rate is None else [build_timeline(streams, rate_hz=rate)]
