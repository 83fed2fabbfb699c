"""A robot's description (URDF): joint limits, and where its fingertips are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from robot_bridge import rotations
from robot_bridge.messages import HandInfo

SIDES = {"rh_": "right", "lh_": "left"}
"""Shadow's prefixes."""

JOINT = re.compile(r"(rh_|lh_)(WR|FF|MF|RF|LF|TH)J\d$")


class DescriptionError(ValueError):
    """A robot's description that is not one of a Shadow hand."""


def read_hand(urdf: str, serial: str = "", **facts) -> HandInfo:
    """What a robot's description says of the hand in it.

    Args:
        urdf: its text, as ``/robot_description`` holds it.
        serial: of the hand.
        facts: other fields of ``HandInfo``.

    Raises:
        DescriptionError: if there is no Shadow hand in it, or more than one.
    """
    limits = {}
    for joint in _joints(urdf):
        name, limit = joint.get("name", ""), joint.find("limit")
        if JOINT.match(name) and limit is not None:
            limits[name] = (float(limit.get("lower")), float(limit.get("upper")))
    sides = {SIDES[name[:3]] for name in limits}
    if len(sides) != 1:
        raise DescriptionError(
            "the robot's description has "
            + ("two hands" if sides else "no joints of a Shadow hand (rh_FFJ3 ...)")
        )
    return HandInfo(side=sides.pop(), serial=serial, limits=limits, **facts)


def read_links(urdf: str, root: str) -> list[dict[str, Any]]:
    """The links that hang on one of them, as ``kinematics.Chain`` takes them.

    Args:
        urdf: the description's text.
        root: name of the link whose frame is the base.

    Raises:
        DescriptionError: if there is no such link.
    """
    below: dict[str, list] = {}
    for joint in _joints(urdf):
        below.setdefault(joint.find("parent").get("link"), []).append(joint)
    if root not in below:
        raise DescriptionError(
            f"the robot's description has no link {root} with joints"
        )
    links, waiting = [], [(joint, None) for joint in below[root]]
    while waiting:
        joint, parent = waiting.pop(0)
        name = joint.find("child").get("link")
        links.append(_link(joint, name, parent))
        waiting += [(child, name) for child in below.get(name, [])]
    return links


def _joints(urdf: str) -> list[ElementTree.Element]:
    try:
        return ElementTree.fromstring(urdf).findall("joint")
    except ElementTree.ParseError as error:
        raise DescriptionError(
            f"the robot's description is not XML: {error}"
        ) from error


def _link(joint, name: str, parent: str | None) -> dict[str, Any]:
    origin, axis = joint.find("origin"), joint.find("axis")
    position, turn = "0 0 0", "0 0 0"
    if origin is not None:
        position = origin.get("xyz", position)
        turn = origin.get("rpy", turn)
    moves = joint.get("type") == "revolute"
    return {
        "name": name,
        "parent": parent,
        "position": _numbers(position),
        "quaternion": _from_roll_pitch_yaw(_numbers(turn)).tolist(),
        "joint": joint.get("name") if moves else None,
        "axis": _numbers(axis.get("xyz")) if moves else None,
    }


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]


def _from_roll_pitch_yaw(angles: list[float]) -> np.ndarray:
    """URDF's order: about x, then y, then z, all of them fixed."""
    x, y, z = (
        rotations.from_axis_angle(axis, angle) for axis, angle in zip(np.eye(3), angles)
    )
    return rotations.multiply(z, rotations.multiply(y, x))
