"""Configuration files a user writes: one pydantic model per file, unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmdata.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StreamConfig(_Strict):
    """What to do with one topic."""

    name: str | None = Field(None, description="stream name instead of the one from the topic")
    drop: bool = Field(False, description="leave the topic out (it is counted as dropped)")
    units: dict[str, str] = Field(default_factory=dict, description="unit per field")
    stamp_meaning: str | None = Field(
        None, description="exposure_mid, exposure_start, sweep_start, sweep_end or sample"
    )
    frame_id: str | None = Field(None, description="coordinate frame, where the log has none")


class SensorConfig(_Strict):
    """Calibration of one sensor, for logs that lack it. Nothing given means nothing known."""

    frame_id: str | None = None
    parent: str | None = Field(None, description="frame the sensor is mounted on")
    parent_SE3_sensor: list[float] | None = Field(  # noqa: N815 (named as every transform)
        None, min_length=7, max_length=7, description="x y z qw qx qy qz"
    )
    model: Literal["pinhole", "brown_conrady", "fisheye"] | None = None
    K: list[list[float]] | None = Field(None, description="3 x 3 intrinsic matrix")
    distortion: list[float] = Field(default_factory=list)
    width: int | None = None
    height: int | None = None


class TimelineConfig(_Strict):
    """One aligned view: at a fixed rate or on the stamps of a stream."""

    name: str | None = None
    rate_hz: float | None = Field(None, gt=0)
    reference_stream: str | None = None
    lookahead: bool = Field(False, description="interpolate signals; not causal")
    policies: dict[str, Literal["previous", "nearest", "linear", "slerp"]] = Field(
        default_factory=dict
    )
    tolerances_ms: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_base(self) -> TimelineConfig:
        if (self.rate_hz is None) == (self.reference_stream is None):
            raise ValueError("give either rate_hz or reference_stream")
        return self


class SplitConfig(_Strict):
    """Where one recording becomes several episodes."""

    topic: str | None = Field(None, description="each message of this topic starts an episode")
    gap_s: float | None = Field(None, gt=0, description="a pause this long ends an episode")
    clip_s: float | None = Field(None, gt=0, description="clips of this length")


class ConvertConfig(_Strict):
    """`mmdata convert --config FILE`; `mmdata config init LOG` writes a first one."""

    streams: dict[str, StreamConfig] = Field(default_factory=dict, description="by topic")
    rig: dict[str, SensorConfig] = Field(default_factory=dict, description="by sensor name")
    metadata: dict[str, Any] = Field(default_factory=dict, description="task, robot, operator ...")
    timelines: list[TimelineConfig] | None = Field(
        None, description="aligned views; one at the camera's rate when left out, [] for none"
    )
    split: SplitConfig = SplitConfig(topic=None, gap_s=None, clip_s=None)
    stamps: Literal["auto", "header", "receive"] = "auto"
    clock: Literal["keep", "fit"] = Field(
        "keep", description="fit: map each header clock to the receive clock by its least delays"
    )
    profile: Literal["default", "interchange"] = "default"
    images: Literal["keep", "h264", "jpeg", "lossless"] = Field(
        "keep", description="keep: compressed frames as they are, raw 8-bit frames as H.264"
    )


def read_config(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into its model. Raises ConfigError naming the line or key at fault."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
