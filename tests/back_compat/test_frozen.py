"""Files of released format versions stay readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmdata import open_episode, verify_episode

FROZEN = Path(__file__).parent / "episode_1_0.h5"
T0 = 1_700_000_000_000_000_000


def test_episode_1_0() -> None:
    assert verify_episode(FROZEN).problems == []
    with open_episode(FROZEN) as ep:
        s = ep.streams
        assert ep.episode_id == "frozen"
        assert s["imu"].recorded.tolist() == [0, 1, 3, 2, *range(4, 12)]
        assert s["imu"]["angular_velocity"][:, 0].tolist() == list(range(12))
        assert abs(int(s["camera"][2].mean()) - 40) <= 1
        assert s["depth"][1].tolist() == np.arange(16, 32).reshape(4, 4).tolist()
        assert s["lidar"][1]["x"].tolist() == [0, 1, 2]
        assert int(s["lidar"][1]["rpm"]) == 601
        assert s["audio"][0].tolist() == [[0], [1], [2], [3]]
        assert s["touch"][0].shape == (2, 2)
        assert list(s["say"]) == ["hello", "wörld"]
        assert s["blob"][0] == b"\x00\x01\x02"
        assert ep.rig["camera"].parent_SE3_sensor.to_xyz_qwxyz().tolist() == [1, 2, 3, 1, 0, 0, 0]
        assert dict(ep.metadata) == {"task": "frozen"}
        assert ep.aligned("50hz").tick_ns[1] - T0 == 20_000_000
