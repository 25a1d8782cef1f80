"""Masks and outlines: polygons to runs, runs to pixels; (0, 0) is the first pixel's centre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def runs_of(mask: Mask) -> list[int]:
    """Runs of a mask (H, W) down its columns, zeros first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def mask_of(runs: Sequence[int], height: int, width: int) -> Mask:
    """The mask (H, W) of runs down the columns, zeros first."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def mask_of_rows(runs: Sequence[int], height: int, width: int) -> Mask:
    """The mask (H, W) of runs along the rows, zeros first, as CVAT has them."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width))


def fill(polygons: Sequence[npt.ArrayLike], height: int, width: int) -> Mask:
    """Pixels (H, W) whose centre lies inside any of the polygons, each (K, 2) in our pixels.

    Inside by the even-odd rule; a centre on an edge counts where the inside lies right of it.
    """
    out = np.zeros((height, width), dtype=np.bool_)
    rows = np.arange(height, dtype=np.float64)
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        flips = np.zeros((height, width + 1), dtype=np.intp)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            crossed = (rows >= min(y0, y1)) & (rows < max(y0, y1))
            x = x0 + (rows[crossed] - y0) * (x1 - x0) / (y1 - y0)
            # Every pixel from the crossing on changes sides.
            first = np.clip(np.ceil(x), 0, width).astype(np.intp)
            np.add.at(flips, (np.flatnonzero(crossed), first), 1)
        out |= np.cumsum(flips[:, :width], axis=1) % 2 == 1
    return out


def bounds(mask: Mask) -> tuple[int, int, int, int] | None:
    """First column, first row, last column, last row of a mask; None when it is empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return None
    return int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])
