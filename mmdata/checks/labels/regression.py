"""Which of a camera's possible faults its residuals call for: robust fits judged by object.

Boxes of one object err alike, so that a hundred residuals of six objects are little more than six
observations. Every model is therefore judged by how well it foretells the residuals of each object
from those of all the others (leave one cluster out), and pays for each fault it assumes.

No camera stands exactly where the rig has it, and no cuboid is as large as what it holds: each
parameter has the small size that it has in a sound camera, and the usual size of a fault where the
model takes it for one (a spike and a slab). So where a delay and a move explain the same, the less
unusual one is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdata.checks.label_limits import CauseLimits
from mmdata.checks.labels.tables import Floats, Ints

HUBER = 1.345
#: Columns of a design: late, turn about x, y, z, move along x, y, z.
LATE, TURN, MOVE = (0,), (1, 2, 3), (4, 5, 6)
FAULTS = (LATE, TURN, MOVE)
#: Faults that may come together. A turn and a move do when a mount is hit.
MODELS: tuple[tuple[tuple[int, ...], ...], ...] = (
    (), (LATE,), (TURN,), (MOVE,), (LATE, TURN), (LATE, MOVE), (TURN, MOVE),
)  # fmt: skip
#: No hand is steadier than this part of the assumed noise.
_LEAST_SPREAD = 0.1
_ROUNDS = 30


@dataclass(frozen=True)
class Fit:
    """One model of a camera's residuals.

    faults: groups of columns it takes for faults. theta (7,): parameters, all of them, and their
    covariance (7, 7). score: twice the negative log likelihood of each object foretold by the
    others, and of the faults; the lower the better. spread: of what is left, in weights.
    """

    faults: tuple[tuple[int, ...], ...]
    theta: Floats
    covariance: Floats
    score: float
    spread: float

    @property
    def told(self) -> Floats:
        """theta, zero for what is not taken for a fault."""
        return np.where(np.isin(np.arange(7), [i for f in self.faults for i in f]), self.theta, 0.0)

    def strength(self, fault: Sequence[int]) -> float:
        """How many standard errors the parameters of a fault are away from nothing."""
        part = list(fault)
        t, c = self.theta[part], self.covariance[np.ix_(part, part)]
        squared = float(t @ np.linalg.pinv(c) @ t)
        return float(np.sqrt(max(squared, 0.0) / len(part)))


def fit_models(
    design: Floats, residual: Floats, weight_px: Floats, group: Ints, limits: CauseLimits
) -> list[Fit]:
    """Fits of all models, best first.

    Args:
        design: (N, 2, 7) what a unit of each parameter does to the centre of each box.
        residual: (N, 2) rectangle minus projection, px.
        weight_px: (N,) error of a hand at this box.
        group: (N,) object of each box, 0 to G - 1.
        limits: usual sizes of faults and their price.
    """
    A = (design / weight_px[:, None, None]).reshape(-1, 7)
    y = (residual / weight_px[:, None]).reshape(-1)
    clusters = np.repeat(group, 2)
    count = np.bincount(group)
    # An object with many boxes counts for little more than one with few.
    share = np.repeat(1.0 / (1.0 + (count[group] - 1) * limits.object_correlation), 2)
    sound = np.repeat((limits.sound_late_s, limits.sound_turn_rad, limits.sound_move_m), (1, 3, 3))
    usual = np.repeat((limits.usual_late_s, limits.usual_turn_rad, limits.usual_move_m), (1, 3, 3))
    priors = []
    for model in MODELS:
        faulty = np.isin(np.arange(7), [i for fault in model for i in fault])
        priors.append(np.where(faulty, usual, sound) ** -2.0)
    spreads = []
    for prior in priors:
        theta, _ = _robust(A, y, share, prior, 1.0)
        spreads.append(1.4826 * float(np.median(np.abs(y - A @ theta))))
    # Few objects do not tell how steady a hand is: then it is taken to be as steady as usual.
    known, told = limits.usual_objects, len(count)
    scale = max(_LEAST_SPREAD, ((known + told * min(spreads) ** 2) / (known + told)) ** 0.5)
    rare = {LATE: limits.fault_share, TURN: limits.fault_share, MOVE: limits.moved_share}
    fits = []
    for model, prior in zip(MODELS, priors, strict=True):
        theta, weight = _robust(A, y, share, prior, scale)
        left = np.abs(_foretold(A, y, weight, clusters, prior, scale)) / scale
        loss = np.where(left <= HUBER, 0.5 * left**2, HUBER * (left - 0.5 * HUBER))
        score = 2.0 * float((share * loss).sum() - sum(np.log(rare[f]) for f in model))
        score += float(theta @ (prior * theta))
        errors = _covariance(A, y - A @ theta, weight, clusters, prior, scale)
        fits.append(Fit(model, theta, errors, score, scale))
    return sorted(fits, key=lambda fit: fit.score)


def _robust(
    A: Floats, y: Floats, share: Floats, prior: Floats, scale: float
) -> tuple[Floats, Floats]:
    """Huber regression by reweighting: parameters (k,), weights (n,)."""
    theta: Floats = np.zeros(A.shape[1])
    weight = share.copy()
    for _ in range(_ROUNDS):
        normal = A.T @ (weight[:, None] * A) / scale**2 + np.diag(prior)
        new = np.linalg.solve(normal, A.T @ (weight * y) / scale**2)
        left = np.abs(y - A @ new)
        weight = share * np.minimum(1.0, HUBER * scale / np.maximum(left, 1e-12))
        done = np.abs(new - theta).max() < 1e-9
        theta = np.asarray(new, np.float64)
        if done:
            break
    return theta, weight


def _foretold(
    A: Floats, y: Floats, weight: Floats, clusters: Ints, prior: Floats, scale: float
) -> Floats:
    """What is left (n,) of each cluster when the others alone tell the parameters."""
    k, groups = A.shape[1], int(clusters.max()) + 1
    each = np.zeros((groups, k, k))
    pull = np.zeros((groups, k))
    np.add.at(each, clusters, weight[:, None, None] * A[:, :, None] * A[:, None, :] / scale**2)
    np.add.at(pull, clusters, weight[:, None] * A * y[:, None] / scale**2)
    normal = each.sum(axis=0) + np.diag(prior) - each
    theta = np.linalg.solve(normal, (pull.sum(axis=0) - pull)[:, :, None])[:, :, 0]
    return np.asarray(y - (A * theta[clusters]).sum(axis=1))


def _covariance(
    A: Floats, left: Floats, weight: Floats, clusters: Ints, prior: Floats, scale: float
) -> Floats:
    """The larger of what the model and what the clusters say of the parameters' errors."""
    k, groups = A.shape[1], int(clusters.max()) + 1
    normal = A.T @ (weight[:, None] * A) / scale**2 + np.diag(prior)
    inverse = np.linalg.inv(normal)
    pull = A * (weight * left)[:, None] / scale**2
    sums = np.zeros((groups, k))
    np.add.at(sums, clusters, pull)
    small = groups / max(groups - k, 1)
    clustered = small * inverse @ (sums.T @ sums) @ inverse
    larger = np.trace(clustered @ normal) > k
    return np.asarray(clustered if larger else inverse)
