"""Injected faults of clocks, transport and content; recorded in the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from mmdata.errors import ConfigError
from mmdata.simulate.episode import SimEpisode, SimStream, Stamps, take
from mmdata.streams import Kind, Ragged


@dataclass(frozen=True)
class StreamFaults:
    """What is wrong with one stream. Everything defaults to nothing.

    Args:
        offset_ns: a delay (advance if negative) in header and log stamps alike, so that no
            comparison of stamps can show it.
        header_offset_ns: in header stamps only; log stamps stay true.
        skew_ppm: rate error of the header clock, zero at the episode's start.
        jitter_ns: standard deviation of header stamps around the true instants.
        latency_ns: (minimum, mean of an exponential on top) of log minus true instants,
            instead of the sensor's own.
        burst_ns: the log receives samples in batches this far apart.
        drop_fraction: share of samples lost, in runs of mean length drop_burst.
        gap_ns: length of one stretch without samples, somewhere in the middle half.
        duplicate_fraction: share of samples written twice.
        regressions: how many header stamps step behind the one before.
        rate_divisor: from the middle on, only every k-th sample arrives.
        quantise_ns: header stamps are cut to multiples of it.
        perfect: header stamps are made up at the exact nominal period.
        late_start_ns, early_end_ns: samples missing at the ends.
        frozen, black: numbers of consecutive samples that repeat the one before, or are black
            (zero for signals), from a random place in the middle half.
    """

    offset_ns: int = 0
    header_offset_ns: int = 0
    skew_ppm: float = 0.0
    jitter_ns: int = 0
    latency_ns: tuple[int, int] | None = None
    burst_ns: int = 0
    drop_fraction: float = 0.0
    drop_burst: float = 1.0
    gap_ns: int = 0
    duplicate_fraction: float = 0.0
    regressions: int = 0
    rate_divisor: int = 1
    quantise_ns: int = 0
    perfect: bool = False
    late_start_ns: int = 0
    early_end_ns: int = 0
    frozen: int = 0
    black: int = 0


def inject(episode: SimEpisode, faults: Mapping[str, StreamFaults], seed: int = 0) -> SimEpisode:
    """A copy of a clean episode with faults per stream name; payload is shared, not rendered again.

    Deterministic in (episode, faults, seed).

    Raises:
        ConfigError: no stream of that name, a header fault on a stream without headers, or an
            episode that has faults already.
    """
    if episode.truth["faults"]:
        raise ConfigError("the episode has injected faults already; start from the clean one")
    unknown = set(faults) - set(episode.raw)
    if unknown:
        raise ConfigError(f"no stream {sorted(unknown)}; there are {sorted(episode.raw)}")
    raw = dict(episode.raw)
    record: dict[str, Any] = {}
    for name, wanted in faults.items():
        # A stream's faults must not depend on which other streams have some.
        rng = np.random.default_rng([seed, 3, list(episode.raw).index(name)])
        raw[name], realised = _inject(episode.raw[name], wanted, rng, episode.start_ns)
        given = {k: v for k, v in asdict(wanted).items() if v != getattr(StreamFaults(), k)}
        record[name] = given | realised
    truth = episode.truth | {"faults": record, "exposure_ns": exposures(raw)}
    truth |= _relabel(truth, {name: raw[name] for name in faults})
    return replace(episode, raw=raw, truth=truth)


def exposures(raw: Mapping[str, SimStream]) -> dict[str, list[int]]:
    """True instants of every image and sweep, in recording order."""
    kinds = (Kind.IMAGE, Kind.DEPTH, Kind.SWEEP)
    return {n: s.true_ns.tolist() for n, s in raw.items() if s.info.kind in kinds}


def _relabel(truth: Mapping[str, Any], spoiled: Mapping[str, SimStream]) -> dict[str, Any]:
    """Labels of a drive as somebody makes them who only has the recording.

    They carry the stamp of the image or sweep they were made on; what was lost has none.
    """
    if "boxes_2d" not in truth:
        return {}
    recorded = {
        name: dict(zip(s.true_ns.tolist(), s.source_ns.tolist(), strict=True))
        for name, s in spoiled.items()
        if s.source_ns is not None
    }
    rectangles = []
    for box in truth["boxes_2d"]:
        stamps = recorded.get(box["stream"])
        if stamps is None:
            rectangles.append(box)
        elif box["true_ns"] in stamps:
            rectangles.append(box | {"stamp_ns": stamps[box["true_ns"]]})
    tracks = []
    for track in truth["tracks_3d"]:
        stamps = recorded.get(track["stream"])
        if stamps is not None:
            rows = [i for i, true in enumerate(track["true_ns"]) if true in stamps]
            columns = {k: [v[i] for i in rows] for k, v in track.items() if isinstance(v, list)}
            track = track | columns
            track["stamp_ns"] = [stamps[true] for true in track["true_ns"]]
        if track["stamp_ns"]:
            tracks.append(track)
    return {"boxes_2d": rectangles, "tracks_3d": tracks}


def _inject(
    stream: SimStream, faults: StreamFaults, rng: np.random.Generator, start_ns: int
) -> tuple[SimStream, dict[str, Any]]:
    header = stream.source_ns is not None
    if not header and any(
        (faults.header_offset_ns, faults.skew_ppm, faults.jitter_ns, faults.regressions,
         faults.quantise_ns, faults.perfect)
    ):  # fmt: skip
        raise ConfigError(f"{stream.name} ({stream.message}) has no header stamps to spoil")
    realised: dict[str, Any] = {}
    keep = _kept(stream.true_ns, faults, rng, realised)
    true = stream.true_ns[keep]
    source = _headers(true, faults, rng, start_ns, realised)
    receive = _log_stamps(stream, keep, faults, rng)
    fields = {name: take(values, keep) for name, values in stream.fields.items()}
    fields = _spoil_content(stream, fields, true, faults, rng, realised)

    order = np.arange(len(true))
    if faults.duplicate_fraction:
        twice = rng.random(len(true)) < faults.duplicate_fraction
        realised["duplicated"] = int(twice.sum())
        order = np.repeat(order, 1 + twice)
    if len(order) != len(true):
        fields = {name: take(values, order) for name, values in fields.items()}
    receive = receive[order]
    again = np.flatnonzero(np.diff(order) == 0) + 1
    receive[again] += 50_000
    receive = np.maximum.accumulate(receive) if len(receive) else receive
    return (
        replace(
            stream,
            true_ns=true[order],
            source_ns=source[order] if header else None,
            receive_ns=receive,
            fields=fields,
        ),
        realised,
    )


def _kept(
    true_ns: Stamps, faults: StreamFaults, rng: np.random.Generator, realised: dict[str, Any]
) -> Stamps:
    """Which samples reach the log, (K,)."""
    n = len(true_ns)
    keep = np.ones(n, dtype=bool)
    if n == 0:
        return np.flatnonzero(keep)
    keep &= true_ns >= true_ns[0] + faults.late_start_ns
    keep &= true_ns <= true_ns[-1] - faults.early_end_ns
    if faults.rate_divisor > 1:
        middle = n // 2
        keep[middle:] &= np.arange(n - middle) % faults.rate_divisor == 0
        realised["rate_change_ns"] = int(true_ns[middle])
    if faults.gap_ns:
        first = int(rng.uniform(true_ns[0] + 0.25 * np.ptp(true_ns), true_ns[n // 2]))
        keep &= (true_ns < first) | (true_ns >= first + faults.gap_ns)
        realised["gap"] = [first, first + faults.gap_ns]
    if faults.drop_fraction:
        # Runs start so often that the wanted share is lost; the first and last sample stay,
        # since a stream that merely begins later has lost nothing.
        lost = np.zeros(n, dtype=bool)
        starts = rng.random(n) < faults.drop_fraction / max(1.0, faults.drop_burst)
        for i in np.flatnonzero(starts):
            lost[i : i + rng.geometric(1.0 / max(1.0, faults.drop_burst))] = True
        lost[[0, -1]] = False
        realised["dropped"] = int((keep & lost).sum())
        realised["dropped_ns"] = true_ns[keep & lost].tolist()
        keep &= ~lost
    return np.flatnonzero(keep)


def _headers(
    true: Stamps,
    faults: StreamFaults,
    rng: np.random.Generator,
    start_ns: int,
    realised: dict[str, Any],
) -> Stamps:
    shift = (true - start_ns) * (faults.skew_ppm * 1e-6)
    shift += rng.normal(0, 1, len(true)) * faults.jitter_ns
    constant = faults.offset_ns + faults.header_offset_ns
    source: Stamps = true + constant + np.rint(shift).astype(np.int64)
    if len(true) < 3:
        return source
    period = float(np.median(np.diff(true)))
    if faults.perfect:
        source = source[0] + np.rint(np.arange(len(true)) * period).astype(np.int64)
    if faults.regressions:
        rows = np.sort(rng.choice(np.arange(1, len(true) - 1, 2), faults.regressions, False))
        back = rng.uniform(0.2, 2.0, len(rows)) * period
        source[rows] = source[rows - 1] - np.rint(back).astype(np.int64) - 1
        realised["regressed_ns"] = true[rows].tolist()
    if faults.quantise_ns:
        source = source // faults.quantise_ns * faults.quantise_ns
    return source


def _log_stamps(
    stream: SimStream, keep: Stamps, faults: StreamFaults, rng: np.random.Generator
) -> Stamps:
    true = stream.true_ns[keep]
    receive: Stamps
    if faults.latency_ns is None:
        receive = stream.receive_ns[keep]
    else:
        minimum, mean = faults.latency_ns
        delay = stream.span_ns + minimum + rng.exponential(mean, len(true))
        receive = true + np.rint(delay).astype(np.int64)
    receive = receive + faults.offset_ns
    if faults.burst_ns:
        receive = -(-receive // faults.burst_ns) * faults.burst_ns
    return receive


def _spoil_content(
    stream: SimStream,
    fields: dict[str, Any],
    true: Stamps,
    faults: StreamFaults,
    rng: np.random.Generator,
    realised: dict[str, Any],
) -> dict[str, Any]:
    n = len(true)
    for what, count in (("frozen", faults.frozen), ("black", faults.black)):
        if not count or n < 4:
            continue
        first = int(rng.integers(max(1, n // 4), max(2, n // 2)))
        rows = slice(first, min(n, first + count))
        realised[f"{what}_ns"] = true[rows].tolist()
        fields = {
            name: _hold(values, rows) if what == "frozen" else _blank(values, rows, stream)
            for name, values in fields.items()
        }
    return fields


def _hold(values: Any, rows: slice) -> Any:
    index = np.arange(len(values))
    index[rows] = rows.start - 1
    return take(values, index)


def _blank(values: Any, rows: slice, stream: SimStream) -> Any:
    if not isinstance(values, Ragged):
        out = values.copy()
        out[rows] = 0
        return out
    every = [values[i] for i in range(len(values))]
    for i in range(*rows.indices(len(every))):
        if stream.info.kind is Kind.IMAGE:
            image = cv2.imdecode(every[i], cv2.IMREAD_COLOR)
            every[i] = cv2.imencode(".jpg", np.zeros_like(image))[1].reshape(-1)
        else:
            every[i] = np.zeros_like(every[i])
    return Ragged.from_rows(every, values.data.dtype)
