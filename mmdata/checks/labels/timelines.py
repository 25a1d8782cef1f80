"""Phases and events that were annotated in several views: do they tell one story?

Segments of two views are aligned in order, for the largest sum of overlaps of equal labels (dynamic
programming, as in the edit distance). What finds no partner is missing, exchanged or relabelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmdata.checks import Detail
from mmdata.checks.label_limits import TimelineLimits
from mmdata.checks.labels.findings import LabelFinding, explained, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import author_of
from mmdata_schema import Event, Layer, Phase


@dataclass(frozen=True)
class Segment:
    """A phase of one view, with where it came from."""

    phase: Phase
    view: str
    layer: str
    author: str


def check_timelines(layers: Sequence[Layer], limits: TimelineLimits) -> list[LabelFinding]:
    """Findings between views. A view is a stream that phases or events name; phases made with all
    views in sight (no stream) are compared with none."""
    lanes: dict[tuple[str, str | None], dict[str, list[Segment]]] = defaultdict(dict)
    for layer in layers:
        for phase in layer.phases:
            if phase.stream is None:
                continue
            segment = Segment(
                phase, phase.stream, layer.name, author_of(phase.provenance, layer.provenance)
            )
            lanes[(phase.tier, phase.actor)].setdefault(phase.stream, []).append(segment)
    out: list[LabelFinding] = []
    for views in lanes.values():
        out += _lane(views, limits)
    return explained(out + _events(layers, limits))


def align(a: Sequence[Segment], b: Sequence[Segment], least: float) -> list[tuple[int, int]]:
    """Pairs of segments with equal labels, in order in both, with the largest sum of overlaps.

    Equal labels that overlap less than ``least`` may still pair, at a small gain, so that a view
    that is late as a whole is found to be that."""
    gain = np.zeros((len(a), len(b)))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if x.phase.label == y.phase.label:
                overlap = tiou(x.phase, y.phase)
                near = abs(x.phase.start_ns - y.phase.start_ns) < 2 * max(
                    x.phase.end_ns - x.phase.start_ns, y.phase.end_ns - y.phase.start_ns
                )
                gain[i, j] = overlap if overlap >= least else (0.02 if near else 0.0)
    best = np.zeros((len(a) + 1, len(b) + 1))
    for i in range(len(a)):
        for j in range(len(b)):
            take = best[i, j] + gain[i, j] if gain[i, j] > 0 else -1.0
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], take)
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def tiou(a: Phase, b: Phase) -> float:
    """Temporal intersection over union."""
    inter = min(a.end_ns, b.end_ns) - max(a.start_ns, b.start_ns)
    union = max(a.end_ns, b.end_ns) - min(a.start_ns, b.start_ns)
    return max(inter, 0) / union


def _lane(views: dict[str, list[Segment]], limits: TimelineLimits) -> list[LabelFinding]:
    out: list[LabelFinding] = []
    for segments in views.values():
        segments.sort(key=lambda s: s.phase.start_ns)
    shifts: dict[str, dict[str, float]] = defaultdict(dict)
    found: dict[tuple[str, str], list[LabelFinding]] = {}
    for one, two in combinations(sorted(views), 2):
        a, b = views[one], views[two]
        pairs = align(a, b, limits.match_overlap)
        found[(one, two)] = list(_boundaries(a, b, pairs, limits))
        found[(one, two)] += _objects(a, b, pairs)
        found[(one, two)] += _unpaired(a, b, pairs, limits)
        shift = _shift(a, b, pairs, limits)
        if shift is not None:
            shifts[two][one], shifts[one][two] = shift, -shift
    late = _late_views(shifts, set(views), limits)
    for view, seconds in late.items():
        word = "late" if seconds > 0 else "early"
        text = f"every boundary is {abs(seconds) * 1e3:.0f} ms {word} against the other views"
        out.append(make(RULES["view_late"], text, value=seconds * 1e3, stream=view))
    heads = {finding.stream: finding.key for finding in out}
    for (one, two), findings in found.items():
        blamed = [view for view in (one, two) if view in late]
        for finding in findings:
            if blamed and finding.name == "boundary":
                finding = finding.under(heads[blamed[0]])
            out.append(finding)
    return out


def _boundaries(
    a: Sequence[Segment], b: Sequence[Segment], pairs: list[tuple[int, int]], limits: TimelineLimits
) -> list[LabelFinding]:
    out = []
    for i, j in pairs:
        for name in ("start_ns", "end_ns"):
            x, y = getattr(a[i].phase, name), getattr(b[j].phase, name)
            delta = (y - x) / 1e9
            if abs(delta) <= limits.boundary_s:
                continue
            word = "begins" if name == "start_ns" else "ends"
            out.append(
                make(
                    RULES["boundary"],
                    f"{a[i].phase.label} {word} {abs(delta):.2f} s "
                    f"{'later' if delta > 0 else 'earlier'} in {b[j].view} than in {a[i].view}",
                    value=delta,
                    limit=limits.boundary_s,
                    stream=f"{a[i].view}/{b[j].view}",
                    stamp_ns=x,
                    layer=b[j].layer,
                    author=b[j].author,
                    annotation_ids=(a[i].phase.id, b[j].phase.id),
                    details=(_place(a[i], x), _place(b[j], y)),
                )
            )
    return out


def _place(segment: Segment, stamp_ns: int | None = None) -> Detail:
    """A boundary of a segment (by default all of it) in its own view."""
    phase = segment.phase
    whole = stamp_ns is None
    return Detail(
        segment.view, phase.start_ns if whole else stamp_ns, phase.end_ns if whole else None,
        layer=segment.layer, annotation_ids=(phase.id,),
    )  # fmt: skip


def _objects(
    a: Sequence[Segment], b: Sequence[Segment], pairs: list[tuple[int, int]]
) -> list[LabelFinding]:
    out = []
    for i, j in pairs:
        x, y = set(a[i].phase.object_ids), set(b[j].phase.object_ids)
        if x and y and x != y:
            out.append(
                make(
                    RULES["object_identity"],
                    f"{a[i].phase.label} is done with {', '.join(sorted(x))} in {a[i].view} and "
                    f"with {', '.join(sorted(y))} in {b[j].view}",
                    stream=f"{a[i].view}/{b[j].view}",
                    stamp_ns=a[i].phase.start_ns,
                    layer=b[j].layer,
                    author=b[j].author,
                    annotation_ids=(a[i].phase.id, b[j].phase.id),
                    details=(_place(a[i]), _place(b[j])),
                )
            )
    return out


def _unpaired(
    a: Sequence[Segment], b: Sequence[Segment], pairs: list[tuple[int, int]], limits: TimelineLimits
) -> list[LabelFinding]:
    """Segments without a partner: exchanged with a neighbour, labelled otherwise, or missing."""
    out: list[LabelFinding] = []
    left = [k for k in range(len(a)) if k not in {i for i, _ in pairs}]
    right = [k for k in range(len(b)) if k not in {j for _, j in pairs}]
    stream = f"{a[0].view}/{b[0].view}"
    for i in list(left):
        x = a[i]
        again = [j for j in right if b[j].phase.label == x.phase.label]
        crossed = [j for j in again if any((p < i) != (q < j) for p, q in pairs)]
        near = [j for j in crossed if _distance(x.phase, b[j].phase) < 1.0]
        other = [j for j in right if tiou(x.phase, b[j].phase) >= limits.relabel_overlap]
        if near:
            j, rule = near[0], RULES["order"]
            text = f"{x.phase.label} comes in another place in {b[j].view} than in {x.view}"
        elif other:
            j, rule = other[0], RULES["segment_label"]
            text = f"{x.phase.label} in {x.view} is {b[j].phase.label} in {b[j].view}"
        else:
            continue
        left.remove(i)
        right.remove(j)
        out.append(
            make(rule, text, stream=stream, stamp_ns=x.phase.start_ns, layer=b[j].layer,
                 author=b[j].author, annotation_ids=(x.phase.id, b[j].phase.id),
                 details=(_place(x), _place(b[j])))
        )  # fmt: skip
    for mine, theirs, rows in ((a, b, left), (b, a, right)):
        start, end = theirs[0].phase.start_ns, max(s.phase.end_ns for s in theirs)
        for k in rows:
            phase = mine[k].phase
            absent = Detail(theirs[0].view, phase.start_ns, phase.end_ns, layer=theirs[0].layer)
            middle = (phase.start_ns + phase.end_ns) // 2
            if not start <= middle <= end:
                continue  # the other view was not annotated then
            out.append(
                make(
                    RULES["missing_segment"],
                    f"{phase.label} of {mine[k].view} is absent in {theirs[0].view}",
                    stream=theirs[0].view,
                    stamp_ns=phase.start_ns,
                    layer=theirs[0].layer,
                    author=theirs[0].author,
                    annotation_ids=(phase.id,),
                    details=(absent, _place(mine[k])),
                )
            )
    return out


def _distance(a: Phase, b: Phase) -> float:
    """Gap between two spans, in lengths of the longer one; 0 when they touch."""
    gap = max(a.start_ns, b.start_ns) - min(a.end_ns, b.end_ns)
    return max(gap, 0) / max(a.end_ns - a.start_ns, b.end_ns - b.start_ns)


def _shift(
    a: Sequence[Segment], b: Sequence[Segment], pairs: list[tuple[int, int]], limits: TimelineLimits
) -> float | None:
    """Seconds by which all boundaries of b are later than those of a; 0 when they agree."""
    delta = np.array(
        [b[j].phase.start_ns - a[i].phase.start_ns for i, j in pairs]
        + [b[j].phase.end_ns - a[i].phase.end_ns for i, j in pairs]
    )
    if len(delta) < limits.late_boundaries:
        return None
    middle = float(np.median(delta))
    spread = 1.4826 * float(np.median(np.abs(delta - middle)))
    if abs(middle) < 1e9 * limits.boundary_s * 0.6 or spread > 0.5 * abs(middle):
        return 0.0
    return middle / 1e9


def _late_views(
    shifts: dict[str, dict[str, float]], views: set[str], limits: TimelineLimits
) -> dict[str, float]:
    """Views that are late against all others. Of two views neither can be told to be the late one,
    so the later of the two is named."""
    out: dict[str, float] = {}
    for view in sorted(views):
        against = shifts.get(view, {})
        if len(against) < len(views) - 1 or not against:
            continue
        values = np.array(list(against.values()))
        if (np.abs(values) < 1e-9).any() or (np.sign(values) != np.sign(values[0])).any():
            continue
        others = [v for v in views if v != view]
        agree = all(
            abs(shifts.get(p, {}).get(q, 0.0)) < 1e-9 for p, q in combinations(others, 2)
        )  # fmt: skip
        if agree and (len(views) > 2 or values[0] > 0):
            out[view] = float(np.median(values))
    return out


def _events(layers: Sequence[Layer], limits: TimelineLimits) -> list[LabelFinding]:
    """Events of two views: the nearest of one label belong together."""
    lanes: dict[tuple[str, str | None], dict[str, list[tuple[Event, Layer]]]] = defaultdict(dict)
    covered: dict[str, list[int]] = defaultdict(list)
    for layer in layers:
        for event in layer.events:
            if event.stream is not None:
                lane = lanes[(event.label, event.actor)]
                lane.setdefault(event.stream, []).append((event, layer))
                covered[event.stream].append(event.stamp_ns)
        for phase in layer.phases:
            if phase.stream is not None:
                covered[phase.stream] += [phase.start_ns, phase.end_ns]
    out: list[LabelFinding] = []
    all_views = sorted({view for views in lanes.values() for view in views})
    for (label, _), views in lanes.items():
        for one, two in combinations(all_views, 2):
            a, b = views.get(one, []), views.get(two, [])
            free = set(range(len(b)))
            for mine, layer in a:
                near = min(free, key=lambda j: abs(b[j][0].stamp_ns - mine.stamp_ns), default=None)
                delta = None if near is None else (b[near][0].stamp_ns - mine.stamp_ns) / 1e9
                if near is None or delta is None or abs(delta) > 8 * limits.event_s:
                    out += _absent(mine, layer, two, label, covered)
                    continue
                free.discard(near)
                other = b[near][0]
                place = {
                    "stream": f"{one}/{two}", "stamp_ns": mine.stamp_ns, "layer": layer.name,
                    "annotation_ids": (mine.id, other.id),
                    "details": (_instant(mine, layer), _instant(other, b[near][1])),
                }  # fmt: skip
                if abs(delta) > limits.event_s:
                    text = f"{label} is {abs(delta):.2f} s apart in {one} and {two}"
                    out.append(
                        make(RULES["boundary"], text, value=delta, limit=limits.event_s, **place)
                    )
                x, y = set(mine.object_ids), set(other.object_ids)
                if x and y and x != y:
                    text = f"{label} concerns {sorted(x)} in {one} and {sorted(y)} in {two}"
                    out.append(make(RULES["object_identity"], text, **place))
            for j in free:
                out += _absent(b[j][0], b[j][1], one, label, covered)
    return out


def _instant(event: Event, layer: Layer) -> Detail:
    return Detail(event.stream, event.stamp_ns, layer=layer.name, annotation_ids=(event.id,))


def _absent(
    event: Event, layer: Layer, view: str, label: str, covered: dict[str, list[int]]
) -> list[LabelFinding]:
    span = covered.get(view)
    if not span or not min(span) <= event.stamp_ns <= max(span):
        return []
    text = f"{label} of {event.stream} is absent in {view}"
    return [
        make(RULES["missing_segment"], text, stream=view, stamp_ns=event.stamp_ns,
             layer=layer.name, annotation_ids=(event.id,),
             details=(Detail(view, event.stamp_ns), _instant(event, layer)))
    ]  # fmt: skip
