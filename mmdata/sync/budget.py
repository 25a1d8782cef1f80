"""How much time error is allowed: a YAML file, or its defaults.

A limit is either milliseconds per kind of pair, or a spatial budget: the offset that moves things
by at most ``e_max_m`` at the speeds of this very recording, e_max / (v95 + w95 * r).
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmdata.errors import ConfigError

Verdict = Literal["PASSED", "FAILED", "NOT_ASSESSED"]

DEFAULT_LIMITS_MS = {
    "camera_motion": 20.0,
    "camera_camera": 20.0,
    "camera_gyro": 10.0,
    "force_tactile": 10.0,
    "audio_contact": 20.0,
    "lidar_motion": 10.0,
    "kinematics": 10.0,
    "label_reprojection": 10.0,
}


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpatialBudget(Model):
    """Largest displacement a time error may cause, and the lever arm of rotations."""

    e_max_m: float = Field(gt=0)
    radius_m: float = Field(default=0.0, ge=0)

    def limit_ms(self, v95_m_s: float, w95_rad_s: float) -> float | None:
        """Offset that uses the budget up; None for a recording in which nothing moves."""
        speed = v95_m_s + w95_rad_s * self.radius_m
        return self.e_max_m / speed * 1e3 if speed > 0 else None


class AudioVideoBudget(Model):
    """Window of sound against picture. Defaults: detectability thresholds of ITU-R BT.1359-1.

    The acceptability thresholds there are 90 and 185 ms.
    """

    sound_early_ms: float = Field(default=45.0, ge=0)
    sound_late_ms: float = Field(default=125.0, ge=0)


class PairLimit(Model):
    """Limit for one pair of streams by name; ``*`` and ``?`` match as in file names."""

    a: str
    b: str
    limit_ms: float = Field(gt=0)


class Budget(Model):
    """Limits of a dataset. Every key may be left out."""

    confidence_sigmas: float = Field(default=2.0, gt=0)
    """A verdict needs the whole interval offset +- this many sigmas on one side of the limit."""
    limits_ms: dict[str, float] = Field(default_factory=dict)
    """By kind of pair; replaces single defaults."""
    pairs: list[PairLimit] = Field(default_factory=list)
    spatial: SpatialBudget | None = None
    audio_video: AudioVideoBudget = AudioVideoBudget()
    response_early_ms: float = Field(default=10.0, ge=0)
    """A response may precede its command by this much; how late it is depends on the robot."""

    def window_ms(
        self, kind: str, a: str, b: str, v95_m_s: float | None = None, w95_rad_s: float = 0.0
    ) -> tuple[float, float] | None:
        """Lowest and highest allowed offset of (a, b); None where no limit applies.

        A named pair goes first, then the audio-video window, then the spatial budget where speeds
        are known, then the kind's milliseconds.
        """
        for pair in self.pairs:
            if fnmatchcase(a, pair.a) and fnmatchcase(b, pair.b):
                return -pair.limit_ms, pair.limit_ms
            if fnmatchcase(b, pair.a) and fnmatchcase(a, pair.b):
                return -pair.limit_ms, pair.limit_ms
        if kind == "audio_video":
            return -self.audio_video.sound_early_ms, self.audio_video.sound_late_ms
        if kind == "command_response" and kind not in self.limits_ms:
            return -self.response_early_ms, math.inf
        limit = None
        if self.spatial is not None and v95_m_s is not None:
            limit = self.spatial.limit_ms(v95_m_s, w95_rad_s)
        if limit is None:
            limit = {**DEFAULT_LIMITS_MS, **self.limits_ms}.get(kind)
        return None if limit is None else (-limit, limit)

    def judge(
        self, offset_ms: float, sigma_ms: float, window_ms: tuple[float, float] | None
    ) -> tuple[Verdict, str]:
        """Verdict and its reason; NOT_ASSESSED where the interval straddles a limit."""
        if window_ms is None:
            return "NOT_ASSESSED", "no limit is set for this kind of pair"
        low, high = window_ms
        reach = self.confidence_sigmas * sigma_ms
        limit = f"[{low:+.1f}, {high:+.1f}] ms"
        found = f"{offset_ms:+.1f} ± {reach:.1f} ms"
        if low <= offset_ms - reach and offset_ms + reach <= high:
            return "PASSED", f"{found} lies within {limit}"
        if offset_ms - reach > high or offset_ms + reach < low:
            return "FAILED", f"{found} lies outside {limit}"
        return "NOT_ASSESSED", f"{found} does not decide about {limit}"


def read_budget(path: str | Path) -> Budget:
    """Read a budget YAML. Raises ConfigError with the key that is wrong."""
    return parse_budget(read_yaml(path), path)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it is none or cannot be read."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}".replace("\n", " ")) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values; see docs/sync.md, Budgets")
    return values


def parse_budget(values: dict[str, Any], source: str | Path) -> Budget:
    """A budget from parsed YAML. Raises ConfigError naming ``source`` and the wrong key."""
    try:
        return Budget.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{source}: {where}: {first['msg']}; see docs/sync.md, Budgets"
        ) from error
