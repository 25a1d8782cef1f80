"""Where the hand is, from joint angles and a URDF: forward kinematics along one chain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mmdata.errors import ConfigError
from mmdata.phases.inputs import Floats


@dataclass(frozen=True, slots=True)
class Joint:
    """One joint: parent_SE3_joint at zero (4, 4), unit axis (3,), kind as in the URDF."""

    name: str
    kind: str
    parent: str
    child: str
    origin: Floats
    axis: Floats


def _numbers(text: str | None, default: str) -> Floats:
    return np.array([float(x) for x in (text or default).split()])


def _rotation_rpy(rpy: Floats) -> Floats:
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def read_urdf(path: Path | str) -> list[Joint]:
    """All joints of a URDF file. Raises ConfigError where it is not one, FileNotFoundError."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ConfigError(f"{path}: not a URDF: {error}") from error
    joints = []
    for node in root.iter("joint"):
        parent, child = node.find("parent"), node.find("child")
        if parent is None or child is None:
            continue  # transmissions also have <joint> elements
        origin, axis = node.find("origin"), node.find("axis")
        pose = np.eye(4)
        if origin is not None:
            pose[:3, :3] = _rotation_rpy(_numbers(origin.get("rpy"), "0 0 0"))
            pose[:3, 3] = _numbers(origin.get("xyz"), "0 0 0")
        along = _numbers(axis.get("xyz") if axis is not None else None, "1 0 0")
        joints.append(
            Joint(
                node.get("name", ""),
                node.get("type", "fixed"),
                parent.get("link", ""),
                child.get("link", ""),
                pose,
                along / max(float(np.linalg.norm(along)), 1e-12),
            )
        )
    if not joints:
        raise ConfigError(f"{path}: no joint in it; give the robot's URDF")
    return joints


def chain(joints: list[Joint], names: list[str], tip: str | None = None) -> list[Joint]:
    """Joints from the root to the tip link; without a tip, past the last of the named joints.

    From the last named joint on, fixed joints are followed as long as there is only one way.
    Raises ConfigError where the tip or all of the names are unknown.
    """
    by_child = {j.child: j for j in joints}
    if tip is None:
        moving = [j for j in joints if j.name in names]
        if not moving:
            raise ConfigError(
                f"the URDF has none of the joints {names[:8]}; it has "
                f"{[j.name for j in joints if j.kind != 'fixed'][:8]}"
            )
        depth = {j.name: len(_upward(by_child, j.child)) for j in moving}
        tip = max(moving, key=lambda j: depth[j.name]).child
        while len(onward := [j for j in joints if j.parent == tip]) == 1 and (
            onward[0].kind == "fixed"
        ):
            tip = onward[0].child
    elif tip not in by_child:
        raise ConfigError(f"the URDF has no link {tip!r}")
    return _upward(by_child, tip)[::-1]


def _upward(by_child: dict[str, Joint], link: str) -> list[Joint]:
    found = []
    while link in by_child:
        found.append(by_child[link])
        link = by_child[link].parent
        if len(found) > len(by_child):
            raise ConfigError(f"the URDF has a loop at link {link!r}")
    return found


def forward(path: list[Joint], names: list[str], angles: Floats) -> Floats:
    """Tip positions (N, 3) m in the root link's frame for joint values angles (N, J) named `names`.

    Joints of the chain that are not named stay at zero.
    """
    column = {name: i for i, name in enumerate(names)}
    pose = np.tile(np.eye(4), (len(angles), 1, 1))
    for joint in path:
        pose = pose @ joint.origin
        if joint.name not in column or joint.kind == "fixed":
            continue
        q = angles[:, column[joint.name]]
        move = np.tile(np.eye(4), (len(angles), 1, 1))
        if joint.kind == "prismatic":
            move[:, :3, 3] = q[:, None] * joint.axis
        else:  # Rodrigues
            x, y, z = joint.axis
            k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            sin, cos = np.sin(q)[:, None, None], np.cos(q)[:, None, None]
            move[:, :3, :3] = np.eye(3) + sin * k + (1 - cos) * (k @ k)
        pose = pose @ move
    return np.asarray(pose[:, :3, 3])
