"""Differences between layers and three-way merges."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.annotations import diff_layers, merge_layers
from mmdata.annotations.diff import flatten
from mmdata.annotations.merge import unflatten
from mmdata.errors import SchemaError
from mmdata_schema import Event, Layer, Phase, Provenance, Track3D

Q = (1.0, 0.0, 0.0, 0.0)


def phase(id: str, start: int, end: int, label: str = "grasp", **more: object) -> Phase:
    return Phase.parse(
        {"id": id, "tier": "motion", "label": label, "start_ns": start, "end_ns": end, **more}
    )


def layer(*annotations: object, who: str = "anna", **more: object) -> Layer:
    out = Layer(episode_id="take", name=who, provenance=Provenance(author=who), **more)  # type: ignore[arg-type]
    for annotation in annotations:
        out = out.put(annotation)  # type: ignore[arg-type]
    return out


def track(*frames: tuple[int, float], **more: object) -> Track3D:
    return Track3D.parse(
        {
            "id": "t",
            "object_id": "car",
            "label": "car",
            "frame_id": "world",
            "stamp_ns": [s for s, _ in frames],
            "center_m": [(x, 0.0, 0.0) for _, x in frames],
            "size_lwh_m": [(4.0, 2.0, 1.5)] * len(frames),
            "quaternion_wxyz": [Q] * len(frames),
            **more,
        }
    )


def test_diff_names_fields_keyframes_and_attributes() -> None:
    before = layer(phase("p", 0, 10), track((0, 1.0), (5, 2.0)), phase("gone", 1, 2))
    after = layer(
        phase("p", 0, 12, attributes={"force": 3}), track((0, 1.0), (5, 2.5), (9, 3.0)),
        Event(id="new", label="contact", stamp_ns=4), revision=7,
    )  # fmt: skip
    diff = diff_layers(before, after)
    assert diff.added == {"new": "events"}
    assert diff.removed == {"gone": "phases"}
    assert [(c.path, c.before, c.after) for c in diff.changed["p"][1]] == [
        (("attributes", "force"), None, 3), (("end_ns",), 10, 12),
    ]  # fmt: skip
    assert [(c.path, c.after) for c in diff.changed["t"][1]] == [
        (("keyframe", "5", "center_m"), [2.5, 0.0, 0.0]), (("keyframe", "9"), True),
    ]  # fmt: skip
    assert diff.header == []
    json.dumps(diff.to_dict())
    assert not diff_layers(before, before.edit(revision=3))


def test_diff_sees_a_number_that_became_a_truth_value() -> None:
    one, true = (layer(phase("p", 0, 1, attributes={"a": v})) for v in (1, True))
    assert diff_layers(one, true).changed["p"][1][0].path == ("attributes", "a")


def test_merge_takes_both_sides_changes_of_one_annotation() -> None:
    base = layer(phase("p", 0, 10))
    ours = layer(phase("p", 2, 10))
    theirs = layer(phase("p", 0, 10, label="lift", attributes={"x": 1}))
    merge = merge_layers(base, ours, theirs)
    assert merge.conflicts == []
    assert merge.layer.phases == [phase("p", 2, 10, label="lift", attributes={"x": 1})]


def test_merge_reports_what_both_changed_and_keeps_ours() -> None:
    base, ours, theirs = (layer(phase("p", 0, e)) for e in (10, 11, 12))
    merge = merge_layers(base, ours, theirs)
    assert merge.layer.phases[0].end_ns == 11
    (conflict,) = merge.conflicts
    assert (conflict.path, conflict.base, conflict.ours, conflict.theirs) == (
        ("end_ns",), 10, 11, 12,
    )  # fmt: skip
    json.dumps(conflict.to_dict())
    assert merge_layers(base, ours, ours).conflicts == []


def test_merge_of_edges_that_cross_keeps_ours_whole() -> None:
    base = layer(phase("p", 0, 10))
    merge = merge_layers(base, layer(phase("p", 8, 10)), layer(phase("p", 0, 5)))
    assert merge.layer.phases == [phase("p", 8, 10)]
    assert merge.conflicts[0].path == ()
    assert "do not fit" in merge.conflicts[0].reason


def test_merge_removal_against_nothing_and_against_change() -> None:
    base = layer(phase("p", 0, 10), phase("q", 20, 30))
    ours = layer(phase("q", 20, 30))
    theirs = layer(phase("p", 0, 10), phase("q", 20, 31))
    merge = merge_layers(base, ours, theirs)
    assert [p.id for p in merge.layer.phases] == ["q"]
    assert merge.conflicts == []
    merge = merge_layers(base, layer(phase("p", 0, 10)), theirs)
    assert [(p.id, p.end_ns) for p in merge.layer.phases] == [("p", 10), ("q", 31)]
    assert "removed on one side" in merge.conflicts[0].reason


def test_merge_works_on_single_keyframes() -> None:
    base = layer(track((0, 1.0), (5, 2.0), (9, 3.0)))
    ours = layer(track((0, 1.5), (5, 2.0), (9, 3.0)))
    theirs = layer(track((0, 1.0), (5, 2.0), (7, 2.2)))
    merge = merge_layers(base, ours, theirs)
    assert merge.conflicts == []
    assert merge.layer.tracks_3d == [track((0, 1.5), (5, 2.0), (7, 2.2))]
    both = merge_layers(base, ours, layer(track((0, 1.7), (5, 2.0), (9, 3.0))))
    assert both.conflicts[0].path == ("keyframe", "0", "center_m")
    removed = merge_layers(base, ours, layer(track((5, 2.0), (9, 3.0))))
    assert removed.conflicts[0].path == ("keyframe", "0")
    assert removed.layer.tracks_3d == ours.tracks_3d


def test_merge_of_two_new_keyframes_at_one_stamp_conflicts() -> None:
    base = layer(track((0, 1.0)))
    merge = merge_layers(base, layer(track((0, 1.0), (5, 2.0))), layer(track((0, 1.0), (5, 9.0))))
    assert [c.path for c in merge.conflicts] == [("keyframe", "5", "center_m")]


def test_merge_says_who_made_what_and_what_it_came_from() -> None:
    ours = layer(phase("p", 0, 10), revision=4)
    theirs = layer(Event(id="e", label="contact", stamp_ns=3), who="bob", revision=2)
    merged = merge_layers(None, ours, theirs).layer
    assert merged.name == "anna"
    assert merged.revision == 4
    assert [(r.layer, r.revision) for r in merged.provenance.derived_from] == [
        ("anna", 4), ("bob", 2),
    ]  # fmt: skip
    assert merged.events[0].provenance == Provenance(author="bob")
    assert merged.phases[0].provenance is None
    with pytest.raises(SchemaError, match="episode_id"):
        merge_layers(None, ours, theirs.edit(episode_id="other"))


spans = st.tuples(st.integers(0, 20), st.integers(1, 20), st.sampled_from("ab"))
contents = st.dictionaries(st.sampled_from(["p", "q", "r"]), spans)


def build(content: dict[str, tuple[int, int, str]]) -> Layer:
    return layer(*(phase(i, s, s + n, label) for i, (s, n, label) in content.items()))


@settings(max_examples=150, deadline=None)
@given(contents, contents)
def test_merge_laws(a: dict[str, tuple[int, int, str]], b: dict[str, tuple[int, int, str]]) -> None:
    base, edited = build(a), build(b)
    assert merge_layers(base, base, edited).layer.phases == edited.phases
    assert merge_layers(base, edited, base).layer.phases == edited.phases
    assert merge_layers(base, edited, edited).layer.phases == edited.phases
    assert bool(diff_layers(base, edited)) == (base.phases != edited.phases)


@settings(max_examples=150, deadline=None)
@given(contents, contents, contents)
def test_merge_without_conflict_is_the_same_from_both_sides(
    a: dict[str, tuple[int, int, str]],
    b: dict[str, tuple[int, int, str]],
    c: dict[str, tuple[int, int, str]],
) -> None:
    base, one, two = build(a), build(b), build(c)
    there, back = merge_layers(base, one, two), merge_layers(base, two, one)
    assert len(there.conflicts) == len(back.conflicts)
    if not there.conflicts:
        assert there.layer.phases == back.layer.phases


def test_flat_form_gives_back_tracks_with_optional_columns() -> None:
    full = track(
        (0, 1.0), (5, 2.0), interpolated=[None, True], gap_after=[True, False],
        keyframe_attributes={"points": [3, None]}, attributes={"a": None}, odd_field=[1],
    )  # fmt: skip
    assert unflatten("tracks_3d", "t", flatten(full)) == full
