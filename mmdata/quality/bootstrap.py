"""Bootstrap intervals over episodes: moments of one episode are not independent, episodes are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its percentile interval. None: not defined, or fewer than two episodes.

    episodes: how many it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    episodes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def bootstrap(
    episodes: Sequence[T],
    statistics: Callable[[Sequence[T]], Mapping[str, float]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Statistics of all episodes, with intervals from drawing episodes with replacement.

    `statistics` maps a sequence of episodes to named numbers; NaN means not defined. Resamples
    in which a statistic is not defined are left out of its interval.
    """
    values = statistics(episodes)
    n = len(episodes)
    draws: dict[str, list[float]] = {name: [] for name in values}
    rng = np.random.default_rng(seed)
    for _ in range(resamples if n > 1 else 0):
        drawn = statistics([episodes[i] for i in rng.integers(n, size=n)])
        for name in draws:
            draws[name].append(drawn.get(name, float("nan")))
    return {name: _estimate(values[name], draws[name], n, level) for name in values}


def bootstrap_sums(
    parts: npt.ArrayLike,
    statistics: Callable[[Floats], Mapping[str, float]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """As :func:`bootstrap` for statistics of a sum over episodes, which is much faster.

    parts (E, ...): what each episode adds, e.g. a confusion matrix. `statistics` gets the sum.
    """
    stack = np.asarray(parts, dtype=np.float64)
    n = len(stack)
    values = statistics(stack.sum(axis=0))
    draws: dict[str, list[float]] = {name: [] for name in values}
    if n > 1:
        rng = np.random.default_rng(seed)
        times = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
        for total in np.tensordot(times, stack, axes=1):
            for name, value in statistics(total).items():
                draws[name].append(value)
    return {name: _estimate(values[name], draws[name], n, level) for name in values}


def _estimate(value: float, draws: list[float], n: int, level: float) -> Estimate:
    defined = np.array([d for d in draws if np.isfinite(d)])
    low = high = None
    if n > 1 and len(defined):
        low, high = (float(q) for q in np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]))
    return Estimate(float(value) if np.isfinite(value) else None, low, high, n)
