"""Goals as the paper issues and judges them on the hand (section 6.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_bridge import rotations


@dataclass(frozen=True)
class GoalRules:
    """Which orientations are asked for, and when a trial ends; see ``GoalConfig``."""

    distribution: str
    angles: tuple[float, float]
    tolerance: float
    """A goal is met when the remaining turn is smaller than this [rad]."""
    seconds: float
    """A trial ends when a goal is not met in this time [s]."""
    count: int
    """A trial ends after so many goals."""

    @classmethod
    def of(cls, manifest: dict[str, Any], **changes) -> GoalRules:
        """Those of a bundle, with changes."""
        rules = {name: manifest["goal"][name] for name in cls.__annotations__}
        return cls(**{**rules, **changes})


class Goals:
    """One trial's goals, one after another.

    Args:
        rules: of the trial.
        generator: draws them.
        orientation: [4] of the object as the trial begins.
        now: then [s].
    """

    def __init__(
        self,
        rules: GoalRules,
        generator: np.random.Generator,
        orientation: np.ndarray,
        now: float,
    ):
        self._rules, self._generator = rules, generator
        self.met = 0
        self._next(orientation, now)

    def judge(self, orientation: np.ndarray, now: float) -> str:
        """See how far the goal is; set the next when it is met.

        Returns:
            Why the trial is over: 'completed', 'out of time', or '' when it is not.
        """
        self.angle = self._angle(orientation)
        if self.angle < self._rules.tolerance:
            self.met += 1
            if self.met >= self._rules.count:
                return "completed"
            self._next(orientation, now)
        elif now - self.set_at >= self._rules.seconds - 1e-6:
            return "out of time"
        return ""

    def _next(self, orientation: np.ndarray, now: float) -> None:
        self.goal = draw(self._rules, self._generator, orientation)
        self.set_at, self.angle = now, self._angle(orientation)

    def _angle(self, orientation: np.ndarray) -> float:
        turn = rotations.multiply(self.goal, rotations.conjugate(orientation))
        return rotations.angle(turn)


def draw(
    rules: GoalRules, generator: np.random.Generator, orientation: np.ndarray
) -> np.ndarray:
    """A goal [4]; 'near' ones start from the object's ``orientation``."""
    if rules.distribution == "near":
        turn = generator.uniform(*rules.angles)
        step = rotations.from_axis_angle(rotations.random_axis(generator), turn)
        return rotations.normalize(rotations.multiply(step, orientation))
    if rules.distribution == "uniform":
        return rotations.random(generator)
    pose = CUBE_ROTATIONS[generator.integers(len(CUBE_ROTATIONS))]
    heading = generator.uniform(-np.pi, np.pi)
    turn = rotations.from_axis_angle(np.array([0.0, 0.0, 1.0]), heading)
    return rotations.multiply(turn, pose)


def _cube_rotations() -> np.ndarray:
    """[24, 4] rotations that map a cube onto itself.

    Up to scale: a single 1, two of +-1, or four of +-1, of which the first is positive.
    """
    return np.array(
        [
            rotations.normalize(np.array(entries, float))
            for entries in itertools.product((-1, 0, 1), repeat=4)
            if np.count_nonzero(entries) in (1, 2, 4)
            and next(entry for entry in entries if entry) > 0
        ]
    )


CUBE_ROTATIONS = _cube_rotations()
