"""A plain folder with its description."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from .media import jpeg, picture, png, write_video

DESCRIPTION = """\
mmdata_recording: 1
metadata: {task: push the button, robot: homemade}
rig:
  camera_front: {frame_id: front, model: pinhole, width: 64, height: 48,
                 K: [[50, 0, 32], [0, 50, 24], [0, 0, 1]], distortion: []}
streams:
  camera_front:
    images: front/*.jpg
    time: {file: front/timestamps.csv, column: stamp_ns, name: file, meaning: exposure_mid}
  camera_depth:
    depth: depth/*.png
    time: {from_name: true, unit: us}
  camera_top:
    video: top.mp4
    time: {file: top.csv, column: t, unit: s}
  joint_states:
    table: joints.csv
    time: {column: t, unit: s}
    fields: {position: [j1, j2], velocity: [v1, v2]}
    units: {position: rad, velocity: rad/s}
  force:
    table: force.npy
    time: {file: force_t.npy, unit: ms}
  temperature:
    table: temperature.csv
    time: {rate_hz: 4}
  mic:
    audio: mic.wav
    time: {start: "1700000000.25", unit: s}
  notes:
    text: notes.csv
    time: {column: t, unit: s}
"""
START_NS = 1_700_000_000_000_000_000


def write_plain(root: Path, description: str = DESCRIPTION) -> Path:
    for folder in ("front", "depth"):
        (root / folder).mkdir(parents=True)
    (root / "recording.yaml").write_text(description)
    lines = ["file,stamp_ns"]
    for i in range(8):
        lines.append(f"img_{i}.jpg,{START_NS + i * 100_000_007}")
        (root / f"front/img_{i}.jpg").write_bytes(jpeg(picture(i)))
    (root / "front/timestamps.csv").write_text("\n".join(lines))
    for i in range(3):
        depth = png(np.full((6, 8), 40 + i, np.uint16))
        (root / f"depth/{START_NS // 1000 + i * 50_000}.png").write_bytes(depth)
    write_video(root / "top.mp4", [picture(i) for i in range(10)], 10)
    stamps = [f"1700000000.{i}00000001" for i in range(10)]
    (root / "top.csv").write_text("t\n" + "\n".join(stamps))
    rows = [f"1700000000.{i:02d}0000009,{i},{-i},0.5,{i * 0.1}" for i in range(20)]
    (root / "joints.csv").write_text("t,j1,j2,v1,v2\n" + "\n".join(rows))
    np.save(root / "force.npy", np.arange(15.0).reshape(5, 3))
    np.save(root / "force_t.npy", np.array([0.0, 0.5, 1.0, 1.5, 2.0]) + 1.7e12)
    (root / "temperature.csv").write_text("celsius\n20\n\n21.5\n22\n".replace("\n\n", "\n20.5\n"))
    with wave.open(str(root / "mic.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((np.arange(4000) % 100).astype("<i2").tobytes())
    (root / "notes.csv").write_text('t,text\n1700000000.5,"start, slowly"\n1700000001.5,done\n')
    return root
