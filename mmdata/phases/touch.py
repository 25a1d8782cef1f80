"""Touch and sound: tactile load, slip-band energy, and onsets of clicks."""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

from mmdata.phases.grid import robust_sigma
from mmdata.phases.inputs import Audio, Floats, Series, Stamps


def tactile_load(cells: Floats) -> Floats:
    """(n,) load over all cells (n, K), each counted from its own floor (10th percentile)."""
    floor = np.percentile(cells, 10, axis=0)
    load: Floats = np.abs(cells - floor).sum(axis=1)
    return load


def slip_energy(series: Series, window_s: float = 0.05) -> Series:
    """Energy of fast changes of touch, per sample: mean square of the cells' second difference.

    Slip shows as vibration above the band of grasping and load transfer. The second difference is
    a high-pass whose band follows the sensor's rate, so energies of different rates are compared
    only with their own floor.
    """
    cells = np.asarray(series.values, np.float64)
    cells = cells.reshape(len(cells), -1)
    fast = np.zeros(len(cells))
    if len(cells) > 2:
        fast[1:-1] = (np.diff(cells, n=2, axis=0) ** 2).mean(axis=1)
    period_s = float(np.median(np.diff(series.stamp_ns))) * 1e-9 if len(cells) > 1 else window_s
    width = max(1, round(window_s / max(period_s, 1e-6)))
    energy = np.convolve(fast, np.ones(width) / width, mode="same")
    return Series(series.stamp_ns, energy, series.source)


def audio_onsets(
    audio: Audio, *, band_hz: tuple[float, float] = (1000.0, 6000.0), sigmas: float = 12.0
) -> tuple[Stamps, Floats]:
    """Stamps of sudden sounds and their strength over the noise (ratio).

    The band is cut out with a causal Butterworth filter, its envelope taken in 1 ms steps, and an
    onset is the first step above `sigmas` robust deviations after 50 ms without one.
    """
    rate = audio.sample_rate_hz
    samples = np.asarray(audio.samples, np.float64)
    step = max(1, round(rate * 1e-3))
    steps = len(samples) // step
    if steps < 100:
        return np.empty(0, np.int64), np.empty(0)
    high = min(band_hz[1], 0.45 * rate)
    low = min(band_hz[0], 0.5 * high)
    heard = sosfilt(butter(2, [low, high], "bandpass", fs=rate, output="sos"), samples)
    envelope = np.sqrt((heard[: steps * step].reshape(steps, step) ** 2).mean(axis=1))
    floor = float(np.median(envelope))
    sigma = max(robust_sigma(envelope), 0.05 * floor, 1e-12)
    loud = np.flatnonzero(envelope > floor + sigmas * sigma)
    if len(loud) == 0:
        return np.empty(0, np.int64), np.empty(0)
    onset = loud[np.r_[True, np.diff(loud) > 50]]
    strength = np.array([envelope[i : i + 20].max() for i in onset]) / (floor + sigmas * sigma)
    at = onset * step
    block = np.searchsorted(audio.block_start[: len(audio.block_ns)], at, side="right") - 1
    since = (at - audio.block_start[block]) / rate
    return audio.block_ns[block] + np.rint(since * 1e9).astype(np.int64), strength
