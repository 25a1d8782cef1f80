"""Self-contained HTML pages of agreement, samples, calibration and the review queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from mmdata.quality.bootstrap import Estimate
from mmdata.quality.calibration import Calibration, Route
from mmdata.quality.gold import Drift
from mmdata.quality.label_agreement import Measured, Settings
from mmdata.quality.plots import (
    bar_plot,
    estimate_text,
    figure,
    histogram,
    html_table,
    interval_plot,
    matrix_plot,
    number,
    page,
    reliability_plot,
)
from mmdata.quality.queue import Entry
from mmdata.quality.sampling import Sample

#: Below this Krippendorff advises to draw no conclusion at all.
TENTATIVE = 0.667
#: Measures that are no agreement from 0 to 1: shown as numbers.
_UNITS = ("_ms", "_m", "_rad", "_rate")


def agreement_page(measured: Sequence[Measured], settings: Settings) -> str:
    """Agreement: intervals overall and per category, confusion, differences, accuracy."""
    body = [
        "<p class='note'>Points are values over all episodes, lines 95&nbsp;% intervals from "
        "resampling episodes; kappas and alphas below 0.667 are in the second colour. Frame-wise "
        f"numbers use bins of {settings.bin_ms} ms and are raised by long idle stretches: read "
        "them with the boundary scores.</p>"
    ]
    if not measured:
        body.append("<p>No two annotators labelled the same thing in the same episode.</p>")
    for m in measured:
        episodes, who = len(m.episodes), ", ".join(m.annotators)
        body.append(f"<h2>{escape(m.kind)}: {escape(m.name)}</h2><p>{escape(who)}; {episodes} "
                    f"episode{'s' if episodes != 1 else ''}.</p>")  # fmt: skip
        shares = [(k, e) for k, e in m.overall.items() if not k.endswith(_UNITS)]
        body.append(figure(interval_plot(shares, TENTATIVE), "Overall"))
        sizes = [(k, estimate_text(e)) for k, e in m.overall.items() if k.endswith(_UNITS)]
        if sizes:
            body.append(html_table(("difference", "value [interval]"), sizes))
        body += _categories(m)
        if m.confusion is not None and m.confusion.sum():
            body.append(figure(matrix_plot(m.confusion, m.labels),
                               "Labels of the first annotator of each pair (rows, by name) "
                               "against the second, as shares of rows"))  # fmt: skip
        if m.errors_ms:
            body.append(figure(histogram(m.errors_ms, "ms"),
                               f"Second annotator minus first at {len(m.errors_ms)} matched "
                               "boundaries or instants"))  # fmt: skip
        for annotator, rows in m.accuracy.items():
            body.append(f"<h3>{escape(annotator)} against {escape(str(settings.reference))}, "
                        "per class</h3>")  # fmt: skip
            header = ("class", "recall", "precision", "f1", "accuracy")
            body.append(html_table(header, [
                (name, *(estimate_text(row[n], 2) if n in row else "–" for n in header[1:]))
                for name, row in rows.items() if name != "*"
            ]))  # fmt: skip
            balanced = rows["*"]["balanced_accuracy"]
            body.append(f"<p>Mean recall over classes: {estimate_text(balanced)}.</p>")
    return page("Agreement between annotators", body)


def _categories(m: Measured) -> list[str]:
    names = [n for row in m.by_category.values() for n in row]
    measures = [n for n in dict.fromkeys(names) if not n.endswith(_UNITS)]
    out = ["<h3>Per category</h3>"]
    for measure in measures:
        rows: list[tuple[str, Estimate]] = [
            (category, row[measure]) for category, row in m.by_category.items() if measure in row
        ]
        if any(e.value is not None for _, e in rows):
            out.append(figure(interval_plot(rows), measure))
    units = [n for n in dict.fromkeys(names) if n.endswith(_UNITS)]
    if units:
        out.append(html_table(("category", *units), [
            (category, *(estimate_text(row[n]) if n in row else "–" for n in units))
            for category, row in m.by_category.items()
        ]))  # fmt: skip
    return out


def sample_page(sample: Sample) -> str:
    """A sample: how much of each class, and how many faults each may hold."""
    body = [
        f"<p>{len(sample.items)} items, seed {sample.seed}. With no more faults than the "
        f"acceptance number, fewer than {sample.max_fault_rate:.1%} of a class are faulty "
        f"with {sample.confidence:.0%} confidence.</p>",
        figure(
            bar_plot([(s.name[0], s.sampled, f"{s.sampled} of {s.population}")
                      for s in sample.classes]), "Items per class",
        ),
        html_table(
            ("class", "population", "sampled", "share", "acceptance number"),
            [(s.name[0], str(s.population), str(s.sampled), f"{s.sampled / s.population:.1%}",
              "too few to tell" if s.acceptance is None else str(s.acceptance))
             for s in sample.classes],
        ),
        "<h2>Strata</h2>",
        html_table(("stratum", "population", "sampled"),
                   [(" / ".join(p or "–" for p in s.name), str(s.population), str(s.sampled))
                    for s in sample.strata]),
        "<h2>Items</h2>",
        html_table(("episode", "layer", "id", "class", "annotator", "chance"),
                   [(i.episode_id, i.layer or "–", i.id, i.label, i.annotator or "–",
                     number(sample.probability[i.key])) for i in sample.items]),
    ]  # fmt: skip
    return page("QA sample", body)


def queue_page(queue: Sequence[Entry]) -> str:
    """The review queue in order, and what it is made of."""
    counts = Counter(e.candidate.severity if e.why == "ranked" else "random" for e in queue)
    body = [
        "<p class='note'>Ranked by severity and score; the random entries are drawn from "
        "everything, so that what the ranking misses can be estimated.</p>",
        figure(bar_plot([(name, n, str(n)) for name, n in counts.most_common()]), "Entries"),
        html_table(
            ("#", "episode", "layer", "id", "severity", "score", "why", "reason"),
            [(str(e.position + 1), e.candidate.episode_id, e.candidate.layer or "–",
              e.candidate.id, e.candidate.severity, number(e.candidate.score, 2), e.why,
              e.candidate.reason or "") for e in queue],
        ),
    ]  # fmt: skip
    return page("Review queue", body)


def calibration_page(made: Calibration, routes: Sequence[Route]) -> str:
    """Reliability curve and routing thresholds per class."""
    points = [(b.confidence, b.accuracy, b.low, b.high, b.count) for b in made.bins]
    body = [
        f"<p>{made.count} judged proposals. ECE {estimate_text(made.ece)}, largest gap "
        f"{number(made.mce)}, Brier {number(made.brier)}.</p>",
        figure(reliability_plot(points), "Share right against confidence, bins of equal count"),
        "<h2>Routing</h2>",
        html_table(
            ("class", "accept from", "share accepted", "errors", "error below", "examples"),
            [(r.label, "review all" if r.threshold is None else number(r.threshold),
              f"{r.accepted:.1%}", str(r.errors), number(r.error_bound), str(r.count))
             for r in routes],
        ),
    ]  # fmt: skip
    return page("Calibration of confidences", body)


def gold_page(drifts: Sequence[Drift]) -> str:
    """Accuracy on gold tasks per annotator and class, and who changed."""
    rows: list[tuple[str, Estimate]] = []
    for d in drifts:
        low, high = d.interval or (None, None)
        rows.append((f"{d.annotator} / {d.label}", Estimate(d.mean, low, high, d.count)))
    body = [
        figure(interval_plot([r for r in rows if 0 <= (r[1].value or 0) <= 1]), "Mean score"),
        html_table(
            ("annotator", "class", "gold tasks", "mean", "before", "after", "p", "drift"),
            [(d.annotator, d.label, str(d.count), number(d.mean), number(d.before),
              number(d.after), number(d.p_value),
              "not assessed" if d.drifted is None else "yes" if d.drifted else "no")
             for d in drifts],
        ),
    ]  # fmt: skip
    return page("Gold tasks", body)
