"""Stories for the bench of view, timeline and caption checks: a robot handles things, three views
of it are annotated by different people, and faults of known kind and size are put in.

Boundaries are placed with a hand's error of its own in each view; captions are worded differently
in each. Nothing here uses the rules' own vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmdata_schema import Caption, Event, Layer, Phase, Provenance, SceneObject

T0 = 1_760_000_000_000_000_000
VIEWS = ("wrist", "overhead", "side")
Fault = dict[str, Any]

#: Phase -> mean duration in seconds; cycles of these make a story.
CYCLES: dict[str, tuple[tuple[str, float], ...]] = {
    "pick_place": (
        ("approach", 1.6), ("descend", 0.8), ("grasp", 0.7), ("lift", 0.9), ("transport", 1.8),
        ("lower", 0.9), ("release", 0.6), ("retract", 0.9),
    ),
    "push": (("approach", 1.4), ("contact_motion", 2.2), ("retract", 0.8)),
    "inspect": (("approach", 1.2), ("idle", 1.0), ("retract", 0.7)),
}  # fmt: skip
THINGS = ("cup", "bottle", "bowl", "plate", "cube", "box", "peg", "lid")
COLOURS = ("red", "green", "blue", "yellow", "black", "white")
#: Several people's words for one phase; {} is the thing.
SAYINGS: dict[str, tuple[str, ...]] = {
    "approach": ("The arm moves towards the {}.", "It reaches for the {}.", "Approaching the {}."),
    "descend": ("It comes closer to the {} from above.", "The arm approaches the {}."),
    "grasp": ("The gripper grasps the {}.", "It grips the {}.", "Grabbing the {}."),
    "lift": ("The robot lifts the {}.", "It raises the {}.", "It picks up the {}."),
    "transport": ("The robot carries the {} across.", "It moves the {} to the other side."),
    "lower": ("It lowers the {}.", "The {} is put on the table.", "It places the {}."),
    "release": ("The gripper releases the {}.", "It places the {} and lets go."),
    "retract": ("The arm withdraws from the {}.", "It retracts."),
    "contact_motion": ("It pushes the {} along.", "The {} slides over the table."),
    "idle": ("The robot waits beside the {}.", "Nothing moves near the {}."),
}
#: What nobody would say of a phase.
WRONG = {
    "approach": "pours from", "descend": "wipes", "grasp": "releases", "lift": "lowers",
    "transport": "grasps", "lower": "lifts", "release": "grasps", "retract": "grasps",
    "contact_motion": "lifts", "idle": "carries",
}  # fmt: skip
RELABELLED = {
    "approach": "idle", "descend": "contact_motion", "grasp": "release", "lift": "lower",
    "transport": "approach", "lower": "lift", "release": "grasp", "retract": "idle",
    "contact_motion": "transport", "idle": "approach",
}  # fmt: skip
EVENTS = {"grasp": "contact", "lift": "lifted", "lower": "placed", "release": "released"}


class Story:
    """One episode and what careful annotators wrote; ``faults`` says what was put in."""

    def __init__(self, seed: int, hand_s: float) -> None:
        self.rng = np.random.default_rng([seed, 41])
        self.hand_s = hand_s
        self.faults: list[Fault] = []
        self.objects: list[SceneObject] = []
        truth = self._happens()
        self.phases = {view: self._phases(view, truth) for view in VIEWS}
        self.events = {view: self._events(view, truth) for view in VIEWS}
        self.captions = {view: self._captions(view, truth) for view in VIEWS}

    def _happens(self) -> list[tuple[str, float, float, str]]:
        """(phase, start, end, object) in seconds."""
        rng, out, t = self.rng, [], 0.0
        pace = rng.uniform(0.7, 1.5)
        names = rng.permutation(THINGS)[: int(rng.integers(3, 6))]
        for k, name in enumerate(names):
            colour = str(rng.choice(COLOURS))
            self.objects.append(
                SceneObject(id=f"o{k}", object_id=f"{name}_{k}", label=str(name),
                            attributes={"colour": colour})
            )  # fmt: skip
            cycle = CYCLES[str(rng.choice(list(CYCLES), p=[0.7, 0.15, 0.15]))]
            for label, mean in cycle:
                end = t + max(0.45, pace * mean * rng.lognormal(0, 0.25))
                out.append((label, t, end, f"{name}_{k}"))
                t = end
        return out

    def _phases(self, view: str, truth: list[tuple[str, float, float, str]]) -> list[Phase]:
        # A boundary is one decision: the segment before ends where the next begins.
        edges = np.array([truth[0][1], *(end for _, _, end, _ in truth)])
        edges = edges + self.rng.normal(0, self.hand_s, len(edges))
        edges = np.maximum.accumulate(edges + 1e-3 * np.arange(len(edges)))
        return [
            Phase(id=f"{view}-p{k}", tier="motion", label=label, stream=view,
                  start_ns=_ns(edges[k]), end_ns=_ns(edges[k + 1]), object_ids=[thing])
            for k, (label, _, _, thing) in enumerate(truth)
        ]  # fmt: skip

    def _events(self, view: str, truth: list[tuple[str, float, float, str]]) -> list[Event]:
        return [
            Event(id=f"{view}-e{k}", label=EVENTS[label], stream=view, object_ids=[thing],
                  stamp_ns=_ns(start + self.rng.normal(0, self.hand_s)))
            for k, (label, start, _, thing) in enumerate(truth) if label in EVENTS
        ]  # fmt: skip

    def _captions(self, view: str, truth: list[tuple[str, float, float, str]]) -> list[Caption]:
        colours = {o.object_id: str(o.attributes["colour"]) for o in self.objects}
        out = []
        for k, (label, start, end, thing) in enumerate(truth):
            said = str(self.rng.choice(SAYINGS[label]))
            noun = thing.rpartition("_")[0]
            if self.rng.random() < 0.4:
                noun = f"{colours[thing]} {noun}"
            shift = self.rng.normal(0, self.hand_s)
            out.append(
                Caption(id=f"{view}-c{k}", text=said.format(noun), style="motion", stream=view,
                        start_ns=_ns(start + shift), end_ns=_ns(end + shift), object_ids=[thing])
            )  # fmt: skip
        return out

    def layers(self) -> list[Layer]:
        """A layer for each view, by its own author, and one for the things."""
        out = [
            Layer(episode_id="bench", name=view, provenance=Provenance(author=f"ann_{view}"),
                  phases=self.phases[view], events=self.events[view],
                  captions=self.captions[view])
            for view in VIEWS
        ]  # fmt: skip
        things = Layer(episode_id="bench", name="things", provenance=Provenance(author="ann"),
                       objects=self.objects)  # fmt: skip
        return [*out, things]

    # -- faults --------------------------------------------------------------------------------

    def _note(self, kind: str, view: str, ids: list[str], size: float | None = None) -> None:
        self.faults.append({"kind": kind, "view": view, "ids": ids, "size": size})

    def _spot(self, least_s: float = 0.0) -> tuple[str, int]:
        """A view and an inner phase away from the faults so far."""
        used = {i for f in self.faults for i in f["ids"]}
        for _ in range(200):
            view = str(self.rng.choice(VIEWS))
            phases = self.phases[view]
            k = int(self.rng.integers(2, len(phases) - 2))
            around = {f"{v}-p{j}" for v in VIEWS for j in (k - 2, k - 1, k, k + 1, k + 2)}
            seconds = (phases[k].end_ns - phases[k].start_ns) / 1e9
            if not around & used and seconds > least_s:
                return view, k
        raise LookupError("no place left for a fault")

    def boundary(self, size: float) -> None:
        """One boundary placed ``size`` seconds off."""
        view, k = self._spot(size + 0.3)
        phases = self.phases[view]
        at = phases[k].start_ns + round(size * 1e9)
        phases[k] = phases[k].edit(start_ns=at)
        phases[k - 1] = phases[k - 1].edit(end_ns=at)
        self._note("boundary", view, [phases[k].id, phases[k - 1].id], size)

    def missing(self) -> None:
        """A segment left out; the one before goes on over it."""
        view, k = self._spot()
        phases = self.phases[view]
        gone = phases.pop(k)
        phases[k - 1] = phases[k - 1].edit(end_ns=gone.end_ns)
        self._note("missing", view, [gone.id.replace(view, v) for v in VIEWS])

    def relabel(self) -> None:
        view, k = self._spot()
        phases = self.phases[view]
        phases[k] = phases[k].edit(label=RELABELLED[phases[k].label])
        self._note("relabel", view, [phases[k].id])

    def order(self) -> None:
        """Two neighbours of different labels exchanged."""
        view, k = self._spot()
        phases = self.phases[view]
        a, b = phases[k], phases[k + 1]
        phases[k], phases[k + 1] = a.edit(label=b.label), b.edit(label=a.label)
        self._note("order", view, [a.id, b.id])

    def thing(self) -> None:
        """A segment is said to be done with another object."""
        view, k = self._spot()
        phases = self.phases[view]
        others = [o.object_id for o in self.objects if o.object_id not in phases[k].object_ids]
        phases[k] = phases[k].edit(object_ids=[str(self.rng.choice(others))])
        self._note("thing", view, [phases[k].id])

    def event(self, size: float | None = None) -> None:
        """An event moved by ``size`` seconds, or left out."""
        view = str(self.rng.choice(VIEWS))
        events = self.events[view]
        k = int(self.rng.integers(1, len(events) - 1)) if len(events) > 2 else 0
        if not events or any(events[k].id in f["ids"] for f in self.faults):
            return
        if size is None:
            gone = events.pop(k)
            self._note("event_missing", view, [gone.id.replace(view, v) for v in VIEWS])
        else:
            events[k] = events[k].edit(stamp_ns=events[k].stamp_ns + round(size * 1e9))
            self._note("event", view, [events[k].id], size)

    def caption(self, what: str) -> None:
        """``verb``, ``noun``, ``colour`` or ``number`` of one caption contradicts the rest."""
        view = str(self.rng.choice(VIEWS))
        captions = self.captions[view]
        k = int(self.rng.integers(len(captions)))
        caption = captions[k]
        if any(caption.id in f["ids"] for f in self.faults):
            return
        thing = caption.object_ids[0]
        noun = thing.rpartition("_")[0]
        if what == "verb":
            text = f"It {WRONG[self._label_at(caption)]} the {noun}."
        elif what == "noun":
            mine = {o.label for o in self.objects}
            noun = str(self.rng.choice([n for n in THINGS if n not in mine]))
            text = SAYINGS[self._label_at(caption)][0].format(noun)
        elif what == "colour":
            true = next(o.attributes["colour"] for o in self.objects if o.object_id == thing)
            other = str(self.rng.choice([c for c in COLOURS if c != true]))
            text = SAYINGS[self._label_at(caption)][0].format(f"{other} {noun}")
        else:
            text = f"It is about two {noun}s."
        captions[k] = caption.edit(text=text)
        self._note(f"caption_{what}", view, [caption.id])

    def _label_at(self, caption: Caption) -> str:
        middle = (caption.start_ns + caption.end_ns) // 2
        view = next(v for v in VIEWS if v == caption.stream)
        near = [p for p in self.phases[view] if p.start_ns <= middle < p.end_ns]
        return near[0].label if near else "approach"

    def late(self, seconds: float) -> str:
        """Everything of one view is late; returns the view."""
        view = str(self.rng.choice(VIEWS))
        by = round(seconds * 1e9)
        self.phases[view] = [
            p.edit(start_ns=p.start_ns + by, end_ns=p.end_ns + by) for p in self.phases[view]
        ]
        self.events[view] = [e.edit(stamp_ns=e.stamp_ns + by) for e in self.events[view]]
        self.captions[view] = [
            c.edit(start_ns=c.start_ns + by, end_ns=c.end_ns + by) for c in self.captions[view]
        ]
        return view


def _ns(seconds: float) -> int:
    return T0 + round(float(seconds) * 1e9)
