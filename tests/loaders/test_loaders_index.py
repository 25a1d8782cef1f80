"""The index: shared out among processes or not, it says the same, and so do its errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loader_episodes import write_demo

from mmdata.errors import FormatError
from mmdata.loaders import EpisodeDataset, SampleSpec, apart
from mmdata.loaders.apart import shared_out
from mmdata.loaders.index import INDEX_NAME, load_index, read_facts

SPEC = SampleSpec.model_validate(
    {"timeline": {"rate_hz": 50}, "keys": {"a": {"stream": "joint_states"}}}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write_demo(tmp_path / f"e_{seed}.h5", seed, 0.5, only=("joint_states",))
    for n in range(3, 70):
        shutil.copyfile(tmp_path / f"e_{n % 3}.h5", tmp_path / f"e_{n}.h5")
    return tmp_path


def test_processes_read_the_same_facts_in_order(folder: Path) -> None:
    paths = [str(folder / f"e_{n}.h5") for n in range(70)]
    alone = [read_facts(path) for path in paths]
    assert shared_out(read_facts, paths, 3) == alone
    assert load_index(folder, workers=2) == alone
    assert (folder / INDEX_NAME).exists()
    assert load_index(folder) == alone


def test_many_are_shared_out_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ask(function: object, jobs: list[str]) -> list[object]:
        asked.append(len(jobs))
        return [read_facts(path) for path in jobs]

    monkeypatch.setattr(apart, "_ask", ask)
    monkeypatch.setattr(apart, "usable_cores", lambda: 2)
    assert len(load_index(folder, save=False)) == 70
    assert not asked, "few are read here"
    monkeypatch.setattr(apart, "_UNASKED_FROM", 70)
    assert len(load_index(folder, save=False)) == 70
    assert sorted(asked) == [35, 35]


def test_errors_of_processes_are_those_of_reading(folder: Path) -> None:
    (folder / "e_41.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match="e_41"):
        load_index(folder, workers=2)


def test_a_script_needs_no_guard(folder: Path) -> None:
    script = (
        "from mmdata.loaders.index import load_index\n"
        f"print(len(load_index({str(folder)!r}, workers=2)))\n"
    )
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, folder / "script.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["70"], done.stderr


def test_an_episode_that_no_longer_has_its_samples_is_an_error(folder: Path) -> None:
    dataset = EpisodeDataset([folder / "e_0.h5", folder / "e_1.h5"], SPEC)
    assert len(dataset[0]["a"]) == 14
    (folder / "e_1.h5").unlink()
    write_demo(folder / "e_1.h5", 1, 0.3, only=("joint_states",))
    with pytest.raises(FormatError, match=r"e_1.*open the dataset anew"):
        dataset[len(dataset) - 1]
