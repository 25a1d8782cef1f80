"""What touches what: the tcp above the table, the object it holds, drops or leaves at rest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmdata.simulate.arm import FINGER_TIP_M
from mmdata.simulate.motion import Floats, Path, minimum_jerk

GRAVITY_M_S2 = 9.81
TABLE_STIFFNESS_N_M = 3000.0
CONTACT_SOFTNESS_M = 0.0012
PAD_FORCE_N = 2.0
"""Force of one finger when its pad is pressed flat and the fingers stall."""
SQUEEZE_S = 0.04
_STEP_S = 1e-3


@dataclass(frozen=True)
class Impulse:
    """A knock: when, the force it puts on the tool (tool frame), how loud it is (0 to 1)."""

    cause: str
    time_s: float
    force_n: Floats
    loudness: float


@dataclass(frozen=True)
class Table:
    """The tcp follows its command after a delay, and the finger tips stop at the table.

    They stop within CONTACT_SOFTNESS_M, not at once: nothing real stops in no time.
    """

    path: Path
    delay_s: float

    def tcp(self, t: npt.ArrayLike) -> Floats:
        """Actual tcp (N, 4) as x, y, z, yaw at times (N,)."""
        state = self._free(t)
        state[:, 2] += self._blocked(state[:, 2])
        return state

    def push_n(self, t: npt.ArrayLike) -> Floats:
        """Upward force (N,) of the table on the finger tips."""
        return TABLE_STIFFNESS_N_M * self._blocked(self._free(t)[:, 2])

    def hit_s(self, start_s: float, end_s: float) -> float:
        """First time the finger tips meet the table."""
        t = np.arange(start_s, end_s, _STEP_S)
        return float(t[np.argmax(self._free(t)[:, 2] < FINGER_TIP_M)])

    def _free(self, t: npt.ArrayLike) -> Floats:
        return self.path.sample(np.asarray(t, dtype=np.float64) - self.delay_s)

    def _blocked(self, free_z: Floats) -> Floats:
        """How much higher than told the tcp stays, (N,)."""
        below = (FINGER_TIP_M - free_z) / CONTACT_SOFTNESS_M
        return np.asarray(CONTACT_SOFTNESS_M * np.logaddexp(0.0, below))


@dataclass
class Hold:
    """The object between the fingers from start_s to end_s.

    grab and rest are tcp and object (x, y, z, yaw) at the start. slip: start, duration, distance,
    and whether it ends in free fall.
    """

    start_s: float
    stall_s: float
    force_n: float
    grab: Floats
    rest: Floats
    end_s: float = np.inf
    open_s: float = np.inf
    slip: tuple[float, float, float, bool] | None = None
    final: Floats | None = None
    fall_velocity: Floats | None = None
    land_s: float = np.inf

    @property
    def tcp_offset_z(self) -> float:
        """Height of the object's centre above the tcp when taken."""
        return float(self.rest[2] - self.grab[2])

    @property
    def slipped_m(self) -> float:
        return self.slip[2] if self.slip else 0.0

    def slip_m(self, t: Floats) -> Floats:
        """How far the object has slid down between the fingers, (N,)."""
        if self.slip is None:
            return np.zeros_like(t)
        start, duration, distance, lost = self.slip
        u = np.clip((t - start) / duration, 0.0, 1.0)
        return np.asarray(distance * (u**2 if lost else minimum_jerk(u)))

    def slipping(self, t: Floats) -> npt.NDArray[np.bool_]:
        if self.slip is None:
            return np.zeros(t.shape, dtype=bool)
        return np.asarray((t >= self.slip[0]) & (t < self.slip[0] + self.slip[1]))


@dataclass
class Object:
    """A cube: at rest on the table, held, or falling."""

    size_m: float
    mass_kg: float
    start: Floats
    table: Table
    holds: list[Hold] = field(default_factory=list)

    @property
    def rest(self) -> Floats:
        """Where it lies after everything so far: x, y, z, yaw."""
        last = self.holds[-1].final if self.holds else self.start
        if last is None:
            raise RuntimeError("the object is still held")
        return last

    @property
    def rest_z(self) -> float:
        return 0.5 * self.size_m

    # Building ---------------------------------------------------------------------------------

    def hold(self, start_s: float, stall_s: float, force_n: float) -> None:
        """The fingers touch it at start_s and stall at stall_s."""
        grab = self.table.tcp([start_s])[0]
        self.holds.append(Hold(start_s, stall_s, force_n, grab, self.rest))

    def release(self, hold: Hold, open_s: float, end_s: float) -> None:
        """The fingers give from open_s and part from it at end_s."""
        hold.open_s, hold.end_s = open_s, end_s
        hold.final = self._carried(hold, np.array([end_s]))[0]
        hold.final[2] = self.rest_z

    def drop(self, hold: Hold) -> float:
        """It falls freely from hold.end_s; returns when it lands, and stays where it lands."""
        end = hold.end_s
        before, at = self._carried(hold, np.array([end - _STEP_S, end]))
        velocity = (at - before) / _STEP_S
        down, height = -velocity[2], at[2] - self.rest_z
        time = (np.sqrt(down**2 + 2 * GRAVITY_M_S2 * height) - down) / GRAVITY_M_S2
        hold.fall_velocity, hold.land_s, hold.open_s = velocity, float(end + time), end
        hold.final = at + velocity * time
        hold.final[2], hold.final[3] = self.rest_z, at[3]
        return hold.land_s

    def first_height_s(self, hold: Hold, start_s: float, end_s: float) -> float:
        """When it leaves the table: 0.1 mm above it."""
        t = np.arange(start_s, end_s, _STEP_S)
        return float(t[np.argmax(self._lift(hold, t) > 1e-4)])

    def touch_s(self, hold: Hold, start_s: float, end_s: float) -> float:
        """When it meets the table again."""
        t = np.arange(start_s, end_s, _STEP_S)
        return float(t[np.argmax(self._lift(hold, t) <= 0)])

    # State over time --------------------------------------------------------------------------

    def state(self, t: npt.ArrayLike) -> Floats:
        """Centre and yaw (N, 4) as x, y, z, yaw at times (N,)."""
        t = np.asarray(t, dtype=np.float64)
        out = np.tile(self.start, (len(t), 1))
        for hold in self.holds:
            held = (t >= hold.start_s) & (t < hold.end_s)
            if held.any():
                out[held] = self._carried(hold, t[held])
            if hold.final is not None:
                out[t >= hold.end_s] = hold.final
            if hold.fall_velocity is not None:
                falling = (t >= hold.end_s) & (t < hold.land_s)
                since = (t[falling] - hold.end_s)[:, None]
                at = self._carried(hold, np.array([hold.end_s]))[0]
                moved = at + since * hold.fall_velocity
                moved[:, 2] -= 0.5 * GRAVITY_M_S2 * since[:, 0] ** 2
                moved[:, 3] = at[3]
                out[falling] = moved
        return out

    def held(self, t: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether the fingers touch it, (N,)."""
        t = np.asarray(t, dtype=np.float64)
        out = np.zeros(t.shape, dtype=bool)
        for hold in self.holds:
            out |= (t >= hold.start_s) & (t < hold.end_s)
        return out

    def grip_n(self, t: npt.ArrayLike) -> Floats:
        """Normal force (N,) of each finger on it."""
        t = np.asarray(t, dtype=np.float64)
        out = np.zeros(t.shape)
        for hold in self.holds:
            held = (t >= hold.start_s) & (t < hold.end_s)
            since = t[held] - hold.start_s
            # The pads are pressed flat until the fingers stall, then the motor builds up force.
            force = PAD_FORCE_N * np.minimum(1.0, since / max(hold.stall_s - hold.start_s, 1e-6))
            rise = 1.0 - np.exp(-np.maximum(0.0, t[held] - hold.stall_s) / SQUEEZE_S)
            force += (hold.force_n - PAD_FORCE_N) * rise
            opening = np.clip((hold.end_s - t[held]) / max(hold.end_s - hold.open_s, 1e-6), 0, 1)
            out[held] = force * opening
        return out

    def load_n(self, t: npt.ArrayLike, acceleration: Floats) -> Floats:
        """Force (N, 3) it puts on the hand that accelerates at (N, 3) m/s^2, in the base frame."""
        t = np.asarray(t, dtype=np.float64)
        out = np.zeros((len(t), 3))
        for hold in self.holds:
            held = (t >= hold.start_s) & (t < hold.end_s)
            if not held.any():
                continue
            lift = self._lift(hold, t[held])
            # Weight passes from table to hand over 0.3 mm; below, the table pushes back, no more
            # than friction between the fingers can carry.
            share = np.clip(lift / 3e-4, 0.0, 1.0)
            push = np.minimum(TABLE_STIFFNESS_N_M * np.maximum(0.0, -lift), 1.2 * hold.force_n)
            weight = self.mass_kg * ([0.0, 0.0, -GRAVITY_M_S2] - acceleration[held])
            out[held] = share[:, None] * weight
            out[held, 2] += push
        return out

    def slipping(self, t: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether it slides between the fingers, (N,)."""
        t = np.asarray(t, dtype=np.float64)
        out = np.zeros(t.shape, dtype=bool)
        for hold in self.holds:
            out |= hold.slipping(t)
        return out

    def _lift(self, hold: Hold, t: Floats) -> Floats:
        """Height above the table if the table were not there, (N,)."""
        tcp_z = self.table.tcp(t)[:, 2]
        return np.asarray(tcp_z + hold.tcp_offset_z - hold.slip_m(t) - self.rest_z)

    def _carried(self, hold: Hold, t: Floats) -> Floats:
        tcp = self.table.tcp(t)
        turned = tcp[:, 3] - hold.grab[3]
        arm = hold.rest[:2] - hold.grab[:2]
        cosine, sine = np.cos(turned), np.sin(turned)
        return np.stack(
            [
                tcp[:, 0] + cosine * arm[0] - sine * arm[1],
                tcp[:, 1] + sine * arm[0] + cosine * arm[1],
                self.rest_z + np.maximum(0.0, self._lift(hold, t)),
                hold.rest[3] + turned,
            ],
            axis=-1,
        )
