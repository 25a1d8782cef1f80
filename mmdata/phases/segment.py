"""`segment(episode)`: phases, events and outcome of one episode, and what they were read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.phases.base import base_evidence, hard_brakings
from mmdata.phases.contacts import Contact, grasp_contacts, gripper_moves, mask_of
from mmdata.phases.decoding import Decoded, decode_grammar
from mmdata.phases.events import (
    Found,
    Outcome,
    collisions,
    grasp_events,
    hesitations,
    outcome_of,
    placings,
)
from mmdata.phases.evidence import Evidence, Instant, motion_facts, motion_instants
from mmdata.phases.features import (
    Motion,
    Scales,
    flow,
    grid_of,
    lasting_change,
    motion_signals,
    with_force,
)
from mmdata.phases.grammar import Grammar, find_grammar, shipped
from mmdata.phases.grid import Grid
from mmdata.phases.inputs import Effector, Floats, Inputs, Series
from mmdata.phases.metrics import Interval
from mmdata.phases.settings import DEFAULTS, Settings
from mmdata.phases.tools import tool_touches
from mmdata.phases.touch import audio_onsets
from mmdata.phases.unnamed import decode_unnamed, is_continuous

FIT_NEEDED = -0.45
"""Nats per fact a grammar must reach to be used unasked; guessing gives -0.69."""
WORDS_BONUS = 0.05
"""What a word of the task's description is worth when grammars compete, in nats per fact."""
TRIAL_S = 600.0
"""Grammars compete over this much of an episode."""
RESTS = 0.2
"""A hand whose speed, or gripper whose range, is below this share of another's is at rest."""
EXPLAINED_S = 0.3
"""A change this near to a grammar's boundary is explained by it."""
WALKING_M_S = 3.0
"""A base that never exceeds this is taken for a robot rather than a road vehicle."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A labelled interval [start_ns, end_ns)."""

    label: str
    start_ns: int
    end_ns: int
    confidence: float
    evidence: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "confidence": round(self.confidence, 4),
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Event:
    """A labelled instant."""

    label: str
    stamp_ns: int
    confidence: float
    evidence: tuple[str, ...]
    effector: str = ""

    def to_dict(self) -> dict[str, Any]:
        out = {
            "label": self.label,
            "stamp_ns": self.stamp_ns,
            "confidence": round(self.confidence, 4),
            "evidence": list(self.evidence),
        }
        return {**out, "effector": self.effector} if self.effector else out


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything read from the signals before a grammar is applied."""

    grid: Grid
    motions: tuple[Motion, ...]
    grasps: Mapping[str, list[Contact]]
    tools: Mapping[str, list[Contact]]
    facts: Mapping[str, Mapping[str, tuple[Floats, Floats]]]
    instants: tuple[Instant, ...]
    base: Evidence | None
    events: tuple[Found, ...]
    outcome: Outcome
    lasting: Floats


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Phases and events of an episode. `grammar` is None for unnamed segments; `signals` says
    what was used and from where; `fit` is nats per fact (None without a grammar).
    """

    phases: tuple[Phase, ...]
    events: tuple[Event, ...]
    outcome: Outcome
    grammar: str | None
    fit: float | None
    signals: Mapping[str, str]
    notes: tuple[str, ...]
    analysis: Analysis

    def intervals(self) -> list[Interval]:
        """Phases as intervals for `mmdata.phases.metrics`."""
        return [Interval(p.label, p.start_ns, p.end_ns) for p in self.phases]

    def to_dict(self) -> dict[str, Any]:
        """JSON form: phases, events, and how they came about."""
        return {
            "phases": [p.to_dict() for p in self.phases],
            "events": [e.to_dict() for e in self.events],
            "outcome": {
                "label": self.outcome.label,
                "confidence": self.outcome.confidence,
                "evidence": list(self.outcome.evidence),
            },
            "grammar": self.grammar,
            "fit": None if self.fit is None else round(self.fit, 4),
            "signals": dict(self.signals),
            "notes": list(self.notes),
        }


def analyse(
    inputs: Inputs, settings: Settings = DEFAULTS, scales: Mapping[str, Scales] | None = None
) -> Analysis:
    """Signals, contacts, evidence and events of an episode. `scales` fixes effectors' ranges."""
    grid = grid_of(inputs, settings)
    clicks = np.empty(0)
    if inputs.audio is not None:
        clicks = grid.offset(audio_onsets(inputs.audio)[0])
    motions, grasps, tools, facts = [], {}, {}, {}
    instants: list[Instant] = []
    events: list[Found] = []
    for effector, motion in _measured(inputs.effectors, grid, settings, scales or {}):
        moves = gripper_moves(motion, grid, settings)
        held = grasp_contacts(motion, moves, clicks, grid, settings)
        motion = with_force(motion, effector, grid, mask_of(held, grid, held_only=True))
        touches = tool_touches(motion, held, grid, settings)
        touched = touches.tools
        motions.append(motion)
        grasps[motion.name], tools[motion.name] = held, touched
        facts[motion.name] = motion_facts(motion, held, touched, moves, grid)
        instants += motion_instants(motion, held, touched, moves, grid, settings)
        events += grasp_events(motion, held, moves, grid, settings)
        events += hesitations(motion, held, moves, grid, settings)
        events += placings(motion, held, [*touched, *touches.set_down])
        events += collisions(motion, held, grid)
        for c in touched:
            events.append(Found("tool_contact_on", c.start_s, c.confidence, c.evidence, c.effector))
            events.append(Found("tool_contact_off", c.end_s, c.confidence, c.evidence, c.effector))
    base = None
    if inputs.base is not None:
        base = base_evidence(inputs.base, grid, settings)
        for at, hard in hard_brakings(inputs.base, grid, settings):
            events.append(
                Found("hard_braking", at, 0.9, (f"deceleration {hard:.1f} m/s^2",), "base")
            )
    every = [c for held in grasps.values() for c in held]
    outcome = outcome_of(motions, sorted(every, key=lambda c: c.end_s), events, grid)
    return Analysis(
        grid,
        tuple(motions),
        grasps,
        tools,
        facts,
        tuple(instants),
        base,
        tuple(sorted(events, key=lambda e: e.seconds)),
        outcome,
        lasting_change(motions, grid, settings),
    )


def _measured(
    effectors: Sequence[Effector], grid: Grid, settings: Settings, scales: Mapping[str, Scales]
) -> list[tuple[Effector, Motion]]:
    """Effectors and their signals. Hands are measured against each other: one that hardly moves
    beside another rests, and its trembling is no movement.
    """
    fair = list(effectors)
    for role in ("width", "command"):
        ranges = [_range(getattr(e, role)) for e in effectors]
        for k, r in enumerate(ranges):
            if r < RESTS * max(
                (x for x in ranges if np.isfinite(x)), default=0.0
            ):  # its other signal says no more than this one does
                fair[k] = replace(fair[k], width=None, command=None)
    motions = [motion_signals(e, grid, settings, scales.get(e.name)) for e in fair]
    for k, (e, m) in enumerate(zip(fair, motions, strict=True)):
        fast = RESTS * max(o.scales.fast for o in motions if o.space == m.space)
        if e.name not in scales and m.scales.fast < fast:
            least = Scales(fast, settings.still_fraction * fast / RESTS)
            motions[k] = motion_signals(e, grid, settings, least)
    return list(zip(fair, motions, strict=True))


def _range(series: Series | None) -> float:
    """Range of a signal without its extremes; infinite where there is none to compare."""
    if series is None or not np.isfinite(series.values).any():
        return np.inf
    return float(np.ptp(np.nanpercentile(series.values, [0.5, 99.5])))


def _travel(analysis: Analysis, motion: Motion) -> float:
    """Share of the time an effector moves."""
    facts = analysis.facts[motion.name]
    return float(facts["moving"][0].mean()) if "moving" in facts else 0.0


def evidence_for(analysis: Analysis, domain: str) -> Evidence | None:
    """The evidence a grammar of this domain speaks of; None where the episode has none."""
    if domain == "base":
        return analysis.base if not analysis.motions else None
    motions = list(analysis.motions)
    if not motions:
        return None
    if domain == "arm":
        lead = max(motions, key=lambda m: (len(analysis.grasps[m.name]), _travel(analysis, m)))
        busy = [m for m in motions if m is not lead and _travel(analysis, m) > 0.25]
        if busy:
            return None
        mine = [i for i in analysis.instants if i.effector == lead.name]
        return Evidence(analysis.grid, analysis.facts[lead.name], mine, lasting=analysis.lasting)
    if len(motions) != 2 or not all(analysis.grasps[m.name] for m in motions):
        return None
    first, second = sorted(motions, key=lambda m: analysis.grasps[m.name][0].start_s)
    facts = {
        f"{role}.{name}": fact
        for role, m in (("first", first), ("second", second))
        for name, fact in analysis.facts[m.name].items()
    }
    return Evidence(analysis.grid, facts, analysis.instants, lasting=analysis.lasting)


def _usable(grammar: Grammar, evidence: Evidence) -> bool:
    held = all(evidence.facts[f][0].max() > 0.5 for f in grammar.must if f in evidence.facts)
    return held and set(grammar.needs) <= set(evidence.facts)


def choose(analysis: Analysis, task: str, settings: Settings) -> tuple[Decoded, list[str]]:
    """The best fitting shipped grammar, or unnamed segments where none fits well enough.

    Grammars hang on single instants, so none is tried where two hands move on and on.
    """
    if is_continuous(_beginning(_everything(analysis))):
        note = "no grammar explains hands that move on and on: single changes tell nothing there"
        return decode_unnamed(_everything(analysis), settings), [note]
    tried: list[tuple[float, float, Grammar, Evidence]] = []
    notes: list[str] = []
    blind: list[str] = []
    words = task.lower()
    for grammar in shipped().values():
        evidence = evidence_for(analysis, grammar.domain)
        if evidence is None or not _usable(grammar, evidence):
            continue
        if grammar.domain == "base" and (grammar.name == "driving") != _fast(analysis):
            continue
        beginning = _beginning(evidence)
        found = decode_grammar(beginning, grammar, settings, confident=False)
        fit = found.fit
        if _explained(found, beginning, settings) < grammar.explains:
            blind.append(grammar.name)
            continue
        bonus = WORDS_BONUS if any(w in words for w in grammar.words) else 0.0
        tried.append((found.fit_all + bonus, fit, grammar, evidence))
    if tried:
        _, fit, best, evidence = max(tried, key=lambda t: t[0])
        if fit >= FIT_NEEDED:
            return decode_grammar(evidence, best, settings), notes
        notes.append(f"no grammar fits (best {best.name}, {fit:.2f} nats per fact)")
    elif blind:
        notes.append(f"much changes that no grammar explains (tried {', '.join(blind)})")
    else:
        notes.append("no grammar applies to the signals there are")
    return decode_unnamed(_everything(analysis), settings), notes


def _explained(found: Decoded, evidence: Evidence, settings: Settings) -> float:
    """Share of the boundaries found without a grammar that lie at one of its boundaries."""
    plain = [s.start_s for s in decode_unnamed(evidence, settings).segments[1:]]
    if not plain:
        return 1.0
    named = np.array([s.start_s for s in found.segments[1:]])
    if not named.size:
        return 0.0
    near = [float(np.abs(named - t).min()) < EXPLAINED_S for t in plain]
    return float(np.mean(near))


def _beginning(evidence: Evidence) -> Evidence:
    """The first ten minutes, which are enough to choose a grammar by."""
    grid = evidence.grid
    n = min(grid.n, grid.steps(TRIAL_S))
    if n == grid.n:
        return evidence
    end = n * grid.step_s
    return Evidence(
        Grid(grid.start_ns, grid.step_ns, n),
        {name: (value[:n], weight[:n]) for name, (value, weight) in evidence.facts.items()},
        [i for i in evidence.instants if i.seconds < end],
        lasting=None if evidence.lasting is None else evidence.lasting[:n],
        flow=None if evidence.flow is None else evidence.flow[:n],
    )


def _fast(analysis: Analysis) -> bool:
    return analysis.base is not None and analysis.base.top_speed_m_s > WALKING_M_S


def _everything(analysis: Analysis) -> Evidence:
    instants = list(analysis.instants)
    if not analysis.motions and analysis.base is not None:
        instants += analysis.base.instants
    lasting = analysis.lasting if analysis.motions else None
    # One hand that hardly rests may well be a quick robot: only of two is it known what it means.
    moved = flow(analysis.motions, analysis.grid) if len(analysis.motions) > 1 else None
    return Evidence(analysis.grid, {}, instants, lasting=lasting, flow=moved)


def segment_inputs(
    inputs: Inputs,
    grammar: str | Grammar = "auto",
    settings: Settings = DEFAULTS,
    scales: Mapping[str, Scales] | None = None,
) -> Segmentation:
    """Segment arrays; see `segment`."""
    analysis = analyse(inputs, settings, scales)
    notes = list(inputs.notes)
    if grammar == "auto":
        decoded, more = choose(analysis, inputs.task, settings)
        notes += more
    elif grammar == "none":
        decoded = decode_unnamed(_everything(analysis), settings)
    else:
        chosen = find_grammar(grammar) if isinstance(grammar, str) else grammar
        evidence = evidence_for(analysis, chosen.domain)
        if evidence is None and chosen.domain == "arm" and analysis.motions:
            lead = max(analysis.motions, key=lambda m: len(analysis.grasps[m.name]))
            mine = [i for i in analysis.instants if i.effector == lead.name]
            evidence = Evidence(
                analysis.grid, analysis.facts[lead.name], mine, lasting=analysis.lasting
            )
            notes.append(f"several arms move; {chosen.name} is applied to {lead.name}")
        if evidence is None:
            notes.append(f"the signals for grammar {chosen.name} are missing: unnamed segments")
            decoded = decode_unnamed(_everything(analysis), settings)
        else:
            decoded = decode_grammar(evidence, chosen, settings)
    return assemble(inputs, analysis, decoded, notes)


def assemble(
    inputs: Inputs, analysis: Analysis, decoded: Decoded, notes: list[str]
) -> Segmentation:
    """Seconds to stamps; one whole-episode phase is left where nothing was found."""
    grid = analysis.grid
    stamp = grid.stamps(np.array([s.start_s for s in decoded.segments])).tolist()
    ends = [*stamp[1:], max(inputs.end_ns, grid.end_ns)]
    phases = [
        Phase(s.label, a, b, s.confidence, s.evidence)
        for s, a, b in zip(decoded.segments, stamp, ends, strict=True)
        if b > a
    ]
    events = [
        Event(
            e.label,
            int(grid.stamps(np.array(e.seconds))),
            float(e.confidence),
            e.evidence,
            e.effector,
        )
        for e in analysis.events
    ]
    return Segmentation(
        tuple(phases),
        tuple(events),
        analysis.outcome,
        decoded.grammar,
        None if decoded.grammar is None else decoded.fit,
        inputs.used(),
        tuple(notes),
        analysis,
    )


def segment(
    ep: Any,
    *,
    grammar: str | Grammar = "auto",
    urdf: Path | str | None = None,
    tip: str | None = None,
    settings: Settings = DEFAULTS,
) -> Segmentation:
    """Phases and events of an open `Episode` from whatever signals it has.

    grammar: "auto" (best fitting, unnamed segments where none fits), "none", the name of a shipped
    grammar, a .yaml file, or a `Grammar`. With a URDF the hand's position is computed from joint
    angles. Boundaries follow contact and motion, not commands (docs/phases.md). Raises ConfigError
    for an unknown grammar or a URDF that does not know the joints.
    """
    from mmdata.phases.sources import read_inputs

    return segment_inputs(read_inputs(ep, urdf=urdf, tip=tip), grammar, settings)
