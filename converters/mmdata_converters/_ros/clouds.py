"""PointCloud2 and LaserScan as sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.memory import ReusedMemory
from mmdata.streams import Ragged
from mmdata_converters._ros.fields import number_of
from mmdata_converters._ros.layout import Group, Number, Structs, Text

#: sensor_msgs/PointField datatypes.
_DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
#: Names under which drivers publish the time of each point.
_TIME_FIELDS = (
    "t", "time", "timestamp", "time_stamp", "stamp", "offset_time", "time_offset", "timeoffset",
    "point_time", "t_ns", "timestamp_offset",
)  # fmt: skip
_OFFSETS = "point_offset_ns"
_WORDS = tuple(np.dtype(code) for code in ("<f4", "<u4", "<i4"))
_NS_LIMIT = 2**31
_LONGEST_SWEEP_S = 2.0
_MOST_FORMS = 64


class CloudError(Exception):
    """The description of a cloud contradicts its bytes."""


class SweepsDifferError(Exception):
    """Sweeps that were to be treated alike have to be treated one by one."""


@dataclass(frozen=True)
class CloudForm:
    """What a message says about its points: (P = height x width) of a structured dtype."""

    dtype: np.dtype[Any]
    height: int
    width: int
    row_step: int

    def is_like(self, other: CloudForm) -> bool:
        """Whether the points have the same fields, and rows that mean something or none."""
        return self.dtype == other.dtype and (self.height > 1) == (other.height > 1)

    def points(self, data: NDArray[np.uint8]) -> NDArray[Any]:
        """Points (P,) in the bytes of a message's data: a view, or a copy where rows are padded.

        Raises CloudError when there are fewer bytes than height x row_step says.
        """
        packed = self.width * self.dtype.itemsize
        if self.height > 1 and self.row_step > packed:
            needed = (self.height - 1) * self.row_step + packed
            if len(data) < needed:
                raise CloudError(f"{len(data)} data bytes, {self.height} rows need {needed}")
            padded = np.zeros(self.height * self.row_step, np.uint8)
            padded[: min(len(data), len(padded))] = data[: len(padded)]
            data = padded.reshape(self.height, self.row_step)[:, :packed].reshape(-1)
        needed = self.height * packed
        if len(data) < needed:
            raise CloudError(
                f"{len(data)} data bytes, {self.height} x {self.width} points need {needed}"
            )
        return np.frombuffer(data[:needed], self.dtype)


class CloudForms:
    """Forms of the clouds of one topic; messages that describe themselves alike share one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], CloudForm] = {}

    def of(self, group: Group, row: int) -> CloudForm:
        """The form of one message of a group. Raises CloudError.

        A group is one layout, and messages are looked at one by one because their sizes, offsets
        and datatypes are numbers. They lie between the header and the data in every PointCloud2.
        """
        height, data = group.root.fields["height"], group.root.fields["data"]
        assert isinstance(height, Number)
        assert isinstance(data, Number)
        described = group.matrix[row, height.offset : data.offset].tobytes()
        form = self._known.get((height.dtype, described))
        if form is None:
            form = _form(group, row)
            if len(self._known) >= _MOST_FORMS:
                self._known.clear()
            self._known[height.dtype, described] = form
        return form


def _form(group: Group, row: int) -> CloudForm:
    fields = group.root.fields["fields"]
    assert isinstance(fields, Structs)
    order = ">" if number_of(group, "is_bigendian")[row] else "<"
    names: list[str] = []
    formats: list[np.dtype[Any]] = []
    offsets: list[int] = []
    for item in fields.items:
        name = item.fields["name"]
        assert isinstance(name, Text)
        offset, datatype, count = (
            int(group.numbers(node)[row])
            for node in (item.fields[k] for k in ("offset", "datatype", "count"))
            if isinstance(node, Number)
        )
        if datatype not in _DATATYPES:
            raise CloudError(f"point field {name.value!r} has the unknown datatype {datatype}")
        kind = np.dtype(order + _DATATYPES[datatype])
        names.append(name.value or f"field_{len(names)}")
        formats.append(kind if count in (0, 1) else np.dtype((kind, (count,))))
        offsets.append(offset)
    height, width, row_step, step = (
        int(number_of(group, name)[row]) for name in ("height", "width", "row_step", "point_step")
    )
    if step == 0:
        raise CloudError("its point step is 0")
    try:
        dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
    except ValueError as error:
        raise CloudError(f"its point fields do not fit its point step {step}: {error}") from error
    return CloudForm(dtype, height, width, row_step)


def point_fields(clouds: Sequence[NDArray[Any]], memory: ReusedMemory) -> dict[str, NDArray[Any]]:
    """Fields of clouds of one structured dtype, the clouds one after the other: little-endian
    arrays (total points,) or (total points, count)."""
    dtype = clouds[0].dtype
    assert dtype.fields is not None
    total = sum(map(len, clouds))
    few_gaps = dtype.itemsize <= 2 * 4 * len(dtype.fields)
    if (
        dtype.itemsize % 4 == 0
        and few_gaps
        and all(kind in _WORDS and offset % 4 == 0 for kind, offset, *_ in dtype.fields.values())
    ):
        return _words(clouds, total, memory)
    fields = {
        n: memory.empty((total, *kind.shape), kind.base.newbyteorder("<"))
        for n, (kind, *_) in dtype.fields.items()
    }
    at = 0
    # Cloud after cloud: the fields of one lie between each other, and its bytes stay in the cache
    # until all of them are taken out.
    for cloud in clouds:
        for name, values in fields.items():
            values[at : at + len(cloud)] = cloud[name]
        at += len(cloud)
    return fields


def _words(
    clouds: Sequence[NDArray[Any]], total: int, memory: ReusedMemory
) -> dict[str, NDArray[Any]]:
    """`point_fields` where points are rows of words of four bytes, and fields columns of them."""
    dtype = clouds[0].dtype
    width = dtype.itemsize // 4
    columns = memory.empty((width, total), np.int32)
    at = 0
    for cloud in clouds:
        words = np.frombuffer(cloud, np.int32).reshape(-1, width)
        columns[:, at : at + len(words)] = words.T
        at += len(words)
    fields = dtype.fields
    assert fields is not None
    return {n: columns[fields[n][1] // 4].view(fields[n][0]) for n in fields}


def time_points(
    fields: dict[str, NDArray[Any]], ends: NDArray[np.int64], stamps: NDArray[np.int64] | None
) -> tuple[dict[str, NDArray[Any]], str | None, str | None]:
    """The fields with `point_offset_ns` i4 where the sensor gives the time of each point.

    Of n sweeps whose points lie one after the other: sweep i is ends[i]:ends[i + 1] of each field;
    ends (n + 1,), stamps (n,) ns. Also returned: the field it was told by, and a problem when the
    time cannot be told. Whole nanoseconds since the stamp take the place of the field they came in,
    so that they are there once; any other time keeps its field beside them.

    Raises SweepsDifferError when that is not the same for all sweeps.
    """
    name = next((n for n in _TIME_FIELDS if n in fields and fields[n].ndim == 1), None)
    if name is None or _OFFSETS in fields:
        return fields, None, None
    times, whole, problem = _offsets_ns(name, fields[name], ends, stamps)
    if times is None:
        return fields, None, problem
    if whole:
        return {_OFFSETS if n == name else n: times if n == name else v
                for n, v in fields.items()}, name, None  # fmt: skip
    return {**fields, _OFFSETS: times}, name, None


def _offsets_ns(
    name: str, raw: NDArray[Any], ends: NDArray[np.int64], stamps: NDArray[np.int64] | None
) -> tuple[NDArray[np.int32] | None, bool, str | None]:
    """Per-point time since the sweep's stamp, (P,) i4 ns, whether raw holds just these numbers, and
    a problem when the time cannot be told.

    Integers are nanoseconds (Ouster, Livox), floats seconds (Velodyne, Hesai), either since the
    stamp or absolute. Anything that then spans more than two seconds is not believed.
    """
    unit = 1 if raw.dtype.kind in "iu" else 1_000_000_000
    whole = unit == 1
    if not len(raw):
        return np.empty(0, np.int32), whole, None  # an empty sweep belongs to the others
    sizes = np.diff(ends)
    starts = ends[:-1][sizes > 0]
    low = np.minimum.reduceat(raw, starts).astype(np.float64) * unit
    high = np.maximum.reduceat(raw, starts).astype(np.float64) * unit
    if not _alike(np.isfinite(low) & np.isfinite(high)):  # NaN wins in both
        return None, False, f"point field {name!r} holds non-finite times"
    if not _alike(abs(low) < _NS_LIMIT):
        here = None if stamps is None else stamps[sizes > 0]
        if here is None or not _alike(abs(low - here) < _NS_LIMIT):
            problem = f"point field {name!r}: neither time since the stamp nor absolute time"
            return None, False, problem
        whole = False
        begin = np.repeat(here, sizes[sizes > 0])
        if unit == 1:
            offsets = raw.astype(np.int64) - begin
        else:
            offsets = np.rint((raw.astype(np.float64) - begin / 1e9) * unit)
        low, high = (f.reduceat(offsets, starts).astype(np.float64)
                     for f in (np.minimum, np.maximum))  # fmt: skip
    else:
        offsets = raw if whole else np.rint(raw.astype(np.float64) * unit)
    if not _alike((high - low <= _LONGEST_SWEEP_S * 1e9) & (high < _NS_LIMIT)):
        problem = f"point field {name!r} spans more than {_LONGEST_SWEEP_S:g} s: unit unknown"
        return None, False, problem
    if whole and raw.dtype.itemsize == 4:
        return raw.view(np.int32), True, None
    return offsets.astype(np.int32), whole, None


def _alike(sweeps: NDArray[np.bool_]) -> bool:
    """What holds for all sweeps. Raises SweepsDifferError when it holds for some."""
    if sweeps.all():
        return True
    if sweeps.any():
        raise SweepsDifferError
    return False


def laser_scan(group: Group) -> dict[str, NDArray[Any] | Ragged]:
    """Fields of LaserScan messages of one layout: `range` (m) and `intensity` per point, the scan's
    parameters per sweep, and point times where the sensor states an increment."""
    ranges = number_of(group, "ranges")
    m, k = ranges.shape
    offsets = np.arange(m + 1, dtype=np.int64) * k
    found: dict[str, NDArray[Any] | Ragged] = {"range": Ragged(ranges.reshape(-1), offsets)}
    intensities = number_of(group, "intensities")
    if intensities.shape[1] == k:
        found["intensity"] = Ragged(intensities.reshape(-1), offsets)
    increments = number_of(group, "time_increment").astype(np.float64)
    times = np.rint(increments[:, None] * np.arange(k) * 1e9)
    if increments.any() and abs(times).max(initial=0) < _NS_LIMIT:
        found[_OFFSETS] = Ragged(times.astype(np.int32).reshape(-1), offsets)
    for name in (
        "angle_min", "angle_max", "angle_increment", "time_increment", "scan_time",
        "range_min", "range_max",
    ):  # fmt: skip
        found[name] = number_of(group, name)
    return found
