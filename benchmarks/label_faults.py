"""Bench of the label checks: faults of known kind and size in simulated multi-camera scenes.

    python benchmarks/label_faults.py                  # held-out seeds, rigs and noise
    python benchmarks/label_faults.py --split tune     # what thresholds were looked at with
    python benchmarks/label_faults.py --speed          # 100,000 boxes x 6 cameras

Every kind of fault is put into 1-2 % of the boxes it can befall. A finding is right when its rule is
the fault's and it names the object at the time (and in the camera). Findings folded under a camera
or a keyframe are not counted: the report shows only their cause.
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
from label_scenes import PERIOD, T0, SimScene

from mmdata.checks.labels.findings import LabelFinding
from mmdata.checks.labels.pipeline import check_boxes
from mmdata.geometry import quat_multiply
from mmdata_schema import Box2D, Layer, Provenance, Track3D

#: Kind of fault -> rules that may report it.
RULES_OF = {
    "missing": {"missing_2d"},
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
}
CAUSES = {"camera_extrinsics", "camera_late", "boxes_late", "annotator", "layer_height"}
CONFUSED = {"car": "truck", "truck": "bus", "bus": "truck", "pedestrian": "bicycle",
            "bicycle": "motorcycle", "motorcycle": "bicycle", "traffic_cone": "pedestrian"}  # fmt: skip
SPLITS = {
    "tune": {"seeds": range(100, 112), "rigs": ("tune_a", "tune_b"), "noise": (1.5, 2.0, 2.5)},
    "held": {"seeds": range(9000, 9030), "rigs": ("held_a", "held_b"), "noise": (1.0, 2.2, 3.0)},
}
Fault = dict[str, Any]


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


class Injector:
    """Puts faults into a scene's labels; ``faults`` says what and where."""

    def __init__(self, scene: SimScene, seed: int, rate: float = 0.015) -> None:
        self.scene, self.rng, self.rate = scene, np.random.default_rng([seed, 5]), rate
        self.faults: list[Fault] = []
        self.touched: set[int] = set()

    def some(self, rows: list[int], share: float | None = None) -> list[int]:
        rows = [r for r in rows if r not in self.touched]
        n = max(1, round((share or self.rate) * len(self.scene.boxes2))) if rows else 0
        chosen = self.rng.choice(rows, min(n, len(rows)), replace=False).tolist() if n else []
        self.touched.update(chosen)
        return chosen

    def note(self, kind: str, box: Any, size: float | None = None, **more: Any) -> None:
        self.faults.append(
            {"kind": kind, "object_id": box["object_id"], "stream": box.get("stream"),
             "stamp_ns": box["stamp_ns"], "frame": box["frame"], "size": size, **more}
        )  # fmt: skip

    def plain(self, visible: float = 0.6, side: float = 12.0) -> list[int]:
        """Rectangles in plain sight, large enough to be judged, of objects with 3D boxes then."""
        both = {(b["object_id"], b["frame"]) for b in self.scene.boxes3}
        return [
            k for k, b in enumerate(self.scene.boxes2)
            if {(b["object_id"], b["frame"]), (b["object_id"], b["frame"] + 1)} <= both
            and b["visible"] >= visible and (b["xyxy"][2:] - b["xyxy"][:2]).min() >= side
        ]  # fmt: skip

    def classes(self) -> None:
        for k in self.some(self.plain(0.3)):
            box = self.scene.boxes2[k]
            box["label"] = CONFUSED[box["label"]]
            self.note("class", box)

    def locations(self, sizes: tuple[float, ...] | None = None) -> None:
        for n, k in enumerate(self.some(self.plain(0.7, 32.0))):
            box = self.scene.boxes2[k]
            size = sizes[n % len(sizes)] if sizes else self.rng.uniform(0.2, 0.5)
            axis = int(self.rng.integers(2)) if n % 4 == 0 else 0
            side = box["xyxy"][2 + axis] - box["xyxy"][axis]
            view = next(v for v in self.scene.views if v.stream == box["stream"])
            end = (view.camera.width, view.camera.height)[axis]
            room = (box["xyxy"][axis] - size * side > 0, box["xyxy"][2 + axis] + size * side < end)
            if not any(room):
                continue
            sign = self.rng.choice([s for s, ok in zip((-1, 1), room, strict=True) if ok])
            shift = np.zeros(4)
            shift[[axis, 2 + axis]] = sign * size * side
            box["xyxy"] = box["xyxy"] + shift
            self.note("location", box, size)

    def swaps(self) -> None:
        frames: dict[tuple[str, int], list[int]] = defaultdict(list)
        for k in self.plain(0.5):
            frames[(self.scene.boxes2[k]["stream"], self.scene.boxes2[k]["frame"])].append(k)
        pairs = [v for v in frames.values() if len(v) > 1]
        self.rng.shuffle(pairs)
        for rows in pairs[: max(1, round(self.rate * len(self.scene.boxes2) / 2))]:
            i, j = self.rng.choice(rows, 2, replace=False).tolist()
            a, b = self.scene.boxes2[i], self.scene.boxes2[j]
            if {i, j} & self.touched or _iou(a["xyxy"], b["xyxy"]) > 0.4:
                continue
            self.touched |= {i, j}
            self.note("swap", a, partner=b["object_id"])
            a["object_id"], b["object_id"] = b["object_id"], a["object_id"]

    def missing_and_phantom(self) -> None:
        gone = self.some(self.plain(0.6))
        for k in gone:
            self.note("missing", self.scene.boxes2[k])
        taken = {id(self.scene.boxes2[k]) for k in gone}
        like = self.some(self.plain(0.3))
        self.touched.clear()  # indices are about to move
        fresh = []
        for k in like:
            model = self.scene.boxes2[k]
            view = next(v for v in self.scene.views if v.stream == model["stream"])
            side = model["xyxy"][2:] - model["xyxy"][:2]
            for _ in range(20):
                at = self.rng.uniform([0, view.camera.height * 0.3],
                                      [view.camera.width, view.camera.height * 0.8])  # fmt: skip
                xyxy = np.concatenate([at, at + side])
                others = [
                    b["xyxy"]
                    for b in self.scene.boxes2
                    if b["stream"] == model["stream"] and b["frame"] == model["frame"]
                ]
                free = all(_iou(xyxy, o) < 0.1 for o in others) and not self._near_truth(
                    xyxy, model["stream"], model["frame"]
                )
                inside = xyxy[2] < view.camera.width and xyxy[3] < view.camera.height
                if free and inside:
                    name = f"ghost_{len(fresh)}" if self.rng.random() < 0.7 else None
                    fresh.append(model | {"xyxy": xyxy, "object_id": name})
                    self.note("phantom", fresh[-1])
                    break
        self.scene.boxes2 = [b for b in self.scene.boxes2 if id(b) not in taken] + fresh

    def _near_truth(self, xyxy: Any, stream: str, frame: int) -> bool:
        """Whether an object that nobody labelled in this image happens to be there."""
        return any(_iou(xyxy, r) > 0.1 for r in self.scene.projected(stream, frame))

    def keyframes(self, kinds: dict[str, tuple[float, float] | tuple[float, ...]],
                  sweep: bool = False) -> None:  # fmt: skip
        """Jumps (metres) and sizes (share) in single keyframes of rigid things."""
        by_object: dict[str, list[int]] = defaultdict(list)
        for k, box in enumerate(self.scene.boxes3):
            by_object[box["object_id"]].append(k)
        # Away from other faults: a box is compared with the keyframes around it.
        used = {(f["object_id"], f["frame"] + d) for f in self.faults for d in (-1, 0, 1, 2)}
        count = max(1, round(self.rate * len(self.scene.boxes3)))
        for kind, sizes in kinds.items():
            done = tries = 0
            while done < count and tries < 50 * count:
                tries += 1
                rows = by_object[str(self.rng.choice(list(by_object)))]
                k = int(self.rng.choice(rows))
                box = self.scene.boxes3[k]
                around = {(box["object_id"], box["frame"] + d) for d in (-2, -1, 0, 1, 2)}
                if len(rows) < 6 or around & used or (
                    kind == "size" and box["label"] in ("pedestrian",)
                ):  # fmt: skip
                    continue
                used.add((box["object_id"], box["frame"]))
                size = float(sizes[done % len(sizes)]) if sweep else self.rng.uniform(*sizes)
                if kind == "jump":
                    angle = self.rng.uniform(-np.pi, np.pi)
                    box["center"] = box["center"] + size * np.array([np.cos(angle),
                                                                     np.sin(angle), 0])  # fmt: skip
                else:
                    scale = np.ones(3)
                    sign = self.rng.choice([-1, 1])
                    scale[int(self.rng.integers(3))] = 1 + sign * size
                    box["size"] = box["size"] * scale
                self.note(kind, box, size)
                done += 1

    def whole_tracks(self, kinds: tuple[str, ...], magnitude: float | None = None) -> None:
        """One object each: heading, gap, renamed, reuse, empty, cut_off, undersized, ground."""
        by_object: dict[str, list[Any]] = defaultdict(list)
        for box in self.scene.boxes3:
            by_object[box["object_id"]].append(box)
        free = [o for o, v in by_object.items() if len(v) >= 20]
        self.rng.shuffle(free)
        for kind in kinds:
            for object_id in free:
                boxes = by_object[object_id]
                if getattr(self, f"_{kind}")(boxes, magnitude):
                    free.remove(object_id)
                    break

    def _heading(self, boxes: list[Any], magnitude: float | None) -> bool:
        thing = next(t for t in self.scene.things if t.object_id == boxes[0]["object_id"])
        if thing.speed < 3.5 or thing.label in ("pedestrian", "traffic_cone"):
            return False
        degrees = magnitude or float(self.rng.choice([60, 90, 180]))
        half = np.radians(degrees) / 2
        for box in boxes:
            box["q"] = quat_multiply(box["q"], [np.cos(half), 0, 0, np.sin(half)])
        self.note("heading", boxes[0], degrees, track=True)
        return True

    def _gap(self, boxes: list[Any], magnitude: float | None) -> bool:
        start = int(self.rng.integers(5, len(boxes) - 12))
        hole = boxes[start : start + int(magnitude or 5)]
        ids = {id(b) for b in hole}
        stamps = {b["stamp_ns"] for b in hole}
        seen = [b for b in self.scene.boxes2 if b["object_id"] == boxes[0]["object_id"]
                and b["visible"] > 0.7 and min(stamps) < b["stamp_ns"] < max(stamps)]  # fmt: skip
        if len(seen) < 3:
            return False
        self.scene.boxes3 = [b for b in self.scene.boxes3 if id(b) not in ids]
        self.note("gap", boxes[0], len(hole), track=True)
        return True

    def _renamed(self, boxes: list[Any], magnitude: float | None) -> bool:
        cut = len(boxes) // 2
        for box in boxes[cut:]:
            box["object_id"] += "_b"
        late = boxes[cut]["stamp_ns"]
        for box in self.scene.boxes2:
            if box["object_id"] == boxes[0]["object_id"] and box["stamp_ns"] >= late:
                box["object_id"] += "_b"
        self.note("renamed", boxes[0], track=True)
        return True

    def _reuse(self, boxes: list[Any], magnitude: float | None) -> bool:
        """Another object's second half takes this one's identity."""
        others = [t.object_id for t in self.scene.things if t.label == boxes[0]["label"]
                  and t.object_id != boxes[0]["object_id"]]  # fmt: skip
        half = boxes[len(boxes) // 2]["stamp_ns"]
        for other in others:
            mine = [b for b in self.scene.boxes3 if b["object_id"] == other]
            late = [b for b in mine if b["stamp_ns"] >= half]
            if len(late) < 8:
                continue
            gone = {id(b) for b in boxes if b["stamp_ns"] >= half - 3 * PERIOD}
            self.scene.boxes3 = [b for b in self.scene.boxes3 if id(b) not in gone]
            for box in late:
                box["object_id"], box["track"] = boxes[0]["object_id"], "again"
            self.note("reuse", boxes[0], track=True)
            return True
        return False

    def _empty(self, boxes: list[Any], magnitude: float | None) -> bool:
        """A new track where nothing is."""
        like = [dict(b) for b in boxes]
        for _ in range(40):
            angle, away = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(4, 12)
            ego = self.scene.ego(self.scene.sweep_ns)[0]
            middle = ego[len(ego) // 2] + away * np.array([np.cos(angle), np.sin(angle), 0])
            middle[2] = like[0]["size"][2] / 2
            clear = (
                all(
                    np.linalg.norm(t.pose(self.scene.times)[0] - middle, axis=1).min()
                    > 1 + (t.size[0] + like[0]["size"][0]) / 2
                    for t in self.scene.things
                )
                and np.linalg.norm(ego - middle, axis=1).min() > 3 + like[0]["size"][0] / 2
            )
            if clear and all(np.linalg.norm(w[0] - middle) > 12 for w in self.scene.walls):
                for box in like:
                    box["center"], box["object_id"] = middle.copy(), "nothing"
                    box["q"] = boxes[0]["q"]
                self.scene.boxes3 += like
                self.note("empty", like[0], track=True)
                return True
        return False

    def _near(self, boxes: list[Any]) -> bool:
        ego = self.scene.ego(np.array([b["stamp_ns"] for b in boxes]))[0]
        away = np.linalg.norm(np.array([b["center"] for b in boxes]) - ego, axis=1)
        return bool((away < 25).sum() >= 10) and boxes[0]["label"] in ("car", "truck", "bus")

    def _cut_off(self, boxes: list[Any], magnitude: float | None) -> bool:
        if not self._near(boxes):
            return False
        by = magnitude or self.rng.uniform(0.4, 0.8)
        # Towards the sensor's far side: the near faces, which points lie on, stick out.
        ego = self.scene.ego(np.array([boxes[len(boxes) // 2]["stamp_ns"]]))[0][0]
        away = boxes[len(boxes) // 2]["center"] - ego
        away[2] = 0
        for box in boxes:
            box["center"] = box["center"] + by * away / np.linalg.norm(away)
        self.note("cut_off", boxes[0], by, track=True)
        return True

    def _undersized(self, boxes: list[Any], magnitude: float | None) -> bool:
        if not self._near(boxes):
            return False
        by = magnitude or self.rng.uniform(0.3, 0.5)
        for box in boxes:
            box["size"] = box["size"] * [1 - by, 1 - by, 1]
        self.note("undersized", boxes[0], by, track=True)
        return True

    def _ground(self, boxes: list[Any], magnitude: float | None) -> bool:
        if not self._near(boxes):
            return False
        by = (magnitude or self.rng.uniform(0.4, 0.8)) * self.rng.choice([-1, 1])
        for box in boxes:
            box["center"] = box["center"] + [0, 0, by]
        self.note("ground", boxes[0], abs(by), track=True)
        return True

    def annotator(self) -> None:
        """One of two annotators draws a third of the objects, with a habit."""
        ids = sorted({b["object_id"] for b in self.scene.boxes3})
        mine = set(self.rng.choice(ids, max(4, len(ids) // 3), replace=False).tolist())
        habit = str(self.rng.choice(["shift", "class", "wide"]))
        for box in self.scene.boxes2:
            if box["object_id"] not in mine:
                continue
            box["author"] = "bob"
            if self.rng.random() < 0.5:
                continue
            w = box["xyxy"][2] - box["xyxy"][0]
            if habit == "shift":
                box["xyxy"] = box["xyxy"] + 0.35 * w * np.array([1, 0, 1, 0])
            elif habit == "wide":
                box["xyxy"] = box["xyxy"] + 0.25 * w * np.array([-1, 0, 1, 0])
            else:
                box["label"] = CONFUSED[box["label"]]
        for box in self.scene.boxes3:
            if box["object_id"] in mine:
                box["author"] = "bob"


def _iou(a: Any, b: Any) -> float:
    side = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = float(np.prod(np.maximum(side, 0)))
    return inter / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - inter + 1e-9)


def matches(finding: LabelFinding, fault: Fault) -> bool:
    """Whether a finding names a fault."""
    if finding.name not in RULES_OF[fault["kind"]]:
        return False
    same = finding.object_id == fault["object_id"] or (
        fault["kind"] == "swap" and finding.object_id == fault["partner"]
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
        injector.whole_tracks(("heading", "gap", "renamed", "reuse"))
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
    from label_scenes import speed_scene

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
    assert T0 > 0
    main()
