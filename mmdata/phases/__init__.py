"""Signals -> contacts and change points -> phases and events, and how well they are found.

>>> from mmdata.phases import segment
>>> found = segment(episode)
>>> [(p.label, p.start_ns, p.end_ns) for p in found.phases]
"""

from mmdata.phases.metrics import Interval, evaluate, score_episode
from mmdata.phases.segment import Event, Phase, Segmentation, segment, segment_inputs
from mmdata.phases.settings import Settings

__all__ = [
    "Event",
    "Interval",
    "Phase",
    "Segmentation",
    "Settings",
    "evaluate",
    "score_episode",
    "segment",
    "segment_inputs",
]
