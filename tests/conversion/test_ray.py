"""The Ray engine: same job, same ledger, same files."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from small_logs import write_log

from mmdata.config import ConvertConfig
from mmdata.conversion.batch import plan_batch, run_batch
from mmdata.conversion.job import JobResult
from mmdata.conversion.ledger import LEDGER, Ledger, LocalFolder
from mmdata.conversion.sources import find_sources
from mmdata.errors import ConversionError

ray = pytest.importorskip("ray", reason="needs Ray (the ray extra)")
pytestmark = pytest.mark.slow

CLIPS = ConvertConfig.model_validate({"split": {"clip_s": 0.2}, "metadata": {"task": "pick"}})


def _run(root: Path, out: Path, **how: object) -> list[JobResult]:
    plan = plan_batch(find_sources([root]).sources, out, CLIPS, retry=False, overwrite=False)
    return list(run_batch(plan, out, CLIPS, **how))  # type: ignore[arg-type]


def test_ray_writes_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(4):
        write_log(tmp_path / "logs" / f"log{k}", k)
    write_log(tmp_path / "logs" / "empty", 9, messages=0)
    monkeypatch.chdir(tmp_path)  # relative paths: Ray's workers have another working folder
    here = _run(Path("logs"), Path("here"))
    there = _run(Path("logs"), Path("there"), engine="ray", jobs=2)
    assert not ray.is_initialized()

    def facts(results: list[JobResult]) -> dict[str, object]:
        return {
            r.source.label: (r.reason, sorted(e.path.name for e in r.episodes), r.digest, r.topics)
            for r in results
        }

    assert facts(there) == facts(here)
    assert {e.path.parent for r in there for e in r.episodes} == {Path("there")}
    files = {p.name: p.read_bytes() for p in Path("here").glob("*.h5")}
    assert len(files) == 8
    assert {p.name: p.read_bytes() for p in Path("there").glob("*.h5")} == files
    ledgers = [Ledger(LocalFolder(Path(name))).entries for name in ("here", "there")]
    assert {k: (e.status, e.episodes, e.reason, e.fingerprint) for k, e in ledgers[0].items()} == {
        k: (e.status, e.episodes, e.reason, e.fingerprint) for k, e in ledgers[1].items()
    }
    # either engine goes on where the other stopped
    assert _run(Path("logs"), Path("there")) == []
    assert _run(Path("logs"), Path("here"), engine="ray") == []
    assert sorted(p.name for p in Path("there").iterdir()) == sorted([*files, LEDGER])


def test_a_ray_that_does_not_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("The current node timed out during startup.\nmore of it")

    write_log(tmp_path / "logs" / "log0", 0)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConversionError, match=r"^--engine ray: The current .* startup\.$"):
        _run(tmp_path / "logs", tmp_path / "out", engine="ray")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_nobody_answers_at_is_said_soon(tmp_path: Path, scheme: str) -> None:
    write_log(tmp_path / "logs" / "log0", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ConversionError, match="--engine ray: nothing answers at ") as raised:
            _run(tmp_path / "logs", tmp_path / "out", engine="ray", address=address)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - began < 10
    assert not ray.is_initialized()
