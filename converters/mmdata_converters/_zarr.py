"""Zarr v2 arrays, from a folder or a zip file. Read only, one chunk at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError, MissingDependencyError

_MAX_CHUNK_BYTES = 1 << 30


class ZarrStore:
    """Keys and values of a zarr v2 hierarchy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_file():
            try:
                self._zip = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ConversionError(f"{path} is no readable zip file: {error}") from error
            self._names = set(self._zip.namelist())

    def get(self, key: str) -> bytes | None:
        """A value, None where there is none."""
        if self._zip is None:
            file = self.path / key
            return file.read_bytes() if file.is_file() else None
        if key not in self._names:
            return None
        try:
            return self._zip.read(key)
        except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
            raise ConversionError(f"{self.path}: {key}: {error}") from error

    def arrays(self, group: str) -> list[str]:
        """Names of the arrays right below a group."""
        if self._zip is None:
            return sorted(p.parent.name for p in (self.path / group).glob("*/.zarray"))
        ends = (n.removeprefix(f"{group}/") for n in self._names if n.startswith(f"{group}/"))
        return sorted(e.split("/")[0] for e in ends if e.count("/") == 1 and e.endswith("/.zarray"))

    def array(self, key: str) -> ZarrArray:
        """An array. Raises ConversionError when it is not there or not of version 2."""
        text = self.get(f"{key}/.zarray")
        if text is None:
            raise ConversionError(f"{self.path} has no array {key}")
        return ZarrArray(self, key, json.loads(text))

    def files(self) -> list[Path]:
        """Files the store consists of."""
        return [self.path] if self._zip is not None else sorted(
            p for p in self.path.rglob("*") if p.is_file()
        )  # fmt: skip

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()


class ZarrArray:
    """One array; `array[a:b]` and `array[i]` read the chunks they need along the first axis."""

    def __init__(self, store: ZarrStore, key: str, facts: dict[str, Any]) -> None:
        if facts.get("zarr_format") != 2:
            raise ConversionError(f"{store.path}: {key} is zarr version {facts.get('zarr_format')}")
        self.key = key
        self.shape: tuple[int, ...] = tuple(int(n) for n in facts["shape"])
        self.chunks: tuple[int, ...] = tuple(int(n) for n in facts["chunks"])
        self.dtype = np.dtype(facts["dtype"])
        self._store = store
        self._facts = facts
        size = int(np.prod([float(c) for c in self.chunks])) * self.dtype.itemsize
        if self.dtype.hasobject or not self.shape or min(self.chunks) < 1:
            raise ConversionError(f"{store.path}: {key}: not an array of plain numbers")
        if size > _MAX_CHUNK_BYTES:
            raise ConversionError(f"{store.path}: {key}: chunks of {size >> 20} MiB")
        codecs = [*(facts.get("filters") or []), *([facts["compressor"]] if facts.get("compressor")
                  else [])]  # fmt: skip
        self._codecs = [_codec(store.path, key, c) for c in codecs]

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
        separator = self._facts.get("dimension_separator", ".")
        data: Any = self._store.get(f"{self.key}/{separator.join(map(str, place))}")
        if data is None:
            fill = self._facts.get("fill_value")
            return np.full(self.chunks, 0 if fill is None else fill, self.dtype)
        try:
            for codec in reversed(self._codecs):
                data = codec.decode(data)
            plain = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
            flat = np.frombuffer(plain, self.dtype)
            order: Any = "F" if self._facts.get("order") == "F" else "C"
            return flat.reshape(self.chunks, order=order)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            raise ConversionError(f"{self.key}, chunk {place}: {error}") from error


def _codec(path: Path, key: str, facts: dict[str, Any]) -> Any:
    import numcodecs

    name = str(facts.get("id", ""))
    if name.startswith("imagecodecs_"):
        return _image_codec(name)
    try:
        return numcodecs.get_codec(dict(facts))
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{path}: {key} is compressed with {name!r}: {error}") from error


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
            return decode(data)

    return Codec()
