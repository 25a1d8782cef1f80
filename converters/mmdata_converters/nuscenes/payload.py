"""Point clouds of nuScenes: LiDAR as bare floats, radar as binary .pcd, classes per point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import ConversionError
from mmdata.streams import FieldInfo
from mmdata_converters._common import read_bytes

POINTS = {n: FieldInfo("<f4", unit=u) for n, u in
          (("x", "m"), ("y", "m"), ("z", "m"), ("intensity", None), ("ring", None))}  # fmt: skip
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}


def read_lidar(path: Path) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    if len(data) % 20:
        raise ConversionError(f"{len(data)} bytes are no rows of x, y, z, intensity, ring")
    return dict(zip(POINTS, np.frombuffer(data, "<f4").reshape(-1, 5).T, strict=True))


def pcd_header(data: bytes) -> tuple[list[tuple[str, str]], int, int]:
    """Fields with their types, number of points, and where the points begin."""
    end = data.find(b"\n", data.find(b"DATA "))
    facts: dict[str, list[str]] = {}
    for line in data[: max(end, 0)].decode("latin-1").splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            facts[words[0]] = words[1:]
    if facts.get("DATA") != ["binary"]:
        raise ConversionError("a .pcd that is not binary")
    try:
        kinds = zip(facts["FIELDS"], facts["TYPE"], facts["SIZE"], strict=True)
        types = [(name, f"<{_PCD_TYPES[kind]}{int(size)}") for name, kind, size in kinds]
        return types, int(facts["POINTS"][0]), end + 1
    except (KeyError, ValueError, IndexError) as error:
        raise ConversionError(f"header of a .pcd: {error}") from error


def read_pcd(path: Path, fields: Mapping[str, FieldInfo]) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    types, count, start = pcd_header(data)
    dtype = np.dtype(types)
    if dict(types) != {n: f.dtype for n, f in fields.items()}:
        raise ConversionError("its fields differ from the first one's")
    if len(data) - start < count * dtype.itemsize:
        raise ConversionError("fewer points than its header says")
    points = np.frombuffer(data, dtype, count, start)
    return {n: points[n] for n in fields}


def read_classes(path: Path, panoptic: bool) -> Any:
    """Class of each point, u1; of panoptic labels u2: 1000 x class + number of the object."""
    if not panoptic:
        return np.fromfile(path, np.uint8)
    with np.load(path, allow_pickle=False) as archive:
        return archive["data"].astype(np.uint16)
