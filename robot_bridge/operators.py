"""Who arms, starts and stops the hand: see ``loop.Operator``."""

from __future__ import annotations

import os
import select
import sys
from dataclasses import dataclass, field

import numpy as np

from robot_bridge.controller import Controller
from robot_bridge.safety import State

ENDS = ("dropped", "out of time", "completed")
"""Why trials end; anything else is a fault."""

PUTTING_BACK = 15.0
"""The object lies in the hand after so long, or not at all [s]."""
PATIENCE = 60.0
"""A simulated hand whose sensors cannot be trusted for so long, by its own clock, never
will be: an object that is dropped at every start takes a while [s]."""

HINTS = {
    State.CONNECT: "not ready",
    State.CHECK: "put the object into the hand; a: arm, q: end",
    State.ARMED: "s: start the policy, Enter: hold, q: end",
    State.RUNNING: "Enter: hold, q: end",
    State.HOLD: "holding; put the object back; a: arm, q: end",
    State.LIMP: "limp; a: arm, q: end",
}
"""What a person is told."""


@dataclass
class Trials:
    """Counts them as they end, and says so."""

    wanted: int
    """Of them."""
    deadline: float = np.inf
    """When the run is over, by the transport's clock [s]."""
    goals: list[int] = field(default_factory=list)
    """Of each."""
    ends: list[str] = field(default_factory=list)
    """Of each: why it ended."""
    interrupted: bool = False
    """By a signal."""
    program: str = ""
    """That runs in the policy's place."""

    def count(self, controller: Controller) -> bool:
        """Whether a trial has ended since the last time."""
        has_ended = controller.trials > len(self.goals)
        if controller.state is State.RUNNING or not has_ended:
            return False
        self.goals.append(controller.goals_met)
        self.ends.append(controller.why)
        goals = f"{self.goals[-1]} goal" + "s" * (self.goals[-1] != 1)
        what = self.program or f"trial {len(self.goals)}: {goals}"
        print(f"{what}, {self.ends[-1]}", flush=True)
        return True

    def are_over(self, now: float) -> bool:
        """Whether there is nothing left to do."""
        return self.interrupted or now > self.deadline or len(self.goals) >= self.wanted


class Rehearsal:
    """A script for simulated hands: arm, start, count, put the object back.

    Args:
        trials: to be counted.
        keep_going: begin the next trial after a fault, too.
    """

    def __init__(self, trials: Trials, keep_going: bool = False):
        self._trials, self._keep_going = trials, keep_going
        self._waiting_since: float | None = None
        self._put_back_at: float | None = None

    def wish(self, controller: Controller, now: float) -> str:
        """See ``Operator``."""
        state, trials = controller.state, self._trials
        if self._put_back_at is None:
            # From here on: in lockstep it was put back within the tick before.
            self._put_back_at = now
        has_ended = trials.count(controller)
        if trials.are_over(now) or self._is_tired(state, now):
            return "stop"
        if has_ended:
            failed = trials.ends[-1] not in ENDS and not self._keep_going
            # Until the object lies in the hand, much of a simulation's time may pass.
            self._waiting_since = self._put_back_at = None
            return "stop" if failed else "new trial"
        if state is State.ARMED:
            return "start"
        if state in (State.RUNNING, State.STOPPED):
            return ""
        if state is not State.CONNECT and controller.is_trusted(now):
            return "arm"
        if not trials.program and now - self._put_back_at > PUTTING_BACK:
            # After all, the object fell before the hand was armed; by now it may be
            # so far away that its pose is not believed.
            self._put_back_at = None
            return "new trial"
        return ""

    def _is_tired(self, state: State, now: float) -> bool:
        """Whether sensors could not be trusted for too long."""
        if state in (State.ARMED, State.RUNNING) or self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since > PATIENCE


class Person:
    """Someone at the keyboard. Enter alone never makes a hand move: it holds.

    Args:
        trials: to be counted.
    """

    def __init__(self, trials: Trials):
        self._trials = trials
        self._told: tuple = ()

    def wish(self, controller: Controller, now: float) -> str:
        """See ``Operator``."""
        self._trials.count(controller)
        if self._trials.are_over(now):
            return "stop"
        self._tell(controller)
        lines = self._typed()
        if "q" in lines:
            return "stop"
        if "" in lines:
            # Whatever else was typed: whoever hammers Enter wants it to stop.
            return "hold"
        if "a" in lines and not controller.is_trusted(now):
            print(f"not armed: {controller.trouble or 'not well for long enough'}")
            return ""
        wishes = {"a": "arm", "s": "start"}
        return next((wishes[line] for line in lines if line in wishes), "")

    def _tell(self, controller: Controller) -> None:
        """What the hand is doing, why, and what may be typed."""
        state = controller.state
        reason = controller.why if state in (State.HOLD, State.LIMP) else ""
        if state in (State.CONNECT, State.CHECK):
            # Without its figures, which change all the time.
            reason = controller.trouble
        told = state, reason.split(":")[0]
        if told != self._told:
            self._told = told
            parts = [part for part in (reason, HINTS.get(state, "")) if part]
            print(f"{state.value}: {'; '.join(parts)}", flush=True)

    def _typed(self) -> list[str]:
        """Lines since the last time; 'q' where nobody can type any more."""
        pipe, text = sys.stdin.fileno(), b""
        while select.select([pipe], [], [], 0)[0]:
            data = os.read(pipe, 4096)
            if not data:
                print("nobody is at the keyboard: the end")
                return ["q"]
            text += data
        return [line.strip().lower() for line in text.decode().split("\n")[:-1]]
