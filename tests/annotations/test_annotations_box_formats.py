"""PandaSet, KITTI and nuScenes: sizes, angles, origins and order against numbers by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.annotations import Scene, read_format, write_format
from mmdata.errors import ConversionError
from mmdata.geometry import SE3, Rig, Sensor, box_corners
from mmdata_schema import Box2D, Box3D, Layer, Provenance, Track3D

T0 = 1_760_030_100_000_000_000
STAMPS = T0 + np.arange(10) * 100_000_000
S = math.sqrt(0.5)


def scene(**more: Any) -> Scene:
    stamps = {"camera": STAMPS, "lidar": STAMPS}
    fields = {"stream": "camera", "frame_id": "camera_frame", "start_ns": T0} | more
    return Scene("drive", stamps=stamps, **fields)


def whats(result: Any) -> set[str]:
    return {loss.what for loss in result.losses}


def layer(**collections: Any) -> Layer:
    return Layer(episode_id="drive", name="gt", provenance=Provenance(author="anna"), **collections)


# PandaSet ----------------------------------------------------------------------------------


def cuboid(**more: Any) -> dict[str, Any]:
    return {
        "stamp_ns": T0, "frame": 0, "track": "a", "label": "Car", "frame_id": "world",
        "yaw_rad": 0.0, "center_m": [1.0, 2.0, 3.0], "size_wlh_m": [2.0, 5.0, 1.5],
        "stationary": True, "sensor_id": -1, "sibling": None, **more,
    }  # fmt: skip


def test_pandaset_length_lies_along_its_y(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"boxes": [cuboid(), cuboid(stamp_ns=T0 + 1, cameras=3)]}))
    imported = read_format("pandaset", path, scene(), layer="gt")
    (track,) = imported.layer.tracks_3d
    assert track.size_lwh_m[0] == (5.0, 2.0, 1.5)
    # yaw 0 in PandaSet: the vehicle looks along +y, a quarter turn for us.
    assert track.quaternion_wxyz[0] == pytest.approx((S, 0, 0, S), abs=1e-15)
    corners = box_corners(track.center_m[0], track.size_lwh_m[0], track.quaternion_wxyz[0])
    np.testing.assert_allclose(np.ptp(corners, axis=0), [2.0, 5.0, 1.5], atol=1e-12)
    assert track.keyframe_attributes == {"stationary": [True, True], "sensor_id": [-1, -1]}
    assert whats(imported) == {"field 'cameras' of a cuboid"}


def test_pandaset_both_ways_on_the_real_second(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "real/pandaset_002/drive.cuboids.json"
    imported = read_format("pandaset", source, scene(frame_id=None, stream=None), layer="gt")
    assert sum(t.keyframe_count for t in imported.layer.tracks_3d) == 1161
    assert len(imported.layer.tracks_3d) == 118
    assert imported.losses == ()
    first = next(t for t in imported.layer.tracks_3d if t.object_id.startswith("e83d78e4"))
    yaw = -0.8400444222766996 + math.pi / 2
    assert first.quaternion_wxyz[0] == pytest.approx(
        (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)), abs=1e-12
    )
    assert first.size_lwh_m[0] == (4.747, 1.888, 1.761)
    out = tmp_path / "out.json"
    exported = write_format("pandaset", out, imported.layer, scene())
    assert exported.losses == ()

    def rows(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
        return {(b["track"], b["stamp_ns"]): b for b in json.loads(path.read_text())["boxes"]}

    before, after = rows(source), rows(out)
    assert before.keys() == after.keys()
    for key, box in before.items():
        turned = after[key].pop("yaw_rad") - box.pop("yaw_rad")
        assert math.remainder(turned, 2 * math.pi) == pytest.approx(0, abs=1e-9)
        assert after[key] == {k: v for k, v in box.items() if v is not None}


def test_pandaset_reports_tilt_and_what_it_has_no_place_for(tmp_path: Path) -> None:
    box = Box3D(
        id="b", label="Car", stamp_ns=T0, frame_id="world", center_m=(0, 0, 0),
        size_lwh_m=(4, 2, 1), quaternion_wxyz=(math.cos(0.1), 0, math.sin(0.1), 0),
        attributes={"wheels": 4}, confidence=0.5,
    )  # fmt: skip
    flat = Box2D(id="f", label="Car", stream="camera", stamp_ns=T0, xyxy_px=(0, 0, 1, 1))
    exported = write_format(
        "pandaset", tmp_path / "o.json", layer(boxes_3d=[box], boxes_2d=[flat]), scene()
    )
    assert whats(exported) == {
        "boxes_2d not held", "boxes_3d.confidence not held", "pitch and roll of boxes",
        "attribute 'wheels' of boxes",
    }  # fmt: skip


def test_pandaset_refuses_other_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"boxes": [{"label": "Car"}]}')
    with pytest.raises(ConversionError, match="no PandaSet cuboids"):
        read_format("pandaset", path, scene(), layer="gt")


# KITTI -------------------------------------------------------------------------------------

#: A car 10 m ahead and 2 m to the right whose bottom is 1.6 m below the camera. rotation_y 0:
#: its length lies along the camera's x.
LINE = "Car 0.25 1 -1.77 600.5 150.25 700.0 220.5 1.5 1.8 4.2 2.0 1.6 10.0 0.0"


def test_kitti_box_is_raised_and_turned_into_our_axes(tmp_path: Path) -> None:
    (tmp_path / "000003.txt").write_text(LINE + " 0.9\n")
    imported = read_format("kitti", tmp_path, scene(), layer="gt")
    (flat,), (solid,) = imported.layer.boxes_2d, imported.layer.boxes_3d
    assert flat.xyxy_px == (600.5, 150.25, 700.0, 220.5)  # indices from 0: no half pixel
    assert (flat.truncated, flat.attributes["occlusion"], flat.confidence) == (0.25, 1, 0.9)
    assert flat.stamp_ns == STAMPS[3]
    assert flat.object_id == solid.object_id
    assert solid.center_m == pytest.approx((2.0, 1.6 - 0.75, 10.0))
    assert solid.size_lwh_m == (4.2, 1.8, 1.5)
    corners = box_corners(solid.center_m, solid.size_lwh_m, solid.quaternion_wxyz)
    np.testing.assert_allclose(corners.min(axis=0), [2 - 2.1, 0.1, 10 - 0.9], atol=1e-12)
    np.testing.assert_allclose(corners.max(axis=0), [2 + 2.1, 1.6, 10 + 0.9], atol=1e-12)
    up = SE3.from_quaternion(solid.quaternion_wxyz).apply([0, 0, 1])
    np.testing.assert_allclose(up, [0, -1, 0], atol=1e-12)


@pytest.mark.parametrize("rotation_y", [-3.1, -math.pi / 2, -0.3, 0.0, 0.7, math.pi / 2, 3.0])
def test_kitti_corners_agree_with_the_development_kit_formula(
    tmp_path: Path, rotation_y: float
) -> None:
    line = LINE.rsplit(" ", 1)[0] + f" {rotation_y!r}"
    (tmp_path / "000000.txt").write_text(line)
    (box,) = read_format("kitti", tmp_path, scene(), layer="gt").layer.boxes_3d
    h, w, length = 1.5, 1.8, 4.2
    c, s = math.cos(rotation_y), math.sin(rotation_y)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    x = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * length / 2
    y = np.array([0, 0, 0, 0, -1, -1, -1, -1]) * h
    z = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * w / 2
    expected = (R @ np.stack([x, y, z])).T + np.array([2.0, 1.6, 10.0])
    ours = box_corners(box.center_m, box.size_lwh_m, box.quaternion_wxyz)
    distance = np.linalg.norm(ours[:, None] - expected[None], axis=-1)
    assert distance.min(axis=1).max() < 1e-12
    assert len(set(distance.argmin(axis=1).tolist())) == 8
    # The side that faces forward is the one of +x in both.
    front = box_corners(box.center_m, box.size_lwh_m, box.quaternion_wxyz)[[0, 3]].mean(axis=0)
    assert (front - [2.0, front[1], 10.0]) @ (R @ [1, 0, 0]) == pytest.approx(length / 2)


def test_kitti_both_ways_keeps_the_numbers(tmp_path: Path) -> None:
    dontcare = "DontCare -1 -1 -10 5 6 7 8 -1 -1 -1 -1000 -1000 -1000 -10"
    (tmp_path / "in").mkdir()
    (tmp_path / "in/000000.txt").write_text(f"{LINE}\n{dontcare}\n")
    imported = read_format("kitti", tmp_path / "in", scene(), layer="gt")
    assert [b.label for b in imported.layer.boxes_3d] == ["Car"]
    exported = write_format("kitti", tmp_path / "out", imported.layer, scene())
    lines = sorted((tmp_path / "out/000000.txt").read_text().splitlines())
    for got, wanted in zip(lines, sorted([LINE, dontcare]), strict=True):
        assert got.split()[0] == wanted.split()[0]
        assert [float(v) for v in got.split()[1:]] == pytest.approx(
            [float(v) for v in wanted.split()[1:]], abs=1e-8
        )
    assert whats(exported) == {"object ids (KITTI object labels have none)"}


def test_kitti_export_moves_boxes_into_the_camera_and_says_what_it_cannot(tmp_path: Path) -> None:
    # Camera 1 m above the vehicle's origin, looking along its x: (x, y, z) -> (-y, -z + 1, x).
    camera = Sensor("camera", "camera_frame", "ego", SE3.from_matrix(
        [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.0]]))  # fmt: skip
    common: dict[str, Any] = {"label": "Car", "stamp_ns": T0, "size_lwh_m": (4, 2, 1.5)}
    box = Box3D(id="b", frame_id="ego", center_m=(10, 1, 0.75), quaternion_wxyz=(1, 0, 0, 0),
                object_id="7", **common)  # fmt: skip
    lost = box.edit(id="c", frame_id="moon", object_id="8")
    late = box.edit(id="d", stamp_ns=T0 + 1)
    exported = write_format(
        "kitti", tmp_path, layer(boxes_3d=[box, lost, late]), scene(rig=Rig([camera]))
    )
    values = [float(v) for v in (tmp_path / "000000.txt").read_text().split()[1:]]
    # Bottom centre on the ground: 1 m below the camera, 1 m left, 10 m ahead, looking away (+z).
    assert values[7:] == pytest.approx([1.5, 2, 4, -1, 1, 10, -math.pi / 2], abs=1e-8)
    assert values[2] == pytest.approx(-math.pi / 2 - math.atan2(-1, 10), abs=1e-8)
    assert values[3:7] == [-1, -1, -1, -1]
    assert whats(exported) == {
        "3D boxes whose frame has no known place in camera_frame",
        "3D boxes that belong to no sample of camera",
        "2D boxes written as unknown (the object has none)",
        "object ids (KITTI object labels have none)",
    }


def test_kitti_tracking_both_ways(tmp_path: Path) -> None:
    source = tmp_path / "0000.txt"
    lines = [f"{f} 4 " + LINE.replace("0.25", "2") for f in (0, 1, 3)]
    lines += ["99 4 " + LINE, "0 -1 DontCare -1 -1 -10 5 6 7 8 -1 -1 -1 -1000 -1000 -1000 -10"]
    source.write_text("\n".join(lines))
    imported = read_format("kitti-tracking", source, scene(), layer="gt")
    (track,) = imported.layer.tracks_3d
    assert (track.object_id, track.stamp_ns) == ("4", [int(STAMPS[i]) for i in (0, 1, 3)])
    assert track.keyframe_attributes["truncation"] == [2, 2, 2]
    assert imported.layer.tracks_2d[0].truncated is None
    assert whats(imported) == {"labels of frames without a sample in camera"}
    out = tmp_path / "out.txt"
    write_format("kitti-tracking", out, imported.layer, scene())
    again = read_format("kitti-tracking", out, scene(), layer="gt").layer
    for name in ("tracks_2d", "tracks_3d"):
        (before,), (after,) = getattr(imported.layer, name), getattr(again, name)
        assert after.stamp_ns == before.stamp_ns
        assert after.keyframe_attributes == before.keyframe_attributes
        column = "xyxy_px" if name == "tracks_2d" else "center_m"
        np.testing.assert_allclose(getattr(after, column), getattr(before, column), atol=1e-7)
    assert [b.label for b in again.boxes_2d] == ["DontCare"]


TRACKLETS = """<?xml version="1.0"?>
<boost_serialization><tracklets><count>1</count><item_version>1</item_version><item>
<objectType>Van</objectType><h>2.0</h><w>1.8</w><l>4.5</l><first_frame>2</first_frame>
<poses><count>2</count><item_version>2</item_version>
<item><tx>10</tx><ty>-3</ty><tz>-1.7</tz><rx>0</rx><ry>0</ry><rz>1.5707963267948966</rz>
<state>2</state><occlusion>1</occlusion><occlusion_kf>1</occlusion_kf><truncation>0</truncation>
</item>
<item><tx>11</tx><ty>-3</ty><tz>-1.7</tz><rx>0</rx><ry>0</ry><rz>0</rz>
<state>1</state><occlusion>0</occlusion><truncation>99</truncation></item>
</poses></item></tracklets></boost_serialization>"""


def test_kitti_tracklets_both_ways(tmp_path: Path) -> None:
    source = tmp_path / "tracklet_labels.xml"
    source.write_text(TRACKLETS)
    where = scene(stream="lidar", frame_id="velo")
    imported = read_format("kitti-tracklets", source, where, layer="gt")
    (track,) = imported.layer.tracks_3d
    assert track.stamp_ns == [int(STAMPS[2]), int(STAMPS[3])]
    assert track.center_m == [(10.0, -3.0, -0.7), (11.0, -3.0, -0.7)]
    assert track.size_lwh_m[0] == (4.5, 1.8, 2.0)
    assert track.quaternion_wxyz[0] == pytest.approx((S, 0, 0, S))
    assert track.interpolated == [False, True]
    assert track.keyframe_attributes["truncation"] == [0, 99]
    assert whats(imported) == {"<occlusion_kf> of poses"}
    out = tmp_path / "out.xml"
    exported = write_format("kitti-tracklets", out, imported.layer, where)
    again = read_format("kitti-tracklets", out, where, layer="gt").layer.tracks_3d[0]
    assert again == track
    assert whats(exported) == {"object ids (tracklets have none)"}
    gap = track.remove_keyframe(int(STAMPS[3])).put_keyframe(
        int(STAMPS[6]), center_m=(1.0, 0.0, 0.0), size_lwh_m=(4.5, 1.8, 2.1),
        quaternion_wxyz=(1.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    exported = write_format("kitti-tracklets", out, layer(tracks_3d=[gap]), where)
    assert "tracks split where sweeps have no keyframe" in whats(exported)
    assert len(read_format("kitti-tracklets", out, where, layer="gt").layer.tracks_3d) == 2


# nuScenes ----------------------------------------------------------------------------------


def write_tables(folder: Path) -> None:
    box = {
        "sample_token": "s0", "instance_token": "i" * 32, "visibility_token": "2",
        "attribute_tokens": ["at"], "translation": [1.0, 2.0, 3.0], "size": [2.0, 4.5, 1.5],
        "rotation": [S, 0.0, 0.0, S], "num_lidar_pts": 7, "num_radar_pts": 0,
    }  # fmt: skip
    tables: dict[str, list[dict[str, Any]]] = {
        "scene": [{"token": "sc", "name": "scene-1", "description": ""},
                  {"token": "other", "name": "scene-2", "description": "rain"}],
        "sample": [{"token": "s0", "timestamp": T0 // 1000, "scene_token": "sc"},
                   {"token": "s1", "timestamp": T0 // 1000 + 500_000, "scene_token": "sc"},
                   {"token": "x", "timestamp": 5, "scene_token": "other"}],
        "instance": [{"token": "i" * 32, "category_token": "c"}],
        "category": [{"token": "c", "name": "vehicle.car"}],
        "attribute": [{"token": "at", "name": "vehicle.moving"}],
        "sample_annotation": [{**box, "token": "0" * 32}, {**box, "token": "1" * 32,
                              "sample_token": "s1", "attribute_tokens": []},
                              {**box, "token": "2" * 32, "sample_token": "x"}],
    }  # fmt: skip
    folder.mkdir()
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))


def test_nuscenes_both_ways(tmp_path: Path) -> None:
    write_tables(tmp_path / "in")
    with pytest.raises(ConversionError, match="scene-1, scene-2"):
        read_format("nuscenes", tmp_path / "in", scene(), layer="gt")
    where = scene(frame_id=None, stream=None)
    imported = read_format("nuscenes", tmp_path / "in", where, layer="gt", scene_name="scene-1")
    (track,) = imported.layer.tracks_3d
    assert track.stamp_ns == [T0, T0 + 500_000_000]
    assert track.size_lwh_m[0] == (4.5, 2.0, 1.5)
    assert track.quaternion_wxyz[0] == (S, 0.0, 0.0, S)
    assert (track.frame_id, track.object_id) == ("global", "i" * 32)
    assert track.visibility == [(0.4, 0.6)] * 2
    assert track.keyframe_attributes["lidar_points"] == [7, 7]
    assert track.keyframe_attributes["nuscenes_attributes"] == [["vehicle.moving"], None]
    exported = write_format("nuscenes", tmp_path / "out", imported.layer, where)
    assert {loss.what for loss in exported.losses} == {"tables of the recording left empty"}
    again = read_format("nuscenes", tmp_path / "out", where, layer="gt").layer
    for column in ("stamp_ns", "center_m", "size_lwh_m", "quaternion_wxyz", "visibility"):
        assert getattr(again.tracks_3d[0], column) == getattr(track, column)
    attributes = again.tracks_3d[0].keyframe_attributes
    assert attributes["source_id"] == ["0" * 32, "1" * 32]
    rows = json.loads((tmp_path / "out/sample_annotation.json").read_text())
    assert [(r["prev"], r["next"]) for r in rows] == [("", "1" * 32), ("0" * 32, "")]
    names = """attribute calibrated_sensor category ego_pose instance log map sample
        sample_annotation sample_data scene sensor visibility"""
    assert {p.stem for p in (tmp_path / "out").iterdir()} == set(names.split())


def test_nuscenes_reports_rounded_stamps_and_made_up_counts(tmp_path: Path) -> None:
    track = Track3D(
        id="t", object_id="a", label="car", frame_id="map", stamp_ns=[T0 + 1],
        center_m=[(0, 0, 0)], size_lwh_m=[(1, 1, 1)], quaternion_wxyz=[(1, 0, 0, 0)],
        visibility=[(0.1, 0.9)],
    )  # fmt: skip
    exported = write_format("nuscenes", tmp_path, layer(tracks_3d=[track]), scene(frame_id="map"))
    assert {
        "stamps rounded down to microseconds",
        "lidar_points written as 0 (unknown; the format demands a number)",
        "visibility bounds that are none of the four bins",
    } <= whats(exported)
