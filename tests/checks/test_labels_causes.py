"""Which faults of a camera its residuals call for, and when they call for none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmdata.checks import Context, Status, run_checks
from mmdata.checks.label_limits import CauseLimits, ImageLimits
from mmdata.checks.labels.cameras import CameraCause, shared_delay
from mmdata.checks.labels.projection import Seen
from mmdata.checks.labels.regression import LATE, MOVE, TURN, fit_models
from mmdata.checks.labels.spread import shifts
from mmdata.geometry import CameraModel, LensModel
from mmdata.simulate.drive import drive
from mmdata_schema import Box2D, Layer, Provenance, Track3D, write_layer

LIMITS = CauseLimits()


def scene(rng, objects, boxes=12, speed=6.0, moving=2):
    """(design, group) of boxes seen by a camera that looks to the side of a vehicle that drives
    at ``speed``: a delay shifts what stands as a move along the road does, but not what keeps up
    with the vehicle (the first ``moving`` objects)."""
    focal = 1000.0
    group = np.repeat(np.arange(objects), boxes)
    depth = np.repeat(rng.uniform(6, 30, objects), boxes)
    away = rng.uniform(-0.5, 0.5, (2, len(group)))
    relative = np.where(group < moving, 0.0, speed)
    design = np.zeros((len(group), 2, 7))
    design[:, 0, 0] = -relative * focal / depth
    design[:, 0, 2], design[:, 1, 1] = -focal, focal
    design[:, 0, 3], design[:, 1, 3] = away[1] * focal, -away[0] * focal
    design[:, 0, 4], design[:, 1, 5] = -focal / depth, -focal / depth
    design[:, :, 6] = (away * focal / depth).T
    return design, group


def noise(rng, group, hand_px=2.0, object_px=2.0):
    """What a hand and each object's own 3D box leave over."""
    own = rng.normal(0, object_px, (group.max() + 1, 2))
    return own[group] + rng.normal(0, hand_px, (len(group), 2))


def best(design, residual, group):
    return fit_models(design, residual, np.full(len(group), 2.5), group, LIMITS)[0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("fault", "theta"),
    [
        ((), [0, 0, 0, 0, 0, 0, 0]),
        ((LATE,), [0.06, 0, 0, 0, 0, 0, 0]),
        ((TURN,), [0, 0.01, -0.015, 0.01, 0, 0, 0]),
        ((MOVE,), [0, 0, 0, 0, 0.5, 0.3, 0]),
    ],
)
def test_the_fault_put_in_is_the_one_called_for(seed, fault, theta):
    rng = np.random.default_rng(seed)
    design, group = scene(rng, 14)
    fit = best(design, design @ theta + noise(rng, group), group)
    assert fit.faults == fault
    np.testing.assert_allclose(fit.theta[:4], theta[:4], atol=0.012)


@pytest.mark.parametrize("seed", range(8))
def test_a_delay_among_things_that_stand_is_no_displaced_camera(seed):
    """Both explain it alike; a camera displaced by a third of a metre is the rarer fault."""
    rng = np.random.default_rng(seed)
    design, group = scene(rng, 14, moving=0)
    fit = best(design, design[:, :, 0] * 0.055 + noise(rng, group), group)
    assert fit.faults == (LATE,)


@pytest.mark.parametrize("seed", range(20))
def test_one_object_that_is_off_is_no_fault_of_the_camera(seed):
    """However many boxes it has: it is not what the others foretell."""
    rng = np.random.default_rng(seed)
    design, group = scene(rng, 4, boxes=40)
    residual = noise(rng, group) + np.where((group == 3)[:, None], [40.0, 25.0], 0.0)
    assert best(design, residual, group).faults == ()


@pytest.mark.parametrize("seed", range(8))
def test_three_objects_that_agree_are_enough_for_a_large_turn(seed):
    rng = np.random.default_rng(seed)
    design, group = scene(rng, 3)
    turn = np.array([0, 0, 0.03, 0, 0, 0, 0])
    assert TURN in best(design, design @ turn + noise(rng, group), group).faults


def cause(alone_ms, sigma_ms=3.0):
    return CameraCause("c", alone_s=alone_ms / 1e3, alone_sigma_s=sigma_ms / 1e3)


def test_a_delay_all_cameras_share_is_the_boxes():
    assert shared_delay([cause(60), cause(66), cause(58)], LIMITS) == pytest.approx(0.06)
    # Who cannot tell does not count, and one camera alone says nothing of the boxes.
    assert shared_delay([cause(60), cause(66), cause(0, 80)], LIMITS) is not None
    assert shared_delay([cause(60), cause(0, 80)], LIMITS) is None
    assert shared_delay([cause(60), cause(1), cause(-2), cause(0)], LIMITS) is None
    assert shared_delay([cause(60), cause(66), cause(1)], LIMITS) is None


def test_a_habit_is_not_taken_for_the_noise_of_the_hand():
    """Half of one person's rectangles are half again as wide. Among all boxes that is so common
    that it looks like noise; the other person's boxes tell that it is not."""
    rng = np.random.default_rng(0)
    n = 160
    low = rng.uniform([100, 100], [1600, 700], (n, 2))
    rect = np.concatenate([low, low + rng.uniform([60, 80], [90, 160], (n, 2))], axis=1)
    seen = Seen(
        np.arange(n), np.arange(n) % 20, np.zeros(n), np.ones(n, bool), rect, rect, np.ones(n),
        np.ones(n), np.full(n, 12.0),
    )  # fmt: skip
    bob = np.arange(n) >= 80
    wide = bob & (rng.random(n) < 0.5)
    drawn = rect + rng.normal(0, 2.0, (n, 4))
    side = rect[:, 2] - rect[:, 0]
    drawn[wide, 0] -= 0.25 * side[wide]
    drawn[wide, 2] += 0.25 * side[wide]
    camera = CameraModel(LensModel.PINHOLE, np.diag([900.0, 900.0, 1.0]), np.zeros(0), 1920, 1080)

    def wrong(author):
        measured = shifts(
            drawn, np.arange(n), seen, camera, ImageLimits(), np.arange(n) // 20, np.zeros(n, int),
            np.full(n, 1.7), author, np.zeros(n, bool),
        )  # fmt: skip
        return np.isin(np.arange(n), measured.row[measured.wrong])

    together, apart = wrong(np.zeros(n, int)), wrong(bob.astype(int))
    assert (apart & wide).sum() > 0.9 * wide.sum() > (together & wide).sum()
    assert (apart & ~wide).sum() <= 2


def test_a_camera_with_too_few_objects_is_not_assessed():
    """It is told so, by name; the others are judged."""
    simulated = drive(3, duration_s=2.0, cameras=4, objects=14, render=False)
    truth = simulated.truth
    tracks = [
        Track3D(id=f"t_{t['object_id']}",
                **{k: v for k, v in t.items() if k not in ("true_ns", "points")})
        for t in truth["tracks_3d"]
    ]  # fmt: skip
    boxes = [
        Box2D(id=f"b{k}", **{n: v for n, v in b.items() if n not in ("true_ns", "visibility")})
        for k, b in enumerate(truth["boxes_2d"])
    ]
    streams = sorted({b.stream for b in boxes})
    kept = next(b.object_id for b in boxes if b.stream == streams[0])
    boxes = [b for b in boxes if b.stream != streams[0] or b.object_id == kept]
    layer = Layer(episode_id=simulated.episode_id, name="few", tracks_3d=tracks, boxes_2d=boxes,
                  provenance=Provenance(author="a"))  # fmt: skip
    context = Context(simulated.to_episode(), layers={"few": json.loads(write_layer(layer))})
    for rule in ("LAB001", "LAB002"):
        found = run_checks(context, select=[rule])
        silent = [f for f in found if f.status is Status.NOT_ASSESSED]
        assert streams[0] in {f.stream for f in silent}
        assert all("objects in plain sight" in f.message for f in silent)
        assert not [f for f in found if f.status is Status.FAILED]
