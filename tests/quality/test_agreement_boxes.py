"""Overlap of turned boxes, intervals and instants against cases by hand and brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.geometry import points_in_box, quat_from_rotvec
from mmdata.quality.boxes import (
    box_intersection_m3,
    iou_2d,
    iou_3d,
    match_boxes,
    yaw_difference_rad,
)
from mmdata.quality.intervals import (
    Interval,
    binned,
    boundaries,
    f1,
    instant_counts,
    label_overlap_ns,
    match_instants,
    match_segments,
    signed_errors_ns,
    temporal_iou,
)
from mmdata_schema import Box2D, Box3D


def box(center: Any = (0, 0, 0), size: Any = (2, 2, 2), yaw: float = 0.0, **more: Any) -> Box3D:
    return Box3D.parse(
        {"id": "b", "label": "car", "stamp_ns": 0, "frame_id": "world", "center_m": center,
         "size_lwh_m": size, "quaternion_wxyz": (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)),
         **more}
    )  # fmt: skip


def test_iou_by_hand() -> None:
    assert iou_3d(box(), box()) == pytest.approx(1, abs=1e-12)
    # Shifted by half a length: 4 shared of 12.
    assert iou_3d(box(), box((1, 0, 0))) == pytest.approx(1 / 3, abs=1e-12)
    assert iou_3d(box(), box((2, 0, 0))) == 0
    assert iou_3d(box(), box((0.5, 0.5, 0.5))) == pytest.approx(1.5**3 / (16 - 1.5**3), abs=1e-12)
    # A square turned by 45 degrees over itself leaves a regular octagon: area 8 (sqrt 2 - 1).
    octagon = 8 * (math.sqrt(2) - 1)
    assert box_intersection_m3(box(), box(yaw=math.pi / 4)) == pytest.approx(2 * octagon, abs=1e-9)
    # A long box across another: the shared part is their widths' square.
    cross = box(size=(4, 1, 1)), box(size=(4, 1, 1), yaw=math.pi / 2)
    assert iou_3d(*cross) == pytest.approx(1 / 7, abs=1e-12)
    # A small box inside, however turned.
    inner = box(size=(0.5, 0.4, 0.3), quaternion_wxyz=tuple(quat_from_rotvec([0.3, 0.7, -1.1])))
    assert box_intersection_m3(box(), inner) == pytest.approx(0.06, abs=1e-12)
    assert box_intersection_m3(inner, box()) == pytest.approx(0.06, abs=1e-12)
    # A cube cut through by a plane along its space diagonal's middle: half of it.
    big = box((10, 0, 0), (20, 60, 60), quaternion_wxyz=tuple(quat_from_rotvec([0, 0, 0])))
    assert box_intersection_m3(box(), big) == pytest.approx(4, abs=1e-12)
    assert math.isnan(iou_3d(box(size=(0, 0, 0)), box(size=(0, 0, 0))))
    with pytest.raises(ValueError, match="frames"):
        iou_3d(box(), box(frame_id="map"))


def test_plane_through_edges_closes_the_body() -> None:
    # The half space beyond the plane y = x cuts the cube through two edges: a prism of 4.
    side = 100.0
    turn = math.pi / 4
    center = (math.cos(turn + math.pi / 2) * side / 2, math.sin(turn + math.pi / 2) * side / 2, 0)
    half = box(center, (side, side, side), turn)
    assert box_intersection_m3(box(), half) == pytest.approx(4, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_intersection_equals_a_count_of_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [
        box(
            (rng.uniform(-1, 1, 3) + np.array([1e4, -5e4, 3])).tolist(),
            rng.uniform(0.5, 4, 3).tolist(),
            quaternion_wxyz=quat_from_rotvec(rng.normal(0, 1, 3)).tolist(),
        )
        for _ in range(2)
    ]  # fmt: skip
    points = rng.uniform(-0.5, 0.5, (20_000, 3)) * made[0].size_lwh_m
    from mmdata.geometry import quat_rotate

    world = quat_rotate(made[0].quaternion_wxyz, points) + made[0].center_m
    inside = points_in_box(world, made[1].center_m, made[1].size_lwh_m, made[1].quaternion_wxyz)
    volume = math.prod(made[0].size_lwh_m)
    shared = box_intersection_m3(*made)
    spread = volume * math.sqrt(max(inside.mean() * (1 - inside.mean()), 1e-4) / len(points))
    assert shared == pytest.approx(inside.mean() * volume, abs=6 * spread)
    assert box_intersection_m3(*made[::-1]) == pytest.approx(shared, abs=1e-8)


def test_yaw_difference_wraps_and_refuses_upright_boxes() -> None:
    assert yaw_difference_rad(box(yaw=3.1), box(yaw=-3.1)) == pytest.approx(2 * math.pi - 6.2)
    assert yaw_difference_rad(box(), box(yaw=math.pi)) == pytest.approx(math.pi)
    upright = box(quaternion_wxyz=(math.sqrt(0.5), 0, math.sqrt(0.5), 0))
    assert math.isnan(yaw_difference_rad(box(), upright))


def test_rectangles_and_matching() -> None:
    def flat(*xyxy: float, **more: Any) -> Box2D:
        return Box2D.parse({"id": "f", "label": "car", "stream": "c", "stamp_ns": 0,
                            "xyxy_px": xyxy, **more})  # fmt: skip

    assert iou_2d(flat(0, 0, 4, 4), flat(2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert iou_2d(flat(0, 0, 1, 1), flat(1, 1, 2, 2)) == 0
    with pytest.raises(ValueError, match="upright"):
        iou_2d(flat(0, 0, 1, 1), flat(0, 0, 1, 1, rotation_rad=0.1))
    # Greedy would take (0, 0) first and leave the second without a partner.
    a = [flat(0, 0, 10, 10), flat(4, 0, 14, 10)]
    b = [flat(2, 0, 12, 10), flat(-6, 0, 4, 10)]
    assert [(i, j) for i, j, _ in match_boxes(a, b, 0.1)] == [(0, 1), (1, 0)]
    assert match_boxes([], b, 0.1) == []


# Intervals ---------------------------------------------------------------------------------


def test_temporal_iou_and_overlap() -> None:
    one, two = Interval("a", 0, 10), Interval("a", 5, 20)
    assert temporal_iou(one, two) == 0.25
    assert temporal_iou(one, Interval("a", 10, 20)) == 0
    overlap = label_overlap_ns([one, Interval("b", 10, 12)], [two, Interval("a", 30, 31)], "a")
    assert overlap == (5, 21)


def test_segments_match_by_label_and_best_total() -> None:
    a = [Interval("x", 0, 10), Interval("y", 10, 20)]
    b = [Interval("x", 0, 8), Interval("x", 10, 20)]
    assert match_segments(a, b) == [(0, 0, 0.8)]
    assert match_segments(a, b, same_label=False) == [(0, 0, 0.8), (1, 1, 1.0)]
    assert match_segments(a, b, min_iou=0.9) == []


def test_boundaries_leave_out_the_outer_ends() -> None:
    assert boundaries([Interval("a", 0, 5), Interval("b", 5, 7), Interval("c", 8, 9)]) == [5, 7, 8]
    assert boundaries([Interval("a", 0, 5)]) == []


def test_instants_match_most_then_closest() -> None:
    # Greedy by distance would take (10, 11) and lose (0, 10); both fit within 11.
    assert match_instants([0, 10], [10, 20], 11) == [(0, 0), (1, 1)]
    assert match_instants([0, 10], [1, 9, 11], 3) == [(0, 0), (1, 1)]
    base = 1_760_030_100_000_000_001
    assert match_instants([base], [base + 5], 5) == [(0, 0)]
    assert match_instants([base], [base + 6], 5) == []
    assert signed_errors_ns([base], [base - 3], 5) == [-3]
    assert instant_counts([0, 100], [1], 5).tolist() == [1, 1, 0]
    assert f1([1, 1, 0]) == pytest.approx(2 / 3)
    assert math.isnan(f1([0, 0, 0]))


@given(
    st.lists(st.integers(0, 60), max_size=6), st.lists(st.integers(0, 60), max_size=6),
    st.integers(0, 15),
)  # fmt: skip
def test_instant_matching_is_as_large_as_any(a: list[int], b: list[int], tolerance: int) -> None:
    def best(i: int, free: frozenset[int]) -> int:
        if i == len(a):
            return 0
        options = [best(i + 1, free)]
        options += [1 + best(i + 1, free - {j}) for j in free if abs(a[i] - b[j]) <= tolerance]
        return max(options)

    assert len(match_instants(a, b, tolerance)) == best(0, frozenset(range(len(b))))


@given(st.integers(1, 7), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=4))
def test_bins_take_the_label_at_their_centre(width: int, rows: list[tuple[int, int]]) -> None:
    intervals = [Interval(str(k), s, s + n) for k, (s, n) in enumerate(rows)]
    got = binned(intervals, 0, 40, width)
    ordered = sorted(intervals, key=lambda i: i.start_ns)
    for k, label in enumerate(got):
        centre = (k + 0.5) * width
        holding = [i.label for i in ordered if i.start_ns <= centre < i.end_ns]
        assert label == (holding[-1] if holding else None)
