"""What a camera sees of known motion: shifted textures with known flow."""

import numpy as np
import pytest

from mmdata.geometry import CameraModel
from mmdata.streams import FieldInfo, Kind, Ragged, Stream, StreamInfo
from mmdata.sync.frames import camera_facts, read_camera_motion
from mmdata.sync.motion import FLOW_WIDTH, camera_motion, reduction_for, small_grey

START = 1_760_000_000_000_000_000
cv2 = pytest.importorskip("cv2")


def texture(size: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (size, size)).astype(np.uint8), (0, 0), 2.0) * 1


def window(image: np.ndarray, x: float, y: float, turn_rad: float = 0.0) -> np.ndarray:
    """A 128 x 96 view of the texture centred at (x, y), rolled."""
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    m = np.array([[c, -s, x - c * 64 + s * 48], [s, c, y - s * 64 - c * 48]])
    return cv2.warpAffine(image, m, (128, 96), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def stamps_of(n: int, period_ns: int = 33_000_000) -> np.ndarray:
    return START + np.arange(n) * period_ns


def test_speed_direction_and_midpoints() -> None:
    image = texture()
    frames = [window(image, 150 + 2.0 * i, 200 - 1.0 * i) for i in range(12)]
    motion = camera_motion(stamps_of(12), frames)
    assert motion.stamp_ns.tolist() == (stamps_of(12)[:-1] + 16_500_000).tolist()
    # The picture moves against the window: -2 px and +1 px per 33 ms, in widths of 128 px.
    inner = motion.field[2:-2]
    assert inner[:, 0].mean() == pytest.approx(-2 / 128 / 0.033, rel=0.15)
    assert inner[:, 1].mean() == pytest.approx(1 / 128 / 0.033, rel=0.15)
    assert motion.speed[2:-2].mean() == pytest.approx(np.hypot(2, 1) / 128 / 0.033, rel=0.15)
    assert not motion.still.any()


def test_flow_is_per_second_so_drops_are_no_motion() -> None:
    image = texture()
    at = np.delete(np.arange(20), [8, 9, 10])
    frames = [window(image, 150 + 1.0 * i, 200) for i in at]
    motion = camera_motion(stamps_of(20)[at], frames)
    assert motion.speed[3:].std() < 0.15 * motion.speed[3:].mean()


def test_roll_is_seen_about_the_optical_axis() -> None:
    image = texture()
    rate = 0.6
    frames = [window(image, 200, 200, rate * 0.033 * i) for i in range(10)]
    motion = camera_motion(stamps_of(10), frames, focal_widths=1.0)
    roll = motion.rotation[2:-2]
    assert np.abs(roll[:, 2]).mean() == pytest.approx(rate, rel=0.2)
    assert np.abs(roll[:, :2]).mean() < 0.1
    assert np.sign(roll[:, 2]).std() == 0


def test_still_and_black_frames() -> None:
    image = texture()
    frames = [window(image, 150 + 2 * min(i, 20), 200) for i in range(40)]
    frames[5] = np.zeros_like(frames[5])
    motion = camera_motion(stamps_of(40), frames)
    moving = motion.signal(np.ones(len(motion.stamp_ns)))
    facts = camera_facts(motion, moving)
    assert facts["still_while_moving_s"] == pytest.approx(19 * 0.033, abs=0.01)
    assert facts["black_fraction"] == pytest.approx(1 / 40)
    assert "still_while_moving_s" not in camera_facts(motion, None)


def test_stream_of_jpegs_with_a_broken_one() -> None:
    image = texture()
    data = [
        cv2.imencode(".jpg", cv2.resize(window(image, 150 + 2 * i, 200), (640, 480)))[1].tobytes()
        for i in range(20)
    ]
    data[7] = b"no image"
    rows = Ragged.from_rows(data)
    arrays = {"stamp_ns": stamps_of(20), "data": rows.data, "offsets": rows.offsets}
    info = StreamInfo("cam", Kind.IMAGE, {"data": FieldInfo.of(rows)}, encoding="jpeg")
    camera = CameraModel.pinhole([[600, 0, 320], [0, 600, 240], [0, 0, 1]], 640, 480)
    motion = read_camera_motion(Stream(info, arrays), camera)
    assert motion is not None
    assert len(motion.stamp_ns) == 18
    assert motion.stamp_ns[6] == stamps_of(20)[6] + 33_000_000  # across the broken one
    assert reduction_for(data[0]) == 4
    assert small_grey(data[0]).shape == small_grey(data[0], 4).shape == (96, FLOW_WIDTH)
