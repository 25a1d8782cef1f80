"""One thing labelled twice, in 3D and in images; siblings that say so are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels.duplicates import _inside, check_duplicates, without
from mmdata.checks.labels.pipeline import check_boxes
from mmdata.checks.labels.scene import LabelScene, View
from mmdata.checks.labels.tables import Classes, read_boxes_3d
from mmdata.geometry import SE3, CameraModel, LensModel
from mmdata_schema import Box2D, Layer, Provenance, Track3D

T0 = 1_700_000_000_000_000_000
STEP = 100_000_000
LIMITS = LabelLimits()


def track(name, center, *, label="car", size=(4.4, 1.8, 1.5), n=10, yaw=0.0, **more):
    q = (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2)))
    return Track3D(
        id=f"t_{name}", object_id=name, label=label, frame_id="world",
        stamp_ns=[T0 + STEP * k for k in range(n)], center_m=[tuple(center)] * n,
        size_lwh_m=[size] * n, quaternion_wxyz=[q] * n, **more,
    )  # fmt: skip


def layer(*tracks, boxes=()):
    return Layer(episode_id="e", name="l", provenance=Provenance(author="a"),
                 tracks_3d=list(tracks), boxes_2d=list(boxes))  # fmt: skip


def duplicates(*tracks):
    return check_duplicates(read_boxes_3d(layer(*tracks), 3.5), LIMITS.tracks, Classes())


def test_one_car_under_two_names():
    found, meant = duplicates(track("a", (10, 0, 0)), track("b", (10.6, 0.2, 0), n=6, yaw=0.05),
                              track("c", (20, 0, 0)))  # fmt: skip
    assert [(f.name, f.object_id, f.annotation_ids, f.rule) for f in found] == [
        ("duplicate_object", "b", ("t_b", "t_a"), "LAB309")
    ]
    assert "6 of 6 keyframes" in found[0].message
    assert meant == {1: 0}
    boxes = read_boxes_3d(layer(track("a", (10, 0, 0)), track("b", (10, 0, 0))), 3.5)
    assert set(without(boxes, {1: 0}).track.tolist()) == {0}


@pytest.mark.parametrize(
    "other",
    [
        track("b", (10, 2.0, 0)),  # parked beside it
        track("b", (13.0, 0, 0)),  # bumper to bumper, as badly as boxes may be drawn
        track("b", (10, 0, 0.2), label="pedestrian", size=(0.6, 0.6, 1.7)),  # its driver
        track("b", (10, 0, 3.0)),  # on a bridge
    ],
)
def test_two_things_close_to_each_other(other):
    assert duplicates(track("a", (10, 0, 0)), other) == ([], {})


def test_siblings_may_share_a_place_but_not_disagree():
    one = track("a", (10, 0, 0), keyframe_attributes={"sibling": ["b"] * 10})
    assert duplicates(one, track("b", (10.2, 0, 0))) == ([], {})
    found, meant = duplicates(one, track("b", (10.2, 0, 0), label="bicycle"))
    assert [(f.name, f.error_type) for f in found] == [("class_change", "ACC1")]
    assert meant == {}


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.tuples(*[st.floats(0.5, 5)] * 3),
    st.floats(-np.pi, np.pi),
)
def test_the_shared_part_is_that_of_random_points(offset, size, yaw):
    boxes = read_boxes_3d(layer(track("a", (0, 0, 0)), track("b", offset, size=size, yaw=yaw)), 3.5)
    share = _inside(boxes, np.array([0]), np.array([10]))[0]
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (4000, 3)) * boxes.size[0] - np.array(offset)
    c, s = np.cos(-yaw), np.sin(-yaw)
    local = points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    assert share == pytest.approx((np.abs(local) <= 0.5 * np.array(size)).all(1).mean(), abs=0.2)


@pytest.fixture
def scene():
    """A camera that looks along x, ten images."""
    camera = CameraModel(LensModel.PINHOLE, np.array([[800.0, 0, 640], [0, 800, 360], [0, 0, 1]]),
                         np.zeros(0), 1280, 720)  # fmt: skip
    pose = SE3(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))

    def pose_at(stamps):
        n = len(stamps)
        return np.zeros((n, 3)), np.tile(pose.quaternion, (n, 1))

    return LabelScene("world", (View("front", camera, T0 + STEP * np.arange(10), pose_at),))


def rectangles(name, object_id, shift=0.0):
    """Where a car of 4.4 x 1.8 x 1.5 m at 20 m shows."""
    near = 20 - 2.2
    u, v = 800 * 0.9 / near, 800 * 0.75 / near
    return [
        Box2D(id=f"{name}{k}", label="car", stream="front", stamp_ns=T0 + STEP * k,
              object_id=object_id,
              xyxy_px=(640 - u + shift, 360 - v, 640 + u + shift, 360 + v))
        for k in range(10)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a", None])
def test_a_rectangle_drawn_twice(scene, name):
    boxes = [*rectangles("r", "a"), rectangles("again", name, shift=3.0)[4]]
    (found,) = check_boxes(scene, [layer(track("a", (20, 0, 0)), boxes=boxes)])
    assert (found.name, found.stamp_ns) == ("duplicate_2d", T0 + 4 * STEP)
    assert set(found.annotation_ids) == {"again4", "r4"}


def test_a_thing_labelled_twice_everywhere_is_one_finding(scene):
    tracks = track("a", (20, 0, 0)), track("b", (20.1, 0.05, 0))
    boxes = [*rectangles("r", "a"), *rectangles("s", "b", shift=2.0)]
    found = check_boxes(scene, [layer(*tracks, boxes=boxes)])
    (top,) = [f for f in found if f.cause is None]
    assert top.name == "duplicate_object"
    assert top.explains == len(found) - 1 == 10


def test_siblings_do_not_hide_each_other(scene):
    """Neither is missed in the images that show the other, and one rectangle serves both."""
    one = track("a", (20, 0, 0), keyframe_attributes={"sibling": ["b"] * 10})
    found = check_boxes(scene, [layer(one, track("b", (20.1, 0, 0)), boxes=rectangles("r", "a"))])
    assert found == []
