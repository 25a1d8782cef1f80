"""One self-contained HTML page: signals over time with phases, events and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mmdata.phases.inputs import Floats
from mmdata.phases.segment import Segmentation

WIDTH, PLOT, LEFT = 1100, 90, 150
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#ff9da6", "#9d755d")
STYLE = """
body{font:14px/1.4 system-ui,sans-serif;margin:24px;color:#1b1e23;background:#fff;max-width:1200px}
h1{font-size:20px} h2{font-size:16px;margin:28px 0 6px} svg{display:block;margin:4px 0}
table{border-collapse:collapse;margin:8px 0} td,th{padding:2px 10px 2px 0;text-align:left;
vertical-align:top} th{font-weight:600} .n{text-align:right;font-variant-numeric:tabular-nums}
small,.q{color:#5b6470} details{margin:6px 0}
@media (prefers-color-scheme:dark){body{background:#15181c;color:#e6e8eb}small,.q{color:#9aa4af}}
"""


def _path(t: Floats, v: Floats, span_s: float, low: float, high: float) -> str:
    """SVG path with at most two points per pixel: the least and the greatest value of each."""
    scale = WIDTH / max(span_s, 1e-9)
    if len(t) > 2 * WIDTH:
        cell = np.minimum((t * scale).astype(int), WIDTH - 1)
        first = np.flatnonzero(np.r_[True, np.diff(cell) != 0])
        least, most = np.minimum.reduceat(v, first), np.maximum.reduceat(v, first)
        t = np.repeat(t[first], 2)
        v = np.column_stack([least, most]).ravel()
    x = LEFT + t * scale
    y = PLOT - 6 - (v - low) / max(high - low, 1e-12) * (PLOT - 12)
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _plot(title: str, lines: Mapping[str, tuple[Floats, Floats]], marks: str, span_s: float) -> str:
    values = np.concatenate([v for _, v in lines.values()])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return ""
    low, high = float(values.min()), float(values.max())
    drawn = []
    for k, (name, (t, v)) in enumerate(lines.items()):
        good = np.isfinite(v)
        drawn.append(
            f'<path d="{_path(t[good], v[good], span_s, low, high)}" fill="none" '
            f'stroke="{COLOURS[k % len(COLOURS)]}" stroke-width="1.2"><title>{escape(name)}</title>'
            "</path>"
        )
    key = " ".join(
        f'<tspan fill="{COLOURS[k % len(COLOURS)]}">{escape(n)}</tspan>'
        for k, n in enumerate(lines)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH + LEFT} {PLOT}" width="100%" role="img" '
        f'aria-label="{escape(title)}">{marks}{"".join(drawn)}'
        f'<g font-size="11" fill="currentColor"><text x="0" y="14">{escape(title)}</text>'
        f'<text x="0" y="28" font-size="10">{key}</text>'
        f'<text x="{LEFT - 6}" y="12" text-anchor="end" font-size="9">{high:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{PLOT - 4}" text-anchor="end" font-size="9">{low:.3g}</text>'
        "</g></svg>"
    )


def _lines(found: Segmentation) -> dict[str, dict[str, tuple[Floats, Floats]]]:
    """Title of a plot -> name -> (seconds, values)."""
    t = found.analysis.grid.seconds
    plots: dict[str, dict[str, tuple[Floats, Floats]]] = {}
    for m in found.analysis.motions:
        unit = "m/s" if m.space == "position" else "rad/s"
        rows: list[tuple[str, str, Floats, Floats | None]] = [
            (f"speed ({unit})", "speed", t, m.speed),
            (f"speed ({unit})", "upward", t, m.up),
            ("gripper (0-1)", "width", t, m.width),
            ("gripper (0-1)", "command", t, m.command),
            ("touch", "load", m.touch_s, m.touch),
            (
                "force (N)",
                "compensated",
                t,
                None if m.force is None else np.linalg.norm(m.force, axis=1),
            ),
        ]
        for title, name, at, values in rows:
            if values is not None:
                plots.setdefault(f"{m.name} {title}", {})[name] = (at, values)
    if found.analysis.base is not None:
        for name, (value, _) in found.analysis.base.facts.items():
            plots.setdefault("base facts", {})[name] = (t, value)
    return plots


def _episode(name: str, found: Segmentation, quality: Mapping[str, Any] | None) -> str:
    grid = found.analysis.grid
    span = max((found.phases[-1].end_ns - grid.start_ns) * 1e-9, 1e-6) if found.phases else 1.0
    scale = WIDTH / span
    labels = sorted({p.label for p in found.phases})
    colour = {label: COLOURS[k % len(COLOURS)] for k, label in enumerate(labels)}

    def at(stamp_ns: int) -> float:
        return LEFT + (stamp_ns - grid.start_ns) * 1e-9 * scale

    lane = []
    for p in found.phases:
        x, w = at(p.start_ns), (p.end_ns - p.start_ns) * 1e-9 * scale
        tip = escape(f"{p.label} {p.confidence:.2f}: {', '.join(p.evidence)}")
        lane.append(
            f'<rect x="{x:.1f}" y="4" width="{max(w, 1):.1f}" height="26" fill="{colour[p.label]}" '
            f'fill-opacity="{0.35 + 0.55 * min(p.confidence, 1):.2f}"><title>{tip}</title></rect>'
        )
        if w > 7 * len(p.label):
            lane.append(
                f'<text x="{x + 4:.1f}" y="21" font-size="11" fill="#111">{escape(p.label)}</text>'
            )
    for e in found.events:
        tip = escape(f"{e.label} {e.confidence:.2f}: {', '.join(e.evidence)}")
        lane.append(
            f'<path d="M{at(e.stamp_ns):.1f},34l4,10h-8z" fill="#e45756"><title>{tip}</title>'
            "</path>"
        )
    bounds = "".join(
        f'<path d="M{at(p.start_ns):.1f},0v{PLOT}" stroke="currentColor" stroke-opacity=".35" '
        f'stroke-dasharray="3 3"/>'
        for p in found.phases[1:]
    )
    plots = "".join(_plot(title, lines, bounds, span) for title, lines in _lines(found).items())
    grammar = found.grammar or "none: unnamed segments"
    fit = "" if found.fit is None else f", fit {found.fit:.2f} nats per fact (chance -0.69)"
    return (
        f"<h2>{escape(name)}</h2><p>grammar {escape(grammar)}{fit}; outcome "
        f"{escape(found.outcome.label)} ({escape(', '.join(found.outcome.evidence))})</p>"
        f'<svg viewBox="0 0 {WIDTH + LEFT} 48" width="100%" role="img" aria-label="phases">'
        f'<text x="0" y="21" font-size="11" fill="currentColor">phases</text>{"".join(lane)}</svg>'
        f"{plots}{_axis(span)}{_tables(found)}{_quality(quality)}"
    )


def _axis(span_s: float) -> str:
    """Seconds since the start, in about ten round steps."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 3600) if span_s < 12 * s
                or s == 3600)  # fmt: skip
    ticks = "".join(
        f'<text x="{LEFT + t / span_s * WIDTH:.1f}" y="12" text-anchor="middle">{t:g}</text>'
        for t in np.arange(0, span_s, step)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH + LEFT} 18" width="100%" role="img" aria-label="seconds">'
        f'<g font-size="10" fill="currentColor">{ticks}<text x="0" y="12">seconds</text></g></svg>'
    )


def _tables(found: Segmentation) -> str:
    start = found.analysis.grid.start_ns
    phases = "".join(
        f"<tr><td>{escape(p.label)}</td><td class=n>{(p.start_ns - start) / 1e9:.3f}</td>"
        f"<td class=n>{(p.end_ns - p.start_ns) / 1e9:.3f}</td><td class=n>{p.confidence:.2f}</td>"
        f"<td class=q>{escape(', '.join(p.evidence))}</td></tr>"
        for p in found.phases
    )
    events = "".join(
        f"<tr><td>{escape(e.label)}</td><td class=n>{(e.stamp_ns - start) / 1e9:.3f}</td>"
        f"<td class=n>{e.confidence:.2f}</td><td class=q>{escape(', '.join(e.evidence))}</td></tr>"
        for e in found.events
    )
    used = "".join(
        f"<tr><td>{escape(k)}</td><td class=q>{escape(v)}</td></tr>"
        for k, v in found.signals.items()
    )
    notes = "".join(f"<p class=q>{escape(n)}</p>" for n in found.notes)
    return (
        "<details><summary>phases, events, signals used</summary>"
        "<table><tr><th>phase</th><th>start (s)</th><th>length (s)</th><th>confidence</th>"
        f"<th>evidence of its start</th></tr>{phases}</table>"
        "<table><tr><th>event</th><th>at (s)</th><th>confidence</th><th>evidence</th></tr>"
        f"{events}</table><table><tr><th>signal</th><th>from</th></tr>{used}</table>"
        f"{notes}</details>"
    )


def _quality(quality: Mapping[str, Any] | None) -> str:
    if not quality:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(c['type']))}</td><td>{escape(str(c['name']))}</td>"
        f"<td class=n>{'' if c.get('value') is None else format(c['value'], '.4g')}</td>"
        f"<td class=q>{escape(str(c['message']))}</td></tr>"
        for c in quality.get("claims", [])
    )
    beside = ", ".join(f"{k} {v:.4g}" for k, v in quality.get("baselines", {}).items())
    return (
        f"<details><summary>quality: {escape(str(quality.get('grade')))}</summary>"
        f"<table><tr><th>claim</th><th>measure</th><th>value</th><th></th></tr>{rows}</table>"
        f"<p class=q>beside it: {escape(beside)}</p></details>"
    )


def write_html(
    episodes: Sequence[tuple[str, Segmentation, Mapping[str, Any] | None]],
) -> str:
    """The page for episodes given as (name, segmentation, quality or None)."""
    body = "".join(_episode(name, found, quality) for name, found, quality in episodes)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mmdata segment</title>'
        f"<style>{STYLE}</style></head><body><h1>Phases from signals</h1>"
        "<p class=q>Boundaries follow contact and motion, not commands. Hover a phase or a mark "
        f"for its evidence.</p>{body}</body></html>"
    )
