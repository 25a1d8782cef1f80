"""KITTI raw tracklets (`tracklet_labels.xml`); see the importer for the conventions."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from mmdata.annotations.boxes import heading
from mmdata.annotations.scene import Exported, Losses, Scene
from mmdata.annotations.sidecar import write_durably
from mmdata_schema import Layer, Track3D

TILT_RAD = 1e-3
SIZE_M = 1e-3
_KEPT = {"label", "object_id", "frame_id", "stream", "stamp_ns", "center_m", "size_lwh_m",
         "quaternion_wxyz", "interpolated", "keyframe_attributes", "gap_after"}  # fmt: skip
_LEVELS = ("occlusion", "truncation", "state")


def write_kitti_tracklets(path: Path, layer: Layer, scene: Scene) -> Exported:
    """One tracklet per stretch of a track that has a box at every sweep.

    A tracklet has one size (the track's median is not invented: the first counts, changes are
    reported) and consecutive poses, so a track with gaps becomes several.
    """
    stream, frame_id = scene.need_stream(), scene.need_frame()
    losses = Losses()
    losses.rest(layer, {"tracks_3d": _KEPT})
    root = ElementTree.Element("boost_serialization", signature="serialization::archive",
                               version="9")  # fmt: skip
    tracklets = ElementTree.SubElement(root, "tracklets", version="0")
    items = [run for track in layer.tracks_3d for run in _runs(track, stream, scene, losses)]
    items = [(track, run) for track, run in items if _placed(track, frame_id, losses)]
    _text(tracklets, "count", len(items))
    _text(tracklets, "item_version", 1)
    for track, run in items:
        _item(tracklets, track, run, losses)
    ElementTree.indent(root)
    write_durably(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return Exported((path,), losses.report())


def _placed(track: Track3D, frame_id: str, losses: Losses) -> bool:
    if track.frame_id != frame_id:
        losses.add(f"tracks that are not in the {frame_id} frame", track.id)
    return track.frame_id == frame_id


def _runs(
    track: Track3D, stream: str, scene: Scene, losses: Losses
) -> list[tuple[Track3D, list[tuple[int, int]]]]:
    """Stretches of (frame, keyframe) whose frames follow each other."""
    runs: list[list[tuple[int, int]]] = []
    for i, stamp_ns in enumerate(track.stamp_ns):
        frame = scene.index_of(stream, stamp_ns)
        if frame is None:
            losses.add(f"keyframes that belong to no sample of {stream}", f"{track.id}@{stamp_ns}")
        elif runs and runs[-1][-1][0] == frame - 1:
            runs[-1].append((frame, i))
        else:
            runs.append([(frame, i)])
    if len(runs) > 1:
        losses.add("tracks split where sweeps have no keyframe", track.id)
    if runs:
        losses.add("object ids (tracklets have none)", track.object_id)
    return [(track, run) for run in runs]


def _item(
    parent: ElementTree.Element, track: Track3D, run: list[tuple[int, int]], losses: Losses
) -> None:
    item = ElementTree.SubElement(parent, "item")
    length, width, height = track.size_lwh_m[run[0][1]]
    _text(item, "objectType", track.label)
    for name, value in (("h", height), ("w", width), ("l", length)):
        _text(item, name, repr(value))
    _text(item, "first_frame", run[0][0])
    poses = ElementTree.SubElement(item, "poses")
    _text(poses, "count", len(run))
    _text(poses, "item_version", 2)
    for name in sorted({*track.keyframe_attributes} - {*_LEVELS}):
        losses.add(f"keyframe attribute {name!r}", track.id)
    for _, i in run:
        changed = max(abs(a - b) for a, b in
                      zip(track.size_lwh_m[i], (length, width, height), strict=True))  # fmt: skip
        if changed > SIZE_M:
            losses.add("size changes along a track", f"{track.id}@{track.stamp_ns[i]}")
        yaw, tilt = heading(track.quaternion_wxyz[i])
        if tilt > TILT_RAD:
            losses.add("pitch and roll of boxes", f"{track.id}@{track.stamp_ns[i]}")
        x, y, z = track.center_m[i]
        pose = ElementTree.SubElement(poses, "item")
        place = (("tx", x), ("ty", y), ("tz", z - track.size_lwh_m[i][2] / 2),
                 ("rx", 0.0), ("ry", 0.0), ("rz", yaw))  # fmt: skip
        for name, value in place:
            _text(pose, name, repr(value))
        flag = track.interpolated[i] if track.interpolated else None
        state = 0 if flag is None else 1 if flag else 2
        for name in ("state", "occlusion", "truncation"):
            column = track.keyframe_attributes.get(name)
            level = column[i] if column and column[i] is not None else None
            if name == "state" and (level is None or flag is not None):
                level = state
            # -1 is the format's own "unknown" for both levels.
            _text(pose, name, -1 if level is None else level)
    _text(item, "finished", 1)


def _text(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = str(value)
