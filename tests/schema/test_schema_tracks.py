from __future__ import annotations

import random
from typing import Any

import pytest

from mmdata_schema import Box2D, Box3D, SchemaError, Track2D, Track3D

TRACK = {
    "id": "t",
    "object_id": "car-7",
    "label": "car",
    "frame_id": "world",
    "stream": "lidar",
    "confidence": 0.5,
    "stamp_ns": [10, 20, 30],
    "center_m": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]],
    "size_lwh_m": [[4.0, 2.0, 1.5]] * 3,
    "quaternion_wxyz": [[1.0, 0.0, 0.0, 0.0]] * 3,
    "interpolated": [False, True, None],
    "keyframe_confidence": [0.9, None, 1.0],
    "gap_after": [False, True, False],
    "attributes": {"colour": "red"},
    "keyframe_attributes": {"points": [5, None, 7]},
}


def _box(stamp_ns: int, **changes: Any) -> Box3D:
    box = {
        "id": f"b{stamp_ns}",
        "label": "car",
        "stamp_ns": stamp_ns,
        "frame_id": "world",
        "center_m": [float(stamp_ns), 0.0, 0.0],
        "size_lwh_m": [4.0, 2.0, 1.5],
        "quaternion_wxyz": [1.0, 0.0, 0.0, 0.0],
    }
    return Box3D.parse({**box, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stamp_ns": [10, 20, 20]}, "20 follows 20"),
        ({"stamp_ns": [10, 30, 20]}, "20 follows 30"),
        ({"stamp_ns": []}, "stamp_ns"),
        ({"center_m": TRACK["center_m"][:2]}, "center_m has 2 entries for 3"),  # type: ignore[index]
        ({"gap_after": [True]}, "gap_after has 1 entries"),
        ({"keyframe_attributes": {"points": [1]}}, r"keyframe_attributes\.points has 1"),
        ({"visibility": [None, None, [0.2, 1.5]]}, "visibility"),
        ({"object_id": None}, "object_id"),
    ],
)
def test_columns_belong_together(change: dict[str, Any], message: str) -> None:
    Track3D.parse(TRACK)
    with pytest.raises(SchemaError, match=message):
        Track3D.parse({**TRACK, **change})


def test_keyframe_is_a_box() -> None:
    track = Track3D.parse(TRACK)
    assert track.keyframe(0) == Box3D(
        id="t@10",
        label="car",
        stamp_ns=10,
        frame_id="world",
        stream="lidar",
        center_m=(0.0, 0.0, 0.0),
        size_lwh_m=(4.0, 2.0, 1.5),
        quaternion_wxyz=(1.0, 0.0, 0.0, 0.0),
        object_id="car-7",
        interpolated=False,
        confidence=0.9,
        attributes={"colour": "red", "points": 5},
    )
    # Unknown entries fall back to what holds for the track.
    assert track.keyframe(1).confidence == 0.5
    assert track.keyframe(1).attributes == {"colour": "red"}
    assert track.keyframe(-1) == track.keyframe(2)
    with pytest.raises(IndexError):
        track.keyframe(3)
    assert (track.index_of(20), track.index_of(25), track.index_of(99)) == (1, None, None)


def test_from_boxes_sorts_and_keeps_every_field() -> None:
    boxes = [
        _box(30, attributes={"points": 3}, confidence=0.25, visibility=[0.5, 1.0]),
        _box(10, attributes={"moving": True}),
        _box(20, interpolated=True),
    ]
    track = Track3D.from_boxes(boxes, id="t", object_id="o")
    assert track.stamp_ns == [10, 20, 30]
    assert track.keyframe_attributes == {"points": [None, None, 3], "moving": [True, None, None]}
    assert track.interpolated == [None, True, None]
    assert track.keyframe_confidence == [None, None, 0.25]
    assert track.visibility == [None, None, (0.5, 1.0)]
    for box in boxes:
        i = track.index_of(box.stamp_ns)
        assert i is not None
        assert track.keyframe(i) == box.edit(id=f"t@{box.stamp_ns}", object_id="o")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "at least one box"),
        ([_box(1), _box(2, label="truck")], "share label; got 'car' and 'truck'"),
        ([_box(1), _box(2, frame_id="ego")], "share frame_id"),
        ([_box(1), _box(1)], "1 follows 1"),
        ([_box(1, colour="x")], "unknown fields"),
        ([_box(1, evidence=[{"kind": "k"}])], "has evidence"),
    ],
)
def test_boxes_that_make_no_track_are_refused(boxes: list[Box3D], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Track3D.from_boxes(boxes, id="t", object_id="o")


def test_put_keyframe_changes_only_what_is_given() -> None:
    track = Track3D.parse(TRACK)
    moved = track.put_keyframe(20, center_m=(1.5, 0.0, 0.0), interpolated=False)
    assert moved.center_m == [(0.0, 0.0, 0.0), (1.5, 0.0, 0.0), (2.0, 0.0, 0.0)]
    assert moved.interpolated == [False, False, None]
    assert moved.gap_after == track.gap_after
    assert moved.keyframe_attributes == track.keyframe_attributes
    assert moved.put_keyframe(20, center_m=(1.0, 0.0, 0.0), interpolated=True) == track


def test_new_keyframe_is_inserted_in_every_column() -> None:
    track = Track3D.parse(TRACK)
    pose: dict[str, Any] = {
        "center_m": (1.2, 0.0, 0.0),
        "size_lwh_m": (4.0, 2.0, 1.5),
        "quaternion_wxyz": (1.0, 0.0, 0.0, 0.0),
    }
    longer = track.put_keyframe(25, attributes={"braking": True}, visibility=(0.4, 0.6), **pose)
    assert longer.stamp_ns == [10, 20, 25, 30]
    assert longer.interpolated == [False, True, None, None]
    assert longer.gap_after == [False, True, False, False]
    assert longer.visibility == [None, None, (0.4, 0.6), None]
    assert longer.keyframe_attributes == {
        "points": [5, None, None, 7],
        "braking": [None, None, True, None],
    }
    assert track.put_keyframe(25, **pose).remove_keyframe(25) == track
    with pytest.raises(SchemaError, match="needs size_lwh_m, quaternion_wxyz"):
        track.put_keyframe(25, center_m=(0.0, 0.0, 0.0))
    with pytest.raises(SchemaError, match="no column 'centre'"):
        track.put_keyframe(20, centre=(0.0, 0.0, 0.0))


def test_last_keyframe_stays() -> None:
    track = Track3D.parse(TRACK).remove_keyframe(10).remove_keyframe(30)
    assert track.stamp_ns == [20]
    with pytest.raises(SchemaError, match="one keyframe left"):
        track.remove_keyframe(20)
    with pytest.raises(SchemaError, match="no keyframe at 10"):
        track.remove_keyframe(10)


def test_random_edits_of_keyframes_keep_columns_together() -> None:
    rng = random.Random(3)
    track = Track3D.parse(TRACK)
    model = {stamp: track.keyframe(i).center_m for i, stamp in enumerate(track.stamp_ns)}
    for _ in range(300):
        stamp = rng.randrange(60)
        if stamp in model and len(model) > 1 and rng.random() < 0.5:
            track = track.remove_keyframe(stamp)
            del model[stamp]
        else:
            model[stamp] = (rng.random(), 0.0, 0.0)
            track = track.put_keyframe(
                stamp,
                center_m=model[stamp],
                size_lwh_m=(1.0, 1.0, 1.0),
                quaternion_wxyz=(1.0, 0.0, 0.0, 0.0),
            )
        assert track.stamp_ns == sorted(model)
        assert track.center_m == [model[stamp] for stamp in sorted(model)]


def test_track_in_one_camera() -> None:
    boxes = [
        Box2D(
            id=f"b{i}",
            label="car",
            stream="camera_front",
            stamp_ns=i,
            xyxy_px=(float(i), 0.0, i + 10.0, 5.0),
            truncated=0.5 if i == 2 else None,
            rotation_rad=0.1 if i == 1 else None,
        )
        for i in (2, 1)
    ]
    track = Track2D.from_boxes(boxes, id="t", object_id="o")
    assert track.truncated == [None, 0.5]
    assert track.rotation_rad == [0.1, None]
    assert track.keyframe(1) == boxes[0].edit(id="t@2", object_id="o")
    other = boxes[0].edit(stream="camera_left")
    with pytest.raises(SchemaError, match="share stream"):
        Track2D.from_boxes([boxes[1], other], id="t", object_id="o")
