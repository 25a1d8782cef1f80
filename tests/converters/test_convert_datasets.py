"""Every dataset format beside every other in one folder: recognised, converted, verified."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import (
    argoverse2,
    comma,
    hdf5,
    kitti,
    lerobot,
    manipulation,
    mcap,
    nuscenes,
    pandaset,
    plain,
    rlds,
)

from mmdata import open_episode, verify_episode
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources
from mmdata_schema import read_layer


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("everything")
    argoverse2.write_log(root / "av2" / "adcf7d18")
    comma.write_segment(root / "comma" / "10")
    hdf5.write_robomimic(root / "lift.hdf5")
    hdf5.write_isaac(root / "stack.hdf5")
    hdf5.write_aloha(root / "episode_0.hdf5", compress=True)
    hdf5.write_libero(root / "drawer_demo.hdf5")
    hdf5.write_robomind(root / "robomind" / "trajectory.hdf5")
    hdf5.write_robomind2(root / "robomind2/success_episodes/0416_1/data/trajectory.hdf5", 12)
    kitti.write_raw(root / "kitti")
    kitti.write_object(root / "object" / "training")
    kitti.write_tracking(root / "tracking" / "training")
    lerobot.write_v21(root / "lerobot21")
    lerobot.write_v30(root / "lerobot30")
    lerobot.write_v16(root / "lerobot16")
    manipulation.write_droid(root / "droid" / "Fri_Jul__7")
    manipulation.write_umi(root / "umi.zarr.zip")
    manipulation.write_reassemble(root / "reassemble.h5")
    manipulation.write_agibot(root / "agibot")
    manipulation.write_agibot_digital(root / "digital")
    manipulation.write_agibot_flat(root / "job" / "A2D0015" / "12052353")
    mcap.write_mcap(root / "run.mcap")
    nuscenes.write_nuscenes(root / "nuscenes")
    pandaset.write_sequence(root / "pandaset" / "002")
    plain.write_plain(root / "plain")
    rlds.write_rlds(root / "toy" / "1.0.0")
    rlds.write_variants(root / "variants" / "1.0.0")
    return root


#: Format -> episodes that the folder holds of it.
EPISODES = {
    "argoverse2": 1, "comma2k19": 1, "robomimic": 7, "aloha": 1, "robomind": 2, "kitti": 4,
    "lerobot": 6, "droid": 1, "umi": 2, "reassemble": 1, "agibot": 3, "mcap": 1, "nuscenes": 2,
    "pandaset": 1, "folder": 1, "rlds": 3,
}  # fmt: skip
LABELLED = {
    "argoverse2", "kitti", "lerobot", "droid", "reassemble", "agibot", "mcap", "nuscenes",
    "pandaset", "rlds", "robomimic", "robomind",
}  # fmt: skip


def test_all_are_found(everything: Path) -> None:
    found = find_sources([everything])
    counts: dict[str, int] = {}
    for source in found.sources:
        counts[source.format] = counts.get(source.format, 0) + 1
    assert counts == EPISODES
    assert found.unreadable == []
    assert len({s.episode_id for s in found.sources}) == len(found.sources)


@pytest.mark.parametrize("name", sorted(EPISODES))
def test_each_is_converted(everything: Path, tmp_path: Path, name: str) -> None:
    sources = [s for s in find_sources([everything]).sources if s.format == name]
    for source in (sources[0], sources[-1]):
        result = convert_source(source, tmp_path, overwrite=True)
        (made,) = result.episodes
        assert verify_episode(made.path).problems == []
        for facts in result.topics.values():
            dropped = sum(d.count for d in result.dropped if d.topic in facts["streams"])
            assert facts["samples"] + dropped <= facts["messages"]
        with open_episode(made.path) as episode:
            assert episode.streams
            assert episode.provenance["sources"]
            assert bool(episode.annotations) is (name in LABELLED)
            for layer, document in episode.annotations.items():
                assert layer == name
                read_layer(document)
