"""The HTML pages: well-formed, self-contained, escaped, and with the numbers in them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from test_label_agreement import cube, phases

from mmdata.quality.bootstrap import Estimate
from mmdata.quality.calibration import calibration, routing_thresholds
from mmdata.quality.gold import GoldResult, annotator_drift
from mmdata.quality.label_agreement import Measured, Settings, measure_agreement
from mmdata.quality.label_pages import (
    agreement_page,
    calibration_page,
    gold_page,
    queue_page,
    sample_page,
)
from mmdata.quality.queue import Candidate, review_queue
from mmdata.quality.sampling import Item, Plan, stratified_sample
from mmdata_schema import Event

BAD = '<b onclick="x">&'


def pages() -> dict[str, str]:
    rng = np.random.default_rng(0)
    half = Estimate(0.5, 0.4, 0.6, 3)
    measured = Measured(
        "phases", BAD, ("anna", BAD), ("e",),
        {"cohen_kappa": half, "krippendorff_alpha": Estimate(-0.3, None, None, 1),
         "median_difference_ms": Estimate(12.5, -3.0, 30.0, 3), "unknown": Estimate(None, None,
                                                                                    None, 1)},
        {BAD: {"temporal_iou": half}}, (BAD, "b"), np.array([[3.0, 1.0], [0.0, 0.0]]),
        (-40.0, 12.0),
        {BAD: {"*": {"balanced_accuracy": half}, BAD: {"recall": half, "precision": half}}},
    )  # fmt: skip
    confidence = rng.uniform(0, 1, 50)
    correct = rng.random(50) < confidence
    gold = [GoldResult(BAD, i, "car", float(i < 20)) for i in range(40)]
    items = [Item(f"i{k}", BAD, "car", BAD) for k in range(5)]
    return {
        "agreement": agreement_page([measured], Settings()),
        "nothing": agreement_page([], Settings()),
        "calibration": calibration_page(
            calibration(confidence, correct, resamples=20),
            list(routing_thresholds(confidence, correct, [BAD] * 50).values()),
        ),
        "gold": gold_page(annotator_drift(gold, permutations=99)),
        "queue": queue_page(review_queue([Candidate("a", BAD, "error", reason=BAD)])),
        "sample": sample_page(stratified_sample(items, Plan())),
    }


@pytest.mark.parametrize("name", ["agreement", "nothing", "calibration", "gold", "queue", "sample"])
def test_page_is_well_formed_escaped_and_self_contained(name: str) -> None:
    text = pages()[name]
    body = re.sub("<meta [^>]*>", "", text.removeprefix("<!doctype html>")).replace("&nbsp;", " ")
    root = ElementTree.fromstring(body)
    assert root.tag == "html"
    # Labels of others are text, never markup.
    assert not [e for e in root.iter() if "onclick" in e.attrib]
    for mark in ("http:", "https:", "src=", "<script", "@import", "url("):
        assert mark not in text
    for element in root.iter():
        for key, value in element.attrib.items():
            assert "nan" not in value.lower().split(), (element.tag, key)


def test_numbers_stand_in_the_pages() -> None:
    made = pages()
    assert "0.50 [0.40, 0.60]" in made["agreement"]
    assert "12.500 [-3.000, 30.000]" in made["agreement"]
    assert "No two annotators" in made["nothing"]
    assert "1.000" in made["gold"]
    assert ">yes<" in made["gold"]
    assert "too few to tell" in made["sample"] or ">0<" in made["sample"]
    low = re.findall(r'<circle class="(\w+)"', made["agreement"])
    assert low.count("low") == 2  # the kappa and the alpha, and no other share


def test_every_measure_is_explained_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agreement.md").read_text("utf-8")
    own = {
        who: {"e": phases(who, "e", [0, 500, 1000, 1500, 2000],
                          events=[Event(id="x", label="contact", stamp_ns=0)],
                          boxes_3d=[cube("a", 0), cube("b", 9, "truck")])}
        for who in ("anna", "bob")
    }  # fmt: skip
    named = set(re.findall(r"`([a-zA-Z0-9_]+)(?:@[kt])?`", page))
    for measured in measure_agreement(own, Settings(resamples=0)):
        for name in measured.overall:
            assert name.partition("@")[0].replace("median_abs_", "median_") in named, name
