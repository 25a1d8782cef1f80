"""Captions against phases, objects and each other, by words: what is done, to what, how many, with
which hand. Words that the taxonomies do not know are left alone: a rule that guesses is noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from mmdata.checks import Detail
from mmdata.checks.labels.findings import LabelFinding, make
from mmdata.checks.labels.rules import RULES
from mmdata.checks.labels.tables import Classes, author_of
from mmdata_schema import (
    Caption,
    Layer,
    Phase,
    SceneObject,
    Track2D,
    Track3D,
    load_taxonomy,
)

_NUMBERS = {w: n for n, w in enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
)}  # fmt: skip
_COLOURS = {"red", "green", "blue", "yellow", "black", "white", "grey", "gray", "orange", "purple",
            "brown", "pink"}  # fmt: skip
_NEGATIONS = {"not", "never", "without", "no", "fails", "failed", "unable", "cannot", "nothing",
              "nobody", "none"}  # fmt: skip
#: Verbs of captions -> labels of phases they may stand for, beyond the taxonomy's own aliases.
_VERBS = {
    "reach": {"approach"}, "approach": {"approach", "descend"}, "move": {"approach", "transport"},
    "grasp": {"grasp", "pick_up"}, "grab": {"grasp", "pick_up"}, "grip": {"grasp"},
    "pick": {"pick_up", "grasp", "lift"}, "take": {"pick_up", "grasp", "lift", "remove"},
    "lift": {"lift", "pick_up"}, "raise": {"lift"}, "carry": {"transport"},
    "transport": {"transport"}, "transfer": {"transport"}, "lower": {"lower"},
    "place": {"place", "put", "release", "lower", "stack"},
    "put": {"put", "place", "release", "lower"}, "drop": {"release", "put"},
    "release": {"release"}, "retract": {"retract"}, "withdraw": {"retract"},
    "push": {"push", "contact_motion"}, "slide": {"push", "contact_motion"},
    "pull": {"pull", "contact_motion"}, "turn": {"turn", "turn_left", "turn_right"},
    "rotate": {"turn"}, "open": {"open"}, "close": {"close", "grasp"}, "pour": {"pour"},
    "insert": {"insert", "contact_motion"}, "wipe": {"wipe", "contact_motion"},
    "stack": {"stack", "place"}, "press": {"press", "contact_motion"},
    "wait": {"idle"}, "stop": {"idle", "stand", "brake_to_stop"}, "brake": {"brake_to_stop"},
    "overtake": {"overtake"}, "park": {"park"}, "reverse": {"reverse"}, "merge": {"merge"},
}  # fmt: skip


#: What acts or stands around, and is rarely what a caption is about.
_ACTORS = {"gripper", "robot", "human_hand", "table"}


@dataclass(frozen=True)
class Said:
    """What a text says, as far as words tell; empty sets where it says nothing.

    actions: verbs. negated: verbs that are said not to happen. objects: classes, with the number
    and colour said of them (None where not). hands: ``left``, ``right``.
    """

    actions: frozenset[str]
    negated: frozenset[str]
    objects: Mapping[str, tuple[int | None, str | None]]
    hands: frozenset[str]


def read_text(text: str, classes: Classes) -> Said:
    """Actions, objects, numbers, colours and hands of a sentence in English."""
    words = re.findall(r"[a-z]+|\d+", text.lower())
    nouns = _nouns(classes)
    actions: set[str] = set()
    negated: set[str] = set()
    hands: set[str] = set()
    objects: dict[str, tuple[int | None, str | None]] = {}
    for k, word in enumerate(words):
        stem = _verb(word)
        if stem is not None and not (k and words[k - 1] in ("the", "a", "an")):
            (negated if _NEGATIONS & set(words[max(0, k - 3) : k]) else actions).add(stem)
        if word in ("left", "right") and k + 1 < len(words) and words[k + 1] in (
            "arm", "hand", "gripper"
        ):  # fmt: skip
            hands.add(word)
        name = nouns.get(word) or nouns.get(_singular(word))
        if name is not None and stem is None:
            before = words[max(0, k - 3) : k]
            number = next((_number(w) for w in reversed(before) if _number(w) is not None), None)
            if number is None and {"a", "an"} & set(before[-2:]):
                number = 1
            colour = next((w for w in reversed(before) if w in _COLOURS), None)
            objects[name] = (number, colour)
    return Said(frozenset(actions), frozenset(negated), objects, frozenset(hands))


@cache
def _verb(word: str) -> str | None:
    """Base form of a verb that is known."""
    forms = [
        word,
        word.removesuffix("s"),
        word.removesuffix("es"),
        word.removesuffix("ed"),
        word.removesuffix("d"),
        word.removesuffix("ing"),
        word.removesuffix("ing") + "e",
    ]
    if len(word) > 5 and word.endswith("ing") and word[-4] == word[-5]:
        forms.append(word[:-4])
    if len(word) > 4 and word.endswith("ed") and word[-3] == word[-4]:
        forms.append(word[:-3])
    irregular = {"took": "take", "taken": "take", "picks": "pick", "carries": "carry",
                 "carried": "carry", "held": "hold", "put": "put"}  # fmt: skip
    forms.insert(0, irregular.get(word, word))
    return next((form for form in forms if form in _VERBS), None)


def _singular(word: str) -> str:
    return word.removesuffix("es") if word.endswith(("xes", "shes")) else word.removesuffix("s")


def _number(word: str) -> int | None:
    return int(word) if word.isdigit() else _NUMBERS.get(word)


def _nouns(classes: Classes) -> dict[str, str]:
    """Single words of class names and aliases -> class. ``other`` is no thing to speak of."""
    out: dict[str, str] = {}
    for term in classes.taxonomy.object_classes:
        if term.label == "other":
            continue
        for alias in (term.label, *term.aliases):
            if re.fullmatch(r"[A-Za-z]+", alias):
                out.setdefault(alias.lower(), term.label)
    return out


def check_captions(layers: Sequence[Layer], classes: Classes | None = None) -> list[LabelFinding]:
    """Captions against phases and objects of all layers, and against captions of other views."""
    classes = classes or Classes()
    taxonomy = load_taxonomy("phases")
    tiers = [tier.name for tier in taxonomy.tiers]

    def canonical(phase: Phase) -> str:
        tier = taxonomy.tier(phase.tier)
        for term in tier.labels if tier else ():
            if phase.label == term.label or phase.label in term.aliases:
                return term.label
        return phase.label

    phases = [p for layer in layers for p in layer.phases if p.tier in tiers]
    labels = _labels_of(layers, classes)
    colours = _colours_of(layers)
    out: list[LabelFinding] = []
    captions: list[tuple[Caption, Layer, Said]] = []
    for layer in layers:
        for caption in layer.captions:
            if caption.style in ("caption", "subtask", "motion", "instruction"):
                captions.append((caption, layer, read_text(caption.text, classes)))
    for caption, layer, said in captions:
        place = {
            "stream": caption.stream, "stamp_ns": caption.start_ns, "layer": layer.name,
            "author": author_of(caption.provenance, layer.provenance),
            "annotation_ids": (caption.id,),
            "details": (_place(caption, layer),),
        }  # fmt: skip
        if caption.style != "instruction":
            inside = [p for p in phases if _overlaps(caption, p)]
            out += _against_phases(caption, said, inside, canonical, place)
        out += _against_objects(caption, said, labels, colours, place)
    out += _between(captions)
    return out


def _against_phases(
    caption: Caption,
    said: Said,
    inside: Sequence[Phase],
    canonical: Callable[[Phase], str],
    place: Mapping[str, Any],
) -> list[LabelFinding]:
    out: list[LabelFinding] = []
    there = {canonical(phase) for phase in inside}
    if not there:
        return out
    known = set().union(*_VERBS.values())
    for verb in sorted(said.actions):
        if there & known and not _VERBS[verb] & there:
            text = f'"{caption.text}" says {verb}; the phases then are {", ".join(sorted(there))}'
            out.append(make(RULES["caption_action"], text, **place))
    for verb in sorted(said.negated - said.actions):
        done = [p for p in inside if canonical(p) in _VERBS[verb] and p.success is not False]
        if done:
            text = f'"{caption.text}" denies {verb}; phase {done[0].label} says it was done'
            out.append(make(RULES["caption_action"], text, **place))
    actors = {p.actor for p in inside if p.actor}
    for hand in sorted(said.hands):
        if actors and not any(hand in actor for actor in actors):
            text = f'"{caption.text}" says {hand}; what moves is {", ".join(sorted(actors))}'
            out.append(make(RULES["caption_object"], text, **place))
    return out


def _against_objects(
    caption: Caption,
    said: Said,
    labels: Mapping[str, str],
    colours: Mapping[str, str],
    place: Mapping[str, Any],
) -> list[LabelFinding]:
    out: list[LabelFinding] = []
    named = {labels[o] for o in caption.object_ids if o in labels}
    for name, (number, colour) in said.objects.items():
        if named and name not in named and name not in _ACTORS:
            text = f'"{caption.text}" says {name}; it is linked to {", ".join(sorted(named))}'
            out.append(make(RULES["caption_object"], text, **place))
            continue
        mine = [o for o in caption.object_ids if labels.get(o) == name]
        if number is not None and mine and len(mine) != number:
            text = f'"{caption.text}" says {number} {name}; it is linked to {len(mine)}'
            out.append(make(RULES["caption_object"], text, value=number, **place))
        seen = {colours[o] for o in mine if o in colours}
        if colour is not None and seen and colour not in seen:
            text = f'"{caption.text}" says {colour}; the {name} is {", ".join(sorted(seen))}'
            out.append(make(RULES["caption_object"], text, **place))
    return out


def _between(captions: Sequence[tuple[Caption, Layer, Said]]) -> list[LabelFinding]:
    """Captions of two views over the same time."""
    out = []
    for (a, layer, x), (b, other, y) in combinations(captions, 2):
        if a.stream is None or b.stream is None or a.stream == b.stream or a.style != b.style:
            continue
        if not _same_time(a, b):
            continue
        differs = []
        meant = [set().union(*(_VERBS[v] for v in s.actions)) for s in (x, y)]
        if x.actions and y.actions and not meant[0] & meant[1]:
            differs.append(f"{'/'.join(sorted(x.actions))} against {'/'.join(sorted(y.actions))}")
        one, two = set(x.objects) - _ACTORS, set(y.objects) - _ACTORS
        if one and two and not one & two:
            differs.append(f"{'/'.join(sorted(one))} against {'/'.join(sorted(two))}")
        if x.hands and y.hands and x.hands != y.hands:
            differs.append(f"{'/'.join(sorted(x.hands))} against {'/'.join(sorted(y.hands))} hand")
        for name in set(x.objects) & set(y.objects):
            for p, q in zip(x.objects[name], y.objects[name], strict=True):
                if p is not None and q is not None and p != q:
                    differs.append(f"{p} against {q} {name}")
        if differs:
            out.append(
                make(RULES["description"], f"{a.stream} and {b.stream}: {'; '.join(differs)}",
                     stream=f"{a.stream}/{b.stream}", stamp_ns=a.start_ns, layer=layer.name,
                     annotation_ids=(a.id, b.id), details=(_place(a, layer), _place(b, other)))
            )  # fmt: skip
    return out


def _place(caption: Caption, layer: Layer) -> Detail:
    return Detail(caption.stream, caption.start_ns, caption.end_ns, layer=layer.name,
                  annotation_ids=(caption.id,))  # fmt: skip


def _overlaps(caption: Caption, phase: Phase) -> bool:
    """Whether at least half of the shorter of the two lies in the other."""
    if caption.start_ns is None or caption.end_ns is None:
        return True
    if caption.stream is not None and phase.stream not in (None, caption.stream):
        return False
    inter = min(caption.end_ns, phase.end_ns) - max(caption.start_ns, phase.start_ns)
    shorter = min(caption.end_ns - caption.start_ns, phase.end_ns - phase.start_ns)
    return 2 * inter >= shorter


def _same_time(a: Caption, b: Caption) -> bool:
    if a.start_ns is None or b.start_ns is None or a.end_ns is None or b.end_ns is None:
        return a.start_ns == b.start_ns
    inter = min(a.end_ns, b.end_ns) - max(a.start_ns, b.start_ns)
    return 2 * inter >= max(a.end_ns, b.end_ns) - min(a.start_ns, b.start_ns)


def _labels_of(layers: Sequence[Layer], classes: Classes) -> dict[str, str]:
    """Class of every object that any annotation gives one."""
    out: dict[str, str] = {}
    for layer in layers:
        for group in (layer.boxes_2d, layer.boxes_3d, layer.tracks_2d, layer.tracks_3d,
                      layer.objects):  # fmt: skip
            for item in group:
                if item.object_id is not None and item.label is not None:
                    out[item.object_id] = classes.name(item.label)
    return out


def _colours_of(layers: Sequence[Layer]) -> dict[str, str]:
    out: dict[str, str] = {}
    for layer in layers:
        named: list[SceneObject | Track3D | Track2D] = [
            *layer.objects, *layer.tracks_3d, *layer.tracks_2d
        ]  # fmt: skip
        for item in named:
            colour = item.attributes.get("colour", item.attributes.get("color"))
            if isinstance(colour, str):
                out[item.object_id] = colour.lower()
    return out
