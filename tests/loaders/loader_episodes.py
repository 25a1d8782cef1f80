"""Small episodes with everything loaders read: several rates, jitter, drops, late messages."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mmdata import EpisodeWriter, Kind, Ragged, StreamInfo
from mmdata.media import encode_jpeg
from mmdata.streams import FieldInfo
from mmdata_schema import Caption, Layer, Phase, Provenance, Tag, write_layer

T0 = 1_760_000_000_000_000_000
MS = 1_000_000
GOP = 15


def stamps(
    rng: np.random.Generator,
    rate_hz: float,
    seconds: float,
    jitter_ms: float = 0.0,
    drop: float = 0.0,
) -> np.ndarray:
    """Ascending stamps of a sensor with jitter and dropped samples."""
    n = int(seconds * rate_hz)
    ideal = T0 + np.round(np.arange(n) * 1e9 / rate_hz).astype(np.int64)
    noisy = ideal + np.round(rng.uniform(-jitter_ms, jitter_ms, n) * MS).astype(np.int64)
    keep = rng.random(n) >= drop
    keep[:1] = True
    return np.sort(noisy[keep])


def picture(k: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame that tells its number: a moving ramp, and the number in its corner blocks."""
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([(x * 3 + k * 5) % 256, (y * 4 + k) % 256, (x + y + 2 * k) % 256], -1)
    frame = frame.astype(np.uint8)
    for bit in range(8):
        frame[:8, bit * 8 : bit * 8 + 8] = 255 if k >> bit & 1 else 0
    return frame


def video_packets(frames: list[np.ndarray], gop: int = GOP, codec: str = "libx264") -> list[bytes]:
    """One packet per frame, no B-frames."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, 30)
    context.gop_size = gop
    context.max_b_frames = 0
    context.thread_count = 1
    context.options = {
        "preset": "veryfast",
        "crf": "20",
        "tune": "zerolatency",
        "sc_threshold": "0",
    }
    packets = []
    for k, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = k
        packets += [bytes(p) for p in context.encode(picture)]
    return packets + [bytes(p) for p in context.encode(None)]


def write_demo(
    path: Path,
    seed: int = 0,
    seconds: float = 3.0,
    *,
    latency_ms: tuple[float, float] = (1.0, 15.0),
    metadata: dict[str, Any] | None = None,
    only: tuple[str, ...] | None = None,
    late: float = 0.02,
) -> Path:
    """Write one episode. late: share of messages that arrive 120 ms after their stamp."""
    rng = np.random.default_rng(seed)

    def arrivals(stamp: np.ndarray) -> np.ndarray:
        delay = rng.uniform(*latency_ms, len(stamp))
        delay[rng.random(len(stamp)) < late] = 120.0
        return stamp + np.round(delay * MS).astype(np.int64)

    with EpisodeWriter(path) as writer:

        def add(info: StreamInfo, stamp: np.ndarray, samples: Any) -> None:
            if only is not None and info.name not in only:
                return
            writer.add_stream(info)
            arrival = arrivals(stamp)
            if info.encoding == "h264":  # packets of a video come in order, or nobody can decode
                arrival = np.maximum.accumulate(arrival)
            writer.append(info.name, stamp, samples, receive_ns=arrival)

        t = stamps(rng, 33.0, seconds, 3.0, 0.05)
        jpegs = [encode_jpeg(picture(k + seed), 90) for k in range(len(t))]
        add(StreamInfo("camera_front", Kind.IMAGE, {}), t, jpegs)
        t = stamps(rng, 30.0, seconds, 1.0)
        packets = video_packets([picture(k + seed) for k in range(len(t))])
        assert len(packets) == len(t)
        add(StreamInfo("camera_wrist", Kind.IMAGE, {}, encoding="h264"), t, packets)
        t = stamps(rng, 100.0, seconds, 2.0, 0.02)
        names = tuple(f"j{k}" for k in range(7))
        phase = (t - T0)[:, None] / 1e9 * (1 + np.arange(7))
        add(
            StreamInfo(
                "joint_states", Kind.SIGNAL,
                {"position": FieldInfo("<f8", (7,), channels=names),
                 "velocity": FieldInfo("<f4", (7,), channels=names)},
            ),
            t,
            {"position": np.sin(phase) + 0.1 * rng.standard_normal((len(t), 7)),
             "velocity": np.cos(phase).astype(np.float32)},
        )  # fmt: skip
        t = stamps(rng, 50.0, seconds, 1.0)
        add(
            StreamInfo("command", Kind.SIGNAL, {"data": FieldInfo("<f8", (2,))}), t,
            {"data": np.stack([np.arange(len(t)), -np.arange(len(t))], 1).astype(np.float64)},
        )  # fmt: skip
        t = stamps(rng, 60.0, seconds, 1.0)
        angle = (t - T0) / 1e9 / 2
        zero = np.zeros(len(t))
        add(
            StreamInfo(
                "eef_pose", Kind.SIGNAL,
                {"position": FieldInfo("<f8", (3,)), "orientation": FieldInfo("<f8", (4,))},
            ),
            t,
            {"position": np.stack([angle, -angle, angle**2], 1),
             "orientation": np.stack([np.cos(angle / 2), zero, zero, np.sin(angle / 2)], 1)},
        )  # fmt: skip
        t = T0 + np.array([0.1, seconds / 2], np.float64).__mul__(1e9).astype(np.int64)
        add(StreamInfo("gripper", Kind.SIGNAL, {"data": FieldInfo("<f4", ())}), t,
            {"data": np.array([0.0, 1.0], np.float32)})  # fmt: skip
        t = stamps(rng, 10.0, seconds, 2.0)
        depth = (1000 + rng.integers(0, 100, (len(t), 24, 32))).astype(np.uint16)
        add(StreamInfo("depth", Kind.DEPTH, {}), t, depth)
        t = stamps(rng, 10.0, seconds, 2.0)
        sizes = rng.integers(50, 400, len(t))
        add(
            StreamInfo(
                "lidar", Kind.SWEEP,
                {n: FieldInfo("<f4", (), True) for n in ("x", "y", "z", "intensity")},
            ),
            t,
            {
                n: Ragged.from_rows(
                    [rng.uniform(-5, 5, k).astype(np.float32) for k in sizes]
                )
                for n in ("x", "y", "z", "intensity")
            },
        )  # fmt: skip
        t = T0 + np.arange(int(seconds * 50), dtype=np.int64) * 20 * MS
        ramp = np.arange(len(t) * 160, dtype=np.int16)[:, None]
        add(
            StreamInfo("audio", Kind.AUDIO, {}, attrs={"sample_rate_hz": 8000}), t,
            [ramp[k * 160 : (k + 1) * 160] for k in range(len(t))],
        )  # fmt: skip
        t = stamps(rng, 40.0, seconds, 1.0)
        add(StreamInfo("tactile", Kind.TACTILE, {"data": FieldInfo("<f4", (2, 4, 4))}), t,
            {"data": rng.random((len(t), 2, 4, 4), np.float32)})  # fmt: skip
        add(StreamInfo("speech", Kind.TEXT, {}), np.array([T0 + 5 * MS, T0 + 900 * MS]),
            ["go", "stop"])  # fmt: skip
        writer.set_metadata(**(metadata or {"task": "pick", "outcome": "success"}))
    return path


def write_phases(path: Path, episode_id: str, edges_ms: list[int], labels: list[str],
                 grade: str | None = None) -> None:  # fmt: skip
    """An annotation layer beside an episode: phases, an instruction from 1 s on, a grade."""
    layer = Layer(
        episode_id=episode_id, name="anna",
        provenance=Provenance(author="anna", created_unix_ns=T0),
        phases=[
            Phase(id=f"p{k}", tier="motion", label=label, start_ns=T0 + a * MS, end_ns=T0 + b * MS)
            for k, (label, a, b) in enumerate(zip(labels, edges_ms, edges_ms[1:], strict=False))
        ],
        captions=[Caption(id="c1", text="pick it up", style="instruction",
                          start_ns=T0 + 1000 * MS, end_ns=T0 + 2000 * MS)],
        tags=[] if grade is None else [Tag(id="t1", label="quality_grade", value=grade)],
    )  # fmt: skip
    path.write_text(write_layer(layer))
    assert json.loads(path.read_text())
    assert cv2.__version__
