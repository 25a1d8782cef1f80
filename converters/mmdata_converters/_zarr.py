"""Zarr arrays of version 2 and 3, from a folder or a zip file. Read only, one chunk at a time."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError, MissingDependencyError

_MAX_CHUNK_BYTES = 1 << 30
_DAMAGED = (ValueError, RuntimeError, TypeError, OSError)
#: Codecs of version 3 that numcodecs knows, and under which name.
_CODECS = {"zstd": "zstd", "gzip": "gzip", "blosc": "blosc", "numcodecs.zlib": "zlib",
           "numcodecs.lz4": "lz4", "numcodecs.bz2": "bz2", "numcodecs.lzma": "lzma",
           "numcodecs.zstd": "zstd", "numcodecs.blosc": "blosc"}  # fmt: skip
_ABSENT = (1 << 64) - 1


class ZarrStore:
    """Keys and values of a zarr hierarchy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._top = ""
        if path.is_file():
            try:
                self._zip = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ConversionError(f"{path} is no readable zip file: {error}") from error
            self._names = set(self._zip.namelist())
            # Some zip files hold the folder rather than what is in it.
            tops = {n.split("/")[0] for n in self._names}
            if len(tops) == 1 and next(iter(tops)).endswith(".zarr"):
                self._top = f"{tops.pop()}/"

    def get(self, key: str) -> bytes | None:
        """A value, None where there is none."""
        if self._zip is None:
            file = self.path / key
            return file.read_bytes() if file.is_file() else None
        if self._top + key not in self._names:
            return None
        try:
            return self._zip.read(self._top + key)
        except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
            raise ConversionError(f"{self.path}: {key}: {error}") from error

    def arrays(self, group: str) -> list[str]:
        """Names of the arrays right below a group."""
        if self._zip is None:
            files = [
                p for n in (".zarray", "zarr.json") for p in (self.path / group).glob(f"*/{n}")
            ]
            names = {p.parent.name for p in files}
        else:
            start = f"{self._top}{group}/"
            ends = (n.removeprefix(start) for n in self._names if n.startswith(start))
            names = {
                e.split("/")[0] for e in ends
                if e.count("/") == 1 and e.split("/")[1] in (".zarray", "zarr.json")
            }  # fmt: skip
        return sorted(n for n in names if self.holds(f"{group}/{n}"))

    def holds(self, key: str) -> bool:
        """Whether there is an array of that name."""
        if self.get(f"{key}/.zarray") is not None:
            return True
        text = self.get(f"{key}/zarr.json")
        return text is not None and json.loads(text).get("node_type") == "array"

    def array(self, key: str) -> ZarrArray:
        """An array. Raises ConversionError when it is not there or of another version."""
        text = self.get(f"{key}/.zarray") or self.get(f"{key}/zarr.json")
        if text is None:
            raise ConversionError(f"{self.path} has no array {key}")
        facts = json.loads(text)
        version = facts.get("zarr_format")
        try:
            if version == 2:
                return ZarrArray(self, key, _layout_2(facts))
            if version == 3:
                return ZarrArray(self, key, _layout_3(facts))
        except (ConversionError, MissingDependencyError):
            raise
        except (*_DAMAGED, KeyError, IndexError) as error:
            raise ConversionError(f"{self.path}: {key}: its metadata: {error!r}") from error
        raise ConversionError(f"{self.path}: {key} is zarr version {version}")

    def files(self) -> list[Path]:
        """Files the store consists of."""
        return [self.path] if self._zip is not None else sorted(
            p for p in self.path.rglob("*") if p.is_file()
        )  # fmt: skip

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()


@dataclass(frozen=True)
class Layout:
    """How an array is laid out: its chunks, their keys, what their bytes mean."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    key: Callable[[tuple[int, ...]], str]
    decode: Callable[[bytes], NDArray[Any]]


class ZarrArray:
    """One array; `array[a:b]` and `array[i]` read the chunks they need along the first axis."""

    def __init__(self, store: ZarrStore, key: str, layout: Layout) -> None:
        self.key = key
        self.shape = layout.shape
        self.chunks = layout.chunks
        self.dtype = layout.dtype
        self._store = store
        self._layout = layout
        size = math.prod(self.chunks) * self.dtype.itemsize
        if self.dtype.hasobject or not self.shape or min(self.chunks) < 1:
            raise ConversionError(f"{store.path}: {key}: not an array of plain numbers")
        if size > _MAX_CHUNK_BYTES:
            raise ConversionError(f"{store.path}: {key}: chunks of {size >> 20} MiB")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: int | slice | NDArray[Any]) -> NDArray[Any]:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            rows = self._rows(start, max(start, stop))
            return rows if step == 1 else rows[::step]
        if isinstance(key, np.ndarray):
            return np.concatenate([self._rows(int(i), int(i) + 1) for i in key])
        i = range(len(self))[int(key)]
        row: NDArray[Any] = self._rows(i, i + 1)[0]
        return row

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        height = self.chunks[0]
        for first in range(start // height, -(-stop // height) if stop > start else 0):
            for place in self._grid():
                chunk = self._chunk((first, *place))
                top = first * height
                a, b = max(start, top), min(stop, top + height, self.shape[0])
                inner = tuple(
                    slice(p * c, min((p + 1) * c, n))
                    for p, c, n in zip(place, self.chunks[1:], self.shape[1:], strict=True)
                )
                cut = tuple(slice(0, s.stop - s.start) for s in inner)
                out[(slice(a - start, b - start), *inner)] = chunk[(slice(a - top, b - top), *cut)]
        return out

    def _grid(self) -> Iterator[tuple[int, ...]]:
        counts = [-(-n // c) for n, c in zip(self.shape[1:], self.chunks[1:], strict=True)]
        return iter(np.ndindex(*counts))

    def _chunk(self, place: tuple[int, ...]) -> NDArray[Any]:
        data = self._store.get(f"{self.key}/{self._layout.key(place)}")
        if data is None:
            return np.full(self.chunks, self._layout.fill, self.dtype)
        try:
            return self._layout.decode(data)
        except _DAMAGED as error:
            raise ConversionError(f"{self.key}, chunk {place}: {error}") from error


# -- versions ----------------------------------------------------------------------------------


def _layout_2(facts: Mapping[str, Any]) -> Layout:
    shape, chunks = (tuple(int(n) for n in facts[k]) for k in ("shape", "chunks"))
    dtype = np.dtype(facts["dtype"])
    coded = [*(facts.get("filters") or []), *filter(None, [facts.get("compressor")])]
    codecs = [_codec(str(c.get("id", "")), c) for c in coded]
    order: Any = "F" if facts.get("order") == "F" else "C"
    separator = str(facts.get("dimension_separator", "."))

    def decode(data: Any) -> NDArray[Any]:
        for codec in reversed(codecs):
            data = codec.decode(data)
        return np.frombuffer(_plain(data), dtype).reshape(chunks, order=order)

    fill = facts.get("fill_value")
    return Layout(
        shape, chunks, dtype, 0 if fill is None else fill, lambda p: separator.join(map(str, p)),
        decode,
    )  # fmt: skip


def _layout_3(facts: Mapping[str, Any]) -> Layout:
    shape = tuple(int(n) for n in facts["shape"])
    grid = facts["chunk_grid"]
    if grid["name"] != "regular":
        raise ConversionError(f"chunks on a grid of the kind {grid['name']!r}")
    chunks = tuple(int(n) for n in grid["configuration"]["chunk_shape"])
    if not isinstance(facts["data_type"], str):
        raise ConversionError(f"values of type {facts['data_type']}")
    dtype = np.dtype(facts["data_type"])
    keys = facts.get("chunk_key_encoding") or {"name": "default"}
    plain = keys["name"] == "v2"
    separator = str((keys.get("configuration") or {}).get("separator", "." if plain else "/"))

    def key(place: tuple[int, ...]) -> str:
        return separator.join([*([] if plain else ["c"]), *map(str, place)])

    fill = facts.get("fill_value")
    return Layout(
        shape, chunks, dtype, 0 if fill is None else fill, key,
        _chain(facts["codecs"], chunks, dtype, fill),
    )  # fmt: skip


def _chain(
    specs: Sequence[Any], shape: tuple[int, ...], dtype: np.dtype[Any], fill: Any
) -> Callable[[bytes], NDArray[Any]]:
    """What a list of version 3's codecs undoes: transposition, bytes or shards, compression."""
    orders: list[list[int]] = []
    codecs: list[Any] = []
    shards: Mapping[str, Any] | None = None
    for spec in specs:
        name = spec if isinstance(spec, str) else str(spec["name"])
        facts = {} if isinstance(spec, str) else dict(spec.get("configuration") or {})
        if name == "transpose":
            orders.append([int(i) for i in facts["order"]])
        elif name in ("bytes", "endian"):
            if facts.get("endian") == "big":
                dtype = dtype.newbyteorder(">")
        elif name == "sharding_indexed":
            shards = facts
        elif name == "crc32c":
            codecs.append(_Trailer(4))
        elif name in _CODECS:
            codecs.append(_codec(_CODECS[name], {"id": _CODECS[name], **_options(name, facts)}))
        else:
            codecs.append(_codec(name, {"id": name, **facts}))
    order = list(range(len(shape)))
    for turn in orders:
        order = [order[i] for i in turn]
    stored = tuple(shape[i] for i in order)
    inner = None if shards is None else _shards(shards, stored, dtype, fill)

    def decode(data: Any) -> NDArray[Any]:
        for codec in reversed(codecs):
            data = codec.decode(data)
        if inner is not None:
            values = inner(_plain(data))
        else:
            values = np.frombuffer(_plain(data), dtype).reshape(stored)
        return np.transpose(values, np.argsort(order))

    return decode


def _shards(
    facts: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any], fill: Any
) -> Callable[[bytes], NDArray[Any]]:
    """Many chunks in one value, with an index of (offset, length) at its end or start."""
    chunks = tuple(int(n) for n in facts["chunk_shape"])
    counts = tuple(n // c for n, c in zip(shape, chunks, strict=True))
    checked = any((s if isinstance(s, str) else s["name"]) == "crc32c"
                  for s in facts.get("index_codecs", ()))  # fmt: skip
    size = math.prod(counts) * 16
    decode = _chain(facts["codecs"], chunks, dtype, fill)

    def whole(data: bytes) -> NDArray[Any]:
        length = size + 4 * checked
        index = data[:length] if facts.get("index_location") == "start" else data[-length:]
        places = np.frombuffer(index[:size], "<u8").reshape(*counts, 2)
        out = np.full(shape, 0 if fill is None else fill, dtype)
        for place in np.ndindex(*counts):
            start, count = (int(n) for n in places[place])
            if start != _ABSENT:
                where = tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunks, strict=True))
                out[where] = decode(data[start : start + count])
        return out

    return whole


# -- codecs ------------------------------------------------------------------------------------


class _Trailer:
    """A checksum behind the data, which is skipped."""

    def __init__(self, size: int) -> None:
        self._size = size

    def decode(self, data: Any) -> bytes:
        return bytes(data)[: -self._size]


def _options(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Options of a codec in numcodecs' words; only what decoding needs is passed on."""
    return {k: v for k, v in facts.items() if k in ("level", "cname", "clevel", "blocksize")}


def _plain(data: Any) -> bytes:
    return data.tobytes() if isinstance(data, np.ndarray) else bytes(data)


def _codec(name: str, facts: Mapping[str, Any]) -> Any:
    import numcodecs

    if name.startswith("imagecodecs_"):
        return _image_codec(name)
    try:
        return numcodecs.get_codec(dict(facts))
    except (ValueError, TypeError) as error:
        raise ConversionError(f"compressed with {name!r}: {error}") from error


@lru_cache
def _image_codec(name: str) -> Any:
    """JPEG-XL and other picture codecs of imagecodecs, by the name UMI registers them under."""
    try:
        imagecodecs = import_module("imagecodecs")
    except ImportError:
        raise MissingDependencyError(
            "imagecodecs", "umi", f"an array compressed with {name}"
        ) from None
    decode: Any = getattr(imagecodecs, f"{name.removeprefix('imagecodecs_')}_decode", None)
    if decode is None:
        raise ConversionError(f"imagecodecs cannot decode {name}")

    class Codec:
        def decode(self, data: bytes) -> Any:
            try:
                return decode(data)
            except Exception as error:  # imagecodecs has an exception class per codec
                raise ValueError(f"{name}: {error}") from error

    return Codec()
