"""Counting samples from the index gives what judging every tick gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loader_episodes import T0, write_demo

from mmdata import EpisodeWriter, Kind, StreamInfo
from mmdata.loaders import EpisodeDataset, SampleSpec, counting
from mmdata.loaders.index import read_facts

STREAMS = ("joint_states", "command", "gripper", "speech", "tactile")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("counting") / "e.h5", 3, 2.0, only=STREAMS)


KEY = st.fixed_dictionaries(
    {
        "stream": st.sampled_from(STREAMS),
        "at": st.one_of(
            st.floats(-1.5, 0.3), st.lists(st.floats(-2.5, 0.5), min_size=1, max_size=3)
        ),
        "target": st.sampled_from([False, False, True]),
    }
)
TIMELINE = st.one_of(
    st.fixed_dictionaries(
        {"rate_hz": st.sampled_from([7.3, 30, 200]), "span": st.sampled_from(STREAMS)}
    ),
    st.fixed_dictionaries({"reference_stream": st.sampled_from(STREAMS)}),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(timeline=TIMELINE, keys=st.lists(KEY, min_size=1, max_size=3), complete=st.booleans())
def test_facts_count_as_judging_does(
    demo: Path, timeline: dict[str, Any], keys: list[dict[str, Any]], complete: bool
) -> None:
    asked = {
        "timeline": timeline, "keys": {f"k{n}": key for n, key in enumerate(keys)},
        "filters": {"complete": complete},
    }  # fmt: skip
    spec = SampleSpec.model_validate(asked)
    judged = counting._count((str(demo), spec, ()))
    known = counting.count_from_facts(read_facts(str(demo)), spec)
    assert known is None or known == judged
    if "rate_hz" in timeline:
        assert known == judged, "on a grid the index always tells"


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance_ms": 30},
        {"policy": "nearest"},
        {"filters": {"max_residual_ms": 5}},
        {"delay_ms": 20},
        {"timeline": {"reference_stream": "joint_states"}, "stream": "gripper"},
    ],
)
def test_what_the_index_cannot_tell_is_judged(demo: Path, change: dict[str, Any]) -> None:
    key = {"stream": change.get("stream", "joint_states")}
    key |= {k: change[k] for k in ("tolerance_ms", "policy") if k in change}
    spec = SampleSpec.model_validate(
        {"timeline": {"rate_hz": 50}, "keys": {"a": key}}
        | {k: change[k] for k in ("filters", "delay_ms", "timeline") if k in change}
    )
    assert counting.count_from_facts(read_facts(str(demo)), spec) is None
    assert len(EpisodeDataset([demo], spec)) == counting._count((str(demo), spec, ()))


def test_a_first_opening_reads_each_episode_once(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(70):
        (tmp_path / f"e_{n}.h5").hardlink_to(demo)

    def judge(job: Any) -> int:
        raise AssertionError("an episode was opened to count its samples")

    monkeypatch.setattr(counting, "_count", judge)
    asked = {"timeline": {"rate_hz": 50}, "keys": {"a": {"stream": "gripper"}}}
    dataset = EpisodeDataset(tmp_path, SampleSpec.model_validate(asked))
    assert 0 < len(dataset) == 70 * dataset.counts[0]
    assert not list(tmp_path.glob("mmdata-counts.*"))


def test_audio_does_not_make_a_tick_incomplete(tmp_path: Path) -> None:
    write_demo(tmp_path / "e.h5", 1, 1.0, only=("joint_states", "audio"))
    keys = {"a": {"stream": "joint_states"}, "sound": {"stream": "audio", "at": [-0.5, 0.0]}}
    asked = {"timeline": {"rate_hz": 50}, "keys": keys}
    with_audio = EpisodeDataset([tmp_path / "e.h5"], SampleSpec.model_validate(asked))
    del keys["sound"]
    without = EpisodeDataset([tmp_path / "e.h5"], SampleSpec.model_validate(asked))
    assert len(with_audio) == len(without)


def test_audio_is_found_whichever_episode_has_it(tmp_path: Path) -> None:
    """A stream that is a signal in one robot's episodes and audio in another's."""
    t = T0 + np.arange(50, dtype=np.int64) * 10_000_000
    for n, kind in enumerate(("signal", "audio", "audio")):
        with EpisodeWriter(tmp_path / f"e_{n}.h5") as writer:
            writer.append("state", t, {"data": np.zeros((50, 2))})
            if kind == "audio":
                attrs = {"sample_rate_hz": 8000}
                writer.add_stream(StreamInfo("sound", Kind.AUDIO, {}, attrs=attrs))
                writer.append("sound", t[20:], [np.zeros((80, 1), np.int16)] * 30)
            else:
                writer.append("sound", t, {"data": np.zeros((50, 1), np.int16)})
                writer.append("more", t, {"data": np.zeros((50, 1), np.int16)})
    asked = {
        "timeline": {"reference_stream": "state"},
        "keys": {"state": {"stream": "state"}, "sound": {"stream": "sound"}},
    }
    dataset = EpisodeDataset(tmp_path, SampleSpec.model_validate(asked))
    assert dataset.counts.tolist() == [50, 50, 50]
    assert dataset[149]["tick"] == 49
