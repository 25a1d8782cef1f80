"""ROS logs: what comes out equals what rosbags counts and reads in the source."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mmdata import Kind, media, registry
from mmdata.errors import ConversionError
from mmdata.recording import Batch, Recording
from mmdata.streams import Ragged

T0 = 1_700_000_000_000_000_000


def read_all(recording: Recording) -> dict[str, list[Batch]]:
    """Batches by stream name."""
    found: dict[str, list[Batch]] = {}
    for batch in recording.read():
        found.setdefault(batch.info.name, []).append(batch)
    return found


def column(batches: list[Batch], field: str) -> np.ndarray:
    """A dense field over all batches."""
    return np.concatenate([b.samples[field] for b in batches])


def open_log(path: Path) -> Recording:
    converter = registry.sniff(path)
    assert converter is not None, path
    return converter.open(path)


def _real_bags(root: Path) -> Iterator[Path]:
    yield from sorted(root.rglob("*.bag"))
    yield from sorted(p.parent for p in root.rglob("metadata.yaml"))


def test_counts_bytes_and_stamps_of_every_shared_log(shared_data: Path) -> None:
    """Counts per topic, JPEG bytes and stamps to the nanosecond, for every bag rosbags can open."""
    checked = 0
    for path in _real_bags(shared_data):
        if path.name == "ortho_demo.bag":
            continue  # rosbags cannot open it; see below
        jpegs: dict[str, list[bytes]] = {}
        times: dict[str, list[int]] = {}
        store = get_typestore(Stores.LATEST)
        with AnyReader([path], default_typestore=store) as reader:
            expected = Counter({c.topic: 0 for c in reader.connections})
            for connection, time_ns, raw in reader.messages():
                expected[connection.topic] += 1
                times.setdefault(connection.topic, []).append(time_ns)
                if connection.msgtype == "sensor_msgs/msg/CompressedImage":
                    message = reader.deserialize(raw, connection.msgtype)
                    jpegs.setdefault(connection.topic, []).append(message.data.tobytes())
        with open_log(path) as recording:
            summary = {t.topic: t.count for t in recording.inspect().topics}
            streams = read_all(recording)
            assert recording.account.dropped_list() == []
        assert summary == dict(expected), path
        found: Counter[str] = Counter()
        for batches in streams.values():
            topic = batches[0].info.source_topic
            assert topic is not None
            found[topic] += sum(map(len, batches))
            if topic in jpegs:
                payload = [b.samples["data"] for b in batches]
                stored = [r[i].tobytes() for r in payload for i in range(len(r))]
                assert stored == jpegs[topic]
            if "tf" not in topic:
                receive = np.concatenate([b.receive_ns for b in batches])
                assert sorted(receive.tolist()) == sorted(times[topic])
        assert found == expected, path
        checked += 1
    assert checked >= 20


def test_known_defects_are_tolerated_and_told(shared_data: Path) -> None:
    real = shared_data / "real"
    with open_log(real / "scan_tools/ortho_demo.bag") as recording:
        streams = read_all(recording)
        assert sum(map(len, streams["scan"])) == 360
        assert any("its count is believed" in p for p in recording.account.problem_lines())
    with open_log(real / "lerobot_realsense/test_rs.bag") as recording:
        streams = read_all(recording)
        depth = streams["device_0_sensor_0_Depth_0_data"][0]
        assert depth.info.kind is Kind.DEPTH
        assert depth.samples["data"].shape[1:] == (480, 640)
        lines = recording.account.problem_lines()
        assert any("4 bytes after the end of the message, ignored (6 times)" in p for p in lines)
    with open_log(real / "mcity_ins_db3/move_data") as recording:
        assert any("has no definition here" in p for p in recording.inspect().problems)


# -- logs written here -----------------------------------------------------------------------


def _header(store: Any, stamp: int, frame: str = "base") -> Any:
    make = store.types["std_msgs/msg/Header"]
    time = store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return make(seq=0, stamp=time, frame_id=frame) if "seq" in make.__annotations__ else make(
        stamp=time, frame_id=frame
    )  # fmt: skip


def _messages(store: Any, n: int = 50) -> list[tuple[str, str, int, Any]]:
    """(topic, type, log time, message): IMU, joints in changing order, camera, strings."""
    rng = np.random.default_rng(0)
    types = store.types
    vector = types["geometry_msgs/msg/Vector3"]
    out = []
    for i in range(n):
        stamp = T0 + i * 10_000_000
        imu = types["sensor_msgs/msg/Imu"](
            header=_header(store, stamp, "imu_link"),
            orientation=types["geometry_msgs/msg/Quaternion"](x=0.1, y=0.2, z=0.3, w=float(i)),
            orientation_covariance=np.zeros(9),
            angular_velocity=vector(x=float(i), y=1.0, z=2.0),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=vector(x=0.0, y=0.0, z=9.8),
            linear_acceleration_covariance=np.zeros(9),
        )
        out.append(("/imu/data", "sensor_msgs/msg/Imu", stamp + 2_000_000, imu))
        names = ["a", "b", "c"] if i % 3 else ["c", "a", "b"]
        values = {"a": i + 0.1, "b": i + 0.2, "c": i + 0.3}
        joints = types["sensor_msgs/msg/JointState"](
            header=_header(store, stamp),
            name=names,
            position=np.array([values[k] for k in names]),
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )
        out.append(("/joint_states", "sensor_msgs/msg/JointState", stamp + 1_000_000, joints))
        if i % 5 == 0:
            picture = rng.integers(0, 255, (24, 32, 3), np.uint8)
            image = types["sensor_msgs/msg/CompressedImage"](
                header=_header(store, stamp, "cam"),
                format="jpeg",
                data=np.frombuffer(media.encode_jpeg(picture), np.uint8),
            )
            out.append(
                (
                    "/cam/image/compressed",
                    "sensor_msgs/msg/CompressedImage",
                    stamp + 5_000_000,
                    image,
                )
            )
            text = types["std_msgs/msg/String"](data=f"step {i} – grüß")
            out.append(("/say", "std_msgs/msg/String", stamp + 6_000_000, text))
    return out


def _write2(
    path: Path,
    plugin: StoragePlugin,
    mode: CompressionMode = CompressionMode.NONE,
    messages: list[tuple[str, str, int, Any]] | None = None,
    store: Any = None,
) -> Path:
    store = store or get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer2(path, version=9, storage_plugin=plugin)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind, time_ns, message in messages or _messages(store):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time_ns, store.serialize_cdr(message, kind))
    return path


def _write1(path: Path, chunk_bytes: int | None = None, compression: Any = None) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Writer1(path)
    if compression is not None:
        writer.set_compression(compression)
    if chunk_bytes is not None:
        writer.chunk_threshold = chunk_bytes
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind, time_ns, message in _messages(store):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time_ns, store.serialize_ros1(message, kind))
    return path


def _check_content(recording: Recording) -> None:
    streams = read_all(recording)
    assert set(streams) == {"imu_data", "joint_states", "cam", "say"}
    imu = streams["imu_data"]
    assert column(imu, "angular_velocity")[:, 0].tolist() == list(range(50))
    assert column(imu, "orientation")[7].tolist() == [7.0, 0.1, 0.2, 0.3]  # qw first
    source = np.concatenate([b.source_ns for b in imu])
    assert source.tolist() == [T0 + i * 10_000_000 for i in range(50)]
    assert imu[0].info.frame_id == "imu_link"
    assert imu[0].info.fields["linear_acceleration"].unit == "m/s^2"
    joints = streams["joint_states"]
    assert joints[0].info.fields["position"].channels == ("c", "a", "b")
    assert np.allclose(column(joints, "position") - np.arange(50)[:, None], [0.3, 0.1, 0.2])
    words = [r[i].tobytes().decode() for r in (b.samples["data"] for b in streams["say"])
             for i in range(len(r))]  # fmt: skip
    assert words == [f"step {i} – grüß" for i in range(0, 50, 5)]
    assert streams["say"][0].info.kind is Kind.TEXT
    assert streams["say"][0].source_ns is None
    assert recording.account.dropped_list() == []


@pytest.mark.parametrize("topics", [None, frozenset({"/say"})])
@pytest.mark.parametrize("kind", ["mcap", "mcap chunks compressed", "mcap file compressed", "bag"])
def test_a_log_is_hashed_as_it_is_read(
    tmp_path: Path, kind: str, topics: frozenset[str] | None
) -> None:
    """Of the very bytes that were read, all of them when only some topics were."""
    plugin, mode = StoragePlugin.MCAP, CompressionMode
    path = {
        "mcap": lambda: _write2(tmp_path / "log", plugin),
        "mcap chunks compressed": lambda: _write2(tmp_path / "log", plugin, mode.STORAGE),
        "mcap file compressed": lambda: _write2(tmp_path / "log", plugin, mode.FILE),
        "bag": lambda: _write1(tmp_path / "log.bag", chunk_bytes=2000),
    }[kind]()
    with open_log(path) as recording:
        hashes = recording.hash_while_reading()
        for _ in recording.read(topics):
            pass
        # What was read of an unpacked file are not the bytes of the source.
        assert len(hashes) == (0 if kind == "mcap file compressed" else 1)
        for file, running in hashes.items():
            if topics is None:
                assert running._position > 0.5 * file.stat().st_size
            assert running.hexdigest() == blake3(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("cores", [1, 16])
def test_reading_ahead_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("mmdata_converters._ros.recording.usable_cores", lambda: cores)
    with open_log(_write2(tmp_path / "bag", StoragePlugin.MCAP)) as recording:
        _check_content(recording)


@pytest.mark.parametrize("mode", list(CompressionMode))
@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_rosbag2_storages_and_compressions(
    tmp_path: Path, plugin: StoragePlugin, mode: CompressionMode
) -> None:
    if (plugin, mode) == (StoragePlugin.MCAP, CompressionMode.MESSAGE):
        pytest.skip("rosbags does not write this combination")
    if (plugin, mode) == (StoragePlugin.SQLITE3, CompressionMode.STORAGE):
        pytest.skip("only MCAP compresses in its storage")
    path = _write2(tmp_path / "bag", plugin, mode)
    with open_log(path) as recording:
        assert {t.topic: t.count for t in recording.inspect().topics} == {
            "/imu/data": 50, "/joint_states": 50, "/cam/image/compressed": 10, "/say": 10,
        }  # fmt: skip
        _check_content(recording)


def _rewritten(log: Path, target: Path, **options: Any) -> Path:
    """The MCAP file of a rosbag2, written anew with other options of the container."""
    from mcap.reader import make_reader
    from mcap.writer import Writer

    (source,) = log.glob("*.mcap")
    with source.open("rb") as file, target.open("wb") as out:
        writer = Writer(out, **options)
        writer.start("ros2")
        known: dict[int, int] = {}
        for schema, channel, message in make_reader(file).iter_messages(log_time_order=False):
            if channel.id not in known:
                assert schema is not None
                number = writer.register_schema(schema.name, schema.encoding, schema.data)
                known[channel.id] = writer.register_channel(
                    channel.topic, channel.message_encoding, number
                )
            writer.add_message(
                known[channel.id], message.log_time, message.data, message.publish_time
            )
        writer.finish()
    return target


def test_mcap_with_and_without_its_indices(tmp_path: Path) -> None:
    """Chunks or none, message indices or none, definitions in the chunks only."""
    from mcap.writer import CompressionType, IndexType

    log = _write2(tmp_path / "bag", StoragePlugin.MCAP)
    (whole,) = log.glob("*.mcap")
    with open_log(whole) as recording:
        expected = np.sort(np.concatenate(list(recording.receive_stamps())))
    variants: list[dict[str, Any]] = [
        {"use_chunking": False},
        {"chunk_size": 1500},
        {"chunk_size": 1500, "compression": CompressionType.NONE},
        {"chunk_size": 1500, "index_types": IndexType.NONE},
        {"chunk_size": 1500, "repeat_channels": False, "repeat_schemas": False},
        {"chunk_size": 4000, "compression": CompressionType.LZ4, "use_statistics": False},
    ]
    for k, options in enumerate(variants):
        path = _rewritten(log, tmp_path / f"{k}.mcap", **options)
        with open_log(path) as recording:
            assert {t.topic: t.count for t in recording.inspect().topics} == {
                "/imu/data": 50, "/joint_states": 50, "/cam/image/compressed": 10, "/say": 10,
            }, options  # fmt: skip
            _check_content(recording)
            stamps = np.sort(np.concatenate(list(recording.receive_stamps())))
            assert np.array_equal(stamps, expected)


def test_a_message_does_not_reach_into_the_next_chunk(tmp_path: Path) -> None:
    """Chunks are read several at once; what leads out of its own chunk is no message."""
    from mcap.writer import CompressionType

    from mmdata_converters.rosbag2.mcap import McapLog

    path = _rewritten(
        _write2(tmp_path / "bag", StoragePlugin.MCAP), tmp_path / "plain.mcap",
        chunk_size=1500, compression=CompressionType.NONE, enable_crcs=False,
    )  # fmt: skip
    log = McapLog(path)
    blocks = list(log.blocks(frozenset({"/imu/data"})))
    log.close()
    assert len(blocks) == 1  # so many chunks were read at once
    start, length = int(blocks[0].starts[3]), int(blocks[0].lengths[3])
    data = bytearray(path.read_bytes())
    at = data.index(blocks[0].buffer[start - 31 : start + length].tobytes())
    data[at + 1 : at + 9] = (22 + 1600).to_bytes(8, "little")
    path.write_bytes(data)
    with open_log(path) as recording:
        read = sum(len(b) for b in recording.read(frozenset({"/imu/data"})))
        (dropped,) = recording.account.dropped_list()
    assert (read, dropped.topic, dropped.count) == (49, "/imu/data", 1)


def test_an_index_that_points_beyond_any_file_loses_its_message_only(tmp_path: Path) -> None:
    from mcap.writer import CompressionType

    from mmdata_converters.rosbag2.mcap import McapLog

    path = _rewritten(
        _write2(tmp_path / "bag", StoragePlugin.MCAP), tmp_path / "plain.mcap",
        chunk_size=1500, compression=CompressionType.NONE, enable_crcs=False,
    )  # fmt: skip
    log = McapLog(path)
    (block,) = log.blocks(frozenset({"/imu/data"}))
    log.close()
    data = bytearray(path.read_bytes())
    # Its receive stamp stands last in the message index, before the offset.
    at = data.rindex(int(block.receive_ns[1]).to_bytes(8, "little")) + 8
    assert int.from_bytes(data[at : at + 8], "little") < 1500
    data[at : at + 8] = (1 << 63).to_bytes(8, "little")
    path.write_bytes(data)
    with open_log(path) as recording:
        read = sum(len(b) for b in recording.read(frozenset({"/imu/data"})))
        (dropped,) = recording.account.dropped_list()
    assert (read, dropped.topic, dropped.count) == (49, "/imu/data", 1)


def test_counts_of_a_cut_mcap_are_what_can_be_read(tmp_path: Path) -> None:
    """Also where the cut goes through a chunk's index."""
    log = _write2(tmp_path / "bag", StoragePlugin.MCAP)
    whole = _rewritten(log, tmp_path / "whole.mcap", chunk_size=1500).read_bytes()
    rng = np.random.default_rng(3)
    read = 0
    for cut in rng.integers(400, len(whole), 40):
        path = tmp_path / "cut.mcap"
        path.write_bytes(whole[:cut])
        try:
            recording = open_log(path)
        except ConversionError:
            continue
        with recording:
            counts = {t.topic: t.count for t in recording.inspect().topics}
            list(recording.read())
            got = recording.account.messages
            lost = {d.topic: d.count for d in recording.account.dropped_list()}
            assert counts == {t: got.get(t, 0) + lost.get(t, 0) for t in counts}
            read += sum(got.values())
    assert read > 500


@pytest.mark.parametrize("compression", [None, *Writer1.CompressionFormat])
def test_rosbag1_chunks_and_compressions(tmp_path: Path, compression: Any) -> None:
    path = _write1(tmp_path / "log.bag", 2000, compression)
    with open_log(path) as recording:
        _check_content(recording)


def test_bare_storage_files_and_a_folder_without_metadata(tmp_path: Path) -> None:
    for plugin in StoragePlugin:
        folder = _write2(tmp_path / plugin.name, plugin)
        (file,) = [p for p in folder.iterdir() if p.suffix in (".mcap", ".db3")]
        with open_log(file) as recording:
            _check_content(recording)


def test_publish_time_is_kept_apart(simulated_log: Path) -> None:
    with open_log(simulated_log) as recording:
        batch = next(iter(recording.read()))
    assert batch.publish_ns is not None
    assert len(batch.publish_ns) == len(batch)


def test_several_publishers_of_a_topic_stay_in_recorded_order(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / "two.bag") as writer:
        kind = "std_msgs/msg/Float64"
        both = [
            writer.add_connection("/x", kind, typestore=store, callerid=caller)
            for caller in ("/one", "/two")
        ]
        for i in range(40):
            raw = store.serialize_ros1(store.types[kind](data=float(i)), kind)
            writer.write(both[i % 2], T0 + i, raw)
    with open_log(tmp_path / "two.bag") as recording:
        assert column(read_all(recording)["x"], "data").tolist() == list(range(40))


def test_joints_of_several_robots_on_one_topic(tmp_path: Path) -> None:
    """Messages that list other joints are another stream; nothing is padded with numbers."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/JointState"
    messages = []
    for i in range(20):
        names = ["arm_1", "arm_2"] if i % 2 else ["grip"]
        message = store.types[kind](
            header=_header(store, T0 + i), name=names, position=np.arange(len(names)) + float(i),
            velocity=np.zeros(0), effort=np.zeros(0),
        )  # fmt: skip
        messages.append(("/joint_states", kind, T0 + i, message))
    nameless = store.types[kind](
        header=_header(store, T0 + 99), name=[], position=np.zeros(7), velocity=np.zeros(0),
        effort=np.zeros(0),
    )  # fmt: skip
    messages.append(("/joint_states", kind, T0 + 99, nameless))
    path = _write2(tmp_path / "bag", StoragePlugin.MCAP, messages=messages, store=store)
    with open_log(path) as recording:
        streams = read_all(recording)
    shapes = sorted(column(b, "position").shape for b in streams.values())
    assert shapes == [(1, 7), (10, 1), (10, 2)]
    assert {n.rstrip("_23") for n in streams} == {"joint_states"}


def test_point_clouds_of_any_layout(tmp_path: Path) -> None:
    """Padding, both endiannesses, organised clouds, per-point time in its usual forms."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    field = store.types["sensor_msgs/msg/PointField"]
    cloud = store.types["sensor_msgs/msg/PointCloud2"]
    codes = {"f4": 7, "f8": 8, "u2": 4, "u4": 6}
    rng = np.random.default_rng(0)
    truth, messages = {}, []
    layouts: dict[str, list[tuple[str, str, int]]] = {
        "packed": [("x", "f4", 0), ("y", "f4", 4), ("z", "f4", 8), ("t", "u4", 12)],
        "padded": [("x", "f4", 0), ("y", "f4", 4), ("ring", "u2", 20), ("time", "f4", 24)],
        "absolute": [("x", "f4", 0), ("timestamp", "f8", 8)],
    }  # fmt: skip
    for (name, layout), big in [(item, big) for item in layouts.items() for big in (False, True)]:
        order = ">" if big else "<"
        height, width = (4, 25) if name == "padded" else (1, 100)
        dtype = np.dtype(
            {"names": [n for n, _, _ in layout], "formats": [order + f for _, f, _ in layout],
             "offsets": [o for _, _, o in layout], "itemsize": 32}
        )  # fmt: skip
        points = np.zeros(100, dtype)
        for field_name, _, _ in layout:
            points[field_name] = rng.normal(size=100)
        if name == "packed":
            points["t"] = np.arange(100) * 1000
        elif name == "padded":
            points["ring"] = np.arange(100)
            points["time"] = np.arange(100) * 1e-3
        else:
            points["timestamp"] = T0 / 1e9 + np.arange(100) * 1e-4
        row_step = width * 32 + (16 if name == "padded" else 0)
        data = b"".join(
            points[r * width : (r + 1) * width].tobytes().ljust(row_step, b"\xee")
            for r in range(height)
        )
        topic = f"/{name}_{'big' if big else 'little'}"
        message = cloud(
            header=_header(store, T0), height=height, width=width,
            fields=[field(name=n, offset=o, datatype=codes[f], count=1) for n, f, o in layout],
            is_bigendian=big, point_step=32, row_step=row_step,
            data=np.frombuffer(data, np.uint8), is_dense=True,
        )  # fmt: skip
        truth[topic[1:]] = points
        messages.append((topic, "sensor_msgs/msg/PointCloud2", T0, message))
    path = _write2(tmp_path / "bag", StoragePlugin.MCAP, messages=messages, store=store)
    with open_log(path) as recording:
        streams = read_all(recording)
    assert set(streams) == set(truth)
    for name, points in truth.items():
        samples = streams[name][0].samples
        info = streams[name][0].info
        for field_name in points.dtype.names:
            # whole nanoseconds are stored once, under the name of what they are
            stored = "point_offset_ns" if field_name == "t" else field_name
            values = samples[stored]
            assert isinstance(values, Ragged)
            assert np.array_equal(values[0], points[field_name]), (name, field_name)
        assert "t" not in samples
        assert info.attrs["point_offset_field"] in points.dtype.names
        offsets = samples["point_offset_ns"][0]
        step = {"packed": 1000, "padded": 1_000_000, "absolute": 100_000}[name.split("_")[0]]
        # float64 seconds since 1970 resolve a quarter of a microsecond
        assert np.abs(offsets - np.arange(100) * step).max() <= (300 if "absolute" in name else 60)
        assert ("height" in samples) == ("padded" in name)


def _clouds(path: Path, clouds: list[np.ndarray]) -> dict[str, list[Batch]]:
    """Batches by stream of a log with one cloud per structured array, all on one topic."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    field = store.types["sensor_msgs/msg/PointField"]
    codes = {"f4": 7, "f8": 8, "u2": 4, "u4": 6, "i4": 5, "i8": 8}
    messages = [
        (
            "/lidar", "sensor_msgs/msg/PointCloud2", T0 + k,
            store.types["sensor_msgs/msg/PointCloud2"](
                header=_header(store, T0 + k), height=1, width=len(points),
                fields=[
                    field(name=n, offset=int(points.dtype.fields[n][1]),
                          datatype=codes[points.dtype[n].str[1:]], count=1)
                    for n in points.dtype.names
                ],
                is_bigendian=False, point_step=points.dtype.itemsize,
                row_step=points.nbytes, data=points.view(np.uint8).reshape(-1), is_dense=True,
            ),
        )
        for k, points in enumerate(clouds)
    ]  # fmt: skip
    with open_log(_write2(path, StoragePlugin.MCAP, messages=messages, store=store)) as recording:
        return read_all(recording)


def test_sweeps_of_changing_size_are_one_stream(tmp_path: Path) -> None:
    """Also empty ones, whose times say nothing about their unit."""
    rng = np.random.default_rng(0)
    clouds = []
    for size in (0, 40_000, 0, 7, 20_001):
        points = np.empty(size, [("x", "<f4"), ("t", "<u4"), ("time", "<f4")])
        points["x"], points["t"] = rng.normal(size=size), np.arange(size) * 10
        points["time"] = rng.normal(size=size)
        clouds.append(points)
    streams = _clouds(tmp_path / "bag", clouds)
    assert list(streams) == ["lidar"]
    rows = [
        {name: batch.samples[name][i] for name in batch.samples}
        for batch in streams["lidar"]
        for i in range(len(batch))
    ]
    assert [len(row["x"]) for row in rows] == [len(c) for c in clouds]
    for row, points in zip(rows, clouds, strict=True):
        assert set(row) == {"x", "point_offset_ns", "time"}
        assert np.array_equal(row["x"], points["x"])
        assert np.array_equal(row["point_offset_ns"], points["t"])
        assert np.array_equal(row["time"], points["time"])


@pytest.mark.parametrize(
    ("dtype", "first", "last"),
    [("<u4", 2**31 - 5, 2**31 + 5), ("<u4", 0, 2**31 + 9), ("<u4", 2**32 - 9, 2**32 - 1)],
)
def test_point_times_that_fit_no_offset_stay_as_they_are(
    tmp_path: Path, dtype: str, first: int, last: int
) -> None:
    points = np.zeros(10, [("x", "<f4"), ("t", dtype)])
    points["t"] = np.linspace(first, last, 10).astype(np.int64)
    (batches,) = _clouds(tmp_path / "bag", [points]).values()
    assert set(batches[0].samples) == {"x", "t"}
    assert np.array_equal(batches[0].samples["t"][0], points["t"])
    assert "point_offset_field" not in batches[0].info.attrs


def test_a_field_of_our_name_is_not_replaced(tmp_path: Path) -> None:
    points = np.zeros(10, [("point_offset_ns", "<i4"), ("t", "<u4")])
    points["point_offset_ns"], points["t"] = np.arange(10), np.arange(10) * 7
    (batches,) = _clouds(tmp_path / "bag", [points]).values()
    for name in ("point_offset_ns", "t"):
        assert np.array_equal(batches[0].samples[name][0], points[name])


def test_raw_images_and_depth(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/Image"
    rng = np.random.default_rng(0)
    pictures = {
        "/rgb": ("rgb8", rng.integers(0, 255, (6, 5, 3), np.uint8), 18),
        "/depth/image_raw": ("16UC1", rng.integers(0, 9000, (6, 5), np.uint16), 10),
        "/float_depth": ("32FC1", rng.normal(size=(6, 5)).astype("f4"), 20),
        "/odd": ("hologram", rng.integers(0, 255, (6, 5), np.uint8), 5),
    }
    messages = []
    for topic, (encoding, picture, step) in pictures.items():
        rows = picture.reshape(6, -1).view(np.uint8).reshape(6, -1)
        padded = np.pad(rows, ((0, 0), (0, step - rows.shape[1] if step > rows.shape[1] else 0)))
        message = store.types[kind](
            header=_header(store, T0), height=6, width=5, encoding=encoding, is_bigendian=0,
            step=padded.shape[1], data=padded.reshape(-1),
        )  # fmt: skip
        messages.append((topic, kind, T0, message))
    path = _write2(tmp_path / "bag", StoragePlugin.SQLITE3, messages=messages, store=store)
    with open_log(path) as recording:
        kinds = {t.topic: t.kind for t in recording.inspect().topics}
        streams = read_all(recording)
        problems = recording.account.problem_lines()
    assert kinds["/depth/image_raw"] is Kind.DEPTH
    assert kinds["/float_depth"] is Kind.DEPTH
    assert np.array_equal(streams["rgb"][0].samples["data"][0], pictures["/rgb"][1])
    assert streams["depth"][0].info.fields["data"].unit == "mm"
    assert np.array_equal(streams["depth"][0].samples["data"][0], pictures["/depth/image_raw"][1])
    assert streams["float_depth"][0].info.fields["data"].unit == "m"
    assert streams["odd"][0].info.kind is Kind.OPAQUE
    assert any("'hologram' is unknown" in p for p in problems)


def test_unknown_types_are_flattened_and_undefined_ones_kept_as_bytes(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    definition = (
        "std_msgs/Header header\nfloat32 pressure\ngeometry_msgs/Vector3 wind\nint16[3] raw\n"
        "float64[] samples\nstring label\ngeometry_msgs/Point[] hits"
    )
    store.register(get_types_from_msg(definition, "acme_msgs/msg/Weather"))
    point = store.types["geometry_msgs/msg/Point"]
    messages = []
    for i in range(6):
        message = store.types["acme_msgs/msg/Weather"](
            header=_header(store, T0 + i), pressure=float(i),
            wind=store.types["geometry_msgs/msg/Vector3"](x=1.0, y=2.0, z=float(i)),
            raw=np.array([1, 2, i], "i2"), samples=np.arange(i % 3) * 1.5, label=f"l{i}",
            hits=[point(x=float(k), y=0.0, z=0.0) for k in range(i % 2)],
        )  # fmt: skip
        messages.append(("/weather", "acme_msgs/msg/Weather", T0 + i, message))
    path = _write2(tmp_path / "bag", StoragePlugin.MCAP, messages=messages, store=store)
    with open_log(path) as recording:
        batches = [b for same in read_all(recording).values() for b in same]
    pressure = sorted(float(v) for b in batches for v in b.samples["pressure"])
    assert pressure == [0, 1, 2, 3, 4, 5]
    assert all(b.samples["wind"].shape == (len(b), 3) for b in batches)
    assert all(b.info.kind is Kind.SIGNAL for b in batches)
    # The same bag as .db3 of a version that holds no definitions: nobody can decode it.
    old = _write2(tmp_path / "old", StoragePlugin.SQLITE3, messages=messages, store=store)
    with sqlite3.connect(next(old.glob("*.db3"))) as connection:
        connection.execute("DROP TABLE IF EXISTS message_definitions")
    with open_log(old) as recording:
        (opaque,) = read_all(recording).values()
        assert opaque[0].info.kind is Kind.OPAQUE
        raws = [opaque[0].samples["data"][i].tobytes() for i in range(6)]
    assert raws == [bytes(store.serialize_cdr(m, k)) for _, k, _, m in messages]


def test_transforms_static_to_the_rig_dynamic_to_streams(simulated_log: Path) -> None:
    with open_log(simulated_log) as recording:
        streams = read_all(recording)
        rig = recording.rig
    assert any(name.startswith("tf_") for name in streams)
    assert rig["camera_front"].camera is not None
    assert rig["camera_front"].parent_SE3_sensor is not None
    assert streams["tf_base_hand"][0].samples["orientation"].shape[1] == 4


# -- damage ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("healthy")
    folders = {p.name: _write2(root / p.name, p) for p in StoragePlugin}
    return {
        "bag": _write1(root / "log.bag", 2000),
        "mcap": next(folders["MCAP"].glob("*.mcap")),
        "db3": next(folders["SQLITE3"].glob("*.db3")),
    }


def _total(recording: Recording) -> tuple[int, int]:
    read = sum(len(b) for b in recording.read())
    return read, sum(d.count for d in recording.account.dropped_list())


@pytest.mark.parametrize("kind", ["bag", "mcap", "db3"])
def test_truncated_logs_give_what_their_bytes_hold(
    tmp_path: Path, healthy: dict[str, Path], kind: str
) -> None:
    data = healthy[kind].read_bytes()
    source = random.Random(0)
    counts = []
    for fraction in sorted(source.uniform(0.02, 0.999) for _ in range(12)):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(data[: int(len(data) * fraction)])
        try:
            with open_log(path) as recording:
                read, _ = _total(recording)
                assert recording.account.problem_lines()
        except ConversionError as error:
            assert str(path) in str(error)
            read = 0
        counts.append(read)
    assert counts[-1] > 60 if kind != "db3" else True
    assert counts == sorted(counts) or kind == "db3"


@pytest.mark.parametrize("kind", ["bag", "mcap", "db3"])
def test_flipped_bits_never_crash(tmp_path: Path, healthy: dict[str, Path], kind: str) -> None:
    data = healthy[kind].read_bytes()
    source = random.Random(1)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(source.randrange(1, 4)):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        path = tmp_path / f"flipped.{kind}"
        path.write_bytes(damaged)
        converter = registry.sniff(path)
        if converter is None:
            continue  # its magic was hit
        try:
            with converter.open(path) as recording:
                recording.inspect()
                read, dropped = _total(recording)
                assert read + dropped <= 400
        except ConversionError as error:
            assert str(error)


def test_a_missing_file_of_a_split_bag(tmp_path: Path, healthy: dict[str, Path]) -> None:
    folder = tmp_path / "bag"
    shutil.copytree(healthy["mcap"].parent, folder)
    metadata = folder / "metadata.yaml"
    text = metadata.read_text().replace(
        "  relative_file_paths:\n", "  relative_file_paths:\n  - gone_1.mcap\n"
    )
    metadata.write_text(text)
    with open_log(folder) as recording:
        _check_content(recording)
        assert any("gone_1.mcap is named" in p for p in recording.account.problem_lines())


def test_message_compressed_database_with_a_bad_message(tmp_path: Path) -> None:
    folder = _write2(tmp_path / "bag", StoragePlugin.SQLITE3, CompressionMode.MESSAGE)
    with sqlite3.connect(next(folder.glob("*.db3"))) as connection:
        connection.execute("UPDATE messages SET data = x'0011' WHERE id = 5")
    with open_log(folder) as recording:
        read, dropped = _total(recording)
    assert (read, dropped) == (119, 1)


def test_compressed_file_is_unpacked_in_bounded_memory(
    tmp_path: Path, healthy: dict[str, Path]
) -> None:
    path = tmp_path / "log.mcap.zstd"
    path.write_bytes(zstandard.compress(healthy["mcap"].read_bytes()))
    with open_log(path) as recording:
        _check_content(recording)
