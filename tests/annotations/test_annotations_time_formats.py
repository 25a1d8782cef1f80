"""Label Studio, ELAN and CSV: decimal times to exact nanoseconds, tiers, and losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.annotations import FORMATS, Scene, read_format, write_format
from mmdata.annotations.scene import ns_to_seconds, seconds_to_ns
from mmdata.errors import ConfigError, ConversionError, SchemaError
from mmdata_schema import (
    Box3D,
    Caption,
    Comment,
    Event,
    Layer,
    OddCondition,
    Phase,
    Provenance,
    SoundEvent,
    Tag,
    Track2D,
    Track3D,
    Transcript,
)

T0 = 1_760_030_100_123_456_789
STAMPS = T0 + np.arange(30) * 33_333_333
MS = 1_000_000


def scene(**more: Any) -> Scene:
    return Scene("take", stamps={"camera": STAMPS}, start_ns=T0, **more)


def layer(**collections: Any) -> Layer:
    return Layer(episode_id="take", name="gt", provenance=Provenance(author="anna"), **collections)


def whats(result: Any) -> set[str]:
    return {loss.what for loss in result.losses}


@given(st.integers(-(10**15), 10**15))
def test_decimal_seconds_are_exact(ns: int) -> None:
    assert seconds_to_ns(ns_to_seconds(ns)) == ns
    assert seconds_to_ns(str(ns_to_seconds(ns) * 1000), "ms") == ns


# Label Studio ------------------------------------------------------------------------------


def region(id: str, start: float, end: float, label: str, **more: Any) -> dict[str, Any]:
    base = {"id": id, "from_name": "motion", "to_name": "audio", "type": "labels"}
    return {**base, "value": {"start": start, "end": end, "labels": [label]}, **more}


def test_label_studio_two_annotators_and_a_model(tmp_path: Path) -> None:
    path = tmp_path / "ls.json"
    task = {
        "id": 4, "data": {"audio": "/data/take.wav"},
        "annotations": [
            {"id": 1, "completed_by": {"email": "anna@x.org"}, "result": [
                region("r1", 0.123456789, 1.1, "grasp"),
                {"id": "r1", "from_name": "force", "type": "number", "value": {"number": 3}},
                {"id": "r1", "from_name": "why", "type": "textarea", "value": {"text": ["a"]}},
                region("r2", 2, 2, "contact"),
                {"id": "c", "from_name": "quality", "type": "choices",
                 "value": {"choices": ["good"]}},
                {"type": "relation", "from_id": "r1", "to_id": "r2"},
                {"id": "z", "from_name": "b", "type": "brushlabels", "value": {}},
            ]},
            {"id": 2, "completed_by": 7, "result": [region("r3", 0, 1, "reach")]},
            {"id": 3, "completed_by": 8, "was_cancelled": True, "result": []},
        ],
        "predictions": [{"model_version": "v2", "score": 0.5,
                         "result": [region("r4", 0, 1, "reach", score=0.9)]}],
    }  # fmt: skip
    path.write_text(json.dumps([task]))
    imported = read_format("label-studio", path, scene(), layer="seg")
    layers = {made.name: made for made in imported.layers}
    assert set(layers) == {"seg-anna_x_org", "seg-7", "seg-v2"}
    anna = layers["seg-anna_x_org"]
    (phase,) = anna.phases
    assert (phase.tier, phase.label) == ("motion", "grasp")
    assert (phase.start_ns, phase.end_ns) == (T0 + 123_456_789, T0 + 1_100_000_000)
    assert phase.attributes == {"force": 3, "why": "a"}
    assert anna.events[0].stamp_ns == T0 + 2_000_000_000
    assert (anna.tags[0].label, anna.tags[0].value) == ("quality", "good")
    assert anna.provenance.author == "anna@x.org"
    model = layers["seg-v2"]
    assert model.provenance.model is not None
    assert (model.provenance.model.name, model.provenance.confidence) == ("v2", 0.5)
    assert model.phases[0].confidence == 0.9
    assert whats(imported) == {
        "relations between regions", "results of type 'brushlabels'",
        "annotations that were skipped by the annotator",
    }  # fmt: skip
    with pytest.raises(ConversionError, match="one layer expected"):
        _ = imported.layer


def test_label_studio_time_series_units_and_timelines(tmp_path: Path) -> None:
    path = tmp_path / "ls.json"
    series = {
        "id": "r1", "from_name": "motion", "type": "timeserieslabels",
        "value": {"start": 1500, "end": 2500.5, "instant": False, "timeserieslabels": ["lift"]},
    }  # fmt: skip
    path.write_text(json.dumps({"data": {}, "annotations": [{"result": [series]}]}))
    made = read_format("label-studio", path, scene(), layer="s", time_unit="ms").layer
    assert made.phases[0].end_ns == T0 + 2_500_500_000
    timeline = {
        "id": "r1", "from_name": "motion", "type": "timelinelabels",
        "value": {"ranges": [{"start": 1, "end": 3}, {"start": 10, "end": 30},
                             {"start": 31, "end": 32}], "timelinelabels": ["lift"]},
    }  # fmt: skip
    path.write_text(json.dumps([{"data": {}, "annotations": [{"result": [timeline]}]}]))
    imported = read_format("label-studio", path, scene(stream="camera"), layer="s")
    # Frames 1..3 are samples 0..2, so the phase ends where sample 3 begins.
    assert sorted((p.start_ns, p.end_ns) for p in imported.layer.phases) == [
        (int(STAMPS[0]), int(STAMPS[3])), (int(STAMPS[9]), int(STAMPS[29]) + 1),
    ]  # fmt: skip
    assert whats(imported) == {"timeline ranges beyond the samples of camera"}


def test_label_studio_picks_the_tasks_of_the_episode(tmp_path: Path) -> None:
    path = tmp_path / "ls.json"
    tasks = [
        {"data": {"video": f"s3://b/{name}.mp4"},
         "annotations": [{"result": [region("r", 0, 1, name)]}]}
        for name in ("other", "take")
    ]  # fmt: skip
    path.write_text(json.dumps(tasks))
    assert read_format("label-studio", path, scene(), layer="s").layer.phases[0].label == "take"
    path.write_text(json.dumps([tasks[0], tasks[0]]))
    with pytest.raises(ConversionError, match="none of 2 tasks"):
        read_format("label-studio", path, scene(), layer="s")
    path.write_text("[1]")
    with pytest.raises(ConversionError, match="not Label Studio time segments"):
        read_format("label-studio", path, scene(), layer="s")


def timed_layer() -> Layer:
    return layer(
        phases=[Phase(id="p1", tier="motion", label="grasp", start_ns=T0 + 5 * MS,
                      end_ns=T0 + 900 * MS, attributes={"note": "hm", "force": 2.5}),
                Phase(id="p2", tier="motion", label="lift", start_ns=T0 + 900 * MS,
                      end_ns=T0 + 2000 * MS, confidence=0.5)],
        events=[Event(id="e1", label="contact", stamp_ns=T0 + 7 * MS)],
        captions=[Caption(id="c1", text="pick it", start_ns=T0, end_ns=T0 + 3 * MS)],
        transcripts=[Transcript(id="t1", text="los", speaker="bob", start_ns=T0 + MS,
                                end_ns=T0 + 2 * MS)],
        sound_events=[SoundEvent(id="s1", label="click", start_ns=T0 + 4 * MS)],
    )  # fmt: skip


def test_label_studio_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "ls.json"
    before = timed_layer()
    odd = before.put(Phase(id="p3", tier="motion", label="x", start_ns=T0 + 1, end_ns=T0 + 2))
    odd = odd.put(Tag(id="g", label="outcome", value="ok"))
    exported = write_format("label-studio", path, odd, scene())
    assert exported.losses == ()
    again = read_format("label-studio", path, scene(), layer="gt").layer
    for name in ("phases", "events", "captions", "transcripts", "sound_events"):
        assert getattr(again, name) == getattr(odd, name)
    assert (again.tags[0].label, again.tags[0].value) == ("outcome", "ok")
    assert again.provenance.author == "anna"
    rich = layer(
        phases=[Phase(id="p", tier="motion", label="a", start_ns=T0, end_ns=T0 + 1, actor="left",
                      attributes={"ok": True})],
        captions=[Caption(id="c", text="all of it")], comments=[Comment(id="k", text="?")],
    )  # fmt: skip
    assert whats(write_format("label-studio", path, rich, scene())) == {
        "phases.actor not held", "comments not held", "captions about the whole episode",
        "type of attribute 'ok' (written as text)",
    }  # fmt: skip


# ELAN --------------------------------------------------------------------------------------

EAF = """<?xml version="1.0"?><ANNOTATION_DOCUMENT AUTHOR="">
<HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="a.mp4" TIME_ORIGIN="250"/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/>
<TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1500"/><TIME_SLOT TIME_SLOT_ID="ts3"/>
<TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="900"/></TIME_ORDER>
<TIER TIER_ID="task" LINGUISTIC_TYPE_REF="default-lt" ANNOTATOR="anna"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>pick</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="motion" PARENT_REF="task" LINGUISTIC_TYPE_REF="sub"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts4">
<ANNOTATION_VALUE>reach</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts4" TIME_SLOT_REF2="ts3">
<ANNOTATION_VALUE>lift</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="hand" PARENT_REF="motion" LINGUISTIC_TYPE_REF="ref"><ANNOTATION>
<REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a2"><ANNOTATION_VALUE>left</ANNOTATION_VALUE>
</REF_ANNOTATION></ANNOTATION><ANNOTATION>
<REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a4"><ANNOTATION_VALUE>open</ANNOTATION_VALUE>
</REF_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"""


def test_elan_tiers_parents_references_and_unset_times(tmp_path: Path) -> None:
    path = tmp_path / "a.eaf"
    path.write_text(EAF)
    imported = read_format("elan", path, scene(stream="camera"), layer="gt")
    phases = {p.label: p for p in imported.layer.phases}
    # Time zero of the document is 250 ms into the media.
    assert phases["pick"].start_ns == T0 + 250 * MS
    assert phases["pick"].end_ns == T0 + 1750 * MS
    assert phases["reach"].parent_id == phases["pick"].id
    assert phases["reach"].attributes == {"hand": ["left", "open"]}
    assert imported.layer.provenance.author == "anna"
    assert whats(imported) == {"annotations whose time is not set"}
    path.write_text(EAF.replace('"milliseconds"', '"PAL-frames"'))
    with pytest.raises(ConversionError, match="PAL-frames"):
        read_format("elan", path, scene(), layer="gt")


def test_elan_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "a.eaf"
    before = timed_layer()
    left = Phase(id="p9", tier="motion", label="wait", actor="left", start_ns=T0, end_ns=T0 + MS)
    exported = write_format("elan", path, before.put(left), scene())
    again = read_format("elan", path, scene(), layer="gt").layer

    def shown(made: Layer) -> list[tuple[Any, ...]]:
        return sorted((p.tier, p.label, p.actor or "", p.start_ns, p.end_ns) for p in made.phases)

    assert shown(again) == shown(before.put(left))
    assert [(e.label, e.stamp_ns) for e in again.events] == [("contact", T0 + 7 * MS)]
    assert [(c.text, c.style, c.end_ns) for c in again.captions] == [
        ("pick it", "caption", T0 + 3 * MS)
    ]
    assert [(t.text, t.speaker) for t in again.transcripts] == [("los", "bob")]
    assert [(s.label, s.start_ns) for s in again.sound_events] == [("click", T0 + 4 * MS)]
    grasp = next(p for p in again.phases if p.label == "grasp")
    assert grasp.attributes == {"note": "hm", "force": "2.5"}
    assert whats(exported) == {
        "phases.confidence not held", "instants written as intervals of one millisecond",
        "onsets written as intervals of one millisecond",
        "type of attribute 'force' (written as text)",
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**10), st.integers(1, 10**10))
def test_elan_rounds_to_the_nearest_millisecond(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int
) -> None:
    path = tmp_path_factory.mktemp("eaf") / "a.eaf"
    phase = Phase(id="p", tier="m", label="a", start_ns=T0 + start, end_ns=T0 + start + length)
    exported = write_format("elan", path, layer(phases=[phase]), scene())
    (again,) = read_format("elan", path, scene(), layer="gt").layer.phases
    assert abs(again.start_ns - phase.start_ns) <= MS // 2
    exact = start % MS == 0 and length % MS == 0
    assert ("boundaries rounded to milliseconds" in whats(exported)) == (not exact)
    if "intervals stretched to one millisecond" not in whats(exported):
        assert abs(again.end_ns - phase.end_ns) <= MS // 2


# CSV ---------------------------------------------------------------------------------------


def test_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "label,start_s,end_s,time_ms,operator,weight\n"
        "grasp,0.1,1.25,,anna,3\n"
        "contact,,,2000.5,bob,\n"
    )
    made = read_format("csv", path, scene(), layer="gt").layer
    (phase,), (event,) = made.phases, made.events
    assert (phase.tier, phase.start_ns, phase.end_ns) == (
        "phase", T0 + 100_000_000, T0 + 1_250_000_000,
    )  # fmt: skip
    assert phase.attributes == {"operator": "anna", "weight": 3}
    assert event.stamp_ns == T0 + 2_000_500_000
    assert event.attributes == {"operator": "bob"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header"),
        ("label,start_s\nx,1,2,3\n", "a.csv:2: more cells"),
        ("label,start_s,end_s\nx,zero,2\n", "a.csv:2"),
        ("label\nx\n", "needs a time"),
        ("collection,label,stamp_ns\nnothing,x,1\n", "no collection 'nothing'"),
    ],
)
def test_csv_says_which_line_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ConversionError, match=message):
        read_format("csv", path, scene(), layer="gt")


def test_csv_of_an_invalid_annotation_is_a_schema_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,start_s,end_s\nx,3,2\n")
    with pytest.raises(SchemaError, match=r"a\.csv.*end_ns"):
        read_format("csv", path, scene(), layer="gt")


def test_csv_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    q = (0.5, 0.5, 0.5, 0.5)
    rich = timed_layer().edit(
        tags=[Tag(id="g", label="n", value="3"), Tag(id="h", label="n", value=3)],
        odd=[OddCondition(id="o", path="weather", value={"rain": [1]})],
        boxes_3d=[Box3D(id="b", label="car", stamp_ns=T0, frame_id="w", center_m=(0.1, 2, 3),
                        size_lwh_m=(4, 2, 1), quaternion_wxyz=q, visibility=(0.4, 0.6),
                        attributes={"text": "3", "n": 3, "l": [1]})],
        tracks_3d=[Track3D(id="t", object_id="x", label="car", frame_id="w", stamp_ns=[T0, T0 + 5],
                           center_m=[(0, 0, 0), (1, 0, 0)], size_lwh_m=[(1, 1, 1)] * 2,
                           quaternion_wxyz=[q] * 2, gap_after=[True, False],
                           keyframe_attributes={"points": [3, None]})],
        tracks_2d=[Track2D(id="u", object_id="x", label="car", stream="camera", stamp_ns=[T0],
                           xyxy_px=[(0, 0.5, 1, 1)], interpolated=[False])],
    )  # fmt: skip
    exported = write_format("csv", path, rich, scene())
    assert exported.losses == ()
    again = read_format("csv", path, scene(), layer="gt").layer
    assert again.edit(provenance=rich.provenance) == rich
    exported = write_format("csv", path, rich.put(Comment(id="k", text="?")), scene())
    assert whats(exported) == {"comments not held"}


def test_every_format_reads_and_writes() -> None:
    import importlib

    for made in FORMATS.values():
        for kind, verb in (("importers", "read"), ("exporters", "write")):
            module = importlib.import_module(f"mmdata.annotations.{kind}.{made.module}")
            assert callable(getattr(module, f"{verb}_{made.module}"))
    with pytest.raises(ConfigError, match="there are: pandaset, cvat"):
        read_format("yolo", "x", scene(), layer="gt")
