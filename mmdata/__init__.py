"""mmdata: raw robot and vehicle logs into time-aligned, checked, training-ready episodes.

The names here are the public API; everything behind them loads on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmdata.episode import AlignedView as AlignedView
    from mmdata.episode import Episode as Episode
    from mmdata.episode import Timeline as Timeline
    from mmdata.errors import MmdataError as MmdataError
    from mmdata.geometry import SE3 as SE3
    from mmdata.geometry import Rig as Rig
    from mmdata.store import EpisodeWriter as EpisodeWriter
    from mmdata.store import open_episode as open_episode
    from mmdata.store import recover as recover
    from mmdata.store import verify_episode as verify_episode
    from mmdata.streams import Kind as Kind
    from mmdata.streams import Ragged as Ragged
    from mmdata.streams import Stream as Stream
    from mmdata.streams import StreamInfo as StreamInfo

_HOMES = {
    "AlignedView": "mmdata.episode",
    "Episode": "mmdata.episode",
    "Timeline": "mmdata.episode",
    "MmdataError": "mmdata.errors",
    "SE3": "mmdata.geometry",
    "Rig": "mmdata.geometry",
    "EpisodeWriter": "mmdata.store",
    "open_episode": "mmdata.store",
    "recover": "mmdata.store",
    "verify_episode": "mmdata.store",
    "Kind": "mmdata.streams",
    "Ragged": "mmdata.streams",
    "Stream": "mmdata.streams",
    "StreamInfo": "mmdata.streams",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mmdata' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
