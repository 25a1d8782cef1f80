"""UMI and Diffusion Policy replay buffers: zarr, episodes one after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError, MissingDependencyError
from mmdata.geometry import quat_from_rotvec
from mmdata.recording import Recording
from mmdata.streams import LazyArray
from mmdata_converters._common import DatasetConverter, row_stamps, synthetic
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._zarr import ZarrArray, ZarrStore

#: The buffers hold no time and no rate; rows are placed at this one, and that is said.
_RATE_HZ = 60.0
_ROBOT = re.compile(r"robot(\d+)_(eef_pos|eef_rot_axis_angle|gripper_width)")
_FIELDS = {
    "eef_pos": ("eef_pose", "position"),
    "eef_rot_axis_angle": ("eef_pose", "orientation"),
    "gripper_width": ("gripper", "width"),
}


class UmiConverter(DatasetConverter):
    name = "umi"
    summary = "UMI / Diffusion Policy zarr(.zip) replay buffers"
    reads = "end-effectors, grippers, cameras, actions, any further array"
    time = "synthetic, rate assumed: the buffers hold none"
    cannot = "JPEG-XL pictures without mmdata[umi]"

    @classmethod
    def claims(cls, path: Path) -> bool:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(2) != b"PK":
                    return False
        elif not path.is_dir():
            return False
        store = ZarrStore(path)
        try:
            return store.holds("meta/episode_ends")
        finally:
            store.close()

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        store = ZarrStore(path)
        try:
            return [f"episode_{i:06d}" for i in range(len(_ends(store)) - 1)]
        finally:
            store.close()

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Episode(path, part)


def _ends(store: ZarrStore) -> list[int]:
    """Bounds of the episodes: 0, then where each ends."""
    ends = store.array("meta/episode_ends")[:].astype(np.int64).tolist()
    if any(b < a for a, b in zip([0, *ends], ends, strict=False)):
        raise ConversionError(f"{store.path}: episode_ends go backwards")
    return [0, *ends]


class _Rows:
    """Rows start:stop of an array that holds all episodes."""

    def __init__(self, array: LazyArray, start: int, stop: int) -> None:
        self._array = array
        self._start = min(start, len(array))
        self.shape = (max(0, min(stop, len(array)) - self._start), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self._array[self._start + start : self._start + stop]
        return self._array[self._start + int(rows)]


class _Whole(_Rows):
    """Pictures that were written as numbers with a fraction of zero, as the bytes they are."""

    def __init__(self, rows: _Rows) -> None:
        self._array = rows
        self._start = 0
        self.shape = rows.shape
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> Any:
        values = np.asarray(self._array[rows])
        if not _are_bytes(values):
            raise ConversionError("pictures whose numbers are no bytes after all")
        return values.astype(np.uint8)


def _is_picture(rows: _Rows) -> bool:
    """Whether rows (n, H, W, C) hold bytes, be it as another type of number."""
    if rows.dtype == np.uint8:
        return True
    return min(rows.shape[1:3]) >= 8 and _are_bytes(np.asarray(rows[0:1]))


def _are_bytes(values: NDArray[Any]) -> bool:
    return bool((values >= 0).all() and (values <= 255).all() and (values == values.round()).all()
                and values.max(initial=0) > 1)  # fmt: skip


class _Episode(FeedRecording):
    def __init__(self, path: Path, part: str) -> None:
        super().__init__(path, "umi", part)
        self.store: ZarrStore = self.owns(ZarrStore(path))
        self.uses(*self.store.files())
        number = int(part.rsplit("_", 1)[1])
        bounds = _ends(self.store)
        self.start, self.stop = bounds[number], bounds[number + 1]
        self.timing = synthetic(None, f"row / {_RATE_HZ:g} Hz, assumed: the buffer holds no rate")
        self.account.problem(f"the buffer holds no time: rows are placed at {_RATE_HZ:g} Hz")
        robots: dict[str, dict[str, Any]] = {}
        for key in self.store.arrays("data"):
            rows = self._rows(key)
            if rows is None:
                continue
            known = _ROBOT.fullmatch(key)
            if known is not None and len(rows.shape) == 2:
                stream, field = _FIELDS[known[2]]
                stream += "" if known[1] == "0" else f"_robot{known[1]}"
                values = rows[:]
                values = quat_from_rotvec(values) if field == "orientation" else values
                values = values[:, 0] if field == "width" and values.shape[1] == 1 else values
                robots.setdefault(stream, {})[field] = values
            else:
                self._one(key, rows)
        for stream, fields in robots.items():
            units = {f: "m" for f in fields if f != "orientation"}
            stamps = row_stamps(min(len(v) for v in fields.values()), _RATE_HZ)
            self.signal(stream, fields, stamps, units=units,
                        source_topic=f"data/{stream}", **self.timing)  # fmt: skip

    def _rows(self, key: str) -> _Rows | None:
        n = self.stop - self.start
        try:
            array: ZarrArray = self.store.array(f"data/{key}")
        except (ConversionError, MissingDependencyError, ValueError, KeyError) as error:
            self.drop(f"data/{key}", str(error), max(1, n))
            return None
        rows = _Rows(array, self.start, self.stop)
        if len(rows) != n:
            self.account.problem(f"data/{key}: {len(rows)} of {n} rows of the episode")
        if array.dtype.kind not in "iufb":
            self.drop(f"data/{key}", f"values of type {array.dtype}", max(1, n))
            return None
        return rows if len(rows) else None

    def _one(self, key: str, rows: _Rows) -> None:
        stamps = row_stamps(len(rows), _RATE_HZ)
        info = {**self.timing, "source_topic": f"data/{key}"}
        name = re.sub(r"[^A-Za-z0-9]+", "_", key).strip("_")
        if len(rows.shape) == 4 and rows.shape[-1] in (1, 3) and _is_picture(rows):
            if rows.dtype != np.uint8:
                rows = _Whole(rows)
            camera = name.removesuffix("_rgb")
            camera = camera if camera.startswith("camera") else f"camera_{camera}"
            self.frames(camera, rows, stamps, **info)
        else:
            self.signal(name, {"data": rows}, stamps, **info)
