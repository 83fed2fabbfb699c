"""In the policy's place: every joint through its range, without an object in the hand.

What joint sensors (``sensors``) and the simulated hand are fitted to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_bridge.bundle import Bundle
from robot_bridge.controller import Controller, Options
from robot_bridge.goals import GoalRules
from robot_bridge.messages import HandInfo
from robot_bridge.sensing import Sensing

STROKE = 2.0
"""From one pose to the next [s]: coupled joints, the fastest, make 1.6 rad/s on average
if they go from end to end; Shadow's description allows 2 for each of the two."""


class Sweep(Controller):
    """Goes from one random pose to the next; see ``Controller`` for all else.

    Args:
        bundle: whose actuators and ranges.
        info: of the hand at the other end.
        options: see there.
        seconds: in all.
    """

    def __init__(
        self, bundle: Bundle, info: HandInfo, options: Options, seconds: float
    ):
        super().__init__(bundle, info, GoalRules.of(bundle.manifest), options)
        self.sensing = Sensing(bundle.manifest, info, options.limits, with_object=False)
        self._seconds = seconds

    def _begin(self, now: float) -> None:
        self._began, self._stroke = now, -1.0
        self._from = self._to = self.here()

    def _think(self, now: float) -> tuple[str, np.ndarray | None, dict[str, Any]]:
        elapsed = now - self._began
        if elapsed >= self._seconds:
            return "completed", None, {}
        stroke, share = divmod(elapsed / STROKE, 1.0)
        if stroke != self._stroke:
            self._stroke, self._from = stroke, self._to
            self._to = self._generator.uniform(*self.task.range.T)
        # From rest to rest, without a jerk.
        share = 3 * share**2 - 2 * share**3
        return "", self._from + share * (self._to - self._from), {}
