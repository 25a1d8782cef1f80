"""A small rasteriser: panels by ray casting, boxes as tiles in painter's order, JPEG out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mmdata.geometry import SE3, CameraModel, LensModel
from mmdata.simulate.scene import Floats, Panel, Solid

Image = npt.NDArray[np.uint8]
NEAR_M = 0.012
_SUBPIXEL = 4
_LIGHT = np.array([0.35, -0.25, 0.9]) / np.linalg.norm([0.35, -0.25, 0.9])
_SKY: tuple[int, int, int] = (214, 198, 178)


class Camera:
    """Renders frames of one camera; noise makes no two of them equal, as on a real sensor.

    panels: in the order in which they hide one another, the foremost first.
    """

    def __init__(self, model: CameraModel, panels: Sequence[Panel], seed: int) -> None:
        self.model = model
        self._panels = panels
        v, u = np.mgrid[: model.height, : model.width]
        pixels = np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float64)
        self._rays = np.nan_to_num(model.unproject(pixels)).astype(np.float32)
        self._background: tuple[SE3, Image] | None = None
        self._rng = np.random.default_rng([seed, 77])
        shape = (model.height, model.width, 3)
        self._noise = self._rng.normal(0, 2.0, (4, *shape)).round().astype(np.int16)

    def render(self, world_SE3_camera: SE3, solids: Sequence[Solid]) -> Image:
        """One frame (H, W, 3) uint8 BGR, exposed at one instant."""
        image = self._panels_seen(world_SE3_camera).copy()
        tiles, colours = _tiles(solids, world_SE3_camera)
        self._paint(image, tiles, colours)
        roll = self._rng.integers(0, image.shape[0])
        noise = np.roll(self._noise[self._rng.integers(0, len(self._noise))], roll, axis=0)
        return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)

    def _panels_seen(self, pose: SE3) -> Image:
        if self._background is not None and self._background[0] == pose:
            return self._background[1]
        shape = (self.model.height, self.model.width)
        image = np.empty((*shape, 3), np.uint8)
        image[:] = _SKY
        free = np.ones(len(self._rays), dtype=bool)
        for panel in self._panels:
            # All in the camera frame: rays along the normal, and along the two half axes.
            u, v = (h / (h @ h) for h in (panel.half_u, panel.half_v))
            axes = pose.rotation.T @ np.column_stack([panel.normal, u, v])
            slope, along_u, along_v = (self._rays @ axes.astype(np.float32)).T
            offset = pose.translation - panel.center
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                distance = np.float32(-(offset @ panel.normal)) / slope
                a = np.float32(offset @ u) + distance * along_u
                b = np.float32(offset @ v) + distance * along_v
                inside = (np.abs(a) <= 1) & (np.abs(b) <= 1) & (distance > 0) & free
            if not inside.any():
                continue
            height, width = panel.texture.shape[:2]
            seen = cv2.remap(
                panel.texture,
                (0.5 * (a + 1) * (width - 1)).reshape(shape),
                (0.5 * (b + 1) * (height - 1)).reshape(shape),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            mask = inside.reshape(shape)
            image[mask] = seen[mask]
            free &= ~inside
            if not free.any():
                break
        self._background = (pose, image)
        return image

    def _paint(self, image: Image, tiles: Floats, colours: npt.NDArray[np.int64]) -> None:
        """Tiles (T, V, 3) in the camera frame, farthest first."""
        order = np.argsort(-np.linalg.norm(tiles.mean(axis=1), axis=-1))
        margin = self.model.width
        if self.model.model is LensModel.FISHEYE:
            in_front = np.ones(len(tiles), dtype=bool)
        else:
            in_front = tiles[..., 2].min(axis=1) >= NEAR_M
        uv, valid = self.model.project(tiles)
        for i in order:
            polygon = uv[i]
            if not in_front[i]:
                clipped = _clip_near(tiles[i])
                if len(clipped) < 3:
                    continue
                polygon, ok = self.model.project(clipped)
                if not ok.all():
                    continue
            elif not valid[i].all():
                continue
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            if (high < 0).any() or low[0] > self.model.width or low[1] > self.model.height:
                continue
            if (high - low).max() > 40 * margin:
                polygon = np.clip(polygon, -20 * margin, 20 * margin)
            points = np.round(polygon * (1 << _SUBPIXEL)).astype(np.int32)
            cv2.fillConvexPoly(image, points, colours[i].tolist(), cv2.LINE_8, _SUBPIXEL)


def encode_jpeg(image: Image, quality: int = 88) -> npt.NDArray[np.uint8]:
    """JPEG bytes (B,) uint8 of a BGR image."""
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:  # OpenCV gives no reason; only a broken build fails here.
        raise RuntimeError("OpenCV could not encode a JPEG")
    return np.asarray(data, dtype=np.uint8).reshape(-1)


def make_texture(
    seed: int, size: tuple[int, int], colour: tuple[int, int, int], contrast: float
) -> Image:
    """A texture (H, W, 3) with detail at several scales; plain where contrast is 0."""
    rng = np.random.default_rng([seed, 99])
    grain: npt.NDArray[Any] = np.zeros(size, np.float32)
    for sigma in (1.5, 4.0, 12.0, 35.0):
        layer = cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), sigma)
        grain += layer / layer.std()
    tint = rng.uniform(0.7, 1.3, 3)
    out = np.array(colour) + contrast * grain[..., None] * tint
    return np.clip(out, 0, 255).astype(np.uint8)


def _tiles(solids: Sequence[Solid], pose: SE3) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Visible tiles (T, 8, 3) of all boxes in the camera frame, and colours (T, 3) BGR.

    Each tile carries its four corners and the middles of its edges, since lenses bend edges.
    """
    world_tiles, colours = [], []
    for solid in solids:
        local, normals, brightness = _box_tiles(tuple(solid.size.tolist()), solid.tiles)
        normals = normals @ solid.rotation.T
        tiles = local @ solid.rotation.T + solid.position
        seen = np.einsum("ti,ti->t", normals, pose.translation - tiles[:, 0]) > 0
        shade = (0.6 + 0.4 * np.clip(normals @ _LIGHT, -0.5, 1)) * brightness
        world_tiles.append(tiles[seen])
        colours.append(np.clip(shade[seen, None] * np.array(solid.colour), 0, 255))
    if not world_tiles:
        return np.zeros((0, 8, 3)), np.zeros((0, 3), np.int64)
    camera_SE3_world = pose.inverse()
    return camera_SE3_world.apply(np.concatenate(world_tiles)), np.concatenate(colours).astype(int)


_BOX_CACHE: dict[Any, tuple[Floats, Floats, Floats]] = {}


def _box_tiles(
    size: tuple[float, float, float], tiles: tuple[int, int, int]
) -> tuple[Floats, Floats, Floats]:
    """Outlines (T, 8, 3), normals (T, 3) and brightness (T,) of a box's tiles in its own frame."""
    key = (size, tiles)
    if key in _BOX_CACHE:
        return _BOX_CACHE[key]
    outlines, normals, brightness = [], [], []
    ring = np.array([[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [0.5, 1], [0, 1], [0, 0.5]])
    for axis in range(3):
        u, v = [a for a in range(3) if a != axis]
        for sign in (-1.0, 1.0):
            for i in range(tiles[u]):
                for j in range(tiles[v]):
                    corner = np.zeros((8, 3))
                    corner[:, axis] = 0.5 * sign
                    corner[:, u] = (i + ring[:, 0]) / tiles[u] - 0.5
                    corner[:, v] = (j + ring[:, 1]) / tiles[v] - 0.5
                    normal = np.zeros(3)
                    normal[axis] = sign
                    outlines.append(corner * np.array(size))
                    normals.append(normal)
                    brightness.append(1.0 if (i + j) % 2 == 0 else 0.78)
    _BOX_CACHE[key] = (np.array(outlines), np.array(normals), np.array(brightness))
    return _BOX_CACHE[key]


def _clip_near(polygon: Floats) -> Floats:
    """A polygon (V, 3) in the camera frame cut at the near plane."""
    z = polygon[:, 2] - NEAR_M
    following, next_z = np.roll(polygon, -1, axis=0), np.roll(z, -1)
    crosses = (z >= 0) != (next_z >= 0)
    share = z / np.where(crosses, z - next_z, 1.0)
    crossing = polygon + share[:, None] * (following - polygon)
    pairs = np.stack([polygon, crossing], axis=1).reshape(-1, 3)
    return np.asarray(pairs[np.stack([z >= 0, crosses], axis=1).reshape(-1)])
