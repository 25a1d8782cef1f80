"""Tracks at the instants and in the frame a format wants: samples of one stream.

Labels of a drive are often made at a LiDAR's nominal times in the world, while formats with one
file per image want them at that image's instant and in its camera. Tracks say what lies between
keyframes (linear centre and size, slerped rotation, nothing in gaps), so they can be asked.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, TypeVar

import numpy as np

from mmdata.annotations.scene import Losses, Scene
from mmdata.geometry import SE3, quat_slerp
from mmdata_schema import Layer, Track2D, Track3D

_T = TypeVar("_T", Track2D, Track3D)
_VECTORS = ("center_m", "size_lwh_m", "xyxy_px")


def resample(layer: Layer, scene: Scene, losses: Losses) -> Layer:
    """The layer with its tracks at the samples of the scene's stream.

    3D tracks also move into the scene's frame, where one is given and its place is known at that
    instant (by the rig or by recorded poses). Keyframes at other instants are not kept; what was
    said of single keyframes is kept where one lies on a sample. Single boxes stay as they are.
    """
    stream = scene.need_stream()
    solid: list[Track3D] = []
    for track in layer.tracks_3d:
        made = _at_samples(track, scene, stream, losses)
        if made is not None:
            solid.append(_moved(made, scene, losses))
    flat: list[Track2D] = []
    for rectangles in layer.tracks_2d:
        own = _at_samples(rectangles, scene, rectangles.stream, losses)
        if own is not None:
            flat.append(own)
    return layer.edit(tracks_3d=solid, tracks_2d=flat)


def _at_samples(track: _T, scene: Scene, stream: str, losses: Losses) -> _T | None:
    stamps = scene.stamps.get(stream)
    if stamps is None:
        losses.add(f"tracks on {stream}, whose samples are not known", track.id)
        return None
    keys = track.stamp_ns
    rows: list[tuple[int, int, float]] = []  # sample stamp, keyframe before it, fraction
    for stamp in stamps[(stamps >= keys[0]) & (stamps <= keys[-1])].tolist():
        i = bisect_right(keys, stamp) - 1
        exact = keys[i] == stamp
        if not exact and track.gap_after and track.gap_after[i]:
            continue
        span = 1 if exact else keys[i + 1] - keys[i]
        rows.append((stamp, i, (stamp - keys[i]) / span))
    if not rows:
        losses.add(f"tracks that exist at no sample of {stream}", track.id)
        return None
    off = track.keyframe_count - sum(fraction == 0 for _, _, fraction in rows)
    if off:
        losses.add(f"keyframes at no sample of {stream} (the track is interpolated)", track.id, off)
    fields: dict[str, Any] = {"stamp_ns": [stamp for stamp, _, _ in rows]}
    for name in track.required_columns:
        column = getattr(track, name)
        between = _lerp if name in _VECTORS else _slerp
        fields[name] = [
            column[i] if not part else between(column[i], column[i + 1], part)
            for _, i, part in rows
        ]
    if isinstance(track, Track2D) and track.rotation_rad is not None:
        fields["rotation_rad"] = [
            track.rotation_rad[i] if not part else _angle(track.rotation_rad, i, part)
            for _, i, part in rows
        ]
    fields["interpolated"] = [
        True if part else (track.interpolated[i] if track.interpolated else None)
        for _, i, part in rows
    ]
    for name in ("visibility", "keyframe_confidence", "truncated"):
        column = getattr(track, name, None)
        if column is not None:
            fields[name] = [None if part else column[i] for _, i, part in rows]
    fields["keyframe_attributes"] = {
        name: [None if part else column[i] for _, i, part in rows]
        for name, column in track.keyframe_attributes.items()
    }
    if track.gap_after is not None:
        gaps = [keys[k] for k, gap in enumerate(track.gap_after) if gap]
        after = [*fields["stamp_ns"][1:], keys[-1] + 1]
        fields["gap_after"] = [
            any(stamp <= gap < following for gap in gaps)
            for stamp, following in zip(fields["stamp_ns"], after, strict=True)
        ]
    return track.edit(**fields)


def _lerp(a: Any, b: Any, part: float) -> tuple[float, ...]:
    return tuple(x + part * (y - x) for x, y in zip(a, b, strict=True))


def _slerp(a: Any, b: Any, part: float) -> tuple[float, ...]:
    return tuple(quat_slerp(np.asarray(a), np.asarray(b), part).tolist())


def _angle(column: list[float | None], i: int, part: float) -> float | None:
    a, b = column[i], column[i + 1]
    return None if a is None or b is None else a + part * (b - a)


def _moved(track: Track3D, scene: Scene, losses: Losses) -> Track3D:
    if scene.frame_id is None or scene.frame_id == track.frame_id:
        return track
    centers, turns = [], []
    for stamp, center, turn in zip(
        track.stamp_ns, track.center_m, track.quaternion_wxyz, strict=True
    ):
        wanted_SE3_frame = scene.transform(scene.frame_id, track.frame_id, stamp)
        if wanted_SE3_frame is None:
            losses.add(f"tracks whose frame has no known place in {scene.frame_id}", track.id)
            return track
        pose = wanted_SE3_frame @ SE3.from_quaternion(turn, center)
        centers.append(tuple(pose.translation.tolist()))
        turns.append(tuple(pose.quaternion.tolist()))
    return track.edit(frame_id=scene.frame_id, center_m=centers, quaternion_wxyz=turns)
