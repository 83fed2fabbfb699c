"""Forward kinematics of a hand from a list of links, and how three markers lie.

The bundle has the links of the hand that the policy was trained with; a robot's
description (``description.py``) those of the hand at the other end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_bridge import rotations

FINGERS = ("FF", "MF", "RF", "LF", "TH")
"""First, middle, ring and little finger, thumb: the order of every [5, ...] array."""


class Chain:
    """Fingertips for joint angles.

    Args:
        links: parents first; each with ``name``, ``parent`` (None: the base frame),
            ``position`` [3] and ``quaternion`` [4] in it, and ``joint`` and ``axis``,
            None for a fixed one.
        tips: for each finger its ``link`` and marker's ``position`` in that [m].
        joints: names in the order of joint angles.

    Raises:
        ValueError: if a link's joint is not among ``joints``.
    """

    def __init__(
        self,
        links: list[dict[str, Any]],
        tips: list[dict[str, Any]],
        joints: list[str],
    ):
        names = [link["name"] for link in links]
        self._links = []
        for link in links:
            if link["joint"] is not None and link["joint"] not in joints:
                raise ValueError(f"link {link['name']}: no joint {link['joint']!r}")
            self._links.append(
                (
                    -1 if link["parent"] is None else names.index(link["parent"]),
                    np.array(link["position"], float),
                    rotations.to_matrix(np.array(link["quaternion"], float)),
                    None if link["joint"] is None else joints.index(link["joint"]),
                    None if link["joint"] is None else _cross(link["axis"]),
                )
            )
        self._tips = [
            (names.index(tip["link"]), np.array(tip["position"], float)) for tip in tips
        ]

    def fingertips(
        self, joint_angles: np.ndarray, shifts: np.ndarray | None = None
    ) -> np.ndarray:
        """[..., 5, 3] markers in the base frame [m] for angles [..., 24] [rad].

        Args:
            joint_angles: of the hand.
            shifts: [5, 3] of the markers from their places, in their links' frames.
        """
        shifts = np.zeros((len(self._tips), 3)) if shifts is None else shifts
        angles = np.asarray(joint_angles)[..., None, None]
        poses = []
        for parent, position, rotation, joint, cross in self._links:
            if joint is not None:
                angle = angles[..., joint, :, :]
                turn = np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
                rotation = rotation + rotation @ turn
            if parent >= 0:
                above, origin = poses[parent]
                position, rotation = origin + above @ position, above @ rotation
            poses.append((rotation, position))
        tips = [
            poses[k][1] + poses[k][0] @ (place + shift)
            for (k, place), shift in zip(self._tips, shifts)
        ]
        return np.stack(tips, -2)


def _cross(axis: list[float]) -> np.ndarray:
    """[3, 3] matrix whose product with a vector is ``axis`` times it."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def fit_frame(
    measured: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The rigid motion that takes known points nearest to measured ones (Kabsch).

    Args:
        measured: [n, 3].
        known: [n, 3] the same points in their own frame.

    Returns:
        Rotation [3, 3] and position [3] of that frame, and the largest distance that
        remains [m]. Never a mirror image: of that the distance tells, for four points
        or more.
    """
    middle, known_middle = measured.mean(0), known.mean(0)
    u, _, vt = np.linalg.svd((known - known_middle).T @ (measured - middle))
    sign = np.sign(np.linalg.det(vt.T @ u.T))
    rotation = vt.T @ np.diag([1.0, 1.0, sign]) @ u.T
    position = middle - rotation @ known_middle
    left = known @ rotation.T + position - measured
    return rotation, position, float(np.linalg.norm(left, axis=1).max())
