"""From a ragged sweep to a fixed number of points: one function for training and serving."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConfigError
from mmdata.loaders.spec import SweepSpec


def fixed_points(
    sweep: Mapping[str, NDArray[Any]], spec: SweepSpec
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(points, F) float32 of spec.fields and (points,) bool, True where a point stands.

    sweep: field -> (P,) values. Points with a non-finite value in any chosen field are left out.
    Raises ConfigError for a field the sweep does not have.
    """
    missing = [name for name in spec.fields if name not in sweep]
    if missing:
        raise ConfigError(f"no point field {', '.join(missing)}; there are: {', '.join(sweep)}")
    points = np.stack([np.asarray(sweep[name], np.float32) for name in spec.fields], axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    if spec.bounds is not None:
        least, most = np.asarray(spec.bounds, np.float32)
        points = points[((points[:, :3] >= least) & (points[:, :3] < most)).all(axis=1)]
    if spec.mode == "voxel":
        assert spec.voxel_m is not None
        points = _voxel_means(points, spec.voxel_m)
    elif spec.mode == "sample" and len(points) > spec.points:
        # Seeded by the points themselves: the same sweep gives the same draw anywhere.
        draw = np.random.default_rng(zlib.crc32(points.tobytes()))
        points = points[np.sort(draw.choice(len(points), spec.points, replace=False))]
    n = min(len(points), spec.points)
    result = np.zeros((spec.points, len(spec.fields)), np.float32)
    result[:n] = points[:n]
    return result, np.arange(spec.points) < n


def _voxel_means(points: NDArray[np.float32], voxel_m: float) -> NDArray[np.float32]:
    if not len(points):
        return points
    cells = np.floor(points[:, :3].astype(np.float64) / voxel_m).astype(np.int64)
    order = np.lexsort(cells.T[::-1])
    cells, points = cells[order], points[order]
    first = np.flatnonzero(np.r_[True, (cells[1:] != cells[:-1]).any(axis=1)])
    sums = np.add.reduceat(points.astype(np.float64), first, axis=0)
    counts = np.diff(np.r_[first, len(points)])
    return np.asarray(sums / counts[:, None], np.float32)
