"""KITTI raw tracklets (`tracklet_labels.xml`): boxes in the LiDAR frame, one pose per sweep.

The pose is that of the bottom's centre; rz is the yaw of the box's length, h, w, l its size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdata.annotations.boxes import quaternion_of_yaw
from mmdata.annotations.scene import Imported, Losses, Scene
from mmdata.errors import ConversionError
from mmdata.geometry import quat_from_rotvec, quat_multiply
from mmdata_schema import Layer, Track3D, stable_id

_STATE = {1: True, 2: False}  # interpolated, labelled; 0 says neither
_LEVELS = ("occlusion", "truncation", "state")
_UNUSED = {"occlusion_kf", "amt_occlusion", "amt_occlusion_kf", "amt_border_l", "amt_border_r",
           "amt_border_kf"}  # fmt: skip


def read_kitti_tracklets(path: Path, scene: Scene, *, layer: str) -> Imported:
    """A track per tracklet; object ids are their positions in the file, which has no others."""
    stream, frame_id = scene.need_stream(), scene.need_frame()
    losses = Losses()
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConversionError(f"{path} is not XML: {error}") from error
    tracks = []
    for number, item in enumerate(root.findall("./tracklets/item")):
        try:
            track = _track(item, number, stream, frame_id, scene, losses)
        except (TypeError, ValueError) as error:
            raise ConversionError(f"{path}: tracklet {number}: {error}") from error
        if track is not None:
            tracks.append(track)
    if not tracks and root.find("./tracklets") is None:
        raise ConversionError(f"{path} holds no tracklets")
    out = Layer(
        episode_id=scene.episode_id, name=layer,
        provenance=scene.provenance("kitti-tracklets", path), tracks_3d=tracks,
    )  # fmt: skip
    return Imported((out,), losses.report())


def _number(item: ElementTree.Element, name: str) -> float:
    text = item.findtext(name)
    if text is None:
        raise ValueError(f"no <{name}>")
    return float(text)


def _track(
    item: ElementTree.Element, number: int, stream: str, frame_id: str, scene: Scene,
    losses: Losses,
) -> Track3D | None:  # fmt: skip
    height, width, length = (_number(item, name) for name in "hwl")
    first = int(_number(item, "first_frame"))
    columns: dict[str, list[Any]] = {"stamp_ns": [], "center_m": [], "quaternion_wxyz": []}
    interpolated: list[bool | None] = []
    levels: dict[str, list[int]] = {name: [] for name in _LEVELS}
    for i, pose in enumerate(item.findall("./poses/item")):
        stamp_ns = scene.frame_ns(stream, first + i)
        if stamp_ns is None:
            losses.add(f"poses of sweeps without a sample in {stream}", f"frame {first + i}")
            continue
        rx, ry, rz = (_number(pose, name) for name in ("rx", "ry", "rz"))
        turn = quat_multiply(
            quaternion_of_yaw(rz),
            quat_multiply(quat_from_rotvec((0.0, ry, 0.0)), quat_from_rotvec((rx, 0.0, 0.0))),
        )
        x, y, z = (_number(pose, name) for name in ("tx", "ty", "tz"))
        columns["stamp_ns"].append(stamp_ns)
        columns["center_m"].append((x, y, z + height / 2))
        columns["quaternion_wxyz"].append(tuple(turn.tolist()))
        interpolated.append(_STATE.get(int(_number(pose, "state"))))
        for name in _LEVELS:
            levels[name].append(int(_number(pose, name)))
        for child in pose:
            if child.tag in _UNUSED and float(child.text or 0) not in (0.0, -1.0):
                losses.add(f"<{child.tag}> of poses", f"tracklet {number}")
    if not columns["stamp_ns"]:
        return None
    known = any(value is not None for value in interpolated)
    return Track3D.parse(
        {
            "id": stable_id("track3d", "tracklet", number),
            "object_id": f"tracklet-{number}",
            "label": (item.findtext("objectType") or "").strip(),
            "frame_id": frame_id,
            "stream": stream,
            **columns,
            "size_lwh_m": [(length, width, height)] * len(interpolated),
            "interpolated": interpolated if known else None,
            "keyframe_attributes": levels,
        }
    )
