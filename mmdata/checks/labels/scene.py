"""What labels are compared with: cameras, sweeps and how everything moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmdata.checks.labels.tables import Boxes3D, Floats, Ints, Mask
from mmdata.geometry import (
    SE3,
    CameraModel,
    Rig,
    interpolate_poses,
    quat_multiply,
    quat_rotate,
)
from mmdata.streams import Kind, Ragged, Stream

if TYPE_CHECKING:
    from mmdata.episode import Episode

#: Position (N, 3) and orientation (N, 4) at stamps (N,); NaN where unknown.
PoseAt = Callable[[Ints], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Motion:
    """One frame's pose in another over time."""

    parent: str
    child: str
    stamp_ns: Ints
    position: Floats
    orientation: Floats

    def at(self, stamp_ns: Ints) -> tuple[Floats, Floats]:
        return interpolate_poses(self.stamp_ns, self.position, self.orientation, stamp_ns)


@dataclass(frozen=True)
class Frames:
    """Coordinate frames: moving ones (transform streams) and mounts (the rig)."""

    motions: Mapping[str, Motion] = field(default_factory=dict)
    mounts: Mapping[str, tuple[str, SE3]] = field(default_factory=dict)

    @classmethod
    def of(cls, motions: Sequence[Motion], rig: Rig) -> Frames:
        mounts: dict[str, tuple[str, SE3]] = {}
        for sensor in rig.values():
            if sensor.parent is not None and sensor.parent_SE3_sensor is not None:
                mounts.setdefault(sensor.frame_id, (sensor.parent, sensor.parent_SE3_sensor))
        return cls({motion.child: motion for motion in motions}, mounts)

    def chain(self, frame: str) -> list[str]:
        """The frame and everything it hangs on."""
        out = [frame]
        while (parent := self._parent(out[-1])) is not None and parent not in out:
            out.append(parent)
        return out

    def _parent(self, frame: str) -> str | None:
        if frame in self.motions:
            return self.motions[frame].parent
        return self.mounts[frame][0] if frame in self.mounts else None

    def pose(self, frame: str, fixed: str, stamp_ns: Ints) -> tuple[Floats, Floats] | None:
        """``fixed_SE3_frame`` at stamps; None when ``frame`` does not hang on ``fixed``."""
        chain = self.chain(frame)
        if fixed not in chain:
            return None
        n = len(stamp_ns)
        position, orientation = np.zeros((n, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (n, 1))
        for name in chain[: chain.index(fixed)]:
            if name in self.motions:
                p, q = self.motions[name].at(stamp_ns)
            else:
                mount = self.mounts[name][1]
                p, q = mount.translation, mount.quaternion
            position = quat_rotate(q, position) + p
            orientation = quat_multiply(q, orientation)
        return position, orientation

    def moving(self, frame: str, fixed: str) -> bool:
        """Whether a transform stream lies between the two."""
        chain = self.chain(frame)
        return any(name in self.motions for name in chain[: chain.index(fixed)])


@dataclass(frozen=True)
class View:
    """A camera whose place is known. stamp_ns (F,): its exposures.

    late_ns and turn_rad (3,) are corrections found in the labels: the image of stamp t shows what
    happened at t - late_ns, and the camera is turned by turn_rad about its own axes.
    """

    stream: str
    camera: CameraModel
    stamp_ns: Ints
    pose_at: PoseAt
    late_ns: int = 0
    turn_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moved_m: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def corrected(
        self, late_ns: int, turn_rad: npt.ArrayLike, moved_m: npt.ArrayLike = (0.0, 0.0, 0.0)
    ) -> View:
        """The view under further corrections."""
        turn = np.add(self.turn_rad, turn_rad)
        moved = np.add(self.moved_m, moved_m)
        return replace(
            self,
            late_ns=self.late_ns + late_ns,
            turn_rad=(float(turn[0]), float(turn[1]), float(turn[2])),
            moved_m=(float(moved[0]), float(moved[1]), float(moved[2])),
        )


@dataclass(frozen=True)
class Sweep:
    """Points (P, 3) in the fixed frame, the instants they were seen (None: all at stamp_ns), and
    where the sensor was."""

    stamp_ns: int
    points: Floats
    point_ns: Ints | None
    origin: Floats


@dataclass(frozen=True)
class Sweeps:
    """The sweeps of one LiDAR. stamp_ns (S,): the instant a sweep stands for."""

    stream: str
    stamp_ns: Ints
    read: Callable[[int], Sweep | None]


@dataclass(frozen=True)
class LabelScene:
    """Everything the geometric rules need of an episode."""

    fixed_frame: str
    views: tuple[View, ...]
    frames: Frames = field(default_factory=Frames)
    sweeps: tuple[Sweeps, ...] = ()
    notes: tuple[str, ...] = ()

    def into_fixed(self, boxes: Boxes3D) -> tuple[Boxes3D, list[str]]:
        """Boxes moved into the fixed frame at their own stamps, and frames that lead nowhere.

        Boxes whose place is not known (no transform at their stamp) are left out.
        """
        center, quaternion = boxes.center.copy(), boxes.quaternion.copy()
        unknown: list[str] = []
        frames = np.array([named.frame_id or "" for named in boxes.named])[boxes.track]
        for frame in np.unique(frames):
            if frame == self.fixed_frame:
                continue
            rows = np.flatnonzero(frames == frame)
            pose = self.frames.pose(str(frame), self.fixed_frame, boxes.stamp_ns[rows])
            if pose is None:
                unknown.append(str(frame))
                center[rows] = np.nan
                continue
            center[rows] = quat_rotate(pose[1], center[rows]) + pose[0]
            quaternion[rows] = quat_multiply(pose[1], quaternion[rows])
        known = np.isfinite(np.concatenate([center, quaternion], axis=1))
        keep: Mask = np.asarray(known.all(axis=1))
        # A stretch that lost rows in the middle is still one stretch; one that lost its end ends.
        last = boxes.last.copy()
        for row in np.flatnonzero(~keep & boxes.last):
            before = row - 1
            while before >= 0 and not keep[before] and not boxes.last[before]:
                before -= 1
            if before >= 0:
                last[before] = True
        moved = Boxes3D(
            boxes.named, boxes.track[keep], boxes.stamp_ns[keep], center[keep],
            boxes.size[keep], quaternion[keep], last[keep],
        )  # fmt: skip
        return moved, unknown


def scene_of(episode: Episode, box_frames: Sequence[str], reference: str = "auto") -> LabelScene:
    """The scene of an episode; ``box_frames``: frames that 3D boxes are given in."""
    motions = list(_motions(episode))
    frames = Frames.of(motions, episode.rig)
    fixed = _fixed_frame(frames, episode, box_frames)
    notes: list[str] = []
    views = []
    for name, stream in episode.streams.items():
        if stream.kind is not Kind.IMAGE:
            continue
        sensor = episode.rig.get(stream.info.sensor or name) or episode.rig.get(name)
        if sensor is None or sensor.camera is None:
            notes.append(f"{name}: no intrinsics, so nothing is projected into it")
            continue
        pose_at = _pose_at(frames, sensor.frame_id, fixed)
        if pose_at is None:
            notes.append(f"{name}: no transform to {fixed}, so nothing is projected into it")
            continue
        views.append(View(name, sensor.camera, np.asarray(stream.stamp_ns, np.int64), pose_at))
    sweeps = []
    for name, stream in episode.streams.items():
        if stream.kind is Kind.SWEEP and {"x", "y", "z"} <= set(stream.fields):
            sensor = episode.rig.get(stream.info.sensor or name)
            frame = stream.info.frame_id or (sensor.frame_id if sensor else name)
            found = _sweeps(stream, frames, frame, fixed, reference)
            if found is None:
                notes.append(f"{name}: no transform to {fixed}, so boxes are not compared with it")
            else:
                sweeps.append(found)
    return LabelScene(fixed, tuple(views), frames, tuple(sweeps), tuple(notes))


def _motions(episode: Episode) -> list[Motion]:
    """Transform streams, and odometry for frames that no transform stream moves."""
    out: dict[str, Motion] = {}
    for place in ("translation", "position"):
        for stream in episode.streams.values():
            child = stream.info.attrs.get("child_frame_id")
            parent = stream.info.frame_id
            if not child or not parent or child in out or child == parent:
                continue
            if stream.kind is Kind.SIGNAL and {place, "orientation"} <= set(stream.fields):
                if len(stream) == 0:
                    continue
                q = np.asarray(stream["orientation"], np.float64)
                out[child] = Motion(
                    parent, child, np.asarray(stream.stamp_ns, np.int64),
                    np.asarray(stream[place], np.float64),
                    q / np.linalg.norm(q, axis=1, keepdims=True),
                )  # fmt: skip
    return list(out.values())


def _fixed_frame(frames: Frames, episode: Episode, box_frames: Sequence[str]) -> str:
    """The root that most of boxes and sensors hang on."""
    starts = [*box_frames, *(sensor.frame_id for sensor in episode.rig.values())]
    roots = [frames.chain(start)[-1] for start in starts]
    roots += [frames.chain(child)[-1] for child in frames.motions]
    return max(sorted(set(roots)), key=roots.count) if roots else "world"


def _pose_at(frames: Frames, frame: str, fixed: str) -> PoseAt | None:
    if fixed not in frames.chain(frame):
        return None

    def pose_at(stamp_ns: Ints) -> tuple[Floats, Floats]:
        pose = frames.pose(frame, fixed, stamp_ns)
        assert pose is not None
        return pose

    return pose_at


def _sweeps(
    stream: Stream, frames: Frames, frame: str, fixed: str, reference: str
) -> Sweeps | None:
    pose_at = _pose_at(frames, frame, fixed)
    if pose_at is None:
        return None
    start = np.asarray(stream.stamp_ns, np.int64)
    motion = frames.motions.get(frame)
    one_each = motion is not None and len(motion.stamp_ns) == len(start)
    if reference == "transform" or (reference == "auto" and one_each):
        assert motion is not None
        # Each sweep belongs to the transform that comes next after its start, one by one.
        stamps = motion.stamp_ns if one_each else _following(motion.stamp_ns, start)
        return Sweeps(stream.name, stamps, lambda i: _at_once(stream, i, int(stamps[i]), pose_at))
    timed = "point_offset_ns" in stream.fields
    period = int(np.median(np.diff(start))) if len(start) > 1 else 0
    middle = start + period // 2 if timed else start

    def read(i: int) -> Sweep | None:
        if not timed:
            return _at_once(stream, i, int(start[i]), pose_at)
        local = _points(stream, i)
        point_ns = start[i] + _column(stream, "point_offset_ns", i).astype(np.int64)
        # Poses on a grid of the sweep: points of one column share theirs.
        grid = np.unique(np.linspace(point_ns.min(), point_ns.max(), 65).astype(np.int64))
        position, orientation = pose_at(grid)
        known = np.isfinite(position).all(axis=1)
        if known.sum() < 2:
            return None
        grid, position, orientation = grid[known], position[known], orientation[known]
        p, q = interpolate_poses(grid, position, orientation, point_ns)
        good = np.isfinite(p).all(axis=1)
        points = quat_rotate(q[good], local[good]) + p[good]
        return Sweep(int(middle[i]), points, point_ns[good], np.median(position, axis=0))

    return Sweeps(stream.name, middle, read)


def _at_once(stream: Stream, i: int, stamp_ns: int, pose_at: PoseAt) -> Sweep | None:
    position, orientation = pose_at(np.array([stamp_ns], np.int64))
    if not np.isfinite(position).all():
        return None
    points = SE3.from_quaternion(orientation[0], position[0]).apply(_points(stream, i))
    return Sweep(stamp_ns, points, None, position[0])


def _following(stamps: Ints, start: Ints) -> Ints:
    return stamps[np.minimum(np.searchsorted(stamps, start), len(stamps) - 1)]


def _points(stream: Stream, i: int) -> Floats:
    columns = [_column(stream, name, i).astype(np.float64) for name in ("x", "y", "z")]
    return np.stack(columns, axis=1)


def _column(stream: Stream, name: str, i: int) -> npt.NDArray[Any]:
    values = stream.field(name, i, i + 1)
    return values.data if isinstance(values, Ragged) else np.asarray(values).reshape(-1)
