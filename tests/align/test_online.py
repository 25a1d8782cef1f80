"""What a robot sees equals what training saw, to the bit; and nothing depends on the future."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata import EpisodeWriter, Kind, open_episode
from mmdata.align.online import OnlineAligner, Query, grid_ticks, hold, lookup
from mmdata.errors import ConfigError, SyncError
from mmdata.loaders import EpisodeDataset, Recipe, SampleSpec, compute_statistics

sys.path.insert(0, str(Path(__file__).parents[1] / "loaders"))
from loader_episodes import write_demo

MS = 1_000_000
STAMPS = st.lists(st.integers(0, 1000), min_size=0, max_size=30).map(
    lambda v: np.array(sorted(v), np.int64)
)


# -- ticks -----------------------------------------------------------------------------------


@given(
    rate=st.sampled_from([1.0, 7.0, 29.97, 30.0, 33.3, 100.0, 0.5]),
    start=st.integers(0, 10**19 // 8),
    length=st.integers(0, 10**10),
)
def test_grid_ticks_lie_on_one_grid_whatever_the_start(
    rate: float, start: int, length: int
) -> None:
    ticks = grid_ticks(start, start + length, rate)
    assert ((ticks >= start) & (ticks <= start + length)).all()
    later = grid_ticks(start + length // 3, start + length, rate)
    assert np.array_equal(later, ticks[len(ticks) - len(later) :])
    if len(ticks) > 1:
        assert np.abs(np.diff(ticks) - 1e9 / rate).max() < 2
    assert abs(len(ticks) - length * rate / 1e9) <= 1.001


def test_grid_ticks_by_hand() -> None:
    assert grid_ticks(0, 100 * MS, 30).tolist() == [0, 33_333_333, 66_666_666, 100_000_000]
    assert grid_ticks(1, 10**9, 1).tolist() == [10**9]
    assert grid_ticks(5, 4, 30).tolist() == []
    with pytest.raises(ConfigError):
        grid_ticks(0, 1, 0.0)


# -- look-up ---------------------------------------------------------------------------------


def _by_hand(
    stamps: np.ndarray, arrival: np.ndarray, wanted: int, due: int, tolerance: int | None
) -> int:
    seen = [i for i in range(len(stamps)) if stamps[i] <= wanted and arrival[i] <= due]
    if not seen or (tolerance is not None and wanted - stamps[seen[-1]] > tolerance):
        return -1
    return seen[-1]


@given(
    stamps=STAMPS,
    data=st.data(),
    offsets=st.lists(st.integers(-50, 50), min_size=1, max_size=4),
    delay=st.integers(0, 60),
    tolerance=st.none() | st.integers(0, 80),
)
def test_lookup_is_the_last_sample_that_arrived_in_time(
    stamps: np.ndarray, data: Any, offsets: list[int], delay: int, tolerance: int | None
) -> None:
    latency = data.draw(st.lists(st.integers(0, 100), min_size=len(stamps), max_size=len(stamps)))
    arrival = stamps + np.array(latency, np.int64)
    ticks = np.arange(0, 1000, 37, dtype=np.int64)
    query = Query("s", np.array(offsets, np.int64), "previous", tolerance)
    index, residual = lookup(query, stamps, ticks, arrival, delay)
    for t, tick in enumerate(ticks):
        for k, offset in enumerate(offsets):
            expected = _by_hand(stamps, arrival, tick + offset, tick + delay, tolerance)
            assert index[t, k] == expected
            if expected >= 0:
                assert residual[t, k] == stamps[expected] - tick - offset


@given(index=st.lists(st.integers(-1, 5), min_size=1, max_size=6))
def test_hold_takes_the_neighbour_before_then_after(index: list[int]) -> None:
    filled = hold(np.array([index], np.int64))[0]
    for k, value in enumerate(index):
        before = [v for v in index[: k + 1] if v >= 0]
        after = [v for v in index[k:] if v >= 0]
        assert filled[k] == (value if value >= 0 else [*before[-1:], *after[:1], -1][0])


# -- parity ----------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "timeline": {"rate_hz": 30},
    "delay_ms": 20,
    "keys": {
        "front": {"stream": "camera_front", "at": [-0.1, 0.0], "image": {"size_hw": (32, 40)}},
        "front_hwc": {"stream": "camera_front", "image": {"layout": "hwc"}},
        "front_fast": {"stream": "camera_front", "image": {"size_hw": (12, 16), "fast": True}},
        "wrist": {"stream": "camera_wrist", "tolerance_ms": 60},
        "wrist_small": {
            "stream": "camera_wrist",
            "image": {"crop_tlhw": (4, 8, 40, 48), "size_hw": (24, 24)},
        },
        "state": {"stream": "joint_states", "at": [-0.05, 0.0], "normalise": "mean_std"},
        "pose": {"stream": "eef_pose", "fields": ["position"], "normalise": "min_max"},
        "grip": {"stream": "gripper", "at": [-0.5, 0.0]},
        "depth": {"stream": "depth"},
        "lidar": {"stream": "lidar", "sweep": {"fields": ("x", "y", "z"), "points": 100}},
        "voxels": {
            "stream": "lidar",
            "sweep": {"fields": ("x", "y", "z"), "points": 64, "mode": "voxel", "voxel_m": 2.0},
        },
        "audio": {"stream": "audio", "at": {"start_s": -0.1, "steps": 500}},
        "touch": {"stream": "tactile", "at": [-0.05, 0.0], "pad": "zero"},
        "words": {"stream": "speech"},
        "action": {"stream": "command", "at": {"steps": 8, "rate_hz": 30}, "target": True},
    },
    "filters": {"complete": False},
}


def _messages(path: Path, streams: set[str]) -> list[tuple[int, int, int, str, Any]]:
    """(arrival, stamp, position, stream, payload) of a log, in order of arrival."""
    messages = []
    with open_episode(path) as episode:
        for name in streams:
            stream = episode.streams[name]
            encoded = stream.kind is Kind.IMAGE
            for i in range(len(stream)):
                payload = stream.encoded(i) if encoded else stream[i]
                receive = int(stream.receive_ns[i])
                messages.append((receive, int(stream.stamp_ns[i]), i, name, payload))
    return sorted(messages, key=lambda m: m[:4])


def _replay(
    aligner: OnlineAligner, messages: list[Any], until_ns: int
) -> dict[int, dict[str, Any]]:
    samples = {}
    for receive, stamp, _, name, payload in messages:
        for sample in aligner.poll(receive):
            samples[int(sample["tick_ns"])] = sample
        aligner.push(name, payload, stamp, receive)
    for sample in aligner.poll(until_ns):
        samples[int(sample["tick_ns"])] = sample
    return samples


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("log") / "log.h5", seed=11, seconds=2.5)


@pytest.fixture(scope="module")
def served(log: Path) -> tuple[EpisodeDataset, Recipe]:
    dataset = EpisodeDataset([log], SampleSpec.model_validate(SPEC))
    dataset = dataset.with_statistics(compute_statistics(dataset))
    return dataset, Recipe.from_json(dataset.recipe().to_json())


def test_served_samples_equal_training_samples_to_the_bit(
    log: Path, served: tuple[EpisodeDataset, Recipe], tmp_path: Path
) -> None:
    dataset, recipe = served
    aligner = recipe.online()
    messages = _messages(log, set(aligner.streams))
    late = [m for m in messages if m[0] - m[1] > 20 * MS]
    assert late, "the log must hold messages that miss their deadline"
    arrived = [m[1] for m in messages if m[3] == "joint_states"]
    assert arrived != sorted(arrived), "the log must hold messages out of order"
    online = _replay(aligner, messages, messages[-1][0] + 10**9)
    assert len(dataset) > 60
    compared = 0
    for n in range(len(dataset)):
        trained = dataset[n]
        sample = online[int(trained["tick_ns"])]
        for name, value in sample.items():
            assert _equal(value, trained[name]), (n, name)
            compared += 1
        assert not {"action", "action.mask"} & set(sample)
    assert compared > 60 * 20


def test_samples_hold_what_the_stream_holds(
    log: Path, served: tuple[EpisodeDataset, Recipe]
) -> None:
    """Against the episode itself, by the definition of `previous`, not by our own look-up."""
    dataset, _ = served
    with open_episode(log) as episode:
        joints, video = episode.streams["joint_states"], episode.streams["camera_wrist"]
        statistics = dataset.statistics
        assert statistics is not None
        feature = statistics["state"]
        for n in (3, 20, 50):
            sample = dataset[n]
            tick = int(sample["tick_ns"])
            seen = [
                i
                for i in range(len(joints))
                if joints.stamp_ns[i] <= tick and joints.receive_ns[i] <= tick + 20 * MS
            ][-1]
            row = joints[seen]
            raw = np.concatenate([row["position"], row["velocity"].astype(np.float64)])
            expected = (raw - feature.mean) / feature.std
            assert np.allclose(sample["state"][1], expected, atol=1e-6)
            frame = [
                i
                for i in range(len(video))
                if video.stamp_ns[i] <= tick and video.receive_ns[i] <= tick + 20 * MS
            ][-1]
            assert np.array_equal(sample["wrist"], video[frame].transpose(2, 0, 1))


def test_no_sample_depends_on_its_future(tmp_path: Path) -> None:
    """Altering, adding or removing whatever lies after a tick leaves the tick's sample as it is."""
    rng = np.random.default_rng(5)
    spec = SampleSpec.model_validate(
        {
            "timeline": {"rate_hz": 50, "span": "clock"},
            "delay_ms": 10,
            "keys": {
                "a": {"stream": "a", "at": [-0.06, -0.02, 0.0]},
                "b": {"stream": "b", "at": [-0.1, 0.0], "tolerance_ms": 40},
            },
            "filters": {"complete": False},
        }
    )
    base = {
        "a": np.sort(rng.integers(0, 1000, 80)) * MS,
        "b": np.sort(rng.integers(0, 1000, 50)) * MS,
    }
    latency = {name: rng.integers(0, 40, len(t)) * MS for name, t in base.items()}

    def write(name: str, cut_ns: int | None, seed: int) -> EpisodeDataset:
        with EpisodeWriter(tmp_path / f"{name}.h5") as writer:
            ticks = np.arange(0, 1000, 10, dtype=np.int64) * MS
            writer.append("clock", ticks + 10**9, {"data": ticks}, receive_ns=ticks + 10**9)
            for stream, stamps in base.items():
                values = np.arange(len(stamps), dtype=np.float64)
                arrival = stamps + latency[stream]
                order = np.argsort(stamps, kind="stable")
                stamps, values, arrival = stamps[order], values[order], arrival[order]
                if cut_ns is not None:
                    changed = np.random.default_rng(seed)
                    past = stamps <= cut_ns
                    n = int(changed.integers(1, 90))
                    later = np.sort(changed.integers(cut_ns + 1, 10**9, n))
                    # What arrives after the deadline is future as well, whatever its stamp.
                    values = values.copy()
                    values[arrival > cut_ns + 10 * MS] = -99.0
                    stamps = np.concatenate([stamps[past], later])
                    values = np.concatenate([values[past], np.full(n, -1.0)])
                    arrival = np.concatenate([arrival[past], later])
                writer.append(stream, stamps + 10**9, {"data": values}, receive_ns=arrival + 10**9)
        return EpisodeDataset([tmp_path / f"{name}.h5"], spec)

    original = write("original", None, 0)
    for n in range(5, 45, 4):
        tick = int(original[n]["tick_ns"])
        altered = write(f"altered_{n}", tick - 10**9, n)
        for k in range(n + 1):
            for key in ("a", "a.mask", "b", "b.mask"):
                assert _equal(original[k][key], altered[k][key]), (n, k, key)
        changed = [
            k for k in range(n + 1, len(original)) if not _equal(original[k]["a"], altered[k]["a"])
        ]
        assert changed, "the alteration must show after the tick, or this test shows nothing"


def test_online_refuses_what_looks_ahead(log: Path) -> None:
    keys = {"a": {"stream": "command", "at": [0.0, 0.1]}}
    spec = SampleSpec.model_validate({"timeline": {"rate_hz": 30}, "keys": keys, "delay_ms": 5})
    with pytest.raises(ConfigError, match="future"):
        EpisodeDataset([log], spec).recipe().online()
    spec = SampleSpec.model_validate(
        {"timeline": {"rate_hz": 30}, "keys": {"a": {"stream": "command"}}}
    )
    with pytest.raises(ConfigError, match="delay_ms"):
        EpisodeDataset([log], spec).recipe().online()


def test_before_any_message_everything_is_masked(served: tuple[EpisodeDataset, Recipe]) -> None:
    dataset, recipe = served
    sample = recipe.online().sample(int(dataset[0]["tick_ns"]))
    masks = {name: value for name, value in sample.items() if name.endswith(".mask")}
    assert len(masks) == len(SPEC["keys"]) - 1
    assert not any(np.any(mask) for mask in masks.values())
    assert not np.any(sample["audio"])


def test_ticks_by_reference_stream_are_served_too(log: Path) -> None:
    spec = SampleSpec.model_validate(
        {
            "timeline": {"reference_stream": "command"},
            "delay_ms": 15,
            "keys": {"state": {"stream": "joint_states"}, "pose": {"stream": "eef_pose"}},
            "filters": {"complete": False},
        }
    )
    dataset = EpisodeDataset([log], spec)
    aligner = dataset.recipe().online()
    messages = _messages(log, set(aligner.streams))
    online = _replay(aligner, messages, messages[-1][0] + 10**9)
    assert sorted(online) == [int(dataset[n]["tick_ns"]) for n in range(len(dataset))]
    with open_episode(log) as episode:
        late = episode.streams["command"]
        missed = (late.receive_ns - late.stamp_ns > 15 * MS).sum()
        assert missed
        assert len(dataset) == len(late) - missed
    for n in range(len(dataset)):
        sample = online[int(dataset[n]["tick_ns"])]
        assert all(_equal(value, dataset[n][name]) for name, value in sample.items())


def test_memory_of_a_long_run_stays_small(served: tuple[EpisodeDataset, Recipe]) -> None:
    spec = SampleSpec.model_validate(
        {
            "timeline": {"rate_hz": 20},
            "delay_ms": 0,
            "keys": {"g": {"stream": "gripper", "at": [-0.5, 0.0]}},
        }
    )
    recipe = served[1]
    short = Recipe(spec, recipe.streams, {"g": ((), "<f4")}, None, "", None)
    running = short.online()
    taken = 0
    for k in range(5000):
        now = 10**15 + k * 10 * MS
        running.push("gripper", np.float32(k), now)
        for sample in running.poll():
            taken += 1
            assert sample["g"][1] == np.float32((int(sample["tick_ns"]) - 10**15) // (10 * MS))
    assert taken > 900
    assert running.held["gripper"] < 70
    with pytest.raises(SyncError, match="lies before"):
        running.sample(10**15)


@settings(max_examples=30, deadline=None)
@given(
    latency=st.lists(st.integers(0, 80), min_size=40, max_size=40),
    lost=st.sets(st.integers(0, 39), max_size=15),
    delay=st.sampled_from([0, 7, 25]),
)
def test_online_equals_lookup_for_any_delivery(
    latency: list[int], lost: set[int], delay: int
) -> None:
    """Whatever is late, lost or overtaken: the aligner sees what `lookup` sees in the log."""

    class Plan:
        queries: ClassVar = {"a": Query("s", np.array([-30 * MS, 0]), "previous", 60 * MS)}
        delay_ns, rate_hz, tick_stream = delay * MS, 40.0, "s"

        def prepare(self, stream: str, sample: Any) -> dict[str, Any]:
            return {"a": sample}

        def assemble(self, tick_ns: int, rows: Any) -> dict[str, Any]:
            seen = rows["a"]
            values = [seen.items[i] if i >= 0 else -1 for i in seen.index]
            return {"tick_ns": tick_ns, "a": values}

    kept = [i for i in range(40) if i not in lost]
    if not kept:
        return
    stamps = np.array([10 * MS * i for i in kept], np.int64)
    arrival = stamps + np.array([latency[i] * MS for i in kept], np.int64)
    aligner = OnlineAligner(Plan())
    got: dict[int, list[int]] = {}
    for i in np.lexsort((stamps, arrival)):
        got.update({s["tick_ns"]: s["a"] for s in aligner.poll(int(arrival[i]))})
        aligner.push("s", int(i), int(stamps[i]), int(arrival[i]))
    got.update({s["tick_ns"]: s["a"] for s in aligner.poll(10**9)})
    ticks = np.array(sorted(got), np.int64)
    index, _ = lookup(Plan.queries["a"], stamps, ticks, arrival, delay * MS)
    assert [got[int(t)] for t in ticks] == index.tolist()
    assert len(ticks) >= 20
