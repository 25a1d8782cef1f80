"""A rosbag2 as it lies on disk: a folder with metadata.yaml, a folder without, or a bare file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
import zstandard

from mmdata.digest import FileHash
from mmdata.errors import ConversionError
from mmdata_converters._ros.channels import (
    Block,
    Channel,
    ChannelSummary,
    ChannelTable,
    RawLog,
    Stamps,
    Tally,
)
from mmdata_converters.rosbag2.mcap import McapLog
from mmdata_converters.rosbag2.sqlite import SqliteLog

SUFFIXES = (".mcap", ".db3")
_COMPRESSED = tuple(f"{s}.zstd" for s in SUFFIXES)


class BagLog:
    """The storage files of one rosbag2, in order. Compressed files go to a temporary folder."""

    format = "rosbag2"

    def __init__(self, path: Path) -> None:
        self._metadata = read_metadata(path) if path.is_dir() else {}
        self.problems: list[str] = []
        self.paths, missing = storage_files(path, self._metadata)
        self.problems += missing
        if not self.paths:
            raise ConversionError(f"{path}: no .mcap or .db3 file in it" + "".join(missing))
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._logs: list[RawLog] = []
        self._table = ChannelTable()
        try:
            for file in self.paths:
                self._open(file)
        except BaseException:
            self.close()
            raise
        if not self._logs:
            raise ConversionError("; ".join(self.problems))
        self._logs.sort(key=_start)

    @property
    def lost(self) -> list[tuple[str, int, str]]:
        """Messages that could not be had, over all files."""
        return [entry for log in self._logs for entry in log.lost]

    def channels(self) -> Sequence[ChannelSummary]:
        tally, channels = Tally.empty(), dict[int, Channel]()
        for log in self._logs:
            for s in log.channels():
                channels[s.channel.number] = s.channel
                if s.count and s.first_ns is not None and s.last_ns is not None:
                    tally.add(s.channel.number, s.count, s.first_ns, s.last_ns)
        return tally.summaries(channels.values())

    def blocks(self, topics: frozenset[str] | None) -> Iterator[Block]:
        for log in self._logs:
            before = len(log.problems)
            yield from log.blocks(topics)
            self.problems += log.problems[before:]

    def receive_stamps(self, topic: str | None) -> Iterator[Stamps]:
        for log in self._logs:
            yield from log.receive_stamps(topic)

    def hash_while_reading(self) -> Mapping[Path, FileHash]:
        found = {p: h for log in self._logs for p, h in log.hash_while_reading().items()}
        return {path: found[path] for path in self.paths if path in found}  # not what was unpacked

    def close(self) -> None:
        for log in self._logs:
            log.close()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _open(self, file: Path) -> None:
        per_message = str(self._metadata.get("compression_mode", "")).lower() == "message"
        decompress: Callable[[bytes], bytes] | None = None
        if per_message:
            codec = self._metadata.get("compression_format")
            if codec != "zstd":
                raise ConversionError(f"{file}: message compression {codec!r} is not supported")
            decompress = zstandard.ZstdDecompressor().decompress
        distribution = self._metadata.get("ros_distro")
        try:
            if file.suffix == ".zstd":
                file = self._unpack(file)
            log: RawLog
            if file.suffix == ".mcap":
                log = McapLog(file, self._table, distribution)
            else:
                log = SqliteLog(file, self._table, distribution, decompress)
        except (ConversionError, zstandard.ZstdError) as error:
            if len(self.paths) == 1:
                raise ConversionError(str(error)) from error
            self.problems.append(str(error))
            return
        self._logs.append(log)
        self.problems += log.problems

    def _unpack(self, file: Path) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="mmdata-")
        target = Path(self._temporary.name) / file.stem
        with (
            file.open("rb") as source,
            target.open("wb") as out,
            zstandard.ZstdDecompressor().stream_reader(source) as stream,
        ):
            shutil.copyfileobj(stream, out, 1 << 20)
        return target


def _start(log: RawLog) -> int:
    return min((s.first_ns for s in log.channels() if s.first_ns is not None), default=0)


def read_metadata(folder: Path) -> dict[str, Any]:
    """`rosbag2_bagfile_information` of metadata.yaml; {} without one or when it is unreadable."""
    try:
        document = yaml.load((folder / "metadata.yaml").read_text(), Loader=yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    found = document.get("rosbag2_bagfile_information") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def storage_files(path: Path, metadata: dict[str, Any]) -> tuple[list[Path], list[str]]:
    """Storage files in recorded order, and a line for each that metadata names but is not there."""
    if path.is_file():
        return [path], []
    named = [path / PurePath(str(name)).name for name in metadata.get("relative_file_paths") or ()]
    there = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES + _COMPRESSED))
    if not named:
        return there, ([] if metadata else ["metadata.yaml is missing or unreadable, not needed"])
    missing = [f"{p.name} is named in metadata.yaml but missing" for p in named if not p.exists()]
    return [p for p in named if p.exists()] or there, missing
