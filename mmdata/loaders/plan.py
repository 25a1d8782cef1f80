"""A spec made concrete for given streams: the one code that turns samples into tensors.

`Key` processes samples of one stream, `gather` fills a window from them. `EpisodeDataset` runs
both over files, `OnlineAligner` over messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmdata.align.online import Query, hold
from mmdata.errors import ConfigError
from mmdata.loaders import images
from mmdata.loaders.spec import ImageSpec, KeySpec
from mmdata.loaders.sweeps import fixed_points
from mmdata.streams import Kind, StreamInfo

Array = NDArray[Any]
Shape = tuple[int, ...]


class Items(Protocol):
    """Processed samples of one key, wherever they lie."""

    def into(self, index: Array, out: Array) -> None:
        """out[k] = sample index[k]; zeros where index is -1."""
        ...


@dataclass(frozen=True)
class Scaling:
    """Normalisation `(value - shift) * scale` per column, float64 (D,)."""

    shift: Array
    scale: Array


@dataclass
class Key:
    """One key of a spec on one stream.

    shape, dtype: of one processed sample; for sweeps the points, (points, F). An image's shape
    follows from a frame where the spec does not fix it (`learn_shape`).
    """

    name: str
    spec: KeySpec
    info: StreamInfo
    scaling: Scaling | None = None
    shape: Shape = ()
    dtype: str = "float32"
    query: Query = field(init=False)

    def __post_init__(self) -> None:
        kind, spec, info = self.info.kind, self.spec, self.info
        if spec.normalise and not self.dense:
            raise ConfigError(f"{self.name}: only signals are normalised, not a {kind}")
        if spec.image is not None and kind not in (Kind.IMAGE, Kind.DEPTH):
            raise ConfigError(f"{self.name}: 'image' does not fit {info.name!r}, a {kind}")
        if (spec.sweep is not None) != (kind is Kind.SWEEP):
            raise ConfigError(f"{self.name}: 'sweep' goes with sweep streams; this is a {kind}")
        if spec.fields is not None and not self.dense:
            raise ConfigError(f"{self.name}: 'fields' goes with signals; this is a {kind}")
        if spec.policy in ("linear", "slerp") and not self.dense:
            raise ConfigError(f"{self.name}: policy {spec.policy!r} goes with signals only")
        rate = info.attrs.get("sample_rate_hz") if kind is Kind.AUDIO else None
        offsets = spec.offset_ns(None if rate is None else float(rate))
        self.query = Query(spec.stream, offsets, spec.policy, spec.tolerance_ns)
        if not self.shape:
            self._shape_from_info()

    # -- what it is --------------------------------------------------------------------------

    @property
    def dense(self) -> bool:
        """Whether samples are rows of numbers."""
        return self.info.kind in (Kind.SIGNAL, Kind.TACTILE)

    @property
    def text(self) -> bool:
        """Whether samples are str or bytes; windows are lists then."""
        return self.info.kind in (Kind.TEXT, Kind.OPAQUE)

    @property
    def image(self) -> ImageSpec:
        return self.spec.image or ImageSpec()

    @property
    def fields(self) -> tuple[str, ...]:
        return self.spec.fields or tuple(self.info.fields)

    @property
    def slots(self) -> int:
        return len(self.query.offset_ns)

    def learn_shape(self, sample: Array) -> None:
        """Take shape and dtype from one processed image."""
        self.shape, self.dtype = tuple(sample.shape), sample.dtype.str

    def _shape_from_info(self) -> None:
        info, spec = self.info, self.spec
        if self.dense:
            for name in self.fields:
                if name not in info.fields:
                    raise ConfigError(
                        f"{self.name}: stream {info.name!r} has no field {name!r}; it has "
                        f"{', '.join(info.fields)}"
                    )
                if info.fields[name].ragged:
                    raise ConfigError(f"{self.name}: field {name!r} has rows of different length")
            shapes = [info.fields[name].shape for name in self.fields]
            width = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
            self.shape, self.dtype = (shapes[0] if len(shapes) == 1 else (width,)), spec.dtype
        elif info.kind is Kind.SWEEP:
            assert spec.sweep is not None
            self.shape, self.dtype = (spec.sweep.points, len(spec.sweep.fields)), "float32"
        elif info.kind is Kind.AUDIO:
            samples = info.fields["samples"]
            self.shape, self.dtype = samples.shape, samples.dtype
        elif info.kind is Kind.DEPTH:
            depth = info.fields["data"]
            processed = images.finish_depth(np.empty(depth.shape, depth.dtype), spec.image)
            self.shape, self.dtype = tuple(processed.shape), depth.dtype

    # -- processing --------------------------------------------------------------------------

    def rows(self, columns: Mapping[str, Array]) -> Array:
        """Field values (n, ...) to (n, *shape), scaled, in the key's dtype. Row by row."""
        parts = [np.asarray(columns[name]) for name in self.fields]
        n = len(parts[0])
        joined = (
            parts[0]
            if len(parts) == 1
            else np.concatenate([p.reshape(n, -1).astype(np.float64) for p in parts], axis=1)
        )
        if self.scaling is not None:
            flat = joined.reshape(n, -1).astype(np.float64)
            joined = ((flat - self.scaling.shift) * self.scaling.scale).reshape(joined.shape)
        return joined.astype(self.dtype)

    def process(self, sample: Any) -> Any:
        """One sample as `mmdata.Stream` gives it (or encoded image bytes), processed."""
        if self.dense:
            values = sample if isinstance(sample, Mapping) else {self.fields[0]: sample}
            return self.rows({name: np.asarray(values[name])[None] for name in self.fields})[0]
        kind = self.info.kind
        if kind is Kind.IMAGE:
            if isinstance(sample, bytes | bytearray | memoryview):
                return self.decode(bytes(sample))
            return images.finish(np.asarray(sample), self.image)
        if kind is Kind.DEPTH:
            return images.finish_depth(np.asarray(sample), self.spec.image)
        if kind is Kind.SWEEP:
            assert self.spec.sweep is not None
            return fixed_points(sample, self.spec.sweep)
        return sample

    def decode(self, data: bytes | Array, out: Array | None = None) -> Array:
        """One encoded still image, processed."""
        return images.finish(images.decode(data, self.image), self.image, out=out)


class ListItems:
    """Processed samples in memory, one by one (a robot's recent messages)."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def into(self, index: Array, out: Array) -> None:
        for k, i in enumerate(index):
            out[k] = self.items[i] if i >= 0 else 0


def gather(key: Key, items: Any, index: Array) -> dict[str, Any]:
    """Fill one window: index (K,) i8 of the sample in each slot, -1 for none.

    Returns `<key>`, `<key>.mask`, and for sweeps `<key>.points`, the mask of real points.
    """
    result: dict[str, Any] = {}
    mask = index >= 0
    seen = hold(index[None])[0] if key.spec.pad == "hold" else index
    if key.text:
        empty: Any = "" if key.info.kind is Kind.TEXT else b""
        value: Any = [items[int(i)] if i >= 0 else empty for i in seen]
    elif key.info.kind is Kind.SWEEP:
        value = np.zeros((len(seen), *key.shape), key.dtype)
        points = np.zeros((len(seen), key.shape[0]), np.bool_)
        for k, i in enumerate(seen):
            if i >= 0:
                value[k], points[k] = items[int(i)]
        result[f"{key.name}.points"] = points[0] if key.spec.single else points
    else:
        value = np.empty((len(seen), *key.shape), key.dtype)
        items.into(seen, value)
    result[key.name] = value[0] if key.spec.single else value
    result[f"{key.name}.mask"] = mask[0] if key.spec.single else mask
    return result


def gather_audio(
    key: Key,
    blocks: Any,
    index: Array,
    tick_ns: int,
    stamps: Array,
) -> dict[str, Any]:
    """Fill a window of single audio samples: index (K,) is the block each slot falls in.

    The slot's place in its block is the time since the block's stamp times the sample rate; a slot
    past the block's end (a gap) is zero and masked.
    """
    rate = float(key.info.attrs["sample_rate_hz"])
    value = np.zeros((len(index), *key.shape), key.dtype)
    mask = np.zeros(len(index), np.bool_)
    blocks_seen = np.unique(index[index >= 0])
    if len(blocks_seen):  # before the first block there are no stamps to count from
        since = tick_ns + key.query.offset_ns - stamps[np.maximum(index, 0)]
        place = np.floor(since * (rate / 1e9) + 1e-6).astype(np.int64)
    for block in blocks_seen:
        samples = blocks[int(block)]
        here = (index == block) & (place < len(samples))
        value[here] = samples[place[here]]
        mask |= here
    return {
        key.name: value[0] if key.spec.single else value,
        f"{key.name}.mask": mask[0] if key.spec.single else mask,
    }


def compile_keys(
    keys: Mapping[str, KeySpec],
    infos: Mapping[str, StreamInfo],
    scalings: Mapping[str, Scaling],
) -> dict[str, Key]:
    """Keys of a spec on the streams of an episode. Raises ConfigError where they do not fit."""
    compiled = {}
    for name, spec in keys.items():
        if spec.stream not in infos:
            have = ", ".join(infos) or "none"
            raise ConfigError(f"{name}: no stream {spec.stream!r}; there are: {have}")
        scaling = scalings.get(name) if spec.normalise else None
        if spec.normalise and scaling is None:
            raise ConfigError(
                f"{name}: normalising needs statistics: `dataset.with_statistics(...)`"
            )
        compiled[name] = Key(name, spec, infos[spec.stream], scaling)
    return compiled
