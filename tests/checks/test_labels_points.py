"""Boxes against points of known surfaces: what belongs to the object and what does not."""

from __future__ import annotations

import numpy as np

from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels.lidar import check_lidar, contents
from mmdata.checks.labels.scene import Sweep, Sweeps
from mmdata.checks.labels.tables import Classes, read_boxes_3d
from mmdata_schema import Layer, Provenance, Track3D

T0 = 1_700_000_000_000_000_000
STEP = 100_000_000
N = 6
LIMITS = LabelLimits().sweeps
SIZE = (4.4, 1.8, 1.5)


def grid(x, y, z, step=0.12):
    """Points on an axis-parallel surface; each of x, y, z a number or a span."""
    axes = [np.arange(a[0], a[1], step) if isinstance(a, tuple) else np.array([a])
            for a in (x, y, z)]  # fmt: skip
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)


def car(shift=0.0):
    """Its near side and rear, as a sensor at the origin sees them at x = 12, y = 4."""
    x, y = (9.8 + shift, 14.2 + shift), (3.1, 4.9)
    return np.concatenate([grid(x, 3.1, (0.0, 1.5)), grid(9.8 + shift, y, (0.0, 1.5)),
                           grid(x, y, 1.5, 0.25)])  # fmt: skip


GROUND = grid((4.0, 20.0), (-4.0, 9.0), 0.0, 0.25)


def check(points, center=(12.0, 4.0, 0.75), size=SIZE):
    track = Track3D(
        id="t", object_id="car", label="car", frame_id="world",
        stamp_ns=[T0 + STEP * k for k in range(N)], center_m=[center] * N, size_lwh_m=[size] * N,
        quaternion_wxyz=[(1.0, 0.0, 0.0, 0.0)] * N,
    )  # fmt: skip
    made = Layer(episode_id="e", name="l", provenance=Provenance(author="a"), tracks_3d=[track])
    boxes = read_boxes_3d(made, 3.5)
    stamps = T0 + STEP * np.arange(N)
    origin = np.array([0.0, 0.0, 1.8])
    sweeps = Sweeps("lidar", stamps, lambda i: Sweep(int(stamps[i]), points, None, origin))
    found = check_lidar(boxes, sweeps, LIMITS, Classes())
    return {f.name for f in found}, contents(boxes, sweeps, LIMITS)


def test_a_box_that_fits():
    assert check(np.concatenate([car(), GROUND]))[0] == set()


def test_a_box_behind_its_object_cuts_it_off():
    names, inside = check(np.concatenate([car(shift=-0.5), GROUND]))
    assert names == {"cut_off"}
    assert (inside.out[:, 1] > 20).all()


def test_a_wall_beside_a_box_is_no_part_of_it():
    wall = grid((4.0, 20.0), 5.2, (0.0, 3.0))
    names, inside = check(np.concatenate([car(), GROUND, wall]))
    assert names == set()
    assert (inside.out[:, 2] == 0).all()


def test_branches_above_a_car_are_no_part_of_it():
    rng = np.random.default_rng(1)
    tree = rng.uniform([7.0, 1.0, 1.7], [17.0, 7.0, 3.0], (8000, 3))
    assert check(np.concatenate([car(), GROUND, tree]))[0] == set()


def test_height_is_told_by_the_ground():
    names, inside = check(np.concatenate([car(), GROUND]), center=(12.0, 4.0, 1.45))
    assert "ground_offset" in names
    assert np.allclose(inside.ground, 0.7, atol=0.02)


def test_a_hidden_foot_of_a_wall_is_no_ground():
    """The lowest that is seen around the box is a hedge from half a metre up."""
    hedge = np.concatenate([grid((4.0, 20.0), 2.4, (0.6, 1.9), 0.1),
                            grid(8.6, (1.5, 6.0), (0.6, 1.9), 0.1)])  # fmt: skip
    names, inside = check(np.concatenate([car(), hedge]))
    assert "ground_offset" not in names
    assert np.isnan(inside.ground).all()
