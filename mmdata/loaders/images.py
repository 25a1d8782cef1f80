"""From stored frames to what a model sees: one function for training and serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdata import media
from mmdata.errors import ConfigError, FormatError
from mmdata.loaders.spec import ImageSpec

Array = NDArray[Any]
Shape = tuple[int, ...]


def decode(data: bytes | Array, spec: ImageSpec) -> Array:
    """JPEG or PNG bytes to (H, W, 3 | 4) RGB or (H, W); `finish` next.

    Raises FormatError when the bytes are no image.
    """
    smaller = spec.size_hw if spec.fast and spec.crop_tlhw is None else None
    return media.decode_image(data, smaller)


def finish(image: Array, spec: ImageSpec, out: Array | None = None) -> Array:
    """Crop, resize and lay out one frame: (H, W, 3 | 4) or (H, W) to (C, H, W) or (H, W, C).

    Down-sizing averages areas, up-sizing is bilinear (OpenCV's INTER_AREA and INTER_LINEAR).
    out: where to put it, contiguous; absent, a new array.
    """
    if spec.crop_tlhw is not None:
        top, left, height, width = spec.crop_tlhw
        if min(top, left) < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
            raise ConfigError(f"crop {spec.crop_tlhw} reaches beyond a frame of {image.shape[:2]}")
        image = image[top : top + height, left : left + width]
    if spec.size_hw is not None and image.shape[:2] != spec.size_hw:
        shrinks = spec.size_hw[0] <= image.shape[0] and spec.size_hw[1] <= image.shape[1]
        height, width = spec.size_hw
        image = np.asarray(
            cv2.resize(
                np.ascontiguousarray(image),
                (width, height),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            )
        )
    if image.ndim == 2:
        image = image[..., None]
    channels = image.shape[2]
    shape = (channels, *image.shape[:2]) if spec.layout == "chw" else image.shape
    if out is None:
        out = np.empty(shape, image.dtype)
    elif out.shape != shape:
        raise FormatError(f"a frame of shape {shape} among frames of shape {out.shape}")
    if spec.layout == "hwc":
        np.copyto(out, image)
    elif channels == 1:
        np.copyto(out[0], image[..., 0])
    else:
        cv2.split(np.ascontiguousarray(image), list(out))
    return out


def processed_shape(full_hw: Sequence[int], spec: ImageSpec, channels: int = 3) -> Shape:
    """Shape of a processed frame."""
    height, width = spec.size_hw or tuple(spec.crop_tlhw or (0, 0, *full_hw))[2:]
    return (channels, height, width) if spec.layout == "chw" else (height, width, channels)


def finish_depth(depth: Array, spec: ImageSpec | None) -> Array:
    """Crop and resize a depth map (H, W) to (1, H, W); nearest, so no depth is invented."""
    if spec is not None and spec.crop_tlhw is not None:
        top, left, height, width = spec.crop_tlhw
        depth = depth[top : top + height, left : left + width]
    if spec is not None and spec.size_hw is not None and depth.shape != spec.size_hw:
        rows = (np.arange(spec.size_hw[0]) * depth.shape[0]) // spec.size_hw[0]
        columns = (np.arange(spec.size_hw[1]) * depth.shape[1]) // spec.size_hw[1]
        depth = depth[rows[:, None], columns]
    result = np.ascontiguousarray(depth)
    if spec is not None and spec.layout == "hwc":
        return result[..., None]
    return result[None]
