"""Models fitted to labelled episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmdata.errors import ConfigError
from mmdata.phases import evaluate, score_episode
from mmdata.phases.learn import PhaseModel, fit, segment_with_model
from mmdata.phases.scripted import Take, keep_only, pick_place


def bare(seed: int) -> Take:
    return keep_only(pick_place(seed), "position")


@pytest.fixture(scope="module")
def model() -> PhaseModel:
    return fit([(t.inputs, t.phases) for t in map(bare, range(40, 56))])


def test_labels_are_learned_where_no_grammar_applies(model: PhaseModel) -> None:
    takes = [bare(seed) for seed in range(3200, 3210)]
    found = [
        score_episode(segment_with_model(t.inputs, model).intervals(), t.phases) for t in takes
    ]
    scores = evaluate(found, resamples=2)
    assert scores["frame_accuracy"].value >= 85.0
    assert scores["f1@50"].value >= 85.0


def test_a_model_survives_its_file(model: PhaseModel, tmp_path: Path) -> None:
    model.write(tmp_path / "m.json")
    again = PhaseModel.read(tmp_path / "m.json")
    assert again.labels == model.labels
    assert again.signals == model.signals
    assert again.weights == pytest.approx(model.weights, abs=1e-5)
    take = bare(3300)
    assert (
        segment_with_model(take.inputs, again).intervals()
        == segment_with_model(take.inputs, model).intervals()
    )
    assert (tmp_path / "m.json").stat().st_size < 200_000


def test_missing_signals_are_named(model: PhaseModel) -> None:
    with pytest.raises(ConfigError, match=r"position|speed|path"):
        segment_with_model(keep_only(pick_place(1), "width").inputs, model)


def test_lengths_are_those_of_the_labels(model: PhaseModel) -> None:
    takes = [bare(seed) for seed in range(40, 56)]
    k = model.labels.index("transport")
    seen = [
        (i.end_ns - i.start_ns) / 1e9 for t in takes for i in t.phases if i.label == "transport"
    ]
    assert model.length_mu[k] == pytest.approx(np.log(seen).mean())


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    take = bare(1)
    with pytest.raises(ConfigError, match="two different labels"):
        fit([(take.inputs, take.phases[:1])])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a phase model"):
        PhaseModel.read(tmp_path / "x.json")
