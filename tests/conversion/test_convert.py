"""From logs to episodes: splitting, configuration, batches with bad members, determinism."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_logs import write_log

from mmdata import open_episode, verify_episode
from mmdata.config import ConvertConfig, read_config
from mmdata.conversion.job import convert_source, try_convert
from mmdata.conversion.sources import find_sources
from mmdata.conversion.split import merge_runs
from mmdata.conversion.template import config_template
from mmdata.errors import ConfigError, ConversionError
from mmdata.simulate import pick_place, write_mcap

S = 1_000_000_000
MMDATA = str(Path(sys.executable).with_name("mmdata"))


def _config(**facts: object) -> ConvertConfig:
    return ConvertConfig.model_validate(facts)


def _convert(log: Path, out: Path, **facts: object) -> list[Path]:
    source = find_sources([log]).sources[0]
    return [e.path for e in convert_source(source, out, _config(**facts)).episodes]


def test_the_default_episode(simulated_episode: Path) -> None:
    assert verify_episode(simulated_episode).problems == []
    with open_episode(simulated_episode) as ep:
        assert ep.timelines
        view = ep.aligned()
        assert view.name == "30hz"
        sample = view[len(view) // 2]
        assert sample["camera_front"].shape == (240, 320, 3)
        assert sample["joint_states"]["position"].shape == (7,) or len(sample["joint_states"])
        for name, stream in ep.streams.items():
            index, residual = view.index[name], view.residual_ns[name]
            there = index >= 0
            # causal, and the residual is what it says
            assert (residual[there] <= 0).all()
            assert np.array_equal(
                stream.stamp_ns[index[there]] - view.tick_ns[there], residual[there]
            )
        assert ep.rig["camera_front"].camera is not None
        assert ep.provenance["converter"] == "rosbag2"
        assert all(len(s["blake3"]) == 64 for s in ep.provenance["sources"])


def test_two_runs_same_bytes(simulated_log: Path, tmp_path: Path) -> None:
    first, second = (_convert(simulated_log, tmp_path / n)[0] for n in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert verify_episode(first).content_hash == verify_episode(second).content_hash


@pytest.mark.parametrize("clip", [0.7, 1.0])
def test_clips_hold_every_sample_once(simulated_log: Path, tmp_path: Path, clip: float) -> None:
    (whole,) = _convert(simulated_log, tmp_path / "whole")
    clips = _convert(simulated_log, tmp_path / "clips", split={"clip_s": clip})
    assert [p.name for p in clips] == [f"pick_place_{k:03d}.h5" for k in range(len(clips))]
    with open_episode(whole) as ep:
        for name, stream in ep.streams.items():
            parts = []
            for path in clips:
                with open_episode(path) as part:
                    if name in part.streams:
                        parts.append(part.streams[name].receive_ns)
                        spread = parts[-1].max() - parts[-1].min()
                        assert spread < clip * S
            assert np.array_equal(np.sort(np.concatenate(parts)), np.sort(stream.receive_ns)), name
    for path in clips:
        assert verify_episode(path, decode=False).problems == []


def test_split_at_markers_and_gaps(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = "std_msgs/msg/Float64"
    with Writer(tmp_path / "log", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        value, marker = (writer.add_connection(t, kind, typestore=store) for t in ("/v", "/mark"))
        stamps = [*range(20), *range(60, 80), *range(81, 90)]
        for t in stamps:
            raw = store.serialize_cdr(store.types[kind](data=float(t)), kind)
            if t in (10, 70):
                writer.write(marker, (1000 + t) * S, raw)
            writer.write(value, (1000 + t) * S, raw)
    by_gap = _convert(tmp_path / "log", tmp_path / "gap", split={"gap_s": 5})
    by_mark = _convert(tmp_path / "log", tmp_path / "mark", split={"topic": "/mark"})

    def values(paths: list[Path]) -> list[list[float]]:
        found = []
        for path in paths:
            with open_episode(path) as ep:
                found.append(ep.streams["v"]["data"].tolist())
        return found

    assert values(by_gap) == [list(range(20)), [*range(60, 80), *range(81, 90)]]
    assert values(by_mark) == [list(range(10)), [*range(10, 20), *range(60, 70)],
                               [*range(70, 80), *range(81, 90)]]  # fmt: skip
    with pytest.raises(ConversionError, match="split topic '/none' has no message"):
        _convert(tmp_path / "log", tmp_path / "none", split={"topic": "/none"})


@given(
    st.lists(st.lists(st.integers(0, 500), max_size=20), max_size=8),
    st.one_of(st.none(), st.integers(1, 60)),
)
def test_runs_do_not_depend_on_blocks(blocks: list[list[int]], gap: int | None) -> None:
    runs = merge_runs([np.array(b, np.int64) for b in blocks], gap)
    everything = np.sort(np.array([t for b in blocks for t in b], np.int64))
    if not len(everything):
        assert runs == []
        return
    cuts = [] if gap is None else np.flatnonzero(np.diff(everything) > gap) + 1
    assert runs == [(int(p[0]), int(p[-1])) for p in np.split(everything, cuts)]


def test_configuration_renames_drops_and_adds(simulated_log: Path, tmp_path: Path) -> None:
    (path,) = _convert(
        simulated_log,
        tmp_path,
        streams={
            "/wrench": {"name": "wrist_force", "units": {"force": "kN"}, "stamp_meaning": "sample"},
            "/audio": {"drop": True},
        },
        metadata={"task": "pick_place", "operator": "anna"},
        rig={"lidar_points": {"parent": "base", "parent_SE3_sensor": [0, 0, 1, 1, 0, 0, 0]}},
        timelines=[{"rate_hz": 10}, {"reference_stream": "camera_front", "lookahead": True}],
    )
    with open_episode(path) as ep:
        assert "wrist_force" in ep.streams
        assert "wrench" not in ep.streams
        assert "audio" not in ep.streams
        assert ep.streams["wrist_force"].info.fields["force"].unit == "kN"
        assert ep.streams["wrist_force"].info.stamp_meaning == "sample"
        assert dict(ep.metadata) == {"task": "pick_place", "operator": "anna"}
        assert ep.rig["lidar_points"].parent == "base"
        assert set(ep.timelines) == {"10hz", "camera_front"}
        assert ep.aligned("camera_front").timeline.streams["wrist_force"].policy == "linear"
        assert ep.provenance["dropped"] == [
            ["/audio", ep.provenance["dropped"][0][1], "left out by the configuration"]
        ]


def test_the_task_of_the_command_line_is_in_the_episode(tmp_path: Path) -> None:
    write_log(tmp_path / "log", 0)
    config = tmp_path / "config.yaml"
    config.write_text("metadata: {robot: panda, task: other}\n")
    command = [MMDATA, "convert", str(tmp_path / "log"), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "-c", str(config), "--task", "pour the tea"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with open_episode(tmp_path / "out/log.h5") as episode:
        assert episode.metadata == {"robot": "panda", "task": "pour the tea"}


def test_linear_policy_interpolates(simulated_log: Path, tmp_path: Path) -> None:
    (path,) = _convert(simulated_log, tmp_path, timelines=[{"rate_hz": 77, "lookahead": True}])
    with open_episode(path) as ep:
        view, stream = ep.aligned(), ep.streams["eef_pose"]
        k = 100
        i = int(view.index["eef_pose"][k])
        t0, t1 = stream.stamp_ns[i : i + 2]
        w = (view.tick_ns[k] - t0) / (t1 - t0)
        expected = (1 - w) * stream[i]["position"] + w * stream[i + 1]["position"]
        got = view[k]["eef_pose"]
        assert np.allclose(got["position"], expected, atol=1e-12)
        assert np.linalg.norm(got["orientation"]) == pytest.approx(1.0)


def test_config_init_is_a_valid_config_that_changes_nothing(
    simulated_log: Path, tmp_path: Path
) -> None:
    source = find_sources([simulated_log]).sources[0]
    file = tmp_path / "convert.yaml"
    file.write_text(config_template(source))
    config = read_config(file, ConvertConfig)
    plain = convert_source(source, tmp_path / "plain").episodes[0]
    configured = convert_source(source, tmp_path / "configured", config).episodes[0]
    assert plain.streams == configured.streams


def test_configuration_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    for text, message in (
        ("streamz: {}", "streamz: Extra inputs are not permitted"),
        ("timelines: [{rate_hz: 10, reference_stream: x}]", "either rate_hz or reference_stream"),
        ("stamps: whenever", "stamps"),
        ("a: [", "not valid YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_config(file, ConvertConfig)


def test_ids_are_unique_and_do_not_depend_on_order(tmp_path: Path, simulated_log: Path) -> None:
    for folder in ("monday", "tuesday"):
        shutil.copytree(simulated_log, tmp_path / folder / "run")
    ids = {s.episode_id for s in find_sources([tmp_path]).sources}
    assert ids == {"monday_run", "tuesday_run"}
    swapped = find_sources([tmp_path / "tuesday/run", tmp_path / "monday/run"]).sources
    assert {s.episode_id for s in swapped} == ids


def _mixed_folder(root: Path, simulated_log: Path) -> None:
    shutil.copytree(simulated_log, root / "good")
    (root / "empty.bag").write_bytes(b"")
    (root / "text.mcap").write_text("this is no log")
    (root / "wrong.bag").write_bytes(b"#ROSBAG V2.0\n" + os.urandom(400))
    (root / "notes.txt").write_text("hello")
    mcap = next((root / "good").glob("*.mcap")).read_bytes()
    (root / "cut.mcap").write_bytes(mcap[: len(mcap) // 2])
    (root / "stub.mcap").write_bytes(mcap[:30])
    (root / "stub.db3").write_bytes(b"SQLite format 3\0" + b"\1" * 100)


def test_a_folder_of_mixed_things(tmp_path: Path, simulated_log: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    _mixed_folder(root, simulated_log)
    found = find_sources([root])
    results = [try_convert(s, out) for s in found.sources]
    reasons = {u.path.name: u.reason for u in found.unreadable}
    reasons |= {r.source.path.name: r.reason for r in results if r.reason is not None}
    assert reasons["empty.bag"] == "the file is empty"
    assert "not a log of a known format" in reasons["text.mcap"]
    assert set(reasons) == {"empty.bag", "text.mcap", "wrong.bag", "stub.mcap", "stub.db3"}
    assert all("\n" not in reason for reason in reasons.values())
    assert [p.name for p in found.ignored] == ["notes.txt"]
    good = {r.source.path.name for r in results if r.reason is None}
    assert good == {"good", "cut.mcap"}
    assert sorted(p.name for p in out.iterdir()) == ["cut.h5", "good.h5"]
    for path in out.iterdir():
        assert verify_episode(path, decode=False).problems == []


def test_nothing_found_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no log of a known format" in find_sources([tmp_path / "empty"]).unreadable[0].reason
    assert find_sources([tmp_path / "gone"]).unreadable[0].reason == "does not exist"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_full_disk_and_unwritable_target(tmp_path: Path, simulated_log: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    source = find_sources([simulated_log]).sources[0]
    try:
        result = try_convert(source, small)
        assert result.reason is not None
        assert list(small.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        result = try_convert(source, small)
        assert "Read-only file system" in (result.reason or "")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_existing_episodes_are_kept_unless_asked(tmp_path: Path, simulated_log: Path) -> None:
    source = find_sources([simulated_log]).sources[0]
    convert_source(source, tmp_path)
    assert "exists already" in (try_convert(source, tmp_path).reason or "")
    assert try_convert(source, tmp_path, overwrite=True).reason is None


def test_a_failing_clip_takes_its_siblings_along(tmp_path: Path, simulated_log: Path) -> None:
    """The third clip's name is taken: no clip of this log may stay behind."""
    (tmp_path / "pick_place_002.h5").write_text("mine")
    source = find_sources([simulated_log]).sources[0]
    result = try_convert(source, tmp_path, _config(split={"clip_s": 1.0}))
    assert "pick_place_002.h5 exists already" in (result.reason or "")
    assert [p.name for p in tmp_path.iterdir()] == ["pick_place_002.h5"]
    assert (tmp_path / "pick_place_002.h5").read_text() == "mine"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Peak memory of converting a log four times as long is about the same."""
    peaks = []
    for seconds in (10, 40):
        log = tmp_path / f"log{seconds}"
        episode = pick_place(
            seed=3,
            duration_s=float(seconds),
            streams=["imu", "wrench", "camera_front"],
            render=False,
        )
        write_mcap(log, episode)
        script = textwrap.dedent(
            f"""
            import resource
            from pathlib import Path
            from mmdata.conversion.job import convert_source
            from mmdata.conversion.sources import find_sources
            convert_source(find_sources([{str(log)!r}]).sources[0], Path({str(tmp_path / "out")!r}))
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            """
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 40, peaks
