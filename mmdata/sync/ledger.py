"""The ledger: what is known about the timing of one episode, per stream and per pair.

Its dictionary form is what the file keeps under /sync and what ``mmdata check --json`` prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdata.sync.budget import Budget, Verdict
from mmdata.sync.correlate import OffsetEstimate

LEDGER_VERSION = "1.0"
CONSISTENT_CHI2 = 9.0
"""Two methods that differ by more than three of their combined sigmas do not agree."""


@dataclass(frozen=True)
class PairEntry:
    """Offset of stream b against stream a: stamp_b - stamp_a of one event, positive when b is late.

    ``offset_ms`` is None when every method abstained; then ``reason`` says why.
    """

    a: str
    b: str
    kind: str
    estimates: tuple[OffsetEstimate, ...]
    offset_ms: float | None
    sigma_ms: float | None
    method: str
    verdict: Verdict
    reason: str
    window_ms: tuple[float, float] | None = None
    skew_ppm: float | None = None
    skew_sigma_ppm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "a": self.a,
            "b": self.b,
            "kind": self.kind,
            "offset_ms": _rounded(self.offset_ms),
            "sigma_ms": _rounded(self.sigma_ms),
            "method": self.method,
            "verdict": self.verdict,
            "reason": self.reason,
        }
        if self.window_ms is not None:
            ends = (limit if np.isfinite(limit) else None for limit in self.window_ms)
            out["limit_ms"] = [_rounded(limit) for limit in ends]
        if self.skew_ppm is not None:
            out["skew_ppm"] = _rounded(self.skew_ppm)
            out["skew_sigma_ppm"] = _rounded(self.skew_sigma_ppm)
        if self.estimates:
            out["methods"] = [_estimate(e) for e in self.estimates]
        return out


@dataclass(frozen=True)
class StreamEntry:
    """What the stamps of one stream say: health on both clocks, latency, map to the host clock."""

    name: str
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **self.facts}


@dataclass(frozen=True)
class Ledger:
    """Entries per stream and per pair. ``verdict`` is that of the pairs."""

    streams: tuple[StreamEntry, ...]
    pairs: tuple[PairEntry, ...]
    speeds: Mapping[str, float] = field(default_factory=dict)
    """v95_m_s and w95_rad_s of the recording, where known: what spatial budgets used."""

    @property
    def verdict(self) -> Verdict:
        verdicts = {pair.verdict for pair in self.pairs}
        if "FAILED" in verdicts:
            return "FAILED"
        return "PASSED" if "PASSED" in verdicts else "NOT_ASSESSED"

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": LEDGER_VERSION,
            "verdict": self.verdict,
            "convention": "offset = stamp_b - stamp_a of one event; positive: b is late",
            "speeds": dict(self.speeds),
            "streams": [stream.to_dict() for stream in self.streams],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }

    def pair(self, a: str, b: str) -> PairEntry | None:
        """The entry of (a, b) in this order."""
        return next((p for p in self.pairs if (p.a, p.b) == (a, b)), None)


def fuse(estimates: Sequence[OffsetEstimate]) -> tuple[float, float, str] | str:
    """(offset_ns, sigma_ns, methods) of all methods that answered, or the reason why there is none.

    Inverse-variance mean. Methods that look at the same two streams share their errors, so sigma
    never falls below the best single one; where they disagree (chi-squared per pair of methods
    over 9) there is no answer.
    """
    known = [e for e in estimates if e.offset_ns is not None and e.sigma_ns is not None]
    if not known:
        reasons = "; ".join(f"{e.method}: {e.reason}" for e in estimates)
        return reasons or "no method applies"
    offsets = np.array([e.offset_ns for e in known], np.float64)
    sigmas = np.array([e.sigma_ns for e in known], np.float64)
    difference = offsets[:, None] - offsets[None, :]
    chi2 = difference**2 / (sigmas[:, None] ** 2 + sigmas[None, :] ** 2)
    if chi2.max() > CONSISTENT_CHI2:
        values = ", ".join(
            f"{e.method} {o / 1e6:+.1f} ± {s / 1e6:.1f} ms"
            for e, o, s in zip(known, offsets, sigmas, strict=True)
        )
        return f"methods contradict each other: {values}"
    weights = sigmas**-2
    offset = float(np.sum(weights * offsets) / np.sum(weights))
    inflate = max(1.0, float(np.sqrt(chi2.max())))
    return offset, float(sigmas.min()) * inflate, "+".join(e.method for e in known)


def pair_entry(
    a: str,
    b: str,
    kind: str,
    estimates: Sequence[OffsetEstimate],
    budget: Budget,
    speeds: Mapping[str, float],
) -> PairEntry:
    """Fuse the estimates of one pair and judge the result against the budget."""
    window = budget.window_ms(kind, a, b, speeds.get("v95_m_s"), speeds.get("w95_rad_s", 0.0))
    fused = fuse(estimates)
    if isinstance(fused, str):
        methods = "+".join(e.method for e in estimates) or kind
        return PairEntry(
            a, b, kind, tuple(estimates), None, None, methods, "NOT_ASSESSED", fused, window
        )
    offset, sigma, methods = fused
    verdict, reason = budget.judge(offset / 1e6, sigma / 1e6, window)
    return PairEntry(
        a, b, kind, tuple(estimates), offset / 1e6, sigma / 1e6, methods, verdict, reason, window
    )


def _estimate(estimate: OffsetEstimate) -> dict[str, Any]:
    out: dict[str, Any] = {"method": estimate.method}
    if estimate.offset_ns is not None and estimate.sigma_ns is not None:
        out["offset_ms"] = _rounded(estimate.offset_ns / 1e6)
        out["sigma_ms"] = _rounded(estimate.sigma_ns / 1e6)
    else:
        out["abstained"] = estimate.reason
    out["tests"] = {k: _rounded(v) for k, v in estimate.tests.items() if np.isfinite(v)}
    return out


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
