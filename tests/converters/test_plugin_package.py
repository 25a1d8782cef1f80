"""A third party's package: found by its entry point, through the contract suite, shown with what
it lacks; a broken one is skipped with a warning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mmdata import open_episode, registry
from mmdata.errors import MissingDependencyError
from mmdata.testing import ConverterContract

PACKAGE = Path(__file__).resolve().parents[1] / "plugin_package"
STAMPS = 1_700_000_000_000_000_000 + np.arange(100) * 10_000_000


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--target", str(target), str(PACKAGE)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("hatchling is not installed: the plug-in package cannot be built offline")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(autouse=True)
def on_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "acme_logs"]:
        del sys.modules[name]


def write_log(path: Path, n: int = 100) -> Path:
    rows = np.zeros(n, [("stamp", "<i8"), ("value", "<f4", (2,))])
    rows["stamp"], rows["value"] = STAMPS[:n], np.arange(2 * n).reshape(n, 2)
    path.write_bytes(b"ACME1\nwheel_left,wheel_right\n" + rows.tobytes())
    return path


class TestAcme(ConverterContract):
    counts: ClassVar = {"joint_states": 100}
    synthetic = False

    @pytest.fixture(autouse=True)
    def _load(self, on_path: None) -> None:
        type(self).converter = registry.converter("acme")

    def make(self, folder: Path) -> Path:
        return write_log(folder / "drive.acme")


def test_it_is_recognised_and_converted(tmp_path: Path) -> None:
    from mmdata.conversion.job import convert_source
    from mmdata.conversion.sources import find_sources

    (source,) = find_sources([write_log(tmp_path / "drive.acme")]).sources
    assert source.format == "acme"
    result = convert_source(source, tmp_path / "out")
    with open_episode(result.episodes[0].path) as episode:
        joints = episode.streams["joint_states"]
        np.testing.assert_array_equal(joints.stamp_ns, STAMPS)
        assert joints.info.fields["position"].channels == ("wheel_left", "wheel_right")


def test_what_it_lacks_is_told() -> None:
    entry = {e.name: e for e in registry.entries(registry.CONVERTER_GROUP)}["acme_radar"]
    with pytest.raises(MissingDependencyError, match="pip install acme_radar_sdk"):
        entry.load()


def test_it_is_listed() -> None:
    from mmdata.cli.formats import formats

    facts = {f.name: f for f in formats()}
    assert facts["acme"].reads == "joint positions"
    assert facts["acme_radar"].missing == ("acme_radar_sdk",)


def test_a_broken_table_is_skipped(installed: Path, tmp_path: Path) -> None:
    info = next(installed.glob("acme_logs-*.dist-info")) / "entry_points.txt"
    whole = info.read_text()
    try:
        info.write_text(whole + "broken = acme_logs.broken:CONVERTERS\n")
        with pytest.warns(UserWarning, match="broken"):
            names = {e.name for e in registry.entries(registry.CONVERTER_GROUP)}
        assert {"acme", "rosbag2", "lerobot"} <= names
    finally:
        info.write_text(whole)
