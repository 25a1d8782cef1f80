"""What to review first: the worst, with a random share among them.

Without the random share nobody could tell how many faults the ranking misses: what is never
drawn is never seen. The random part alone estimates the checker's precision and recall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mmdata.quality.bootstrap import Estimate
from mmdata.quality.sampling import fault_rate_bounds

#: Weight of severities; findings of checks use the first three names.
SEVERITIES: Mapping[str, float] = {"error": 3.0, "warning": 2.0, "info": 1.0, "none": 0.0}


@dataclass(frozen=True)
class Candidate:
    """Something a person could look at.

    severity: a name of :data:`SEVERITIES`; "none" where nothing speaks against it. score: in
    [0, 1], how sure that it is faulty (of a proposal: 1 - confidence); 1 where nobody says.
    """

    id: str
    episode_id: str
    severity: str = "none"
    score: float = 1.0
    reason: str | None = None
    layer: str | None = None

    @property
    def rank(self) -> float:
        """severity x score."""
        return SEVERITIES[self.severity] * self.score


@dataclass(frozen=True)
class Entry:
    """One place of the queue, and why it is there. flagged: whether anything spoke against it."""

    position: int
    candidate: Candidate
    why: Literal["ranked", "random"]
    flagged: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "rank": self.candidate.rank}


def review_queue(
    candidates: Sequence[Candidate],
    *,
    size: int | None = None,
    random_share: float = 0.15,
    seed: int = 0,
) -> list[Entry]:
    """The queue: ranked ones in order, and random ones spread evenly among them.

    Random ones are drawn uniformly from all candidates, flagged or not, before the ranked ones
    are filled in, so that every candidate has the same chance to be among them. Their places are
    spread, so that whoever stops early has seen the same share. Depends on ids and seed only.

    size: length of the queue (all candidates by default). ValueError for a share outside [0, 1],
    an unknown severity, a score outside [0, 1] or an item that occurs twice.
    """
    if not 0 <= random_share <= 1:
        raise ValueError(f"the random share lies in [0, 1], got {random_share}")
    keys = {(c.episode_id, c.layer, c.id) for c in candidates}
    if len(keys) != len(candidates):
        raise ValueError("a candidate occurs twice")
    for candidate in candidates:
        if candidate.severity not in SEVERITIES or not 0 <= candidate.score <= 1:
            raise ValueError(f"candidate {candidate.id!r}: severity is one of "
                             f"{', '.join(SEVERITIES)}, score in [0, 1]")  # fmt: skip
    ordered = sorted(candidates, key=lambda c: (-c.rank, c.episode_id, c.layer or "", c.id))
    size = len(ordered) if size is None else min(size, len(ordered))
    rng = np.random.default_rng(seed)
    # Drawing must not depend on the ranking, or a change of scores would change the draw.
    by_id = sorted(range(len(ordered)), key=lambda i: (
        ordered[i].episode_id, ordered[i].layer or "", ordered[i].id))  # fmt: skip
    drawn = rng.choice(len(by_id), size=round(size * random_share), replace=False).tolist()
    random = [by_id[i] for i in drawn]
    ranked = iter([i for i in range(len(ordered)) if i not in set(random)])
    places = _spread(len(random), size)
    out = []
    waiting = iter(random)
    for position in range(size):
        why: Literal["ranked", "random"] = "random" if position in places else "ranked"
        candidate = ordered[next(waiting if why == "random" else ranked)]
        out.append(Entry(position, candidate, why, candidate.rank > 0))
    return out


def _spread(count: int, size: int) -> set[int]:
    """`count` places of 0 .. size - 1, evenly spread."""
    return {int((i + 0.5) * size / count) for i in range(count)}


def checker_quality(
    queue: Sequence[Entry], faulty: Mapping[tuple[str, str | None, str], bool]
) -> dict[str, Estimate]:
    """Precision and recall of what flagged the candidates, from the random part alone.

    faulty: verdict per (episode_id, layer, id). Intervals are Clopper-Pearson; `episodes` holds
    the number of items they rest on.
    """
    rows = [
        (e.flagged, faulty[key]) for e in queue
        if e.why == "random"
        and (key := (e.candidate.episode_id, e.candidate.layer, e.candidate.id)) in faulty
    ]  # fmt: skip
    hits = sum(flagged and bad for flagged, bad in rows)
    return {
        "precision": _share(hits, sum(flagged for flagged, _ in rows)),
        "recall": _share(hits, sum(bad for _, bad in rows)),
        "fault_rate": _share(sum(bad for _, bad in rows), len(rows)),
    }


def _share(part: int, whole: int) -> Estimate:
    if not whole:
        return Estimate(None, None, None, 0)
    low, high = fault_rate_bounds(part, whole)
    return Estimate(part / whole, low, high, whole)
