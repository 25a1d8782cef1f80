"""What the server sends is what the episode holds: pyramids, points, stamps, media, wire form."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_episode import START, box_at, read_number
from viewer_helpers import Server

from mmdata import SE3, Kind, Stream, StreamInfo, open_episode
from mmdata.annotations import read_episode_layer
from mmdata.geometry import quat_from_rotvec, quat_to_matrix
from mmdata.streams import FieldInfo
from mmdata_schema import Layer, Phase, Provenance, Track3D
from mmdata_viewer.agreement import agreement
from mmdata_viewer.frames import FrameGraph
from mmdata_viewer.placing import box_at as place
from mmdata_viewer.points import count_in_box, deskewed, encode_points, fit_box
from mmdata_viewer.pyramid import FACTOR, TILE, Pyramid
from mmdata_viewer.wire import from_wire, to_wire

BIG = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | BIG | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["start_ns", "a", "made_unix_ns", "x"]), JSON), BIG)
def test_wire_form_is_lossless_and_small_enough(value: dict[str, Any], start: int) -> None:
    # A float under a stamp's name is no valid annotation and not promised anything.
    def clean(v: Any, key: str = "") -> Any:
        if isinstance(v, dict):
            return {k: clean(x, k) for k, x in v.items() if k != "$int"}
        if isinstance(v, list):
            return [clean(x, key) for x in v]
        return 0 if isinstance(v, float) and key.endswith("_ns") else v

    value = clean(value)
    sent = to_wire(value, start)

    def largest(v: Any) -> int:
        if isinstance(v, dict):
            return max(map(largest, v.values()), default=0)
        if isinstance(v, list):
            return max(map(largest, v), default=0)
        return abs(v) if isinstance(v, int) else 0

    assert largest(sent) < 2**53
    assert from_wire(sent, start) == value


def signal(values: np.ndarray[Any, Any]) -> Stream:
    info = StreamInfo("s", Kind.SIGNAL, {"data": FieldInfo.of(values)})
    stamps = np.arange(len(values), dtype=np.int64) * 1_000_000 + 5
    return Stream(info, {"stamp_ns": stamps, "data": values})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40_000), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_every_bucket_is_the_smallest_and_largest_of_its_samples(
    n: int, channels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, channels)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    pyramid = Pyramid(signal(values), "data")
    for level, (low, high) in enumerate(pyramid.levels, start=1):
        width = FACTOR**level
        assert len(low) == -(-n // width)
        for k in rng.integers(0, max(1, len(low)), 20 if len(low) else 0):
            block = values[k * width : (k + 1) * width]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a bucket of NaN alone
                np.testing.assert_array_equal(low[k], np.nanmin(block, axis=0))
                np.testing.assert_array_equal(high[k], np.nanmax(block, axis=0))


def test_tiles_join_up_to_the_whole_series() -> None:
    values = np.sin(np.arange(50_000) / 100).astype(np.float32)
    pyramid = Pyramid(signal(values), "data")
    for level, count in ((0, 50_000), (1, 6250), (2, 782)):
        times, lows = [], []
        for number in range(-(-count // TILE)):
            tile = pyramid.tile(level, number, start_ns=5)
            n, channels = struct.unpack_from("<II", tile)
            assert channels == 1
            times.append(np.frombuffer(tile, "<f8", n, 8))
            lows.append(np.frombuffer(tile, "<f4", n, 8 + 8 * n))
        joined = np.concatenate(lows)
        assert len(joined) == count
        np.testing.assert_array_equal(np.concatenate(times), np.arange(count) * 1e6 * 8**level)
        expected = values if level == 0 else pyramid.levels[level - 1][0][:, 0]
        np.testing.assert_array_equal(joined, expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_points_in_a_box_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3, 3, (2000, 3))
    centre, size = rng.uniform(-1, 1, 3), rng.uniform(0.2, 4, 3)
    q = quat_from_rotvec(rng.normal(size=3))
    axes = quat_to_matrix(q)
    expected = 0
    for p in points:
        local = [float(axes[:, k] @ (p - centre)) for k in range(3)]
        expected += all(abs(x) <= s / 2 for x, s in zip(local, size, strict=True))
    assert count_in_box(points, centre, size, q) == expected


@given(st.integers(0, 5000), st.integers(1, 4000), st.floats(0.1, 500))
@settings(max_examples=30, deadline=None)
def test_clouds_keep_budget_and_precision(n: int, budget: int, reach: float) -> None:
    rng = np.random.default_rng(n)
    cloud = rng.uniform(-reach, reach, (n, 3))
    data = encode_points(cloud, np.arange(n, dtype=np.float64), budget)
    magic, count, total, shaded = struct.unpack_from("<IIII", data)
    assert (magic, total, shaded) == (0x50444D4D, n, 1)
    assert count <= budget
    assert count >= min(n, budget) // 2
    origin, step = np.frombuffer(data, "<f8", 3, 16), struct.unpack_from("<d", data, 40)[0]
    shown = np.frombuffer(data, "<i2", 3 * count, 48).reshape(-1, 3) * step + origin
    stride = max(1, -(-n // budget))
    np.testing.assert_allclose(shown, cloud[::stride], atol=step * 0.51)
    assert step <= max(1e-6, 2 * reach / 60_000)


def test_fitting_finds_a_turned_box_from_its_two_visible_sides() -> None:
    rng = np.random.default_rng(3)
    size, yaw, centre = np.array([4.4, 1.8, 1.6]), 0.4, np.array([12.0, -3.0, 0.8])
    local = rng.uniform([-0.5, -0.5, -0.4], 0.5, (800, 3))
    local[:500, 1], local[500:, 0] = 0.5, -0.5  # its left side and its back
    frame = SE3.from_quaternion(quat_from_rotvec([0, 0, yaw]), centre)
    points = frame.apply(local * size)
    rough, off = quat_from_rotvec([0, 0, yaw + 0.15]), np.array([0.2, 0.1, 0.0])
    fitted = fit_box(points, centre + off, size + 2 * off, rough)
    assert fitted is not None
    np.testing.assert_allclose(fitted[0], centre, atol=0.12)
    np.testing.assert_allclose(fitted[1], size, atol=0.2)
    turned = 2 * np.arctan2(fitted[2][3], fitted[2][0])
    assert abs(turned - yaw) < np.deg2rad(1.1)
    assert fit_box(points[:4], centre, size, rough) is None


def test_a_sweep_measured_while_driving_is_put_together(drive: Path) -> None:
    """A wall seen point by point over 0.1 s from a moving lidar is a plane again."""
    rng = np.random.default_rng(1)
    with open_episode(drive) as episode:
        frames = FrameGraph(episode)
        stamp, n = START + 3_000_000_000, 4000
        offsets = rng.integers(0, 100_000_000, n)
        wall = np.stack([np.full(n, 40.0), rng.uniform(-5, 5, n), rng.uniform(0, 3, n)], axis=-1)
        seen = np.empty_like(wall)
        for k in range(n):
            pose = frames.transform("lidar", "world", stamp + int(offsets[k]))
            assert pose is not None
            seen[k] = pose.apply(wall[k])
        world = frames.transform("world", "lidar", stamp)
        assert world is not None
        smeared = world.apply(seen)[:, 0]
        assert np.ptp(smeared) > 0.3
        put = world.apply(deskewed(seen, offsets, stamp, "lidar", frames))
        # Half a millisecond at 5 m/s and 0.06 rad/s.
        np.testing.assert_allclose(put, wall, atol=0.006)


def track(frame: str, centres: list[tuple[float, float, float]], **more: Any) -> Track3D:
    stamps = [START + k * 1_000_000_000 for k in range(len(centres))]
    one = (1.0, 0.0, 0.0, 0.0)
    half = float(np.sqrt(0.5))
    return Track3D(
        id="t", object_id="o", label="car", frame_id=frame, stamp_ns=stamps, center_m=centres,
        size_lwh_m=[(4, 2, 1.5)] * len(stamps),
        quaternion_wxyz=[one, (half, 0.0, 0.0, half)][: len(stamps)], **more,
    )  # fmt: skip


def test_between_keyframes_rotation_is_slerped_and_gaps_are_empty(drive: Path) -> None:
    with open_episode(drive) as episode:
        frames = FrameGraph(episode)
        placed = place(track("world", [(0, 0, 0), (2, 4, 0)]), START + 250_000_000, frames)
        assert placed is not None
        np.testing.assert_allclose(placed[0], [0.5, 1, 0])
        np.testing.assert_allclose(placed[2], quat_from_rotvec([0, 0, np.pi / 8]), atol=1e-12)
        gap = track("world", [(0, 0, 0), (2, 4, 0)], gap_after=[True, False])
        assert place(gap, START + 250_000_000, frames) is None
        assert place(gap, START + 1_500_000_000, frames) is None
        assert place(gap, START + 1_050_000_000, frames, 60_000_000) is not None


def test_a_parked_car_labelled_from_a_moving_sensor_stays_parked(drive: Path) -> None:
    """Ego motion is taken out before interpolating: keyframes in the lidar frame, 3 s apart."""
    with open_episode(drive) as episode:
        frames = FrameGraph(episode)
        stamps = [START + 1_000_000_000, START + 4_000_000_000]
        centre, _, q = box_at(1, 0.0)  # car-2 does not move in world
        local = [frames.transform("lidar", "world", s) for s in stamps]
        assert local[0] is not None
        assert local[1] is not None
        keyframes = [p @ SE3.from_quaternion(q, centre) for p in local if p is not None]
        labelled = Track3D(
            id="t", object_id="car-2", label="car", frame_id="lidar", stamp_ns=stamps,
            center_m=[tuple(k.translation.tolist()) for k in keyframes],
            size_lwh_m=[(4.3, 1.8, 1.5)] * 2,
            quaternion_wxyz=[tuple(k.quaternion.tolist()) for k in keyframes],
        )  # fmt: skip
        for t in (1.7, 2.5, 3.9):
            stamp = START + int(t * 1e9)
            placed = place(labelled, stamp, frames)
            world = frames.transform("world", "lidar", stamp)
            assert placed is not None
            assert world is not None
            np.testing.assert_allclose(world.apply(placed[0]), centre, atol=1e-6)


def pictures(server: Server, query: str) -> list[tuple[int, bytes]]:
    """(status, bytes) of each sample asked for."""
    status, data = server.ask(f"/api/e/{server.key('drive.h5')}/pictures?{query}")
    assert status == 200
    out, at = [], 0
    while at < len(data):
        code, length = struct.unpack_from("<II", data, at)
        out.append((code, data[at + 8 : at + 8 + length]))
        at += 8 + length
    return out


def test_one_bad_picture_does_not_spoil_the_others(server: Server) -> None:
    asked = [
        "frame=camera_front/3", "frame=camera_front/99999", "frame=nowhere/0", "packets=lidar/0",
        "frame=lidar/0", "frame=imu/0", "frame=camera_front/-1", "frame=camera_front",
        "other=camera_front/0", "packets=camera_front/0", "frame=camera_left/3",
    ]  # fmt: skip
    answers = pictures(server, "&".join(asked))
    assert [status for status, _ in answers] == [
        200,
        404,
        404,
        400,
        400,
        400,
        400,
        400,
        400,
        400,
        200,
    ]
    with open_episode(server.root / "drive.h5") as episode:
        for k, name in ((0, "camera_front"), (-1, "camera_left")):
            assert answers[k][1] == episode.streams[name].encoded(3)
    assert b"there are" in answers[1][1]
    key = server.key("drive.h5")
    many = "&".join(["frame=camera_front/0"] * 65)
    assert server.ask(f"/api/e/{key}/pictures?{many}")[0] == 400


def test_frames_stamps_and_packets_come_from_the_file(server: Server) -> None:
    key = server.key("drive.h5")
    with open_episode(server.root / "drive.h5") as episode:
        for name in ("camera_front", "camera_fisheye"):
            stream = episode.streams[name]
            sent = np.frombuffer(server.ask(f"/api/e/{key}/stamps/{name}")[1], "<f8")
            np.testing.assert_array_equal(sent.astype(np.int64) + episode.start_ns, stream.stamp_ns)
            for i in (0, 7, len(stream) - 1):
                ((status, data),) = pictures(server, f"frame={name}/{i}")
                assert status == 200
                picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                assert read_number(picture[:16]) == i
                if name == "camera_front":
                    assert data == stream.encoded(i), "JPEG goes out as it is stored"
        ((_, group),) = pictures(server, "packets=camera_fisheye/20")
        (count,) = struct.unpack_from("<I", group)
        heads = [struct.unpack_from("<III", group, 4 + 12 * k) for k in range(count)]
        assert [h[0] for h in heads] == list(range(15, 30))
        assert [h[1] for h in heads] == [1] + [0] * 14
        decoder = av.CodecContext.create("h264", "r")
        at = 4 + 12 * count
        for sample, _, length in heads:
            for frame in decoder.decode(av.Packet(group[at : at + length])):
                assert read_number(frame.to_ndarray(format="rgb24")[:16]) == sample
            at += length
        status, part = server.ask(f"/api/e/{key}/audio/audio", headers={"range": "bytes=44-1043"})
        assert status == 206
        expected = episode.streams["audio"].field("samples").data[:500].astype("<i2").tobytes()
        assert part == expected


def test_agreement_of_hand_made_layers() -> None:
    def layer(name: str, cut: int) -> Layer:
        phases = [
            Phase(id="a", tier="m", label="x", start_ns=0, end_ns=cut),
            Phase(id="b", tier="m", label="y", start_ns=cut, end_ns=2_000_000_000),
        ]
        who = Provenance(author=name)
        return Layer(episode_id="e", name=name, provenance=who, phases=phases)

    found = agreement(layer("anna", 1_000_000_000), layer("ben", 1_500_000_000))
    tier = found["tiers"]["m"]
    assert tier["time_agreement"] == pytest.approx(0.75)
    # By hand: shares x/y are 1/2, 1/2 and 3/4, 1/4, so chance agreement is 1/2; (3/4-1/2)/(1/2).
    assert tier["kappa"] == pytest.approx(0.5)
    # The one inner boundary is half a second off; start and end, which nobody placed, do not count.
    assert tier["boundary_f1"] == 0.0
    near = agreement(layer("anna", 1_000_000_000), layer("ben", 1_050_000_000))["tiers"]["m"]
    assert near["boundary_f1"] == 1.0
    # Nothing to agree on by chance, no boundary placed: not defined, and not perfect either.
    one = layer("anna", 1_000_000_000)
    one = one.edit(phases=[one.phases[0]])
    alone = agreement(one, one.edit(name="ben"))["tiers"]["m"]
    assert (alone["time_agreement"], alone["kappa"], alone["boundary_f1"]) == (1.0, None, None)
    assert [(d["stamp_ns"], d["a"], d["b"]) for d in found["differences"]] == [
        (1_000_000_000, "y", "x")
    ]


def test_objects_that_lie_apart_are_listed_for_adjudication(drive: Path) -> None:
    anna = read_episode_layer(drive, "anna")
    track: Any = anna.get("t-car-1")

    def ben(by_m: float) -> Layer:
        moved = [(x + by_m, y, z) for x, y, z in track.center_m]
        return anna.put(track.edit(center_m=moved)).edit(name="ben")

    # A tenth of the car's 4.5 m.
    assert agreement(anna, ben(0.44))["differences"] == []
    (row,) = agreement(anna, ben(0.46))["differences"]
    assert (row["kind"], row["object_id"], row["a_id"]) == ("place", "car-1", "t-car-1")
    assert row["centre_m"] == pytest.approx(0.46)
