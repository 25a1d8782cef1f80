"""Other readers of the data of `loader_data.py`, and how a reader's speed is taken."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import hdf5plugin  # noqa: F401  (plain h5py needs it for our files)
import numpy as np
from loader_data import CAMERAS, HEIGHT, RATE_HZ, STEPS, WIDTH

BATCH = 16
Measured = dict[str, Any]


def rate(batches: Iterator[int], seconds: float) -> Measured:
    """Of an iterator of batch sizes: samples/s after the first batch, the same per second of CPU
    time of this process and its workers (which other people's load hardly changes), and seconds to
    the first batch.
    """
    begin = time.perf_counter()
    next(batches)
    first = time.perf_counter() - begin
    start, used, count = time.perf_counter(), cpu_s(), 0
    for size in batches:
        count += size
        if time.perf_counter() - start > seconds:
            break
    passed, used = time.perf_counter() - start, cpu_s() - used
    return {"samples_s": count / passed, "samples_cpu_s": count / used, "first_s": first}


def cpu_s() -> float:
    """CPU seconds of this process and its children, running or ended.

    Its source goes to the peer's environment, too.
    """
    import os
    import resource
    import time
    from pathlib import Path

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        try:
            stat = Path(f"/proc/{child}/stat").read_text()
        except OSError:
            continue  # it has just ended
        ticks = stat.rpartition(")")[2].split()[11:13]
        total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total


def hdf5_reader(path: Path, seconds: float) -> Measured:
    """robomimic and Isaac Lab: one file, frames as arrays, a random index per sample."""
    begin = time.perf_counter()
    file = h5py.File(path, "r")
    demos = [file["data"][name] for name in file["data"]]
    place = [(d, k) for d in demos for k in range(len(d["actions"]))]
    order = np.random.default_rng(0).permutation(len(place))

    def batches() -> Iterator[int]:
        while True:
            for at in range(0, len(order) - BATCH, BATCH):
                samples = []
                for n in order[at : at + BATCH]:
                    demo, k = place[n]
                    sample = [demo["obs"][c][k].transpose(2, 0, 1) for c in CAMERAS]
                    samples.append((*sample, demo["obs/state"][k], demo["actions"][k : k + STEPS]))
                for c in range(2):
                    np.stack([s[c] for s in samples])
                yield len(samples)

    opened = time.perf_counter() - begin
    result = rate(batches(), seconds)
    result["first_s"] += opened
    return result


def raw_h5py_reader(folder: Path, seconds: float) -> Measured:
    """Our JPEG files through plain h5py: what the loader adds to that."""
    begin = time.perf_counter()
    files = [h5py.File(p, "r") for p in sorted(folder.glob("*.h5"))]
    place = [(f["streams"], k) for f in files for k in range(len(f["streams/state/stamp_ns"]))]
    order = np.random.default_rng(0).permutation(len(place))

    def batches() -> Iterator[int]:
        while True:
            for at in range(0, len(order) - BATCH, BATCH):
                out = np.empty((2, BATCH, 3, HEIGHT, WIDTH), np.uint8)
                for b, n in enumerate(order[at : at + BATCH]):
                    streams, k = place[n]
                    for c, camera in enumerate(CAMERAS):
                        group = streams[camera]
                        start, stop = group["offsets"][k : k + 2]
                        image = cv2.imdecode(group["data"][start:stop], cv2.IMREAD_COLOR)
                        out[c, b] = image[..., ::-1].transpose(2, 0, 1)
                    streams["state/data"][k]
                    streams["action/data"][k : k + STEPS]
                yield BATCH

    opened = time.perf_counter() - begin
    result = rate(batches(), seconds)
    result["first_s"] += opened
    return result


def tar_reader(folder: Path, seconds: float) -> Measured:
    """WebDataset's way: shards in random order, samples in sequence, a shuffle buffer."""
    rng = np.random.default_rng(0)

    def samples() -> Iterator[tuple[np.ndarray, ...]]:
        while True:
            for path in rng.permutation(sorted(folder.glob("*.tar"))):
                with tarfile.open(path) as shard:
                    parts: dict[str, bytes] = {}
                    name = ""
                    for entry in shard:
                        key, suffix = entry.name.split(".", 1)
                        if key != name and parts:
                            yield _decode(parts)
                            parts = {}
                        name = key
                        data = shard.extractfile(entry)
                        parts[suffix] = data.read() if data else b""
                    yield _decode(parts)

    def batches() -> Iterator[int]:
        buffer: list[Any] = []
        for sample in samples():
            buffer.append(sample)
            if len(buffer) < 64 + BATCH:
                continue
            chosen = [buffer.pop(int(rng.integers(len(buffer)))) for _ in range(BATCH)]
            for c in range(2):
                np.stack([s[c] for s in chosen])
            yield BATCH

    return rate(batches(), seconds)


def _decode(parts: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    frames = [
        cv2.imdecode(np.frombuffer(parts[f"{c}.jpg"], np.uint8), cv2.IMREAD_COLOR)[
            ..., ::-1
        ].transpose(2, 0, 1)
        for c in CAMERAS
    ]
    return (
        *frames,
        np.load(io.BytesIO(parts["state.npy"])),
        np.load(io.BytesIO(parts["action.npy"])),
    )


PEER = r"""
import sys, json, time, os, resource, shutil
import numpy as np
os.environ["HF_HUB_OFFLINE"] = "1"
raw, out, seconds, fps = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
workers = int(sys.argv[5])
import torch
torch.set_num_threads(1)  # with two, it reads at a fraction of this speed here
from pathlib import Path
try:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
except ImportError:
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
feat = {"observation.state": {"dtype": "float32", "shape": (14,), "names": None},
        "action": {"dtype": "float32", "shape": (14,), "names": None}}
for c in ("cam0", "cam1"):
    feat["observation.images." + c] = {"dtype": "video", "shape": (480, 640, 3),
                                       "names": ["height", "width", "channels"]}
if not Path(out).exists():
    part = out + ".partial"
    shutil.rmtree(part, ignore_errors=True)
    ds = LeRobotDataset.create("bench/loader", fps, feat, root=part, video_backend="torchcodec",
                               vcodec="h264")
    for p in sorted(Path(raw).glob("*.npz")):
        z = np.load(p)
        a = {k: z[k] for k in z.files}
        for k in range(len(a["state"])):
            ds.add_frame({"observation.state": a["state"][k], "action": a["action"][k],
                          "observation.images.cam0": a["cam0"][k],
                          "observation.images.cam1": a["cam1"][k], "task": "bench"})
        ds.save_episode()
    if hasattr(ds, "finalize"):
        ds.finalize()
    os.rename(part, out)
res = {"bytes": sum(f.stat().st_size for f in Path(out).rglob("*") if f.is_file())}
delta = {"action": [i / fps for i in range(16)]}
t = time.perf_counter()
ds = LeRobotDataset("bench/loader", root=out, delta_timestamps=delta,
                    video_backend="torchcodec")
loader = torch.utils.data.DataLoader(ds, batch_size=16, shuffle=True, num_workers=workers)
def it():
    while True:
        yield from loader
g = it()
next(g)
first = time.perf_counter() - t
s = time.perf_counter(); u = cpu_s(); n = 0
for b in g:
    n += len(b["action"])
    if time.perf_counter() - s > seconds:
        break
res |= {"samples_s": n / (time.perf_counter() - s), "first_s": first}
res["samples_cpu_s"] = n / (cpu_s() - u)
del g, loader
res["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print("RESULT" + json.dumps(res), flush=True)
os._exit(0)
"""


def lerobot(folder: Path, python: str, workers: int, seconds: float) -> Measured:
    """LeRobotDataset in its own environment, a process for each number of workers."""
    if not Path(python).exists():
        return {"error": f"absent ({python}; --peer names its Python)"}
    script = folder / "peer.py"
    script.write_text(inspect.getsource(cpu_s) + PEER)
    command = [python, str(script), str(folder / "raw"), str(folder / "lerobot"), str(seconds),
               str(RATE_HZ), str(workers)]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for line in run.stdout.splitlines():
        if line.startswith("RESULT"):
            return dict(json.loads(line[6:]))
    return {"error": run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "no result"}
