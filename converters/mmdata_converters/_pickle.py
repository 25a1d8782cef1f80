"""pandas frames out of pickles, without pandas and without running what a pickle says.

A pickle can call anything. This unpickler knows a closed list of names, all of which only build
NumPy arrays or hold the state of a frame; any other name ends it.
"""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError

_MAX_BYTES = 1 << 30


def read_frame(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of a pickled DataFrame (.pkl or .pkl.gz).

    Raises ConversionError when the pickle holds anything but a frame of plain columns.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if zipped else open
        data = io.BytesIO()
        with opener(path, "rb") as stream:
            while block := stream.read(1 << 20):
                data.write(block)
                if data.tell() > _MAX_BYTES:
                    raise ConversionError(f"more than {_MAX_BYTES >> 20} MiB")
        data.seek(0)
        return _columns(_Unpickler(data).load())
    except FileNotFoundError:
        raise
    except ConversionError as error:
        raise ConversionError(f"{path.name}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way the unpickler knows
        raise ConversionError(f"{path.name} is no readable pickle: {error!r:.120}") from error


class _State:
    """Stands for a pandas object: keeps what the pickle hands over."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_State):
    pass


class _Manager(_State):
    pass


class _Block(_State):
    pass


class _Index(_State):
    pass


def _new_index(cls: type, facts: dict[str, Any]) -> _Index:
    return _Index(facts)


def _unpickle_block(values: Any, placement: Any, ndim: int) -> _Block:
    return _Block(values, placement, ndim)


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ConversionError(f"text in the encoding {encoding!r}")
    return text.encode("latin-1")


def _reconstruct(kind: type, shape: tuple[int, ...], typecode: Any) -> NDArray[Any]:
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise ConversionError("an array of an unknown kind")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise ConversionError("a scalar of an unknown kind")
    return np.frombuffer(data, dtype)[0]


def _strings_of(data: tuple[Any, ...]) -> NDArray[Any]:
    """Arrow's strings out of their buffers: validity bits, offsets, UTF-8; absent ones as None."""
    kind, length, _, offset, buffers, children, dictionary = data
    sizes = {"large_string": "<i8", "string": "<i4"}
    if kind not in sizes or children or dictionary is not None or min(length, offset) < 0:
        raise ConversionError(f"an Arrow array of the type {kind!r}")
    valid, places, text = (None if b is None else bytes(b) for b in buffers)
    ends = np.frombuffer(places or b"", sizes[kind])[offset : offset + length + 1]
    text = text or b""
    if length and (len(ends) != length + 1 or ends[0] < 0 or ends[-1] > len(text)
                   or (np.diff(ends) < 0).any()):  # fmt: skip
        raise ConversionError("an Arrow array whose offsets point outside of it")
    there = np.ones(length, bool)
    if valid is not None:
        bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
        there = bits[offset : offset + length].astype(bool)
    out = np.full(length, None, object)
    for i in np.flatnonzero(there):
        out[i] = text[ends[i] : ends[i + 1]].decode("utf-8")
    return out


def _bytes(data: Any = b"", encoding: str = "") -> bytes:
    """Bytes out of bytes or text; a number, which would ask for that much memory, is refused."""
    if isinstance(data, str):
        return _encode(data, encoding)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConversionError("a buffer of an unknown kind")
    return bytes(data)


def _chunked(chunks: Any, kind: Any = None) -> NDArray[Any]:
    return np.concatenate([np.empty(0, object), *chunks])


class _Strings(_State):
    """A column of strings of pandas 3."""

    @property
    def values(self) -> NDArray[Any]:
        state = self.state if isinstance(self.state, dict) else {}
        found = state.get("_pa_array", state.get("_ndarray"))
        if not isinstance(found, np.ndarray):
            raise ConversionError("a column of strings of an unknown layout")
        return found


def _known() -> dict[tuple[str, str], Any]:
    known: dict[tuple[str, str], Any] = {
        ("pandas.core.frame", "DataFrame"): _Frame,
        ("pandas", "DataFrame"): _Frame,
        ("pandas", "Index"): _Index,
        ("pandas", "RangeIndex"): _Index,
        ("pandas", "StringDtype"): _State,
        ("pandas.core.arrays.string_", "StringDtype"): _State,
        ("pandas.arrays", "ArrowStringArray"): _Strings,
        ("pandas.arrays", "StringArray"): _Strings,
        ("pandas.core.arrays.string_arrow", "ArrowStringArray"): _Strings,
        ("pandas.core.arrays.string_", "StringArray"): _Strings,
        ("pyarrow.lib", "_restore_array"): _strings_of,
        ("pyarrow.lib", "chunked_array"): _chunked,
        ("pyarrow.lib", "py_buffer"): _bytes,
        ("builtins", "bytearray"): _bytes,
        ("__builtin__", "bytearray"): _bytes,
        ("pyarrow.lib", "type_for_alias"): str,
        ("pandas.core.internals.managers", "BlockManager"): _Manager,
        ("pandas.core.internals", "BlockManager"): _Manager,
        ("pandas._libs.internals", "_unpickle_block"): _unpickle_block,
        ("pandas.core.indexes.base", "_new_Index"): _new_index,
        ("pandas._libs.internals", "BlockManager"): _Manager,
        ("builtins", "slice"): slice,
        ("__builtin__", "slice"): slice,
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }
    for module, name in (
        ("base", "Index"), ("range", "RangeIndex"), ("numeric", "Int64Index"),
        ("numeric", "UInt64Index"), ("numeric", "Float64Index"),
    ):  # fmt: skip
        known[f"pandas.core.indexes.{module}", name] = _Index
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        known[f"{core}.multiarray", "scalar"] = _scalar
        known[f"{core}.numeric", "_frombuffer"] = _from_buffer
    return known


class _Unpickler(pickle.Unpickler):
    _names = _known()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[module, name]
        except KeyError:
            raise ConversionError(
                f"a pickle that wants {module}.{name}, which is refused"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise ConversionError("a pickle that points outside itself")


def _columns(frame: Any) -> dict[str, NDArray[Any]]:
    """Columns of what stands for a frame; understands the managers of pandas 0.2x to 3.x."""
    if not isinstance(frame, _Frame) or not isinstance(frame.state, dict):
        raise ConversionError("its pickle is no DataFrame")
    manager = frame.state.get("_mgr", frame.state.get("_data"))
    if not isinstance(manager, _Manager):
        raise ConversionError("a DataFrame of an unknown layout")
    axes, blocks = _axes_and_blocks(manager)
    names = [str(n) for n in _labels(axes[0])]
    out: dict[str, NDArray[Any]] = {}
    for values, places in blocks:
        if isinstance(values, _Strings):
            values = values.values[None]
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            raise ConversionError("a DataFrame with columns that are no plain arrays")
        where = np.arange(len(names))[places] if isinstance(places, slice) else np.asarray(places)
        for row, place in enumerate(where.tolist()):
            out[names[place]] = values[row]
    missing = [n for n in names if n not in out]
    if missing or len({len(v) for v in out.values()}) > 1:
        raise ConversionError("a DataFrame whose columns do not fit together")
    return {n: out[n] for n in names}


def _axes_and_blocks(manager: _Manager) -> tuple[Any, list[tuple[Any, Any]]]:
    state = manager.state
    if isinstance(state, tuple) and len(state) >= 4 and "0.14.1" in state[3]:
        known = state[3]["0.14.1"]
        return known["axes"], [(b["values"], b["mgr_locs"]) for b in known["blocks"]]
    if len(manager.args) == 2:
        blocks, axes = manager.args
        return axes, [(b.args[0], b.args[1]) for b in blocks]
    raise ConversionError("a DataFrame of an unknown layout")


def _labels(index: Any) -> Any:
    """Labels of an index."""
    if not isinstance(index, _Index) or not index.args:
        raise ConversionError("a DataFrame with an index of an unknown kind")
    facts = index.args[0]
    if "data" in facts:
        data = facts["data"]
        return (data.values if isinstance(data, _Strings) else np.asarray(data)).tolist()
    return range(int(facts["start"]), int(facts["stop"]), int(facts.get("step", 1)))
