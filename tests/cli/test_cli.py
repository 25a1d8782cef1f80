"""The command line: documents, exit codes, one-line errors, light start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MMDATA = [sys.executable, "-c", "from mmdata.cli import main; main()"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MMDATA, *map(str, arguments)], capture_output=True, text=True)


def run_json(*arguments: str | Path, code: int = 0) -> Any:
    done = run(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['mmdata', '--help']\n"
        "from mmdata.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'h5py', 'scipy', 'cv2', 'av', 'pydantic', 'rosbags', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "convert" in done.stdout


def test_inspect_document(simulated_log: Path) -> None:
    document = run_json("inspect", simulated_log)
    assert set(document) == {"format", "start_ns", "end_ns", "streams", "problems"}
    assert document["format"] == "rosbag2"
    streams = {s["topic"]: s for s in document["streams"]}
    assert set(streams["/imu"] if "/imu" in streams else document["streams"][0]) == {
        "topic", "type", "kind", "count", "rate_hz", "first_ns", "last_ns",
    }  # fmt: skip
    assert document["start_ns"] == min(s["first_ns"] for s in document["streams"])
    text = run("inspect", simulated_log)
    assert text.returncode == 0
    assert "/joint_states" in text.stdout


def test_convert_info_align_verify(simulated_log: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.bag").write_bytes(b"")
    document = run_json(
        "convert", simulated_log, tmp_path / "bad.bag", "-o", tmp_path / "out", code=1
    )
    assert set(document) >= {"episodes", "quarantined", "dropped"}
    (episode,) = document["episodes"]
    assert set(episode) >= {
        "path", "episode_id", "source", "streams", "bytes_in", "bytes_out", "seconds",
    }  # fmt: skip
    assert set(episode["streams"]["wrench"]) >= {"topic", "kind", "count"}
    assert document["quarantined"] == [
        {"source": str(tmp_path / "bad.bag"), "reason": "the file is empty"}
    ]
    path = episode["path"]
    info = run_json("info", path)
    assert info["streams"]["wrench"]["count"] == episode["streams"]["wrench"]["count"]
    aligned = run_json("align", path, "--rate", "20", "--policy", "wrench=linear")
    assert aligned["episodes"][0]["timeline"] == "20hz"
    assert set(run_json("info", path)["timelines"]) == {"30hz", "20hz"}
    verified = run_json("verify", path)
    assert verified["episodes"][0]["ok"]
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)
    assert not run_json("verify", path, code=1)["episodes"][0]["ok"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["info", "/nowhere/x.h5"], 1, "No such file"),
        (["inspect", "/nowhere/x.bag"], 1, "does not exist"),
        (["convert"], 2, "Usage"),
        (["convert", "/nowhere", "-o", "OUT", "--stamps", "never"], 2, "stamps"),
        (["align", "/nowhere/x.h5", "--rate", "20", "--policy", "a"], 2, "STREAM=VALUE"),
        (["recover", "/nowhere/x.h5.partial"], 1, "does not exist"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_mistakes_are_one_line_with_a_stable_code(
    tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    done = run(*[str(tmp_path / "out") if a == "OUT" else a for a in arguments])
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_recover_command(tmp_path: Path) -> None:
    import numpy as np

    from mmdata import EpisodeWriter

    writer = EpisodeWriter(tmp_path / "e.h5")
    writer.append("s", np.arange(100) + 10**18, np.arange(100.0))
    writer.suspend()
    document = run_json("recover", tmp_path / "e.h5.partial")
    assert document["recovered"][0]["streams"] == {"s": 100}
    assert run_json("info", tmp_path / "e.h5")["status"] == "recovered"


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    document = run_json("demo", "-o", tmp_path / "demo")
    assert document["ok"]
    assert Path(document["episode"]).exists()
    assert Path(document["truth"]).exists()
    phases = run_json("segment", document["episode"])["episodes"][0]["phases"]
    assert {"grasp", "lift", "transport", "lower", "release"} <= {p["label"] for p in phases}
    assert "insert" not in {p["label"] for p in phases}
    assert {s["kind"] for s in document["streams"].values()} >= {
        "image", "sweep", "signal", "tactile", "audio",
    }  # fmt: skip


def test_config_init(tmp_path: Path, simulated_log: Path) -> None:
    done = run("config", "init", simulated_log, "-o", tmp_path / "c.yaml")
    assert done.returncode == 0
    assert '"/wrench"' in (tmp_path / "c.yaml").read_text()
    assert (
        "exists already" in run("config", "init", simulated_log, "-o", tmp_path / "c.yaml").stderr
    )
