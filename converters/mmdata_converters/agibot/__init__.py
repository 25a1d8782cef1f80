"""AgiBot World (Alpha, Beta) and AgiBot Digital World: HDF5 tables, videos, depth, descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdata.errors import ConversionError
from mmdata.recording import Recording
from mmdata_converters._common import DatasetConverter, natural


class AgiBotConverter(DatasetConverter):
    name = "agibot"
    summary = "AgiBot World and Digital World episodes"
    reads = "states, actions by their index, videos, depth, tactile videos"
    labels = "sub-tasks with skills, task"
    calibration = "intrinsics; extrinsics of the camera in the base, moving ones as streams"
    time = "measured; synthetic where a table has no stamps"
    cannot = "parameter.json of the Digital World; tar archives (unpack them first)"

    @classmethod
    def claims(cls, path: Path) -> bool:
        from mmdata_converters.agibot.places import is_dataset, own_table

        return path.is_dir() and (own_table(path) is not None or is_dataset(path))

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        from mmdata_converters.agibot.places import episodes

        found = episodes(path)
        if not found:
            raise ConversionError(
                f"{path}: no proprio_stats/<task>/<episode>/proprio_stats.h5, nor an episode itself"
            )
        return sorted(found, key=natural)

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        from mmdata_converters.agibot.episode import Episode
        from mmdata_converters.agibot.places import episodes, place_of

        return Episode(path, part, place_of(episodes(path)[part]))
