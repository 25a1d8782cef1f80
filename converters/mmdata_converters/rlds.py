"""RLDS datasets (TensorFlow Datasets on disk): TFRecord shards, read without TensorFlow."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConversionError, MmdataError
from mmdata.media import decode_image
from mmdata.recording import Recording
from mmdata.streams import Kind
from mmdata_converters._common import (
    DAMAGE,
    DatasetConverter,
    one_line,
    read_json,
    row_stamps,
    synthetic,
)
from mmdata_converters._feeds import FeedRecording
from mmdata_converters._tfrecord import parse_example, read_record, record_offsets

#: RLDS holds no rate; rows are placed at this one, and that is said.
_RATE_HZ = 10.0
#: Undefined by RLDS at the step where is_last is true.
_NOT_AT_LAST = ("action", "reward", "discount")


@dataclass(frozen=True)
class Feature:
    """One leaf of features.json. kind: tensor, image, text or other."""

    kind: str
    shape: tuple[int | None, ...]
    dtype: str
    encoding: str = "none"


class RldsConverter(DatasetConverter):
    name = "rlds"
    summary = "RLDS / TFDS TFRecord datasets"
    reads = "observations, pictures, actions, rewards, episode metadata"
    labels = "language, success"
    time = "synthetic, rate assumed: RLDS holds none"
    cannot = "ragged tensors, video features, ArrayRecord shards"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return (path / "features.json").is_file() and any(
            any(path.glob(f"*.{kind}*")) for kind in ("tfrecord", "array_record")
        )

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        return list(_index(path)[0])

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        return _Episode(path, part)


class _FloatPictures:
    """Pictures (n, H, W) f4 that TFDS keeps as PNG whose four channels are a number's bytes."""

    def __init__(self, pictures: list[bytes]) -> None:
        self._pictures = pictures
        self.shape = (len(pictures), *(self._decode(0).shape if pictures else (0, 0)))
        self.dtype = np.dtype("<f4")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, rows: Any) -> Any:
        return np.stack([self._decode(i) for i in range(*rows.indices(len(self)))])

    def _decode(self, row: int) -> NDArray[np.float32]:
        channels = np.ascontiguousarray(decode_image(self._pictures[row]))
        if channels.ndim != 3 or channels.shape[2] != 4 or channels.dtype != np.uint8:
            raise ConversionError("a picture of floats whose PNG has not four channels")
        return channels.view("<f4")[..., 0]


def _index(path: Path) -> tuple[dict[str, tuple[Path, int, int]], list[str]]:
    """Part -> (shard, offset, length), and what is missing."""
    if not (path / "features.json").is_file():
        raise ConversionError(f"{path / 'features.json'} is missing: not a TFDS dataset")
    parts: dict[str, tuple[Path, int, int]] = {}
    notes: list[str] = []
    counts: dict[str, int] = {}
    shards = sorted(path.glob("*.tfrecord*"))
    if not shards and any(path.glob("*.array_record*")):
        raise ConversionError(f"{path}: its shards are ArrayRecord files; only TFRecord is read")
    for shard in shards:
        match = re.search(r"-([A-Za-z0-9_]+)\.tfrecord(?:-\d+-of-\d+)?$", shard.name)
        split = match[1] if match else shard.name.partition(".tfrecord")[0]
        records, problem = _records(shard, shard.stat().st_mtime_ns)
        if problem:
            notes.append(f"{shard.name}: {problem} after {len(records)} episodes")
        for offset, length in records:
            number = counts.get(split, 0)
            counts[split] = number + 1
            parts[f"{split}_{number:05d}"] = (shard, offset, length)
    info = path / "dataset_info.json"
    try:
        for split in (read_json(info) if info.is_file() else {}).get("splits", []):
            listed = sum(int(n) for n in split.get("shardLengths", []))
            found = counts.get(str(split.get("name", "")), 0)
            if found != listed:
                notes.append(
                    f"split {split.get('name')!r} lists {listed} episodes, {found} are here"
                )
    except DAMAGE as error:
        notes.append(f"dataset_info.json cannot be used: {one_line(error)}")
    return parts, notes


@lru_cache(maxsize=256)
def _records(shard: Path, changed: int) -> tuple[tuple[tuple[int, int], ...], str | None]:
    records, problem = record_offsets(shard)
    return tuple(records), problem


class _Episode(FeedRecording):
    def __init__(self, path: Path, part: str) -> None:
        super().__init__(path, "rlds", part)
        parts, notes = _index(path)
        shard, offset, length = parts[part]
        self.uses(shard, path / "features.json")
        for note in notes:
            self.account.problem(note)
        self.features = dict(_leaves(read_json(path / "features.json")))
        self.values = parse_example(read_record(shard, offset, length))
        self.timing = synthetic(None, f"step / {_RATE_HZ:g} Hz, assumed: RLDS holds no rate")
        self.n = self._steps()
        self.stamps = row_stamps(self.n, _RATE_HZ)
        self.last = self._flags("is_last")
        if self.n and not self.last.any():
            self.account.problem("is_last is set at no step: the last action may mean nothing")
        self._episode_facts()
        ragged = {k.rsplit("/ragged_", 1)[0] for k in self.values if "/ragged_" in k}
        for key in sorted(self.values):
            if key.startswith("steps/") and "/ragged_" not in key:
                self._step_feature(key)
        for key in sorted(ragged):
            self.drop(key, "rows of different lengths (ragged)", max(1, self.n))
        for key in self.features:
            if key.startswith("steps/") and key not in self.values and key not in ragged:
                self.account.problem(f"{key} is declared and missing")
        self.attempt("labels", self._labels)

    @property
    def episode_id(self) -> str:
        """The version folder's name says nothing: the dataset's comes before it."""
        dataset = self.path.parent.name if re.match(r"\d+\.\d+", self.path.name) else self.path.name
        return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{dataset}_{self.part}").strip("_.")

    def _steps(self) -> int:
        for key in ("is_first", "is_last", "is_terminal", "reward"):
            values = self.values.get(f"steps/{key}")
            if values is not None and len(values):
                return len(values)
        for key, values in self.values.items():
            feature = self.features.get(key)
            if key.startswith("steps/") and feature and feature.kind in ("image", "text"):
                return len(values)
        raise ConversionError(f"{self.path}: {self.part} has no steps")

    def _flags(self, name: str) -> NDArray[np.bool_]:
        values = self.values.get(f"steps/{name}")
        if isinstance(values, np.ndarray) and len(values) == self.n:
            return values.astype(bool)
        return np.zeros(self.n, bool)

    def _step_feature(self, key: str) -> None:
        feature = self.features.get(key)
        values = self.values[key]
        if feature is None:
            self.account.problem(f"{key} is not declared in features.json")
            feature = Feature("tensor" if isinstance(values, np.ndarray) else "other", (None,), "")
        name = _stream_of(key)
        info = {**self.timing, "source_topic": key, "source_type": feature.kind}
        if feature.kind == "image" and isinstance(values, list):
            self._pictures(key, feature, values, info)
        elif feature.kind == "text":
            return  # captions
        elif isinstance(values, list) and feature.encoding == "none":
            texts = values

            def text(row: int) -> bytes | None:
                return texts[row]

            self._expect(key, len(texts))
            kind = Kind.TEXT if feature.dtype in ("string", "") else Kind.OPAQUE
            self.encoded(name, text, self.stamps[: len(texts)], kind=kind, **info)
        else:
            rows = self._rows(key, feature, values)
            if rows is None:
                return
            self._expect(key, len(rows))
            only = ~self.last if key.removeprefix("steps/").split("/")[0] in _NOT_AT_LAST else None
            if only is not None and len(rows) == self.n and self.last.any():
                self._signal_but_last(name, rows, info)
                return
            self.signal(name, {"data": rows}, self.stamps, **info)

    def _signal_but_last(self, name: str, rows: NDArray[Any], info: dict[str, Any]) -> None:
        """Action, reward and discount mean nothing at the last step; that row is counted."""
        topic = info["source_topic"]
        keep = ~self.last
        stamps = self.stamps[keep]
        self.signal(name, {"data": rows[keep]}, stamps, **info)
        feed = self.feeds[-1]
        n_last = int(self.last.sum())

        def read() -> Iterator[Any]:
            self.drop(topic, "undefined at the last step (RLDS)", n_last)
            yield from feed.read()

        self.feeds[-1] = type(feed)(feed.info, feed.stamps, read)

    def _pictures(
        self, key: str, feature: Feature, values: list[bytes], info: dict[str, Any]
    ) -> None:
        self._expect(key, len(values))
        name = _camera(key)
        stamps = self.stamps[: len(values)]
        if feature.dtype == "float32":
            self.frames(name, _FloatPictures(values), stamps, kind=Kind.DEPTH, **info)
        elif feature.dtype == "uint16" or "depth" in key:
            self.depth_pictures(name, lambda row: values[row] or None, stamps, **info)
        else:
            self.encoded(name, lambda row: values[row] or None, stamps, **info)

    def _rows(
        self, key: str, feature: Feature, values: list[bytes] | NDArray[Any]
    ) -> NDArray[Any] | None:
        """A tensor feature as (steps, ...) in its declared type."""
        dtype = {"bool": "u1", "": None, "string": None}.get(feature.dtype, feature.dtype)
        if isinstance(values, list):
            unpack = zlib.decompress if feature.encoding == "zlib" else bytes
            values = np.frombuffer(b"".join(map(unpack, values)), dtype or "u1")
        shape = [d for d in feature.shape if d is not None]
        width = int(np.prod(shape)) if len(shape) == len(feature.shape) else 0
        if not width:
            if len(values) % max(1, self.n):
                self.drop(key, "rows of different lengths", max(1, self.n))
                return None
            shape = [len(values) // max(1, self.n)]
            width = shape[0]
        if width == 0 or len(values) % width:
            self.drop(key, f"{len(values)} values do not make rows of {shape}", max(1, self.n))
            return None
        rows = values.reshape(-1, *shape)
        return rows.astype(dtype) if dtype else rows

    def _expect(self, key: str, n: int) -> None:
        if n != self.n:
            self.account.problem(f"{key}: {n} values for {self.n} steps")

    def _episode_facts(self) -> None:
        facts: dict[str, Any] = {}
        for key, values in self.values.items():
            if key.startswith("steps/"):
                continue
            name = key.removeprefix("episode_metadata/")
            if isinstance(values, list):
                facts[name] = values[0].decode("utf-8", "replace") if values else None
            elif len(values) == 1:
                facts[name] = values[0].item()
            else:
                facts[name] = values.tolist() if len(values) <= 64 else None
        for name, value in list(facts.items()):
            camera = name.removeprefix("has_")
            pictures = self.values.get(f"steps/observation/{camera}")
            if name.startswith("has_image") and not value and pictures:
                blank = isinstance(pictures, list) and _is_blank(pictures[0])
                found = "blank pictures" if blank else f"yet {len(pictures)} pictures are there"
                self.account.problem(f"{name} is 0: {found}" if blank else f"{name} is 0, {found}")
        self.know(**{f"rlds_{k}": v for k, v in facts.items() if not k.startswith("has_")})
        success = facts.get("success")
        if isinstance(success, int):
            self.know(outcome="success" if success else "failure")

    def _texts(self, key: str, feature: Feature) -> list[str] | None:
        """What was said at each step, None where a feature is not that."""
        values = self.values.get(key)
        if values is None or not key.startswith("steps/"):
            return None
        words = re.search(r"instruction|language|subtask|caption", key) is not None
        if isinstance(values, list):
            if feature.kind == "text" or (feature.dtype == "string" and words):
                return [v.decode("utf-8", "replace").strip() for v in values]
            return None
        instruction = key.endswith("instruction") and values.dtype.kind in "iu"
        width = len(values) // max(1, self.n)
        if not instruction or width < 8 or values.min(initial=0) < 0 or values.max(initial=0) > 255:
            return None
        return [_said(row) for row in values.reshape(-1, width)]

    def _labels(self) -> None:
        from mmdata_converters._labels import Spans

        spans = Spans(self.stamps, self.episode_id)
        for key, feature in self.features.items():
            texts = self._texts(key, feature)
            if texts is not None:
                self._expect(key, len(texts))
                spans.texts(key, texts, "instruction")
                first = next((t for t in texts if t), None)
                if first and "instruction" not in self.metadata:
                    self.know(instruction=first, task=first)
        self.layer("rlds", captions=spans.captions)


def _said(row: NDArray[Any]) -> str:
    """Text of a row of UTF-8 numbers, padded with zeros, as Language-Table writes it."""
    return bytes(row[row != 0].astype(np.uint8)).decode("utf-8", "replace").strip()


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Feature]]:
    """(path, feature) of features.json; steps are a sequence of dictionaries."""
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{prefix}{name}/")
        return
    if "sequence" in node and "feature" in node["sequence"]:
        yield from _leaves(node["sequence"]["feature"], prefix)
        return
    path = prefix.rstrip("/")
    for kind in ("image", "tensor", "text"):
        if kind in node:
            facts = node[kind] or {}
            sizes = (facts.get("shape") or {}).get("dimensions", [])
            shape = tuple(int(d) if int(d) >= 0 else None for d in sizes)
            encoding = str(facts.get("encoding") or "none").lower()
            yield path, Feature(kind, shape, facts.get("dtype", ""), encoding)
            return
    yield path, Feature("other", (None,), "")


def _is_blank(picture: bytes) -> bool:
    try:
        image = decode_image(picture)
    except MmdataError:
        return False
    return bool(image.max() == image.min())


def _stream_of(key: str) -> str:
    short = key.removeprefix("steps/").removeprefix("observation/")
    return re.sub(r"[^A-Za-z0-9-]+", "_", short).strip("_")


def _camera(key: str) -> str:
    name = _stream_of(key)
    return name if name.startswith("camera") else f"camera_{name}"
