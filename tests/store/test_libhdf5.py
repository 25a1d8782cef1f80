"""Calls of the HDF5 library: the same bytes with them and without."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.fletcher32 import Fletcher32

from mmdata import verify_episode
from mmdata.store import EpisodeWriter, libhdf5


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 40))
def test_checksum(data: bytes, times: int) -> None:
    expected = int.from_bytes(Fletcher32().encode(data * times)[-4:], "little")
    assert libhdf5.fletcher32(data * times) == expected
    assert libhdf5.fletcher32(np.frombuffer(data * times, np.uint8)) == expected


def test_checksums_are_those_of_hdf5(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, 5000, dtype=np.uint16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(5000,), fletcher32=True)
        _, stored = file["x"].id.read_direct_chunk((0,))
    assert stored[:-4] == values.tobytes()
    assert int.from_bytes(stored[-4:], "little") == libhdf5.fletcher32(values.tobytes())


@pytest.mark.parametrize("broken", ["missing", "failing"])
def test_without_the_library_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    rng = np.random.default_rng(0)

    def write(path: Path) -> bytes:
        with EpisodeWriter(path, "x") as writer:
            for k in range(5):
                stamps = np.arange(k * 9000, k * 9000 + 9000)
                writer.append("noise", stamps, {"a": noise[stamps], "b": np.zeros(9000, "u1")})
        assert verify_episode(path).problems == []
        return path.read_bytes()

    noise = rng.normal(size=(45_000, 2))
    with_calls = write(tmp_path / "with.h5")
    monkeypatch.setattr(libhdf5, "_fletcher32", libhdf5._portable)
    calls = []

    def fail(*arguments: object) -> int:
        calls.append(arguments)
        return -1

    monkeypatch.setattr(libhdf5, "_write_chunk", None if broken == "missing" else fail)
    assert write(tmp_path / "without.h5") == with_calls
    assert bool(calls) == (broken == "failing")
