"""Killed writers, damaged files, full disks."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmdata import EpisodeWriter, media, open_episode, recover, verify_episode
from mmdata.errors import FormatError
from mmdata.store.journal import journal_path

T0 = 1_700_000_000_000_000_000

# Writes three streams for ever. Every line on stdout names counts that a flush has made safe.
_WRITER = textwrap.dedent(
    """
    import sys, json
    import numpy as np
    import mmdata.store.writer as writer_module
    from mmdata import EpisodeWriter, media
    from mmdata.streams import Ragged
    writer_module.FLUSH_INTERVAL_S = 3600.0  # this script says when
    jpeg = media.encode_jpeg(np.zeros((64, 64, 3), "u1"))
    rng = np.random.default_rng(int(sys.argv[2]))
    w = EpisodeWriter(sys.argv[1])
    n = 0
    while True:
        k = int(rng.integers(1, 400))
        stamps = 1_700_000_000_000_000_000 + (n + np.arange(k)) * 1_000_000
        rows = np.arange(n, n + k)
        w.append("signal", stamps, {"value": np.stack([rows, rows * 2.0], 1)})
        w.append("image", stamps[:3], [jpeg + bytes([i % 256]) for i in range(min(k, 3))],
                 kind="image")
        sweep = Ragged.from_rows([np.full(int(rng.integers(0, 3000)), float(r)) for r in rows[:2]])
        w.append("sweep", stamps[:2][: len(sweep)], {"x": sweep}, kind="sweep")
        n += k
        if rng.random() < 0.3:
            w.flush()
            print(json.dumps(w.counts), flush=True)
    """
)


def _kill_at_random(path: Path, seed: int) -> dict[str, int]:
    """Start a writer, kill -9 it at a random moment; returns the last counts it called safe."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.35))
    os.kill(process.pid, signal.SIGKILL)
    lines = [first, *process.stdout.readlines()]
    process.wait()
    process.stdout.close()
    whole = [line for line in lines if line.endswith("}\n")]
    return dict(json.loads(whole[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_kill_9_loses_nothing_that_was_flushed(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "live.h5"
    safe = _kill_at_random(path, seed)
    assert not path.exists(), "a killed writer left a file under the final name"
    with pytest.raises(FormatError):
        open_episode(tmp_path / "live.h5.partial")
    recovered = recover(tmp_path / "live.h5.partial")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["live.h5"]
    result = verify_episode(recovered, decode=False)
    assert result.problems == []
    with open_episode(recovered) as ep:
        assert ep.status == "recovered"
        for name, count in safe.items():
            assert len(ep.streams[name]) >= count, name
        values = ep.streams["signal"]["value"]
        assert np.array_equal(values[:, 0], np.arange(len(values)))
        assert np.array_equal(values[:, 1], 2.0 * np.arange(len(values)))
        for i in range(min(40, len(ep.streams["sweep"]))):
            x = ep.streams["sweep"][i]["x"]
            assert len(np.unique(x)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_kill_9_while_finishing(tmp_path: Path, seed: int) -> None:
    """Killed inside close(): either the episode is complete, or it can be recovered complete."""
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        from mmdata import EpisodeWriter
        w = EpisodeWriter(sys.argv[1])
        stamps = 1_700_000_000_000_000_000 + np.arange(200_000) * 1_000_000
        order = np.arange(200_000)
        if int(sys.argv[2]) % 2:
            order[500:600] = order[500:600][::-1]  # regressions: close() rewrites the file
        for a in range(0, 200_000, 5000):
            rows = order[a : a + 5000]
            w.append("s", stamps[rows], {"v": rows * 1.0})
        w.flush()
        print("closing", flush=True)
        w.close()
        print("closed", flush=True)
        """
    )
    path = tmp_path / "e.h5"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "closing\n"
    time.sleep(random.Random(seed).uniform(0.0, 0.12))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if not path.exists():
        recover(tmp_path / "e.h5.partial")
    assert verify_episode(path).problems == []
    with open_episode(path) as ep:
        assert np.array_equal(ep.streams["s"]["v"], np.arange(200_000.0))


def test_recovering_twice_or_a_live_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    w = EpisodeWriter(path)
    w.append("s", T0 + np.arange(5), np.zeros(5))
    w.flush()
    with pytest.raises(FormatError, match="another process is writing"):
        recover(w.partial)
    w.suspend()
    with pytest.raises(FileExistsError, match="mmdata recover"):
        EpisodeWriter(path)
    recover(w.partial)
    with pytest.raises(FileNotFoundError):
        recover(w.partial)


def test_leaving_by_an_exception_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"

    def record() -> None:
        with EpisodeWriter(path) as w:
            w.append("s", T0 + np.arange(5), np.arange(5.0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record()
    assert not path.exists()
    recover(tmp_path / "e.h5.partial")
    with open_episode(path) as ep:
        assert ep.streams["s"]["data"].tolist() == [0, 1, 2, 3, 4]


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    w = EpisodeWriter(tmp_path / "e.h5")
    w.append("s", T0 + np.arange(5), np.arange(5.0))
    w.abort()
    assert list(tmp_path.iterdir()) == []


def test_background_flush_makes_an_idle_writer_safe(tmp_path: Path) -> None:
    """No further append comes, and still what was appended is recoverable soon after."""
    w = EpisodeWriter(tmp_path / "e.h5")
    w.append("s", T0 + np.arange(5), np.arange(5.0))
    copy = tmp_path / "copy"
    copy.mkdir()
    time.sleep(1.5)
    for file in (w.partial, journal_path(w.partial)):
        shutil.copy(file, copy)
    w.close()
    recovered = recover(copy / "e.h5.partial")
    with open_episode(recovered) as ep:
        assert len(ep.streams["s"]) == 5


@pytest.mark.parametrize("seed", range(6))
def test_a_journal_cut_anywhere_recovers_or_says_why(tmp_path: Path, seed: int) -> None:
    w = EpisodeWriter(tmp_path / "e.h5")
    for k in range(6):
        rows = np.arange(k * 100, k * 100 + 100)
        w.append("s", T0 + rows, rows * 1.0)
        w.flush()
    w.suspend()
    journal = journal_path(w.partial)
    data = journal.read_bytes()
    journal.write_bytes(data[: random.Random(seed).randrange(len(data))])
    first_commit = data.index(b"[[0, 100]")
    if journal.stat().st_size < first_commit + 20:
        with pytest.raises(FormatError, match="nothing can be recovered"):
            recover(w.partial)
        return
    recover(w.partial)
    with open_episode(tmp_path / "e.h5") as ep:
        values = ep.streams["s"]["data"]
        assert len(values) % 100 == 0
        assert np.array_equal(values, np.arange(len(values)))


def _sample_episode(path: Path) -> None:
    rng = np.random.default_rng(3)
    with EpisodeWriter(path) as w:
        w.append("s", T0 + np.arange(20_000), rng.normal(size=(20_000, 3)))
        jpegs = [media.encode_jpeg(rng.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(20)]
        w.append("c", T0 + np.arange(20), jpegs, kind="image")


def test_flipped_payload_bits_are_found(tmp_path: Path) -> None:
    """One bit in the bytes of a chunk: verify names the stream."""
    path = tmp_path / "e.h5"
    _sample_episode(path)
    with h5py.File(path) as file:
        chunks = []
        for name in ("streams/s/data", "streams/c/data", "streams/s/stamp_ns"):
            dataset = file[name]
            chunks += [
                (name.split("/")[1], i.byte_offset, i.size)
                for i in map(dataset.id.get_chunk_info, range(dataset.id.get_num_chunks()))
            ]
    original = path.read_bytes()
    random_source = random.Random(0)
    for stream, offset, size in random_source.choices(chunks, k=25):
        damaged = bytearray(original)
        at = offset + random_source.randrange(size)
        damaged[at] ^= 1 << random_source.randrange(8)
        path.write_bytes(damaged)
        problems = verify_episode(path).problems
        assert any(f"stream {stream}" in p for p in problems), (stream, at, problems)


def test_any_flipped_bit_or_cut_never_raises_from_verify(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    _sample_episode(path)
    original = path.read_bytes()
    source = random.Random(1)
    for _ in range(40):
        damaged = bytearray(original)
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        verify_episode(path, decode=False)
    for _ in range(10):
        path.write_bytes(original[: source.randrange(len(original))])
        assert not verify_episode(path, decode=False).ok


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk(tmp_path: Path) -> None:
    """The error of the system passes through, and nothing stands under the final name."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        w = EpisodeWriter(small / "e.h5")
        rng = np.random.default_rng(0)

        def fill() -> None:
            for k in range(200):
                rows = T0 + np.arange(k * 1000, k * 1000 + 1000)
                w.append("s", rows, rng.normal(size=(1000, 8)))
            w.close()

        with pytest.raises(OSError, match=r"(?i)no space|errno = 28|write failed"):
            fill()
        # Space coming back does not make a file whole that has lost a chunk.
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        with pytest.raises(OSError, match=r"(?i)no space|errno = 28|write failed"):
            w.close()
        assert not (small / "e.h5").exists()
        w.abort()
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_flush_that_failed_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = EpisodeWriter(tmp_path / "e.h5")
    w.append("s", T0 + np.arange(10), np.arange(10.0))

    def fail(counts: dict[int, int]) -> None:
        raise OSError("the disk hiccups")

    with monkeypatch.context() as patch:
        patch.setattr(w._journal, "commit", fail)
        with pytest.raises(OSError, match="hiccups"):
            w.flush()
    w.suspend()
    with open_episode(recover(w.partial)) as episode:
        assert episode.streams["s"]["data"].tolist() == list(range(10))
