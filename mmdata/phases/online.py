"""Phases while they happen: a fixed-lag decoder over the last seconds, causal by construction.

Every `tick_s` the offline pipeline runs over what has arrived, and what it says about the moments
older than `lag_s` is committed and never revised. A decision therefore never sees a sample newer
than the last one pushed and comes at most `lag_s + tick_s` after the moment it speaks of; one code
path serves offline and online. Ranges (speed, gripper width) are those seen so far unless given:
give the gripper's known range, or its first closing is judged before its extent is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmdata.errors import ConfigError
from mmdata.phases.decoding import decode_grammar
from mmdata.phases.evidence import Evidence
from mmdata.phases.features import Scales
from mmdata.phases.grammar import Grammar, find_grammar
from mmdata.phases.grid import Grid
from mmdata.phases.inputs import Effector, Inputs, Series
from mmdata.phases.segment import analyse, evidence_for
from mmdata.phases.settings import DEFAULTS, Settings

ROLES = ("position", "orientation", "joints", "width", "command", "wrench", "touch")
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Update:
    """A phase that began: its label, when it began, and when that was decided."""

    label: str
    start_ns: int
    decided_ns: int
    confidence: float

    @property
    def latency_ns(self) -> int:
        """From the beginning of the phase to the decision."""
        return self.decided_ns - self.start_ns


class PhaseTracker:
    """Follows one effector through a grammar.

    >>> tracker = PhaseTracker("pick_place", width=(0.0, 0.08))
    >>> for sample in samples:  # {"stamp_ns": ..., "position": (3,), "width": 0.08, ...}
    ...     for update in tracker.push(sample):
    ...         print(update.label, update.start_ns)

    lag_s: how old a moment is when it is decided; below 0.3 s the windows of the signals are cut.
    window_s: how far back signals are kept; a hold longer than that is only seen by touch.
    width: (closed, open) of the gripper; fast: a usual fast speed. Both are learned where absent.
    Raises ConfigError for an unknown grammar or one that is not for a single arm.
    """

    def __init__(
        self,
        grammar: str | Grammar = "pick_place",
        *,
        lag_s: float = 0.4,
        tick_s: float = 0.1,
        window_s: float = 20.0,
        width: tuple[float, float] | None = None,
        fast: float | None = None,
        settings: Settings = DEFAULTS,
    ) -> None:
        self.grammar = find_grammar(grammar) if isinstance(grammar, str) else grammar
        if self.grammar.domain != "arm":
            raise ConfigError(f"grammar {self.grammar.name} is not for one arm: track it offline")
        self.lag_ns, self.tick_ns = round(lag_s * NS), round(tick_s * NS)
        self.window_ns = round(window_s * NS)
        self.settings = settings
        self.phases: list[Update] = []
        """Everything committed so far, in order."""
        self._samples: dict[str, deque[tuple[int, Any]]] = {}
        self._start_ns: int | None = None
        self._last_tick: int | None = None
        self._committed_ns: int | None = None
        self._given_width, self._given_fast = width, fast
        self._scales: Scales | None = None

    @property
    def label(self) -> str | None:
        """Phase of the newest committed moment."""
        return self.phases[-1].label if self.phases else None

    def push(self, sample: Mapping[str, Any]) -> list[Update]:
        """Take one sample (`stamp_ns` and any of the effector's signals); return new phases.

        Stamps must not go back. Raises ConfigError for a signal there is no such name for.
        """
        now = int(sample["stamp_ns"])
        if self._start_ns is None:
            self._start_ns = self._last_tick = now
        for role, value in sample.items():
            if role == "stamp_ns" or value is None:
                continue
            if role not in ROLES:
                raise ConfigError(f"unknown signal {role!r}; there are {', '.join(ROLES)}")
            kept = self._samples.setdefault(role, deque())
            if not kept or now > kept[-1][0]:
                kept.append((now, value))
            while kept and kept[0][0] < now - self.window_ns:
                kept.popleft()
        assert self._last_tick is not None
        if now - self._last_tick < self.tick_ns:
            return []
        self._last_tick = now
        return self._decide(now, now - self.lag_ns)

    def finish(self) -> list[Update]:
        """Commit what is left, at the end of the episode."""
        return [] if self._last_tick is None else self._decide(self._last_tick, self._last_tick)

    def _decide(self, now: int, until: int) -> list[Update]:
        series = {
            role: Series(np.array([s for s, _ in kept]), np.array([v for _, v in kept], np.float64))
            for role, kept in self._samples.items()
            if len(kept) >= 4
        }
        first = min((int(s.stamp_ns[0]) for s in series.values()), default=now)
        if not series or until <= first or now - first < 2 * self.tick_ns:
            return []
        inputs = Inputs(first, now, (Effector("arm", **series),))
        scales = {"arm": self._scales} if self._scales is not None else {}
        analysis = analyse(inputs, self.settings, scales)
        self._remember(analysis.motions[0].scales, series)
        evidence = evidence_for(analysis, "arm")
        if evidence is None:
            return []
        # What is committed stands: decoding goes on from the beginning of the current phase.
        begun = max(first, self.phases[-1].start_ns if self.phases else first)
        evidence = _since(evidence, begun)
        if evidence.grid.n < 4:
            return []
        decoded = decode_grammar(evidence, self._from(begun), self.settings)
        return self._commit(decoded.segments, evidence.grid.start_ns, until, now)

    def _remember(self, seen: Scales, series: Mapping[str, Series]) -> None:
        """Ranges only grow: what was fast or wide open once stays the measure."""
        old = self._scales or seen
        width = self._given_width or seen.width
        if "width" in series and self._given_width is None:
            values = series["width"].values
            low, high = (float(q) for q in np.percentile(values, [0.5, 99.5]))
            if width is not None:
                width = (min(width[0], low), max(width[1], high))
        fast = max(old.fast, seen.fast)
        if "position" in series or "joints" in series:
            fast = max(fast, self._given_fast or 0.0)
        still = max(seen.still, self.settings.still_fraction * fast)
        self._scales = replace(seen, fast=fast, still=still, width=width)

    def _from(self, first_ns: int) -> Grammar:
        """The grammar, starting in what was committed for the window's first moment."""
        then = [u for u in self.phases if u.start_ns <= first_ns]
        if not then:
            return self.grammar.model_copy(update={"end": {}})
        states = [n for n in self.grammar.states if self.grammar.label(n) == then[-1].label]
        start = {name: 1.0 / len(states) for name in states}
        return self.grammar.model_copy(update={"start": start, "end": {}})

    def _commit(self, segments: Any, first: int, until: int, now: int) -> list[Update]:
        new: list[Update] = []
        done = self._committed_ns if self._committed_ns is not None else first
        for segment in segments:
            start = first + round(segment.start_s * NS)
            end = first + round(segment.end_s * NS)
            if end <= done or start > until:
                continue
            if self.label != segment.label:
                update = Update(segment.label, max(start, done), now, segment.confidence)
                self.phases.append(update)
                new.append(update)
        self._committed_ns = max(done, until)
        return new


def _since(evidence: Evidence, stamp_ns: int) -> Evidence:
    """The evidence from an instant on."""
    grid = evidence.grid
    skip = max(0, round((stamp_ns - grid.start_ns) / grid.step_ns))
    cut_s = skip * grid.step_s
    return Evidence(
        Grid(grid.start_ns + skip * grid.step_ns, grid.step_ns, max(grid.n - skip, 0)),
        {name: (value[skip:], weight[skip:]) for name, (value, weight) in evidence.facts.items()},
        [replace(i, seconds=i.seconds - cut_s) for i in evidence.instants if i.seconds > cut_s],
    )
