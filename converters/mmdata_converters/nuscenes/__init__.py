"""nuScenes tables: every scene an episode. Large tables are scanned, never held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdata.errors import ConversionError
from mmdata.recording import Recording
from mmdata_converters._common import DatasetConverter, natural


class NuScenesConverter(DatasetConverter):
    name = "nuscenes"
    summary = "nuScenes scenes"
    reads = "cameras, LiDAR, radar (samples and sweeps), ego pose, CAN bus, point classes"
    labels = "3D tracks, scene description"
    calibration = "intrinsics, extrinsics"
    time = "measured"
    cannot = "maps; the route of the CAN bus expansion"

    @classmethod
    def claims(cls, path: Path) -> bool:
        from mmdata_converters.nuscenes.tables import versions

        return bool(versions(path))

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        from mmdata_converters.nuscenes.tables import table, versions

        found = versions(path)
        if not found:
            raise ConversionError(f"{path}: no folder v1.0-* with scene.json and sample_data.json")
        names = []
        for version in found:
            for scene in table(version / "scene.json"):
                name = str(scene["name"])
                names.append(name if len(found) == 1 else f"{version.name}_{name}")
        return sorted(names, key=natural)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        from mmdata_converters.nuscenes.scene import Scene
        from mmdata_converters.nuscenes.tables import table, versions

        for version in versions(path):
            for scene in table(version / "scene.json"):
                if part in (scene["name"], f"{version.name}_{scene['name']}"):
                    return Scene(path, version, scene, part)
        raise ConversionError(f"{path}: no scene {part}")
