"""What the bridge may do when: a state machine and its limits, without any I/O.

The hand's own controllers hold their last target for ever and let NaN through; nobody
else would notice.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class State(enum.Enum):
    """What the bridge is doing."""

    CONNECT = "connect"
    """Waiting for every sensor to speak."""
    CHECK = "check"
    """Comparing what sensors say with each other; nothing is sent."""
    ARMED = "armed"
    """Holding the pose it found, with little force, until told to start."""
    RUNNING = "running"
    """The policy moves the hand."""
    HOLD = "hold"
    """Holding the pose that was measured when a trial or the trust in it ended."""
    LIMP = "limp"
    """No force."""
    STOPPED = "stopped"
    """Nothing is sent any more, for good."""


class Event(enum.Enum):
    """What changes the state. The first three are a person's alone."""

    ARM = "arm"
    START = "start"
    STOP = "stop"
    HEARD = "every sensor has spoken"
    FINISHED = "the trial is over"
    FAULT = "something is wrong"
    DANGER = "the hand must not even hold"


TRANSITIONS = {
    (State.CONNECT, Event.HEARD): State.CHECK,
    (State.CHECK, Event.FAULT): State.CONNECT,
    (State.CHECK, Event.ARM): State.ARMED,
    (State.ARMED, Event.START): State.RUNNING,
    (State.ARMED, Event.FAULT): State.HOLD,
    (State.RUNNING, Event.FINISHED): State.HOLD,
    (State.RUNNING, Event.FAULT): State.HOLD,
    (State.HOLD, Event.ARM): State.ARMED,
    (State.LIMP, Event.ARM): State.ARMED,
    **{(state, Event.DANGER): State.LIMP for state in State},
    **{(state, Event.STOP): State.STOPPED for state in State},
    (State.CONNECT, Event.DANGER): State.CONNECT,
    (State.CHECK, Event.DANGER): State.CONNECT,
    (State.STOPPED, Event.DANGER): State.STOPPED,
}
"""Every change there is; any other event leaves the state as it is."""


def next_state(state: State, event: Event) -> State:
    """The state after an event."""
    return TRANSITIONS.get((state, event), state)


class Fault(NamedTuple):
    """Something wrong, and what it asks for."""

    name: str
    """Of the kind, for counting."""
    message: str
    """In one line, with figures."""
    event: Event = Event.FAULT


@dataclass(frozen=True)
class Limits:
    """When something counts as wrong. Ages are of values, at the moment of looking."""

    joints_age: float = 0.05
    """Joint angles older than this: hold [s]. They come every 8 ms."""
    joints_lost: float = 0.5
    """Older than this: limp, since no pose is known that could be held [s]."""
    tip_age: float = 1.0
    """A fingertip's marker unseen or frozen for longer: hold [s]. The policy was
    trained on losses of that length (C.2)."""
    markers_age: float = 0.25
    """No markers at all: hold [s]."""
    object_age: float = 0.25
    """The object's pose older: hold [s]."""
    frozen: float = 0.25
    """The very same numbers for longer, from a sensor that keeps speaking, while the
    hand moves: hold [s]."""
    rejected: int = 3
    """So many values of a sensor that cannot be true, within a second: hold."""
    norm_error: float = 0.05
    """Distance of a quaternion's length from 1 that cannot be true."""
    object_distance: float = 0.5
    """Of the object from where it starts; further cannot be true, but below [m]."""
    object_jump: float = 0.03
    """Of the object between two values, beyond what ``object_speed`` explains [m]."""
    object_speed: float = 1.5
    """[m/s]."""
    joint_excess: float = 0.5
    """Beyond a joint's limit, cannot be true [rad]. OpenAI's hand reached 0.35 beyond
    the limits in Shadow's description."""
    base_error: float = 0.003
    """Largest distance of base markers from their places in a rigid fit [m]."""
    tip_error: float = 0.015
    """Of a fingertip from where the joint angles put it [m] ..."""
    tip_error_time: float = 0.5
    """... for so long: hold [s]."""
    set_point_error: float = 0.02
    """Of what the controllers follow from what was sent [rad] ..."""
    foreign_set_points: int = 3
    """... so many times in a second: somebody else commands the hand: hold."""
    check_time: float = 1.0
    """Sensors must agree for so long before the hand may be armed [s]."""
    late_ticks: int = 3
    """So many ticks in a row that begin after the next was due: hold."""
    range_excess: float = 0.05
    """The policy's targets beyond the limits in the robot's description: refuse
    [rad]."""
    margin: float = 0.02
    """Kept from the robot's own limits [rad]."""
    set_points_age: float = 0.5
    """Of what the controllers follow; older: are they running? Hold [s]."""
    armed_force: float = 0.3
    """Share of the controllers' force while armed."""
