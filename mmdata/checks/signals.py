"""Rules about what the sensors delivered (SIG): missing, constant, identical, clipped, frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from mmdata.checks.places import instants
from mmdata.streams import Kind, Ragged, Stream

#: Fields in which equal or constant columns are the rule: symmetric matrices, flags, no returns.
_UNTOLD = ("covariance", "ranges", "intensities", "status")
MIN_SAMPLES = 50
MIN_SPAN_NS = 1_000_000_000


@check("SIG001", title="Signals hold numbers", severity=Severity.WARNING,
       clause=f"{GBZ} 6.2.2.1a")  # fmt: skip
def finite(context: Context) -> Iterator[Outcome]:
    """Fraction of NaN and infinite values per stream of signals or touch. Fields in which they mean
    "no return" or "not known" (ranges, covariances) are left out."""
    limit = context.limits.missing_fraction
    for name, stream in context.episode.streams.items():
        bad = total = 0
        rows = np.zeros(len(stream), bool)
        for values in _fields(stream).values():
            wrong = ~np.isfinite(values)
            bad += int(np.count_nonzero(wrong))
            rows |= wrong.any(axis=1)
            total += values.size
        if not total:
            continue
        fraction = bad / total
        text = f"{bad} of {total} values are NaN or infinite ({fraction:.3%})"
        places = instants(name, stream.stamp_ns[rows], "not a number")
        outcome = failed if fraction > limit else passed
        yield outcome(
            text, name, value=round(fraction, 8), limit=limit, details=places if bad else ()
        )


@check("SIG002", title="Channels vary", severity=Severity.INFO)
def not_constant(context: Context) -> Iterator[Outcome]:
    """Channels that hold one value throughout. Often right (a joint that did not move), sometimes a
    cable; so it is told, not judged."""
    for name, stream in context.episode.streams.items():
        constant, count = [], 0
        for label, values in _channels(stream):
            count += 1
            if np.all(values == values[0]):
                constant.append(label)
        if not count:
            continue
        if constant:
            shown = ", ".join(constant[:8]) + (" ..." if len(constant) > 8 else "")
            text = f"{len(constant)} of {count} channels are constant: {shown}"
            yield failed(text, name, value=len(constant), limit=0)
        else:
            yield passed("all channels vary", name, value=0, limit=0)


@check("SIG003", title="No channel copies another", severity=Severity.WARNING)
def not_identical(context: Context) -> Iterator[Outcome]:
    """Two varying channels of one stream with bit-identical values: an index used twice, or one
    sensor recorded under two names."""
    for name, stream in context.episode.streams.items():
        groups: dict[bytes, list[str]] = {}
        for label, values in _channels(stream):
            if not np.all(values == values[0]):
                groups.setdefault(values.tobytes(), []).append(label)
        if not groups:
            continue
        copies = [labels for labels in groups.values() if len(labels) > 1]
        if copies:
            text = "; ".join(" = ".join(labels) for labels in copies)
            yield failed(f"identical channels: {text}", name, value=len(copies), limit=0)
        else:
            yield passed("no two channels are the same", name, value=0, limit=0)


@check("SIG004", title="Sound is not clipped", severity=Severity.WARNING)
def not_clipped(context: Context) -> Iterator[Outcome]:
    """Fraction of samples in runs of three or more at full scale."""
    limit = context.limits.clipping_fraction
    for name, stream in context.episode.streams.items():
        if stream.kind is not Kind.AUDIO or "samples" not in stream.fields:
            continue
        samples = stream["samples"]
        data = samples.data if isinstance(samples, Ragged) else np.asarray(samples)
        if not data.size:
            continue
        data = data.reshape(-1, data.shape[-1]) if data.ndim > 1 else data[:, None]
        if data.dtype.kind in "iu":
            low, high = np.iinfo(data.dtype).min, np.iinfo(data.dtype).max
            full = (data >= high - 1) | (data <= low + 1)
        else:
            full = np.abs(data) >= 0.9999
        fraction = float(np.mean(_in_runs(full)))
        text = f"{fraction:.3%} of the samples are at full scale"
        outcome = failed if fraction > limit else passed
        yield outcome(text, name, value=round(fraction, 6), limit=limit)


@check("SIG005", title="Cameras are not frozen", severity=Severity.ERROR)
def not_frozen(context: Context) -> Iterator[Outcome]:
    """Identical consecutive frames while another stream reports motion. A scene at rest also gives
    identical frames in simulation, so without motion it is NOT_ASSESSED."""
    limit = context.limits.frozen_s
    for name, facts in _cameras(context):
        longest = facts.get("still_while_moving_s")
        if longest is None:
            still = facts["still_longest_s"]
            if still > limit:
                text = f"frames stand still for {still:.2f} s; no other stream tells of motion"
                yield not_assessed(text, name, value=still, limit=limit)
            else:
                yield passed("frames change", name, value=still, limit=limit)
        elif longest > limit:
            text = f"frames stand still for {longest:.2f} s while the robot moves"
            places = _spans(name, facts, "still", "frames repeat")
            yield failed(text, name, value=longest, limit=limit, details=places)
        elif facts["still_longest_s"] > limit:
            still = facts["still_longest_s"]
            text = f"frames stand still for {still:.2f} s, when the robot hardly moves"
            places = _spans(name, facts, "still", "frames repeat")
            yield not_assessed(text, name, value=still, limit=limit, details=places)
        else:
            yield passed("frames change while the robot moves", name, value=longest, limit=limit)


@check("SIG006", title="Frames are not black", severity=Severity.WARNING)
def not_black(context: Context) -> Iterator[Outcome]:
    """Fraction of frames whose mean grey is at most 8 of 255."""
    limit = context.limits.black_fraction
    for name, facts in _cameras(context):
        fraction = facts["black_fraction"]
        over = fraction > limit
        places = _spans(name, facts, "black", "black") if over else []
        outcome = failed if over else passed
        text = f"{fraction:.1%} of {facts['frames_checked']} frames are black"
        yield outcome(text, name, value=fraction, limit=limit, details=places)


def _spans(name: str, facts: Mapping[str, Any], what: str, message: str) -> list[Detail]:
    spans = facts.get("places", {}).get(what, ())
    return [Detail(name, span["stamp_ns"], span["end_ns"], message=message) for span in spans]


def _cameras(context: Context) -> Iterator[tuple[str, dict[str, Any]]]:
    for facts in context.ledger.get("streams", ()):
        if "frames_checked" in facts:
            yield facts["name"], facts


def _fields(stream: Stream) -> dict[str, NDArray[Any]]:
    """Dense floating-point fields (N, ...) of signals and touch, as (N, C)."""
    if stream.kind not in (Kind.SIGNAL, Kind.TACTILE) or not len(stream):
        return {}
    found = {}
    for name, info in stream.info.fields.items():
        if info.ragged or np.dtype(info.dtype).kind != "f" or any(w in name for w in _UNTOLD):
            continue
        values = np.asarray(stream[name])
        found[name] = values.reshape(len(values), -1)
    return found


def _channels(stream: Stream) -> Iterator[tuple[str, NDArray[Any]]]:
    """(label, (N,) values) of each column long enough to say that it does not vary."""
    if len(stream) < MIN_SAMPLES or stream.stamp_ns[-1] - stream.stamp_ns[0] < MIN_SPAN_NS:
        return
    for name, values in _fields(stream).items():
        labels = stream.info.fields[name].channels
        for c in range(values.shape[1]):
            label = labels[c] if labels and len(labels) == values.shape[1] else str(c)
            shown = name if values.shape[1] == 1 else f"{name}[{label}]"
            yield shown, np.ascontiguousarray(values[:, c])


def _in_runs(full: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of members of runs of at least three along the first axis."""
    middle = full.copy()
    middle[1:-1] = full[1:-1] & full[:-2] & full[2:]
    middle[0] = middle[-1] = False
    out = middle.copy()
    out[:-1] |= middle[1:]
    out[1:] |= middle[:-1]
    return np.asarray(out)
