"""What the page is told about an episode before it asks for any sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmdata import Kind, Stream
from mmdata_viewer.frames import moving_edge, position_field
from mmdata_viewer.opened import Opened

#: A gap is a pause longer than this many median periods; what lies between was not recorded.
GAP_PERIODS = 2.5
_MOST_GAPS = 500
_MOST_TEXT = 2000


def manifest(opened: Opened) -> dict[str, Any]:
    """JSON-ready; instants in ns since the episode's start."""
    episode = opened.episode
    end = episode.end_ns if episode.end_ns is not None else opened.start_ns
    return {
        "key": opened.entry.key,
        "version": opened.version,
        "name": opened.entry.name,
        "episode_id": episode.episode_id,
        # Too large for a browser's number, and only shown.
        "start_unix_ns": str(opened.start_ns),
        "duration": end - opened.start_ns,
        "status": episode.status,
        "reference_clock": episode.reference_clock,
        "metadata": {k: str(v)[:_MOST_TEXT] for k, v in episode.metadata.items()},
        "streams": [_stream(opened, episode.streams[name]) for name in episode.streams],
        "rig": _bounded(episode.rig.to_dict()),
        "sync": _bounded(dict(episode.sync)),
        "timelines": list(episode.timelines),
        "embedded": list(episode.annotations),
    }


def _stream(opened: Opened, stream: Stream) -> dict[str, Any]:
    info = stream.info
    edge = moving_edge(stream)
    return {
        "name": info.name,
        "kind": str(info.kind),
        "count": len(stream),
        "rate_hz": stream.rate_hz,
        "nominal_rate_hz": info.nominal_rate_hz,
        "encoding": info.encoding,
        "frame_id": info.frame_id,
        "sensor": info.sensor,
        "clock": info.clock,
        "stamp_source": info.stamp_source,
        "stamp_meaning": info.stamp_meaning,
        "source_type": info.source_type,
        "position": position_field(stream) if info.kind is Kind.SIGNAL else None,
        "moves": None if edge is None else {"parent": edge[0], "child": edge[1]},
        "gaps": gaps(stream, opened.start_ns),
        "fields": {
            name: {
                "dtype": field.dtype,
                "shape": list(field.shape),
                "ragged": field.ragged,
                "unit": field.unit,
                "channels": list(field.channels) if field.channels else None,
            }
            for name, field in info.fields.items()
        },
        "sample_rate_hz": info.attrs.get("sample_rate_hz"),
    }


def gaps(stream: Stream, start_ns: int) -> list[list[int]]:
    """[start, end] of the longest pauses of a stream, by time."""
    if len(stream) < 3:
        return []
    steps = np.diff(stream.stamp_ns)
    median = float(np.median(steps))
    long = np.flatnonzero(steps > GAP_PERIODS * median) if median > 0 else np.empty(0, int)
    longest = np.sort(long[np.argsort(steps[long])[::-1][:_MOST_GAPS]])
    stamps = stream.stamp_ns - start_ns
    return [[int(stamps[i]), int(stamps[i + 1])] for i in longest]


def camera_streams(opened: Opened) -> list[str]:
    """Names of the image streams."""
    streams = opened.episode.streams
    return [name for name in streams if streams[name].kind is Kind.IMAGE]


def _bounded(value: Any, depth: int = 0) -> Any:
    """The ledger as it is, unless a file made to hurt holds a monster."""
    if depth > 12:
        return None
    if isinstance(value, dict):
        return {str(k)[:200]: _bounded(v, depth + 1) for k, v in list(value.items())[:500]}
    if isinstance(value, list):
        return [_bounded(v, depth + 1) for v in value[:2000]]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, str):
        return value[:_MOST_TEXT]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | bool) or value is None else str(value)
