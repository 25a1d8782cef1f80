"""MCAP files whose messages are protobuf, JSON or ROS 1 (those with CDR are rosbag2's)."""

from __future__ import annotations

from pathlib import Path

from mmdata.recording import Recording
from mmdata_converters._common import DatasetConverter

_MAGIC = b"\x89MCAP0\r\n"


class FoxgloveMcapConverter(DatasetConverter):
    name = "mcap"
    summary = "MCAP with protobuf or JSON (Foxglove schemas) or ROS 1 messages"
    reads = "images, video, points, scans, poses, transforms, GNSS, audio, logs; else the numbers"
    labels = "3D boxes of scene updates"
    calibration = "CameraCalibration; transforms that never change"
    time = "measured: message, log and publish stamps"
    cannot = "flatbuffer and CBOR (kept as opaque bytes); image annotations"

    @classmethod
    def claims(cls, path: Path) -> bool:
        from mmdata_converters.mcap_foxglove.log import encodings_of

        with path.open("rb") as file:
            if file.read(8) != _MAGIC:
                return False
        encodings = encodings_of(path)
        return bool(encodings) and "cdr" not in encodings

    @classmethod
    def recording(cls, path: Path, part: str) -> Recording:
        from mmdata_converters.mcap_foxglove.recording import McapRecording

        return McapRecording(path)
