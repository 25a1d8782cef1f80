"""SampleSpec: what one training sample is. Training and serving read the same one."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmdata.clocks import SECOND_NS, Stamps
from mmdata.episode import Policy
from mmdata.errors import ConfigError

Normalise = Literal["mean_std", "min_max", "quantile"]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredTimeline(_Model):
    """A timeline that lies in the episodes, by name ("30hz")."""

    name: str


class RateTimeline(_Model):
    """Ticks at a fixed rate on the clock's own grid, while stream `span` lasts.

    span: absent, the stream of the first observation.
    """

    rate_hz: Positive
    span: str | None = None


class ReferenceTimeline(_Model):
    """One tick per sample of a stream."""

    reference_stream: str


Timeline = StoredTimeline | RateTimeline | ReferenceTimeline


class Range(_Model):
    """`steps` slots from start_s on, 1 / rate_hz apart. Audio takes its own rate."""

    start_s: float = 0.0
    steps: Count
    rate_hz: Positive | None = None


#: Slots of a window, in seconds after the tick: one, a list, or a range.
Offsets = float | tuple[float, ...] | Range


def offsets_ns(at: Offsets, default_rate_hz: float | None = None) -> Stamps:
    """(K,) i8 slots of a window. Raises ConfigError for a range without any rate."""
    if isinstance(at, Range):
        rate = at.rate_hz or default_rate_hz
        if rate is None:
            raise ConfigError("a range needs rate_hz (only audio has a rate of its own)")
        seconds = at.start_s + np.arange(at.steps) / rate
    else:
        seconds = np.atleast_1d(np.asarray(at, np.float64))
    return np.rint(seconds * SECOND_NS).astype(np.int64)


class ImageSpec(_Model):
    """From a stored frame to what a model sees: crop (pixels), then resize, then layout.

    size_hw: absent, as stored. fast: let the JPEG decoder shrink the frame on the way to a smaller
    size (frames that are not cropped); quicker, and not the same pixels as resizing the full frame.
    """

    crop_tlhw: tuple[int, int, Count, Count] | None = None
    size_hw: tuple[Count, Count] | None = None
    layout: Literal["chw", "hwc"] = "chw"
    fast: bool = False


class SweepSpec(_Model):
    """From a ragged sweep to (points, F) float32 of the chosen fields, and a mask of real points.

    pad      the first `points` points, the rest is zero
    sample   `points` points drawn without repetition where there are enough; which ones depends
             on the sweep's content alone, so serving draws the same
    voxel    mean of the points in each occupied voxel, in order of voxel, then as pad;
             the first three fields are the coordinates

    bounds: ((x, y, z) least, (x, y, z) most) of the points that count; first three fields.
    """

    fields: tuple[str, ...]
    points: Count
    mode: Literal["pad", "sample", "voxel"] = "sample"
    voxel_m: Positive | None = None
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.mode == "voxel") != (self.voxel_m is not None):
            raise ValueError("voxel_m goes with mode 'voxel', and only with it")
        if (self.mode == "voxel" or self.bounds) and len(self.fields) < 3:
            raise ValueError("voxels and bounds need x, y and z as the first three fields")
        return self


class KeySpec(_Model):
    """One entry of a sample: a stream (or some of its fields) over a window.

    A sample holds `<key>` with shape (K, ...) for K slots and `<key>.mask` (K,) bool, False where
    no sample belongs to the slot. With a single number as `at` there is no leading K.

    policy, tolerance_ms   which sample belongs to a slot, and how far off it may be
    pad                    what an empty slot holds: its neighbour in the window, or zero
    target                 what the model learns to give; it may look ahead and is not served
    fields                 signals: these, flattened and side by side; absent, all of them
    normalise              signals: by the training split's statistics
    dtype                  signals: float32 or float64; absent, float32
    """

    stream: str
    fields: tuple[str, ...] | None = None
    at: Offsets = 0.0
    policy: Policy = "previous"
    tolerance_ms: Positive | None = None
    pad: Literal["hold", "zero"] = "hold"
    target: bool = False
    normalise: Normalise | None = None
    dtype: Literal["float32", "float64"] = "float32"
    image: ImageSpec | None = None
    sweep: SweepSpec | None = None

    @property
    def single(self) -> bool:
        """Whether the window is one slot without a leading dimension."""
        return isinstance(self.at, float | int)

    def offset_ns(self, default_rate_hz: float | None = None) -> Stamps:
        """(K,) i8 slots after the tick. default_rate_hz serves ranges without a rate."""
        return offsets_ns(self.at, default_rate_hz)

    @property
    def tolerance_ns(self) -> int | None:
        return None if self.tolerance_ms is None else round(self.tolerance_ms * 1e6)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if isinstance(self.at, tuple) and not self.at:
            raise ValueError("a window has at least one slot")
        if self.image is not None and self.sweep is not None:
            raise ValueError("a key is an image or a sweep, not both")
        return self


class LabelSpec(_Model):
    """A column of what is known about a tick or its episode; never served.

    phase         i8 position in `classes` of the phase at each slot, -1 for none or another;
                  `layer` and `tier` say which annotations
    instruction   str: caption of style "instruction" at the tick, else metadata; "" unknown
    success       i1: 1, 0, or -1 when nobody said
    metadata      str of metadata entry `name`; "" when absent
    """

    kind: Literal["phase", "instruction", "success", "metadata"]
    layer: str | None = None
    tier: str | None = None
    classes: tuple[str, ...] = ()
    name: str | None = None
    at: Offsets = 0.0

    def offset_ns(self) -> Stamps:
        """(K,) i8 slots after the tick."""
        return offsets_ns(self.at)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.kind == "phase" and not self.classes:
            raise ValueError("a phase column needs its classes, in order")
        if self.kind == "metadata" and not self.name:
            raise ValueError("a metadata column needs a name")
        return self


class PhaseFilter(_Model):
    """Keep ticks inside a phase of one of these labels."""

    labels: tuple[str, ...]
    layer: str | None = None
    tier: str | None = None


class Filters(_Model):
    """Which ticks become samples.

    complete          no observation slot is empty
    max_residual_ms   no observation slot is further than this from its sample
    phase             inside these phases
    min_grade         episodes graded at least so ("A" is best); ungraded ones are left out
    metadata          episodes whose metadata entry has one of these values
    """

    complete: bool = True
    max_residual_ms: Positive | None = None
    phase: PhaseFilter | None = None
    min_grade: Literal["A", "B", "C", "D", "F"] | None = None
    metadata: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class SampleSpec(_Model):
    """What a sample is.

    >>> SampleSpec(
    ...     timeline={"rate_hz": 30},
    ...     keys={
    ...         "image": {"stream": "camera_front", "at": [-0.1, 0.0]},
    ...         "state": {"stream": "joint_states", "fields": ["position"]},
    ...         "action": {"stream": "command", "at": {"steps": 16, "rate_hz": 30}, "target": True},
    ...     },
    ... )

    delay_ms: how long after a tick a robot waits for its samples. What the log received later does
    not belong to the tick. Absent: arrival times play no part, and the spec cannot be served.
    """

    timeline: Timeline
    keys: dict[str, KeySpec]
    labels: dict[str, LabelSpec] = Field(default_factory=dict)
    filters: Filters = Filters()
    delay_ms: Annotated[float, Field(ge=0)] | None = None

    @property
    def delay_ns(self) -> int | None:
        return None if self.delay_ms is None else round(self.delay_ms * 1e6)

    @property
    def observations(self) -> dict[str, KeySpec]:
        """The keys a robot has, too."""
        return {name: key for name, key in self.keys.items() if not key.target}

    @property
    def tick_stream(self) -> str:
        """The stream that makes or spans the ticks (of a stored timeline: the first key's)."""
        if isinstance(self.timeline, ReferenceTimeline):
            return self.timeline.reference_stream
        if isinstance(self.timeline, RateTimeline) and self.timeline.span:
            return self.timeline.span
        return next(iter((self.observations or self.keys).values())).stream

    @property
    def digest(self) -> str:
        """sha256 of the spec: equal specs, equal samples."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.keys:
            raise ValueError("a sample needs at least one key")
        names = [*self.keys, *self.labels]
        clash = {"tick_ns", "episode", "tick"} & set(names)
        if clash or len(set(names)) < len(names):
            raise ValueError(f"key names clash: {', '.join(sorted(clash or names))}")
        for name, key in self.observations.items():
            if self.delay_ms is not None and key.policy != "previous":
                raise ValueError(f"{name}: with delay_ms, observations have policy 'previous'")
        return self
