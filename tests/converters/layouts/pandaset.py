"""A PandaSet sequence, with pickles of frames as pandas writes them (pandas is not needed)."""

from __future__ import annotations

import copyreg
import gzip
import json
import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .media import jpeg, picture

START_S = 1_557_539_924.5
CAMERAS = ("front_camera", "back_camera")


class DataFrame:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return copyreg.__newobj__, (DataFrame,), self.state


class BlockManager:
    def __init__(self, blocks: list[tuple[Any, Any]], axes: list[Any], old: bool) -> None:
        self.blocks, self.axes, self.old = blocks, axes, old

    def __reduce__(self) -> Any:
        if self.old:  # pandas up to 1.2
            known = {"axes": self.axes,
                     "blocks": [{"values": v, "mgr_locs": p} for v, p in self.blocks]}  # fmt: skip
            return copyreg.__newobj__, (BlockManager,), ([], [], [], {"0.14.1": known})
        return BlockManager, (tuple(Block(v, p) for v, p in self.blocks), self.axes)


class Block:
    def __init__(self, values: Any, places: Any) -> None:
        self.values, self.places = values, places

    def __reduce__(self) -> Any:
        return _unpickle_block, (self.values, self.places, 2)


class Index:
    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def __reduce__(self) -> Any:
        return _new_Index, (type(self), self.facts)


class RangeIndex(Index):
    pass


def _unpickle_block(*args: Any) -> None: ...


def _new_Index(*args: Any) -> None: ...


_HOMES = {
    DataFrame: "pandas.core.frame", BlockManager: "pandas.core.internals.managers",
    Index: "pandas.core.indexes.base", RangeIndex: "pandas.core.indexes.range",
    _unpickle_block: "pandas._libs.internals", _new_Index: "pandas.core.indexes.base",
}  # fmt: skip


@contextmanager
def _as_pandas() -> Iterator[None]:
    """Let the classes above be found under pandas' names while a pickle is written."""
    homes = {home for full in _HOMES.values() for home in _parents(full)}
    before = {home: sys.modules.get(home) for home in homes}
    own = {thing: thing.__module__ for thing in _HOMES}
    for home in homes:
        sys.modules[home] = types.ModuleType(home)
    for thing, home in _HOMES.items():
        thing.__module__ = home
        setattr(sys.modules[home], thing.__name__, thing)
    try:
        yield
    finally:
        for thing, home in own.items():
            thing.__module__ = home
        for home, module in before.items():
            if module is None:
                del sys.modules[home]
            else:
                sys.modules[home] = module


def _parents(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[: i + 1]) for i in range(len(words))]


def frame_pickle(columns: Mapping[str, np.ndarray], old: bool = True) -> bytes:
    """A pickled DataFrame: one block per kind of column, as pandas consolidates them."""
    names = list(columns)
    by_kind: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        by_kind.setdefault(columns[name].dtype.str, []).append(i)
    blocks = []
    for places in by_kind.values():
        values = np.stack([columns[names[i]] for i in places])
        even = len(places) > 1 and len({b - a for a, b in pairwise(places)}) == 1
        step = places[1] - places[0] if even else 1
        where = slice(places[0], places[-1] + 1, step) if even else np.array(places)
        blocks.append((values, where))
    n = len(columns[names[0]])
    axes = [Index({"data": np.array(names, object), "name": None}),
            RangeIndex({"name": None, "start": 0, "stop": n, "step": 1})]  # fmt: skip
    key = "_data" if old else "_mgr"
    state = {key: BlockManager(blocks, axes, old), "_typ": "dataframe", "_metadata": []}
    with _as_pandas():
        return pickle.dumps(DataFrame(state), protocol=4)


def _table(path: Path, old: bool = True, **columns: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(frame_pickle({k.replace("__", "."): v for k, v in
                                                 columns.items()}, old)))  # fmt: skip


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _poses(n: int) -> list[dict[str, Any]]:
    return [{"position": {"x": float(i), "y": 0.0, "z": 0.0},
             "heading": {"w": 0.5, "x": 0.5, "y": -0.5, "z": 0.5}} for i in range(n)]  # fmt: skip


def write_sequence(root: Path, n: int = 4, *, old: bool = True) -> Path:
    sweeps = [START_S + 0.1 * i for i in range(n)]
    for camera in CAMERAS:
        folder = root / "camera" / camera
        _json(folder / "timestamps.json", [t + 0.01 for t in sweeps])
        _json(folder / "poses.json", _poses(n))
        _json(folder / "intrinsics.json", {"fx": 50.0, "fy": 51.0, "cx": 32.0, "cy": 24.0})
        for i in range(n):
            (folder / f"{i:02d}.jpg").write_bytes(jpeg(picture(i)))
    _json(root / "lidar/timestamps.json", sweeps)
    _json(root / "lidar/poses.json", _poses(n))
    _json(root / "meta/timestamps.json", sweeps)
    _json(root / "meta/gps.json", [
        {"lat": 37.7, "long": -122.4, "height": 5.0, "xvel": 1.0, "yvel": 2.0}] * n)  # fmt: skip
    _json(root / "annotations/semseg/classes.json", {"1": "Smoke", "13": "Car"})
    for i, t in enumerate(sweeps):
        points = 6 + i
        _table(
            root / f"lidar/{i:02d}.pkl.gz", old, x=np.arange(points) * 1.5, y=np.zeros(points),
            z=np.ones(points), i=np.full(points, 7.0), t=t + np.arange(points) * 1e-3,
            d=(np.arange(points) > 3).astype(np.int64),
        )  # fmt: skip
        kinds = {"class": np.full(points, 13, np.int64)}
        _table(root / f"annotations/semseg/{i:02d}.pkl.gz", old, **kinds)
        _table(
            root / f"annotations/cuboids/{i:02d}.pkl.gz", old,
            uuid=np.array(["car-1", "bus-2"], object), label=np.array(["Car", "Bus"], object),
            yaw=np.array([0.0, np.pi / 2]), stationary=np.array([True, False]),
            camera_used=np.array([-1, 2]),
            position__x=np.array([10.0 + i, 20.0]), position__y=np.array([5.0, 6.0]),
            position__z=np.array([1.0, 2.0]), dimensions__x=np.array([1.9, 2.5]),
            dimensions__y=np.array([4.7, 12.0]), dimensions__z=np.array([1.6, 3.0]),
            attributes__object_motion=np.array(["Parked", np.nan], object),
            cuboids__sibling_id=np.array(["-", "bus-9"], object),
            cuboids__sensor_id=np.array([-1, 0]),
        )  # fmt: skip
    return root
