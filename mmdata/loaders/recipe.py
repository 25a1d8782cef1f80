"""Recipe: the one JSON that ships with a model, so that a robot makes the very same samples."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mmdata import __version__
from mmdata.align.online import OnlineAligner, Query, Window
from mmdata.errors import ConfigError
from mmdata.loaders.index import infos_from_json, infos_to_json
from mmdata.loaders.plan import Key, ListItems, Scaling, compile_keys, gather, gather_audio
from mmdata.loaders.spec import RateTimeline, SampleSpec
from mmdata.loaders.statistics import Statistics
from mmdata.streams import VIDEO_ENCODINGS, Kind, StreamInfo

if TYPE_CHECKING:
    from mmdata.loaders.dataset import EpisodeDataset

_VERSION = 1


class Recipe:
    """Spec, stream descriptions, statistics and fingerprint of what a model was trained on.

    >>> train.recipe().save("policy.recipe.json")
    >>> aligner = Recipe.load("policy.recipe.json").online()
    """

    def __init__(
        self,
        spec: SampleSpec,
        streams: Mapping[str, StreamInfo],
        shapes: Mapping[str, tuple[tuple[int, ...], str]],
        statistics: Statistics | None,
        fingerprint: str,
        split: str | None,
    ) -> None:
        self.spec = spec
        self.streams = dict(streams)
        self.shapes = dict(shapes)
        self.statistics = statistics
        self.fingerprint = fingerprint
        self.split = split

    @classmethod
    def of(cls, dataset: EpisodeDataset) -> Recipe:
        """The recipe of a dataset's samples."""
        keys = dataset.keys()
        return cls(
            dataset.spec,
            {key.info.name: key.info for key in keys.values()},
            {name: (key.shape, str(np.dtype(key.dtype).str)) for name, key in keys.items()},
            dataset.statistics,
            dataset.fingerprint,
            dataset.split_name,
        )

    def keys(self, observations: bool = True) -> dict[str, Key]:
        """Compiled keys: those a robot can fill, or all of them."""
        wanted = self.spec.observations if observations else self.spec.keys
        scalings: dict[str, Scaling] = {}
        if self.statistics is not None:
            scalings = self.statistics.scalings(self.spec)
        keys = compile_keys(wanted, self.streams, scalings)
        for name, key in keys.items():
            shape, dtype = self.shapes[name]
            key.shape, key.dtype = tuple(shape), dtype
        return keys

    def online(self) -> OnlineAligner:
        """An aligner for a running robot.

        Raises ConfigError when the spec looks ahead or says no delay_ms.
        """
        return OnlineAligner(ServingPlan(self))

    def restore(self, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
        """A normalised key (..., *shape) back in its unit: what a model's actions need."""
        key = self.keys(observations=False)[name]
        flat = np.asarray(values, np.float64)
        if key.scaling is None:
            return flat
        width = len(key.scaling.shift)
        restored = flat.reshape(-1, width) / key.scaling.scale + key.scaling.shift
        return np.asarray(restored.reshape(flat.shape))

    # -- as a file ---------------------------------------------------------------------------

    def to_json(self) -> str:
        """The recipe as JSON. Order is kept: a spec's first observation may make the ticks."""
        document = {
            "format": "mmdata-recipe",
            "version": _VERSION,
            "created_by": f"mmdata {__version__}",
            "spec": self.spec.model_dump(mode="json"),
            "streams": infos_to_json(self.streams),
            "shapes": {name: [list(shape), dtype] for name, (shape, dtype) in self.shapes.items()},
            "statistics": None if self.statistics is None else self.statistics.to_dict(),
            "fingerprint": self.fingerprint,
            "split": self.split,
        }
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Raises ConfigError when the document is no recipe this version reads."""
        try:
            document = json.loads(text)
            if document["format"] != "mmdata-recipe" or document["version"] > _VERSION:
                raise ConfigError(
                    f"a recipe of version {document['version']}; this mmdata reads {_VERSION}"
                )
            return cls(
                SampleSpec.model_validate(document["spec"]),
                infos_from_json(document["streams"]),
                {name: (tuple(s), d) for name, (s, d) in document["shapes"].items()},
                None
                if document["statistics"] is None
                else Statistics.from_dict(document["statistics"]),
                document["fingerprint"],
                document["split"],
            )
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise ConfigError(f"not a recipe: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe, replacing an older one whole."""
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        partial.write_text(self.to_json())
        partial.replace(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Raises FileNotFoundError, and ConfigError when the file is no recipe."""
        return cls.from_json(Path(path).read_bytes())


class ServingPlan:
    """What an `OnlineAligner` runs (`mmdata.align.online.Plan`): the dataset's own functions."""

    def __init__(self, recipe: Recipe) -> None:
        spec = recipe.spec
        if spec.delay_ns is None:
            raise ConfigError(
                "the spec says no delay_ms: how long after a tick the robot waits for its samples; "
                "training must have used it, too"
            )
        self.spec = spec
        self.keys = recipe.keys()
        self.queries: dict[str, Query] = {name: key.query for name, key in self.keys.items()}
        self.delay_ns: int = spec.delay_ns
        self.tick_stream: str = spec.tick_stream
        self.rate_hz: float | None = (
            spec.timeline.rate_hz if isinstance(spec.timeline, RateTimeline) else None
        )
        self._decoders: dict[str, Any] = {}

    def prepare(self, stream: str, sample: Any) -> dict[str, Any]:
        """One message, processed for every key that reads its stream."""
        keys = [key for key in self.keys.values() if key.info.name == stream]
        if keys and keys[0].info.encoding in VIDEO_ENCODINGS and isinstance(sample, bytes):
            sample = self._decode(keys[0].info, sample)
        prepared = {key.name: key.process(sample) for key in keys}
        if keys and keys[0].info.kind is Kind.AUDIO:
            return {key.name: np.asarray(sample) for key in keys}
        return prepared

    def assemble(self, tick_ns: int, rows: Mapping[str, Window]) -> dict[str, Any]:
        """The observations of one tick."""
        sample: dict[str, Any] = {"tick_ns": np.int64(tick_ns)}
        for name, key in self.keys.items():
            seen = rows[name]
            if key.info.kind is Kind.AUDIO:
                stamps = seen.stamps
                sample.update(gather_audio(key, seen.items, seen.index, tick_ns, stamps))
            elif key.info.kind is Kind.SWEEP or key.text:
                sample.update(gather(key, seen.items, seen.index))
            else:
                sample.update(gather(key, ListItems(seen.items), seen.index))
        return sample

    def _decode(self, info: StreamInfo, packet: bytes) -> NDArray[Any]:
        from mmdata.loaders.video import LiveDecoder

        if info.name not in self._decoders:
            extradata = info.attrs.get("extradata")
            self._decoders[info.name] = LiveDecoder(info.encoding or "", extradata)
        frame: NDArray[Any] = self._decoders[info.name].frame(packet)
        return frame
