"""The episode file: the only code that uses h5py."""

from __future__ import annotations

from mmdata.store.edit import (
    edit_episode,
    restamp_streams,
    shift_stream,
    write_annotations,
    write_sync,
    write_timeline,
)
from mmdata.store.reader import Summary, open_episode, read_summary
from mmdata.store.replay import recover
from mmdata.store.sources import ByteSource, FileBytes
from mmdata.store.verify import Verification, verify_episode
from mmdata.store.writer import EpisodeWriter

__all__ = [
    "ByteSource",
    "EpisodeWriter",
    "FileBytes",
    "Summary",
    "Verification",
    "edit_episode",
    "open_episode",
    "read_summary",
    "recover",
    "restamp_streams",
    "shift_stream",
    "verify_episode",
    "write_annotations",
    "write_sync",
    "write_timeline",
]
