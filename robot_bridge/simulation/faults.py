"""Ways in which a hand's messages go wrong, on any transport."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHANNELS = ("joints", "markers", "object")
"""Of sensors."""


@dataclass(frozen=True)
class Disturbance:
    """One of ``KINDS``, on one channel or on all."""

    kind: str
    channel: str = "all"
    amount: float = 0.0
    """Share of messages that are dropped, seconds that delay grows to (by 0.2 s in a
    second) or that a clock steps."""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"fault {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.channel not in ("all", *CHANNELS):
            raise ValueError(
                f"fault {self.kind}: {self.channel!r} is no channel; those are "
                f"{', '.join(CHANNELS)}"
            )


class Faults:
    """Lets messages through, or what is left of them.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int = 0):
        self._generator = np.random.default_rng([seed, 2])
        self._active: list[Disturbance] = []
        self._queues: dict[str, list] = {}
        self._frozen: dict[str, np.ndarray] = {}
        self._began: dict[str, float] = {}

    def add(self, disturbance: Disturbance) -> None:
        """From now on."""
        self._active.append(disturbance)

    def clear(self) -> None:
        """All is well again."""
        self._active.clear()
        self._queues.clear()
        self._frozen.clear()
        self._began.clear()

    def pass_on(
        self, channel: str, value: np.ndarray, stamp: float, now: float
    ) -> list[tuple[np.ndarray, float]]:
        """What of a message is to be sent now: values and stamps."""
        out = [(value, stamp)]
        for disturbance in self._active:
            if disturbance.channel in ("all", channel):
                effect = KINDS[disturbance.kind]
                out = [
                    item
                    for v, s in out
                    for item in effect(self, channel, v, s, disturbance.amount, now)
                ]
        return out

    def _silence(self, channel, value, stamp, amount, now):
        return []

    def _drop(self, channel, value, stamp, amount, now):
        return [] if self._generator.random() < amount else [(value, stamp)]

    def _delay(self, channel, value, stamp, amount, now):
        waiting = self._queues.setdefault(channel, [])
        # As a link that gets slower and slower: no gap in what arrives.
        began = self._began.setdefault(channel, now)
        late = min(amount, 0.2 * (now - began))
        waiting.append((now + late, value, stamp))
        ready = [item for item in waiting if item[0] <= now]
        self._queues[channel] = waiting[len(ready) :]
        return [item[1:] for item in ready]

    def _duplicate(self, channel, value, stamp, amount, now):
        return [(value, stamp)] * 3

    def _reorder(self, channel, value, stamp, amount, now):
        waiting = self._queues.setdefault(channel, [])
        waiting.append((value, stamp))
        if len(waiting) < 2:
            return []
        self._queues[channel] = []
        return waiting[::-1]

    def _freeze(self, channel, value, stamp, amount, now):
        return [(self._frozen.setdefault(channel, value), stamp)]

    def _nan(self, channel, value, stamp, amount, now):
        value = value.copy()
        value.reshape(-1)[0] = np.nan
        return [(value, stamp)]

    def _mirror(self, channel, value, stamp, amount, now):
        """As a driver of motion capture that exchanges two axes."""
        value = value.copy()
        if channel == "markers":
            value = value[:, [0, 2, 1]]
        elif channel == "object":
            # The mirror image of a turn: its axis is mirrored and reversed.
            value[:3] = value[[0, 2, 1]]
            value[4:] = -value[[4, 6, 5]]
        return [(value, stamp)]

    def _swap(self, channel, value, stamp, amount, now):
        """First and ring finger have each other's marker."""
        value = value.copy()
        if channel == "markers":
            value[[3, 5]] = value[[5, 3]]
        return [(value, stamp)]

    def _clock(self, channel, value, stamp, amount, now):
        return [(value, stamp + amount)]


KINDS = {
    "silence": Faults._silence,
    "drop": Faults._drop,
    "delay": Faults._delay,
    "duplicate": Faults._duplicate,
    "reorder": Faults._reorder,
    "freeze": Faults._freeze,
    "nan": Faults._nan,
    "mirror": Faults._mirror,
    "swap": Faults._swap,
    "clock": Faults._clock,
}
