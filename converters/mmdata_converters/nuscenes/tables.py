"""nuScenes tables: small ones held, large ones read at their rows' places."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmdata.errors import ConversionError
from mmdata_converters._common import read_json

_BLOCK = 1 << 20


def versions(path: Path) -> list[Path]:
    return [
        v for v in sorted(Path(path).glob("v1.0-*"))
        if (v / "scene.json").is_file() and (v / "sample_data.json").is_file()
    ]  # fmt: skip


@lru_cache(maxsize=32)
def _small(path: Path, changed: int) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ConversionError(f"{path} is not a list of rows")
    return rows


def table(path: Path) -> list[dict[str, Any]]:
    """A small table."""
    return _small(path, path.stat().st_mtime_ns)


def by_token(path: Path, wanted: set[str] | None) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    return {r["token"]: r for r in table(path) if wanted is None or r["token"] in wanted}


def rows_of(path: Path, key: str, wanted: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of a large table whose key is one of those wanted, read at their places."""
    places = _places(path, key, path.stat().st_mtime_ns)
    spots = sorted(spot for value in wanted for spot in places.get(value, ()))
    with path.open("rb") as file:
        for start, end in spots:
            file.seek(start)
            yield json.loads(file.read(end - start))


@lru_cache(maxsize=8)
def _places(path: Path, key: str, changed: int) -> dict[str, list[tuple[int, int]]]:
    """Value of a key -> where its rows lie in the file (byte offsets)."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, start, end in scan(path):
        if isinstance(row, dict) and key in row:
            places[str(row[key])].append((start, end))
    return dict(places)


def scan(path: Path) -> Iterator[tuple[Any, int, int]]:
    """(row, first byte, byte after) of a JSON list, without holding it."""
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        text, base, at = "", 0, 0
        opened = False
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if not opened and at < len(text):
                if text[at] != "[":
                    raise ConversionError(f"{path} is not a list of rows")
                opened, at = True, at + 1
                continue
            if opened and at < len(text) and text[at] == "]":
                return
            if at < len(text):
                try:
                    # Latin-1 keeps one character per byte, so that places are byte offsets.
                    row, end = decoder.raw_decode(text, at)
                except ValueError:
                    row, end = None, -1
                if end > 0:
                    yield row, base + at, base + end
                    at = end
                    continue
            block = file.read(_BLOCK).decode("latin-1")
            if not block:
                raise ConversionError(f"{path} ends within a row")
            text, base, at = text[at:] + block, base + at, 0
