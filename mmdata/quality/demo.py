"""Quality of one demonstration as claims, of which only defects count.

DEFECT: the recording is broken; only these move the grade, by their worst density.
RISK: worth a look, may be right for the task. CHARACTERISTIC: a fact without judgement.
NOT_ASSESSED: the signal for it is missing, which is never a pass.

Scores that mix such measures are mostly episode length in disguise, so every report carries the
length and a random number beside it, and `compare_with_length` says how much of a grade is length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from mmdata.quality.cameras import camera_health
from mmdata.quality.movement import (
    Floats,
    action_lag,
    chatter,
    idle_mask,
    path_efficiency,
    runs,
    saturation,
)
from mmdata.quality.smoothness import smoothness
from mmdata.quality.state import Table, actions, states


class ClaimType(StrEnum):
    """What a claim means for the episode."""

    DEFECT = "DEFECT"
    RISK = "RISK"
    CHARACTERISTIC = "CHARACTERISTIC"
    NOT_ASSESSED = "NOT_ASSESSED"


class PhaseLike(Protocol):
    """A labelled interval."""

    @property
    def label(self) -> str: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...


class EventLike(Protocol):
    """A labelled instant."""

    @property
    def label(self) -> str: ...
    @property
    def stamp_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of claims: conventions, to be set per data set."""

    idle_risk: float = 0.1
    frozen_state_s: float = 0.5
    black_share: float = 0.05
    blurred_risk: float = 0.3
    saturation_risk: float = 0.1
    chatter_risk_hz: float = 5.0
    lag_risk_s: float = 0.2
    lag_correlation: float = 0.5
    tracking_risk: float = 0.1
    grades: tuple[tuple[str, float], ...] = (("A", 98.0), ("B", 90.0), ("C", 75.0), ("D", 50.0))


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement: value in `unit`; density (DEFECT only) is the spoilt share of the episode."""

    type: ClaimType
    name: str
    message: str
    value: float | None = None
    unit: str = ""
    density: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": str(self.type),
            "name": self.name,
            "message": self.message,
            "value": None if self.value is None or not np.isfinite(self.value) else self.value,
            "unit": self.unit,
            "density": self.density,
        }


@dataclass(frozen=True)
class DemoQuality:
    """Claims about one demonstration. grade is A to F, or NOT_ASSESSED where nothing was checked.

    score is 100 (1 - density of the worst defect), None where not assessed.
    """

    claims: tuple[Claim, ...]
    grade: str
    score: float | None
    length_s: float
    random: float
    checked: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON form; the baselines stand beside the score on purpose."""
        return {
            "grade": self.grade,
            "score": self.score,
            "claims": [c.to_dict() for c in self.claims],
            "baselines": {"length_s": round(self.length_s, 3), "random": round(self.random, 4)},
            "checked_for_defects": list(self.checked),
        }


Ranges = Mapping[str, tuple[Floats, Floats]]


def dataset_ranges(episodes: Iterable[Any]) -> Ranges:
    """Least and greatest value of every state and action channel over open episodes, by table."""
    found: dict[str, tuple[Floats, Floats]] = {}
    for ep in episodes:
        for table in (*states(ep), *actions(ep)):
            low, high = np.nanmin(table.values, axis=0), np.nanmax(table.values, axis=0)
            if table.name in found and found[table.name][0].shape == low.shape:
                old = found[table.name]
                low, high = np.fmin(old[0], low), np.fmax(old[1], high)
            found[table.name] = (low, high)
    return found


def assess_demonstration(
    ep: Any,
    phases: Sequence[PhaseLike] = (),
    events: Sequence[EventLike] = (),
    *,
    ranges: Ranges | None = None,
    policy: Policy | None = None,
    cameras: bool = True,
) -> DemoQuality:
    """Claims about an open episode. `ranges` (of the data set) are needed to judge saturation."""
    policy = policy or Policy()
    claims: list[Claim] = []
    checked: list[str] = []
    length_s = ep.duration_s
    moving, acting = states(ep), actions(ep)
    for table in (*moving, *acting):
        claims += _values(table, policy, moving)
        checked.append(f"{table.name} values")
    if cameras:
        for name, stream in ep.streams.items():
            if str(stream.kind) == "image":
                claims += _camera(name, stream, policy)
                checked.append(f"{name} pictures")
    claims += _idle(moving, policy)
    claims += _events(events, phases)
    claims += _movement(moving, phases)
    claims += _commands(moving, acting, ranges, policy)
    claims.append(
        Claim(ClaimType.CHARACTERISTIC, "length", f"{length_s:.2f} s long", length_s, "s")
    )
    densities = [c.density or 0.0 for c in claims if c.type is ClaimType.DEFECT]
    score = 100.0 * (1.0 - max(densities, default=0.0)) if checked else None
    grade = "NOT_ASSESSED"
    if score is not None:
        grade = next((g for g, least in policy.grades if score >= least), "F")
    seed = hashlib.sha256(str(ep.episode_id).encode()).digest()
    chance = int.from_bytes(seed[:8], "big") / 2**64
    return DemoQuality(tuple(claims), grade, score, length_s, chance, tuple(checked))


def _values(table: Table, policy: Policy, others: Sequence[Table]) -> list[Claim]:
    """Values that are not numbers, and states that freeze to the last bit while others move."""
    out = []
    bad = np.asarray(~np.isfinite(table.values).all(axis=1))
    if bad.any():
        share = float(bad.mean())
        out.append(
            Claim(
                ClaimType.DEFECT,
                f"{table.name}.not_finite",
                f"{bad.sum()} of {len(bad)} samples are not numbers",
                share,
                "share",
                share,
            )
        )
    if table.is_action:
        return out
    same = (np.diff(table.values, axis=0) == 0).all(axis=1)
    stamps = table.stamp_ns
    stuck = [
        (int(stamps[a]), int(stamps[b]))
        for a, b in runs(same)
        if stamps[b] - stamps[a] >= policy.frozen_state_s * 1e9
        and any(_moves(o, int(stamps[a]), int(stamps[b])) for o in others if o is not table)
    ]
    if stuck:
        share = sum(b - a for a, b in stuck) / max(int(stamps[-1] - stamps[0]), 1)
        out.append(
            Claim(
                ClaimType.DEFECT,
                f"{table.name}.frozen",
                f"stands still to the last bit {len(stuck)} times while others move",
                share,
                "share",
                share,
            )
        )
    return out


def _moves(table: Table, start_ns: int, end_ns: int) -> bool:
    """Whether a table changes by a hundredth of its range within an interval."""
    first, last = np.searchsorted(table.stamp_ns, [start_ns, end_ns])
    if last - first < 2:
        return False
    whole, inside = table.values, table.values[first:last]
    whole = whole[np.isfinite(whole).all(axis=1)]
    inside = inside[np.isfinite(inside).all(axis=1)]
    if len(inside) < 2:
        return False
    span, part = np.ptp(whole, axis=0), np.ptp(inside, axis=0)
    return bool((part > 0.01 * np.maximum(span, 1e-9)).any() and (span > 1e-9).any())


def _camera(name: str, stream: Any, policy: Policy) -> list[Claim]:
    health = camera_health(stream)
    if health is None:
        return [Claim(ClaimType.NOT_ASSESSED, f"{name}.pictures", "no frame")]
    out = []
    if health.frozen is None:
        out.append(
            Claim(ClaimType.NOT_ASSESSED, f"{name}.frozen", "video: stored bytes always differ")
        )
    elif health.frozen > 0:
        out.append(
            Claim(
                ClaimType.DEFECT,
                f"{name}.frozen",
                f"the picture stands still for {health.frozen:.1%} of the time",
                health.frozen,
                "share",
                health.frozen,
            )
        )
    if health.black > policy.black_share:
        out.append(
            Claim(
                ClaimType.DEFECT,
                f"{name}.black",
                f"{health.black:.0%} of {health.frames} looked-at frames are black",
                health.black,
                "share",
                health.black,
            )
        )
    kind = ClaimType.RISK if health.blurred > policy.blurred_risk else ClaimType.CHARACTERISTIC
    out.append(
        Claim(
            kind,
            f"{name}.blurred",
            f"{health.blurred:.0%} of looked-at frames are far less sharp than its best",
            health.blurred,
            "share",
        )
    )
    return out


def _idle(tables: Sequence[Table], policy: Policy) -> list[Claim]:
    if not tables:
        return [Claim(ClaimType.NOT_ASSESSED, "idle", "no state signal")]
    rate = 50.0
    parts = [idle_mask(t.on_grid(rate), rate) for t in tables]
    n = min(len(p) for p in parts)
    idle = np.logical_and.reduce([p[:n] for p in parts])
    share = float(idle.mean()) if n else 0.0
    kind = ClaimType.RISK if share > policy.idle_risk else ClaimType.CHARACTERISTIC
    message = f"nothing moves for {share:.0%} of the time"
    if share > policy.idle_risk:
        message += ": trim it, do not drop the episode"
    return [Claim(kind, "idle", message, share, "share")]


def _events(events: Sequence[EventLike], phases: Sequence[PhaseLike]) -> list[Claim]:
    """Hesitations and retries, counted from events somebody found."""
    if not events and not phases:
        return [
            Claim(ClaimType.NOT_ASSESSED, "hesitations", "no events: segment the episode first"),
            Claim(ClaimType.NOT_ASSESSED, "retries", "no events: segment the episode first"),
        ]
    labels = [e.label for e in events]
    waits = labels.count("hesitation")
    retries = sum(labels.count(name) for name in ("grasp_failure", "drop"))
    out = []
    for name, count, word in (
        ("hesitations", waits, "hesitations"),
        ("retries", retries, "failed grasps or drops"),
    ):
        kind = ClaimType.RISK if count else ClaimType.CHARACTERISTIC
        out.append(Claim(kind, name, f"{count} {word}", float(count), "count"))
    return out


def _movement(tables: Sequence[Table], phases: Sequence[PhaseLike]) -> list[Claim]:
    """Smoothness and directness per phase, of the hand's position or else of the joints."""
    places = [t for t in tables if t.is_position] or list(tables)
    if not places:
        return [Claim(ClaimType.NOT_ASSESSED, "smoothness", "no state signal")]
    if not phases:
        return [
            Claim(ClaimType.NOT_ASSESSED, "smoothness", "no phases: it is only fair per movement")
        ]
    table, rate = places[0], 100.0
    path = table.on_grid(rate)
    start = int(table.stamp_ns[0])
    out = []
    whole = float(np.linalg.norm(np.ptp(path, axis=0)))
    for p in phases:
        a = max(0, round((p.start_ns - start) * 1e-9 * rate))
        b = min(len(path), round((p.end_ns - start) * 1e-9 * rate))
        part = path[a:b]
        if b - a < 16 or np.linalg.norm(np.ptp(part, axis=0)) < 0.05 * whole:
            continue  # a phase without movement has no smoothness
        found = smoothness(part, rate)
        direct = path_efficiency(part)
        out.append(
            Claim(
                ClaimType.CHARACTERISTIC,
                f"smoothness.{p.label}",
                f"SPARC {found.sparc:.2f}, LDLJ {found.ldlj:.2f} (a minimum-jerk move with this "
                f"noise: {found.floor_ldlj:.2f}), straightness {direct:.2f}",
                found.sparc,
                "SPARC",
            )
        )
    return out


def _commands(
    moving: Sequence[Table], acting: Sequence[Table], ranges: Ranges | None, policy: Policy
) -> list[Claim]:
    """Saturation, chatter, lag and tracking error of actions."""
    out: list[Claim] = []
    if not acting:
        return [Claim(ClaimType.NOT_ASSESSED, "actions", "no action or command signal")]
    rate = 50.0
    for table in acting:
        values = table.on_grid(rate)
        shaking = chatter(values, rate)
        kind = ClaimType.RISK if shaking > policy.chatter_risk_hz else ClaimType.CHARACTERISTIC
        out.append(
            Claim(
                kind,
                f"{table.name}.chatter",
                f"up to {shaking:.0f} reversals a second",
                shaking,
                "Hz",
            )
        )
        out += _saturation(table, ranges, policy)
        out += _following(table, moving, policy)
    return out


def _saturation(table: Table, ranges: Ranges | None, policy: Policy) -> list[Claim]:
    """Time at the ends of the data set's range; places in space have no ends and are left out."""
    name, rate = f"{table.name}.saturation", 50.0
    if table.is_position:
        return []
    if ranges is None or table.name not in ranges:
        return [
            Claim(
                ClaimType.NOT_ASSESSED,
                name,
                "needs the range of the data set: assess several episodes together",
            )
        ]
    low, high = ranges[table.name]
    switch = np.array([len(np.unique(c)) < 5 for c in table.values.T])
    if low.shape != switch.shape or switch.all():
        return [Claim(ClaimType.NOT_ASSESSED, name, "switches only, or channels differ")]
    share = saturation(table.on_grid(rate), low, np.where(switch, low, high), rate)
    if not np.isfinite(share).any():
        return [Claim(ClaimType.NOT_ASSESSED, name, "no channel moves")]
    worst = float(np.nanmax(share))
    kind = ClaimType.RISK if worst > policy.saturation_risk else ClaimType.CHARACTERISTIC
    return [
        Claim(
            kind,
            name,
            f"a channel is at an end of its range {worst:.0%} of the time",
            worst,
            "share",
        )
    ]


def _following(table: Table, moving: Sequence[Table], policy: Policy) -> list[Claim]:
    rate = 100.0
    partner = table.partner(moving)
    if partner is None:
        return [Claim(ClaimType.NOT_ASSESSED, f"{table.name}.lag", "no state of the same shape")]
    start = max(int(table.stamp_ns[0]), int(partner.stamp_ns[0]))
    end = min(int(table.stamp_ns[-1]), int(partner.stamp_ns[-1]))
    a, s = table.on_grid(rate, start, end), partner.on_grid(rate, start, end)
    found = action_lag(a, s, rate)
    if found is None or found.correlation < policy.lag_correlation:
        return [
            Claim(
                ClaimType.NOT_ASSESSED,
                f"{table.name}.lag",
                f"{table.name} and {partner.name} do not move alike",
            )
        ]
    late = ClaimType.RISK if abs(found.seconds) > policy.lag_risk_s else ClaimType.CHARACTERISTIC
    off = ClaimType.RISK if found.tracking_rms > policy.tracking_risk else ClaimType.CHARACTERISTIC
    return [
        Claim(
            late,
            f"{table.name}.lag",
            f"{partner.name} follows by {1000 * found.seconds:.0f} ms (r {found.correlation:.2f})",
            found.seconds,
            "s",
        ),
        Claim(
            off,
            f"{table.name}.tracking",
            f"error left after the lag: {found.tracking_rms:.1%} of the range (rms)",
            found.tracking_rms,
            "ranges",
        ),
    ]


def compare_with_length(reports: Sequence[DemoQuality]) -> dict[str, float | None]:
    """Spearman correlation of score and of the random baseline with length; None below 5 episodes.

    A score that follows length closely ranks by length: say so before anybody filters by it.
    """
    known = [r for r in reports if r.score is not None]
    if len(known) < 5:
        return {"score_vs_length": None, "random_vs_length": None}
    length = np.array([r.length_s for r in known])

    def spearman(values: Sequence[float]) -> float | None:
        ranks = [np.argsort(np.argsort(v)).astype(float) for v in (np.array(values), length)]
        if len(set(values)) < 2:
            return None
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])

    return {
        "score_vs_length": spearman([r.score or 0.0 for r in known]),
        "random_vs_length": spearman([r.random for r in known]),
    }
