"""In the policy's place: motions of an empty hand, to calibrate by.

``Sweep`` goes through every joint's range, for joint sensors (``sensors``);
``Excitation`` is what physics is fitted to (``mjx_dex.calibrate``).
"""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from robot_bridge.bundle import Bundle
from robot_bridge.controller import Controller, Options
from robot_bridge.goals import GoalRules
from robot_bridge.messages import HandInfo
from robot_bridge.sensing import Sensing

STROKE = 2.0
"""Of a sweep, from one pose to the next [s]: coupled joints, the fastest, make 1.6
rad/s on average if they go from end to end; Shadow's description allows 2 for each."""

PARTS = ("WR", "FF", "MF", "RF", "LF", "TH")
"""Of the hand: the wrist and the fingers."""
SPEEDS = (0.5, 1.0, 2.0)
"""Largest of targets, in oscillations one after another [rad/s]."""
RAMP = 1.0
"""Speed of targets to a joint's end [rad/s]."""
OSCILLATION = 4.0
"""Length of each [s]."""
AMPLITUDE = 0.35
"""Of oscillations, as a share of an actuator's range."""
FASTEST = 1.5
"""Of oscillations [Hz]."""
STILL, STILL_TIME, PATIENCE = 0.01, 0.4, 3.0
"""A joint has stopped if it moved less than so far [rad] in so long [s]; after so long
[s] nobody waits any more."""
BENT = 1.3
"""Of fingers that are out of others' way, at the knuckle [rad]."""


class Program(Controller):
    """Targets by a program, an object nowhere; see ``Controller`` for all else.

    Args:
        bundle: whose actuators and ranges.
        info: of the hand at the other end.
        options: see there.
    """

    def __init__(self, bundle: Bundle, info: HandInfo, options: Options):
        super().__init__(bundle, info, GoalRules.of(bundle.manifest), options)
        self.sensing = Sensing(bundle.manifest, info, options.limits, with_object=False)

    def targets(self) -> Iterator[np.ndarray]:
        """[20] for one tick after another [rad]; the trial ends with them."""
        raise NotImplementedError

    def _begin(self, now: float) -> None:
        self._targets = self.targets()

    def _think(self, now: float) -> tuple[str, np.ndarray | None, dict[str, Any]]:
        targets = next(self._targets, None)
        return "" if targets is not None else "completed", targets, {}


class Sweep(Program):
    """Goes from one random pose to the next.

    Args:
        bundle: see ``Program``.
        info: see there.
        options: see there.
        seconds: in all.
    """

    def __init__(
        self, bundle: Bundle, info: HandInfo, options: Options, seconds: float
    ):
        super().__init__(bundle, info, options)
        self._seconds = seconds

    def targets(self) -> Iterator[np.ndarray]:
        """See ``Program``."""
        ticks, start = round(STROKE / self.period), self.here()
        for _ in range(round(self._seconds / STROKE)):
            end = self._generator.uniform(*self.task.range.T)
            for tick in range(ticks):
                share = tick / ticks
                # From rest to rest, without a jerk.
                share = 3 * share**2 - 2 * share**3
                yield start + share * (end - start)
            start = end


class Excitation(Program):
    """The paper's two programs, finger by finger (appendix C.3).

    Each actuator goes to both ends until its joints stop; then a finger's actuators
    oscillate together, those that spread it apart from those that bend it.

    Args:
        bundle: see ``Program``.
        info: see there.
        options: see there.
        parts: of ``PARTS``, or all if there are none.

    Raises:
        ValueError: if there is no such part.
    """

    def __init__(
        self, bundle: Bundle, info: HandInfo, options: Options, parts: list[str]
    ):
        super().__init__(bundle, info, options)
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise ValueError(
                f"--excite: {unknown.pop()!r} is not one of {', '.join(PARTS)}"
            )
        self._parts = parts or PARTS

    def targets(self) -> Iterator[np.ndarray]:
        """See ``Program``."""
        self._now = self.here()
        for part in self._parts:
            base = self._base(part)
            yield from self._move_to(base)
            own = [k for k, name in enumerate(self._actuators) if name[3:5] == part]
            for k in own:
                for end in self.task.range[k, ::-1]:
                    yield from self._move_to(_with(base, k, end), until_still=k)
                yield from self._move_to(base)
            for together in self._groups(own):
                for speed in SPEEDS:
                    yield from self._oscillate(base, together, speed)
            yield from self._move_to(base)

    def _base(self, part: str) -> np.ndarray:
        """Where a part of the hand starts from, and the others are out of its way.

        Fingers are straight, and while a finger moves its neighbours are bent: it could
        not spread otherwise. The thumb and the wrist move among straight fingers.
        """
        low, high = self.task.range.T
        base = np.clip(np.zeros(len(low)), low, high)
        if part in ("TH", "WR"):
            return base
        for k, name in enumerate(self._actuators):
            if name.endswith("J3") and name[3:5] not in (part, "TH"):
                base[k] = BENT
        return base

    def _groups(self, own: list[int]) -> list[list[int]]:
        """A part's actuators, those that oscillate together."""
        spreading = [k for k in own if self._actuators[k][-2:] in ("J4", "J5")]
        return [g for g in (spreading, [k for k in own if k not in spreading]) if g]

    def _move_to(self, end: np.ndarray, until_still: int | None = None):
        """At constant speed; then until an actuator's joints have stopped, if asked."""
        step = RAMP * self.period
        while (self._now != end).any():
            left = end - self._now
            near = np.abs(left) <= step
            self._now = np.where(near, end, self._now + step * np.sign(left))
            yield self._now
        if until_still is None:
            return
        seen = []
        for _ in range(round(PATIENCE / self.period)):
            seen.append(self.here()[until_still])
            recent = seen[-round(STILL_TIME / self.period) - 1 :]
            if len(seen) > len(recent) and np.ptp(recent) < STILL:
                return
            yield self._now

    def _oscillate(self, base: np.ndarray, together: list[int], speed: float):
        """Inward and outward, around a place from which both ways are free."""
        low, high = self.task.range[together].T
        size = AMPLITUDE * (high - low)
        pace = np.minimum(speed / size, 2 * np.pi * FASTEST)
        middle = np.clip(base[together], low + size, high - size)
        start = base.copy()
        start[together] = middle
        yield from self._move_to(start)
        for tick in range(round(OSCILLATION / self.period)):
            self._now = start.copy()
            self._now[together] += size * np.sin(pace * tick * self.period)
            yield self._now


def make_program(
    bundle: Bundle, info: HandInfo, options: Options, program: dict[str, Any]
) -> Program:
    """What a recording names: ``{"sweep": seconds}`` or ``{"excite": parts}``."""
    if "sweep" in program:
        return Sweep(bundle, info, options, program["sweep"])
    return Excitation(bundle, info, options, program["excite"])


def _with(targets: np.ndarray, index: int, value: float) -> np.ndarray:
    changed = targets.copy()
    changed[index] = value
    return changed
