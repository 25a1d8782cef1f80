"""Small SVG plots for self-contained pages: intervals, matrices, histograms, curves.

No script, no fonts or files from elsewhere; every plot has its numbers in text or title.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from mmdata.quality.bootstrap import Estimate

STYLE = """
:root{--ink:#1f2430;--soft:#667;--line:#d9dce3;--fill:#3565a8;--low:#b5482f;--back:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaf0;--soft:#9aa;--line:#3a3f4b;--fill:#7ba7e0;
--low:#e58a70;--back:#16181d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:62rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin-bottom:.3rem}
p.note{color:var(--soft)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0}
th,td{padding:.2rem .7rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}
figure{margin:1rem 0;overflow-x:auto}figcaption{color:var(--soft)}
svg{max-width:100%;height:auto}svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg .axis{stroke:var(--line)}svg .mark{fill:var(--fill);stroke:var(--fill)}
svg .low{fill:var(--low);stroke:var(--low)}svg .soft{fill:var(--soft)}
"""


def page(title: str, body: Sequence[str]) -> str:
    """One HTML document."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(body)}</body></html>\n"
    )


def figure(svg: str, caption: str) -> str:
    """A plot with its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text cells."""
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def estimate_text(estimate: Estimate, digits: int = 3) -> str:
    """`0.812 [0.774, 0.851]`."""
    text = number(estimate.value, digits)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def interval_plot(rows: Sequence[tuple[str, Estimate]], bad_below: float | None = None) -> str:
    """One line per named share in [0, 1] (or below 0, for coefficients), with its interval.

    bad_below: kappas and alphas below it are marked.
    """
    shown = [(name, e) for name, e in rows if e.value is not None]
    left, width, step = 230, 380, 22
    lowest = min([0.0, *(v for _, e in shown for v in (e.value, e.low) if v is not None)])
    lowest = float(np.floor(lowest * 2) / 2)

    def x(value: float) -> float:
        return left + width * (value - lowest) / (1 - lowest)

    height = step * len(shown) + 28
    out = [f'<svg viewBox="0 0 {left + width + 150} {height}" width="{left + width + 150}" '
           f'role="img">']  # fmt: skip
    for tick in np.linspace(lowest, 1, round((1 - lowest) / 0.25) + 1):
        out.append(f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" '
                   f'y2="{height - 20}"/><text class="soft" text-anchor="middle" x="{x(tick):.1f}" '
                   f'y="{height - 5}">{tick:g}</text>')  # fmt: skip
    for i, (name, e) in enumerate(shown):
        assert e.value is not None
        y = step * i + 16
        chance_corrected = "kappa" in name or "alpha" in name
        low = bad_below is not None and chance_corrected and e.value < bad_below
        kind = "low" if low else "mark"
        out.append(f'<text text-anchor="end" x="{left - 10}" y="{y + 4}">{escape(name)}</text>')
        if e.low is not None and e.high is not None:
            out.append(f'<line class="{kind}" stroke-width="2" x1="{x(e.low):.1f}" '
                       f'x2="{x(e.high):.1f}" y1="{y}" y2="{y}"/>')  # fmt: skip
        out.append(f'<circle class="{kind}" r="4" cx="{x(e.value):.1f}" cy="{y}"/>'
                   f'<text class="soft" x="{left + width + 10}" y="{y + 4}">'
                   f"{estimate_text(e, 2)}</text>")  # fmt: skip
    return "".join(out) + "</svg>"


def matrix_plot(table: npt.ArrayLike, labels: Sequence[str]) -> str:
    """A confusion table as shares of its rows, with counts as tooltips."""
    t = np.asarray(table, dtype=np.float64)
    share = t / np.where(t.sum(axis=1, keepdims=True) > 0, t.sum(axis=1, keepdims=True), 1)
    cell, left, top = 44, 150, 90
    size = cell * len(labels)
    out = [f'<svg viewBox="0 0 {left + size + 10} {top + size + 10}" '
           f'width="{left + size + 10}" role="img">']  # fmt: skip
    for i, label in enumerate(labels):
        middle = i * cell + cell / 2
        out.append(f'<text text-anchor="end" x="{left - 8}" y="{top + middle + 4}">'
                   f'{escape(label)}</text><text transform="translate({left + middle + 4} '
                   f'{top - 8}) rotate(-45)">{escape(label)}</text>')  # fmt: skip
        for j, other in enumerate(labels):
            title = f"{label} / {other}: {t[i, j]:g}"
            out.append(
                f'<rect class="mark" fill-opacity="{0.04 + 0.9 * share[i, j]:.3f}" '
                f'stroke-opacity=".2" x="{left + j * cell}" y="{top + i * cell}" '
                f'width="{cell - 2}" '
                f'height="{cell - 2}"><title>{escape(title)}</title></rect>'
                f'<text text-anchor="middle" x="{left + j * cell + cell / 2 - 1}" '
                f'y="{top + middle + 4}">{share[i, j]:.2f}</text>'
            )
    return "".join(out) + "</svg>"


def histogram(values: Sequence[float], unit: str, bins: int = 31) -> str:
    """Counts of signed differences, symmetric about zero."""
    data = np.asarray(values, dtype=np.float64)
    reach = float(np.abs(data).max()) or 1.0
    counts, edges = np.histogram(data, bins=bins, range=(-reach, reach))
    width, height, base = 560, 130, 150
    top = max(int(counts.max()), 1)
    bar = width / bins
    out = [f'<svg viewBox="0 0 {width + 20} {base + 24}" width="{width + 20}" role="img">']
    for k, count in enumerate(counts):
        tall = height * count / top
        title = f"{edges[k]:.0f} to {edges[k + 1]:.0f} {unit}: {count}"
        out.append(f'<rect class="mark" stroke="none" x="{10 + k * bar:.1f}" '
                   f'y="{base - tall:.1f}" width="{bar - 1:.1f}" height="{tall:.1f}">'
                   f"<title>{title}</title></rect>")  # fmt: skip
    for value in (-reach, 0.0, reach):
        x = 10 + width * (value + reach) / (2 * reach)
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 5}"/>'
                   f'<text class="soft" text-anchor="middle" x="{min(max(x, 30), width - 10):.1f}" '
                   f'y="{base + 18}">{value:.0f} {unit}</text>')  # fmt: skip
    return "".join(out) + "</svg>"


def reliability_plot(points: Sequence[tuple[float, float, float, float, int]]) -> str:
    """(mean confidence, accuracy, low, high, count) of bins against the diagonal."""
    size, left, top = 300, 50, 12

    def at(x: float, y: float) -> tuple[float, float]:
        return left + size * x, top + size * (1 - y)

    out = [f'<svg viewBox="0 0 {left + size + 20} {top + size + 42}" width="{left + size + 20}" '
           f'role="img"><rect class="axis" fill="none" x="{left}" y="{top}" width="{size}" '
           f'height="{size}"/><line class="axis" x1="{left}" y1="{top + size}" '
           f'x2="{left + size}" y2="{top}"/>']  # fmt: skip
    for tick in (0.0, 0.5, 1.0):
        x, y = at(tick, tick)
        out.append(f'<text class="soft" text-anchor="middle" x="{x}" y="{top + size + 16}">'
                   f'{tick:g}</text><text class="soft" text-anchor="end" x="{left - 6}" '
                   f'y="{y + 4}">{tick:g}</text>')  # fmt: skip
    for confidence, accuracy, low, high, count in points:
        x, y = at(confidence, accuracy)
        out.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{at(0, low)[1]:.1f}" '
            f'y2="{at(0, high)[1]:.1f}"/><circle class="mark" r="4" cx="{x:.1f}" cy="{y:.1f}">'
            f"<title>{confidence:.3f}: {accuracy:.3f} of {count}</title></circle>"
        )
    out.append(f'<text class="soft" text-anchor="middle" x="{left + size / 2}" '
               f'y="{top + size + 34}">confidence</text>')  # fmt: skip
    return "".join(out) + "</svg>"


def bar_plot(rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars of (name, value, text beside it)."""
    left, width, step = 230, 300, 22
    top = max([v for _, v, _ in rows], default=1.0) or 1.0
    height = step * len(rows) + 8
    out = [f'<svg viewBox="0 0 {left + width + 200} {height}" width="{left + width + 200}" '
           f'role="img">']  # fmt: skip
    for i, (name, value, text) in enumerate(rows):
        y = step * i + 4
        out.append(f'<text text-anchor="end" x="{left - 10}" y="{y + 13}">{escape(name)}</text>'
                   f'<rect class="mark" stroke="none" x="{left}" y="{y + 2}" '
                   f'width="{width * value / top:.1f}" height="{step - 8}"/>'
                   f'<text class="soft" x="{left + width * value / top + 8:.1f}" y="{y + 13}">'
                   f"{escape(text)}</text>")  # fmt: skip
    return "".join(out) + "</svg>"
