"""The training example, and what importing the loaders costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed: mmdata[torch]")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return importlib.import_module("train_bc")


def test_relative_commands_are_where_the_hand_sees_them(example: Any) -> None:
    """A hand at (1, 2, 3), turned a quarter about z, is told to go 0.1 m along base y."""
    quarter = [np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]
    pose = np.array([[1.0, 2.0, 3.0, *quarter]])
    command = np.array([[[1.0, 2.1, 3.0, *quarter], [1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0]]])
    seen = example.relative(command, pose)
    assert np.allclose(seen[0, 0], [0.1, 0, 0, 0, 0, 0])
    assert np.allclose(seen[0, 1], [0, 0, 0, 0, 0, -np.pi / 2])
    assert np.allclose(example.absolute(seen, pose), command)


def test_the_robot_holds_what_lies_between_its_fingers(example: Any) -> None:
    """Told where the cube is, it lifts it; beside the cube its fingers close on nothing."""
    for aside_m, lifted in ((0.0, True), (0.04, False)):
        robot = example.Robot(20_000, camera_every=10_000)
        down, goal = robot.orientation, robot.cube_m + np.array([aside_m, 0.0, 0.0])
        for height, width, steps in (
            (0.1, 0.085, 150),
            (0, 0.085, 150),
            (0, 0, 150),
            (0.1, 0, 100),
        ):
            for _ in range(steps):
                robot.step(goal + np.array([0.0, 0.0, height]), down, width)
        assert (robot.lifted_m > example.LIFTED_M) == lifted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_example_learns_and_lifts(example: Any, tmp_path: Path) -> None:
    """Chance is none: the untrained policy lifts nothing."""
    example.demonstrate(tmp_path, range(60))
    dataset = example.EpisodeDataset(tmp_path, example.SPEC, split="train")
    dataset = dataset.with_statistics(example.compute_statistics(dataset))
    recipe = example.Recipe.from_json(dataset.recipe().to_json())
    untrained = example.Policy(*example.motion_scale(dataset))
    seeds = range(20_000, 20_008)
    lifted = [example.rollout(untrained, recipe, s).lifted_m > example.LIFTED_M for s in seeds[:2]]
    assert lifted == [False, False]
    policy, losses = example.train(dataset, dataset, 1000)
    assert np.mean(losses[-100:]) < 0.4 * np.mean(losses[:20])
    lifted = [example.rollout(policy, recipe, s).lifted_m > example.LIFTED_M for s in seeds]
    assert sum(lifted) >= 3  # six and seven of eight so far; rounding differs between processors
