"""Rules about the time of single streams (TIM): stamps, rates, clocks, coverage.

They read the synchronisation ledger; without one every rule that needs it is NOT_ASSESSED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from mmdata.checks.places import most
from mmdata.streams import Kind

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
                places = [
                    _at(name, p, f"{clock} stamp goes back by {p['by_ns'] / 1e6:.3f} ms")
                    for p in _places(health, "regressed")
                ]
                yield failed(text, name, value=count, limit=0, details=places)
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
            places = [
                _at(name, p, "repeats the stamp before it")
                for p in _places(facts["sensor"], "repeated")
            ]
            yield failed(text, name, value=count, limit=0, details=places)
        else:
            yield passed("every stamp is its own", name, value=0, limit=0)


@check("TIM003", title="Few samples are missing", severity=Severity.WARNING,
       clause=f"{GBZ} 6.2.2.3")  # fmt: skip
def few_drops(context: Context) -> Iterator[Outcome]:
    """Missing samples over expected ones, and the longest silence. An interval longer than 1.5
    periods counts as a gap of round(interval / period) - 1 samples if the stamps stay that much
    late after it; a single late stamp is jitter. Streams without a steady rate are not judged, nor
    those whose intervals vary so much that late and lost samples look alike."""
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
        slowest = min([health["rate_hz"], *(c["after_hz"] for c in _changes(health))])
        longest = max(limits.longest_gap_s, 5 / slowest)
        text = (
            f"{health['dropped']} samples missing ({fraction:.2%}) in {health['gaps']} gaps, "
            f"{health['long_gaps']} of them over two periods; longest interval {gap:.3f} s"
        )
        over = fraction > limits.loss_fraction or gap > longest
        outcome = failed if over else passed
        if _unsteady(health) and health["dropped"] and gap <= longest:
            outcome, text = not_assessed, f"intervals vary too much to tell loss: {text}"
        yield outcome(
            text, name, value=round(fraction, 6), limit=limits.loss_fraction,
            details=_gaps(name, health) if over else (),
        )  # fmt: skip


@check("TIM004", title="Every sample is there", severity=Severity.INFO)
def no_drops(context: Context) -> Iterator[Outcome]:
    """Tells of any gap at all, also where the loss is within limits: a single missing frame matters
    to a policy that learns velocity from differences."""
    for name, facts in _streams(context):
        health = facts["sensor"]
        dropped = health.get("dropped")
        if dropped and _unsteady(health):
            yield not_assessed("intervals vary too much to tell single lost samples", name)
        elif dropped:
            text = (
                f"{dropped} samples missing in {health['gaps']} gaps, "
                f"{health['long_gaps']} of them over two periods"
            )
            yield failed(text, name, value=dropped, limit=0, details=_gaps(name, health))
        elif dropped == 0:
            yield passed("no gaps", name, value=0, limit=0)


UNSTEADY = 0.35
"""Standard deviation of the intervals, over the period, from which late samples seem lost."""


def _unsteady(health: Facts) -> bool:
    return bool(health["jitter_std_ns"] > UNSTEADY * health["period_ns"])


def _gaps(name: str, health: Facts) -> list[Detail]:
    return [
        Detail(
            name,
            p["stamp_ns"],
            p["end_ns"],
            p["sample"],
            message=f"{p['missing']} missing" if p["missing"] else "silence",
        )
        for p in _places(health, "gaps")
    ]


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
            places = [_at(name, facts["latency"]["places"]["earliest"], "received earliest")]
            yield failed(text, name, value=round(earliest, 4), limit=-limit, details=places)
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
        over = tail > limit or share > 0.01
        named = latency["places"]
        shown = [_at(name, named["latest"], f"latency {latency['max_ns'] / 1e6:.1f} ms")]
        shown += [_at(name, p, "arrives with those after it") for p in named.get("bursts", ())]
        outcome = failed if over else passed
        yield outcome(
            text, name, value=round(tail, 4), limit=limit, details=most(shown) if over else ()
        )


@check("TIM010", title="No clock was set during the recording", severity=Severity.WARNING)
def no_latency_step(context: Context) -> Iterator[Outcome]:
    """The least latency per window jumps where a clock was set (NTP, PTP, a restart). One offset
    cannot mend such a stream: split it there, or use receive stamps."""
    for name, facts in _same_epoch(context):
        step = facts["latency"].get("step_ns")
        if step is not None:
            text = f"the least latency jumps by {step / 1e6:+.1f} ms"
            places = [_at(name, facts["latency"]["places"]["step"], "the level changes about here")]
            yield failed(text, name, value=round(step / 1e6, 3), limit=0, details=places)
        elif facts["latency"]["count"] >= 80:
            yield passed("latency has no step", name)


@check("TIM011", title="Sensor and host clock run alike", severity=Severity.WARNING,
       clause=f"{GBZ} 6.1.1f")  # fmt: skip
def low_skew(context: Context) -> Iterator[Outcome]:
    """Rate difference of the sensor's clock to the receiver's, from the lower hull of the delays.
    It counts once it is beyond its uncertainty and has moved the stream by more than the drift
    limit; where jitter hides whether it has, it is NOT_ASSESSED. The offset of the two clocks
    includes the unobservable minimum delay."""
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
        least, most = (max(abs(skew) + k * sigma, 0.0) for k in (-3, 3))
        if least > limits.skew_ppm and drift > limits.drift_ms:
            outcome = failed
        elif most <= limits.skew_ppm or most * seconds * 1e-3 <= limits.drift_ms:
            outcome = passed
        else:
            outcome, text = not_assessed, f"too uncertain to judge: {text}"
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
        least = 3 * health["period_ns"]
        over = missing > limit and max(late, early) > least
        first, last = episode.start_ns + late, episode.end_ns - early
        shown = [Detail(name, episode.start_ns, first, message="absent")] if late > least else []
        shown += [Detail(name, last, episode.end_ns, message="absent")] if early > least else []
        outcome = failed if over else passed
        yield outcome(
            text, name, value=round(missing, 5), limit=limit, details=shown if over else ()
        )


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


@check("TIM021", title="The rate stays the same", severity=Severity.WARNING)
def constant_rate(context: Context) -> Iterator[Outcome]:
    """A rate that changes and stays changed: a camera that lengthens its exposure in the dark, a
    driver that throttles, a LiDAR set to another speed. It is no loss, and the samples of each part
    are judged by the rate of that part; windows of a fixed number of samples mean another time."""
    limit = context.limits.rate_change_fraction
    for name, facts in _streams(context):
        health = facts["sensor"]
        if not health["periodic"] or health["count"] < 60:
            continue
        changes = [c for c in _changes(health) if abs(c["after_hz"] / c["before_hz"] - 1) > limit]
        if not changes:
            yield passed("one rate throughout", name, value=0.0, limit=limit)
            continue
        texts = [f"{c['before_hz']:.4g} to {c['after_hz']:.4g} Hz" for c in changes]
        worst = max((c["after_hz"] / c["before_hz"] - 1 for c in changes), key=abs)
        text = f"the rate changes from {', from '.join(texts)}"
        places = [_at(name, c, f"from {t}") for c, t in zip(changes, texts, strict=True)]
        yield failed(text, name, value=round(worst, 5), limit=limit, details=places)


def _changes(health: Facts) -> Sequence[Facts]:
    found: Sequence[Facts] = health.get("rate_changes", ())
    return found


def _places(health: Facts, what: str) -> Sequence[Facts]:
    """Places of a fault that the ledger names (older ledgers name none)."""
    found: Sequence[Facts] = health.get("places", {}).get(what, ())
    return found


def _at(name: str, place: Facts, message: str) -> Detail:
    return Detail(name, place["stamp_ns"], sample=place["sample"], message=message)


def _same_epoch(context: Context) -> Iterator[tuple[str, Facts]]:
    """Streams whose latency is one: both stamps there, and counted from the same instant."""
    for name, facts in _streams(context):
        if "latency" in facts and not facts.get("other_epoch"):
            yield name, facts
