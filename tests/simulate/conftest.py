"""One rendered episode serves all tests of this folder."""

from __future__ import annotations

import pytest

from mmdata import simulate


@pytest.fixture(scope="session")
def episode() -> simulate.SimEpisode:
    return simulate.pick_place(seed=1)


@pytest.fixture(scope="session")
def signals() -> simulate.SimEpisode:
    """The same episode without what is slow to make."""
    names = ("joint_states", "eef_pose", "command_eef_pose", "command_gripper", "wrench", "tactile")
    return simulate.pick_place(seed=1, streams=(*names, "imu", "audio"))
