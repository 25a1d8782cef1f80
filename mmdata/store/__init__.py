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
from mmdata.store.reader import open_episode
from mmdata.store.replay import recover
from mmdata.store.verify import Verification, verify_episode
from mmdata.store.writer import EpisodeWriter

__all__ = [
    "EpisodeWriter",
    "Verification",
    "edit_episode",
    "open_episode",
    "recover",
    "restamp_streams",
    "shift_stream",
    "verify_episode",
    "write_annotations",
    "write_sync",
    "write_timeline",
]
