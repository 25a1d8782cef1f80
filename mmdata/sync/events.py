"""Pairs of streams that share events: contacts, impacts heard and seen, commands and responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mmdata.streams import Kind, Ragged, Stream
from mmdata.sync.correlate import CorrelationConfig, OffsetEstimate, Signal, correlate
from mmdata.sync.kinematics import derivative, is_command
from mmdata.sync.motion import CameraMotion
from mmdata.sync.onsets import OnsetConfig, Onsets, audio_onsets, contact_onsets, match_onsets


@dataclass(frozen=True)
class Candidate:
    """Estimates for one pair of streams."""

    a: str
    b: str
    kind: str
    estimates: tuple[OffsetEstimate, ...]


def _force(stream: Stream) -> Onsets | None:
    if stream.kind is Kind.TACTILE or "tactile" in stream.name.lower():
        for name in stream.fields:
            values = stream[name]
            if isinstance(values, np.ndarray) and values.ndim >= 2:
                return contact_onsets(stream.stamp_ns, values, rate=False)
    elif stream.kind is Kind.SIGNAL and stream.info.fields.get("force") is not None:
        return contact_onsets(stream.stamp_ns, np.asarray(stream["force"]), rate=True)
    return None


def _sound(stream: Stream) -> Onsets | None:
    rate = stream.info.attrs.get("sample_rate_hz")
    samples = stream["samples"] if "samples" in stream.fields else None
    if not rate or samples is None or not len(samples):
        return None
    if isinstance(samples, Ragged):
        return audio_onsets(stream.stamp_ns, samples.offsets, samples.data, float(rate))
    data = np.asarray(samples)
    starts = np.arange(len(data) + 1, dtype=np.int64) * data.shape[1]
    return audio_onsets(stream.stamp_ns, starts, data.reshape(-1, *data.shape[2:]), float(rate))


def contacts(
    streams: Mapping[str, Stream], config: OnsetConfig, air_distance_m: float | None
) -> Iterator[Candidate]:
    """Force against touch, and both against sound, by the onsets of impacts."""
    forces: dict[str, Onsets] = {}
    tactile: dict[str, Onsets] = {}
    for name, stream in streams.items():
        onsets = _force(stream)
        if onsets is not None:
            touch = stream.kind is Kind.TACTILE or "tactile" in name.lower()
            (tactile if touch else forces)[name] = onsets
    sounds = {
        n: onsets
        for n, s in streams.items()
        if s.kind is Kind.AUDIO and (onsets := _sound(s)) is not None
    }
    for a, force in forces.items():
        for b, touch_onsets in tactile.items():
            found = match_onsets(force, touch_onsets, method="contact_onsets", config=config)
            yield Candidate(a, b, "force_tactile", (found,))
    for a, force in {**forces, **tactile}.items():
        for b, sound in sounds.items():
            found = match_onsets(
                force,
                sound,
                method="audio_impacts",
                air_distance_m=air_distance_m,
                config=config,
            )
            yield Candidate(a, b, "audio_contact", (found,))


def sound_and_picture(
    streams: Mapping[str, Stream], cameras: Mapping[str, CameraMotion], config: OnsetConfig
) -> Iterator[Candidate]:
    """Impacts seen as sudden changes of the picture against impacts heard."""
    for audio, stream in streams.items():
        sound = _sound(stream) if stream.kind is Kind.AUDIO else None
        if sound is None:
            continue
        for name, camera in cameras.items():
            jumps = contact_onsets(camera.stamp_ns, camera.energy[:, None], rate=True)
            video = replace(config, max_sigma_s=0.02, tolerance_s=0.03)
            found = match_onsets(jumps, sound, method="audio_picture_impacts", config=video)
            yield Candidate(name, audio, "audio_video", (found,))


def commands(streams: Mapping[str, Stream], config: CorrelationConfig) -> Iterator[Candidate]:
    """Command against response; the lag holds the actuator as well as any clock error."""
    states = {n: s for n, s in streams.items() if s.kind is Kind.SIGNAL and not is_command(s)}
    for name, stream in streams.items():
        if stream.kind is not Kind.SIGNAL or not is_command(stream):
            continue
        for other, state in states.items():
            shared = _shared_channels(stream, state)
            if shared is None:
                continue
            command, response = (
                Signal(m.stamp_ns, np.abs(m.value[:, cols]).sum(axis=1))
                for m, cols in zip(_velocities(stream, state), shared, strict=True)
            )
            if float(np.abs(command.value).max(initial=0)) <= 0:
                continue
            found = correlate(command, response, method="command_response", config=config)
            yield Candidate(name, other, "command_response", (found,))


def _velocities(*streams: Stream) -> Iterator[Signal]:
    for stream in streams:
        field_name = next(n for n in ("position", "state", "action", "data") if n in stream.fields)
        yield derivative(stream.stamp_ns, np.asarray(stream[field_name], np.float64))


def _shared_channels(command: Stream, state: Stream) -> tuple[list[int], list[int]] | None:
    """Columns of the positions both streams name alike, or all where the counts agree."""
    found = []
    for stream in (command, state):
        name = next((n for n in ("position", "state", "action", "data") if n in stream.fields), "")
        info = stream.info.fields.get(name)
        if info is None or info.ragged or len(info.shape) != 1 or not info.shape[0]:
            return None
        found.append((info.shape[0], info.channels))
    (count_a, names_a), (count_b, names_b) = found
    if names_a and names_b:
        both = [n for n in names_a if n in names_b]
        if both:
            return [names_a.index(n) for n in both], [names_b.index(n) for n in both]
        return None
    return (list(range(count_a)),) * 2 if count_a == count_b and count_a > 1 else None
