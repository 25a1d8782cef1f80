"""Synchronisation as evidence: stream health, clock maps, content-based offsets, the ledger.

The names here load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.sync.assess import assess as assess
    from mmdata.sync.budget import Budget as Budget
    from mmdata.sync.budget import read_budget as read_budget
    from mmdata.sync.clockmap import ClockFit as ClockFit
    from mmdata.sync.clockmap import apply_windows as apply_windows
    from mmdata.sync.clockmap import fit_clock as fit_clock
    from mmdata.sync.clockmap import fit_clock_windows as fit_clock_windows
    from mmdata.sync.clockmap import fit_streams as fit_streams
    from mmdata.sync.content import ContentConfig as ContentConfig
    from mmdata.sync.correlate import OffsetEstimate as OffsetEstimate
    from mmdata.sync.correlate import Signal as Signal
    from mmdata.sync.correlate import correlate as correlate
    from mmdata.sync.health import latency_health as latency_health
    from mmdata.sync.health import stamp_health as stamp_health
    from mmdata.sync.ledger import Ledger as Ledger
    from mmdata.sync.report import render_report as render_report
    from mmdata.sync.report import section as section

_HOMES = {
    "assess": "assess",
    "Budget": "budget",
    "read_budget": "budget",
    "ClockFit": "clockmap",
    "apply_windows": "clockmap",
    "fit_clock": "clockmap",
    "fit_clock_windows": "clockmap",
    "fit_streams": "clockmap",
    "ContentConfig": "content",
    "OffsetEstimate": "correlate",
    "Signal": "correlate",
    "correlate": "correlate",
    "latency_health": "health",
    "stamp_health": "health",
    "Ledger": "ledger",
    "render_report": "report",
    "section": "report",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mmdata.sync.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mmdata.sync' has no attribute {name!r}")
