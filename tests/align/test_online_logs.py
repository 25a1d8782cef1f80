"""Parity on simulated robot logs: what a robot would have seen equals what training sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_online import MS, _equal, _messages, _replay

from mmdata import Kind, open_episode
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources
from mmdata.loaders import EpisodeDataset, Recipe, SampleSpec, compute_statistics


@pytest.mark.slow  # converts ten seconds of a robot with two cameras, then reads them twice
@pytest.mark.parametrize("name", ["pick_place_301", "pick_place_303"])
def test_a_converted_log_is_served_as_it_was_trained_on(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    source = find_sources([shared_data / "sim" / name]).sources[0]
    path = convert_source(source, tmp_path).episodes[0].path
    with open_episode(path) as episode:
        kinds = {n: s.kind for n, s in episode.streams.items()}
    joints = next(n for n in kinds if "joint" in n)
    keys = {joints: {"stream": joints, "normalise": "mean_std"}}
    for n, kind in kinds.items():
        if kind is Kind.IMAGE:
            keys[n] = {"stream": n, "at": [-0.1, 0.0], "image": {"size_hw": (60, 80)}}
        elif kind is Kind.AUDIO:
            keys[n] = {"stream": n, "at": {"start_s": -0.05, "steps": 400}}
        elif kind in (Kind.DEPTH, Kind.TACTILE) or (kind is Kind.SIGNAL and "info" not in n):
            keys.setdefault(n, {"stream": n})
    assert {kinds[n] for n in keys} >= {Kind.IMAGE, Kind.DEPTH, Kind.SIGNAL, Kind.AUDIO}
    spec = SampleSpec.model_validate(
        {
            "timeline": {"rate_hz": 10, "span": joints}, "delay_ms": 30, "keys": keys,
            "filters": {"complete": False},
        }
    )  # fmt: skip
    dataset = EpisodeDataset([path], spec, split="train")
    dataset = dataset.with_statistics(compute_statistics(dataset))
    aligner = Recipe.from_json(dataset.recipe().to_json()).online()
    messages = _messages(path, set(aligner.streams))
    late = np.mean([receive - stamp > 30 * MS for receive, stamp, *_ in messages])
    online = _replay(aligner, messages, messages[-1][0] + 10**9)
    assert len(dataset) > 80
    for n in range(len(dataset)):
        trained = dataset[n]
        sample = online[int(trained["tick_ns"])]
        assert set(sample) == set(trained) - {"episode", "tick"}
        for key, value in sample.items():
            assert _equal(value, trained[key]), (n, key, late)
