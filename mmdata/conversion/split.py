"""Where a recording is cut into episodes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmdata.clocks import SECOND_NS, Stamps
from mmdata.config import SplitConfig
from mmdata.errors import ConversionError
from mmdata.recording import Recording


def find_boundaries(recording: Recording, split: SplitConfig) -> Stamps:
    """(B,) i8 receive stamps at which a new episode starts, ascending; the first start is not one.

    Raises ConversionError when the marker topic has no message.
    """
    if split.topic is None and split.gap_s is None and split.clip_s is None:
        return np.empty(0, np.int64)
    runs = merge_runs(
        recording.receive_stamps(),
        int((split.gap_s or float("inf")) * SECOND_NS) if split.gap_s else None,
    )
    if not runs:
        return np.empty(0, np.int64)
    start, end = runs[0][0], runs[-1][1]
    edges = [np.array([first for first, _ in runs[1:]], np.int64)]
    if split.topic is not None:
        markers = list(recording.receive_stamps(split.topic))
        if not markers:
            raise ConversionError(
                f"the split topic {split.topic!r} has no message in this recording"
            )
        edges.append(np.unique(np.concatenate(markers)))
    if split.clip_s is not None:
        step = int(split.clip_s * SECOND_NS)
        starts = np.unique(np.concatenate([[start], *edges]))
        ends = np.append(starts[1:], end + 1)
        edges += [np.arange(a, b, step, dtype=np.int64) for a, b in zip(starts, ends, strict=True)]
    boundaries = np.unique(np.concatenate(edges))
    return boundaries[boundaries > start]


def merge_runs(blocks: Iterable[Stamps], gap_ns: int | None) -> list[tuple[int, int]]:
    """Spans (first, last) of stamps that are never more than gap_ns apart; None: one span.

    blocks may overlap and be unsorted. Memory grows with the number of spans, not of stamps.
    """
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if not len(block):
            continue
        stamps = np.sort(block)
        if gap_ns is None:
            fresh = [(int(stamps[0]), int(stamps[-1]))]
        else:
            cuts = np.flatnonzero(np.diff(stamps) > gap_ns) + 1
            fresh = [(int(p[0]), int(p[-1])) for p in np.split(stamps, cuts)]
        runs = _merged(sorted([*runs, *fresh]), gap_ns)
    return runs


def _merged(runs: list[tuple[int, int]], gap_ns: int | None) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in runs:
        if merged and (gap_ns is None or first - merged[-1][1] <= gap_ns):
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
