"""Boxes along tracks: every rule on a hand-made track, with and without the fault."""

from __future__ import annotations

import numpy as np
import pytest

from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels.gaps import check_gaps
from mmdata.checks.labels.tables import Classes, read_boxes_3d
from mmdata.checks.labels.tracks import check_tracks
from mmdata_schema import Layer, Provenance, Track3D

T0 = 1_700_000_000_000_000_000
LIMITS = LabelLimits()
CLASSES = Classes()


def track(
    name, centers, *, label="car", yaw=0.0, size=(4.5, 1.8, 1.5), stamps=None, object_id=None
):
    n = len(centers)
    yaws = np.broadcast_to(yaw, n)
    return Track3D(
        id=f"t_{name}", object_id=object_id or name, label=label, frame_id="world",
        stamp_ns=stamps or [T0 + 100_000_000 * k for k in range(n)],
        center_m=[tuple(map(float, c)) for c in centers],
        size_lwh_m=[tuple(map(float, s)) for s in np.broadcast_to(size, (n, 3))],
        quaternion_wxyz=[(float(np.cos(a / 2)), 0.0, 0.0, float(np.sin(a / 2))) for a in yaws],
    )  # fmt: skip


def straight(n=20, speed=10.0, y=0.0):
    return np.stack([0.1 * speed * np.arange(n), np.full(n, y), np.zeros(n)], axis=1)


def findings(*tracks):
    layer = Layer(episode_id="e", name="l", provenance=Provenance(author="a"), tracks_3d=tracks)
    return check_tracks(read_boxes_3d(layer, 3.5), LIMITS.tracks, CLASSES)


def test_a_smooth_track_has_no_finding():
    rng = np.random.default_rng(0)
    assert findings(*(track(f"c{k}", straight(y=5 * k) + rng.normal(0, 0.02, (20, 3)))
                      for k in range(8))) == []  # fmt: skip


@pytest.mark.parametrize("at", [0, 1, 9, 18, 19])
def test_one_displaced_keyframe_is_one_jump(at):
    centers = straight()
    centers[at, 1] += 0.8
    (jump,) = findings(track("c", centers))
    assert (jump.name, jump.stamp_ns, jump.error_type) == ("jump", T0 + at * 100_000_000, "ACC2")
    assert jump.value == pytest.approx(0.8, abs=1e-6)
    assert jump.annotation_ids == (f"t_c@{T0 + at * 100_000_000}",)


def test_a_broken_path_is_said_once_where_it_goes_on():
    centers = straight()
    centers[12:, 1] += 3.0
    (jump,) = findings(track("c", centers))
    assert jump.name == "jump"
    assert jump.stamp_ns == T0 + 12 * 100_000_000
    assert jump.value == pytest.approx(3.0, abs=1e-6)


def test_tracks_that_exchange_their_places_are_a_swap_not_two_jumps():
    a, b = straight(y=0.0), straight(y=6.0)
    a[10:], b[10:] = b[10:].copy(), a[10:].copy()
    (swap,) = findings(track("a", a), track("b", b))
    assert swap.name == "identity_swap"
    assert {i.split("@")[0] for i in swap.annotation_ids} == {"t_a", "t_b"}


def test_hard_braking_is_no_jump_and_an_impossible_one_is_said_once():
    t = 0.1 * np.arange(30)
    braking = np.stack([10 * t - 0.5 * 6 * np.maximum(t - 1, 0) ** 2, 0 * t, 0 * t], axis=1)
    assert findings(track("c", braking[:25])) == []
    rocket = np.stack([0.5 * 40 * np.maximum(t - 1, 0) ** 2, 0 * t, 0 * t], axis=1)
    assert [f.name for f in findings(track("c", rocket))].count("acceleration") == 1


def test_size_changes_of_rigid_things_only():
    size = np.tile([4.5, 1.8, 1.5], (20, 1))
    size[7, 0] *= 1.2
    (found,) = findings(track("c", straight(), size=size))
    assert (found.name, found.stamp_ns) == ("size_change", T0 + 700_000_000)
    assert found.value == pytest.approx(0.2)
    assert findings(track("p", straight(speed=1.0), label="pedestrian", size=size)) == []


def test_heading_against_motion():
    found = findings(track("c", straight(), yaw=np.pi))
    assert {f.name for f in found} == {"heading"}
    assert "backwards" in found[0].message
    assert findings(track("c", straight(), yaw=0.3)) == []
    assert findings(track("c", straight(speed=1.0), yaw=np.pi)) == []  # too slow to tell


def test_speed_beyond_the_class():
    found = findings(track("p", straight(speed=20.0), label="pedestrian"))
    assert {f.name for f in found} == {"speed"}
    assert found[0].limit == 10.0
    assert findings(track("c", straight(speed=20.0))) == []


def test_one_identity_at_two_places():
    far = straight(y=50.0)
    found = findings(track("a", straight()), track("b", far, object_id="a"))
    assert {f.name for f in found} == {"identity_reuse"}
    later = [T0 + 10_000_000_000 + 100_000_000 * k for k in range(20)]
    away = findings(
        track("a", straight(speed=0.0)),
        track("b", straight(speed=0.0, y=2000.0), stamps=later, object_id="a"),
    )
    assert [f.name for f in away] == ["identity_reuse"]


def test_an_object_with_two_classes():
    found = findings(
        track("a", straight()[:10]),
        track("b", straight()[10:], label="truck", object_id="a",
              stamps=[T0 + 100_000_000 * k for k in range(10, 20)]),
    )  # fmt: skip
    assert [f.name for f in found] == ["class_change"]


def gaps(*tracks, sight=True):
    layer = Layer(episode_id="e", name="l", provenance=Provenance(author="a"), tracks_3d=tracks)
    boxes = read_boxes_3d(layer, 3.5)
    return check_gaps(boxes, LIMITS.tracks, CLASSES, lambda holes: np.full(len(holes), sight))


def test_a_hole_counts_only_while_in_sight():
    full = straight()
    kept = [k for k in range(20) if not 8 <= k < 14]
    holed = track("a", full[kept], stamps=[T0 + 100_000_000 * k for k in kept])
    (found,) = gaps(holed, track("b", straight(y=9.0)))
    assert (found.name, found.value) == ("identity_gap", 6)
    assert gaps(holed, track("b", straight(y=9.0)), sight=False) == []
    assert gaps(track("b", straight(y=9.0))) == []


def test_a_track_that_goes_on_under_another_name():
    stamps = [T0 + 100_000_000 * k for k in range(10, 20)]
    a, b = track("a", straight()[:10]), track("b", straight()[10:], stamps=stamps)
    (found,) = gaps(a, b)
    assert "b begins" in found.message
    other = track("b", straight()[10:], stamps=stamps, label="pedestrian", size=(0.6, 0.6, 1.7))
    assert gaps(a, other) == []
