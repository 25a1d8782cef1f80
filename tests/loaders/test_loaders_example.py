"""The training example, and what importing the loaders costs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def test_loaders_import_neither_torch_nor_ray() -> None:
    code = (
        "import sys, mmdata.loaders as l; [getattr(l, n) for n in l.__all__]; "
        "print([m for m in ('torch', 'ray', 's3fs') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_example_learns_and_rolls_out(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: mmdata[torch]")
    spec = importlib.util.spec_from_file_location("train_bc", ROOT / "examples" / "train_bc.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules["train_bc"] = example
    spec.loader.exec_module(example)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    example.demonstrate(tmp_path, 4)
    dataset = example.EpisodeDataset(tmp_path, example.SPEC, split="train")
    dataset = dataset.with_statistics(example.compute_statistics(dataset))
    policy, losses = example.train(dataset, dataset, 40)
    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:8])
    recipe = example.Recipe.from_json(dataset.recipe().to_json())
    result = example.rollout(policy, recipe, 10_000, length_s=0.6)
    assert 0 < result["near_m"] < 1
