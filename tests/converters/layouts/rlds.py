"""An RLDS dataset as TFDS writes it: TFRecord of tf.train.Example, built byte by byte."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np

from .media import jpeg, picture, png, png_rgba


def crc32c(data: bytes) -> int:
    """Bit by bit, to be independent of the reader's."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def feature(values: object) -> bytes:
    if isinstance(values, list):
        return field(1, b"".join(field(1, v) for v in values))
    flat = np.asarray(values).reshape(-1)
    if flat.dtype.kind == "f":
        return field(2, field(1, flat.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(v)) for v in flat)))


def example(features: dict[str, object]) -> bytes:
    entries = (field(1, k.encode()) + field(2, feature(v)) for k, v in features.items())
    return field(1, b"".join(field(1, e) for e in entries))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def _tensor(dtype: str, *shape: int) -> dict:
    return {"tensor": {"shape": {"dimensions": [str(d) for d in shape]}, "dtype": dtype,
                       "encoding": "none"}}  # fmt: skip


def _image(dtype: str = "uint8", channels: int = 3) -> dict:
    sizes = {"dimensions": ["48", "64", str(channels)]}
    return {"image": {"shape": sizes, "dtype": dtype, "encodingFormat": "jpeg"}}


def _dict(**features: dict) -> dict:
    return {"featuresDict": {"features": features}}


FEATURES = _dict(
    steps={"sequence": {"feature": _dict(
        action=_tensor("float32", 7), reward=_tensor("float32"), is_first=_tensor("bool"),
        is_last=_tensor("bool"), language_instruction={"text": {}},
        observation=_dict(image_0=_image(), depth=_image("uint16", 1),
                          state=_tensor("float64", 2), counts=_tensor("int32", 2)),
    ), "length": "-1"}},
    episode_metadata=_dict(file_path={"text": {}}, has_image_0=_tensor("bool")),
)  # fmt: skip


def episode(n: int, texts: list[bytes] | None = None) -> dict[str, object]:
    return {
        "steps/action": np.arange(n * 7, dtype=np.float32),
        "steps/reward": np.zeros(n, np.float32),
        "steps/is_first": (np.arange(n) == 0).astype(int),
        "steps/is_last": (np.arange(n) == n - 1).astype(int),
        "steps/language_instruction": texts or [b"put the cup away"] * n,
        "steps/observation/image_0": [jpeg(picture(i)) for i in range(n)],
        "steps/observation/depth": [png(np.full((48, 64), 700 + i, np.uint16)) for i in range(n)],
        "steps/observation/state": np.arange(n * 2, dtype=np.float64),
        "steps/observation/counts": np.arange(n * 2) - 300,
        "episode_metadata/file_path": [b"/data/run.npy"],
        "episode_metadata/has_image_0": np.array([0]),
    }


def write_rlds(root: Path, lengths: tuple[int, ...] = (6, 4)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "features.json").write_text(json.dumps(FEATURES))
    (root / "dataset_info.json").write_text(json.dumps({
        "name": "toy", "version": "1.0.0",
        "splits": [{"name": "train", "shardLengths": [str(len(lengths))]},
                   {"name": "val", "shardLengths": ["3"]}],
    }))  # fmt: skip
    shard = root / "toy-train.tfrecord-00000-of-00001"
    shard.write_bytes(b"".join(record(example(episode(n))) for n in lengths))
    return root


def write_variants(root: Path, n: int = 5) -> Path:
    """What other RLDS datasets do: strings as tensors, words as numbers, depth as floats in PNG,
    compressed tensors, ragged ones, no is_last."""
    root.mkdir(parents=True)
    compressed = _tensor("float32", 3)
    compressed["tensor"]["encoding"] = "zlib"
    steps = _dict(
        is_first=_tensor("bool"), is_last=_tensor("bool"), packed=compressed,
        observation=_dict(
            natural_language_instruction=_tensor("string"), instruction=_tensor("int32", 16),
            depth_image={"image": {"shape": {"dimensions": ["4", "5", "1"]}, "dtype": "float32"}},
            words={"sequence": {"feature": _tensor("int32"), "length": "-1"}},
        ),
    )  # fmt: skip
    features = _dict(steps={"sequence": {"feature": steps}})
    (root / "features.json").write_text(json.dumps(features))
    depth = np.linspace(0.5, 2.0, 20, dtype=np.float32).reshape(4, 5)
    said = np.frombuffer(b"push it".ljust(16, b"\0"), np.uint8)
    values = {
        "steps/is_first": (np.arange(n) == 0).astype(int), "steps/is_last": np.zeros(n, int),
        "steps/packed": [zlib.compress(np.full(3, i, np.float32).tobytes()) for i in range(n)],
        "steps/observation/natural_language_instruction": [b"pick the can"] * n,
        "steps/observation/instruction": np.tile(said, n).astype(int),
        "steps/observation/depth_image": [png_rgba((depth + i).view(np.uint8).reshape(4, 5, 4))
                                          for i in range(n)],
        "steps/observation/words/ragged_flat_values": np.arange(9),
        "steps/observation/words/ragged_row_lengths_0": np.array([1, 2, 1, 3, 2]),
    }  # fmt: skip
    (root / "toy-train.tfrecord-00000-of-00001").write_bytes(record(example(values)))
    return root
