"""The tracker: causal, bounded in latency, and close to the offline result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmdata.errors import ConfigError
from mmdata.phases import evaluate, score_episode, segment_inputs
from mmdata.phases.metrics import Interval
from mmdata.phases.online import PhaseTracker, Update
from mmdata.phases.scripted import Take, pick_place


def samples(take: Take) -> list[dict[str, Any]]:
    effector = take.inputs.effectors[0]
    rows: list[tuple[int, str, Any]] = []
    for role in ("position", "width", "command", "touch", "wrench"):
        series = getattr(effector, role)
        rows += [(int(t), role, v) for t, v in zip(series.stamp_ns, series.values, strict=True)]
    return [{"stamp_ns": t, role: v} for t, role, v in sorted(rows, key=lambda r: r[0])]


def follow(rows: list[dict[str, Any]]) -> tuple[list[Update], PhaseTracker]:
    tracker = PhaseTracker("pick_place", width=(0.0, 0.08))
    for row in rows:
        tracker.push(row)
    return list(tracker.phases), tracker


def intervals(updates: list[Update], end_ns: int) -> list[Interval]:
    ends = [*(u.start_ns for u in updates[1:]), end_ns]
    return [Interval(u.label, u.start_ns, e) for u, e in zip(updates, ends, strict=True)]


def test_what_is_committed_does_not_depend_on_the_future() -> None:
    rows = samples(pick_place(60, rate_hz=50.0))
    rows = rows[: len(rows) * 2 // 3]
    whole, _ = follow(rows)
    cut = len(rows) * 6 // 10
    part, _ = follow(rows[:cut])
    changed = [
        {**row, **({"position": np.array(row["position"]) * -3.0} if "position" in row else {})}
        for row in rows[cut:]
    ]
    other, _ = follow([*rows[:cut], *changed])
    known = [u for u in whole if u.decided_ns <= rows[cut - 1]["stamp_ns"]]
    assert len(known) >= 3
    assert part[: len(known)] == known
    assert other[: len(known)] == known


def test_decisions_come_within_lag_and_tick() -> None:
    updates, tracker = follow(samples(pick_place(61)))
    assert len(updates) >= 7
    step = 2 * 33_000_000  # samples are up to a period apart
    for update in updates[1:]:
        assert update.latency_ns <= tracker.lag_ns + tracker.tick_ns + step


def test_online_is_nearly_as_good_as_offline() -> None:
    online, offline = [], []
    for seed in range(3100, 3104):
        take = pick_place(seed)
        _updates, tracker = follow(samples(take))
        tracker.finish()
        online.append(score_episode(intervals(tracker.phases, take.inputs.end_ns), take.phases))
        offline.append(
            score_episode(segment_inputs(take.inputs, "pick_place").intervals(), take.phases)
        )
    a, b = evaluate(online, resamples=2), evaluate(offline, resamples=2)
    assert a["boundary_f1@250ms"].value >= 0.85
    assert a["boundary_f1@250ms"].value >= b["boundary_f1@250ms"].value - 0.1


def test_bad_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="not for one arm"):
        PhaseTracker("driving")
    with pytest.raises(ConfigError, match="no grammar"):
        PhaseTracker("juggling")
    with pytest.raises(ConfigError, match="unknown signal 'speed'"):
        PhaseTracker().push({"stamp_ns": 0, "speed": 1.0})
    assert PhaseTracker().finish() == []
