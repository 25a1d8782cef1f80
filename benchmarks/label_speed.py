"""A large scene for timing the label checks: what the speed is measured with."""

from __future__ import annotations

from typing import Any

import numpy as np
from label_scenes import PERIOD, SIZES, T0, SimScene

from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels.projection import look
from mmdata.checks.labels.scene import Frames, LabelScene, Sweep, Sweeps
from mmdata.checks.labels.tables import read_boxes_3d
from mmdata_schema import Layer, Provenance, Track2D, Track3D


def speed_scene(boxes: int, lidar: bool) -> tuple[LabelScene, list[Any]]:
    """A long drive with 250 objects in 400 keyframes (for 100,000 boxes), six cameras, rectangles
    for everything in sight and, with ``lidar``, 60,000 points in every sweep."""
    rng = np.random.default_rng(5)
    frames = 400
    objects = boxes // frames
    stamps = T0 + PERIOD * np.arange(frames)
    t = (stamps - T0) / 1e9
    base = SimScene(1, "held_a", frames=frames + 2, objects=2)
    ego = base.ego(stamps)[0]
    names = list(SIZES)
    three = []
    for k in range(objects):
        label = names[int(rng.integers(len(names)))]
        yaw = rng.uniform(-np.pi, np.pi)
        speed = 0.0 if label == "traffic_cone" else rng.choice([0.0, 1.2])
        heading = np.array([np.cos(yaw), np.sin(yaw), 0])
        at = ego[int(rng.integers(frames))] + [*rng.uniform(-25, 25, 2), SIZES[label][2] / 2]
        center = at + (t - t.mean())[:, None] * speed * heading + rng.normal(0, 0.01, (frames, 3))
        q = (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2)))
        three.append(
            Track3D(
                id=f"t{k}", object_id=f"o{k}", label=label, frame_id="world",
                stamp_ns=stamps.tolist(), center_m=center.tolist(),
                size_lwh_m=[SIZES[label]] * frames, quaternion_wxyz=[q] * frames,
            )
        )  # fmt: skip
    layer = Layer(
        episode_id="speed", name="speed", provenance=Provenance(author="a"), tracks_3d=three
    )
    table = read_boxes_3d(layer, 3.5)
    two = []
    for view in base.views:
        seen = look(view, table, LabelLimits().projection)
        rows = np.flatnonzero((seen.visible > 0.35) & seen.certain)
        rows = rows[(seen.rect[rows, 2:] - seen.rect[rows, :2]).min(axis=1) > 8]
        track = table.track[seen.row[rows]]
        for k in np.unique(track):
            mine = rows[track == k]
            at = view.stamp_ns[seen.frame[mine]]
            gap = np.append(np.diff(seen.frame[mine]) > 1, False)
            drawn = seen.rect[mine] + rng.normal(0, 1, (len(mine), 4))
            two.append(
                Track2D(
                    id=f"{view.stream}-{k}", object_id=table.named[k].object_id,
                    label=table.named[k].label,
                    stream=view.stream, stamp_ns=at.tolist(), xyxy_px=drawn.tolist(),
                    gap_after=gap.tolist(),
                )
            )  # fmt: skip
    layer = layer.model_copy(update={"tracks_2d": two})
    corners = np.array([th.size_lwh_m[0] for th in three])
    centers = np.array([th.center_m for th in three])

    def read(i: int) -> Sweep:
        own = np.random.default_rng(i)
        near = np.flatnonzero(np.linalg.norm(centers[:, i] - ego[i], axis=1) < 60)
        chosen = own.choice(near, 20000)
        on = centers[chosen, i] + 0.3 * own.uniform(-1, 1, (20000, 3)) * corners[chosen]
        ground = ego[i] + np.c_[own.normal(0, 25, (40000, 2)), own.normal(0, 0.02, 40000)]
        return Sweep(int(stamps[i]), np.concatenate([on, ground]), None, ego[i] + [0, 0, 1.9])

    sweeps = (Sweeps("lidar_points", stamps, read),) if lidar else ()
    return LabelScene("world", base.views, Frames(), sweeps), [layer]
