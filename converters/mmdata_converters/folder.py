"""Plain folders, described by a small YAML file: pictures, videos, tables, sound, text.

docs/folders.md shows the description. Nothing is guessed: a stream whose time is not described is
refused, and pictures are matched to stamps by name or number, never by luck.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError
from mmdata.geometry import Sensor
from mmdata.recording import Recording
from mmdata.streams import Kind
from mmdata_converters._common import (
    DatasetConverter,
    load_array,
    measured,
    natural,
    read_bytes,
    row_stamps,
    seconds_to_ns,
    synthetic,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._video import add_audio, add_video

DESCRIPTION = "recording.yaml"
_KEY = "mmdata_recording"
_UNITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_SOURCES = ("images", "depth", "video", "table", "audio", "text")


class FolderConverter(DatasetConverter):
    name = "folder"
    summary = f"plain folders described by {DESCRIPTION}"
    reads = "images, 16-bit depth, videos, .csv / .npy tables, audio, text"
    labels = "layers in the annotation schema"
    calibration = "rig in the description"
    time = "as described: measured or synthetic"
    cannot = "point clouds; anything the description does not name"

    @classmethod
    def claims(cls, path: Path) -> bool:
        file = _description_file(path)
        if not file.is_file() or file.suffix not in (".yaml", ".yml"):
            return False
        with file.open("rb") as opened:
            return re.search(rb"^mmdata_recording\s*:", opened.read(1 << 16), re.M) is not None

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        described = _load(_description_file(path))
        pattern = described.get("episodes")
        if pattern is None:
            return ("",)
        root = _description_file(path).parent
        return sorted((p.name for p in root.glob(str(pattern)) if p.is_dir()), key=natural)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Folder(_description_file(path), part)


def _description_file(path: Path) -> Path:
    return path / DESCRIPTION if path.is_dir() else path


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ConversionError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(found, dict) or _KEY not in found:
        raise ConversionError(f"{path} does not start with `{_KEY}: 1`")
    if found[_KEY] != 1:
        raise ConversionError(f"{path}: version {found[_KEY]} of the description is not known")
    if not isinstance(found.get("streams"), dict) or not found["streams"]:
        raise ConversionError(f"{path}: no `streams` in it")
    return found


class _Folder(FeedRecording):
    def __init__(self, description: Path, part: str) -> None:
        super().__init__(description.parent, "folder", part)
        self.uses(description)
        self.description = description
        self.root = description.parent / part if part else description.parent
        self._tables: dict[Path, _Table] = {}
        found = _load(description)
        self.know(**(found.get("metadata") or {}))
        for name, values in (found.get("rig") or {}).items():
            try:
                self.mount(Sensor.from_dict(str(name), values))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise self._wrong(f"rig.{name}", str(error)) from error
        for name, stream in found["streams"].items():
            self._stream(str(name), stream)
        for layer, file in (found.get("layers") or {}).items():
            self._layer(str(layer), self.root / str(file))

    def _wrong(self, where: str, why: str) -> ConversionError:
        return ConversionError(f"{self.description}: {where}: {why}")

    def _stream(self, name: str, stream: Any) -> None:
        where = f"streams.{name}"
        if not isinstance(stream, dict):
            raise self._wrong(where, "describe it with keys")
        kinds = [k for k in _SOURCES if k in stream]
        if len(kinds) != 1:
            raise self._wrong(where, f"give one of {', '.join(_SOURCES)}")
        kind = kinds[0]
        info: dict[str, Any] = {"source_topic": name, "source_type": kind}
        info |= {k: stream[k] for k in ("frame_id", "sensor") if k in stream}
        add = getattr(self, f"_{kind}")
        add(name, where, str(stream[kind]), stream, info)

    # -- kinds ---------------------------------------------------------------------------------

    def _images(
        self, name: str, where: str, pattern: str, stream: dict[str, Any], info: dict[str, Any]
    ) -> None:
        files = sorted((p for p in self.root.glob(pattern) if p.is_file()),
                       key=lambda p: natural(p.name))  # fmt: skip
        if not files:
            self.account.problem(f"{name}: no file matches {pattern}")
            return
        self.uses(*files)
        rows, stamps, timing = self._picture_times(name, where, files, stream.get("time"))
        add = self.depth_pictures if "depth" in stream else self.encoded
        add(name, lambda i: read_bytes(rows[i]), stamps, **timing, **info)

    _depth = _images

    def _video(
        self, name: str, where: str, file: str, stream: dict[str, Any], info: dict[str, Any]
    ) -> None:
        time = self._time(where, stream.get("time"))
        path = self.root / file
        if "rate_hz" in time:
            from mmdata_converters._containers import open_video

            n = len(open_video(path).seconds) if path.exists() else 0
            rate = float(time["rate_hz"])
            stamps = self._start(where, time) + row_stamps(n, rate)
            timing = synthetic(rate, f"frame / {rate:g} Hz")
            add_video(self, name, path, stamps, synthetic_rate_hz=rate, **timing, **info)
            return
        stamps, _ = self._stamp_file(where, time)
        add_video(self, name, path, stamps, **measured(_meaning(time)), **info)

    def _table(
        self, name: str, where: str, file: str, stream: dict[str, Any], info: dict[str, Any]
    ) -> None:
        path = self.root / file
        if not path.exists():
            self.account.problem(f"{name}: {file} is missing")
            return
        time = self._time(where, stream.get("time"))
        self.uses(path)
        fields, channels = self._fields(where, path, stream.get("fields"), time)
        n = max(len(v) for v in fields.values())
        if "rate_hz" in time:
            rate = float(time["rate_hz"])
            stamps = self._start(where, time) + row_stamps(n, rate)
            timing = synthetic(rate, f"row / {rate:g} Hz")
        else:
            stamps, _ = self._stamp_file(where, {"file": file, **time})
            timing = measured(_meaning(time))
        self.signal(
            name, fields, stamps, units=stream.get("units"), channels=channels, **timing, **info
        )

    def _audio(
        self, name: str, where: str, file: str, stream: dict[str, Any], info: dict[str, Any]
    ) -> None:
        path = self.root / file
        if not path.exists():
            self.account.problem(f"{name}: {file} is missing")
            return
        self.uses(path)
        time = self._time(where, stream.get("time"))
        known = "start" in time
        timing = measured(_meaning(time)) if known else synthetic(None, "samples from 0")
        add_audio(self, name, path, self._start(where, time), **timing, **info)

    def _text(
        self, name: str, where: str, file: str, stream: dict[str, Any], info: dict[str, Any]
    ) -> None:
        path = self.root / file
        if not path.exists():
            self.account.problem(f"{name}: {file} is missing")
            return
        self.uses(path)
        time = self._time(where, stream.get("time"))
        texts = self._open_table(path).text(str(stream.get("column", "text")), where)
        stamps, _ = self._stamp_file(where, {"file": file, **time})
        self.encoded(
            name, lambda i: texts[i].encode(), stamps, kind=Kind.TEXT,
            **measured(_meaning(time)), **info,
        )  # fmt: skip

    def _layer(self, name: str, path: Path) -> None:
        from mmdata_schema import SchemaError, read_layer, write_layer

        try:
            layer = read_layer(path.read_bytes())
        except FileNotFoundError:
            self.account.problem(f"layer {name}: {path.name} is missing")
            return
        except SchemaError as error:
            raise ConversionError(f"{path}: {error}") from error
        self.uses(path)
        self.layers[name] = write_layer(layer.edit(name=name))

    # -- time ----------------------------------------------------------------------------------

    def _time(self, where: str, time: Any) -> dict[str, Any]:
        if not isinstance(time, dict):
            raise self._wrong(where, "say where its stamps come from with `time`")
        unit = time.get("unit")
        if unit is not None and unit not in _UNITS:
            raise self._wrong(where, f"time.unit {unit!r} is none of {', '.join(_UNITS)}")
        rate = time.get("rate_hz")
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < 1e9):
            raise self._wrong(where, "time.rate_hz must be a positive number")
        return time

    def _start(self, where: str, time: dict[str, Any]) -> int:
        if "start" not in time:
            return 0
        return _exact(str(time["start"]), self._unit(where, time), where)

    def _unit(self, where: str, time: dict[str, Any]) -> str:
        unit = time.get("unit")
        if unit is None:
            suffix = str(time.get("column", "")).rsplit("_", 1)[-1]
            unit = suffix if suffix in _UNITS else None
        if unit is None:
            raise self._wrong(where, "time.unit is missing (s, ms, us or ns)")
        return str(unit)

    def _stamp_file(self, where: str, time: dict[str, Any]) -> tuple[Stamps, _Table | None]:
        """Stamps (n,) i8 of a column of a CSV file or of a NumPy file."""
        if "file" not in time:
            raise self._wrong(where, "time needs `file`, `rate_hz` or `from_name`")
        path = self.root / str(time["file"])
        unit = self._unit(where, time)
        self.uses(path)
        if path.suffix == ".npy":
            return seconds_to_ns(load_array(path).reshape(-1), 10 ** _UNITS[unit]), None
        table = self._open_table(path)
        texts = table.text(str(time.get("column", table.columns[0])), where)
        return np.array([_exact(t, unit, where) for t in texts], np.int64), table

    def _picture_times(
        self, name: str, where: str, files: list[Path], time: Any
    ) -> tuple[list[Path], Stamps, dict[str, Any]]:
        """Files in order, their stamps, and how these came about."""
        time = self._time(where, time)
        if "rate_hz" in time:
            rate = float(time["rate_hz"])
            numbers = _numbers_of(files)
            places = np.arange(len(files)) if numbers is None else numbers - numbers[0]
            if numbers is not None and places[-1] != len(files) - 1:
                self.account.problem(
                    f"{name}: {int(places[-1]) + 1 - len(files)} numbers have no picture"
                )
            stamps = self._start(where, time) + np.rint(places * (1e9 / rate)).astype(np.int64)
            return files, stamps, synthetic(rate, f"picture / {rate:g} Hz")
        timing = measured(_meaning(time))
        if time.get("from_name"):
            unit = self._unit(where, time)
            found = [re.search(r"(\d+(?:\.\d+)?)$", f.stem) for f in files]
            if not all(found):
                raise self._wrong(where, "time.from_name: a file name does not end in a number")
            exact = [_exact(m[1], unit, where) for m in found if m]
            return files, np.array(exact, np.int64), timing
        stamps, table = self._stamp_file(where, time)
        names = time.get("name")
        if names is not None and table is not None:
            rows = {Path(t).name: i for i, t in enumerate(table.text(str(names), where))}
            known = [f for f in files if f.name in rows]
            if len(known) < len(files):
                self.drop(name, "no line with its name in the stamp file", len(files) - len(known))
            missing = len(rows) - len(known)
            if missing:
                self.account.problem(f"{name}: {missing} of {len(rows)} stamps have no picture")
            return known, stamps[[rows[f.name] for f in known]], timing
        if len(files) == len(stamps):
            return files, stamps, timing
        numbers = _numbers_of(files)
        base = 0 if numbers is not None and numbers[0] == 0 else 1
        if numbers is None or numbers[-1] - base >= len(stamps):
            raise self._wrong(
                where, f"{len(files)} pictures for {len(stamps)} stamps, and nothing says which "
                "belong together: give time.name, a column with the file names",
            )  # fmt: skip
        self.account.problem(
            f"{name}: {len(stamps) - len(files)} of {len(stamps)} stamps have no picture"
        )
        return files, stamps[numbers - base], timing

    # -- tables --------------------------------------------------------------------------------

    def _open_table(self, path: Path) -> _Table:
        if path not in self._tables:
            self._tables[path] = _Table(path)
        return self._tables[path]

    def _fields(
        self, where: str, path: Path, fields: Any, time: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
        if path.suffix == ".npy":
            return {"data": load_array(path)}, {}
        table = self._open_table(path)
        if fields is None:
            used = {time.get("column", table.columns[0])} if "rate_hz" not in time else set()
            names = [c for c in table.columns if c not in used]
            if not names:
                raise self._wrong(where, f"{path.name} has no column but its stamps")
            return {"data": table.numbers(names, where)}, {"data": names}
        if not isinstance(fields, Mapping):
            raise self._wrong(where, "fields: {name: [columns]}")
        values: dict[str, Any] = {}
        channels: dict[str, Sequence[str]] = {}
        for field, columns in fields.items():
            single = isinstance(columns, str)
            names = [columns] if single else [str(c) for c in columns]
            found = table.numbers(names, where)
            values[str(field)] = found[:, 0] if single else found
            if not single:
                channels[str(field)] = names
        return values, channels


class _Table:
    """A CSV file with a header line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(csv.reader(file)))
        if not rows:
            raise ConversionError(f"{path} is empty")
        self.columns = [c.strip() for c in rows[0]]
        self._rows = rows[1:]
        for number, row in enumerate(self._rows, 2):
            if len(row) != len(self.columns):
                raise ConversionError(
                    f"{path}, line {number}: {len(row)} values for {len(self.columns)} columns"
                )

    def text(self, column: str, where: str) -> list[str]:
        """Values of a column."""
        if column not in self.columns:
            raise ConversionError(
                f"{self.path} has no column {column!r} ({where}); it has {', '.join(self.columns)}"
            )
        at = self.columns.index(column)
        return [row[at].strip() for row in self._rows]

    def numbers(self, columns: Sequence[str], where: str) -> NDArray[np.float64]:
        """(n, columns) f8; an empty value is NaN."""
        out = np.empty((len(self._rows), len(columns)))
        for i, column in enumerate(columns):
            for row, text in enumerate(self.text(column, where)):
                try:
                    out[row, i] = float(text) if text else np.nan
                except ValueError:
                    raise ConversionError(
                        f"{self.path}, line {row + 2}: {column} is {text!r}, not a number"
                    ) from None
        return out


def _rows(reader: Any) -> Iterator[list[str]]:
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise ConversionError(f"no readable CSV: {error}") from error


def _numbers_of(files: Sequence[Path]) -> NDArray[np.int64] | None:
    """Numbers at the end of file names, ascending; None where there are none."""
    found = [re.search(r"(\d{1,15})$", f.stem) for f in files]
    if not all(found):
        return None
    numbers = np.array([int(m[1]) for m in found if m], np.int64)
    return numbers if (np.diff(numbers) > 0).all() else None


def _exact(text: str, unit: str, where: str) -> int:
    """Nanoseconds of a decimal number, without going through a float."""
    try:
        value = Decimal(text).scaleb(_UNITS[unit])
        return int(value.to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        raise ConversionError(f"{where}: the stamp {text!r} is not a number") from None


def _meaning(time: dict[str, Any]) -> str:
    return str(time.get("meaning", "unknown"))
