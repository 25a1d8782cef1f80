"""Many findings, one cause: say it once and fold the rest under it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmdata.checks.label_limits import CauseLimits
from mmdata.checks.labels.cameras import CameraCause
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.rules import RULES

#: Rules whose findings a wrong keyframe can bring about in images and points.
_BY_KEYFRAME = {
    "box_location", "missing_2d", "phantom_2d", "empty_box", "cut_off", "undersized",
    "ground_offset", "speed", "acceleration",
}  # fmt: skip
#: Rules about rectangles, and about 3D boxes, whose author is the one to ask.
_OF_2D = {"box_location", "phantom_2d", "class_mismatch", "identity_swap"}
_OF_3D = {
    "jump", "size_change", "heading", "empty_box", "cut_off", "undersized", "ground_offset",
}  # fmt: skip
_ACROSS_VIEWS = {"class_mismatch"}


def camera_findings(cause: CameraCause) -> list[LabelFinding]:
    """Findings of one camera's cause: late, out of place, or both."""
    out = []
    told = f"told by {cause.pairs} boxes"
    if cause.late_px > 0:
        word = "late" if cause.late_s > 0 else "early"
        out.append(
            make(
                RULES["camera_late"],
                f"stamps are {abs(cause.late_s) * 1e3:.0f} ms {word} against the 3D boxes "
                f"(standard error {cause.sigma_s * 1e3:.1f} ms, {told})",
                value=cause.late_s * 1e3,
                stream=cause.stream,
            )
        )
    if cause.place_px > 0:
        parts = []
        if cause.turned_deg > 0:
            parts.append(f"turned by {cause.turned_deg:.2f} degrees")
        if cause.moved_by_m > 0:
            parts.append(f"moved by {cause.moved_by_m:.2f} m")
        text = f"{' and '.join(parts)} against the rig: boxes are off by {cause.place_px:.1f} px"
        value = cause.turned_deg if cause.turned_deg else cause.moved_by_m
        out.append(
            make(RULES["camera_extrinsics"], f"{text} (median, {told})", value=value,
                 stream=cause.stream)
        )  # fmt: skip
    return out


def fold_duplicates(findings: Sequence[LabelFinding]) -> list[LabelFinding]:
    """What is found of a thing that was labelled twice goes under that."""
    twice = {f.object_id: f.key for f in findings if f.name == "duplicate_object"}
    return [
        f.under(twice[f.object_id])
        if f.object_id in twice and f.cause is None and f.name != "duplicate_object"
        else f
        for f in findings
    ]


def fold_keyframes(findings: Sequence[LabelFinding], interval_ns: float) -> list[LabelFinding]:
    """Fold what a displaced or resized keyframe does to images, points and neighbours under it."""
    causes: dict[str | None, list[LabelFinding]] = defaultdict(list)
    for finding in findings:
        if finding.name in ("jump", "size_change") and finding.cause is None:
            causes[finding.object_id].append(finding)
    out = []
    for finding in findings:
        if finding.name in _BY_KEYFRAME and finding.cause is None and finding.stamp_ns is not None:
            for cause in causes.get(finding.object_id, ()):
                assert cause.stamp_ns is not None
                if abs(finding.stamp_ns - cause.stamp_ns) <= 1.05 * interval_ns:
                    finding = finding.under(cause.key)
                    break
        out.append(finding)
    return out


def fold_empty(findings: Sequence[LabelFinding], limits: CauseLimits) -> list[LabelFinding]:
    """A box that holds nothing cannot be missed in an image."""
    empty = Counter(f.object_id for f in findings if f.name == "empty_box" and f.cause is None)
    first: dict[str | None, str] = {}
    for f in findings:
        if f.name == "empty_box" and empty[f.object_id] >= limits.object_findings:
            first.setdefault(f.object_id, f.key)
    return [
        f.under(first[f.object_id])
        if f.name == "missing_2d" and f.cause is None and f.object_id in first
        else f
        for f in findings
    ]


def fold_objects(
    findings: Sequence[LabelFinding],
    sizes: Mapping[tuple[str | None, str | None], int],
    limits: CauseLimits,
) -> list[LabelFinding]:
    """One finding for an object that a rule finds wrong in much of a view.

    sizes: (object, stream or None for 3D) -> number of its boxes.
    """
    groups: dict[tuple[str, str | None, str | None], list[int]] = defaultdict(list)
    for k, f in enumerate(findings):
        if f.cause is None and f.object_id is not None and f.stamp_ns is not None:
            stream = None if f.name in _ACROSS_VIEWS else f.stream
            groups[(f.name, f.object_id, stream)].append(k)
    out = list(findings)
    causes = []
    for (name, object_id, stream), members in groups.items():
        total = sizes.get((object_id, stream)) or sizes.get((object_id, None)) or len(members)
        if name in _ACROSS_VIEWS:
            total = sum(n for (o, s), n in sizes.items() if o == object_id and s is not None)
        if len(members) < limits.object_findings or len(members) < 0.25 * total:
            continue
        worst = max((findings[k] for k in members), key=lambda f: abs(f.value or 0.0))
        key = f"object|{name}|{object_id}|{stream or 'all'}"
        if name in ("missing_3d", "identity_reuse", "identity_gap"):
            continue
        message = f"in {len(members)} of {total} boxes of this object; the worst: {worst.message}"
        causes.append(
            replace(worst, key=key, stream=stream, message=message,
                    annotation_ids=worst.annotation_ids[-1:] if stream is None else ())
        )  # fmt: skip
        for k in members:
            out[k] = out[k].under(key)
    return causes + out


def fold_annotators(
    findings: Sequence[LabelFinding],
    drawn_2d: Mapping[str, int],
    drawn_3d: Mapping[str, int],
    limits: CauseLimits,
) -> list[LabelFinding]:
    """One finding for an annotator who has far more findings of some rules than all others.

    drawn_2d, drawn_3d: author -> number of rectangles and of 3D boxes. Findings folded under an
    object count: a habit shows in every object one person drew.
    """
    from scipy.stats import binom

    def counts_of(names: set[str]) -> dict[str, Counter[str]]:
        out: dict[str, Counter[str]] = defaultdict(Counter)
        for f in findings:
            own = f.cause is None or _of_object(f.cause)
            if f.name in names and f.author is not None and own and not _of_object(f.key):
                out[f.name][f.author] += 1
        return out

    blamed: dict[str, list[str]] = defaultdict(list)
    for names, drawn in ((_OF_2D, drawn_2d), (_OF_3D, drawn_3d)):
        if len(drawn) < 2:
            continue
        for name, counts in counts_of(names).items():
            for author, count in counts.items():
                others = sum(n for who, n in drawn.items() if who != author)
                theirs = sum(n for who, n in counts.items() if who != author)
                usual = max((theirs + 0.5) / max(others, 1), 1e-4)
                own = drawn.get(author, 0)
                if count < limits.annotator_findings or own == 0 or others < 20:
                    continue
                ratio = count / own / usual
                p = float(binom.sf(count - 1, own, min(usual, 1.0)))
                if ratio >= limits.annotator_ratio and p <= limits.annotator_p:
                    blamed[author].append(name)
    out = list(findings)
    causes = []
    for author, names_of in blamed.items():
        key = f"annotator|{author}"
        members = [
            k
            for k, f in enumerate(out)
            if f.author == author and f.name in names_of
            and (f.cause is None or _of_object(f.cause))
        ]  # fmt: skip
        told = ", ".join(names_of)
        count = sum(not _of_object(out[k].key) for k in members)
        text = f"{author} has far more findings than others: {told} ({count} findings)"
        causes.append(replace(make(RULES["annotator"], text, value=count, author=author), key=key))
        for k in members:
            out[k] = out[k].under(key)
    return causes + out


def _of_object(key: str) -> bool:
    """Whether a key is that of a finding :func:`fold_objects` made."""
    return key.startswith("object|")
