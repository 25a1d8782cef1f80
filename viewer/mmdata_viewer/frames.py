"""Transforms between coordinate frames at an instant: the rig's mounts and the pose streams."""

from __future__ import annotations

import numpy as np

from mmdata import SE3, Episode, Kind, Stream
from mmdata.geometry import interpolate_poses


class FrameGraph:
    """Static mounts of the rig, joined with streams that say where one frame is in another.

    A pose stream is a signal with `position` or `translation` (3) and `orientation` (qw, qx, qy,
    qz) whose `frame_id` is the parent and whose attribute `child_frame_id` is the moving frame.
    """

    def __init__(self, episode: Episode) -> None:
        self._frame_of = {name: sensor.frame_id for name, sensor in episode.rig.items()}
        self._static: dict[tuple[str, str], SE3] = {}
        for sensor in episode.rig.values():
            if sensor.parent is not None and sensor.parent_SE3_sensor is not None:
                parent = self._frame_of.get(sensor.parent, sensor.parent)
                self._static.setdefault((parent, sensor.frame_id), sensor.parent_SE3_sensor)
        self._moving: dict[tuple[str, str], Stream] = {}
        for name in episode.streams:
            stream = episode.streams[name]
            edge = moving_edge(stream)
            if edge is not None and edge not in self._static:
                self._moving.setdefault(edge, stream)

    def transform(self, a: str, b: str, stamp_ns: int) -> SE3 | None:
        """`a_SE3_b` at an instant; None when no known path joins them then."""
        a, b = self._frame_of.get(a, a), self._frame_of.get(b, b)
        reached = {b: SE3.identity()}
        queue = [b]
        while queue:
            frame = queue.pop(0)
            if frame == a:
                return reached[frame]
            for to, step in self._steps(frame, stamp_ns):
                if to not in reached:
                    reached[to] = step @ reached[frame]
                    queue.append(to)
        return None

    def root(self, frame: str) -> str:
        """The frame furthest up from a sensor or frame: where things stand still."""
        at = self._frame_of.get(frame, frame)
        seen = {at}
        while True:
            edges = [*self._static, *self._moving]
            up = next((parent for parent, child in edges if child == at), None)
            if up is None or up in seen:
                return at
            at = up
            seen.add(at)

    def _steps(self, frame: str, stamp_ns: int) -> list[tuple[str, SE3]]:
        steps = []
        for (parent, child), pose in self._static.items():
            if child == frame:
                steps.append((parent, pose))
            elif parent == frame:
                steps.append((child, pose.inverse()))
        for (parent, child), stream in self._moving.items():
            if frame in (parent, child):
                at = _pose_at(stream, stamp_ns)
                if at is not None:
                    steps.append((parent, at) if child == frame else (child, at.inverse()))
        return steps


def moving_edge(stream: Stream) -> tuple[str, str] | None:
    """(parent, child) frames of a pose stream, None for any other."""
    info = stream.info
    child = info.attrs.get("child_frame_id")
    if info.kind is not Kind.SIGNAL or not info.frame_id or not isinstance(child, str) or not child:
        return None
    place = position_field(stream)
    turned = info.fields.get("orientation")
    if place is None or turned is None or turned.shape != (4,):
        return None
    return info.frame_id, child


def position_field(stream: Stream) -> str | None:
    """Name of the field that holds a position (3) in metres, None where there is none."""
    for name in ("position", "translation"):
        field = stream.info.fields.get(name)
        if field is not None and field.shape == (3,) and field.channels is None:
            return name
    return None


def _pose_at(stream: Stream, stamp_ns: int) -> SE3 | None:
    stamps = stream.stamp_ns
    if len(stamps) == 0:
        return None
    # Outside its samples the nearest end is held: a camera may fire a moment before the first.
    at = int(np.clip(stamp_ns, int(stamps[0]), int(stamps[-1])))
    first = max(0, int(np.searchsorted(stamps, at, side="right")) - 1)
    last = min(len(stamps), first + 2)
    position, orientation = interpolate_poses(
        stamps[first:last],
        np.asarray(stream.field(position_field(stream) or "position", first, last), np.float64),
        np.asarray(stream.field("orientation", first, last), np.float64),
        [at],
    )
    if not (np.isfinite(position).all() and np.isfinite(orientation).all()):
        return None
    return SE3.from_quaternion(orientation[0], position[0])
