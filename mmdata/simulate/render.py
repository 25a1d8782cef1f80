"""A small rasteriser: panels by ray casting, boxes as tiles in painter's order, JPEG out.

What lies more than 90 degrees off the optical axis is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mmdata.geometry import SE3, CameraModel
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
        self._rays = np.ascontiguousarray(np.nan_to_num(model.unproject(pixels)).T, np.float32)
        self._background: tuple[SE3, Image] | None = None
        self._rng = np.random.default_rng([seed, 77])
        shape = (model.height, model.width, 3)
        self._noise = self._rng.normal(0, 2.0, (4, *shape)).round().astype(np.int16)

    def render(self, world_SE3_camera: SE3, solids: Sequence[Solid]) -> Image:
        """One frame (H, W, 3) uint8 BGR, exposed at one instant."""
        image = self._panels_seen(world_SE3_camera).copy()
        polygons, owner, brightness = _polygons(self.model, world_SE3_camera, solids)
        for polygon, index, shade in zip(polygons, owner, brightness, strict=True):
            colour = [shade * channel for channel in solids[index].colour]
            cv2.fillConvexPoly(image, polygon, colour, cv2.LINE_8, _SUBPIXEL)
        roll = self._rng.integers(0, image.shape[0])
        noise = np.roll(self._noise[self._rng.integers(0, len(self._noise))], roll, axis=0)
        return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)

    def _panels_seen(self, pose: SE3) -> Image:
        if self._background is not None and self._background[0] == pose:
            return self._background[1]
        shape = (self.model.height, self.model.width)
        image = np.empty((*shape, 3), np.uint8)
        image[:] = _SKY
        free = np.ones(self._rays.shape[1], dtype=bool)
        for panel in self._panels:
            # All in the camera frame: rays along the normal, and along the two half axes.
            u, v = (h / (h @ h) for h in (panel.half_u, panel.half_v))
            # (Sums by hand: a threaded matrix product stalls when other processes are busy.)
            axes = (np.stack([panel.normal, u, v]) @ pose.rotation).astype(np.float32)
            x, y, z = self._rays
            slope, along_u, along_v = (p * x + q * y + r * z for p, q, r in axes)
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
                (0.5 * panel.repeat * (a + 1) * (width - 1)).reshape(shape),
                (0.5 * panel.repeat * (b + 1) * (height - 1)).reshape(shape),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP if panel.repeat > 1 else cv2.BORDER_REPLICATE,
            )
            cv2.copyTo(seen, inside.reshape(shape).view(np.uint8), image)
            free &= ~inside
            if not free.any():
                break
        self._background = (pose, image)
        return image


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
        # Wrapped around, so that repetitions join without a seam.
        border = round(4 * sigma)
        layer = np.pad(rng.normal(size=size).astype(np.float32), border, mode="wrap")
        layer = cv2.GaussianBlur(layer, (0, 0), sigma)[border:-border, border:-border]
        grain += layer / layer.std()
    tint = rng.uniform(0.7, 1.3, 3)
    out = np.array(colour) + contrast * grain[..., None] * tint
    return np.clip(out, 0, 255).astype(np.uint8)


def visible_polygons(
    camera: CameraModel, world_SE3_camera: SE3, solids: Sequence[Solid]
) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.intp]]:
    """Outlines of the solids' tiles in painting order, and which solid each belongs to.

    Outlines are for `cv2.fillConvexPoly` with a shift of 4.
    """
    polygons, owner, _ = _polygons(camera, world_SE3_camera, solids)
    return polygons, owner


def _polygons(
    camera: CameraModel, pose: SE3, solids: Sequence[Solid]
) -> tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.intp], Floats]:
    """Polygons in the image, farthest first; the solid of each, and its brightness (0 to 1)."""
    tiles, owner, brightness = _tiles(solids, pose)
    uv, valid = camera.project(tiles)
    front = tiles[..., 2].min(axis=1) >= NEAR_M
    whole = front & valid.all(axis=1)
    with np.errstate(invalid="ignore"):
        low, high = uv.min(axis=1), uv.max(axis=1)
        inside = (high >= 0).all(axis=1) & (low <= [camera.width, camera.height]).all(axis=1)
    cut = ~front & (tiles[..., 2].max(axis=1) > NEAR_M)
    rows = np.flatnonzero((whole & inside) | cut)
    order = rows[np.argsort(-np.linalg.norm(tiles[rows].mean(axis=1), axis=-1), kind="stable")]
    limit = 20.0 * camera.width
    polygons, kept = [], []
    for i in order:
        polygon = uv[i]
        if cut[i]:
            clipped = _clip_near(tiles[i])
            polygon, ok = camera.project(clipped)
            if not ok.all():
                continue
        polygon = np.clip(polygon, -limit, limit)
        polygons.append(np.round(polygon * (1 << _SUBPIXEL)).astype(np.int32))
        kept.append(i)
    return polygons, owner[kept], brightness[kept]


def _tiles(solids: Sequence[Solid], pose: SE3) -> tuple[Floats, npt.NDArray[np.intp], Floats]:
    """Tiles (T, 8, 3) that face the camera, in its frame; their solid; their brightness.

    Each tile carries its four corners and the middles of its edges, since lenses bend edges.
    """
    tiles = [np.zeros((0, 8, 3))]
    owner, brightness = [np.zeros(0, np.intp)], [np.zeros(0)]
    for index, solid in enumerate(solids):
        ahead = (solid.position - pose.translation) @ pose.rotation[:, 2]
        if ahead < -0.5 * np.linalg.norm(solid.size):
            continue
        local, normals, pattern = _box_tiles(tuple(solid.size.tolist()), solid.tiles)
        normals = normals @ solid.rotation.T
        placed = local @ solid.rotation.T + solid.position
        seen = np.einsum("ti,ti->t", normals, pose.translation - placed[:, 0]) > 0
        shade = (0.6 + 0.4 * np.clip(normals @ _LIGHT, -0.5, 1)) * pattern
        tiles.append(placed[seen])
        owner.append(np.full(int(seen.sum()), index, np.intp))
        brightness.append(shade[seen])
    moved = pose.inverse().apply(np.concatenate(tiles))
    return moved, np.concatenate(owner), np.concatenate(brightness)


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
