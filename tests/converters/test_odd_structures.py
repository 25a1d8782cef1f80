"""Datasets whose parts are missing, shorter, empty or of another type: what is there is read and
what is not is told; no traceback of a library, and no row that moved.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layouts import (
    argoverse2,
    comma,
    hdf5,
    kitti,
    lerobot,
    manipulation,
    nuscenes,
    pandaset,
    rlds,
)

from mmdata import registry
from mmdata.errors import MmdataError

_MAKERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "robomimic": ("robomimic", lambda p: hdf5.write_robomimic(p / "a.hdf5")),
    "isaac": ("robomimic", lambda p: hdf5.write_isaac(p / "a.hdf5")),
    "libero": ("robomimic", lambda p: hdf5.write_libero(p / "a.hdf5")),
    "aloha": ("aloha", lambda p: hdf5.write_aloha(p / "a.hdf5", compress=True)),
    "robomind": ("robomind", lambda p: hdf5.write_robomind(p / "trajectory.hdf5")),
    "robomind2": ("robomind", lambda p: hdf5.write_robomind2(p / "trajectory.hdf5", 8)),
    "droid": ("droid", lambda p: manipulation.write_droid(p / "e")),
    "reassemble": ("reassemble", lambda p: manipulation.write_reassemble(p / "r.h5")),
    "agibot": ("agibot", lambda p: manipulation.write_agibot(p / "a")),
    "agibot_flat": ("agibot", lambda p: manipulation.write_agibot_flat(p / "a")),
    "lerobot21": ("lerobot", lambda p: lerobot.write_v21(p / "s", (6,))),
    "lerobot30": ("lerobot", lambda p: lerobot.write_v30(p / "s", (6, 4))),
    "umi": ("umi", lambda p: manipulation.write_umi(p / "d.zarr")),
    "nuscenes": ("nuscenes", lambda p: nuscenes.write_expansions(nuscenes.write_nuscenes(p / "n"))),
    "pandaset": ("pandaset", lambda p: pandaset.write_sequence(p / "002")),
    "argoverse2": ("argoverse2", lambda p: argoverse2.write_log(p / "log")),
    "kitti": ("kitti", lambda p: kitti.write_raw(p)),
    "kitti_tracking": ("kitti", lambda p: kitti.write_tracking(p / "training")),
    "comma2k19": ("comma2k19", lambda p: comma.write_segment(p / "10")),
    "rlds": ("rlds", lambda p: rlds.write_rlds(p / "toy" / "1.0.0")),
}
_TIMES = 10


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _change_hdf5(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[int(rng.integers(len(names)))]
        item, what = file[name], int(rng.integers(5))
        if what == 0 or not isinstance(item, h5py.Dataset) or not item.shape:
            del file[name]
            return f"{name} removed"
        values = item[()]
        del file[name]
        if what == 1:
            file[name] = values[: len(values) // 2]
            return f"{name} cut in half"
        if what == 2:
            file.create_dataset(name, (0, *values.shape[1:]), item_type(values))
            return f"{name} emptied"
        if what == 3:
            file[name] = "nothing"
            return f"{name} is a text"
        file[name] = np.full(len(values), np.nan)
        return f"{name} is NaN"


def item_type(values: np.ndarray) -> Any:
    return values.dtype if values.dtype.kind != "O" else h5py.vlen_dtype(np.uint8)


def _change_json(path: Path, rng: np.random.Generator) -> str:
    text = path.read_text()
    lines = path.suffix == ".jsonl"
    value = [json.loads(t) for t in text.splitlines() if t] if lines else json.loads(text)
    spots = list(_spots(value))
    if not spots:
        path.write_text("{}")
        return f"{path.name} is empty"
    holder, key = spots[int(rng.integers(len(spots)))]
    new = [None, -1, "x", [], {}, 1e300, float("nan")][int(rng.integers(7))]
    what = f"{path.name}: {key} is {new!r}"
    if isinstance(holder, dict) and rng.random() < 0.4:
        del holder[key]
        what = f"{path.name}: {key} removed"
    else:
        holder[key] = new
    path.write_text("\n".join(map(json.dumps, value)) if lines else json.dumps(value))
    return what


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value that holds another."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _spots(value[key])


def _change(path: Path, rng: np.random.Generator) -> str:
    """Remove a file, or change what a file says without breaking its form."""
    file = _files(path)[int(rng.integers(len(_files(path))))]
    if file.suffix in (".h5", ".hdf5"):
        return _change_hdf5(file, rng)
    if file.suffix in (".json", ".jsonl") or file.name in (".zarray", ".zgroup"):
        return _change_json(file, rng)
    file.unlink()
    return f"{file.name} removed"


@pytest.mark.parametrize("name", sorted(_MAKERS))
def test_odd_structures_are_told(tmp_path: Path, name: str) -> None:
    format_name, make = _MAKERS[name]
    converter = registry.converter(format_name)
    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    rng = np.random.default_rng(11)
    outcomes = []
    for number in range(_TIMES):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", root)
        path = root / whole.relative_to(tmp_path / "whole")
        done = [_change(path, rng) for _ in range(1 + number % 3)]
        try:
            converter.sniff(path)
            for part in list(converter.sources(path))[:1]:
                with converter.open(path, part) as recording:
                    recording.inspect()
                    for batch in recording.read():
                        for values in batch.samples.values():
                            assert len(values) == len(batch), done
            outcomes.append("read")
        except (MmdataError, OSError):
            outcomes.append("refused")
        except Exception as error:
            raise AssertionError(f"{name}: after {done}: {error!r}") from error
        shutil.rmtree(root)
    assert "read" in outcomes  # most oddities are survived
