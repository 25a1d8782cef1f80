"""Instants worth snapping to: change points that the segmenter finds in the signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdata import open_episode
from mmdata.errors import MmdataError


def change_points(path: Path) -> list[dict[str, Any]]:
    """{stamp_ns, label} of phase boundaries and events found in the episode, by time.

    Empty where the episode holds no signals the segmenter understands.
    """
    from mmdata.phases import segment

    try:
        with open_episode(path) as episode:
            found = segment(episode)
    except MmdataError:
        return []
    rows = [{"stamp_ns": int(p.start_ns), "label": p.label} for p in found.phases]
    rows += [{"stamp_ns": int(e.stamp_ns), "label": e.label} for e in found.events]
    return sorted(rows, key=lambda row: int(str(row["stamp_ns"])))
