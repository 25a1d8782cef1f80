"""Rules about the time of streams against each other (TIM): offsets, steps, sweeps, alignment.

They read the synchronisation ledger; without one every rule that needs it is NOT_ASSESSED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmdata.checks import (
    GBZ,
    Context,
    Detail,
    Outcome,
    Severity,
    check,
    failed,
    not_assessed,
    passed,
)
from mmdata.checks.places import instants, most
from mmdata.episode import NO_RESIDUAL
from mmdata.streams import Kind, Ragged


@check("TIM015", title="Streams of one rate keep step", severity=Severity.WARNING)
def lockstep(context: Context) -> Iterator[Outcome]:
    """Streams of nearly the same rate are often sampled by one trigger. Where their periods differ
    by more than two crystals can, one of their clocks runs off, in sensor and receive stamps alike.
    Sensors that run freely on cheap oscillators differ as well: judge by what you know of them."""
    limit = context.limits.lockstep_ppm
    for pair in context.ledger.get("pairs", ()):
        if pair["kind"] != "lockstep":
            continue
        skew, sigma = pair["skew_ppm"], pair["skew_sigma_ppm"]
        if abs(skew) - 2 * sigma > limit:
            outcome = failed
        else:
            outcome = passed if abs(skew) + 2 * sigma <= limit else not_assessed
        text = f"against {pair['a']}: {pair['reason']}"
        yield outcome(text, pair["b"], value=round(skew, 3), limit=limit)


@check("TIM016", title="Streams agree in time by content", severity=Severity.ERROR,
       clause=f"{GBZ} 6.1.1f")  # fmt: skip
def content_offsets(context: Context) -> Iterator[Outcome]:
    """Offset between two streams that saw the same motion or impact, with its uncertainty, against
    the budget. The only check that sees a latency baked into both clocks. NOT_ASSESSED wherever a
    confidence test fails or the uncertainty straddles the limit."""
    if not context.ledger:
        yield not_assessed("no ledger: run the assessment first")
    for pair in context.ledger.get("pairs", ()):
        if pair["kind"] == "lockstep":
            continue
        known = pair["offset_ms"] is not None
        text = f"{pair['method']}: {pair['reason']}" if known else pair["reason"]
        low, high = pair.get("limit_ms", (None, None))
        limit = low if known and pair["offset_ms"] < 0 else high
        outcome = {"PASSED": passed, "FAILED": failed}.get(pair["verdict"], not_assessed)
        sides = [_side(pair[s]) for s in ("a", "b")]
        yield outcome(
            text, f"{pair['a']}/{pair['b']}", value=pair["offset_ms"], limit=limit, details=sides
        )


def _side(name: str) -> Detail:
    """One of a pair: a stream, or an annotation layer."""
    group, _, layer = name.partition("/")
    return Detail(layer=layer) if group == "annotations" else Detail(name)


@check("TIM017", title="Points span the sweep", severity=Severity.WARNING)
def sweep_span(context: Context) -> Iterator[Outcome]:
    """The times of a sweep's points should span the sweep period. Half of it or twice of it means
    wrong units, merged sensors, or stamps relative to something else; deskewing would then distort
    instead of straighten. Streams without point times are NOT_ASSESSED."""
    low, high = context.limits.sweep_span
    for name, stream in context.episode.streams.items():
        # A planar scanner need not look all around, so only point clouds are judged.
        if stream.kind is not Kind.SWEEP or len(stream) < 2 or "z" not in stream.fields:
            continue
        if "point_offset_ns" not in stream.fields:
            yield not_assessed("points carry no time, so sweeps cannot be deskewed", name)
            continue
        period = float(np.median(np.diff(stream.stamp_ns)))
        chosen = np.unique(np.linspace(0, len(stream) - 1, min(len(stream), 8)).astype(int))
        spans = []
        for i in chosen:
            offsets = stream.field("point_offset_ns", int(i), int(i) + 1)
            values = offsets.data if isinstance(offsets, Ragged) else offsets
            spans.append(float(np.ptp(values.astype(np.int64))) if len(values) else 0.0)
        ratio = float(np.median(spans)) / period if period > 0 else float("inf")
        text = (
            f"points span {np.median(spans) / 1e9:.3f} s ({max(spans) / 1e9:.3f} s at most) "
            f"of a period of {period / 1e9:.3f} s"
        )
        outcome = passed if low <= ratio <= high else failed
        places = instants(name, stream.stamp_ns[chosen], "looked at") if outcome is failed else ()
        yield outcome(
            text, name, value=round(ratio, 4), limit=high if ratio > high else low, details=places
        )


@check("TIM019", title="Aligned samples belong to their tick", severity=Severity.INFO,
       clause=f"{GBZ} 6.2.5.2c4")  # fmt: skip
def alignment(context: Context) -> Iterator[Outcome]:
    """95th percentile of the residual |stamp - tick| per timeline and stream. One millisecond is
    asked for where a stream is that fast; a slower one can be no nearer than its own period, so it
    fails only beyond that: where ticks find stale samples."""
    entries = context.ledger.get("streams", ())
    periods = {f["name"]: f["sensor"]["period_ns"] / 1e6 for f in entries if _steady(f)}
    for timeline in context.episode.timelines:
        for name, residual in context.episode.aligned(timeline).residual_ns.items():
            if name not in periods:
                continue  # latched and single messages belong to every tick
            limit = max(context.limits.alignment_ms, 1.05 * periods[name])
            there = residual != NO_RESIDUAL
            known = np.abs(residual[there])
            if not len(known):
                yield not_assessed(f"{timeline}: no tick has a sample", name)
                continue
            p95 = float(np.percentile(known, 95)) / 1e6
            text = f"{timeline}: |residual| p95 is {p95:.3f} ms"
            over = known > limit * 1e6
            ticks = context.episode.aligned(timeline).tick_ns[there]
            found = (
                Detail(name, int(t), message=f"{r / 1e6:.1f} ms from its tick")
                for t, r in zip(ticks[over], known[over], strict=True)
            )
            worst = dict(enumerate(known[over].tolist()))
            outcome, places = (failed, most(found, worst)) if p95 > limit else (passed, ())
            yield outcome(text, name, value=round(p95, 4), limit=round(limit, 4), details=places)


def _steady(facts: Mapping[str, Any]) -> bool:
    return bool(facts["sensor"]["periodic"]) and "period_ns" in facts["sensor"]


@check("TIM020", title="Cameras and LiDARs fire together", severity=Severity.INFO,
       clause=f"{GBZ} 6.2.5.2c4")  # fmt: skip
def common_trigger(context: Context) -> Iterator[Outcome]:
    """Largest distance between stamps of the same number, for cameras and LiDARs with as many
    samples. Often a design (cameras fire when the beam passes), so it is told, not judged: what
    moves must be compensated for that time."""
    kinds = (Kind.IMAGE, Kind.SWEEP)
    names = [n for n, s in context.episode.streams.items() if s.kind in kinds and len(s) >= 5]
    names.sort(key=lambda n: context.episode.streams[n].kind is not Kind.SWEEP)
    limit = context.limits.alignment_ms
    for name in names[1:]:
        first, stream = context.episode.streams[names[0]], context.episode.streams[name]
        if len(first) != len(stream):
            continue
        apart = stream.stamp_ns - first.stamp_ns
        i = int(np.argmax(np.abs(apart)))
        worst = float(apart[i]) / 1e6
        if abs(worst) > 1.5 * float(np.median(np.diff(first.stamp_ns))) / 1e6:
            continue  # the same number by chance
        text = f"up to {worst:+.1f} ms from {names[0]} (median {np.median(apart) / 1e6:+.1f} ms)"
        over = abs(worst) > limit
        places = [Detail(s.name, int(s.stamp_ns[i])) for s in (first, stream)] if over else []
        outcome = failed if over else passed
        yield outcome(text, name, value=round(worst, 4), limit=limit, details=places)
