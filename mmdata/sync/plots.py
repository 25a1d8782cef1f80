"""Small inline SVG plots: no scripts, no fonts, no files beside the page."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 420, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 8, 34


@dataclass(frozen=True)
class Frame:
    """Data ranges of a plot and where they lie on it."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = WIDTH
    height: int = HEIGHT

    def at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        span_x, span_y = self.x[1] - self.x[0] or 1.0, self.y[1] - self.y[0] or 1.0
        px = _LEFT + (np.asarray(x) - self.x[0]) / span_x * (self.width - _LEFT - _RIGHT)
        py = (
            self.height
            - _BOTTOM
            - (np.asarray(y) - self.y[0]) / span_y * (self.height - _TOP - _BOTTOM)
        )
        return px, py


def curve_plot(
    x: Floats,
    lines: Sequence[Floats],
    *,
    label_x: str,
    label_y: str,
    mark: float | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """Lines over one axis; ``mark`` draws a vertical line, ``band`` shades the part around it."""
    finite = np.concatenate([line[np.isfinite(line)] for line in lines])
    if not len(finite):
        return ""
    frame = Frame((float(x[0]), float(x[-1])), _padded(finite))
    parts = []
    if band is not None:
        (x0, x1), _ = frame.at(np.clip(np.asarray(band), *frame.x), np.zeros(2))
        parts.append(
            f'<rect class="band" x="{x0:.1f}" y="{_TOP}" width="{max(x1 - x0, 0):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )
    for i, line in enumerate(lines):
        parts.append(f'<path class="line l{i % 4}" d="{_path(frame, x, line)}"/>')
    if mark is not None:
        (at,), _ = frame.at(np.array([mark]), np.zeros(1))
        parts.append(f'<path class="mark" d="M{at:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
    return _svg(frame, parts, label_x, label_y)


def histogram_plot(values: Floats, *, label_x: str, bins: int = 48) -> str:
    """Counts of ``values`` (square-root scale, so that rare ones show)."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return ""
    counts, edges = np.histogram(values, bins=bins)
    tall = np.sqrt(counts.astype(np.float64))
    frame = Frame((float(edges[0]), float(edges[-1])), (0.0, float(tall.max()) or 1.0))
    x, y = frame.at(edges, np.r_[tall, 0.0])
    floor = frame.height - _BOTTOM
    bars = "".join(
        f"M{x[i]:.1f} {floor}V{y[i]:.1f}H{x[i + 1]:.1f}V{floor}Z" for i in range(bins) if counts[i]
    )
    return _svg(frame, [f'<path class="bars" d="{bars}"/>'], label_x, "√ count", scale_y=False)


def raster_plot(rows: Sequence[tuple[str, Floats, Floats]], span_s: float) -> str:
    """One row per stream: a tick wherever it has samples, red where it should have and has not.

    rows: (name, stamps in s since the start, gaps (K, 2) in s).
    """
    width, row = 880, 16
    height = row * len(rows) + 30
    left = 170
    scale = (width - left - 10) / max(span_s, 1e-9)
    parts = []
    for i, (name, stamps, gaps) in enumerate(rows):
        y = 6 + i * row
        columns = np.unique(np.clip(np.rint(stamps * scale), 0, width - left - 10).astype(int))
        ticks = "".join(f"M{left + c} {y}v{row - 5}" for c in columns)
        parts.append(f'<text x="{left - 6}" y="{y + 10}" text-anchor="end">{_text(name)}</text>')
        parts.append(f'<path class="tick" d="{ticks}"/>')
        for a, b in gaps:
            parts.append(
                f'<rect class="gap" x="{left + a * scale:.1f}" y="{y}" '
                f'width="{max((b - a) * scale, 1.5):.1f}" height="{row - 5}"/>'
            )
    for k in range(5):
        x = left + k / 4 * span_s * scale
        anchor, label = "end" if k == 4 else "middle", f"{k / 4 * span_s:.3g} s"
        parts.append(f'<text x="{x:.0f}" y="{height - 6}" text-anchor="{anchor}">{label}</text>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}">{"".join(parts)}</svg>'


def envelope(x: Floats, y: Floats, bins: int = 200) -> tuple[Floats, list[Floats]]:
    """(centres, [low, median, high]) per bin: long series stay small and keep their peaks."""
    if len(x) <= bins:
        return x, [y]
    edges = np.linspace(0, len(x), bins + 1).astype(int)
    parts = [y[a:b] for a, b in itertools.pairwise(edges)]
    centre = np.array([x[a:b].mean() for a, b in itertools.pairwise(edges)])
    return centre, [np.array([f(p) for p in parts]) for f in (np.min, np.median, np.max)]


def _padded(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.05 * (high - low) or max(abs(high) * 0.05, 1e-9)
    return low - pad, high + pad


def _path(frame: Frame, x: Floats, y: Floats) -> str:
    good = np.isfinite(y)
    px, py = frame.at(x[good], y[good])
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(px, py, strict=True))


def _svg(
    frame: Frame, parts: Sequence[str], label_x: str, label_y: str, *, scale_y: bool = True
) -> str:
    w, h = frame.width, frame.height
    axes = f'<path class="axis" d="M{_LEFT} {_TOP}V{h - _BOTTOM}H{w - _RIGHT}"/>'
    texts = []
    for k in range(3):
        x = _LEFT + k / 2 * (w - _LEFT - _RIGHT)
        value = frame.x[0] + k / 2 * (frame.x[1] - frame.x[0])
        anchor = ("start", "middle", "end")[k]
        texts.append(
            f'<text x="{x:.0f}" y="{h - 20}" text-anchor="{anchor}">{_number(value)}</text>'
        )
        if scale_y and k != 1:
            y = h - _BOTTOM - k / 2 * (h - _TOP - _BOTTOM)
            value = frame.y[0] + k / 2 * (frame.y[1] - frame.y[0])
            texts.append(
                f'<text x="{_LEFT - 4}" y="{y + 4 + 4 * (k // 2):.0f}" '
                f'text-anchor="end">{_number(value)}</text>'
            )
    texts.append(
        f'<text x="{(_LEFT + w) / 2:.0f}" y="{h - 5}" text-anchor="middle">{_text(label_x)}</text>'
    )
    turn = f"rotate(-90 10 {(h - _BOTTOM) / 2:.0f})"
    texts.append(
        f'<text x="10" y="{(h - _BOTTOM) / 2:.0f}" text-anchor="middle" transform="{turn}">'
        f"{_text(label_y)}</text>"
    )
    body = "".join([axes, *parts, *texts])
    return f'<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}">{body}</svg>'


def _number(value: float) -> str:
    """Three digits, and never an exponent for what still fits in whole numbers."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _text(value: str) -> str:
    return html.escape(value)
