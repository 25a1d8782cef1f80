"""From evidence to phases: a grammar decoded over candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdata.phases.evidence import Evidence, candidate_times, strengths
from mmdata.phases.grammar import Grammar
from mmdata.phases.hsmm import NEVER, Lattice, decode
from mmdata.phases.inputs import Floats
from mmdata.phases.settings import Settings

BOUNDARY_GAIN, BOUNDARY_COST = 6.0, 3.0
"""Log odds of a boundary: -COST where nothing changed, GAIN - COST on full evidence."""
TRUST = (1.0, 0.9, 0.8, 0.5)
"""Worth of the kinds a state lists under `enter`, in their order."""
OTHER = 0.25
"""Worth of an instant of a kind the state does not list."""
LONGEST = 8.0
"""Look-back, in lengths of the longest typical phase; a longer stay is put together of several."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded phase in seconds; evidence names what marks its beginning."""

    label: str
    start_s: float
    end_s: float
    confidence: float
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Phases, and how well the grammar explains the facts it speaks of: nats per fact, log(1/2) is
    chance. `fit_all` counts all facts, so that grammars which speak of different ones compare.
    """

    segments: tuple[Segment, ...]
    fit: float
    grammar: str | None
    fit_all: float = float("nan")


def emission_rates(evidence: Evidence, grammar: Grammar) -> tuple[Floats, Floats]:
    """(n, S) log-likelihood per instant of each state, and (n,) weight of the facts there.

    Facts of which the grammar says nothing are left out: they add the same to every path.
    """
    n = evidence.grid.n
    out = np.zeros((n, len(grammar.states)))
    weight = np.zeros(n)
    spoken = {name for state in grammar.states.values() for name in state.expect}
    for name, (value, matters) in evidence.facts.items():
        if name not in spoken:
            continue
        weight += matters
        p = np.array([s.expect.get(name, 0.5) for s in grammar.states.values()])
        p = np.clip(p, 0.01, 0.99)
        value = np.clip(value, 0.0, 1.0)
        out += matters[:, None] * (value[:, None] * np.log(p) + (1 - value)[:, None] * np.log1p(-p))
    return out, weight


def entering(
    evidence: Evidence, grammar: Grammar, times: Floats, settings: Settings
) -> tuple[Floats, dict[str, Floats]]:
    """(K, S) score of entering each state at each candidate, and the strengths by kind."""
    kinds = sorted({i.kind for i in evidence.instants})
    seen = {k: strengths(evidence.instants, k, times, settings.boundary_sigma_s) for k in kinds}
    anything = np.max([*seen.values(), np.zeros(len(times))], axis=0)
    out = np.empty((len(times), len(grammar.states)))
    for s, state in enumerate(grammar.states.values()):
        worth = OTHER * anything
        for trust, kind in zip(TRUST, state.enter, strict=False):
            if kind in seen:
                worth = np.maximum(worth, trust * seen[kind])
        out[:, s] = BOUNDARY_GAIN * worth - BOUNDARY_COST
    return out, seen


def lattice_of(
    evidence: Evidence, grammar: Grammar, times: Floats, settings: Settings
) -> tuple[Lattice, dict[str, Floats], Floats, Floats]:
    """The decoding lattice; also strengths by kind, per-instant emissions and their weight."""
    rates, weight = emission_rates(evidence, grammar)
    step = evidence.grid.step_s
    summed = np.concatenate([np.zeros((1, rates.shape[1])), np.cumsum(rates, axis=0)])
    index = np.clip(np.rint(times / step).astype(np.int64), 0, evidence.grid.n)
    enter, seen = entering(evidence, grammar, times, settings)
    names = list(grammar.states)
    states = list(grammar.states.values())

    def logs(table: dict[str, float], missing: float) -> Floats:
        return np.array([np.log(table[n]) if n in table else missing for n in names])

    lattice = Lattice(
        times,
        summed[index] * (step / settings.emission_time_s),
        enter,
        logs(grammar.start, -6.0),
        logs(grammar.end, -4.0) if grammar.end else np.zeros(len(names)),
        np.array([logs(s.next, NEVER) for s in states]),
        np.log([s.typical_s for s in states]),
        np.array([s.spread for s in states]),
        np.array([s.shortest_s for s in states]),
        longest_s=LONGEST * max(s.typical_s for s in states),
    )
    return lattice, seen, rates, weight


def decode_grammar(
    evidence: Evidence, grammar: Grammar, settings: Settings, *, confident: bool = True
) -> Decoded:
    """Phases of the best path through the grammar; without `confident` confidences are NaN."""
    times = candidate_times(evidence)
    lattice, seen, rates, weight = lattice_of(evidence, grammar, times, settings)
    stays, _ = decode(lattice, confident=confident)
    names = list(grammar.states)
    step = evidence.grid.step_s
    segments: list[Segment] = []
    explained = 0.0
    for stay in stays:
        start, end = float(times[stay.first]), float(times[stay.last])
        a, b = round(start / step), max(round(end / step), round(start / step) + 1)
        explained += float(rates[a:b, stay.state].sum())
        marks = marks_at(seen, stay.first) if stay.first > 0 else ("episode start",)
        segments.append(
            Segment(grammar.label(names[stay.state]), start, end, stay.posterior, marks)
        )
    known = max(float(weight.sum()), 1e-9)
    every = max(float(sum(matters.sum() for _, matters in evidence.facts.values())), 1e-9)
    guessed = explained + np.log(0.5) * (every - known)
    return Decoded(tuple(segments), explained / known, grammar.name, guessed / every)


def marks_at(seen: dict[str, Floats], k: int) -> tuple[str, ...]:
    """Kinds of evidence at candidate k, strongest first; "length" where there is none."""
    strong = sorted(((float(v[k]), kind) for kind, v in seen.items() if v[k] > 0.15), reverse=True)
    return tuple(f"{kind} {value:.2f}" for value, kind in strong) or ("length and order only",)


WORTH = {
    "contact_on": 1.0,
    "contact_off": 1.0,
    "tool_on": 0.8,
    "tool_off": 0.8,
    "start": 0.8,
    "turn": 0.8,
    "stop": 0.6,
    "dip": 0.6,
    "close_start": 0.5,
    "open_end": 0.5,
    "tilt_start": 0.4,
    "tilt_stop": 0.4,
}
"""Worth of a kind of instant where no grammar says what to expect."""
