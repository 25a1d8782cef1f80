"""Phases and events that were annotated in several views: do they tell one story?

Segments of two views are aligned in order, for the largest sum of overlaps of equal labels (dynamic
programming, as in the edit distance). What finds no partner is missing, exchanged or relabelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmdata.checks import Detail
from mmdata.checks.label_limits import TimelineLimits
from mmdata.checks.labels.findings import LabelFinding, explained, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import Floats, author_of
from mmdata_schema import Event, Layer, Phase

#: Differences from which on their spread is known.
_TELLING = 8
#: Two views' stamps of one event lie this close.
_INSTANT_NS = 1_000_000_000


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
    late: dict[str, LabelFinding] = {}
    for views in lanes.values():
        heads, found = _lane(views, limits)
        late |= {str(head.stream): head for head in heads}
        out += heads + found
    found, count = _events(layers, limits)
    folded = [_under(f, late) for f in found]
    out += one_view([f for f in folded if f.cause is None], count)
    return explained(out + [f for f in folded if f.cause is not None])


def _under(finding: LabelFinding, late: Mapping[str, LabelFinding]) -> LabelFinding:
    """The finding, folded under a view that is late as a whole if it is about when."""
    blamed = [d.stream for d in finding.details if d.stream in late]
    if finding.name == "boundary" and blamed:
        return finding.under(late[str(blamed[0])].key)
    return finding


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


def _lane(
    views: dict[str, list[Segment]], limits: TimelineLimits
) -> tuple[list[LabelFinding], list[LabelFinding]]:
    """Views that are late as a whole, and everything else about one tier and actor."""
    for segments in views.values():
        segments.sort(key=lambda s: s.phase.start_ns)
    shifts: dict[str, dict[str, float]] = defaultdict(dict)
    found: list[LabelFinding] = []
    for one, two in combinations(sorted(views), 2):
        a, b = views[one], views[two]
        pairs = align(a, b, limits.match_overlap)
        found += _boundaries(a, b, pairs, limits)
        found += _objects(a, b, pairs)
        found += _unpaired(a, b, pairs, limits)
        shift = _shift(a, b, pairs, limits)
        if shift is not None:
            shifts[two][one], shifts[one][two] = shift, -shift
    heads = []
    for view, seconds in _late_views(shifts, set(views), limits).items():
        word = "late" if seconds > 0 else "early"
        text = f"every boundary is {abs(seconds) * 1e3:.0f} ms {word} against the other views"
        heads.append(make(RULES["view_late"], text, value=seconds * 1e3, stream=view))
    late = {str(head.stream): head for head in heads}
    folded = [_under(f, late) for f in found]
    free = one_view([f for f in folded if f.cause is None], len(views))
    return heads, [f for f in folded if f.cause is not None] + free


def _boundaries(
    a: Sequence[Segment], b: Sequence[Segment], pairs: list[tuple[int, int]], limits: TimelineLimits
) -> list[LabelFinding]:
    out = []
    edges = [(i, j, name) for i, j in pairs for name in ("start_ns", "end_ns")
             if name == "start_ns" or not _joined(a, b, i, j, pairs)]  # fmt: skip
    delta = np.array([_at(b[j], name) - _at(a[i], name) for i, j, name in edges]) / 1e9
    limit = max(limits.boundary_s, limits.boundary_sigma * _spread(delta))
    for (i, j, name), by in zip(edges, delta.tolist(), strict=True):
        if abs(by) <= limit:
            continue
        word = "begins" if name == "start_ns" else "ends"
        out.append(
            make(
                RULES["boundary"],
                f"{a[i].phase.label} {word} {abs(by):.2f} s "
                f"{'later' if by > 0 else 'earlier'} in {b[j].view} than in {a[i].view}",
                value=by,
                limit=limit,
                stream=f"{a[i].view}/{b[j].view}",
                stamp_ns=_at(a[i], name),
                layer=b[j].layer,
                author=b[j].author,
                annotation_ids=(a[i].phase.id, b[j].phase.id),
                details=(_place(a[i], _at(a[i], name)), _place(b[j], _at(b[j], name))),
            )
        )
    return out


def _at(segment: Segment, name: str) -> int:
    return segment.phase.start_ns if name == "start_ns" else segment.phase.end_ns


def _joined(
    a: Sequence[Segment], b: Sequence[Segment], i: int, j: int, pairs: list[tuple[int, int]]
) -> bool:
    """Whether the end of a pair is the start of the next one in both views: one boundary."""
    if (i + 1, j + 1) not in pairs:
        return False
    return all(x[k].phase.end_ns == x[k + 1].phase.start_ns for x, k in ((a, i), (b, j)))


def _spread(delta: Floats) -> float:
    """Standard deviation around the median, told by the median deviation; 0 where few tell it."""
    if len(delta) < _TELLING:
        return 0.0
    return 1.4826 * float(np.median(np.abs(delta - np.median(delta))))


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


def one_view(findings: Sequence[LabelFinding], views: int) -> list[LabelFinding]:
    """Where one view stands against all others, say so once instead of for every pair.

    Findings about a pair have one detail in each view; of the two the one that differs from all
    others is named. What is absent in a view is said once, whoever has it.
    """
    if views < 3:
        return list(findings)
    groups: dict[tuple[str, Detail], list[LabelFinding]] = defaultdict(list)
    for finding in findings:
        for detail in finding.details if finding.name != "missing_segment" else ():
            groups[(finding.name, detail)].append(finding)
    out, said = [], set()
    for (_, odd), members in groups.items():
        others = [next(d for d in f.details if d != odd) for f in members]
        alone = all(len(groups[(f.name, d)]) == 1 for f, d in zip(members, others, strict=True))
        if len(members) < views - 1 or not alone or any(f.key in said for f in members):
            continue
        said |= {f.key for f in members}
        agree = ", ".join(sorted(str(d.stream) for d in others))
        ids = (*odd.annotation_ids, *(i for d in others for i in d.annotation_ids))
        out.append(
            replace(members[0], stream=odd.stream, stamp_ns=odd.stamp_ns, layer=odd.layer,
                    message=f"{members[0].message} ({agree} agree)", annotation_ids=ids,
                    details=(odd, *others))
        )  # fmt: skip
    rest = [f for f in findings if f.key not in said]
    absent: list[LabelFinding] = []
    for finding in rest:
        same = [k for k, f in enumerate(absent) if _same_absence(f, finding)]
        if finding.name != "missing_segment" or not same:
            absent.append(finding)
            continue
        first = absent[same[0]]
        ids = (*first.annotation_ids, *finding.annotation_ids)
        absent[same[0]] = replace(first, annotation_ids=ids,
                                  details=(*first.details, *finding.details[1:]))  # fmt: skip
    return out + absent


def _same_absence(a: LabelFinding, b: LabelFinding) -> bool:
    """Whether two findings miss one thing in one view."""
    if a.name != "missing_segment" or b.name != a.name or a.stream != b.stream:
        return False
    if a.message.split()[0] != b.message.split()[0]:
        return False
    x, y = a.details[0], b.details[0]
    assert x.stamp_ns is not None
    assert y.stamp_ns is not None
    room = _INSTANT_NS if x.end_ns is None else 0
    return (x.stamp_ns <= (y.end_ns or y.stamp_ns) + room
            and y.stamp_ns <= (x.end_ns or x.stamp_ns) + room)  # fmt: skip


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


#: An event and the layer it is in.
Placed = tuple[Event, Layer]


def _events(layers: Sequence[Layer], limits: TimelineLimits) -> tuple[list[LabelFinding], int]:
    """Findings about events of two views, those of one label matched in time; number of views."""
    lanes: dict[tuple[str, str | None], dict[str, list[Placed]]] = defaultdict(dict)
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
    for one, two in combinations(all_views, 2):
        pairs: list[tuple[Placed, Placed]] = []
        for views in lanes.values():
            a, b = views.get(one, []), views.get(two, [])
            matched = match_events(a, b, 8 * limits.event_s)
            pairs += [(a[i], b[j]) for i, j in matched]
            for alone, view in ((_without(a, [i for i, _ in matched]), two),
                                (_without(b, [j for _, j in matched]), one)):  # fmt: skip
                for event, layer in alone:
                    out += _absent(event, layer, view, covered)
        delta = np.array([(y.stamp_ns - x.stamp_ns) / 1e9 for (x, _), (y, _) in pairs])
        limit = max(limits.event_s, limits.boundary_sigma * _spread(delta))
        for ((x, mine), (y, theirs)), by in zip(pairs, delta.tolist(), strict=True):
            place = {
                "stream": f"{one}/{two}", "stamp_ns": x.stamp_ns, "layer": mine.name,
                "annotation_ids": (x.id, y.id),
                "details": (_instant(x, mine), _instant(y, theirs)),
            }  # fmt: skip
            if abs(by) > limit:
                word = "later" if by > 0 else "earlier"
                text = f"{x.label} is {abs(by):.2f} s {word} in {two} than in {one}"
                out.append(make(RULES["boundary"], text, value=by, limit=limit, **place))
            p, q = set(x.object_ids), set(y.object_ids)
            if p and q and p != q:
                text = f"{x.label} concerns {sorted(p)} in {one} and {sorted(q)} in {two}"
                out.append(make(RULES["object_identity"], text, **place))
    return out, len(all_views)


def match_events(a: Sequence[Placed], b: Sequence[Placed], most_s: float) -> list[tuple[int, int]]:
    """One to one, for the smallest sum of distances in time among those within ``most_s``."""
    if not a or not b:
        return []
    apart = np.array([[abs(x.stamp_ns - y.stamp_ns) / 1e9 for y, _ in b] for x, _ in a])
    rows, columns = linear_sum_assignment(np.minimum(apart, 2 * most_s))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if apart[i, j] <= most_s]


def _without(events: Sequence[Placed], taken: Sequence[int]) -> list[Placed]:
    return [event for k, event in enumerate(events) if k not in taken]


def _instant(event: Event, layer: Layer) -> Detail:
    return Detail(event.stream, event.stamp_ns, layer=layer.name, annotation_ids=(event.id,))


def _absent(
    event: Event, layer: Layer, view: str, covered: Mapping[str, Sequence[int]]
) -> list[LabelFinding]:
    span = covered.get(view)
    if not span or not min(span) <= event.stamp_ns <= max(span):
        return []
    text = f"{event.label} of {event.stream} is absent in {view}"
    return [
        make(RULES["missing_segment"], text, stream=view, stamp_ns=event.stamp_ns,
             layer=layer.name, annotation_ids=(event.id,),
             details=(Detail(view, event.stamp_ns), _instant(event, layer)))
    ]  # fmt: skip
