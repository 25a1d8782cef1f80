"""COCO's run-length strings and back, without touching pixels.

Each run is written as the difference to the run two before it (from the fourth on), in groups of
five bits, lowest first, as characters from ``'0'``; bit 5 says that more groups follow, bit 4 of
the last group is the sign.
"""

from __future__ import annotations

from collections.abc import Sequence


def rle_runs(counts: str) -> list[int]:
    """Run lengths (zeros first) of a COCO string; ``ValueError`` when it is malformed."""
    runs: list[int] = []
    value = shift = 0
    for position, char in enumerate(counts):
        group = ord(char) - 48
        if not 0 <= group < 64:
            raise ValueError(f"RLE string holds {char!r} at {position}")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise ValueError(f"RLE string gives a negative run at {position}")
        runs.append(value)
        value = shift = 0
    if shift:
        raise ValueError("RLE string ends inside a run")
    return runs


def rle_string(runs: Sequence[int]) -> str:
    """COCO string of run lengths (zeros first)."""
    out: list[str] = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            out.append(chr(48 + (group | 32 if more else group)))
    return "".join(out)
