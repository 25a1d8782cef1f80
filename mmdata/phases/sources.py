"""Which stream of an episode is which input: by kind, fields, channel names and words in names.

Nothing is assumed about topics. What a name does not tell is left out and noted; two arms are told
apart by words such as left, right, psm1. Leader or master devices are inputs of the operator, not
effectors, and are only used where there is nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.clocks import SECOND_NS
from mmdata.phases.inputs import Audio, Base, Effector, Floats, Inputs, Series
from mmdata.phases.kinematics import chain, forward, read_urdf
from mmdata.streams import Kind, Ragged, Stream

GRIP = re.compile(
    r"grip|finger|jaw|knuckle|claw|pinch|width|aperture|thumb|pinky|hand_(ring|middle|index)"
)
#: Joints whose angle grows as the gripper closes.
CLOSES = re.compile(r"knuckle|robotiq|2f_?(85|140)")
ORDER = re.compile(r"command|cmd|target|desired|action|goal|setpoint|reference")
LEADER = re.compile(r"leader|master|mtm|operator|vr_|controller_pose")
NOT_HAND = re.compile(r"base|odom|camera|head|object|marker|obstacle|world|map|gps|imu|torso|tag")
TOUCH = re.compile(r"tactile|touch|taxel|skin|gelsight|digit")
NOT_PLACE = re.compile(r"vel|rate|acc|rot|quat|euler|rpy|axis|angle|force|torque|effort|omega|mag")
SIDES = (
    (re.compile(r"(^|[^a-z])(left|psm2|mtml|lh|arm_?2|robot_?2)([^a-z]|$)|_l_|_l$|^l_"), "left"),
    (re.compile(r"(^|[^a-z])(right|psm1|mtmr|rh|arm_?1|robot_?1)([^a-z]|$)|_r_|_r$|^r_"), "right"),
)


def plain(name: str) -> str:
    """A name in lower case with the words of CamelCase kept apart."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def side_of(name: str, default: str = "arm") -> str:
    """left, right, or the default, from a stream's or channel's name."""
    name = plain(name)
    for pattern, side in SIDES:
        if pattern.search(name):
            return side
    return default


@dataclass
class _Finds:
    """Series found so far, by arm and role; a role taken once is not taken again."""

    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: dict[str, Series] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    joint_names: dict[str, list[str]] = field(default_factory=dict)

    def take(self, side: str, role: str, series: Series) -> None:
        if len(series.stamp_ns) >= 4 and role not in self.arms.setdefault(side, {}):
            self.arms[side][role] = series


def read_inputs(
    ep: Any, *, urdf: Path | str | None = None, tip: str | None = None, audio: bool = True
) -> Inputs:
    """The inputs of an open episode; with a URDF also hand positions from joint angles."""
    finds = _Finds()
    streams: Mapping[str, Stream] = ep.streams
    followers = [s for n, s in streams.items() if not LEADER.search(plain(n))]
    leaders = [s for n, s in streams.items() if LEADER.search(plain(n))]
    _collect(followers, finds)
    if not finds.arms and leaders:
        finds.notes.append("only leader or master devices found: used as effectors")
        _collect(leaders, finds)
    _merge_sides(finds)
    for side, roles in finds.arms.items():
        if urdf is not None and "position" not in roles and "joints" in roles:
            names = finds.joint_names.get(side, [])
            joints: Series = roles["joints"]
            path = chain(read_urdf(urdf), names, tip)
            place = forward(path, names, joints.values)
            roles["position"] = Series(joints.stamp_ns, place, f"{joints.source} through URDF")
    arms = {s: r for s, r in finds.arms.items() if r.keys() & {"position", "joints", "width"}}
    for side in finds.arms.keys() - arms.keys():
        if finds.arms[side].keys() & {"wrench", "touch", "command"}:
            arms[side] = finds.arms[side]
    if arms and not any("position" in roles for roles in arms.values()):
        finds.notes.append("no pose of a hand: directions are those of joint space, without up")
    base = Base(**finds.base) if finds.base else None
    sound = _audio(streams.values()) if audio else None
    used: list[Series] = [*finds.base.values()]
    for roles in arms.values():
        used += [roles[k] for k in roles]
    stamps = [s.stamp_ns for s in used if len(s.stamp_ns)]
    start = min((int(s[0]) for s in stamps), default=ep.start_ns or 0)
    end = max((int(s[-1]) for s in stamps), default=ep.end_ns or 0)
    task = " ".join(
        str(ep.metadata[k]) for k in ("task", "instruction", "description") if k in ep.metadata
    )
    effectors = tuple(Effector(side, **roles) for side, roles in sorted(arms.items()))
    return Inputs(start, end, effectors, base, sound, task, tuple(finds.notes))


def _collect(streams: Iterable[Stream], finds: _Finds) -> None:
    for stream in streams:
        if len(stream) < 4 or stream.kind not in (Kind.SIGNAL, Kind.TACTILE):
            continue
        name = plain(stream.name)
        if stream.kind is Kind.TACTILE or TOUCH.search(name):
            _touch(stream, finds)
        elif ORDER.search(name):
            _order(stream, finds)
        elif "force" in stream.fields or "wrench" in name:
            _wrench(stream, finds)
        elif {"position", "orientation"} <= set(stream.fields):
            _pose(stream, finds)
        elif _scalar_base(stream, finds):
            continue
        else:
            _vector(stream, finds)


def _dense(stream: Stream, name: str) -> Series | None:
    """A numeric field as a series (N, C), None where it is ragged, empty or not numeric."""
    values = stream.field(name)
    if isinstance(values, Ragged) or values.dtype.kind not in "fiu":
        return None
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    if flat.size == 0 or not np.isfinite(flat).any():
        return None
    return Series(stream.stamp_ns, flat, f"{stream.name}.{name}")


def _column(series: Series, columns: int | list[int], note: str = "") -> Series:
    return Series(series.stamp_ns, series.values[:, columns], series.source + note)


def _touch(stream: Stream, finds: _Finds) -> None:
    for name in stream.fields:
        if (series := _dense(stream, name)) is not None:
            finds.take(side_of(stream.name), "touch", series)


def _wrench(stream: Stream, finds: _Finds) -> None:
    force = _dense(stream, "force") if "force" in stream.fields else None
    torque = _dense(stream, "torque") if "torque" in stream.fields else None
    if force is None and (whole := _dense(stream, stream.fields[0])) is not None:
        force = whole if whole.values.shape[1] in (3, 6) else None
    if force is None:
        return
    if torque is not None:
        force = replace(force, values=np.hstack([force.values[:, :3], torque.values[:, :3]]))
    finds.take(side_of(stream.name), "wrench", replace(force, source=stream.name))


def _order(stream: Stream, finds: _Finds) -> None:
    """Commands: only those of the gripper are inputs."""
    for name in stream.fields:
        info = stream.info.fields[name]
        series = None if info.ragged else _dense(stream, name)
        if series is None or name in ("velocity", "effort", "orientation"):
            continue
        channels = _channels(stream, name, series)
        for side in ("arm", "left", "right"):
            mine = [
                i for i, c in enumerate(channels) if GRIP.search(c) and side_of(c, "arm") == side
            ]
            if mine:
                at = side if side != "arm" else side_of(stream.name)
                finds.take(at, "command", _column(series, mine[0]))
        if series.values.shape[1] == 1 and GRIP.search(plain(stream.name)):
            finds.take(side_of(stream.name), "command", _column(series, 0))


def _pose(stream: Stream, finds: _Finds) -> None:
    position, orientation = _dense(stream, "position"), _dense(stream, "orientation")
    if position is None or position.values.shape[1] != 3:
        return
    if "linear_velocity" in stream.fields:
        _odometry(stream, position, orientation, finds)
        return
    if NOT_HAND.search(plain(stream.name)):
        finds.notes.append(f"{stream.name}: a pose, but by its name not of a hand; not used")
        return
    side = side_of(stream.name)
    finds.take(side, "position", position)
    if orientation is not None and orientation.values.shape[1] == 4:
        finds.take(side, "orientation", orientation)


def _odometry(stream: Stream, position: Series, orientation: Series | None, finds: _Finds) -> None:
    velocity = _dense(stream, "linear_velocity")
    if velocity is not None:
        finds.base.setdefault("speed", _speed(velocity))
    rate = _dense(stream, "angular_velocity") if "angular_velocity" in stream.fields else None
    if rate is not None and rate.values.shape[1] == 3:
        finds.base.setdefault("yaw_rate", _column(rate, 2))


def _speed(velocity: Series) -> Series:
    """Speed with the sign of forward motion where x (forward, in the body's frame) carries it."""
    values = velocity.values
    size = np.linalg.norm(values[:, :2], axis=1)
    backwards = (values[:, 0] < 0) & (np.abs(values[:, 0]) > 0.9 * size)
    return replace(velocity, values=np.where(backwards, -size, size))


def _scalar_base(stream: Stream, finds: _Finds) -> bool:
    """Twists, wheel speeds, gyros and GNSS fixes of a vehicle or mobile base."""
    name = plain(stream.name)
    fields = set(stream.fields)
    if {"latitude", "longitude"} <= fields:
        lat, lon = _dense(stream, "latitude"), _dense(stream, "longitude")
        if lat is not None and lon is not None and "speed" not in finds.base:
            finds.base["speed"] = _speed_of_fixes(lat, lon)
        return True
    linear = fields & {"linear_velocity", "linear", "twist_linear"}
    if linear and not NOT_HAND.sub("", name).startswith("eef"):
        if (series := _dense(stream, linear.pop())) is not None:
            finds.base.setdefault("speed", _speed(series))
        turn = fields & {"angular_velocity", "angular", "twist_angular"}
        if turn and (rate := _dense(stream, turn.pop())) is not None:
            finds.base.setdefault("yaw_rate", _column(rate, rate.values.shape[1] - 1))
        return True
    if "angular_velocity" in fields:
        rate = _dense(stream, "angular_velocity")
        if rate is not None and rate.values.shape[1] == 3:
            finds.base.setdefault("yaw_rate", _yaw_rate(stream, rate))
        return True
    only = _dense(stream, stream.fields[0]) if len(fields) == 1 else None
    if only is None or only.values.shape[1] != 1:
        return False
    for word, role in (
        ("yaw_rate", "yaw_rate"),
        ("lead", "lead_gap"),
        ("gap", "lead_gap"),
        ("lateral", "lateral"),
        ("speed", "speed"),
    ):
        if word in name and not GRIP.search(name):
            finds.base.setdefault(role, _column(only, 0))
            return True
    return False


def _yaw_rate(stream: Stream, rate: Series) -> Series:
    """Turning about the vertical, which gravity shows where the sensor also measures it; else z."""
    felt = _dense(stream, "linear_acceleration") if "linear_acceleration" in stream.fields else None
    if felt is not None and felt.values.shape[1] == 3:
        up = np.nanmean(felt.values, axis=0)
        size = float(np.linalg.norm(up))
        if 8.0 < size < 11.5:
            about = rate.values @ (up / size)
            return Series(rate.stamp_ns, about, f"{rate.source} about gravity")
    return _column(rate, 2)


def _speed_of_fixes(lat: Series, lon: Series) -> Series:
    """Ground speed from GNSS fixes, on a sphere; good to a per cent."""
    t = (lat.stamp_ns - lat.stamp_ns[0]) / SECOND_NS
    phi, lam = np.radians(lat.values[:, 0]), np.radians(lon.values[:, 0])
    earth_m = 6_371_000.0
    east, north = earth_m * np.cos(np.nanmean(phi)) * lam, earth_m * phi
    keep = np.r_[True, np.diff(t) > 0] & np.isfinite(east) & np.isfinite(north)
    t, east, north = t[keep], east[keep], north[keep]
    if len(t) < 4:
        return Series(lat.stamp_ns[:0], np.empty(0), lat.source)
    speed = np.hypot(np.gradient(east, t), np.gradient(north, t))
    return Series(lat.stamp_ns[keep], speed, f"{lat.source} differentiated")


def _channels(stream: Stream, name: str, series: Series) -> list[str]:
    named = stream.info.fields[name].channels
    if named is None and isinstance(stream.info.attrs.get("names"), list):
        named = tuple(stream.info.attrs["names"])
    if named is None or len(named) != series.values.shape[1]:
        return []
    return [plain(str(c)) for c in named]


def _vector(stream: Stream, finds: _Finds) -> None:
    """Joint states and state vectors, told apart by channel names."""
    usual = [f for f in ("position", "data", "state", "qpos") if f in stream.fields]
    name = next(iter([*usual, *stream.fields]), None)
    if name is None or stream.info.fields[name].ragged:
        return
    series = _dense(stream, name)
    if series is None:
        return
    channels = _channels(stream, name, series)
    wide = series.values.shape[1]
    home = side_of(stream.name)
    if not channels:
        _unnamed(stream, series, wide, home, finds)
        return
    mine = [i for i, c in enumerate(channels) if not LEADER.search(c) and not ORDER.search(c)]
    mine = mine or list(range(wide))
    grip = [i for i in mine if GRIP.search(channels[i])]
    places = _triples(channels)
    taken = {i for columns in places.values() for i in columns} | set(grip)
    for prefix, columns in places.items():
        if not set(columns) <= set(mine):
            continue
        role = "wrench" if re.search(r"force|wrench", prefix) else "position"
        if role == "position" and (NOT_PLACE.search(prefix) or NOT_HAND.search(prefix)):
            continue
        finds.take(side_of(prefix, home), role, _column(series, columns, f"[{prefix}xyz]"))
    # Left and right fingers are one gripper unless there are left and right arms as well.
    arms = {side_of(channels[i], home) for i in mine if i not in grip} - {home}
    two = bool(arms) or len(grip) == wide > 2
    for side in ("arm", "left", "right"):
        fingers = [
            i
            for i in grip
            if (side_of(channels[i], home) if two else home) == side and not _is_rate(channels[i])
        ]
        if fingers:
            finds.take(side, "width", _width(series, fingers, channels))
        joints = [
            i
            for i in mine
            if i not in taken and side_of(channels[i], home) == side and not _is_rate(channels[i])
        ]
        if joints:
            finds.take(side, "joints", _column(series, joints))
            names = list(stream.info.fields[name].channels or ())
            finds.joint_names.setdefault(side, [names[i] for i in joints] if names else [])


def _is_rate(channel: str) -> bool:
    """Whether a channel is a rate or an effort rather than a place or an angle."""
    return re.search(r"vel|effort|torque|force|current|acc", channel) is not None


def _triples(channels: list[str]) -> dict[str, list[int]]:
    """Prefix -> columns of channels that end in x, y, z with the same prefix."""
    found: dict[str, dict[str, int]] = {}
    for i, channel in enumerate(channels):
        if match := re.fullmatch(r"(.*?)[_./ ]?([xyz])", channel):
            found.setdefault(match[1], {})[match[2]] = i
    return {p: [a["x"], a["y"], a["z"]] for p, a in found.items() if len(a) == 3}


def _width(series: Series, columns: list[int], channels: list[str]) -> Series:
    """One opening from one or several finger channels; opposite fingers are subtracted."""
    values = series.values[:, columns]
    if all(CLOSES.search(channels[i]) for i in columns if i < len(channels)):
        return Series(series.stamp_ns, -values.mean(axis=1), f"{series.source}[closing angle]")
    if len(columns) == 1:
        return _column(series, columns[0], f"[{channels[columns[0]]}]")
    first = values[:, 0] - values[:, 0].mean()
    signs = np.array([1.0 if first @ (v - v.mean()) >= 0 else -1.0 for v in values.T])
    width: Floats = (values * signs).sum(axis=1)
    return Series(series.stamp_ns, width, f"{series.source}[{len(columns)} fingers]")


def _unnamed(stream: Stream, series: Series, wide: int, home: str, finds: _Finds) -> None:
    """Vectors without channel names: by name and width of the vector, and noted."""
    name = plain(stream.name)
    if GRIP.search(name) and wide <= 2:
        finds.take(home, "width", _width(series, list(range(wide)), ["0", "1"]))
    elif wide == 3 and not NOT_PLACE.search(name) and not NOT_HAND.search(name):
        finds.take(home, "position", series)
    elif wide in (7, 14) and re.search(r"state|qpos|joint", name):
        finds.notes.append(
            f"{stream.name}: {wide} unnamed channels; every seventh is taken for a gripper"
        )
        for k, side in enumerate(("arm",) if wide == 7 else ("left", "right")):
            finds.take(side, "joints", _column(series, list(range(7 * k, 7 * k + 6))))
            finds.take(side, "width", _column(series, 7 * k + 6))
    elif wide >= 4 and re.search(r"state|qpos|joint", name):
        finds.notes.append(f"{stream.name}: {wide} unnamed channels; all are taken for joints")
        finds.take(home, "joints", series)


def _merge_sides(finds: _Finds) -> None:
    """What names no side belongs to the only arm there is."""
    loose = finds.arms.get("arm", {})
    named = [s for s in finds.arms if s != "arm"]
    if len(named) == 1:
        for role, series in loose.items():
            finds.arms[named[0]].setdefault(role, series)
        if "arm" in finds.joint_names:
            finds.joint_names.setdefault(named[0], finds.joint_names["arm"])
        finds.arms.pop("arm", None)
    elif len(named) == 2 and loose and not loose.keys() & {"position", "joints"}:
        finds.notes.append(f"{sorted(loose)}: of which arm is not told; not used")
        finds.arms.pop("arm")


def _audio(streams: Iterable[Stream]) -> Audio | None:
    for stream in streams:
        rate = stream.info.attrs.get("sample_rate_hz")
        if stream.kind is not Kind.AUDIO or not rate or len(stream) == 0:
            continue
        rows = stream["samples"]
        if isinstance(rows, Ragged):
            samples, offsets = np.asarray(rows.data, np.float64), rows.offsets[:-1]
        else:
            flat = np.asarray(rows, np.float64)
            offsets = np.arange(len(flat), dtype=np.int64) * (flat.shape[1] if flat.ndim > 1 else 1)
            samples = flat.reshape(-1, flat.shape[2]) if flat.ndim == 3 else flat.reshape(-1)
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        return Audio(mono, float(rate), offsets, stream.stamp_ns, stream.name)
    return None
