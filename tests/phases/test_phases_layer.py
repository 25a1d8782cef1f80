"""The annotation layer `auto` and the report page."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from mmdata.phases import segment_inputs
from mmdata.phases.layer import to_layer
from mmdata.phases.report import write_html
from mmdata.phases.scripted import pick_place, take_of
from mmdata_schema import load_taxonomy, read_layer, validate_layer, write_layer


def test_layer_is_valid_and_repeatable() -> None:
    take = pick_place(7, retry=True)
    layer = to_layer(segment_inputs(take.inputs), "take_007")
    again = to_layer(segment_inputs(take.inputs), "take_007")
    assert write_layer(layer) == write_layer(again)
    assert read_layer(write_layer(layer)) == layer
    assert layer.name == "auto"
    assert [g.label for g in sorted(layer.grasps, key=lambda g: g.start_ns)] == [
        "missed",
        "success",
    ]
    assert all(p.evidence and p.confidence is not None for p in layer.phases)


@pytest.mark.parametrize("taxonomy", ["phases", "events", "grasp_outcomes"])
def test_labels_follow_the_taxonomies(taxonomy: str) -> None:
    layers = [to_layer(segment_inputs(pick_place(7, retry=True).inputs), "a")]
    layers += [
        to_layer(segment_inputs(take_of(family, 7).inputs), "b")
        for family in ("insert", "pour", "wipe", "driving", "locomotion", "handover")
    ]
    unknown = [
        problem
        for layer in layers
        for problem in validate_layer(layer, load_taxonomy(taxonomy))
        if "hesitation" not in str(problem) and "transition" not in str(problem)
    ]
    assert unknown == []


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.paths = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.paths += tag == "path"
        self.outside += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.paths += tag == "path"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_self_contained_and_well_formed() -> None:
    found = segment_inputs(pick_place(7).inputs)
    text = write_html([("take <1>", found, {"grade": "A", "claims": [], "baselines": {}})])
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.outside == []
    assert page.paths > 10
    assert "take &lt;1&gt;" in text
    for phase in found.phases:
        assert phase.label in text
