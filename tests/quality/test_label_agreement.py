"""Agreement over layers of several episodes: pooled numbers against direct computation."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mmdata.quality.agreement import cohen_kappa, krippendorff_alpha, unitizing_alpha
from mmdata.quality.intervals import Interval, binned
from mmdata.quality.label_agreement import GAP, Measured, Settings, measure_agreement
from mmdata_schema import Box2D, Box3D, Event, Layer, Phase, Provenance, Track3D

MS = 1_000_000
T0 = 1_760_030_100_000_000_000
LABELS = ("reach", "grasp", "lift", "place")
FEW = Settings(resamples=200)


def layer(who: str, episode: str, **collections: Any) -> Layer:
    return Layer(episode_id=episode, name=who, provenance=Provenance(author=who), **collections)


def phases(who: str, episode: str, edges_ms: list[int], **more: Any) -> Layer:
    own = [
        Phase(id=f"p{i}", tier="motion", label=LABELS[i], start_ns=T0 + a * MS, end_ns=T0 + b * MS)
        for i, (a, b) in enumerate(pairwise(edges_ms))
    ]
    return layer(who, episode, phases=own, **more)


def one(measured: list[Measured], kind: str) -> Measured:
    (found,) = [m for m in measured if m.kind == kind]
    return found


def test_identical_annotators_agree_fully() -> None:
    same = {
        who: {f"e{i}": phases(who, f"e{i}", [0, 1000, 1500 + i, 2500, 4000]) for i in range(3)}
        for who in ("anna", "bob")
    }
    made = one(measure_agreement(same, FEW), "phases")
    # Nobody left a gap, so that there is nothing to agree on by chance.
    assert made.overall.pop("unitizing_alpha_segments").value is None
    for name, estimate in made.overall.items():
        wanted = 0 if "difference" in name else 1
        assert estimate.value == pytest.approx(wanted), name
        assert (estimate.low, estimate.high) == (pytest.approx(wanted), pytest.approx(wanted))
    assert set(made.by_category) == set(LABELS)
    assert made.annotators == ("anna", "bob")
    assert all(e.value == pytest.approx(1) for row in made.by_category.values()
               for e in row.values())  # fmt: skip


def test_pooled_numbers_equal_direct_ones_on_one_episode() -> None:
    edges = {"anna": [0, 1000, 1500, 2500, 4000], "bob": [0, 1080, 1500, 2900, 4000]}
    made = one(
        measure_agreement({w: {"e": phases(w, "e", e)} for w, e in edges.items()}, FEW), "phases"
    )
    rows = [
        [Interval(LABELS[i], T0 + a * MS, T0 + b * MS)
         for i, (a, b) in enumerate(pairwise(e))]
        for e in edges.values()
    ]  # fmt: skip
    bins = [[x or GAP for x in binned(r, T0, T0 + 4000 * MS, 50 * MS)] for r in rows]
    value = {name: e.value for name, e in made.overall.items()}
    assert value["cohen_kappa"] == pytest.approx(cohen_kappa(*bins), abs=1e-12)
    assert value["krippendorff_alpha"] == pytest.approx(krippendorff_alpha(bins), abs=1e-12)
    alphas = unitizing_alpha(rows, T0, T0 + 4000 * MS)
    assert value["unitizing_alpha"] == pytest.approx(alphas["u"], abs=1e-12)
    assert made.by_category["lift"]["unitizing_alpha"].value == pytest.approx(
        alphas["lift"], abs=1e-12
    )
    # Inner boundaries 1000/1080, 1500/1500, 2500/2900: two of three within 100 and 250 ms.
    assert value["boundary_f1@100ms"] == pytest.approx(2 / 3)
    assert value["boundary_f1@250ms"] == pytest.approx(2 / 3)
    assert sorted(made.errors_ms) == [0, 80]
    assert value["median_abs_difference_ms"] == 40
    # lift: [1500, 2500) and [1500, 2900): 1000 of 1400 ms.
    lift = made.by_category["lift"]
    assert lift["temporal_iou"].value == pytest.approx(1000 / 1400)
    # Its start agrees and its end does not.
    assert lift["boundary_f1@100ms"].value == pytest.approx(0.5)
    assert lift["segment_f1@50"].value == 1
    assert made.overall["cohen_kappa"].low is None  # one episode has no interval
    json.dumps(made.to_dict())


def test_intervals_widen_when_episodes_differ_and_long_idle_does_not_hide_boundaries() -> None:
    rng = np.random.default_rng(0)
    bob = {}
    anna = {}
    for i in range(12):
        shift = int(rng.integers(300, 600))
        anna[f"e{i}"] = phases("anna", f"e{i}", [0, 400, 800, 60_000])
        bob[f"e{i}"] = phases("bob", f"e{i}", [0, 400 - shift // 2, 800 + shift, 60_000])
    made = one(measure_agreement({"anna": anna, "bob": bob}, FEW), "phases")
    agreement = made.overall["frame_agreement"]
    assert agreement.value is not None
    assert agreement.low is not None
    assert agreement.high is not None
    assert agreement.low < agreement.value < agreement.high
    assert agreement.value > 0.98
    assert made.overall["boundary_f1@100ms"].value == 0
    assert agreement.episodes == 12


def test_three_annotators_and_one_who_skipped_an_episode() -> None:
    edges = [0, 1000, 1500, 2500, 4000]
    own = {w: {"a": phases(w, "a", edges), "b": phases(w, "b", edges)} for w in ("x", "y", "z")}
    made = one(measure_agreement(own, FEW), "phases")
    assert made.overall["fleiss_kappa"].value == pytest.approx(1)
    del own["z"]["b"]
    made = one(measure_agreement(own, FEW), "phases")
    assert "fleiss_kappa" not in made.overall  # it needs the same number of raters everywhere
    assert made.overall["krippendorff_alpha"].value == pytest.approx(1)
    assert measure_agreement({"x": own["x"]}, FEW) == []


def test_cohen_is_of_each_pair_not_of_a_mixture() -> None:
    # anna says reach where bob says grasp, always: kappa of the pair is 0 by chance, never
    # positive; a table made symmetric would say -1.
    def layers(who: str, label: str) -> dict[str, Layer]:
        phase = Phase(id="p", tier="t", label=label, start_ns=T0, end_ns=T0 + 1000 * MS)
        return {"e": layer(who, "e", phases=[phase])}

    made = one(
        measure_agreement({"anna": layers("anna", "reach"), "bob": layers("bob", "grasp")}, FEW),
        "phases",
    )
    assert made.overall["cohen_kappa"].value == pytest.approx(0)
    assert made.confusion is not None
    assert made.confusion[made.labels.index("reach"), made.labels.index("grasp")] == 20
    assert made.confusion.sum() == 20


def test_accuracy_per_class_against_a_reference() -> None:
    own = {
        "gold": {"e": phases("gold", "e", [0, 1000, 2000, 3000, 4000])},
        "anna": {"e": phases("anna", "e", [0, 1000, 2500, 3000, 4000])},
    }
    made = one(measure_agreement(own, Settings(resamples=50, reference="gold")), "phases")
    rows = made.accuracy["anna"]
    assert rows["lift"]["recall"].value == pytest.approx(0.5)  # half of it called grasp
    assert rows["lift"]["precision"].value == 1
    assert rows["grasp"]["precision"].value == pytest.approx(2 / 3)
    assert rows["*"]["balanced_accuracy"].value == pytest.approx(3.5 / 4)
    assert GAP not in rows  # nobody left a gap
    assert list(made.accuracy) == ["anna"]


def test_events_by_label_with_signed_difference() -> None:
    def events(who: str, stamps: list[tuple[str, int]]) -> dict[str, Layer]:
        own = [
            Event(id=f"e{i}", label=la, stamp_ns=T0 + t * MS) for i, (la, t) in enumerate(stamps)
        ]
        return {"e": layer(who, "e", events=own)}

    made = one(
        measure_agreement({
            "anna": events("anna", [("contact", 0), ("contact", 1000), ("release", 2000)]),
            "bob": events("bob", [("contact", 60), ("contact", 1200), ("slip", 2000)]),
        }, FEW), "events",
    )  # fmt: skip
    assert made.by_category["contact"]["event_f1@100ms"].value == pytest.approx(0.5)
    assert made.by_category["contact"]["event_f1@250ms"].value == 1
    assert made.by_category["release"]["event_f1@250ms"].value == 0
    assert made.overall["event_f1@250ms"].value == pytest.approx(4 / 6)
    assert made.overall["median_difference_ms"].value == 130  # bob after anna


def test_events_and_boxes_per_class_against_a_reference() -> None:
    gold = layer("gold", "e", events=[Event(id="a", label="contact", stamp_ns=T0),
                                      Event(id="b", label="contact", stamp_ns=T0 + 500 * MS),
                                      Event(id="c", label="slip", stamp_ns=T0)],
                 boxes_3d=[cube("A", 0), cube("B", 10), cube("C", 20, "truck")])  # fmt: skip
    anna = layer("anna", "e", events=[Event(id="a", label="contact", stamp_ns=T0 + MS)],
                 boxes_3d=[cube("A", 0), cube("x", 40), cube("y", 50), cube("z", 20)])  # fmt: skip
    # The reference counts as such whichever name comes first.
    for name in ("gold", "a_gold"):
        measured = measure_agreement(
            {name: {"e": gold}, "anna": {"e": anna}}, Settings(resamples=20, reference=name)
        )
        events = one(measured, "events").accuracy["anna"]
        assert events["contact"]["recall"].value == 0.5
        assert events["contact"]["precision"].value == 1
        assert events["slip"]["recall"].value == 0
        assert events["*"]["balanced_accuracy"].value == 0.25
        boxes = one(measured, "boxes_3d").accuracy["anna"]
        assert boxes["car"]["recall"].value == 0.5
        assert boxes["car"]["precision"].value == 0.25  # x, y and the truck called a car
        assert boxes["truck"]["recall"].value == 0
        assert boxes["truck"]["precision"].value is None


def cube(id: str, x: float, label: str = "car", yaw: float = 0.0, **more: Any) -> Box3D:
    return Box3D.parse(
        {"id": id, "label": label, "stamp_ns": T0, "frame_id": "w", "center_m": (x, 0, 0),
         "size_lwh_m": (2, 2, 2), "quaternion_wxyz": (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)),
         **more}
    )  # fmt: skip


def test_boxes_3d_by_hand() -> None:
    anna = [cube("a", 0), cube("b", 10), cube("c", 20, "truck"), cube("d", 30)]
    bob = [
        cube("a", 1), cube("b", 10, yaw=math.pi), cube("c", 20, "car"), cube("x", 50),
        cube("late", 0, stamp_ns=T0 + 1),
    ]  # fmt: skip
    made = one(
        measure_agreement(
            {"anna": {"e": layer("anna", "e", boxes_3d=anna)},
             "bob": {"e": layer("bob", "e", boxes_3d=bob)}}, FEW,
        ), "boxes_3d",
    )  # fmt: skip
    car = {name: e.value for name, e in made.by_category["car"].items()}
    # Matched cars: a (IoU 1/3, 1 m off) and b (turned round); c differs in class; d and x alone.
    assert car["mean_iou"] == pytest.approx((1 / 3 + 1) / 2)
    assert car["mean_centre_distance_m"] == pytest.approx(0.5)
    assert car["heading_flip_rate"] == pytest.approx(0.5)
    assert car["mean_yaw_difference_rad"] == pytest.approx(0, abs=1e-9)
    assert car["box_f1"] == pytest.approx(4 / (4 + 1 + 2))
    assert made.by_category["truck"]["box_f1"].value == 0
    assert made.labels == ("car", "truck")
    assert made.confusion is not None
    assert made.confusion.tolist() == [[2, 0], [1, 0]]


def test_boxes_of_tracks_and_rectangles_count_too() -> None:
    track = Track3D.from_boxes([cube("a", 0)], id="t", object_id="o")
    flat = Box2D(id="f", label="car", stream="cam", stamp_ns=T0, xyxy_px=(0, 0, 4, 4))
    other = flat.edit(xyxy_px=(0, 0, 4, 2))
    measured = measure_agreement(
        {"anna": {"e": layer("anna", "e", tracks_3d=[track], boxes_2d=[flat])},
         "bob": {"e": layer("bob", "e", boxes_3d=[cube("z", 0)], boxes_2d=[other])}}, FEW,
    )  # fmt: skip
    assert one(measured, "boxes_3d").overall["mean_iou"].value == pytest.approx(1)
    assert one(measured, "boxes_2d").overall["mean_iou"].value == pytest.approx(0.5)
    assert "label_kappa" not in one(measured, "boxes_2d").overall
