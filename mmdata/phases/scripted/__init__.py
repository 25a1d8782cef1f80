"""Scripted motions with known phases, for tests, tuning and benchmarks; not a physics simulator.

What varies: speed profile (first-order approach as of a position controller, or minimum jerk as of
a person), gains, pauses, how far corners are blended, tremor, sensor noise, rate and jitter of
stamps, gripper speed and delay, width and weight of the object, sign and bias of the force sensor.
Truth follows the convention of docs/phases.md.
"""

from mmdata.phases.scripted.bases import driving, locomotion
from mmdata.phases.scripted.play import Move, perform
from mmdata.phases.scripted.style import Style, Take, keep_only, random_style
from mmdata.phases.scripted.tasks import FAMILIES, pick_place, pick_place_script, take_of
from mmdata.phases.scripted.teleop import teleoperated

__all__ = [
    "FAMILIES",
    "Move",
    "Style",
    "Take",
    "driving",
    "keep_only",
    "locomotion",
    "perform",
    "pick_place",
    "pick_place_script",
    "random_style",
    "take_of",
    "teleoperated",
]
