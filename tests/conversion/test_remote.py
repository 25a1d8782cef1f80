"""Logs and episodes in an object store: against an S3 server on loopback, and in memory."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_logs import write_log

from mmdata.config import ConvertConfig
from mmdata.conversion.batch import plan_batch, run_batch
from mmdata.conversion.job import JobResult
from mmdata.conversion.ledger import LEDGER, Ledger, out_folder
from mmdata.conversion.sources import find_sources

fsspec = pytest.importorskip("fsspec", reason="needs fsspec (the s3 extra)")
pytest.importorskip("s3fs", reason="needs s3fs (the s3 extra)")
pytest.importorskip("moto.server", reason="needs moto[server], an S3 server to test against")

PLAIN = ConvertConfig.model_validate({})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server on loopback; the environment points to it."""
    from moto.server import ThreadedMotoServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    running.start()
    facts = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in facts}
    os.environ.update(facts)
    try:
        yield facts["AWS_ENDPOINT_URL"]
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        running.stop()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs")
    for k in range(3):
        write_log(root / f"log{k}", k)
    return root


@pytest.fixture
def bucket(server: str, logs: Path, request: pytest.FixtureRequest) -> str:
    """URI of a bucket with the logs: two rosbag2 folders, one bare file, and something else."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    fs.mkdir(name)
    for k in (0, 1):
        for file in (logs / f"log{k}").iterdir():
            fs.put_file(str(file), f"{name}/logs/log{k}/{file.name}")
    fs.put_file(str(next((logs / "log2").glob("*.mcap"))), f"{name}/logs/day2/log2.mcap")
    fs.pipe_file(f"{name}/logs/notes.txt", b"hello")
    return f"s3://{name}"


def _run(given: str | Path, out: str | Path, **how: Any) -> list[JobResult]:
    found = find_sources([given])
    plan = plan_batch(found.sources, out, PLAIN, retry=False, overwrite=False)
    return list(run_batch(plan, out, PLAIN, **how))


def _objects(uri: str) -> dict[str, bytes]:
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    path = uri.removeprefix("s3://")
    return {p.removeprefix(path + "/"): fs.cat_file(p) for p in fs.find(path)}


def test_logs_are_found_by_their_names(bucket: str) -> None:
    found = find_sources([f"{bucket}/logs"])
    assert [s.label for s in found.sources] == [
        f"{bucket}/logs/log0", f"{bucket}/logs/log1", f"{bucket}/logs/day2/log2.mcap"
    ]  # fmt: skip
    assert [s.episode_id for s in found.sources] == ["log0", "log1", "log2"]
    assert found.ignored == [f"{bucket}/logs/notes.txt"]
    one = find_sources([f"{bucket}/logs/day2/log2.mcap"]).sources
    assert [s.label for s in one] == [f"{bucket}/logs/day2/log2.mcap"]
    globbed = find_sources([f"{bucket}/logs/log*"]).sources
    assert [s.episode_id for s in globbed] == ["log0", "log1"]
    assert find_sources([f"{bucket}/gone"]).unreadable[0].reason == "does not exist"
    fsspec.filesystem("s3").pipe_file(f"{bucket}/text/a.txt".removeprefix("s3://"), b"hello")
    assert "no log in this folder" in find_sources([f"{bucket}/text"]).unreadable[0].reason


@pytest.mark.parametrize("jobs", [1, 2])
def test_from_store_to_store_as_from_disk_to_disk(
    bucket: str, logs: Path, tmp_path: Path, jobs: int
) -> None:
    out = f"{bucket}/episodes"
    results = _run(f"{bucket}/logs", out, jobs=jobs)
    assert [r.reason for r in results] == [None] * 3
    assert {e.location for r in results for e in r.episodes} == {
        f"{out}/log{k}.h5" for k in range(3)
    }
    objects = _objects(out)
    assert set(objects) == {LEDGER, "log0.h5", "log1.h5", "log2.h5"}
    _run(logs, tmp_path)
    for name in ("log0.h5", "log1.h5"):
        assert objects[name] == (tmp_path / name).read_bytes()
    # again: nothing to do; after a change in the store: that
    assert _run(f"{bucket}/logs", out) == []
    fs = fsspec.filesystem("s3")
    fs.rm_file(f"{out}/log1.h5".removeprefix("s3://"))
    assert [r.source.episode_id for r in _run(f"{bucket}/logs", out)] == ["log1"]
    whole = next((logs / "log0").glob("*.mcap")).read_bytes()
    fs.pipe_file(f"{bucket}/logs/day2/log2.mcap".removeprefix("s3://"), whole)
    changed = _run(f"{bucket}/logs", out)
    assert [(r.source.episode_id, r.reason) for r in changed] == [("log2", None)]


def test_one_side_in_the_store(bucket: str, logs: Path, tmp_path: Path) -> None:
    down = _run(f"{bucket}/logs/log0", tmp_path)
    assert [r.reason for r in down] == [None]
    up = _run(logs / "log0", f"{bucket}/up")
    assert [r.reason for r in up] == [None]
    assert _objects(f"{bucket}/up")["log0.h5"] == (tmp_path / "log0.h5").read_bytes()
    assert [p.name for p in sorted(tmp_path.iterdir())] == [LEDGER, "log0.h5"]


def test_what_a_killed_batch_uploaded_is_its_own(bucket: str, logs: Path) -> None:
    out = f"{bucket}/episodes"
    _run(logs, out)
    fsspec.filesystem("s3").rm_file(f"{out}/{LEDGER}".removeprefix("s3://"))
    again = _run(logs, out)
    assert [r.reason for r in again] == [None] * 3
    # another log under the name of an episode does not replace it
    fs = fsspec.filesystem("s3")
    fs.pipe_file(f"{bucket}/other/log0.h5".removeprefix("s3://"), b"mine")
    refused = _run(logs / "log0", f"{bucket}/other")
    assert "exists already" in (refused[0].reason or "")
    assert _objects(f"{bucket}/other")["log0.h5"] == b"mine"


def test_bad_logs_and_missing_buckets_are_reasons(bucket: str, server: str) -> None:
    fs = fsspec.filesystem("s3")
    fs.pipe_file(f"{bucket}/bad/text.mcap".removeprefix("s3://"), b"no log")
    results = _run(f"{bucket}/bad", f"{bucket}/bad_out")
    assert results[0].reason == "not a log of a known format (`mmdata formats` lists them)"
    entries = Ledger(out_folder(f"{bucket}/bad_out")).entries
    assert [e.status for e in entries.values()] == ["quarantined"]


def test_command_line(bucket: str, tmp_path: Path) -> None:
    mmdata = str(Path(sys.executable).with_name("mmdata"))
    done = subprocess.run(
        [mmdata, "convert", f"{bucket}/logs", "-o", f"{bucket}/cli", "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    paths = [e["path"] for e in json.loads(done.stdout)["episodes"]]
    assert paths == [f"{bucket}/cli/log{k}.h5" for k in range(3)]
    wrong = subprocess.run(
        [mmdata, "convert", "nonsense://x/y", "-o", str(tmp_path)], capture_output=True, text=True
    )
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1


def test_no_room_is_said(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.conversion.remote._SPARE_BYTES", 1 << 60)
    results = _run(f"{bucket}/logs/log0", tmp_path)
    assert "set TMPDIR to a larger disk" in (results[0].reason or "")
    assert sorted(p.name for p in tmp_path.iterdir()) == [LEDGER]


def test_other_stores_rename_what_is_complete(logs: Path) -> None:
    fs = fsspec.filesystem("memory")
    results = _run(logs, "memory://bucket/out")
    assert [r.reason for r in results] == [None] * 3
    names = sorted(p.rsplit("/", 1)[1] for p in fs.find("/bucket/out"))
    assert names == sorted([LEDGER, "log0.h5", "log1.h5", "log2.h5"])
    assert _run(logs, "memory://bucket/out") == []
