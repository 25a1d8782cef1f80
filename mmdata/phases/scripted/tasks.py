"""Scripts of the task families of arms; everything about a take follows from its seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mmdata.phases.inputs import Floats
from mmdata.phases.scripted.bases import driving, locomotion
from mmdata.phases.scripted.play import Move, perform
from mmdata.phases.scripted.style import Take, random_style

Script = list[Move]


def _at(p: Floats, z: float = 0.0) -> tuple[float, float, float]:
    return (float(p[0]), float(p[1]), float(p[2] + z))


def _about(rng: np.random.Generator, seconds: float) -> float:
    return float(seconds * rng.uniform(0.7, 1.4))


def _places(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Where an object is, and where it shall be."""
    pick = np.array([rng.uniform(0.35, 0.6), rng.uniform(-0.3, 0.0), 0.02])
    return pick, np.array([rng.uniform(0.35, 0.6), rng.uniform(0.05, 0.3), 0.03])


def _fetch(rng: np.random.Generator, pick: Floats, over: Floats, lift: float) -> Script:
    """Approach, descend, grasp, lift, carry over a place."""
    return [
        Move("approach", _at(pick, rng.uniform(0.1, 0.25)), _about(rng, 1.4)),
        Move("descend", _at(pick), _about(rng, 1.1)),
        Move("grasp", _at(pick), _about(rng, 0.7), "close"),
        Move("lift", _at(pick, lift), _about(rng, 1.1), loaded=True),
        Move("transport", _at(over, lift), _about(rng, 1.7), loaded=True),
    ]


def _leave(rng: np.random.Generator, place: Floats) -> Script:
    return [
        Move("release", _at(place), _about(rng, 0.6), "open"),
        Move("retract", _at(place, rng.uniform(0.1, 0.25)), _about(rng, 1.1)),
    ]


def pick_place_script(rng: np.random.Generator, retry: bool = False) -> Script:
    """Approach, descend, grasp, lift, transport, lower, release, retract; `retry` misses first."""
    pick, place = _places(rng)
    fetch = _fetch(rng, pick, place, rng.uniform(0.1, 0.25))
    if retry:
        fetch[2:2] = [
            Move("grasp", _at(pick), _about(rng, 0.7), "close", empty=True),
            Move("release", _at(pick), _about(rng, 0.5), "open"),
            Move("retract", _at(pick, 0.08), _about(rng, 0.7)),
            Move("descend", _at(pick + np.array([0.02, 0.0, 0.0])), _about(rng, 0.8)),
        ]
    return [
        *fetch,
        Move("lower", _at(place), _about(rng, 1.1), loaded=True),
        *_leave(rng, place),
    ]


def insert_script(rng: np.random.Generator) -> Script:
    """A part is lowered to its seat and pressed in."""
    pick, place = _places(rng)
    deep = rng.uniform(0.01, 0.03)
    push = float(rng.uniform(6.0, 25.0))
    return [
        *_fetch(rng, pick, place, rng.uniform(0.1, 0.25)),
        Move("lower", _at(place, deep), _about(rng, 1.1), loaded=True),
        Move("insert", _at(place), _about(rng, 1.6), push=(0.0, 0.0, push)),
        *_leave(rng, place),
    ]


def pour_script(rng: np.random.Generator) -> Script:
    """A container is carried over another, tilted, brought back and set down."""
    pick, over = _places(rng)
    lift = rng.uniform(0.15, 0.25)
    angle = float(rng.uniform(1.0, 2.0) * rng.choice([-1.0, 1.0]))
    back = pick + np.array([0.0, rng.uniform(-0.05, 0.05), 0.0])
    return [
        *_fetch(rng, pick, over, lift),
        Move("pour", None, _about(rng, 1.5), tilt=angle, loaded=True),
        Move("pour", None, _about(rng, 1.0), loaded=True),
        Move("pour", None, _about(rng, 1.2), tilt=0.0, loaded=True),
        Move("transport", _at(back, lift), _about(rng, 1.5), loaded=True),
        Move("lower", _at(back), _about(rng, 1.1), loaded=True),
        *_leave(rng, back),
    ]


def wipe_script(rng: np.random.Generator) -> Script:
    """Strokes over a surface under steady force, with a tool that is held throughout."""
    start, _ = _places(rng)
    push = float(rng.uniform(3.0, 15.0))
    strokes = []
    for k in range(int(rng.integers(3, 8))):
        to = start + np.array([0.03 * k, rng.uniform(0.15, 0.35) * (k % 2 == 0), 0.0])
        strokes.append(
            Move("wipe", _at(to), _about(rng, 1.1), push=(0.0, 0.0, push), drag=0.3 * push)
        )
    return [
        Move("approach", _at(start, rng.uniform(0.1, 0.25)), _about(rng, 1.4)),
        Move("descend", _at(start), _about(rng, 1.1)),
        *strokes,
        Move("retract", _at(to, rng.uniform(0.1, 0.25)), _about(rng, 1.1)),
    ]


def open_close_script(rng: np.random.Generator) -> Script:
    """A handle is taken and moved along its way against resistance: drawer or door."""
    handle, _ = _places(rng)
    handle = handle + np.array([0.0, 0.0, rng.uniform(0.1, 0.3)])
    away = np.array([-rng.uniform(0.15, 0.35), rng.uniform(-0.05, 0.05), 0.0])
    front = handle + np.array([-rng.uniform(0.08, 0.2), 0.0, rng.uniform(-0.02, 0.05)])
    return [
        Move("approach", _at(front), _about(rng, 1.6)),
        Move("approach", _at(handle), _about(rng, 1.0)),
        Move("grasp", None, _about(rng, 0.7), "close"),
        Move("contact_motion", _at(handle + away), _about(rng, 2.0),
             drag=float(rng.uniform(8.0, 25.0))),
        Move("release", None, _about(rng, 0.6), "open"),
        Move("retract", _at(handle + 1.6 * away, 0.05), _about(rng, 1.1)),
    ]  # fmt: skip


def handover_script(rng: np.random.Generator) -> Script:
    """The left hand takes an object and gives it to the right, which sets it down."""
    pick, place = _places(rng)
    middle = np.array([0.5, 0.0, rng.uniform(0.2, 0.35)])
    near = middle + np.array([0.0, 0.06, 0.0])

    def right(to: Floats | None, seconds: float, grip: str | None = None) -> Move:
        return Move("", None if to is None else _at(to), seconds, grip, loaded=False)

    carry, reach = _about(rng, 1.8), _about(rng, 1.8)
    leave = _about(rng, 1.6)
    return [
        Move("approach", _at(pick, 0.15), _about(rng, 1.4)),
        Move("approach", _at(pick), _about(rng, 1.0)),
        Move("grasp", None, _about(rng, 0.7), "close"),
        Move("transport", _at(middle), carry, loaded=True, other=right(near, reach)),
        Move("hand_over", None, _about(rng, 0.8), loaded=True, other=right(None, 0.7, "close")),
        Move("transport", None, 0.4, "open", other=Move("", None, 0.4, loaded=True)),
        Move("transport", _at(pick, 0.2), leave, other=Move("", _at(place), leave, loaded=True)),
        Move("release", None, _about(rng, 0.6), other=right(None, 0.6, "open")),
        Move(
            "retract", None, _about(rng, 1.0), other=right(place + np.array([0.0, 0.1, 0.2]), 1.0)
        ),
    ]


def pick_place(seed: int, *, retry: bool = False, rate_hz: float | None = None) -> Take:
    """A pick-and-place take."""
    rng = np.random.default_rng(seed)
    style = random_style(rng, rate_hz)
    return perform(pick_place_script(rng, retry), style, rng)


def _one_arm(script: Callable[[np.random.Generator], Script]) -> Callable[..., Take]:
    def make(seed: int, *, rate_hz: float | None = None) -> Take:
        rng = np.random.default_rng(seed)
        style = random_style(rng, rate_hz)
        return perform(script(rng), style, rng)

    return make


def handover(seed: int, *, rate_hz: float | None = None) -> Take:
    """A take with two arms."""
    rng = np.random.default_rng(seed)
    style = random_style(rng, rate_hz)
    places = {"left": (0.3, -0.35, 0.3), "right": (0.35, 0.4, 0.3)}
    return perform(handover_script(rng), style, rng, places)


FAMILIES: Mapping[str, Callable[..., Take]] = {
    "pick_place": pick_place,
    "insert": _one_arm(insert_script),
    "pour": _one_arm(pour_script),
    "wipe": _one_arm(wipe_script),
    "open_close": _one_arm(open_close_script),
    "handover": handover,
    "locomotion": locomotion,
    "driving": driving,
}
"""Grammar -> maker of takes of its family: make(seed, rate_hz=None)."""


def take_of(family: str, seed: int, *, rate_hz: float | None = None) -> Take:
    """A take of a family by its grammar's name."""
    return FAMILIES[family](seed, rate_hz=rate_hz)
