"""Still images: OpenCV's pixels from a quicker decoder, damage told; forked children go on."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import simplejpeg

from mmdata import media
from mmdata.errors import FormatError


def _frame(height: int = 61, width: int = 83) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return (np.stack([3 * x, 2 * y, x + y], -1) % 200 + noise).astype(np.uint8)


def _by_opencv(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else image[..., ::-1]


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
@pytest.mark.parametrize("quality", [40, 95])
def test_jpeg_pixels_are_opencvs(subsampling: str, quality: int) -> None:
    data = simplejpeg.encode_jpeg(_frame(), quality, colorsubsampling=subsampling)
    image = media.decode_image(data)
    assert image.shape == ((61, 83) if subsampling == "Gray" else (61, 83, 3))
    assert np.array_equal(image, _by_opencv(data))
    assert np.array_equal(media.decode_image(np.frombuffer(data, np.uint8)), image)


def test_progressive_jpeg_and_trailing_bytes() -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    data = cv2.imencode(".jpg", _frame(), options)[1].tobytes()
    assert np.array_equal(media.decode_image(data), _by_opencv(data))
    assert np.array_equal(media.decode_image(data + bytes(9)), _by_opencv(data))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_depth_and_channels(depth: type, channels: int) -> None:
    shape = (20, 30) if channels == 1 else (20, 30, channels)
    frame = np.random.default_rng(1).integers(0, np.iinfo(depth).max, shape, depth)
    bgr = frame if channels == 1 else frame[..., [2, 1, 0, 3][:channels]]
    assert np.array_equal(media.decode_image(cv2.imencode(".png", bgr)[1].tobytes()), frame)


@pytest.mark.parametrize("cut", [0.02, 0.5, 0.99])
def test_half_an_image_is_no_image(cut: float) -> None:
    data = media.encode_jpeg(_frame(), 95)
    with pytest.raises(FormatError, match="no decodable image"):
        media.decode_image(data[: int(cut * len(data))])


def test_a_jpeg_comes_smaller_but_never_too_small() -> None:
    data = media.encode_jpeg(_frame(480, 640), 95)
    for least in ((1, 1), (60, 80), (61, 80), (200, 100), (480, 640), (999, 999)):
        height, width = media.decode_image(data, least).shape[:2]
        assert height >= min(least[0], 480)
        assert width >= min(least[1], 640)
    assert media.decode_image(data, (60, 80)).shape == (60, 80, 3)


_FORKED = """
import os, cv2, numpy as np
from mmdata import media
cv2.setNumThreads(4)
frame = np.zeros((1080, 1920, 3), np.uint8)
for _ in range(20):
    cv2.resize(frame, (400, 300), interpolation=cv2.INTER_AREA)
for _ in range(8):
    child = os.fork()
    if child == 0:
        assert cv2.getNumThreads() <= 1, cv2.getNumThreads()
        cv2.resize(frame, (400, 300), interpolation=cv2.INTER_AREA)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
assert cv2.getNumThreads() == 4
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_children_do_without_opencvs_threads() -> None:
    """They wait for ever for threads that only the parent has; so none may be asked for."""
    run = subprocess.run(
        [sys.executable, "-c", _FORKED], timeout=90, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
