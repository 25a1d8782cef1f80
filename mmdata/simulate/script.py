"""The pick-and-place script: a seed becomes reaches, gripper strokes, contacts and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from mmdata.errors import ConfigError
from mmdata.simulate.arm import FINGER_TIP_M, MAX_WIDTH_M
from mmdata.simulate.body import Hold, Impulse, Object, Table
from mmdata.simulate.motion import Floats, Gripper, Path, Reach, Stroke, random_tremor

Failure = Literal["missed_grasp", "regrasp", "slip", "drop", "hesitation", "collision"]
FAILURES: tuple[Failure, ...] = get_args(Failure)

HOME = np.array([0.40, 0.0, 0.30, 0.0])
PAD_M = 0.0008
"""How far the finger pads give: contact begins this much before the fingers stall."""


@dataclass
class Style:
    """What differs between demonstrators and objects; drawn from the seed."""

    speed: float
    pause_s: float
    blend: float
    delay_s: float
    gripper_delay_s: float
    gripper_speed_m_s: float
    grip_force_n: float
    hover_m: float
    lift_m: float
    tremor_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        return cls(
            speed=rng.uniform(0.75, 1.3),
            pause_s=rng.uniform(0.0, 0.35),
            blend=rng.uniform(0.0, 0.35),
            delay_s=rng.uniform(0.03, 0.10),
            gripper_delay_s=rng.uniform(0.03, 0.07),
            gripper_speed_m_s=rng.uniform(0.06, 0.14),
            grip_force_n=rng.uniform(6.0, 14.0),
            hover_m=rng.uniform(0.13, 0.20),
            lift_m=rng.uniform(0.10, 0.18),
            tremor_m=rng.uniform(0.0, 0.0006),
        )


@dataclass
class Phase:
    """A labelled interval in seconds since the start."""

    label: str
    start_s: float
    end_s: float


@dataclass
class Event:
    """A labelled instant in seconds since the start; extra facts are JSON-like."""

    label: str
    time_s: float
    extra: dict[str, Any] = field(default_factory=dict)


class Script:
    """Plays cycles of pick-and-place; what it decides is read from its attributes.

    ``phases`` are defined by contact and by where motion turns (docs/conventions.md);
    ``script_phases`` by the instants of the commands.
    """

    def __init__(self, seed: int, failures: tuple[Failure, ...]) -> None:
        unknown = set(failures) - set(FAILURES)
        if unknown:
            raise ConfigError(f"unknown failure {sorted(unknown)}; there are {list(FAILURES)}")
        self.rng = np.random.default_rng([seed, 1])
        self.failures = failures
        self.style = Style.draw(self.rng)
        home = HOME + self.rng.normal(0, [0.015, 0.03, 0.02, 0.1])
        tremor = random_tremor(self.rng, self.style.tremor_m)
        self.path = Path(home, tremor=tremor)
        self.gripper = Gripper(
            self.style.gripper_delay_s, self.style.gripper_speed_m_s, MAX_WIDTH_M
        )
        self.table = Table(self.path, self.style.delay_s)
        self.object = self._draw_object()
        self.phases: list[Phase] = []
        self.script_phases: list[Phase] = []
        self.events: list[Event] = []
        self.impulses: list[Impulse] = []
        self.cycles: list[dict[str, Any]] = []
        self._cursor = self.rng.uniform(0.15, 0.4)

    def _draw_object(self) -> Object:
        r = self.rng
        size = r.uniform(0.036, 0.052)
        start = np.array([r.uniform(0.40, 0.52), r.uniform(-0.16, -0.02), 0.5 * size, 0.0])
        start[3] = r.uniform(-0.6, 0.6)
        return Object(size, r.uniform(0.05, 0.25), start, self.table)

    def _elsewhere(self, x_y: Floats) -> Floats:
        """A place on the table at least 12 cm away."""
        while True:
            place = self.rng.uniform([0.38, -0.18], [0.54, 0.18])
            if np.linalg.norm(place - x_y) > 0.12:
                return np.asarray(place)

    @property
    def end_s(self) -> float:
        """When everything has come to rest."""
        return self._cursor + self.style.delay_s + 0.4

    # Motion -----------------------------------------------------------------------------------

    def _reach(self, target: Floats, *, blend: float = 0.0, slow: float = 1.0) -> Reach:
        """Move to a target (x, y, z, yaw); blend is the share of the last reach to overlap."""
        delta = target - self.path.target
        distance = np.linalg.norm(delta[:3]) + 0.08 * abs(delta[3])
        pace = 0.165 * self.style.speed * self.rng.uniform(0.85, 1.15) / slow
        duration = max(0.35, distance / pace) + 0.25 / self.style.speed
        start = self._cursor
        if blend and self.path.reaches:
            start -= blend * min(self.path.reaches[-1].duration_s, duration)
        reach = Reach(float(start), float(duration), delta)
        self.path.reaches.append(reach)
        self._cursor = reach.end_s
        return reach

    def _turn(self, reach: Reach) -> float:
        """When a reach visibly takes over from the one before it."""
        before = self.path.reaches[self.path.reaches.index(reach) - 1]
        overlap = max(0.0, before.end_s - reach.start_s) if before is not reach else 0.0
        return reach.start_s + 0.5 * overlap + self.style.delay_s

    def _pause(self, at_least_s: float = 0.0) -> None:
        self._cursor += max(at_least_s, self.style.pause_s * self.rng.uniform(0.5, 1.5))

    def _begin(self, label: str, time_s: float, command_s: float | None = None) -> None:
        """Start a phase; the one before ends there."""
        for phases, start in ((self.phases, time_s), (self.script_phases, command_s)):
            if start is not None:
                if phases:
                    phases[-1].end_s = start
                phases.append(Phase(label, start, start))

    def _event(self, label: str, time_s: float, **extra: Any) -> None:
        self.events.append(Event(label, float(time_s), extra))

    def _impulse(self, cause: str, time_s: float, force_n: float, loudness: float) -> None:
        direction = self.rng.normal(size=3) * [0.5, 0.5, 0.2] + [0, 0, 1.0]
        direction /= np.linalg.norm(direction)
        self.impulses.append(Impulse(cause, float(time_s), force_n * direction, loudness))

    # The cycle --------------------------------------------------------------------------------

    def play(self, first: bool) -> None:
        """Add one pick-and-place. Failures happen in the first cycle."""
        failures = self.failures if first else ()
        outcome = self._cycle(failures, self._elsewhere(self.object.rest[:2]))
        self.cycles.append(outcome | {"end_s": float(self._cursor + self.style.delay_s)})

    def _cycle(self, failures: tuple[Failure, ...], place_x_y: Floats) -> dict[str, Any]:
        if "collision" in failures:
            self._collide()
        if "missed_grasp" in failures or "regrasp" in failures:
            self._miss(failures)
            if "missed_grasp" in failures:
                self._retract()
                return {"success": False}
        self._approach("hesitation" in failures)
        stroke = self._grasp()
        if not self._carry(stroke, place_x_y, failures):
            return {"success": False}
        return self._place(place_x_y)

    def _hover(self) -> Floats:
        yaw = self.object.rest[3]
        yaw = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4  # A cube has four sides to take it by.
        x, y, z = self.object.rest[:3]
        self._grip_z = z + self.rng.uniform(-0.003, 0.006)
        return np.array([x, y, self.style.hover_m, yaw])

    def _approach(self, hesitate: bool = False) -> None:
        hover = self._hover()
        first = self._reach(hover)
        self._begin("approach", 0.0 if not self.phases else self._turn(first), first.start_s)
        if len(self.script_phases) == 1:
            self.script_phases[0].start_s = 0.0
        if hesitate:
            self._hesitate()
        down = self._reach(
            np.array([*hover[:2], self._grip_z, hover[3]]),
            blend=0.0 if hesitate else self.style.blend,
            slow=1.4,
        )
        self._begin("descend", self._turn(down), down.start_s)

    def _hesitate(self) -> None:
        self._event("hesitation", self._cursor + self.style.delay_s)
        until = self._cursor + self.rng.uniform(0.8, 2.0)
        here = self.path.target
        while self._cursor < until:
            dither = here + self.rng.normal(0, [0.004, 0.004, 0.003, 0.02])
            self._reach(dither)
            self._cursor += self.rng.uniform(0.1, 0.4)
        self._event("hesitation_end", self._cursor + self.style.delay_s)

    def _grasp(self) -> Stroke:
        self._cursor += self.style.delay_s
        self._pause(0.05)
        size = self.object.size_m
        stroke = self.gripper.move(self._cursor, 0.0, stall_m=size)
        contact = self.gripper.when(stroke, size + 2 * PAD_M)
        self._event("gripper_close_command", stroke.command_s)
        self._event("contact", contact, other="gripper")
        self._event("grasped", stroke.end_s)
        self._impulse("contact", contact, 20.0 * self.style.gripper_speed_m_s, 0.7)
        self._begin("grasp", contact, stroke.command_s)
        self.object.hold(contact, stroke.end_s, self.style.grip_force_n)
        self._cursor = stroke.end_s + self.rng.uniform(0.2, 0.55)
        return stroke

    def _carry(self, stroke: Stroke, place_x_y: Floats, failures: tuple[Failure, ...]) -> bool:
        """Lift and transport; False when the object was lost."""
        hold = self.object.holds[-1]
        lift = self._reach(self.path.target + np.array([0, 0, self.style.lift_m, 0]))
        over = np.array([*place_x_y, self.path.target[2], self.rng.uniform(-0.7, 0.7)])
        across = self._reach(over, blend=self.style.blend)
        lifted = self.object.first_height_s(hold, lift.start_s, across.end_s)
        self._event("lifted", lifted)
        self._begin("lift", lifted, lift.start_s)
        self._begin("transport", self._turn(across), across.start_s)
        if "slip" in failures or "drop" in failures:
            self._slip(hold, across, drop="drop" in failures)
        if "drop" not in failures:
            return True
        # The demonstrator sees it, waits, and goes home; the fingers close on nothing.
        lost = hold.end_s
        loose = self.gripper.move(lost - self.gripper.delay_s, 0.0)
        self._impulse("gripper_closed", loose.end_s, 1.0, 0.3)
        self._cursor += self.rng.uniform(0.3, 0.9)
        self._retract(lost)
        return False

    def _slip(self, hold: Hold, across: Reach, drop: bool) -> None:
        start = across.start_s + self.style.delay_s + across.duration_s * self.rng.uniform(0.2, 0.5)
        duration = self.rng.uniform(0.25, 0.5)
        distance = 0.5 * self.object.size_m if drop else self.rng.uniform(0.005, 0.010)
        hold.slip = (float(start), float(duration), float(distance), drop)
        self._event("slip", start, distance_m=float(distance), duration_s=float(duration))
        if drop:
            hold.end_s = float(start + duration)
            landed = self.object.drop(hold)
            self._event("dropped", hold.end_s)
            self._event("contact_lost", hold.end_s, other="gripper")
            self._event("failure", hold.end_s, cause="dropped")
            self._event("landed", landed, other="table")
            # The table shakes, but the hand does not feel it.
            self._impulse("landed", landed, 0.0, 1.0)

    def _place(self, place_x_y: Floats) -> dict[str, Any]:
        hold = self.object.holds[-1]
        overtravel = self.rng.uniform(0.0004, 0.0012)
        down = self.path.target.copy()
        down[2] = self.object.rest_z - hold.tcp_offset_z + hold.slipped_m - overtravel
        lower = self._reach(down, blend=self.style.blend, slow=1.4)
        self._begin("lower", self._turn(lower), lower.start_s)
        self._cursor += self.style.delay_s
        self._pause(0.05)
        stroke = self.gripper.move(self._cursor, MAX_WIDTH_M)
        off = self.gripper.when(stroke, self.object.size_m + 2 * PAD_M)
        touch = self.object.touch_s(hold, lower.start_s, off)
        self._event("placed", touch, other="table")
        self._impulse("placed", touch, 3.0, 0.5)
        self._event("gripper_open_command", stroke.command_s)
        self._event("released", off, other="gripper")
        self._impulse("released", off, 0.8, 0.15)
        self._impulse("gripper_open", stroke.end_s, 0.5, 0.12)
        self._begin("release", off, stroke.command_s)
        self.object.release(hold, stroke.start_s, off)
        error = float(np.linalg.norm(self.object.rest[:2] - place_x_y))
        self._cursor = off + self.rng.uniform(0.05, 0.35)
        self._retract()
        return {"success": error < 0.02, "place_error_m": error}

    def _retract(self, from_s: float | None = None) -> None:
        """Go up and home; the phase begins with that motion unless something ended before."""
        up = self.path.target.copy()
        up[2] = max(up[2], self.style.hover_m) + 0.01
        rise = self._reach(up)
        self._begin("retract", self._turn(rise) if from_s is None else from_s, rise.start_s)
        home = HOME + self.rng.normal(0, [0.015, 0.03, 0.02, 0.1])
        self._reach(home, blend=self.style.blend)
        if self.gripper.strokes and self.gripper.strokes[-1].end_width_m < MAX_WIDTH_M:
            opened = self.gripper.move(self._cursor, MAX_WIDTH_M)
            self._event("gripper_open_command", opened.command_s)
            self._impulse("gripper_open", opened.end_s, 0.5, 0.12)
            self._cursor = opened.end_s

    # Failures ---------------------------------------------------------------------------------

    def _miss(self, failures: tuple[Failure, ...]) -> None:
        """Close beside the object, see it, go up again with open fingers."""
        start = self._reach(self._beside(self.object.size_m))
        self._begin("approach", 0.0 if not self.phases else self._turn(start), start.start_s)
        if "missed_grasp" in failures and "hesitation" in failures:
            self._hesitate()
        down = self.path.target.copy()
        down[2] = self._grip_z
        lower = self._reach(down, blend=self.style.blend, slow=1.4)
        self._begin("descend", self._turn(lower), lower.start_s)
        self._cursor += self.style.delay_s
        self._pause(0.05)
        stroke = self.gripper.move(self._cursor, 0.0)
        self._event("gripper_close_command", stroke.command_s)
        self._event("failure", stroke.end_s, cause="missed_grasp")
        self._impulse("gripper_closed", stroke.end_s, 1.0, 0.3)
        self._begin("grasp", stroke.end_s, stroke.command_s)
        self._cursor = stroke.end_s + self.rng.uniform(0.3, 0.7)
        if "missed_grasp" in failures:
            return
        up = self.path.target.copy()
        up[2] = self.style.hover_m
        rise = self._reach(up)
        self._event("recovery", rise.start_s + self.style.delay_s)
        self._begin("retract", self._turn(rise), rise.start_s)
        opened = self.gripper.move(self._cursor, MAX_WIDTH_M)
        self._event("gripper_open_command", opened.command_s)
        self._impulse("gripper_open", opened.end_s, 0.5, 0.12)
        self._cursor = opened.end_s

    def _collide(self) -> None:
        """Run the finger tips into the table beside the object, and back off."""
        start = self._reach(self._beside(self.object.size_m + 0.03))
        self._begin("approach", 0.0, start.start_s)
        down = self.path.target.copy()
        down[2] = FINGER_TIP_M - self.rng.uniform(0.006, 0.012)
        lower = self._reach(down, slow=0.8)
        self._begin("descend", self._turn(lower), lower.start_s)
        hit = self.table.hit_s(lower.start_s + self.style.delay_s, lower.end_s + 0.5)
        self._event("collision", hit, other="table")
        self._impulse("collision", hit, 12.0, 1.0)
        self._cursor += self.rng.uniform(0.1, 0.3)
        up = self.path.target.copy()
        up[2] = self.style.hover_m
        rise = self._reach(up)
        self._event("recovery", rise.start_s + self.style.delay_s)
        self._begin("retract", self._turn(rise), rise.start_s)

    def _beside(self, distance_m: float) -> Floats:
        """Above a point beside the object, off along the tool's x, clear of the fingers."""
        hover = self._hover()
        side = self.rng.choice([-1.0, 1.0]) * (distance_m + 0.01)
        hover[:2] += side * np.array([np.cos(hover[3]), np.sin(hover[3])])
        return hover
