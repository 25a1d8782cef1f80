"""Limits of the checks that are no time budgets. Every one is a convention a user may change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mmdata.checks.label_limits import LabelLimits


class Limits(BaseModel):
    """The ``checks:`` section of a budget file; every key may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jitter_fraction: float = Field(default=0.10, gt=0)
    """Standard deviation of the interval over the period (GB/Z 218.1-2026, 6.2.2.3: should)."""
    loss_fraction: float = Field(default=0.01, ge=0)
    """Missing samples over expected ones (GB/Z 218.1-2026, 6.2.2.3: should)."""
    longest_gap_s: float = Field(default=1.0, gt=0)
    latency_ms: float = Field(default=50.0, gt=0)
    """Median of receive minus sensor time."""
    latency_tail_ms: float = Field(default=100.0, gt=0)
    """95th percentile above the median: a recorder that buffers."""
    early_receive_ms: float = Field(default=1.0, ge=0)
    """A sample may be received this much before it was measured (two clocks' noise)."""
    skew_ppm: float = Field(default=20.0, gt=0)
    drift_ms: float = Field(default=1.0, gt=0)
    """Skew counts once it has moved the stream by this much (GB/Z 218.1-2026, 6.2.5.2: 1 ms)."""
    lockstep_ppm: float = Field(default=100.0, gt=0)
    """Two crystals of 50 ppm cannot differ by more."""
    coverage_fraction: float = Field(default=0.05, gt=0)
    """A stream may start late or end early by this part of the episode."""
    resolution_fraction: float = Field(default=0.2, gt=0)
    """Resolution of the stamps over the period."""
    rate_fraction: float = Field(default=0.05, gt=0)
    """Measured against declared rate."""
    rate_change_fraction: float = Field(default=0.1, ge=0.1)
    """A rate that changes by less is one rate that wanders."""
    sweep_span: tuple[float, float] = (0.8, 1.05)
    """Time span of the points of a sweep over the sweep period."""
    alignment_ms: float = Field(default=1.0, gt=0)
    """Residual of an aligned view (GB/Z 218.1-2026, 6.2.5.2c4: should)."""
    missing_fraction: float = Field(default=0.0, ge=0)
    """NaN or infinite values in a signal (GB/Z 218.1-2026, 6.2.2.1a allows 5 % in core fields)."""
    clipping_fraction: float = Field(default=0.0005, ge=0)
    frozen_s: float = Field(default=0.5, gt=0)
    black_fraction: float = Field(default=0.02, ge=0)
    labels: LabelLimits = LabelLimits()
    """Limits of the rules about labels (LAB...), see docs/label-checks.md."""
