"""Bench of the view, timeline and caption checks: faults of known kind in simulated stories.

    python benchmarks/label_timelines.py                  # held-out seeds
    python benchmarks/label_timelines.py --split tune     # what thresholds were looked at with

A finding is right when its rule is the fault's and it names an annotation of the fault.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from label_stories import Fault, Story

from mmdata.checks.label_limits import TimelineLimits
from mmdata.checks.labels.captions import check_captions
from mmdata.checks.labels.findings import LabelFinding, unfolded
from mmdata.checks.labels.timelines import check_timelines

RULES_OF = {
    "boundary": {"boundary"},
    "missing": {"missing_segment"},
    "relabel": {"segment_label"},
    "order": {"order"},
    "thing": {"object_identity"},
    "event": {"boundary"},
    "event_missing": {"missing_segment"},
    "caption_verb": {"caption_action", "description"},
    "caption_noun": {"caption_object", "description"},
    "caption_colour": {"caption_object", "description"},
    "caption_number": {"caption_object", "description"},
}
#: seeds, and a hand's error in placing a boundary (seconds).
SPLITS = {
    "tune": (range(100, 140), (0.05, 0.08)),
    "held": (range(7000, 7040), (0.04, 0.065, 0.09)),
}
SIZES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def check(story: Story) -> list[LabelFinding]:
    layers = story.layers()
    return check_timelines(layers, TimelineLimits()) + check_captions(layers)


def made(split: str, k: int) -> Story:
    seeds, hands = SPLITS[split]
    return Story(seeds[k], hands[k % len(hands)])


def with_faults(story: Story, k: int) -> None:
    """One fault of each kind, as far as they find room apart from each other."""
    sized = SIZES[2 + k % (len(SIZES) - 2)]
    steps: list[Any] = [
        lambda: story.boundary(sized), story.missing, story.relabel, story.order, story.thing,
        lambda: story.event(sized), story.event, *(
            (lambda what=what: story.caption(what)) for what in ("verb", "noun", "colour", "number")
        ),
    ]  # fmt: skip
    first = k % len(steps)
    for step in steps[first:] + steps[:first]:
        try:
            step()
        except LookupError:
            continue


def hit(finding: LabelFinding, fault: Fault) -> bool:
    return finding.name in RULES_OF[fault["kind"]] and bool(
        set(finding.annotation_ids) & set(fault["ids"])
    )


def touches(finding: LabelFinding, fault: Fault) -> bool:
    """Whether a finding of another rule is about what a fault touched: the same place of any
    view."""
    places = {i.partition("-")[2] for i in fault["ids"]}
    near = set()
    for place in places:
        kind, number = place[0], int(place[1:])
        near |= {f"{kind}{number + d}" for d in (-1, 0, 1)}
        if kind == "p":
            near |= {f"c{number + d}" for d in (-1, 0, 1)}
    return bool({i.partition("-")[2] for i in finding.annotation_ids} & near)


def run(split: str, verbose: bool) -> dict[str, Any]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[float, list[bool]] = defaultdict(list)
    clean: list[int] = []
    roots: list[bool] = []
    errors: list[float] = []
    for k in range(len(SPLITS[split][0])):
        found = unfolded(check(made(split, k)))
        clean.append(len(found))
        if verbose:
            for f in found:
                print(k, "clean:", f.name, f.stream, f.message)
        story = made(split, k)
        with_faults(story, k)
        found = unfolded(check(story))
        for fault in story.faults:
            hits = [f for f in found if hit(f, fault)]
            table[fault["kind"]]["faults"] += 1
            table[fault["kind"]]["found"] += bool(hits)
            if verbose and not hits:
                print(k, "not found:", fault)
        rule_kind = {r: kind for kind, names in reversed(RULES_OF.items()) for r in sorted(names)}
        for f in found:
            if any(hit(f, fault) for fault in story.faults):
                kind = next(fault["kind"] for fault in story.faults if hit(f, fault))
                table[kind]["right"] += 1
            elif not any(touches(f, fault) for fault in story.faults):
                table[rule_kind.get(f.name, f.name)]["false"] += 1
                if verbose:
                    print(k, "false:", f.name, f.stream, f.message)
        for size in SIZES:
            story = made(split, k)
            try:
                story.boundary(size)
            except LookupError:
                continue
            told = check_timelines(story.layers(), TimelineLimits())
            sizes[size].append(any(hit(f, story.faults[0]) for f in told))
        story = made(split, k)
        seconds = float(story.rng.uniform(0.3, 1.2)) * float(story.rng.choice([-1, 1]))
        view = story.late(seconds)
        heads = [f for f in unfolded(check(story)) if f.name == "view_late"]
        roots.append([f.stream for f in heads] == [view])
        if roots[-1]:
            errors.append(abs((heads[0].value or 0.0) - 1e3 * seconds))
        elif verbose:
            print(k, "root:", view, seconds, [(f.stream, f.value) for f in heads])
    print(f"{len(clean)} stories of three views\n")
    print(f"{'kind':15} {'faults':>7} {'recall':>7} {'precision':>9} {'false':>6}")
    summary: dict[str, Any] = {}
    for kind in [*RULES_OF, *sorted(set(table) - set(RULES_OF))]:
        c = table[kind]
        recall = c["found"] / c["faults"] if c["faults"] else float("nan")
        told = c["right"] + c["false"]
        precision = c["right"] / told if told else float("nan")
        summary[kind] = {"recall": recall, "precision": precision, **c}
        print(f"{kind:15} {c['faults']:7} {recall:7.3f} {precision:9.3f} {c['false']:6}")
    print(f"\nclean stories: findings per story {np.mean(clean):.2f}, "
          f"without any {np.mean([c == 0 for c in clean]):.2f}")  # fmt: skip
    shown = "  ".join(f"{s:g} s: {np.mean(sizes[s]):.2f} ({len(sizes[s])})" for s in SIZES)
    print(f"boundary: recall by size\n  {shown}")
    print(f"late view named, and no other: {np.mean(roots):.3f} of {len(roots)}; "
          f"error of the delay: median {np.median(errors):.0f} ms, "
          f"p95 {np.percentile(errors, 95):.0f} ms")  # fmt: skip
    return summary | {"clean": float(np.mean(clean)), "roots": float(np.mean(roots))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=tuple(SPLITS), default="held")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    summary = run(args.split, args.verbose)
    if args.json:
        args.json.write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
