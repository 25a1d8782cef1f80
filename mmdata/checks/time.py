"""Rules about time (TIM): stamps, clocks, coverage, and offsets between streams.

They read the synchronisation ledger; without one every rule that needs it is NOT_ASSESSED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmdata.checks import (
    GBZ,
    Context,
    Outcome,
    Severity,
    check,
    failed,
    not_assessed,
    passed,
)
from mmdata.episode import NO_RESIDUAL
from mmdata.streams import Kind, Ragged

Facts = Mapping[str, Any]


def _streams(context: Context) -> Iterator[tuple[str, Facts]]:
    for entry in context.ledger.get("streams", ()):
        yield entry["name"], entry


def _clocks_of(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """Both sequences of stamps a stream may have, with what to call them."""
    for clock in ("sensor", "receive"):
        if clock in facts:
            yield clock, facts[clock]


@check("TIM001", title="Stamps do not go backwards", severity=Severity.ERROR,
       clause=f"{GBZ} 6.1.1f")  # fmt: skip
def stamps_ascend(context: Context) -> Iterator[Outcome]:
    """In recorded order, a stamp earlier than the one before it means a clock was set back, two
    sources share a topic, or messages were reordered. Looked for in sensor and receive stamps.
    Sort only after the cause is known: the episode keeps the order of recording either way."""
    for name, facts in _streams(context):
        for clock, health in _clocks_of(facts):
            count = health["regressions"]
            if count:
                worst = health["worst_regression_ns"] / 1e6
                text = f"{count} {clock} stamps go backwards, by {worst:.3f} ms at worst"
                yield failed(text, name, value=count, limit=0)
            elif clock == "sensor":
                yield passed("stamps ascend", name, value=0, limit=0)


@check("TIM002", title="No two samples share a stamp", severity=Severity.WARNING,
       clause=f"{GBZ} 6.1.1f")  # fmt: skip
def stamps_differ(context: Context) -> Iterator[Outcome]:
    """Consecutive samples with the same sensor stamp: a message recorded twice, a driver that
    republishes, or a clock too coarse for the rate. Receive stamps may coincide (batches), so only
    sensor stamps count."""
    for name, facts in _streams(context):
        count = facts["sensor"]["duplicates"]
        if count:
            text = f"{count} samples repeat the stamp before them"
            yield failed(text, name, value=count, limit=0)
        else:
            yield passed("every stamp is its own", name, value=0, limit=0)


@check("TIM003", title="Few samples are missing", severity=Severity.WARNING,
       clause=f"{GBZ} 6.2.2.3")  # fmt: skip
def few_drops(context: Context) -> Iterator[Outcome]:
    """Missing samples over expected ones, and the longest silence. An interval longer than 1.5
    median periods counts as a gap of round(interval / period) - 1 samples. Streams without a steady
    rate are not judged."""
    limits = context.limits
    for name, facts in _streams(context):
        health = facts["sensor"]
        if "dropped" not in health:
            if health["count"] >= 5:
                yield not_assessed("no steady rate, so nothing can be called missing", name)
            continue
        fraction = health["dropped"] / (health["count"] + health["dropped"])
        gap = health["longest_gap_ns"] / 1e9
        # A slow stream's ordinary interval is no silence.
        longest = max(limits.longest_gap_s, 5 * health["period_ns"] / 1e9)
        text = (
            f"{health['dropped']} samples missing ({fraction:.2%}) in {health['gaps']} gaps, "
            f"{health['long_gaps']} of them over two periods; longest interval {gap:.3f} s"
        )
        over = fraction > limits.loss_fraction or gap > longest
        outcome = failed if over else passed
        yield outcome(text, name, value=round(fraction, 6), limit=limits.loss_fraction)


@check("TIM004", title="Every sample is there", severity=Severity.INFO)
def no_drops(context: Context) -> Iterator[Outcome]:
    """Tells of any gap at all, also where the loss is within limits: a single missing frame matters
    to a policy that learns velocity from differences."""
    for name, facts in _streams(context):
        dropped = facts["sensor"].get("dropped")
        if dropped:
            health = facts["sensor"]
            text = (
                f"{dropped} samples missing in {health['gaps']} gaps, "
                f"{health['long_gaps']} of them over two periods"
            )
            yield failed(text, name, value=dropped, limit=0)
        elif dropped == 0:
            yield passed("no gaps", name, value=0, limit=0)


@check("TIM005", title="The rate is steady", severity=Severity.WARNING,
       clause=f"{GBZ} 6.2.2.3")  # fmt: skip
def low_jitter(context: Context) -> Iterator[Outcome]:
    """Standard deviation of the sensor's intervals over their median, gaps left out. Jitter in the
    receive stamps alone is the recorder's and is judged as latency."""
    limit = context.limits.jitter_fraction
    for name, facts in _streams(context):
        health = facts["sensor"]
        if not health["periodic"] or "jitter_std_ns" not in health:
            continue
        fraction = health["jitter_std_ns"] / health["period_ns"]
        text = f"jitter is {fraction:.1%} of the period of {health['period_ns'] / 1e6:.3f} ms"
        outcome = failed if fraction > limit else passed
        yield outcome(text, name, value=round(fraction, 5), limit=limit)


@check("TIM006", title="Stamps were measured", severity=Severity.INFO)
def measured_stamps(context: Context) -> Iterator[Outcome]:
    """Stamps on a perfect grid, or made by the converter, were computed from a rate. They prove
    nothing about when samples were taken, so synchronisation is unknown rather than good."""
    for name, facts in _streams(context):
        source = facts.get("stamp_source")
        if source == "synthetic":
            yield not_assessed("stamps were made by the converter from a rate", name)
        elif facts["sensor"]["perfect"]:
            yield not_assessed("too perfect to be measured: every interval is the same", name)
        elif facts["sensor"]["count"] >= 20:
            yield passed("intervals vary as measured ones do", name)


@check("TIM007", title="Nothing is received before it is measured", severity=Severity.WARNING)
def causal_latency(context: Context) -> Iterator[Outcome]:
    """A receive stamp earlier than the sensor stamp means that the two clocks differ, or that the
    sensor stamps the end of an exposure it predicts. The smallest latency is the least error."""
    limit = context.limits.early_receive_ms
    for name, facts in _same_epoch(context):
        earliest = facts["latency"]["min_ns"] / 1e6
        if earliest < -limit:
            count = facts["latency"]["negative"]
            median = facts["latency"]["p50_ns"] / 1e6
            text = (
                f"{count} samples received up to {-earliest:.2f} ms before their stamp "
                f"(median latency {median:+.2f} ms)"
            )
            yield failed(text, name, value=round(earliest, 4), limit=-limit)
        else:
            yield passed("received after measured", name, value=round(earliest, 4), limit=-limit)


@check("TIM008", title="Latency is low", severity=Severity.WARNING)
def low_latency(context: Context) -> Iterator[Outcome]:
    """Median of receive minus sensor time; a block of sound and a sweep end only one period
    after they begin, which is taken off. A large constant one is harmless when sensor stamps are
    used and fatal when receive stamps are; it also hints at two hosts with different clocks."""
    limit = context.limits.latency_ms
    for name, facts in _same_epoch(context):
        latency = facts["latency"]
        median = latency["p50_ns"] / 1e6
        text = (
            f"latency p50 {median:.2f} ms, p95 {latency['p95_ns'] / 1e6:.2f} ms, "
            f"max {latency['max_ns'] / 1e6:.2f} ms"
        )
        lasting = facts["kind"] in (Kind.AUDIO, Kind.SWEEP)
        span = facts["sensor"].get("period_ns", 0.0) / 1e6 if lasting else 0.0
        late = median - min(span, max(median, 0.0))
        outcome = failed if abs(late) > limit else passed
        yield outcome(text, name, value=round(median, 4), limit=limit)


@check("TIM009", title="The recorder keeps up", severity=Severity.WARNING)
def steady_latency(context: Context) -> Iterator[Outcome]:
    """Samples that were measured apart but arrive at once have waited in a buffer, and receive
    stamps misplace them. Judged by the tail of the latency and by bursts of three or more."""
    limit = context.limits.latency_tail_ms
    for name, facts in _same_epoch(context):
        latency = facts["latency"]
        tail = (latency["p95_ns"] - latency["p50_ns"]) / 1e6
        share = latency["bursts"] / max(latency["count"], 1)
        text = f"latency p95 is {tail:.2f} ms above its median; {latency['bursts']} bursts"
        outcome = failed if tail > limit or share > 0.01 else passed
        yield outcome(text, name, value=round(tail, 4), limit=limit)


@check("TIM010", title="No clock was set during the recording", severity=Severity.WARNING)
def no_latency_step(context: Context) -> Iterator[Outcome]:
    """The least latency per window jumps where a clock was set (NTP, PTP, a restart). One offset
    cannot mend such a stream: split it there, or use receive stamps."""
    for name, facts in _same_epoch(context):
        step = facts["latency"].get("step_ns")
        if step is not None:
            text = f"the least latency jumps by {step / 1e6:+.1f} ms"
            yield failed(text, name, value=round(step / 1e6, 3), limit=0)
        elif facts["latency"]["count"] >= 80:
            yield passed("latency has no step", name)


@check("TIM011", title="Sensor and host clock run alike", severity=Severity.WARNING,
       clause=f"{GBZ} 6.1.1f")  # fmt: skip
def low_skew(context: Context) -> Iterator[Outcome]:
    """Rate difference of the sensor's clock to the receiver's, from the lower hull of the delays.
    It counts once it is beyond its uncertainty and has moved the stream by more than the drift
    limit. The offset of the two clocks includes the unobservable minimum delay."""
    limits = context.limits
    for name, facts in _same_epoch(context):
        fit = facts.get("clock_map")
        if fit is None:
            if facts["sensor"]["count"] < 2:
                continue  # sent once
            same = facts["latency"]["max_ns"] == facts["latency"]["min_ns"] == 0
            text = "sensor and receive stamps are the same" if same else "too short for a clock map"
            yield not_assessed(text, name)
            continue
        skew, sigma = fit["skew_ppm"], fit["skew_sigma_ppm"]
        seconds = (fit["valid_to_ns"] - fit["valid_from_ns"]) / 1e9
        drift = abs(skew) * seconds * 1e-3
        text = f"skew {skew:+.2f} ± {2 * sigma:.2f} ppm, {drift:.3f} ms over {seconds:.0f} s"
        certain = abs(skew) - 3 * sigma > limits.skew_ppm
        outcome = failed if certain and drift > limits.drift_ms else passed
        yield outcome(text, name, value=round(skew, 3), limit=limits.skew_ppm)


@check("TIM012", title="All header clocks share an epoch", severity=Severity.WARNING,
       clause=f"{GBZ} 6.1.1f")  # fmt: skip
def one_epoch(context: Context) -> Iterator[Outcome]:
    """A header clock that counts from boot, from zero or from another day cannot be compared with
    the others. Such a stream is placed by its receive stamps, with the transport's latency."""
    for name, facts in _streams(context):
        if facts.get("other_epoch"):
            away = facts["latency"]["p50_ns"] / 1e9
            placed = "receive" if facts.get("stamp_source") == "receive" else "header"
            text = f"header clock is {away:+.1f} s from the receive clock; {placed} stamps are used"
            yield failed(text, name, value=round(away, 3), limit=0)
        elif "latency" in facts:
            yield passed("header clock is that of the episode", name)


@check("TIM013", title="Streams cover the episode", severity=Severity.WARNING)
def coverage(context: Context) -> Iterator[Outcome]:
    """A stream that starts late or ends early leaves part of the episode without it."""
    episode, limit = context.episode, context.limits.coverage_fraction
    if episode.start_ns is None or episode.end_ns is None or episode.end_ns <= episode.start_ns:
        return
    span = episode.end_ns - episode.start_ns
    for name, facts in _streams(context):
        health = facts["sensor"]
        if "late_start_ns" not in facts or not health["periodic"]:
            continue  # events and latched messages have no duty to cover anything
        late, early = facts["late_start_ns"], facts["early_end_ns"]
        missing = max(late, early) / span
        text = f"starts {late / 1e9:.3f} s late, ends {early / 1e9:.3f} s early"
        over = missing > limit and max(late, early) > 3 * health["period_ns"]
        outcome = failed if over else passed
        yield outcome(text, name, value=round(missing, 5), limit=limit)


@check("TIM014", title="Stamps are fine enough for the rate", severity=Severity.WARNING)
def resolution(context: Context) -> Iterator[Outcome]:
    """The largest power of ten that divides every stamp, over the period."""
    limit = context.limits.resolution_fraction
    for name, facts in _streams(context):
        health = facts["sensor"]
        # Perfect grids divide evenly without being coarse; TIM006 speaks of them.
        if "period_ns" not in health or health["count"] < 20 or health["perfect"]:
            continue
        fraction = health["quantum_ns"] / health["period_ns"]
        text = f"stamps are multiples of {health['quantum_ns'] / 1e6:g} ms"
        outcome = failed if fraction > limit else passed
        yield outcome(text, name, value=round(fraction, 6), limit=limit)


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
        outcome = failed if abs(skew) - 2 * sigma > limit else passed
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
        yield outcome(text, f"{pair['a']}/{pair['b']}", value=pair["offset_ms"], limit=limit)


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
        yield outcome(text, name, value=round(ratio, 4), limit=high if ratio > high else low)


@check("TIM018", title="The declared rate is the measured one", severity=Severity.WARNING)
def declared_rate(context: Context) -> Iterator[Outcome]:
    """Rate that the source declares against one over the median interval."""
    limit = context.limits.rate_fraction
    for name, facts in _streams(context):
        declared, measured = facts.get("nominal_rate_hz"), facts["sensor"].get("rate_hz")
        if not declared or measured is None:
            continue
        away = measured / declared - 1
        text = f"declared {declared:g} Hz, measured {measured:.4g} Hz"
        outcome = failed if abs(away) > limit else passed
        yield outcome(text, name, value=round(away, 5), limit=limit)


@check("TIM019", title="Aligned samples belong to their tick", severity=Severity.INFO,
       clause=f"{GBZ} 6.2.5.2c4")  # fmt: skip
def alignment(context: Context) -> Iterator[Outcome]:
    """95th percentile of the residual |stamp - tick| per timeline and stream. One millisecond is
    asked for where a stream is that fast; a slower one can be no nearer than its own period, so it
    fails only beyond that: where ticks find stale samples."""
    periods = {n: f["sensor"]["period_ns"] / 1e6 for n, f in _streams(context) if _steady(f)}
    for timeline in context.episode.timelines:
        for name, residual in context.episode.aligned(timeline).residual_ns.items():
            if name not in periods:
                continue  # latched and single messages belong to every tick
            limit = max(context.limits.alignment_ms, 1.05 * periods[name])
            known = np.abs(residual[residual != NO_RESIDUAL])
            if not len(known):
                yield not_assessed(f"{timeline}: no tick has a sample", name)
                continue
            p95 = float(np.percentile(known, 95)) / 1e6
            text = f"{timeline}: |residual| p95 is {p95:.3f} ms"
            outcome = failed if p95 > limit else passed
            yield outcome(text, name, value=round(p95, 4), limit=round(limit, 4))


def _steady(facts: Facts) -> bool:
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
        worst = float(apart[np.argmax(np.abs(apart))]) / 1e6
        if abs(worst) > 1.5 * float(np.median(np.diff(first.stamp_ns))) / 1e6:
            continue  # the same number by chance
        text = f"up to {worst:+.1f} ms from {names[0]} (median {np.median(apart) / 1e6:+.1f} ms)"
        outcome = failed if abs(worst) > limit else passed
        yield outcome(text, name, value=round(worst, 4), limit=limit)


def _same_epoch(context: Context) -> Iterator[tuple[str, Facts]]:
    """Streams whose latency is one: both stamps there, and counted from the same instant."""
    for name, facts in _streams(context):
        if "latency" in facts and not facts.get("other_epoch"):
            yield name, facts
