"""``assess(episode)``: the ledger of one episode, with the methods its streams allow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmdata.episode import Episode
from mmdata.errors import SyncError
from mmdata.streams import Stream
from mmdata.sync.budget import Budget
from mmdata.sync.clockmap import fit_clock, fit_clock_windows
from mmdata.sync.content import Content, ContentConfig, content_offsets
from mmdata.sync.health import StampHealth, latency_health, recorded_order, stamp_health
from mmdata.sync.ledger import Ledger, PairEntry, StreamEntry, pair_entry

OTHER_EPOCH_NS = 60_000_000_000
"""A latency beyond a minute is two clocks of different epochs, not a delay."""

LOCKSTEP_PPM = 1000.0
"""Rates nearer than this may stem from one trigger; farther ones are simply other rates."""

CRYSTAL_PPM = 100.0
"""Two free-running crystals (50 ppm each) differ by less."""


def assess(
    episode: Episode,
    *,
    budget: Budget | None = None,
    content: bool = True,
    layers: Mapping[str, Mapping[str, Any]] | None = None,
    config: ContentConfig | None = None,
) -> Ledger:
    """Assess the timing of an episode: stamps always, content when ``content``.

    layers: annotation layers (parsed JSON by name) for label-derived offsets; those embedded in the
    episode by default.
    Nothing is written; ``store.write_sync(path, ledger.to_dict())`` does that.
    """
    budget = budget or Budget()
    if layers is None:
        layers = {name: json.loads(text) for name, text in episode.annotations.items()}
    found = content_offsets(episode, layers, config) if content else Content()
    healths: dict[str, StampHealth] = {}
    streams = []
    for name, stream in episode.streams.items():
        healths[name], facts = _stream_facts(episode, stream)
        streams.append(StreamEntry(name, {**facts, **found.facts.get(name, {})}))
    pairs = [
        *(pair_entry(c.a, c.b, c.kind, c.estimates, budget, found.speeds) for c in found.pairs),
        *_lockstep(episode, healths),
    ]
    return Ledger(tuple(streams), tuple(pairs), found.speeds)


def _stream_facts(episode: Episode, stream: Stream) -> tuple[StampHealth, dict[str, Any]]:
    source = stream.source_ns if stream.source_ns is not None else stream.stamp_ns
    source = recorded_order(source, stream.recorded)
    stamps = recorded_order(stream.stamp_ns, stream.recorded)
    health = stamp_health(source)
    facts: dict[str, Any] = {
        "kind": str(stream.kind),
        "stamp_source": stream.info.stamp_source,
        "nominal_rate_hz": stream.info.nominal_rate_hz,
        "sensor": _health_facts(health, stamps),
    }
    if len(stream) and episode.start_ns is not None and episode.end_ns is not None:
        facts["late_start_ns"] = int(stream.stamp_ns[0]) - episode.start_ns
        facts["early_end_ns"] = episode.end_ns - int(stream.stamp_ns[-1])
    if stream.receive_ns is not None and len(stream):
        receive = recorded_order(stream.receive_ns, stream.recorded)
        facts["receive"] = _health_facts(stamp_health(receive), stamps)
        if stream.source_ns is not None:
            delay = latency_health(source, receive)
            facts["latency"] = delay.to_dict() | {"places": delay.places(stamps)}
            facts["other_epoch"] = abs(delay.p50_ns) > OTHER_EPOCH_NS
            facts |= _clock_facts(source, receive)
    return health, {k: v for k, v in facts.items() if v is not None}


def _health_facts(health: StampHealth, stamps: Any) -> dict[str, Any]:
    """Numbers and places; ``stamps`` is the episode's time of each sample in recorded order."""
    facts = health.to_dict()
    for change in facts.get("rate_changes", ()):
        change["stamp_ns"] = int(stamps[change["sample"]])
    places = health.faults.places(stamps)
    return facts | ({"places": places} if places else {})


def _clock_facts(source: Any, receive: Any) -> dict[str, Any]:
    """Map of the sensor's clock to the receiver's, where both exist and differ."""
    if np.array_equal(source, receive):
        return {}
    try:
        fit = fit_clock(source, receive)
    except SyncError:
        return {}  # too short for a map; the latency says what can be said
    facts: dict[str, Any] = {"clock_map": _numbers(fit.to_dict())}
    windows = fit_clock_windows(source, receive)
    if len(windows) > 1:
        facts["clock_windows"] = [_numbers(window.to_dict()) for window in windows]
    return facts


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def _lockstep(episode: Episode, healths: dict[str, StampHealth]) -> Iterable[PairEntry]:
    """Rates of streams with one nominal period, against the median of their group.

    A clock that runs off does so in sensor and receive stamps alike when one host writes both, and
    no delay shows it; beside a stream of the same trigger it does.
    """
    rates = {n: r for n, h in healths.items() if (r := _rate(episode.streams[n], h)) is not None}
    left = sorted(rates, key=lambda n: rates[n][0])
    while left:
        group = [n for n in left if rates[n][0] / rates[left[0]][0] - 1 < LOCKSTEP_PPM * 1e-6]
        left = [n for n in left if n not in group]
        reference = group[(len(group) - 1) // 2]
        for name in group:
            if name == reference:
                continue
            (a, sigma_a), (b, sigma_b) = rates[reference], rates[name]
            skew, sigma = (b / a - 1) * 1e6, float(np.hypot(sigma_a / a, sigma_b / b)) * 1e6
            if sigma > CRYSTAL_PPM / 2:
                continue
            within = abs(skew) + 2 * sigma <= CRYSTAL_PPM
            yield PairEntry(
                reference,
                name,
                "lockstep",
                (),
                None,
                None,
                "lockstep",
                "PASSED" if within else "NOT_ASSESSED",
                f"periods differ by {skew:+.1f} ± {2 * sigma:.1f} ppm"
                + ("" if within else "; an error if both streams share a trigger"),
                None,
                skew,
                sigma,
            )


def _rate(stream: Stream, health: StampHealth) -> tuple[float, float] | None:
    """(period, its sigma) in ns from a line through stamps against tick numbers."""
    if health.period_ns is None or not health.periodic or health.count < 100:
        return None
    if health.rate_changes:
        return None  # it does not run at the group's rate throughout
    stamps = stream.source_ns if stream.source_ns is not None else stream.stamp_ns
    stamps = recorded_order(stamps, stream.recorded)
    # A repeat is the sample before it once more; before a gap's end others are missing.
    advance = np.ones(len(stamps), np.int64)
    advance[health.faults.repeated] = 0
    advance[health.faults.after_gap] += health.faults.missing
    tick = (np.cumsum(advance) - 1).astype(np.float64)
    since = (stamps - stamps[0]).astype(np.float64)
    true = np.ones(len(tick), bool)
    true[health.faults.regressed] = False
    for _ in range(2):
        period, level = np.polyfit(tick[true], since[true], 1)
        error = since - (period * tick + level)
        spread = float(np.std(error[true]))
        # A nanosecond at least: the stamps are whole ones, and some were computed, not measured.
        true &= np.abs(error) <= max(4 * spread, 1.0)
        if np.count_nonzero(true) < 100:
            return None
    if spread > 0.25 * health.period_ns:
        return None
    tick = tick[true]
    return float(period), max(spread, 1.0) / (float(np.std(tick)) * np.sqrt(len(tick)))
