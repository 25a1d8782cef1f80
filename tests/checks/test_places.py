"""Findings point at places a worklist can jump to."""

from __future__ import annotations

import json

from mmdata.checks import Detail, Finding, Severity, Status, failed
from mmdata.checks.labels.findings import explained, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.places import MOST, instants, most


def test_a_detail_says_only_what_it_knows():
    detail = Detail("front", 5, layer="anna", annotation_ids=("a@5",), object_id="car-1")
    assert detail.to_dict() == {
        "stream": "front", "stamp_ns": 5, "layer": "anna", "annotation_ids": ["a@5"],
        "object_id": "car-1",
    }  # fmt: skip
    assert Detail(stamp_ns=0, sample=0).to_dict() == {"stamp_ns": 0, "sample": 0}


def test_a_finding_carries_its_details_as_json():
    outcome = failed("two stamps go back", "imu", value=2, details=instants("imu", [7, 3], "back"))
    finding = Finding("TIM001", Status.FAILED, Severity.ERROR, "imu", 2, 0, outcome.message,
                      outcome.details)  # fmt: skip
    told = json.loads(json.dumps(finding.to_dict()))["details"]
    assert [d["stamp_ns"] for d in told] == [3, 7]
    assert {d["message"] for d in told} == {"back"}


def test_the_worst_places_stay():
    places = [Detail("s", k) for k in range(MOST + 20)]
    kept = most(places, {k: float(k) for k in range(len(places))})
    assert [d.stamp_ns for d in kept] == list(range(20, MOST + 20))
    assert len(most(places)) == MOST


def test_a_pair_of_views_has_a_place_in_each():
    finding = make(RULES["description"], "differ", stream="wrist/side", stamp_ns=9, layer="a")
    assert [(d.stream, d.stamp_ns) for d in finding.details] == [("wrist", 9), ("side", 9)]


def test_a_cause_knows_the_places_of_what_it_explains():
    cause = make(RULES["camera_late"], "late", stream="front", value=80)
    below = [
        make(
            RULES["box_location"], "off", stream="front", stamp_ns=k, object_id=f"car-{k}", value=k
        )
        for k in (3, 1, 2)
    ]
    other = make(RULES["phantom_2d"], "nothing there", stream="front", stamp_ns=8)
    found = explained([cause, *(f.under(cause.key) for f in below), other])
    assert found[0].explains == 3
    assert [(d.stamp_ns, d.object_id) for d in found[0].details] == [
        (1, "car-1"), (2, "car-2"), (3, "car-3"),
    ]  # fmt: skip
    assert found[-1] == other
