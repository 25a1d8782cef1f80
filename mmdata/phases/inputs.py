"""The arrays the phase pipeline works on, whatever file or robot they came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Series:
    """One measured quantity: stamp_ns (N,) i8 ascending, values (N,) or (N, C) float64.

    `source` names the stream and field it was taken from.
    """

    stamp_ns: Stamps
    values: Floats
    source: str = ""


@dataclass(frozen=True, slots=True)
class Audio:
    """Mono sound: samples (S,) float, sample_rate_hz, and when each block of it began.

    block_start (B,) i8 is the index of each block's first sample; block_ns (B,) i8 its stamp.
    """

    samples: Floats
    sample_rate_hz: float
    block_start: NDArray[np.int64]
    block_ns: Stamps
    source: str = ""


@dataclass(frozen=True, slots=True)
class Effector:
    """One hand, gripper or instrument. Whatever the episode lacks is None.

    position (N, 3) m in a fixed frame, z taken as up; orientation (N, 4) qw qx qy qz;
    joints (N, J) rad; width (N,) any unit, larger is more open; command (N,) any unit;
    wrench (N, 6) N and Nm in the sensor's frame; touch (N, K) tactile cells, any unit.
    """

    name: str
    position: Series | None = None
    orientation: Series | None = None
    joints: Series | None = None
    width: Series | None = None
    command: Series | None = None
    wrench: Series | None = None
    touch: Series | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """A vehicle or mobile base: speed (N,) m/s, signed where known; yaw_rate (N,) rad/s;

    lead_gap (N,) m to whoever drives ahead; lateral (N,) m across the lane or road.
    """

    speed: Series | None = None
    yaw_rate: Series | None = None
    lead_gap: Series | None = None
    lateral: Series | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """All signals of one episode that phases can use, and where each came from."""

    start_ns: int
    end_ns: int
    effectors: tuple[Effector, ...] = ()
    base: Base | None = None
    audio: Audio | None = None
    task: str = ""
    notes: tuple[str, ...] = field(default=())

    def used(self) -> dict[str, str]:
        """Signal name -> stream and field it comes from."""
        found: dict[str, str] = {}
        for e in self.effectors:
            for name in (
                "position",
                "orientation",
                "joints",
                "width",
                "command",
                "wrench",
                "touch",
            ):
                series: Series | None = getattr(e, name)
                if series is not None:
                    found[f"{e.name}.{name}"] = series.source
        if self.base is not None:
            for name in ("speed", "yaw_rate", "lead_gap", "lateral"):
                series = getattr(self.base, name)
                if series is not None:
                    found[f"base.{name}"] = series.source
        if self.audio is not None:
            found["audio"] = self.audio.source
        return found
