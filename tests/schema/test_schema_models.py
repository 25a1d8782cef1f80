from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmdata_schema import (
    COLLECTIONS,
    Box2D,
    Box3D,
    Caption,
    Comment,
    Event,
    Keypoint,
    Keypoints,
    Layer,
    Mask,
    Phase,
    Provenance,
    Review,
    ReviewState,
    SchemaError,
    SoundEvent,
    collection_of,
    new_id,
    parse_annotation,
    read_layer,
    rle_runs,
    rle_string,
    stable_id,
    write_layer,
)

FROZEN = Path(__file__).parent / "frozen"


def _phase(**changes: Any) -> dict[str, Any]:
    phase = {"id": "p", "tier": "motion", "label": "lift", "start_ns": 10, "end_ns": 20}
    return {**phase, **changes}


def _layer(**fields: Any) -> Layer:
    return Layer.parse(
        {"episode_id": "ep", "name": "gt", "provenance": {"author": "anna"}, **fields}
    )


def test_import_is_cheap() -> None:
    code = "import sys, mmdata_schema; print([m for m in ('pydantic', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_package_needs_only_pydantic_and_yaml() -> None:
    code = (
        "import sys, mmdata_schema as m; [getattr(m, n) for n in m.__all__];"
        "print([n for n in ('numpy', 'mmdata', 'h5py') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_collection_is_a_field_of_the_layer() -> None:
    lists = {name for name, f in Layer.model_fields.items() if "list[" in str(f.annotation)}
    assert lists == set(COLLECTIONS)
    for name, cls in COLLECTIONS.items():
        assert str(cls.__name__) in str(Layer.model_fields[name].annotation)


@pytest.mark.parametrize("stamp", [10.0, "10", True, None, 2**63, -(2**63) - 1])
def test_stamps_are_int64(stamp: object) -> None:
    with pytest.raises(SchemaError, match="start_ns"):
        Phase.parse(_phase(start_ns=stamp, end_ns=2**63 - 1))


def test_stamps_keep_every_nanosecond() -> None:
    last = 2**63 - 1
    layer = _layer(events=[{"id": "e", "label": "contact", "stamp_ns": last}])
    assert read_layer(write_layer(layer)).events[0].stamp_ns == last


@pytest.mark.parametrize("end_ns", [10, 9])
def test_span_holds_an_instant(end_ns: int) -> None:
    with pytest.raises(SchemaError, match="end is exclusive"):
        Phase.parse(_phase(end_ns=end_ns))


def test_caption_span_is_whole_or_absent() -> None:
    assert Caption.parse({"id": "c", "text": "x"}).start_ns is None
    with pytest.raises(SchemaError, match="both start_ns and end_ns"):
        Caption.parse({"id": "c", "text": "x", "start_ns": 1})


def test_sound_onset_needs_no_end() -> None:
    assert SoundEvent.parse({"id": "n", "label": "click", "start_ns": 5}).end_ns is None
    with pytest.raises(SchemaError):
        SoundEvent.parse({"id": "n", "label": "click", "start_ns": 5, "end_ns": 5})


@pytest.mark.parametrize("id", ["", "a b", "a\n", "x" * 257])
def test_ids_are_short_and_without_spaces(id: str) -> None:
    with pytest.raises(SchemaError, match="id"):
        Phase.parse(_phase(id=id))


def test_ids_are_unique_across_collections() -> None:
    with pytest.raises(SchemaError, match="'a' occurs twice"):
        _layer(phases=[_phase(id="a")], events=[{"id": "a", "label": "slip", "stamp_ns": 1}])


def test_stable_ids_depend_on_their_parts_only() -> None:
    assert stable_id("box", "s", 1) == stable_id("box", "s", 1)
    # Parts are kept apart: ("a", "b") is not ("ab",) and not ("a", "b", "").
    assert len({stable_id("b", "a", "b"), stable_id("b", "ab"), stable_id("b", "a", "b", "")}) == 3
    assert new_id("phase").startswith("phase-")
    assert new_id() != new_id()


def test_provenance_names_somebody() -> None:
    with pytest.raises(SchemaError, match="author, a tool or a model"):
        Provenance.parse({"confidence": 0.5})
    with pytest.raises(SchemaError, match="confidence"):
        Provenance.parse({"author": "a", "confidence": 1.5})


BOX = {
    "id": "b",
    "label": "car",
    "stamp_ns": 1,
    "frame_id": "world",
    "center_m": [1, 2.5, 3],
    "size_lwh_m": [4, 2, 1.5],
    "quaternion_wxyz": [1, 0, 0, 0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quaternion_wxyz": [1.0, 0.1, 0.0, 0.0]}, "norm"),
        ({"quaternion_wxyz": [0.0, 0.0, 0.0, 0.0]}, "norm"),
        ({"size_lwh_m": [4.0, -1.0, 1.0]}, "size_lwh_m"),
        ({"center_m": [1.0, 2.0]}, "center_m"),
        ({"center_m": [math.nan, 0.0, 0.0]}, "center_m"),
        ({"center_m": ["1", 0.0, 0.0]}, "center_m"),
        ({"interpolated": 1}, "interpolated"),
        ({"visibility": [0.5, 1.2]}, "visibility"),
    ],
)
def test_bad_boxes_are_refused(change: dict[str, Any], message: str) -> None:
    assert Box3D.parse(BOX).center_m == (1.0, 2.5, 3.0)
    with pytest.raises(SchemaError, match=message):
        Box3D.parse({**BOX, **change})


def test_rectangle_corners_are_ordered() -> None:
    box = {"id": "b", "label": "car", "stream": "camera_front", "stamp_ns": 1}
    assert Box2D.parse({**box, "xyxy_px": [3, 4, 3, 9]}).xyxy_px == (3.0, 4.0, 3.0, 9.0)
    with pytest.raises(SchemaError, match="x_min"):
        Box2D.parse({**box, "xyxy_px": [3, 4, 2, 9]})


def test_mask_runs_fill_the_image() -> None:
    mask = {"id": "m", "label": "cube", "stream": "c", "stamp_ns": 1, "size_hw": [60, 9]}
    # COCO's own encoder gives this string for columns 2-3, rows 10-49 and column 6, rows 5-6.
    runs = [130, 40, 20, 40, 135, 2, 173]
    text = Mask.parse({**mask, "counts": "R4X1d00c3jNV1"})
    listed = Mask.parse({**mask, "counts": runs})
    assert text.runs() == listed.runs() == runs
    assert text.area_px == listed.area_px == 2 * 40 + 2
    for counts in (runs[:-1], [*runs, 1], "R4X1d00c3jN", "R4X1d00c3jNV", "R4 "):
        with pytest.raises(SchemaError, match=r"runs add up|RLE string"):
            Mask.parse({**mask, "counts": counts})
    with pytest.raises(SchemaError):
        Mask.parse({**mask, "counts": [-1, 541]})


def test_rle_refuses_negative_runs() -> None:
    # Runs 4, 5, 3 and then 5 - 6: the difference takes the fourth run below zero.
    assert rle_runs("453") == [4, 5, 3]
    assert rle_string([4, 5, 3, 4]) == "453O"
    with pytest.raises(ValueError, match="negative run at 3"):
        rle_runs("453" + "J")


def test_keypoint_names_occur_once() -> None:
    points = [Keypoint(name="left", xy_px=(1.0, 2.0)), Keypoint(name="left", xy_px=(2.0, 2.0))]
    with pytest.raises(ValueError, match="twice"):
        Keypoints(id="k", label="gripper", stream="c", stamp_ns=1, points=points)


def test_review_follows_its_states() -> None:
    review = Review().advance("review", "anna", 1).advance("accepted", "ben", 2, "fine")
    assert review.state is ReviewState.ACCEPTED
    assert [step.by for step in review.history] == ["anna", "ben"]
    with pytest.raises(SchemaError, match="accepted to rejected"):
        review.advance("rejected", "ben", 3)
    with pytest.raises(SchemaError, match="draft to accepted"):
        Review().advance("accepted", "anna", 1)
    # A state that came without its history can still be reopened.
    reopened = Review(state=ReviewState.REJECTED).advance("draft", "anna", 1)
    assert reopened.history[0].previous is ReviewState.REJECTED


def test_review_state_agrees_with_its_history() -> None:
    steps = Review().advance("review", "anna", 1).to_dict()["history"]
    with pytest.raises(SchemaError, match="history ends in review"):
        Review.parse({"state": "accepted", "history": steps})
    broken = [*steps, {"previous": "draft", "state": "review", "by": "b", "unix_ns": 2}]
    with pytest.raises(SchemaError, match="goes to review and on from draft"):
        Review.parse({"state": "review", "history": broken})


def test_edit_makes_a_checked_copy() -> None:
    phase = Phase.parse(_phase(colour="kept"))
    moved = phase.edit(end_ns=30)
    assert (phase.end_ns, moved.end_ns) == (20, 30)
    assert moved.to_dict()["colour"] == "kept"
    with pytest.raises(SchemaError, match="end is exclusive"):
        phase.edit(end_ns=5)
    with pytest.raises(ValueError, match="frozen"):
        phase.end_ns = 5


def test_put_and_remove_undo_each_other() -> None:
    before = _layer(phases=[_phase(id="b"), _phase(id="a")], future={"kept": 1})
    assert [p.id for p in before.phases] == ["a", "b"]
    event = Event(id="e", label="slip", stamp_ns=3)
    after = before.put(event).put(before.phases[0].edit(label="lower"))
    assert after.events == [event]
    assert [p.label for p in after.phases] == ["lower", "lift"]
    undone = after.put(before.phases[0]).remove("e")
    assert undone == before
    assert write_layer(undone) == write_layer(before)
    readded = before.remove("a").put(before.phases[0])
    assert write_layer(readded) == write_layer(before)


def test_put_refuses_an_id_of_another_collection() -> None:
    layer = _layer(phases=[_phase(id="a")])
    with pytest.raises(SchemaError, match="already used in phases"):
        layer.put(Event(id="a", label="slip", stamp_ns=1))
    with pytest.raises(SchemaError, match="no annotation 'z'"):
        layer.remove("z")
    assert layer.get("z") is None
    assert layer.get("a") == layer.by_id()["a"] == layer.phases[0]


def test_annotations_know_their_collection() -> None:
    document = json.loads((FROZEN / "1.0.json").read_text("utf-8"))
    for collection in COLLECTIONS:
        for data in document[collection]:
            annotation = parse_annotation(collection, data)
            assert collection_of(annotation) == collection
    with pytest.raises(SchemaError, match="no collection 'boxes'"):
        parse_annotation("boxes", {})
    with pytest.raises(SchemaError, match=r"Comment: .*text"):
        parse_annotation("comments", {"id": "c"})
    with pytest.raises(SchemaError, match="Keypoint is not"):
        collection_of(Keypoint(name="a", xy_px=(0.0, 0.0)))  # type: ignore[arg-type]


def test_comment_without_pin_is_about_the_layer() -> None:
    assert Comment(id="c", text="good").pin is None
