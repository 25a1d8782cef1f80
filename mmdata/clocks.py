"""Stamps, clocks, and the decision which clock an episode lives on.

A stamp is an int64 count of nanoseconds. A sample can carry up to three of them, and they
are kept apart: `source_ns` (written by the sensor, e.g. `header.stamp`), `receive_ns` (when
the log received it) and `publish_ns` (when the publisher sent it). `stamp_ns`, the time base
of everything else, is derived from them by `place_streams`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import SyncError

Stamps = NDArray[np.int64]
StampSource = Literal["header", "receive", "synthetic"]
StampPolicy = Literal["auto", "header", "receive"]

SECOND_NS = 1_000_000_000
#: Two clocks whose readings differ by more than this do not share an epoch. Latencies,
#: buffering and unsynchronised hosts stay far below; boot time, zero and other days far above.
SAME_EPOCH_NS = 60 * SECOND_NS
#: Stamps from 1990 on are taken as Unix time.
_UNIX_EPOCH_FROM_NS = 631_152_000 * SECOND_NS
_SAMPLE_CAPACITY = 4096


@dataclass(frozen=True, slots=True)
class Clock:
    """One counter that made stamps, and how it maps to the episode's reference clock.

    `reference_ns = source_ns + offset_ns`, before any skew. `epoch` is "unix" or "arbitrary".
    """

    name: str
    epoch: Literal["unix", "arbitrary"]
    offset_ns: int = 0
    skew_ppm: float = 0.0
    offset_sigma_ns: float | None = None
    method: str = "identity"
    n: int = 0


@dataclass(frozen=True, slots=True)
class ClockMap:
    """Affine map between two clocks: `target = source + offset + skew * (source - anchor)`.

    offset_ns is the offset at anchor_ns; skew is dimensionless (`skew_ppm * 1e-6`).
    """

    anchor_ns: int
    offset_ns: float
    skew_ppm: float = 0.0

    def apply(self, stamps: Stamps) -> Stamps:
        """Map stamps (N,) i8 to the target clock. Exact in int64 up to the rounded correction."""
        elapsed = (stamps - self.anchor_ns).astype(np.float64)
        correction = self.offset_ns + elapsed * (self.skew_ppm * 1e-6)
        return stamps + np.rint(correction).astype(np.int64)


@dataclass
class StampStatistics:
    """What the writer learns about one stream's stamps as batches pass, in bounded memory."""

    n: int = 0
    n_header: int = 0
    n_unset: int = 0
    n_receive: int = 0
    header_sorted: bool = True
    receive_sorted: bool = True
    synthetic: bool = False
    first_source_ns: int = 0
    _last_header: int | None = None
    _last_receive: int | None = None
    _delays: list[Stamps] = field(default_factory=list)
    _kept: int = 0
    _stride: int = 1

    def update(self, source_ns: Stamps | None, receive_ns: Stamps | None) -> None:
        """Account for one batch: stamps (n,) i8 in recording order."""
        present = source_ns if source_ns is not None else receive_ns
        if present is None or not len(present):
            return
        self.n += len(present)
        if receive_ns is not None:
            self.n_receive += len(receive_ns)
            self.receive_sorted &= _extends_sorted(self._last_receive, receive_ns)
            self._last_receive = int(receive_ns[-1])
        if source_ns is None:
            return
        stamped = source_ns
        # Without receive stamps, 0 is a stamp like any other: that of a first row.
        unset = (source_ns == 0) & (receive_ns is not None)
        if receive_ns is not None and unset.any():
            self.n_unset += int(unset.sum())
            stamped = np.where(unset, receive_ns, source_ns)
        self.header_sorted &= _extends_sorted(self._last_header, stamped)
        self._last_header = int(stamped[-1])
        known = source_ns[~unset]
        if not len(known):
            return
        if self.n_header == 0:
            self.first_source_ns = int(known[0])
        self.n_header += len(known)
        if receive_ns is not None:
            self._keep((receive_ns - source_ns)[~unset])

    def _keep(self, delays: Stamps) -> None:
        self._delays.append(delays[:: self._stride])
        self._kept += len(self._delays[-1])
        if self._kept > _SAMPLE_CAPACITY:
            merged = np.concatenate(self._delays)[::2]
            self._delays, self._kept, self._stride = [merged], len(merged), self._stride * 2

    @property
    def delay_ns(self) -> int | None:
        """Median of receive - source over a bounded sample, or None where either is absent."""
        if not self._delays:
            return None
        return int(np.median(np.concatenate(self._delays)))


def _extends_sorted(last: int | None, stamps: Stamps) -> bool:
    if last is not None and stamps[0] < last:
        return False
    return bool((stamps[1:] >= stamps[:-1]).all())


@dataclass(frozen=True, slots=True)
class Placement:
    """How one stream's `stamp_ns` follows from its source stamps.

    "header": source_ns, except samples whose header was unset (0), which take
    `receive_ns + receive_offset_ns`. "receive": `receive_ns + receive_offset_ns`.
    """

    stamp_source: StampSource
    clock: str
    receive_offset_ns: int = 0

    def stamps(self, source_ns: Stamps | None, receive_ns: Stamps | None) -> Stamps:
        """`stamp_ns` (n,) i8 of samples with the given stamps."""
        if self.stamp_source == "receive":
            assert receive_ns is not None
            return receive_ns + self.receive_offset_ns
        assert source_ns is not None
        if receive_ns is None or self.stamp_source == "synthetic":
            return source_ns
        return np.where(source_ns == 0, receive_ns + self.receive_offset_ns, source_ns)


@dataclass(frozen=True, slots=True)
class EpisodeClocks:
    """Outcome of `place_streams`: clocks by name, a placement per stream, notes for people."""

    reference: str
    clocks: Mapping[str, Clock]
    placements: Mapping[str, Placement]
    notes: tuple[str, ...]


def place_streams(
    statistics: Mapping[str, StampStatistics], policy: StampPolicy = "auto"
) -> EpisodeClocks:
    """Put every stream of an episode on one clock.

    Streams whose headers lie within `SAME_EPOCH_NS` of each other's, measured through
    `receive - source`, share a clock. The clock that most streams share (ties: most samples,
    then the one nearest the receive clock) is the reference. A stream whose header clock lives in
    another epoch, or that has no header, is placed by its receive stamps.

    policy "header" keeps every header stamp as it is; "receive" uses receive stamps for all.
    Raises SyncError when a stream has neither kind of stamp the policy needs.
    """
    groups = _epoch_groups(statistics)
    receive_only = [n for n, s in statistics.items() if s.n_header == 0 and s.n_receive]
    reference = _reference_group(groups, statistics)
    shift = 0
    clocks: dict[str, Clock] = {}
    placements: dict[str, Placement] = {}
    notes: list[str] = []

    if policy != "receive" and reference is not None and abs(reference.delay_ns) > SAME_EPOCH_NS:
        shift = -reference.delay_ns
    reference_name = "receive" if policy == "receive" or reference is None else "header"

    for order, group in enumerate(groups):
        name = "header" if group is reference else f"header_{order}"
        keep = policy == "header" or (policy == "auto" and group is reference)
        offset = 0 if group is reference else group.delay_ns + shift
        clocks[name] = Clock(
            name,
            _epoch_of(group.first_source_ns),
            offset_ns=0 if keep else offset,
            method="identity" if keep or group is reference else "median(receive - source)",
            n=group.samples,
        )
        for stream in group.streams:
            statistic = statistics[stream]
            if keep:
                source: StampSource = "synthetic" if statistic.synthetic else "header"
                placements[stream] = Placement(source, name, shift)
            elif statistic.n_receive:
                placements[stream] = Placement("receive", name, shift)
            else:
                raise SyncError(
                    f"stream {stream!r}: its header clock is in another epoch than most streams "
                    "and it has no receive stamps to place it by; use --stamps header"
                )
        if policy == "auto" and group is not reference:
            notes.append(
                f"header clock of {', '.join(group.streams)} is {offset / 1e9:+.1f} s from the "
                f"clock most streams share; placed by receive stamps"
            )
        unset = {s: statistics[s].n_unset for s in group.streams if statistics[s].n_unset and keep}
        notes += [
            f"{stream}: {count} header stamps are 0 (unset); those samples use receive stamps"
            for stream, count in unset.items()
        ]
    if receive_only:
        anchor = 0 if not groups else shift
        clocks["receive"] = Clock("receive", "unix", offset_ns=anchor, method="identity")
        for stream in receive_only:
            placements[stream] = Placement("receive", "receive", anchor)
    for stream, statistic in statistics.items():
        if statistic.n == 0:
            placements[stream] = Placement("header", reference_name)
    if reference_name not in clocks:
        clocks[reference_name] = Clock(reference_name, "unix")
    return EpisodeClocks(reference_name, clocks, placements, tuple(notes))


@dataclass
class _Group:
    delay_ns: int
    streams: list[str]
    samples: int
    first_source_ns: int


def _epoch_groups(statistics: Mapping[str, StampStatistics]) -> list[_Group]:
    """Streams with headers, grouped by epoch, in order of their delay to the receive clock."""
    with_header = {n: s for n, s in statistics.items() if s.n_header}
    # Without receive stamps there is nothing to compare through: such streams share one clock.
    known = sorted(
        ((s.delay_ns if s.delay_ns is not None else 0), n) for n, s in with_header.items()
    )
    groups: list[_Group] = []
    for delay, name in known:
        statistic = with_header[name]
        if groups and delay - groups[-1].delay_ns <= SAME_EPOCH_NS:
            groups[-1].streams.append(name)
            groups[-1].samples += statistic.n
        else:
            groups.append(_Group(delay, [name], statistic.n, statistic.first_source_ns))
    for group in groups:
        delays = [d for d, n in known if n in set(group.streams)]
        group.delay_ns = int(np.median(delays))
    return groups


def _reference_group(
    groups: Sequence[_Group], statistics: Mapping[str, StampStatistics]
) -> _Group | None:
    if not groups:
        return None
    return max(groups, key=lambda g: (len(g.streams), g.samples, -abs(g.delay_ns)))


def _epoch_of(stamp_ns: int) -> Literal["unix", "arbitrary"]:
    return "unix" if stamp_ns >= _UNIX_EPOCH_FROM_NS else "arbitrary"
