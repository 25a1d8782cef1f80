"""PointCloud2 and LaserScan as sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
_NS_LIMIT = 2**31
_LONGEST_SWEEP_S = 2.0
_MOST_FORMS = 64


class CloudError(Exception):
    """The description of a cloud contradicts its bytes."""


@dataclass(frozen=True)
class CloudForm:
    """What a message says about its points: (P = height x width) of a structured dtype."""

    dtype: np.dtype[Any]
    height: int
    width: int
    row_step: int

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


def sweep_fields(cloud: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Point fields as little-endian arrays (P,) or (P, count); views where the bytes allow it."""
    assert cloud.dtype.names is not None
    return {
        name: cloud[name].astype(cloud.dtype[name].base.newbyteorder("<"), copy=False)
        for name in cloud.dtype.names
    }


def time_points(
    fields: dict[str, NDArray[Any]], stamp_ns: int | None
) -> tuple[dict[str, NDArray[Any]], str | None, str | None]:
    """The fields with `point_offset_ns` (P,) i4 where the sensor gives the time of each point.

    Also returned: the field it was told by, and a problem when the time cannot be told. Whole
    nanoseconds since the stamp take the place of the field they came in, so that they are there
    once; any other time keeps its field beside them.
    """
    name = next((n for n in _TIME_FIELDS if n in fields and fields[n].ndim == 1), None)
    if name is None or _OFFSETS in fields:
        return fields, None, None
    # Taken out of the points once: a field is laid out as a column later anyway.
    raw = np.ascontiguousarray(fields[name])
    times, whole, problem = _offsets_ns(name, raw, stamp_ns)
    if times is None:
        return fields, None, problem
    if whole:
        return {_OFFSETS if n == name else n: times if n == name else v
                for n, v in fields.items()}, name, None  # fmt: skip
    return {**fields, _OFFSETS: times}, name, None


def _offsets_ns(
    name: str, raw: NDArray[Any], stamp_ns: int | None
) -> tuple[NDArray[np.int32] | None, bool, str | None]:
    """Per-point time since the sweep's stamp, (P,) i4 ns, whether raw holds just these numbers, and
    a problem when the time cannot be told.

    Integers are nanoseconds (Ouster, Livox), floats seconds (Velodyne, Hesai), either since the
    stamp or absolute. Anything that then spans more than two seconds is not believed.
    """
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        return None, False, f"point field {name!r} holds non-finite times"
    unit = 1 if raw.dtype.kind in "iu" else 1_000_000_000
    if not len(raw):
        return np.empty(0, np.int32), unit == 1, None  # an empty sweep belongs to the others
    low = float(raw.min())
    whole = False
    if abs(low) * unit < _NS_LIMIT:
        whole = unit == 1
        offsets = raw if whole else np.rint(raw.astype(np.float64) * unit)
    elif stamp_ns is not None and abs(low * unit - stamp_ns) < _NS_LIMIT:
        if unit > 1:
            offsets = np.rint((raw.astype(np.float64) - stamp_ns / 1e9) * unit)
        else:
            offsets = raw.astype(np.int64) - stamp_ns
    else:
        return None, False, f"point field {name!r}: neither time since the stamp nor absolute time"
    low, high = low if whole else float(offsets.min()), float(offsets.max())
    if high - low > _LONGEST_SWEEP_S * 1e9 or high >= _NS_LIMIT:
        problem = f"point field {name!r} spans more than {_LONGEST_SWEEP_S:g} s: unit unknown"
        return None, False, problem
    if whole and raw.dtype.itemsize == 4:
        return raw.view(np.int32), True, None
    return offsets.astype(np.int32), whole, None


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
