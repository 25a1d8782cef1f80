"""Converting a log against reading and deserialising it with rosbags alone.

    python benchmarks/convert.py [LOG ...] [--repeat 5]

Each measurement runs in a process of its own, the two sides in turn, so that both meet the same
load. Prints medians, their ratio (mmdata / rosbags) and peak memory. Without LOG a simulated
pick-and-place is used, and the sample logs in ../shared/data where they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

READ = """
import json, resource, sys, time
from pathlib import Path
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
began = time.perf_counter()
count = 0
with AnyReader([Path(sys.argv[1])], default_typestore=get_typestore(Stores.LATEST)) as reader:
    for connection, _, raw in reader.messages():
        if connection.msgtype in reader.typestore.types:
            reader.deserialize(raw, connection.msgtype)
        count += 1
print(json.dumps([time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                  count]))
"""

CONVERT = """
import json, resource, sys, time, tempfile
from pathlib import Path
from mmdata.conversion.job import convert_source
from mmdata.conversion.sources import find_sources
from mmdata.store import EpisodeWriter  # rosbags' side has its imports outside of the clock as well
import mmdata_converters.rosbag2.folder, mmdata_converters.rosbag1, mmdata_converters._ros.recording
source = find_sources([sys.argv[1]]).sources[0]
with tempfile.TemporaryDirectory() as out:
    began = time.perf_counter()
    result = convert_source(source, Path(out))
    seconds = time.perf_counter() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                  sum(t["messages"] for t in result.topics.values())]))
"""


def measure(script: str, log: Path) -> tuple[float, float, int]:
    """Seconds, peak MB and messages of one run in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(log)], capture_output=True, text=True, check=True
    )
    seconds, peak_kb, count = json.loads(done.stdout)
    return seconds, peak_kb / 1024, count


def default_logs(folder: Path) -> list[Path]:
    """A simulated log, and the sample logs that are there."""
    from mmdata.simulate import pick_place, write_mcap

    simulated = folder / "simulated"
    write_mcap(simulated, pick_place(seed=0))
    shared = Path(__file__).resolve().parents[2] / "shared/data"
    names = ["real/pandaset_002/drive", "real/robot_localization/test1.bag",
             "real/mcity_ins_db3/DIT_Loop", "sim/pick_place_303"]  # fmt: skip
    return [simulated, *(shared / n for n in names if (shared / n).exists())]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = arguments.logs or default_logs(Path(folder))
        print(f"{'log':28} {'MB':>7} {'messages':>9} {'rosbags s':>10} {'mmdata s':>9} "
              f"{'ratio':>6} {'peak MB':>8}")  # fmt: skip
        for log in logs:
            read, convert, peak, count = [], [], 0.0, 0
            for _ in range(arguments.repeat):
                read.append(measure(READ, log)[0])
                seconds, mb, count = measure(CONVERT, log)
                convert.append(seconds)
                peak = max(peak, mb)
            files = [log] if log.is_file() else list(log.iterdir())
            size = sum(f.stat().st_size for f in files) / 1e6
            a, b = statistics.median(read), statistics.median(convert)
            print(f"{log.name:28} {size:7.1f} {count:9,} {a:10.3f} {b:9.3f} {b / a:6.2f} "
                  f"{peak:8.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
