"""LeRobot datasets v1, v2.0, v2.1 and v3.0: Parquet tables and MP4 videos, many episodes each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdata.recording import Recording
from mmdata_converters._common import DatasetConverter


class LeRobotConverter(DatasetConverter):
    name = "lerobot"
    summary = "LeRobot datasets v1, v2.0, v2.1, v3.0"
    reads = "state, action and every other column; videos as packets, embedded and loose images"
    labels = "tasks, sub-task and language columns, success"
    time = "measured where the timestamps differ from index / fps, else synthetic"
    cannot = "v1 datasets kept as Arrow files (train/*.arrow)"

    @classmethod
    def claims(cls, path: Path) -> bool:
        from mmdata_converters.lerobot.dataset import info_file, version_of

        return info_file(path) is not None and version_of(path) is not None

    @classmethod
    def parts(cls, path: Path) -> Sequence[str]:
        from mmdata_converters.lerobot.dataset import episode_name, open_dataset

        return [episode_name(i) for i in open_dataset(path).found]

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        from mmdata_converters.lerobot.dataset import open_dataset
        from mmdata_converters.lerobot.episode import LeRobotEpisode

        return LeRobotEpisode(open_dataset(path), int(part.rsplit("_", 1)[1]))
