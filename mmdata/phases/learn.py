"""Phases learned from labelled episodes: emissions, lengths and order, as a small JSON model.

Emissions are a multinomial logistic regression (L2, fitted with L-BFGS) on signals at several
times around each instant, in seconds; lengths are log-normal; order is counted. Decoding is the
same explicit-duration Viterbi over the same candidate boundaries as with a grammar.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import ConfigError
from mmdata.phases.decoding import (
    BOUNDARY_COST,
    BOUNDARY_GAIN,
    WORTH,
    Decoded,
    Segment,
    marks_at,
)
from mmdata.phases.evidence import Evidence, candidate_times, strengths
from mmdata.phases.grid import Grid, smooth
from mmdata.phases.hsmm import Lattice, decode
from mmdata.phases.inputs import Floats, Inputs
from mmdata.phases.metrics import Interval
from mmdata.phases.segment import Analysis, Segmentation, analyse, assemble
from mmdata.phases.settings import DEFAULTS, Settings

STEP_S = 0.1
OFFSETS_S = (-1.5, -0.75, -0.3, 0.0, 0.3, 0.75, 1.5)
EMISSION_TIME_S = 0.5
"""Neighbouring moments share their windows, so they count as one per this time."""
VERSION = 1


@dataclass(frozen=True)
class PhaseModel:
    """A fitted model; arrays are small, `write` and `read` use JSON.

    signals: names a new episode must have; mean, scale (D,); weights (D + 1, S) with bias last.
    """

    labels: tuple[str, ...]
    signals: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    log_prior: Floats
    start: Floats
    end: Floats
    transition: Floats
    length_mu: Floats
    length_sigma: Floats
    shortest: Floats
    episodes: int

    def write(self, path: Path | str) -> None:
        """Write as JSON."""
        document: dict[str, Any] = {"format": "mmdata-phase-model", "version": VERSION}
        for name, value in self.__dict__.items():
            if isinstance(value, np.ndarray):
                value = np.round(value, 6).tolist()
            document[name] = value
        Path(path).write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def read(cls, path: Path | str) -> PhaseModel:
        """Read what `write` wrote. Raises ConfigError where it is something else."""
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document.pop("format") != "mmdata-phase-model" or document.pop("version") != VERSION:
                raise KeyError("format")
            arrays = {
                k: np.array(v, np.float64)
                for k, v in document.items()
                if k not in ("labels", "signals", "episodes")
            }
            return cls(
                tuple(document["labels"]),
                tuple(document["signals"]),
                episodes=document["episodes"],
                **arrays,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: not a phase model of version {VERSION}") from error


def signal_table(analysis: Analysis) -> dict[str, Floats]:
    """Signals of all effectors and the base on the grid, each (n,), by name."""
    table: dict[str, Floats] = {}
    for m in analysis.motions:
        own: dict[str, Floats | None] = {
            "width": m.width,
            "width_rate": m.width_rate,
            "command": m.command,
            "tilt_rate": m.tilt_rate,
        }
        if m.speed is not None and m.velocity is not None:
            fast = max(m.scales.fast, 1e-9)
            own["speed"] = np.log(np.maximum(m.speed, m.scales.still) / fast)
            path = np.cumsum(m.velocity, axis=0) * analysis.grid.step_s
            path = path - path.mean(axis=0)
            path /= max(float(path.std()), 1e-9)
            for k in range(min(m.velocity.shape[1], 7)):
                own[f"velocity{k}"] = smooth(m.velocity[:, k], 0.1, analysis.grid) / fast
                own[f"path{k}"] = path[:, k]
        if m.force is not None:
            own["force"] = np.log1p(np.linalg.norm(m.force, axis=1))
        for name in ("closed", "holding", "pressing"):
            fact = analysis.facts[m.name].get(name)
            own[name] = None if fact is None else fact[0]
        table |= {f"{m.name}.{k}": v for k, v in own.items() if v is not None}
    if analysis.base is not None:
        table |= {f"base.{k}": v for k, (v, _) in analysis.base.facts.items()}
    return table


def _windows(analysis: Analysis, names: Sequence[str], at: Floats) -> Floats:
    """(len(at), D) signals, 0.1 s means, at several offsets, and their squares at offset 0."""
    table = signal_table(analysis)
    grid = analysis.grid
    base = np.column_stack([smooth(table[n], 0.05, grid) for n in names])
    index = np.rint(at / grid.step_s).astype(np.int64)
    rows = [
        base[np.clip(index + round(offset / grid.step_s), 0, grid.n - 1)] for offset in OFFSETS_S
    ]
    middle = base[np.clip(index, 0, grid.n - 1)]
    return np.hstack([*rows, middle**2])


def _labels_at(intervals: Sequence[Interval], grid: Grid, at: Floats) -> list[str | None]:
    stamps = grid.stamps(at)
    out: list[str | None] = [None] * len(at)
    for i in intervals:
        first, last = np.searchsorted(stamps, [i.start_ns, i.end_ns])
        out[first:last] = [i.label] * int(last - first)
    return out


def fit(
    episodes: Sequence[tuple[Inputs, Sequence[Interval]]],
    settings: Settings = DEFAULTS,
    *,
    penalty: float = 3.0,
) -> PhaseModel:
    """Fit a model to labelled episodes.

    Only signals that all episodes have are used. Raises ConfigError where no episode is labelled
    or they share no signal.
    """
    from scipy.optimize import minimize

    analyses = [analyse(inputs, settings) for inputs, _ in episodes]
    truths = [sorted(t, key=lambda i: i.start_ns) for _, t in episodes]
    labels = sorted({i.label for t in truths for i in t})
    if len(labels) < 2:
        raise ConfigError("phases fit needs labelled episodes with at least two different labels")
    shared = set.intersection(*(set(signal_table(a)) for a in analyses))
    if not shared:
        raise ConfigError("the labelled episodes share no signal to learn from")
    names = sorted(shared)
    rows, wanted = [], []
    for analysis, truth in zip(analyses, truths, strict=True):
        at = np.arange(0, (analysis.grid.n - 1) * analysis.grid.step_s, STEP_S)
        known = _labels_at(truth, analysis.grid, at)
        keep = np.array([k is not None for k in known])
        rows.append(_windows(analysis, names, at)[keep])
        wanted += [labels.index(k) for k in known if k is not None]
    x, y = np.concatenate(rows), np.array(wanted)
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x = np.hstack([(x - mean) / scale, np.ones((len(x), 1))])
    size, count = x.shape[1], len(labels)
    onehot = np.eye(count)[y]

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(size, count)
        z = x @ w
        z -= z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        gradient = x.T @ (np.exp(log_p) - onehot)
        gradient[:-1] += penalty * w[:-1]
        value = -(onehot * log_p).sum() + 0.5 * penalty * (w[:-1] ** 2).sum()
        return float(value), gradient.ravel()

    found = minimize(
        loss, np.zeros(size * count), jac=True, method="L-BFGS-B", options={"maxiter": 300}
    )
    prior = np.log(np.bincount(y, minlength=count) / len(y) + 1e-6)
    return PhaseModel(
        tuple(labels),
        tuple(names),
        mean,
        scale,
        found.x.reshape(size, count),
        prior,
        *_order(truths, labels),
        *_lengths(truths, labels),
        len(episodes),
    )


def _order(
    truths: Sequence[Sequence[Interval]], labels: list[str]
) -> tuple[Floats, Floats, Floats]:
    """Log probabilities of first label, last label and label after label, add-0.05 smoothed."""
    start, end = np.full(len(labels), 0.05), np.full(len(labels), 0.05)
    follow = np.full((len(labels), len(labels)), 0.05)
    for truth in truths:
        ids = [labels.index(i.label) for i in truth]
        start[ids[0]] += 1
        end[ids[-1]] += 1
        for a, b in itertools.pairwise(ids):
            follow[a, b] += 1
    return (
        np.log(start / start.sum()),
        np.log(end / end.sum()),
        np.log(follow / follow.sum(axis=1, keepdims=True)),
    )


def _lengths(
    truths: Sequence[Sequence[Interval]], labels: list[str]
) -> tuple[Floats, Floats, Floats]:
    """Mean and spread of log length, and the shortest length (half of the shortest seen)."""
    mu, sigma, shortest = (np.empty(len(labels)) for _ in range(3))
    for k, label in enumerate(labels):
        seen = np.array(
            [max(i.end_ns - i.start_ns, 1) * 1e-9 for t in truths for i in t if i.label == label]
        )
        mu[k] = np.log(seen).mean()
        # Shrunk towards a spread of 0.5, which a few examples cannot estimate.
        sigma[k] = np.sqrt((seen.size * np.log(seen).var() + 2 * 0.25) / (seen.size + 2))
        shortest[k] = 0.5 * seen.min()
    return mu, np.maximum(sigma, 0.15), shortest


def segment_with_model(
    inputs: Inputs, model: PhaseModel, settings: Settings = DEFAULTS
) -> Segmentation:
    """Phases by a fitted model. Raises ConfigError naming the signals the episode lacks."""
    analysis = analyse(inputs, settings)
    missing = sorted(set(model.signals) - set(signal_table(analysis)))
    if missing:
        raise ConfigError(f"the model needs signals this episode lacks: {', '.join(missing)}")
    evidence = Evidence(analysis.grid, {}, list(analysis.instants))
    times = candidate_times(evidence, fill_s=0.25)
    grid = analysis.grid
    at = np.arange(0, (grid.n - 1) * grid.step_s + STEP_S, STEP_S)
    x = (_windows(analysis, model.signals, at) - model.mean) / model.scale
    z = x @ model.weights[:-1] + model.weights[-1]
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    rate = (log_p - model.log_prior) / EMISSION_TIME_S
    summed = np.concatenate([np.zeros((1, z.shape[1])), np.cumsum(rate, axis=0) * STEP_S])
    edges = np.r_[at - STEP_S / 2, at[-1] + STEP_S / 2]
    emissions = np.column_stack([np.interp(times, edges, s) for s in summed.T])
    kinds = sorted({i.kind for i in analysis.instants})
    seen = {k: strengths(analysis.instants, k, times, settings.boundary_sigma_s) for k in kinds}
    worth = np.max(
        [np.zeros(len(times)), *(WORTH.get(k, 0.5) * v for k, v in seen.items())], axis=0
    )
    enter = (BOUNDARY_GAIN * 0.5 * worth - BOUNDARY_COST * 0.5)[:, None]
    lattice = Lattice(
        times,
        emissions,
        np.repeat(enter, len(model.labels), axis=1),
        model.start,
        model.end,
        model.transition,
        model.length_mu,
        model.length_sigma,
        model.shortest,
        longest_s=float(np.exp(model.length_mu + 3 * model.length_sigma).max()),
    )
    stays, _ = decode(lattice)
    segments = tuple(
        Segment(
            model.labels[s.state],
            float(times[s.first]),
            float(times[s.last]),
            s.posterior,
            marks_at(seen, s.first) if s.first else ("episode start",),
        )
        for s in stays
    )
    decoded = Decoded(segments, float("nan"), None)
    notes = [*inputs.notes, f"phases by a model fitted to {model.episodes} episodes"]
    return assemble(inputs, analysis, decoded, notes)
