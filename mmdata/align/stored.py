"""Timelines of an episode that is written already."""

from __future__ import annotations

import os

from mmdata.align.timelines import build_timeline
from mmdata.store import open_episode, write_timeline


def realign(path: str | os.PathLike[str]) -> list[str]:
    """Rebuild every timeline of an episode after its stamps changed; returns their names.

    Rate or reference stream, policies and tolerances stay as they were.
    """
    with open_episode(path) as episode:
        timelines = []
        for name in episode.timelines:
            old = episode.aligned(name).timeline
            streams = {n: episode.streams[n] for n in old.streams}
            timelines.append(
                build_timeline(
                    streams,
                    rate_hz=old.rate_hz,
                    reference_stream=old.reference_stream,
                    name=name,
                    policies={n: s.policy for n, s in old.streams.items()},
                    tolerances_ns={n: s.tolerance_ns for n, s in old.streams.items()},
                )
            )
    write_timeline(path, *timelines)
    return [t.name for t in timelines]
