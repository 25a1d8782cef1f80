"""Which annotations a person checks: stratified samples, minimum rates, acceptance numbers.

Zero-acceptance size n = ln(1 - c) / ln(1 - p); larger acceptance numbers by the binomial (or, for
a small lot, the hypergeometric) distribution. ISO 2859-1 tables are not reproduced: these plans
state their risk directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.stats import beta, binom, hypergeom


@dataclass(frozen=True)
class Item:
    """Something that can be checked: its class, who made it, and where known the task that its
    episode shows and the severity of what was found about it."""

    id: str
    episode_id: str
    label: str
    annotator: str | None = None
    severity: str | None = None
    layer: str | None = None
    task: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from every other item."""
        return self.episode_id, self.layer or "", self.id


@dataclass(frozen=True)
class Stratum:
    """One stratum of a sample.

    acceptance: how many faulty items the sampled ones may hold for the stratum still to be
    accepted; None where even none is too few to tell.
    """

    name: tuple[str, ...]
    population: int
    sampled: int
    acceptance: int | None


@dataclass(frozen=True)
class Sample:
    """Chosen items, the chance each had of being chosen, and the plan per class.

    weights by 1 / probability make estimates over the sample unbiased.
    """

    items: tuple[Item, ...]
    probability: Mapping[tuple[str, str, str], float]
    strata: tuple[Stratum, ...]
    classes: tuple[Stratum, ...]
    max_fault_rate: float
    confidence: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "items": [{**asdict(i), "probability": self.probability[i.key]} for i in self.items],
            "strata": [asdict(s) for s in self.strata],
            "classes": [asdict(s) for s in self.classes],
            "max_fault_rate": self.max_fault_rate,
            "confidence": self.confidence,
            "seed": self.seed,
        }


def zero_acceptance_size(max_fault_rate: float, confidence: float = 0.95) -> int:
    """Items to check, all of which must be right, to state that fewer than the rate are faulty."""
    _check_rate(max_fault_rate)
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_fault_rate))


def sample_size(
    max_fault_rate: float,
    acceptance: int,
    confidence: float = 0.95,
    lot: int | None = None,
) -> int:
    """Smallest sample in which more than `acceptance` faults must show (with `confidence`) if the
    fault rate is `max_fault_rate`.

    lot: size of the whole, drawn from without replacement; None for an endless one. A lot that is
    too small to tell gives the lot itself.
    """
    _check_rate(max_fault_rate)
    low, high = acceptance + 1, lot if lot is not None else 10_000_000
    if _risk(high, acceptance, max_fault_rate, lot) > 1 - confidence:
        return high
    while low < high:
        middle = (low + high) // 2
        if _risk(middle, acceptance, max_fault_rate, lot) <= 1 - confidence:
            high = middle
        else:
            low = middle + 1
    return low


def acceptance_number(
    sampled: int, max_fault_rate: float, confidence: float = 0.95, lot: int | None = None
) -> int | None:
    """Most faults among `sampled` items with which the rate is still shown to be lower.

    None when the sample is too small to show it even without a fault.
    """
    _check_rate(max_fault_rate)
    faults = -1
    while faults + 1 < sampled and (
        _risk(sampled, faults + 1, max_fault_rate, lot) <= 1 - confidence
    ):
        faults += 1
    if lot is not None and sampled >= lot:
        # Everything was looked at: what is allowed is what the rate allows.
        return max(math.ceil(max_fault_rate * lot) - 1, 0)
    return None if faults < 0 else faults


def _risk(n: int, acceptance: int, rate: float, lot: int | None) -> float:
    """Chance of seeing at most `acceptance` faults in n items of a lot as bad as `rate`."""
    if lot is None:
        return float(binom.cdf(acceptance, n, rate))
    return float(hypergeom.cdf(acceptance, lot, math.ceil(rate * lot), n))


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"a fault rate lies between 0 and 1, got {rate}")


def fault_rate_bounds(faults: int, checked: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval of the fault rate."""
    alpha = 1 - confidence
    low = 0.0 if faults == 0 else float(beta.ppf(alpha / 2, faults, checked - faults + 1))
    high = 1.0 if faults == checked else float(
        beta.ppf(1 - alpha / 2, faults + 1, checked - faults)
    )  # fmt: skip
    return low, high


@dataclass(frozen=True)
class Plan:
    """What a sample must hold.

    rate: share of all items. min_rate, min_count: at least so much of every class (all of it
    where it is smaller). class_rates: other minimum rates for single classes. by: what strata
    are made of beyond the class.
    """

    rate: float = 0.05
    min_rate: float = 0.02
    min_count: int = 20
    class_rates: Mapping[str, float] = field(default_factory=dict)
    max_fault_rate: float = 0.05
    confidence: float = 0.95
    by: tuple[str, ...] = ("task", "annotator", "severity")


def stratified_sample(items: Sequence[Item], plan: Plan, *, seed: int = 0) -> Sample:
    """Draw from every class, and within it from every task, annotator and severity in proportion.

    Depends on the items' ids and the seed only, not on their order. Every stratum gets one item
    at least. ValueError when an item occurs twice.
    """
    items = sorted(items, key=lambda item: item.key)
    if len({item.key for item in items}) != len(items):
        raise ValueError("an item occurs twice")
    rng = np.random.default_rng(seed)
    chosen: list[Item] = []
    probability: dict[tuple[str, str, str], float] = {}
    strata: list[Stratum] = []
    classes: list[Stratum] = []
    for label, members in _grouped(items, lambda item: item.label).items():
        least = max(
            plan.rate * len(members),
            plan.class_rates.get(label, plan.min_rate) * len(members),
            plan.min_count,
        )
        wanted = min(len(members), math.ceil(least - 1e-9))
        groups = _grouped(members, lambda i: tuple(str(getattr(i, n) or "") for n in plan.by))
        shares = _apportion(wanted, {name: len(group) for name, group in groups.items()})
        taken = 0
        for name, group in groups.items():
            n = shares[name]
            picked = rng.choice(len(group), size=n, replace=False)
            chosen += [group[i] for i in sorted(picked.tolist())]
            probability |= {item.key: n / len(group) for item in group}
            strata.append(_stratum((label, *name), len(group), n, plan))
            taken += n
        classes.append(_stratum((label,), len(members), taken, plan))
    return Sample(
        tuple(chosen), {i.key: probability[i.key] for i in chosen}, tuple(strata), tuple(classes),
        plan.max_fault_rate, plan.confidence, seed,
    )  # fmt: skip


def _stratum(name: tuple[str, ...], population: int, sampled: int, plan: Plan) -> Stratum:
    number = acceptance_number(sampled, plan.max_fault_rate, plan.confidence, population)
    return Stratum(name, population, sampled, number)


def _grouped(items: Sequence[Item], key: Callable[[Item], Any]) -> dict[Any, list[Item]]:
    groups: dict[Any, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return dict(sorted(groups.items()))


def _apportion(total: int, sizes: Mapping[Hashable, int]) -> dict[Hashable, int]:
    """Whole numbers in proportion to the sizes, one at least, by the largest remainder."""
    everything = sum(sizes.values())
    exact = {name: total * size / everything for name, size in sizes.items()}
    shares = {name: min(sizes[name], max(1, int(value))) for name, value in exact.items()}
    while sum(shares.values()) < total:
        open_ = [name for name in sizes if shares[name] < sizes[name]]
        name = max(open_, key=lambda n: exact[n] - shares[n])
        shares[name] += 1
    return shares


def estimate_fault_rate(
    sample: Sample, faulty: Mapping[tuple[str, str, str], bool]
) -> dict[str, dict[str, Any]]:
    """Verdicts into fault rates per class and overall: weighted by 1 / probability.

    Per class also faults, checked, the two-sided interval of the unweighted rate, and whether the
    class is accepted (None: not everything is checked yet, or too few to tell).
    """
    out: dict[str, dict[str, Any]] = {}
    numbers = {s.name[0]: s.acceptance for s in sample.classes}
    sampled = {s.name[0]: s.sampled for s in sample.classes}
    for label in [*numbers, "*"]:
        own = [i for i in sample.items if label in (i.label, "*") and i.key in faulty]
        faults = sum(faulty[i.key] for i in own)
        weights = [1 / sample.probability[i.key] for i in own]
        bad = sum(w for i, w in zip(own, weights, strict=True) if faulty[i.key])
        bounds = fault_rate_bounds(faults, len(own), sample.confidence) if own else None
        row: dict[str, Any] = {
            "checked": len(own),
            "faults": faults,
            "fault_rate": bad / sum(weights) if own else None,
            "interval": bounds,
        }
        if label != "*":
            number = numbers[label]
            done = len(own) == sampled[label]
            row["accepted"] = None if number is None or not done else faults <= number
        out[label] = row
    return out
