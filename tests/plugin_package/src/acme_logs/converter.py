"""ACME wheel logs: a magic, the joints' names, then rows of a stamp and float32 values.

ACME1\\n wheel_left,wheel_right\\n  <i8 stamp_ns> <f4 value> x joints ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmdata.errors import ConversionError
from mmdata.recording import Batch, Converter, Recording, Summary, Topic
from mmdata.streams import FieldInfo, Kind, StreamInfo

_MAGIC = b"ACME1\n"
_ROWS = 4096


class AcmeConverter(Converter):
    name = "acme"
    summary = "ACME wheel logs"
    reads = "joint positions"
    time = "measured"

    @classmethod
    def sniff(cls, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return file.read(len(_MAGIC)) == _MAGIC
        except OSError:
            return False

    @classmethod
    def open(cls, path: Path, part: str = "") -> Recording:
        if part:
            raise ConversionError(f"{path} has no part {part!r}: it is one recording")
        return AcmeRecording(path)


class AcmeRecording(Recording):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ConversionError(f"{path} does not start with {_MAGIC!r}")
            line = file.readline(4096)
            self._start = file.tell()
        joints = line.decode("utf-8", errors="replace").strip().split(",")
        if not line.endswith(b"\n") or not all(joints):
            raise ConversionError(f"{path}: its line of joint names is cut off")
        self._row = np.dtype([("stamp", "<i8"), ("value", "<f4", (len(joints),))])
        size = path.stat().st_size - self._start
        self._count, rest = divmod(size, self._row.itemsize)
        if rest:
            self.account.problem(f"{rest} bytes at the end are no whole row")
        self._info = StreamInfo(
            "joint_states", Kind.SIGNAL,
            {"position": FieldInfo("<f4", (len(joints),), unit="rad", channels=tuple(joints))},
            source_topic="wheels", stamp_source="header", stamp_meaning="sample",
        )  # fmt: skip

    def inspect(self) -> Summary:
        return Summary("acme", None, None, [Topic("wheels", "acme", Kind.SIGNAL, self._count)])

    def read(self, topics: frozenset[str] | None = None) -> Iterator[Batch]:
        if topics is not None and "wheels" not in topics:
            return
        self.account.messages["wheels"] = 0
        with self._path.open("rb") as file:
            file.seek(self._start)
            for first in range(0, self._count, _ROWS):
                rows = np.fromfile(file, self._row, min(_ROWS, self._count - first))
                self.account.count("wheels", len(rows))
                stamps = np.ascontiguousarray(rows["stamp"])
                yield Batch(self._info, {"position": rows["value"]}, stamps)

    @property
    def files(self) -> Sequence[Path]:
        return [self._path]
