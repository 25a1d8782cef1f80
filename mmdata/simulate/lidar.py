"""A scanning LiDAR: every point is cast at its own instant, from where the sensor then is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.geometry import quat_to_matrix
from mmdata.simulate.scene import Floats, Panel, Solid, cast
from mmdata.streams import Ragged

RANGE_NOISE_M = 0.004


@dataclass(frozen=True)
class Scan:
    """A scan pattern: columns of rings, from the first to the last azimuth over span_s."""

    span_s: float
    azimuth_rad: tuple[float, float]
    elevation_rad: tuple[float, float]
    columns: int
    rings: int
    range_noise_m: float = RANGE_NOISE_M
    max_range_m: float = 100.0


def sweeps(
    start_s: Floats,
    scan: Scan,
    pose_at: Callable[[Floats], tuple[Floats, Floats]],
    solids_at: Callable[[Floats], list[Solid]],
    panels: Sequence[Panel],
    rng: np.random.Generator,
) -> tuple[dict[str, Any], Ragged]:
    """Points of sweeps that begin at start_s (N,).

    Returns:
        Ragged fields: x, y, z (float32, metres, in the sensor's frame at the point's own
        instant), intensity (float32, 0 to 1), ring (uint16) and point_offset_ns (int32, since
        the sweep's start). And per point the index of the solid, then panel, it lies on.
    """
    azimuth = np.linspace(*scan.azimuth_rad, scan.columns, endpoint=False)
    elevation = np.linspace(*scan.elevation_rad, scan.rings)
    a, e = np.meshgrid(azimuth, elevation, indexing="ij")
    direction = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=-1)
    direction = direction.reshape(-1, 3)
    column = np.repeat(np.arange(scan.columns), scan.rings)
    ring = np.tile(np.arange(scan.rings, dtype=np.uint16), scan.columns)
    step_ns = scan.span_s * 1e9 / scan.columns
    offset_ns = np.rint(np.arange(scan.columns) * step_ns).astype(np.int32)
    rows: dict[str, list[Any]] = {
        n: [] for n in ("x", "y", "z", "intensity", "ring", "point_offset_ns")
    }
    surfaces = []
    for start in start_s:
        t = start + offset_ns * 1e-9
        position, orientation = pose_at(t)
        solids = solids_at(t)
        turn = quat_to_matrix(orientation)[column]
        rays = np.einsum("nij,nj->ni", turn, direction)
        hits = cast(position[column], rays, [s.take(column) for s in solids], panels)
        seen = np.flatnonzero(hits.distance < scan.max_range_m)
        distance = hits.distance[seen] + rng.normal(0, scan.range_noise_m, len(seen))
        points = (direction[seen] * distance[:, None]).astype(np.float32)
        shine = np.array([s.reflectivity for s in solids] + [0.35] * len(panels))
        intensity = shine[hits.surface[seen]] * (0.3 + 0.7 * hits.cosine[seen])
        for axis, name in enumerate("xyz"):
            rows[name].append(points[:, axis])
        surfaces.append(hits.surface[seen])
        rows["intensity"].append(intensity.astype(np.float32))
        rows["ring"].append(ring[seen])
        rows["point_offset_ns"].append(offset_ns[column[seen]])
    dtypes = {"ring": np.uint16, "point_offset_ns": np.int32}
    fields = {n: Ragged.from_rows(r, dtypes.get(n, np.float32)) for n, r in rows.items()}
    return fields, Ragged.from_rows(surfaces, np.int32)
