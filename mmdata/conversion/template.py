"""A first configuration file, written from a log."""

from __future__ import annotations

from mmdata import registry
from mmdata.conversion.sources import Source
from mmdata.recording import stream_names

_HEAD = """\
# Configuration for `mmdata convert --config FILE`, written from {name}.
# Everything here is optional; a topic that is not listed is converted as it is.
"""

_TAIL = """
# Calibration the log lacks, by sensor (stream) name. Leave out what is not known.
rig: {}
#  camera_front:
#    model: pinhole            # pinhole | brown_conrady | fisheye
#    K: [[600, 0, 320], [0, 600, 240], [0, 0, 1]]
#    distortion: []
#    width: 640
#    height: 480
#    parent: base_link
#    parent_SE3_sensor: [0, 0, 0, 1, 0, 0, 0]   # x y z qw qx qy qz

# Known facts about every episode.
metadata: {}
#  task: pick_place
#  robot: panda
#  operator: anna

# Aligned views. Left out: one, at the rate of the fastest camera.
# timelines:
#   - rate_hz: 20
#   - reference_stream: camera_front
#     tolerances_ms: {joint_states: 15}

# Where one recording becomes several episodes: topic, gap_s, clip_s.
split: {}

stamps: auto                   # auto | header | receive
profile: default               # default | interchange
"""


def config_template(source: Source) -> str:
    """YAML with every topic of a recording under its stream name."""
    with registry.converter(source.format).open(source.path, source.part) as recording:
        topics = recording.inspect().topics
    names = stream_names(t.topic for t in topics)
    lines = [_HEAD.format(name=source.path.name), "streams:" if topics else "streams: {}"]
    for topic in topics:
        kind = topic.kind or "no samples"
        lines += [
            f"  {_quoted(topic.topic)}:   # {topic.count:,} x {topic.type}, {kind}",
            f"    name: {_quoted(names[topic.topic])}",
            "    # drop: true",
        ]
    return "\n".join(lines) + "\n" + _TAIL


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
