"""What the dataset converters share: reasons instead of tracebacks, stamps from rows and from
seconds, small files.
"""

from __future__ import annotations

import json
import re
import struct
import tokenize
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmdata.clocks import Stamps
from mmdata.errors import ConversionError, MmdataError
from mmdata.recording import Converter, Recording

Array: TypeAlias = NDArray[Any]

#: What damaged bytes raise in the libraries that parse them.
DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, EOFError, RuntimeError, OverflowError,
    AttributeError,  # a value of JSON that is of another type than documented
    zlib.error, struct.error, MmdataError,
)  # fmt: skip


class DatasetConverter(Converter):
    """A converter of files that libraries parse: whatever they raise becomes a reason."""

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether path is of this format; may raise anything of DAMAGE."""
        raise NotImplementedError

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        """As `sources`."""
        return ("",)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        """As `open`, for a part that exists."""
        raise NotImplementedError

    @classmethod
    def sniff(cls, path: Path) -> bool:
        try:
            return bool(cls.claims(Path(path)))
        except DAMAGE:
            return False  # what cannot be read is not ours

    @classmethod
    def sources(cls, path: Path) -> Sequence[str]:
        with _reason(cls.name, path):
            found = list(cls.parts(Path(path)))
            if not found:
                raise ConversionError(f"{path}: no episode in it")
            return found

    @classmethod
    def open(cls, path: Path, part: str = "") -> Recording:
        with _reason(cls.name, path):
            part = pick_part(cls.parts(Path(path)), part, path)
            return cls.recording(Path(path), part)


@contextmanager
def _reason(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (MmdataError, FileNotFoundError, PermissionError):
        raise
    except DAMAGE as error:
        raise ConversionError(f"{path} cannot be read as {name}: {one_line(error)}") from error


# -- time --------------------------------------------------------------------------------------


def row_stamps(n: int, rate_hz: float) -> Stamps:
    """Synthetic stamps (n,) i8 of rows at a declared rate: `round(i * 1e9 / rate)`."""
    stamps: Stamps = np.rint(np.arange(n) * (1e9 / rate_hz)).astype(np.int64)
    return stamps


def seconds_to_ns(seconds: Array, factor: int = 1_000_000_000) -> Stamps:
    """(n,) numbers to nanoseconds, exact to their own resolution. factor: nanoseconds of a unit.

    Raises ConversionError for numbers that are no stamps.
    """
    if seconds.dtype.kind not in "iuf":
        raise ConversionError(f"stamps of type {seconds.dtype} are no numbers")
    limit = 9.2e18 / factor
    values: NDArray[np.float64] = seconds.astype(np.float64)
    if not np.isfinite(values).all() or (np.abs(values) > limit).any():
        raise ConversionError("stamps that are not finite or out of range")
    stamps: Stamps
    if seconds.dtype.kind in "iu":
        stamps = seconds.astype(np.int64) * factor
        return stamps
    whole = np.floor(values)
    nanoseconds = np.rint((values - whole) * factor).astype(np.int64)
    stamps = whole.astype(np.int64) * factor + nanoseconds
    return stamps


#: Stamps since 1970 lie above these numbers in these units.
_UNIT_FROM = (
    (1e17, 1, "nanoseconds"), (1e14, 1_000, "microseconds"), (1e11, 1_000_000, "milliseconds"),
    (1e8, 1_000_000_000, "seconds"),
)  # fmt: skip
#: Steps of one of these units between neighbouring rows, in seconds, are told to be of it.
_STEPS_S = (0.5e-3, 0.5)


def unit_of_stamps(values: Array) -> tuple[int, str]:
    """(nanoseconds of a unit, its name) of stamps (n,) whose unit is not written down.

    Stamps since 1970 tell by their size. Smaller ones tell by how fast they run: rows come 2 to
    2,000 times a second, which one unit of a thousandfold ladder fits; seconds where none does.
    Raises ConversionError for what are no numbers.
    """
    if values.dtype.kind not in "iuf":
        raise ConversionError(f"stamps of type {values.dtype} are no numbers")
    known = values[np.isfinite(values)].astype(np.float64)
    largest = float(np.abs(known).max(initial=0.0))
    for limit, factor, name in _UNIT_FROM:
        if largest > limit:
            return factor, name
    steps = np.diff(known)
    step = float(steps[steps > 0].sum()) / max(1, len(steps))
    for _, factor, name in _UNIT_FROM:
        if _STEPS_S[0] <= step * factor / 1e9 < _STEPS_S[1]:
            return factor, name
    return 1_000_000_000, "seconds"


def synthetic(rate_hz: float | None, rule: str) -> dict[str, Any]:
    """Description of a stream whose stamps follow from a row number. rule says how."""
    return {
        "stamp_source": "synthetic",
        "stamp_meaning": "synthetic",
        "nominal_rate_hz": rate_hz,
        "attrs": {"stamp_rule": rule},
    }


def measured(meaning: str = "sample") -> dict[str, Any]:
    """Description of a stream whose stamps were measured."""
    return {"stamp_source": "header", "stamp_meaning": meaning}


# -- files -------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """JSON of a file. Raises ConversionError saying where it is broken."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConversionError(f"{path} is not valid JSON: {error}") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON lines file, empty when it is absent; raises ConversionError."""
    if not path.exists():
        return []
    try:
        lines = path.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise ConversionError(f"{path} is not valid JSON lines: {error}") from error


def natural(text: str) -> list[Any]:
    """Sort key that puts demo_2 before demo_10."""
    return [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(text))]


def pick_part(parts: Sequence[str], part: str, path: Path) -> str:
    """The part asked for, or the first. Raises ConversionError naming some of the parts."""
    if not parts:
        raise ConversionError(f"{path}: no episode in it")
    if part and part not in parts:
        some = ", ".join(parts[:5])
        raise ConversionError(f"{path} has no part {part!r}; it has {len(parts)}: {some} ...")
    return part or parts[0]


def load_array(path: Path) -> Array:
    """A NumPy file, mapped, never unpickled. Raises ConversionError when it is none."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise
    except (*DAMAGE, SyntaxError, tokenize.TokenError) as error:
        # The last two come from NumPy reading a damaged header as Python.
        raise ConversionError(f"{path} is no readable NumPy array: {one_line(error)}") from error


def read_bytes(path: Path) -> bytes | None:
    """Bytes of a file, None when it is missing or empty."""
    try:
        return path.read_bytes() or None
    except FileNotFoundError:
        return None


def one_line(error: BaseException) -> str:
    text = str(error).split("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
