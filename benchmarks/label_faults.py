"""Bench of the label checks: faults of known kind and size in simulated multi-camera scenes.

    python benchmarks/label_faults.py                  # held-out seeds, rigs and noise
    python benchmarks/label_faults.py --split tune     # what thresholds were looked at with
    python benchmarks/label_faults.py --speed          # 100,000 boxes x 6 cameras

Every kind of fault is put into 1-2 % of the boxes it can befall. A finding is right when its rule
is the fault's and it names the object at the time (and in the camera). Findings folded under a
camera or a keyframe are not counted: the report shows only their cause.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from label_injector import Fault, Injector
from label_scenes import PERIOD, SimScene

from mmdata.checks.labels.findings import LabelFinding
from mmdata.checks.labels.pipeline import check_boxes
from mmdata_schema import Box2D, Layer, Provenance, Track3D

#: Kind of fault -> rules that may report it.
RULES_OF = {
    "missing": {"missing_2d", "unlabelled_frame"},
    "phantom": {"phantom_2d"},
    "class": {"class_mismatch"},
    "swap": {"identity_swap"},
    "location": {"box_location"},
    "jump": {"jump"},
    "size": {"size_change"},
    "heading": {"heading"},
    "gap": {"identity_gap", "missing_3d"},
    "renamed": {"identity_gap"},
    "reuse": {"identity_reuse"},
    "empty": {"empty_box"},
    "cut_off": {"cut_off", "undersized"},
    "undersized": {"undersized", "cut_off"},
    "ground": {"ground_offset"},
    "twice": {"duplicate_2d"},
    "double": {"duplicate_object"},
}
CAUSES = {"camera_extrinsics", "camera_late", "boxes_late", "annotator", "layer_height"}
SPLITS = {
    "tune": {
        "seeds": range(100, 148), "rigs": ("tune_a", "tune_b", "random"),
        "noise": (1.5, 2.0, 2.5, 1.8),
    },
    "held": {
        "seeds": range(41000, 41030), "rigs": ("held_a", "held_b", "random", "random", "random"),
        "noise": (1.0, 2.2, 3.0, 1.6),
    },
}  # fmt: skip


def layer_of(scene: SimScene) -> Layer:
    """The scene's labels as a layer."""
    tracks: dict[tuple[str, ...], list[Any]] = {}
    for box in scene.boxes3:
        key = (box["object_id"], box["label"], box["author"], box.get("track", ""))
        tracks.setdefault(key, []).append(box)
    three = []
    for k, ((object_id, label, author, _), boxes) in enumerate(tracks.items()):
        three.append(
            Track3D(
                id=f"t{k}", object_id=object_id, label=label, frame_id="world",
                stream="lidar_points", stamp_ns=[b["stamp_ns"] for b in boxes],
                center_m=[tuple(map(float, b["center"])) for b in boxes],
                size_lwh_m=[tuple(map(float, b["size"])) for b in boxes],
                quaternion_wxyz=[tuple(map(float, b["q"])) for b in boxes],
                provenance=Provenance(author=author),
            )
        )  # fmt: skip
    two = [
        Box2D(
            id=f"b{k}", label=b["label"], stream=b["stream"], stamp_ns=b["stamp_ns"],
            xyxy_px=tuple(map(float, b["xyxy"])), object_id=b["object_id"],
            provenance=Provenance(author=b["author"]),
        )
        for k, b in enumerate(scene.boxes2)
    ]  # fmt: skip
    return Layer(episode_id="bench", name="bench", provenance=Provenance(author="ann"),
                 tracks_3d=three, boxes_2d=two)  # fmt: skip


def matches(finding: LabelFinding, fault: Fault) -> bool:
    """Whether a finding names a fault. Where the only rectangle of an image was left out, that the
    image has none says it."""
    if fault["kind"] == "missing" and finding.name == "unlabelled_frame":
        return (finding.stream, finding.stamp_ns) == (fault["stream"], fault["stamp_ns"])
    if finding.name not in RULES_OF[fault["kind"]]:
        return False
    same = finding.object_id == fault["object_id"] or (
        fault["kind"] in ("swap", "twice", "double") and finding.object_id == fault["partner"]
    )
    if fault["kind"] == "phantom" and fault["object_id"] is None:
        same = finding.object_id is None
    if not same:
        return False
    if fault.get("track"):
        return True
    if fault["stream"] is not None and finding.stream != fault["stream"]:
        return False
    return finding.stamp_ns == fault["stamp_ns"]


def score(found: list[LabelFinding], faults: list[Fault], table: dict[str, Counter[str]],
          sizes: dict[str, list[tuple[float, bool]]]) -> list[str]:  # fmt: skip
    """Add one scene to the table; returns descriptions of what was wrong. Findings of kinds that
    were not put into this scene count among the clean scenes only."""
    judged = {name for fault in faults for name in RULES_OF[fault["kind"]]}
    found = [f for f in found if f.name in judged]
    heads = {f.key for f in found if f.key.startswith("object|")}
    shown = [f for f in found if f.cause is None or f.cause in heads]
    shown = [f for f in shown if f.key not in heads]
    wrong = []
    used: set[str] = set()
    for fault in faults:
        hits = [f for f in found if matches(f, fault)]
        kind = fault["kind"]
        table[kind]["faults"] += 1
        table[kind]["found"] += bool(hits)
        used |= {f.key for f in hits}
        if fault["size"] is not None:
            sizes[kind].append((fault["size"], bool(hits)))
        if not hits:
            wrong.append(f"not found: {fault}")
    rule_kind = {r: kind for kind, names in reversed(RULES_OF.items()) for r in sorted(names)}
    for f in shown:
        if f.name in CAUSES:
            continue
        kind = rule_kind.get(f.name, f.name)
        if f.key in used:
            table[kind]["right"] += 1
        elif any(_collateral(f, fault) for fault in faults):
            table[kind]["collateral"] += 1
        else:
            table[kind]["false"] += 1
            wrong.append(f"false: {f.name} {f.stream} {f.object_id} {f.stamp_ns}: {f.message}")
    return wrong


def _collateral(finding: LabelFinding, fault: Fault) -> bool:
    """A finding of another rule about the very box that a fault was put into."""
    if finding.object_id not in (fault["object_id"], fault.get("partner")):
        return False
    if fault.get("track"):
        return True
    if finding.stamp_ns is None:
        return False
    near = abs(finding.stamp_ns - fault["stamp_ns"])
    if fault["stream"] is None:  # a keyframe shows in every camera around its time
        return near <= PERIOD
    return finding.stream == fault["stream"] and near == 0 and finding.name != "missing_2d"


def base(split: str, k: int) -> SimScene:
    """Scene number k of a split."""
    s = SPLITS[split]
    return SimScene(
        s["seeds"][k], s["rigs"][k % len(s["rigs"])],
        noise_px=s["noise"][k % len(s["noise"])], objects=(18, 25, 32)[k % 3],
    )  # fmt: skip


def run_scene(job: tuple[str, int, tuple[str, ...]]) -> dict[str, Any]:
    """All scenarios of one scene."""
    split, k, parts = job
    scene = base(split, k)
    kept3, kept2 = copy.deepcopy(scene.boxes3), copy.deepcopy(scene.boxes2)
    out: dict[str, Any] = {
        "table": defaultdict(Counter), "sizes": defaultdict(list), "wrong": [], "clean": [],
        "roots": [], "boxes": len(kept2),
    }  # fmt: skip

    def fresh() -> Injector:
        scene.boxes3, scene.boxes2 = copy.deepcopy(kept3), copy.deepcopy(kept2)
        return Injector(scene, scene.seed)

    def judge(injector: Injector) -> None:
        found = check_boxes(scene.scene, [layer_of(scene)])
        out["wrong"] += score(found, injector.faults, out["table"], out["sizes"])

    if "clean" in parts:
        fresh()
        found = check_boxes(scene.scene, [layer_of(scene)])
        out["clean"].append([f"{f.name} {f.stream} {f.object_id} {f.message}" for f in found
                             if f.cause is None])  # fmt: skip
    if "boxes" in parts:
        injector = fresh()
        injector.classes()
        injector.locations()
        injector.swaps()
        injector.missing_and_phantom()
        injector.keyframes({"jump": (0.6, 2.0), "size": (0.15, 0.4)})
        judge(injector)
    if "sweep" in parts:
        injector = fresh()
        injector.rate = 0.02
        injector.locations((0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5))
        injector.keyframes(
            {"jump": (0.1, 0.2, 0.3, 0.4, 0.6, 1.0), "size": (0.05, 0.08, 0.12, 0.15, 0.2, 0.3)},
            sweep=True,
        )
        before = copy.deepcopy(out["table"])
        judge(injector)
        out["table"] = before  # magnitudes below what is asked for are no part of the recall
    if "tracks" in parts:
        injector = fresh()
        injector.whole_tracks(("heading", "gap", "renamed", "reuse", "double"))
        injector.twice()
        judge(injector)
    if "lidar" in parts:
        injector = fresh()
        injector.whole_tracks(("empty", "cut_off", "undersized", "ground"))
        judge(injector)
    if "roots" in parts:
        rng = np.random.default_rng([scene.seed, 9])
        for kind in ("turned", "late", "annotator", "boxes_late"):
            out["roots"].append(_root(scene, kind, kept3, kept2, rng))
    out["table"] = {key: dict(v) for key, v in out["table"].items()}
    out["sizes"] = dict(out["sizes"])
    return out


def _root(scene: SimScene, kind: str, kept3: Any, kept2: Any, rng: Any) -> dict[str, Any]:
    """One cause for many findings, next to ordinary faults: is it named, and only it?"""
    scene.boxes3 = copy.deepcopy(kept3)
    counts = Counter(b["stream"] for b in kept2 if b["visible"] > 0.7)
    camera = counts.most_common(3)[int(rng.integers(3))][0]
    wanted: set[tuple[str, str | None]] = set()
    size: float | None = None
    if kind == "turned":
        size = float(rng.uniform(0.8, 2.5))
        axis = rng.normal(0, 1, 3)
        scene.turn_rad = {camera: np.radians(size) * axis / np.linalg.norm(axis)}
        wanted = {("camera_extrinsics", camera)}
    elif kind == "late":
        size = float(rng.uniform(40, 150) * rng.choice([-1, 1]))
        scene.late_ns = {camera: int(size * 1e6)}
        wanted = {("camera_late", camera)}
    elif kind == "boxes_late":
        size = float(rng.uniform(40, 120))
        scene.late_ns = {view.stream: int(size * 1e6) for view in scene.views}
        wanted = {("boxes_late", None)}
    else:
        wanted = {("annotator", None)}
    if kind == "annotator":
        scene.boxes2 = copy.deepcopy(kept2)
    else:
        scene.boxes2 = []
        scene.rng = np.random.default_rng([scene.seed, 8])
        scene.label_images()
    scene.late_ns, scene.turn_rad = {}, {}
    injector = Injector(scene, scene.seed, 0.01)
    if kind == "annotator":
        injector.annotator()
    injector.classes()
    injector.missing_and_phantom()
    injector.keyframes({"jump": (0.6, 2.0)})
    found = check_boxes(scene.scene, [layer_of(scene)])
    named = {(f.name, f.stream) for f in found if f.name in CAUSES and f.cause is None}
    folded = sum(f.cause is not None for f in found)
    told = [f.message for f in found if f.name in CAUSES and f.cause is None]
    return {"kind": kind, "size": size, "right": named == wanted, "hit": wanted <= named,
            "named": sorted(map(str, named)), "wanted": sorted(map(str, wanted)),
            "folded": folded, "shown": len(found) - folded, "told": told, "seed": scene.seed,
            "value": next((f.value for f in found if f.name in CAUSES), None)}  # fmt: skip


def detectable(sizes: list[tuple[float, bool]]) -> str:
    """Recall per magnitude and the smallest from which on it stays at 90 % or above."""
    by: dict[float, list[bool]] = defaultdict(list)
    for size, hit in sizes:
        by[round(size, 3)].append(hit)
    ordered = sorted(by)
    least = None
    for size in reversed(ordered):
        if np.mean(by[size]) < 0.9:
            break
        least = size
    shown = "  ".join(f"{s:g}: {np.mean(by[s]):.2f} ({len(by[s])})" for s in ordered)
    return f"{shown}   => {least if least is not None else 'none'}"


def report(results: list[dict[str, Any]]) -> dict[str, Any]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for r in results:
        for kind, counts in r["table"].items():
            table[kind].update(counts)
        for kind, values in r["sizes"].items():
            sizes[kind] += values
    print(f"{len(results)} scenes, {sum(r['boxes'] for r in results)} rectangles\n")
    print(f"{'kind':12} {'faults':>7} {'recall':>7} {'findings':>9} {'precision':>9} "
          f"{'false':>6} {'collateral':>10}")  # fmt: skip
    summary: dict[str, Any] = {}
    for kind in [*RULES_OF, *sorted(set(table) - set(RULES_OF))]:
        c = table.get(kind)
        if not c:
            continue
        recall = c["found"] / c["faults"] if c["faults"] else float("nan")
        told = c["right"] + c["false"]
        precision = c["right"] / told if told else float("nan")
        summary[kind] = {"recall": recall, "precision": precision, **c}
        print(f"{kind:12} {c['faults']:7} {recall:7.3f} {told:9} {precision:9.3f} "
              f"{c['false']:6} {c['collateral']:10}")  # fmt: skip
    clean = [len(c) for r in results for c in r["clean"]]
    if clean:
        print(f"\nclean scenes: {len(clean)}, findings per scene {np.mean(clean):.2f}, "
              f"scenes without any {np.mean([c == 0 for c in clean]):.2f}")  # fmt: skip
        summary["clean"] = float(np.mean(clean))
    roots = [x for r in results for x in r["roots"]]
    if roots:
        print(
            f"\nroot cause named, and no other: {np.mean([x['right'] for x in roots]):.3f} "
            f"of {len(roots)} scenes (named at all: {np.mean([x['hit'] for x in roots]):.3f})"
        )
        for kind in sorted({x["kind"] for x in roots}):
            mine = [x for x in roots if x["kind"] == kind]
            print(f"  {kind:12} {np.mean([x['right'] for x in mine]):.3f} of {len(mine)}, "
                  f"{np.mean([x['folded'] for x in mine]):.0f} findings folded, "
                  f"{np.mean([x['shown'] for x in mine]):.1f} shown")  # fmt: skip
        late = [abs(x["value"] - x["size"]) for x in roots
                if x["kind"] == "late" and x["right"] and x["value"] is not None]  # fmt: skip
        if late:
            print(f"  error of the delay: median {np.median(late):.1f} ms, "
                  f"p95 {np.percentile(late, 95):.1f} ms")  # fmt: skip
        summary["roots"] = float(np.mean([x["right"] for x in roots]))
    swept = {k: v for k, v in sizes.items() if len({round(s, 3) for s, _ in v}) < 60}
    for kind in ("location", "jump", "size"):
        fixed = [(s, h) for s, h in sizes.get(kind, []) if round(s, 3) == s]
        if fixed:
            print(f"\n{kind}: recall by magnitude and least at 90 %\n  {detectable(fixed)}")
    del swept
    return summary


def speed(boxes: int = 100_000) -> None:
    """Time to check so many 3D boxes in six cameras, without and with LiDAR points."""
    from label_speed import speed_scene

    for lidar in (False, True):
        scene, layers = speed_scene(boxes, lidar)
        started, cpu = time.perf_counter(), time.process_time()
        found = check_boxes(scene, layers)
        wall, used = time.perf_counter() - started, time.process_time() - cpu
        rows = sum(len(t.stamp_ns) for t in layers[0].tracks_3d)
        two = sum(len(t.stamp_ns) for t in layers[0].tracks_2d)
        print(f"{rows} 3D boxes x {len(scene.views)} cameras, {two} rectangles, "
              f"{'with' if lidar else 'without'} LiDAR: {wall:.1f} s wall, {used:.1f} s CPU, "
              f"{len(found)} findings")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=tuple(SPLITS), default="held")
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--skip", type=int, default=0, help="scenes to leave out at the start")
    parser.add_argument("--minutes", type=float, help="stop after the scene that is over then")
    parser.add_argument("--parts", default="clean,boxes,sweep,tracks,lidar,roots")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.speed:
        speed()
        return
    count = min(args.scenes or 10**6, len(SPLITS[args.split]["seeds"]))
    jobs = [(args.split, k, tuple(args.parts.split(","))) for k in range(args.skip, count)]
    results: list[dict[str, Any]] = []
    until = time.monotonic() + 60 * (args.minutes or 1e6)
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = jobs[::-1]
        running = [pool.submit(run_scene, waiting.pop()) for _ in range(min(args.jobs, len(jobs)))]
        while running:
            results.append(running.pop(0).result())
            if waiting and time.monotonic() < until:
                running.append(pool.submit(run_scene, waiting.pop()))
    jobs = jobs[: len(results)]
    summary = report(results)
    if args.verbose:
        for r, job in zip(results, jobs, strict=True):
            for line in r["wrong"]:
                print(job[1], line)
            for line in r["clean"]:
                print(job[1], "clean:", line)
            for root in r["roots"]:
                if not root["right"]:
                    print(job[1], "root:", root)
    if args.json:
        args.json.write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
