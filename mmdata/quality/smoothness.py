"""Smoothness of movement: spectral arc length (SPARC) and log dimensionless jerk (LDLJ).

Definitions after Balasubramanian et al. (2012, 2015). Both grow towards 0 with smoothness, both
are lowered by noise, so a low-pass comes first and a noise floor belongs beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sparc(
    speed: Floats, rate_hz: float, *, cutoff_hz: float = 10.0, amplitude: float = 0.05
) -> float:
    """Spectral arc length of a speed profile (N,), N >= 4; nan where it does not move.

    Zero-padded to 2^(ceil(log2 N) + 4), magnitude over its greatest, up to `cutoff_hz`, cut at the
    last frequency whose amplitude reaches `amplitude`.
    """
    speed = np.asarray(speed, np.float64)
    if len(speed) < 4 or not np.any(speed):
        return float("nan")
    padded = 2 ** (int(np.ceil(np.log2(len(speed)))) + 4)
    # A bin k of the padded transform lies at k / padded of the rate.
    frequency = np.arange(padded) * rate_hz / padded
    magnitude = np.abs(np.fft.fft(speed, padded))
    magnitude /= magnitude.max()
    inside = frequency <= cutoff_hz
    frequency, magnitude = frequency[inside], magnitude[inside]
    loud = np.flatnonzero(magnitude >= amplitude)
    frequency = frequency[loud[0] : loud[-1] + 1]
    magnitude = magnitude[loud[0] : loud[-1] + 1]
    if len(frequency) < 2:
        return float("nan")
    step = np.diff(frequency) / (frequency[-1] - frequency[0])
    return float(-np.sqrt(step**2 + np.diff(magnitude) ** 2).sum())


def ldlj(speed: Floats, rate_hz: float) -> float:
    """Log dimensionless jerk of a speed profile (N,), N >= 4; nan where it does not move.

    -ln(T^3 / v_peak^2 * sum(v''^2) dt), v'' by second differences of the samples.
    """
    speed = np.asarray(speed, np.float64)
    if len(speed) < 4:
        return float("nan")
    dt = 1.0 / rate_hz
    jerk = np.diff(speed, 2) / dt**2
    peak = float(np.abs(speed).max())
    total = float((jerk**2).sum()) * dt
    if peak <= 0 or total <= 0:
        return float("nan")
    return float(-np.log((len(speed) * dt) ** 3 / peak**2 * total))


@dataclass(frozen=True, slots=True)
class Smoothness:
    """SPARC and LDLJ of one movement, and what noise of the given size alone would give.

    floor_* are those of the same movement's smooth part plus noise as estimated: a value near its
    floor speaks of the sensor, not of the movement. nan where the movement is too short.
    """

    sparc: float
    ldlj: float
    floor_ldlj: float


def smoothness(path: Floats, rate_hz: float, *, low_pass_hz: float = 12.0) -> Smoothness:
    """Smoothness of a path (N, C) sampled evenly, after a low-pass (zero-phase Butterworth)."""
    from scipy.signal import butter, sosfiltfilt

    path = np.asarray(path, np.float64)
    nothing = Smoothness(float("nan"), float("nan"), float("nan"))
    if len(path) < max(16, round(0.25 * rate_hz)):
        return nothing
    cutoff = min(low_pass_hz, 0.4 * rate_hz)
    sos = butter(3, cutoff, fs=rate_hz, output="sos")
    calm = sosfiltfilt(sos, path, axis=0, padlen=min(len(path) - 1, 15))
    speed = np.linalg.norm(np.gradient(calm, 1.0 / rate_hz, axis=0), axis=1)
    # Noise from second differences; a minimum-jerk stand-in of equal length and size carries it.
    sigma = np.median(np.abs(np.diff(path, 2, axis=0)), axis=0) * 1.4826 / np.sqrt(6.0)
    s = np.linspace(0.0, 1.0, len(path))[:, None]
    ideal = (s**3 * (10 - 15 * s + 6 * s * s)) * (path[-1] - path[0] + 1e-9)
    noisy = ideal + np.random.default_rng(0).normal(0, 1, path.shape) * sigma
    floor = np.linalg.norm(
        np.gradient(
            sosfiltfilt(sos, noisy, axis=0, padlen=min(len(path) - 1, 15)), 1.0 / rate_hz, axis=0
        ),
        axis=1,
    )
    return Smoothness(sparc(speed, rate_hz), ldlj(speed, rate_hz), ldlj(floor, rate_hz))
