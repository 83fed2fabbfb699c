"""Ways to reach a hand, behind one protocol."""

from __future__ import annotations

from typing import Protocol

from robot_bridge.controller import Command
from robot_bridge.messages import HandInfo, Snapshot


class TransportError(RuntimeError):
    """A hand that cannot be reached; the message says which and what would help."""


class Transport(Protocol):
    """A hand at the other end. Times are of its own clock, which never goes back."""

    def connect(self, timeout: float) -> HandInfo:
        """Reach the hand and learn what it is.

        Raises:
            TransportError: if it does not answer within ``timeout`` [s].
        """

    def now(self) -> float:
        """The time [s]."""

    def wait_until(self, due: float) -> None:
        """Return then; at once if that is past."""

    def latest(self) -> Snapshot:
        """The latest value of every sensor. Never waits."""

    def send(self, command: Command) -> None:
        """Tell the hand. Never waits."""

    def new_trial(self, with_object: bool = True) -> None:
        """Have the object put back into the hand, or taken out of it: of a simulated
        one."""

    def close(self) -> None:
        """Let go of the hand."""
