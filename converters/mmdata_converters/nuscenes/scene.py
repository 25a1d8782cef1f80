"""One scene of nuScenes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import ConversionError
from mmdata.geometry import SE3, CameraModel, Sensor
from mmdata.streams import FieldInfo
from mmdata_converters._common import DAMAGE, measured, one_line, read_bytes, read_json
from mmdata_converters._feeds import FeedRecording
from mmdata_converters.nuscenes.payload import (
    POINTS,
    pcd_header,
    read_classes,
    read_lidar,
    read_pcd,
)
from mmdata_converters.nuscenes.tables import by_token, rows_of, table

#: Visibility tokens: bounds of the visible fraction.
_VISIBILITY = {"1": (0.0, 0.4), "2": (0.4, 0.6), "3": (0.6, 0.8), "4": (0.8, 1.0)}
#: Tables of classes per point: their field, its type, whether they tell objects apart.
_CLASSES = {"lidarseg": ("semantic_class", "|u1"), "panoptic": ("panoptic", "<u2")}


class Scene(FeedRecording):
    def __init__(self, path: Path, version: Path, scene: dict[str, Any], part: str) -> None:
        super().__init__(path, "nuscenes", part)
        self.version = version
        self.samples = sorted(
            (s for s in table(version / "sample.json") if s["scene_token"] == scene["token"]),
            key=lambda s: s["timestamp"],
        )
        if len(self.samples) != int(scene.get("nbr_samples", len(self.samples))):
            self.account.problem(
                f"the scene has {len(self.samples)} samples, it lists {scene['nbr_samples']}"
            )
        tokens = {s["token"] for s in self.samples}
        self.uses(*(version / f"{t}.json" for t in ("scene", "sample", "sample_data")))
        rows = list(rows_of(version / "sample_data.json", "sample_token", tokens))
        calibrated = by_token(version / "calibrated_sensor.json",
                               {r["calibrated_sensor_token"] for r in rows})  # fmt: skip
        sensors = by_token(version / "sensor.json", None)
        channels: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            mount = calibrated.get(row["calibrated_sensor_token"], {})
            sensor = sensors.get(mount.get("sensor_token", ""), {})
            channels[str(sensor.get("channel") or row["filename"].split("/")[1])].append(row)
        for channel in sorted(channels):
            found = sorted(channels[channel], key=lambda r: (r["timestamp"], r["filename"]))
            self._channel(channel, found)
            self._mount(channel, found, calibrated)
        self.attempt("point classes", lambda: self._classes(rows))
        self.attempt("ego poses", lambda: self._ego(rows))
        self._can_bus(str(scene["name"]))
        self._facts(scene)
        self.attempt("annotations", lambda: self._tracks(tokens))

    # -- data ----------------------------------------------------------------------------------

    def _channel(self, channel: str, rows: list[dict[str, Any]]) -> None:
        files = [self.path / r["filename"] for r in rows]
        present = [f.is_file() for f in files]
        gone = present.count(False)
        if gone:
            self.account.problem(f"{channel}: {gone} of {len(files)} files are missing")
        files = [f for f, here in zip(files, present, strict=True) if here]
        rows = [r for r, here in zip(rows, present, strict=True) if here]
        if not files:
            return
        self.uses(*files)
        stamps = np.array([int(r["timestamp"]) * 1000 for r in rows], np.int64)
        name = _stream_of(channel)
        info: dict[str, Any] = {"source_topic": channel, "frame_id": channel, "sensor": name}
        if channel.startswith("CAM"):
            self.encoded(name, lambda i: read_bytes(files[i]), stamps, **measured(), **info)
        elif channel.startswith("LIDAR"):
            self.sweeps(name, lambda i: read_lidar(files[i]), stamps, POINTS,
                        **measured("sweep_end"), **info)  # fmt: skip
        elif channel.startswith("RADAR"):
            fields = self._radar_fields(files)
            if fields:
                self.sweeps(name, lambda i: read_pcd(files[i], fields), stamps, fields,
                            **measured(), **info)  # fmt: skip
            else:
                self.drop(channel, "no readable .pcd", len(files))
        else:
            self.drop(channel, "a sensor of unknown kind", len(files))

    def _classes(self, rows: list[dict[str, Any]]) -> None:
        """Sweeps whose points have a class, as streams of their own: only key frames have one."""
        wanted = {r["token"]: r for r in rows}
        for kind, (field, dtype) in _CLASSES.items():
            listing = self.version / f"{kind}.json"
            found = [r for r in (table(listing) if listing.is_file() else ())
                     if r["sample_data_token"] in wanted]  # fmt: skip
            pairs = sorted(
                (int(wanted[r["sample_data_token"]]["timestamp"]) * 1000,
                 self.path / wanted[r["sample_data_token"]]["filename"], self.path / r["filename"])
                for r in found
            )  # fmt: skip
            here = [p for p in pairs if p[1].is_file() and p[2].is_file()]
            if len(here) < len(pairs):
                self.account.problem(f"{kind}: {len(pairs) - len(here)} of {len(pairs)} files "
                                     "are missing, or their sweeps")  # fmt: skip
            if not here:
                continue
            self.uses(listing, *(labels for _, _, labels in here))

            def get(
                i: int, here: Any = here, field: str = field, panoptic: bool = kind == "panoptic"
            ) -> Mapping[str, Any] | None:
                sweep, labels = read_lidar(here[i][1]), read_classes(here[i][2], panoptic)
                if sweep is None or len(labels) != len(sweep["x"]):
                    raise ConversionError("point classes that do not fit the points")
                return {**sweep, field: labels}

            names = [f"{c['index']}: {c['name']}"
                     for c in table(self.version / "category.json") if "index" in c]  # fmt: skip
            self.sweeps(
                f"lidar_{kind}", get, np.array([at for at, _, _ in here], np.int64),
                {**POINTS, field: FieldInfo(dtype)}, source_topic=kind, frame_id="LIDAR_TOP",
                sensor="lidar_top", attrs={"classes": names}, **measured("sweep_end"),
            )  # fmt: skip

    def _can_bus(self, scene: str) -> None:
        """The CAN bus expansion: one file of messages per kind and scene."""
        folder = self.path / "can_bus"
        for file in sorted(folder.glob(f"{scene}_*.json")) if folder.is_dir() else []:
            kind = file.stem.removeprefix(f"{scene}_")
            if kind == "meta":
                continue  # a summary of the others
            self.uses(file)
            try:
                messages = read_json(file)
                stamps = np.array([int(m["utime"]) * 1000 for m in messages], np.int64)
                fields = _columns(messages)
            except DAMAGE as error:
                self.drop(f"can_bus/{kind}", f"no messages with a utime: {one_line(error)}")
                continue
            if fields:
                self.signal(f"can_{kind}", fields, stamps, source_topic=f"can_bus/{kind}",
                            **measured())  # fmt: skip

    def _radar_fields(self, files: list[Path]) -> dict[str, FieldInfo]:
        for file in files:
            try:
                types, _, _ = pcd_header(file.read_bytes())
            except (ConversionError, OSError):
                continue  # counted when it is read
            return {n: FieldInfo(t) for n, t in types}
        return {}

    def _mount(
        self, channel: str, rows: list[dict[str, Any]], calibrated: Mapping[str, dict[str, Any]]
    ) -> None:
        tokens = list(dict.fromkeys(r["calibrated_sensor_token"] for r in rows))
        found = [calibrated[t] for t in tokens if t in calibrated]
        if not found:
            self.account.problem(f"{channel}: no calibration")
            return
        mounts = {json.dumps([c["translation"], c["rotation"]]) for c in found}
        if len(mounts) > 1:
            self.account.problem(f"{channel}: {len(mounts)} calibrations; the rig is the first")
        one = found[0]
        try:
            camera = None
            if one.get("camera_intrinsic"):
                sized = next((r for r in rows if r.get("width") and r.get("height")), None)
                if sized is not None:
                    camera = CameraModel.pinhole(
                        one["camera_intrinsic"], int(sized["width"]), int(sized["height"])
                    )
            pose = SE3.from_quaternion(one["rotation"], one["translation"])
            self.mount(Sensor(_stream_of(channel), channel, "ego", pose, camera))
        except (ValueError, TypeError) as error:
            self.account.problem(f"{channel}: calibration cannot be used: {error}")

    def _ego(self, rows: list[dict[str, Any]]) -> None:
        wanted = {r["ego_pose_token"] for r in rows}
        poses = {int(p["timestamp"]): p
                 for p in rows_of(self.version / "ego_pose.json", "token", wanted)}  # fmt: skip
        if not poses:
            self.account.problem("no ego poses")
            return
        order = sorted(poses)
        self.signal(
            "ego_pose",
            {
                "position": np.array([poses[t]["translation"] for t in order], np.float64),
                "orientation": np.array([poses[t]["rotation"] for t in order], np.float64),
            },
            np.array(order, np.int64) * 1000, units={"position": "m"}, source_topic="ego_pose",
            frame_id="global", **measured(),
        )  # fmt: skip

    # -- labels --------------------------------------------------------------------------------

    def _facts(self, scene: dict[str, Any]) -> None:
        log = by_token(self.version / "log.json", {scene.get("log_token", "")})
        facts = next(iter(log.values()), {})
        self.know(
            description=scene.get("description"), site=facts.get("location"),
            robot=facts.get("vehicle"), source_format=f"nuScenes {self.version.name}",
        )  # fmt: skip
        self.description = scene.get("description")

    def _tracks(self, tokens: set[str]) -> None:
        from mmdata_schema import Caption, Track3D, stable_id

        file = self.version / "sample_annotation.json"
        found = list(rows_of(file, "sample_token", tokens)) if file.is_file() else []
        order = {s["token"]: i for i, s in enumerate(self.samples)}
        times = {s["token"]: int(s["timestamp"]) * 1000 for s in self.samples}
        instances = by_token(self.version / "instance.json", {a["instance_token"] for a in found})
        categories = by_token(self.version / "category.json", None)
        names = by_token(self.version / "attribute.json", None)
        by_instance: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for annotation in found:
            by_instance[annotation["instance_token"]].append(annotation)
        tracks = []
        for token, boxes in sorted(by_instance.items()):
            boxes.sort(key=lambda a: order[a["sample_token"]])
            instance = instances.get(token, {})
            category = categories.get(instance.get("category_token", ""), {})
            places = [order[a["sample_token"]] for a in boxes]
            gaps = [b - a > 1 for a, b in zip(places, [*places[1:], places[-1] + 1], strict=True)]
            visible = [_VISIBILITY.get(str(a.get("visibility_token"))) for a in boxes]
            tracks.append(
                Track3D(
                    id=stable_id("track", self.episode_id, token), object_id=token,
                    label=str(category.get("name") or "unknown"), frame_id="global",
                    stamp_ns=[times[a["sample_token"]] for a in boxes],
                    center_m=[_three(a["translation"]) for a in boxes],
                    size_lwh_m=[size_from_wlh(a["size"]) for a in boxes],
                    quaternion_wxyz=[_four(a["rotation"]) for a in boxes],
                    visibility=visible if any(visible) else None,
                    gap_after=gaps if any(gaps) else None,
                    keyframe_attributes={
                        "lidar_points": [a.get("num_lidar_pts") for a in boxes],
                        "radar_points": [a.get("num_radar_pts") for a in boxes],
                        "source_id": [a["token"] for a in boxes],
                        "attributes": [
                            [names.get(t, {}).get("name", t) for t in a.get("attribute_tokens", [])]
                            for a in boxes
                        ],
                    },
                )
            )  # fmt: skip
        captions = []
        if self.description:
            ident = stable_id("caption", self.episode_id, self.description)
            captions.append(Caption(id=ident, text=str(self.description)))
        self.layer("nuscenes", tracks_3d=tracks, captions=captions)

    @property
    def episode_id(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.part)


def size_from_wlh(size: Sequence[float]) -> tuple[float, float, float]:
    """nuScenes gives width, length, height; ours is length, width, height."""
    width, length, height = (float(v) for v in size)
    return length, width, height


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    w, x, y, z = (float(v) for v in values)
    return w, x, y, z


def _stream_of(channel: str) -> str:
    kind, _, place = channel.lower().partition("_")
    kind = {"cam": "camera"}.get(kind, kind)
    return f"{kind}_{place}" if place else kind


def _columns(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of messages as columns, where every message has them in the same shape."""
    fields = {}
    for key in messages[0] if messages else ():
        if key != "utime" and all(key in m for m in messages):
            column = np.array([m[key] for m in messages])
            if column.dtype.kind in "iufb":
                fields[key] = column
    return fields
