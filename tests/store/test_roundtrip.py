"""What is appended is what is read, whatever the order, batching and kind."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmdata import EpisodeWriter, Kind, Ragged, StreamInfo, media, open_episode, verify_episode
from mmdata.errors import FormatError
from mmdata.geometry import SE3, CameraModel, LensModel, Rig, Sensor
from mmdata.store import shift_stream

T0 = 1_700_000_000_000_000_000
MS = 1_000_000


def _stamps(n: int, start: int = 0, step: int = 10 * MS) -> np.ndarray:
    return T0 + start + np.arange(n, dtype=np.int64) * step


@pytest.mark.parametrize("profile", ["default", "interchange"])
@given(
    values=hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<i2", "<u4", "<i8"]),
        st.tuples(st.integers(1, 300), st.integers(1, 4)),
    ),
    batch=st.integers(1, 97),
    shuffle_seed=st.one_of(st.none(), st.integers(0, 1000)),
)
def test_signals_round_trip_in_stamp_order(
    tmp_path_factory: pytest.TempPathFactory,
    profile: str,
    values: np.ndarray,
    batch: int,
    shuffle_seed: int | None,
) -> None:
    n = len(values)
    stamps = _stamps(n)
    order = np.arange(n)
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(n)
    lengths = order % 3
    path = tmp_path_factory.mktemp("episode") / "e.h5"
    with EpisodeWriter(path, profile=profile) as writer:
        for start in range(0, n, batch):
            rows = order[start : start + batch]
            ragged = Ragged.from_rows([np.full(lengths[r], r, "<i4") for r in range(len(rows))])
            ragged = Ragged.from_rows([np.full(r % 3, r, "<i4") for r in rows], "<i4")
            writer.append("s", stamps[rows], {"value": values[rows], "extra": ragged})
    assert verify_episode(path).problems == []
    with open_episode(path) as ep:
        stream = ep.streams["s"]
        assert np.array_equal(stream.stamp_ns, stamps)
        assert np.array_equal(stream["value"], values, equal_nan=values.dtype.kind == "f")
        assert stream["value"].dtype == values.dtype
        assert [stream[i]["extra"].tolist() for i in range(n)] == [[i] * (i % 3) for i in range(n)]
        sorted_already = np.array_equal(order, np.arange(n))
        assert (stream.recorded is None) == sorted_already
        if not sorted_already:
            assert np.array_equal(order[stream.recorded], np.arange(n))


def _write_all_kinds(path: Path) -> dict[str, object]:
    rng = np.random.default_rng(0)
    jpegs = [media.encode_jpeg(rng.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(5)]
    depth = rng.integers(0, 5000, (4, 24, 32), np.uint16)
    sweeps = [rng.normal(size=(k, 3)).astype("f4") for k in (100, 0, 37)]
    blocks = [rng.integers(-500, 500, (k, 2)).astype("i2") for k in (160, 160, 80)]
    raw = rng.integers(0, 255, (3, 8, 10, 3), np.uint8)
    with EpisodeWriter(path, "all-kinds") as w:
        w.append("camera", _stamps(5), jpegs, receive_ns=_stamps(5) + MS, kind="image")
        w.append("depth", _stamps(4), depth, kind="depth")
        points = Ragged.from_rows(sweeps)
        w.append(
            "lidar", _stamps(3), {"xyz": points, "rpm": np.array([600, 601, 602])}, kind="sweep"
        )
        w.append("audio", _stamps(3), blocks, kind="audio")
        w.append("tactile", _stamps(6), rng.normal(size=(6, 4, 4)), kind="tactile")
        w.append("say", _stamps(2), ["grasp the ‘cup’", ""], kind="text")
        w.append("blob", _stamps(2), [b"\x00\x01", b"abc"], kind="opaque")
        w.add_stream(
            StreamInfo("raw", Kind.IMAGE, {}, encoding="raw", attrs={"pixel_format": "bgr8"})
        )
        w.append("raw", _stamps(3), raw)
        w.append("pose", _stamps(2), {"position": np.eye(3)[:2]}, publish_ns=_stamps(2) + 5)
        w.set_metadata(task="pick", robot="panda", operator=None, tags=["a", "b"])
        camera = CameraModel(
            LensModel.BROWN_CONRADY,
            np.array([[100.5, 0, 32], [0, 101.25, 24], [0, 0, 1]]),
            np.array([0.1, -0.01, 1e-3, 2e-3, 1e-7]),
            64,
            48,
        )
        mount = SE3.from_xyz_qwxyz([1, 2, 3, 0.5, 0.5, 0.5, 0.5])
        w.set_rig(
            Rig([Sensor("camera", "cam/optical", "base", mount, camera), Sensor("lidar", "lidar")])
        )
    return {"jpegs": jpegs, "depth": depth, "sweeps": sweeps, "blocks": blocks, "raw": raw}


def test_every_kind_rig_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "all.h5"
    truth = _write_all_kinds(path)
    assert verify_episode(path).problems == []
    with open_episode(path) as ep:
        s = ep.streams
        assert [s["camera"].encoded(i) for i in range(5)] == truth["jpegs"]
        assert s["camera"][2].shape == (48, 64, 3)
        assert np.array_equal(s["depth"][3], truth["depth"][3])
        for i, points in enumerate(truth["sweeps"]):
            assert np.array_equal(s["lidar"][i]["xyz"], points)
        assert int(s["lidar"][1]["rpm"]) == 601
        assert not s["lidar"].info.fields["rpm"].ragged
        for i, block in enumerate(truth["blocks"]):
            assert np.array_equal(s["audio"][i], block)
        assert s["tactile"][5].shape == (4, 4)
        assert list(s["say"]) == ["grasp the ‘cup’", ""]
        assert list(s["blob"]) == [b"\x00\x01", b"abc"]
        assert np.array_equal(s["raw"][1], truth["raw"][1][..., ::-1])
        assert s["pose"].publish_ns.tolist() == (_stamps(2) + 5).tolist()
        assert s["camera"].receive_ns.tolist() == (_stamps(5) + MS).tolist()
        assert dict(ep.metadata) == {"task": "pick", "robot": "panda", "tags": ["a", "b"]}
        sensor = ep.rig["camera"]
        assert sensor.frame_id == "cam/optical"
        assert sensor.camera is not None
        assert np.array_equal(sensor.camera.distortion, [0.1, -0.01, 1e-3, 2e-3, 1e-7])
        assert sensor.parent_SE3_sensor.to_xyz_qwxyz().tolist() == [1, 2, 3, 0.5, 0.5, 0.5, 0.5]
        assert ep.rig["lidar"].camera is None
        assert ep.rig["lidar"].parent_SE3_sensor is None
        assert "lidar" in repr(ep)
        assert "<table>" in ep._repr_html_()
        assert "jpeg" in repr(s["camera"])


def test_views_slicing_and_time(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(10), np.arange(10.0))
    with open_episode(path) as ep:
        s = ep.streams["s"]
        assert s[3:7]["data"].tolist() == [3, 4, 5, 6]
        assert s[3:7][1:3][0] == 4
        assert s[-1] == 9
        assert s.between(T0 + 20 * MS, T0 + 50 * MS)["data"].tolist() == [2, 3, 4]
        assert len(s.between(T0 - 10, T0)) == 0
        assert s.at(T0 + 29 * MS) == 2
        assert s.at(T0 + 29 * MS, "nearest") == 3
        assert s.at(T0 + 29 * MS, tolerance_ns=5 * MS) is None
        assert s.at(T0 - 1) is None
        assert s.rate_hz == pytest.approx(100)
        assert [int(v) for v in s[7:]] == [7, 8, 9]
        with pytest.raises(IndexError):
            s[10]
        with pytest.raises(KeyError, match="has no field 'x'; it has"):
            s["x"]
        with pytest.raises(KeyError, match="no stream 'nope'; there are: s"):
            ep.streams["nope"]


def test_video_random_access_equals_sequential(tmp_path: Path) -> None:
    from fractions import Fraction

    import av

    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"g": "5", "bf": "0", "crf": "10", "tune": "zerolatency"}
    packets = []
    for k in range(23):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * k, np.uint8), format="rgb24")
        frame.pts = k
        packets += [bytes(p) for p in encoder.encode(frame)]
    packets += [bytes(p) for p in encoder.encode(None)]
    path = tmp_path / "video.h5"
    with EpisodeWriter(path) as w:
        w.add_stream(StreamInfo("cam", Kind.IMAGE, {}, encoding="h264"))
        w.append("cam", _stamps(23), packets)
    assert verify_episode(path).problems == []
    with open_episode(path) as ep, h5py.File(path) as file:
        assert np.flatnonzero(file["streams/cam/keyframe"][:]).tolist() == [0, 5, 10, 15, 20]
        rng = np.random.default_rng(1)
        for i in rng.permutation(23).tolist() + rng.permutation(23).tolist():
            assert abs(int(ep.streams["cam"][i].mean()) - 10 * i) <= 3
        assert ep.streams["cam"].encoded(7) == packets[7]


def test_schema_and_count_mistakes_are_named(tmp_path: Path) -> None:
    w = EpisodeWriter(tmp_path / "m.h5")
    w.append("s", _stamps(2), {"x": np.zeros((2, 3))})
    with pytest.raises(FormatError, match=r"'s': 2 stamps but 3 rows of 'x'"):
        w.append("s", _stamps(2), {"x": np.zeros((3, 3))})
    with pytest.raises(FormatError, match="this batch has float64 of shape"):
        w.append("s", _stamps(2), {"x": np.zeros((2, 4))})
    with pytest.raises(FormatError, match="new field 'y'"):
        w.append("s", _stamps(2), {"x": np.zeros((2, 3)), "y": np.zeros(2)})
    with pytest.raises(FormatError, match="must be integers"):
        w.append("s", np.array([0.1, 0.2]), {"x": np.zeros((2, 3))})
    with pytest.raises(FormatError, match="earlier ones had source_ns"):
        w.append("s", _stamps(2), {"x": np.zeros((2, 3))}, receive_ns=_stamps(2))
    with pytest.raises(FormatError, match="is not a stream name"):
        w.append("a/b", _stamps(1), np.zeros(1))
    w.close()
    assert verify_episode(tmp_path / "m.h5").samples == 2


def test_reserved_field_names_do_not_clash(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(2), {"stamp_ns": np.array([5.0, 6.0]), "offsets": np.zeros(2)})
    with open_episode(path) as ep:
        assert ep.streams["s"].stamp_ns.tolist() == _stamps(2).tolist()
        assert ep.streams["s"]["stamp_ns_"].tolist() == [5, 6]
    assert verify_episode(path).ok


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _write_all_kinds(tmp_path / name / "e.h5")
    assert (tmp_path / "a/e.h5").read_bytes() == (tmp_path / "b/e.h5").read_bytes()


def test_appending_from_threads(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with EpisodeWriter(path) as w:

        def run(k: int) -> None:
            for i in range(50):
                w.append(f"s{k}", _stamps(1, i * 10 * MS), np.array([float(i)]))

        threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    with open_episode(path) as ep:
        assert all(ep.streams[f"s{k}"]["data"].tolist() == list(range(50)) for k in range(4))
    assert verify_episode(path).ok


def _read_in_child(queue: multiprocessing.Queue) -> None:
    queue.put(float(_SHARED_EPISODE.streams["s"][17]))
    queue.put(float(_SHARED_EPISODE.streams["c"][1].sum()))


def test_reading_goes_on_after_a_fork(tmp_path: Path) -> None:
    """The parent has read; a forked child and the parent read on, each with its own handle."""
    global _SHARED_EPISODE
    path = tmp_path / "f.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(50), np.arange(50.0))
        w.append("c", _stamps(3), [media.encode_jpeg(np.zeros((8, 8, 3), "u1"))] * 3, kind="image")
    with open_episode(path) as ep:
        _SHARED_EPISODE = ep
        assert ep.streams["s"][3] == 3
        assert ep.streams["c"][0].shape == (8, 8, 3)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        children = [context.Process(target=_read_in_child, args=(queue,)) for _ in range(3)]
        for child in children:
            child.start()
        values = [queue.get(timeout=30) for _ in range(6)]
        for child in children:
            child.join(30)
        assert sorted(values) == [0.0] * 3 + [17.0] * 3
        assert ep.streams["s"][4] == 4


def test_streams_survive_pickling(tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(5), np.arange(5.0))
    with open_episode(path) as ep:
        copy = pickle.loads(pickle.dumps(ep.streams["s"]))
    assert copy["data"].tolist() == [0, 1, 2, 3, 4]


def test_refuses_what_it_should_not_read(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(2), np.zeros(2))
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "2.0"
    with pytest.raises(FormatError, match=r"is in format 2.0, this mmdata reads 1.1: upgrade"):
        open_episode(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "1.7"
        file.attrs["future"] = "kept"
        file["streams/s"].attrs["future"] = 3
    with open_episode(path) as ep:
        assert ep.streams["s"].info.attrs["future"] == 3
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="not an mmdata episode"):
        open_episode(other)
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        open_episode(text)
    with pytest.raises(FileNotFoundError):
        open_episode(tmp_path / "absent.h5")


def test_episodes_hashed_with_sha256_are_verified_by_it(tmp_path: Path) -> None:
    """As files of format 1.0 are; a shift keeps them so."""
    path = tmp_path / "e.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(5), np.arange(5.0))
    new = verify_episode(path)
    assert new.content_hash is not None
    assert new.content_hash.startswith("blake3:")
    with h5py.File(path, "r+") as file:
        columns = {
            n: hashlib.sha256(d[()].tobytes()).hexdigest() for n, d in file["streams/s"].items()
        }
        text = "".join(f"{n}:{c}\n" for n, c in sorted(columns.items()))
        old = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "columns": columns}
        document = json.dumps({"streams": {"s": old}}).encode()
        del file["provenance"]
        file["provenance"] = np.frombuffer(document, np.uint8)
    shift_stream(path, "s", 5, "late")
    result = verify_episode(path)
    assert result.problems == []
    assert result.content_hash is not None
    assert result.content_hash.startswith("sha256:")
    with h5py.File(path, "r+") as file:
        file["streams/s/data"][2] = 7.0
    assert verify_episode(path).problems == ["stream s: content differs from its hash in data"]


def test_existing_files_are_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    with EpisodeWriter(path) as w:
        w.append("s", _stamps(2), np.zeros(2))
    with pytest.raises(FileExistsError, match="exists already"):
        EpisodeWriter(path)
    with EpisodeWriter(path, overwrite=True) as w:
        w.append("s", _stamps(3), np.zeros(3))
    with open_episode(path) as ep:
        assert len(ep.streams["s"]) == 3


def test_plain_h5py_reads_every_dataset(tmp_path: Path) -> None:
    """The interchange profile needs only h5py's own filters; every chunk is checksummed."""
    path = tmp_path / "plain.h5"
    with EpisodeWriter(path, profile="interchange") as w:
        w.append("s", _stamps(9000), np.random.default_rng(0).normal(size=(9000, 3)))
    with h5py.File(path) as file:
        seen = []

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.chunks:
                assert item.fletcher32, name
                plist = item.id.get_create_plist()
                filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
                assert filters <= {1, 2, 3}, name
                seen.append(name)

        file.visititems(visit)
        assert "streams/s/data" in seen
        assert file["streams/s/data"].shape == (9000, 3)
