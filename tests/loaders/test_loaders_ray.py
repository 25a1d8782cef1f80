"""The Ray source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'mmdata[ray]'")

from mmdata.loaders import EpisodeDataset, SampleSpec  # noqa: E402

SPEC = SampleSpec.model_validate(
    {
        "timeline": {"rate_hz": 10},
        "keys": {"front": {"stream": "camera_front"}, "state": {"stream": "joint_states"}},
    }
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_reads_every_sample_in_order(demos: Path) -> None:
    from mmdata.loaders.ray import EpisodeSource, read_episodes

    dataset = EpisodeDataset(demos, SPEC)
    tasks = EpisodeSource(dataset).get_read_tasks(2)
    assert 1 < len(tasks) <= 3
    assert sum(t.metadata.num_rows for t in tasks) == len(dataset)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        rows = list(read_episodes(dataset).iter_rows())
    finally:
        ray.shutdown()
    place = [(r["episode"], r["tick"]) for r in rows]
    assert place == [
        (int(dataset[n]["episode"]), int(dataset[n]["tick"])) for n in range(len(dataset))
    ]
    for n in (0, 11, len(dataset) - 1):
        assert np.array_equal(np.asarray(rows[n]["front"]), dataset[n]["front"])
        assert np.array_equal(np.asarray(rows[n]["state"]), dataset[n]["state"])
