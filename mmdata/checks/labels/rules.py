"""The rules about labels: id, severity, type of annotation error and why.

error_type is a code of the taxonomy ``error_types`` (arXiv 2511.16410).
"""

from __future__ import annotations

from mmdata.checks import Severity
from mmdata.checks.labels.findings import LabelRule

RULES: dict[str, LabelRule] = {}


def _rule(id: str, name: str, severity: Severity, error_type: str, title: str, why: str) -> None:
    RULES[name] = LabelRule(id, name, title, severity, error_type, why)


_E, _W = Severity.ERROR, Severity.WARNING

_rule(
    "LAB001",
    "camera_extrinsics",
    _E,
    "CON7",
    "Cameras are where the rig says",
    "All boxes of a camera are off in the way a turned or moved camera explains.",
)
_rule(
    "LAB002",
    "camera_late",
    _E,
    "COM6",
    "Cameras keep the time of the boxes",
    "Residuals of a camera's boxes grow with the speed at which they cross the image: its stamps "
    "are late or early.",
)
_rule(
    "LAB003",
    "boxes_late",
    _E,
    "COM6",
    "3D boxes keep the time of the cameras",
    "All cameras are late alike against the 3D boxes, so the boxes' stamps are off.",
)
_rule(
    "LAB004",
    "annotator",
    _W,
    "ACC5",
    "No annotator stands out",
    "One annotator has far more findings of one kind than the others.",
)
_rule(
    "LAB005",
    "view_late",
    _E,
    "COM6",
    "Views keep one time",
    "All boundaries of one view are off by the same time against the other views.",
)
_rule(
    "LAB006",
    "layer_height",
    _E,
    "CON7",
    "Boxes stand on the ground the LiDAR sees",
    "All boxes of a layer are too high or too low alike.",
)
_rule(
    "LAB101",
    "box_location",
    _E,
    "ACC2",
    "2D boxes lie where the 3D box projects to",
    "A rectangle is shifted or scaled against the projection by more than others of this camera.",
)
_rule(
    "LAB102",
    "missing_2d",
    _E,
    "COM1",
    "What is in sight has a 2D box",
    "A 3D box is visible in an image that has labels, and none of them fits.",
)
_rule(
    "LAB103",
    "phantom_2d",
    _E,
    "ACC2",
    "2D boxes have a 3D box",
    "A rectangle lies where no 3D box projects to.",
)
_rule(
    "LAB104",
    "class_mismatch",
    _E,
    "ACC1",
    "2D and 3D agree about the class",
    "A rectangle and the 3D box it shows have different classes. ACC3 where one is a kind of the "
    "other.",
)
_rule(
    "LAB105",
    "identity_swap",
    _E,
    "CON7",
    "2D and 3D agree about the identity",
    "A rectangle fits the box of another identity much better than its own.",
)
_rule(
    "LAB106",
    "missing_3d",
    _E,
    "COM1",
    "What has 2D boxes has a 3D box",
    "An object is labelled in the images while no 3D box shows it.",
)
_rule(
    "LAB107",
    "unlabelled_frame",
    _W,
    "COM1",
    "No image is left out",
    "An image has no labels while nearly all others of its camera do.",
)
_rule(
    "LAB108",
    "duplicate_2d",
    _E,
    "ACC2",
    "An object has one 2D box in an image",
    "A rectangle shows what another rectangle of this image shows already.",
)
_rule(
    "LAB201",
    "empty_box",
    _E,
    "ACC2",
    "Boxes hold points",
    "No return lies in the box, and the LiDAR saw what is behind it through it.",
)
_rule(
    "LAB202",
    "cut_off",
    _W,
    "ACC2",
    "Boxes hold all of their object",
    "Points continue beyond a face of the box.",
)
_rule(
    "LAB203",
    "undersized",
    _W,
    "ACC2",
    "Boxes are large enough",
    "Points continue beyond two opposite faces, or the box is far smaller than its class and "
    "cuts points off.",
)
_rule(
    "LAB204",
    "ground_offset",
    _W,
    "ACC2",
    "Boxes stand on the ground",
    "The bottom is above or below the ground around the box.",
)
_rule(
    "LAB301",
    "jump",
    _E,
    "ACC2",
    "Tracks do not jump",
    "One keyframe lies off the path of its neighbours, or the path is broken at one.",
)
_rule(
    "LAB302",
    "size_change",
    _E,
    "ACC2",
    "Rigid objects keep their size",
    "A keyframe's size differs from the track's median.",
)
_rule(
    "LAB303",
    "speed",
    _E,
    "ACC2",
    "Speeds are possible",
    "Two keyframes lie further apart than anything of this class moves.",
)
_rule(
    "LAB304",
    "acceleration",
    _W,
    "ACC2",
    "Accelerations are possible",
    "The path bends or speeds up more than tyres can make it; reported at the largest.",
)
_rule(
    "LAB305",
    "heading",
    _W,
    "ACC2",
    "Vehicles face where they go",
    "The box's heading and the direction of motion differ.",
)
_rule(
    "LAB306",
    "identity_gap",
    _W,
    "ACC2",
    "Tracks are not broken",
    "A track has a hole while in sight, or goes on under another identity.",
)
_rule(
    "LAB307",
    "identity_reuse",
    _E,
    "ACC2",
    "An identity is one object",
    "Two boxes of one identity are at two places at once, or too far apart to be one object.",
)
_rule(
    "LAB308",
    "class_change",
    _W,
    "ACC1",
    "An object keeps its class",
    "Tracks of one identity, or labels of one thing for two sensors, have different classes.",
)
_rule(
    "LAB309",
    "duplicate_object",
    _E,
    "ACC2",
    "A thing has one identity",
    "Boxes of two identities fill each other: one thing was labelled twice.",
)
_rule(
    "LAB401",
    "boundary",
    _W,
    "CON7",
    "Views agree when an action begins and ends",
    "The same segment begins or ends at different times in two views.",
)
_rule(
    "LAB402",
    "missing_segment",
    _W,
    "COM1",
    "Views show the same actions",
    "A segment or event of one view is absent in another that covers its time.",
)
_rule(
    "LAB403",
    "order",
    _W,
    "CON7",
    "Views agree about the order",
    "Two segments follow each other the other way round in another view.",
)
_rule(
    "LAB404",
    "segment_label",
    _W,
    "ACC1",
    "Views agree what happens",
    "Overlapping segments of two views have different labels.",
)
_rule(
    "LAB405",
    "object_identity",
    _W,
    "CON7",
    "Views agree which object it is",
    "The same segment or event names different objects in two views.",
)
_rule(
    "LAB406",
    "description",
    _W,
    "CON7",
    "Descriptions of one event agree",
    "Captions of two views over the same time name different actions, objects, numbers or hands.",
)
_rule(
    "LAB501",
    "caption_action",
    _W,
    "CON7",
    "Captions name what the phases say",
    "The action of a caption is not among the phases of its time.",
)
_rule(
    "LAB502",
    "caption_object",
    _W,
    "CON7",
    "Captions name what is there",
    "An object, number, colour or hand of a caption contradicts the labels.",
)
