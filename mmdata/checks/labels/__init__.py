"""Labels against the world they describe, and against each other.

>>> findings = check_labels(episode, layers)
>>> for finding in unfolded(findings):
...     print(finding.error_type, finding.message)

3D boxes are moved to each camera's exposure and projected into it, looked into with the LiDAR, and
followed along their tracks; phases, events and captions of several views are compared. Where one
cause explains many findings it is reported once and they are folded under it. Every rule of
:data:`RULES` is also a rule of ``mmdata check``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmdata.checks import Context, Outcome, check, failed, not_assessed, passed
from mmdata.checks.label_limits import LabelLimits
from mmdata.checks.labels.findings import LabelFinding, LabelRule, unfolded
from mmdata.checks.labels.rules import RULES

if TYPE_CHECKING:
    from mmdata.episode import Episode
    from mmdata_schema import Layer

__all__ = ["RULES", "LabelFinding", "LabelLimits", "LabelRule", "check_labels", "unfolded"]


def check_labels(
    episode: Episode,
    layers: Iterable[Layer | Mapping[str, Any]],
    limits: LabelLimits | None = None,
) -> list[LabelFinding]:
    """Findings about the labels of one episode, causes first.

    Args:
        episode: gives cameras (images with intrinsics and a transform), sweeps and ego motion.
        layers: annotation layers, as objects or as parsed JSON. A layer with 3D boxes and
            rectangles is compared with itself, one with 3D boxes only with those with rectangles
            only.
        limits: thresholds.

    Raises:
        SchemaError: a layer that is not valid.
    """
    return _check(episode, layers, limits or LabelLimits())[0]


def _check(
    episode: Episode, layers: Iterable[Layer | Mapping[str, Any]], limits: LabelLimits
) -> tuple[list[LabelFinding], dict[str, str], dict[str, str]]:
    """Findings; per group of rules (first four characters of the id) why it says nothing: the
    empty string where it was assessed, absent where it does not apply; and the same per camera
    of the rules about whole cameras."""
    # Arrays, SciPy and the schema are loaded when a layer is checked, not to list the rules.
    from mmdata.checks.labels.captions import check_captions
    from mmdata.checks.labels.pipeline import review_boxes
    from mmdata.checks.labels.scene import scene_of
    from mmdata.checks.labels.timelines import check_timelines
    from mmdata_schema import Layer, read_layer

    read = [x if isinstance(x, Layer) else read_layer(dict(x)) for x in layers]
    frames = [b.frame_id for layer in read for b in layer.tracks_3d]
    frames += [b.frame_id for layer in read for b in layer.boxes_3d]
    flat = {b.stream for layer in read for b in layer.tracks_2d}
    flat |= {b.stream for layer in read for b in layer.boxes_2d}
    said: dict[str, str] = {}
    untold: dict[str, str] = {}
    found: list[LabelFinding] = []
    if frames:
        scene = scene_of(episode, frames, limits.sweeps.reference)
        of_boxes, untold = review_boxes(scene, read, limits)
        found += of_boxes
        said["LAB3"] = ""
        if scene.sweeps:
            said["LAB2"] = ""
        elif scene.notes:
            said["LAB2"] = "; ".join(scene.notes)
        if flat & {view.stream for view in scene.views}:
            said["LAB1"] = said["LAB0"] = ""
        elif flat:
            said["LAB1"] = said["LAB0"] = "; ".join(scene.notes) or "no camera has these rectangles"
    streams = [p.stream for layer in read for p in layer.phases]
    if any(streams) or any(e.stream for layer in read for e in layer.events):
        found += check_timelines(read, limits.timelines)
        said["LAB4"] = ""
    if any(layer.captions for layer in read):
        found += check_captions(read)
        said["LAB5"] = ""
        said.setdefault("LAB4", "")
    found.sort(key=lambda f: (f.cause is not None, not f.explains, f.rule))
    return found, said, untold


_Report = tuple[list[LabelFinding], dict[str, str], dict[str, str]]
_last: tuple[weakref.ref[Context], _Report] | None = None


def _report(context: Context) -> _Report:
    """What :func:`_check` says of one context; kept for the other rules of the same run."""
    global _last
    if _last is None or _last[0]() is not context:
        report = _check(context.episode, context.layers.values(), context.limits.labels)
        _last = (weakref.ref(context), report)
    return _last[1]


def _register(rule: LabelRule) -> None:
    def run(context: Context) -> Iterator[Outcome]:
        if not context.layers:
            return
        found, said, untold = _report(context)
        mine = [f for f in found if f.rule == rule.id and f.cause is None]
        for f in mine:
            folded = f" [{f.explains} findings folded]" if f.explains else ""
            who = f"{f.object_id}: " if f.object_id else ""
            yield failed(f"{f.error_type} {who}{f.message}{folded}", f.stream,
                         value=f.value, limit=f.limit, details=f.details)  # fmt: skip
        if rule.name in ("camera_extrinsics", "camera_late") and untold:
            yield from (not_assessed(why, camera) for camera, why in untold.items() if why)
            if all(untold.values()):
                return
        why = said.get(rule.id[:4])
        if mine or why is None:
            return
        yield not_assessed(why) if why else passed("no finding")

    run.__doc__ = f"{rule.why} Type of annotation error (arXiv 2511.16410): {rule.error_type}."
    check(rule.id, title=rule.title, severity=rule.severity)(run)


for _rule in RULES.values():
    _register(_rule)
