"""Episodes on S3: ranged reads, the block cache, equal samples; against a server on loopback."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from loader_episodes import write_demo

from mmdata import open_episode
from mmdata.errors import FormatError
from mmdata.loaders import EpisodeDataset, SampleSpec
from mmdata.loaders import remote as remote_module
from mmdata.loaders.remote import RemoteFile, bound_cache, list_episodes, open_any

pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'mmdata[s3]'")
pytest.importorskip(
    "moto.server", reason="the S3 test server is not installed: pip install 'moto[server]'"
)

SPEC = SampleSpec.model_validate(
    {
        "timeline": {"rate_hz": 10},
        "keys": {
            "front": {"stream": "camera_front"},
            "wrist": {"stream": "camera_wrist"},
            "depth": {"stream": "depth"},
            "state": {"stream": "joint_states"},
        },
    }
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two episodes in s3://demos on a server of our own; yields the local copies' folder."""
    import s3fs

    folder = tmp_path_factory.mktemp("remote")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A process of its own: this one forks.
    running = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    system.mkdir("demos")
    for n in range(2):
        path = write_demo(folder / f"demo_{n}.h5", n, 2.0)
        system.put(str(path), f"demos/set/demo_{n}.h5")
    yield folder
    patch.undo()
    running.terminate()
    running.wait()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_remote_samples_equal_local_ones(bucket: Path, cache: Path) -> None:
    local = EpisodeDataset(bucket, SPEC)
    distant = EpisodeDataset("s3://demos/set", SPEC)
    assert [f.episode_id for f in distant.episodes] == ["demo_0", "demo_1"]
    assert distant.fingerprint == local.fingerprint
    assert len(distant) == len(local)
    for n in (0, 7, len(local) - 1):
        for name, value in local[n].items():
            assert np.array_equal(distant[n][name], value), name


def test_ranges_are_read_once(bucket: Path, cache: Path) -> None:
    size = (bucket / "demo_0.h5").stat().st_size
    content = (bucket / "demo_0.h5").read_bytes()
    file = RemoteFile("s3://demos/set/demo_0.h5", block_bytes=4096)
    assert file.size == size
    assert file.read_at(5000, 100) == content[5000:5100]
    assert file.fetched_bytes == 4096
    assert file.read_at(4090, 9000) == content[4090:13090]
    assert file.fetched_bytes == 4 * 4096
    assert file.read_at(size - 10, 100) == content[-10:]
    again = RemoteFile("s3://demos/set/demo_0.h5", block_bytes=4096)
    assert again.read_at(4090, 9000) == content[4090:13090]
    assert again.fetched_bytes == 0
    assert again.read_at(size + 5, 10) == b""


def test_an_episode_is_not_fetched_whole_for_one_stream(
    bucket: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(RemoteFile.__init__, "__defaults__", (4096,))
    with (
        open_any("s3://demos/set/demo_0.h5") as episode,
        open_episode(bucket / "demo_0.h5") as local,
    ):
        assert list(episode.streams) == list(local.streams)
        assert episode.metadata == local.metadata
        position = episode.streams["joint_states"]["position"]
        assert np.array_equal(position, local.streams["joint_states"]["position"])
        fetched = episode.streams["joint_states"].arrays["stamp_ns"]._handle.source.fetched_bytes
        assert 0 < fetched < 0.5 * (bucket / "demo_0.h5").stat().st_size
        assert np.array_equal(episode.streams["camera_wrist"][9], local.streams["camera_wrist"][9])


def test_a_changed_object_is_read_anew(bucket: Path, cache: Path) -> None:
    import s3fs

    system = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    system.pipe("demos/other.bin", b"a" * 10_000)
    assert RemoteFile("s3://demos/other.bin").read_at(0, 4) == b"aaaa"
    system.pipe("demos/other.bin", b"b" * 10_000)
    system.invalidate_cache()
    s3fs.S3FileSystem.clear_instance_cache()
    assert RemoteFile("s3://demos/other.bin").read_at(0, 4) == b"bbbb"
    with pytest.raises(FormatError):
        open_any("s3://demos/other.bin")
    with pytest.raises(FileNotFoundError):
        open_any("s3://demos/set/none.h5")
    assert list_episodes("s3://demos/set") == [
        "s3://demos/set/demo_0.h5",
        "s3://demos/set/demo_1.h5",
    ]


def _child(dataset: EpisodeDataset, queue: Any) -> None:
    queue.put(dataset[5]["depth"].tobytes() + dataset[len(dataset) - 2]["front"].tobytes())


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_children_read_remote_episodes(bucket: Path, cache: Path, start: str) -> None:
    dataset = EpisodeDataset("s3://demos/set", SPEC)
    expected = dataset[5]["depth"].tobytes() + dataset[len(dataset) - 2]["front"].tobytes()
    for block in cache.glob("*/*/*"):
        block.unlink()  # the child must fetch for itself
    context = mp.get_context(start)
    queue = context.Queue()
    child = context.Process(target=_child, args=(dataset, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_cache_is_bounded(bucket: Path, cache: Path) -> None:
    file = RemoteFile("s3://demos/set/demo_1.h5", block_bytes=4096)
    file.read_at(0, 40_960)
    blocks = list(cache.glob("*/*/*"))
    assert sum(b.stat().st_size for b in blocks) == 40_960
    for age, block in enumerate(sorted(blocks, key=lambda b: int(b.name))):
        os.utime(block, (1000 + age, 1000 + age))
    bound_cache(limit_bytes=3 * 4096)
    assert sorted(int(b.name) for b in cache.glob("*/*/*")) == [7, 8, 9]


def test_hdf5_never_waits_for_a_fetch(
    bucket: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's thread may need HDF5's lock (to drop HDF5 objects), so none is held in a fetch."""
    free: list[bool] = []
    read = RemoteFile.read_at

    def take_the_lock() -> None:
        with h5py._objects.phil:
            pass

    def watched(self: RemoteFile, offset: int, length: int) -> bytes:
        other = threading.Thread(target=take_the_lock, daemon=True)
        other.start()
        other.join(10)
        free.append(not other.is_alive())
        return read(self, offset, length)

    monkeypatch.setattr(RemoteFile, "read_at", watched)
    with open_any("s3://demos/set/demo_1.h5") as episode:
        assert len(episode.streams["command"]["data"]) == 100
        assert episode.clocks
    assert free
    assert all(free)


def test_many_threads_read_one_remote_episode(bucket: Path, cache: Path) -> None:
    with (
        open_any("s3://demos/set/demo_1.h5") as episode,
        open_episode(bucket / "demo_1.h5") as local,
        ThreadPoolExecutor(6) as pool,
    ):
        names = [n for n in episode.streams for _ in range(3)]
        stamps = list(pool.map(lambda n: np.array(episode.streams[n].stamp_ns), names))
        for name, stamp in zip(names, stamps, strict=True):
            assert np.array_equal(stamp, local.streams[name].stamp_ns)


def test_an_episode_left_open_ends_quietly(bucket: Path, cache: Path) -> None:
    code = (
        "from mmdata.loaders.remote import open_any\n"
        "e = open_any('s3://demos/set/demo_1.h5'); print(len(e.streams['command']['data']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "100\n"), run.stderr
