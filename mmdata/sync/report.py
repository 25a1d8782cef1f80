"""The report of ``mmdata check --html``: one page that needs nothing but a browser."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.episode import NO_RESIDUAL, Episode
from mmdata.errors import SyncError
from mmdata.sync.clockmap import fit_clock
from mmdata.sync.ledger import Ledger
from mmdata.sync.plots import curve_plot, envelope, histogram_plot, raster_plot

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#d8dee4;--ok:#1a7f37;--bad:#cf222e;
--open:#9a6700;--a:#0969da;--b:#8250df;--c:#bf8700;--d:#1b7c83}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--soft:#30363d;--ok:#3fb950;
--bad:#f85149;--open:#d29922;--a:#58a6ff;--b:#bc8cff;--c:#e3b341;--d:#56d4dd}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2em auto;
max-width:1200px;padding:0 1em}
table{border-collapse:collapse;margin:.6em 0;width:100%}td,th{padding:.2em .6em;text-align:left;
border-bottom:1px solid var(--soft);vertical-align:top}.n{text-align:right;
font-variant-numeric:tabular-nums}td.n{white-space:nowrap}
.PASSED{color:var(--ok)}.FAILED{color:var(--bad)}.NOT_ASSESSED{color:var(--open)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:1.5em 1em}
figure{margin:0}figcaption{font-size:12px}
svg{font:10px system-ui,sans-serif;max-width:100%;height:auto}svg text{fill:var(--ink)}
.axis{fill:none;stroke:var(--soft)}.line{fill:none;stroke-width:1.3}.l0{stroke:var(--a)}
.l1{stroke:var(--b)}.l2{stroke:var(--c)}.l3{stroke:var(--d)}.mark{stroke:var(--bad);
stroke-dasharray:4 3;fill:none}.band{fill:var(--bad);opacity:.15}.bars{fill:var(--a)}
.tick{stroke:var(--a);stroke-width:1}.gap{fill:var(--bad)}summary{cursor:pointer;margin:.6em 0}
"""

# Samples of which a distribution is worth a picture.
_LEAST = 8


@dataclass(frozen=True)
class Section:
    """One episode of a report; ``findings`` as ``Finding.to_dict`` gives them."""

    path: str
    verdict: str
    findings: Sequence[Mapping[str, Any]]
    body: str


def section(
    episode: Episode, verdict: str, findings: Sequence[Mapping[str, Any]], ledger: Ledger
) -> Section:
    """Everything of one episode, drawn while it is open; afterwards the file may be closed."""
    parts = [
        _findings(findings),
        "<h3>Offsets between streams</h3>",
        _pairs(ledger),
        _figures("Correlation", _correlations(ledger)),
        "<h3>Stamps</h3>",
        _raster(episode, ledger),
        _figures("Intervals (minus the period)", _jitter(episode)),
        _figures("Latency over time (least, median, most)", _latency(episode)),
        _figures("Residuals", _residuals(episode)),
    ]
    path = str(episode.path or episode.episode_id)
    return Section(path, verdict, findings, "".join(parts))


def render_report(sections: Sequence[Section]) -> str:
    """The page as one string."""
    rows = "".join(
        f'<tr><td><a href="#e{i}">{_esc(s.path)}</a></td>'
        f'<td class="{s.verdict}">{s.verdict}</td>{_counts(s.findings)}</tr>'
        for i, s in enumerate(sections)
    )
    bodies = "".join(
        f'<section id="e{i}"><h2>{_esc(s.path)}: <span class="{s.verdict}">{s.verdict}</span></h2>'
        f"{s.body}</section>"
        for i, s in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>mmdata check</title><style>{_STYLE}</style><body><h1>Check of "
        f"{len(sections)} episode{'s' if len(sections) != 1 else ''}</h1>"
        '<table><tr><th>episode</th><th>verdict</th><th class="n">errors</th>'
        '<th class="n">warnings</th><th class="n">infos</th></tr>'
        f"{rows}</table><p>Errors fail an episode, with <code>--strict</code> warnings too. "
        "<code>mmdata check --rules</code> says what each rule looks at.</p>"
        f"{bodies}</body></html>\n"
    )


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    order = {"FAILED": 0, "NOT_ASSESSED": 1, "PASSED": 2, "SKIPPED": 3}
    weight = {"error": 0, "warning": 1, "info": 2}
    ranked = sorted(findings, key=lambda f: (order[f["status"]], weight[f["severity"]], f["rule"]))

    def rows(chosen: Sequence[Mapping[str, Any]]) -> str:
        return "".join(
            f'<tr><td>{f["rule"]}</td><td class="{f["status"]}">{f["status"]}</td>'
            f"<td>{f['severity']}</td><td>{_esc(f['stream'] or '')}</td>"
            f'<td class="n">{_number(f["value"])}</td><td class="n">{_number(f["limit"])}</td>'
            f"<td>{_esc(f['message'])}</td></tr>"
            for f in chosen
        )

    head = (
        '<tr><th>rule<th>status<th>severity<th>stream<th class="n">value<th class="n">limit'
        "<th>message</tr>"
    )
    loud = [f for f in ranked if f["status"] in ("FAILED", "NOT_ASSESSED")]
    quiet = [f for f in ranked if f["status"] not in ("FAILED", "NOT_ASSESSED")]
    return (
        f"<h3>Findings</h3><table>{head}{rows(loud)}</table>"
        f"<details><summary>{len(quiet)} passed or skipped</summary>"
        f"<table>{head}{rows(quiet)}</table></details>"
    )


def _pairs(ledger: Ledger) -> str:
    rows = "".join(
        f"<tr><td>{_esc(p.a)}</td><td>{_esc(p.b)}</td><td>{p.kind}</td>"
        f'<td class="n">{_signed(p.offset_ms)}</td><td class="n">{_number(p.sigma_ms)}</td>'
        f'<td class="n">{_signed(p.skew_ppm)}</td><td class="{p.verdict}">{p.verdict}</td>'
        f"<td>{_esc(p.reason)}</td></tr>"
        for p in ledger.pairs
    )
    return (
        "<p>Offset = stamp of b minus stamp of a for one event; positive: b is late.</p>"
        '<table><tr><th>a<th>b<th>kind<th class="n">offset, ms<th class="n">sigma, ms'
        '<th class="n">skew, ppm<th>verdict'
        f"<th>why</tr>{rows}</table>"
    )


def _correlations(ledger: Ledger) -> list[tuple[str, str]]:
    out = []
    for pair in ledger.pairs:
        for estimate in pair.estimates:
            if estimate.curve is None:
                continue
            lag, score = estimate.curve
            mark = band = None
            if estimate.offset_ns is not None and estimate.sigma_ns is not None:
                mark, reach = estimate.offset_ns / 1e6, 2 * estimate.sigma_ns / 1e6
                band = (mark - reach, mark + reach)
            plot = curve_plot(
                lag / 1e6, [score], label_x="lag, ms", label_y="score", mark=mark, band=band
            )
            found = "abstained" if mark is None else f"{mark:+.1f} ms"
            out.append((f"{pair.a} / {pair.b}, {estimate.method}: {found}", plot))
    return out


def _raster(episode: Episode, ledger: Ledger) -> str:
    """Samples of every stream, and the gaps that the ledger names."""
    if episode.start_ns is None or episode.end_ns is None:
        return ""
    places = {s.name: s.facts["sensor"].get("places", {}) for s in ledger.streams}
    rows = []
    for name, stream in episode.streams.items():
        if not len(stream):
            continue
        gaps = [(p["stamp_ns"], p["end_ns"]) for p in places.get(name, {}).get("gaps", ())]
        spans = (np.array(gaps, np.int64).reshape(-1, 2) - episode.start_ns) / 1e9
        rows.append((name, (stream.stamp_ns - episode.start_ns) / 1e9, spans))
    return raster_plot(rows, (episode.end_ns - episode.start_ns) / 1e9)


def _jitter(episode: Episode) -> list[tuple[str, str]]:
    out = []
    for name, stream in episode.streams.items():
        stamps = stream.source_ns if stream.source_ns is not None else stream.stamp_ns
        step = np.diff(stamps) / 1e6
        if len(step) >= _LEAST:
            away = step - np.median(step)
            # The few longest intervals would hide the shape of all others.
            low, high = np.percentile(away, [0.5, 99.5])
            out.append((name, histogram_plot(np.clip(away, low, high), label_x="ms")))
    return out


def _latency(episode: Episode) -> list[tuple[str, str]]:
    out = []
    for name, stream in episode.streams.items():
        if stream.source_ns is None or stream.receive_ns is None or len(stream) < _LEAST:
            continue
        since = (stream.stamp_ns - stream.stamp_ns[0]) / 1e9
        delay = (stream.receive_ns - stream.source_ns) / 1e6
        centre, lines = envelope(since, delay)
        out.append((name, curve_plot(centre, lines, label_x="s", label_y="latency, ms")))
    return out


def _residuals(episode: Episode) -> list[tuple[str, str]]:
    out = []
    for name, stream in episode.streams.items():
        source, receive = stream.source_ns, stream.receive_ns
        if source is None or receive is None or np.array_equal(source, receive):
            continue
        try:
            fit = fit_clock(source, receive)
        except SyncError:
            continue  # too short for a map, so there is no residual either
        left = (receive - fit.apply(source)) / 1e6
        plot = histogram_plot(left, label_x="ms above the clock map")
        out.append((f"{name}: receive against its clock map", plot))
    for timeline in episode.timelines:
        for name, residual in episode.aligned(timeline).residual_ns.items():
            if len(episode.streams[name]) < _LEAST:
                continue  # settings, sent once or twice
            known = residual[residual != NO_RESIDUAL] / 1e6
            plot = histogram_plot(known, label_x="stamp minus tick, ms")
            out.append((f"{name} on timeline {timeline}", plot))
    return out


def _figures(title: str, plots: Sequence[tuple[str, str]]) -> str:
    figures = "".join(
        f"<figure><figcaption>{_esc(caption)}</figcaption>{svg}</figure>"
        for caption, svg in plots
        if svg
    )
    return f"<h4>{_esc(title)}</h4><div class='grid'>{figures}</div>" if figures else ""


def _counts(findings: Sequence[Mapping[str, Any]]) -> str:
    """Cells with the number of failed findings of each severity."""
    failed = [f["severity"] for f in findings if f["status"] == "FAILED"]
    return "".join(f'<td class="n">{failed.count(s)}</td>' for s in ("error", "warning", "info"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _esc(value: str) -> str:
    return html.escape(str(value))
