"""Synthetic recordings with known truth, and fault injection.

>>> episode = pick_place(seed=3, faults={"camera_front": StreamFaults(offset_ns=80_000_000)})
>>> write_mcap("demo_003", episode)

See docs/conventions.md for frames and stamps, and `SimEpisode.truth` for what is known.
"""

from mmdata.simulate.drive import drive
from mmdata.simulate.episode import SimEpisode, SimMessage, SimStream, write_truth
from mmdata.simulate.faults import StreamFaults, inject
from mmdata.simulate.pick_place import pick_place
from mmdata.simulate.rosbag import write_mcap

__all__ = [
    "SimEpisode",
    "SimMessage",
    "SimStream",
    "StreamFaults",
    "drive",
    "inject",
    "pick_place",
    "write_mcap",
    "write_truth",
]
