"""The truth of a pick-and-place run as JSON-like values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmdata.simulate.episode import SimStream
from mmdata.simulate.faults import exposures
from mmdata.simulate.world import World


def tell(
    world: World,
    start_ns: int,
    length_s: float,
    raw: Mapping[str, SimStream],
    heard: list[tuple[str, float, float]],
) -> dict[str, Any]:
    """What happened, when; heard: cause, arrival and loudness of every knock.

    ``phases`` follow contact and motion, ``script_phases`` the commands (docs/conventions.md).
    """
    script = world.script

    def ns(time_s: float) -> int:
        return start_ns + round(min(time_s, length_s) * 1e9)

    def intervals(pairs: list[tuple[float, float]]) -> list[dict[str, int]]:
        return [{"start_ns": ns(a), "end_ns": ns(b)} for a, b in pairs if a < length_s]

    def phases(found: list[Any]) -> list[dict[str, Any]]:
        found[-1].end_s = script.end_s
        return [
            {"label": p.label, "start_ns": ns(p.start_s), "end_ns": ns(p.end_s)}
            for p in found
            if p.start_s < length_s
        ]

    events = sorted((e for e in script.events if e.time_s < length_s), key=lambda e: e.time_s)
    lifted = [e.time_s for e in script.events if e.label == "lifted"]
    down = [e.time_s for e in script.events if e.label in ("placed", "landed")]
    t = np.arange(0.0, length_s, 0.02)
    position, orientation = world.object_pose(t)
    # A cycle that was cut off has neither succeeded nor failed.
    cycles = [
        {k: v for k, v in c.items() if k != "end_s"} | {"end_ns": ns(c["end_s"])}
        for c in script.cycles
        if c["end_s"] <= length_s
    ]
    outcome = {"success": all(c["success"] for c in cycles)} if cycles else {}
    return outcome | {
        "task": "pick up the red cube and place it elsewhere on the table",
        "generator": "mmdata.simulate.pick_place",
        "seed": world.seed,
        "cycles": cycles,
        "failures": list(script.failures),
        "t0_ns": start_ns,
        "end_ns": ns(length_s),
        "phases": phases(script.phases),
        "script_phases": phases(script.script_phases),
        "events": [{"label": e.label, "stamp_ns": ns(e.time_s)} | e.extra for e in events],
        "contact_intervals": intervals([(h.start_s, h.end_s) for h in script.object.holds]),
        "lifted_intervals": intervals(list(zip(lifted, down, strict=False))),
        "audio_click_ns": [ns(time) for _, time, _ in heard if time < length_s],
        "audio_clicks": [
            {"cause": cause, "stamp_ns": ns(time), "loudness": loudness}
            for cause, time, loudness in heard
            if time < length_s
        ],
        "object": {
            "name": "cube",
            "size_m": [script.object.size_m] * 3,
            "mass_kg": script.object.mass_kg,
            "stamp_ns": [ns(s) for s in t.tolist()],
            "position": position.tolist(),
            "orientation": orientation.tolist(),
        },
        "command_delay_ns": round(script.style.delay_s * 1e9),
        "gripper_delay_ns": round(script.style.gripper_delay_s * 1e9),
        "exposure_ns": exposures(raw),
        "faults": {},
    }
