"""Label-derived camera offsets: hand-built regressions, and boxes projected through a camera."""

import numpy as np
import pytest

from mmdata.geometry import SE3, CameraModel, Rig
from mmdata.geometry.boxes import box_corners, project_box_bounds
from mmdata.geometry.rig import Sensor
from mmdata.simulate import StreamFaults, inject
from mmdata.simulate.drive import drive
from mmdata.sync.assess import assess
from mmdata.sync.labels import Observation, label_offset, layer_offsets

START = 1_760_000_000_000_000_000
CAMERA = CameraModel.pinhole([[1000, 0, 960], [0, 1000, 540], [0, 0, 1]], 1920, 1080)
IDENTITY = (1.0, 0.0, 0.0, 0.0)


def scene(offset_ms: float, seed: int, *, shift_px: float = 0.0) -> dict:
    """Twelve boxes that drive through the view for four seconds, labelled at 10 Hz with 2 px noise.

    The camera's frames are stamped ``offset_ms`` late.
    """
    rng = np.random.default_rng(seed)
    tracks_3d, tracks_2d = [], []
    for k in range(12):
        start = np.array([rng.uniform(-8, 8), rng.uniform(-1, 1), rng.uniform(12, 40)])
        velocity = np.array([rng.uniform(-6, 6), 0.0, rng.uniform(-4, 4)])
        size = np.array([4.0, 1.8, 1.5])
        stamps = START + np.arange(41) * 100_000_000
        seconds = np.arange(41) / 10
        centers = start + seconds[:, None] * velocity
        tracks_3d.append(
            {
                "frame_id": "camera_front_optical",
                "object_id": f"car{k}",
                "stamp_ns": stamps.tolist(),
                "center_m": centers.tolist(),
                "size_lwh_m": [size.tolist()] * 41,
                "quaternion_wxyz": [IDENTITY] * 41,
            }
        )
        # What the image shows at stamp t is the scene at t - offset.
        shown = start + (seconds - offset_ms / 1e3)[:, None] * velocity
        corners = box_corners(shown, size, np.tile(IDENTITY, (41, 1)))
        bounds, seen = project_box_bounds(CAMERA, corners)
        bounds = bounds + rng.normal(0, 2, bounds.shape) + [shift_px, 0, shift_px, 0]
        inside = seen & (bounds[:, 0] > 5) & (bounds[:, 2] < 1915) & (bounds[:, 1] > 5)
        inside &= bounds[:, 3] < 1075
        if inside.any():
            tracks_2d.append(
                {
                    "stream": "camera_front",
                    "object_id": f"car{k}",
                    "stamp_ns": stamps[inside].tolist(),
                    "xyxy_px": bounds[inside].tolist(),
                }
            )
    return {"tracks_3d": tracks_3d, "tracks_2d": tracks_2d}


RIG = Rig([Sensor("camera_front", "camera_front_optical", None, None, CAMERA)])


def offset_of(document: dict):
    ((stream, found),) = layer_offsets(document, RIG)
    assert stream == "camera_front"
    return found


@pytest.mark.parametrize("offset_ms", [-100, -30, 0, 5, 50, 100])
def test_sign_and_size(offset_ms: float) -> None:
    found = offset_of(scene(offset_ms, 1))
    assert found.offset_ns is not None, found.reason
    assert found.offset_ns / 1e6 == pytest.approx(offset_ms, abs=5)


def test_p95_within_five_milliseconds_and_sigma_honest() -> None:
    errors, scaled = [], []
    for seed in range(20):
        offset = float(np.random.default_rng(seed + 99).uniform(0, 100))
        found = offset_of(scene(offset, seed))
        if found.offset_ns is None or found.sigma_ns is None:
            continue
        errors.append(abs(found.offset_ns / 1e6 - offset))
        scaled.append(errors[-1] / (found.sigma_ns / 1e6))
    assert len(errors) >= 15
    assert np.percentile(errors, 95) < 5
    assert np.mean(np.asarray(scaled) < 2) > 0.85


def test_wrong_calibration_is_not_taken_for_time() -> None:
    found = offset_of(scene(20, 3, shift_px=15.0))
    assert found.offset_ns is not None, found.reason
    assert found.offset_ns / 1e6 == pytest.approx(20, abs=5)


def test_hand_computed_regression() -> None:
    # residual = 3 px - 0.04 s * velocity, exactly; one box in ten is a gross mistake.
    velocity = np.stack([np.linspace(-100, 100, 50), np.linspace(-50, 40, 50)], axis=1)
    residual = 3 - 0.04 * velocity
    residual[::10] += 80
    found = label_offset(Observation(residual, velocity))
    assert found.offset_ns == pytest.approx(40e6, abs=0.2e6)


def test_abstains_on_too_few_or_too_slow() -> None:
    few = Observation(np.zeros((10, 2)), np.ones((10, 2)))
    assert "30 needed" in str(label_offset(few).reason)
    slow = Observation(np.zeros((50, 2)), np.full((50, 2), 3.0))
    assert "image velocity" in str(label_offset(slow).reason)


def test_camera_without_place_is_skipped() -> None:
    elsewhere = Rig([Sensor("camera_front", "elsewhere", "base", SE3.identity(), CAMERA)])
    assert list(layer_offsets(scene(0, 0), elsewhere)) == []


def test_camera_on_a_moving_vehicle() -> None:
    clean = drive(
        seed=31, duration_s=6.0, cameras=1, streams=["camera_front", "odometry"], render=False
    )
    late = inject(clean, {"camera_front": StreamFaults(offset_ns=60_000_000)}, seed=1)
    rng = np.random.default_rng(0)
    noisy = [
        {**box, "xyxy_px": (np.asarray(box["xyxy_px"]) + rng.normal(0, 2, 4)).tolist()}
        for box in late.truth["boxes_2d"]
    ]
    ledger = assess(late.to_episode(), layers={"human": {**late.truth, "boxes_2d": noisy}})
    entry = ledger.pair("annotations/human", "camera_front")
    assert entry is not None
    assert entry.offset_ms == pytest.approx(60, abs=5)
    assert entry.verdict == "FAILED"
