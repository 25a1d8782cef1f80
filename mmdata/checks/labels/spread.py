"""Shifts of rectangles against projections, judged by how much shifts spread in this camera.

A fixed overlap cannot serve: a fifth of the width is far beyond the noise of a large box and within
that of a small one. The spread is told by the boxes themselves, by their size: the hand's error in
pixels, and what grows with the box (a cuboid is larger than what it holds).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from mmdata.checks.label_limits import ImageLimits
from mmdata.checks.labels.projection import Seen
from mmdata.checks.labels.tables import Floats, Ints, Mask
from mmdata.geometry import CameraModel

_BORDER_PX = 2.5
_REACH = 4
_KINDS = ("shifted sideways", "shifted up or down", "scaled in width", "scaled in height")


@dataclass(frozen=True)
class Shifts:
    """L rectangles with a projection of their own identity.

    row (L,): the rectangle. value (L, 4): shift in x and y, change of width and height, in px; NaN
    where the image's border hides it. part (L, 4): over the side. sigma (L, 4): over the spread,
    the larger of against all boxes and against the same object at other times. wrong (L,).
    """

    row: Ints
    value: Floats
    part: Floats
    sigma: Floats
    wrong: Mask

    def worst(self, k: int) -> tuple[float, str]:
        """Largest relative deviation of rectangle ``k`` that counts, and what it is."""
        score = np.where(np.isfinite(self.sigma[k]), self.sigma[k], 0.0)
        best = int(score.argmax())
        return float(np.abs(self.part[k, best])), _KINDS[best]


def shifts(
    rect_2d: Floats,
    own: Ints,
    seen: Seen,
    camera: CameraModel,
    limits: ImageLimits,
    identity: Ints,
    kind_of: Ints,
    height_m: Floats,
    author: Ints,
    skip: Mask,
) -> Shifts:
    """Measure all rectangles that have a projection of their own identity and are not in skip.

    Whoever drew them is judged by the spread of the others' boxes as well, lest a bad habit be
    taken for the hand's noise.
    """
    row = np.flatnonzero((own >= 0) & ~skip)
    row = row[seen.visible[own[row]] >= limits.location_visibility]
    mine, raw, rect = rect_2d[row], seen.raw[own[row]], seen.rect[own[row]]
    limit = np.array([camera.width, camera.height] * 2) - 0.5
    clipped = np.concatenate([raw[:, :2] < -0.5, raw[:, 2:] > limit[2:]], axis=1)
    at_border = np.concatenate([mine[:, :2] < _BORDER_PX, mine[:, 2:] > limit[2:] - _BORDER_PX], 1)
    edge = np.where(clipped & at_border, np.nan, mine - rect)
    # Of an object that the border cuts, the hand's error grows with the whole object, and its
    # extent cannot be compared.
    side = np.maximum(raw[:, 2:] - raw[:, :2], 1.0)
    whole = ~(clipped[:, :2] | clipped[:, 2:])
    low, high = edge[:, :2], edge[:, 2:]
    both = np.isfinite(low) & np.isfinite(high)
    centre = np.where(both, 0.5 * (low + high), np.where(np.isfinite(low), low, high))
    value = np.concatenate([centre, np.where(both & whole, high - low, np.nan)], axis=1)
    sides = np.concatenate([side, side], axis=1)
    sigma = np.zeros_like(value)
    own_sigma = float(norm.isf(limits.chance / (2 * max(value.size, 1))))
    metre = (raw[:, 3] - raw[:, 1]) / np.maximum(height_m[row], 0.1)
    for kind in range(4):
        one_edge = ~both[:, kind % 2]
        # Two edges err in an extent, and a turned box shows another one.
        room = metre if kind < 2 else 2.0 * metre
        groups = kind_of[row], author[row]
        against_all = _by_kind(value[:, kind], sides[:, kind], limits, one_edge, groups, room)
        level = _levels(
            value[:, kind] / sides[:, kind], identity[row], seen.frame[own[row]],
            limits.min_track_pairs,
        )  # fmt: skip
        left = value[:, kind] - level * sides[:, kind]
        against_own = _by_kind(left, sides[:, kind], limits, one_edge, groups, 0.4 * room)
        # Noise in drawing one thing again and again is the same whatever it is.
        for who in others_of(author[row]):
            by_others = _sigmas(
                left, sides[:, kind], limits, one_edge, metre_px=0.4 * room, told_by=~who
            )
            against_own[who] = np.fmax(against_own, by_others)[who]
        # Against itself an object shows only the hand's noise, which is closer to Gaussian.
        against_own = np.where(np.isfinite(level), against_own / own_sigma, 0.0)
        against_own *= limits.location_sigma
        sigma[:, kind] = np.fmax(against_all, against_own)
    part = value / sides
    least = np.array([1.0, 1.0, 2.0, 2.0]) * limits.min_shift_fraction
    with np.errstate(invalid="ignore"):
        wrong = ((sigma > limits.location_sigma) & (np.abs(part) > least)).any(axis=1)
        sigma = np.where(np.abs(part) > least, sigma, 0.0)
    return Shifts(row, value, part, sigma, wrong)


def others_of(author: Ints) -> list[Mask]:
    """Rows of each author; none where there is only one."""
    who = np.unique(author)
    return [author == a for a in who] if len(who) > 1 else []


def _by_kind(
    value: Floats,
    side: Floats,
    limits: ImageLimits,
    one_edge: Mask,
    groups: tuple[Ints, Ints],
    metre: Floats,
) -> Floats:
    """|value| over its spread among boxes of its class, or among all where those are few.

    A box that is a hand's breadth off in 3D is off by more of a pedestrian than of a car, so that
    is allowed for, less where the class tells its own spread. groups: class and author of each box.
    metre (n,): pixels that a metre takes at the box.
    """
    kind, author = groups
    out = _sigmas(value, side, limits, one_edge, metre_px=metre)
    known = np.isfinite(value)
    least = limits.min_class_pairs
    for number in np.unique(kind):
        rows = kind == number
        if (known & rows).sum() < least:
            continue
        own = _sigmas(value, side, limits, one_edge, least, 0.5 * metre, rows)
        out[rows] = own[rows]
        for who in others_of(author[rows]):
            mine = np.zeros(len(value), bool)
            mine[np.flatnonzero(rows)[who]] = True
            if (known & rows & ~mine).sum() >= least:
                theirs = _sigmas(value, side, limits, one_edge, least, 0.5 * metre, rows & ~mine)
                out[mine] = np.fmax(out, theirs)[mine]
    return out


def _sigmas(
    value: Floats,
    side: Floats,
    limits: ImageLimits,
    one_edge: Mask,
    least: int | None = None,
    metre_px: Floats | float = 0.0,
    told_by: Mask | None = None,
) -> Floats:
    """|value| over its spread at this size of box, as the boxes in told_by (all) tell it."""
    known = np.isfinite(value)
    if told_by is not None:
        known &= told_by
    level = 0.0
    if known.sum() >= (least or limits.min_pairs):
        level = float(np.median(value[known]))
        wide = spread_of(value[known] - level, side[known], side)
    else:
        wide = np.hypot(limits.spread_px, limits.spread_fraction * side)
    wide = np.hypot(wide, limits.spread_m * metre_px)
    # A shift told by one edge instead of two is less certain.
    wide = np.where(one_edge, np.sqrt(2.0) * wide, wide)
    return np.abs(value - level) / np.maximum(wide, 0.25)


def spread_of(value: Floats, side: Floats, at: Floats) -> Floats:
    """Standard deviation of values at sides ``at``, as values (n,) at sides (n,) tell it.

    Robust: in bins of size the larger of MAD and 80th percentile, both scaled to a Gaussian, and
    between bins along the logarithm of the side. A formula (so many pixels and so much of the side)
    fits no hand: small things are drawn with more care.
    """
    bins = max(1, min(8, len(value) // 25))
    edges = np.quantile(side, np.linspace(0, 1, bins + 1))
    index = np.clip(np.searchsorted(edges, side, side="right") - 1, 0, bins - 1)
    sizes, spreads = [], []
    for b in range(bins):
        inside = np.abs(value[index == b])
        if len(inside) < 8:
            continue
        spreads.append(
            max(1.4826 * float(np.median(inside)), float(np.quantile(inside, 0.8)) / 1.2816)
        )
        sizes.append(float(np.log(np.median(side[index == b]))))
    if not sizes:
        return np.full(len(at), 1.4826 * float(np.median(np.abs(value))))
    return np.interp(np.log(at), sizes, spreads)


def _levels(part: Floats, identity: Ints, frame: Ints, least: int) -> Floats:
    """Median relative shift of each rectangle's object in the images before and after; NaN where
    there are too few. A 3D box that is off shows differently from every side, so only images
    close by can be compared."""
    n = len(part)
    out = np.full(n, np.nan)
    order = np.lexsort((frame, identity))
    values, who = part[order], identity[order]
    near = np.full((2 * _REACH, n), np.nan)
    for k, shift in enumerate([s for s in range(-_REACH, _REACH + 1) if s]):
        at = np.arange(n) + shift
        inside = (at >= 0) & (at < n)
        at = np.clip(at, 0, max(n - 1, 0))
        near[k] = np.where(inside & (who[at] == who) & (who >= 0), values[at], np.nan)
    enough = np.isfinite(near).sum(axis=0) >= least - 1
    if enough.any():
        out[order[enough]] = np.nanmedian(near[:, enough], axis=0)
    return out
