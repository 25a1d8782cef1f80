"""Fast scenes for the bench of label checks: arrays only, nothing is rendered.

A vehicle drives past parked and moving objects; several cameras with different lenses and a LiDAR
see them. The visibility that decides whether an annotator draws a rectangle comes from rays against
the true boxes and against walls nobody labels, not from the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mmdata.checks.labels.scene import Frames, LabelScene, Sweep, Sweeps, View
from mmdata.geometry import (
    SE3,
    CameraModel,
    LensModel,
    box_corners,
    interpolate_poses,
    project_box_bounds,
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    quat_to_matrix,
)

_NORMAL = np.array([[x, y, z] for x, y, z in [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0),
                                              (0, 0, 1), (0, 0, -1)]], float)  # fmt: skip
_LINE = (np.arange(6) - 2.5) / 6
_SPREAD = [(a, b) for a in _LINE for b in _LINE]
_FACE = np.repeat(np.arange(6), len(_SPREAD))
_POINTS = np.array(
    [np.roll([0.5 * n.sum(), a, b], int(np.abs(n).argmax())) for n in _NORMAL for a, b in _SPREAD]
)
T0 = 1_760_000_000_000_000_000
PERIOD = 100_000_000
AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
SIZES = {
    "car": (4.5, 1.85, 1.55), "truck": (8.0, 2.5, 3.2), "bus": (11.0, 2.6, 3.1),
    "pedestrian": (0.6, 0.6, 1.72), "bicycle": (1.8, 0.6, 1.3), "motorcycle": (2.1, 0.8, 1.4),
    "traffic_cone": (0.4, 0.4, 0.8),
}  # fmt: skip
# (heading in degrees, lens, focal length, coefficients, width, height) per camera.
RIGS: dict[str, list[tuple[Any, ...]]] = {
    "tune_a": [
        (0, "pinhole", 1250, (), 1920, 1080),
        (58, "brown_conrady", 1000, (-0.15, 0.03, 3e-4, -2e-4, -0.002), 1600, 900),
        (-58, "brown_conrady", 1000, (-0.12, 0.02, -3e-4, 2e-4, 0.001), 1600, 900),
        (115, "brown_conrady", 820, (-0.2, 0.05, 0, 0, -0.005), 1600, 900),
        (-115, "pinhole", 820, (), 1600, 900),
        (180, "fisheye", 520, (0.02, -0.006, 0.001, -0.0002), 1600, 900),
    ],
    "tune_b": [
        (0, "pinhole", 1900, (), 1920, 1080),
        (45, "pinhole", 930, (), 1920, 1080),
        (-45, "pinhole", 930, (), 1920, 1080),
        (135, "pinhole", 930, (), 1920, 1080),
        (-135, "pinhole", 930, (), 1920, 1080),
        (180, "pinhole", 930, (), 1920, 1080),
    ],
    "held_a": [
        (0, "brown_conrady", 760, (-0.28, 0.09, 5e-4, 3e-4, -0.012), 1280, 960),
        (70, "fisheye", 420, (-0.012, 0.004, -0.001, 0.0001), 1280, 960),
        (-70, "fisheye", 420, (-0.010, 0.003, -0.001, 0.0001), 1280, 960),
        (180, "brown_conrady", 700, (0.2, -0.05, 3e-4, 4e-4, 0.004, 0.35, 0.01, 0.002), 1280, 960),
        (20, "pinhole", 2400, (), 1920, 1200),
        (-110, "pinhole", 640, (), 1280, 720),
    ],
    "held_b": [
        (5, "pinhole", 1100, (), 1440, 928),
        (-60, "brown_conrady", 900, (-0.1, 0.01, 0, 0, 0), 1440, 928),
        (60, "fisheye", 600, (0.03, -0.01, 0.002, -0.0003), 1440, 928),
        (175, "pinhole", 1100, (), 1440, 928),
        (100, "pinhole", 700, (), 1440, 928),
        (-120, "brown_conrady", 850, (-0.22, 0.06, 2e-4, -4e-4, -0.008), 1440, 928),
    ],
}  # fmt: skip


def random_rig(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Six cameras around the vehicle, as in RIGS: any lens, any opening from 35 to 140 degrees."""
    out: list[tuple[Any, ...]] = []
    for degrees in (0, 60, -60, 120, -120, 180):
        width, height = ((1280, 720), (1600, 900), (1920, 1080), (1920, 1200), (1280, 960))[
            int(rng.integers(5))
        ]
        lens = str(rng.choice(["pinhole", "brown_conrady", "fisheye"], p=[0.4, 0.4, 0.2]))
        half = np.radians(rng.uniform(35, 140 if lens == "fisheye" else 95)) / 2
        coefficients: tuple[float, ...] = ()
        focal = width / 2 / np.tan(half)
        corner = (1 + (height / width) ** 2) * np.tan(half) ** 2
        if lens == "brown_conrady":  # monotone out to the corner
            bend = rng.uniform(-0.2, 0.1) / corner
            coefficients = (bend, 0.1 * bend**2, *rng.normal(0, 3e-4, 2))
        elif lens == "fisheye":
            focal = width / 2 / half
            coefficients = (*rng.uniform(-0.02, 0.02, 1), *rng.uniform(-0.003, 0.003, 1), 0.0, 0.0)
        heading = degrees + rng.uniform(-15, 15)
        out.append((heading, lens, focal, tuple(map(float, coefficients)), width, height))
    return out


@dataclass
class Thing:
    """One object: path (start, velocity, yaw rate), true size and class."""

    object_id: str
    label: str
    size: np.ndarray[Any, Any]
    start: np.ndarray[Any, Any]
    speed: float
    yaw: float
    yaw_rate: float
    inset: np.ndarray[Any, Any]
    acceleration: float = 0.0

    @property
    def _stops_s(self) -> float:
        return -self.speed / self.acceleration if self.acceleration < 0 else float("inf")

    def pose(self, t: Any) -> tuple[Any, Any]:
        """Centre and orientation at seconds t (N,)."""
        t = np.asarray(t, float)
        # Who brakes comes to a stop; nobody backs up. Before the start the speed is what it was.
        moving = np.clip(t, None, self._stops_s)
        gained = 0.5 * self.acceleration * np.maximum(moving, 0.0) ** 2
        travelled = self.speed * moving + gained if self.speed > 0 else 0 * t
        if abs(self.yaw_rate) > 1e-6 and self.speed > 0:
            r = self.speed / self.yaw_rate
            yaw = self.yaw + travelled / r
            x = self.start[0] + r * (np.sin(yaw) - np.sin(self.yaw))
            y = self.start[1] - r * (np.cos(yaw) - np.cos(self.yaw))
        else:
            yaw = np.full_like(t, self.yaw)
            x = self.start[0] + travelled * np.cos(self.yaw)
            y = self.start[1] + travelled * np.sin(self.yaw)
        z = np.full_like(t, self.size[2] / 2)
        q = np.stack([np.cos(yaw / 2), 0 * t, 0 * t, np.sin(yaw / 2)], -1)
        return np.stack([x, y, z], -1), q


@dataclass
class SimScene:
    """A scene and what a careful annotator wrote about it; ``boxes3``/``boxes2`` may be edited."""

    seed: int
    rig: str
    noise_px: float = 2.0
    frames: int = 40
    objects: int = 25
    lidar: bool = True
    late_ns: dict[str, int] = field(default_factory=dict)
    turn_rad: dict[str, Any] = field(default_factory=dict)
    boxes3: list[dict[str, Any]] = field(default_factory=list)
    boxes2: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 77])
        self._sweeps: dict[int, Sweep] = {}
        self._drive()
        self._populate()
        self._views()
        self._label3()
        self.label_images()

    def _drive(self) -> None:
        rng = self.rng
        self.sweep_ns = T0 + PERIOD * np.arange(self.frames)
        fine = T0 - 10 * PERIOD + 20_000_000 * np.arange((self.frames + 20) * 5)
        t = (fine - T0) / 1e9
        speed = rng.uniform(4, 14) + rng.uniform(-1.5, 1.5) * np.sin(0.8 * t)
        rate = rng.uniform(-0.12, 0.12) + 0.06 * np.sin(1.1 * t + rng.uniform(0, 6))
        yaw = np.cumsum(rate) * 0.02
        x, y = np.cumsum(speed * np.cos(yaw)) * 0.02, np.cumsum(speed * np.sin(yaw)) * 0.02
        at0 = int(np.argmin(np.abs(t)))
        self.ego_ns = fine
        self.ego_p = np.stack([x - x[at0], y - y[at0], 0 * x], 1)
        self.ego_q = np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], 1)
        self.ego_yaw0 = yaw[at0]

    def ego(self, stamps: Any) -> tuple[Any, Any]:
        return interpolate_poses(self.ego_ns, self.ego_p, self.ego_q, stamps)

    def _populate(self) -> None:
        rng = self.rng
        self.things: list[Thing] = []
        length = float(np.linalg.norm(self.ego_p[-1] - self.ego_p[0]))
        path = self.ego_p
        mid = 0.1 * self.frames / 2
        names = list(SIZES)
        weights = np.array([0.5, 0.08, 0.04, 0.2, 0.06, 0.06, 0.06])
        tries = 0
        while len(self.things) < self.objects and tries < 2000:
            tries += 1
            label = names[int(rng.choice(len(names), p=weights))]
            size = np.array(SIZES[label]) * rng.uniform(0.9, 1.12, 3)
            at = path[int(rng.integers(len(path)))]
            heading = rng.choice([self.ego_yaw0, self.ego_yaw0 + np.pi])
            side = rng.choice([-1, 1]) * rng.uniform(3.2, 18)
            along = rng.uniform(-20, 35 + 0.2 * length)
            forward = np.array([np.cos(self.ego_yaw0), np.sin(self.ego_yaw0)])
            where = at[:2] + along * forward + side * np.array([-forward[1], forward[0]])
            moving = rng.random() < 0.5 and label != "traffic_cone"
            top = {"pedestrian": 1.8, "bicycle": 5.0}.get(label, 12.0)
            speed = rng.uniform(0.4 * top, top) if moving else 0.0
            yaw = heading + rng.normal(0, 0.06)
            if label == "pedestrian":
                yaw = rng.uniform(-np.pi, np.pi)
            rate = rng.normal(0, 0.05) if moving else 0.0
            inset = rng.uniform(0, 0.035, 4)
            start = where - mid * speed * np.array([np.cos(yaw), np.sin(yaw)])
            thing = Thing(
                f"{label}_{len(self.things):02d}", label, size, start, speed, yaw, rate, inset,
                rng.uniform(-0.6, 0.6) if moving else 0.0,
            )  # fmt: skip
            if self._free(thing):
                self.things.append(thing)
        # Far walls, and one near the road that hides what is behind it. None meets an object.
        self.walls: list[tuple[Any, Any, Any]] = []
        yaw = self.ego_yaw0
        q = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        for near in (False, False, False, True):
            at = path[int(rng.integers(len(path)))]
            away = rng.uniform(5.5, 8) if near else rng.uniform(21, 26)
            side = rng.choice([-1, 1]) * away
            where = at[:2] + side * np.array([-np.sin(yaw), np.cos(yaw)])
            size = np.array([5.0, 0.3, 2.4] if near else [rng.uniform(6, 14), 1.0, 4.0])
            clear = all(
                np.linalg.norm(th.pose(self.times)[0][:, :2] - where, axis=1).min()
                > 0.5 + 0.5 * (size[0] + np.hypot(*th.size[:2]))
                for th in self.things
            )
            if clear:
                self.walls.append((np.array([*where, size[2] / 2]), size, q))

    @property
    def times(self) -> Any:
        return (self.sweep_ns - T0) / 1e9

    def _free(self, thing: Thing) -> bool:
        t = np.linspace(-0.3, 0.1 * self.frames + 0.3, 24)
        mine = thing.pose(t)[0][:, :2]
        ego = self.ego(T0 + (t * 1e9).astype(np.int64))[0][:, :2]
        if np.linalg.norm(mine - ego, axis=1).min() < 2.2 + thing.size[0] / 2:
            return False
        for other in self.things:
            gap = np.linalg.norm(mine - other.pose(t)[0][:, :2], axis=1).min()
            if gap < 0.4 + 0.5 * (np.hypot(*thing.size[:2]) + np.hypot(*other.size[:2])):
                return False
        return True

    def _views(self) -> None:
        rng = self.rng
        rig = random_rig(rng) if self.rig == "random" else RIGS[self.rig]
        views = []
        for k, (degrees, lens, focal, coefficients, width, height) in enumerate(rig):
            name = f"camera_{k}"
            heading = np.radians(degrees)
            q = quat_multiply(
                quat_from_rotvec([0, 0, heading]), quat_from_rotvec(rng.normal(0, 0.02, 3))
            )
            K = np.array([[focal, 0, width / 2 + rng.normal(0, 5)],
                          [0, focal, height / 2 + rng.normal(0, 5)], [0, 0, 1.0]])  # fmt: skip
            model = CameraModel(LensModel(lens), K, np.array(coefficients), width, height)
            at = np.array([1.2 + 0.5 * np.cos(heading), 0.5 * np.sin(heading), 1.6])
            mount = SE3(quat_to_matrix(q) @ AXES, at + rng.normal(0, 0.02, 3))
            stamps = T0 + int(rng.integers(5, 95)) * 1_000_000 + PERIOD * np.arange(self.frames - 1)
            stamps = stamps + rng.integers(-300_000, 300_000, len(stamps))
            views.append(View(name, model, stamps, self._mounted(mount)))
        self.views = tuple(views)

    def _mounted(self, mount: SE3) -> Any:
        def pose_at(stamps: Any) -> tuple[Any, Any]:
            p, q = self.ego(stamps)
            return p + quat_rotate(q, mount.translation), quat_multiply(q, mount.quaternion)

        return pose_at

    def _label3(self) -> None:
        rng = self.rng
        ego = self.ego(self.sweep_ns)[0]
        for thing in self.things:
            center, q = thing.pose(self.times)
            # The hand's error along a track: a constant, a slow and a fast part.
            drift = rng.normal(0, 0.04, 3) * [1, 1, 0.5]
            fast = rng.normal(0, 0.015, center.shape) * [1, 1, 0.5]
            turn = rng.normal(0, 0.01) + rng.normal(0, 0.004, len(q))
            near = np.linalg.norm(center - ego, axis=1) < 65
            if near.sum() < 3:
                continue
            first, last = np.flatnonzero(near)[[0, -1]]
            size = thing.size + rng.uniform(0.02, 0.08, 3)
            up = (size[2] - thing.size[2]) / 2
            for i in range(first, last + 1):
                turned = quat_multiply(q[i], [np.cos(turn[i] / 2), 0, 0, np.sin(turn[i] / 2)])
                self.boxes3.append(
                    {"object_id": thing.object_id, "label": thing.label, "frame": i,
                     "stamp_ns": int(self.sweep_ns[i]),
                     "center": center[i] + drift + fast[i] + [0, 0, up],
                     "size": size + rng.normal(0, 0.005, 3), "q": turned, "author": "ann"}
                )  # fmt: skip

    def label_images(self) -> None:
        """Draw the rectangles of all images, as ``late_ns`` and ``turn_rad`` have it.

        From which share on an object is drawn, of what the image's border leaves of it, is a matter
        of taste, but of one taste for one object in one camera: it does not change from image to
        image. The same goes for how much the border must leave.
        """
        rng = self.rng
        self.taste = {
            (view.stream, k): (rng.uniform(0.15, 0.4), rng.uniform(0.05, 0.2))
            for view in self.views
            for k in range(len(self.things))
        }
        self.keyed = {(b["object_id"], b["frame"]) for b in self.boxes3}
        for view in self.views:
            late = self.late_ns.get(view.stream, 0)
            turn = self.turn_rad.get(view.stream)
            shown = view.stamp_ns - late
            p, q = view.pose_at(shown)
            if turn is not None:
                q = quat_multiply(q, quat_from_rotvec(np.asarray(turn)))
            poses = [thing.pose((shown - T0) / 1e9) for thing in self.things]
            center = np.stack([c for c, _ in poses], axis=1)
            turned = np.stack([o for _, o in poses], axis=1)
            for i in range(len(shown)):
                self._label_image(view, i, center[i], turned[i], p[i], q[i], rng)

    def _label_image(
        self, view: View, i: int, center: Any, turned: Any, p: Any, q: Any, rng: Any
    ) -> None:
        size = np.array([thing.size for thing in self.things])
        inverse = quat_conjugate(q)
        local = quat_rotate(inverse, center - p)
        corners = box_corners(local, size, quat_multiply(inverse, turned))
        bounds, seen = project_box_bounds(view.camera, corners, samples=17)
        limit = np.array([view.camera.width, view.camera.height] * 2) - 0.5
        cut = np.clip(np.where(seen[:, None], bounds, -9.0), -0.5, limit)
        side = (cut[:, 2:] - cut[:, :2]).min(axis=1)
        # Both kinds of labels were asked for within one range: there is a 3D box around this time.
        known = [{(th.object_id, i), (th.object_id, i + 1)} <= self.keyed for th in self.things]
        rows = np.flatnonzero((side > 6) & np.array(known))
        if len(rows) == 0:
            return
        shares = self._visible(view, rows, center, size, turned, p, q)
        for k, visible, inside in zip(rows.tolist(), *(x.tolist() for x in shares), strict=True):
            open_, left = self.taste[(view.stream, k)]
            if inside < left or visible < (open_ + rng.normal(0, 0.02)) * inside:
                continue
            whole, inset = bounds[k], self.things[k].inset
            w, h = whole[2] - whole[0], whole[3] - whole[1]
            # A steadier hand for small things: nobody is three pixels off on eight.
            noise = min(self.noise_px, 0.12 * min(w, h))
            drawn = whole + inset * [w, h, -w, -h] + rng.normal(0, noise, 4)
            drawn = np.clip(drawn, -0.5, limit)
            if (drawn[2:] - drawn[:2]).min() < 3:
                continue
            self.boxes2.append(
                {"stream": view.stream, "stamp_ns": int(view.stamp_ns[i]), "frame": i,
                 "object_id": self.things[k].object_id, "label": self.things[k].label,
                 "xyxy": drawn, "visible": visible, "truth": bounds[k], "author": "ann"}
            )  # fmt: skip

    def _visible(
        self, view: View, rows: Any, center: Any, size: Any, turned: Any, p: Any, q: Any
    ) -> tuple[Any, Any]:
        """Share of points on the near faces of things ``rows`` in the image and not hidden, and
        share in the image."""
        away = quat_rotate(quat_conjugate(turned[rows]), p - center[rows])
        facing = (_NORMAL @ away.T).T > (np.abs(_NORMAL) @ (size[rows] / 2).T).T
        points = facing[:, _FACE]  # (R, P): which points count
        local = _POINTS[None] * size[rows][:, None]
        world = center[rows][:, None] + quat_rotate(turned[rows][:, None], local)
        uv, valid = view.camera.project(quat_rotate(quat_conjugate(q), world - p))
        open_ = valid & view.camera.contains(uv)
        at = np.concatenate([center, np.array([w[0] for w in self.walls]).reshape(-1, 3)])
        extent = np.concatenate([size, np.array([w[1] for w in self.walls]).reshape(-1, 3)])
        turn = np.concatenate([turned, np.array([w[2] for w in self.walls]).reshape(-1, 4)])
        total = np.maximum(points.sum(axis=1), 1)
        inside = (open_ & points).sum(axis=1) / total
        which, point = np.nonzero(open_ & points)
        ray = (world[which, point] - p)[:, None]
        hit = _entry(p, ray, at, extent, turn) < 0.995  # (rays, J)
        hit[np.arange(len(which)), rows[which]] = False
        open_[which, point] = ~hit.any(axis=1)
        return (open_ & points).sum(axis=1) / total, inside

    def projected(self, stream: str, frame: int) -> list[Any]:
        """Rectangles of all things in one image, labelled or not."""
        view = next(v for v in self.views if v.stream == stream)
        stamp = view.stamp_ns[frame : frame + 1]
        p, q = view.pose_at(stamp)
        poses = [thing.pose((stamp - T0) / 1e9) for thing in self.things]
        center, turned = (np.array([pose[k][0] for pose in poses]) for k in (0, 1))
        inverse = quat_conjugate(q[0])
        local = quat_rotate(inverse, center - p[0])
        size = np.array([thing.size for thing in self.things])
        corners = box_corners(local, size, quat_multiply(inverse, turned))
        bounds, seen = project_box_bounds(view.camera, corners)
        return list(bounds[seen])

    @cached_property
    def scene(self) -> LabelScene:
        """What the checks get: cameras as the rig claims them to be, and the sweeps."""
        sweeps = (Sweeps("lidar_points", self.sweep_ns, self.sweep),) if self.lidar else ()
        return LabelScene("world", self.views, Frames(), sweeps)

    def sweep(self, i: int) -> Sweep:
        """Returns of one revolution, all at one instant."""
        if i not in self._sweeps:
            self._sweeps[i] = self._scan(i)
        return self._sweeps[i]

    def _scan(self, i: int) -> Sweep:
        rng = np.random.default_rng([self.seed, 3, i])
        stamp = int(self.sweep_ns[i])
        p, q = self.ego(np.array([stamp]))
        origin = p[0] + quat_rotate(q[0], [1.2, 0, 1.9])
        azimuth = np.linspace(-np.pi, np.pi, 900, endpoint=False) + rng.uniform(0, 0.007)
        ring = np.radians(np.linspace(-24, 8, 40))
        az, el = (x.reshape(-1) for x in np.meshgrid(azimuth, ring))
        ray = np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], 1)
        ray = quat_rotate(q[0], ray)
        with np.errstate(divide="ignore"):
            distance = np.where(ray[:, 2] < -1e-3, -origin[2] / ray[:, 2], np.inf)
        solids = [(c[0], th.size, o[0]) for th in self.things
                  for c, o in [th.pose(np.array([(stamp - T0) / 1e9]))]] + self.walls  # fmt: skip
        for center, size, turned in solids:
            to = center - origin
            reach = np.linalg.norm(to)
            if reach > 70:
                continue
            near = ray @ (to / reach) > np.cos(min(np.arctan2(np.linalg.norm(size) / 2, reach)
                                                   + 0.01, 3.1))  # fmt: skip
            rows = np.flatnonzero(near)
            hit = _entry(origin, ray[rows], center, size, turned)
            distance[rows] = np.minimum(distance[rows], hit)
        keep = (distance < 80) & (rng.random(len(distance)) > 0.1)
        far = distance[keep] + rng.normal(0, 0.02, keep.sum())
        return Sweep(stamp, origin + ray[keep] * far[:, None], None, origin)


def _entry(origin: Any, ray: Any, center: Any, size: Any, turned: Any) -> Any:
    """Distance along rays (..., 3) at which each enters a box; inf where it does not."""
    inverse = quat_conjugate(turned)
    o, d = quat_rotate(inverse, origin - center), quat_rotate(inverse, ray)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-size / 2 - o) / d, (size / 2 - o) / d
    low, high = np.fmin(a, b).max(axis=-1), np.fmax(a, b).min(axis=-1)
    return np.where((high >= low) & (high > 0), np.maximum(low, 0.0), np.inf)
