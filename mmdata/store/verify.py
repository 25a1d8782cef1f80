"""Checking an episode file: structure, counts, order, checksums, content hashes, frames."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmdata.digest import ALGORITHM, bytes_of, find_hash, hash_text, new_hasher
from mmdata.errors import FormatError
from mmdata.store import layout
from mmdata.store.finalize import stream_hash
from mmdata.store.handle import FileHandle
from mmdata.store.reader import check_format, open_stream, read_timeline
from mmdata.streams import Kind, Stream, offsets_name

_BLOCK_BYTES = 16 << 20


@dataclass
class Verification:
    """What `verify_episode` found; `problems` is empty for a sound file."""

    path: Path
    problems: list[str] = field(default_factory=list)
    streams: int = 0
    samples: int = 0
    bytes_read: int = 0
    content_hash: str | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_episode(path: str | os.PathLike[str], decode: bool = True) -> Verification:
    """Read every byte of an episode and compare it with what the file says of itself.

    Counts (stamps == samples == offsets - 1), ascending stamps and offsets, chunk checksums,
    content hashes, timelines that point at existing samples, and (decode) that every frame
    decodes. Damage is reported, not raised; only a missing file raises FileNotFoundError.
    """
    result = Verification(Path(path))
    handle = FileHandle(Path(path))
    try:
        file = handle.file()
        check_format(file, handle.path)
        hashes = json.loads(_text(file, layout.PROVENANCE) or "{}").get("streams", {})
        for name in file.get(layout.STREAMS, ()):
            _verify_stream(handle, name, hashes.get(name), decode, result)
        for name in file.get(layout.ALIGNED, ()):
            result.problems += [f"timeline {name}: {p}" for p in _timeline_problems(file, name)]
        result.content_hash = _content_hash(hashes)
    except (FormatError, OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        # A damaged file can fail anywhere inside HDF5; whatever it was, it is the finding.
        result.problems.append(str(error))
    finally:
        handle.close()
    return result


def _content_hash(streams: Mapping[str, Any]) -> str:
    """`<algorithm>:<hash>` over the names and hashes of all streams."""
    found = {name: find_hash(entry) for name, entry in sorted(streams.items())}
    algorithm = next((f[0] for f in found.values() if f is not None), ALGORITHM)
    whole = "".join(f"{name}:{f[1] if f is not None else None}\n" for name, f in found.items())
    return f"{algorithm}:{hash_text(whole, algorithm)}"


def _text(file: h5py.File, path: str) -> str | None:
    return file[path][()].tobytes().decode() if path in file else None


def _verify_stream(
    handle: FileHandle, name: str, declared: Any, decode: bool, result: Verification
) -> None:
    group = handle.file()[f"{layout.STREAMS}/{name}"]
    known = find_hash(declared or {})
    algorithm = known[0] if known else ALGORITHM
    found: dict[str, str] = {}
    damaged = False
    for dataset in group:
        try:
            found[dataset] = _hash(group[dataset], algorithm, result)
        except (OSError, RuntimeError) as error:
            damaged = True
            result.problems.append(f"stream {name}: {dataset} is damaged ({error})")
    result.streams += 1
    if damaged:
        return
    if known is None:
        result.problems.append(f"stream {name}: no content hash in the provenance")
    elif declared["columns"] and stream_hash(found, algorithm) != known[1]:
        names = sorted(set(found) | set(declared["columns"]))
        wrong = [n for n in names if found.get(n) != declared["columns"].get(n)]
        result.problems.append(
            f"stream {name}: content differs from its hash in {', '.join(wrong)}"
        )
    stream = open_stream(handle, name)
    result.samples += len(stream)
    problems = list(_count_problems(group, stream))
    if not problems and decode and stream.kind is Kind.IMAGE:
        problems = list(_frame_problems(stream))
    result.problems += [f"stream {name}: {p}" for p in problems]


def _hash(dataset: h5py.Dataset, algorithm: str, result: Verification) -> str:
    digest = new_hasher(algorithm)
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
    step = max(1, _BLOCK_BYTES // row_bytes)
    if dataset.chunks:
        step = max(dataset.chunks[0], step // dataset.chunks[0] * dataset.chunks[0])
    for start in range(0, dataset.shape[0] if dataset.shape else 0, step):
        block = dataset[start : start + step]
        result.bytes_read += block.nbytes
        digest.update(bytes_of(block))
    return digest.hexdigest()


def _count_problems(group: h5py.Group, stream: Stream) -> Iterator[str]:
    n = len(stream)
    stamps = stream.stamp_ns
    if (np.diff(stamps) < 0).any():
        yield "stamp_ns is not ascending"
    for name in ("source_ns", "receive_ns", "publish_ns", "recorded", "keyframe"):
        if name in group and group[name].shape[0] != n:
            yield f"{n} stamps but {group[name].shape[0]} values of {name}"
    recorded = stream.recorded
    if recorded is not None and not np.array_equal(np.sort(recorded), np.arange(len(recorded))):
        yield "recorded is no permutation"
    for name, info in stream.info.fields.items():
        rows = group[name].shape[0]
        if not info.ragged:
            if rows != n:
                yield f"{n} stamps but {rows} rows of {name}"
            continue
        offsets = group[offsets_name(stream.kind, name)][:]
        if len(offsets) != n + 1:
            yield f"{n} stamps but {len(offsets)} offsets of {name}"
        elif offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
            yield f"offsets of {name} do not ascend from 0 to its {rows} rows"


def _frame_problems(stream: Stream) -> Iterator[str]:
    bad: list[int] = []
    for i in range(len(stream)):
        try:
            stream[i]
        except FormatError:
            bad.append(i)
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        yield f"{len(bad)} of {len(stream)} frames do not decode (samples {shown})"


def _timeline_problems(file: h5py.File, name: str) -> Iterator[str]:
    timeline = read_timeline(file, name)
    if (np.diff(timeline.tick_ns) <= 0).any():
        yield "ticks are not ascending"
    for stream, aligned in timeline.streams.items():
        if f"{layout.STREAMS}/{stream}" not in file:
            yield f"stream {stream} does not exist"
            continue
        stamps = file[f"{layout.STREAMS}/{stream}/stamp_ns"][:]
        if len(aligned.index) != len(timeline) or len(aligned.residual_ns) != len(timeline):
            yield f"{stream}: {len(timeline)} ticks but {len(aligned.index)} indices"
            continue
        there = aligned.index >= 0
        if (aligned.index >= len(stamps)).any():
            yield f"{stream}: an index beyond its {len(stamps)} samples"
        elif not np.array_equal(
            stamps[aligned.index[there]] - timeline.tick_ns[there], aligned.residual_ns[there]
        ):
            yield f"{stream}: residuals do not match its stamps"
