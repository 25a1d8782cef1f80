"""Video that is kept as it came, cut into clips: each clip has to start with a keyframe."""

from __future__ import annotations

import numpy as np

from mmdata import media
from mmdata.recording import Batch
from mmdata.streams import VIDEO_ENCODINGS, Kind, Ragged

#: A stream with more than this between two keyframes is not held back for its next clip.
_LIMIT_BYTES = 64 << 20


class LeadIn:
    """Remembers, per video stream, the packets since its last keyframe.

    A clip that is cut within a group of pictures gets the group's beginning too, with its own,
    earlier stamps: without it, its first frames could not be decoded.
    """

    def __init__(self) -> None:
        self._since: dict[str, list[Batch]] = {}
        self._bytes: dict[str, int] = {}

    def before(self, batch: Batch) -> list[Batch]:
        """What a clip needs before this batch, its first of the stream."""
        if not _is_video(batch) or _keyframes(batch)[0]:
            return []
        return self._since.get(batch.info.name, [])

    def remember(self, batch: Batch) -> None:
        """Take note of a batch that was written."""
        if not _is_video(batch):
            return
        name = batch.info.name
        keys = np.flatnonzero(_keyframes(batch))
        if len(keys):
            batch = batch.select(np.arange(len(batch)) >= keys[-1])
            self._since[name], self._bytes[name] = [], 0
        data = batch.samples["data"]
        assert isinstance(data, Ragged)
        self._bytes[name] = self._bytes.get(name, 0) + data.data.nbytes
        if name in self._since:
            self._since[name].append(batch)
            if self._bytes[name] > _LIMIT_BYTES:
                del self._since[name]


def _is_video(batch: Batch) -> bool:
    return batch.info.kind is Kind.IMAGE and batch.info.encoding in VIDEO_ENCODINGS


def _keyframes(batch: Batch) -> list[bool]:
    data, encoding = batch.samples["data"], batch.info.encoding or ""
    assert isinstance(data, Ragged)
    return [media.is_keyframe(data[i].tobytes(), encoding) for i in range(len(data))]
