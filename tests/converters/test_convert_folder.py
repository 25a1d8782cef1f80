"""Plain folders: exact stamps, pictures that stay with theirs, and descriptions that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from layouts import plain as layout
from layouts.media import number_of

from mmdata import open_episode
from mmdata.errors import ConversionError
from mmdata.testing import ConverterContract, read_all, write_episode
from mmdata_converters.folder import FolderConverter


class TestFolder(ConverterContract):
    converter = FolderConverter
    counts: ClassVar = {
        "camera_front": 8, "camera_depth": 3, "camera_top": 10, "joint_states": 20, "force": 5,
        "temperature": 4, "mic": 8, "notes": 2,
    }  # fmt: skip

    def make(self, folder: Path) -> Path:
        return layout.write_plain(folder / "run")


def convert(root: Path):
    with FolderConverter.open(root) as recording:
        path = write_episode(recording, root.parent / "e.h5")
    return open_episode(path), recording


def test_values(tmp_path: Path) -> None:
    episode, recording = convert(layout.write_plain(tmp_path / "run"))
    front = episode.streams["camera_front"]
    assert front.stamp_ns.tolist() == [layout.START_NS + i * 100_000_007 for i in range(8)]
    assert [number_of(i) for i in front] == list(range(8))
    assert front.info.stamp_meaning == "exposure_mid"
    joints = episode.streams["joint_states"]
    assert joints.stamp_ns[3] == layout.START_NS + 30_000_009  # not through a float
    assert joints.info.fields["position"].channels == ("j1", "j2")
    assert joints["velocity"][4].tolist() == [0.5, 0.4]
    assert episode.streams["force"].stamp_ns[1] == layout.START_NS + 500_000
    assert episode.streams["camera_depth"][2][0, 0] == 42
    assert episode.streams["camera_top"].stamp_ns[4] == layout.START_NS + 400_000_001
    assert episode.streams["temperature"].info.stamp_source == "synthetic"
    mic = episode.streams["mic"]
    assert mic.stamp_ns[0] == layout.START_NS + 250_000_000
    assert mic["samples"].data[:, 0].tolist() == (np.arange(4000) % 100).tolist()
    assert [episode.streams["notes"][i] for i in range(2)] == ["start, slowly", "done"]
    assert episode.rig["camera_front"].camera.K[0, 0] == 50
    assert recording.account.problem_lines() == []


def test_missing_pictures_shift_nothing(tmp_path: Path) -> None:
    root = layout.write_plain(tmp_path / "run")
    (root / "front/img_3.jpg").unlink()
    episode, recording = convert(root)
    front = episode.streams["camera_front"]
    assert [(s - layout.START_NS) // 100_000_007 for s in front.stamp_ns] == [0, 1, 2, 4, 5, 6, 7]
    assert [number_of(i) for i in front] == [0, 1, 2, 4, 5, 6, 7]
    assert "camera_front: 1 of 8 stamps have no picture" in recording.account.problem_lines()


def test_numbers_in_names_stand_in_for_a_name_column(tmp_path: Path) -> None:
    text = layout.DESCRIPTION.replace("name: file, ", "")
    root = layout.write_plain(tmp_path / "run", text)
    (root / "front/img_3.jpg").unlink()
    episode, _ = convert(root)
    front = episode.streams["camera_front"]
    assert [number_of(i) for i in front] == [
        (s - layout.START_NS) // 100_000_007 for s in front.stamp_ns
    ]
    for i, file in enumerate(sorted((root / "front").glob("*.jpg"))):
        file.rename(file.with_name(f"{'abcdefgh'[i]}.jpg"))
    with pytest.raises(ConversionError, match="7 pictures for 8 stamps"):
        FolderConverter.open(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    time: {rate_hz: 4}\n", "", "say where its stamps come from"),
        ("unit: us", "unit: hours", "is none of s, ms"),
        ("[j1, j2]", "[j1, j9]", "has no column 'j9'"),
        ("table: joints.csv", "table: joints.csv\n    audio: mic.wav", "give one of images"),
        ("mmdata_recording: 1", "mmdata_recording: 2", "version 2"),
        ("rate_hz: 4", "rate_hz: -4", "positive"),
        ("column: t, unit: s}\n    fields", "column: t}\n    fields", "time.unit is missing"),
        ("streams:", "streams: [", "not valid YAML"),
    ],
)
def test_wrong_descriptions_say_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = layout.write_plain(tmp_path / "run", layout.DESCRIPTION.replace(old, new, 1))
    with pytest.raises(ConversionError, match=message):
        FolderConverter.open(root)


def test_wrong_values_say_the_line(tmp_path: Path) -> None:
    root = layout.write_plain(tmp_path / "run")
    joints = root / "joints.csv"
    joints.write_text(joints.read_text().replace("1700000000.030000009,3", "1700000000.03,three"))
    with pytest.raises(ConversionError, match="line 5: j1 is 'three'"):
        FolderConverter.open(root)


def test_folders_of_episodes(tmp_path: Path) -> None:
    description = layout.DESCRIPTION + "episodes: run_*\n"
    for run in ("run_10", "run_2"):
        layout.write_plain(tmp_path / "all" / run)
        (tmp_path / "all" / run / "recording.yaml").unlink()
    (tmp_path / "all" / "recording.yaml").write_text(description)
    assert list(FolderConverter.sources(tmp_path / "all")) == ["run_2", "run_10"]
    with FolderConverter.open(tmp_path / "all", "run_10") as recording:
        assert len(read_all(recording)["camera_front"][0]) == 8
