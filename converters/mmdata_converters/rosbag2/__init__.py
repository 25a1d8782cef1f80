"""ROS 2 bags: SQLite and MCAP storage, file- or message-compressed, also interrupted ones."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mmdata.recording import Converter, Recording

_SQLITE_MAGIC = b"SQLite format 3\0"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RosBag2Converter(Converter):
    """A rosbag2 folder, or one of its storage files."""

    name: ClassVar[str] = "rosbag2"
    summary: ClassVar[str] = "ROS 2 bag (SQLite or MCAP)"
    reads: ClassVar[str] = "all topics, by the log's own definitions or those of the distribution"
    cannot: ClassVar[str] = "types without any definition (kept as opaque bytes), XCDR2"
    labels: ClassVar[str] = ""
    calibration: ClassVar[str] = "CameraInfo, static transforms"
    time: ClassVar[str] = "header, receive and (MCAP) publish stamps"

    @classmethod
    def sniff(cls, path: Path) -> bool:
        try:
            if path.is_dir():
                if (path / "metadata.yaml").exists():
                    return b"rosbag2_bagfile_information" in (path / "metadata.yaml").read_bytes()
                return False
            with path.open("rb") as file:
                head = file.read(16)
        except OSError:
            return False
        if head == _SQLITE_MAGIC:
            return path.suffix == ".db3"
        if head[:8] == _MCAP_MAGIC:
            return _may_hold_cdr(path)
        return head[:4] == _ZSTD_MAGIC and path.name.endswith((".mcap.zstd", ".db3.zstd"))

    @classmethod
    def open(cls, path: Path, part: str = "") -> Recording:
        from mmdata_converters._ros.recording import RosRecording
        from mmdata_converters.rosbag2.folder import BagLog

        log = BagLog(path)
        files = list(log.paths)
        if path.is_dir() and (path / "metadata.yaml").exists():
            files.append(path / "metadata.yaml")
        return RosRecording(log, files)


def _may_hold_cdr(path: Path) -> bool:
    """Whether an MCAP file has CDR channels, or is too damaged to say."""
    from mmdata.errors import ConversionError
    from mmdata_converters.rosbag2.mcap import McapLog

    try:
        log = McapLog(path)
    except (ConversionError, OSError):
        return True
    try:
        types = [s.channel.type for s in log.channels()]
    finally:
        log.close()
    return any(":" not in name for name in types)
