"""What `loader.py` reads: one scene, written in every format."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import h5py
import numpy as np

from mmdata import EpisodeWriter, Kind, StreamInfo
from mmdata.media import encode_jpeg

HEIGHT, WIDTH, RATE_HZ, STEPS, DIM = 480, 640, 30, 16, 14
GOPS = {"h264": 15, "h264-gop2": 2}
CAMERAS = ("cam0", "cam1")


def scene(episode: int, frames: int) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """Per tick: two frames of a camera panning over a textured plane, with sensor noise."""
    rng = np.random.default_rng(episode)
    plane = cv2.GaussianBlur(rng.integers(0, 255, (1000, 1700, 3), np.uint8), (0, 0), 4)
    plane = cv2.normalize(plane, None, 0, 255, cv2.NORM_MINMAX)
    noise = rng.integers(-4, 5, (8, HEIGHT, WIDTH, 3)).astype(np.int16)
    states = rng.standard_normal((frames + STEPS, DIM)).astype(np.float32)
    for k in range(frames):
        views = []
        for c in range(len(CAMERAS)):
            top, left = (k + 60 * c) % 500, (2 * k + 30 * c) % 1000
            view = plane[top : top + HEIGHT, left : left + WIDTH].astype(np.int16)
            views.append(np.clip(view + noise[(k + c) % 8], 0, 255).astype(np.uint8))
        yield views, states[k], states[k + 1]


def h264_packets(frames: list[np.ndarray], gop: int) -> list[bytes]:
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base = Fraction(1, RATE_HZ)
    context.gop_size, context.max_b_frames = gop, 0
    context.options = {"preset": "veryfast", "crf": "23", "sc_threshold": "0"}
    packets: list[bytes] = []
    for k, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = k
        packets += [bytes(p) for p in context.encode(picture)]
    return packets + [bytes(p) for p in context.encode(None)]


def write_all(folder: Path, episodes: int, frames: int) -> None:
    """Every local format, from one rendering of the scene."""
    for name in ("jpeg", *GOPS, "robomimic", "isaac", "tar", "raw"):
        (folder / name).mkdir(parents=True)
    stamps = 10**18 + np.round(np.arange(frames) * 1e9 / RATE_HZ).astype(np.int64)
    robomimic = h5py.File(folder / "robomimic" / "demos.h5", "w")
    isaac = h5py.File(folder / "isaac" / "demos.h5", "w")
    for e in range(episodes):
        ticks = list(scene(e, frames))
        views = [[t[0][c] for t in ticks] for c in range(len(CAMERAS))]
        state, action = (np.stack([t[k] for t in ticks]) for k in (1, 2))
        jpegs = [[encode_jpeg(f, 95) for f in v] for v in views]
        payload = {"jpeg": jpegs} | {
            n: [h264_packets(v, g) for v in views] for n, g in GOPS.items()
        }
        for name, encoded in payload.items():
            encoding = name.split("-")[0]
            with EpisodeWriter(folder / name / f"e_{e:03d}.h5") as writer:
                for camera, samples in zip(CAMERAS, encoded, strict=True):
                    writer.add_stream(StreamInfo(camera, Kind.IMAGE, {}, encoding=encoding))
                    writer.append(camera, stamps, samples)
                writer.append("state", stamps, {"data": state})
                writer.append("action", stamps, {"data": action})
        for file, options in (
            (robomimic, {"chunks": (1, HEIGHT, WIDTH, 3)}),
            (isaac, {"compression": "gzip", "chunks": True}),
        ):
            demo = file.create_group(f"data/demo_{e}")
            demo["actions"], demo["obs/state"] = action, state
            for camera, view in zip(CAMERAS, views, strict=True):
                demo.create_dataset(f"obs/{camera}", data=np.stack(view), **options)
        with tarfile.open(folder / "tar" / f"shard_{e:03d}.tar", "w") as shard:
            for k in range(frames):
                window = action[np.minimum(np.arange(k, k + STEPS), frames - 1)]
                parts = {f"{c}.jpg": jpegs[n][k] for n, c in enumerate(CAMERAS)}
                parts |= {"state.npy": _npy(state[k]), "action.npy": _npy(window)}
                for suffix, data in parts.items():
                    entry = tarfile.TarInfo(f"{e:03d}_{k:06d}.{suffix}")
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
        np.savez(
            folder / "raw" / f"e_{e:03d}.npz", state=state, action=action,
            **{c: np.stack(v) for c, v in zip(CAMERAS, views, strict=True)},
        )  # fmt: skip
    robomimic.close()
    isaac.close()


def _npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()
