"""Phases, events and captions of several views."""

from __future__ import annotations

import pytest

from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels.captions import check_captions, read_text
from mmdata.checks.labels.tables import Classes
from mmdata.checks.labels.timelines import check_timelines
from mmdata_schema import Caption, Event, Layer, Phase, Provenance, SceneObject

T0 = 1_700_000_000_000_000_000
STORY = [("approach", 0, 2), ("grasp", 2, 3), ("lift", 3, 4), ("transport", 4, 6.5),
         ("lower", 6.5, 7.5), ("release", 7.5, 8.2), ("retract", 8.2, 10)]  # fmt: skip


def at(seconds):
    return T0 + round(seconds * 1e9)


def view(stream, story=STORY, late=0.0, objects=("cube",)):
    return [
        Phase(id=f"{stream}-{k}", tier="motion", label=label, stream=stream,
              start_ns=at(a + late), end_ns=at(b + late), object_ids=list(objects))
        for k, (label, a, b) in enumerate(story)
    ]  # fmt: skip


def layer(**collections):
    return Layer(episode_id="e", name="l", provenance=Provenance(author="a"), **collections)


def timelines(*phases, events=()):
    flat = [p for group in phases for p in group]
    return check_timelines([layer(phases=flat, events=list(events))], LabelLimits().timelines)


def test_views_that_agree():
    jittered = [(x, a + 0.1, b + 0.1) for x, a, b in STORY]
    assert timelines(view("wrist"), view("overhead", jittered), view("side")) == []


def test_one_boundary_off():
    story = list(STORY)
    story[3], story[4] = ("transport", 4, 6.0), ("lower", 6.0, 7.5)
    found = timelines(view("wrist"), view("side", story))
    assert {f.name for f in found} == {"boundary"}
    assert [round(f.value, 6) for f in found] == [
        0.5
    ]  # end of one, start of the next: one boundary
    assert all(f.error_type == "CON7" for f in found)


def test_a_view_that_is_late_as_a_whole_is_one_cause():
    found = timelines(view("wrist"), view("overhead"), view("side", late=0.6))
    heads = [f for f in found if f.cause is None]
    assert [(f.name, f.stream) for f in heads] == [("view_late", "side")]
    assert heads[0].value == pytest.approx(600.0)
    assert heads[0].error_type == "COM6"
    assert heads[0].explains == len(found) - 1 > 10


def test_a_missing_segment_a_swap_and_another_label():
    story = [s for s in STORY if s[0] != "lift"]
    (missing,) = timelines(view("wrist"), view("side", story))
    assert (missing.name, missing.stream, missing.annotation_ids) == (
        "missing_segment", "side", ("wrist-2",)
    )  # fmt: skip
    swapped = [*STORY[:2], ("transport", 3, 4), ("lift", 4, 6.5), *STORY[4:]]
    assert "order" in {f.name for f in timelines(view("wrist"), view("side", swapped))}
    relabelled = [*STORY[:3], ("contact_motion", 4, 6.5), *STORY[4:]]
    (other,) = timelines(view("wrist"), view("side", relabelled))
    assert other.name == "segment_label"


def test_a_view_annotated_only_in_part_is_not_blamed():
    assert timelines(view("wrist"), view("side", STORY[2:])) == []


def test_views_that_name_different_objects():
    found = timelines(view("wrist"), view("side", objects=("bottle",)))
    assert {f.name for f in found} == {"object_identity"}


def test_events_of_two_views():
    a = Event(id="a", label="contact", stamp_ns=at(2.1), stream="wrist", object_ids=["cube"])
    near = a.edit(id="b", stream="side", stamp_ns=at(2.2))
    far = near.edit(stamp_ns=at(2.9), object_ids=["cup"])
    assert timelines(view("wrist"), view("side"), events=(a, near)) == []
    names = {f.name for f in timelines(view("wrist"), view("side"), events=(a, far))}
    assert names == {"boundary", "object_identity"}
    release = a.edit(id="c", label="release", stamp_ns=at(7.6))
    release = (release, release.edit(id="d", stream="side"))
    (absent,) = timelines(view("wrist"), view("side"), events=(a, *release))
    assert (absent.name, absent.stream) == ("missing_segment", "side")


def test_what_a_sentence_says():
    said = read_text("The left arm picked up two red blocks without lifting the lid", Classes())
    assert said.actions == {"pick"}
    assert said.negated == {"lift"}
    assert said.objects["cube"] == (2, "red")
    assert said.hands == {"left"}


def captions(*captions, phases=None, objects=()):
    phases = view("wrist") if phases is None else phases
    return check_captions([layer(captions=list(captions), phases=phases, objects=list(objects))])


def caption(text, a=None, b=None, **fields):
    span = {} if a is None else {"start_ns": at(a), "end_ns": at(b)}
    return Caption(**({"id": "c", "text": text, **span} | fields))


CUBE = SceneObject(id="o", object_id="cube", label="cube", attributes={"colour": "red"})


@pytest.mark.parametrize(
    ("text", "span", "rule"),
    [
        ("the gripper grasps the block", (2, 3), None),
        ("the gripper carries the block", (2, 3), "caption_action"),
        ("the gripper does not lift it", (3, 4), "caption_action"),
        ("it grasps the red cube", (2, 3), None),
        ("it grasps the green cube", (2, 3), "caption_object"),
        ("it grasps two cubes", (2, 3), "caption_object"),
        ("it grasps the bottle", (2, 3), "caption_object"),
        ("a lovely sunny day", (2, 3), None),
    ],
)
def test_captions_against_phases_and_objects(text, span, rule):
    found = captions(caption(text, *span, object_ids=["cube"]), objects=[CUBE])
    assert [f.name for f in found] == ([] if rule is None else [rule])


def test_the_hand_that_moves():
    phases = [p.edit(actor="right_arm") for p in view("wrist")]
    assert captions(caption("the right arm grasps it", 2, 3), phases=phases) == []
    (found,) = captions(caption("the left arm grasps it", 2, 3), phases=phases)
    assert found.name == "caption_object"


def test_descriptions_of_one_event_in_two_views():
    a = caption("the robot places the cup", 6, 8, stream="wrist", id="a")
    same = caption("the arm puts a cup down", 6, 8, stream="side", id="b")
    assert captions(a, same, phases=[]) == []
    other = same.edit(text="the arm pushes the bottle")
    (found,) = captions(a, other, phases=[])
    assert found.name == "description"
    assert "cup against bottle" in found.message
    assert captions(a, other.edit(start_ns=at(9), end_ns=at(11)), phases=[]) == []
