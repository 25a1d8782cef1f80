"""Batches: the ledger, processes that die, Ctrl-C, and kill -9 at random."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_logs import write_log

from mmdata import verify_episode
from mmdata.config import ConvertConfig
from mmdata.conversion import engines
from mmdata.conversion.batch import plan_batch, run_batch
from mmdata.conversion.job import JobResult
from mmdata.conversion.ledger import LEDGER, Entry, Ledger, LocalFolder
from mmdata.conversion.sources import find_sources
from mmdata.errors import ConversionError

MMDATA = str(Path(sys.executable).with_name("mmdata"))
PLAIN = ConvertConfig.model_validate({})


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good logs and a bad one. Do not change."""
    root = tmp_path_factory.mktemp("logs")
    for k in range(5):
        write_log(root / f"log{k}", k)
    (root / "bad.bag").write_bytes(b"")
    return root


def _run(
    root: Path, out: Path, config: ConvertConfig = PLAIN, retry: bool = False, **how: Any
) -> list[JobResult]:
    overwrite = bool(how.get("overwrite", False))
    found = find_sources([root])
    plan = plan_batch(found.sources, out, config, retry=retry, overwrite=overwrite)
    return list(run_batch(plan, out, config, **how))


def _names(results: list[JobResult]) -> list[str]:
    return sorted(r.source.path.name for r in results)


def _episodes(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name != LEDGER}


def _cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MMDATA, *map(str, arguments)], capture_output=True, text=True)


# -- the ledger -------------------------------------------------------------------------------


def test_done_and_unchanged_is_skipped(logs: Path, tmp_path: Path) -> None:
    first = _run(logs, tmp_path)
    assert len(first) == 5
    assert all(r.reason is None for r in first)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.h5")}
    assert _run(logs, tmp_path) == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.h5")} == before
    lines = [json.loads(line) for line in (tmp_path / LEDGER).read_text().splitlines()]
    assert [e["status"] for e in lines] == ["done"] * 5
    assert all(len(e["blake3"]) == 64 and e["seconds"] > 0 for e in lines)


def test_what_changed_is_converted_again(logs: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(logs, root)
    _run(root, out)
    # the source
    shutil.rmtree(root / "log1")
    write_log(root / "log1", 77)
    before = _episodes(out)
    changed = _run(root, out)
    assert _names(changed) == ["log1"]
    assert changed[0].reason is None
    assert {n for n, data in _episodes(out).items() if data != before[n]} == {"log1.h5"}
    assert _names(_run(root, out)) == []
    assert _names(_run(root, out, overwrite=True)) == [f"log{k}" for k in range(5)]
    # an episode
    (out / "log2.h5").unlink()
    (out / "log3.h5").write_bytes(b"x")
    again = _run(root, out)
    assert _names(again) == ["log2", "log3"]
    assert all(r.reason is None for r in again)
    # the configuration, which also makes other episodes of them
    clips = ConvertConfig.model_validate({"split": {"clip_s": 0.2}})
    everything = [f"log{k}" for k in range(5)]
    assert _names(_run(root, out, clips)) == everything
    assert len(list(out.glob("*.h5"))) == 10
    assert not (out / "log0.h5").exists()
    assert _names(_run(root, out)) == everything
    assert sorted(_episodes(out)) == [f"{name}.h5" for name in everything]


def test_episodes_of_others_are_not_replaced(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "log3.h5").write_bytes(b"mine")
    results = {r.source.path.name: r.reason for r in _run(logs, tmp_path)}
    assert "exists already" in (results.pop("log3") or "")
    assert set(results.values()) == {None}
    assert (tmp_path / "log3.h5").read_bytes() == b"mine"


def test_quarantined_is_tried_again_only_when_asked(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    write_log(root / "good", 1)
    write_log(root / "empty", 2, messages=0)
    results = {r.source.path.name: r.reason for r in _run(root, out)}
    assert results == {"empty": "it holds no messages", "good": None}
    assert _run(root, out) == []
    assert _names(_run(root, out, retry=True)) == ["empty"]
    shutil.rmtree(root / "empty")
    write_log(root / "empty", 2)
    fixed = _run(root, out)
    assert _names(fixed) == ["empty"]
    assert fixed[0].reason is None


def test_a_torn_last_line_is_tolerated(logs: Path, tmp_path: Path) -> None:
    _run(logs, tmp_path)
    ledger = tmp_path / LEDGER
    whole = ledger.read_text()
    last = whole.splitlines()[-1]
    ledger.write_text(whole[: len(whole) - len(last) // 2])
    again = _run(logs, tmp_path)
    assert [r.source.label for r in again] == [json.loads(last)["source"]]
    assert again[0].reason is None  # the episode it had written is recognised as its own
    assert _run(logs, tmp_path) == []
    ledger.write_bytes(b'\xff\xfe{"source"\n[1]\nnull\n' + whole.encode())
    assert _run(logs, tmp_path) == []


def test_last_line_of_a_source_counts(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    ledger = Ledger(folder)
    ledger.append(Entry("a", "quarantined", "f", "c", reason="bad"))
    ledger.append(Entry("a", "done", "g", "c"))
    assert Ledger(folder).entries == {"a": Entry("a", "done", "g", "c")}


def test_two_batches_do_not_write_one_folder(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmdata.conversion.ledger._CLAIM_WAIT_S", 0.1)
    with LocalFolder(tmp_path).claimed(), pytest.raises(ConversionError, match="another batch"):
        _run(logs, tmp_path)
    assert len(_run(logs, tmp_path)) == 5


def test_dry_run_only_says(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _cli("convert", logs, "-o", out, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("convert  ") == 5
    assert "refuse   " in done.stdout
    assert not out.exists()
    _run(logs, out)
    done = _cli("convert", logs, "-o", out, "--dry-run", "--json")
    document = json.loads(done.stdout)
    assert document["todo"] == []
    assert len(document["settled"]) == 5


# -- several processes ------------------------------------------------------------------------


def test_two_processes_write_what_one_does(logs: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    one = _run(logs, tmp_path / "one")
    two = _run(logs, tmp_path / "two", jobs=2, progress=lambda *facts: seen.append(facts))
    assert _names(one) == _names(two)
    assert _episodes(tmp_path / "one") == _episodes(tmp_path / "two")
    assert {name for name, _, _ in seen} <= {f"log{k}" for k in range(5)}


def _children() -> set[int]:
    """Worker processes of this one."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status[1]) == os.getpid() and b"spawn_main" in command:
                found.add(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_a_worker_that_is_killed_takes_no_other_log_along(logs: Path, tmp_path: Path) -> None:
    """Its log is tried again, alone; all logs get converted."""
    plan = plan_batch(find_sources([logs]).sources, tmp_path, PLAIN, retry=False, overwrite=False)
    results = []
    for result in run_batch(plan, tmp_path, PLAIN, jobs=2):
        results.append(result)
        if len(results) == 1:
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
    assert _names(results) == [f"log{k}" for k in range(5)]
    assert all(r.reason is None for r in results)
    assert sorted(_episodes(tmp_path)) == [f"log{k}.h5" for k in range(5)]


def test_a_log_that_kills_its_worker_is_quarantined(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that needs more memory than there is would."""
    script = tmp_path / "deadly"
    script.mkdir()
    # Workers import this module instead of ours: `log2` kills whatever converts it.
    (script / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from mmdata.conversion import job, remote\n"
        "real = job.try_convert\n"
        "def deadly(source, *a, **k):\n"
        "    if source.episode_id == 'log2':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(source, *a, **k)\n"
        "job.try_convert = remote.try_convert = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(script))
    results = {r.source.path.name: r.reason for r in _run(logs, tmp_path / "out", jobs=2)}
    assert results == {**{f"log{k}": None for k in range(5)}, "log2": engines._DIED}
    entries = Ledger(LocalFolder(tmp_path / "out")).entries.values()
    assert sorted(e.status for e in entries) == ["done"] * 4 + ["quarantined"]


# -- stopping ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs that take a moment each."""
    root = tmp_path_factory.mktemp("long_logs")
    for k in range(8):
        write_log(root / f"log{k}", k, messages=4000)
    return root


def _start(logs: Path, out: Path, jobs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [MMDATA, "convert", str(logs), "-o", str(out), "-j", str(jobs)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def _settled(out: Path) -> int:
    ledger = out / LEDGER
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def _await(process: subprocess.Popen[str], out: Path, count: int) -> Iterator[None]:
    deadline = time.monotonic() + 120
    while _settled(out) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        yield


@pytest.mark.parametrize(("jobs", "whole_group"), [(1, False), (2, False), (2, True)])
def test_ctrl_c_stops_cleanly(
    long_logs: Path, tmp_path: Path, jobs: int, whole_group: bool
) -> None:
    out = tmp_path / "out"
    process = _start(long_logs, out, jobs)
    for _ in _await(process, out, 2):
        pass
    assert process.poll() is None
    if whole_group:  # as a terminal does it
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    left = sorted(p.name for p in out.iterdir())
    assert [n for n in left if n != LEDGER and not n.endswith(".h5")] == []
    for path in out.glob("*.h5"):
        assert verify_episode(path).problems == []
    assert len(left) < 9
    done = _cli("convert", long_logs, "-o", out, "-j", jobs)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.glob("*.h5")) == [f"log{k}.h5" for k in range(8)]
    assert len(Ledger(LocalFolder(out)).entries) == 8


@pytest.mark.slow
def test_killed_ten_times_ends_as_if_never_killed(tmp_path: Path) -> None:
    """200 logs; kill -9 of the parent alone and of the whole group in turn, at random."""
    logs, out, reference = tmp_path / "logs", tmp_path / "out", tmp_path / "reference"
    for k in range(200):
        write_log(logs / f"log{k:03d}", k, messages=60)
    seed = int.from_bytes(os.urandom(4))
    rng = random.Random(seed)
    kills = 0
    for k in range(10):
        process = _start(logs, out, 2)
        for _ in _await(process, out, _settled(out) + rng.randint(0, 15)):
            pass
        time.sleep(rng.uniform(0, 0.4))
        assert process.poll() is None, f"seed {seed}: ended before it was killed"
        if k % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        kills += 1
        process.communicate(timeout=60)
        for partial in out.glob("*.h5"):
            assert verify_episode(partial, decode=False).problems == [], f"seed {seed}"
    assert kills == 10
    finished = _cli("convert", logs, "-o", out, "-j", 2)
    assert finished.returncode == 0, f"seed {seed}: {finished.stderr}"
    assert _cli("convert", logs, "-o", reference, "-j", 2).returncode == 0
    assert len(list(reference.glob("*.h5"))) == 200
    assert _episodes(out) == _episodes(reference), f"seed {seed}"
    entries = Ledger(LocalFolder(out)).entries
    assert len(entries) == 200
    assert {e.status for e in entries.values()} == {"done"}
