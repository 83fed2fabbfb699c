"""Observations and actions exactly as in ``mjx_dex.task``, in NumPy.

Parity tests hold the two together. The policy's own joint names and signs never leave
this file: on both of its sides angles are the hand's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_bridge import rotations

SENSED = (
    "fingertips",
    "object_position",
    "relative_orientation",
    "object_orientation",
    "goal_orientation",
    "joint_angles",
)
"""Inputs of Table 2 that a hand can sense; all are in ``mjx_dex.task.observations``."""


@dataclass(frozen=True)
class Reading:
    """What is known of hand and object at one moment."""

    joint_angles: np.ndarray
    """[24] the hand's [rad]."""
    fingertips: np.ndarray
    """[5, 3] in the frame of the hand base's markers [m]."""
    object_position: np.ndarray
    """[3] in that frame [m]."""
    object_orientation: np.ndarray
    """[4] (w, x, y, z), object to the training's world."""


class Task:
    """The arithmetic around the policy; see the bundle's manifest for its numbers."""

    def __init__(self, manifest: dict[str, Any]):
        control, actuators = manifest["control"], manifest["actuators"]
        self._inputs = manifest["inputs"]
        self._bins, self._smoothing = control["bins"], control["smoothing"]
        self._relative = control["targets"] == "relative"
        self._joint_signs = np.array([joint["sign"] for joint in manifest["joints"]])
        self._signs = np.array([actuator["sign"] for actuator in actuators])
        self.range = np.array([[a["low"], a["high"]] for a in actuators])
        order = [joint["name"] for joint in manifest["joints"]]
        self._sums = np.zeros((len(actuators), len(order)))
        for row, actuator in zip(self._sums, actuators):
            row[[order.index(joint) for joint in actuator["joints"]]] = 1.0
        self._locked = [a["name"] in control["locked"] for a in actuators]

    @property
    def half_range(self) -> np.ndarray:
        """[20] what an action of 1 asks for [rad]."""
        return (self.range[:, 1] - self.range[:, 0]) / 2

    def actuator_angles(self, joint_angles: np.ndarray) -> np.ndarray:
        """[20] what actuators see of joint angles [24]: coupled ones in sum [rad]."""
        return self._sums @ joint_angles

    def observe(self, reading: Reading, goal: np.ndarray) -> np.ndarray:
        """The policy's inputs, float32, for a goal orientation [4]."""
        orientation = reading.object_orientation
        remaining = rotations.multiply(goal, rotations.conjugate(orientation))
        parts = {
            "fingertips": reading.fingertips.reshape(-1),
            "object_position": reading.object_position,
            "relative_orientation": rotations.positive(remaining),
            "object_orientation": rotations.positive(orientation),
            "goal_orientation": rotations.positive(goal),
            "joint_angles": self._joint_signs * reading.joint_angles,
        }
        return np.concatenate([parts[name] for name in self._inputs]).astype(np.float32)

    def decode(self, action: np.ndarray) -> np.ndarray:
        """The network's choice [20], bins or numbers, as an action in [-1, 1]."""
        if self._bins is None:
            return np.clip(action, -1.0, 1.0)
        return action * (2.0 / (self._bins - 1)) - 1.0

    def smooth(
        self, action: np.ndarray, memory: tuple[np.ndarray, float]
    ) -> tuple[np.ndarray, tuple[np.ndarray, float]]:
        """Exponential moving average of actions [20], bias-corrected.

        Args:
            action: in [-1, 1].
            memory: average so far and total weight in it; ``no_actions`` has none.

        Returns:
            The average and new memory.
        """
        weight = self._smoothing
        average = weight * memory[0] + (1 - weight) * action
        total = weight * memory[1] + (1 - weight)
        return average / total, (average, total)

    def no_actions(self) -> tuple[np.ndarray, float]:
        """Smoothing's memory as an episode begins."""
        return np.zeros(len(self._sums)), 0.0

    def targets(self, action: np.ndarray, joint_angles: np.ndarray) -> np.ndarray:
        """[20] the hand's targets for an action in [-1, 1] [rad], within the ranges.

        Args:
            action: [20] smoothed; |a| = 1 asks for half of an actuator's range.
            joint_angles: [24] at this moment.
        """
        low, high = self.range.T
        sums = self.actuator_angles(joint_angles)
        start = sums if self._relative else (low + high) / 2
        asked = start + self._signs * np.clip(action, -1, 1) * self.half_range
        # The locked wrist stands at 0, or as near to it as it gets.
        return np.clip(np.where(self._locked, 0.0, asked), low, high)
