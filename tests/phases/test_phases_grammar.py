"""Grammar files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import ConfigError
from mmdata.phases.grammar import find_grammar, read_grammar, shipped
from mmdata.phases.layer import WIDER
from mmdata_schema import load_taxonomy


def test_the_families_ship() -> None:
    assert {
        "pick_place",
        "insert",
        "pour",
        "wipe",
        "open_close",
        "handover",
        "locomotion",
        "driving",
    } <= set(shipped())


@pytest.mark.parametrize("name", list(shipped()))
def test_every_state_can_be_reached_and_left(name: str) -> None:
    grammar = shipped()[name]
    reached, new = set(grammar.start), set(grammar.start)
    while new:
        new = {n for s in new for n in grammar.states[s].next} - reached
        reached |= new
    assert reached == set(grammar.states)
    assert sum(grammar.start.values()) == pytest.approx(1.0, abs=0.1)
    for state in grammar.states.values():
        if state.next:
            assert sum(state.next.values()) == pytest.approx(1.0, abs=0.05)


def test_labels_are_those_of_the_taxonomy() -> None:
    text = str(load_taxonomy("phases"))
    for grammar in shipped().values():
        for state in grammar.states:
            label = grammar.label(state)
            assert f"'{WIDER.get(label, label)}'" in text, f"{grammar.name}: {label}"


def test_a_users_grammar_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    good = "{name: g, describes: d, domain: arm, start: {a: 1.0}, states: {a: {typical_s: 1}}}"
    file = tmp_path / "g.yaml"
    file.write_text(good)
    assert find_grammar(str(file)).name == "g"
    file.write_text(good.replace("start: {a: 1.0}", "start: {b: 1.0}"))
    with pytest.raises(ConfigError, match="unknown states"):
        read_grammar(file)
    file.write_text(good.replace("typical_s: 1", "typical_s: 1, expect: {moving: 3}"))
    with pytest.raises(ConfigError, match="not a probability"):
        read_grammar(file)
    file.write_text("a: b: c")
    with pytest.raises(ConfigError, match="not YAML"):
        read_grammar(file)
    with pytest.raises(ConfigError, match=r"no grammar 'juggle'.*pick_place"):
        find_grammar("juggle")
