"""Contact wrench from a measured one: what gravity, inertia and sensor bias explain is removed.

A wrist sensor in front of a tool of mass m reads f = f_contact + b + m (a - g), all in the sensor's
frame. Bias b (3) and mass m are fitted by Huber-weighted least squares (IRLS) over the whole
episode, in which contact is the outlier; the sign of m also absorbs the sensor's sign convention.
Where the orientation is not known or hardly changes, bias and weight cannot be told apart, which
does no harm: their sum is removed all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from mmdata.geometry import quat_conjugate, quat_rotate
from mmdata.phases.inputs import Floats

GRAVITY_M_S2 = 9.80665


BAND_S = (0.05, 0.6)
"""Standard deviations of the filters between which force and acceleration are compared."""
FIT_ROWS = 40_000
"""Of longer episodes, evenly spaced rows are fitted, at least this many."""
MASS_SIGMAS = 5.0
"""A mass is known when it stands out of its standard error by this factor."""


@dataclass(frozen=True, slots=True)
class Compensated:
    """force (n, 3) N left after compensation; mass_kg as fitted, negative where the sensor counts
    the other way, None without acceleration; per_kg (n, 3) what a kilogram more would add to the
    force, up to `sign`: 1 or -1, or 0 where the fit does not tell it.
    """

    force: Floats
    mass_kg: float | None
    bias_n: Floats
    per_kg: Floats | None = None
    sign: float = 0.0


def compensate(
    force: Floats,
    acceleration: Floats | None = None,
    orientation: Floats | None = None,
    *,
    held: Floats | None = None,
    step_s: float = 0.01,
) -> Compensated:
    """Force (n, 3) in the sensor's frame without bias, weight and inertia; rows step_s apart.

    acceleration (n, 3) of the sensor in a frame whose z points up, m/s^2; orientation (n, 4)
    qw qx qy qz of the sensor in that frame, identity where not given; held (n,): 1 while something
    may hang on the tool, whose mass is fitted apart and stays in the force. Without an acceleration
    only the bias (the robust mean) is removed.
    """
    if acceleration is None:
        bias = np.median(force, axis=0)
        return Compensated(force - bias, None, bias)
    specific = acceleration + np.array([0.0, 0.0, GRAVITY_M_S2])
    if orientation is not None:
        specific = quat_rotate(quat_conjugate(orientation), specific)
    causes = [specific] if held is None or not held.any() else [specific, held[:, None] * specific]
    thin = max(1, len(force) // FIT_ROWS)
    rows = np.stack([_changes(c, step_s)[::thin] for c in causes], axis=-1)
    df = _changes(force, step_s)[::thin]
    weight = np.ones(len(df))
    ridge = 1e-9 * np.eye(len(causes))
    for _ in range(12):
        normal = np.einsum("n,nci,ncj->ij", weight, rows, rows) + ridge
        masses = np.linalg.solve(normal, np.einsum("n,nci,nc->i", weight, rows, df))
        miss = np.linalg.norm(df - rows @ masses, axis=1)
        weight = _huber(miss)
    # Neighbouring rows share their band, so they are fewer than they are many.
    fewer = max(BAND_S[0] / (step_s * thin), 1.0)
    covariance = np.median(miss) ** 2 * fewer * np.linalg.inv(normal)
    mass = float(masses[0])
    left = force - mass * specific
    some = left[::thin]
    bias = np.median(some, axis=0)
    for _ in range(12):
        weight = _huber(np.linalg.norm(some - bias, axis=1))[:, None]
        bias = (weight * some).sum(axis=0) / weight.sum()
    sign = 0.0
    for chosen in ([1.0, 0.0], [1.0, 1.0]):  # the hand's own mass tells, else that with its load
        c = np.array(chosen[: len(masses)])
        if not sign and abs(c @ masses) > MASS_SIGMAS * np.sqrt(c @ covariance @ c):
            sign = float(np.sign(c @ masses))
    return Compensated(left - bias, mass, bias, specific, sign)


def _changes(values: Floats, step_s: float) -> Floats:
    """What changes within BAND_S: loads that come and stay do not disturb the fit of the mass."""
    calm = gaussian_filter1d(values, BAND_S[0] / step_s, axis=0, mode="nearest")
    slow = values
    for _ in range(2):  # two boxes of the sigma's variance cost a fraction of a wide Gaussian
        box = max(1, round(np.sqrt(6.0) * BAND_S[1] / step_s))
        slow = uniform_filter1d(slow, box, axis=0, mode="nearest")
    return np.asarray(calm - slow)


def _huber(miss: Floats) -> Floats:
    scale = 1.345 * max(float(np.median(miss)) * 1.4826, 1e-9)
    return np.minimum(1.0, scale / np.maximum(miss, 1e-12))
