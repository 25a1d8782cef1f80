"""Perfect labels of a simulated drive pass; each fault put into them is found and named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmdata.checks import Context, Status, run_checks
from mmdata.checks.label_limits import ProjectionLimits
from mmdata.checks.labels import RULES, check_labels, unfolded
from mmdata.checks.labels.lidar import count_points
from mmdata.checks.labels.pipeline import check_boxes
from mmdata.checks.labels.projection import look
from mmdata.checks.labels.scene import scene_of
from mmdata.checks.labels.tables import read_boxes_3d
from mmdata.geometry import points_in_box, quat_conjugate, quat_multiply, quat_rotate
from mmdata.simulate.drive import drive
from mmdata_schema import Box2D, Layer, Provenance, Track3D, load_taxonomy, write_layer


@pytest.fixture(scope="module")
def simulated():
    return drive(3, duration_s=3.0, cameras=4, objects=14, render=False)


@pytest.fixture(scope="module")
def episode(simulated):
    return simulated.to_episode()


@pytest.fixture(scope="module")
def labels(simulated):
    tracks = [
        Track3D(id=f"t_{t['object_id']}",
                **{k: v for k, v in t.items() if k not in ("true_ns", "points")})
        for t in simulated.truth["tracks_3d"]
    ]  # fmt: skip
    boxes = [
        Box2D(id=f"b{k}", visibility=(b["visibility"], b["visibility"]),
              **{n: v for n, v in b.items() if n not in ("true_ns", "visibility")})
        for k, b in enumerate(simulated.truth["boxes_2d"])
    ]  # fmt: skip
    return Layer(
        episode_id=simulated.episode_id,
        name="truth",
        provenance=Provenance(author="truth"),
        tracks_3d=tracks,
        boxes_2d=boxes,
    )


@pytest.fixture(scope="module")
def scene(episode):
    return scene_of(episode, ["world"])


def plain(labels, side=25.0, visible=0.95):
    """Rectangles in full sight, away from the borders and the ends of the drive."""
    stamps = sorted({b.stamp_ns for b in labels.boxes_2d})
    low, high = stamps[len(stamps) // 5], stamps[-len(stamps) // 5]
    return [
        b for b in labels.boxes_2d
        if b.visibility[0] >= visible and low < b.stamp_ns < high and (b.truncated or 0) == 0
        and min(b.xyxy_px[2] - b.xyxy_px[0], b.xyxy_px[3] - b.xyxy_px[1]) > side
    ]  # fmt: skip


def test_perfect_labels_have_no_finding(episode, labels):
    assert [f.message for f in check_labels(episode, [labels])] == []


def test_projections_are_the_true_rectangles_through_every_lens(scene, labels, simulated):
    boxes, unknown = scene.into_fixed(read_boxes_3d(labels, 3.5))
    assert unknown == []
    drawn = {(b.stream, b.object_id, b.stamp_ns): b.xyxy_px for b in plain(labels, 4.0, 0.0)}
    compared = 0
    models = set()
    for view in scene.views:
        seen = look(view, boxes, ProjectionLimits())
        for k in range(len(seen)):
            name = boxes.named[boxes.track[seen.row[k]]].object_id
            key = (view.stream, name, int(view.stamp_ns[seen.frame[k]]))
            if key in drawn and seen.certain[k]:
                # Between two keyframes the truth bends a little and the track does not.
                assert np.abs(seen.rect[k] - drawn[key]).max() < 0.6
                compared += 1
                models.add(view.camera.model)
    assert compared > 100
    assert len(models) == 3


def test_point_counts_equal_a_test_of_every_point(scene, labels):
    boxes = read_boxes_3d(labels, 3.5)
    sweep = scene.sweeps[0].read(5)
    counts = count_points(sweep.points, boxes.center, boxes.size, boxes.quaternion)
    brute = [points_in_box(sweep.points, *box).sum()
             for box in zip(boxes.center, boxes.size, boxes.quaternion, strict=True)]  # fmt: skip
    assert counts.tolist() == brute
    assert max(brute) > 50


def named(found, rule):
    return [f for f in found if f.name == rule]


@pytest.fixture
def run(scene):
    def check(layer):
        return check_boxes(scene, [layer])

    return check


def test_a_rectangle_left_out(run, labels):
    box = plain(labels)[7]
    found = run(labels.remove(box.id))
    assert [(f.name, f.object_id, f.stream, f.stamp_ns, f.error_type) for f in found] == [
        ("missing_2d", box.object_id, box.stream, box.stamp_ns, "COM1")
    ]


def test_a_rectangle_of_nothing(run, labels):
    box = plain(labels)[7].edit(id="ghost", object_id=None, xyxy_px=(3.0, 3.0, 60.0, 40.0))
    (found,) = run(labels.put(box))
    assert (found.name, found.annotation_ids) == ("phantom_2d", ("ghost",))


@pytest.mark.parametrize(("label", "code"), [("pedestrian", "ACC1"), ("van", "ACC3")])
def test_a_wrong_class_and_another_level_of_it(run, labels, label, code):
    box = next(b for b in plain(labels) if b.label == "car")
    (found,) = run(labels.put(box.edit(label=label)))
    assert (found.name, found.error_type, found.annotation_ids[0]) == (
        "class_mismatch", code, box.id
    )  # fmt: skip
    assert run(labels.put(box.edit(label="vehicle.car"))) == []  # an alias is no mismatch


def test_two_identities_exchanged(run, labels):
    boxes = plain(labels, 12.0, 0.8)
    a, b = next((a, b) for a in boxes for b in boxes
                if a.stream == b.stream and a.stamp_ns == b.stamp_ns
                and a.xyxy_px[2] < b.xyxy_px[0])  # fmt: skip
    swapped = labels.put(a.edit(object_id=b.object_id)).put(b.edit(object_id=a.object_id))
    (found,) = named(run(swapped), "identity_swap")
    assert set(found.annotation_ids) == {a.id, b.id}
    assert found.error_type == "CON7"


def test_a_shifted_rectangle(run, labels):
    box = plain(labels, 40.0)[3]
    x0, y0, x1, y1 = box.xyxy_px
    by = 0.4 * (x1 - x0)
    (found,) = run(labels.put(box.edit(xyxy_px=(x0 + by, y0, x1 + by, y1))))
    assert (found.name, found.annotation_ids[0]) == ("box_location", box.id)
    assert found.value == pytest.approx(0.4, abs=0.05)


def nearest_track(labels, episode, label="car"):
    ego = episode.streams["tf_world_base_link"]["translation"]
    tracks = [t for t in labels.tracks_3d if t.label == label and len(t.stamp_ns) > 20]
    return min(tracks, key=lambda t: np.linalg.norm(
        np.asarray(t.center_m)[len(t.center_m) // 2] - ego[len(ego) // 2]))  # fmt: skip


def test_a_displaced_keyframe_explains_what_it_does_to_images(run, labels):
    seen = plain(labels)[7]
    track = next(t for t in labels.tracks_3d if t.object_id == seen.object_id)
    k = int(np.searchsorted(track.stamp_ns, seen.stamp_ns))
    at = track.stamp_ns[k]
    x, y, z = track.center_m[k]
    found = run(labels.put(track.put_keyframe(at, center_m=(x + 1.0, y + 1.0, z))))
    top = unfolded(found)
    assert [(f.name, f.stamp_ns) for f in top] == [("jump", at)]
    assert top[0].explains == len(found) - 1 > 0


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (lambda c, s: (c + np.array([0, 0, 0.7]), s), {"ground_offset"}),
        (lambda c, s: (c, s * [0.6, 0.6, 1.0]), {"cut_off", "undersized"}),
    ],
)
def test_boxes_that_do_not_fit_the_points(run, labels, episode, change, rules):
    track = nearest_track(labels, episode)
    center, size = change(np.asarray(track.center_m), np.asarray(track.size_lwh_m))
    found = run(labels.put(track.edit(center_m=center.tolist(), size_lwh_m=size.tolist())))
    assert {f.name for f in found if f.object_id == track.object_id} & rules
    assert {f.object_id for f in found} == {track.object_id}


def test_a_box_where_nothing_is(run, labels, episode):
    track = nearest_track(labels, episode)
    ego = episode.streams["tf_world_base_link"]
    ahead = quat_rotate(ego["orientation"][75], np.array([9.0, 0.0, 0.8])) + ego["translation"][75]
    others = np.concatenate([np.asarray(t.center_m) for t in labels.tracks_3d])
    assert np.linalg.norm(others - ahead, axis=1).min() > 2.0
    ghost = track.edit(id="ghost", object_id="ghost", label="pedestrian",
                       center_m=[tuple(ahead.tolist())] * len(track.stamp_ns),
                       size_lwh_m=[(0.8, 0.8, 1.7)] * len(track.stamp_ns))  # fmt: skip
    found = [f for f in run(labels.put(ghost)) if f.object_id == "ghost"]
    assert "empty_box" in {f.name for f in found}
    assert "missing_2d" not in {f.name for f in unfolded(found)}


def with_view(scene, index, **correction):
    views = list(scene.views)
    views[index] = views[index].corrected(
        correction.get("late_ns", 0), correction.get("turn_rad", (0.0, 0.0, 0.0))
    )
    return replace(scene, views=tuple(views))


def best_view(scene, labels):
    counts = [sum(b.stream == v.stream for b in plain(labels, 10.0, 0.7)) for v in scene.views]
    return int(np.argmax(counts))


def test_a_turned_camera_is_one_cause(scene, labels):
    k = best_view(scene, labels)
    turned = with_view(scene, k, turn_rad=(0.0, np.radians(1.5), 0.0))
    found = check_boxes(turned, [labels])
    top = unfolded(found)
    assert [(f.name, f.stream) for f in top] == [("camera_extrinsics", scene.views[k].stream)]
    assert top[0].value == pytest.approx(1.5, abs=0.15)
    assert top[0].explains == len(found) - 1 > 10


def test_a_late_camera_is_one_cause(scene, labels):
    k = best_view(scene, labels)
    found = check_boxes(with_view(scene, k, late_ns=-80_000_000), [labels])
    top = unfolded(found)
    assert [(f.name, f.stream, f.error_type) for f in top] == [
        ("camera_late", scene.views[k].stream, "COM6")
    ]
    assert top[0].value == pytest.approx(80.0, abs=4.0)


def test_one_annotator_is_one_cause(run, labels):
    """Every second rectangle of ben's is shifted; none of anna's is."""
    mine = {t.object_id for t in labels.tracks_3d[::3]}
    boxes = []
    for k, b in enumerate(labels.boxes_2d):
        author = "ben" if b.object_id in mine else "anna"
        x0, y0, x1, y1 = b.xyxy_px
        by = 0.4 * (x1 - x0) if author == "ben" and k % 2 and x1 < 430 else 0.0
        boxes.append(b.edit(xyxy_px=(x0 + by, y0, x1 + by, y1),
                            provenance=Provenance(author=author)))  # fmt: skip
    top = unfolded(run(labels.model_copy(update={"boxes_2d": boxes})))
    assert ("annotator", "ben") in {(f.name, f.author) for f in top}
    assert sum(f.author == "ben" for f in top) == 1


def test_boxes_given_in_a_moving_frame_are_the_same_boxes(episode, scene, labels):
    ego = episode.streams["tf_world_base_link"]
    boxes = read_boxes_3d(labels, 3.5)
    position, orientation = scene.frames.pose("base_link", "world", boxes.stamp_ns)
    assert len(ego) > 100
    known = np.isfinite(position).all(axis=1)
    inverse = quat_conjugate(orientation)
    moved = replace(
        boxes,
        named=tuple(replace(n, frame_id="base_link") for n in boxes.named),
        center=quat_rotate(inverse, boxes.center - position),
        quaternion=quat_multiply(inverse, boxes.quaternion),
    )
    back, unknown = scene.into_fixed(moved)
    assert unknown == []
    np.testing.assert_allclose(back.center, boxes.center[known], atol=1e-9)
    np.testing.assert_array_equal(back.stamp_ns, boxes.stamp_ns[known])


def test_rules_of_the_check_command(episode, labels):
    import json

    context = Context(episode, layers={"truth": json.loads(write_layer(labels))})
    found = run_checks(context, select=["LAB*"])
    by_rule = {f.rule: f.status for f in found}
    assert by_rule["LAB101"] is Status.PASSED
    assert by_rule["LAB201"] is Status.PASSED
    assert by_rule["LAB401"] is Status.SKIPPED
    box = plain(labels)[7]
    broken = json.loads(write_layer(labels.remove(box.id)))
    found = run_checks(Context(episode, layers={"x": broken}), select=["LAB102"])
    assert [(f.status, f.stream) for f in found] == [(Status.FAILED, box.stream)]
    assert found[0].message.startswith("COM1 ")


def test_every_rule_has_a_known_type_of_error():
    codes = {e.code for e in load_taxonomy("error_types").error_types}
    assert {rule.error_type for rule in RULES.values()} <= codes
    assert len({rule.id for rule in RULES.values()}) == len(RULES)
