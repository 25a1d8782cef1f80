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

from mmdata.geometry import quat_conjugate, quat_rotate
from mmdata.phases.inputs import Floats

GRAVITY_M_S2 = 9.80665


@dataclass(frozen=True, slots=True)
class Compensated:
    """force (n, 3) N left after compensation; mass_kg as fitted, None without acceleration."""

    force: Floats
    mass_kg: float | None
    bias_n: Floats


def compensate(
    force: Floats, acceleration: Floats | None = None, orientation: Floats | None = None
) -> Compensated:
    """Force (n, 3) in the sensor's frame without bias, weight and inertia.

    acceleration (n, 3) of the sensor in a frame whose z points up, m/s^2; orientation (n, 4)
    qw qx qy qz of the sensor in that frame, identity where not given. Without an acceleration
    only the bias (the robust mean) is removed.
    """
    if acceleration is None:
        bias = np.median(force, axis=0)
        return Compensated(force - bias, None, bias)
    specific = acceleration + np.array([0.0, 0.0, GRAVITY_M_S2])
    if orientation is not None:
        specific = quat_rotate(quat_conjugate(orientation), specific)
    spread = specific - specific.mean(axis=0)
    weight = np.ones(len(force))
    mass, bias = 0.0, np.median(force, axis=0)
    for _ in range(12):
        total = weight.sum()
        mean_x = (weight[:, None] * spread).sum(axis=0) / total
        mean_f = (weight[:, None] * force).sum(axis=0) / total
        dx, df = spread - mean_x, force - mean_f
        energy = (weight[:, None] * dx * dx).sum()
        mass = float((weight[:, None] * dx * df).sum() / energy) if energy > 1e-9 else 0.0
        bias = mean_f - mass * mean_x
        miss = np.linalg.norm(force - bias - mass * spread, axis=1)
        scale = 1.345 * max(float(np.median(miss)) * 1.4826, 1e-9)
        weight = np.minimum(1.0, scale / np.maximum(miss, 1e-12))
    left = force - bias - mass * spread
    return Compensated(left, mass, bias - mass * specific.mean(axis=0))
