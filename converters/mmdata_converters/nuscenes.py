"""nuScenes tables: every scene an episode. Large tables are scanned, never held."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import ConversionError
from mmdata.geometry import SE3, CameraModel, Sensor
from mmdata.recording import Recording
from mmdata.streams import FieldInfo
from mmdata_converters._common import DatasetConverter, measured, natural, read_bytes, read_json
from mmdata_converters._feeds import FeedRecording

_BLOCK = 1 << 20
_POINTS = {n: FieldInfo("<f4", unit=u) for n, u in
           (("x", "m"), ("y", "m"), ("z", "m"), ("intensity", None), ("ring", None))}  # fmt: skip
#: Visibility tokens: bounds of the visible fraction.
_VISIBILITY = {"1": (0.0, 0.4), "2": (0.4, 0.6), "3": (0.6, 0.8), "4": (0.8, 1.0)}
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}


class NuScenesConverter(DatasetConverter):
    name = "nuscenes"
    summary = "nuScenes scenes"
    reads = "cameras, LiDAR, radar (samples and sweeps), ego pose"
    labels = "3D tracks, scene description"
    calibration = "intrinsics, extrinsics"
    time = "measured"
    cannot = "maps, lidarseg and panoptic labels, CAN bus expansion"

    @classmethod
    def claims(cls, path: Path) -> bool:
        return bool(_versions(path))

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        versions = _versions(path)
        if not versions:
            raise ConversionError(f"{path}: no folder v1.0-* with scene.json and sample_data.json")
        names = []
        for version in versions:
            for scene in _table(version / "scene.json"):
                name = str(scene["name"])
                names.append(name if len(versions) == 1 else f"{version.name}_{name}")
        return sorted(names, key=natural)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        for version in _versions(path):
            for scene in _table(version / "scene.json"):
                if part in (scene["name"], f"{version.name}_{scene['name']}"):
                    return _Scene(path, version, scene, part)
        raise ConversionError(f"{path}: no scene {part}")


def _versions(path: Path) -> list[Path]:
    return [
        v for v in sorted(Path(path).glob("v1.0-*"))
        if (v / "scene.json").is_file() and (v / "sample_data.json").is_file()
    ]  # fmt: skip


class _Scene(FeedRecording):
    def __init__(self, path: Path, version: Path, scene: dict[str, Any], part: str) -> None:
        super().__init__(path, "nuscenes", part)
        self.version = version
        self.samples = sorted(
            (s for s in _table(version / "sample.json") if s["scene_token"] == scene["token"]),
            key=lambda s: s["timestamp"],
        )
        if len(self.samples) != int(scene.get("nbr_samples", len(self.samples))):
            self.account.problem(
                f"the scene has {len(self.samples)} samples, it lists {scene['nbr_samples']}"
            )
        tokens = {s["token"] for s in self.samples}
        self.uses(*(version / f"{t}.json" for t in ("scene", "sample", "sample_data")))
        rows = list(_rows_of(version / "sample_data.json", "sample_token", tokens))
        calibrated = _by_token(version / "calibrated_sensor.json",
                               {r["calibrated_sensor_token"] for r in rows})  # fmt: skip
        sensors = _by_token(version / "sensor.json", None)
        channels: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            mount = calibrated.get(row["calibrated_sensor_token"], {})
            sensor = sensors.get(mount.get("sensor_token", ""), {})
            channels[str(sensor.get("channel") or row["filename"].split("/")[1])].append(row)
        for channel in sorted(channels):
            found = sorted(channels[channel], key=lambda r: (r["timestamp"], r["filename"]))
            self._channel(channel, found)
            self._mount(channel, found, calibrated)
        self._ego(rows)
        self._facts(scene)
        self._tracks(tokens)

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
            self.sweeps(name, lambda i: _read_lidar(files[i]), stamps, _POINTS,
                        **measured("sweep_end"), **info)  # fmt: skip
        elif channel.startswith("RADAR"):
            fields = self._radar_fields(files)
            if fields:
                self.sweeps(name, lambda i: _read_pcd(files[i], fields), stamps, fields,
                            **measured(), **info)  # fmt: skip
            else:
                self.drop(channel, "no readable .pcd", len(files))
        else:
            self.drop(channel, "a sensor of unknown kind", len(files))

    def _radar_fields(self, files: list[Path]) -> dict[str, FieldInfo]:
        for file in files:
            try:
                types, _, _ = _pcd_header(file.read_bytes())
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
                 for p in _rows_of(self.version / "ego_pose.json", "token", wanted)}  # fmt: skip
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
        log = _by_token(self.version / "log.json", {scene.get("log_token", "")})
        facts = next(iter(log.values()), {})
        self.know(
            description=scene.get("description"), site=facts.get("location"),
            robot=facts.get("vehicle"), source_format=f"nuScenes {self.version.name}",
        )  # fmt: skip
        self.description = scene.get("description")

    def _tracks(self, tokens: set[str]) -> None:
        from mmdata_schema import Caption, Track3D, stable_id

        file = self.version / "sample_annotation.json"
        found = list(_rows_of(file, "sample_token", tokens)) if file.is_file() else []
        order = {s["token"]: i for i, s in enumerate(self.samples)}
        times = {s["token"]: int(s["timestamp"]) * 1000 for s in self.samples}
        instances = _by_token(self.version / "instance.json", {a["instance_token"] for a in found})
        categories = _by_token(self.version / "category.json", None)
        names = _by_token(self.version / "attribute.json", None)
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


# -- tables ------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _small(path: Path, changed: int) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ConversionError(f"{path} is not a list of rows")
    return rows


def _table(path: Path) -> list[dict[str, Any]]:
    """A small table."""
    return _small(path, path.stat().st_mtime_ns)


def _by_token(path: Path, wanted: set[str] | None) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    return {r["token"]: r for r in _table(path) if wanted is None or r["token"] in wanted}


def _rows_of(path: Path, key: str, wanted: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of a large table whose key is one of those wanted, read at their places."""
    places = _places(path, key, path.stat().st_mtime_ns)
    spots = sorted(spot for value in wanted for spot in places.get(value, ()))
    with path.open("rb") as file:
        for start, end in spots:
            file.seek(start)
            yield json.loads(file.read(end - start))


@lru_cache(maxsize=8)
def _places(path: Path, key: str, changed: int) -> dict[str, list[tuple[int, int]]]:
    """Value of a key -> where its rows lie in the file (byte offsets)."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, start, end in _scan(path):
        if isinstance(row, dict) and key in row:
            places[str(row[key])].append((start, end))
    return dict(places)


def _scan(path: Path) -> Iterator[tuple[Any, int, int]]:
    """(row, first byte, byte after) of a JSON list, without holding it."""
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        text, base, at = "", 0, 0
        opened = False
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if not opened and at < len(text):
                if text[at] != "[":
                    raise ConversionError(f"{path} is not a list of rows")
                opened, at = True, at + 1
                continue
            if opened and at < len(text) and text[at] == "]":
                return
            if at < len(text):
                try:
                    # Latin-1 keeps one character per byte, so that places are byte offsets.
                    row, end = decoder.raw_decode(text, at)
                except ValueError:
                    row, end = None, -1
                if end > 0:
                    yield row, base + at, base + end
                    at = end
                    continue
            block = file.read(_BLOCK).decode("latin-1")
            if not block:
                raise ConversionError(f"{path} ends within a row")
            text, base, at = text[at:] + block, base + at, 0


# -- payload -----------------------------------------------------------------------------------


def _read_lidar(path: Path) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    if len(data) % 20:
        raise ConversionError(f"{len(data)} bytes are no rows of x, y, z, intensity, ring")
    return dict(zip(_POINTS, np.frombuffer(data, "<f4").reshape(-1, 5).T, strict=True))


def _pcd_header(data: bytes) -> tuple[list[tuple[str, str]], int, int]:
    """Fields with their types, number of points, and where the points begin."""
    end = data.find(b"\n", data.find(b"DATA "))
    facts: dict[str, list[str]] = {}
    for line in data[: max(end, 0)].decode("latin-1").splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            facts[words[0]] = words[1:]
    if facts.get("DATA") != ["binary"]:
        raise ConversionError("a .pcd that is not binary")
    try:
        kinds = zip(facts["FIELDS"], facts["TYPE"], facts["SIZE"], strict=True)
        types = [(name, f"<{_PCD_TYPES[kind]}{int(size)}") for name, kind, size in kinds]
        return types, int(facts["POINTS"][0]), end + 1
    except (KeyError, ValueError, IndexError) as error:
        raise ConversionError(f"header of a .pcd: {error}") from error


def _read_pcd(path: Path, fields: Mapping[str, FieldInfo]) -> dict[str, Any] | None:
    data = read_bytes(path)
    if data is None:
        return None
    types, count, start = _pcd_header(data)
    dtype = np.dtype(types)
    if dict(types) != {n: f.dtype for n, f in fields.items()}:
        raise ConversionError("its fields differ from the first one's")
    if len(data) - start < count * dtype.itemsize:
        raise ConversionError("fewer points than its header says")
    points = np.frombuffer(data, dtype, count, start)
    return {n: points[n] for n in fields}
