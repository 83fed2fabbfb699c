"""A simulated hand in this process: no clock but its own, the same every time."""

from __future__ import annotations

from robot_bridge.controller import Command
from robot_bridge.messages import HandInfo, Sample, Snapshot
from robot_bridge.simulation.hand import SimulatedHand


class Lockstep:
    """See ``Transport``. Thinking takes no time here."""

    def __init__(self, hand: SimulatedHand):
        self.hand = hand
        self._samples: dict[str, Sample] = {}
        self._seen: object = None

    def connect(self, timeout: float) -> HandInfo:
        """See ``Transport``."""
        return self.hand.info

    def now(self) -> float:
        """See ``Transport``."""
        return self.hand.time

    def wait_until(self, due: float) -> None:
        """See ``Transport``."""
        self.hand.step(max(0.0, due - self.hand.time))

    def latest(self) -> Snapshot:
        """See ``Transport``."""
        if self.hand.messages is not self._seen:
            self._seen, now = self.hand.messages, self.hand.sensed_at
            self._samples = {
                name: Sample(value, received=now, stamp=now)
                for name, value in self._seen.items()
            }
            set_points = Sample(self.hand.set_points, received=now, stamp=now)
            self._samples["set_points"] = set_points
        return Snapshot(**self._samples)

    def send(self, command: Command) -> None:
        """See ``Transport``."""
        self.hand.command(command.targets, command.force)

    def new_trial(self, with_object: bool = True) -> None:
        """See ``Transport``."""
        self.hand.reset(with_object)

    def close(self) -> None:
        """See ``Transport``."""
