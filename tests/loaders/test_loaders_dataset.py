"""EpisodeDataset: windows, masks, filters, labels, the index; forks, spawns, threads, memory."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_episodes import MS, T0, write_demo, write_phases

from mmdata import EpisodeWriter, Kind, StreamInfo, open_episode
from mmdata.errors import ConfigError, FormatError
from mmdata.loaders import (
    BatchSampler,
    EpisodeDataset,
    SampleSpec,
    Sequential,
    Shuffle,
    items,
    iterate,
)
from mmdata.loaders.index import INDEX_NAME, find_episodes, load_index
from mmdata.loaders.spec import SweepSpec
from mmdata.loaders.sweeps import fixed_points
from mmdata.media import encode_jpeg
from mmdata.store import FileBytes

ALL: dict[str, Any] = {
    "front": {"stream": "camera_front", "at": [-0.1, 0.0]},
    "wrist": {"stream": "camera_wrist"},
    "state": {"stream": "joint_states"},
    "depth": {"stream": "depth"},
    "lidar": {"stream": "lidar", "sweep": {"fields": ("x", "y", "z"), "points": 128}},
    "audio": {"stream": "audio", "at": {"start_s": -0.1, "steps": 300}},
    "touch": {"stream": "tactile", "at": [-0.05, 0.0]},
    "words": {"stream": "speech"},
    "pose": {"stream": "eef_pose", "policy": "slerp", "target": True},
    "action": {"stream": "command", "at": {"steps": 16, "rate_hz": 30}, "target": True},
}


def _spec(keys: dict[str, Any] | None = None, **more: Any) -> SampleSpec:
    return SampleSpec.model_validate({"timeline": {"rate_hz": 30}, "keys": keys or ALL, **more})


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        return np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return bool(a == b)


# -- windows ---------------------------------------------------------------------------------


def test_samples_hold_what_the_streams_hold(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec())
    for n in (0, 31, len(dataset) - 1):
        sample = dataset[n]
        with open_episode(dataset.episodes[sample["episode"]].path) as episode:
            streams, tick = episode.streams, int(sample["tick_ns"])
            for k, offset in enumerate((-100 * MS, 0)):
                frame = streams["camera_front"].at(tick + offset)
                if frame is not None:
                    assert np.array_equal(sample["front"][k], frame.transpose(2, 0, 1))
                assert sample["front.mask"][k] == (frame is not None)
            wrist = streams["camera_wrist"].at(tick)
            assert np.array_equal(sample["wrist"], wrist.transpose(2, 0, 1))
            row = streams["joint_states"].at(tick)
            joined = np.concatenate([row["position"], row["velocity"]]).astype(np.float32)
            assert np.array_equal(sample["state"], joined)
            assert np.array_equal(sample["depth"][0], streams["depth"].at(tick))
            assert np.array_equal(sample["touch"][1], streams["tactile"].at(tick))
            assert sample["words"] == streams["speech"].at(tick)
            command = streams["command"]
            for k in range(16):
                at = tick + round(k * 1e9 / 30)
                end = max(int(command.end_ns), int(dataset._episode(sample["episode"]).tick_ns[-1]))
                assert sample["action.mask"][k] == (at <= end)
                held = sample["action"][k - 1] if at > end else command.at(at)
                assert np.array_equal(sample["action"][k], held)
            # Audio counts its samples: the ramp says which one each slot holds.
            for k in (0, 150, 299):
                at = tick + round((-0.1 + k / 8000) * 1e9)
                if at >= T0:
                    assert sample["audio"][k, 0] == int((at - T0) * 8e-6 + 1e-6)


def test_slerp_and_linear_by_hand(demos: Path) -> None:
    keys = {"pose": {"stream": "eef_pose", "policy": "slerp", "dtype": "float64", "target": True}}
    dataset = EpisodeDataset(demos, _spec(keys))
    for n in (5, 40):
        sample = dataset[n]
        angle = (int(sample["tick_ns"]) - T0) / 1e9 / 2
        # The demo turns about z at a constant rate and moves in x at it.
        assert np.allclose(sample["pose"][:2], [angle, -angle], atol=1e-9)
        turn = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        assert np.allclose(sample["pose"][3:], turn, atol=1e-6)


def test_before_the_start_padding_is_masked_and_held(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "e.h5") as writer:
        t = T0 + np.arange(10, dtype=np.int64) * 100 * MS
        writer.append("a", t, {"data": np.arange(10.0)})
        writer.append("late", t[4:] + 1, {"data": np.arange(6.0)})
    keys = {
        "a": {"stream": "a", "at": [-0.2, 0.0, 0.2]},
        "zero": {"stream": "a", "at": [-0.2, 0.0], "pad": "zero"},
        "late": {"stream": "late", "at": [-0.1, 0.0]},
    }
    raw = {
        "timeline": {"reference_stream": "a"}, "keys": keys, "filters": {"complete": False},
    }  # fmt: skip
    raw["keys"]["a"]["target"] = True
    dataset = EpisodeDataset([tmp_path / "e.h5"], SampleSpec.model_validate(raw))
    assert len(dataset) == 10
    first, last = dataset[0], dataset[9]
    assert first["a"].tolist() == [0, 0, 2]
    assert first["a.mask"].tolist() == [False, True, True]
    assert last["a"].tolist() == [7, 9, 9]
    assert last["a.mask"].tolist() == [True, True, False]
    assert first["zero"].tolist() == [0, 0]
    assert dataset[1]["zero"].tolist() == [0, 1]
    assert dataset[1]["zero.mask"].tolist() == [False, True]
    assert first["late.mask"].tolist() == [False, False]
    assert first["late"].tolist() == [0, 0]
    assert dataset[5]["late"].tolist() == [0, 0]
    assert dataset[5]["late.mask"].tolist() == [False, True]
    raw["filters"] = {"complete": True}
    complete = EpisodeDataset([tmp_path / "e.h5"], SampleSpec.model_validate(raw))
    assert [int(complete[n]["tick"]) for n in range(len(complete))] == [6, 7, 8, 9]


def test_a_batch_is_its_samples_stacked(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec())
    numbers = [3, 60, 3, len(dataset) - 1, 100]
    batch = dataset.batch(numbers)
    for b, n in enumerate(numbers):
        for name, value in dataset[n].items():
            assert _same(batch[name][b], value), name
    assert dataset[-1]["tick"] == dataset[len(dataset) - 1]["tick"]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_stored_timeline_and_reference(demos: Path, tmp_path: Path) -> None:
    from mmdata.align import build_timeline
    from mmdata.store import write_timeline

    path = Path(shutil.copy(demos / "demo_0.h5", tmp_path / "a.h5"))
    with open_episode(path) as episode:
        timeline = build_timeline(episode.streams, rate_hz=20)
    write_timeline(path, timeline)
    spec = _spec({"state": {"stream": "joint_states"}}, timeline={"name": "20hz"})
    dataset = EpisodeDataset([path], spec)
    assert dataset._ends[-1] == len(dataset)
    ticks = {int(dataset[n]["tick_ns"]) for n in range(len(dataset))}
    assert ticks <= set(timeline.tick_ns.tolist())
    assert len(dataset) >= len(timeline) - 2
    missing = _spec({"state": {"stream": "joint_states"}}, timeline={"name": "50hz"})
    with pytest.raises(ConfigError, match="no timeline '50hz'"):
        EpisodeDataset([path], missing)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"a": {"stream": "nothing"}}, "no stream"),
        ({"a": {"stream": "joint_states", "fields": ["torque"]}}, "no field 'torque'"),
        ({"a": {"stream": "lidar"}}, "sweep"),
        ({"a": {"stream": "joint_states", "image": {}}}, "does not fit"),
        ({"a": {"stream": "joint_states", "normalise": "mean_std"}}, "statistics"),
        ({"a": {"stream": "camera_front", "policy": "linear"}}, "signals only"),
        ({"a": {"stream": "joint_states", "at": {"steps": 3}}}, "rate_hz"),
    ],
)
def test_specs_that_do_not_fit_say_so(demos: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EpisodeDataset(demos, _spec(keys))[0]


# -- filters and labels ----------------------------------------------------------------------


def test_phases_instructions_success_and_filters(tmp_path: Path) -> None:
    only = ("joint_states", "command")
    for n, grade in enumerate(("A", "C", None)):
        write_demo(
            tmp_path / f"d_{n}.h5", n, 3.0, only=only,
            metadata={"task": "pick", "outcome": "failure" if n == 1 else "success"},
        )  # fmt: skip
        write_phases(
            tmp_path / f"d_{n}.anna.json", f"d_{n}", [0, 1000, 2000, 2500],
            ["reach", "grasp", "lift"], grade,
        )  # fmt: skip
    labels = {
        "phase": {"kind": "phase", "tier": "motion", "classes": ["reach", "grasp"], "at": 0.0},
        "next": {"kind": "phase", "classes": ["reach", "grasp"], "at": [0.0, 0.5]},
        "text": {"kind": "instruction"},
        "success": {"kind": "success"},
        "task": {"kind": "metadata", "name": "task"},
    }
    keys = {"state": {"stream": "joint_states"}}
    dataset = EpisodeDataset(tmp_path, _spec(keys, labels=labels))
    for n in range(0, len(dataset), 7):
        sample = dataset[n]
        after = int(sample["tick_ns"]) - T0
        assert sample["phase"] == (0 if after < 1000 * MS else 1 if after < 2000 * MS else -1)
        later = after + 500 * MS
        assert sample["next"][1] == (0 if later < 1000 * MS else 1 if later < 2000 * MS else -1)
        inside = 1000 * MS <= after < 2000 * MS
        assert sample["text"] == ("pick it up" if inside else "pick")
        assert sample["success"] == (0 if sample["episode"] == 1 else 1)
        assert sample["task"] == "pick"
    batch = dataset.batch([0, 200])
    assert batch["text"][0] == "pick"
    assert batch["next"].shape == (2, 2)
    grasp = EpisodeDataset(
        tmp_path, _spec(keys, filters={"phase": {"labels": ["grasp"], "tier": "motion"}})
    )
    stamps = np.array([int(grasp[n]["tick_ns"]) - T0 for n in range(len(grasp))])
    assert len(grasp) == 90
    assert ((stamps >= 1000 * MS) & (stamps < 2000 * MS)).all()
    good = EpisodeDataset(tmp_path, _spec(keys, filters={"min_grade": "B"}))
    assert [f.episode_id for f in good.episodes] == ["d_0"]
    fair = EpisodeDataset(tmp_path, _spec(keys, filters={"min_grade": "C"}))
    assert [f.episode_id for f in fair.episodes] == ["d_0", "d_1"]
    won = EpisodeDataset(tmp_path, _spec(keys, filters={"metadata": {"outcome": ["success"]}}))
    assert [f.episode_id for f in won.episodes] == ["d_0", "d_2"]
    with pytest.raises(ConfigError, match="no episode passes"):
        EpisodeDataset(tmp_path, _spec(keys, filters={"metadata": {"outcome": ["?"]}}))


def test_residual_filter_keeps_what_is_near(demos: Path) -> None:
    keys = {"front": {"stream": "camera_front"}}
    every = EpisodeDataset(demos, _spec(keys))
    near = EpisodeDataset(demos, _spec(keys, filters={"max_residual_ms": 10}))
    expected = []
    for n in range(len(every)):
        episode, _ = every.locate(n)
        with open_episode(every.episodes[episode].path) as ep:
            stamps, tick = ep.streams["camera_front"].stamp_ns, int(every[n]["tick_ns"])
            if tick - stamps[np.searchsorted(stamps, tick, side="right") - 1] <= 10 * MS:
                expected.append(tick)
    got = [int(near[n]["tick_ns"]) for n in range(len(near))]
    assert got == expected
    assert 0 < len(near) < len(every)


# -- splits ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.1, 0.9))
def test_splits_are_stable_disjoint_and_about_right(seed: int, share: float) -> None:
    from mmdata.loaders.splits import assign

    fractions = {"train": share, "val": 1 - share}
    names = [assign(f"episode_{n}", fractions, seed) for n in range(400)]
    assert abs(names.count("train") / 400 - share) < 0.12
    assert names[:50] == [assign(f"episode_{n}", fractions, seed) for n in range(50)]


def test_split_datasets_cover_all_episodes(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec({"state": {"stream": "joint_states"}}))
    for seed in range(20):
        try:
            parts = dataset.split({"train": 0.5, "val": 0.5}, seed)
        except ConfigError:
            continue  # three episodes may all fall on one side
        ids = [f.episode_id for part in parts.values() for f in part.episodes]
        assert sorted(ids) == ["demo_0", "demo_1", "demo_2"]
        assert sum(len(p) for p in parts.values()) == len(dataset)
        assert parts["val"].split_name == "val"
        return
    pytest.fail("no seed splits three episodes in two")


# -- index -----------------------------------------------------------------------------------


def test_index_is_used_and_renewed_where_files_change(tmp_path: Path, demos: Path) -> None:
    for n in range(3):
        shutil.copy(demos / f"demo_{n}.h5", tmp_path / f"e_{10 - n}.h5")
    facts = load_index(tmp_path)
    assert [Path(f.path).name for f in facts] == ["e_8.h5", "e_9.h5", "e_10.h5"]
    index = tmp_path / INDEX_NAME
    document = json.loads(index.read_text())
    document["metadata"].append({"told": "by the index"})
    document["episodes"]["metadata"][0] = len(document["metadata"]) - 1
    index.write_text(json.dumps(document))
    again = load_index(tmp_path)
    assert again[0].metadata == {"told": "by the index"}
    assert again[1:] == facts[1:]
    os.utime(tmp_path / "e_8.h5", ns=(1, 1))
    assert load_index(tmp_path)[0].metadata["task"] == "pick"
    (tmp_path / "e_9.h5").unlink()
    assert len(load_index(tmp_path)) == 2
    index.write_text("{broken")
    with pytest.raises(FormatError, match="delete it"):
        load_index(tmp_path)


def test_sources(demos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "train.txt"
    manifest.write_text(f"# two of them\n{demos / 'demo_1.h5'}\n{demos / 'demo_0.h5'}  # first\n")
    assert [Path(p).stem for p in find_episodes(manifest)[0]] == ["demo_1", "demo_0"]
    assert len(find_episodes([demos / "demo_0.h5"])[0]) == 1
    with pytest.raises(ConfigError, match="no episodes"):
        find_episodes(tmp_path)
    with pytest.raises(ConfigError, match="twice"):
        find_episodes([demos / "demo_0.h5", demos / "demo_0.h5"])


def test_fingerprint_is_of_content_not_of_place(demos: Path, tmp_path: Path) -> None:
    spec = _spec({"state": {"stream": "joint_states"}})
    for n in (0, 1):
        shutil.copy(demos / f"demo_{n}.h5", tmp_path / f"demo_{n}.h5")
    here = EpisodeDataset([demos / "demo_0.h5", demos / "demo_1.h5"], spec)
    there = EpisodeDataset(tmp_path, spec)
    assert here.fingerprint == there.fingerprint
    assert here.fingerprint != EpisodeDataset(demos, spec).fingerprint


def test_counts_are_kept_for_many_episodes(tmp_path: Path) -> None:
    write_demo(tmp_path / "e_0.h5", 0, 1.0, only=("joint_states",))
    for n in range(1, 70):
        os.link(tmp_path / "e_0.h5", tmp_path / f"e_{n}.h5")
    spec = _spec({"state": {"stream": "joint_states", "tolerance_ms": 30}})
    first = EpisodeDataset(tmp_path, spec)
    kept = list(tmp_path.glob("mmdata-counts.*.json"))
    assert len(kept) == 1
    assert json.loads(kept[0].read_text()) == first.counts.tolist()
    kept[0].write_text(json.dumps([1] * 70))
    assert len(EpisodeDataset(tmp_path, spec)) == 70, "kept counts are believed"
    other = _spec({"state": {"stream": "joint_states", "tolerance_ms": 9}})
    assert len(EpisodeDataset(tmp_path, other)) > 70


# -- processes, threads, memory --------------------------------------------------------------


def _child(dataset: EpisodeDataset, numbers: list[int], queue: Any) -> None:
    try:
        queue.put([dataset[n]["wrist"].tobytes() + dataset[n]["state"].tobytes() for n in numbers])
    except Exception as error:  # the parent must see it, whatever it is
        queue.put(repr(error))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_children_read_the_same_after_the_parent_has_read(demos: Path, start: str) -> None:
    dataset = EpisodeDataset(demos, _spec())
    numbers = [4, 90, 33]
    expected = [dataset[n]["wrist"].tobytes() + dataset[n]["state"].tobytes() for n in numbers]
    context = mp.get_context(start)
    queue = context.Queue()
    children = [context.Process(target=_child, args=(dataset, numbers, queue)) for _ in range(2)]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    assert results == [expected, expected]


def test_any_number_of_threads_gives_the_same_batch(demos: Path) -> None:
    one = EpisodeDataset(demos, _spec(), threads=1)
    many = EpisodeDataset(demos, _spec(), threads=5)
    numbers = np.random.default_rng(2).integers(0, len(one), 24).tolist()
    for near in (False, True):
        many.expect(near)
        for name, value in one.batch(numbers).items():
            assert _same(many.batch(numbers)[name], value), name
        for name, value in one[7].items():
            assert _same(many[7][name], value), name


def test_what_fails_in_a_thread_is_raised(tmp_path: Path) -> None:
    stamps = T0 + np.arange(40, dtype=np.int64) * MS
    images = [b"\xff\xd8\xff no image"] * 20 + [encode_jpeg(np.zeros((9, 9), np.uint8))] * 20
    with EpisodeWriter(tmp_path / "e.h5") as writer:
        writer.add_stream(StreamInfo("cam", Kind.IMAGE, {}, encoding="jpeg"))
        writer.append("cam", stamps, images[::-1])
    timeline = {"reference_stream": "cam"}
    spec = SampleSpec.model_validate({"timeline": timeline, "keys": {"cam": {"stream": "cam"}}})
    dataset = EpisodeDataset(tmp_path, spec, threads=4)
    for _ in range(3):
        with pytest.raises(FormatError, match="no decodable image"):
            dataset.batch(range(40))
    assert dataset.batch(range(20))["cam"].shape == (20, 1, 9, 9)


def test_pickled_dataset_is_small_and_equal(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec())
    dataset[10]
    data = pickle.dumps(dataset)
    assert len(data) < 50_000
    assert _same(pickle.loads(data)[10]["front"], dataset[10]["front"])


def test_threads_share_a_dataset(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec(), frame_bytes=200_000, episode_bytes=1)
    dataset.expect(near=True)
    expected = {n: dataset[n]["wrist"].tobytes() for n in range(0, len(dataset), 11)}
    wrong: list[int] = []

    def read(seed: int) -> None:
        for n in np.random.default_rng(seed).permutation(list(expected)):
            if dataset[int(n)]["wrist"].tobytes() != expected[int(n)]:
                wrong.append(int(n))

    threads = [threading.Thread(target=read, args=(s,)) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_held_is_bounded(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec(), episode_bytes=1, frame_bytes=100_000)
    dataset.expect(near=True)
    for n in range(0, len(dataset), 5):
        dataset[n]
        assert len(dataset._held) == 1
        assert dataset._caches.frames.nbytes <= 100_000
    roomy = EpisodeDataset(demos, _spec())
    for n in range(0, len(roomy), 5):
        roomy[n]
    assert len(roomy._held) == 3
    assert roomy._held_bytes == sum(d.nbytes for d in roomy._held.values())


@pytest.mark.parametrize("threads", [0, 3])
def test_iterate_is_the_samplers_order_and_resumes(demos: Path, threads: int) -> None:
    dataset = EpisodeDataset(demos, _spec({"state": {"stream": "joint_states"}}))
    sampler = BatchSampler(Shuffle(len(dataset), 5), 16)
    expected = [dataset.batch(numbers)["state"] for numbers in BatchSampler(sampler.order, 16)]
    reading = iterate(dataset, sampler, threads=threads)
    got = [next(reading)["state"] for _ in range(4)]
    state = sampler.state_dict()
    assert state["position"] == 4
    resumed = BatchSampler(Shuffle(len(dataset), 5), 16)
    resumed.load_state_dict(state)
    got += [batch["state"] for batch in iterate(dataset, resumed, threads=threads)]
    assert len(got) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_nothing_reads_through_hdf5_once_an_episode_is_loaded(
    demos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth, sweeps, audio and frames come by positioned reads, outside the HDF5 lock."""
    import h5py

    dataset = EpisodeDataset(demos, _spec())
    expected = [dataset[n] for n in (0, 40)]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("HDF5 was called")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", refuse)
    monkeypatch.setattr(h5py, "File", refuse)
    for want, n in zip(expected, (0, 40), strict=True):
        assert all(_same(value, dataset[n][name]) for name, value in want.items())


# -- chunks and sweeps -----------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 3000),
    profile=st.sampled_from(["default", "interchange"]),
    dtype=st.sampled_from(["<f4", "<u2", "<i8"]),
    data=st.data(),
)
def test_chunk_tables_read_what_hdf5_reads(
    tmp_path_factory: pytest.TempPathFactory, n: int, profile: Any, dtype: str, data: Any
) -> None:
    path = tmp_path_factory.mktemp("chunks") / "e.h5"
    values = np.random.default_rng(n).integers(0, 1000, (n, 20)).astype(dtype)
    with EpisodeWriter(path, profile=profile) as writer:
        writer.append("a", T0 + np.arange(n, dtype=np.int64), {"data": values})
    with open_episode(path) as episode:
        table = episode.streams["a"].arrays["data"].chunks()
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start, n))
    rows = table.read(FileBytes(path), start, stop)
    assert rows.dtype == values.dtype
    assert np.array_equal(rows, values[start:stop])


def test_signals_too_big_to_hold_read_the_same_through_a_bounded_cache(
    demos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _spec({n: ALL[n] for n in ("state", "touch", "action")})
    whole = EpisodeDataset(demos, wanted)
    monkeypatch.setattr(items, "_WHOLE_FIELD_BYTES", 100)
    chunked = EpisodeDataset(demos, wanted)
    order = np.random.default_rng(0).permutation(len(whole))[:60].tolist()
    for n in order:
        assert all(_same(chunked[n][k], v) for k, v in whole[n].items())
    assert all(_same(chunked.batch(order)[k], v) for k, v in whole.batch(order).items())
    assert isinstance(chunked._episode(0).items["state"], items.ChunkedItems)
    assert chunked._caches.chunks.nbytes > 0
    small = EpisodeDataset(demos, wanted)
    cache = small._caches.chunks
    cache.limit_bytes = 20_000
    for n in order:
        assert all(_same(small[n][k], v) for k, v in whole[n].items())
        assert cache.nbytes <= 20_000


def test_a_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    with EpisodeWriter(path) as writer:
        writer.append("a", T0 + np.arange(500, dtype=np.int64), {"data": np.arange(500.0)})
    with open_episode(path) as episode:
        table = episode.streams["a"].arrays["data"].chunks()
    content = bytearray(path.read_bytes())
    content[int(table.offset[0]) + 40] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FormatError, match="damaged"):
        table.read(FileBytes(path), 0, 10)


@given(
    points=st.integers(1, 40),
    n=st.integers(0, 80),
    mode=st.sampled_from(["pad", "sample", "voxel"]),
    seed=st.integers(0, 99),
)
def test_sweeps_have_a_fixed_number_of_real_points(
    points: int, n: int, mode: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sweep = {f: rng.uniform(-3, 3, n).astype(np.float32) for f in "xyzi"}
    if n > 2:
        sweep["x"][1] = np.nan
    spec = SweepSpec(
        fields=("x", "y", "z", "i"), points=points, mode=mode,
        voxel_m=1.5 if mode == "voxel" else None, bounds=((-2, -2, -2), (2, 2, 2)),
    )  # fmt: skip
    value, mask = fixed_points(sweep, spec)
    again, _ = fixed_points({k: v.copy() for k, v in sweep.items()}, spec)
    assert np.array_equal(value, again)
    raw = np.stack([sweep[f] for f in "xyzi"], 1)
    inside = raw[(np.abs(raw[:, :3]) < 2).all(1)]
    if mode == "voxel":
        cells = {tuple(c) for c in np.floor(inside[:, :3].astype(float) / 1.5).astype(int)}
        assert mask.sum() == min(points, len(cells))
        if len(cells) <= points and len(inside):
            one = np.floor(value[0, :3].astype(float) / 1.5)
            members = inside[(np.floor(inside[:, :3].astype(float) / 1.5) == one).all(1)]
            assert np.allclose(value[0], members.mean(0), atol=1e-5)
    else:
        assert mask.sum() == min(points, len(inside))
        kept = {tuple(p) for p in value[mask]}
        assert len(kept) == mask.sum()
        assert kept <= {tuple(p) for p in inside}
        if mode == "pad":
            assert np.array_equal(value[mask], inside[:points])
    assert not value[~mask].any()


def test_sequential_reads_in_true_order(demos: Path) -> None:
    dataset = EpisodeDataset(demos, _spec({"state": {"stream": "joint_states"}}))
    sampler = BatchSampler(Sequential(len(dataset)), 32)
    stamps = np.concatenate([b["episode"] * 10**12 + b["tick"] for b in iterate(dataset, sampler)])
    assert (np.diff(stamps) > 0).all()
