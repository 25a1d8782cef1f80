"""A real second of driving: three cameras, a LiDAR and 1,161 hand-made boxes of PandaSet."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmdata.annotations.importers.pandaset import read_pandaset
from mmdata.annotations.scene import Scene
from mmdata.checks.label_limits import ProjectionLimits
from mmdata.checks.labels import check_labels, unfolded
from mmdata.checks.labels.lidar import contents, count_points
from mmdata.checks.labels.pipeline import check_boxes
from mmdata.checks.labels.projection import box_at, camera_poses, look
from mmdata.checks.labels.scene import scene_of
from mmdata.checks.labels.tables import read_boxes_3d
from mmdata.geometry import (
    box_corners,
    points_in_box,
    quat_conjugate,
    quat_rotate,
    quat_to_matrix,
)
from mmdata_schema import Box2D


@pytest.fixture(scope="module")
def recorded(shared_data, tmp_path_factory):
    """(episode, labels), converted from the log."""
    from mmdata.conversion.job import convert_source
    from mmdata.conversion.sources import find_sources
    from mmdata.store import open_episode

    folder = shared_data / "real" / "pandaset_002"
    out = tmp_path_factory.mktemp("pandaset")
    result = convert_source(find_sources([folder / "drive"]).sources[0], out)
    with open_episode(result.episodes[0].path) as episode:
        scene = Scene.of(episode, stream="lidar_points")
        layer = read_pandaset(folder / "drive.cuboids.json", scene, layer="pandaset").layer
        yield episode, layer


@pytest.fixture(scope="module")
def scene(recorded):
    return scene_of(recorded[0], ["world"])


@pytest.fixture(scope="module")
def boxes(recorded):
    return read_boxes_3d(recorded[1], 3.5)


@pytest.fixture(scope="module")
def real_findings(recorded):
    return check_labels(*recorded[:1], [recorded[1]])


def test_projections_agree_with_opencv(scene, boxes):
    assert len(boxes) == 1161
    compared = 0
    for view in scene.views:
        seen = look(view, boxes, ProjectionLimits(max_range_m=200.0), occlusion=False)
        center, size, turned = box_at(boxes, seen.row, seen.part)
        corners = box_corners(center, size, turned)
        position, orientation = camera_poses(view, view.stamp_ns)
        for k in range(len(seen)):
            f = seen.frame[k]
            local = quat_rotate(quat_conjugate(orientation[f]), corners[k] - position[f])
            if local[:, 2].min() < 0.5:
                continue  # OpenCV does not clip what is behind the camera
            rotation = quat_to_matrix(quat_conjugate(orientation[f]))
            rvec, tvec = cv2.Rodrigues(rotation)[0], -rotation @ position[f]
            lens = view.camera.distortion if len(view.camera.distortion) else None
            uv = cv2.projectPoints(corners[k], rvec, tvec, view.camera.K, lens)[0].reshape(-1, 2)
            mine = np.concatenate([uv.min(axis=0), uv.max(axis=0)])
            assert np.abs(mine - seen.raw[k]).max() < 0.5
            compared += 1
    assert compared > 500


def test_point_counts_equal_brute_force(scene, boxes):
    (sweeps,) = scene.sweeps
    total = 0
    for i in (0, 9):
        sweep = sweeps.read(i)
        rows = np.flatnonzero(boxes.stamp_ns == sweep.stamp_ns)
        assert len(rows) > 100
        place = boxes.center[rows], boxes.size[rows], boxes.quaternion[rows]
        counts = count_points(sweep.points, *place)
        brute = [int(points_in_box(sweep.points, *b).sum()) for b in zip(*place, strict=True)]
        assert counts.tolist() == brute
        total += sum(brute)
        found = contents(boxes, sweeps, _near())
        mine = np.isin(found.row, rows)
        by_row = dict(zip(rows.tolist(), brute, strict=True))
        assert found.inside[mine].tolist() == [by_row[r] for r in found.row[mine].tolist()]
    assert total > 50_000


def _near():
    from mmdata.checks.label_limits import SweepLimits

    return SweepLimits()


def test_what_the_report_says_of_the_real_labels(real_findings):
    """Ten keyframes per track. In the first one, moving things of one LiDAR were left where they
    are in the second, while their siblings of the other LiDAR moved on. One thing is a bicycle to
    one LiDAR and a motorcycle to the other. The rest are paths that no car can drive."""
    top = unfolded(real_findings)
    jumps = [f for f in top if f.name == "jump"]
    first = min(f.stamp_ns for f in jumps)
    assert len(jumps) == 8
    assert {f.stamp_ns for f in jumps} == {first}
    assert {f.name for f in top} == {"jump", "acceleration", "class_change"}
    (two,) = [f for f in top if f.name == "class_change"]
    assert "Bicycle" in two.message
    assert "Motorcycle" in two.message


def test_the_jumps_are_in_the_source(recorded, real_findings):
    """Each jumping track stands still from its first keyframe to its second, or makes part of a
    step, while its sibling, the same thing seen by the other LiDAR, makes a whole one."""
    tracks = {t.object_id: t for t in recorded[1].tracks_3d}
    for finding in real_findings:
        if finding.name != "jump":
            continue
        track = tracks[finding.object_id]
        (other,) = {s for s in track.keyframe_attributes["sibling"] if s}
        step = np.linalg.norm(np.diff(track.center_m, axis=0), axis=1)
        theirs = np.linalg.norm(np.diff(tracks[other].center_m, axis=0), axis=1)
        # Cars go on as they went, but for one of the eight whose sibling wavers as well.
        assert abs(step[0] - step[1]) > 0.25
        assert abs(theirs[0] - step[1]) < abs(step[0] - step[1])


def test_faults_put_into_the_real_boxes_are_found(recorded, real_findings, scene, boxes):
    layer = recorded[1]
    known = {f.key for f in real_findings}
    found = contents(boxes, scene.sweeps[0], _near())
    full = found.row[(found.inside > 60) & (found.range_m < 30)]
    tracks = {t.id: t for t in layer.tracks_3d}
    names = list(dict.fromkeys(boxes.named[boxes.track[r]].annotation_id for r in full))
    chosen = [tracks[n] for n in names if tracks[n].keyframe_count == 10][:4]
    jump, size, raised, moved = chosen
    changed = layer
    at = jump.stamp_ns[5]
    changed = changed.put(
        jump.put_keyframe(at, center_m=tuple(np.add(jump.center_m[5], [1, 0, 0])))
    )
    at_size = size.stamp_ns[4]
    larger = tuple(np.multiply(size.size_lwh_m[4], [1.25, 1, 1]))
    changed = changed.put(size.put_keyframe(at_size, size_lwh_m=larger))
    up = [tuple(np.add(c, [0, 0, 0.8])) for c in raised.center_m]
    changed = changed.put(raised.edit(center_m=up))
    ghost = moved.edit(id="ghost", object_id="ghost", center_m=[_free_place(scene, boxes)] * 10)
    changed = changed.put(ghost)
    new = [f for f in check_labels(recorded[0], [changed]) if f.key not in known]
    told = {(f.name, f.object_id) for f in new}
    assert ("jump", jump.object_id) in told
    assert ("size_change", size.object_id) in told
    assert ("ground_offset", raised.object_id) in told
    assert ("empty_box", "ghost") in told


def _free_place(scene, boxes):
    """A place ahead of the vehicle without boxes and points, on the ground, with ground behind."""
    sweep = scene.sweeps[0].read(4)
    for x in np.arange(-20, 20, 2.0):
        for y in np.arange(-20, 20, 2.0):
            place = np.array([x, y, 0.6])
            near = np.linalg.norm(sweep.points[:, :2] - place[:2], axis=1) < 3.0
            low = sweep.points[near, 2]
            apart = np.linalg.norm(boxes.center[:, :2] - place[:2], axis=1).min()
            away = np.linalg.norm(place - sweep.origin)
            if near.sum() > 300 and low.max() < 0.0 and apart > 6 and 6 < away < 18:
                return (float(x), float(y), float(np.median(low) + 0.8))
    raise AssertionError("no free place")


def test_rectangles_made_from_the_real_boxes(recorded, scene, boxes):
    """Rectangles are the projections with two pixels of noise; faults in them are found."""
    rng = np.random.default_rng(0)
    rectangles: list[Box2D] = []
    visible: dict[str, float] = {}
    for view in scene.views:
        seen = look(view, boxes, ProjectionLimits())
        for k in np.flatnonzero(seen.certain & (seen.visible > 0.3)).tolist():
            named = boxes.named[boxes.track[seen.row[k]]]
            drawn = np.sort((seen.rect[k] + rng.normal(0, 1.5, 4)).reshape(2, 2), axis=0)
            visible[f"{view.stream}{k}"] = float(seen.visible[k])
            rectangles.append(
                Box2D(id=f"{view.stream}{k}", label=named.label, object_id=named.object_id,
                      stream=view.stream, stamp_ns=int(view.stamp_ns[seen.frame[k]]),
                      xyxy_px=tuple(drawn.reshape(-1).tolist()))
            )  # fmt: skip
    layer = recorded[1].model_copy(update={"boxes_2d": rectangles})
    assert len(rectangles) > 120

    def images(changed):
        return [f for f in check_boxes(scene, [changed]) if f.rule < "LAB2" and f.cause is None]

    before = {f.key for f in images(layer)}
    assert len(before) <= 3
    big = [b for b in rectangles if min(b.xyxy_px[2] - b.xyxy_px[0],
                                        b.xyxy_px[3] - b.xyxy_px[1]) > 45
           and b.xyxy_px[0] > 80 and b.xyxy_px[2] < 1840]  # fmt: skip
    big = [b for b in big if visible[b.id] > 0.8]
    twice = {t.object_id for t in recorded[1].tracks_3d if "sibling" in t.keyframe_attributes}
    gone = next(b for b in big[len(big) // 4 :] if b.object_id not in twice)
    wrong, off = [b for b in big if b is not gone][len(big) // 2 :: len(big) // 4][:2]
    x0, y0, x1, y1 = off.xyxy_px
    by = 0.35 * (x1 - x0)
    changed = layer.remove(gone.id).put(wrong.edit(label="Pedestrian"))
    changed = changed.put(off.edit(xyxy_px=(x0 + by, y0, x1 + by, y1)))
    changed = changed.put(gone.edit(id="ghost", object_id=None, xyxy_px=(900.0, 3.0, 980.0, 60.0)))
    told = {(f.name, f.annotation_ids[0]) for f in images(changed) if f.key not in before}
    assert ("class_mismatch", wrong.id) in told
    assert ("box_location", off.id) in told
    assert ("phantom_2d", "ghost") in told
    assert "missing_2d" in {name for name, _ in told}
