"""COCO and CVAT: half pixels, masks, gaps of tracks, and what does not cross over."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.annotations import Scene, read_format, write_format
from mmdata.annotations.pixels import bounds, fill, mask_of, mask_of_rows, runs_of
from mmdata.errors import ConversionError
from mmdata_schema import Box2D, Event, Keypoint, Keypoints, Layer, Mask, Provenance, Track2D

T0 = 1_760_030_100_000_000_000
STAMPS = T0 + np.arange(20) * 100_000_000


def scene(**more: Any) -> Scene:
    return Scene("take", stamps={"camera": STAMPS}, stream="camera", start_ns=T0, **more)


def layer(**collections: Any) -> Layer:
    return Layer(episode_id="take", name="gt", provenance=Provenance(author="anna"), **collections)


def whats(result: Any) -> set[str]:
    return {loss.what for loss in result.losses}


# Pixels ------------------------------------------------------------------------------------


def test_polygon_holds_the_pixels_whose_centre_it_holds() -> None:
    # In COCO's corner coordinates the rectangle (1, 2) - (4, 5) covers pixels 1..3 x 2..4.
    square = np.array([[1, 2], [4, 2], [4, 5], [1, 5]]) - 0.5
    mask = fill([square], 7, 6)
    assert np.argwhere(mask).tolist() == [[y, x] for y in (2, 3, 4) for x in (1, 2, 3)]
    assert bounds(mask) == (1, 2, 3, 4)
    # A triangle over the lower left half of 4 x 4 pixels: 10 centres below the diagonal.
    triangle = np.array([[-0.5, -0.6], [-0.5, 3.5], [3.6, 3.5]])
    assert fill([triangle], 4, 4).sum(axis=1).tolist() == [1, 2, 3, 4]
    both, either = fill([square], 7, 6), fill([triangle], 7, 6)
    assert (fill([square, triangle], 7, 6) == (both | either)).all()
    assert not fill([square + 100], 7, 6).any()
    assert fill([square * 100 - 200], 7, 6).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=7))
def test_fill_equals_a_test_of_every_centre(points: list[tuple[float, float]]) -> None:
    def inside(x: float, y: float) -> bool:
        odd = False
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            if (y0 <= y < y1) or (y1 <= y < y0):
                odd ^= x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
        return odd

    wanted = [[inside(x, y) for x in range(10)] for y in range(9)]
    assert fill([points], 9, 10).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_runs_and_masks_are_inverse(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    assert (mask_of(runs_of(mask), *mask.shape) == mask).all()


def test_runs_go_down_the_columns() -> None:
    assert runs_of(np.array([[True, False], [True, True]])) == [0, 2, 1, 1]
    assert mask_of_rows([1, 2, 1], 2, 2).tolist() == [[False, True], [True, False]]


# COCO --------------------------------------------------------------------------------------


def coco(**entry: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 9, "file_name": "cam/frame_0004.jpg", "width": 12, "height": 10}],
        "categories": [{"id": 3, "name": "person", "keypoints": ["nose", "hand", "foot"]}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 3, "iscrowd": 0, **entry}],
    }


def test_coco_box_loses_half_a_pixel_and_keypoints_do_not(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(coco(
        bbox=[2, 3, 4, 5], keypoints=[4, 5, 2, 6, 7, 1, 0, 0, 0], num_keypoints=2, score=0.75,
        track_id=17, caption="a person",
    )))  # fmt: skip
    imported = read_format("coco", path, scene(), layer="gt")
    (box,), (points,) = imported.layer.boxes_2d, imported.layer.keypoints
    # Pixels 2..5 x 3..7: their outer edges in centre coordinates.
    assert box.xyxy_px == (1.5, 2.5, 5.5, 7.5)
    assert (box.stamp_ns, box.object_id, box.confidence) == (int(STAMPS[4]), "17", 0.75)
    assert [(p.name, p.xy_px, p.visible) for p in points.points] == [
        ("nose", (4.0, 5.0), True), ("hand", (6.0, 7.0), False),
    ]  # fmt: skip
    assert points.object_id == "17"
    assert whats(imported) == {"field 'caption' of annotations"}


def test_coco_polygons_become_masks_and_come_back_as_they_were(tmp_path: Path) -> None:
    path, out = tmp_path / "c.json", tmp_path / "o.json"
    polygon = [[1.0, 2.0, 4.0, 2.0, 4.0, 5.0, 1.0, 5.0]]
    path.write_text(json.dumps(coco(bbox=[1, 2, 3, 3], segmentation=polygon)))
    imported = read_format("coco", path, scene(), layer="gt").layer
    (mask,) = imported.masks
    assert mask.size_hw == (10, 12)
    assert mask.area_px == 9
    assert mask.object_id == imported.boxes_2d[0].object_id
    exported = write_format("coco", out, imported, scene())
    document = json.loads(out.read_text())
    (entry,) = document["annotations"]
    assert entry["segmentation"] == polygon
    assert entry["bbox"] == [1, 2, 3, 3]
    assert entry["area"] == 9
    assert document["images"][0]["frame_index"] == 4
    assert exported.losses == ()
    # After an edit the polygon no longer describes the mask.
    edited = mask.edit(counts=[120], crowd=None)
    write_format("coco", out, imported.put(edited), scene())
    assert "counts" in json.loads(out.read_text())["annotations"][0]["segmentation"]


def test_coco_masks_agree_with_pycocotools(tmp_path: Path) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    angle = np.sort(rng.uniform(0, 2 * math.pi, 12))
    outline = 40 + np.stack([30 * np.cos(angle), 25 * np.sin(angle)], axis=1)
    ours = fill([outline - 0.5], 80, 90)
    theirs = tools.decode(tools.frPyObjects([outline.ravel().tolist()], 80, 90))[..., 0] > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95
    out = tmp_path / "o.json"
    mask = Mask(id="m", label="blob", stream="camera", stamp_ns=T0, size_hw=(80, 90),
                counts=runs_of(ours))  # fmt: skip
    exported = write_format("coco", out, layer(masks=[mask]), scene())
    (entry,) = json.loads(out.read_text())["annotations"]
    assert (tools.decode(entry["segmentation"]) > 0).tolist() == ours.tolist()
    assert entry["bbox"] == tools.toBbox(entry["segmentation"]).tolist()
    assert "masks without a box got the mask's own" in whats(exported)
    again = read_format("coco", out, scene(), layer="gt").layer.masks[0]
    assert again.runs() == mask.runs()


def test_coco_both_ways_and_what_it_cannot_hold(tmp_path: Path) -> None:
    out = tmp_path / "o.json"
    track = Track2D(id="t", object_id="car-1", label="car", stream="camera",
                    stamp_ns=[int(STAMPS[0]), int(STAMPS[2])], gap_after=[True, False],
                    xyxy_px=[(0.25, 1.5, 7.5, 9.0), (1, 1, 2, 2)])  # fmt: skip
    points = Keypoints(id="k", label="hand", stream="camera", stamp_ns=T0, object_id="h",
                       points=[Keypoint(name="tip", xy_px=(3.5, 4.0), visible=False)])  # fmt: skip
    event = Event(id="e", label="contact", stamp_ns=T0)
    rich = layer(tracks_2d=[track], keypoints=[points], events=[event])
    exported = write_format("coco", out, rich, scene())
    again = read_format("coco", out, scene(), layer="gt").layer
    assert {(b.object_id, b.stamp_ns, b.xyxy_px) for b in again.boxes_2d} == {
        ("car-1", int(STAMPS[0]), (0.25, 1.5, 7.5, 9.0)), ("car-1", int(STAMPS[2]), (1, 1, 2, 2)),
    }  # fmt: skip
    assert again.keypoints[0].points == points.points
    assert whats(exported) == {
        "events not held", "gaps of tracks (gap_after)", "objects without a box",
        "image sizes (the rig has no intrinsics for the stream)",
    }  # fmt: skip


def test_coco_finds_samples_by_stamp_or_index_and_reports_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    document = coco(bbox=[0, 0, 1, 1])
    for name, stamp in ((f"{STAMPS[7]}.png", int(STAMPS[7])), ("x_000002.png", int(STAMPS[2]))):
        document["images"][0]["file_name"] = name
        path.write_text(json.dumps(document))
        assert read_format("coco", path, scene(), layer="gt").layer.boxes_2d[0].stamp_ns == stamp
    document["images"][0]["file_name"] = "frame_99.png"
    path.write_text(json.dumps(document))
    imported = read_format("coco", path, scene(), layer="gt")
    assert imported.layer.boxes_2d == []
    assert whats(imported) == {"annotations of images without a sample"}
    document["annotations"][0]["category_id"] = 8
    path.write_text(json.dumps(document))
    with pytest.raises(ConversionError, match="annotation 1 refers to a missing"):
        read_format("coco", path, scene(), layer="gt")


# CVAT --------------------------------------------------------------------------------------

VIDEO = """<?xml version="1.0"?>
<annotations><version>1.1</version><meta><task><owner><username>anna</username></owner>
<labels><label><name>car</name><attributes><attribute><name>doors</name>
<input_type>number</input_type></attribute><attribute><name>taxi</name>
<input_type>checkbox</input_type></attribute></attributes></label></labels>
<original_size><width>12</width><height>10</height></original_size></task></meta>
<track id="5" label="car" source="manual">
<box frame="0" outside="0" occluded="1" keyframe="1" xtl="1" ytl="2" xbr="3" ybr="4" z_order="2">
<attribute name="doors">4</attribute><attribute name="taxi">true</attribute></box>
<box frame="1" outside="0" occluded="0" keyframe="0" xtl="2" ytl="2" xbr="4" ybr="4"/>
<box frame="2" outside="1" occluded="0" keyframe="1" xtl="2" ytl="2" xbr="4" ybr="4"/>
<box frame="6" outside="0" occluded="0" keyframe="1" xtl="5" ytl="5" xbr="7" ybr="7" rotation="90"/>
<box frame="10" outside="1" occluded="0" keyframe="1" xtl="9" ytl="5" xbr="11" ybr="7"/>
</track>
<track id="6" label="arm"><polygon frame="3" outside="0" occluded="0" keyframe="1"
 points="1,2;4,2;4,5;1,5"/><polyline frame="3" points="0,0;1,1"/></track>
</annotations>"""


def test_cvat_track_with_gaps_interpolation_and_attributes(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(VIDEO)
    imported = read_format("cvat", path, scene(), layer="gt")
    (track,) = imported.layer.tracks_2d
    # Frame 9 is made: a file of keyframes shows the box until the frame before `outside`.
    assert track.stamp_ns == [int(STAMPS[i]) for i in (0, 1, 6, 9)]
    assert track.xyxy_px[0] == (0.5, 1.5, 2.5, 3.5)
    assert track.xyxy_px[3] == (7.5, 4.5, 9.5, 6.5)  # three quarters of the way to the last shape
    assert track.interpolated == [False, True, False, True]
    assert track.gap_after == [False, True, False, True]
    assert track.rotation_rad is not None
    assert track.rotation_rad[2] == pytest.approx(math.pi / 2)
    assert track.keyframe_attributes["occluded"] == [True, False, False, False]
    assert track.keyframe_attributes["doors"] == [4, None, None, None]
    assert track.keyframe_attributes["taxi"] == [True, None, None, None]
    assert track.keyframe_attributes["z_order"] == [2, None, None, None]
    (mask,) = imported.layer.masks
    assert (mask.area_px, mask.size_hw, mask.object_id) == (9, (10, 12), "6")
    assert imported.layer.provenance.author == "anna"
    assert whats(imported) == {"<polyline> shapes"}


def test_cvat_video_both_ways(tmp_path: Path) -> None:
    path, out = tmp_path / "a.xml", tmp_path / "o.xml"
    path.write_text(VIDEO)
    before = read_format("cvat", path, scene(), layer="gt").layer
    exported = write_format("cvat", out, before, scene())
    after = read_format("cvat", out, scene(), layer="gt").layer
    old, new = before.tracks_2d[0], after.tracks_2d[0]
    for column in ("stamp_ns", "xyxy_px", "interpolated", "gap_after", "keyframe_attributes"):
        assert getattr(new, column) == getattr(old, column), column
    assert new.rotation_rad is not None
    assert new.rotation_rad[2] == pytest.approx(math.pi / 2)
    assert new.object_id == "5"
    assert whats(exported) == {"masks not held"}


IMAGES = """<annotations><version>1.1</version>
<image id="2" name="a.jpg" width="12" height="10">
<box label="car" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4" z_order="0"/>
<mask label="blob" occluded="0" rle="1, 2, 1, 2" left="3" top="4" width="3" height="2"/>
<skeleton label="hand"><points label="tip" outside="0" occluded="1" points="4.5,5.5"/>
<points label="root" outside="1" occluded="0" points="0,0"/></skeleton>
<points label="dots" points="1,1;2,2"/>
<ellipse label="x" cx="1" cy="1" rx="1" ry="1"/></image>
<image id="77" name="b.jpg" width="12" height="10"><box label="car" xtl="1" ytl="2" xbr="3"
 ybr="4"/></image></annotations>"""


def test_cvat_images_both_ways(tmp_path: Path) -> None:
    path, out = tmp_path / "a.xml", tmp_path / "o.xml"
    path.write_text(IMAGES)
    imported = read_format("cvat", path, scene(), layer="gt")
    before = imported.layer
    assert before.boxes_2d[0].stamp_ns == int(STAMPS[2])
    # Rows of the 3 x 2 patch at column 3, row 4: 0 1 1 / 0 1 1.
    mask = before.masks[0]
    assert np.argwhere(mask_of(mask.runs(), *mask.size_hw)).tolist() == [
        [4, 4], [4, 5], [5, 4], [5, 5],
    ]  # fmt: skip
    hand = next(k for k in before.keypoints if k.label == "hand")
    assert [(p.name, p.xy_px, p.visible) for p in hand.points] == [("tip", (4.0, 5.0), False)]
    assert whats(imported) == {"<ellipse> shapes", "shapes of images without a sample in camera"}
    exported = write_format("cvat", out, before, scene())
    after = read_format("cvat", out, scene(), layer="gt").layer
    assert after.masks[0].runs() == mask.runs()
    assert after.boxes_2d[0].xyxy_px == before.boxes_2d[0].xyxy_px
    assert sorted(k.label for k in after.keypoints) == ["dots", "hand"]
    assert whats(exported) == {"keypoints of unknown visibility written as visible"}


def test_cvat_export_reports_unknown_occlusion_and_other_streams(tmp_path: Path) -> None:
    boxes = [
        Box2D(id="a", label="car", stream="camera", stamp_ns=T0, xyxy_px=(0, 0, 1, 1)),
        Box2D(id="b", label="car", stream="other", stamp_ns=T0, xyxy_px=(0, 0, 1, 1)),
        Box2D(id="c", label="car", stream="camera", stamp_ns=T0 + 1, xyxy_px=(0, 0, 1, 1)),
    ]
    exported = write_format("cvat", tmp_path / "o.xml", layer(boxes_2d=boxes), scene())
    counts = {loss.what: loss.count for loss in exported.losses}
    assert counts == {
        "shapes that belong to no sample of camera": 2,
        "unknown occlusion written as 0 (CVAT demands it)": 1,
    }
    (tmp_path / "x.xml").write_text("<html/>")
    with pytest.raises(ConversionError, match="<html>"):
        read_format("cvat", tmp_path / "x.xml", scene(), layer="gt")
