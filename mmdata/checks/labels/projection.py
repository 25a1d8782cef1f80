"""3D boxes as a camera sees them: at the instant of its exposure, through its lens, with what
nearer boxes hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmdata.checks.label_limits import ProjectionLimits
from mmdata.checks.labels.scene import View
from mmdata.checks.labels.tables import Boxes3D, Floats, Ints, Mask
from mmdata.geometry import (
    CameraModel,
    LensModel,
    box_corners,
    project_box_edges,
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    quat_slerp,
)

GRID = 24
_CHUNK = 4096
_BITS = np.array([bin(i).count("1") for i in range(4096)], np.int16)


@dataclass(frozen=True)
class Seen:
    """Boxes of one camera, K of them, in order of frame.

    row (K,): keyframe at or before the exposure; part (K,): how far towards the next keyframe,
    outside [0, 1] where the track had to be continued. frame (K,): index of the exposure.
    certain (K,): within the track. raw (K, 4): rectangle of the projection; rect (K, 4): cut to the
    image. inside (K,): share of raw within the image (and of its edges that the lens
    can show at all); visible (K,): inside times what nearer boxes
    leave over. range_m (K,): from the camera to the centre.
    """

    row: Ints
    frame: Ints
    part: Floats
    certain: Mask
    raw: Floats
    rect: Floats
    inside: Floats
    visible: Floats
    range_m: Floats

    def __len__(self) -> int:
        return len(self.row)


def box_at(boxes: Boxes3D, row: Ints, part: Floats) -> tuple[Floats, Floats, Floats]:
    """Centres, sizes and orientations between keyframe ``row`` and the next one of its track.

    Centres are continued beyond the ends at constant velocity, sizes and orientations are held.
    """
    following = np.where(boxes.last[row], row, np.minimum(row + 1, len(boxes) - 1))
    inner = np.clip(part, 0.0, 1.0)[:, None]
    a, b = boxes.center[row], boxes.center[following]
    size = boxes.size[row] + inner * (boxes.size[following] - boxes.size[row])
    turned = quat_slerp(boxes.quaternion[row], boxes.quaternion[following], inner[:, 0])
    return a + part[:, None] * (b - a), size, turned


def exposures_of(
    boxes: Boxes3D, stamp_ns: Ints, limits: ProjectionLimits
) -> tuple[Ints, Ints, Floats, Mask]:
    """Which keyframes stand for which of the exposures (F,), ascending: row, frame, part, certain.

    A row covers exposures from its stamp to the next row's; the ends of a stretch also cover the
    grace around them.
    """
    n = len(boxes)
    if n == 0 or len(stamp_ns) == 0:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0), np.zeros(0, bool)
    t = boxes.stamp_ns
    grace = round(limits.grace_intervals * boxes.interval_ns)
    single = round(limits.single_tolerance_s * 1e9)
    first, last = boxes.first, boxes.last
    alone = first & last
    begin, end = t.copy(), np.append(t[1:], t[-1])
    end = np.where(last, t + 1, end)
    # The last row's own instant belongs to the row before it, which knows the velocity.
    owner = np.arange(n)
    before, after = np.where(alone, single, grace), np.where(alone, single, grace)
    begin = np.where(first, t - before, begin)
    end = np.where(last, t + after + 1, end)
    low = np.searchsorted(stamp_ns, begin, side="left")
    high = np.searchsorted(stamp_ns, end, side="left")
    count = np.maximum(high - low, 0)
    row = np.repeat(owner, count)
    frame = np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())
    at = stamp_ns[frame]
    certain = np.where(
        first[row] & (at < t[row]), False, ~(last[row] & (at > t[row]))
    )  # fmt: skip
    certain |= alone[row] & (np.abs(at - t[row]) < 1_000_000)
    # Beyond the end of a stretch its last two rows give the velocity.
    back = last[row] & ~first[row] & (at > t[row])
    row = np.where(back, row - 1, row)
    following = np.where(last[row], row, np.minimum(row + 1, n - 1))
    span = np.maximum(t[following] - t[row], 1)
    part = np.where(following == row, 0.0, (at - t[row]) / span)
    return row, frame, part, certain


def look(
    view: View,
    boxes: Boxes3D,
    limits: ProjectionLimits,
    *,
    occlusion: bool = True,
    smallest_px: float = 2.0,
) -> Seen:
    """All boxes in all exposures of a camera whose projection reaches into the image."""
    exposure = view.stamp_ns - view.late_ns
    row, frame, part, certain = exposures_of(boxes, exposure, limits)
    position, orientation = camera_poses(view, exposure)
    known = np.isfinite(position[frame]).all(axis=1)
    row, frame, part, certain = row[known], frame[known], part[known], certain[known]
    near = cull(view.camera, boxes, row, part, position[frame], orientation[frame], limits)
    row, frame, part, certain = row[near], frame[near], part[near], certain[near]
    order = np.argsort(frame, kind="stable")
    row, frame, part, certain = row[order], frame[order], part[order], certain[order]
    raw, ends, centres, whole = [], [], [], []
    for start in range(0, len(row), _CHUNK):
        piece = slice(start, start + _CHUNK)
        corners, centre = corners_in_camera(
            boxes, row[piece], part[piece], position[frame[piece]], orientation[frame[piece]]
        )
        pixels, seen = project_box_edges(
            view.camera, corners, near_m=limits.near_m, samples=samples(view.camera, limits)
        )
        flat, mask = pixels.reshape(len(corners), -1, 2), seen.reshape(len(corners), -1, 1)
        low = np.where(mask, flat, np.inf).min(axis=1)
        high = np.where(mask, flat, -np.inf).max(axis=1)
        raw.append(np.concatenate([low, high], axis=1))
        ends.append(_ends(pixels, seen))
        whole.append(seen.any(axis=2).mean(axis=1))
        centres.append(centre)
    bounds = np.concatenate(raw) if raw else np.zeros((0, 4))
    rect, inside = cut(bounds, view.camera)
    if whole:  # edges beyond the lens or behind the camera have no pixels to count
        inside = inside * np.concatenate(whole)
    keep = (inside > 0) & ((rect[:, 2:] - rect[:, :2]).min(axis=1) >= smallest_px)
    visible = inside[keep].copy()
    row, frame, part, certain, rect = row[keep], frame[keep], part[keep], certain[keep], rect[keep]
    local = np.concatenate(centres)[keep] if centres else np.zeros((0, 3))
    range_m = np.linalg.norm(local, axis=1)
    if occlusion and len(row):
        _, size, turned = box_at(boxes, row, part)
        turned = quat_multiply(quat_conjugate(orientation[frame]), turned)
        solid = Solids(local, size, turned, boxes.thing[boxes.track[row]])
        visible *= 1.0 - hidden(frame, rect, np.concatenate(ends)[keep], solid)
    return Seen(row, frame, part, certain, bounds[keep], rect, inside[keep], visible, range_m)


def samples(camera: CameraModel, limits: ProjectionLimits) -> int:
    """Points per edge: a lens without distortion keeps lines straight."""
    return 2 if camera.model is LensModel.PINHOLE else limits.edge_samples


def camera_poses(view: View, exposure_ns: Ints) -> tuple[Floats, Floats]:
    """``fixed_SE3_camera`` (F, 3), (F, 4) at instants, with the view's corrections."""
    position, orientation = view.pose_at(exposure_ns)
    if any(view.moved_m):
        position = position + quat_rotate(orientation, np.array(view.moved_m))
    if any(view.turn_rad):
        orientation = quat_multiply(orientation, quat_from_rotvec(np.array(view.turn_rad)))
    return position, orientation


def corners_in_camera(
    boxes: Boxes3D, row: Ints, part: Floats, position: Floats, orientation: Floats
) -> tuple[Floats, Floats]:
    """Corners (K, 8, 3) and centres (K, 3) in the camera frame; one camera pose per box."""
    center, size, turned = box_at(boxes, row, part)
    inverse = quat_conjugate(orientation)
    local = quat_rotate(inverse, center - position)
    return box_corners(local, size, quat_multiply(inverse, turned)), local


def cut(bounds: Floats, camera: CameraModel) -> tuple[Floats, Floats]:
    """Rectangles cut to the image's outer pixel edges, and the share of each that is inside."""
    limit = np.array([camera.width, camera.height] * 2) - 0.5
    safe = np.where(np.isfinite(bounds), bounds, -1e6)
    rect = np.clip(safe, -0.5, limit)
    area = np.prod(np.maximum(safe[:, 2:] - safe[:, :2], 1e-9), axis=1)
    within = np.prod(np.maximum(rect[:, 2:] - rect[:, :2], 0.0), axis=1)
    return rect, np.asarray(within / area)


def cull(
    camera: CameraModel,
    boxes: Boxes3D,
    row: Ints,
    part: Floats,
    position: Floats,
    orientation: Floats,
    limits: ProjectionLimits,
) -> Mask:
    """Boxes near enough whose bounding sphere meets the cone around the image."""
    following = np.where(boxes.last[row], row, np.minimum(row + 1, len(boxes) - 1))
    center = boxes.center[row]
    center = center + part[:, None] * (boxes.center[following] - center) - position
    distance = np.sqrt((center**2).sum(axis=1))
    radius = 0.5 * np.linalg.norm(np.maximum(boxes.size[row], boxes.size[following]), axis=1)
    axis = quat_rotate(orientation, np.array([0.0, 0.0, 1.0]))
    forward = (center * axis).sum(axis=1) / np.maximum(distance, 1e-9)
    angle = np.arccos(np.clip(forward, -1, 1))
    margin = np.where(distance > radius, np.arcsin(np.minimum(radius / np.maximum(distance, 1e-9),
                                                             1.0)), np.pi)  # fmt: skip
    return np.asarray((distance < limits.max_range_m) & (angle < _half_angle(camera) + margin))


def _half_angle(camera: CameraModel) -> float:
    """Angle from the axis to the farthest pixel of the image's border."""
    u = np.linspace(-0.5, camera.width - 0.5, 33)
    v = np.linspace(-0.5, camera.height - 0.5, 33)
    border = np.concatenate(
        [np.stack([u, np.full_like(u, y)], 1) for y in (v[0], v[-1])]
        + [np.stack([np.full_like(v, x), v], 1) for x in (u[0], u[-1])]
    )
    rays = camera.unproject(border)
    if not np.isfinite(rays).all():
        return np.pi
    return float(np.arccos(np.clip(rays[:, 2], -1, 1)).max())


def _ends(pixels: Floats, seen: Mask) -> Floats:
    """First and last visible point of every edge, (K, 12, 2, 2); NaN where unseen."""
    n, edges, count = seen.shape
    first = seen.argmax(axis=2)
    last = count - 1 - seen[:, :, ::-1].argmax(axis=2)
    a, b = np.ogrid[:n, :edges]
    return np.stack([pixels[a, b, first], pixels[a, b, last]], axis=2)


@dataclass(frozen=True)
class Solids:
    """Boxes in the camera frame: centres (K, 3), sizes, orientations (K, 4), and which thing each
    is (K,): nothing hides itself."""

    center: Floats
    size: Floats
    quaternion: Floats
    thing: Ints


def hidden(frame: Ints, rect: Floats, ends: Floats, solids: Solids) -> Floats:
    """Share of each box's outline that outlines of boxes before it cover, on a GRID x GRID raster.

    frame (K,) ascending. Outlines are the spans, row by row, between a box's projected edges.
    """
    out = np.zeros(len(frame))
    target, other = _overlapping(frame, rect, solids)
    if len(target) == 0:
        return out
    with np.errstate(invalid="ignore", divide="ignore"):
        for start, stop in _pieces(target, _CHUNK):
            mine, theirs = target[start:stop], other[start:stop]
            masks = _rows(rect[mine], ends[theirs])
            edges = np.flatnonzero(np.append(True, mine[1:] != mine[:-1]))
            covered = np.bitwise_or.reduceat(masks, edges, axis=0)
            boxes = mine[edges]
            own = _rows(rect[boxes], ends[boxes])
            total = _count(own)
            out[boxes] = np.where(total > 0, _count(own & covered) / np.maximum(total, 1), 0.0)
    return out


def _pieces(target: Ints, size: int) -> list[tuple[int, int]]:
    """Slices of about ``size`` that never part the pairs of one box."""
    out, start = [], 0
    while start < len(target):
        stop = min(start + size, len(target))
        while stop < len(target) and target[stop] == target[stop - 1]:
            stop += 1
        out.append((start, stop))
        start = stop
    return out


def _overlapping(frame: Ints, rect: Floats, solids: Solids) -> tuple[Ints, Ints]:
    """Pairs (box, box of the same frame that stands before it and overlaps), in order of box."""
    starts = np.flatnonzero(np.append(True, frame[1:] != frame[:-1]))
    stops = np.append(starts[1:], len(frame))
    first: list[Ints] = []
    second: list[Ints] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if stop - start < 2:
            continue
        r, k = rect[start:stop], solids.thing[start:stop]
        meets = (
            (r[:, None, 0] < r[None, :, 2]) & (r[None, :, 0] < r[:, None, 2])
            & (r[:, None, 1] < r[None, :, 3]) & (r[None, :, 1] < r[:, None, 3])
            & (k[None, :] != k[:, None])
        )  # fmt: skip
        i, j = np.nonzero(meets)
        first.append(i + start)
        second.append(j + start)
    if not first:
        none = np.zeros(0, np.int64)
        return none, none
    target, other = np.concatenate(first), np.concatenate(second)
    before = _beside(target, other, solids)
    nearer = (solids.center[other] ** 2).sum(axis=1) < (solids.center[target] ** 2).sum(axis=1)
    # By the planes of their faces where those tell, by distance where they do not.
    hides = ~before & (_beside(other, target, solids) | nearer)
    return target[hides], other[hides]


def _beside(box: Ints, other: Ints, solids: Solids) -> Mask:
    """Whether ``other`` cannot hide ``box``: a face of it has both camera and box before it."""
    inverse = quat_conjugate(solids.quaternion[other])
    half = 0.5 * solids.size[other]
    eye = quat_rotate(inverse, -solids.center[other])
    place = quat_rotate(inverse, solids.center[box] - solids.center[other])
    apart = ((eye > half) & (place > half)) | ((eye < -half) & (place < -half))
    return np.asarray(apart.any(axis=1))


def _rows(rect: Floats, ends: Floats) -> npt.NDArray[np.uint32]:
    """Raster rows (K, GRID) as bits: cells of ``rect`` (K, 4) that the outline of edges with
    ``ends`` (K, 12, 2, 2) covers."""
    low, side = rect[:, :2], (rect[:, 2:] - rect[:, :2]) / GRID
    local = (ends - low[:, None, None]) / side[:, None, None] - 0.5  # cell centres at integers
    x0, y0 = local[:, :, 0, 0, None], local[:, :, 0, 1, None]
    x1, y1 = local[:, :, 1, 0, None], local[:, :, 1, 1, None]
    y = np.arange(GRID, dtype=np.float64)
    crosses = (np.minimum(y0, y1) <= y) & (y <= np.maximum(y0, y1))
    slope = (x1 - x0) / (y1 - y0)
    x = np.where(np.isfinite(slope), x0 + (y - y0) * slope, x0)
    left = np.where(crosses, x, np.inf).min(axis=1)
    right = np.where(crosses, x, -np.inf).max(axis=1)
    a = np.clip(np.ceil(left), 0, GRID)
    b = np.clip(np.floor(right) + 1, 0, GRID)
    some = b > a
    a, b = np.where(some, a, 0).astype(np.uint32), np.where(some, b, 0).astype(np.uint32)
    one = np.uint32(1)
    return np.asarray(np.where(some, (one << b) - (one << a), 0).astype(np.uint32))


def _count(rows: npt.NDArray[np.uint32]) -> Ints:
    """Set bits of each raster (K, GRID)."""
    bits = _BITS[rows & 0xFFF] + _BITS[rows >> 12]
    return np.asarray(bits.sum(axis=1, dtype=np.int64))
