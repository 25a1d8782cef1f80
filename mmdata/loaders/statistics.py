"""Statistics of what training reads: one pass, in parallel, merged, of the training split only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import ConfigError
from mmdata.loaders.plan import Scaling
from mmdata.loaders.sketch import Sketch
from mmdata.loaders.spec import SampleSpec
from mmdata.streams import Kind

if TYPE_CHECKING:
    from mmdata.loaders.dataset import EpisodeDataset

Floats = NDArray[np.float64]
#: Quantiles that `quantile` normalisation maps to -1 and 1.
LOW, HIGH = 0.01, 0.99
_VERSION = 1
_PIECE = 4096


@dataclass
class FeatureStatistics:
    """Per column (D,): n, mean, sum of squared deviations, min, max, sketch. Finite values only.

    not_finite (D,): how many values were NaN or infinite and left out.
    """

    n: NDArray[np.int64]
    mean: Floats
    m2: Floats
    min: Floats
    max: Floats
    not_finite: NDArray[np.int64]
    sketches: list[Sketch]

    @classmethod
    def empty(cls, columns: int) -> FeatureStatistics:
        """Of nothing yet."""
        zeros = np.zeros(columns)
        return cls(
            np.zeros(columns, np.int64), zeros.copy(), zeros.copy(),
            np.full(columns, np.inf), np.full(columns, -np.inf),
            np.zeros(columns, np.int64), [Sketch() for _ in range(columns)],
        )  # fmt: skip

    @classmethod
    def of(cls, rows: NDArray[Any], weights: NDArray[Any] | None = None) -> FeatureStatistics:
        """Of rows (n, D), each counted `weights` (n,) or (n, D) times."""
        values = np.asarray(rows, np.float64)
        times = np.ones(values.shape, np.int64)
        if weights is not None:
            times = np.broadcast_to(
                np.asarray(weights, np.int64).reshape(len(values), -1), values.shape
            )
        result = cls.empty(values.shape[1])
        for column in range(values.shape[1]):
            result._column(column, values[:, column], times[:, column])
        return result

    @property
    def std(self) -> Floats:
        """(D,) population standard deviation; NaN where nothing was seen."""
        return np.sqrt(self.m2 / np.where(self.n > 0, self.n, np.nan))

    def quantile(self, q: float) -> Floats:
        """(D,) right to 0.1 % of its value, within min and max."""
        values = np.array([s.quantile(q) for s in self.sketches], np.float64).reshape(-1)
        return np.clip(values, self.min, self.max)

    def merge(self, other: FeatureStatistics) -> None:
        """Take in other rows (Chan, Golub and LeVeque 1979)."""
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        difference = other.mean - self.mean
        self.mean = self.mean + difference * share
        self.m2 = self.m2 + other.m2 + difference**2 * self.n * share
        self.n = n
        self.min, self.max = np.minimum(self.min, other.min), np.maximum(self.max, other.max)
        self.not_finite = self.not_finite + other.not_finite
        for mine, theirs in zip(self.sketches, other.sketches, strict=True):
            mine.merge(theirs)

    def to_dict(self) -> dict[str, Any]:
        return {
            "n": self.n.tolist(), "mean": self.mean.tolist(), "m2": self.m2.tolist(),
            "std": [None if np.isnan(s) else s for s in self.std.tolist()],
            "min": _finite(self.min), "max": _finite(self.max),
            "not_finite": self.not_finite.tolist(),
            "quantiles": {
                str(q): _finite(self.quantile(q)) for q in (LOW, 0.1, 0.5, 0.9, HIGH)
            },
            "sketches": [s.to_dict() for s in self.sketches],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureStatistics:
        return cls(
            np.array(data["n"], np.int64),
            np.array(data["mean"], np.float64),
            np.array(data["m2"], np.float64),
            np.array([np.inf if v is None else v for v in data["min"]], np.float64),
            np.array([-np.inf if v is None else v for v in data["max"]], np.float64),
            np.array(data["not_finite"], np.int64),
            [Sketch.from_dict(s) for s in data["sketches"]],
        )

    def _column(self, c: int, values: Floats, times: NDArray[np.int64]) -> None:
        finite = np.isfinite(values)
        self.not_finite[c] = int(times[~finite].sum())
        seen = finite & (times > 0)
        values, times = values[seen], times[seen]
        if not len(values):
            return
        self.n[c] = int(times.sum())
        self.min[c], self.max[c] = values.min(), values.max()
        # Sums of differences from one value of the column: exact enough for stamps and GPS, too.
        relative = values - values[0]
        mean = float((relative * times).sum() / self.n[c])
        self.mean[c] = values[0] + mean
        self.m2[c] = float((((relative - mean) ** 2) * times).sum())
        self.sketches[c].add(values, times)


@dataclass
class Statistics:
    """Statistics per key, and what they were computed from.

    split, fingerprint (of the episodes' contents), spec (its digest), episodes (ids).
    """

    features: dict[str, FeatureStatistics]
    split: str | None = None
    fingerprint: str = ""
    spec: str = ""
    episodes: list[str] = field(default_factory=list)

    def __getitem__(self, key: str) -> FeatureStatistics:
        return self.features[key]

    def merge(self, other: Statistics) -> None:
        """Take in statistics of other episodes."""
        for name, feature in other.features.items():
            if name in self.features:
                self.features[name].merge(feature)
            else:
                self.features[name] = feature
        self.episodes.extend(other.episodes)

    def scalings(self, spec: SampleSpec) -> dict[str, Scaling]:
        """Normalisation of every key that asks for one.

        mean_std: to mean 0, deviation 1. min_max, quantile: to [-1, 1] between the extremes, or
        between the 1 % and 99 % quantiles. A column that never changes is only shifted.
        Raises ConfigError for a key these statistics do not know.
        """
        result = {}
        for name, key in spec.keys.items():
            if key.normalise is None:
                continue
            if name not in self.features:
                raise ConfigError(
                    f"{name}: the statistics know {', '.join(self.features) or 'nothing'} only"
                )
            feature = self.features[name]
            if key.normalise == "mean_std":
                shift, spread = feature.mean, feature.std
            else:
                least, most = feature.min, feature.max
                if key.normalise == "quantile":
                    least, most = feature.quantile(LOW), feature.quantile(HIGH)
                shift, spread = (least + most) / 2, (most - least) / 2
            known = np.isfinite(shift) & np.isfinite(spread)
            scale = 1.0 / np.where(known & (spread > 0), spread, 1.0)
            result[name] = Scaling(np.where(known, shift, 0.0), scale)
        return result

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "spec": self.spec,
            "episodes": self.episodes,
            "features": {name: f.to_dict() for name, f in self.features.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statistics:
        """Raises ConfigError for a newer version."""
        if data["version"] > _VERSION:
            raise ConfigError(f"statistics of version {data['version']}; this reads {_VERSION}")
        return cls(
            {name: FeatureStatistics.from_dict(f) for name, f in data["features"].items()},
            data["split"],
            data["fingerprint"],
            data["spec"],
            list(data["episodes"]),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, replacing an older file whole."""
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        partial.write_text(json.dumps(self.to_dict(), separators=(",", ":")))
        partial.replace(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Raises FileNotFoundError, and ConfigError when the file holds no statistics."""
        try:
            return cls.from_dict(json.loads(Path(path).read_bytes()))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no statistics: {error}") from error


def compute_statistics(
    dataset: EpisodeDataset, *, workers: int = 0, image_every: int | None = None
) -> Statistics:
    """Statistics of every numeric key over all samples of a dataset, each slot as training sees it.

    A value counts as often as windows show it; padding does not count. image_every: also take
    image channels (0-255) of every that many samples; absent, images are left out.
    workers: processes. The result does not depend on how many.

    Raises ConfigError when the dataset is a split other than "train": what a model is normalised by
    must not have seen what it is judged on.
    """
    if dataset.split_name not in (None, "train"):
        raise ConfigError(
            f"statistics come from the training split, this is {dataset.split_name!r}"
        )
    plain = dataset.unnormalised()
    jobs = [(plain, number, image_every) for number in range(len(dataset.episodes))]
    total = Statistics({}, dataset.split_name, dataset.fingerprint, dataset.spec.digest)
    for part in _each(jobs, workers):
        total.merge(part)
    return total


def _each(
    jobs: Sequence[tuple[EpisodeDataset, int, int | None]], workers: int
) -> Iterator[Statistics]:
    if workers < 2:
        yield from map(_of_episode, jobs)
        return
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_set_dataset,
        initargs=(jobs[0][0],),
    ) as pool:
        yield from pool.map(_of_number, [j[1] for j in jobs], [j[2] for j in jobs], chunksize=4)


_dataset: list[EpisodeDataset] = []


def _set_dataset(dataset: EpisodeDataset) -> None:
    _dataset[:] = [dataset]


def _of_number(number: int, image_every: int | None) -> Statistics:
    return _of_episode((_dataset[0], number, image_every))


def _of_episode(job: tuple[EpisodeDataset, int, int | None]) -> Statistics:
    dataset, number, image_every = job
    data = dataset._load(number)
    features = {}
    for name, key in data.keys.items():
        if key.dense:
            width = max(1, int(np.prod(key.shape, dtype=np.int64)))
            if name in data.tables:
                slots = data.slots[name]
                shown = slots.index[data.kept][slots.mask[data.kept]]
                rows = data.tables[name][:-1].reshape(-1, width)
                features[name] = FeatureStatistics.of(rows, np.bincount(shown, minlength=len(rows)))
            else:
                features[name] = _by_sample(data, name, width)
        elif key.info.kind is Kind.IMAGE and image_every is not None:
            features[name] = _of_images(data, name, image_every)
    return Statistics(features, episodes=[dataset.episodes[number].episode_id])


def _by_sample(data: Any, name: str, width: int) -> FeatureStatistics:
    total = FeatureStatistics.empty(width)
    for first in range(0, len(data.kept), _PIECE):  # memory stays bounded for long signals
        rows = []
        for tick in data.kept[first : first + _PIECE]:
            part = data.key_sample(name, int(tick))
            mask = np.atleast_1d(part[f"{name}.mask"])
            rows.append(np.asarray(part[name]).reshape(len(mask), width)[mask])
        total.merge(FeatureStatistics.of(np.concatenate(rows)))
    return total


def _of_images(data: Any, name: str, every: int) -> FeatureStatistics:
    key = data.keys[name]
    channel_axis = 0 if key.image.layout == "chw" else -1
    channels = key.shape[channel_axis]
    histogram = np.zeros((256, channels), np.int64)
    for tick in data.kept[::every]:
        part = data.key_sample(name, int(tick))
        mask = np.atleast_1d(part[f"{name}.mask"])
        frames = np.asarray(part[name]).reshape(len(mask), *key.shape)[mask]
        for frame in frames:
            for c, plane in enumerate(np.moveaxis(frame, channel_axis, 0)):
                histogram[:, c] += np.bincount(plane.ravel(), minlength=256)
    values = np.repeat(np.arange(256, dtype=np.float64)[:, None], channels, axis=1)
    return FeatureStatistics.of(values, histogram)


def _finite(values: Floats) -> list[float | None]:
    return [v if np.isfinite(v) else None for v in values.tolist()]
