"""Statistics: exact where they can be, merged as if computed at once, of the training split."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import ConfigError
from mmdata.loaders import EpisodeDataset, Recipe, SampleSpec, Statistics, compute_statistics
from mmdata.loaders.sketch import RELATIVE_ERROR, Sketch
from mmdata.loaders.statistics import FeatureStatistics

VALUES = st.lists(
    st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([0.0, 1e-15, -1e-3, 1.0]),
    min_size=1, max_size=60,
)  # fmt: skip


@given(values=VALUES, q=st.floats(0, 1))
def test_sketch_quantiles_are_right_to_their_promise(values: list[float], q: float) -> None:
    sketch = Sketch()
    sketch.add(values)
    ordered = np.sort(values)
    exact = ordered[int(np.floor(q * (len(values) - 1) + 1e-12))]
    nearby = ordered[[int(np.floor(q * (len(values) - 1))), int(np.ceil(q * (len(values) - 1)))]]
    got = float(sketch.quantile(q))
    errors = np.abs(got - np.append(nearby, exact))
    assert (errors <= np.abs(np.append(nearby, exact)) * RELATIVE_ERROR * 1.001 + 1e-12).any()


@given(values=VALUES, cut=st.integers(0, 60))
def test_merged_sketches_equal_the_sketch_of_all(values: list[float], cut: int) -> None:
    whole, left, right = Sketch(), Sketch(), Sketch()
    whole.add(values)
    left.add(values[:cut])
    right.add(values[cut:])
    left.merge(Sketch.from_dict(json.loads(json.dumps(right.to_dict()))))
    assert np.array_equal(left.bucket, whole.bucket)
    assert np.array_equal(left.count, whole.count)
    assert whole.n == len(values)


@pytest.mark.filterwarnings("ignore:.*empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
@settings(deadline=None)
@given(
    rows=st.integers(1, 50), cuts=st.lists(st.integers(0, 50), max_size=4), seed=st.integers(0, 99),
    base=st.sampled_from([0.0, 1e6, 1.7e18]),
)  # fmt: skip
def test_merge_equals_recompute(rows: int, cuts: list[int], seed: int, base: float) -> None:
    rng = np.random.default_rng(seed)
    values = base + rng.standard_normal((rows, 3)) * [1.0, 1000.0, 0.0]
    values[rng.random((rows, 3)) < 0.1] = np.nan
    edges = sorted({0, rows, *(min(c, rows) for c in cuts)})
    merged = FeatureStatistics.empty(3)
    for a, b in itertools.pairwise(edges):
        merged.merge(FeatureStatistics.of(values[a:b]))
    whole = FeatureStatistics.of(values)
    assert np.array_equal(merged.n, whole.n)
    assert np.array_equal(merged.not_finite, np.isnan(values).sum(0))
    assert np.array_equal(merged.min, whole.min)
    assert np.array_equal(merged.max, whole.max)
    for a, b in zip(merged.sketches, whole.sketches, strict=True):
        assert np.array_equal(a.count, b.count)
    seen = whole.n > 0
    assert np.allclose(merged.mean[seen], np.nanmean(values, 0)[seen], rtol=1e-12)
    tolerance = 1e-9 * np.nanstd(values, 0)[seen] + 1e-15 * base
    assert (np.abs(merged.std[seen] - np.nanstd(values, 0)[seen]) <= tolerance + 1e-9).all()


def test_weights_count_values_several_times() -> None:
    rows = np.array([[1.0], [2.0], [10.0]])
    weighted = FeatureStatistics.of(rows, np.array([3, 0, 1]))
    plain = FeatureStatistics.of(np.array([[1.0], [1.0], [1.0], [10.0]]))
    assert weighted.mean == plain.mean == 3.25
    assert weighted.std == plain.std
    assert weighted.max == 10
    assert weighted.n == 4
    assert weighted.quantile(0.5)[0] == pytest.approx(1.0, rel=1e-3)


SPEC: dict[str, Any] = {
    "timeline": {"rate_hz": 30},
    "keys": {
        "state": {"stream": "joint_states", "at": [-0.1, 0.0], "normalise": "mean_std"},
        "action": {
            "stream": "command", "at": {"steps": 8, "rate_hz": 30},
            "target": True, "normalise": "quantile",
        },
        "pose": {"stream": "eef_pose", "policy": "slerp", "target": True, "normalise": "min_max"},
        "grip": {"stream": "gripper", "normalise": "min_max"},
        "front": {"stream": "camera_front"},
    },
    "filters": {"complete": False},
}  # fmt: skip


def test_statistics_are_those_of_the_samples(demos: Path) -> None:
    dataset = EpisodeDataset(demos, SampleSpec.model_validate(SPEC))
    statistics = compute_statistics(dataset, image_every=10)
    plain = dataset.unnormalised()
    for name in ("state", "action", "pose", "grip"):
        rows = []
        for n in range(len(plain)):
            sample = plain[n]
            mask = np.atleast_1d(sample[f"{name}.mask"])
            rows.append(np.asarray(sample[name], np.float64).reshape(len(mask), -1)[mask])
        seen = np.concatenate(rows)
        feature = statistics[name]
        assert feature.n.tolist() == [len(seen)] * seen.shape[1]
        assert np.allclose(feature.mean, seen.mean(0), rtol=1e-9, atol=1e-12)
        assert np.allclose(feature.std, seen.std(0), rtol=1e-9, atol=1e-12)
        assert np.array_equal(feature.min, seen.min(0))
        assert np.allclose(
            feature.quantile(0.5), np.quantile(seen, 0.5, axis=0, method="lower"), rtol=2e-3,
            atol=1e-9,
        )  # fmt: skip
    frames = []
    for episode in range(3):
        data = plain._episode(episode)
        frames += [data.sample(k)["front"] for k in range(0, len(data), 10)
                   if data.sample(k)["front.mask"]]  # fmt: skip
    pixels = np.stack(frames).astype(np.float64)
    assert np.allclose(statistics["front"].mean, pixels.mean((0, 2, 3)))
    assert np.allclose(statistics["front"].std, pixels.std((0, 2, 3)))


def test_normalised_samples_and_back(demos: Path) -> None:
    dataset = EpisodeDataset(demos, SampleSpec.model_validate(SPEC))
    dataset = dataset.with_statistics(compute_statistics(dataset))
    plain, recipe = dataset.unnormalised(), dataset.recipe()
    state = np.concatenate(
        [dataset[n]["state"][dataset[n]["state.mask"]] for n in range(len(dataset))]
    )
    assert np.allclose(state.mean(0), 0, atol=1e-4)
    assert np.allclose(state.std(0), 1, atol=1e-4)
    pose = np.stack([dataset[n]["pose"] for n in range(len(dataset)) if dataset[n]["pose.mask"]])
    assert pose.min() == pytest.approx(-1, abs=1e-6)
    assert pose.max() == pytest.approx(1, abs=1e-6)
    assert not pose[:, 4].any(), "a column that never changes is shifted to 0, not divided by 0"
    for name in ("state", "action", "pose"):
        back = recipe.restore(name, dataset[33][name])
        assert np.allclose(back, plain[33][name], atol=1e-4), name


@pytest.mark.slow
def test_workers_do_not_change_statistics(demos: Path) -> None:
    dataset = EpisodeDataset(demos, SampleSpec.model_validate(SPEC))
    alone, shared = compute_statistics(dataset), compute_statistics(dataset, workers=2)
    assert alone.to_dict() == shared.to_dict()


def test_merged_episodes_equal_the_whole(demos: Path) -> None:
    spec = SampleSpec.model_validate(SPEC)
    whole = compute_statistics(EpisodeDataset(demos, spec))
    parts = [compute_statistics(EpisodeDataset([demos / f"demo_{n}.h5"], spec)) for n in range(3)]
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    assert merged.to_dict()["features"] == whole.to_dict()["features"]
    assert merged.episodes == whole.episodes


def test_only_the_training_split_is_measured(demos: Path) -> None:
    dataset = EpisodeDataset(demos, SampleSpec.model_validate(SPEC), split="val")
    with pytest.raises(ConfigError, match="training split"):
        compute_statistics(dataset)
    train = EpisodeDataset(demos, SampleSpec.model_validate(SPEC), split="train")
    statistics = compute_statistics(train)
    assert statistics.split == "train"
    assert statistics.fingerprint == train.fingerprint
    assert statistics.spec == train.spec.digest


def test_files_come_back_as_they_were(demos: Path, tmp_path: Path) -> None:
    dataset = EpisodeDataset(demos, SampleSpec.model_validate(SPEC), split="train")
    statistics = compute_statistics(dataset)
    statistics.save(tmp_path / "s.json")
    assert Statistics.load(tmp_path / "s.json").to_dict() == statistics.to_dict()
    recipe = dataset.with_statistics(statistics).recipe()
    recipe.save(tmp_path / "r.json")
    again = Recipe.load(tmp_path / "r.json")
    assert again.to_json() == recipe.to_json()
    assert again.spec == dataset.spec
    assert list(again.spec.keys) == list(dataset.spec.keys)
    assert again.fingerprint == dataset.fingerprint
    (tmp_path / "bad.json").write_text("[1, 2]")
    with pytest.raises(ConfigError):
        Recipe.load(tmp_path / "bad.json")
    with pytest.raises(ConfigError):
        Statistics.load(tmp_path / "bad.json")
    with pytest.raises(ConfigError, match="know"):
        Statistics({}).scalings(dataset.spec)
