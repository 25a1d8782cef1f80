from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmdata_schema import (
    Layer,
    Problem,
    SchemaError,
    Taxonomy,
    load_taxonomy,
    read_layer,
    validate_layer,
)
from mmdata_schema.taxonomy import packaged_taxonomies

FROZEN = Path(__file__).parent / "frozen"

TABLETOP = """
name: tabletop
version: "2.1"
extends: [events, grasp_outcomes, captions, odd]
tiers:
  - name: task
    labels: [{label: pick}, {label: place}]
  - name: motion
    parent: task
    gap_free: true
    first: [approach]
    last: [retract, idle]
    labels:
      - label: approach
      - label: grasp
        attributes: [{name: force, type: float, minimum: 0, maximum: 50, unit: N, required: true}]
      - label: retract
      - label: idle
    transitions: {approach: [grasp], grasp: [retract]}
object_classes:
  - label: cube
    rigid: true
    aliases: [block]
    attributes:
      - {name: colour, type: enum, values: [red, green], required: true}
      - {name: weight, type: float}
  - {label: bowl}
attributes:
  events:
    - {name: audible, type: bool}
    - {name: count, type: int, minimum: 1}
    - {name: note, type: str}
    - {name: level, type: enum, values: [1, 2]}
"""


@pytest.fixture
def tabletop(tmp_path: Path) -> Taxonomy:
    path = tmp_path / "tabletop.yaml"
    path.write_text(TABLETOP, "utf-8")
    return load_taxonomy(path)


def _layer(**fields: Any) -> Layer:
    return Layer.parse(
        {"episode_id": "ep", "name": "gt", "provenance": {"author": "anna"}, **fields}
    )


def _found(layer: Layer, taxonomy: Taxonomy) -> set[tuple[str, str]]:
    return {(problem.path, problem.rule) for problem in validate_layer(layer, taxonomy)}


def _phase(id: str, label: str, start_ns: int, end_ns: int, **more: Any) -> dict[str, Any]:
    phase = {"id": id, "tier": "motion", "label": label, "start_ns": start_ns, "end_ns": end_ns}
    if label == "grasp":
        phase["attributes"] = {"force": 3.5}
    return {**phase, **more}


def test_packaged_taxonomies_load_and_describe_what_they_name() -> None:
    loaded = {name: load_taxonomy(name) for name in packaged_taxonomies()}
    assert set(loaded) == {
        "phases",
        "events",
        "grasp_outcomes",
        "object_classes",
        "sound_events",
        "captions",
        "odd",
        "error_types",
    }
    assert [tier.name for tier in loaded["phases"].tiers[:2]] == ["subtask", "motion"]
    events = {term.label for term in loaded["events"].events}
    assert {"contact", "released", "slip", "failure", "recovery", "grasped", "lifted"} <= events
    top = {term.path.split(".")[0] for term in loaded["odd"].odd}
    assert top == {"scenery", "environmental_conditions", "dynamic_elements"}
    for motion in loaded["phases"].tiers[1].labels:
        assert motion.starts_when, motion.label
        assert motion.ends_when, motion.label


def test_eighteen_error_types_with_codes_and_detectability() -> None:
    types = load_taxonomy("error_types").error_types
    assert len(types) == len({t.code for t in types}) == len({t.title for t in types}) == 18
    by_dimension = {d: sum(t.dimension == d for t in types) for d in ("completeness", "accuracy")}
    assert by_dimension == {"completeness": 6, "accuracy": 5}
    by_title = {t.title: t for t in types}
    assert by_title["bounding-box errors"].detectable == "full"
    assert by_title["lack of purpose knowledge"].detectable == "none"
    assert by_title["selection bias"].detectable == "partial"


def test_no_alias_means_two_labels() -> None:
    for name in packaged_taxonomies():
        taxonomy = load_taxonomy(name)
        for group in ("events", "grasp_outcomes", "object_classes", "sound_events"):
            owner: dict[str, str] = {}
            for term in getattr(taxonomy, group):
                for word in {w.casefold() for w in (term.label, *term.aliases)}:
                    assert owner.setdefault(word, term.label) == term.label, (name, word)


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("Car", "car"),
        ("vehicle.bus.bendy", "bus"),
        ("human.pedestrian.adult", "pedestrian"),
        ("Person_sitting", "pedestrian"),
        ("Pickup Truck", "pickup"),
        ("REGULAR_VEHICLE", "car"),
        ("car", "car"),
        ("teapot", None),
    ],
)
def test_names_of_other_datasets_are_known(source: str, label: str | None) -> None:
    assert load_taxonomy("object_classes").canonical("object_classes", source) == label


def test_scripted_pick_and_place_is_allowed_by_the_packaged_phases() -> None:
    labels = ["approach", "descend", "grasp", "lift", "transport", "lower", "release", "retract"]
    phases = [_phase(f"p{i}", name, i, i + 1, attributes={}) for i, name in enumerate(labels)]
    assert validate_layer(_layer(phases=phases), load_taxonomy("phases")) == []
    swapped = _layer(phases=[_phase("a", "lift", 0, 1), _phase("b", "approach", 1, 2)])
    assert _found(swapped, load_taxonomy("phases")) == {("phases[b].label", "transition")}


def test_extends_adds_and_replaces(tmp_path: Path, tabletop: Taxonomy) -> None:
    assert {"contact", "slip"} <= {term.label for term in tabletop.events}
    (tmp_path / "more.yaml").write_text(
        'name: more\nversion: "1"\nextends: [tabletop.yaml]\n'
        "object_classes: [{label: bowl, rigid: true}, {label: tray}]\n"
        "attributes: {events: [{name: note, type: int}]}\n",
        "utf-8",
    )
    more = load_taxonomy(tmp_path / "more.yaml")
    assert [c.label for c in more.object_classes] == ["cube", "bowl", "tray"]
    assert [c.rigid for c in more.object_classes] == [True, True, None]
    assert {r.name: r.type for r in more.attributes["events"]}["note"] == "int"
    assert {r.name for r in more.attributes["grasps"]} == {"grasp_type"}
    assert more.name == "more"


def test_later_extensions_win(tmp_path: Path) -> None:
    for name, rigid in (("a", "true"), ("b", "false")):
        text = f'name: {name}\nversion: "1"\nobject_classes: [{{label: cloth, rigid: {rigid}}}]\n'
        (tmp_path / f"{name}.yaml").write_text(text, "utf-8")
    path = tmp_path / "c.yaml"
    path.write_text('name: c\nversion: "1"\nextends: [a.yaml, b.yaml]\n', "utf-8")
    assert load_taxonomy(path).object_classes[0].rigid is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "not valid"),
        ('name: a\nversion: "1"\nextends: [self.yaml]', "extends itself"),
        ('name: a\nversion: "1"\nextends: [nowhere]', "no packaged taxonomy 'nowhere'"),
        ('name: a\nversion: "1"\nevents: [{label: x}, {label: x}]', "'x' twice"),
        ('name: a\nversion: "1"\nattributes: {boxes: []}', "no collection 'boxes'"),
        (
            'name: a\nversion: "1"\ntiers: [{name: t, labels: [{label: a}], first: [b]}]',
            "no label 'b'",
        ),
        (
            'name: a\nversion: "1"\nattributes: {events: [{name: x, type: enum}]}',
            "values for type enum",
        ),
    ],
)
def test_bad_taxonomies_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "self.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(SchemaError, match=message):
        load_taxonomy(path)


@pytest.mark.parametrize("name", ["nowhere", "../phases", "/etc/passwd"])
def test_unknown_names_list_the_known_ones(name: str) -> None:
    with pytest.raises(SchemaError, match="there are captions, error_types"):
        load_taxonomy(name)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_taxonomy(tmp_path / "none.yaml")


def test_good_layer_has_no_problems(tabletop: Taxonomy) -> None:
    layer = _layer(
        phases=[
            _phase("t", "pick", 0, 100, tier="task"),
            _phase("a", "approach", 0, 40, parent_id="t"),
            _phase("b", "grasp", 40, 60, parent_id="t"),
            _phase("c", "retract", 60, 100, parent_id="t"),
            # The other arm at the same time.
            _phase("d", "approach", 10, 50, actor="left"),
            _phase("e", "grasp", 50, 55, actor="left"),
            _phase("f", "retract", 55, 90, actor="left"),
            # Annotated again in one view.
            _phase("g", "approach", 0, 45, stream="camera_wrist"),
            _phase("h", "grasp", 45, 60, stream="camera_wrist"),
            _phase("i", "retract", 60, 100, stream="camera_wrist"),
        ],
        events=[{"id": "e1", "label": "contact", "stamp_ns": 40, "attributes": {"level": 1}}],
        objects=[{"id": "o", "object_id": "q", "label": "cube", "attributes": {"colour": "red"}}],
    )
    assert validate_layer(layer, tabletop) == []


def test_phase_rules(tabletop: Taxonomy) -> None:
    layer = _layer(
        phases=[
            _phase("t", "pick", 0, 100, tier="task"),
            _phase("t2", "juggle", 90, 120, tier="task"),
            _phase("a", "grasp", 0, 40, parent_id="t", attributes={}),
            _phase("b", "idle", 30, 60, parent_id="a"),
            _phase("c", "approach", 70, 130, parent_id="t"),
            _phase("d", "lift", 130, 140, parent_id="gone"),
            _phase("z", "lift", 0, 1, tier="nerve"),
        ]
    )
    assert _found(layer, tabletop) == {
        ("phases[t2].label", "label"),
        ("phases[t2].start_ns", "overlap"),
        ("phases[a].attributes.force", "attribute-missing"),
        ("phases[a].label", "transition"),  # may not begin with grasp
        ("phases[b].start_ns", "overlap"),
        ("phases[b].label", "transition"),  # idle after grasp
        ("phases[b].parent_id", "parent-tier"),
        ("phases[b]", "parent-span"),
        ("phases[c].start_ns", "gap"),
        ("phases[c]", "parent-span"),
        ("phases[d].label", "label"),
        ("phases[d].label", "transition"),  # lift after approach, and as the last
        ("phases[d].parent_id", "reference"),
        ("phases[z].tier", "tier"),
    }


def test_labels_and_attributes(tabletop: Taxonomy) -> None:
    box = {"label": "cube", "stream": "c", "stamp_ns": 1, "xyxy_px": [0, 0, 1, 1]}
    track = {
        "label": "cube",
        "object_id": "q",
        "stream": "c",
        "stamp_ns": [1, 2],
        "xyxy_px": [[0, 0, 1, 1]] * 2,
    }
    event = {"label": "contact", "stamp_ns": 1}
    layer = _layer(
        boxes_2d=[
            {"id": "b1", **box, "attributes": {"colour": "blue", "weight": "1"}},
            {"id": "b2", **box, "label": "block"},
            {"id": "b3", **box, "label": "vase"},
        ],
        tracks_2d=[
            {"id": "t1", **track, "keyframe_attributes": {"colour": ["red", "pink"]}},
            {"id": "t2", **track, "keyframe_attributes": {"colour": ["red", None]}},
        ],
        events=[
            {"id": "e1", **event, "attributes": {"audible": 1, "count": True, "note": 3}},
            {"id": "e2", **event, "attributes": {"count": 0, "level": True, "free": "ok"}},
            {"id": "e3", **event, "label": "explode"},
        ],
        captions=[{"id": "c1", "text": "x", "style": "haiku"}],
        odd=[
            {"id": "w1", "path": "environmental_conditions.weather.rainfall", "value": "drizzle"},
            {"id": "w2", "path": "scenery.moon", "value": 1},
            {"id": "w3", "path": "scenery.junctions.signalised", "value": "yes"},
        ],
    )
    assert _found(layer, tabletop) == {
        ("boxes_2d[b1].attributes.colour", "attribute-value"),
        ("boxes_2d[b1].attributes.weight", "attribute-value"),
        ("boxes_2d[b2].label", "label"),
        ("boxes_2d[b3].label", "label"),
        ("tracks_2d[t1].keyframe_attributes.colour[1]", "attribute-value"),
        ("events[e1].attributes.audible", "attribute-value"),
        ("events[e1].attributes.count", "attribute-value"),
        ("events[e1].attributes.note", "attribute-value"),
        ("events[e2].attributes.count", "attribute-value"),
        ("events[e2].attributes.level", "attribute-value"),
        ("events[e3].label", "label"),
        ("captions[c1].style", "label"),
        ("odd[w1].value", "attribute-value"),
        ("odd[w2].path", "label"),
        ("odd[w3].value", "attribute-value"),
    }
    messages = {p.path: p.message for p in validate_layer(layer, tabletop)}
    assert messages["boxes_2d[b2].label"] == "'block' is another name for 'cube'; use that"
    assert "tabletop" in messages["boxes_2d[b3].label"]


def test_closed_attributes(tabletop: Taxonomy) -> None:
    event = {"id": "e", "label": "contact", "stamp_ns": 1, "attributes": {"free": 1, "note": "n"}}
    layer = _layer(events=[event])
    assert validate_layer(layer, tabletop) == []
    closed = tabletop.edit(closed_attributes=True)
    assert _found(layer, closed) == {("events[e].attributes.free", "attribute")}


def test_references_that_lead_nowhere() -> None:
    span = {"label": "success", "start_ns": 1, "end_ns": 2}
    layer = _layer(
        grasps=[{"id": "g", **span, "contact_event_id": "no", "release_event_id": "e"}],
        events=[{"id": "e", "label": "released", "stamp_ns": 2}],
        comments=[
            {"id": "c1", "text": "x", "reply_to": "c9", "pin": {"annotation_id": "e"}},
            {"id": "c2", "text": "x", "pin": {"annotation_id": "t@5"}},
            {"id": "c3", "text": "x", "layer": "other", "pin": {"annotation_id": "far"}},
        ],
    )
    empty = Taxonomy(name="empty", version="1")
    assert validate_layer(layer, empty) == [
        Problem("grasps[g].contact_event_id", "this layer has no event 'no'", "reference"),
        Problem("comments[c1].reply_to", "this layer has no comment 'c9'", "reference"),
        Problem("comments[c2].pin.annotation_id", "this layer has no annotation 't'", "reference"),
    ]


def test_frozen_sample_follows_the_packaged_taxonomies() -> None:
    layer = read_layer((FROZEN / "1.0.json").read_bytes())
    for name in ("phases", "events", "grasp_outcomes", "sound_events", "captions"):
        assert validate_layer(layer, load_taxonomy(name)) == [], name
    assert _found(layer, load_taxonomy("object_classes")) == set()
    assert _found(layer, load_taxonomy("odd")) == set()
