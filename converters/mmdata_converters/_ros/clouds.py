"""PointCloud2 and LaserScan as sweeps."""

from __future__ import annotations

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
_NS_LIMIT = 2**31
_LONGEST_SWEEP_S = 2.0


class CloudError(Exception):
    """The description of a cloud contradicts its bytes."""


def point_dtype(group: Group) -> np.dtype[Any]:
    """Structured dtype of one point, as the message describes it. Raises CloudError."""
    fields = group.root.fields["fields"]
    assert isinstance(fields, Structs)
    order = ">" if number_of(group, "is_bigendian")[0] else "<"
    names: list[str] = []
    formats: list[np.dtype[Any]] = []
    offsets: list[int] = []
    for item in fields.items:
        name = item.fields["name"]
        assert isinstance(name, Text)
        offset, datatype, count = (
            int(group.numbers(node)[0])
            for node in (item.fields[k] for k in ("offset", "datatype", "count"))
            if isinstance(node, Number)
        )
        if datatype not in _DATATYPES:
            raise CloudError(f"point field {name.value!r} has the unknown datatype {datatype}")
        kind = np.dtype(order + _DATATYPES[datatype])
        names.append(name.value or f"field_{len(names)}")
        formats.append(kind if count in (0, 1) else np.dtype((kind, (count,))))
        offsets.append(offset)
    step = int(number_of(group, "point_step")[0])
    try:
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
    except ValueError as error:
        raise CloudError(f"its point fields do not fit its point step {step}: {error}") from error


def points(group: Group, row: int) -> tuple[NDArray[Any], int, int]:
    """Points (P,) of one message of a group as a structured array, with its height and width.

    The group is one layout, and messages are looked at one by one because their sizes are in
    numbers. Raises CloudError when the data is shorter than height x row_step says.
    """
    height, width, row_step = (
        int(number_of(group, name)[row]) for name in ("height", "width", "row_step")
    )
    dtype = point_dtype(group)
    data = number_of(group, "data")[row]
    packed = width * dtype.itemsize
    if height > 1 and row_step > packed:
        needed = (height - 1) * row_step + packed
        if len(data) < needed:
            raise CloudError(f"{len(data)} data bytes, {height} rows need {needed}")
        padded = np.zeros(height * row_step, np.uint8)
        padded[: min(len(data), len(padded))] = data[: len(padded)]
        data = padded.reshape(height, row_step)[:, :packed].reshape(-1)
    needed = height * packed
    if len(data) < needed:
        raise CloudError(f"{len(data)} data bytes, {height} x {width} points need {needed}")
    if dtype.itemsize == 0:
        raise CloudError("its point step is 0")
    return np.frombuffer(data[:needed], dtype), height, width


def sweep_fields(cloud: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Point fields as contiguous little-endian arrays (P,) or (P, count)."""
    assert cloud.dtype.names is not None
    return {
        name: np.ascontiguousarray(cloud[name]).astype(
            cloud.dtype[name].base.newbyteorder("<"), copy=False
        )
        for name in cloud.dtype.names
    }


def point_offsets(
    fields: dict[str, NDArray[Any]], stamp_ns: int | None
) -> tuple[NDArray[np.int32] | None, str | None]:
    """Per-point time since the sweep's stamp, (P,) i4 ns, and a problem when it cannot be told.

    Integers are nanoseconds (Ouster, Livox), floats seconds (Velodyne, Hesai), either since the
    stamp or absolute. Anything that then spans more than two seconds is not believed.
    """
    name = next((n for n in _TIME_FIELDS if n in fields and fields[n].ndim == 1), None)
    if name is None or not len(fields[name]):
        return None, None
    raw = fields[name]
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        return None, f"point field {name!r} holds non-finite times"
    low = float(raw.min())
    unit = 1 if raw.dtype.kind in "iu" else 1_000_000_000
    if abs(low) * unit < _NS_LIMIT:
        offsets = np.rint(raw.astype(np.float64) * unit) if unit > 1 else raw
    elif stamp_ns is not None and abs(low * unit - stamp_ns) < _NS_LIMIT:
        if unit > 1:
            offsets = np.rint((raw.astype(np.float64) - stamp_ns / 1e9) * unit)
        else:
            offsets = raw.astype(np.int64) - stamp_ns
    else:
        return None, f"point field {name!r}: neither time since the stamp nor absolute time"
    if float(offsets.max()) - float(offsets.min()) > _LONGEST_SWEEP_S * 1e9:
        return None, f"point field {name!r} spans more than {_LONGEST_SWEEP_S:g} s: unit unknown"
    return offsets.astype(np.int32), None


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
        found["point_offset_ns"] = Ragged(times.astype(np.int32).reshape(-1), offsets)
    for name in (
        "angle_min", "angle_max", "angle_increment", "time_increment", "scan_time",
        "range_min", "range_max",
    ):  # fmt: skip
        found[name] = number_of(group, name)
    return found
