"""State and action tables of an episode: streams that say where the robot is or shall be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.quality.movement import Floats
from mmdata.streams import Kind, Ragged

ORDER = re.compile(r"command|cmd|target|desired|action|goal|setpoint")
STATE = re.compile(r"joint|state|qpos|pose|eef|gripper|jaw|finger|odom")


@dataclass(frozen=True, slots=True)
class Table:
    """Values (N, C) of one field over stamps (N,); name is `stream.field`."""

    name: str
    stamp_ns: NDArray[np.int64]
    values: Floats
    is_action: bool
    is_position: bool
    channels: tuple[str, ...] = ()

    def on_grid(
        self, rate_hz: float, start_ns: int | None = None, end_ns: int | None = None
    ) -> Floats:
        """(M, C) interpolated on an even grid; samples that are not finite are left out."""
        start = int(self.stamp_ns[0]) if start_ns is None else start_ns
        end = int(self.stamp_ns[-1]) if end_ns is None else end_ns
        t = (self.stamp_ns - start) * 1e-9
        keep = np.isfinite(self.values).all(axis=1) & np.r_[True, np.diff(t) > 0]
        at = np.arange(0.0, max((end - start) * 1e-9, 1.0 / rate_hz), 1.0 / rate_hz)
        if keep.sum() < 2:
            return np.zeros((len(at), self.values.shape[1]))
        return np.column_stack([np.interp(at, t[keep], c) for c in self.values[keep].T])

    def partner(self, states: Sequence[Table]) -> Table | None:
        """The state an action speaks of: same field and width, names sharing most words."""
        mine = _words(self.name)
        fits = [s for s in states if s.values.shape[1] == self.values.shape[1]]
        if self.is_position:
            fits = [s for s in fits if s.is_position]
        best = max(fits, key=lambda s: len(mine & _words(s.name)), default=None)
        if best is None:
            return None
        alike = bool(mine & _words(best.name)) or (len(fits) == 1 and "action" in self.name)
        return best if alike else None


def _words(name: str) -> set[str]:
    parts = set(re.split(r"[^a-z]+", name.lower()))
    return {p for p in parts if p and not ORDER.search(p)} - {"position", "data", "observation"}


def _tables(ep: Any) -> list[Table]:
    found = []
    for name, stream in ep.streams.items():
        if stream.kind is not Kind.SIGNAL or len(stream) < 8:
            continue
        field = next(
            (f for f in ("position", "data", "state", "action", "qpos") if f in stream.fields), None
        )
        if field is None or stream.info.fields[field].ragged:
            continue
        is_action = bool(ORDER.search(name.lower()))
        if not is_action and not STATE.search(name.lower()):
            continue
        values = stream.field(field)
        if isinstance(values, Ragged) or values.dtype.kind not in "fiu":
            continue
        flat = np.asarray(values, np.float64).reshape(len(values), -1)
        if flat.shape[1] == 0:
            continue
        is_position = flat.shape[1] == 3 and "orientation" in stream.fields
        channels = stream.info.fields[field].channels or ()
        label = f"{name}.{field}"
        found.append(Table(label, stream.stamp_ns, flat, is_action, is_position, tuple(channels)))
    return found


def states(ep: Any) -> list[Table]:
    """Tables of where the robot is."""
    return [t for t in _tables(ep) if not t.is_action]


def actions(ep: Any) -> list[Table]:
    """Tables of where it shall be."""
    return [t for t in _tables(ep) if t.is_action]
