"""Columns: rows handed over without a copy give the same file as copied ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmdata import Kind, Ragged, StreamInfo, verify_episode
from mmdata.store import EpisodeWriter


@pytest.mark.parametrize("first", [1, 3, 4])
def test_rows_that_are_not_copied(tmp_path: Path, first: int) -> None:
    rng = np.random.default_rng(0)
    sweeps = [rng.normal(size=20_000).astype(np.float32) for _ in range(5)]
    sweeps.append(rng.normal(size=50_001).astype(np.float32))
    packets = [b"\xff\xd8\xff" + rng.bytes(200_000) for _ in range(6)]
    for copy in (True, False):
        with EpisodeWriter(tmp_path / f"{copy}.h5", "x") as writer:
            writer.add_stream(StreamInfo("lidar", Kind.SWEEP, {}))
            writer.add_stream(StreamInfo("camera", Kind.IMAGE, {}, encoding="jpeg"))
            for part in (slice(0, first), slice(first, 6)):
                stamps = np.arange(6, dtype=np.int64)[part]
                writer.append("lidar", stamps, {"x": Ragged.from_rows(sweeps[part])}, copy=copy)
                writer.append("camera", stamps, packets[part], copy=copy)
                writer.append("wide", stamps, np.ones((len(stamps), 40_000)), copy=copy)
                writer.append("swapped", stamps, np.ones((len(stamps), 9), ">f4"), copy=copy)
    assert (tmp_path / "True.h5").read_bytes() == (tmp_path / "False.h5").read_bytes()
    assert verify_episode(tmp_path / "False.h5", decode=False).problems == []
