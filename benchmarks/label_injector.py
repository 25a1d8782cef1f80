"""Faults of known kind, place and size in the labels of a simulated scene."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from label_scenes import PERIOD, SimScene

from mmdata.geometry import quat_multiply

CONFUSED = {
    "car": "truck",
    "truck": "bus",
    "bus": "truck",
    "pedestrian": "bicycle",
    "bicycle": "motorcycle",
    "motorcycle": "bicycle",
    "traffic_cone": "pedestrian",
}
Fault = dict[str, Any]


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
        gone = self.some(self.plain(0.7))
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

    def twice(self) -> None:
        """Rectangles drawn a second time, without an identity or under the same."""
        for k in self.some(self.plain(0.7, 20.0)):
            box = self.scene.boxes2[k]
            side = (box["xyxy"][2:] - box["xyxy"][:2]).min()
            jitter = self.rng.normal(0, min(self.scene.noise_px, 0.05 * side), 4)
            name = box["object_id"] if self.rng.random() < 0.5 else None
            again = box | {"xyxy": box["xyxy"] + jitter, "object_id": name}
            self.scene.boxes2.append(again)
            self.note("twice", box, partner=name)

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

    def _double(self, boxes: list[Any], magnitude: float | None) -> bool:
        """The same thing once more, under another identity and a hand's breadth off."""
        off = magnitude or 0.08 * float(boxes[0]["size"][0])
        angle = self.rng.uniform(-np.pi, np.pi)
        for box in list(boxes):
            again = dict(box)
            again["object_id"] = f"{box['object_id']}_twice"
            again["center"] = box["center"] + off * np.array([np.cos(angle), np.sin(angle), 0])
            self.scene.boxes3.append(again)
        self.note("double", {**boxes[0], "object_id": f"{boxes[0]['object_id']}_twice"}, off,
                  track=True, partner=boxes[0]["object_id"])  # fmt: skip
        return True

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
